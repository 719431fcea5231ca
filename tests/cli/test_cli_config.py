"""Configuration: precedence, what is refused and where it stands, paths, tables of options, what -v says."""

from __future__ import annotations

import os
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from typer.main import get_command

from ttc_replay.cli.config import load, options_of
from ttc_replay.cli.config_files import line_of
from ttc_replay.cli.configured import name_variables, variable
from ttc_replay.cli.main import app
from ttc_replay.cli.plugins import parse_options
from ttc_replay.storage.errors import UsageError

SEARCH = """\
[search]
env = "bookkeeping"
policy = "corpus"
reward = ["bookkeeping-identity"]
budget = 3

[search.policy-opt]
same_task_only = true
limit = 5
"""


@pytest.fixture(scope="module")
def program() -> Any:
    """The program, made once."""
    return get_command(app)


@pytest.fixture
def said(cli: Any, books: Path, tmp_path: Path) -> Callable[..., dict[str, str]]:
    """The origins that `search --dry-run -v` names, by option; the configuration is `SEARCH`."""
    (tmp_path / "ttc.toml").write_text(SEARCH, "utf-8")

    def run(*arguments: str) -> dict[str, str]:
        done = cli("search", "--dry-run", "-v", *arguments)
        assert done.code == 0, done.err
        lines = [line.removeprefix("configuration: --") for line in done.err.splitlines() if " from " in line]
        return dict(line.split(" from ") for line in lines)

    return run


# -- precedence --------------------------------------------------------------------------------------------------------


def test_option_before_variable_before_project_before_user_before_default(
    cli: Any, books: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = tmp_path / "home" / "ttc-replay" / "config.toml"
    user.parent.mkdir(parents=True)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))

    def transitions(*arguments: str) -> int:
        done = cli("search", "--dry-run", "--json", *arguments)
        return int(done.document["transitions_at_most"] / len(done.document["trajectories"]))

    required = ("--env", "bookkeeping", "--policy", "corpus", "--reward", "bookkeeping-gold")
    assert transitions(*required) == 64
    user.write_text(SEARCH.replace("budget = 3", "budget = 2"), "utf-8")
    assert transitions() == 2
    (tmp_path / "ttc.toml").write_text("[search]\nbudget = 3\n", "utf-8")
    assert transitions() == 3
    monkeypatch.setenv("TTC_SEARCH_BUDGET", "4")
    assert transitions() == 4
    assert transitions("--budget", "5") == 5


def test_the_origins_are_told(said: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TTC_SEARCH_SEED", "7")
    assert said() == {
        "env": "ttc.toml:2",
        "policy": "ttc.toml:3",
        "reward": "ttc.toml:4",
        "budget": "ttc.toml:5",
        "policy-opt": "ttc.toml:7",
        "seed": "TTC_SEARCH_SEED",
    }
    assert "budget" not in said("--budget", "9")


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({"ttc.toml": "db = 'a'", "sub/ttc.toml": "db = 'b'"}, "b"),
        ({"ttc.toml": "db = 'a'", "sub/pyproject.toml": "[tool.other]\nx = 1"}, "a"),
        ({"ttc.toml": "db = 'a'", "sub/pyproject.toml": "[tool.ttc-replay]\ndb = 'b'"}, "b"),
        ({"sub/ttc.toml": "db = 'a'", "sub/pyproject.toml": "[tool.ttc-replay]\ndb = 'b'"}, "a"),
        ({"sub/pyproject.toml": "this is [no TOML"}, None),
        ({}, None),
    ],
)
def test_the_nearest_file_holds(program: Any, files: dict[str, str], found: str | None, tmp_path: Path) -> None:
    deep = tmp_path / "sub" / "deep"
    deep.mkdir(parents=True)
    for name, text in files.items():
        (tmp_path / name).write_text(text, "utf-8")
    read = load(program, deep, {})
    assert [Path(str(setting.value)).name for setting in read.values.values()] == ([found] if found else [])


