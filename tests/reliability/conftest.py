"""A small complete job (ingest, a paid and a free search, exports), processes to kill in it, and what it leaves."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import pytest

from ttc_replay.storage.database import Database
from ttc_replay.storage.journal import digest, journals, read_journal

HERE = Path(__file__).parent
TOYS = HERE.parent / "cli" / "toy_plugins.py"
DATABASE = "ttc.duckdb"
CLOCKS = frozenset({"created_at", "started_at", "ended_at", "applied_at"})
NOT_COMPARED = {"folded_journals": {"last_seq", "size"}}
"""A journal with a repeated intent is longer."""


# --- the server that is paid -----------------------------------------------------------------------------------------


class PaidServer(ThreadingHTTPServer):
    """Answers calls of `plugins.Loopback` by their seed. `asked`: the call keys of each case, in order of arrival."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: dict[str, list[str]] = {}
        self.lock = threading.Lock()

    def base(self, case: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{case}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients are killed in the middle of a call: expected here."""


class _Handler(BaseHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_POST(self) -> None:
        server = cast("PaidServer", self.server)
        call = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with server.lock:
            server.asked.setdefault(self.path[1:], []).append(call["key"])
        answer = json.dumps({"by": [1 + (call["seed"] + index) % 3 for index in range(call["n"])]}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)


@pytest.fixture(scope="session")
def paid_server(serving: Any) -> Iterator[PaidServer]:
    server = PaidServer()
    with serving(server):
        yield server


# --- processes -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Done:
    """How a process ended: its return code (negative: the signal), and what it said."""

    code: int
    out: str
    err: str


Run = Callable[..., Done]


@pytest.fixture(scope="session")
def forked() -> Iterator[Run]:
    """Run a command as a process forked from a warm one: `forked(folder, "ls", TTC_KILL_AT="...")`."""
    pipe = subprocess.PIPE
    template = subprocess.Popen([sys.executable, str(HERE / "template.py")], stdin=pipe, stdout=pipe, text=True)
    assert template.stdin is not None
    assert template.stdout is not None
    stdin, stdout = template.stdin, template.stdout

    def run(folder: Path, *arguments: object, **environment: str) -> Done:
        job = {"arguments": [str(item) for item in arguments], "folder": str(folder), "environment": environment}
        stdin.write(json.dumps(job) + "\n")
        stdin.flush()
        return Done(**json.loads(stdout.readline()))

    yield run
    stdin.close()
    assert template.wait() == 0
    stdout.close()


# --- the job ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """The stages in order, as commands of a case. All is done in one folder, because what is stored holds its path;
    `whole` has what lay there before each stage and at the end of an uninterrupted job."""

    server: PaidServer
    whole: Path
    found: dict[str, Any]

    @property
    def work(self) -> Path:
        return self.whole / "work"

    @property
    def stages(self) -> list[str]:
        return list(self.commands(""))

    def commands(self, case: str) -> dict[str, list[str]]:
        searched = ["search", "--env", f"{TOYS}:Counter", "--reward", "environment", "--accept", f"{TOYS}:gold"]
        small = ["--width", "4", "--concurrency", "4", "--seed", "3"]
        paid = ["--policy", f"{HERE / 'plugins.py'}:Loopback", "--policy-opt", f"base={self.server.base(case)}"]
        return {
            "ingest": ["ingest", "logs", "--dataset", "toys"],
            "paid": [*searched, *paid, *small, "--algorithm", "best-of-n", "--budget", "12", "--name", "paid"],
            "free": [*searched, "--policy", "corpus", *small, "--budget", "8", "--name", "free"],
            "export": ["export", "paid", "--format", "trl-sft", "--out", "data"],
            "replace": ["export", "paid", "free", "--format", "trl-sft", "--out", "data", "--test-fraction", "0.5"],
            "file": ["export", "paid", "--format", "trl-sft", "--out", "rows.jsonl"],
        }

    def before(self, stage: str) -> Path:
        """The folder of the job, with what lies there before the stage."""
        shutil.rmtree(self.work)
        return Path(shutil.copytree(self.whole / stage, self.work))

    def after_folder(self, stage: str) -> Path:
        """A copy of what lay there after the stage."""
        stages = [*self.stages, "end"]
        return self.whole / stages[stages.index(stage) + 1]

    def after(self, stage: str) -> Any:
        """What the uninterrupted job left after the stage."""
        if stage not in self.found:
            self.found[stage] = remains(self.after_folder(stage))
        return self.found[stage]

    def passes(self, stage: str) -> list[str]:
        """The kill points that the stage passes, in order."""
        return (self.whole / f"{stage}.passes").read_text().split()


def toy_record(*amounts: int, target: int, task: str) -> dict[str, Any]:
    """An openai-chat record of a failed run in the toy world."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": f"reach {target}"}]
    for done in range(1, len(amounts) + 1):
        by, total = amounts[done - 1], sum(amounts[:done])
        call = {"id": f"call_{by}", "type": "function", "function": {"name": "add", "arguments": f'{{"by": {by}}}'}}
        messages.append({"role": "assistant", "content": "", "tool_calls": [call]})
        messages.append({"role": "tool", "tool_call_id": f"call_{by}", "content": f'{{"total": {total}}}'})
    record = {"task_id": task, "reward": 0.0, "metadata": {"target": target}, "private": {"gold": target}}
    return {**record, "messages": messages}


