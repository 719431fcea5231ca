"""Gumbel search: sequential halving against its schedule, its formulas against plain ones, every option."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from ttc_replay import search
from ttc_replay.search import Child, gumbel
from ttc_replay.storage.errors import UsageError

Path = tuple[str, ...]


def create(**options: Any) -> gumbel.Gumbel:
    """The algorithm, as its own class."""
    algorithm = search.create("gumbel", **options)
    assert isinstance(algorithm, gumbel.Gumbel)
    return algorithm


def tell_all(tree: search.Tree, node: int, children: Sequence[Child]) -> None:
    """Give a node these children, all it has."""
    tree.hold(node)
    search.create("particles").tell(tree, tree.open_ask(node, len(children)).id, children)
    tree.complete[node] = True


def grown(children: Sequence[Child], seed: int = 1) -> search.Tree:
    """A tree whose root has these children, all of them."""
    tree = search.Tree(seed=seed)
    tell_all(tree, 0, children)
    return tree


class Bandit:
    """Arms a, b, c, ... at the root; below an arm every state has the arm's value, and there is always one more."""

    def __init__(self, values: Sequence[float], priors: Sequence[float | None] | None = None, length: int = 0):
        self.values = {f"arm{index}": value for index, value in enumerate(values)}
        self.priors = dict(zip(self.values, priors or [None] * len(values), strict=True))
        self.length = length
        """0: every state has the value; else only ends, that many steps below the arm."""

    def child(self, path: Path) -> Child:
        prior = self.priors[path[0]] if len(path) == 1 else None
        if not self.length:
            return Child(path[-1], prior, self.values[path[0]])
        ended = len(path) > self.length
        return Child(path[-1], prior, self.values[path[0]] if ended else None, ended)

    def expand(self, path: Path, ask: search.Ask, known: list[str]) -> tuple[list[Child], dict[str, Any]]:
        if path:
            return [self.child((*path, f"n{ask.id}"))], {"more": True}
        return [self.child((key,)) for key in self.values if key not in known][: ask.count], {}


def visits_by_arm(tree: search.Tree) -> dict[str, int]:
    return {tree.key[arm]: tree.visits[arm] for arm in tree.children(0)}


