"""One branch's files: layers of an overlay, one a step, or a whole copy where overlays do not work.

A fork shares every layer that there is; what the next step writes goes into a layer of its own. A layer goes when the
last branch over it is gone. Folders may be stacked 64 high, then they become one by a copy.
"""

from __future__ import annotations

import subprocess
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from ...storage.errors import EnvironmentFailed, SandboxUnavailable, UsageError
from .shell_process import Watch
from .shell_sandbox import HINT, Files, Limits, Result, Sandbox, Shell, check_programs, privileges
from .shell_store import Folder, Origin, Store, places, store_at
from .shell_tree import Diff, Room, Unruly, size, walk

MAX_LAYERS = 64
"""The kernel takes 500, in one page of options."""
LOOK_SECONDS = 0.5
MOST = 10**7
"""Entries that are counted at most."""
BACKENDS = ("auto", "overlay", "copy")


class Branch(ABC):
    """The files of one world. Not for two threads at a time; forks are independent."""

    backend: ClassVar[str]

    def __init__(self, store: Store, origin: Origin):
        self.store = store
        self.origin = origin
        self.diff: Diff = {}

    @abstractmethod
    def fork(self) -> Branch:
        """An independent copy."""

    @abstractmethod
    def use(self, sandbox: Sandbox, work: Callable[[Files, Watch], Result], *, keep: bool) -> Result:
        """Let `work` run over the files. `keep` False: what it writes is dropped. A result whose files break a limit
        is `killed`, and its files are dropped."""

    def run(self, sandbox: Sandbox, command: str, shell: Shell) -> Result:
        """Run a command and keep what it writes."""
        return self.use(sandbox, lambda files, watch: sandbox.run(files, command, shell, [watch]), keep=True)

    def scratch(self, sandbox: Sandbox, command: str, shell: Shell) -> Result:
        """Run a command and drop what it writes."""
        return self.use(sandbox, lambda files, watch: sandbox.run(files, command, shell, [watch]), keep=False)


class OverlayBranch(Branch):
    """See `Branch`. A step costs two folders, a fork nothing at all."""

    backend = "overlay"

    def __init__(self, store: Store, origin: Origin):
        super().__init__(store, origin)
        self.layers: tuple[Folder, ...] = (origin.folder,)

    def fork(self) -> OverlayBranch:
        """See `Branch.fork`."""
        twin = OverlayBranch(self.store, self.origin)
        twin.layers, twin.diff = self.layers, self.diff
        return twin

    def use(self, sandbox: Sandbox, work: Callable[[Files, Watch], Result], *, keep: bool) -> Result:
        """See `Branch.use`."""
        upper, aside = self.store.folder(), self.store.folder()
        files = Files(overlay=self._options(upper, aside))
        room = Room(sandbox.limits.files, sandbox.limits.disk_bytes)
        result = work(files, disk_watch(upper, room))
        if not keep:
            return result
        try:
            found = list(walk(str(upper.path), overlay=True, hashed=True, room=room))
        except Unruly as reason:
            return _dropped(result, str(reason))
        if found:
            self.diff = self.origin.base.layered(self.diff, iter(found))
            self.layers = (*self.layers, upper)
            if len(self.layers) > MAX_LAYERS:
                self._squash()
        return result

    def _options(self, upper: Folder, aside: Folder) -> str:
        lowers = ":".join(layer.name for layer in reversed(self.layers))
        return f"userxattr,lowerdir={lowers},upperdir={upper.name},workdir={aside.name}"

    def _squash(self) -> None:
        """One folder in place of all: a copy of what they show."""
        whole, upper, aside = self.store.folder(), self.store.folder(), self.store.folder()
        script = 'mount -t overlay overlay -o "$1" merged && cp -a merged/. "$2"'
        words = ["unshare", "--user", "--map-root-user", "--mount", "/bin/bash", "-c", script, "squash"]
        done = subprocess.run(  # noqa: S603 (every word is ours)
            [*privileges(), *words, self._options(upper, aside), whole.name],
            cwd=self.store.path,
            check=False,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise EnvironmentFailed(f"layers could not be made one: {done.stderr.strip()[:300]}")
        self.layers = (whole,)


class CopyBranch(Branch):
    """See `Branch`. A fork costs nothing, every step a copy of everything: a step that is dropped leaves what was."""

    backend = "copy"

    def __init__(self, store: Store, origin: Origin):
        super().__init__(store, origin)
        self.folder = origin.folder

    def fork(self) -> CopyBranch:
        """See `Branch.fork`."""
        twin = CopyBranch(self.store, self.origin)
        twin.folder, twin.diff = self.folder, self.diff
        return twin

    def use(self, sandbox: Sandbox, work: Callable[[Files, Watch], Result], *, keep: bool) -> Result:
        """See `Branch.use`."""
        mine = self.store.twin(self.folder)
        used, files = size(str(mine.path), MOST)
        room = Room(files + sandbox.limits.files, used + sandbox.limits.disk_bytes)
        result = work(Files(root=mine.name), disk_watch(mine, room))
        if not keep:
            return result
        try:
            found = list(walk(str(mine.path), overlay=False, hashed=True, room=room))
        except Unruly as reason:
            return _dropped(result, str(reason))
        self.diff = self.origin.base.whole({item.path: item.entry for item in found if item.entry})
        self.folder = mine
        return result


def disk_watch(folder: Folder, room: Room) -> Watch:
    """A watch over what a running command writes; it looks every half second."""
    last = time.monotonic()

    def look() -> str | None:
        nonlocal last
        if time.monotonic() - last < LOOK_SECONDS:
            return None
        used, files = size(str(folder.path), room.files)
        last = time.monotonic()
        return room.check(files, used)

    return look


def _dropped(result: Result, reason: str) -> Result:
    return replace(result, killed=f"{reason}: nothing of it was kept", shell=None)


_working: dict[str, Path] = {}
"""The place of the store by backend, once a command has run there."""
_trying = threading.Lock()


def open_store(backend: str) -> tuple[Store, type[Branch]]:
    """A store and the kind of branch that work here. `auto` prefers layers. Raises UsageError for an unknown backend,
    SandboxUnavailable with the last reason when none works."""
    if backend not in BACKENDS:
        raise UsageError(f"backend = {backend!r}", hint=f"one of: {', '.join(BACKENDS)}")
    check_programs()
    wanted: list[type[Branch]] = [kind for kind in (OverlayBranch, CopyBranch) if backend in ("auto", kind.backend)]
    why: SandboxUnavailable | None = None
    with _trying:
        for kind in wanted:
            for place in [_working[kind.backend]] if kind.backend in _working else places():
                try:
                    store = store_at(place)
                    if kind.backend not in _working:
                        _try(store, kind)
                    _working[kind.backend] = place
                    return store, kind
                except SandboxUnavailable as reason:
                    why = reason
    assert why is not None
    raise why


def _try(store: Store, kind: type[Branch]) -> None:
    """Run one command that writes, in a store that may be of no use. Raises SandboxUnavailable."""
    sandbox = Sandbox(store.path, Limits())
    branch = kind(store, store.empty())
    result = branch.run(sandbox, "echo ok > tried; rm -rf d; echo ok", Shell(sandbox.mount))
    if result.output != "ok\n" or set(branch.diff) != {"w/tried"}:
        raise SandboxUnavailable(f"a sandbox was made, but does not work: {result.output.strip()[:300]}", hint=HINT)
