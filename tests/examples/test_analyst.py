"""The analyst example: gold that keeps its own rules, a verifier that one lucky warehouse cannot fool, and its log."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ttc_replay import Message, ProposalRequest, Step, Task, ToolCall, Trajectory
from ttc_replay.cli.main import main
from ttc_replay.examples.analyst.agents import NoisyAnalyst, flaws_of
from ttc_replay.examples.analyst.checks import RULES, checks, judged
from ttc_replay.examples.analyst.comparison import same_rows
from ttc_replay.examples.analyst.figures import constant
from ttc_replay.examples.analyst.questions import FLAWS, KINDS, QUESTIONS, question, question_of, task
from ttc_replay.examples.analyst.record import LOGS, environment, record
from ttc_replay.examples.analyst.verifier import results, rows_of, seeds_of
from ttc_replay.examples.analyst.warehouse import connection, image
from ttc_replay.storage.codec import action_key, messages_from, messages_to_dicts, steps_from_messages

LINES = (LOGS / "analyst.jsonl").read_text("utf-8").splitlines()
ROWS: list[dict[str, Any]] = [json.loads(line) for line in LINES]
ONE_OF_EACH = range(12, 12 + len(KINDS))


def ended(number: int, sql: str | None = None, value: Any = None, **changes: Any) -> Trajectory:
    answer = None if sql is None and value is None else {"sql": sql, "value": value}
    return Trajectory("", task(number), final_state={"answer": answer}, **changes)


def test_a_seed_is_a_warehouse() -> None:
    assert connection(5).serialize() == connection(5).serialize() != connection(6).serialize()


def test_there_are_48_questions_and_the_gold_is_private() -> None:
    tasks = [task(number) for number in range(QUESTIONS)]
    assert len({item.id for item in tasks}) == len({item.private["gold_sql"] for item in tasks}) == QUESTIONS >= 40
    for number, item in enumerate(tasks):
        assert question_of(item).number == number
        assert item.private["gold_sql"] not in json.dumps([item.prompt, dict(item.data)])
    assert {flaw for kind in KINDS for flaw in kind.flaws} == set(FLAWS)
    for wrong in ("analyst/net_sales/001", "bookkeeping/easy/000", "analyst/net_sales/x"):
        with pytest.raises(ValueError, match="no question"):
            question_of(Task(wrong))


@pytest.mark.parametrize("number", ONE_OF_EACH, ids=lambda number: question(number).id)
def test_the_gold_passes_and_keeps_every_house_rule_and_each_flaw_is_seen(number: int) -> None:
    asked = question(number)
    gold = results.score([ended(number, asked.sql())])[0]
    assert (gold.value, gold.detail) == (1.0, {"databases": 3})
    assert judged(number, asked.sql()) == (True, True, ())
    for flaw in asked.kind.flaws:
        wrong = asked.sql(frozenset((flaw,)))
        assert any(rows_of(seed, wrong) != rows_of(seed, asked.sql()) for seed in seeds_of(task(number), 8)), flaw


def test_one_warehouse_lets_luck_through_and_three_do_not() -> None:
    number = 12
    assert results.with_options(databases=1).score([ended(number, constant(number))])[0].value == 1.0
    verdict = results.score([ended(number, constant(number))])[0]
    assert (verdict.value, verdict.detail["why"], verdict.detail["seed"]) == (0.0, "other rows", number + 1000)


def test_verdicts_abstentions_and_errors_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    gold = question(12).sql()
    (row,) = rows_of(12, gold)
    cases = {
        "no answer": ended(12),
        "the query fails": ended(12, "SELECT nope"),
        "other rows": ended(12, "SELECT 1"),
        "another value": ended(12, gold, value=row[0] + 1),
    }
    for why, trajectory in cases.items():
        verdict = results.score([trajectory])[0]
        assert verdict.value == 0.0
        assert why in verdict.detail["why"]
    assert results.score([ended(12, gold, value=row[0])])[0].value == 1.0
    by_value = results.score([ended(12, value=[[row[0]]])])[0]
    assert (by_value.value, by_value.detail["databases"]) == (1.0, 1)
    for unknown in (
        Trajectory("", task(12)),
        Trajectory("", Task("analyst/net_sales/012"), final_state={"answer": None}),
    ):
        assert results.score([unknown])[0].abstain
    broken = Trajectory(
        "", Task("x", private={"gold_sql": "SELECT nope"}, seed=12), final_state={"answer": {"sql": gold}}
    )
    verdict = results.score([broken])[0]
    assert verdict.value is None
    assert verdict.error is not None
    monkeypatch.setattr(
        "ttc_replay.examples.analyst.verifier.LIMITS", environment()._limits.__class__(0.02, 10, 10, 10)
    )
    endless = "WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM r) SELECT count(*) FROM r"
    assert "stopped" in str(results.score([ended(12, endless)])[0].error)


@pytest.mark.parametrize(
    ("expected", "got", "ordered", "same"),
    [
        ([[1, "a"]], [[1.0, "a"]], False, True),
        ([[0.1 + 0.2]], [[0.3]], False, True),
        ([[100.0]], [[100.01]], False, False),
        ([[1], [2]], [[2], [1]], False, True),
        ([[1], [2]], [[2], [1]], True, False),
        ([[1], [1], [2]], [[1], [2], [2]], False, False),
        ([[1], [1]], [[1]], False, False),
        ([[None]], [[0]], False, False),
        ([[None]], [[None]], False, True),
        ([[1, 2]], [[1]], False, False),
        ([["1"]], [[1]], False, False),
        ([], [], False, True),
        ([[1.0, "a"], [1.0 + 1e-9, "b"]], [[1.0 + 1e-9, "a"], [1.0, "b"]], False, True),
    ],
)
def test_results_are_multisets_with_a_tolerance(expected: Any, got: Any, ordered: bool, same: bool) -> None:
    assert same_rows(expected, got, ordered=ordered) is same


VALUES = st.one_of(st.none(), st.integers(-3, 3), st.sampled_from(["a", "b"]), st.sampled_from([0.5, 1e9]))


@given(st.lists(st.tuples(VALUES, VALUES), max_size=6), st.randoms(use_true_random=False))
@settings(max_examples=30, deadline=None)
def test_order_never_matters_and_a_missing_row_always_does(rows: list[Any], rng: Any) -> None:
    shuffled = list(rows)
    rng.shuffle(shuffled)
    assert same_rows(rows, shuffled, ordered=False)
    if rows:
        assert not same_rows(rows, shuffled[:-1], ordered=False)


def prefix(*calls: tuple[str, dict[str, Any]], text: str | None = None) -> Trajectory:
    steps = [
        Step(at, Message("assistant", tool_calls=(ToolCall("c", name, arguments),)))
        for at, (name, arguments) in enumerate(calls)
    ]
    steps += [] if text is None else [Step(len(steps), Message("assistant", text))]
    return Trajectory("", task(12), steps=steps, final_state={"answer": None})


def test_checks_rise_with_the_rules_kept_and_read_no_gold() -> None:
    asked = question(12)
    wrong = asked.sql(frozenset(("cancelled", "utc", "null_discount")))
    assert judged(12, wrong)[2] == ("cancelled", "office_days", "no_discount")

    def value(trajectory: Trajectory) -> float | None:
        return checks.score([trajectory])[0].value

    nothing, fails = value(prefix(("list_tables", {}))), value(prefix(("run_sql", {"sql": "SELECT nope"})))
    poor, good = value(prefix(("run_sql", {"sql": wrong}))), value(prefix(("run_sql", {"sql": asked.sql()})))
    answered = value(ended(12, asked.sql()))
    assert nothing == fails == 0.0
    assert poor is not None
    assert good is not None
    assert 0.0 < poor < good == pytest.approx(0.95)
    assert answered == 1.0
    assert value(prefix(("run_sql", {"sql": asked.sql()}), text="Done.")) == 0.0
    assert value(ended(12, wrong)) == pytest.approx(1 - 0.8 * 3 / len(RULES))


def test_checks_can_be_passed_by_a_wrong_query() -> None:
    sql = question(15).sql(frozenset(("issued_due",)))
    assert checks.score([ended(15, sql)])[0].value == 1.0
    assert results.score([ended(15, sql)])[0].value == 0.0


def test_the_analyst_is_deterministic_and_says_different_things() -> None:
    asked = task(12)
    agent, messages = NoisyAnalyst(), environment().reset(asked)
    look = Message("assistant", tool_calls=(ToolCall("a", "run_sql", {"sql": question(12).sql()}),))
    talk = (*messages, look, Message("tool", "{}", tool_call_id="a", name="run_sql"))
    request = ProposalRequest(asked, "", 1, "", talk, (), 6, 3)
    proposals = agent.propose([request])[0]
    assert proposals == agent.propose([request])[0]
    keys = {action_key(item.action) for item in proposals}
    assert 2 <= len(keys) == len(proposals) <= 6
    calls = [item.action.tool_calls[0] for item in proposals]
    assert all(flaws_of(question(12), str(dict(call.arguments or {})["sql"])) is not None for call in calls)
    perfect = NoisyAnalyst(skill=1.0).propose([request])[0]
    assert {str((item.action.tool_calls[0].arguments or {})["sql"]) for item in perfect} == {question(12).sql()}
    with pytest.raises(ValueError, match="skill 2"):
        NoisyAnalyst(skill=2)


@pytest.mark.parametrize("number", range(0, QUESTIONS, 11))
def test_the_recorder_makes_the_same_lines_to_the_byte(number: int) -> None:
    assert json.dumps(record(number), ensure_ascii=False, separators=(",", ":")) == LINES[number]


def test_the_log_is_small_honest_and_mostly_wrong() -> None:
    assert len(ROWS) == QUESTIONS
    assert sum(map(len, LINES)) < 400_000
    assert all("not by a language model" in row["metadata"]["note"] for row in ROWS)
    assert 0.05 <= sum(row["reward"] for row in ROWS) / len(ROWS) <= 0.4
    assert sum(
        '"error"' in message["content"] for row in ROWS for message in row["messages"] if message["role"] == "tool"
    )


@pytest.mark.parametrize("row", ROWS[::8], ids=lambda row: str(row["task_id"]))
def test_runs_re_execute_to_the_recorded_observations(row: dict[str, Any]) -> None:
    prompt, steps = steps_from_messages(messages_from(row["messages"]))
    world = environment()
    assert tuple(world.reset(task(row["seed"]))) == prompt
    assert row["tools"] == world.tools()
    for step in steps:
        result = world.step(step.action)
        assert messages_to_dicts(result.observations) == messages_to_dicts(step.observations)
        assert result.done == (step is steps[-1])


def test_a_search_from_the_command_line_repairs_failed_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TTC_DB", raising=False)
    failed = [line for line, row in zip(LINES, ROWS, strict=True) if row["reward"] == 0.0][3:6]
    (tmp_path / "log.jsonl").write_text("\n".join(failed))

    def cli(*arguments: str) -> Any:
        with pytest.raises(SystemExit) as left:
            main([*arguments, "--json"])
        assert left.value.code in (0, None)
        return json.loads(capsys.readouterr().out)

    cli("ingest", "log.jsonl")
    world = ("--env", "sql", "--env-opt", "build=ttc_replay.examples.analyst.warehouse:build")
    replayed = cli("replay", *world)
    assert replayed["totals"]["matched"] == replayed["totals"]["steps"] > 12
    policy = ("--policy", "ttc_replay.examples.analyst.agents:NoisyAnalyst")
    rewards = ("--reward", "analyst-checks", "--accept", "analyst-results")
    report = cli("search", *world, *policy, *rewards, "--budget", "24")
    assert report["totals"]["improved"] >= 1
    assert report["totals"]["improved"] == report["totals"]["gate"]["accepted"]
    assert report["totals"]["trivial"] == 0
    mended = [row for row in report["trajectories"] if row["counterfactual_id"]]
    assert {(row["fidelity"], row["best"]) for row in mended} == {("snapshot", 1.0)}


def test_the_warehouse_holds_what_trips_analysts() -> None:
    def count(sql: str) -> Any:
        return image(0).run(sql, environment()._limits).rows[0][0]

    assert count("SELECT count(*) FROM orders WHERE status = 'cancelled'") > 30
    assert count("SELECT count(*) FROM order_lines WHERE discount IS NULL") > 100
    assert count("SELECT count(*) FROM returns WHERE reason IS NULL") > 10
    assert count("SELECT count(*) FROM (SELECT 1 FROM payments GROUP BY invoice_id HAVING count(*) > 1)") > 30
    late = "strftime('%m', ordered_at) <> strftime('%m', ordered_at, '+9 hours')"
    assert count(f"SELECT count(*) FROM orders WHERE {late}") > 30