def test_a_file_of_another_user_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "ttc.toml"
    path.write_text("db = 'a'", "utf-8")
    path.chmod(0o666)
    read = load(get_command(app), tmp_path, {})
    assert read.values == {}
    assert "not read" in read.notes[0]


def test_help_and_completion_do_not_need_a_right_file(cli: Any, tmp_path: Path) -> None:
    (tmp_path / "ttc.toml").write_text("this is [no TOML", "utf-8")
    assert cli("search", "--help").code == 0
    assert cli("--help").code == 0
    assert cli("ls").code == 2


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line", "message", "hint"),
    [
        ("[search]\nbudgets = 1", 2, "no key 'budgets'", "did you mean budget?"),
        ("\n[serach]\nbudget = 1", 2, "no key 'serach'", "did you mean search?"),
        ("budget = 1", 1, "no key 'budget'", "did you mean search.budget?"),
        ("[search]\npolicy_opt = {a = 1}", 2, "no key 'policy_opt'", "did you mean policy-opt?"),
        ("[search]\nbudget = '1'", 2, "takes a whole number, not a text", ""),
        ("[search]\nbudget = true", 2, "takes a whole number, not true or false", ""),
        ("[search]\nbudget = 1.5", 2, "takes a whole number, not a number", ""),
        ("[search]\nall = 1", 2, "takes true or false, not a whole number", ""),
        ("[search]\nenv = ['a', 'b']", 2, "takes a text, not a list", ""),
        ("[search]\nreward = [true]", 2, "takes a text, not true or false", ""),
        ("[search]\nreward = {a = 1}", 2, "takes a list, not a table", ""),
        ("[search]\nmax-cost = 1979-05-27", 2, "takes a number, not a date", ""),
        ("search = 1", 1, "takes a table, not a whole number", ""),
        ("[search]\nreward-opt = {limit = 1}", 2, "takes a table, not a whole number", ""),
        ("[search.policy-opt]\nx = nan", 2, "is no JSON", ""),
        ("[search]\n\na b", 3, "not TOML", ""),
        ("[search.policy-opt]\napi_key = 'x'", 2, "api_key is a secret", "export it"),
        ("[search.policy-opt]\ndeep = {client-secret = 'x'}", 2, "is a secret", ""),
        ("[search]\npolicy-opt = ['hf_token=x']", 2, "is a secret", ""),
        ("[search.policy-opt]\npassword = 7", 2, "is a secret", ""),
        ("db = 'postgresql://me:hunter2@host/db'", 1, "db is a secret", ""),
        ("[search.policy-opt]\nheader = 'sk-" + "a1" * 20 + "'", 2, "is a secret", ""),
    ],
)
def test_what_a_file_may_not_say(
    program: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, line: int, message: str, hint: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ttc.toml").write_text(text, "utf-8")
    with pytest.raises(UsageError) as wrong:
        load(program, tmp_path, {})
    said = wrong.value
    assert (said.place, said.exit_code) == (f"ttc.toml:{line}", 2)
    assert message in said.message
    assert hint in (said.hint or "")
    assert "hunter2" not in said.line()


def test_a_wrong_file_is_a_usage_error_of_every_command(cli: Any, tmp_path: Path) -> None:
    (tmp_path / "ttc.toml").write_text("[search]\nbudgets = 1", "utf-8")
    done = cli("ls")
    assert done.code == 2
    assert done.err.startswith("error[TTC-E100]: ttc.toml:2: [search] has no key 'budgets'\nhint: did you mean budget?")


def test_what_only_the_command_can_refuse_names_the_file(cli: Any, tmp_path: Path) -> None:
    (tmp_path / "ttc.toml").write_text(SEARCH.replace("budget = 3", "budget = -1"), "utf-8")
    done = cli("search")
    assert (done.code, done.err[:30]) == (2, "error[TTC-E100]: ttc.toml:5: I")


def test_options_that_only_look_like_secrets(said: Any, tmp_path: Path) -> None:
    (tmp_path / "ttc.toml").write_text(SEARCH.replace("budget = 3", "max-tokens = 3\nbudget = 3"), "utf-8")
    assert said()["max-tokens"] == "ttc.toml:5"


def test_a_wrong_variable_is_named(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TTC_LS_LIMIT", "many")
    done = cli("ls")
    assert done.code == 2
    assert done.err.startswith("error[TTC-E100]: TTC_LS_LIMIT: ")


@pytest.mark.parametrize("data", [b"\xff\xfe", b"x" * ((1 << 20) + 1), b"a = " + b"[" * 5000])
def test_files_that_are_none(program: Any, tmp_path: Path, data: bytes) -> None:
    (tmp_path / "ttc.toml").write_bytes(data)
    with pytest.raises(UsageError, match=r"UTF-8|MiB|not TOML"):
        load(program, tmp_path, {})


# -- values ------------------------------------------------------------------------------------------------------------


def test_paths_are_those_of_the_file(cli: Any, books: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = 'db = "ttc.duckdb"\n[search]\nenv = "./world.py:World"\nreward = ["./r.py:f=0.5", "../s.py:g"]\n'
    (tmp_path / "ttc.toml").write_text(text + '[search.policy-opt]\nfile = "./script.json"\n', "utf-8")
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "sub")
    values = {path[-1]: setting.value for path, setting in load(get_command(app)).values.items()}
    assert values == {
        "db": "../ttc.duckdb",
        "env": "../world.py:World",
        "reward": ["../r.py:f=0.5", "../../s.py:g"],
        "policy_opt": ["file=../script.json"],
    }
    assert cli("ls", "--json").document["rows"]


def test_tables_are_merged_by_key_and_belong_to_their_plugin(said: Any, cli: Any, tmp_path: Path) -> None:
    wrong = ("search", "--dry-run", "--policy-opt", "limit=0")
    assert "limit is a number" in cli(*wrong).err  # the file's limit = 5 gives way
    assert cli("search", "--dry-run", "--policy-opt", "same_task_only=false").code == 0
    other = cli("search", "--dry-run", "--policy", "scripted", "--policy-opt", 'default="x"')
    assert other.code == 0, other.err  # corpus's options are not scripted's


def test_the_upper_file_wins_by_key_and_drops_options_of_another_plugin(tmp_path: Path) -> None:
    user = tmp_path / "home" / "ttc-replay" / "config.toml"
    user.parent.mkdir(parents=True)
    user.write_text(SEARCH, "utf-8")
    variables = {"XDG_CONFIG_HOME": str(tmp_path / "home")}
    project = tmp_path / "ttc.toml"

    def options(text: str) -> Any:
        project.write_text(text, "utf-8")
        return load(get_command(app), tmp_path, variables).default_map()["search"].get("policy_opt")

    assert options("[search.policy-opt]\nlimit = 9") == ["same_task_only=true", "limit=9"]
    assert options("[search]\npolicy = 'scripted'") is None
    assert options("[search]\npolicy = 'corpus'") == ["same_task_only=true", "limit=5"]


def test_ids_take_the_place_of_a_selection(cli: Any, books: Path, tmp_path: Path) -> None:
    (tmp_path / "ttc.toml").write_text(SEARCH.replace("budget", 'dataset = "books"\nbudget'), "utf-8")
    identity = cli("ls", "--json").document["rows"][0]["id"]
    assert cli("search", "--dry-run", "--json", identity).document["trajectories"] == [identity]


def test_flags_and_global_options(cli: Any, books: Path, tmp_path: Path) -> None:
    (tmp_path / "ttc.toml").write_text(f"json = true\n{SEARCH}".replace("budget", "dry-run = true\nbudget"), "utf-8")
    assert "transitions_at_most" in cli("search").document


def test_debug_from_a_file_shows_a_traceback(cli: Any, tmp_path: Path) -> None:
    (tmp_path / "ttc.toml").write_text("debug = true\n", "utf-8")
    assert "Traceback" in cli("show", "nothing").err
    assert "Traceback" not in cli("doctor").err


def test_doctor_names_the_files(cli: Any, tmp_path: Path) -> None:
    (tmp_path / "ttc.toml").write_text("", "utf-8")
    rows = {row["name"]: row["detail"] for row in cli("doctor", "--json").document["checks"]}
    assert rows["configuration"] == str(tmp_path / "ttc.toml")


def test_every_option_has_a_variable_of_its_own() -> None:
    root: Any = get_command(app)
    name_variables(root)
    named = [str(item.envvar) for item in root.params if item.envvar]
    for name, command in root.commands.items():
        own = [str(item.envvar) for item in command.params if item.param_type_name == "option"]
        assert len(own) == len(options_of(command))
        named += own
        assert all(item.startswith("TTC_") for item in own), name
    assert len(named) == len(set(named))
    assert {"TTC_DB", "TTC_SEARCH_POLICY_OPT", "TTC_SEARCH_ALL"} <= set(named)
    assert variable(("search",), "policy-opt") == "TTC_SEARCH_POLICY_OPT"


def test_variables_of_lists_are_split_at_spaces(cli: Any, books: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TTC_SEARCH_REWARD", "bookkeeping-identity bookkeeping-policy=0.5")
    monkeypatch.setenv("TTC_SEARCH_ENV", "bookkeeping")
    assert cli("search", "--policy", "corpus", "--dry-run").code == 0


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-99, 99)
    | st.text(string.digits + " \n\"'{}[],:.-=aeflnrstu", max_size=6).filter(lambda text: not text.startswith(".")),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text("ab", min_size=1), inner, max_size=2),
    max_leaves=4,
)


