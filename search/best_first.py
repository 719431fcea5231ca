"""Best-first search over all open nodes, up to A* (Hart, Nilsson and Raphael 1968): expand the lowest f = g + w * h.

With `cost="none"` it is greedy best-first by value, as Koh et al. 2024 (arXiv 2407.01476) search with language-model
agents: there the frontier is ordered by the value function alone, and a search budget ends it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from math import inf, isnan

from ..storage.errors import UsageError
from .algorithm import check_count, check_number
from .frontier import FrontierSearch, is_busy, is_spent, known, log_share, may_be_asked
from .tree import OPEN, Ask, Tree

Entry = tuple[float, bool, int, float, int, int]
"""f, whether the node was asked before, minus its depth, minus its log prior, its seeded hash, the node."""


@dataclass(slots=True)
class Queue:
    """The frontier of one start: a heap by f, what each node cost to reach, and what the heuristic said of it."""

    heap: list[Entry] = field(default_factory=list)
    cost: dict[int, float] = field(default_factory=dict)
    surprise: dict[int, float] = field(default_factory=dict)
    """Minus the log prior of each node."""
    estimate: dict[int, float] = field(default_factory=dict)
    offered: dict[int, list[int]] = field(default_factory=dict)
    open_asks: dict[int, int] = field(default_factory=dict)
    """The node of each open ask."""
    taken: list[int] = field(default_factory=list)
    """Finished runs in the order they left the queue."""
    scale: tuple[float, float] = (0.0, 0.0)
    guided: bool = False
    """True once h says something: there is a heuristic, or an unfinished state with a value."""


@dataclass(frozen=True, kw_only=True)
class BestFirst(FrontierSearch):
    """From `tree.start`: ask the open node with the lowest f = g + `weight` * h for `branching` children, and so on.

    - `cost`: what g adds up since the start: "none" (0), "depth" (1 a step) or "prior" (-log prior, normalised over the
      siblings known when the child was first told; a missing prior counts as their mean).
    - `heuristic(tree, node)`: h, called once for each told child (and the start); None or NaN from it counts as 0.
      Without a heuristic h is 1 - value, the value normalised to the tree's range; a state without a value counts as
      the lowest. When the range moves, the queue is ordered anew; with `cost="none"` values are compared as they are,
      which is the same order at any range.
    - Ties: nodes not asked before, then the deeper, then the one with the higher prior, then the seeded hash.
    - A node that may have more children after it was asked (`more`, or as many as wanted) stays in the queue behind
      them, at the mean f of the children it was told, that is what one more of them is expected to have, and never at
      less than its own f. While neither it nor an unfinished child has a value, it comes last: how a run has ended says
      nothing about states that nobody can value.
    - As long as nothing is known of any unfinished state, fewer asks are open than 1 + half the visits so far (the rule
      of `rollouts.py`): equal states are gone through in depth, and a width would turn that into breadth.
    - `solutions`: the search ends when that many finished runs with a value have left the queue in order of f, and
      `tree.memory["best-first"][start].taken` lists them. None: they never enter the queue, and the search goes on
      until nothing is left.

    With `merge_states` this is graph search: of several nodes with one state the one with the lowest f is expanded, the
    others never (no state is expanded again, so h should be consistent). With `cost="depth"`, `weight` 1, a consistent
    h, 0 at ends, and expansions that bring all children, the first of `taken` is a shortest run: A*. `weight` above 1
    is weighted A* (Pohl 1970): at most that many times longer.
    """

    cost: str = "none"
    weight: float = 1.0
    heuristic: Callable[[Tree, int], float | None] | None = None
    solutions: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("weight", self.weight, low=0.0)
        check_count("solutions", self.solutions, optional=True)
        if self.cost not in ("none", "depth", "prior"):
            raise UsageError(f"cost must be none, depth or prior, not {self.cost!r}")
        if self.heuristic is not None and not callable(self.heuristic):
            raise UsageError(f"heuristic must be a function of a tree and a node, not {self.heuristic!r}")

    def _next(self, tree: Tree) -> Ask | None:
        queue = self._queue(tree)
        if not queue.guided and len(tree.asks) >= 1 + tree.ended // 2:
            return None
        aside: list[Entry] = []
        found: Entry | None = None
        while found is None and queue.heap and not (self.solutions and len(queue.taken) >= self.solutions):
            entry = heappop(queue.heap)
            node = entry[-1]
            if tree.terminal[node]:
                if any(self._f(tree, queue, asked) < entry[0] for asked in queue.open_asks.values()):
                    aside.append(entry)  # what is being asked may bring a better end
                    break
                queue.taken.append(node)
            elif tree.complete[node]:
                self._add(tree, queue, node, known(tree, node))
            elif is_busy(tree, node):
                aside.append(entry)
            elif tree.status[node] == OPEN and not is_spent(tree, node):
                found = entry
        for entry in aside:
            heappush(queue.heap, entry)
        if found is None:
            return None
        ask = self._open(tree, found[-1], self.branching)
        queue.open_asks[ask.id] = ask.node
        return ask

    def _received(self, tree: Tree, start: int, ask: Ask, offered: list[int]) -> None:
        queue = self._queues(tree)[start]
        del queue.open_asks[ask.id]
        self._add(tree, queue, ask.node, offered)
        if tree.status[ask.node] == OPEN and not tree.complete[ask.node]:
            heappush(queue.heap, self._entry(tree, queue, ask.node))

    def plan_ended(self, tree: Tree) -> str | None:
        """Once it has its `solutions`, or nothing that entered its queue may be expanded."""
        queue = self._queues(tree).get(tree.start)
        if queue is None or queue.open_asks:
            return None
        if self.solutions and len(queue.taken) >= self.solutions:
            return f"it has found its {self.solutions} solutions"
        return None if any(may_be_asked(tree, node) for node in queue.cost) else "its queue is empty"

    def _add(self, tree: Tree, queue: Queue, parent: int, children: list[int]) -> None:
        """Put those children of a node into the queue that are new to it."""
        fresh = [child for child in children if child not in queue.cost]
        queue.offered.setdefault(parent, []).extend(fresh)
        for child in fresh:
            surprise = -log_share(tree, child)
            step_cost = {"none": 0.0, "depth": 1.0, "prior": surprise}[self.cost]
            self._enter(tree, queue, child, queue.cost[parent] + step_cost, surprise)

    def _enter(self, tree: Tree, queue: Queue, node: int, cost: float, surprise: float) -> None:
        queue.cost[node], queue.surprise[node] = cost, surprise
        queue.guided |= self.heuristic is not None or (tree.value[node] is not None and not tree.terminal[node])
        if self.heuristic is not None:
            estimate = self.heuristic(tree, node)
            queue.estimate[node] = 0.0 if estimate is None or isnan(estimate) else float(estimate)
        is_solution = self.solutions is not None and tree.terminal[node] and tree.value[node] is not None
        if is_solution or tree.status[node] == OPEN:
            heappush(queue.heap, self._entry(tree, queue, node))

    def _entry(self, tree: Tree, queue: Queue, node: int) -> Entry:
        children = queue.offered.get(node)
        f = self._expected_f(tree, queue, node, children) if children else self._f(tree, queue, node)
        return (f, children is not None, -tree.depth[node], queue.surprise[node], tree.order[node], node)

    def _expected_f(self, tree: Tree, queue: Queue, node: int, children: list[int]) -> float:
        """The f of a node that was asked before."""
        own = self._f(tree, queue, node)
        if self.heuristic is not None:
            return max(own, sum(self._f(tree, queue, child) for child in children) / len(children))
        judged = [child for child in children if tree.value[child] is not None]
        known = tree.value[node] is not None
        if not judged or not (known or any(not tree.terminal[child] for child in judged)):
            return own if known else inf
        mean = sum(self._f(tree, queue, child) for child in judged) / len(judged)
        return max(own, mean) if known else mean

    def _f(self, tree: Tree, queue: Queue, node: int) -> float:
        cost, weight, value = queue.cost[node], self.weight, tree.value[node]
        if weight == 0.0:
            return cost
        if self.heuristic is not None:
            return cost + weight * queue.estimate[node]
        if self.cost == "none":
            return inf if value is None else -value
        return cost + weight * (1.0 - (0.0 if value is None else tree.bounds.normalise(value)))

    def _queue(self, tree: Tree) -> Queue:
        """The queue of the start, ordered by the range of values as it is now."""
        queues = self._queues(tree)
        if tree.start not in queues:
            queues[tree.start] = Queue(scale=(tree.bounds.low, tree.bounds.scale))
            self._enter(tree, queues[tree.start], tree.start, 0.0, 0.0)
        queue, scale = queues[tree.start], (tree.bounds.low, tree.bounds.scale)
        if scale != queue.scale and self.heuristic is None and self.cost != "none":
            queue.heap = [self._entry(tree, queue, entry[-1]) for entry in queue.heap]
            heapify(queue.heap)
        queue.scale = scale
        return queue

    def _queues(self, tree: Tree) -> dict[int, Queue]:
        queues: dict[int, Queue] = tree.memory.setdefault("best-first", {})
        return queues
