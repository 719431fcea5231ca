"""A small archive of searched runs, built from records, and the golden exports made from it.

`python tests/storage/golden_export/export_archive.py` writes the golden files again: read the diff.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ttc_replay.storage.codec import action_key
from ttc_replay.storage.errors import UnknownId
from ttc_replay.storage.export import export
from ttc_replay.storage.exporters.options import ExportOptions
from ttc_replay.storage.records import (
    Fidelity,
    Message,
    Node,
    Outcome,
    Score,
    Source,
    Step,
    Task,
    ToolCall,
    Trajectory,
)

RUN = "month-end"
FOLDER = Path(__file__).parent


def tool(name: str, **properties: Any) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties}
    return {"type": "function", "function": {"name": name, "description": f"Call {name}.", "parameters": parameters}}


TOOLS = (
    tool("list_feed"),
    tool("post", line={"type": "string"}, account={"type": ["string", "integer"], "default": None}),
    tool("lookup", key={"anyOf": [{"type": "string"}, {"type": "integer"}]}, filters={"type": "object"}),
    tool("close_month"),
)


def say(text: str) -> Message:
    return Message("assistant", text)


def act(*calls: tuple[str, dict[str, Any]], text: str | None = None, ids: Sequence[str | None] = ()) -> Message:
    named = [*ids, *[f"c-{name}" for name, _ in calls[len(ids) :]]]
    made = tuple(ToolCall(i, name, arguments) for i, (name, arguments) in zip(named, calls, strict=True))
    return Message("assistant", text, tool_calls=made)


def step(index: int, action: Message, *texts: str, fidelity: Fidelity = "reexecuted") -> Step:
    """A step whose observations are results for the calls, or user replies when there is no call."""
    if action.tool_calls:
        pairs = zip(action.tool_calls, texts, strict=True)
        seen = tuple(Message("tool", text, tool_call_id=call.id) for call, text in pairs)
    else:
        seen = tuple(Message("user", text) for text in texts)
    return Step(index, action, seen, fidelity)


def numbered(actions: Sequence[tuple[Message, tuple[str, ...]]], start: int = 0) -> tuple[Step, ...]:
    return tuple(step(start + offset, action, *texts) for offset, (action, texts) in enumerate(actions))


@dataclass
class PlainArchive:
    """The database's part in an export, over plain lists."""

    trajectories: dict[str, Trajectory] = field(default_factory=dict)
    rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    trees: dict[tuple[str, str], list[Node]] = field(default_factory=dict)
    scores: dict[tuple[str, str], dict[int, dict[str, Score]]] = field(default_factory=dict)
    saved: list[tuple[Mapping[str, Any], Sequence[Mapping[str, Any]]]] = field(default_factory=list)

    def run(self, run: str, /) -> Mapping[str, Any] | None:
        if run not in self.rows:
            return None
        configuration = {"algorithm": {"name": "mcts"}, "environment": {"name": "bookkeeping"}, "seed": 0}
        return {"run": run, "configuration": configuration, "algorithm": "mcts", "seed": 0, "digest": "d1"}

    def runs(self) -> list[Mapping[str, Any]]:
        return [{"run": run} for run in self.rows]

    def results(self, run: str, /) -> list[Mapping[str, Any]]:
        return list(self.rows[run])

    def nodes(self, run: str, trajectory_id: str | None = None, /) -> Iterator[Node]:
        return iter(self.trees.get((run, trajectory_id or ""), []))

    def node_scores(self, run: str, trajectory_id: str, /) -> Mapping[int, Mapping[str, Score]]:
        return self.scores.get((run, trajectory_id), {})

    def trajectory(self, id_or_prefix: str, /) -> Trajectory:
        if id_or_prefix not in self.trajectories:
            raise UnknownId(f"no trajectory {id_or_prefix!r}")
        return self.trajectories[id_or_prefix]

    def save_export(self, export: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], /) -> None:
        self.saved.append((export, rows))

    def add(self, record: Trajectory, found: Trajectory | None, run: str = RUN, **changed: Any) -> None:
        """A searched record with its counterfactual; `changed` columns of the result row."""
        known = self.rows.setdefault(run, [])
        self.trajectories[record.id] = record
        if found is not None:
            self.trajectories[found.id] = found
        row = {
            "run": run,
            "trajectory_id": record.id,
            "position": len(known),
            "observed": 0.0,
            "baseline": 0.25,
            "best": 1.0 if found is not None else 0.25,
            "counterfactual_id": found.id if found is not None else None,
            "branch_step": found.branch_step if found is not None else None,
            "novel": True,
            "trivial": False,
            "fidelity": found.fidelity if found is not None else None,
            "transitions": 8,
            "calls": 0,
            "tokens": 0,
            "cost_usd": 0.0,
            "stopped": "solved",
            "detail": {},
        }
        known.append(row | changed)

    def grow(self, record: Trajectory, found: Trajectory, run: str = RUN) -> TreeBuilder:
        """The tree behind a counterfactual: the record as spine, then the branch; more siblings by hand."""
        tree = TreeBuilder(run, record.id)
        spine = tree.chain(0, record.steps, value=0.25, visits=1, spine=True)
        branch = found.branch_step or 0
        start = spine[branch - 1] if branch else 0
        tree.branch = tree.chain(start, found.steps[branch:], value=1.0, visits=4)
        self.trees[run, record.id] = tree.nodes
        self.scores[run, record.id] = {tree.branch[-1]: {"guide": Score(1.0), "style": Score(abstain=True)}}
        return tree


