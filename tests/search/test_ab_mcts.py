"""AB-MCTS: its posteriors against plain ones, its samplers against theory, its backup against the paper's figure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import fmean, median, quantiles, variance
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ttc_replay import search
from ttc_replay.search import Child, ab_mcts, thompson
from ttc_replay.search.tree import mix
from ttc_replay.storage.errors import UsageError

SEARCHES = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def scores_of(values: Sequence[float]) -> thompson.Scores:
    """The values, observed one by one."""
    scores = thompson.Scores()
    for value in values:
        scores.add(value)
    return scores


def told(algorithm: search.Algorithm, tree: search.Tree, node: int, child: Child) -> int:
    """Tell one child under a node of our choice; returns its id."""
    tree.hold(node)
    return algorithm.tell(tree, tree.open_ask(node, 1).id, [child], more=True)[0]


def grow(algorithm: search.Algorithm, tree: search.Tree, world: Any, count: int) -> None:
    """`count` asks, each told one new child that `world(path)` values."""
    for turn in range(count):
        (ask,) = algorithm.ask(tree, 1)
        path = (*(tree.key[node] for node in tree.path(ask.node)[1:]), f"n{turn}")
        algorithm.tell(tree, ask.id, [Child(path[-1], value=world(path))], more=True)


# Posteriors and samplers


@pytest.mark.parametrize("values", [[], [0.3], [0.9, 0.1, 0.5], [1.0] * 9, [-2.0, 7.0], [1e9, 1e9 + 1.0]])
def test_the_gaussian_posterior_is_equations_12_to_15(values: list[float]) -> None:
    m, kappa, nu, tau_squared = 0.0, 1.0, 1.0, 0.1
    n = len(values)
    mean = sum(values) / n if n else 0.0
    spread = math.fsum((value - mean) ** 2 for value in values)
    new_mean = (kappa * m + n * mean) / (kappa + n)
    new_tau = (nu * tau_squared + spread + n * kappa / (kappa + n) * (m - mean) ** 2) / (nu + n)
    got = thompson.gaussian_posterior(scores_of(values))
    assert got == pytest.approx((new_mean, kappa + n, nu + n, new_tau), rel=1e-12)


@pytest.mark.parametrize("values", [[], [0.3], [0.9, 0.1, 0.5], [1.0] * 9])
def test_the_beta_posterior_is_equations_18_and_19(values: list[float]) -> None:
    a, b = thompson.beta_posterior(scores_of(values))
    assert a == pytest.approx(0.5 + sum(values))
    assert b == pytest.approx(0.5 + sum(1.0 - value for value in values))


def samples(draw: Any, count: int = 6000) -> list[float]:
    """`draw` on hashed numbers with another salt each time."""
    tree = search.Tree(seed=7)
    return [draw(thompson.uniforms(tree, 0, salt)) for salt in range(count)]


@pytest.mark.parametrize("shape", [0.5, 1.0, 2.5, 40.0])
def test_gamma_variates_have_mean_and_variance_of_their_shape(shape: float) -> None:
    drawn = samples(lambda numbers: thompson.gamma(shape, numbers))
    assert min(drawn) > 0.0
    assert fmean(drawn) == pytest.approx(shape, rel=0.05)
    assert variance(drawn) == pytest.approx(shape, rel=0.12)


def test_small_gamma_variates_have_the_quartiles_of_their_distribution() -> None:
    low, middle, high = quantiles(samples(lambda numbers: 2.0 * thompson.gamma(0.5, numbers)), n=4)
    assert (low, middle, high) == pytest.approx((0.1015, 0.4549, 1.3233), rel=0.1)  # chi-squared, 1 degree of freedom


@pytest.mark.parametrize("values", [[], [0.9, 0.7, 0.8, 0.2], [0.0] * 6])
def test_beta_variates_have_mean_and_variance_of_the_posterior(values: list[float]) -> None:
    scores = scores_of(values)
    a, b = thompson.beta_posterior(scores)
    drawn = samples(lambda numbers: thompson.draw_beta(scores, numbers))
    assert fmean(drawn) == pytest.approx(a / (a + b), rel=0.06)
    assert variance(drawn) == pytest.approx(a * b / (a + b) ** 2 / (a + b + 1.0), rel=0.12)


def test_gaussian_variates_follow_students_distribution() -> None:
    low, middle, high = quantiles(samples(lambda numbers: thompson.draw_gaussian(thompson.Scores(), numbers)), n=4)
    assert middle == pytest.approx(0.0, abs=0.02)
    assert (low, high) == pytest.approx((-math.sqrt(0.1), math.sqrt(0.1)), rel=0.07)  # Cauchy: quartiles at its scale
    scores = scores_of([0.4, 0.6] * 10)
    drawn = samples(lambda numbers: thompson.draw_gaussian(scores, numbers))
    mean, kappa, nu, tau_squared = thompson.gaussian_posterior(scores)
    assert median(drawn) == pytest.approx(mean, abs=0.01)
    assert variance(drawn) == pytest.approx(tau_squared / kappa * nu / (nu - 2.0), rel=0.1)


def test_numbers_stay_inside_the_open_interval() -> None:
    class Edge(search.Tree):
        """A tree whose draws are the ends of the interval."""

        def draw(self, node: int, turn: int) -> float:
            return float(turn % 2)

    numbers: Iterator[float] = thompson.uniforms(Edge(), 0, 1)
    drawn = [next(numbers) for _ in range(50)]
    assert min(drawn) > 0.0
    assert max(drawn) < 1.0
    assert len(set(drawn)) == 2


@SEARCHES
@given(
    st.lists(st.lists(st.floats(-1.0, 2.0), max_size=6), min_size=1, max_size=40),
    st.integers(0, 1000),
    st.sampled_from([(0.0, 1.0), (-1.0, 2.0), (5.0, 5.0)]),
    st.sampled_from(["gaussian", "beta"]),
)
def test_quick_draws_are_the_plain_ones(
    observed: list[list[float]], seed: int, span: tuple[float, float], model: str
) -> None:
    tree = search.Tree(seed=seed)
    children = [tree.add(0, Child(f"n{index}")) for index in range(len(observed))]
    for bound in span:
        tree.bounds.include(bound)
    arrived = {child: scores_of(values) for child, values in zip(children, observed, strict=True)}
    sampler = {"gaussian": thompson.draw_gaussian, "beta": thompson.draw_beta}[model]
    for tree.opened in range(5):
        plain = {
            child: sampler(thompson.scaled(tree, scores), thompson.uniforms(tree, child, mix(tree.opened, 3)))
            for child, scores in arrived.items()
        }
        draws = thompson.Draws(tree, model)
        assert [draws.one(arrived[child], child, 3) for child in children] == [plain[child] for child in children]
        assert draws.best(arrived, children, 3) == max(children, key=lambda child: (plain[child], -tree.order[child]))


# Backup


def test_the_backup_is_that_of_figure_3() -> None:
    tree, algorithm = search.Tree(), search.create("ab-mcts")
    first, second, third = (
        told(algorithm, tree, 0, Child(key, value=value)) for key, value in (("a1", 0.8), ("a2", 0.0), ("a3", 0.2))
    )
    deeper = told(algorithm, tree, first, Child("b", value=0.8))
    told(algorithm, tree, deeper, Child("c", value=1.0))
    told(algorithm, tree, third, Child("d", value=0.3))
    evidence = ab_mcts.evidence_of(tree)

    def same(scores: thompson.Scores, values: list[float]) -> bool:
        plain = scores_of(values)
        return scores.count == plain.count and scores.mean == pytest.approx(plain.mean)

    assert same(evidence.generated[0], [0.8, 0.0, 0.2])
    assert same(evidence.continued[0], [0.8, 1.0, 0.3])
    assert same(evidence.generated[first], [0.8])
    assert same(evidence.continued[first], [1.0])
    assert same(evidence.generated[third], [0.3])
    assert third not in evidence.continued
    assert same(evidence.arrived[first], [0.8, 0.8, 1.0])
    assert same(evidence.arrived[second], [0.0])
    assert same(evidence.arrived[third], [0.2, 0.3])


def test_without_state_values_a_rollout_is_one_observation_of_gen_at_each_step() -> None:
    tree, algorithm = search.Tree(), search.create("ab-mcts")
    for key, ended in (("a", False), ("b", False), ("end", True)):
        (ask,) = algorithm.ask(tree, 1)
        algorithm.tell(tree, ask.id, [Child(key, value=0.6 if ended else None, terminal=ended)], more=True)
    evidence = ab_mcts.evidence_of(tree)
    assert [evidence.generated[node].count for node in (0, 1, 2)] == [1, 1, 1]
    assert [evidence.generated[node].mean for node in (0, 1, 2)] == [0.6] * 3
    assert not evidence.continued


def test_an_end_that_is_proposed_again_counts_for_gen() -> None:
    tree, algorithm = search.Tree(), search.create("ab-mcts")
    for _ in range(3):
        told(algorithm, tree, 0, Child("end", value=0.4, terminal=True))
    evidence = ab_mcts.evidence_of(tree)
    assert (evidence.generated[0].count, evidence.arrived[1].count) == (3, 3)
    assert not evidence.continued


def test_the_record_is_evidence() -> None:
    tree = search.Tree()
    tree.spine(["a", "end"], 0.7)
    evidence = ab_mcts.evidence_of(tree)
    assert [evidence.generated[node].mean for node in (0, 1)] == [0.7, 0.7]
    assert evidence.arrived[2].count == 1


@SEARCHES
@given(
    st.fixed_dictionaries(
        {
            "seed": st.integers(0, 10_000),
            "process": st.booleans(),
            "sampling": st.booleans(),
            "gaps": st.sampled_from([0.0, 0.3]),
            "broken": st.sampled_from([0.0, 0.2]),
            "fewest": st.integers(0, 1),
        }
    ),
    st.integers(1, 8),
)
def test_all_visits_are_evidence_and_nothing_else_is(toy: Any, world: dict[str, Any], width: int) -> None:
    made, tree = toy.World(**world), search.Tree(seed=world["seed"])
    algorithm = search.create("ab-mcts", prune_below=0.1)
    toy.play(algorithm, made, tree, width=width, budget=120)
    evidence = ab_mcts.evidence_of(tree)
    for node in range(len(tree)):
        arrived = evidence.arrived.get(node, thompson.Scores())
        if node:
            assert arrived.count == tree.visits[node]
            assert arrived.count * arrived.mean == pytest.approx(tree.value_sum[node], abs=1e-9)
        arms = [arm.get(node, thompson.Scores()) for arm in (evidence.generated, evidence.continued)]
        assert sum(arm.count for arm in arms) == tree.visits[node] - tree.ends[node]


# Behaviour


def root_width(value: Any, model: str, seed: int, count: int = 60) -> int:
    """How many children the start has after so many asks."""
    tree = search.Tree(seed=seed)
    grow(search.create("ab-mcts", prior_model=model), tree, value, count)
    return len(tree.children(0))


@pytest.mark.parametrize("model", ["gaussian", "beta"])
def test_it_widens_when_children_disappoint_and_deepens_when_one_is_good(model: str) -> None:
    def shallow(path: tuple[str, ...]) -> float:
        return 0.7 if len(path) == 1 else 0.1

    def deep(path: tuple[str, ...]) -> float:
        return 0.9 if len(path) > 1 else 0.2

    wide = [root_width(shallow, model, seed) for seed in range(8)]
    narrow = [root_width(deep, model, seed) for seed in range(8)]
    assert min(wide) > 2 * max(narrow)
    assert fmean(wide) > 45.0
    assert fmean(narrow) < 12.0


@pytest.mark.parametrize("model", ["gaussian", "beta"])
def test_it_refines_the_child_whose_refinements_are_good(model: str) -> None:
    tree, algorithm = search.Tree(seed=3), search.create("ab-mcts", prior_model=model)
    good, bad = (told(algorithm, tree, 0, Child(key, value=0.5)) for key in ("good", "bad"))
    tree.complete[0] = True
    grow(algorithm, tree, lambda path: 0.9 if path[0] == "good" else 0.1, 60)
    assert tree.visits[good] > 4 * tree.visits[bad]
    assert tree.visits[bad] > 1


def test_the_models_differ_and_gaussian_is_the_default() -> None:
    shapes = []
    cases: list[dict[str, Any]] = [{}, {"prior_model": "gaussian"}, {"prior_model": "beta"}]
    for options in cases:
        tree = search.Tree(seed=5)
        grow(search.create("ab-mcts", **options), tree, lambda path: 0.6, 40)
        shapes.append(tree.parent)
    assert shapes[0] == shapes[1] != shapes[2]


@pytest.mark.parametrize("model", ["gaussian", "beta"])
def test_scores_outside_the_unit_interval_are_normalised_and_those_inside_are_not(toy: Any, model: str) -> None:
    def shape(**options: float) -> list[Any]:
        world = toy.World(seed=21, branching=4, fewest=2, max_depth=7, early_end=0.1, process=True, **options)
        tree = search.Tree(seed=3)
        toy.play(search.create("ab-mcts", prior_model=model), world, tree, width=4, budget=200)
        return [tree.parent, tree.key, tree.visits, tree.status]

    assert shape(scale=1024.0, offset=-2048.0) == shape(scale=4.0, offset=-512.0) == shape(scale=4.0, offset=512.0)
    assert shape(scale=0.25) != shape(scale=0.25, offset=0.5) != shape()


def test_a_complete_node_has_no_gen_and_an_ended_child_is_never_chosen() -> None:
    for seed in range(20):
        tree, algorithm = search.Tree(seed=seed), search.create("ab-mcts")
        told(algorithm, tree, 0, Child("end", value=1.0, terminal=True))
        poor = told(algorithm, tree, 0, Child("poor", value=0.0))
        tree.complete[0] = True
        assert algorithm.ask(tree, 1)[0].node == poor


def test_a_leaf_is_asked_and_a_node_whose_all_is_being_asked_is_passed_over() -> None:
    tree, algorithm = search.Tree(seed=1), search.create("ab-mcts")
    first = told(algorithm, tree, 0, Child("a", value=0.9))
    second = told(algorithm, tree, 0, Child("b", value=0.1))
    tree.complete[0] = True
    tree.complete[first] = True
    tree.open_ask(first, 1)
    tree.hold(first)
    assert algorithm.ask(tree, 1)[0].node == second
    tree.complete[second] = True
    assert algorithm.ask(tree, 1) == []


def test_a_rollout_that_leaves_the_record_does_not_follow_it() -> None:
    for seed in range(10):
        tree, algorithm = search.Tree(seed=seed), search.create("ab-mcts")
        tree.spine(["r", "end"], 1.0)
        other = told(algorithm, tree, 0, Child("a", value=0.0))
        tree.complete[0] = tree.leave_spine = True
        assert algorithm.ask(tree, 1)[0].node == other


def test_draws_are_new_for_every_ask_and_the_same_for_the_same_seed() -> None:
    asked = []
    for seed in (1, 1, 2):
        tree, algorithm = search.Tree(seed=seed), search.create("ab-mcts")
        for turn in range(12):
            told(algorithm, tree, 0, Child(f"n{turn}", value=0.5))
        tree.complete[0] = True
        asked.append([ask.node for ask in algorithm.ask(tree, 6)])
    assert asked[0] == asked[1] != asked[2]
    assert len(set(asked[0])) > 1


@pytest.mark.parametrize("model", ["gaussian", "beta"])
@pytest.mark.parametrize("width", [1, 8])
def test_it_finds_the_optimum_of_a_small_world_when_it_may_go_on(toy: Any, model: str, width: int) -> None:
    for seed in range(10):
        world, tree = toy.World(seed=seed, branching=3, max_depth=4), search.Tree(seed=seed)
        toy.play(search.create("ab-mcts", prior_model=model), world, tree, width=width)
        best = tree.best()
        assert best is not None
        assert tree.value[best] == world.optimum()
        assert sum(tree.terminal) == len(list(world.leaves()))


@pytest.mark.parametrize("model", ["normal", None, 1])
def test_other_models_are_refused(model: Any) -> None:
    with pytest.raises(UsageError, match="prior_model"):
        search.create("ab-mcts", prior_model=model)
