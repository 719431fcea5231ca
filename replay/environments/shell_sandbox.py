"""A sandbox for one command: bubblewrap without network, inside a user namespace that may hold an overlay.

From outside in: `setpriv` (when we are root: the command must not be, nor own root's files), `unshare` (user, mount and
pid namespaces), a mount of the layers, `timeout` (should we die), `bwrap`. Nothing of the host can be seen but /usr and
what the caller binds; the command is user 1000 without capabilities and cannot make user namespaces.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...storage.errors import SandboxUnavailable, UsageError
from .shell_pipes import moved, pipe, written
from .shell_process import Capture, Ended, Watch, memory_watch, pump

MIB = 2**20
HOME, TEMPORARY, HOST_NAME = "/home/agent", "/tmp", "sandbox"  # noqa: S108 (inside the sandbox)
OWNER = 65534
"""Who runs commands, and owns what they write, when we are root: nobody."""
STATE_DESCRIPTOR = 9
"""Where a command's shell says what it leaves behind, apart from its output."""
FIXED_ENVIRONMENT: Mapping[str, str] = {
    "HOME": HOME,
    "LANG": "C.UTF-8",
    "LC_ALL": "C.UTF-8",
    "LOGNAME": "agent",
    "MANPAGER": "cat",
    "PAGER": "cat",
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "PIP_PROGRESS_BAR": "off",
    "PYTHONDONTWRITEBYTECODE": "1",  # what it would write holds times
    "PYTHONHASHSEED": "0",
    "SHELL": "/bin/bash",
    "SOURCE_DATE_EPOCH": "315532800",
    "TERM": "dumb",
    "TQDM_DISABLE": "1",
    "TZ": "UTC",
    "USER": "agent",
}
STEP_SCRIPT = f"""cd -- "$TTC_FOLDER" 2>/dev/null
PATH=$TTC_PATH
unset BASH_ENV TTC_FOLDER TTC_PATH OLDPWD
trap '{{ builtin printf "%s\\0" "$(builtin pwd -P 2>/dev/null)"; /usr/bin/env -0; }} >&{STATE_DESCRIPTOR}' EXIT
"""
"""Read by the command's bash before the command itself, so that its messages are those of a plain `bash -c`."""
_OUTER = """set -e
echo 1000 > /proc/self/oom_score_adj
ulimit $1
for pair in $2; do eval "exec ${pair%=*}<&${pair#*=} ${pair#*=}<&-"; done
if [ -n "$3" ]; then mount -t overlay overlay -o "$3" merged; fi
limit=$4 command=$5; shift 5
exec timeout --foreground --signal=KILL "$limit" bwrap "$@" -- bash -c "$command"
"""
_OUTER_WORDS = (
    *("unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "--kill-child", "--"),
    *("/bin/bash", "-c"),
)
_TOP = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
_RESERVED = ("/usr", "/etc", "/proc", "/dev", "/run", TEMPORARY, "/home", *(f"/{name}" for name in _TOP))
_NOT_CARRIED = ("_", "SHLVL", "PWD", "OLDPWD", "BASH_ENV", "BASHOPTS", "SHELLOPTS", "POSIXLY_CORRECT")
"""What would change how the next shell starts; nor are functions carried."""
_STATE_BYTES = 256 * 1024
HINT = "apt-get install bubblewrap (and util-linux, coreutils); docs/shell.md says what else it needs"


@dataclass(frozen=True, slots=True)
class Limits:
    """What one command may use. Processes, memory and disk are of all its processes together, the rest of each."""

    timeout_seconds: float = 30.0
    output_bytes: int = 100_000
    memory_bytes: int = 2048 * MIB
    address_space_bytes: int = 4096 * MIB
    processes: int = 128
    file_bytes: int = 256 * MIB
    disk_bytes: int = 1024 * MIB
    files: int = 200_000
    open_files: int = 256

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 2**53:
                raise UsageError(f"{name} = {value!r} is not a positive number")

    @property
    def ulimits(self) -> str:
        """As options of bash's `ulimit`, in its units."""
        seconds, kib = int(self.timeout_seconds) + 1, 1024
        return (
            f"-c 0 -t {seconds} -v {self.address_space_bytes // kib} -u {self.processes} "
            f"-f {max(1, self.file_bytes // kib)} -n {self.open_files}"
        )


@dataclass(frozen=True, slots=True)
class Files:
    """What the sandbox's writable folders are: options of an overlay mount, or else the folder `root`; relative to the
    store. In it lie `w`, `t` and `h`: the working folder, /tmp and HOME."""

    root: str = "merged"
    overlay: str = ""


@dataclass(frozen=True, slots=True)
class Shell:
    """What one command's shell leaves to the next: where it is, and its exported variables."""

    folder: str
    variables: Mapping[str, str] = field(default_factory=lambda: dict(FIXED_ENVIRONMENT))


@dataclass(frozen=True, slots=True)
class Result:
    """What a command did. `output`: both streams, in order, cut in the middle; `left_out` counts the bytes cut.
    `killed` says why it was ended from outside. `shell` None: it did not say what it left."""

    output: str
    code: int
    left_out: int = 0
    killed: str | None = None
    shell: Shell | None = None


class Sandbox:
    """Runs commands over folders of a store. `mount`: where the working folder is seen. `bound`: host path by path in
    the sandbox, read-only."""

    def __init__(self, store: Path, limits: Limits, mount: str = "/workspace", bound: Mapping[str, str] | None = None):
        self.store = store
        self.limits = limits
        self.mount = checked_mount(mount)
        self.bound = dict(bound or {})

    def run(self, files: Files, command: str, shell: Shell, watches: Sequence[Watch] = ()) -> Result:
        """Run `command` as `bash -c` would. Raises SandboxUnavailable when no sandbox could be made."""
        said, state, status = Capture(self.limits.output_bytes), Capture(_STATE_BYTES), Capture(_STATE_BYTES)
        with pipe() as (said_out, said_in), pipe() as (state_out, state_in), pipe() as (status_out, status_in):
            numbers = {1: said_in.number, 2: said_in.number, STATE_DESCRIPTOR: state_in.number}
            process = self.start(files, _argument(command), shell, numbers, status=status_in.number)
            if process is None:
                return Result("bash: Argument list too long\n", 126)
            for end in (said_in, state_in, status_in):
                end.close()
            streams = {said_out.release(): said, state_out.release(): state, status_out.release(): status}
            ended = self.wait(process, streams, watches)
        text, left_out = _text(said)
        if ended.killed is None and b"exit-code" not in status.head:
            why = status.head.decode("utf-8", "replace") + text
            raise SandboxUnavailable(f"no sandbox could be made: {why.strip()[:300]}", hint=HINT)
        return Result(text, ended.code, left_out, ended.killed, _left(bytes(state.head), state.dropped))

    def wait(self, process: subprocess.Popen[bytes], streams: dict[int, Capture], watches: Sequence[Watch]) -> Ended:
        """Read the streams and wait, under the limits of time and memory. Closes the streams."""
        memory = memory_watch(process.pid, self.limits.memory_bytes)
        return pump(process, streams, self.limits.timeout_seconds, [memory, *watches])

    def start(
        self,
        files: Files,
        command: bytes,
        shell: Shell,
        descriptors: Mapping[int, int],
        *,
        status: int | None = None,
        bound: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[bytes] | None:
        """Start it; `descriptors`: ours by the number that they get inside. On `status` bubblewrap says `exit-code`
        when there was a sandbox, others why there was none. None: the command is too long to be one."""
        given = self._arguments(files, shell, {**self.bound, **(bound or {})})
        text = "\0".join(given).encode("utf-8", "surrogateescape") + b"\0"
        extra = [] if status is None else [status]
        with written(text) as file, moved([*descriptors.values(), file, *extra]) as numbers:
            pairs = " ".join(f"{target}={number}" for target, number in zip(descriptors, numbers, strict=False))
            told = [] if status is None else ["--json-status-fd", str(numbers[-1])]
            last = ["--args", str(numbers[len(descriptors)]), *told]
            backstop = str(int(self.limits.timeout_seconds) + 10)
            words = [*_OUTER_WORDS, _OUTER, "sandbox", self.limits.ulimits, pairs, files.overlay, backstop]
            return self._popen([*privileges(), *words, command, *last], numbers, status)

    def _popen(
        self, words: Sequence[str | bytes], numbers: Sequence[int], status: int | None
    ) -> subprocess.Popen[bytes] | None:
        try:
            return subprocess.Popen(  # noqa: S603 (that is what a sandbox is for)
                words,
                cwd=self.store,
                env={"PATH": FIXED_ENVIRONMENT["PATH"], "LC_ALL": "C"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL if status is None else status,
                pass_fds=numbers,
                start_new_session=True,
            )
        except FileNotFoundError as cause:
            raise SandboxUnavailable(f"there is no {cause.filename}", hint=HINT) from cause
        except OSError as cause:
            if cause.errno == errno.E2BIG:  # as a plain bash would say
                return None
            raise

    def _arguments(self, files: Files, shell: Shell, bound: Mapping[str, str]) -> Iterator[str]:
        yield from ("--unshare-user", "--unshare-all", "--disable-userns", "--die-with-parent", "--new-session")
        yield from ("--uid", "1000", "--gid", "1000", "--cap-drop", "ALL", "--hostname", HOST_NAME, "--clearenv")
        yield from ("--setenv", "BASH_ENV", "/etc/ttc/step.sh", "--setenv", "TTC_FOLDER", shell.folder)
        paths = {"PATH": FIXED_ENVIRONMENT["PATH"], "TTC_PATH": shell.variables.get("PATH", "")}
        for name, value in {**shell.variables, **paths}.items():
            yield from ("--setenv", name, value)
        yield from ("--ro-bind", "/usr", "/usr")
        for name in _TOP:
            if os.path.islink(f"/{name}"):
                yield from ("--symlink", os.readlink(f"/{name}"), f"/{name}")
            elif os.path.isdir(f"/{name}"):
                yield from ("--ro-bind", f"/{name}", f"/{name}")
        yield from ("--ro-bind", "etc", "/etc")
        for path in ("/etc/alternatives", "/etc/ld.so.cache"):
            yield from ("--ro-bind-try", path, path)
        yield from ("--proc", "/proc", "--dev", "/dev", "--size", str(64 * MIB), "--tmpfs", "/dev/shm")  # noqa: S108
        yield from ("--dir", "/run", "--dir", "/var", "--symlink", TEMPORARY, "/var/tmp")  # noqa: S108
        for inside, outside in bound.items():
            yield from ("--ro-bind", outside, inside)
        for part, inside in (("w", self.mount), ("t", TEMPORARY), ("h", HOME)):
            yield from ("--bind", f"{files.root}/{part}", inside)
        yield from ("--remount-ro", "/", "--remount-ro", "/dev", "--chdir", self.mount)


def checked_mount(mount: str) -> str:
    """The mount point, which must not hide what the sandbox needs. Raises UsageError."""
    plain = os.path.normpath(mount) if isinstance(mount, str) and mount.startswith("/") else "/"
    taken = any(plain == top or plain.startswith(top + "/") for top in _RESERVED)
    if plain == "/" or taken or "\0" in plain:
        raise UsageError(f"mount = {mount!r}", hint="an absolute path such as /workspace or /testbed")
    return plain


def check_programs() -> None:
    """Raises SandboxUnavailable, naming the first program that is missing."""
    for name in ("bwrap", "unshare", "setpriv", "mount", "timeout"):
        if shutil.which(name, path=FIXED_ENVIRONMENT["PATH"]) is None:
            message = f"commands run in a sandbox or not at all, and {name} is not installed"
            raise SandboxUnavailable(message, hint=HINT)


def privileges() -> list[str]:
    """The words before a program that foreign code may have a hand in: no new privileges; nobody's for root."""
    if os.geteuid() != 0:
        return ["setpriv", "--no-new-privs"]
    owner = str(OWNER)
    return ["setpriv", "--no-new-privs", "--reuid", owner, "--regid", owner, "--clear-groups"]


def _argument(command: str) -> bytes:
    """As a word of a command line, which cannot hold NUL."""
    return command.replace("\0", "").encode("utf-8", "surrogatepass")


def _text(said: Capture) -> tuple[str, int]:
    """The stream as text, with a line in the middle that says what was cut."""
    if not said.dropped:
        return bytes(said.head + said.tail).decode("utf-8", "replace"), 0
    marker = f"\n[... {said.dropped} bytes left out ...]\n"
    return said.head.decode("utf-8", "replace") + marker + said.tail.decode("utf-8", "replace"), said.dropped


def _left(state: bytes, dropped: int) -> Shell | None:
    """What the shell said it leaves. It may say anything: only a path and variables come of it."""
    folder, _, rest = state.decode("utf-8", "surrogateescape").partition("\0")
    if dropped or not folder.startswith("/"):
        return None
    variables = {}
    for item in rest.split("\0"):
        name, equals, value = item.partition("=")
        if equals and name and name not in _NOT_CARRIED and not name.startswith("BASH_FUNC_"):
            variables[name] = value
    return Shell(folder, variables) if len(variables) <= 500 else None
