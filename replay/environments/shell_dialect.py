"""How agents write commands, and how they are shown what came of them: mini-swe-agent, SWE-agent, and plain calls.

A dialect is `calls` (a tool `bash`, results as tool messages) or `text` (the command in a fenced block, results as user
messages), as the record has it.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ...storage.codec import action_key
from ...storage.errors import UsageError
from ...storage.records import Message, ToolCall, Trajectory
from .shell_sandbox import Result

DIALECTS = ("auto", "plain", "mini-swe-agent", "swe-agent")
BASH_TOOLS = ("bash", "execute_bash", "shell", "run_command", "terminal")
SUBMIT = "submit"
NO_COMMAND = "No command was executed: give exactly one command, in one fenced code block."
_SUBMITTED = ("COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT", "MINI_SWE_AGENT_FINAL_OUTPUT")
_FENCED = re.compile(r"```(?:mswea_bash_command|bash|sh|shell)?[ \t]*\n(.*?)\n?```", re.DOTALL)
_COMMAND_TAG = re.compile(r"<command>\n?(.*?)\n?</command>", re.DOTALL)
_PROMPT_LINE = "\n(Current directory: "
_MINI_CHARACTERS, _SWE_CHARACTERS = 10_000, 100_000
_TOO_LONG = "The output was too long: ask for less of it, or write it to a file and search there."
_SILENT = "Your command ran successfully and did not produce any output."


@dataclass(frozen=True, slots=True)
class Ask:
    """One thing that an action asks for. `command` None: nothing that can be run, `refusal` says why."""

    command: str | None
    call: ToolCall | None = None
    refusal: str = ""
    submits: bool = False


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one record speaks. `recorded`: the command lines of its actions, by key. `carries`: a command's shell leaves
    folder and variables to the next. `speaks`: a user answers when the agent calls nothing."""

    name: str = "plain"
    text: bool = False
    prompts: bool = False
    carries: bool = True
    speaks: bool = False
    recorded: Mapping[str, str] = field(default_factory=dict)

    def asks(self, action: Message) -> list[Ask]:
        """What an action asks for, in order; [] when it only speaks."""
        if action.tool_calls:
            return [self._called(action, call) for call in action.tool_calls]
        command = self.recorded.get(action_key(action))
        if command is None and not self.text:
            return []
        command = command or _written(action.text, self.name)
        if command is None:
            return [Ask(None, refusal=NO_COMMAND)]
        return [Ask(command, submits=self.name == "swe-agent" and command.strip() == SUBMIT)]

    def _called(self, action: Message, call: ToolCall) -> Ask:
        if call.arguments is None:
            return Ask(None, call, "Error: the arguments are not a JSON object")
        if call.name == SUBMIT:
            return Ask(SUBMIT, call, submits=True)
        command = call.arguments.get("command", call.arguments.get("cmd"))
        if call.name in BASH_TOOLS:
            known = isinstance(command, str)
            return Ask(command if known else None, call, "" if known else "Error: `command` is not a text")
        if self.name != "swe-agent":
            return Ask(None, call, f"Error: there is no tool {call.name}")
        line = self.recorded.get(action_key(action)) if len(action.tool_calls) == 1 else None
        return Ask(line or shlex.join([call.name, *map(str, call.arguments.values())]), call)

    def answer(self, ask: Ask, result: Result | None, folder: str) -> Message:
        """What the agent is shown. `folder`: where the shell is now."""
        shown = ask.refusal if result is None else self._shown(result, folder)
        failed = result is None or result.code != 0
        if ask.call is None:
            return Message("user", shown, is_error=failed)
        return Message("tool", shown, tool_call_id=ask.call.id, name=ask.call.name, is_error=failed)

    def _shown(self, result: Result, folder: str) -> str:
        said = result.output
        if result.killed is not None:
            said += ("" if said.endswith("\n") or not said else "\n") + f"[killed: {result.killed}]\n"
        if self.name == "mini-swe-agent":
            return f"<returncode>{result.code}</returncode>\n{_mini(said)}"
        if self.name == "swe-agent":
            return _swe(said, folder, prompts=self.prompts)
        return said + (f"[exit code {result.code}]\n" if result.code else "")

    def ends(self, ask: Ask, result: Result | None) -> bool:
        """Whether the run is over with it: `submit`, or mini-swe-agent's word on the first line."""
        if ask.submits:
            return True
        if result is None or result.code or self.name == "swe-agent":
            return False
        first = result.output.lstrip().split("\n", 1)[0]
        return first.strip() in _SUBMITTED


def _mini(said: str) -> str:
    if len(said) < _MINI_CHARACTERS:
        return f"<output>\n{said}</output>"
    half = _MINI_CHARACTERS // 2
    elided = len(said) - _MINI_CHARACTERS
    head = f"<warning>\n{_TOO_LONG}\n</warning>\n<output_head>\n{said[:half]}\n</output_head>\n"
    middle = f"<elided_chars>\n{elided} characters elided\n</elided_chars>\n"
    return f"{head}{middle}<output_tail>\n{said[-half:]}\n</output_tail>"


def _swe(said: str, folder: str, *, prompts: bool) -> str:
    said = said[:_SWE_CHARACTERS]
    if prompts:
        return f"{said.rstrip(chr(10))}\n(Open file: n/a)\n(Current directory: {folder})\nbash-$"
    return f"OBSERVATION:\n{said}" if said.strip() else _SILENT


def _written(said: str, name: str) -> str | None:
    """The command in a text: mini-swe-agent asks for exactly one block, SWE-agent takes the last."""
    found: Sequence[str] = _FENCED.findall(said)
    if name == "swe-agent":
        found = _COMMAND_TAG.findall(said) or found
        return found[-1] if found else None
    return found[0] if len(found) == 1 else None


def dialect_of(record: Trajectory | None, name: str) -> Dialect:
    """The dialect of a record; `name` other than `auto` is taken for it. Raises UsageError."""
    if name not in DIALECTS:
        raise UsageError(f"dialect = {name!r}", hint=f"one of: {', '.join(DIALECTS)}")
    if name == "auto":
        known = record.source.format if record is not None and record.source is not None else "plain"
        name = known if known in DIALECTS else "plain"
    if record is None:
        return Dialect(name, carries=name != "mini-swe-agent")
    calls = any(step.action.tool_calls for step in record.steps)
    heard = [message for step in record.steps for message in step.observations]
    return Dialect(
        name,
        text=name != "plain" and not calls and bool(record.steps),
        prompts=any(_PROMPT_LINE in message.text for message in (*record.prompt, *heard)),
        carries=name != "mini-swe-agent",
        speaks=any(message.role == "user" for message in heard),
        recorded=_recorded(record),
    )


def _recorded(record: Trajectory) -> dict[str, str]:
    """The command lines that a reader found beside the actions."""
    lines = record.source.extra.get("actions") if record.source is not None else None
    if not isinstance(lines, list) or len(lines) != len(record.steps):
        return {}
    found = {}
    for step, line in zip(record.steps, lines, strict=True):
        only = line[0] if isinstance(line, list) and len(line) == 1 else line
        if isinstance(only, str) and only.strip():
            found[action_key(step.action)] = only
    return found
