"""Particles: weights and resampling against theory, absorbing ends, generations, every option against its absence."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from ttc_replay import search
from ttc_replay.search import Child, particles
from ttc_replay.storage.errors import UsageError

Path = tuple[str, ...]


def create(**options: Any) -> particles.Particles:
    """The algorithm, as its own class."""
    algorithm = search.create("particles", **options)
    assert isinstance(algorithm, particles.Particles)
    return algorithm


def where(tree: search.Tree) -> list[int]:
    """The nodes of the running generation's particles."""
    running = particles.filter_of(tree).current
    assert running is not None
    return running.at


def step(algorithm: search.Algorithm, tree: search.Tree, told: dict[str, Sequence[Child]], more: bool = True) -> None:
    """Answer all asks of one step; `told` maps keys to children."""
    for ask in algorithm.ask(tree, 16):
        algorithm.tell(tree, ask.id, told[tree.key[ask.node]], more=more)


def spread(algorithm: search.Algorithm, tree: search.Tree, values: Sequence[float | None], **child: Any) -> None:
    """One particle at each of these states: the first step of a population as large."""
    step(algorithm, tree, {"": [Child(f"n{index}", value=value, **child) for index, value in enumerate(values)]})


# Weights


@pytest.mark.parametrize("temperature", [1.0, 0.5, 4.0])
def test_weights_are_the_softmax_of_the_log_odds_over_the_temperature(temperature: float) -> None:
    tree, values = search.Tree(), [0.2, 0.5, 0.9, 0.5]
    algorithm = create(particles=4, temperature=temperature)
    spread(algorithm, tree, values)
    powers = [math.exp(math.log(value / (1.0 - value)) / temperature) for value in values]
    assert algorithm.weights(tree, [1, 2, 3, 4]) == pytest.approx([power / sum(powers) for power in powers])


def test_the_default_temperature_is_one() -> None:
    assert create() == create(temperature=1.0, particles=8, resampling="multinomial", resample_below=1.0)


def test_values_of_zero_and_one_weigh_999_to_1() -> None:
    tree, algorithm = search.Tree(), create(particles=3)
    spread(algorithm, tree, [0.0, 0.5, 1.0])
    low, middle, high = algorithm.weights(tree, [1, 2, 3])
    assert (high / middle, middle / low) == pytest.approx((999.0, 999.0))


def test_values_outside_the_unit_interval_are_normalised() -> None:
    weights = []
    for values in ([0.0, 0.25, 0.5, 1.0], [-8.0, -6.0, -4.0, 0.0], [100.0, 200.0, 300.0, 500.0]):
        tree, algorithm = search.Tree(), create(particles=4)
        spread(algorithm, tree, values)
        weights.append(algorithm.weights(tree, [1, 2, 3, 4]))
    assert weights[0] == pytest.approx(weights[1])
    assert weights[0] == pytest.approx(weights[2])
    assert len(set(weights[0])) == 4


def test_a_state_without_a_value_weighs_as_the_mean_and_a_dead_particle_nothing() -> None:
    tree, algorithm = search.Tree(), create(particles=3)
    spread(algorithm, tree, [0.5, 0.75, None])
    assert algorithm.weights(tree, [1, 2, 3, particles.DEAD]) == pytest.approx([1 / 6, 3 / 6, 2 / 6, 0.0])
    assert algorithm.weights(tree, [3, 3, particles.DEAD]) == [0.5, 0.5, 0.0]


def test_ends_and_states_without_a_value_cannot_be_compared() -> None:
    tree, algorithm = search.Tree(), create(particles=3)
    step(algorithm, tree, {"": [Child("a"), Child("good", None, 0.9, True), Child("bad", None, 0.1, True)]})
    assert algorithm.weights(tree, [1, 2, 3]) == [1 / 3] * 3
    assert algorithm.weights(tree, [1, 2, particles.DEAD]) == [0.5, 0.5, 0.0]
    assert algorithm.weights(tree, [2, 3]) == pytest.approx([81 / 82, 1 / 82])


def test_an_end_without_a_verdict_weighs_as_the_lowest_value() -> None:
    tree, algorithm = search.Tree(), create(particles=3)
    step(algorithm, tree, {"": [Child("a", value=0.25), Child("b", value=0.5), Child("end", terminal=True)]})
    first, _, last = algorithm.weights(tree, [1, 2, 3])
    assert last == pytest.approx(first)


# Resampling


def resampled(options: dict[str, Any], values: Sequence[float], seeds: int) -> list[Counter[int]]:
    """How often each of the first states was drawn, by seed."""
    counts = []
    for seed in range(seeds):
        tree, algorithm = search.Tree(seed=seed), create(particles=len(values), **options)
        spread(algorithm, tree, values)
        algorithm.ask(tree, 1)
        counts.append(Counter(where(tree)))
    return counts


