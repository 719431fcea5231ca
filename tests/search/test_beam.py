"""Beam: level by level, the best unfinished children go on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import exp, sqrt
from typing import Any

import pytest

from ttc_replay import search
from ttc_replay.search import Child
from ttc_replay.storage.errors import UsageError


def level(
    algorithm: search.Algorithm, tree: search.Tree, told: Mapping[str, Sequence[Child]], width: int = 16
) -> list[str]:
    """Play one level: the keys of the asked nodes in order; `told` maps them to children."""
    asks = algorithm.ask(tree, width)
    for ask in asks:
        algorithm.tell(tree, ask.id, told.get(tree.key[ask.node], []), more=True)
    return [tree.key[ask.node] for ask in asks]


def test_the_best_by_value_go_on() -> None:
    tree, algorithm = search.Tree(), search.create("beam", beam_width=2, branching=4)
    children = [Child(key, value=value) for key, value in zip("abcd", (0.1, 0.7, 0.9, 0.3), strict=True)]
    assert level(algorithm, tree, {"": children}) == [""]
    assert [tree.key[ask.node] for ask in algorithm.ask(tree, 8)] == ["c", "b"]


def test_every_ask_wants_branching_children_and_the_level_is_waited_for() -> None:
    tree, algorithm = search.Tree(), search.create("beam", beam_width=3, branching=2)
    (ask,) = algorithm.ask(tree, 8)
    assert (ask.count, algorithm.ask(tree, 8)) == (2, [])
    algorithm.tell(tree, ask.id, [Child("a", value=1.0), Child("b", value=0.5)])
    first, second = algorithm.ask(tree, 8)
    algorithm.tell(tree, second.id, [Child("x", value=9.0)])
    assert algorithm.ask(tree, 8) == []
    algorithm.tell(tree, first.id, [Child("y", value=1.0)])
    assert [tree.key[ask.node] for ask in algorithm.ask(tree, 8)] == ["x", "y"]


def test_without_values_the_sum_of_log_priors_decides() -> None:
    tree, algorithm = search.Tree(), search.create("beam", beam_width=2, branching=3)
    level(algorithm, tree, {"": [Child("a", 0.6), Child("b", 0.3), Child("c", 0.1)]})
    told = {"a": [Child("aa", 0.5), Child("ab", 0.5)], "b": [Child("ba", 0.9), Child("bb", 0.1)]}
    assert level(algorithm, tree, told) == ["a", "b"]
    assert sorted(tree.key[ask.node] for ask in algorithm.ask(tree, 8)) == ["aa", "ab"]


def test_values_come_before_priors_and_missing_priors_are_uniform() -> None:
    tree, algorithm = search.Tree(), search.create("beam", beam_width=3, branching=4)
    level(algorithm, tree, {"": [Child("likely", 0.9), Child("rare", 0.01), Child("valued", 0.01, value=-3.0)]})
    assert [tree.key[ask.node] for ask in algorithm.ask(tree, 8)] == ["valued", "likely", "rare"]
    tree = search.Tree()
    level(algorithm, tree, {"": [Child("low", 0.2), Child("none"), Child("high", 0.4)]})
    assert [tree.key[ask.node] for ask in algorithm.ask(tree, 8)] == ["high", "none", "low"]


def test_copies_of_one_state_take_one_place() -> None:
    tree, algorithm = search.Tree(), search.create("beam", beam_width=2, branching=4)
    children = [
        Child("a", value=0.9, state_key="same"),
        Child("b", value=0.8, state_key="same"),
        Child("c", value=0.7, state_key="same"),
        Child("d", value=0.1, state_key="other"),
    ]
    level(algorithm, tree, {"": children})
    assert [tree.key[ask.node] for ask in algorithm.ask(tree, 8)] == ["a", "d"]


def test_finished_runs_are_kept_and_take_no_place() -> None:
    tree, algorithm = search.Tree(), search.create("beam", beam_width=2, branching=4)
    children = [Child("end", value=0.5, terminal=True), Child("a", value=0.4), Child("b", value=0.3)]
    level(algorithm, tree, {"": children})
    assert level(algorithm, tree, {"a": [Child("worse", value=0.1, terminal=True)], "b": []}) == ["a", "b"]
    best = tree.best()
    assert best is not None
    assert tree.key[best] == "end"


def test_recorded_steps_are_not_in_the_beam_unless_proposed() -> None:
    for proposed in (False, True):
        tree, algorithm = search.Tree(), search.create("beam", beam_width=4, branching=2)
        tree.spine(["r", "end"], 1.0)
        level(algorithm, tree, {"": [Child("a"), Child("r")] if proposed else [Child("a"), Child("b")]})
        assert sorted(tree.key[ask.node] for ask in algorithm.ask(tree, 8)) == (["a", "r"] if proposed else ["a", "b"])


def test_a_beam_that_has_ended_asks_no_more(toy: Any) -> None:
    world = toy.World(seed=2, branching=4, fewest=4, max_depth=3, early_end=0.0)
    tree, algorithm = search.Tree(), search.create("beam", beam_width=2, branching=3)
    played = toy.play(algorithm, world, tree, width=3)
    assert [len([ask for ask in played.asks if tree.depth[ask.node] == depth]) for depth in range(4)] == [1, 2, 2, 0]
    assert played.transitions == 3 + 6 + 6
    assert algorithm.ask(tree, 8) == []
    assert tree.status[0] == "open"


def test_a_node_whose_expansion_failed_is_asked_again() -> None:
    tree, algorithm = search.Tree(), search.create("beam")
    tree.spine(["r"], 0.0)
    (first,) = algorithm.ask(tree, 1)
    algorithm.tell(tree, first.id, [], failed="busy")
    (again,) = algorithm.ask(tree, 1)
    assert (again.node, again.id) == (0, 1)


def test_a_complete_node_gives_its_known_children_to_the_beam() -> None:
    tree, first = search.Tree(), search.create("best-of-n", n=1)
    tree.spine(["recorded", "end"], 0.0)
    first.tell(tree, first.ask(tree, 1)[0].id, [Child("a")])
    tree.complete[0] = True
    assert [tree.key[ask.node] for ask in search.create("beam").ask(tree, 4)] == ["a"]


def test_the_levels_of_a_beam_do_not_depend_on_the_width(toy: Any) -> None:
    trees = []
    for width in (1, 3, 16):
        world = toy.World(seed=6, branching=4, fewest=3, max_depth=6, process=True)
        tree = search.Tree(seed=6)
        toy.play(search.create("beam"), world, tree, width=width)
        trees.append(toy.rows(tree))
    assert trees[0] == trees[1] == trees[2]


@pytest.mark.parametrize("options", [{"beam_width": 0}, {"branching": 0}, {"beam_width": "4"}, {"branching": None}])
def test_widths_are_counts(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(options))):
        search.create("beam", **options)


# Self-evaluation and chance


def chosen(children: Sequence[Child], seed: int = 0, **options: Any) -> list[str]:
    """Tell the first ask; the keys that the beam goes on in."""
    tree, algorithm = search.Tree(seed=seed), search.create("beam", branching=len(children), **options)
    level(algorithm, tree, {"": children})
    return [tree.key[ask.node] for ask in algorithm.ask(tree, 16)]


def self_evaluation(world: Any, path: tuple[str, ...], weight: float) -> float:
    """E of equation 3, restated on lists."""
    product = 1.0
    for depth in range(len(path)):
        keys = world.actions(path[:depth])
        priors = [(1 + world.number((*path[:depth], key), "prior")) / 4 for key in keys]
        probability = priors[keys.index(path[depth])] / sum(priors)
        product *= probability**weight * world.value(path[: depth + 1]) ** (1 - weight)
    return product


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("seed", range(5))
def test_self_evaluation_is_accumulated_over_the_steps(toy: Any, seed: int, weight: float) -> None:
    world = toy.World(seed=seed, process=True, fewest=3, branching=4, max_depth=5, early_end=0.1)
    algorithm = search.create("beam", beam_width=3, score="self-evaluation", prior_weight=weight)
    played = toy.play(algorithm, world, search.Tree(seed=seed), width=4)
    asked: list[tuple[str, ...]] = [()]
    beam: list[tuple[str, ...]] = [()]
    while beam:
        told = [(*path, key) for path in beam for key in world.actions(path)]
        unfinished = [path for path in told if not world.ends(path)]
        beam = sorted(unfinished, key=lambda path: self_evaluation(world, path, weight), reverse=True)[:3]
        asked += beam
    assert [toy.path_keys(played.tree, ask.node) for ask in played.asks] == asked


def test_the_prior_weight_shifts_between_the_policy_and_the_value() -> None:
    children = [Child("likely", 0.8, 0.2), Child("good", 0.1, 0.9), Child("both", 0.4, 0.5)]
    for weight, best in ((0.0, "good"), (0.5, "both"), (1.0, "likely")):
        assert chosen(children, beam_width=1, score="self-evaluation", prior_weight=weight) == [best]
    assert chosen(children, beam_width=1, prior_weight=1.0) == ["good"]


def test_values_outside_0_and_1_are_taken_on_the_range_of_the_tree() -> None:
    children = [Child("a", 0.3, -100.0), Child("b", 0.2, 40.0), Child("c", 0.5, 0.0)]
    options: dict[str, Any] = {"score": "self-evaluation", "beam_width": 3}
    assert chosen(children, **options) == ["c", "b", "a"]  # sqrt of .5 * 100/140, .2 * 1, .3 * 0
    assert chosen([Child("a", 0.3, 7.0), Child("b", 0.7, 7.0)], **options) == ["b", "a"]


def test_a_missing_value_counts_as_the_mean_of_its_siblings() -> None:
    children = [Child("a", 0.25, 0.9), Child("b", 0.25), Child("c", 0.25, 0.1)]
    assert chosen(children, score="self-evaluation") == ["a", "b", "c"]
    assert chosen([Child("a", 0.4), Child("b", 0.6)], score="self-evaluation") == ["b", "a"]


def drawn(weights: Mapping[str, float], first: str, second: str) -> float:
    """The chance to draw the two in this order, without replacement."""
    total = sum(weights.values())
    return weights[first] / total * weights[second] / (total - weights[first])


@pytest.mark.parametrize("score", ["value", "self-evaluation"])
def test_the_beam_is_drawn_without_replacement_by_equation_4(score: str) -> None:
    values, tau, draws = {"a": 0.9, "b": 0.5, "c": 0.1, "d": 0.3}, 0.4, 4000
    options = {"beam_width": 2, "temperature": tau, "score": score, "prior_weight": 0.0}
    children = [Child(key, 0.25, value) for key, value in values.items()]
    counts: dict[tuple[str, str], int] = {}
    for seed in range(draws):
        first, second = chosen(children, seed=seed, **options)
        counts[first, second] = counts.get((first, second), 0) + 1
    weights = {key: exp(value / tau) for key, value in values.items()}
    for first in values:
        for second in set(values) - {first}:
            expected = drawn(weights, first, second)
            deviation = sqrt(expected * (1 - expected) / draws)
            assert abs(counts[first, second] / draws - expected) < 4 * deviation


def test_without_values_the_draw_follows_the_probability_of_the_path() -> None:
    picks = [
        chosen([Child("a", 0.9), Child("b", 0.1)], seed=seed, beam_width=1, temperature=0.2) for seed in range(500)
    ]
    share = sum(pick == ["a"] for pick in picks) / 500
    assert abs(share - 1 / (1 + exp(-0.8 / 0.2))) < 0.03
    mixed = [Child("a", 0.1, 0.9), Child("b", 0.9)]
    picks = [chosen(mixed, seed=seed, beam_width=1, temperature=0.1) for seed in range(100)]
    assert sum(pick == ["a"] for pick in picks) > 95


@pytest.mark.parametrize("score", ["value", "self-evaluation"])
def test_no_temperature_is_no_chance(score: str) -> None:
    children = [Child(key, value=value) for key, value in zip("abcd", (0.1, 0.7, 0.9, 0.3), strict=True)]
    for seed in range(10):
        for temperature in (None, 0.0, 1e-12):
            kept = chosen(children, seed=seed, beam_width=2, temperature=temperature, score=score)
            assert kept == ["c", "b"]


def test_at_equal_values_outside_0_and_1_the_draw_is_left_to_the_policy() -> None:
    children, options = [Child("a", 0.9, 7.0), Child("b", 0.1, 7.0)], {"score": "self-evaluation", "temperature": 0.1}
    picks = [chosen(children, seed=seed, beam_width=1, **options) for seed in range(100)]
    assert sum(pick == ["a"] for pick in picks) > 95


def test_the_temperature_decays_at_every_step() -> None:
    def second_beams(decay: float) -> set[str]:
        kept = set()
        for seed in range(60):
            tree = search.Tree(seed=seed)
            algorithm = search.create("beam", beam_width=1, branching=2, temperature=5.0, temperature_decay=decay)
            level(algorithm, tree, {"": [Child("a", value=0.5)]})
            level(algorithm, tree, {"a": [Child("good", value=0.9), Child("bad", value=0.1)]})
            kept.add(tree.key[algorithm.ask(tree, 1)[0].node])
        return kept

    children = [Child("a", value=0.9), Child("b", value=0.1)]
    first = [chosen(children, seed=seed, beam_width=1, temperature=5.0, temperature_decay=0.0) for seed in range(60)]
    assert ["a"] in first
    assert ["b"] in first
    assert second_beams(1.0) == {"good", "bad"}
    assert second_beams(0.0) == {"good"}
    assert second_beams(0.001) == {"good"}


def test_chance_comes_from_the_seed_and_copies_of_a_state_still_take_one_place(toy: Any) -> None:
    children = [Child(key, value=0.5, state_key="same") for key in "abc"] + [Child("d", value=0.1, state_key="other")]
    for seed in range(20):
        kept = chosen(children, seed=seed, beam_width=2, temperature=1.0)
        assert kept == chosen(children, seed=seed, beam_width=2, temperature=1.0)
        assert sorted(key == "d" for key in kept) == [False, True]


@pytest.mark.parametrize(
    "options",
    [
        {"score": "log"},
        {"prior_weight": 1.5},
        {"temperature": -0.1},
        {"temperature": "hot"},
        {"temperature_decay": 2.0},
    ],
)
def test_options_of_chance_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(options))):
        search.create("beam", **options)
