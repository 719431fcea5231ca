"""Where worlds of the shell environment keep their files: one folder a process, gone when the process ends.

A `Folder` in it lives as long as somebody holds it; copies of user's folders (`Origin`) are shared by all worlds that
start from them.
"""

from __future__ import annotations

import atexit
import fcntl
import itertools
import os
import shutil
import subprocess
import tempfile
import threading
import weakref
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ...storage.canonical import content_id
from ...storage.errors import EnvironmentFailed, UsageError
from .shell_sandbox import HOME, HOST_NAME, OWNER, STEP_SCRIPT, TEMPORARY, privileges
from .shell_tree import Base

PREFIX = "ttc-shell-"
PARTS = ("w", "t", "h")
ORIGINS_KEPT = 4
"""Copies of folders that are kept although no world stands in them."""
_PROGRAMS = ("shell_verdict_program.py",)
_SMALL_FILES = {
    "passwd": f"root:x:0:0:root:/root:/bin/bash\nagent:x:1000:1000:agent:{HOME}:/bin/bash\n",
    "group": "root:x:0:\nagent:x:1000:\n",
    "hosts": f"127.0.0.1 localhost {HOST_NAME}\n",
    "hostname": f"{HOST_NAME}\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
    "ld.so.cache": "",
    "ttc/step.sh": STEP_SCRIPT,
}


class Folder:
    """A folder of the store, removed when nobody holds this object any more. `name`: relative to the store."""

    def __init__(self, store: Store, name: str):
        self.name = name
        self.path = store.path / name
        self._gone = weakref.finalize(self, _remove_in, os.getpid(), self.path)


@dataclass(frozen=True, slots=True)
class Origin:
    """A copy of a user's folder (in `folder`: `w`, with empty `t` and `h`) and what lies in it."""

    folder: Folder
    base: Base
    print: str


class Store:
    """One folder for all worlds of a process. Everything in it belongs to whoever runs commands."""

    def __init__(self, place: Path):
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._origins: OrderedDict[tuple[Path, int], Origin] = OrderedDict()
        self._held = os.open(self.path / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._held, fcntl.LOCK_EX)
        self._furnish()
        self._process = os.getpid()
        atexit.register(self.close)

    def _furnish(self) -> None:
        for name, text in _SMALL_FILES.items():
            file = self.path / "etc" / name
            file.parent.mkdir(exist_ok=True, parents=True)
            file.write_text(text, "utf-8")
        for name in _PROGRAMS:
            shutil.copyfile(Path(__file__).with_name(name), self.path / "etc" / "ttc" / name)
        (self.path / "etc" / "alternatives").mkdir()
        (self.path / "merged").mkdir()
        give(self.path)

    def close(self) -> None:
        """Remove everything; in a child process, nothing."""
        atexit.unregister(self.close)
        self._origins.clear()
        _remove_in(self._process, self.path)
        with suppress(OSError):
            os.close(self._held)

    def folder(self, *parts: str) -> Folder:
        """A new folder with these folders in it."""
        folder = Folder(self, str(next(self._numbers)))
        for path in (folder.path, *(folder.path / part for part in parts)):
            path.mkdir(mode=0o755)
            own(path)
        return folder

    def origin(self, source: Path, most: int) -> Origin:
        """The copy of a folder as it is now; made once, and again when the folder has changed since."""
        with self._lock:
            print_now = fingerprint(source, most)
            known = self._origins.pop((source, most), None)
            if known is None or known.print != print_now:
                known = Origin(copied := self._copy(source), Base(str(copied.path), most), print_now)
            self._origins[source, most] = known
            while len(self._origins) > ORIGINS_KEPT:
                self._origins.popitem(last=False)
            return known

    def _copy(self, source: Path) -> Folder:
        """Copy what is in a user's folder: links as links, times and modes kept, owners not."""
        folder = self.folder(*PARTS)
        words = ["cp", "-a", "--reflink=auto", "--no-preserve=ownership", "--", f"{source}/.", str(folder.path / "w")]
        done = subprocess.run(words, capture_output=True, text=True, check=False)  # noqa: S603 (no shell)
        _done(done, f"{source} could not be copied")
        give(folder.path)
        return folder

    def twin(self, folder: Folder) -> Folder:
        """A copy of a folder of this store, made as whoever runs commands, whatever its modes."""
        copied = self.folder()
        words = [*privileges(), "unshare", "--user", "--map-root-user", "--"]
        words += ["cp", "-a", "--reflink=auto", "--", f"{folder.name}/.", copied.name]
        done = subprocess.run(words, cwd=self.path, capture_output=True, text=True, check=False)  # noqa: S603
        _done(done, "the files of a branch could not be copied")
        return copied

    def empty(self) -> Origin:
        """An origin with nothing in it."""
        folder = self.folder(*PARTS)
        return Origin(folder, Base(str(folder.path), 10), "")


