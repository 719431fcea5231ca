"""The benchmark's problems have the optima they claim, and its meter counts everybody alike."""

from __future__ import annotations

import sys
from itertools import product
from math import comb
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parents[2]))  # the benchmarks are not installed: they lie in the checkout

from benchmarks.search import __main__ as benchmark
from benchmarks.search.contestants import Contestant, beam, best_first, everybody, metered, ours, random_rollouts
from benchmarks.search.problems import PROBLEMS, grid
from benchmarks.search.problems.blocksworld import blocksworld, fewest_moves, moves
from benchmarks.search.problems.grid import TURNS, slippery_grid
from benchmarks.search.problems.traps import traps
from benchmarks.search.tables import Row, summary, table, wilson, write_between
from benchmarks.search.world import Meter, Place, Reading, leaves
from ttc_replay import search
from ttc_replay.search.mcts import MCTS

DETERMINISTIC = ["needle", "sparse", "deceptive", "game24"]
SEEDS = range(20)


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_solved_ends_and_no_others_have_the_highest_value(name: str) -> None:
    for seed in (0, 7, 19):
        problem = PROBLEMS[name](seed)
        ends = list(leaves(problem))
        solved = [end for end in ends if problem.solved(end.state, end.path)]
        assert {end.value for end in solved} == {1.0}
        assert all(end.value is not None and end.value < 1.0 for end in ends if end not in solved)
        assert (len(ends), len(solved)) == (4096, 1) or name == "game24"
        assert len(solved) <= 0.01 * len(ends)
        assert max(len(end.path) for end in ends) == problem.depth


@pytest.mark.parametrize("name", PROBLEMS)
def test_values_are_shares_and_the_same_every_time(name: str) -> None:
    for seed in SEEDS:
        meters = [Meter(PROBLEMS[name](seed), [200]) for _ in range(2)]
        for meter in meters:
            with pytest.raises(StopIteration):
                random_rollouts(meter)
        values = [[place.value for place in meter._places.values()] for meter in meters]
        assert values[0] == values[1]
        assert all(value is None or 0.0 <= value <= 1.0 for value in values[0])


def test_the_deceptive_guide_ends_at_three_quarters_of_the_optimum() -> None:
    for seed in SEEDS:
        problem = traps(seed)
        state: tuple[str, ...] = ()
        while not problem.ended(state):
            after = [problem.step(state, key, 0.0) for key in problem.actions(state)]
            state = max(after, key=lambda path: problem.value(path, path) or 0.0)
        assert problem.value(state, state) == pytest.approx(0.75)


