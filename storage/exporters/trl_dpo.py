"""`trl-dpo`: one assistant message against one sibling under the same prefix, for TRL's DPOTrainer.

DPO trains on every token after the prompt, tool results included, so a side holds one assistant message and nothing of
what followed it. Pairs of searched siblings follow Agent Q (arXiv:2408.07199, section 4.3): the values differ by more
than a margin. The recorded action at the branch point is paired with the accepted one (IPR, arXiv:2406.11176, step
pairs): the acceptance verdict on the two runs stands behind that pair.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from ..codec import action_key
from ..records import Node, Score
from .base import Candidate, Dropped, Row, Selection
from .lineage import common, dedupe_key, node_facts, values
from .options import ExportOptions
from .render import Renderer, Unrenderable, masker
from .selection import true_enough
from .token_ids import check_secrets, pair
from .tree import ROOT, StoredTree, mean_value


class TrlDpo:
    """For each searched step of an accepted counterfactual: that action against each worse sibling."""

    name: ClassVar[str] = "trl-dpo"
    columns: tuple[str, ...] = ("prompt", "chosen", "rejected", "tools")
    units: ClassVar[tuple[str, ...]] = ("step",)
    training: ClassVar[tuple[str, Mapping[str, Any]]] = ("dpo_config.json", {})

    def with_token_ids(self) -> TrlDpo:
        """The same with `prompt_ids`, `chosen_ids` and `rejected_ids`; the recorded sibling has none: no such pairs."""
        other = TrlDpo()
        other.columns = (*self.columns, "prompt_ids", "chosen_ids", "rejected_ids")
        return other

    def rows(self, selection: Selection) -> Iterator[Row | Dropped]:
        """Pairs in the order of the selection, then by step, then by the sibling's node id.

        A pair that says the opposite of an earlier one under the same prompt is dropped: two failed runs of a task may
        each be mended by the other's first action.
        """
        mask = masker(selection.options.redact)
        said: set[str] = set()
        for candidate in selection:
            try:
                renderer = Renderer(candidate.counterfactual.tools, mask)
            except Unrenderable as problem:
                yield Dropped(problem.reason)
                continue
            tree = StoredTree(selection.archive.nodes(candidate.run, candidate.record.id))
            scores = selection.archive.node_scores(candidate.run, candidate.record.id)
            for item in self._candidate(selection.options, candidate, renderer, tree, scores):
                if isinstance(item, Row):
                    if _opposite(item.columns) in said:
                        yield Dropped("contradicted")
                        continue
                    said.add(item.dedupe)
                yield item

    def _candidate(
        self,
        options: ExportOptions,
        candidate: Candidate,
        renderer: Renderer,
        tree: StoredTree,
        scores: Mapping[int, Mapping[str, Score]],
    ) -> Iterator[Row | Dropped]:
        pairs = list(siblings(tree, candidate))
        if not pairs:
            yield Dropped("no_sibling" if tree.children(ROOT) else "no_tree")
        for chosen, rejected in pairs:
            reason = refusal(chosen, rejected, options)
            if reason:
                yield Dropped(reason)
                continue
            try:
                columns = _pair(candidate, renderer, chosen, rejected)
                if "prompt_ids" in self.columns:
                    columns |= _ids(candidate, renderer, chosen, rejected)
            except Unrenderable as problem:
                yield Dropped(problem.reason)
                continue
            yield Row(columns, candidate, dedupe_key(columns), _lineage(candidate, chosen, rejected, scores))


def siblings(tree: StoredTree, candidate: Candidate) -> Iterator[tuple[Node, Node]]:
    """(accepted, other) for every step from the branch point on and every other child of the same parent."""
    path = tree.follow(candidate.counterfactual.steps)
    for index in sorted(path):
        chosen = path[index]
        if index < candidate.branch_step:
            continue
        for other in tree.children(chosen.parent):
            if other.node != chosen.node and other.step is not None:
                yield chosen, other


def refusal(chosen: Node, rejected: Node, options: ExportOptions) -> str | None:
    """Why two siblings make no pair; None when they do.

    The recorded sibling needs no margin and no visits: the runs on both sides were judged, and the gain is above 0.
    """
    if _key(chosen) == _key(rejected):
        return "same_action"
    better, worse = mean_value(chosen), mean_value(rejected)
    if rejected.spine:
        return "not_worse" if better is not None and worse is not None and worse >= better else None
    if rejected.imputed or chosen.imputed:
        return "imputed"
    if better is None or worse is None or rejected.visits < options.min_visits:
        return "few_visits"
    if better - worse < max(options.margin, 0.0) or worse >= better:
        return "below_margin"
    return None if true_enough(rejected.fidelity, options.min_fidelity) else "below_min_fidelity"


def _key(node: Node) -> str:
    return action_key(node.step.action) if node.step is not None else ""


def _pair(candidate: Candidate, renderer: Renderer, chosen: Node, rejected: Node) -> dict[str, Any]:
    if chosen.step is None or rejected.step is None:
        raise Unrenderable("no_sibling")
    context = candidate.context(chosen.step.index)
    prompt, better = renderer.conversation(context, [chosen.step.action])
    _, worse = renderer.conversation(context, [rejected.step.action], wanted=False)
    return {"prompt": prompt, "chosen": better, "rejected": worse, "tools": renderer.tools}


def _ids(candidate: Candidate, renderer: Renderer, chosen: Node, rejected: Node) -> dict[str, Any]:
    sides = [node.step.action for node in (chosen, rejected) if node.step is not None]
    index = chosen.step.index if chosen.step is not None else 0
    check_secrets(renderer, [*candidate.context(index), *sides])
    return pair(candidate.counterfactual.steps, chosen, rejected)


def _opposite(columns: Mapping[str, Any]) -> str:
    return dedupe_key({**columns, "chosen": columns["rejected"], "rejected": columns["chosen"]})


def _lineage(
    candidate: Candidate, chosen: Node, rejected: Node, scores: Mapping[int, Mapping[str, Score]]
) -> dict[str, Any]:
    better, worse = mean_value(chosen), mean_value(rejected)
    return common(candidate) | {
        "step": chosen.step.index if chosen.step else None,
        "node": chosen.node,
        "call_key": chosen.call_key,
        "chosen": node_facts(chosen) | {"scores": values(scores.get(chosen.node, {}))},
        "rejected": node_facts(rejected) | {"scores": values(scores.get(rejected.node, {}))},
        "margin": None if better is None or worse is None else better - worse,
    }
