"""Early ending by confidence: successive elimination among siblings.

Even-Dar, Mannor & Mansour 2006 (JMLR 7, "Action elimination and stopping conditions for the multi-armed bandit and
reinforcement learning problems", successive elimination): an arm is dropped once its upper confidence bound is below
the lower one of another arm. Here the arms are the children of one node. With n visits of a child, K siblings (itself
counted) and delta = 1 - confidence, the radius is Hoeffding's, with a union bound over the arms and over all n:

    sqrt(ln(4 K n^2 / delta) / (2 n))

The sum of 2 exp(-2 n radius^2) over n and K is delta * pi^2 / 12, so below delta. Three things differ from the paper:
arms are not sampled in turn, so each has a radius of its own; values are normalised to the range that the tree has met
so far, a lower estimate of their true range; and the values behind a node of a growing tree are not independent, so
`confidence` is a dial, not a guarantee.
"""

from __future__ import annotations

from math import log, sqrt

from .columns import OPEN, PRUNED
from .tree import Tree

LEAST_VISITS = 2
"""Visits that a child needs before it is dropped, or before others are measured by it."""


def eliminate(tree: Tree, node: int, confidence: float) -> None:
    """Close the children of `node` and of its ancestors that are worse than a sibling with that confidence.

    Ends and recorded steps are measured by, and never closed; nor is a node while something is open at or below it.
    Where an action has several outcomes nothing is closed: outcomes are no choice.
    """
    while node >= 0:
        if tree.open_ids[node] and node not in tree.outcomes.extra and tree.bounds.scale > 0.0:
            _among_children(tree, node, confidence)
        node = tree.parent[node]


def _among_children(tree: Tree, node: int, confidence: float) -> None:
    siblings = tree.child_ids[node]
    intervals = {
        child: interval(tree, child, len(siblings), confidence)
        for child in siblings
        if tree.visits[child] >= LEAST_VISITS
    }
    floor = max((low for low, _ in intervals.values()), default=0.0)
    for child, (_, high) in intervals.items():
        idle = not (tree.virtual[child] or tree.pending[child])
        if high < floor and idle and tree.status[child] == OPEN and not tree.spine[child]:
            reason = f"upper bound {high:.3g} is below a sibling's lower bound {floor:.3g} (confidence {confidence:g})"
            tree.close(child, PRUNED, reason)


def interval(tree: Tree, node: int, siblings: int, confidence: float) -> tuple[float, float]:
    """The bounds of a visited node's mean on the normalised scale."""
    visits = tree.visits[node]
    mean = tree.bounds.normalise(tree.value_sum[node] / visits)
    radius = sqrt(log(4.0 * siblings * visits * visits / (1.0 - confidence)) / (2.0 * visits))
    return mean - radius, mean + radius