def toml(value: Any) -> str:
    """A value as TOML writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return '"' + "".join(f"\\u{ord(letter):04x}" for letter in value) + '"'
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {toml(item)}" for key, item in value.items()) + "}"
    return str(value)


def has_none(value: Any) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return value is None or any(map(has_none, inner))


@hypothesis_settings(max_examples=20, deadline=None)
@given(value=JSON.filter(lambda value: not has_none(value)))
def test_options_of_plugins_arrive_as_they_were_written(
    value: Any, program: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """TOML's value, through the command line's `key=value`, is the same value again; "1" stays a text."""
    folder = tmp_path_factory.mktemp("written")
    (folder / "ttc.toml").write_text(f"[search.policy-opt]\nthing = {toml(value)}\n", "utf-8")
    pairs = load(program, folder, {}).default_map()["search"]["policy_opt"]
    assert parse_options(pairs, "--policy-opt") == {"thing": value}


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        (("a",), 1),
        (("b", "c"), 3),
        (("b", "d-e"), 4),
        (("b", "x y"), 5),
        (("f", "g", "h"), 7),
        (("b", "no"), 2),
        (("z",), None),
    ],
)
def test_lines_are_found(keys: tuple[str, ...], line: int | None) -> None:
    text = 'a = 1\n[b]\nc = "x = 2"\nd-e = 3\n"x y" = 1\n[ f . g ] # here\nh = 1\n'
    assert line_of(text, keys) == line


def test_a_project_elsewhere_does_not_count(tmp_path: Path) -> None:
    """Only folders above, never beside or below."""
    for name in ("below", "beside"):
        (tmp_path / "here" / name if name == "below" else tmp_path / name).mkdir(parents=True)
    (tmp_path / "beside" / "ttc.toml").write_text("db = 'x'", "utf-8")
    (tmp_path / "here" / "below" / "ttc.toml").write_text("db = 'x'", "utf-8")
    assert load(get_command(app), tmp_path / "here", dict(os.environ) | {"XDG_CONFIG_HOME": str(tmp_path)}).values == {}
