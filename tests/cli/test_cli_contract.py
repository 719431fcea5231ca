"""The contract of the command line (design.md section 7): keys, streams, options, exit codes, safe output."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ttc_replay.cli.render import progress_text

LATER_COLUMNS = " started_at ended_at relation tags usage replayability secrets"
TRAJECTORY_COLUMNS = """
    id dataset format task_id trial agent model steps outcome parent_id branch_step run fidelity source_path source_line
"""
SEARCH_REPORT = """
    v run algorithm judge environment environment_class stochastic policy trajectories totals warnings
"""
SEARCH_ROW = """
    id branch_step observed baseline best counterfactual_id novel trivial fidelity transitions calls tokens cost_usd
    stopped confirmed
"""
SEARCH_TOTALS = """
    trajectories improved novel trivial transitions calls repeated_calls tokens cost_usd seconds mean_observed
    mean_baseline mean_best gate rebound
"""
INGEST_TOTALS = """
    trajectories steps messages assistant_turns tool_calls tool_results rewards duplicates skipped rejected_files
"""
REPLAY_ROW = """
    id steps matched level rules fidelity rebound first_divergence baseline state_hash final_state_agrees
"""
REPLAY_TOTALS = "trajectories steps matched diverged failed levels compared agreed parts rules rebound final_states"
STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")
"""What no output may hold, whatever the logs hold: everything that steers a terminal."""
EVIL = "\x1b[31mred\x1b[0m \x9b2J\x1b]0;title\x07 \x08\x7f bell\x07 end"


def keys(value: dict[str, Any]) -> set[str]:
    return set(value)


def words(text: str) -> set[str]:
    return set(text.split())


# --- keys -----------------------------------------------------------------------------------------------------------


def test_ingest_keys(cli: Any, record: Any, write_logs: Any, tmp_path: Path) -> None:
    logs = write_logs(tmp_path / "logs.jsonl", [record(1, 1), record(1, 1), {"messages": 7}])
    done = cli("ingest", logs, "--json")
    report = done.document
    assert keys(report) == {"v", "files", "ignored", "totals"}
    assert report["v"] == 1
    assert keys(report["totals"]) == words(INGEST_TOTALS)
    (file,) = report["files"]
    assert keys(file) == {"path", "format", "accepted", "duplicates", "skipped", "rejected", "problems"}
    assert (file["accepted"], file["duplicates"], file["skipped"], file["rejected"]) == (1, 1, 1, False)
    assert [keys(problem) for problem in file["problems"]] == [{"line", "code", "message"}]
    assert done.code == 1


def test_search_keys_and_empty_selection(cli: Any, toys: Path, search_toys: Any) -> None:
    report = cli(*search_toys, "--json").document
    assert keys(report) == words(SEARCH_REPORT)
    assert [keys(row) for row in report["trajectories"]] == [words(SEARCH_ROW)] * 3
    assert keys(report["totals"]) == words(SEARCH_TOTALS)
    assert keys(report["totals"]["gate"]) == {"accepted", "refused"}
    assert {row["stopped"] for row in report["trajectories"]} <= {"budget", "solved", "exhausted", "error"}
    assert report["totals"]["improved"] == 2
    empty = cli(*search_toys[:-1], "other", "--where", "steps > 99", "--json")
    assert empty.code == 0
    assert keys(empty.document) == keys(report)
    assert keys(empty.document["totals"]) == words(SEARCH_TOTALS)
    assert empty.document["trajectories"] == []
    assert "nothing selected" in empty.err


def test_dry_run_spends_nothing_and_knows_the_name(cli: Any, toys: Path, search_toys: Any) -> None:
    before = toys.read_bytes()
    report = cli(*search_toys, "--dry-run", "--json").document
    assert keys(report) == {"v", "run", "environment_class", "trajectories", "transitions_at_most"}
    assert report["run"] == "toy"
    assert (len(report["trajectories"]), report["transitions_at_most"]) == (3, 450)
    assert toys.read_bytes() == before
    assert not Path(f"{toys}.runs").exists()


def test_replay_keys(cli: Any, books: Path) -> None:
    report = cli("replay", "--env", "bookkeeping", "--json").document
    assert keys(report) == {"v", "environment_class", "trajectories", "totals"}
    assert [keys(row) for row in report["trajectories"]] == [words(REPLAY_ROW)] * 12
    assert keys(report["totals"]) == words(REPLAY_TOTALS)
    assert report["totals"]["matched"] == report["totals"]["steps"] > 0
    assert {row["fidelity"] for row in report["trajectories"]} == {"reexecuted"}


@pytest.fixture
def searched(cli: Any, toys: Path, search_toys: Any) -> dict[str, Any]:
    """The toy archive after a search: its report."""
    report: dict[str, Any] = cli(*search_toys, "--json").document
    return report


def test_rows_of_ls_show_tree_diff_sql(cli: Any, searched: dict[str, Any]) -> None:
    listed = cli("ls", "--json").document
    assert keys(listed) == {"v", "rows"}
    assert [list(row) for row in listed["rows"]] == [(TRAJECTORY_COLUMNS + LATER_COLUMNS).split()] * 5
    by_sql = cli("sql", "select * from v_trajectories order by source_path, source_line, id", "--json").document
    assert by_sql == listed
    for kind, view in (("runs", "v_runs"), ("datasets", None), ("plugins", None)):
        rows = cli("ls", kind, "--json").document["rows"]
        assert rows
        if view:
            assert rows == cli("sql", f"select * from {view} order by run", "--json").document["rows"]
    found = next(row for row in searched["trajectories"] if row["counterfactual_id"])
    shown = cli("show", found["counterfactual_id"], "--json").document
    assert keys(shown) == {"v", "rows"}
    assert [row["step"] for row in shown["rows"]] == [0, 1, 2, 3]
    one = cli("show", found["counterfactual_id"][:16], "--step", 2, "--json").document
    assert one["rows"] == shown["rows"][2:3]
    tree = cli("tree", "toy", found["id"], "--json").document
    assert keys(tree) == {"v", "rows"}
    assert len(tree["rows"]) > 5
    assert {row["trajectory_id"] for row in tree["rows"]} == {found["id"]}
    diff = cli("diff", found["id"], found["counterfactual_id"], "--json").document
    assert keys(diff) == {"v", "left", "right", "shared_steps", "outcomes", "rows"}
    assert diff["shared_steps"] == found["branch_step"]
    assert diff["outcomes"] == [0.0, 1.0]
    assert keys(diff["rows"][0]) == {"step", "left", "right", "same"}


def test_export_keys(cli: Any, searched: dict[str, Any]) -> None:
    report = cli("export", "toy", "--format", "trl-dpo", "--out", "dpo", "--json").document
    assert keys(report) == {"v", "format", "files", "dropped", "splits"}
    assert keys(report["splits"]) == {"train", "test"}
    assert [keys(file) for file in report["files"]] == [{"path", "rows", "sha256"}]
    assert sum(file["rows"] for file in report["files"]) == sum(report["splits"].values()) > 0
    assert all(isinstance(count, int) for count in report["dropped"].values())


def test_demo_keys(cli: Any, tmp_path: Path) -> None:
    done = cli("demo", "--out", "demo", "--json", "-q")
    report = done.document
    assert done.code == 0
    assert done.err == ""
    assert keys(report) == {"v", "out", "ingest", "replay", "search", "interval", "export", "seconds"}
    assert keys(report["ingest"]) == words(INGEST_TOTALS)
    assert keys(report["replay"]) == words(REPLAY_TOTALS)
    assert keys(report["search"]) == words(SEARCH_TOTALS)
    assert report["ingest"]["trajectories"] >= 60
    low, high = report["interval"]
    assert 0 < low <= high <= 1
    assert [item["format"] for item in report["export"]] == ["trl-sft", "trl-dpo"]
    assert report["search"]["gate"]["refused"] > 0


def test_doctor_and_parquet_keys(cli: Any, toys: Path) -> None:
    checked = cli("doctor", "--json")
    assert keys(checked.document) == {"v", "ok", "checks"}
    assert checked.document["ok"]
    assert all(keys(check) == {"name", "detail", "ok", "hint"} for check in checked.document["checks"])
    wrote = cli("sql", "select id, steps from v_trajectories", "--parquet", "x.parquet", "--limit", 2, "--json")
    assert [keys(file) for file in wrote.document["files"]] == [{"path", "rows", "sha256"}]
    assert wrote.document["files"][0]["rows"] == 2
    assert Path("x.parquet").stat().st_mode & 0o777 == 0o600


# --- plugins by place -----------------------------------------------------------------------------------------------


def test_every_kind_of_plugin_may_be_named_by_its_place(cli: Any, toys: Path, plugin: Any, tmp_path: Path) -> None:
    numbers = tmp_path / "numbers.txt"
    numbers.write_text("1\n2\n")
    assert cli("ingest", numbers, "--format", plugin("Lines"), "--json").document["totals"]["trajectories"] == 2
    command: tuple[str, ...] = ("search", "--dataset", "toys", "--env", plugin("Counter"), "--policy", plugin("Digits"))
    command += ("--reward", "ttc_replay.rewards.environment:environment=2", "--budget", "150", "--name", "wide")
    report = cli(*command, "--algorithm", plugin("Widest"), "--algorithm-opt", "wideness=3", "--json").document
    assert report["algorithm"] == plugin("Widest")
    assert report["totals"]["improved"] == 2
    wrong = cli(*command[:-1], "x", "--algorithm", plugin("Widest"), "--algorithm-opt", "widenes=3")
    assert (wrong.code, wrong.codes) == (2, ["TTC-E100"])
    assert "did you mean wideness?" in wrong.err
    texts = cli("export", "wide", "--format", plugin("Texts"), "--out", "texts", "--json").document
    assert texts["splits"]["train"] == 2


def test_rewards_and_the_gate_take_options(cli: Any, toys: Path, plugin: Any, search_toys: Any) -> None:
    command = [plugin("never") if item == plugin("gold") else item for item in search_toys]
    report = cli(*command, "--reward-opt", f"{plugin('never')}.why=because", "--json").document
    assert report["totals"]["gate"]["accepted"] == 0
    assert report["totals"]["gate"]["refused"] > 0
    done = cli(*command, "--reward-opt", "nobody.why=x")
    assert (done.code, done.codes) == (2, ["TTC-E100"])


# --- options and streams --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["before", "after", "equals", "environment"])
def test_global_options_before_and_after_the_command(
    cli: Any, toys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    elsewhere = toys.rename(tmp_path / "elsewhere.duckdb")
    monkeypatch.setenv("TTC_DB", str(elsewhere if place == "environment" else tmp_path / "nowhere"))
    lines = {
        "before": ("--db", elsewhere, "--json", "-q", "ls", "--limit", 2),
        "after": ("ls", "--limit", 2, "-q", "--json", "--db", elsewhere),
        "equals": ("ls", f"--db={elsewhere}", "-qv", "--limit", 2, "--json"),
        "environment": ("ls", "--json", "--limit", 2),
    }
    done = cli(*lines[place])
    assert done.code == 0
    assert len(done.document["rows"]) == 2


def test_what_follows_two_dashes_is_no_option(cli: Any, toys: Path) -> None:
    done = cli("show", "--", "--json")
    assert (done.code, done.codes) == (2, ["TTC-E103"])


def test_quiet_and_verbose(cli: Any, toys: Path, search_toys: Any) -> None:
    loud = cli(*search_toys[:-1], "a", "-v", "--json")
    assert "run a: 3 trajectories" in loud.err
    assert cli(*search_toys[:-1], "b", "--json").err == ""
    empty = (*search_toys[:-1], "c", "--where", "steps > 99", "--json")
    assert cli(*empty).err != ""
    assert cli(*empty, "-q").err == ""


def test_debug_shows_the_traceback_and_keeps_the_exit_code(cli: Any, toys: Path) -> None:
    plain, debug = cli("show", "ffffffff"), cli("show", "ffffffff", "--debug")
    assert plain.code == debug.code == 2
    assert "Traceback" not in plain.err
    assert "Traceback" in debug.err
    assert debug.err.endswith(plain.err)


def test_a_pipe_gets_plain_text_and_may_close(spawn: Any, toys: Path) -> None:
    process = spawn("--db", toys, "ls")
    out, err = process.communicate()
    assert (process.returncode, err) == (0, "")
    assert not STEERING.search(out)
    assert out.endswith("3 trajectories\n")
    for form in ("--csv", "-q"):
        reader, writer = os.pipe()
        os.close(reader)
        command = [*process.args[:3], "--db", str(toys), "sql", "select * from v_steps", form]
        closed = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
        os.close(writer)
        assert (closed.returncode, closed.stderr) == (0, "")


def test_a_terminal_gets_colour_and_a_progress_bar(toys: Path, plugin: Any, search_toys: Any) -> None:
    slow = [plugin("Slow") if item == plugin("Counter") else item for item in search_toys]
    ours, theirs = os.openpty()
    command = [sys.executable, "-m", "ttc_replay", "--db", str(toys), *slow]
    with subprocess.Popen(command, stdout=theirs, stderr=theirs, env={**os.environ, "TERM": "xterm"}) as process:
        os.close(theirs)
        seen = b""
        while chunk := read_some(ours):
            seen += chunk
    os.close(ours)
    assert process.returncode == 0, seen
    text = seen.decode()
    assert "\x1b[1m" in text, "bold"
    assert re.search(r"search.*\d/3.*\d+ transitions, \d improved", text), "the bar with its spend"
    assert "of 3 non-trivial runs improved" in text


def read_some(descriptor: int) -> bytes:
    """What a terminal gave, nothing at its end (which is an error on Linux)."""
    try:
        return os.read(descriptor, 65536)
    except OSError:
        return b""


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ({"done": 3, "total": None}, "3 done"),
        ({"done": 0, "total": 4}, "0/4"),
        ({"done": 1, "total": 4}, "1/4, about 6 s left"),
    ],
)
def test_progress_in_a_pipe(status: dict[str, Any], said: str) -> None:
    assert progress_text(status, 2.0) == said


@pytest.fixture
def evil(cli: Any, record: Any, write_logs: Any, tmp_path: Path) -> str:
    """An archive whose every text is foreign and malicious, after a search; the id of its first trajectory."""
    bad = record(1, 1, 1, 1, task=f"task{EVIL}", agent=EVIL, trial=EVIL, model=EVIL, exit_reason=EVIL)
    bad["messages"][0]["content"] = EVIL
    bad["messages"][1]["content"] = EVIL
    bad["messages"][1]["reasoning_content"] = EVIL
    bad["messages"][-1]["name"] = EVIL
    bad["scores"] = {EVIL: {"error": EVIL}}
    other = record(1, 1, 1, 2, task=EVIL)
    other["messages"][-1]["content"] = EVIL
    other["messages"][-2]["tool_calls"][0]["function"]["arguments"] = json.dumps({"by": EVIL})
    logs = write_logs(tmp_path / f"logs{EVIL.replace('/', '')}.jsonl", [bad, other])
    for line in (cli("ingest", logs, "--dataset", EVIL), cli("ingest", logs, "--json")):
        assert not STEERING.search(line.out + line.err)
    rows: list[dict[str, Any]] = cli("ls", "--json").document["rows"]
    return str(rows[0]["id"])


@pytest.mark.parametrize("form", ["plain", "json"])
def test_no_control_sequence_of_a_log_reaches_a_stream(
    cli: Any, evil: str, plugin: Any, search_toys: Any, form: str
) -> None:
    extra = ("--json",) if form == "json" else ()
    search = cli(*search_toys, "--all", *extra)
    other = cli("sql", f"select id from v_trajectories where id <> '{evil}' limit 1", "--json").document["rows"][0][
        "id"
    ]
    replay = cli("replay", "--env", plugin("Counter"), "-v", *extra)
    assert replay.code == 1
    commands: list[tuple[Any, ...]] = [
        ("ls", *extra),
        ("ls", "datasets", *extra),
        ("ls", "runs", *extra),
        ("show", evil, *extra),
        ("show", evil, "--raw", *extra),
        ("show", other, *extra),
        ("tree", "toy", *extra),
        ("diff", evil, other, *extra),
        ("sql", "select * from v_steps", *extra),
        ("sql", "select * from v_trajectories", *extra),
        ("sql", "select * from v_steps", "--csv"),
        ("doctor", *extra),
        ("show", EVIL),
        ("export", EVIL, "--format", "trl-sft", "--out", "x"),
    ]
    for done in (search, replay, *(cli(*command) for command in commands)):
        assert done.out + done.err
        assert not STEERING.search(done.out + done.err)
    if form == "json":
        raw = json.loads(cli("show", evil, "--raw", "--json").document["raw"])
        assert raw["messages"][0]["content"] == EVIL, "JSON escapes, it does not lose"


def test_secrets_are_masked_on_every_stream(cli: Any, record: Any, write_logs: Any, tmp_path: Path) -> None:
    key = "sk-ant-api03-" + "a1B2" * 12
    bad = record(1, 1)
    bad["messages"][0]["content"] = f"my key is {key}"
    cli("ingest", write_logs(tmp_path / "l.jsonl", [bad]))
    found = cli("ls", "--json").document["rows"][0]["id"]
    for command in (
        ("show", found),
        ("show", found, "--raw", "--json"),
        ("sql", "select messages from pages", "--csv"),
    ):
        done = cli(*command)
        assert "SECRET:anthropic" in done.out
        assert key not in done.out


def test_csv_is_csv_and_starts_no_formula(cli: Any, toys: Path) -> None:
    done = cli("sql", "select '=1+1' as a, 'x,\"y\"' as b, 2 as c, null as d", "--csv")
    assert list(csv.reader(io.StringIO(done.out))) == [["a", "b", "c", "d"], ["'=1+1", 'x,"y"', "2", ""]]


def test_numbers_that_json_has_not(cli: Any, toys: Path) -> None:
    done = cli("sql", "select 'nan'::double as a, '-inf'::double as b, 1.5::decimal(9,2) as c", "--json")
    assert done.document["rows"] == [{"a": "nan", "b": "-inf", "c": "1.50"}]


# --- exit codes -----------------------------------------------------------------------------------------------------


def test_exit_0_and_1(cli: Any, toys: Path, search_toys: Any, plugin: Any) -> None:
    assert cli(*search_toys).code == 0
    failed = [plugin("broken") if item == "environment" else item for item in search_toys[:-1]]
    assert cli(*failed, "failing").code == 1


def test_exit_3_when_nothing_was_stored(cli: Any, tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text("{not json\n")
    assert cli("ingest", tmp_path / "bad.jsonl").code == 3


def test_exit_4_when_the_budget_allows_nothing_or_every_row_is_filtered(
    cli: Any, toys: Path, search_toys: Any, plugin: Any
) -> None:
    nothing = cli(*search_toys, "--budget", 0, "--json")
    assert nothing.code == 4
    assert [row["stopped"] for row in nothing.document["trajectories"]] == ["budget"] * 3
    assert "raise --budget" in nothing.err
    metered = [plugin("Metered") if item == plugin("Digits") else item for item in search_toys[:-1]]
    paid = cli(*metered, "paid", "--policy-opt", "log=calls.txt", "--max-calls", 0, "--json")
    assert paid.code == 4
    assert not Path("calls.txt").exists()
    assert cli(*search_toys).code == 0, "a larger budget continues the run that had none"
    filtered = cli("export", "toy", "--format", "trl-sft", "--out", "x", "--min-gain", 2)
    assert (filtered.code, filtered.codes) == (4, ["TTC-E601"])
    assert "hint:" in filtered.err
    assert not Path("x").exists()


def test_exit_5_when_a_record_does_not_reproduce(
    cli: Any, record: Any, write_logs: Any, tmp_path: Path, plugin: Any, search_toys: Any
) -> None:
    altered = record(1, 1, 1, 1)
    altered["messages"][6]["content"] = '{"total": 77}'
    cli("ingest", write_logs(tmp_path / "l.jsonl", [altered]))
    replayed = cli("replay", "--env", plugin("Counter"), "--json")
    assert (replayed.code, replayed.codes) == (5, ["TTC-E301"])
    first = replayed.document["trajectories"][0]["first_divergence"]
    assert first["step"] == 2
    assert "77" in first["expected"]
    assert "step 2: expected" in replayed.err
    tolerant = cli("replay", "--env", plugin("Counter"), "--tolerant", "--json")
    assert tolerant.code == 5
    assert tolerant.document["trajectories"][0]["matched"] == 3
    searched = cli(*search_toys, "--json")
    assert (searched.code, searched.codes) == (5, ["TTC-E301"])
    assert searched.document["trajectories"][0]["stopped"] == "error"


def test_exit_6_while_another_process_has_the_file(spawn: Any, cli: Any, books: Path, search_books: Any) -> None:
    fifo = books.with_name("fifo")
    os.mkfifo(fifo)
    holder = spawn("--db", books, "ingest", fifo)  # the database is open, the log does not come
    with fifo.open("wb"):
        deadline = time.monotonic() + 20
        while (busy := cli(*search_books)).code != 6 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert (busy.code, busy.codes) == (6, ["TTC-E201"])
        assert f"process {holder.pid}" in busy.err
        assert "hint:" in busy.err
    holder.communicate()
    assert cli("ls", "--limit", 1).code == 0


def test_exit_130_and_the_same_command_finishes(
    spawn: Callable[..., subprocess.Popen[str]], cli: Any, toys: Path, plugin: Any, search_toys: Any
) -> None:
    slow = [plugin("Slow") if item == plugin("Counter") else item for item in search_toys]
    process = spawn("--db", toys, "--json", *slow, "--concurrency", 2)
    journal = Path(f"{toys}.runs") / "toy" / "journal.jsonl"
    deadline = time.monotonic() + 20
    while not (journal.exists() and journal.read_bytes().count(b'"tell"') >= 3) and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert process.returncode == 130, err
    assert "the same command resumes" in err
    told = journal.read_bytes().count(b'"tell"')
    partial = json.loads(out)["trajectories"]
    assert len(partial) < 3
    done = cli(*slow, "--json")
    assert done.code == 0
    assert len(done.document["trajectories"]) == 3
    assert journal.read_bytes().count(b'"tell"') > told
    assert cli("sql", "select status from v_runs", "--json").document["rows"] == [{"status": "done"}]


def test_exit_70_is_ours_and_names_the_way_to_more(cli: Any, toys: Path, search_toys: Any) -> None:
    assert cli(*search_toys).code == 0
    journal = Path(f"{toys}.runs") / "toy" / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([lines[0], lines[1].replace(b"event", b"EVENT", 1), *lines[2:]]))
    damaged = cli(*search_toys)
    assert (damaged.code, damaged.codes) == (70, ["TTC-E203"])
    assert "toy/journal.jsonl:2: " in damaged.err
    assert "hint:" in damaged.err
