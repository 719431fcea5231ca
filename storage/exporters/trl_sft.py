"""`trl-sft`: prompt-completion rows for TRL's SFTTrainer (export-formats.md section 1).

Unit `rest`: the shared prefix is the prompt, the searched continuation the completion. It holds tool results and user
turns, so it is right only with `assistant_only_loss` and a template with generation marks; both are shipped beside the
data. Unit `step`: one assistant message a row, right for any trainer. Rejection sampling keeps the accepted path of
each task (RFT, arXiv:2308.01825, section 3.2), here cut at the step where it leaves the record.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from ..records import Message, Step
from .base import Candidate, Dropped, Row, Selection
from .lineage import common, dedupe_key, node_facts, values
from .render import Renderer, Unrenderable, masker
from .token_ids import check_secrets, sequence
from .tree import StoredTree


class TrlSft:
    """One row a counterfactual (`rest`), or one a searched step (`step`)."""

    name: ClassVar[str] = "trl-sft"
    columns: tuple[str, ...] = ("prompt", "completion", "tools")
    units: ClassVar[tuple[str, ...]] = ("rest", "step")
    training: ClassVar[tuple[str, Mapping[str, Any]]] = (
        "sft_config.json",
        {"assistant_only_loss": True, "chat_template_path": "chat_template.jinja", "completion_only_loss": True},
    )

    def with_token_ids(self) -> TrlSft:
        """The same with `input_ids`, which the trainer takes instead of the messages, and `completion_mask`."""
        other = TrlSft()
        other.columns = (*self.columns, "input_ids", "completion_mask")
        return other

    def rows(self, selection: Selection) -> Iterator[Row | Dropped]:
        """Rows in the order of the selection; one drop for each row that cannot be rendered."""
        mask = masker(selection.options.redact)
        for candidate in selection:
            try:
                renderer = Renderer(candidate.counterfactual.tools, mask)
            except Unrenderable as problem:
                yield Dropped(problem.reason)
                continue
            yield from self._candidate(selection, candidate, renderer)

    def _candidate(self, selection: Selection, candidate: Candidate, renderer: Renderer) -> Iterator[Row | Dropped]:
        searched = candidate.counterfactual.steps[candidate.branch_step :]
        if not searched:
            yield Dropped("empty_continuation")
            return
        tree = StoredTree(selection.archive.nodes(candidate.run, candidate.record.id))
        scores = selection.archive.node_scores(candidate.run, candidate.record.id)
        path = tree.follow(candidate.counterfactual.steps)
        for steps, answer in parts(searched, selection.options.unit or self.units[0]):
            try:
                columns = self._columns(candidate, renderer, steps, answer)
            except Unrenderable as problem:
                yield Dropped(problem.reason)
                continue
            nodes = [path[step.index] for step in steps if step.index in path]
            lineage = common(candidate) | {
                "step": steps[0].index,
                "steps": len(steps),
                "node": nodes[-1].node if nodes else None,
                "call_key": nodes[-1].call_key if nodes else None,
                "nodes": [node_facts(node) for node in nodes],
                "node_scores": values(scores.get(nodes[-1].node, {})) if nodes else {},
            }
            yield Row(columns, candidate, dedupe_key(columns), lineage)

    def _columns(
        self, candidate: Candidate, renderer: Renderer, steps: Sequence[Step], answer: list[Message]
    ) -> dict[str, Any]:
        context = candidate.context(steps[0].index)
        prompt, completion = renderer.conversation(context, answer)
        columns: dict[str, Any] = {"prompt": prompt, "completion": completion, "tools": renderer.tools}
        if "input_ids" in self.columns:
            check_secrets(renderer, [*context, *answer])
            columns |= sequence(candidate.counterfactual.steps, steps[0].index, len(steps))
        return columns


def parts(searched: Sequence[Step], unit: str) -> Iterator[tuple[Sequence[Step], list[Message]]]:
    """The steps of each row, with the messages to learn from them."""
    if unit == "step":
        for step in searched:
            yield (step,), [step.action]
    else:
        yield searched, [message for step in searched for message in (step.action, *step.observations)]
