"""What lies in a model's folder, looked at before any library opens it: refusals with a reason, and the content hash.

Nothing here loads torch. A model is data: safetensors and JSON, never a pickle, never code.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ...storage.canonical import content_id
from ...storage.errors import UsageError

PICKLES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pickle", ".pkl"})
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model", "tekken.json")
HASHED = ("config.json", *TOKENIZERS, "merges.txt", "tokenizer_config.json", "chat_template.jinja")
"""Besides the weights: what changes the tokens that a model reads or says."""

PICKLE_HINT = (
    "convert it: AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(NEW_FOLDER) writes safetensors; "
    "do that only with a file whose source you trust"
)
HASH_CHUNK_BYTES = 1 << 20
MAX_HEADER_BYTES = 100_000_000


def cache_folder(name: str) -> Path:
    """A folder for what can be made again: `$TTC_CACHE_DIR/name`, else `~/.cache/ttc-replay/name`; mode 0700."""
    base = os.environ.get("TTC_CACHE_DIR")
    root = Path(base).expanduser() if base else Path.home() / ".cache" / "ttc-replay"
    folder = root / name
    for part in (root, folder):
        part.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def refuse_pickle(file: Path) -> None:
    """Raises UsageError where the file's name says that it is a pickle."""
    if file.suffix.lower() in PICKLES:
        raise UsageError(
            f"{file.name} is a pickle: loading one runs whatever code is in it", place=str(file), hint=PICKLE_HINT
        )


def check_folder(folder: Path) -> list[Path]:
    """The weight files of a Hugging Face folder. Raises UsageError with the reason when it cannot be loaded safely."""
    if not folder.is_dir():
        raise UsageError("no such model folder", place=str(folder), hint="a Hugging Face folder, or a .gguf file")
    if not (folder / "config.json").is_file():
        raise UsageError("no config.json: not the folder of a model", place=str(folder))
    for name in ("config.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            _refuse_code(folder / name)
    weights = weight_files(folder)
    if not any((folder / name).is_file() for name in TOKENIZERS):
        hint = "copy tokenizer.json and tokenizer_config.json of the base model into the folder"
        raise UsageError("no tokenizer in the folder", place=str(folder), hint=hint)
    return weights


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files in a fixed order, each with a header that can be read."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        files = _sharded(index)
    else:
        files = [folder / "model.safetensors"] if (folder / "model.safetensors").is_file() else []
    if not files:
        _refuse_without_weights(folder)
    for file in files:
        check_safetensors(file)
    return files


def check_safetensors(file: Path) -> None:
    """Raises UsageError unless the file's header is whole and its tensors end where the file ends."""
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > min(size - 8, MAX_HEADER_BYTES):
                raise ValueError("the header is longer than the file")
            header = json.loads(stream.read(length))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        if 8 + length + max(ends, default=0) != size:
            raise ValueError("the file is shorter or longer than its header says")
    except (OSError, ValueError, struct.error, KeyError, IndexError, TypeError, AttributeError) as cause:
        hint = "copy or download it again; a pointer of Git LFS is not the file itself"
        raise UsageError(f"broken safetensors: {cause}", place=str(file), hint=hint) from cause


def read_json_object(file: Path) -> dict[str, Any]:
    """Raises UsageError unless the file holds a JSON object."""
    try:
        value = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as cause:
        raise UsageError(f"not readable as JSON: {cause}", place=str(file)) from cause
    if not isinstance(value, dict):
        raise UsageError("not a JSON object", place=str(file))
    return value


def folder_digest(folder: Path, weights: Iterable[Path]) -> str:
    """SHA-256 (hex) of weights, configuration, tokenizer and template: the same model anywhere has the same."""
    files = [*weights, *(folder / name for name in HASHED if (folder / name).is_file())]
    return content_id([[file.relative_to(folder).as_posix(), file_digest(file)] for file in files])


def file_digest(file: Path) -> str:
    """SHA-256 (hex) of the file, remembered in the cache folder for as long as its size and times stay."""
    state = file.stat()
    seen = [state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino]
    note = cache_folder("digests") / f"{content_id(str(file.resolve()))[:40]}.json"
    known = _note(note)
    if known is not None and known[:-1] == seen:
        return str(known[-1])
    digest = _hash(file)
    _write_note(note, [*seen, digest])
    return digest


def _hash(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(HASH_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _note(note: Path) -> list[Any] | None:
    try:
        value = json.loads(note.read_bytes())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, list) and len(value) == 5 else None


def _write_note(note: Path, value: Sequence[Any]) -> None:
    """Whole or not at all: another process may read it meanwhile."""
    with tempfile.NamedTemporaryFile("w", dir=note.parent, delete=False) as stream:
        json.dump(value, stream)
    os.replace(stream.name, note)


def _refuse_code(file: Path) -> None:
    if "auto_map" in read_json_object(file):
        hint = "use a model whose architecture is in transformers itself; its config.json has no auto_map"
        reason = "the model wants to run its own Python code (auto_map); this is never done"
        raise UsageError(reason, place=str(file), hint=hint)


def _sharded(index: Path) -> list[Path]:
    table = read_json_object(index).get("weight_map")
    names = sorted(set(table.values())) if isinstance(table, dict) else []
    for name in names:
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise UsageError(f"names a weight file that is no safetensors of this folder: {name!r}", place=str(index))
        if not (index.parent / name).is_file():
            raise UsageError(f"a weight file is missing: {name}", place=str(index.parent))
    return [index.parent / name for name in names]


def _refuse_without_weights(folder: Path) -> None:
    for file in sorted(folder.iterdir()):
        refuse_pickle(file)
    if any(file.suffix == ".gguf" for file in folder.iterdir()):
        raise UsageError("the folder holds GGUF files: name one of them", place=str(folder))
    raise UsageError("no model.safetensors in the folder", place=str(folder))
