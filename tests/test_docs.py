"""The pages say what the program does: every command, option, plugin and error is named, links resolve, examples run.

`python tests/test_docs.py` writes the option tables of docs/cli.md anew.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import entry_points
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from typer.main import get_command

from ttc_replay.cli.main import app, main
from ttc_replay.storage import errors, schema
from ttc_replay.storage.accounts import COUNTED
from ttc_replay.storage.database import Database
from ttc_replay.storage.readers import json_text

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
GROUPS = ("environments", "policies", "rewards", "algorithms", "readers", "exporters")
GLOBAL = "ttc-replay"
SECONDS = 120
RECORDS = 12
"""Records of each log file that the examples see: three tasks, one of them out of reach."""

_TABLE = re.compile(r"(<!-- options: (?P<name>[\w-]+) -->\n).*?(<!-- /options -->)", re.DOTALL)
_BLOCK = re.compile(
    r"(?:<!-- (?P<mark>runs|file: (?P<file>[\w.]+)) -->\n)?```(?P<language>\w*)\n(?P<code>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)
_LINK = re.compile(r"(?<!\!)\[[^\]]+\]\((?P<target>[^)\s]+)\)")
_INLINE_CODE = re.compile(r"`[^`\n]*`")


class Block(NamedTuple):
    """A fenced block: what marks it, the file to write, its language and its text."""

    mark: str | None
    file: str | None
    language: str
    code: str


def commands() -> dict[str, Any]:
    """Every command by name; the program itself, with the global options, first."""
    root: Any = get_command(app)
    return {GLOBAL: root, **root.commands}


def blocks(page: Path) -> list[Block]:
    return [Block(m["mark"], m["file"], m["language"], m["code"]) for m in _BLOCK.finditer(page.read_text("utf-8"))]


def all_options() -> Iterator[tuple[str, str]]:
    for name, command in commands().items():
        for parameter in command.params:
            if parameter.param_type_name == "option":
                yield from ((name, option) for option in (*parameter.opts, *parameter.secondary_opts))


def option_table(command: Any) -> str:
    """What the command is for, its arguments and its options, as Markdown."""
    lines = [_sentence(command.help), ""]
    rows = [_row(parameter) for parameter in sorted(command.params, key=lambda item: item.param_type_name)]
    if rows:
        lines += ["| option | default | meaning |", "|---|---|---|", *rows]
    return "\n".join(lines).rstrip() + "\n"


def _row(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        names = parameter.metavar or parameter.name.upper()
    else:
        names = ", ".join((*parameter.opts, *parameter.secondary_opts))
        names += f" {parameter.metavar}" if parameter.metavar and not parameter.is_flag else ""
    default = "required" if parameter.required else _default(parameter)
    help_text = _sentence(getattr(parameter, "help", None) or "")
    if getattr(parameter, "envvar", None):
        help_text += f" Variable `{parameter.envvar}`."
    return f"| `{_cell(names)}` | {default} | {_cell(help_text)} |"


def _default(parameter: Any) -> str:
    value = parameter.default
    if value is None or value == () or (parameter.param_type_name == "option" and parameter.is_flag):
        return ""
    return f"`{value}`"


def _sentence(text: str) -> str:
    return " ".join(text.split())


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def with_tables(text: str) -> str:
    """docs/cli.md with every option table made anew."""
    known = commands()
    return _TABLE.sub(lambda found: f"{found[1]}{option_table(known[found['name']])}{found[3]}", text)


def test_the_option_tables_are_those_of_the_program() -> None:
    text = (DOCS / "cli.md").read_text("utf-8")
    assert {found["name"] for found in _TABLE.finditer(text)} == set(commands())
    assert with_tables(text) == text, "python tests/test_docs.py writes them anew"


@pytest.mark.parametrize("command", list(commands()))
def test_every_command_is_documented(command: str) -> None:
    text = (DOCS / "cli.md").read_text("utf-8")
    assert command == GLOBAL or f"\n## {command}\n" in text
    assert commands()[command].help, f"{command} has no help text"


@pytest.mark.parametrize(("command", "option"), list(all_options()))
def test_every_option_is_documented(command: str, option: str) -> None:
    text = (DOCS / "cli.md").read_text("utf-8")
    table = next(found[0] for found in _TABLE.finditer(text) if found["name"] == command)
    assert re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", table)


def test_no_page_names_an_option_that_does_not_exist() -> None:
    """In inline code; what other programs take is listed here."""
    known = {option for _, option in all_options()} | {"--help", "--no-deps"}
    for page in PAGES:
        for code in _INLINE_CODE.findall(page.read_text("utf-8")):
            for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*[a-z]", code):
                assert option in known, f"{page.name}: {code}"


@pytest.mark.parametrize("group", GROUPS)
def test_every_plugin_is_documented(group: str) -> None:
    text = "\n".join(page.read_text("utf-8") for page in PAGES)
    ours = [point.name for point in entry_points(group=f"ttc_replay.{group}") if point.value.startswith("ttc_replay.")]
    assert ours
    assert [name for name in ours if f"`{name}`" not in text] == []
    assert f"ttc_replay.{group}" in text


def error_classes() -> list[type[errors.TtcError]]:
    found = [item for item in vars(errors).values() if isinstance(item, type) and issubclass(item, errors.TtcError)]
    return sorted(found, key=lambda item: item.code)


@pytest.mark.parametrize("error", error_classes(), ids=lambda error: error.__name__)
def test_every_error_class_is_documented(error: type[errors.TtcError]) -> None:
    text = (DOCS / "errors.md").read_text("utf-8")
    assert f"| `{error.code}` | `{error.__name__}` | {error.exit_code} |" in text


def test_every_ingest_code_is_documented() -> None:
    codes = {value for value in vars(json_text).values() if isinstance(value, str) and value.startswith("TTC-E")}
    for page in ("errors.md", "ingest.md"):
        text = (DOCS / page).read_text("utf-8")
        assert sorted(code for code in codes if code not in text) == []


def test_every_column_of_every_view_is_documented(tmp_path: Path) -> None:
    text = (DOCS / "database.md").read_text("utf-8")
    with Database.open(str(tmp_path / "empty.duckdb")) as database:
        for view in schema.VIEWS:
            columns, _ = database.query(f"SELECT * FROM {view}")
            assert f"`{', '.join(columns)}`" in text, view


def test_the_totals_of_ingest_are_documented() -> None:
    text = (DOCS / "cli.md").read_text("utf-8")
    assert [name for name in COUNTED if name not in text] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_resolves(page: Path) -> None:
    for target in _LINK.findall(_BLOCK.sub("", page.read_text("utf-8"))):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(file), target


def anchors(page: Path) -> set[str]:
    """The anchors that headings get: lower case, punctuation left out, spaces as dashes."""
    text = _BLOCK.sub("", page.read_text("utf-8"))
    heads = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def test_every_page_is_reachable_from_the_index() -> None:
    linked = {(DOCS / target.partition("#")[0]).resolve() for target in _LINK.findall((DOCS / "index.md").read_text())}
    assert [page.name for page in DOCS.rglob("*.md") if page.name != "index.md" and page.resolve() not in linked] == []


def test_make_targets_that_pages_name_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {name for page in PAGES for name in re.findall(r"\bmake ([a-z]+)\b(?=`|  | *$)", page.read_text(), re.M)}
    assert {"demo", "test", "lint"} <= named <= targets


def pages_that_run() -> list[Path]:
    return [page for page in PAGES if any(block.mark == "runs" for block in blocks(page))]


def test_the_readme_runs_commands_and_python() -> None:
    marked = [block.language for block in blocks(ROOT / "README.md") if block.mark == "runs"]
    assert {"bash", "python"} <= set(marked)


@pytest.mark.parametrize("page", pages_that_run(), ids=lambda page: str(page.relative_to(ROOT)))
def test_marked_examples_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In order, in one folder, on the first of the shipped logs (all of them only take longer)."""
    monkeypatch.chdir(tmp_path)
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    monkeypatch.setenv("PATH", programs)  # `python` in an example is the one of this virtual environment
    logs = tmp_path / "examples" / "bookkeeping" / "logs"
    logs.mkdir(parents=True)
    for file in (ROOT / "examples" / "bookkeeping" / "logs").glob("*.jsonl"):
        with file.open(encoding="utf-8") as lines:
            (logs / file.name).write_text("".join(islice(lines, RECORDS)), "utf-8")
    for block in blocks(page):
        if block.file is not None:
            (tmp_path / block.file).write_text(block.code, "utf-8")
        elif block.mark == "runs":
            run(block, tmp_path, shell=page.name == "README.md")


