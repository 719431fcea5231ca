"""Pure tree search: no I/O, no clock, no model, no environment.

from ttc_replay import search

tree = search.Tree(seed=0)                              # node 0 is the root
algorithm = search.create("mcts", exploration=1.4)      # search.names() lists all
while asks := algorithm.ask(tree, 8):
    for ask in asks:                                    # Ask(id, node, count, action)
        algorithm.tell(tree, ask.id, [search.Child(key="a", prior=0.3, value=0.7)])
tree.best()
"""

from __future__ import annotations

from .algorithm import Algorithm, TreeSearch, plan_ended
from .branching import AutoBranch
from .budget import Budget, Ledger, Spent, slices
from .catalogue import create, names
from .rollouts import RolloutSearch
from .run import Found, run, run_async
from .tree import Ask, Child, Tree
from .values import Bounds

__all__ = [
    "Algorithm",
    "Ask",
    "AutoBranch",
    "Bounds",
    "Budget",
    "Child",
    "Found",
    "Ledger",
    "RolloutSearch",
    "Spent",
    "Tree",
    "TreeSearch",
    "create",
    "names",
    "plan_ended",
    "run",
    "run_async",
    "slices",
]
