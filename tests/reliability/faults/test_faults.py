"""Every fault of a provider, over a real loopback server and through the whole engine, with every algorithm.

What a retry mends leaves no trace in the tree; what it does not ends the run with exit code 7 and partial results, and
the same command goes on from there. Budgets hold by the server's own log, and nothing that it sent is lost.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ttc_replay.cli.main import main
from ttc_replay.replay.settings import Limits

HEALTHY = 4
"""Requests that are answered before a lasting fault begins."""


@pytest.fixture(autouse=True)
def _no_traceback(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Nothing is printed, and nobody logs an error: the run's own error says it all."""
    yield
    said = capsys.readouterr()
    assert "Traceback" not in said.out + said.err
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []


def check_the_books(search: Any, ran: Any, provider: Any) -> None:
    """Journal, cache and report have what the server's log has, and the server was not paid more than the limits."""
    results = search.results()
    assert sum(provider.sent().values()) == len(results)
    assert sorted(results.values()) == sorted(provider.sent().elements()), "every reply that went out is in the journal"
    assert search.cached == sorted(results), "and in the cache for other runs"
    limits: Limits = search.settings.limits
    assert len(provider.charged) <= (limits.calls or 0)
    assert provider.tokens <= (limits.tokens or 0)
    assert provider.cost_usd <= (limits.cost_usd or 0.0) + 1e-9
    assert len(ran.report["trajectories"]) == 2, "what was found until then is told"
    totals = ran.report["totals"]
    assert 0 < totals["calls"] <= len(provider.charged)
    assert totals["tokens"] <= (limits.tokens or 0)


def test_now_and_then(
    make_search: Any, provider: Any, without_faults: Any, parts: Any, fault: Any, algorithm: str
) -> None:
    """One reply in three is faulty, under limits that bind."""
    expected = without_faults(algorithm)
    search = make_search(algorithm, fault)
    provider.now_and_then(fault)
    ran = search.run()
    check_the_books(search, ran, provider)
    if fault.becomes == "refused":
        assert (parts.code_of(ran), ran.error.error_code) == (7, fault.code)
        return
    if ran.error is not None:  # the limits did not allow to ask again for what was paid in vain
        assert fault.becomes == "useless"
        assert (parts.code_of(ran), ran.error.error_code) == (7, "TTC-E503")
        assert "the budget allows no other" in str(ran.error)
        return
    assert (parts.code_of(ran), ran.failures) == (0, [])
    assert {row["stopped"] for row in ran.report["trajectories"]} == {"budget"}
    assert ran.report["totals"]["calls"] == len(provider.charged)
    if fault.becomes == "nothing":
        assert ran.digest == expected.digest
        assert ran.report["totals"]["tokens"] == provider.tokens
        assert len(search.waits) == len(provider.asked) - len(search.results()) > 0, "each fault was waited for"
        assert min(search.waits) >= float(fault.headers.get("retry-after", 0))
    if fault.becomes == "data":
        assert fault.text in search.journal.read_text()
        assert len(provider.asked) == len(search.results())
        asked = len(provider.asked)
        assert (search.run().digest, len(provider.asked)) == (ran.digest, asked), "a finished run asks for nothing"


def test_for_ever(make_search: Any, provider: Any, without_faults: Any, parts: Any, fault: Any, algorithm: str) -> None:
    """Every reply is faulty from some request on, then the provider is well again."""
    expected = without_faults(algorithm)
    search = make_search(algorithm, fault)
    provider.from_request(HEALTHY, fault)
    ran = search.run()
    check_the_books(search, ran, provider)
    if fault.becomes == "data":
        assert (parts.code_of(ran), ran.failures) == (0, [])
        assert {row["stopped"] for row in ran.report["trajectories"]} == {"budget"}
        assert ran.report["totals"]["calls"] == len(provider.charged) == len(provider.asked)
        return
    assert (parts.code_of(ran), ran.error.error_code) == (7, fault.code)
    assert ran.error.hint
    assert {row["stopped"] for row in ran.report["trajectories"]} <= {"error", "budget"}
    assert "error" in {row["stopped"] for row in ran.report["trajectories"]}
    assert ran.report["totals"]["calls"] == len(search.results()) > 0
    assert ran.report["totals"]["tokens"] == sum(map(sum, provider.charged[: len(search.results())]))
    assert len(provider.asked) <= HEALTHY + search.settings.concurrency * (parts.retries + 1)

    answered = set(provider.answered)
    provider.reset()
    again = search.run()
    assert (parts.code_of(again), again.digest) == (0, expected.digest)
    assert answered.isdisjoint(provider.asked), "what was answered is not asked for again"


