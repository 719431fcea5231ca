"""What the search itself costs: CPU microseconds per transition (ask, told Child and tell), in memory.

    python benchmarks/search_core.py [--transitions 20000] [--rounds 5]

The world costs next to nothing: runs end at a fixed depth, values come from a small table, a node has four actions or
endlessly many. Prints for each case the median over rounds and the transitions per CPU second. Goals: 20,000 a second
for every algorithm, at most 15 us for MCTS on shallow trees. What a case costs may grow with the tree: `limit` keeps
those small that would take minutes.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from ttc_replay import search


@dataclass(frozen=True)
class Case:
    """`ends`: the depth of all ends. `actions` None: a node always has one more. `auto`: branching off a record.
    `limit`: the most transitions of one search."""

    algorithm: str
    ends: int
    options: dict[str, Any] = field(default_factory=dict)
    actions: int | None = None
    process: bool = False
    auto: bool = False
    limit: int = 1_000_000


CASES = {
    "best-of-n, open actions, depth 6": Case("best-of-n", 6),
    "beam 64 x 4, depth 400": Case("beam", 400, {"beam_width": 64, "branching": 4}, process=True),
    "mcts puct, 4 actions, values": Case("mcts", 12, actions=4, process=True),
    "mcts uct, 4 actions, values": Case("mcts", 12, {"selection": "uct"}, actions=4, process=True),
    "mcts puct, 4 actions, rollouts": Case("mcts", 12, actions=4),
    "mcts uct, 4 actions, rollouts": Case("mcts", 12, {"selection": "uct"}, actions=4),
    "mcts puct, open actions, values": Case("mcts", 12, process=True),
    "mcts uct, open actions, values": Case("mcts", 12, {"selection": "uct"}, process=True),
    "mcts puct, open, rollouts of 30": Case("mcts", 30),
    "auto mcts puct, open, runs of 30": Case("mcts", 30, auto=True),
    "best-first, 4 actions, values": Case("best-first", 12, actions=4, process=True),
    "dvts 64 x 4, depth 400": Case("dvts", 400, {"trees": 64}, process=True),
    "tot-bfs 64 x 5, depth 400": Case("tot-bfs", 400, {"breadth": 64}, process=True),
    "tot-dfs, open, depth 30": Case("tot-dfs", 30, process=True),
    "particles, open, values": Case("particles", 12, process=True),
    "self-consistency, 4 actions": Case("self-consistency", 12, actions=4),
    "gumbel, 4 actions, values": Case("gumbel", 12, actions=4, process=True),
    "gumbel, open, values": Case("gumbel", 12, process=True),
    "gumbel, 4 actions, rollouts": Case("gumbel", 12, actions=4),
    "ab-mcts, 4 actions, values": Case("ab-mcts", 12, actions=4, process=True),
    "ab-mcts, 4 actions, rollouts": Case("ab-mcts", 12, actions=4),
    "ab-mcts, open, values, 1,000": Case("ab-mcts", 12, process=True, limit=1000),
    "ab-mcts, open, values, 3,000": Case("ab-mcts", 12, process=True, limit=3000),
}
VALUES = [((index * 7919) % 257) / 257 for index in range(257)]


def children(tree: search.Tree, ask: search.Ask, case: Case) -> list[search.Child]:
    """The next actions of a node."""
    have = len(tree.child_ids[ask.node])
    last = have + ask.count if case.actions is None else min(have + ask.count, case.actions)
    terminal = tree.depth[ask.node] + 1 >= case.ends
    judged = terminal or case.process
    return [
        search.Child(f"action {index}", 0.25, VALUES[(ask.node * 31 + index * 17) % 257] if judged else None, terminal)
        for index in range(have, last)
    ]


def play(case: Case, transitions: int, width: int = 8) -> float:
    """CPU microseconds per transition of one search."""
    tree, algorithm = search.Tree(seed=1), search.create(case.algorithm, **case.options)
    if case.auto:
        tree.spine([f"recorded {step}" for step in range(case.ends)], 0.0)
        algorithm = search.AutoBranch(algorithm)
    waiting: list[search.Ask] = []
    began, size = time.process_time(), len(tree)
    while len(tree) - size < transitions:
        waiting += algorithm.ask(tree, width - len(waiting))
        ask = waiting.pop(0)
        algorithm.tell(tree, ask.id, children(tree, ask, case), more=case.actions is None)
    return (time.process_time() - began) / (len(tree) - size) * 1e6


def main() -> None:
    """Print one line per case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--transitions", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    print(f"python {sys.version.split()[0]}, {arguments.transitions} transitions, {arguments.rounds} rounds, width 8")
    results: dict[str, list[float]] = {name: [] for name in CASES}
    for _ in range(arguments.rounds):
        for name, case in CASES.items():
            results[name].append(play(case, min(arguments.transitions, case.limit)))
    for name, times in results.items():
        typical = median(times)
        print(f"{name:34} {typical:7.1f} us/transition {1e6 / typical:9,.0f} transitions/CPU-s")


if __name__ == "__main__":
    main()
