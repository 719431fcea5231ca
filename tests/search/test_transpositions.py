"""States that are reached twice (`merge_states`), answers, and votes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from ttc_replay import search
from ttc_replay.search import Child


@dataclass(frozen=True, kw_only=True)
class Teller(search.TreeSearch):
    """What all algorithms do with what they are told, and nothing else: it asks for nothing."""

    def _next(self, tree: search.Tree) -> search.Ask | None:
        return None


def told(tree: search.Tree, *children: Child, node: int = 0) -> list[int]:
    """The node is told these children."""
    tree.hold(node)
    return Teller().tell(tree, tree.open_ask(node, len(children)).id, children, more=True)


def test_a_twin_is_the_first_node_of_its_state() -> None:
    tree = search.Tree()
    told(tree, Child("a", state_key="s"), Child("b", state_key="s"), Child("c"), Child("d", state_key="t"))
    told(tree, Child("e", state_key="s"))
    assert tree.twin == [-1, -1, 1, -1, -1, 1]
    assert tree.state_key == [None, "s", "s", None, "t", "s"]


def test_a_recorded_step_learns_its_state_when_the_policy_finds_it_again() -> None:
    tree = search.Tree()
    tree.spine(["a", "b"], 0.0)
    told(tree, Child("c", state_key="s"), Child("a", state_key="s"))
    assert (tree.state_key[1], tree.twin[1], tree.twin[3]) == ("s", 3, -1)


@pytest.mark.parametrize("merge_states", [False, True])
@pytest.mark.parametrize("terminal", [False, True])
def test_the_evaluation_of_a_state_is_shared_and_its_visits_are_not(merge_states: bool, terminal: bool) -> None:
    tree = search.Tree(merge_states=merge_states)
    told(
        tree,
        Child("a", value=0.75, state_key="s", terminal=terminal),
        Child("b", state_key="s", terminal=terminal),
        Child("c", value=0.25, state_key="t", terminal=terminal),
    )
    if merge_states:
        assert (tree.value[2], tree.visits[1:], tree.value_sum[0]) == (0.75, [1, 1, 1], 1.75)
        assert not tree.imputed[2]
    else:
        assert (tree.value[2], tree.imputed[2]) == (None, terminal)


def test_a_told_value_is_not_replaced_by_the_shared_one() -> None:
    tree = search.Tree(merge_states=True)
    told(tree, Child("a", value=0.75, state_key="s"), Child("b", value=0.5, state_key="s"), Child("c", state_key="s"))
    assert tree.value[1:] == [0.75, 0.5, 0.75]


def test_the_end_of_a_run_that_was_cut_says_nothing_about_going_on() -> None:
    tree = search.Tree(merge_states=True)
    told(tree, Child("cut", value=0.0, state_key="s", terminal=True), Child("on", state_key="s"))
    assert (tree.value[2], tree.visits[2]) == (None, 0)
    told(tree, Child("cut too", state_key="s", terminal=True))
    assert (tree.value[3], tree.imputed[3]) == (0.0, False)


def test_a_state_known_without_a_value_takes_it_when_it_is_told_again() -> None:
    tree = search.Tree(merge_states=True)
    told(tree, Child("a", state_key="s"))
    told(tree, Child("b", value=0.5, state_key="s"))
    assert tree.visits[1] == 0
    told(tree, Child("a", state_key="s"))
    assert (tree.value[1], tree.visits[1]) == (0.5, 1)


def test_every_path_to_a_state_has_one_value_in_a_merged_world(toy: Any) -> None:
    world = toy.World(seed=5, states=True, untold=0.6, process=True, branching=3, max_depth=4, early_end=0.0)
    values: dict[bool, dict[str, set[float | None]]] = {}
    for merge_states in (False, True):
        tree = search.Tree(seed=1, merge_states=merge_states)
        toy.play(search.create("mcts"), world, tree)
        found = values.setdefault(merge_states, {})
        for node in range(1, len(tree)):
            if tree.value[node] is not None or tree.twin[node] < 0:
                found.setdefault(str(tree.state_key[node]), set()).add(tree.value[node])
        assert merge_states or None in {value for node, value in enumerate(tree.value) if tree.twin[node] >= 0}
    told_once = {state: known - {None} for state, known in values[True].items()}
    assert all(len(known) <= 1 for known in told_once.values())
    assert sum(map(len, told_once.values())) > 5


def test_an_answer_is_the_state_of_an_end_or_its_last_action() -> None:
    tree = search.Tree()
    told(tree, Child("say 4", terminal=True, state_key="4"), Child("say 5", terminal=True))
    assert [tree.answer(1), tree.answer(2)] == ["4", "say 5"]


def test_without_votes_the_best_is_the_highest_value_and_nobody_stands() -> None:
    tree = search.Tree()
    told(tree, Child("a", value=0.25, terminal=True), Child("b", value=0.75, terminal=True))
    assert (tree.best(), tree.standing(1), tree.votes) == (2, 0.0, {})


@pytest.mark.parametrize(
    ("votes", "best"),
    [
        ({"x": 2.0, "y": 1.0}, 3),  # the better one of the two that say x
        ({"x": 1.0, "y": 1.5}, 2),
        ({"x": 1.0, "y": 1.0}, 2),  # votes alike: value
        ({"z": 3.0, "x": 1.0}, 4),  # an end without a value is elected too
        ({"elsewhere": 9.0}, 2),  # nobody stands: value
    ],
)
def test_with_votes_the_best_is_the_best_run_of_the_winning_answer(votes: dict[str, float], best: int) -> None:
    tree = search.Tree()
    told(
        tree,
        Child("a", value=0.1, terminal=True, state_key="x"),
        Child("b", value=0.9, terminal=True, state_key="y"),
        Child("c", value=0.5, terminal=True, state_key="x"),
        Child("d", terminal=True, state_key="z"),
    )
    tree.votes.update(votes)
    assert tree.best() == best
    assert tree.standing(3) == votes.get("x", 0.0)


def test_of_runs_alike_in_votes_and_value_the_shorter_is_best() -> None:
    tree = search.Tree()
    told(tree, Child("a"))
    told(tree, Child("deep", value=0.5, terminal=True, state_key="x"), node=1)
    told(tree, Child("shallow", value=0.5, terminal=True, state_key="x"))
    tree.votes["x"] = 2.0
    assert tree.key[tree.best() or 0] == "shallow"


def test_the_record_is_never_elected() -> None:
    tree = search.Tree()
    leaf = tree.spine(["a"], 0.9)[-1]
    tree.votes["a"] = 5.0
    assert tree.best() == leaf  # nothing else is finished
    told(tree, Child("b", value=0.1, terminal=True))
    assert tree.best() == 2