def schedule(arms: int, simulations: int) -> list[int]:
    """Visits of the best, the second best, ... arm by appendix F: every phase new visits for all survivors."""
    phases = math.ceil(math.log2(arms))
    visits, survivors = [0] * arms, arms
    for _ in range(phases):
        share = max(1, simulations // (phases * survivors))
        visits = [count + share * (rank < survivors) for rank, count in enumerate(visits)]
        survivors = math.ceil(survivors / 2)
    return visits


# At the start


@pytest.mark.parametrize("width", [1, 8])
@pytest.mark.parametrize(("arms", "budget"), [(16, 64), (16, 256), (8, 128), (5, 64), (4, 16), (2, 32), (3, 1024)])
def test_the_arms_get_the_visits_of_sequential_halving(toy: Any, arms: int, budget: int, width: int) -> None:
    values = [1.0 - rank / arms for rank in range(arms)]
    planned = schedule(arms, budget)
    tree = search.Tree(seed=arms)
    toy.play(create(budget=budget, c_visit=1e6), Bandit(values), tree, width=width, budget=sum(planned))
    got = visits_by_arm(tree)
    assert [got[f"arm{rank}"] for rank in range(arms)] == planned


def test_the_phases_share_the_transitions_where_rollouts_cost_several(toy: Any) -> None:
    values = [0.9, 0.6, 0.3, 0.0]
    tree = search.Tree(seed=3)
    played = toy.play(create(budget=128, c_visit=1e6), Bandit(values, length=4), tree, budget=128)
    assert played.transitions == 128
    got = visits_by_arm(tree)
    assert got["arm2"] == got["arm3"] == 128 // (2 * 4 * 4)  # half of the budget, over 4 arms, at about 4 a visit
    assert got["arm0"] >= 2 * got["arm2"]
    assert abs(got["arm0"] - got["arm1"]) <= 1


def test_the_best_arms_are_kept_by_noise_logits_and_values(toy: Any) -> None:
    values, priors = [0.0, 0.35, 0.7, 1.0], [0.55, 0.25, 0.15, 0.05]
    kept: Counter[str] = Counter()
    for seed in range(40):
        algorithm = create(budget=16, c_visit=1.0, c_scale=1.0)
        tree = search.Tree(seed=seed)
        toy.play(algorithm, Bandit(values, priors), tree, budget=8)
        arms = tree.children(0)
        plain = {
            tree.key[arm]: gumbel.noise(tree, arm) + math.log(prior) + (1.0 + 2.0) * 1.0 * value
            for arm, prior, value in zip(arms, priors, values, strict=True)
        }
        toy.play(algorithm, Bandit(values, priors), tree, budget=2)
        got = visits_by_arm(tree)
        best = sorted(plain, key=plain.__getitem__)[-2:]
        assert {arm for arm, count in got.items() if count == max(got.values())} <= set(best)
        kept[best[-1]] += 1
    assert len(kept) > 2


def test_without_values_the_last_two_arms_are_drawn_from_the_priors_without_replacement(toy: Any) -> None:
    priors = [0.5, 0.3, 0.15, 0.05]
    last: Counter[str] = Counter()
    for seed in range(400):
        tree = search.Tree(seed=seed)
        toy.play(create(budget=16, c_scale=0.0), Bandit([0.0, 0.1, 0.5, 1.0], priors), tree, budget=16)
        got = visits_by_arm(tree)
        last.update(arm for arm, count in got.items() if count == max(got.values()))
    assert sum(last.values()) == 800
    for index, prior in enumerate(priors):
        chance = prior + sum(other * prior / (1.0 - other) for other in priors) - prior * prior / (1.0 - prior)
        assert abs(last[f"arm{index}"] / 400 - chance) < 3.5 * math.sqrt(chance * (1.0 - chance) / 400)


def test_considered_arms_are_drawn_without_replacement_and_their_number_is_an_option(toy: Any) -> None:
    drawn: Counter[int] = Counter()
    for seed in range(200):
        tree = grown([Child(key, prior) for key, prior in zip("abcd", (0.6, 0.2, 0.1, 0.1), strict=True)], seed)
        algorithm = create(considered=2, budget=1024)
        for _ in range(8):
            ask = algorithm.ask(tree, 1)[0]
            algorithm.tell(tree, ask.id, [Child(f"n{ask.id}", value=0.5)], more=True)
        taken = [node for node in (1, 2, 3, 4) if tree.visits[node]]
        assert len(taken) == 2
        drawn.update(taken)
    chance = 0.6 + 0.2 * 0.6 / 0.8 + 2 * 0.1 * 0.6 / 0.9  # of "a" being one of two without replacement
    assert abs(drawn[1] / 200 - chance) < 0.08


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({}, 16),
        ({"considered": 3}, 3),
        ({"budget": 256}, 16),
        ({"budget": 30}, 8),
        ({"budget": 2}, 2),
        ({"considered": 99, "budget": 200}, 64),
    ],
)
def test_the_start_is_asked_once_for_all_it_may_consider(options: dict[str, Any], wanted: int) -> None:
    tree, algorithm = search.Tree(), create(**options)
    (ask,) = algorithm.ask(tree, 8)
    assert (ask.node, ask.count) == (0, wanted)
    assert algorithm.ask(tree, 8) == []


def test_a_start_that_gave_too_few_is_asked_again_in_the_next_round(toy: Any) -> None:
    class Slow(Bandit):
        """The start gives two children an ask."""

        def expand(self, path: Path, ask: search.Ask, known: list[str]) -> tuple[list[Child], dict[str, Any]]:
            return super().expand(path, ask, known)[0][:2], {"more": True}

    tree = search.Tree()
    played = toy.play(create(considered=6), Slow([0.1 * index for index in range(6)]), tree, budget=512)
    counts = [ask.count for ask in played.asks if ask.node == 0]
    assert counts == [6, 4, 2]


