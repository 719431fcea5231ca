"""The spans of one run (a trace, or the traces of one session) as trajectories.

The main trajectory holds the conversation of the outermost agent. Sub-agents, branches and continuations are children
of it. Every span is in the raw record of exactly one of them: of the conversation of the agent around it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..records import Links, Message, Outcome, Rejected, Score, Source, Step, Task, ToolSchema, Trajectory, Usage
from .base import identify
from .chat import first_user_text, prompt_id, string
from .flat_attributes import indexed
from .json_text import MAX_STORED_BYTES, NO_TRAJECTORIES, BadRecord, too_long
from .otlp_fields import sampling_of, tools_of
from .otlp_names import TOOL_INDEXED, TOOL_VALUES, first, first_of
from .otlp_scores import Scores
from .otlp_spans import Span, iso
from .otlp_steps import ToolRuns, conversation
from .otlp_threads import Thread
from .otlp_tree import Tree, owners_of, threads_of, unique
from .talk import total
from .tool_shapes import tools_together

_CUT = ("length", "max_tokens", "MAX_TOKENS", "max_output_tokens")
RawOf = Callable[[list[Span], bool, frozenset[str]], Any]
"""The raw record of some spans of a run: whether they are the main trajectory's, and the ids of those whose inputs are
to be left out, because a later call repeats them."""


@dataclass(slots=True)
class Run:
    """What belongs to one run, and what is said of it beside its spans (by MLflow): scores of it and of its spans,
    expectations (`private`), tags, usage.
    """

    spans: list[Span]
    session: str | None = None
    verdicts: dict[str, Score] = field(default_factory=dict)
    span_verdicts: dict[str, dict[str, Score]] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)
    private: Mapping[str, Any] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    usage: Usage | None = None


def trajectories(run: Run, source: Source, raw_of: RawOf) -> Iterator[Trajectory | Rejected]:
    """The trajectories of a run, each behind its parent; one `Rejected` for a run in which no model was called."""
    line = min((span.line for span in run.spans if span.line is not None), default=source.line)
    source = replace(source, line=line)
    try:
        yield from _trajectories(run, source, raw_of)
    except BadRecord as error:
        yield Rejected(error.problem(line))


def _trajectories(run: Run, source: Source, raw_of: RawOf) -> Iterator[Trajectory | Rejected]:
    spans = unique(sorted(run.spans, key=lambda span: (span.start or 0, span.id)))
    if len(spans) < len(run.spans):
        run.extra["repeated_spans"] = len(run.spans) - len(spans)
    tree = Tree(spans)
    threads = threads_of(spans, tree)
    if not threads:
        names = ", ".join(sorted({span.trace for span in spans})[:3])
        raise BadRecord(NO_TRAJECTORIES, f"no call of a model in trace {names} ({len(spans)} spans)")
    owned: dict[int, list[Span]] = {}
    owners = owners_of(spans, tree, threads)
    for span in spans:
        owned.setdefault(owners[span.id], []).append(span)
    scores = Scores(spans, tree, run.span_verdicts)
    tools = ToolRuns([span for span in spans if span.kind == "tool"], tree.scopes)
    made: dict[int, Trajectory] = {}
    for number, thread in enumerate(threads):
        maker = _Maker(run, thread, owned[number], tools, scores, tree, main=number == 0)
        parent = made.get(id(thread.parent)) if thread.parent is not None else None
        try:
            made[id(thread)] = maker.trajectory(source, raw_of, parent)
        except BadRecord as error:  # one that cannot be stored does not hide the others
            yield Rejected(error.problem(source.line))
        else:
            yield made[id(thread)]


@dataclass(slots=True)
class _Maker:
    """Makes one trajectory of a thread."""

    run: Run
    thread: Thread
    spans: list[Span]
    tools: ToolRuns
    scores: Scores
    tree: Tree
    main: bool

    def trajectory(self, source: Source, raw_of: RawOf, parent: Trajectory | None) -> Trajectory:
        """The trajectory. Raises BadRecord when it is too long to be stored."""
        thread = self.thread
        prompt, steps = conversation(thread, self.tools, self.scores.of_steps)
        scores = self._scores()
        failure, finish = self._failure(), thread.calls[-1].finish
        outcome = _outcome(scores, failure or finish)
        identity, source = self._identified(source, raw_of, self._source(prompt, steps, outcome, parent))
        begins = prompt or tuple(step.action for step in steps[:1])
        private = self.run.private if self.main else {}
        return Trajectory(
            id=identity,
            task=Task(prompt_id(begins), first_user_text(prompt), private=private),
            tools=self._tools(),
            prompt=prompt,
            steps=steps,
            outcome=outcome,
            scores=scores,
            truncated=failure is not None or finish in _CUT,
            parent_id=None if parent is None else parent.id,
            branch_step=None if parent is None else thread.branch_step,
            source=source,
        )

    def _identified(self, source: Source, raw_of: RawOf, fields: dict[str, Any]) -> tuple[str, Source]:
        """Id and source. A record that is too long to be stored goes without the inputs that later calls repeat."""
        try:
            if _size(self.spans) > MAX_STORED_BYTES:
                raise too_long(MAX_STORED_BYTES)  # without making the text of it
            return identify(source, raw_of(self.spans, self.main, frozenset()), **fields)
        except BadRecord:
            repeated = frozenset(call.span.id for call in self.thread.calls[:-1])
            extra = {**fields["extra"], "raw": "too long: inputs that a later call repeats are left out"}
            return identify(source, raw_of(self.spans, self.main, repeated), **{**fields, "extra": extra})

    def _scores(self) -> dict[str, Score]:
        found = dict(self.run.verdicts) if self.main else {}
        for span in self.spans:
            found |= self.scores.of_spans.get(span.id, {})
        return found

    def _failure(self) -> str | None:
        """The error of the last call, of an agent around it, or of an outermost span."""
        last = self.thread.calls[-1].span
        own = {span.id for span in self.spans}
        around = [span for span in self.tree.agents(last) if span.id in own]
        roots = [span for span in self.spans if self.tree.parent(span) is None and span.kind not in ("tool", "llm")]
        failed = next((span.error for span in (last, *around, *roots) if span.error is not None), None)
        return None if failed is None else failed or "error"

    def _tools(self) -> tuple[ToolSchema, ...] | None:
        """The schemas that were offered; of several lists, all that a call offered in the order they came up."""
        spans = [(call.span.attributes, call.lists) for call in self.thread.calls]
        spans += [(span.attributes, indexed(span.attributes)) for span in self.spans if span.kind == "agent"]
        offered: list[tuple[ToolSchema, ...] | None] = []
        seen: set[str] = set()
        for attributes, lists in spans:
            mark = repr([first_of(attributes, TOOL_VALUES), *(lists.get(prefix) for prefix in TOOL_INDEXED)])
            if mark not in seen or "mlflow.spanInputs" in attributes:
                seen.add(mark)
                offered.append(tools_of(attributes, lists))
        return tools_together(offered)

    def _source(
        self, prompt: tuple[Message, ...], steps: tuple[Step, ...], outcome: Outcome | None, parent: Trajectory | None
    ) -> dict[str, Any]:
        thread = self.thread
        spans = [call.span for call in thread.calls]
        times = [time for span in (self.spans if self.main else spans) for time in (span.start, span.end) if time]
        attributes = spans[0].attributes
        return {
            "agent": thread.agent or spans[0].service,
            "model": next((name for span in spans if (name := string(first(span.attributes, "model")))), None),
            "counts": self._counts(prompt, steps, outcome),
            "extra": self._extra(),
            "started_at": iso(min(times, default=None)),
            "ended_at": iso(max(times, default=None)),
            "usage": self._usage(),
            "sampling": sampling_of(attributes),
            "relation": None if parent is None else thread.relation,
            "links": self._links() if self.main else None,
            "tags": self.run.tags if self.main else {},
        }

    def _usage(self) -> Usage | None:
        if self.main and self.run.usage is not None:
            return self.run.usage
        return total(call.usage for call in self.thread.calls)

    def _links(self) -> Links:
        traces = dict.fromkeys(span.trace for span in self.spans)
        session = (f"session:{self.run.session}",) if self.run.session else ()
        return Links(keys=(*(f"trace:{name}" for name in traces), *session))

    def _counts(self, prompt: tuple[Message, ...], steps: tuple[Step, ...], outcome: Outcome | None) -> dict[str, int]:
        messages = [*prompt, *(message for step in steps for message in (step.action, *step.observations))]
        return {
            "messages": len(messages),
            "assistant_turns": len(steps),
            "tool_calls": sum(len(step.action.tool_calls) for step in steps),
            "tool_results": sum(message.role == "tool" for message in messages),
            "rewards": int(outcome is not None and outcome.value is not None),
            "spans": len(self.spans),
            "llm_spans": len(self.thread.calls),
            "tool_spans": sum(span.kind == "tool" for span in self.spans),
        }

    def _extra(self) -> dict[str, Any]:
        """What a reader of the run may want to know of how it was made."""
        thread = self.thread
        found: dict[str, Any] = {"trace_ids": list(dict.fromkeys(call.span.trace for call in thread.calls))}
        if self.run.session:
            found["session"] = self.run.session
        if all(call.is_empty for call in thread.calls):
            found["note"] = "no content was captured: only calls, usage and times are known"
        if any(call.inputs.cut for call in thread.calls):
            found["cut"] = "an attribute limit cut messages off"
        if thread.prompts > 1:
            found["system_prompts"] = thread.prompts
        others = sum(max(len(call.choices) - 1, 0) for call in thread.calls)
        if others:
            found["other_choices"] = others
        failed = [call.span.error or "error" for call in thread.calls if call.span.error is not None]
        if failed:
            found["errors"] = failed
        return found | (self.run.extra if self.main else {})


def _outcome(scores: Mapping[str, Score], reason: str | None) -> Outcome | None:
    name = next((name for name, score in scores.items() if score.value is not None), None)
    if name is None:
        return None if reason is None else Outcome(exit_reason=reason)
    return Outcome(scores[name].value, name, reason, scores[name].detail)


def _size(spans: list[Span]) -> int:
    return sum(len(value) for span in spans for value in span.attributes.values() if isinstance(value, str))