RECORDS = (
    [toy_record(1, 1, 1, 1, target=9, task="t1"), toy_record(3, 3, 1, 1, target=9, task="t1")],
    [toy_record(1, 1, 1, 2, target=8, task="t2"), toy_record(3, 3, 3, 1, target=99, task="t3")],
    [toy_record(2, 2, 2, 2, target=8, task="t2")],
)


@pytest.fixture(scope="session")
def toy_runs() -> list[dict[str, Any]]:
    """The records of the first log: two failed runs of one task."""
    return RECORDS[0]


@pytest.fixture(scope="session")
def job(paid_server: PaidServer, forked: Run, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """The job, done once without interruption, with a copy of everything before each stage."""
    whole = tmp_path_factory.mktemp("job")
    made = Job(paid_server, whole, {})
    work = made.work
    (work / "logs").mkdir(parents=True)
    for number, records in enumerate(RECORDS):
        text = "".join(json.dumps(record) + "\n" for record in records)
        (work / "logs" / f"{number}.jsonl").write_text(text, encoding="utf-8")
    for stage, command in made.commands("whole").items():
        shutil.copytree(work, whole / stage)
        log = whole / f"{stage}.passes"
        done = forked(work, "-q", "--json", *command, TTC_KILL_COUNT=str(log))
        assert done.code == 0, done.err
    shutil.copytree(work, whole / "end")
    return made


# --- what it leaves --------------------------------------------------------------------------------------------------


def remains(folder: Path, database_too: bool = True) -> dict[str, Any]:
    """All that a folder holds, less what clocks and repeated calls decide: rows by table, digests, other files."""
    database = folder / DATABASE
    return {
        "rows": _tables(folder) if database_too and database.exists() else {},
        "digests": {path.parent.name: digest(read_journal(path)[0]) for path in journals(Path(f"{database}.runs"))},
        "files": {
            str(path.relative_to(folder)): None if _is_ours(path, folder) else sha256(path.read_bytes()).hexdigest()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        },
        "folders": sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_dir()),
    }


def _is_ours(path: Path, folder: Path) -> bool:
    return str(path.relative_to(folder)).startswith(DATABASE)


def _tables(folder: Path) -> dict[str, list[dict[str, Any]]]:
    found = {}
    with Database.open(str(folder / DATABASE), create=False) as archive:
        for name in archive.info()["rows"]:
            if name == "read_files":  # its keys hold when a file was last touched, and fresh ones are not remembered
                continue
            left_out = CLOCKS | NOT_COMPARED.get(name, set())
            names, rows = archive.query(f"select * from {name} order by all")
            plain = [_plain(dict(zip(names, row, strict=True))) for row in rows]
            kept = [{key: value for key, value in row.items() if key not in left_out} for row in plain]
            found[name] = sorted(kept, key=repr)
    return found


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """A report without its clock and its repeated calls, a run without its server."""
    kept = dict(row)
    if kept.get("report"):
        report = json.loads(kept["report"])
        report["totals"] = {**report["totals"], "seconds": None, "repeated_calls": None}
        kept["report"] = report
    if kept.get("configuration"):
        configuration = json.loads(kept["configuration"])
        configuration["policy"]["options"].pop("base", None)
        kept["configuration"] = configuration
    return kept


@pytest.fixture(scope="session")
def left() -> Callable[..., Mapping[str, Any]]:
    """`remains`, for test files, which do not import each other."""
    return remains