def test_a_round_begins_with_all_open_arms_anew_and_has_twice_the_transitions(toy: Any) -> None:
    tree, algorithm, world = search.Tree(seed=2), create(budget=16, c_visit=1e6), Bandit([0.9, 0.7, 0.3, 0.1])
    for transitions, visits in ((16, [6, 6, 2, 2]), (16, [10, 10, 6, 6]), (16, [18, 18, 6, 6])):
        toy.play(algorithm, world, tree, budget=transitions)
        assert list(visits_by_arm(tree).values()) == visits


def test_an_ended_arm_leaves_the_race_and_the_search_goes_on(toy: Any) -> None:
    world, tree = toy.World(seed=11, branching=3, max_depth=5), search.Tree(seed=4)
    played = toy.play(create(), world, tree, width=4)
    states = [toy.path_keys(tree, node) for node in range(len(tree))]
    assert len(set(states)) == len(states) == played.transitions + 1
    best = tree.best()
    assert best is not None
    assert tree.value[best] == world.optimum()


def test_a_branch_point_does_not_count_the_recorded_step_as_an_arm(toy: Any) -> None:
    world, tree = toy.World(seed=31, branching=3, fewest=3, max_depth=5, early_end=0.0), search.Tree(seed=2)
    toy.record(tree, world, ("a",) * 5)
    tree.leave_spine = True
    toy.play(create(considered=2), world, tree, budget=60)
    assert tree.visits[1] == 1
    assert tree.visits[0] > 10


# Below it


STATISTICS = [
    ([0.9, 0.8], [0.2], [0.5, 0.5, 0.5]),
    ([0.1] * 8, [0.3], [0.2, 0.9]),
    ([-4.0, -2.0], [-3.5], []),
    ([], [650.0] * 5, [800.0, 100.0]),
    ([], [], [0.5, 0.1]),
]


def plain_choice(values: Sequence[Sequence[float]], priors: Sequence[float], own: float, c: tuple[float, float]) -> int:
    """Equations 8, 10, 11, 14 and 33 as written, on lists of values."""
    every = [own, *(value for given in values for value in given)]
    low, high = min(every), max(every)
    known = [(sum(given) / len(given) - low) / (high - low) if given else None for given in values]
    counts = [len(given) for given in values]
    seen = [index for index, count in enumerate(counts) if count]
    weighted = sum(priors[index] * (known[index] or 0.0) for index in seen) / sum(priors[index] for index in seen)
    mixed = ((own - low) / (high - low) + sum(counts) * weighted) / (1 + sum(counts))
    completed = [mixed if quality is None else quality for quality in known]
    sigma = [(c[0] + max(counts)) * c[1] * quality for quality in completed]
    powers = [math.exp(math.log(prior) + scaled) for prior, scaled in zip(priors, sigma, strict=True)]
    policy = [power / sum(powers) for power in powers]
    scores = [share - count / (1 + sum(counts)) for share, count in zip(policy, counts, strict=True)]
    return scores.index(max(scores))


@pytest.mark.parametrize("c", [(50.0, 1.0), (0.0, 0.1), (2.0, 0.5)])
@pytest.mark.parametrize("priors", [(0.5, 0.3, 0.2), (0.05, 0.05, 0.9)])
@pytest.mark.parametrize("statistics", STATISTICS)
def test_the_selection_below_the_start_is_equation_14(
    statistics: Sequence[Sequence[float]], priors: Sequence[float], c: tuple[float, float]
) -> None:
    tree = grown([Child("arm", value=0.4)])
    tell_all(tree, 1, [Child(key, 3.0 * prior) for key, prior in zip("abc", priors, strict=True)])
    for child, values in zip((2, 3, 4), statistics, strict=True):
        for value in values:
            tree.back_up(child, value)
    (ask,) = create(c_visit=c[0], c_scale=c[1]).ask(tree, 1)
    assert ask.node == 2 + plain_choice(statistics, priors, 0.4, c)


