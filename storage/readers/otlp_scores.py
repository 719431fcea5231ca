"""The evaluations of a run, by the span that each judges."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..records import Score
from .flat_attributes import indexed
from .otlp_fields import score_of, scores_in
from .otlp_names import SCORE_EVENT
from .otlp_spans import Span
from .otlp_tree import Tree


class Scores:
    """Evaluations: of spans of calls (a step's), and of anything else (the run's)."""

    def __init__(self, spans: list[Span], tree: Tree, verdicts: Mapping[str, Mapping[str, Score]]):
        """`verdicts`: those that stand beside the spans, by the id of the one they judge."""
        self.of_steps: dict[str, dict[str, Score]] = {}
        self.of_spans: dict[str, dict[str, Score]] = {}
        for span in spans:
            for name, score in verdicts.get(span.id, {}).items():
                (self.of_steps if span.kind == "llm" else self.of_spans).setdefault(span.id, {})[name] = score
            target = self._judged(span, tree)
            for name, score in self._told(span):
                judged = target if span.kind == "evaluator" else span
                where = self.of_steps if judged.kind == "llm" else self.of_spans
                where.setdefault(judged.id, {})[name] = score

    def _judged(self, span: Span, tree: Tree) -> Span:
        above = tree.parent(span)
        return above if above is not None else span

    def _told(self, span: Span) -> Iterator[tuple[str, Score]]:
        for event in span.events:
            found = score_of(event.values, span.name) if event.name == SCORE_EVENT else None
            if found is not None:
                yield found
        if any(name.startswith(("annotations.", "evaluations.")) for name in span.attributes):
            yield from scores_in(span, indexed(span.attributes))
        own = score_of(span.attributes, span.name) if span.kind == "evaluator" else None
        if own is not None:
            yield own