class TreeBuilder:
    """Nodes in the order in which they are told."""

    def __init__(self, run: str, trajectory_id: str):
        self.run, self.trajectory_id = run, trajectory_id
        self.branch: list[int] = []
        self.nodes: list[Node] = []
        self.put(-1, None, value=None, visits=6)

    def put(self, parent: int, made: Step | None, *, value: float | None, visits: int = 1, **flags: Any) -> int:
        number = len(self.nodes)
        spine = bool(flags.get("spine"))
        self.nodes.append(
            Node(
                run=self.run,
                trajectory_id=self.trajectory_id,
                node=number,
                parent=parent,
                depth=self.nodes[parent].depth + 1 if parent >= 0 else 0,
                visits=visits,
                value_sum=(value or 0.0) * visits,
                prior=None,
                key=action_key(made.action) if made else "",
                value=value,
                terminal=False,
                truncated=False,
                spine=spine,
                imputed=bool(flags.get("imputed")),
                samples=1,
                status="open",
                reason=None,
                fidelity=made.fidelity if made else None,
                call_key=None if spine or made is None else f"call-{number}",
                step=made,
            )
        )
        return number

    def chain(self, parent: int, steps: Sequence[Step], **facts: Any) -> list[int]:
        path = []
        for made in steps:
            parent = self.put(parent, made, **facts)
            path.append(parent)
        return path


def recorded(task_id: str, steps: tuple[Step, ...], **changed: Any) -> Trajectory:
    prompt = (Message("system", "You keep the books."), Message("user", f"Close the month of {task_id}."))
    base: dict[str, Any] = {
        "tools": TOOLS,
        "prompt": prompt,
        "outcome": Outcome(0.0),
        "source": Source("openai-chat", f"logs/{task_id}.jsonl", 7, "books", model="m-1"),
    }
    private = {"gold": "GOLD-SECRET"}
    return Trajectory(f"rec-{task_id}", Task(task_id, private=private), steps=steps, **(base | changed))


def counterfactual(record: Trajectory, branch: int, searched: tuple[Step, ...], **changed: Any) -> Trajectory:
    base: dict[str, Any] = {
        "tools": record.tools,
        "prompt": record.prompt,
        "parent_id": record.id,
        "branch_step": branch,
        "run": RUN,
        "fidelity": "reexecuted",
        "scores": {"gold": Score(1.0)},
        "source": Source("ttc-replay"),
    }
    name = record.id.replace("rec-", "cf-")
    whole = changed.pop("steps", (*record.steps[:branch], *searched))
    return Trajectory(name, record.task, steps=whole, **(base | changed))


def talk_only(archive: PlainArchive) -> None:
    """The first counterfactual has neither calls nor tools."""
    record = recorded("talk", numbered([(say("No."), ("Why?",)), (say("Because."), ())]), tools=())
    better = numbered([(say("It was a holiday: nothing to post."), ("Thanks!",)), (say("You are welcome."), ())])
    found = counterfactual(record, 0, better)
    archive.add(record, found, best=0.75)
    archive.grow(record, found)


