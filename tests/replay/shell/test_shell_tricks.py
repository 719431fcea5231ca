"""Odd files do not fool whoever hashes them, and odd things that a shell leaves behind do not loosen the next."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ttc_replay.replay.environments.shell import ShellEnvironment


def python(code: str) -> str:
    return f"python3 - <<'EOF'\n{code}\nEOF"


TRICKS = [
    (
        "names with line ends and control codes",
        "touch $'a\\nb' $'\\e[31mred' $'\\xff\\xfe'",
        {"a\nb", "\x1b[31mred", "\\xff\\xfe"},
    ),
    ("a pipe that nobody writes to", "mkfifo pipe", {"pipe"}),
    ("a socket", python("import socket; socket.socket(1).bind('s')"), {"s"}),
    ("what its owner may not read", "mkdir shut; echo x > shut/in; chmod 0 shut/in shut", {"shut", "shut/in"}),
    ("a whiteout of its own", "mknod plain2 c 0 0; mknod kept/inner.txt c 0 0", set()),
    (
        "an overlay's own marks",
        python(
            "import os\nfor n in ('opaque', 'whiteout', 'redirect'):\n"
            "    try: os.setxattr('kept', 'user.overlay.' + n, b'y')\n    except OSError: pass"
        ),
        set(),
    ),
]


@pytest.mark.parametrize(("name", "command", "files"), TRICKS, ids=[name for name, _, _ in TRICKS])
def test_odd_files_neither_stop_the_walk_nor_fool_it(
    name: str, command: str, files: set[str], opened: Callable[..., ShellEnvironment], say: Callable[..., str]
) -> None:
    world = opened()
    say(world, command)
    assert set(world.state()["files"]) == files
    assert say(world, "cat kept/inner.txt plain.txt") == "inner\nplain\n"


LEFT_BEHIND = [
    (
        "functions in place of builtins",
        "ulimit() { :; }; trap() { :; }; cd() { :; }; unset() { :; }; export -f ulimit trap cd unset",
    ),
    (
        "a script that shells read first",
        "echo 'echo ESCAPED' > evil; export BASH_ENV=/workspace/evil ENV=/workspace/evil",
    ),
    (
        "another PATH",
        "printf '#!/bin/sh\\necho ESCAPED\\n' > bash; chmod +x bash; cp bash env; cp bash timeout;"
        " export PATH=/workspace",
    ),
    ("POSIX mode", "export POSIXLY_CORRECT=1 SHELLOPTS"),
    ("a forged state", "trap - EXIT; printf '/etc\\0HOME=/x\\0=\\0broken\\0' >&9"),
    ("very much state", "trap - EXIT; yes A=1 | head -c 1000000 | tr '\\n' '\\0' >&9"),
    ("a state that is no path", "trap - EXIT; printf 'bwrap: nothing' >&9; echo 'bwrap: no'; exit 1"),
    ("a folder that is gone", "mkdir gone; cd gone; rmdir ../gone"),
]


@pytest.mark.parametrize(("name", "command"), LEFT_BEHIND, ids=[name for name, _ in LEFT_BEHIND])
def test_what_a_shell_leaves_does_not_loosen_the_next(
    name: str, command: str, opened: Callable[..., ShellEnvironment], say: Callable[..., str]
) -> None:
    world = opened(processes=24)
    say(world, command)
    said = say(world, "builtin ulimit -u; /usr/bin/id -u; builtin echo $0")
    assert said.splitlines() == ["24", "1000", "bash"]
