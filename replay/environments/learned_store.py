"""A learned world on disk: FILE in safetensors, FILE.json with its observations and its held-out report. No pickle.

The JSON names the hash of the weights, so a report cannot be of other weights. What was read is checked before it is
used: sizes, kinds, finite numbers.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...storage.errors import MissingExtra, UsageError

if TYPE_CHECKING:
    from .learned_net import Seen
    from .learned_training import Trained

VERSION = 1
MOST_BYTES = 64 << 20
"""Of either file."""
_HINT = "ttc-replay world train --dataset NAME --out FILE makes one"


@dataclass(frozen=True, slots=True)
class Learned:
    """A loaded world. `report` is {} where none was made."""

    seen: Seen
    report: dict[str, Any]
    sha256: str


def beside(path: Path) -> Path:
    """Where the observations and the report of FILE are."""
    return path.with_name(path.name + ".json")


def save(trained: Trained, path: Path) -> dict[str, Any]:
    """Write both files, each whole or not at all, readable by the owner only; the JSON document.

    Raises UsageError for a folder that is not there.
    """
    from safetensors.torch import save as packed

    weights = packed({name: value.contiguous() for name, value in trained.net.state_dict().items()})
    templates = trained.templates
    document = {
        "v": VERSION,
        "sha256": hashlib.sha256(weights).hexdigest(),
        "templates": [list(row) for row in zip(templates.tools, templates.texts, templates.counts, strict=True)],
        "settings": trained.settings,
        "report": trained.report.to_dict(),
    }
    try:
        _write(path, weights)
        _write(beside(path), json.dumps(document, ensure_ascii=True, allow_nan=False).encode())
    except OSError as error:
        raise UsageError(f"the model cannot be written: {error.strerror}", place=str(path)) from error
    return document


def _write(path: Path, data: bytes) -> None:
    part = path.with_name(f".{path.name}.part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def read_report(path: Path) -> dict[str, Any]:
    """The held-out report beside FILE, with `settings`; checked to be of these weights. Raises UsageError."""
    document = _document(path)
    return {"report": document.get("report") or {}, "settings": document.get("settings") or {}}


def load(path: Path) -> Learned:
    """Read and check both files. Raises UsageError, and MissingExtra without torch."""
    try:
        import torch
        from safetensors.torch import load as unpacked

        from .learned_net import Net, Seen, Templates
    except ModuleNotFoundError as error:
        hint = "pip install 'ttc-replay[local]'"
        raise MissingExtra(f"a learned world needs the package {error.name}", hint=hint) from error
    document = _document(path)
    try:
        tools, texts, counts = zip(*((str(a), str(b), int(c)) for a, b, c in document["templates"]), strict=True)
        net = Net(len(texts))
        net.load_state_dict(unpacked(_bytes(path)))
        if not all(bool(torch.isfinite(value).all()) for value in net.parameters()):
            raise ValueError("a weight is no finite number")
    except Exception as error:  # whatever a damaged file makes the library say
        told = f"this is no learned world: {type(error).__name__}: {str(error)[:200]}"
        raise UsageError(told, place=str(path), hint=_HINT) from error
    net.eval()
    with torch.no_grad():
        seen = Seen(net, Templates(tools, texts, counts))
    return Learned(seen, dict(document.get("report") or {}), document["sha256"])


def _document(path: Path) -> dict[str, Any]:
    """The JSON beside FILE. Raises UsageError when it is not there, no JSON, or of other weights."""
    try:
        document = json.loads(_bytes(beside(path)))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"no JSON: {error}", place=str(beside(path)), hint=_HINT) from error
    if not isinstance(document, dict) or document.get("v") != VERSION:
        raise UsageError("written by another version, or by something else", place=str(beside(path)), hint=_HINT)
    if document.get("sha256") != hashlib.sha256(_bytes(path)).hexdigest():
        raise UsageError("the report is of other weights", place=str(beside(path)), hint=_HINT)
    return document


def _bytes(path: Path) -> bytes:
    try:
        if path.stat().st_size > MOST_BYTES:
            raise UsageError(f"the file is larger than {MOST_BYTES >> 20} MiB", place=str(path))
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"the file cannot be read: {error.strerror}", place=str(path), hint=_HINT) from error
