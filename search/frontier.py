"""What searches that keep their own frontier share: which told children may go on, which is best, who is being asked.

The frontier is the list of nodes that an algorithm may still expand. Recorded steps enter it only when the policy
proposes them, and never at a branch point that `tree.leave_spine` says to leave the record at.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, log
from typing import ClassVar

from .algorithm import TreeSearch, check_count, prior_scale
from .tree import OPEN, Ask, Child, Tree


@dataclass(frozen=True, kw_only=True)
class FrontierSearch(TreeSearch):
    """Subclasses choose the node to ask in `_next`, open the ask with `_open` and take what it brought in `_received`.

    Each start (see `tree.start`) is searched on its own and to its end. A node whose expansion failed or brought
    nothing is asked again until it is closed (see TreeSearch). Of several nodes with one state key only one is asked at
    a time; with `merge_states` a state that was expanded once is never expanded at another node.
    `tree.memory["expanded"]` holds the node that each state was expanded at last, `tree.memory["unnamed"]` the nodes
    that were expanded before their state had a key (recorded ones get it when the policy proposes them).
    """

    synchronous: ClassVar[bool] = True

    branching: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("branching", self.branching)

    def tell(
        self, tree: Tree, ask_id: int, children: Sequence[Child], *, more: bool = False, failed: str | None = None
    ) -> list[int]:
        """As every algorithm; afterwards the children are offered to the frontier that asked for them."""
        ask = tree.asks.get(ask_id)
        ids = super().tell(tree, ask_id, children, more=more, failed=failed)
        if ask is not None:
            _name_expanded(tree, ids)
            start: int = tree.memory["asked from"].pop(ask_id)
            barred = tree.spine_child(start) if tree.leave_spine and ask.node == start else None
            self._received(tree, start, ask, [node for node in dict.fromkeys(ids) if node != barred])
        return ids

    @abstractmethod
    def _received(self, tree: Tree, start: int, ask: Ask, offered: list[int]) -> None:
        """Take the children that an ask of the search from `start` brought, each once."""

    def _open(self, tree: Tree, node: int, count: int) -> Ask:
        tree.hold(node)
        ask = tree.open_ask(node, count)
        tree.memory.setdefault("asked from", {})[ask.id] = tree.start
        state = tree.state_key[node]
        if state is None:
            tree.memory.setdefault("unnamed", set()).add(node)
        else:
            _expanded(tree)[state] = node
        return ask


def may_be_asked(tree: Tree, node: int) -> bool:
    """True while the node is open and may have more children, and its state was not expanded elsewhere for good."""
    return tree.status[node] == OPEN and not tree.complete[node] and not is_spent(tree, node)


def goes_on(tree: Tree, node: int) -> bool:
    """True for an unfinished node whose state may still be expanded here."""
    return tree.status[node] == OPEN and not is_spent(tree, node)


def is_spent(tree: Tree, node: int) -> bool:
    """True when states merge and this node's was expanded at another node."""
    return tree.merge_states and _expanded_elsewhere(tree, node) is not None


def is_busy(tree: Tree, node: int) -> bool:
    """True while this node's state is being asked at another node."""
    other = _expanded_elsewhere(tree, node)
    return other is not None and tree.pending[other] > 0


def known(tree: Tree, node: int) -> list[int]:
    """The open children of a node that will have no others, the recorded one left out."""
    return [child for child in tree.open_ids[node] if not tree.spine[child]] if tree.complete[node] else []


def distinct(tree: Tree, nodes: Sequence[int]) -> list[int]:
    """The nodes in their order, of those with one state key only the first."""
    seen: set[str] = set()
    kept: list[int] = []
    for node in nodes:
        state = tree.state_key[node]
        if state is None or state not in seen:
            kept.append(node)
        if state is not None:
            seen.add(state)
    return kept


def ranked(tree: Tree, start: int, nodes: Sequence[int]) -> list[int]:
    """The nodes from the best to the worst: by value, those without one after those with; then by the sum of log priors
    since the start; then by seeded hash.

    While no unfinished one has a value (outcome rewards only), the values of finished ones cannot be compared with
    them: then all are ranked by their priors.
    """
    unfinished = [node for node in nodes if not tree.terminal[node]]
    by_value = not unfinished or any(tree.value[node] is not None for node in unfinished)

    values = {node: tree.value[node] if by_value else None for node in nodes}
    alike = Counter(values.values())

    def merit(node: int) -> tuple[float, float, int]:
        value = values[node]
        likely = log_probability(tree, start, node) if alike[value] > 1 else 0.0  # it costs a walk to the start
        return (-inf if value is None else value, likely, -tree.order[node])

    return sorted(nodes, key=merit, reverse=True)


def steps_since(tree: Tree, start: int, node: int) -> list[int]:
    """The nodes on the path from the start to the node, the start left out."""
    return tree.path(node)[tree.depth[start] + 1 :]


def log_probability(tree: Tree, start: int, node: int) -> float:
    """The sum of log priors from the start to the node."""
    return sum(log_share(tree, step) for step in steps_since(tree, start, node))


def log_share(tree: Tree, node: int) -> float:
    """The log of the node's prior, normalised over its siblings; a missing prior counts as the mean of the known."""
    fill, total = prior_scale(tree, tree.parent[node])
    prior = tree.prior[node]
    return safe_log((fill if prior is None else prior) / total)


def safe_log(number: float) -> float:
    """The natural logarithm; minus infinity of 0."""
    return log(number) if number > 0.0 else -inf


def _expanded(tree: Tree) -> dict[str, int]:
    expanded: dict[str, int] = tree.memory.setdefault("expanded", {})
    return expanded


def _name_expanded(tree: Tree, nodes: Sequence[int]) -> None:
    """Note the states of those nodes that got their keys after they were expanded."""
    unnamed: set[int] = tree.memory.get("unnamed", set())
    for node in unnamed.intersection(nodes):
        state = tree.state_key[node]
        if state is not None:
            unnamed.remove(node)
            _expanded(tree).setdefault(state, node)


def _expanded_elsewhere(tree: Tree, node: int) -> int | None:
    state = tree.state_key[node]
    other = None if state is None else _expanded(tree).get(state)
    return None if other == node else other