def test_open_rollouts_count_as_visits() -> None:
    tree = grown([Child("a"), Child("b")])
    algorithm = create()
    for child in (1, 2):
        tree.back_up(child, 0.5)
    picked = algorithm.choose(tree, 0, [1, 2])
    tree.hold(picked)
    assert algorithm.choose(tree, 0, [1, 2]) == 3 - picked


def test_missing_priors_are_uniform_and_ties_are_broken_by_the_seed() -> None:
    algorithm = create()
    tree = grown([Child("a"), Child("b", 0.4), Child("c", 0.2)])
    shares = [math.exp(score) for score in gumbel.log_priors(tree, 0, [1, 2, 3])]
    assert shares == pytest.approx([0.3 / 0.9, 0.4 / 0.9, 0.2 / 0.9])
    firsts = {algorithm.choose(grown([Child("a"), Child("b")], seed), 0, [1, 2]) for seed in range(20)}
    assert firsts == {1, 2}


@pytest.mark.parametrize("option", ["c_visit", "c_scale"])
def test_the_scale_of_sigma_weighs_values_against_priors(option: str) -> None:
    tree = grown([Child("likely", 0.9), Child("good", 0.1)])
    tree.back_up(1, 0.2)
    tree.back_up(2, 0.6)
    chosen = {}
    for value in (0.0, 20.0):
        algorithm = create(**{"c_visit": 1.0, "c_scale": 0.2, option: value})
        chosen[value] = algorithm.choose(tree, 0, [1, 2])
    assert chosen == {0.0: 1, 20.0: 2}


@pytest.mark.parametrize(("coefficient", "exponent"), [(1.0, 0.5), (2.0, 0.5), (1.0, 1.0), (3.0, 0.0), (0.0, 0.5)])
def test_nodes_below_the_start_are_widened_as_their_options_say(coefficient: float, exponent: float) -> None:
    tree = grown([Child("only")])
    algorithm = create(widening_coefficient=coefficient, widening_exponent=exponent)
    for _ in range(120):
        (ask,) = algorithm.ask(tree, 1)
        had, before = len(tree.children(ask.node)), tree.visits[ask.node]
        assert had == 0 or had < math.ceil(coefficient * before**exponent)
        algorithm.tell(tree, ask.id, [Child(f"n{ask.id}", value=0.5)], more=True)
    limit = max(1, math.ceil(coefficient * (tree.visits[1] - 1) ** exponent))
    assert limit - 1 <= len(tree.children(1)) <= limit


# The budget


def asks(toy: Any, planned: int | None, played: int) -> list[search.Ask]:
    """What is asked in `played` transitions by a search that plans for `planned`."""
    world = Bandit([0.1 * index for index in range(9)])
    asked: list[search.Ask] = toy.play(create(budget=planned), world, search.Tree(), budget=played).asks
    return asked


def test_budgets_with_one_next_power_of_two_continue_each_other(toy: Any) -> None:
    assert [create(budget=budget).planned for budget in (1, 2, 33, 64, 65)] == [1, 2, 64, 64, 128]
    assert create().planned == 64
    assert asks(toy, 40, 40) == asks(toy, 64, 64)[: len(asks(toy, 40, 40))]
    assert asks(toy, 64, 64) != asks(toy, 65, 64)
    assert asks(toy, None, 64) == asks(toy, 64, 64)


def test_the_search_goes_on_beyond_its_budget(toy: Any) -> None:
    assert sum(ask.count for ask in asks(toy, 16, 300)) >= 300


@pytest.mark.parametrize(
    "options",
    [
        {"considered": 0},
        {"considered": 2.0},
        {"c_visit": -1.0},
        {"c_scale": -0.1},
        {"c_scale": math.inf},
        {"widening_coefficient": -1.0},
        {"widening_exponent": 1.1},
        {"budget": 0},
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(options))):
        search.create("gumbel", **options)