VALUES = [0.1, 0.5, 0.6, 0.9]
ODDS = [value / (1.0 - value) for value in VALUES]


@pytest.mark.parametrize("scheme", ["multinomial", "systematic"])
def test_states_are_drawn_in_proportion_to_their_weights(scheme: str) -> None:
    counts = resampled({"resampling": scheme}, VALUES, 400)
    assert all(sum(count.values()) == 4 for count in counts)
    for index, odds in enumerate(ODDS):
        share = odds / sum(ODDS)
        drawn = sum(count[index + 1] for count in counts) / 1600
        assert abs(drawn - share) < 4.0 * math.sqrt(share * (1.0 - share) / 1600)


def test_systematic_resampling_gives_each_state_its_share_but_for_rounding() -> None:
    expected = [4 * odds / sum(ODDS) for odds in ODDS]

    def fits(count: Counter[int]) -> bool:
        return all(math.floor(share) <= count[index + 1] <= math.ceil(share) for index, share in enumerate(expected))

    assert all(fits(count) for count in resampled({"resampling": "systematic"}, VALUES, 100))
    assert not all(fits(count) for count in resampled({}, VALUES, 100))


def test_resampling_waits_until_the_effective_sample_size_is_low() -> None:
    size = sum(ODDS) ** 2 / sum(odds * odds for odds in ODDS) / 4  # about 0.43
    kept = Counter({1: 1, 2: 1, 3: 1, 4: 1})
    assert all(count == kept for count in resampled({"resample_below": size - 0.01}, VALUES, 30))
    assert all(count == kept for count in resampled({"resample_below": 0.0}, VALUES, 30))
    assert not any(count == kept for count in resampled({"resample_below": size + 0.01}, VALUES, 5))


def test_equal_weights_are_not_resampled() -> None:
    for values in ([0.4] * 6, [None] * 6):
        tree, algorithm = search.Tree(seed=1), create(particles=6)
        spread(algorithm, tree, values)
        algorithm.ask(tree, 1)
        assert where(tree) == [1, 2, 3, 4, 5, 6]


def test_without_values_the_particles_are_independent_runs(toy: Any) -> None:
    world = toy.World(seed=5, branching=4, fewest=4, max_depth=5, early_end=0.1, sampling=True)
    tree = search.Tree(seed=5)
    toy.play(create(particles=6, generations=1), world, tree)
    assert sum(tree.ends) == 6


# Asks and moves


def test_particles_at_one_node_are_one_ask_and_a_step_is_waited_for() -> None:
    tree, algorithm = search.Tree(seed=2), create(particles=5, resample_below=0.0)
    (ask,) = algorithm.ask(tree, 8)
    assert (ask.node, ask.count, algorithm.ask(tree, 8)) == (0, 5, [])
    algorithm.tell(tree, ask.id, [Child("a", samples=3), Child("b"), Child("b")], more=True)
    first, second = algorithm.ask(tree, 8)
    assert [(tree.key[ask.node], ask.count) for ask in (first, second)] == [("a", 3), ("b", 2)]
    algorithm.tell(tree, second.id, [Child("x"), Child("y")], more=True)
    assert algorithm.ask(tree, 8) == []
    algorithm.tell(tree, first.id, [Child("z", samples=3)], more=True)
    assert [tree.key[node] for node in where(tree)] == ["a", "a", "a", "b", "b"]
    assert [ask.count for ask in algorithm.ask(tree, 8)] == [3, 1, 1]


def test_the_order_of_tells_does_not_matter(toy: Any) -> None:
    world = toy.World(seed=6, branching=4, fewest=3, max_depth=6, process=True)
    found = []
    for pick in (0, -1):
        tree, algorithm = search.Tree(seed=6), create(particles=5, generations=2)
        waiting: list[search.Ask] = []
        while waiting := waiting + algorithm.ask(tree, 8):
            ask = waiting.pop(pick)
            known = [tree.key[child] for child in tree.children(ask.node)]
            children, options = world.expand(toy.path_keys(tree, ask.node), ask, known)
            algorithm.tell(tree, ask.id, children, **options)
        found.append({toy.path_keys(tree, node): tree.visits[node] for node in range(len(tree))})
    assert found[0] == found[1]


def test_particles_beyond_the_proposals_draw_from_them_by_their_priors() -> None:
    drawn: Counter[str] = Counter()
    for seed in range(60):
        tree, algorithm = search.Tree(seed=seed), create(particles=8)
        step(algorithm, tree, {"": [Child("often", 0.9), Child("rare", 0.1)]}, more=False)
        algorithm.ask(tree, 1)
        drawn.update(tree.key[node] for node in where(tree))
    assert drawn["often"] + drawn["rare"] == 480
    assert abs(drawn["often"] - 60 * (1 + 6 * 0.9)) < 25


