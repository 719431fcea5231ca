"""`search.run`: the answer does not depend on timing, the budget is hard, and what users pass is taken or refused."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ttc_replay import search
from ttc_replay.search import Ask, Child, Tree
from ttc_replay.storage.errors import PluginNotFound, UsageError

Path = tuple[str, ...]
Rows = list[Any]
ROOT: Path = ()


class Letters:
    """Words over `abc`, `length` letters long; a word is worth its share of `a`. Keeps what it was asked."""

    def __init__(self, length: int = 4, process: bool = True, slow: bool = False):
        self.length, self.process, self.slow = length, process, slow
        self.made: Counter[Path] = Counter()
        self.asked: list[tuple[Path, int, tuple[str, ...]]] = []
        self.threads: set[int] = set()
        self.lock = threading.Lock()

    def expand(self, state: Path, count: int, exclude: tuple[str, ...]) -> Rows:
        if self.slow:  # the first asks are the slowest, so answers come in another order than asks
            time.sleep(0.004 / (1 + len(self.asked)))
        with self.lock:
            self.asked.append((state, count, exclude))
            self.threads.add(threading.get_ident())
            rows = [self.row((*state, key)) for key in "abc" if key not in exclude][:count]
            self.made.update(row[1] for row in rows)
        return rows

    def row(self, path: Path) -> tuple[Any, ...]:
        ended = len(path) == self.length
        value = path.count("a") / self.length if ended or self.process else None
        return path[-1], path, value, ended, None

    async def expand_async(self, state: Path, count: int, exclude: tuple[str, ...]) -> Rows:
        await asyncio.sleep(0.004 / (1 + len(self.asked)) if self.slow else 0)
        slow, self.slow = self.slow, False
        rows = self.expand(state, count, exclude)
        self.slow = slow
        return rows


def shape(tree: search.Found[Any]) -> list[Any]:
    return [tree.parent, tree.key, tree.visits, tree.value_sum, tree.status, tree.states, tree.transitions]


def test_the_answer_comes_with_its_state_and_path() -> None:
    found = search.run("mcts", ROOT, Letters().expand, budget=200, concurrency=1)
    best = found.best()
    assert best is not None
    assert found.states[best] == ("a",) * 4
    assert [found.states[node] for node in found.path(best)] == [("a",) * step for step in range(5)]
    assert len(found.states) == len(found) == found.transitions + 1


@pytest.mark.parametrize("name", search.names())
@pytest.mark.parametrize("process", [True, False])
def test_every_algorithm_pays_for_no_state_twice_for_no_end_and_never_above_the_budget(
    name: str, process: bool
) -> None:
    for budget in (1, 7, 50, 1000):
        world = Letters(process=process)
        found = search.run(name, ROOT, world.expand, budget=budget, concurrency=1, width=4)
        assert found.transitions == sum(world.made.values()) == len(found) - 1 <= budget
        assert set(world.made.values()) == {1}
        assert all(len(state) < world.length for state, _, _ in world.asked)
        assert [found.states[node] for node in range(1, len(found))] == [
            (*found.states[found.parent[node]], found.key[node]) for node in range(1, len(found))
        ]
        assert not found.asks


@pytest.mark.parametrize("name", ["mcts", "best-of-n", "beam"])
@pytest.mark.parametrize("more", [False, True])
def test_the_tree_depends_on_width_and_not_on_timing_or_concurrency(name: str, more: bool) -> None:
    runs: list[list[Any]] = []
    for concurrency, slow, form in [(1, False, "expand"), (2, True, "expand"), (8, True, "expand_async")]:
        world = Letters(process=False, slow=slow)
        found = search.run(
            name, ROOT, getattr(world, form), budget=60, concurrency=concurrency, width=8, seed=3, more=more
        )
        runs.append(shape(found))
    assert runs[0] == runs[1] == runs[2]
    other = search.run(name, ROOT, Letters(process=False).expand, budget=60, concurrency=1, width=1, seed=3)
    assert shape(other) != runs[0] or name == "beam"


@given(st.sampled_from(["mcts", "best-of-n"]), st.integers(1, 40), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_a_larger_budget_begins_with_the_smaller_ones_nodes(name: str, budget: int, seed: int) -> None:
    small, large = (
        search.run(name, ROOT, Letters(process=False).expand, budget=limit, concurrency=1, seed=seed)
        for limit in (budget, 3 * budget)
    )
    assert large.states[: len(small)] == small.states


def test_width_is_concurrency_unless_it_is_given() -> None:
    def run(**options: Any) -> list[Any]:
        return shape(search.run("mcts", ROOT, Letters(process=False).expand, budget=60, **options))

    assert run(concurrency=4) == run(concurrency=1, width=4) == run(concurrency=8, width=4)
    assert run(concurrency=4) != run(concurrency=1)


def test_a_sync_expand_runs_in_the_callers_thread_with_one_and_in_that_many_workers_else() -> None:
    here = {threading.get_ident()}
    alone, many = Letters(), Letters(slow=True)
    search.run("mcts", ROOT, alone.expand, budget=20, concurrency=1, width=8)
    search.run("beam", ROOT, many.expand, budget=60, concurrency=3, width=12)
    assert alone.threads == here
    assert not many.threads & here
    assert len(many.threads) <= 3


@pytest.mark.parametrize("concurrency", [1, 3])
def test_an_async_expand_has_that_many_calls_in_flight_in_one_loop(concurrency: int) -> None:
    flying, most, loops = 0, 0, set()

    async def expand(state: Path, count: int, exclude: tuple[str, ...]) -> Rows:
        nonlocal flying, most
        flying += 1
        most = max(most, flying)
        loops.add(id(asyncio.get_running_loop()))
        await asyncio.sleep(0.001)
        flying -= 1
        return Letters().expand(state, count, exclude)

    found = search.run("beam", ROOT, expand, budget=60, concurrency=concurrency, width=12)
    assert most == concurrency
    assert len(loops) == 1
    assert found.transitions == 3 + 9 + 12 + 12


def test_inside_a_running_loop_both_forms_work() -> None:
    async def main() -> list[list[Any]]:
        options: dict[str, Any] = {"budget": 40, "concurrency": 4, "seed": 1}
        return [
            shape(search.run("mcts", ROOT, Letters().expand_async, **options)),
            shape(search.run("mcts", ROOT, Letters().expand, **options)),
            shape(await search.run_async("mcts", ROOT, Letters().expand_async, **options)),
            shape(await search.run_async("mcts", ROOT, Letters().expand, **options)),
            shape(await search.run_async("mcts", ROOT, partial(Letters().expand_async), **options)),
        ]

    shapes = asyncio.run(main())
    assert all(other == shapes[0] for other in shapes)


def test_run_async_leaves_the_loop_free_while_a_sync_expand_blocks() -> None:
    async def main() -> bool:
        gate = threading.Event()

        def expand(state: Path, count: int, exclude: tuple[str, ...]) -> Rows:
            return Letters().expand(state, count, exclude) if gate.wait(30) else []

        asyncio.get_running_loop().call_soon(gate.set)
        found = await search.run_async("mcts", ROOT, expand, budget=5, concurrency=2)
        return found.transitions == 5

    assert asyncio.run(main())


@pytest.mark.parametrize("form", ["inline", "threads", "async"])
def test_a_raising_expand_is_data_and_its_node_is_left_after_three(form: str) -> None:
    world, calls = Letters(length=3), Counter[Path]()

    def expand(state: Path, count: int, exclude: tuple[str, ...]) -> Rows:
        calls[state] += 1
        if state[:1] == ("a",):
            raise ValueError("no way")
        return world.expand(state, count, exclude)

    async def expand_async(state: Path, count: int, exclude: tuple[str, ...]) -> Rows:
        return expand(state, count, exclude)

    found = search.run(
        "mcts",
        ROOT,
        expand_async if form == "async" else expand,
        budget=500,
        concurrency=1 if form == "inline" else 4,
        width=4,
    )
    best, broken = found.best(), found.states.index(("a",))
    assert best is not None
    assert found.value[best] == pytest.approx(2 / 3)
    assert found.status[broken] == "failed"
    assert found.reason[broken] == "ValueError: no way"
    assert calls[("a",)] == 3
    assert found.status[0] == "exhausted"


@pytest.mark.parametrize("concurrency", [1, 4])
@pytest.mark.parametrize("is_async", [False, True])
def test_a_keyboard_interrupt_is_not_data(concurrency: int, is_async: bool) -> None:
    def expand(state: Path, count: int, exclude: tuple[str, ...]) -> Rows:
        if len(state) == 2:
            raise KeyboardInterrupt
        return Letters().expand(state, count, exclude)

    async def expand_async(state: Path, count: int, exclude: tuple[str, ...]) -> Rows:
        return expand(state, count, exclude)

    with pytest.raises(KeyboardInterrupt):
        search.run("mcts", ROOT, expand_async if is_async else expand, budget=50, concurrency=concurrency)


def test_short_rows_have_defaults() -> None:
    rows: Rows = [
        ("two", 2),
        ("three", 3, 0.5),
        ("four", 4, 0.25, True),
        ["five", 5, 0.75, False, 0.2],
        ("six", 6, None, False, None, "six as well"),
    ]
    found = search.run(search.create("beam", branching=5), 0, lambda *_: rows, budget=5, concurrency=1)
    columns = (found.states, found.value, found.terminal, found.prior, found.state_key)
    assert [list(column[1:]) for column in columns] == [
        [2, 3, 4, 5, 6],
        [None, 0.5, 0.25, 0.75, None],
        [False, False, True, False, False],
        [None, None, None, 0.2, None],
        [None, None, None, None, "six as well"],
    ]


def test_known_keys_are_merged_free_of_charge_and_samples_grow() -> None:
    def draw(state: Path, count: int, exclude: tuple[str, ...]) -> Rows:
        return [Letters(length=1).row(("a",)), Letters(length=1).row(("b",))]

    found = search.run(search.create("best-of-n", n=6), ROOT, draw, budget=2, concurrency=1, more=True)
    assert found.transitions == 2
    assert found.key[1:] == ["a", "b"]
    assert sum(found.samples[1:]) > 2


def test_rows_beyond_the_count_are_dropped_and_may_come_again() -> None:
    def everything(state: Path, count: int, exclude: tuple[str, ...]) -> Rows:
        return [Letters().row((*state, key)) for key in "abc" if key not in exclude]

    listed, asked = (
        search.run("mcts", ROOT, form, budget=30, concurrency=1) for form in (everything, Letters().expand)
    )
    assert shape(listed) == shape(asked)


def test_more_says_that_few_rows_do_not_mean_that_there_are_no_others() -> None:
    def one_a_call(state: Path, count: int, exclude: tuple[str, ...]) -> Rows:
        return Letters().expand(state, 1, exclude)

    beam = search.create("beam", branching=3)
    few, all_of_them = (
        search.run(beam, ROOT, one_a_call, budget=99, concurrency=1, more=more) for more in (False, True)
    )
    assert found_at(few, ("b",)) is None
    assert few.complete[0]
    assert not all_of_them.complete[0]


def found_at(tree: search.Found[Path], state: Path) -> int | None:
    return tree.states.index(state) if state in tree.states else None


@pytest.mark.parametrize("more", [False, True])
def test_calls_for_one_state_wait_for_each_other_unless_they_are_draws(more: bool) -> None:
    flying: Counter[Path] = Counter()
    most = 0
    exclusions: dict[Path, list[tuple[str, ...]]] = {}

    async def expand(state: Path, count: int, exclude: tuple[str, ...]) -> Rows:
        nonlocal most
        flying[state] += 1
        most = max(most, flying[state])
        exclusions.setdefault(state, []).append(exclude)
        await asyncio.sleep(0.0005)
        flying[state] -= 1
        return Letters(process=False).expand(state, count, exclude)

    found = search.run("best-of-n", ROOT, expand, budget=60, concurrency=8, more=more)
    assert (most > 1) == more
    if not more:
        assert all(len(set(seen)) == len(seen) for seen in exclusions.values())
        assert max(found.samples) == 1


def test_merged_states_share_their_value() -> None:
    values = {("a",): 0.9, ("b",): 0.1, ("a", "a"): 0.1, ("a", "b"): 0.7, ("b", "b"): 0.2}

    def expand(state: Path, count: int, exclude: tuple[str, ...]) -> Rows:
        paths = [(*state, key) for key in "ab"]
        return [(path[-1], path, values.get(path), len(path) == 2, None, "".join(sorted(path))) for path in paths]

    for merge, expected in ((False, None), (True, 0.7)):
        found = search.run("beam", ROOT, expand, budget=6, concurrency=1, merge_states=merge)
        assert found.value[found.states.index(("b", "a"))] == expected


class Again:
    """Asks for one child, then `times` further outcomes of it."""

    def __init__(self, times: int):
        self.times = times

    def ask(self, tree: Tree, k: int) -> list[Ask]:
        if tree.opened == 0:
            return [tree.open_ask(0, 1)]
        if tree.asks or tree.opened > self.times:
            return []
        return [tree.open_ask(0, 1, action="go")]

    def tell(
        self, tree: Tree, ask_id: int, children: Any, *, more: bool = False, failed: str | None = None
    ) -> list[int]:
        ask = tree.asks[ask_id]
        known = [tree.find(ask.node, child.key) for child in children]
        ids = [
            tree.add(ask.node, child, ask.action) if node is None else node
            for node, child in zip(known, children, strict=True)
        ]
        tree.close_ask(ask, ids)
        return ids


def test_actions_are_played_again_through_outcome() -> None:
    played: list[tuple[int, str]] = []

    def outcome(state: int, key: str) -> tuple[str, int]:
        played.append((state, key))
        return (f"go to {len(played) // 2}", len(played) // 2)

    found = search.run(Again(3), 7, lambda *_: [("go", 0)], budget=9, concurrency=1, outcome=outcome)
    assert played == [(7, "go")] * 3
    assert found.key[1:] == ["go", "go to 0", "go to 1"]
    assert found.action[1:] == ["go", "go", "go"]
    assert found.states[1:] == [0, 0, 1]
    with pytest.raises(UsageError, match="outcome="):
        search.run(Again(1), 7, lambda *_: [("go", 0)], concurrency=1)


def test_a_planning_algorithm_given_by_name_hears_of_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    from ttc_replay.search import catalogue

    budgets: list[int | None] = []

    def planner(budget: int | None = None) -> Again:
        budgets.append(budget)
        return Again(0)

    monkeypatch.setattr(catalogue, "_factory", lambda name: planner)
    search.run("planner", 7, lambda *_: [("go", 0)], budget=33, concurrency=1)
    assert budgets == [33]


def test_no_budget_asks_nothing() -> None:
    found = search.run("mcts", "the root", lambda *_: [("a", 1)], budget=0)
    assert found.states == ["the root"]
    assert found.best() is None


def none(*_: object) -> Any:
    return None


def coroutine(*_: object) -> Any:
    return Letters().expand_async((), 1, ())


@pytest.mark.parametrize(
    ("expand", "options", "message"),
    [
        (none, {}, "must return rows, not None"),
        (coroutine, {}, "returned an awaitable"),
        (lambda *_: ["a"], {}, "a row is"),
        (lambda *_: [("a",)], {}, "a row is"),
        (lambda *_: [("a", 1, 0.5, False, None, None, 0)], {}, "a row is"),
        (lambda *_: [(1, 1)], {}, "a row is"),
        (lambda *_: [("a", 1)], {"budget": -1}, "budget"),
        (lambda *_: [("a", 1)], {"budget": True}, "budget"),
        (lambda *_: [("a", 1)], {"concurrency": 0}, "concurrency"),
        (lambda *_: [("a", 1)], {"width": 0}, "width"),
    ],
)
@pytest.mark.parametrize("concurrency", [1, 2])
def test_mistakes_are_told(expand: Callable[..., Any], options: dict[str, Any], message: str, concurrency: int) -> None:
    with pytest.raises(UsageError, match=message):
        search.run("mcts", 0, expand, **{"concurrency": concurrency, **options})


def test_an_unknown_algorithm_is_told() -> None:
    with pytest.raises(PluginNotFound, match="mtcs"):
        search.run("mtcs", 0, lambda *_: [])


def test_generators_are_rows_too_and_what_they_raise_is_data() -> None:
    def expand(state: Path, count: int, exclude: tuple[str, ...]) -> Any:
        yield from Letters(length=2).expand(state, count, exclude)
        if state == ("b",):
            raise ValueError("late")

    found = search.run("mcts", ROOT, expand, budget=50, concurrency=1)
    assert found.reason[found.states.index(("b",))] == "ValueError: late"
    assert found.states.index(("a", "a"))


def test_children_are_those_of_the_contract() -> None:
    """What `run` tells is what a user of ask and tell would have told."""
    tree, world, algorithm = search.Tree(seed=5), Letters(process=False), search.create("mcts")
    while len(tree) <= 40 and (asks := algorithm.ask(tree, 1)):
        (ask,) = asks
        path = tuple(tree.key[node] for node in tree.path(ask.node)[1:])
        rows = world.expand(path, ask.count, tuple(tree.key[child] for child in tree.children(ask.node)))
        children = [Child(key, prior, value, ended) for key, _, value, ended, prior in rows]
        algorithm.tell(tree, ask.id, children)
    found = search.run("mcts", ROOT, Letters(process=False).expand, budget=40, concurrency=1, seed=5)
    assert (found.parent, found.key, found.visits) == (tree.parent, tree.key, tree.visits)
