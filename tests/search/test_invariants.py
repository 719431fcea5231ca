"""What holds in every search, over random worlds, widths and algorithms."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ttc_replay import search

OPTIONS: dict[str, dict[str, Any]] = {
    "self-consistency": {
        "n": st.integers(1, 12),
        "vote": st.sampled_from(["majority", "weighted"]),
        "stop_early": st.sampled_from([0.5, 0.8, 0.95, 1.0]),
        "prune_below": st.just(0.3),
    },
    "gumbel": {
        "considered": st.integers(1, 6),
        "c_visit": st.sampled_from([0.0, 10.0]),
        "c_scale": st.sampled_from([0.0, 0.1]),
        "widening_coefficient": st.sampled_from([0.0, 1.0]),
        "widening_exponent": st.sampled_from([0.0, 1.0]),
        "prune_below": st.just(0.3),
    },
    "ab-mcts": {"prior_model": st.sampled_from(["gaussian", "beta"]), "prune_below": st.just(0.3)},
    "particles": {
        "particles": st.integers(1, 6),
        "temperature": st.sampled_from([0.05, 3.0]),
        "resampling": st.sampled_from(["multinomial", "systematic"]),
        "resample_below": st.sampled_from([0.0, 0.5]),
        "generations": st.integers(1, 3),
        "prune_below": st.just(0.3),
    },
    "omega-prm": {
        "rollouts": st.integers(1, 5),
        "searches": st.integers(1, 3),
        "success_at": st.sampled_from([None, 0.5, -4.5]),
        "n": st.integers(1, 12),
        "exploration": st.sampled_from([0.0, 2.0]),
        "prune_below": st.just(0.3),
    },
    "best-of-n": {"n": st.integers(1, 12), "prune_below": st.just(0.3)},
    "beam": {
        "beam_width": st.integers(1, 4),
        "branching": st.integers(1, 4),
        "prune_quantile": st.just(0.5),
        "score": st.sampled_from(["value", "self-evaluation"]),
        "prior_weight": st.sampled_from([0.0, 0.5, 1.0]),
        "temperature": st.sampled_from([None, 0.1, 2.0]),
        "temperature_decay": st.sampled_from([0.0, 0.5]),
    },
    "greedy": {"branching": st.integers(1, 4), "prune_below": st.just(0.3)},
    "dvts": {"trees": st.integers(1, 4), "branching": st.integers(1, 3), "prune_below": st.just(0.3)},
    "tot-bfs": {
        "breadth": st.integers(1, 4),
        "branching": st.integers(1, 4),
        "max_steps": st.integers(1, 4),
        "prune_below": st.just(0.3),
    },
    "tot-dfs": {
        "branching": st.integers(1, 4),
        "value_threshold": st.sampled_from([-4.5, 0.3]),
        "max_steps": st.integers(1, 4),
    },
    "best-first": {
        "branching": st.integers(1, 4),
        "cost": st.sampled_from(["none", "depth", "prior"]),
        "weight": st.sampled_from([0.0, 0.5, 2.0]),
        "heuristic": st.just(lambda tree, node: 5.0 - tree.depth[node]),
        "solutions": st.integers(1, 3),
        "prune_quantile": st.just(0.5),
    },
    "mcts": {
        "selection": st.sampled_from(["uct", "puct"]),
        "exploration": st.sampled_from([0.0, 0.5, 1.4]),
        "widening_coefficient": st.sampled_from([0.5, 1.0, 4.0]),
        "widening_exponent": st.sampled_from([0.0, 0.5, 1.0]),
        "expand": st.integers(1, 3),
        "first_play_urgency": st.sampled_from([None, 0.0, 1.0]),
        "virtual_loss": st.sampled_from([0.0, 1.0]),
        "max_weight": st.sampled_from([0.0, 0.5, 1.0]),
        "prior_weight": st.sampled_from([0.0, 0.5, 1.0]),
        "evaluation": st.sampled_from(["value", "rollout", "both"]),
        "rollout_weight": st.sampled_from([0.0, 0.3, 1.0]),
        "outcome_coefficient": st.sampled_from([0.0, 0.5, 2.0]),
        "outcome_exponent": st.sampled_from([0.0, 0.5, 1.0]),
        "prune_below": st.just(0.2),
        "prune_confidence": st.sampled_from([0.0, 0.9]),
    },
}
ALGORITHMS = st.one_of(
    *(st.fixed_dictionaries({"name": st.just(name)}, optional=options) for name, options in OPTIONS.items())
)
WORLDS = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 10_000),
        "branching": st.integers(1, 4),
        "max_depth": st.integers(1, 5),
        "process": st.booleans(),
        "priors": st.booleans(),
        "sampling": st.booleans(),
        "gaps": st.sampled_from([0.0, 0.3]),
        "broken": st.sampled_from([0.0, 0.2]),
        "offset": st.sampled_from([0.0, -5.0]),
        "fewest": st.integers(0, 1),
        "outcomes": st.integers(1, 3),
    }
)
SEARCHES = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def begin(toy: Any, options: dict[str, Any], world: dict[str, Any], auto: bool, recorded: bool) -> tuple[Any, Any, Any]:
    """The algorithm, the world and the tree (with a record when the world has a run of some length)."""
    made = toy.World(**world)
    tree = search.Tree(seed=world["seed"])
    paths = list(made.leaves())
    if recorded and paths and max(paths, key=len):
        toy.record(tree, made, max(paths, key=len))
    options = dict(options)
    algorithm = search.create(options.pop("name"), **options)
    return (search.AutoBranch(algorithm) if auto else algorithm), made, tree


def check(tree: search.Tree) -> None:
    """Every invariant that holds between two tells."""
    for node in range(len(tree)):
        children = tree.children(node)
        assert tree.visits[node] == tree.ends[node] + sum(tree.visits[child] for child in children)
        assert all(tree.depth[child] == tree.depth[node] + 1 and tree.parent[child] == node for child in children)
        assert len({tree.key[child] for child in children}) == len(children)
        assert tree.open_ids[node] == [child for child in children if tree.status[child] == "open"]
        assert (tree.status[node] == "closed") == tree.terminal[node]
        if tree.terminal[node]:
            assert not children
        if tree.imputed[node]:
            assert tree.value[node] is None
            assert tree.ends[node] > 0
        if tree.status[node] == "exhausted":
            assert tree.complete[node]
            assert not tree.open_ids[node]
        if tree.status[node] != "open":
            assert tree.pending[node] == 0
        open_here = tree.pending[node] + tree.tips.count(node)
        assert tree.virtual[node] == open_here + sum(tree.virtual[child] for child in children)
        assert tree.samples[node] >= 1
    assert tree.ended == tree.visits[0] - any(tree.spine)  # the record, always told with a value here, is one visit


def backed_up(tree: search.Tree) -> float:
    """The sum over all visits of what they are told to have brought; only for trees without imputed visits."""
    return sum(tree.ends[node] * (tree.value[node] or 0.0) for node in range(len(tree)))


@SEARCHES
@given(ALGORITHMS, WORLDS, st.integers(1, 16), st.booleans(), st.booleans())
def test_every_search_ends_keeps_its_books_and_leaves_nothing_open(
    toy: Any, options: dict[str, Any], world: dict[str, Any], width: int, auto: bool, recorded: bool
) -> None:
    algorithm, made, tree = begin(toy, options, world, auto, recorded)
    played = toy.play(algorithm, made, tree, width=width, budget=150)
    check(tree)
    if played.transitions < 150:
        assert algorithm.ask(tree, width) == []
        assert not tree.tips
        assert not any(tree.virtual)
    assert not tree.asks
    if not any(tree.imputed) and options.get("evaluation") != "both":  # there a visit has the mixed value
        assert abs(tree.value_sum[0] - backed_up(tree)) < 1e-9


def test_all_of_ours_are_searched_here() -> None:
    assert sorted(OPTIONS) == search.names()


@settings(SEARCHES, max_examples=800)
@given(ALGORITHMS, WORLDS, st.integers(1, 16), st.sampled_from(["root", "record", "auto"]), st.booleans())
def test_no_search_stalls(
    toy: Any, options: dict[str, Any], world: dict[str, Any], width: int, begins: str, merged: bool
) -> None:
    """Asks go on until the tree is exhausted or the algorithm says that its plan has ended; then none comes."""
    auto, recorded = begins == "auto", begins != "root"
    small = {**world, "max_depth": min(4, world["max_depth"]), "states": merged}
    algorithm, made, tree = begin(toy, options, small, auto, recorded)
    tree.merge_states = merged
    toy.play(algorithm, made, tree, width=width)
    assert tree.status[0] != "open" or search.plan_ended(algorithm, tree) is not None
    assert algorithm.ask(tree, width) == []


@SEARCHES
@given(ALGORITHMS, WORLDS, st.integers(1, 8))
def test_the_books_balance_after_every_single_tell(
    toy: Any, options: dict[str, Any], world: dict[str, Any], width: int
) -> None:
    algorithm, made, tree = begin(toy, options, {**world, "max_depth": 3}, False, True)
    toy.play(algorithm, made, tree, width=width, budget=30, check=check)


@SEARCHES
@given(ALGORITHMS, WORLDS, st.integers(1, 16), st.booleans())
def test_same_seed_and_same_tells_give_the_same_tree(
    toy: Any, options: dict[str, Any], world: dict[str, Any], width: int, auto: bool
) -> None:
    runs = []
    for _ in range(2):
        algorithm, made, tree = begin(toy, options, world, auto, True)
        played = toy.play(algorithm, made, tree, width=width, budget=100)
        runs.append((played.asks, toy.rows(tree), tree.best()))
    assert runs[0] == runs[1]


@SEARCHES
@given(ALGORITHMS, WORLDS, st.integers(1, 16), st.booleans(), st.integers(1, 60))
def test_a_larger_budget_continues_the_same_search(
    toy: Any, options: dict[str, Any], world: dict[str, Any], width: int, auto: bool, budget: int
) -> None:
    asked = []
    for limit in (budget, 2 * budget):
        algorithm, made, tree = begin(toy, options, world, auto, True)
        asked.append(toy.play(algorithm, made, tree, width=width, budget=limit).asks)
    assert asked[1][: len(asked[0])] == asked[0]


@SEARCHES
@given(WORLDS, st.integers(1, 16), st.sampled_from(["uct", "puct"]), st.booleans())
def test_mcts_finds_the_optimum_of_every_small_world_when_it_may_go_on(
    toy: Any, world: dict[str, Any], width: int, selection: str, recorded: bool
) -> None:
    world = {**world, "sampling": False, "gaps": 0.0, "broken": 0.0, "fewest": 1, "max_depth": 4}
    algorithm, made, tree = begin(toy, {"name": "mcts", "selection": selection}, world, False, recorded)
    toy.play(algorithm, made, tree, width=width)
    values = [tree.value[node] for node in range(len(tree)) if tree.terminal[node]]
    assert tree.status[0] == "exhausted"
    assert max(value for value in values if value is not None) == made.optimum()
    assert sum(tree.terminal) == len(list(made.leaves()))
    assert 0 not in tree.visits


@SEARCHES
@given(WORLDS, st.lists(st.integers(0, 10_000), min_size=1, max_size=60))
def test_any_order_of_tells_is_legal(toy: Any, world: dict[str, Any], picks: list[int]) -> None:
    algorithm, made, tree = begin(toy, {"name": "mcts", "expand": 2}, world, False, True)
    waiting: list[search.Ask] = []
    for pick in picks:
        waiting += algorithm.ask(tree, 6 - len(waiting))
        if not waiting:
            break
        ask = waiting.pop(pick % len(waiting))
        known = [tree.key[child] for child in tree.children(ask.node)]
        children, options = made.expand(toy.path_keys(tree, ask.node), ask, known)
        algorithm.tell(tree, ask.id, children, **options)
        check(tree)


def by_path(toy: Any, tree: search.Tree) -> dict[Any, Any]:
    """A tree without node ids: what is known of each state, by the keys that lead there; sums to rounding."""
    return {
        toy.path_keys(tree, node): (
            tree.visits[node],
            round(tree.value_sum[node], 9),
            tree.value[node],
            tree.samples[node],
            tree.status[node],
            tree.virtual[node],
        )
        for node in range(len(tree))
    }


@SEARCHES
@given(ALGORITHMS, WORLDS, st.integers(2, 8), st.integers(0, 6), st.booleans(), st.randoms(use_true_random=False))
def test_the_order_of_independent_tells_does_not_matter(
    toy: Any, options: dict[str, Any], world: dict[str, Any], width: int, rounds: int, recorded: bool, order: Any
) -> None:
    """Asks of different nodes that are open together, told in two orders. Left out is what looks at the others' values
    while it is told: imputed verdicts (the tree's minimum so far), a quantile, a confidence bound."""
    plain = {name: value for name, value in options.items() if name not in ("prune_quantile", "prune_confidence")}
    sound = {**world, "gaps": 0.0, "broken": 0.0, "fewest": 1, "sampling": False}
    seen = []
    for shuffled in (False, True):
        algorithm, made, tree = begin(toy, plain, sound, False, recorded)
        for number in range(rounds + 1):
            asks = algorithm.ask(tree, width)
            distinct = len({ask.node for ask in asks}) == len(asks)
            if shuffled and number == rounds and distinct:
                order.shuffle(asks)
            known = {ask.id: [tree.key[child] for child in tree.children(ask.node)] for ask in asks}
            for ask in asks:
                children, more = made.expand(toy.path_keys(tree, ask.node), ask, known[ask.id])
                algorithm.tell(tree, ask.id, children, **more)
        seen.append(by_path(toy, tree))
    assert seen[0] == seen[1]