def test_a_complete_node_passes_its_particles_on_without_an_ask() -> None:
    reached: Counter[str] = Counter()
    for seed in range(20):
        tree, algorithm = search.Tree(seed=seed), create(particles=4)
        tree.hold(0)
        algorithm.tell(tree, tree.open_ask(0, 3).id, [Child("a"), Child("b"), Child("end", value=0.5, terminal=True)])
        tree.complete[0] = True
        for ask in algorithm.ask(tree, 8):
            reached[tree.key[ask.node]] += ask.count
    assert set(reached) == {"a", "b"}
    assert sum(reached.values()) == 80


def test_a_failed_particle_stays_and_dies_with_its_node() -> None:
    tree, algorithm = search.Tree(seed=1), create(particles=2, resample_below=0.0, generations=1)
    spread(algorithm, tree, [0.5, 0.6])
    for _ in range(3):
        first, second = algorithm.ask(tree, 8)
        assert (first.node, second.node) == (1, where(tree)[1])
        algorithm.tell(tree, first.id, [], failed="busy")
        algorithm.tell(tree, second.id, [Child("x", value=0.6)], more=True)
    (ask,) = algorithm.ask(tree, 8)
    assert (where(tree)[0], tree.status[1], tree.depth[ask.node]) == (particles.DEAD, "failed", 4)
    algorithm.tell(tree, ask.id, [])
    assert algorithm.ask(tree, 8) == []


def test_a_dead_particle_is_replaced_by_resampling() -> None:
    for below, dead in ((1.0, 0), (0.0, 1)):
        tree, algorithm = search.Tree(seed=1), create(particles=3, resample_below=below, prune_below=0.3)
        spread(algorithm, tree, [0.5, 0.1, 0.5])
        algorithm.ask(tree, 8)
        assert where(tree).count(particles.DEAD) == dead


def test_finished_runs_are_absorbing() -> None:
    for seed in range(30):
        tree, algorithm = search.Tree(seed=seed), create(particles=4, generations=1)
        ends = [Child("end", value=0.8, terminal=True), Child("a", value=0.5), Child("b", value=0.5)]
        step(algorithm, tree, {"": [*ends, Child("c", value=0.5)]})
        for _ in range(5):
            asks = algorithm.ask(tree, 8)
            if not asks:
                break
            assert all(not tree.terminal[ask.node] for ask in asks)
            at_end = where(tree).count(1)
            assert sum(ask.count for ask in asks) == 4 - at_end
            for ask in asks:
                algorithm.tell(tree, ask.id, [Child("x", value=0.2, samples=ask.count)], more=True)
            assert where(tree).count(1) == at_end
        assert tree.visits[1] == 1


def test_a_finished_run_keeps_its_weight_in_the_resampling() -> None:
    survived = 0
    for seed in range(200):
        tree, algorithm = search.Tree(seed=seed), create(particles=2)
        step(algorithm, tree, {"": [Child("end", value=0.75, terminal=True), Child("a", value=0.5)]})
        algorithm.ask(tree, 8)
        running = particles.filter_of(tree).current
        survived += running is None or running.number > 0 or 1 in running.at
    assert abs(survived / 200 - (1.0 - 0.25**2)) < 0.06


def test_the_population_gathers_where_states_are_good() -> None:
    class Tilted:
        """Two actions; every `good` one raises the value."""

        def expand(self, path: Path, ask: search.Ask, known: list[str]) -> tuple[list[Child], dict[str, Any]]:
            def child(key: str) -> Child:
                value = 0.1 + 0.8 * [*path, key].count("good") / 6
                return Child(key, 0.5, value, len(path) == 5)

            return [child(["good", "bad"][(ask.id + turn) % 2]) for turn in range(ask.count)], {"more": True}

    shares: dict[float, float] = {}
    for temperature in (0.3, 1000.0):
        ends: list[float] = []
        for seed in range(20):
            tree, world, algorithm = search.Tree(seed=seed), Tilted(), create(temperature=temperature, generations=1)
            while asks := algorithm.ask(tree, 8):
                for ask in asks:
                    path = tuple(tree.key[node] for node in tree.path(ask.node)[1:])
                    children, options = world.expand(path, ask, [])
                    algorithm.tell(tree, ask.id, children, **options)
            ends += [
                tree.value[node] or 0.0
                for node in range(len(tree))
                for _ in range(tree.ends[node] * tree.terminal[node])
            ]
        shares[temperature] = sum(ends) / len(ends)
    assert shares[0.3] > shares[1000.0] + 0.1


