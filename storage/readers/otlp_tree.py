"""Which span is inside which, which of them are calls of models, and to which conversation each belongs."""

from __future__ import annotations

from .flat_attributes import indexed
from .otlp_calls import Call, CallReader
from .otlp_fields import usage_of
from .otlp_names import (
    INPUT_INDEXED,
    INPUT_VALUES,
    OUTPUT_INDEXED,
    OUTPUT_VALUES,
    OUTPUT_WRAPPED,
    TRANSCRIPTS,
    first_of,
)
from .otlp_spans import Span
from .otlp_threads import Folder, Thread, relate

_MOST_AGENTS = 32


def unique(spans: list[Span]) -> list[Span]:
    """A span that was exported twice counts once."""
    seen: dict[tuple[str, str], Span] = {}
    for span in spans:
        seen.setdefault((span.trace, span.id), span)
    return list(seen.values())


class Tree:
    """Which span is inside which; parents may be missing. `scopes`: the agents around each span, the nearest first."""

    def __init__(self, spans: list[Span]):
        self.by_id = {span.id: span for span in spans}
        self.scopes: dict[str, tuple[str, ...]] = {}
        self.model_above: dict[str, Span] = {}
        for span in spans:
            self._place(span)

    def parent(self, span: Span) -> Span | None:
        """The span around a span, if it is there."""
        return self.by_id.get(span.parent) if span.parent is not None and span.parent != span.id else None

    def _place(self, span: Span) -> None:
        path, seen = [span], {span.id}
        while path[-1].id not in self.scopes:
            above = self.parent(path[-1])
            if above is None or above.id in seen:  # a circle has no outermost span: this one, then
                break
            path.append(above)
            seen.add(above.id)
        path.reverse()
        for above, below in zip([None, *path[:-1]], path, strict=True):
            if below.id not in self.scopes:
                self._inherit(below, above)

    def _inherit(self, span: Span, above: Span | None) -> None:
        if above is None:
            self.scopes[span.id] = ()
            return
        scope = self.scopes.get(above.id, ())
        self.scopes[span.id] = (above.id, *scope)[:_MOST_AGENTS] if above.kind == "agent" else scope
        if above.kind == "llm":
            self.model_above[span.id] = above
        elif above.kind == "other" and above.id in self.model_above:
            self.model_above[span.id] = self.model_above[above.id]

    def agents(self, span: Span) -> list[Span]:
        """The agents' spans around a span, the nearest first."""
        return [self.by_id[name] for name in self.scopes.get(span.id, ())]


def threads_of(spans: list[Span], tree: Tree) -> list[Thread]:
    """The conversations of a run, each behind its parent."""
    reader = CallReader()
    calls = [reader.read(span) for span in spans if span.kind == "llm"]
    calls = _without_doubles(calls, tree) or [reader.read(span) for span in _stand_ins(spans, tree)]
    folder = Folder()
    for call in calls:
        folder.add(call, tree.agents(call.span))
    for thread in folder.threads:
        thread.finish()
    return relate([thread for thread in folder.threads if thread.messages or thread.system.messages])


def _without_doubles(calls: list[Call], tree: Tree) -> list[Call]:
    """Two libraries may each log one call, one span inside the other. The outer one stands for both, unless it has no
    content, or is a loop around several calls.
    """
    inner: dict[str, list[Call]] = {}
    for call in calls:
        above = tree.model_above.get(call.span.id)
        if above is not None:
            inner.setdefault(above.id, []).append(call)
    dropped: set[str] = set()
    for call in calls:
        below = inner.get(call.span.id, [])
        if not below:
            continue
        told = [other for other in below if not other.is_empty]
        if len(told) > 1 or (call.is_empty and told):
            dropped.add(call.span.id)
        elif len(below) == 1 or not call.is_empty:
            dropped.update(other.span.id for other in below)
            call.span.attributes = below[0].span.attributes | call.span.attributes
            call.usage = usage_of(call.span.attributes)
        else:
            dropped.add(call.span.id)
    return [call for call in calls if call.span.id not in dropped]


def _stand_ins(spans: list[Span], tree: Tree) -> list[Span]:
    """Where no model's span was exported: the innermost agents that say what went in and out, else the outermost span
    that says what came out.
    """
    outer = {name for span in spans if span.kind == "agent" for name in tree.scopes[span.id]}
    inner = [span for span in spans if span.kind == "agent" and span.id not in outer]
    told = [span for span in inner if _tells(span)]
    if told:
        return told
    roots = [span for span in spans if tree.parent(span) is None and span.kind in ("agent", "other")]
    return [span for span in roots if first_of(span.attributes, OUTPUT_WRAPPED) is not None]


def _tells(span: Span) -> bool:
    if first_of(span.attributes, (*INPUT_VALUES, *OUTPUT_VALUES, *TRANSCRIPTS)) is not None:
        return True
    return not indexed(span.attributes).keys().isdisjoint((*INPUT_INDEXED, *OUTPUT_INDEXED))


def owners_of(spans: list[Span], tree: Tree, threads: list[Thread]) -> dict[str, int]:
    """The number of the thread that each span belongs to: its own, else the first of the nearest agent around it."""
    owners: dict[str, int] = {}
    scopes: dict[tuple[str, ...], int] = {}
    for number, thread in enumerate(threads):
        for call in thread.calls:
            owners[call.span.id] = number
            scope = tuple(tree.scopes[call.span.id])
            scopes[scope] = min(number, scopes.get(scope, number))
    for span in spans:
        if span.id in owners:
            continue
        scope = tree.scopes[span.id]
        scope = (span.id, *scope)[:_MOST_AGENTS] if span.kind == "agent" else scope
        while scope and scope not in scopes:
            scope = scope[1:]
        owners[span.id] = scopes.get(scope, 0)
    return owners
