"""All or nothing: an export appears whole under its name, or not at all (promise P4).

Everything is written into a staging folder beside the target, synced, then renamed. An earlier export and the new one
change places in one step where the system can do that (Linux); elsewhere it takes two renames, and the next export
puts back what a kill between them left aside. Staging folders of dead processes are removed by the next export to the
same place: a live one holds a lock on its own.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path

from ..errors import UsageError
from ..kill_points import die, due, kill_point

MANIFEST = "manifest.json"
PRODUCER = "ttc-replay"
EARLIER = "earlier"
"""Where an earlier export waits in the staging folder while two renames take its place."""
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
"""Linux: <fcntl.h>, <linux/fs.h>."""


def sha256(content: bytes) -> str:
    """Hexadecimal SHA-256."""
    return hashlib.sha256(content).hexdigest()


def check_folder(out: Path) -> None:
    """Raises UsageError unless `out` is free, empty, or an earlier export of ours that nobody added files to."""
    if not (out.exists() or out.is_symlink()):
        return
    if not out.is_dir():
        raise UsageError("is not a folder", place=str(out), hint="name a folder, or a file that ends in .jsonl")
    present = {entry.name for entry in out.iterdir()}
    foreign = present - _owned(out)
    if foreign:
        listed = ", ".join(sorted(foreign)[:3])
        raise UsageError(
            f"the folder holds files that are not of an earlier export: {listed}",
            place=str(out),
            hint="choose another --out, or move them away",
        )


def check_file(out: Path, columns: Sequence[str]) -> None:
    """Raises UsageError unless `out` is free, empty, or a file whose first row has exactly these columns."""
    if not (out.exists() or out.is_symlink()):
        return
    if not out.is_file():
        raise UsageError("is not a file", place=str(out), hint="choose another --out")
    with out.open("rb") as stream:
        first = stream.readline()
    if not first:
        return
    with suppress(ValueError):
        row = json.loads(first)
        if isinstance(row, dict) and set(row) == set(columns):
            return
    raise UsageError(
        "exists and is not an export of this format", place=str(out), hint="choose another --out, or remove it"
    )


def write_folder(out: Path, files: Mapping[str, bytes]) -> None:
    """Put `files` (name: content) at `out`, replacing an earlier export. Folder 0700, files 0600.

    Raises UsageError when the place is taken or cannot be written.
    """
    target = _target(out)
    check_folder(target)
    try:
        with _staging(target) as staging:
            staged = staging / target.name
            staged.mkdir(mode=0o700)
            for name, content in files.items():
                _write(staged / name, content)
            _sync_folder(staged)
            kill_point("export.rename")
            _replace_folder(staged, target, staging / EARLIER)
            kill_point("export.renamed")
            _sync_folder(target.parent)
    except OSError as problem:
        raise _unwritable(out, problem) from problem


def write_file(out: Path, content: bytes, columns: Sequence[str]) -> None:
    """Put one data file at `out`, mode 0600. Raises UsageError when the place is taken or cannot be written."""
    target = _target(out)
    check_file(target, columns)
    try:
        with _staging(target) as staging:
            _write(staging / target.name, content)
            kill_point("export.rename")
            os.replace(staging / target.name, target)
            kill_point("export.renamed")
            _sync_folder(target.parent)
    except OSError as problem:
        raise _unwritable(out, problem) from problem


@contextmanager
def _staging(target: Path) -> Iterator[Path]:
    """A locked folder beside `target`, removed at the end. Those of processes that died come first."""
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    for left in target.parent.glob(f".{escape(target.name)}.tmp-*"):
        with suppress(OSError), _locked(left):  # a live export of the same place keeps its own
            _put_back(left / EARLIER, target)
            shutil.rmtree(left)
    staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.tmp-", dir=target.parent))
    try:
        with _locked(staging):
            kill_point("export.staged")
            yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, which goes with the process. Raises OSError when another has it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _put_back(earlier: Path, target: Path) -> None:
    """Undo the first of two renames when the second never came."""
    if earlier.is_dir() and not target.exists():
        os.replace(earlier, target)


def _target(out: Path) -> Path:
    """The real place: a link given by the user is followed, so that it still points there afterwards."""
    return out.resolve()


def _owned(folder: Path) -> set[str]:
    """The names that the manifest in `folder` claims as ours; empty when there is none."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if manifest["producer"]["name"] != PRODUCER:
            return set()
        return {MANIFEST, *(str(entry["path"]) for entry in manifest["files"])}
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def _write(path: Path, content: bytes) -> None:
    kill_point("export.file")
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        if due("export.torn"):
            os.write(descriptor, content[: len(content) // 2])
            die()
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def _replace_folder(staged: Path, target: Path, aside: Path) -> None:
    if not target.exists() or not any(target.iterdir()):
        os.replace(staged, target)  # rename(2) takes the place of an empty folder at once
    elif not _exchange(staged, target):
        _two_renames(staged, target, aside)


def _exchange(one: Path, other: Path) -> bool:
    """Whether the two names changed places in one step: renameat2(2), where system and file system have it."""
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None)
    names = (_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other))
    return renameat2 is not None and renameat2(*names, _RENAME_EXCHANGE) == 0


def _two_renames(staged: Path, target: Path, aside: Path) -> None:
    os.replace(target, aside)
    kill_point("export.aside")
    try:
        os.replace(staged, target)
    except OSError:
        os.replace(aside, target)
        raise


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unwritable(out: Path, problem: OSError) -> UsageError:
    return UsageError(f"cannot write: {problem.strerror or problem}", place=str(out), hint="choose another --out")
