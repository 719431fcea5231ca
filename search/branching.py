"""AutoBranch: which recorded step to leave from (`--from-step auto`).

The recorded states 0 .. L-1 (those before each recorded step) are the branch points. For each new rollout, or each
whole run of a level-synchronous algorithm, the point is chosen by this rule:

1. Step 0 first, then the last state, L-1.
2. Then bisect. Between neighbouring probed points i < j with j - i > 1 lies an interval; its difference is that of the
   two points' values, 0 while one is unknown. Take the interval with the largest difference, of equal ones the widest,
   then the earliest, and probe (i + j) // 2. As soon as any two neighbouring probed points differ, only intervals with
   a difference are of interest: the drop lies in one of them. While nothing differs, all are.
3. When no interval of interest is left, spend the rest by UCB1 (Auer et al. 2002) over the probed points, on values
   normalised to the tree's range, rollouts still open counted as visits without a value; ties to the earliest.

A point's value is the Monte-Carlo mean over the visits that left the record exactly there. Points where nothing is
left to expand are skipped. The binary search over a run's prefixes by Monte-Carlo value is that of OmegaPRM (Luo et
al. 2024, arXiv 2406.06592, section 3.2); that one looks for the first wrong step, this one for the step to branch at,
so both ends of the drop stay in the race of rule 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import log, sqrt
from typing import cast

from .algorithm import Algorithm, plan_ended
from .tree import OPEN, Ask, Child, Tree


@dataclass(frozen=True, slots=True)
class AutoBranch:
    """Wraps an algorithm and sets `tree.start` for it. Stateless: what it has probed is in `tree.memory["branching"]`.

    Satisfies Algorithm; without a record it is the wrapped algorithm. The wrapped one should respect
    `tree.leave_spine` (ours do): a rollout that begins at a branch point leaves the record there. An algorithm with
    `synchronous = True` runs once at each point, to its end; after the points of interest come the others, the
    earliest first. `go_on` and `may_begin` (see RolloutSearch) are used where an algorithm has them; without, each ask
    is taken for a new rollout.
    """

    algorithm: Algorithm

    def ask(self, tree: Tree, k: int) -> list[Ask]:
        """At most `k` asks: open rollouts go on first, then new ones begin where the rule says."""
        if tree.spine_child(0) is None:
            return self.algorithm.ask(tree, k)
        tree.leave_spine = True
        if getattr(self.algorithm, "synchronous", False):
            return self._ask_whole(tree, k)
        asks: list[Ask] = []
        while len(asks) < k and (ask := self._ask_one(tree)) is not None:
            asks.append(ask)
        return asks

    def tell(
        self, tree: Tree, ask_id: int, children: Sequence[Child], *, more: bool = False, failed: str | None = None
    ) -> list[int]:
        """As the wrapped algorithm."""
        return self.algorithm.tell(tree, ask_id, children, more=more, failed=failed)

    def plan_ended(self, tree: Tree) -> str | None:
        """Once the wrapped algorithm's plan has ended at every point where the record may still be left."""
        if tree.spine_child(0) is None:
            return plan_ended(self.algorithm, tree)
        start, reasons = tree.start, list[str | None]()
        for point in branch_points(tree):
            if _may_leave(tree, point):
                tree.start = point
                reasons.append(plan_ended(self.algorithm, tree))
        tree.start = start
        return "no branch point is left" if not reasons else None if None in reasons else reasons[0]

    def _ask_one(self, tree: Tree) -> Ask | None:
        go_on = getattr(self.algorithm, "go_on", None)
        if go_on is not None and (ask := go_on(tree)) is not None:
            return cast(Ask, ask)
        may_begin = getattr(self.algorithm, "may_begin", None)
        if may_begin is not None and not may_begin(tree):
            return None
        skipped: set[int] = set()
        while (point := choose(tree, skipped)) is not None:
            tree.start = point
            if asks := self.algorithm.ask(tree, 1):
                _count_probe(tree, point)
                return asks[0]
            skipped.add(point)
        return None

    def _ask_whole(self, tree: Tree, k: int) -> list[Ask]:
        probes = _probes(tree)
        while True:
            if tree.start in probes and ((asks := self.algorithm.ask(tree, k)) or tree.asks):
                return asks
            point = choose(tree, set(probes))
            if point is None:
                return []
            tree.start = point
            _count_probe(tree, point)