def run(block: Block, folder: Path, *, shell: bool) -> None:
    """Exit code 0, or no exception, is what is asked.

    `shell`: as typed, in a shell; else in this process, which saves a second for each command.
    """
    if block.language == "python":
        exec(compile(block.code, "example", "exec"), {"__name__": "__main__"})
    elif block.language == "sql":
        with Database.open(str(folder / "ttc.duckdb"), create=False) as database:
            assert database.query(block.code)[1]
    elif shell:
        run_shell(block.code, folder)
    else:
        assert block.language == "bash"
        for line in block.code.replace("\\\n", " ").splitlines():
            run_here(shlex.split(line, comments=True))


def run_here(words: list[str]) -> None:
    if not words:
        return
    assert words[0] == GLOBAL, "only commands of ours: others would need a shell"
    with pytest.raises(SystemExit) as left:
        main(words[1:])
    assert left.value.code == 0, words


def run_shell(code: str, folder: Path) -> None:
    """The programs of this virtual environment come first."""
    shell = shutil.which("bash")
    assert shell is not None
    assert "make " not in code, "make commands are named, not run"
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"}
    environment.pop("TTC_DB", None)
    done = subprocess.run(
        [shell, "-euo", "pipefail", "-c", code],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"


if __name__ == "__main__":
    cli = DOCS / "cli.md"
    cli.write_text(with_tables(cli.read_text("utf-8")), "utf-8")
    print(f"wrote {cli}")