def test_replies_behind_a_lost_one_are_kept_and_counted(
    make_search: Any, provider: Any, without_faults: Any, parts: Any, algorithm: str
) -> None:
    """Results are told in ask order: what was answered after a call that never is waits for the next session."""
    expected = without_faults(algorithm)
    make_search(algorithm, folder="one by one", concurrency=1).run()
    lost = next(call for call in provider.asked if len(json.loads(call)[1]) > 1)  # below the root several are open
    provider.reset()
    search = make_search(algorithm)
    provider.faulty = lambda body, first: parts.faults["500"] if parts.identity(body) == lost else None
    ran = search.run()
    assert parts.code_of(ran) == 7
    assert ran.report["totals"]["calls"] == len(search.results()) == len(provider.charged) > 0
    assert ran.report["totals"]["tokens"] == provider.tokens
    answered = set(provider.answered)
    provider.reset()
    assert search.run().digest == expected.digest
    assert answered.isdisjoint(provider.asked)


ROOM = {"budget": 8, "limits": Limits(calls=200, tokens=60_000, cost_usd=0.02)}


@pytest.mark.parametrize("what", ["half of the JSON", "no choices"])
def test_a_useless_reply_leaves_no_trace_where_the_budget_allows_another(
    make_search: Any, provider: Any, without_faults: Any, parts: Any, what: str, algorithm: str
) -> None:
    expected = without_faults(algorithm, **ROOM)
    search = make_search(algorithm, **ROOM)
    provider.now_and_then(parts.faults[what])
    ran = search.run()
    check_the_books(search, ran, provider)
    assert (parts.code_of(ran), ran.failures, ran.digest) == (0, [], expected.digest)
    assert ran.report["totals"]["calls"] == len(provider.charged) == len(provider.asked) > len(search.results())
    assert ran.report["totals"]["tokens"] >= provider.tokens, "what nobody can read counts as its worst case"


@pytest.mark.parametrize("limit", ["calls", "cost_usd"])
def test_each_limit_alone_holds_by_the_servers_log(
    make_search: Any, provider: Any, parts: Any, limit: str, algorithm: str
) -> None:
    """The server reports the worst case for every reply, so that a reservation that is too small would show."""
    limits = {"calls": Limits(calls=8), "cost_usd": Limits(cost_usd=0.0004)}[limit]
    search = make_search(algorithm, limits=limits)
    provider.now_and_then(parts.faults["half of the JSON"])
    ran = search.run()
    assert parts.code_of(ran) == 0 or "the budget allows no other" in str(ran.error)
    assert len(search.results()) > 0
    spent = {"calls": len(provider.charged), "cost_usd": provider.cost_usd}[limit]
    assert spent <= getattr(limits, limit) + 1e-9
    if ran.error is None:
        asked = len(provider.asked)
        assert ran.report["totals"]["calls"] == len(provider.charged)
        assert (search.run().digest, len(provider.asked)) == (ran.digest, asked), "the same budget allows no more"


def test_the_command_ends_with_its_report_and_exit_code(
    toys: Path, provider: Any, parts: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], algorithm: str
) -> None:
    archive = str(shutil.copy(toys, tmp_path / "ttc.duckdb"))
    provider.from_request(HEALTHY, parts.faults["500"])
    options = {"model": parts.model, "api_base": provider.base, "api_key": "sk-test", "max_tokens": 16, "retries": 0}
    policy = [word for key, value in options.items() for word in ("--policy-opt", f"{key}={value}")]
    world = ["--env", f"{parts.toys}:Counter", "--reward", "environment", "--success-at", "2"]
    with pytest.raises(SystemExit) as left:
        main(["--db", archive, "--json", "search", *world, "--policy", "litellm", *policy, "--algorithm", algorithm])
    told = capsys.readouterr()
    assert left.value.code == 7
    assert "error[TTC-E501]" in told.err
    assert "hint:" in told.err
    assert "Traceback" not in told.out + told.err
    report = json.loads(told.out)
    assert "error" in {row["stopped"] for row in report["trajectories"]}
    assert report["totals"]["calls"] == len(provider.charged) > 0
