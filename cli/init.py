"""`init`: a world, a reward, a log and a configuration to begin with; they work as they are."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .state import State

if TYPE_CHECKING:
    from rich.console import Console

WORLD = """\
import json


class World:  # a counter: put your world in its place
    def __init__(self, total=0):
        self.total = total

    def reset(self, task):
        self.total = 0
        return [{"role": "user", "content": task.prompt}]

    def step(self, action):
        return {"observations": [self.run(call) for call in action.tool_calls], "done": not action.tool_calls}

    def run(self, call):
        by = (call.arguments or {}).get("by") if call.name == "add" else None
        self.total += by if isinstance(by, int) else 0  # what is wrong is answered, never raised
        said = {"total": self.total} if isinstance(by, int) else {"error": "add takes a whole number: by"}
        return {"role": "tool", "tool_call_id": call.id, "name": call.name, "content": json.dumps(said)}

    def fork(self):
        return World(self.total)

    def tools(self):
        parameters = {"type": "object", "properties": {"by": {"type": "integer"}}, "required": ["by"]}
        return [{"type": "function", "function": {"name": "add", "parameters": parameters}}]

    def state(self):
        return {"total": self.total}
"""
REWARD = """\
from ttc_replay import reward


@reward
def on_target(run):
    return float(run.final_state["total"] == run.task.data["metadata"]["target"])
"""
CONFIG = """\
search.env = "./world.py:World"
search.reward = ["./reward.py:on_target"]
search.policy = "scripted" # or your model: litellm, local
search.policy-opt.default = ["Done.", { tool_calls = [{ function = { name = "add", arguments = { by = 2 } } }] }]
"""
LOG = (
    '{"task_id": "seven", "metadata": {"target": 7}, "reward": 0, "messages": ['
    '{"role": "user", "content": "Count to 7."}, '
    '{"role": "assistant", "content": null, "tool_calls": [{"id": "a", "type": "function", '
    '"function": {"name": "add", "arguments": "{\\"by\\": 5}"}}]}, '
    '{"role": "tool", "tool_call_id": "a", "name": "add", "content": "{\\"total\\": 5}"}, '
    '{"role": "assistant", "content": "Done."}]}\n'
)
FILES = {"world.py": WORLD, "reward.py": REWARD, "ttc.toml": CONFIG, "log.jsonl": LOG}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(init)


def init(
    ctx: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="[FOLDER]", help="Where to; made when it is not there.")] = Path(),
) -> None:
    """Write a small world, a reward, a log and a ttc.toml that work. Example: ttc-replay init my-agent."""
    state: State = ctx.obj
    written = write(folder)
    steps = ["ttc-replay ingest log.jsonl", "ttc-replay search", "ttc-replay check-plugin ./world.py:World"]
    steps = steps if folder == Path() else [f"cd {folder}", *steps]
    document = {"v": 1, "files": [str(path) for path in written], "next": steps}
    state.emit(document, lambda console: _show(console, written, steps))


def write(folder: Path) -> list[Path]:
    """Write the files, all or none. Raises UsageError when one of them is there, or cannot be written."""
    from ..storage.errors import UsageError

    paths = [folder / name for name in FILES]
    there = next((path for path in paths if os.path.lexists(path)), None)
    if there is not None:
        raise UsageError("is there already: nothing was written", place=str(there), hint="another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in paths:
            with path.open("x", encoding="utf-8") as file:
                file.write(FILES[path.name])
    except OSError as error:
        raise UsageError(f"cannot be written: {error.strerror}", place=str(folder)) from error
    return paths


def _show(console: Console, written: list[Path], steps: list[str]) -> None:
    from .render import clean

    console.print(f"wrote {', '.join(clean(path) for path in written)}")
    for step in steps:
        console.print(f"next: {clean(step)}")
