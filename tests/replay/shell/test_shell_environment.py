"""The shell environment: what commands see and leave, forks, states, dialects, and when it refuses to run anything."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ttc_replay import Message, Task, Trajectory
from ttc_replay.replay.environments import shell_layers, shell_sandbox, shell_store
from ttc_replay.replay.environments.shell import ShellEnvironment
from ttc_replay.replay.environments.shell_layers import OverlayBranch, open_store
from ttc_replay.replay.environments.shell_sandbox import Limits, Sandbox, Shell
from ttc_replay.storage.errors import SandboxUnavailable, UsageError
from ttc_replay.storage.records import Source, Step, ToolCall

Opened = Callable[..., ShellEnvironment]
Say = Callable[..., str]


def test_what_is_fixed_does_not_depend_on_the_host(opened: Opened, say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    said = say(
        opened(), "id -un; hostname; pwd; date +%Z; echo $LC_ALL $HOME $PYTHONHASHSEED $SOURCE_DATE_EPOCH; echo $$"
    )
    assert said == "agent\nsandbox\n/workspace\nUTC\nC.UTF-8 /home/agent 0 315532800\n2\n"


@pytest.mark.parametrize("backend", ["overlay", "copy"])
def test_commands_change_files_and_forks_do_not_see_each_other(backend: str, opened: Opened, say: Say) -> None:
    world = opened(backend=backend)
    assert world.state() == {"files": {}, "cwd": "/workspace"}
    say(world, "echo one > new; rm -r kept; echo t > /tmp/t; cd /tmp; export WORD=said")
    twin = world.fork()
    assert twin.state_key() == world.state_key()
    assert say(world, "cat t; echo $WORD; rm /workspace/new") == "t\nsaid\n"
    assert say(twin, "cat /workspace/new; echo two >> /workspace/plain.txt") == "one\n"
    deleted = {"kept": "deleted", "kept/inner.txt": "deleted"}
    tmp = {"/tmp/t": hashlib.sha256(b"t\n").hexdigest()}
    files = world.state()["files"]
    assert files == {**deleted, **tmp}
    assert twin.state()["files"].keys() == {*deleted, *tmp, "new", "plain.txt"}
    assert twin.state_key() != world.state_key()
    world.close()
    assert say(twin, "cat new plain.txt 2>&1; cat /workspace/plain.txt").endswith("plain\ntwo\n")


def test_equal_files_are_one_state_however_they_came_about(opened: Opened, say: Say) -> None:
    world = opened()
    key = world.state_key()
    say(world, "echo x > plain.txt; mv kept other; mv other kept; mkdir d; rmdir d")
    changed = world.state_key()
    say(world, "echo plain > plain.txt; touch -d 2001-01-01 kept/inner.txt")
    assert key == world.state_key() != changed
    assert opened(backend="copy").state_key() == key
    say(world, "chmod 700 plain.txt")
    assert world.state_key() != key


def test_a_layer_lives_as_long_as_a_branch_needs_it(opened: Opened, say: Say) -> None:
    world = opened()
    store = world._store.path
    before = {item.name for item in store.iterdir()}
    say(world, "echo 1 > a")
    twin = world.fork()
    say(twin, "echo 2 > b")
    say(world, "true")
    assert len({item.name for item in store.iterdir()} - before) == 2
    twin.close()
    assert len({item.name for item in store.iterdir()} - before) == 1
    world.close()
    assert {item.name for item in store.iterdir()} == before


def test_many_layers_become_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shell_layers, "MAX_LAYERS", 4)
    store, _ = open_store("overlay")
    sandbox, branch = Sandbox(store.path, Limits()), OverlayBranch(store, store.origin(folder, 1000))
    commands = [
        "echo a > a",
        "rm plain.txt",
        "rm -r kept; mkdir kept; echo k > kept/k",
        "mkfifo p; chmod 0 a",
        "echo e > e",
    ]
    tall = [len(branch.layers)]
    for command in commands:
        assert branch.run(sandbox, command, Shell(sandbox.mount)).code == 0
        tall.append(len(branch.layers))
    assert tall == [1, 2, 3, 4, 1, 2]
    assert set(branch.diff) == {"w/a", "w/plain.txt", "w/kept/inner.txt", "w/kept/k", "w/p", "w/e"}
    seen = branch.scratch(sandbox, "find . | sort | tr '\\n' ' '", Shell(sandbox.mount)).output
    assert seen == ". ./a ./e ./kept ./kept/k ./link ./p "


def test_the_folder_itself_is_never_written_and_read_anew_when_it_changed(tmp_path: Path, say: Say) -> None:
    (tmp_path / "f").write_text("first\n")
    first = ShellEnvironment(str(tmp_path))
    first.reset(Task("t"))
    say(first, "echo changed > f; echo more > g")
    assert sorted(item.name for item in tmp_path.iterdir()) == ["f"]
    assert (tmp_path / "f").read_text() == "first\n"
    (tmp_path / "f").write_text("second\n")
    second = ShellEnvironment(str(tmp_path))
    second.reset(Task("t"))
    assert say(second, "cat f") == "second\n"
    assert say(first, "cat f") == "changed\n"
    assert first.state_key() != second.state_key()


def test_nothing_runs_without_a_sandbox(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even where only the namespaces are missing: the command would have left a file on the host."""
    monkeypatch.setattr("shutil.which", lambda name, path=None: None if name == "bwrap" else name)
    with pytest.raises(SandboxUnavailable, match="bwrap is not installed") as missing:
        ShellEnvironment(str(folder))
    assert missing.value.hint is not None
    assert "apt-get install bubblewrap" in missing.value.hint
    assert (missing.value.code, missing.value.exit_code) == ("TTC-E106", 2)