def choose(tree: Tree, skipped: set[int]) -> int | None:
    """The branch point (a node id) that the rule takes next; None when all are skipped or have nothing left."""
    points = branch_points(tree)
    open_points = {node for node in points if node not in skipped and _may_leave(tree, node)}
    probed = [index for index, node in enumerate(points) if node in _probes(tree)]
    for index in (0, len(points) - 1):
        if index not in probed and points[index] in open_points:
            return points[index]
    middle = _bisect(tree, points, probed, open_points)
    return middle if middle is not None else _most_promising(tree, [node for node in points if node in open_points])


def branch_points(tree: Tree) -> list[int]:
    """The nodes of the recorded states before each recorded step: the root first."""
    points = [0]
    while (child := tree.spine_child(points[-1])) is not None:
        points.append(child)
    return points[:-1] or points


def left_at(tree: Tree, node: int) -> tuple[int, float]:
    """How many visits left the record at this node, and the sum of their values."""
    recorded = tree.spine_child(node)
    visits = tree.visits[node] - tree.ends[node] - (0 if recorded is None else tree.visits[recorded])
    sums: dict[int, tuple[int, float]] = tree.memory.setdefault("left at", {})
    if node not in sums or sums[node][0] != visits:
        away = (child for child in tree.child_ids[node] if child != recorded)
        sums[node] = (visits, sum(tree.value_sum[child] for child in away))
    return sums[node]


def _probes(tree: Tree) -> dict[int, int]:
    probes: dict[int, int] = tree.memory.setdefault("branching", {})
    return probes


def _count_probe(tree: Tree, point: int) -> None:
    probes = _probes(tree)
    probes[point] = probes.get(point, 0) + 1


def _may_leave(tree: Tree, node: int) -> bool:
    if tree.status[node] != OPEN:
        return False
    recorded = tree.spine_child(node)  # other outcomes of the recorded action are no other action
    barred = None if recorded is None else tree.action[recorded]
    return not tree.complete[node] or any(tree.action[child] != barred for child in tree.open_ids[node])


def _mean_left_at(tree: Tree, node: int) -> float | None:
    visits, total = left_at(tree, node)
    return total / visits if visits else None


def _bisect(tree: Tree, points: list[int], probed: list[int], open_points: set[int]) -> int | None:
    """The middle of the interval that rule 2 takes; None when none of interest is left."""
    means = {index: _mean_left_at(tree, points[index]) for index in probed}
    pairs = [(left, right, _difference(means[left], means[right])) for left, right in pairwise(probed)]
    differs = any(difference > 0.0 for _, _, difference in pairs)
    best: tuple[float, int, int] | None = None
    middle = None
    for left, right, difference in pairs:
        candidate = _open_middle(points, left, right, open_points)
        if candidate is None or (differs and difference == 0.0):
            continue
        rank = (difference, right - left, -left)
        if best is None or rank > best:
            best, middle = rank, candidate
    return middle


def _open_middle(points: list[int], left: int, right: int, open_points: set[int]) -> int | None:
    """The open point strictly between two indexes that is nearest to their middle, the earlier of two."""
    inner = [index for index in range(left + 1, right) if points[index] in open_points]
    return points[min(inner, key=lambda index: (abs(index - (left + right) // 2), index))] if inner else None


def _difference(left: float | None, right: float | None) -> float:
    return 0.0 if left is None or right is None else abs(left - right)


def _most_promising(tree: Tree, candidates: list[int]) -> int | None:
    """UCB1 over branch points; one that was never probed (its neighbours were of no interest) is left out while others
    are open."""
    probes = _probes(tree)
    known = [node for node in candidates if node in probes] or candidates
    stats = {node: left_at(tree, node) for node in known}
    open_here = {node: max(0, tree.virtual[node] - _virtual_on_spine(tree, node)) for node in known}
    total = sum(stats[node][0] + open_here[node] for node in known)
    best, best_score = None, 0.0
    for node in known:
        visits, value_sum = stats[node]
        count = visits + open_here[node]
        if not count:
            return node
        quality = tree.bounds.normalise(value_sum / visits) if visits else 0.0
        score = quality + sqrt(2.0 * log(max(1, total)) / count)
        if best is None or score > best_score:
            best, best_score = node, score
    return best


def _virtual_on_spine(tree: Tree, node: int) -> int:
    recorded = tree.spine_child(node)
    return tree.virtual[recorded] if recorded is not None else 0
