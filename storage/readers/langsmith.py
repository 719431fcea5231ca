"""Reader of LangSmith runs: JSONL, a JSON array, API pages (`{runs: [...]}`), and Parquet of the bulk export; a run of
ours is a trace.

The runs of a trace stand anywhere in a file, so they are put by in a temporary file and folded trace by trace: memory
holds one trace, and an index. Nested `child_runs` are taken apart. The conversation is folded from the `llm` runs
(`call_fold`); `tool` runs give results and errors that no later call repeats, and what ran inside one is a sub-agent.
Feedback (`feedback_stats` of the root) gives scores by their average, the first is the outcome; feedback without an
average is in the outcome's detail. Of a run that stands in the file twice the last one counts.

LangChain's serialised objects stay data: `langchain.load` is never called. Not kept apart from the raw record: prompts,
parsers, retrievers, events, and single feedback entries, which LangSmith does not export with runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, BinaryIO

from ..records import Message, Outcome, Rejected, Score, Source, Trajectory
from .call_fold import Fold, Thread
from .call_results import place_results
from .call_runs import Placed, arranged, put_before, trajectory_of, without_calls
from .chat import mapping, number, string, text
from .clock import span
from .encoded import opened
from .json_input import Head, records
from .json_text import BadRecord, wrong_shape
from .langsmith_parquet import is_parquet, parquet_rows
from .langsmith_runs import RunTree, error_of, is_model, is_tool, run_id, time_of
from .message_shapes import messages_of, with_system
from .record_groups import Kept, RecordGroups

_COLUMNS = (b"dotted_order", b"run_type", b"trace_id")
_TREE_KEYS = frozenset(("dotted_order", "trace_id", "parent_run_id", "child_run_ids", "session_id"))
_KINDS = frozenset(["llm", "chat_model", "chain", "tool", "retriever", "prompt", "parser", "embedding"])


class LangSmithReader:
    """Reads LangSmith runs."""

    name = "langsmith"

    def detect(self, head: Head) -> float:
        """0.95 for runs; of a Parquet file whose columns stand behind the first MiB 0.6: no other format is Parquet."""
        if is_parquet(head.data):
            if not head.data.endswith(b"PAR1"):
                return 0.6
            return 0.95 if all(name in head.data for name in _COLUMNS) else 0.0
        found = [record for record in head.records for record in _runs(record)]
        return 0.95 if found and all(_is_run(record) for record in found[:10]) else 0.0

    def read(self, stream: BinaryIO, source: Source) -> Iterator[Trajectory | Rejected]:
        """Yield the main conversation of each trace, then its branches and sub-agents, or what is wrong with it."""
        source = replace(source, format=self.name)
        with RecordGroups() as groups:
            for item in _rows(stream):
                if isinstance(item, Rejected):
                    yield item
                else:
                    yield from _put_by(item, groups)
            for _, runs in groups:
                yield from _trace(runs, source)


def _rows(stream: BinaryIO) -> Iterator[Kept | Rejected]:
    stream.seek(0)
    magic = stream.read(4)
    stream.seek(0)
    if is_parquet(magic):
        yield from parquet_rows(stream)
        return
    for item in records(stream):
        yield item if isinstance(item, Rejected) else Kept(item.value, item.line)


def _runs(value: Any) -> Iterator[Any]:
    """The runs in a record: of a page, and of a run that holds its children."""
    page = mapping(value).get("runs")
    waiting = list(reversed(page)) if isinstance(page, list) and "run_type" not in value else [value]
    while waiting:
        run = waiting.pop()
        children = run.get("child_runs") if isinstance(run, dict) else None
        if isinstance(children, list) and children:
            waiting.extend(reversed(children))
            run = {key: run[key] for key in run if key != "child_runs"}
        yield run


def _is_run(value: Any) -> bool:
    if not isinstance(value, dict) or string(value.get("run_type")) not in _KINDS:
        return False
    return "start_time" in value and bool(_TREE_KEYS & value.keys())


def _put_by(item: Kept, groups: RecordGroups) -> Iterator[Rejected]:
    for run in _runs(item.value):
        try:
            if not isinstance(run, dict) or not run_id(run) or not isinstance(run.get("run_type"), str):
                raise wrong_shape("a run is an object with `id` and `run_type`")
            groups.add(_trace_id(run), run, item.line)
        except BadRecord as error:
            yield Rejected(error.problem(item.line))


def _trace_id(run: Mapping[str, Any]) -> str:
    first = (string(run.get("dotted_order")) or "").partition(".")[0]
    return text(run.get("trace_id")) or first.partition("Z")[2] or run_id(run)


def _trace(runs: Sequence[Kept] | BadRecord, source: Source) -> Iterator[Trajectory | Rejected]:
    if isinstance(runs, BadRecord):
        yield Rejected(runs.problem())
        return
    tree = RunTree(list({run_id(kept.value): kept.value for kept in runs}.values()))
    source = replace(source, line=next((kept.line for kept in runs if kept.value is tree.root), runs[0].line))
    try:
        yield from _trajectories(tree, source)
    except BadRecord as error:
        yield Rejected(error.problem(source.line))


def _trajectories(tree: RunTree, source: Source) -> Iterator[Trajectory]:
    fold = Fold()
    for call in tree.calls():
        fold.take(call)
    without_call = place_results(fold.threads, tree.tool_runs())
    placed = arranged(fold.threads, tree.scopes)
    placed = placed or without_calls(tree.root.get("inputs"), tree.root.get("outputs"))
    _complete_prompt(placed[0].thread, tree)
    taken = [_counts(item.thread, tree) for item in placed[1:]]
    ids: list[str] = []
    made: list[Trajectory] = []
    for index, item in enumerate(placed):
        counts = taken[index - 1] if index else _main_counts(tree, taken)
        record = tree.runs if index == 0 else _child_record(item.thread, tree)
        one = _trajectory(item, record, ids, tree, replace(source, counts=counts))
        made.append(one if index else _with_verdicts(one, tree, without_call))
        ids.append(one.id)
    yield from made


def _trajectory(item: Placed, record: Any, ids: Sequence[str], tree: RunTree, source: Source) -> Trajectory:
    about = {"agent": _agent(item.thread, tree), "extra": _extra(tree)}
    if item.parent is None:
        times = span(time_of(run.get(key)) for run in tree.runs for key in ("start_time", "end_time"))
        about |= dict(zip(("started_at", "ended_at"), times, strict=True))
    return trajectory_of(item, record, ids, source, text(tree.root.get("reference_example_id")), **about)


def _child_record(thread: Thread, tree: RunTree) -> list[Mapping[str, Any]]:
    keys = {call.key for call in thread.calls} | thread.tool_keys.keys()
    return [run for run in tree.runs if run_id(run) in keys]


def _agent(thread: Thread, tree: RunTree) -> str | None:
    named = next((run.get("name") for run in tree.runs if run_id(run) == thread.scope), tree.root.get("name"))
    return string(named)


def _extra(tree: RunTree) -> dict[str, Any]:
    root = tree.root
    extra = {key: root[key] for key in ("name", "tags", "status", "session_id") if root.get(key) not in (None, [], "")}
    metadata = mapping(mapping(opened(root.get("extra"))).get("metadata"))
    about = {key: metadata[key] for key in metadata if not key.startswith(("ls_", "__"))}
    return {"trace_id": _trace_id(root)} | extra | ({"metadata": about} if about else {})


def _counts(thread: Thread, tree: RunTree) -> dict[str, int]:
    own = [run for run in tree.runs if run_id(run) in thread.tool_keys]
    messages = thread.messages[thread.shared :]
    return _said(messages) | {
        "runs": 0,
        "observations": len(thread.calls) + len(own),
        "tool_observations": len(own),
        "assistant_turns": len(thread.calls),
        "rewards": 0,
    }


def _said(messages: Sequence[Message]) -> dict[str, int]:
    return {
        "messages": len(messages),
        "tool_calls": sum(len(message.tool_calls) for message in messages),
        "tool_results": sum(message.role == "tool" for message in messages),
    }


def _main_counts(tree: RunTree, others: Sequence[Mapping[str, int]]) -> dict[str, int]:
    """What the trace has, less what its children have: every run is counted once."""
    own = {
        "runs": 1,
        "observations": len(tree.runs),
        "tool_observations": sum(is_tool(run) for run in tree.runs),
        "assistant_turns": sum(is_model(run) for run in tree.runs),
    }
    return {key: own[key] - sum(counts[key] for counts in others) for key in own}


def _complete_prompt(thread: Thread, tree: RunTree) -> None:
    """The root's own input, where the calls' history lacks all or the system prompt of it."""
    if thread.messages and thread.messages[0].role != "assistant":
        return
    if thread.calls:
        asked = tree.root.get("inputs")
        put_before(thread, with_system(messages_of(asked), asked))


def _with_verdicts(made: Trajectory, tree: RunTree, without_call: int) -> Trajectory:
    root = tree.root
    scores, others = _feedback(mapping(opened(root.get("feedback_stats"))))
    first = next(iter(scores), None)
    error = error_of(root)
    reason = f"error: {error}" if error is not None else made.outcome.exit_reason if made.outcome is not None else None
    unfinished = time_of(root.get("end_time")) is None
    outcome = made.outcome
    if first is not None or others or reason is not None:
        detail = {"feedback": others} if others else {}
        outcome = Outcome(scores[first].value if first is not None else None, first or "reward", reason, detail)
    source = made.source
    if source is not None:
        extra = {**source.extra, "tools_without_call": without_call} if without_call else source.extra
        own = _said(made.messages)
        source = replace(source, extra=extra, counts={**own, **source.counts, "rewards": int(first is not None)})
    return replace(
        made, outcome=outcome, scores=scores, truncated=made.truncated or unfinished or error is not None, source=source
    )


def _feedback(stats: Mapping[str, Any]) -> tuple[dict[str, Score], dict[str, Any]]:
    """(scores by their average, feedback that has none)."""
    scores: dict[str, Score] = {}
    others: dict[str, Any] = {}
    for name in stats:
        given = mapping(stats[name])
        average = given.get("avg")
        value = None if isinstance(average, bool) else number(average, f"feedback {name[:40]!a}")
        if value is None:
            others[name] = stats[name]
        else:
            scores[name] = Score(value, detail={key: given[key] for key in given if key != "avg" and given[key]})
    return scores, others