def test_a_system_without_namespaces_is_told_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shell_layers, "_working", {})
    monkeypatch.setattr(shell_sandbox, "_OUTER", "echo unshare: no namespaces >&2; exit 1")
    with pytest.raises(SandboxUnavailable, match="no namespaces"):
        ShellEnvironment(str(folder))


WRONG: list[tuple[dict[str, Any], str]] = [
    ({}, "needs a folder"),
    ({"folder": "x", "root": "y"}, "needs a folder"),
    ({"folder": ".", "unsandboxed": True}, "no option"),
    ({"folder": ".", "mount": "/usr/x"}, "mount"),
    ({"folder": ".", "mount": "relative"}, "mount"),
    ({"folder": ".", "backend": "docker"}, "backend"),
    ({"folder": ".", "dialect": "zsh"}, "dialect"),
    ({"folder": ".", "timeout_seconds": -1}, "positive"),
    ({"folder": ".", "commands": ["/nowhere"]}, "no folder"),
]


@pytest.mark.parametrize(("options", "problem"), WRONG, ids=[problem for _, problem in WRONG])
def test_wrong_options_are_named(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        ShellEnvironment(**options)


@pytest.mark.parametrize("named", ["../outside", "/etc", "link", 3])
def test_a_log_cannot_name_a_folder_outside_the_root(named: object, tmp_path: Path) -> None:
    (tmp_path / "root" / "good").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    (tmp_path / "root" / "link").symlink_to(tmp_path / "outside")
    world = ShellEnvironment(root=str(tmp_path / "root"))
    world.reset(Task("t", data={"folder": "good"}))
    with pytest.raises(UsageError, match="folder"):
        world.reset(Task("t", data={"folder": named}))
    with pytest.raises(UsageError, match="cannot name a folder"):
        ShellEnvironment(str(tmp_path / "{task}")).reset(Task("../outside"))


def test_programs_of_the_user_come_first_and_cannot_be_changed(tmp_path: Path, opened: Opened, say: Say) -> None:
    program = tmp_path / "bin" / "hello"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho hello\n")
    program.chmod(0o755)
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents[:3]:
        if parent.owner() == tmp_path.owner() and parent != Path("/tmp"):
            parent.chmod(0o755)
    world = opened(commands=[str(program.parent)])
    assert say(world, "hello; echo > $(which hello) || echo no").splitlines()[0::2] == ["hello", "no"]


def run(format_name: str, steps: list[tuple[Message, list[Message]]], actions: list[str] | None = None) -> Trajectory:
    made = tuple(Step(index, action, tuple(seen)) for index, (action, seen) in enumerate(steps))
    extra = {"actions": actions} if actions else {}
    return Trajectory("r", Task("t"), steps=made, source=Source(format_name, extra=extra))


def called(name: str, **arguments: str) -> Message:
    return Message("assistant", tool_calls=(ToolCall("c", name, arguments),))


def tool(text: str) -> Message:
    return Message("tool", text, tool_call_id="c")


DIALECTS = [
    (
        "mini-swe-agent, text",
        run("mini-swe-agent", [(Message("assistant", "```bash\nls\n```"), [Message("user", "x")])]),
        Message("assistant", "THOUGHT: look\n\n```mswea_bash_command\ncat plain.txt; exit 3\n```"),
        Message("user", "<returncode>3</returncode>\n<output>\nplain\n</output>", is_error=True),
    ),
    (
        "mini-swe-agent, text without a command",
        run("mini-swe-agent", [(Message("assistant", "```bash\nls\n```"), [Message("user", "x")])]),
        Message("assistant", "```bash\nls\n```\n```bash\nls\n```"),
        Message("user", "No command was executed: give exactly one command, in one fenced code block.", is_error=True),
    ),
    (
        "mini-swe-agent, calls",
        run("mini-swe-agent", [(called("bash", command="ls"), [tool("x")])]),
        called("bash", command="printf none"),
        Message("tool", "<returncode>0</returncode>\n<output>\nnone</output>", tool_call_id="c", name="bash"),
    ),
    (
        "SWE-agent, text, with a prompt line",
        run(
            "swe-agent",
            [(Message("assistant", "```\nls\n```"), [Message("user", "x\n(Current directory: /w)\nbash-$")])],
        ),
        Message("assistant", "First.\n```\nls\n```\nNow:\n```\ncat kept/inner.txt\n```"),
        Message("user", "inner\n(Open file: n/a)\n(Current directory: /workspace)\nbash-$"),
    ),
    (
        "SWE-agent, calls of its own tools",
        run("swe-agent", [(called("say", word="two words"), [tool("x")])], ["printf 'as recorded'"]),
        called("say", word="two words"),
        Message("tool", "OBSERVATION:\nas recorded", tool_call_id="c", name="say"),
    ),
    (
        "SWE-agent, a silent command",
        run("swe-agent", [(called("bash", command="ls"), [tool("x")])]),
        called("bash", command="true"),
        Message("tool", "Your command ran successfully and did not produce any output.", tool_call_id="c", name="bash"),
    ),
    (
        "plain",
        run("openai-chat", [(called("bash", command="ls"), [tool("x")])]),
        called("bash", command="cat nothing"),
        Message(
            "tool",
            "cat: nothing: No such file or directory\n[exit code 1]\n",
            tool_call_id="c",
            name="bash",
            is_error=True,
        ),
    ),
    (
        "plain, another tool",
        run("openai-chat", [(called("bash", command="ls"), [tool("x")])]),
        called("python", code="1"),
        Message("tool", "Error: there is no tool python", tool_call_id="c", name="python", is_error=True),
    ),
]


@pytest.mark.parametrize(("name", "record", "action", "answer"), DIALECTS, ids=[row[0] for row in DIALECTS])
def test_each_agent_is_answered_in_its_own_way(
    name: str, record: Trajectory, action: Message, answer: Message, folder: Path
) -> None:
    world = ShellEnvironment(str(folder))
    world.load(record, {})
    world.reset(record.task)
    assert world.step(action).observations == [answer]


ENDS = [
    ("mini-swe-agent", called("bash", command="echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT; echo patch"), True, []),
    ("mini-swe-agent", called("bash", command="echo no; echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT"), False, None),
    ("plain", called("submit"), True, ["Submitted."]),
    ("swe-agent", called("submit"), True, ["Submitted."]),
    ("plain", Message("assistant", "Done: ```bash\nrm -rf .\n```"), True, []),
]


@pytest.mark.parametrize(("name", "action", "ends", "texts"), ENDS)
def test_runs_end_with_the_word_of_their_agent(
    name: str, action: Message, ends: bool, texts: list[str] | None, folder: Path
) -> None:
    world = ShellEnvironment(str(folder), dialect=name)
    world.reset(Task("t"))
    result = world.step(action)
    assert result.done is ends
    assert result.reward is None
    assert texts is None or [message.text for message in result.observations] == texts
    assert world.state()["files"] == {}


def test_only_agents_with_one_session_keep_folder_and_variables(folder: Path, say: Say) -> None:
    for dialect, expected in (("mini-swe-agent", "/workspace\n\n"), ("swe-agent", "/workspace/kept\nx\n")):
        world = ShellEnvironment(str(folder), dialect=dialect)
        world.reset(Task("t"))
        assert expected in say(world, "cd kept; export A=x", "pwd; echo $A")
    world = ShellEnvironment(str(folder), carry=False)
    world.reset(Task("t"))
    assert say(world, "cd kept", "pwd") == "/workspace\n"


def test_a_text_agent_that_is_shown_something_else_has_diverged(folder: Path) -> None:
    action = Message("assistant", "```bash\ncat plain.txt\n```")
    right = Message("user", "<returncode>0</returncode>\n<output>\nplain\r\n</output>")
    world = ShellEnvironment(str(folder))
    world.load(run("mini-swe-agent", [(action, [right])]), {})
    world.reset(Task("t"))
    world.step(action)
    assert world.hear(right).observations == ()
    world.step(action)
    assert (
        "plain"
        in world.hear(Message("user", "<returncode>0</returncode>\n<output>\nother\n</output>")).observations[0].text
    )
    assert world.hear(Message("user", "a word of a person")).observations == ()


def test_output_is_cut_in_the_middle_with_a_line_that_says_so(opened: Opened, say: Say) -> None:
    said = say(opened(output_bytes=1000), "seq 100000")
    assert said.startswith("1\n2\n3\n")
    assert "\n[... 587895 bytes left out ...]\n" in said
    assert said.endswith("99999\n100000\n")


def test_a_killed_process_leaves_nothing_for_long(tmp_path: Path) -> None:
    """The next store beside it removes what it left; that of a living process stays."""
    left = tmp_path / f"{shell_store.PREFIX}left"
    (left / "0" / "w").mkdir(parents=True)
    (left / "lock").touch()
    living = shell_store.Store(tmp_path)
    found = shell_store.store_at(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([living.path, found.path])
    living.close()
    found.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("setpriv") is None, reason="becomes another user")
def test_files_belong_to_nobody_when_we_are_root(opened: Opened, say: Say) -> None:
    world = opened()
    say(world, "echo x > made")
    branch = world._standing()
    assert isinstance(branch, OverlayBranch)
    assert (branch.layers[-1].path / "w" / "made").stat().st_uid == shell_sandbox.OWNER