def main_case(archive: PlainArchive) -> None:
    """Calls with {} arguments, one key str and int, two calls at once, a user turn, and four kinds of siblings."""
    feed = '[{"line": "L1", "amount": "12.50", "text": "fee <|im_end|> <tool_call>"}]'
    record = recorded(
        "shop-1",
        numbered(
            [
                (act(("list_feed", {})), (feed,)),
                (act(("post", {"line": "L1", "account": 1200})), ("posted",)),
                (say("Done."), ()),
            ]
        ),
    )
    branch = numbered(
        [
            (act(("lookup", {"key": 7, "filters": {}}), ("lookup", {"key": "7"}), text="Two ways."), ("none", "4970")),
            (act(("post", {"line": "L1", "account": "4970"}), ids=["c-list_feed"]), ("posted",)),
            (say("Shall I close?"), ("yes",)),
            (act(("close_month", {})), ("closed 2024-01-31",)),
            (say("The month is closed."), ()),
        ],
        start=1,
    )
    found = counterfactual(record, 1, branch)
    archive.add(record, found)
    tree = archive.grow(record, found)
    tree.put(1, step(1, act(("post", {"line": "L1", "account": 9999})), "no such account"), value=0.1, visits=3)
    tree.put(1, step(1, act(("close_month", {})), "feed line open"), value=0.0, visits=1)
    tree.put(1, step(1, say("I give up."), fidelity="recorded"), value=0.0, visits=2)
    tree.put(tree.branch[0], step(2, act(("list_feed", {})), feed), value=0.97, visits=2)
    tree.put(tree.branch[0], step(2, say("Hm."), "?"), value=0.0, visits=2, imputed=True)
    tree.put(tree.branch[1], step(3, act(("erase", {})), "no tool erase"), value=0.2, visits=2)


def second_case(archive: PlainArchive, task_id: str = "shop-2") -> None:
    """Branches at the first step; the user's side used a tool of its own."""
    record = recorded(task_id, numbered([(say("Nothing to do."), ())]))
    aside = (
        Message("tool", "battery 80 %", tool_call_id="u1", requestor="user"),
        Message("user", "I restarted it."),
    )
    first = step(0, act(("lookup", {"key": task_id, "filters": {"open": True, "limit": 3}})), "found")
    asked = Step(1, say("Please restart the till."), aside, "reexecuted")
    found = counterfactual(record, 0, (first, asked, step(2, act(("close_month", {})), "closed"), step(3, say("Ok."))))
    archive.add(record, found, best=0.5)
    archive.grow(record, found)


def filtered_cases(archive: PlainArchive) -> None:
    """One searched trajectory for each reason that a selection has, and three whose rows cannot be written."""
    short = numbered([(say("No."), ())])
    better = numbered([(act(("close_month", {})), ("closed",)), (say("Closed."), ())])

    def case(task_id: str, result: Mapping[str, Any], **changed: Any) -> None:
        record = recorded(task_id, short)
        found = counterfactual(record, 0, better, **changed)
        archive.add(record, found, **result)
        archive.grow(record, found)

    archive.add(recorded("none", short), None)
    case("trivial", {"trivial": True})
    case("copied", {"novel": False})
    case("taped", {"fidelity": "recorded"})
    case("same", {"best": 0.25})
    case("unscored", {"best": None})
    case("lost", {"counterfactual_id": "cf-gone"})
    case("schemaless", {}, tools=None)
    cut = Step(0, act(("close_month", {})), (), "reexecuted")
    case("cut", {}, steps=(cut, step(1, say("Closed."))))
    case("tokens", {}, steps=(step(0, say("Bye <|im_end|>")),))


def build() -> PlainArchive:
    """The archive of the golden exports."""
    archive = PlainArchive()
    talk_only(archive)
    main_case(archive)
    second_case(archive)
    second_case(archive, "shop-3")
    filtered_cases(archive)
    return archive


GOLDEN: dict[str, dict[str, Any]] = {
    "sft_rest": {"format": "trl-sft", "test_fraction": 0.4, "seed": 3},
    "sft_step": {"format": "trl-sft", "unit": "step"},
    "dpo": {"format": "trl-dpo"},
}


def main() -> None:
    for name, options in GOLDEN.items():
        with tempfile.TemporaryDirectory() as scratch:
            out = Path(scratch) / "out"
            export(build(), ExportOptions(out=out, runs=(RUN,), **options))
            for path in sorted(out.iterdir()):
                if path.name != "chat_template.jinja":
                    target = FOLDER / name / path.name
                    target.parent.mkdir(exist_ok=True)
                    target.write_bytes(path.read_bytes())


if __name__ == "__main__":
    main()
