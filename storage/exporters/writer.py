"""All or nothing: an export appears whole under its name, or not at all (promise P4).

Everything is written beside the target under a temporary name, synced, then renamed. Replacing an earlier export takes
two renames; a kill between them leaves the earlier one under `.NAME.old-PID`, and never half of anything.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from ..errors import UsageError

MANIFEST = "manifest.json"
PRODUCER = "ttc-replay"


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
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        staged = Path(tempfile.mkdtemp(prefix=f".{target.name}.tmp-", dir=target.parent))
    except OSError as problem:
        raise _unwritable(out, problem) from problem
    try:
        for name, content in files.items():
            _write(staged / name, content)
        _sync_folder(staged)
        _replace_folder(staged, target)
        _sync_folder(target.parent)
    except OSError as problem:
        raise _unwritable(out, problem) from problem
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def write_file(out: Path, content: bytes, columns: Sequence[str]) -> None:
    """Put one data file at `out`, mode 0600. Raises UsageError when the place is taken or cannot be written."""
    target = _target(out)
    check_file(target, columns)
    staged: Path | None = None
    try:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        staged = Path(tempfile.mkdtemp(prefix=f".{target.name}.tmp-", dir=target.parent))
        _write(staged / target.name, content)
        os.replace(staged / target.name, target)
        _sync_folder(target.parent)
    except OSError as problem:
        raise _unwritable(out, problem) from problem
    finally:
        if staged is not None:
            shutil.rmtree(staged, ignore_errors=True)


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
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def _replace_folder(staged: Path, target: Path) -> None:
    if not target.exists() or not any(target.iterdir()):
        os.replace(staged, target)  # rename(2) takes the place of an empty folder at once
        return
    aside = target.with_name(f".{target.name}.old-{os.getpid()}")
    os.replace(target, aside)
    try:
        os.replace(staged, target)
    except OSError:
        os.replace(aside, target)
        raise
    shutil.rmtree(aside)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unwritable(out: Path, problem: OSError) -> UsageError:
    return UsageError(f"cannot write: {problem.strerror or problem}", place=str(out), hint="choose another --out")
