"""The contracts of algorithms, readers and exporters, as far as they can be checked without a search or an archive."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import search
from ..storage.codec import messages_to_dicts, step_to_dict
from ..storage.exporters.base import Archive, Candidate, Dropped, Row
from ..storage.exporters.options import ExportOptions
from ..storage.readers.base import CLAIMED
from ..storage.readers.json_input import read_head
from ..storage.records import Message, Node, Rejected, Score, Source, Step, Task, ToolCall, Trajectory
from .contract_checks_base import Check, Checking, Said, brief, failed, json_of, passed, run_checks, skipped

BUDGET = 40
DEPTH = 3
FOREIGN = (b"", b"\x00\x01\x02", b"not JSON at all\n", b'{"a": 1}\n{"a": 2}\n', b"[" * 300, b"[]")
"""What no log format of anybody is; a reader must neither claim it nor fail on it."""


# -- algorithms --------------------------------------------------------------------------------------------------------


def check_algorithm(algorithm: search.Algorithm) -> list[Check]:
    """Play a small tree of digits with it: what it asks, whether it repeats itself, what a second tell does."""
    checks: list[tuple[str, Checking]] = [
        ("asks", _asks),
        ("searches", _searches),
        ("deterministic", _same_tree),
        ("stateless", _stateless),
        ("tell-twice", _tell_twice),
        ("failures", _failures),
    ]
    return asyncio.run(run_checks(algorithm, checks, needed=("asks", "searches")))


def _expand(state: tuple[int, ...], count: int, exclude: tuple[str, ...]) -> list[Any]:
    """Three digits at each level; an end is worth the share of ones."""
    digits = [digit for digit in range(3) if str(digit) not in exclude][:count]
    deep = len(state) + 1 == DEPTH
    value = [(*state, digit).count(1) / DEPTH for digit in digits]
    return [
        (str(digit), (*state, digit), worth if deep else None, deep, 1 / 3)
        for digit, worth in zip(digits, value, strict=True)
    ]


def _found(algorithm: search.Algorithm, seed: int = 0, concurrency: int = 1) -> search.Found[tuple[int, ...]]:
    return search.run(algorithm, (), _expand, BUDGET, concurrency, seed=seed, width=4)


def _asks(algorithm: search.Algorithm) -> Said:
    tree = search.Tree(seed=0)
    for wanted in (0, 1, 3):
        asks = algorithm.ask(tree, wanted)
        if len(asks) > wanted:
            return failed(f"asked for {wanted}, opened {len(asks)}", "at most k asks")
        for ask in asks:
            if not 0 <= ask.node < len(tree) or ask.count < 1:
                return failed(f"{ask}: no such node, or no child wanted")
            algorithm.tell(tree, ask.id, [search.Child(key=f"{ask.id}", terminal=True, value=0.5)])
    return passed("at most k, at nodes that are there")


def _searches(algorithm: search.Algorithm) -> Said:
    tree = _found(algorithm)
    if len(tree) == 1:
        return failed("it made no child of the root", "ask(tree, k) opens asks until nothing is left")
    ends = [float(tree.value[node] or 0.0) for node in range(len(tree)) if tree.terminal[node]]
    best = f", the best end {max(ends):.3g} of 1" if ends else ", no end reached"
    return passed(f"{tree.transitions} of {BUDGET} transitions{best}")


def _rows(tree: search.Tree) -> list[Any]:
    return [[tree.parent[node], tree.key[node], tree.visits[node], tree.value_sum[node]] for node in range(len(tree))]


def _same_tree(algorithm: search.Algorithm) -> Said:
    first = _rows(_found(algorithm, seed=1))
    if first != _rows(_found(algorithm, seed=1)):
        return failed("the same seed gave another tree", "all randomness comes from tree.seed and the tree")
    if first != _rows(_found(algorithm, seed=1, concurrency=3)):
        return failed("with more workers it gave another tree", "the tree must not depend on timing")
    return passed("the same tree again, also with three workers")


def _stateless(algorithm: search.Algorithm) -> Said:
    alone = _rows(_found(algorithm, seed=2))
    _found(algorithm, seed=3)
    same = alone == _rows(_found(algorithm, seed=2))
    return (
        passed("other trees leave no trace")
        if same
        else failed("another tree changed this one", "state is in the tree")
    )


def _tell_twice(algorithm: search.Algorithm) -> Said:
    tree = search.Tree(seed=0)
    asks = algorithm.ask(tree, 1)
    if not asks:
        return skipped("it asked nothing")
    children = [search.Child(key="a", value=0.5, terminal=True)]
    first = list(algorithm.tell(tree, asks[0].id, children))
    rows = _rows(tree)
    again = list(algorithm.tell(tree, asks[0].id, children))
    same = first == again and rows == _rows(tree)
    return passed("harmless") if same else failed(f"told twice: {first}, then {again}", "a resumed run tells again")


def _failures(algorithm: search.Algorithm) -> Said:
    tree = search.Tree(seed=0)
    for _ in range(50):
        asks = algorithm.ask(tree, 1)
        if not asks:
            return passed("failed expansions end the search")
        algorithm.tell(tree, asks[0].id, [], failed="this always fails")
    return failed("after 50 failed expansions it still asks", "give a node up")


# -- readers -----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class ReaderBench:
    """A reader, and the bytes of a log of its format, if there is one."""

    reader: Any
    log: bytes | None = None


def check_reader(reader: Any, log: bytes | None = None) -> list[Check]:
    """Check a log reader on what is foreign to it, and on `log`, a file of its format."""
    checks: list[tuple[str, Checking]] = [
        ("name", _name),
        ("detect", _detect),
        ("foreign", _foreign),
        ("reads", _reads),
        ("repeats", _repeats),
    ]
    return asyncio.run(run_checks(ReaderBench(reader, log), checks))


def _name(bench: Any) -> Said:
    name = getattr(getattr(bench, "reader", bench), "name", None)
    return passed(str(name)) if isinstance(name, str) and name else failed(f"name is {name!r}", "a text")


def _detect(bench: ReaderBench) -> Said:
    for data in FOREIGN:
        sure = float(bench.reader.detect(read_head(io.BytesIO(data))))
        if not 0.0 <= sure <= 1.0 or (sure >= CLAIMED and data not in (b"[]",)):
            return failed(f"{sure} sure of {data[:30]!r}", "0 to 1 from the content; below 0.5 for what is foreign")
    if bench.log is None:
        return passed("claims nothing foreign")
    sure = float(bench.reader.detect(read_head(io.BytesIO(bench.log))))
    return passed(f"{sure:.2f} sure of the log") if sure >= CLAIMED else failed(f"only {sure:.2f} sure of the log")


def _items(bench: ReaderBench, data: bytes) -> list[Any]:
    return list(bench.reader.read(io.BytesIO(data), Source(str(bench.reader.name), "check")))


def _foreign(bench: ReaderBench) -> Said:
    for data in FOREIGN:
        for item in _items(bench, data):
            if not isinstance(item, (Trajectory, Rejected)):
                return failed(f"of {data[:30]!r} it yields {brief(item)}", "a Trajectory, or Rejected in its place")
    return passed(f"{len(FOREIGN)} foreign files: nothing raised")


def _reads(bench: ReaderBench) -> Said:
    if bench.log is None:
        return skipped("no log: --log FILE")
    items = _items(bench, bench.log)
    runs = [item for item in items if isinstance(item, Trajectory)]
    for run in runs:
        json_of([messages_to_dicts(run.prompt), [step_to_dict(step) for step in run.steps]])
        if [step.index for step in run.steps] != list(range(len(run.steps))):
            return failed(f"trajectory {run.id[:12]}: steps are not numbered from 0")
    rejected = len(items) - len(runs)
    if not runs:
        return failed(f"no trajectory, {rejected} rejected")
    return passed(f"{len(runs)} trajectories, {sum(len(run.steps) for run in runs)} steps, {rejected} rejected")


def _repeats(bench: ReaderBench) -> Said:
    if bench.log is None:
        return skipped("no log: --log FILE")
    first, second = ([item.id for item in _items(bench, bench.log) if isinstance(item, Trajectory)] for _ in range(2))
    if len(set(first)) < len(first):
        return failed("two trajectories of one id", "the id is a hash of format and record")
    return (
        passed("the same ids again") if first == second else failed("read again, other ids", "ids follow from content")
    )


# -- exporters ---------------------------------------------------------------------------------------------------------


def check_exporter(exporter: Any) -> list[Check]:
    """Check a dataset format on an empty selection and on one made-up counterfactual."""
    checks: list[tuple[str, Checking]] = [("name", _name), ("columns", _columns), ("empty", _empty), ("rows", _one_row)]
    return asyncio.run(run_checks(exporter, checks, needed=("columns",)))


def _columns(exporter: Any) -> Said:
    for name in ("columns", "units"):
        given = getattr(exporter, name, None)
        if not isinstance(given, tuple) or not given or not all(isinstance(item, str) for item in given):
            return failed(f"{name} is {given!r}", "a tuple of texts")
    return passed(", ".join(exporter.columns))


def _empty(exporter: Any) -> Said:
    rows = list(exporter.rows(_Selection(_options(exporter), [])))
    return passed() if not rows else failed(f"of nothing it makes {brief(rows)}")


def _one_row(exporter: Any) -> Said:
    said: list[str] = []
    rows: list[Any] = []
    for _ in range(2):
        rows = list(exporter.rows(_Selection(_options(exporter), [_candidate()])))
        for row in rows:
            if not isinstance(row, (Row, Dropped)):
                return failed(f"yields {brief(row)}", "a Row, or Dropped in its place")
            if isinstance(row, Row) and set(row.columns) != set(exporter.columns):
                return failed(f"a row of {sorted(row.columns)}", f"columns are {sorted(exporter.columns)}")
        said.append(json_of([dict(row.columns) if isinstance(row, Row) else row.reason for row in rows]))
    if said[0] != said[1]:
        return failed("the same selection, other rows", "an export is the same byte for byte")
    return passed(f"{len(rows)} rows or drops of one counterfactual")


def _options(exporter: Any) -> ExportOptions:
    return ExportOptions(str(exporter.name), Path("check"), runs=("check",))


def _candidate() -> Candidate:
    """A record that said the wrong thing, and a counterfactual that called the tool first."""
    task, prompt = Task("check", "Count to 3."), (Message("user", "Count to 3."),)
    call = Message("assistant", "", tool_calls=(ToolCall("call_1", "add", {"by": 3}),))
    answer = Message("tool", '{"total": 3}', tool_call_id="call_1", name="add")
    bad, good = Step(0, Message("assistant", "Done.")), Step(0, call, (answer,), fidelity="snapshot")
    last = Step(1, Message("assistant", "Three."), fidelity="snapshot")
    tool = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}
    record = Trajectory("check-record", task, (tool,), prompt, (bad,))
    found = Trajectory(
        "check-found", task, (tool,), prompt, (good, last), parent_id=record.id, branch_step=0, run="check"
    )
    result = {"trajectory_id": record.id, "counterfactual_id": found.id, "best": 1.0, "baseline": 0.0, "observed": 0.0}
    result |= {"novel": True, "trivial": False, "fidelity": "snapshot", "branch_step": 0}
    return Candidate("check", 1.0, result, record, found)


@dataclass(slots=True)
class _Nothing:
    """An archive in which nothing is stored but the one run."""

    candidates: Sequence[Candidate]

    def run(self, run: str, /) -> Mapping[str, Any] | None:
        return {"run": run}

    def runs(self) -> list[Mapping[str, Any]]:
        return [{"run": "check"}]

    def results(self, run: str, /) -> list[Mapping[str, Any]]:
        return [candidate.result for candidate in self.candidates]

    def nodes(self, run: str, trajectory_id: str | None = None, /) -> Iterator[Node]:
        return iter(())

    def node_scores(self, run: str, trajectory_id: str, /) -> Mapping[int, Mapping[str, Score]]:
        return {}

    def trajectory(self, id_or_prefix: str, /) -> Trajectory:
        return self.candidates[0].record

    def save_export(self, export: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], /) -> Any:
        return None


@dataclass(slots=True)
class _Selection:
    options: ExportOptions
    candidates: Sequence[Candidate]
    archive: Archive = field(init=False)

    def __post_init__(self) -> None:
        self.archive = _Nothing(self.candidates)

    def __iter__(self) -> Iterator[Candidate]:
        return iter(self.candidates)
