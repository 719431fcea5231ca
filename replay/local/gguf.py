"""A GGUF file as a safetensors folder: de-quantised once, kept in the cache folder, loaded by memory map after that."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

from ...storage.errors import MissingExtra, UsageError
from . import model_files

BYTES_A_PARAMETER = 4
"""De-quantised values are kept in float32: bfloat16 would round them once more."""


def converted(file: Path) -> tuple[Path, str]:
    """The safetensors folder of a GGUF file, and the SHA-256 of the file itself: the model's digest.

    The folder is `<cache>/models/<digest>`; it is made under another name and renamed, so that two processes at once
    are safe and a killed one leaves nothing that looks whole. Raises MissingExtra, or UsageError with the reason.
    """
    if find_spec("gguf") is None:
        raise MissingExtra("a GGUF file needs the package gguf", hint="pip install 'ttc-replay[local]'")
    digest = model_files.file_digest(file)
    models = model_files.cache_folder("models")
    folder = models / digest
    if not folder.is_dir():
        _check(file, models)
        _convert(file, folder)
    try:
        model_files.check_folder(folder)
    except UsageError as cause:
        cause.hint = f"the converted copy is damaged: delete {folder}"
        raise
    return folder, digest


def parameters(file: Path) -> int:
    """How many weights a GGUF file holds. Raises UsageError when it is none."""
    from gguf import GGUFReader

    try:
        return sum(int(tensor.n_elements) for tensor in GGUFReader(file).tensors)
    except (OSError, ValueError, IndexError, KeyError) as cause:
        raise UsageError(f"not a GGUF file, or a broken one: {cause}", place=str(file)) from cause


def _check(file: Path, models: Path) -> None:
    needed = parameters(file) * BYTES_A_PARAMETER
    free = shutil.disk_usage(models).free
    if needed > free:
        raise UsageError(
            f"needs {needed / 1e9:.1f} GB for the converted model, {free / 1e9:.1f} GB are free",
            place=str(models),
            hint="TTC_CACHE_DIR=FOLDER puts the cache elsewhere",
        )


def _convert(file: Path, folder: Path) -> None:
    made = Path(tempfile.mkdtemp(prefix=".making-", dir=folder.parent))  # mode 0700
    try:
        _write(file, made)
        try:
            os.rename(made, folder)
        except OSError:
            if not folder.is_dir():  # else another process was faster: its copy is the same
                raise
    finally:
        shutil.rmtree(made, ignore_errors=True)


@contextmanager
def _silent() -> Iterator[None]:
    """No progress bars: transformers' own, and that of its GGUF module, which asks nobody. As before afterwards."""
    from transformers import modeling_gguf_pytorch_utils
    from transformers.utils import logging

    module: Any = modeling_gguf_pytorch_utils
    shown, bar = logging.is_progress_bar_enabled(), getattr(module, "tqdm", None)
    logging.disable_progress_bar()
    if bar is not None:
        module.tqdm = partial(bar, disable=True)
    try:
        yield
    finally:
        if bar is not None:
            module.tqdm = bar
        if shown:
            logging.enable_progress_bar()


def _write(file: Path, folder: Path) -> None:
    with _silent():
        _write_safetensors(file, folder)


def _write_safetensors(file: Path, folder: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    place: dict[str, Any] = {"gguf_file": file.name, "local_files_only": True, "trust_remote_code": False}
    try:
        tokenizer = AutoTokenizer.from_pretrained(file.parent, **place)
        source = AutoModelForCausalLM.from_pretrained(file.parent, dtype="float32", **place)
    except Exception as cause:
        raise UsageError(f"the GGUF file cannot be loaded: {type(cause).__name__}: {cause}", place=str(file)) from cause
    tokenizer.save_pretrained(folder)
    _unquantised(source).save_pretrained(folder)


def _unquantised(source: Any) -> Any:
    """The same weights in a model that may be saved: transformers refuses that for one that came from a GGUF file."""
    import torch
    from transformers import AutoModelForCausalLM

    config, auto = source.config, cast(Any, AutoModelForCausalLM)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    with torch.device("meta"):
        fresh = auto.from_config(config, dtype=torch.float32)
    fresh.load_state_dict(source.state_dict(), assign=True)
    fresh.tie_weights()
    fresh.generation_config = source.generation_config
    return fresh