def _done(done: subprocess.CompletedProcess[str], what: str) -> None:
    if done.returncode:
        raise EnvironmentFailed(f"{what}: {done.stderr.strip()[:300]}")


def own(path: Path) -> None:
    """Make it belong to whoever runs commands."""
    if os.geteuid() == 0:
        os.chown(path, OWNER, OWNER, follow_symlinks=False)


def give(path: Path) -> None:
    """Make all of it belong to whoever runs commands."""
    if os.geteuid() == 0:
        subprocess.run(["chown", "-hR", f"{OWNER}:{OWNER}", "--", str(path)], check=True)  # noqa: S603, S607


def remove(path: Path) -> None:
    """Remove a folder whatever its modes and depth; links in it are not followed."""
    with suppress(OSError):
        os.rmdir(path / "work")  # an overlay's own, of mode 0
    with suppress(OSError, RecursionError):
        shutil.rmtree(path)
        return
    words = [*privileges(), "unshare", "--user", "--map-root-user", "--", "rm", "-rf", "--one-file-system", "--"]
    subprocess.run([*words, str(path)], capture_output=True, check=False)  # noqa: S603 (no shell)
    shutil.rmtree(path, ignore_errors=True)


def _remove_in(process: int, path: Path) -> None:
    """Remove a folder, unless this is a child of the process that it belongs to."""
    if os.getpid() == process:
        remove(path)


def fingerprint(source: Path, most: int) -> str:
    """What tells that a folder has changed: names, kinds, sizes, times. Raises UsageError for what is no folder, or
    has more than `most` entries."""
    if not source.is_dir():
        raise UsageError(f"there is no folder {source}", hint="--env-opt folder=PATH")
    seen: list[tuple[str, int, int, int, int]] = []
    for folder, names, files in os.walk(source):
        for name in (*names, *files):
            about = os.lstat(path := os.path.join(folder, name))
            seen.append((path, about.st_mode, about.st_size, about.st_mtime_ns, about.st_ino))
        if len(seen) > most:
            raise UsageError(f"{source} holds more than {most} files", hint="--env-opt files=N")
    return content_id("folder", ascii(sorted(seen)))


_stores: dict[tuple[int, Path], Store] = {}
_making = threading.Lock()


def store_at(place: Path) -> Store:
    """This process's store there, made when it is first asked for; those that killed processes left are removed."""
    with _making:
        store = _stores.get((os.getpid(), place))
        if store is None or not store.path.is_dir():
            _sweep(place)
            store = _stores[os.getpid(), place] = Store(place)
        return store


def _sweep(place: Path) -> None:
    """Remove stores whose process is gone: nobody holds their lock."""
    for left in place.glob(f"{PREFIX}*"):
        with suppress(OSError):
            if left.lstat().st_uid not in (os.geteuid(), OWNER) or left.is_symlink():
                continue
            with open(left / "lock", "rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove(left)


def places() -> list[Path]:
    """Where a store may be, the usual place first (an overlay cannot lie on every file system)."""
    return list(dict.fromkeys([Path(tempfile.gettempdir()), Path("/var/tmp")]))  # noqa: S108 (mkdtemp makes it ours)


TEMPORARY_PART = {"t": TEMPORARY, "h": HOME}
"""Where the parts other than the working folder are seen."""
