"""Algorithms whose plan has an end say when it has come, and the others never."""

from __future__ import annotations

from typing import Any

import pytest

from ttc_replay import search

ENDS: list[tuple[str, dict[str, Any], str]] = [
    ("greedy", {}, "its run has come to an end"),
    ("beam", {"beam_width": 2, "branching": 2}, "its last level, number 6, has ended"),
    ("tot-bfs", {"breadth": 2, "branching": 2}, "its last level, number 6, has ended"),
    ("tot-bfs", {"breadth": 2, "branching": 2, "max_steps": 2}, "its last level, number 2, has ended"),
    ("tot-dfs", {"branching": 1}, "it has backtracked from its start"),
    ("dvts", {"trees": 2, "branching": 2}, "all its sub-trees have ended"),
    ("best-first", {"solutions": 2}, "it has found its 2 solutions"),
    ("best-of-n", {"n": 3}, "its 3 rollouts have ended"),
    ("self-consistency", {"n": 3}, "its 3 rollouts have ended"),
    ("self-consistency", {"n": 9, "answer": lambda tree, node: "yes", "stop_early": 0.9}, "the vote is decided"),
    ("particles", {"generations": 2}, "its 2 generations have ended"),
    ("omega-prm", {"searches": 1, "rollouts": 2, "success_at": None}, "no failed run is left to search"),
    ("omega-prm", {"n": 2}, "its 2 rollouts have ended"),
]


@pytest.mark.parametrize("width", [1, 8])
@pytest.mark.parametrize(("name", "options", "reason"), ENDS)
def test_it_says_so_at_the_end_and_not_before(
    toy: Any, name: str, options: dict[str, Any], reason: str, width: int
) -> None:
    world = toy.World(seed=3, branching=4, fewest=4, max_depth=6, early_end=0.0, process=True)
    tree, algorithm = search.Tree(seed=3), search.create(name, **options)
    said: list[str | None] = []
    waiting: list[search.Ask] = []
    while True:
        waiting += algorithm.ask(tree, width - len(waiting))
        if not waiting:
            break
        said.append(search.plan_ended(algorithm, tree))
        ask = waiting.pop(0)
        known = [tree.key[child] for child in tree.children(ask.node)]
        children, more = world.expand(toy.path_keys(tree, ask.node), ask, known)
        algorithm.tell(tree, ask.id, children, **more)
    assert set(said) == {None}
    assert search.plan_ended(algorithm, tree) == reason
    assert tree.status[0] == "open"
    assert algorithm.ask(tree, width) == []


@pytest.mark.parametrize("name", ["mcts", "gumbel", "ab-mcts", "particles", "best-of-n", "self-consistency"])
def test_the_others_go_on_until_nothing_is_left_and_never_say_so(toy: Any, name: str) -> None:
    world, tree = toy.World(seed=3, process=True, max_depth=3), search.Tree(seed=3)
    algorithm = search.create(name)
    said: list[str | None] = []
    toy.play(algorithm, world, tree, check=lambda tree: said.append(search.plan_ended(algorithm, tree)))
    assert set(said) == {None}
    assert tree.status[0] == "exhausted"
    assert sum(tree.terminal) == len(list(world.leaves()))


def test_an_algorithm_with_ask_and_tell_alone_says_nothing() -> None:
    class Two:
        """The least that is an algorithm."""

        def ask(self, tree: search.Tree, k: int) -> list[search.Ask]:
            return []

        def tell(self, tree: search.Tree, ask_id: int, children: Any, **options: Any) -> list[int]:
            return []

    two = Two()
    assert isinstance(two, search.Algorithm)
    assert search.plan_ended(two, search.Tree()) is None
