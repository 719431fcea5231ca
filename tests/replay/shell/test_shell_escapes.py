"""Ways out of the sandbox, and ways to harm from within: none works, and the world goes on after each.

A command says ESCAPED where it got what it must not get. Words in braces are the host's.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from ttc_replay.replay.environments.shell import ShellEnvironment

SECRET = "the-host-keeps-this-to-itself"
MARK = "987654.25"
"""Seconds that a left-over sleeps: how it is found on the host."""
SMALL = {
    "timeout_seconds": 1.5,
    "memory_bytes": 128 * 2**20,
    "address_space_bytes": 512 * 2**20,
    "file_bytes": 2**20,
    "processes": 24,
    "files": 400,
}


class Escape(NamedTuple):
    """What is tried. `says`: what the answer must hold, where there is more to it than no ESCAPED in it."""

    name: str
    command: str
    says: str = ""


def python(code: str) -> str:
    return f"python3 - <<'EOF'\n{code}\nEOF"


REACH = [
    Escape(
        "TCP to the host's loopback",
        python("import socket; socket.create_connection(('127.0.0.1', {port}), 1); print('ESCAPED')"),
    ),
    Escape("TCP to the outside", "timeout 1 bash -c 'echo > /dev/tcp/192.0.2.1/80' && echo ESCAPED", "unreachable"),
    Escape(
        "UDP to the outside",
        python("import socket; s = socket.socket(2, 2); s.sendto(b'x', ('192.0.2.1', 53)); print('ESCAPED')"),
        "unreachable",
    ),
    Escape("DNS", "getent hosts example.org && echo ESCAPED"),
    Escape(
        "an abstract Unix socket",
        python("import socket; socket.socket(1).connect('\\0{abstract}'); print('ESCAPED')"),
        "refused",
    ),
    Escape(
        "a Unix socket by its path", python("import socket; socket.socket(1).connect('{socket}'); print('ESCAPED')")
    ),
    Escape("other network interfaces", "grep -v -e lo: -e '|' /proc/net/dev && echo ESCAPED"),
    Escape("the host's processes", "[ $(ls -d /proc/[0-9]* | wc -l) -gt 9 ] && echo ESCAPED"),
    Escape("killing outside", "kill -9 {pid} && echo ESCAPED"),
    Escape("killing everything", "kill -9 -1; echo done"),
    Escape("/proc/1/root", "cat /proc/1/root{secret} /proc/*/root{secret} | grep {text} && echo ESCAPED"),
    Escape("/proc/self/cwd upwards", "cat /proc/self/cwd/../../../../..{secret} && echo ESCAPED"),
    Escape("another process's variables", "cat /proc/[0-9]*/environ | tr '\\0' '\\n' | grep {text} && echo ESCAPED"),
    Escape("a secret in its own variables", "env | grep {text} && echo ESCAPED"),
    Escape(
        "kernel memory", "for f in /proc/kcore /dev/mem /dev/kmsg /proc/kmsg; do head -c 1 $f && echo ESCAPED; done"
    ),
    Escape(
        "kernel settings",
        "echo 1 > /proc/sys/vm/drop_caches && echo ESCAPED; echo b > /proc/sysrq-trigger && echo ESCAPED",
    ),
    Escape("the name of the host", "hostname evil && echo ESCAPED; date -s 2000-01-01 && echo ESCAPED"),
    Escape("reading through a link", "ln -s {secret} leak; cat leak && echo ESCAPED"),
    Escape("writing through a link", "ln -s {place} out; echo x > out/planted && echo ESCAPED"),
    Escape("a hard link to the outside", "ln /usr/bin/env stolen && echo ESCAPED; ln {secret} stolen && echo ESCAPED"),
    Escape(
        "writing elsewhere",
        "for d in / /usr /usr/bin /etc /dev /opt /run /var; do touch $d/planted && echo ESCAPED; done",
    ),
    Escape("replacing what runs next", "rm -f /bin/bash /etc/ttc/step.sh; cp /bin/true /bin/bash && echo ESCAPED"),
    Escape(
        "host files",
        "cat /etc/shadow && echo ESCAPED; ls /root {place} && echo ESCAPED; ls /home | grep -v agent && echo ESCAPED",
    ),
    Escape("the layers of others", "ls -d {store} /tmp/ttc-shell-* && echo ESCAPED"),
    Escape(
        "device nodes",
        "mknod disk b 8 0 && echo ESCAPED; mknod mem c 1 1 && echo ESCAPED; ls /dev/sda /dev/vda && echo ESCAPED",
    ),
    Escape(
        "mounting",
        "mount -t tmpfs x /workspace && echo ESCAPED; mount --bind / /workspace && echo ESCAPED;"
        " umount /usr && echo ESCAPED",
    ),
    Escape(
        "new namespaces",
        "unshare -Ur true && echo ESCAPED; unshare -m true && echo ESCAPED; nsenter -t 1 -m true && echo ESCAPED",
    ),
    Escape("another sandbox", "bwrap --bind / / --unshare-user true && echo ESCAPED"),
    Escape("capabilities", "grep -h CapEff /proc/[0-9]*/status | grep -v 0000000000000000 && echo ESCAPED"),
    Escape(
        "setuid programs",
        "cp /bin/bash b; chmod u+s b; ./b -p -c 'id -u' | grep -v 1000 && echo ESCAPED;"
        " su -c true </dev/null && echo ESCAPED",
    ),
    Escape("becoming root", python("import os; os.setuid(0); print('ESCAPED')"), "Invalid argument"),
    Escape("chroot", python("import os; os.chroot('/workspace'); print('ESCAPED')"), "not permitted"),
    Escape(
        "typing into the terminal",
        python(
            "import fcntl\nfor t in ('/dev/tty', '/dev/console', '/dev/stdin'):\n"
            "    try: fcntl.ioctl(open(t), 0x5412, b'x'); print('ESCAPED')\n    except OSError as e: print(e)"
        ),
    ),
    Escape(
        "raising its limits",
        "ulimit -u unlimited && echo ESCAPED; ulimit -v unlimited && echo ESCAPED; ulimit -f unlimited && echo ESCAPED",
    ),
    Escape(
        "real-time priority", "nice -n -5 true 2>&1 | grep -q cannot || echo ESCAPED; chrt -f 9 true && echo ESCAPED"
    ),
]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, object]]:
    """What there is on the host to get at: a secret file and variable, a process, and servers on three sockets."""
    place = tmp_path_factory.mktemp("host")
    secret = place / "secret.txt"
    secret.write_text(SECRET)
    reached: list[str] = []
    servers = [socket.socket(), socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)]
    servers[0].bind(("127.0.0.1", 0))
    abstract = f"ttc-escape-{os.getpid()}"
    servers[1].bind(f"\0{abstract}")
    path = str(place / "s")
    servers[2].bind(path)
    for server in servers:
        server.listen()
        threading.Thread(target=_watch, args=(server, reached), daemon=True).start()
    victim = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    os.environ["TTC_ESCAPE_SECRET"] = SECRET
    yield {
        "port": servers[0].getsockname()[1],
        "abstract": abstract,
        "socket": path,
        "secret": secret,
        "place": place,
        "pid": victim.pid,
        "text": SECRET,
        "reached": reached,
        "victim": victim,
    }
    del os.environ["TTC_ESCAPE_SECRET"]
    victim.communicate(b"\n")
    for server in servers:
        server.shutdown(socket.SHUT_RDWR)
        server.close()


def _watch(server: socket.socket, reached: list[str]) -> None:
    while True:
        try:
            server.accept()[0].close()
        except OSError:
            return
        reached.append(str(server))


def filled(command: str, host: dict[str, object], world: ShellEnvironment) -> str:
    store = world._store.path
    for name, value in {**host, "store": store}.items():
        command = command.replace("{" + name + "}", str(value))
    return command


@pytest.fixture(scope="module")
def ground(folder: Path) -> ShellEnvironment:
    from ttc_replay import Task

    world = ShellEnvironment(str(folder), timeout_seconds=10)
    world.reset(Task("t"))
    return world


@pytest.mark.parametrize("escape", REACH, ids=lambda escape: escape.name)
def test_nothing_of_the_host_is_in_reach(
    escape: Escape, host: dict[str, object], ground: ShellEnvironment, say: Callable[..., str]
) -> None:
    world = ground.fork()
    said = say(world, filled(escape.command, host, world))
    assert "ESCAPED" not in said, said
    assert escape.says in said, said
    assert SECRET not in said
    assert host["reached"] == []
    victim, place = host["victim"], host["place"]
    assert isinstance(victim, subprocess.Popen)
    assert victim.poll() is None
    assert isinstance(place, Path)
    assert {item.name for item in place.iterdir()} == {"secret.txt", "s"}


HARM = [
    Escape("a fork bomb", "f() { f | f & f; }; f", "killed: no end"),
    Escape("memory, in one process", python("x = bytearray(10**9); print('ESCAPED')"), "MemoryError"),
    Escape(
        "memory, in many",
        "for i in 1 2 3; do python3 -c 'x = bytearray(60 * 2**20); import time; time.sleep(9)' & done;"
        " wait; echo ESCAPED",
        "killed: more than 128 MiB of memory",
    ),
    Escape(
        "memory that no process maps",
        python(
            "import os, time\nf = [os.memfd_create('x') for _ in range(200)]\n"
            "for d in f: os.write(d, bytes(2**20 - 1))\ntime.sleep(9); print('ESCAPED')"
        ),
        "killed",
    ),
    Escape(
        "shared memory",
        python("for n in range(90): open(f'/dev/shm/{n}', 'wb').write(bytes(2**20 - 1))\nprint('ESCAPED')"),
        "No space",
    ),
    Escape("huge output", "yes; echo ESCAPED", "killed: more than 64 MiB of output"),
    Escape("output for ever, slowly", "while :; do echo x; sleep 0.2; done; echo ESCAPED", "killed: no end"),
    Escape("a huge file", "head -c 100M /dev/zero > big; [ $(stat -c %s big) -gt 1048576 ] && echo ESCAPED"),
    Escape("very many files", "for i in $(seq 2000); do : > f$i; done", "nothing of it was kept"),
    Escape("folders very deep", "for i in $(seq 300); do mkdir d && cd d; done", "nothing of it was kept"),
    Escape("an endless sleep", "sleep {mark}; echo ESCAPED", "killed: no end after 1.5 seconds"),
    Escape("ignoring signals", "trap '' TERM INT HUP; sleep {mark}; echo ESCAPED", "killed"),
    Escape("a daemon", "setsid nohup sh -c 'trap \"\" HUP; sleep {mark}' > /dev/null 2>&1 & disown; sleep 0.1"),
    Escape("closing its streams and going on", "exec > /dev/null 2>&1 9>&-; sleep {mark}"),
    Escape(
        "an endless line of folders that are none",
        "ln -s . loop; ls loop/loop/loop > /dev/null; find -L . > /dev/null; echo ok",
        "ok",
    ),
]


@pytest.mark.parametrize("escape", HARM, ids=lambda escape: escape.name)
def test_a_command_can_use_no_more_than_its_share(
    escape: Escape, opened: Callable[..., ShellEnvironment], say: Callable[..., str]
) -> None:
    world = opened(**SMALL)
    begun = time.monotonic()
    said = say(world, escape.command.replace("{mark}", MARK))
    assert time.monotonic() - begun < 8
    assert "ESCAPED" not in said
    assert escape.says in said
    assert len(said) < 150_000
    assert left_over() == []
    assert say(world, "echo alive; cat plain.txt") == "alive\nplain\n"
    world.close()


def left_over() -> list[str]:
    """Processes on the host that a command has left behind."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if words[:2] == [b"sleep", MARK.encode()]:
            found.append(process.name)
    return found


def test_a_link_to_a_host_file_tells_nothing_of_it(
    host: dict[str, object], opened: Callable[..., ShellEnvironment], say: Callable[..., str]
) -> None:
    """The files are hashed on the host, where the link would lead to the secret."""
    world = opened()
    say(world, f"ln -s {host['secret']} leak; ln -s {host['place']} folder; ln -sfn /dev/zero link")
    assert world.state()["files"] == {
        "leak": f"link to {host['secret']}",
        "folder": f"link to {host['place']}",
        "link": "link to /dev/zero",
    }
