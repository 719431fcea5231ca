"""The command line in this process and in others, over copies of small archives that are ingested once."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ttc_replay.cli.main import main

ROOT = Path(__file__).parents[2]
LOGS = ROOT / "examples" / "bookkeeping" / "logs" / "easy.jsonl"
PLUGINS = Path(__file__).with_name("toy_plugins.py")
BOOKKEEPING_RUNS = 12
"""Three tasks of four runs each."""


@dataclass(frozen=True)
class Done:
    """What a command left: exit code and both streams."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one JSON document on stdout: nothing else is there."""
        assert self.out.endswith("\n"), self.err
        return json.loads(self.out)

    @property
    def codes(self) -> list[str]:
        """The coded lines on stderr, without their text."""
        return [line[6:].partition("]")[0] for line in self.err.splitlines() if line.startswith("error[")]


Run = Callable[..., Done]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command in this process, in a folder of its own: `cli("ls", "--json")`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TTC_DB", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "no-config"))

    def run(*arguments: object) -> Done:
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main([str(item) for item in arguments])
        text = capsys.readouterr()
        code = left.value.code
        return Done(code if isinstance(code, int) else 0, text.out, text.err)

    return run


@pytest.fixture
def spawn(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a command as a process of its own; whatever still runs is killed at the end."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "ttc_replay", *map(str, arguments)]
        pipe = subprocess.PIPE
        started.append(subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, cwd=tmp_path))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def toy_record(*amounts: int, target: int = 9, task: str = "t1", **more: Any) -> dict[str, Any]:
    """An openai-chat record of a failed run in the toy world, whose answers it reproduces."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": f"reach {target}"}]
    total = 0
    for by in amounts:
        total += by
        call = {"id": f"call_{by}", "type": "function", "function": {"name": "add", "arguments": f'{{"by": {by}}}'}}
        messages.append({"role": "assistant", "content": "", "tool_calls": [call]})
        messages.append({"role": "tool", "tool_call_id": f"call_{by}", "content": f'{{"total": {total}}}'})
    record = {"task_id": task, "reward": 0.0, "metadata": {"target": target}, "private": {"gold": target}}
    return {**record, "messages": messages, **more}


@pytest.fixture(scope="session")
def record() -> Callable[..., dict[str, Any]]:
    """`toy_record`, for test files, which do not import each other."""
    return toy_record


@pytest.fixture(scope="session")
def write_logs() -> Callable[[Path, Sequence[Any]], Path]:
    """Write records as JSONL."""

    def write(path: Path, records: Sequence[Any]) -> Path:
        path.write_text("".join(json.dumps(item) + "\n" for item in records), encoding="utf-8")
        return path

    return write


@pytest.fixture(scope="session")
def plugin() -> Callable[[str], str]:
    """The spec of a plugin of `toy_plugins.py`."""
    return lambda name: f"{PLUGINS}:{name}"


def _ingested(folder: Path, lines: Sequence[str], dataset: str) -> Path:
    logs, database = folder / "logs.jsonl", folder / "ttc.duckdb"
    logs.write_text("".join(lines), encoding="utf-8")
    with pytest.raises(SystemExit) as left:
        main(["--db", str(database), "-q", "ingest", str(logs), "--dataset", dataset])
    assert left.value.code == 0
    return database


@pytest.fixture(scope="session")
def bookkeeping_archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shipped bookkeeping logs, ingested once; tests work on copies."""
    lines = LOGS.read_text(encoding="utf-8").splitlines(keepends=True)[:BOOKKEEPING_RUNS]
    return _ingested(tmp_path_factory.mktemp("bookkeeping"), lines, "books")


@pytest.fixture(scope="session")
def toy_archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three failed runs of the toy world, one of them beyond help; ingested once."""
    records = [
        toy_record(1, 1, 1, 1),
        toy_record(1, 1, 1, 2, target=11, task="t2"),
        toy_record(3, 3, 3, 1, target=99, task="t3"),
    ]
    return _ingested(tmp_path_factory.mktemp("toys"), [json.dumps(item) + "\n" for item in records], "toys")


@pytest.fixture
def books(bookkeeping_archive: Path, tmp_path: Path) -> Path:
    """A copy of the bookkeeping archive, at the default place of `cli`."""
    return Path(shutil.copy(bookkeeping_archive, tmp_path / "ttc.duckdb"))


@pytest.fixture
def toys(toy_archive: Path, tmp_path: Path) -> Path:
    """A copy of the toy archive, at the default place of `cli`."""
    return Path(shutil.copy(toy_archive, tmp_path / "ttc.duckdb"))


@pytest.fixture
def search_books() -> tuple[str, ...]:
    """A small search of the bookkeeping archive that finds something."""
    return (
        *("search", "--env", "bookkeeping", "--policy", "corpus", "--policy-opt", "same_task_only=true"),
        *("--reward", "bookkeeping-identity", "--reward", "bookkeeping-policy", "--combine", "min"),
        *("--accept", "bookkeeping-gold", "--budget", "12", "--name", "small"),
    )


@pytest.fixture
def search_toys(plugin: Callable[[str], str]) -> tuple[str, ...]:
    """A small search of the toy archive."""
    return (
        *("search", "--env", plugin("Counter"), "--policy", plugin("Digits"), "--reward", "environment"),
        *("--accept", plugin("gold"), "--budget", "150", "--name", "toy"),
    )