def test_blocksworld_counts_shortest_plans_over_all_501_arrangements() -> None:
    start: tuple[str, ...] = tuple("ABCDE")
    known, level, distance = {start: 0}, [start], 0
    while level:
        distance += 1
        level = list({after for towers in level for after in moves(towers).values()} - known.keys())
        known |= dict.fromkeys(level, distance)
    # ways to arrange n blocks in unordered stacks (Lah numbers): sum of n!/k! * C(n-1, k-1)
    lah = sum(comb(4, k - 1) * 120 // [1, 2, 6, 24, 120][k - 1] for k in range(1, 6))
    assert len(known) == lah == 501
    for goal in list(known)[::50]:
        assert fewest_moves(start, goal) == known[goal]


def test_blocksworld_instances_can_be_solved_within_their_bound_and_are_not_short() -> None:
    for seed in SEEDS:
        problem = blocksworld(seed)
        assert fewest_moves(problem.start, problem.goal) == problem.depth - 2 >= 6
        assert problem.in_place(problem.goal) == 5


def test_branch_and_bound_agrees_with_brute_force(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grid, "STEPS", 6)
    for seed in range(3):
        made = slippery_grid(seed)
        best = max(made.chance(plan) for plan in product(TURNS, repeat=6))
        assert made.best_chance() == pytest.approx(best)
        assert made.optimum >= best  # of up to eight actions


def test_a_plans_exact_chance_is_what_executions_show() -> None:
    made = slippery_grid(0)
    plan = max(product(TURNS, repeat=5), key=made.chance)
    share = sum(made.executed(plan, f"fresh {index}") for index in range(4000)) / 4000
    assert share == pytest.approx(made.chance(plan), abs=0.03)


def test_the_meter_charges_new_states_only_and_reads_at_each_limit() -> None:
    meter = Meter(PROBLEMS["needle"](0), [2, 5])
    first = meter.step(meter.root, "a")
    assert meter.step(meter.root, "a") is first
    assert (meter.transitions, meter.repeats) == (1, 1)
    place = first
    for key in "aaaa":
        place = meter.step(place, key)
    with pytest.raises(StopIteration):
        meter.step(place, "a")
    assert [(r.limit, r.transitions, r.repeats, r.stalled) for r in meter.readings()] == [
        (2, 2, 1, False),
        (5, 5, 1, False),
    ]


def test_the_meter_says_who_stops_before_its_budget_is_spent_and_who_expands_ends() -> None:
    def one_run(meter: Meter) -> None:
        place: Place = meter.root
        while keys := meter.actions(place):
            place = meter.step(place, keys[0])
        meter.expand_end()

    (reading,) = metered("one run", "plain", one_run).play(PROBLEMS["needle"](0), [50])
    assert (reading.transitions, reading.stalled, reading.ended, reading.ends_expanded) == (6, False, True, 1)

    def idle(meter: Meter) -> None:
        while True:
            meter.step(meter.root, "a")

    (reading,) = metered("idle", "plain", idle).play(PROBLEMS["needle"](0), [5000])
    assert (reading.transitions, reading.stalled, reading.ended) == (1, True, False)
    assert reading.repeats < 200
    busy = metered("busy", "peer", one_and_two_repeats)
    assert [r.transitions for r in busy.play(PROBLEMS["needle"](0), [90])] == [60 + 15 + 4]


def one_and_two_repeats(meter: Meter) -> None:
    """64 walks of three calls each. A peer may make two calls a transition: with a limit of 90 it makes 60."""
    place = meter.root
    for first, second, third in product("abcd", repeat=3):
        for key in (first, second, third):
            place = meter.step(place, key)
        place = meter.root


@pytest.mark.parametrize("play", [random_rollouts, best_first, beam])
def test_plain_baselines_play_the_problem(play: Any) -> None:
    readings = [metered("it", "plain", play).play(PROBLEMS["game24"](seed), [64, 1024]) for seed in range(10)]
    assert all(reading[0].transitions == 64 for reading in readings)
    assert sum(reading[1].solved for reading in readings) >= 3
    assert sum(reading[0].solved for reading in readings) <= sum(reading[1].solved for reading in readings)


@pytest.mark.parametrize("name", PROBLEMS)
def test_ours_and_the_meter_agree_on_what_was_paid(name: str) -> None:
    for reading in ours("mcts", width=4).play(PROBLEMS[name](1), [30, 60]):
        assert reading.transitions == reading.limit
        assert (reading.ends_expanded, reading.repeats, reading.stalled) == (0, 0, False)


@pytest.mark.parametrize("name", search.names())
@pytest.mark.parametrize("problem", PROBLEMS)
def test_none_of_ours_stalls_expands_an_end_or_pays_twice(problem: str, name: str) -> None:
    (reading,) = ours(name).play(PROBLEMS[problem](2), [128])
    assert (reading.stalled, reading.ends_expanded, reading.repeats) == (False, 0, 0)
    assert reading.transitions == reading.limit or reading.ended


def test_an_algorithm_that_gives_up_stalls_and_one_whose_plan_ends_does_not() -> None:
    class Tired(MCTS):
        """Asks for nothing more once it has eight nodes, and does not say why."""

        def ask(self, tree: search.Tree, k: int) -> list[search.Ask]:
            return super().ask(tree, k) if len(tree) < 8 else []

    class Done(Tired):
        """The same by plan."""

        def plan_ended(self, tree: search.Tree) -> str | None:
            return "eight nodes are enough" if len(tree) >= 8 else None

    seen = {}
    for kind in (Tired, Done):
        (reading,) = ours(kind).play(PROBLEMS["needle"](0), [50])
        seen[kind.__name__] = (reading.transitions, reading.stalled, reading.ended)
    assert seen == {"Tired": (7, True, False), "Done": (7, False, True)}


def test_wilson_is_the_published_interval() -> None:
    for successes, trials, low, high in [
        (20, 20, 0.8389, 1),
        (0, 10, 0, 0.2775),
        (5, 10, 0.2366, 0.7634),
        (0, 0, 0, 1),
    ]:
        assert wilson(successes, trials) == pytest.approx((low, high), abs=1e-4)


def test_absent_peers_are_rows_that_say_so() -> None:
    absent = Contestant("somebody", "peer", lambda *_: [], absent="ModuleNotFoundError: no somebody")
    rows = [benchmark.play("needle", one, [64], 2) for one in (absent, ours("mcts"))]
    lines = table(rows, [64])
    assert "somebody: not installed" in lines[2]
    assert lines[3].startswith("| **mcts** |")
    assert len({line.count("|") for line in lines}) == 1
    assert rows[0].record()["absent"] == "ModuleNotFoundError: no somebody"


def test_the_summary_names_the_best_of_each_group() -> None:
    def row(name: str, group: str, *solved: bool) -> Row:
        readings = [Reading(64, one, 64, 0.1, False, 0, 0) for one in solved]
        return Row("needle", Contestant(name, group, ours("mcts").play), {64: readings})

    rows = [
        row("mcts", "ours", True, False),
        row("beam", "ours", True, True),
        row("them", "peer", False, False),
        row("random rollouts", "plain", False, True),
    ]
    assert summary(rows, [64])[2] == "| needle | 64 | 50 | 100 (beam) | 0 | 50 (random rollouts) | 50 |"
    assert summary(rows[1:2], [64])[2] == "| needle | 64 | – | 100 (beam) | – | – | – |"


def test_everybody_has_every_algorithm_and_every_peer_once() -> None:
    names = [one.name for one in everybody()]
    assert len(set(names)) == len(names)
    assert set(search.names()) <= set(names)
    assert {"treequest AB-MCTS-A", "llm-reasoners MCTS", "random rollouts"} <= set(names)


def test_the_command_prints_a_table_and_keeps_readings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "readings.json"
    arguments = [
        "--problems",
        "sparse",
        "--algorithms",
        "mcts",
        "random rollouts",
        "--transitions",
        "16",
        "--seeds",
        "2",
    ]
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- figures: search -->\nold\n<!-- /figures -->\nafter\n")
    benchmark.main([*arguments, "--json", str(file), "--docs", str(page)])
    shown = capsys.readouterr().out
    assert "### sparse" in shown
    assert "| **mcts** |" in shown
    assert "| sparse | 16 | " in shown
    assert file.read_text().count('"limit": 16') == 4
    assert page.read_text() == f"before\n<!-- figures: search -->\n{shown}<!-- /figures -->\nafter\n"
    benchmark.main(["--problems", "sparse", "--transitions", "16", "--seeds", "2", "--join", str(file)])
    assert capsys.readouterr().out == shown
    with pytest.raises(ValueError, match="figures: widths"):
        write_between(page, "widths", [])
    benchmark.main(["--widths", "--problems", "sparse", "--transitions", "16", "--seeds", "1"])
    widths = [line.split("|")[1].strip() for line in capsys.readouterr().out.splitlines()[4:]]
    assert widths == ["1", "2", "4", "8", "16", "32"]
    with pytest.raises(SystemExit):
        benchmark.main(["--algorithms", "mtcs"])


def test_slow_peers_stop_at_256_unless_asked() -> None:
    slow = Contestant("slow", "peer", ours("mcts").play, slow=True)
    for more, limits in ((False, [256]), (True, [256, 300])):
        row: Row = benchmark.play("needle", slow, [256, 300], 1, slow=more)
        assert list(row.readings) == limits