# Generations and starts


def test_generations_follow_each_other_until_nothing_is_left_or_as_many_as_asked_for(toy: Any) -> None:
    world = toy.World(seed=3, branching=3, max_depth=4)
    tree = search.Tree(seed=3)
    toy.play(create(particles=3), world, tree, width=4)
    assert sum(tree.terminal) == len(list(world.leaves()))
    best = tree.best()
    assert best is not None
    assert tree.value[best] == world.optimum()
    world, sizes = toy.World(seed=3, branching=5, fewest=4, max_depth=6), []
    for generations in (1, 2):
        tree = search.Tree(seed=3)
        toy.play(create(particles=3, generations=generations), world, tree, width=4)
        assert particles.filter_of(tree).number == generations
        sizes.append(len(tree))
    assert sizes[0] < sizes[1]


def test_a_generation_begins_at_each_branch_point_and_leaves_the_record_there(toy: Any) -> None:
    world = toy.World(seed=31, branching=3, fewest=3, max_depth=6, early_end=0.0)
    tree = search.Tree(seed=2)
    spine = toy.record(tree, world, ("a",) * 6)
    toy.play(search.AutoBranch(create(particles=2, generations=1)), world, tree, width=4)
    begun = particles.filter_of(tree).begun
    assert begun == Counter((0, *spine[:-1]))
    assert all(any(not tree.spine[child] for child in tree.children(node)) for node in begun)


def test_the_recorded_step_is_no_move_where_the_record_has_to_be_left() -> None:
    tree, algorithm = search.Tree(seed=2), create(particles=2, generations=1)
    tree.spine(["r", "end"], 1.0)
    tree.leave_spine = True
    step(algorithm, tree, {"": [Child("r"), Child("a")]})
    (ask,) = algorithm.ask(tree, 8)
    assert (tree.key[ask.node], ask.count) == ("a", 2)


def test_nothing_begins_where_only_the_record_is_left() -> None:
    tree, algorithm = search.Tree(), create()
    tree.spine(["r", "end"], 1.0)
    tree.leave_spine = tree.complete[0] = True
    assert algorithm.ask(tree, 8) == []


def test_a_start_that_offers_the_recorded_step_only_ends_the_search() -> None:
    tree, algorithm = search.Tree(), create(particles=2)
    tree.spine(["r", "end"], 1.0)
    tree.leave_spine = True
    step(algorithm, tree, {"": [Child("r")]}, more=False)
    assert algorithm.ask(tree, 8) == []
    assert tree.status[1] == "open"


# States


def test_particles_in_one_state_go_on_from_one_node() -> None:
    tree, algorithm = search.Tree(seed=1), create(particles=3, resample_below=0.0)
    step(algorithm, tree, {"": [Child("a", state_key="s"), Child("b", state_key="s"), Child("c", state_key="t")]})
    assert [(tree.key[ask.node], ask.count) for ask in algorithm.ask(tree, 8)] == [("a", 2), ("c", 1)]


def test_with_merged_states_a_known_state_is_closed_and_its_particle_goes_on_there() -> None:
    for merge in (False, True):
        tree = search.Tree(seed=1, merge_states=merge)
        algorithm = create(particles=2, resample_below=0.0)
        step(algorithm, tree, {"": [Child("a", state_key="s"), Child("b", state_key="t")]})
        first, second = algorithm.ask(tree, 8)
        algorithm.tell(tree, first.id, [Child("x", state_key="u")], more=True)
        algorithm.tell(tree, second.id, [Child("y", state_key="s")], more=True)
        asked = [tree.key[ask.node] for ask in algorithm.ask(tree, 8)]
        assert asked == (["x", "a"] if merge else ["x", "y"])
        assert tree.status[4] == ("pruned" if merge else "open")


def test_with_merged_states_a_particle_that_goes_in_a_circle_is_dead() -> None:
    tree = search.Tree(seed=1, merge_states=True)
    algorithm = create(particles=2, resample_below=0.0)
    step(algorithm, tree, {"": [Child("a", state_key="s"), Child("b", state_key="t")]})
    step(algorithm, tree, {"a": [Child("back", state_key="s")], "b": [Child("on", state_key="u")]})
    algorithm.ask(tree, 8)
    assert where(tree) == [particles.DEAD, 4]
    assert tree.reason[3] == "its state is that of node 1"


@pytest.mark.parametrize(
    "options",
    [
        {"particles": 0},
        {"particles": 1.5},
        {"temperature": 0.0},
        {"temperature": "1"},
        {"resampling": "residual"},
        {"resample_below": 1.1},
        {"resample_below": -0.1},
        {"generations": 0},
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(options))):
        search.create("particles", **options)
