"""LoRA adapters (Hu et al., arXiv 2106.09685) by path: W + (alpha / r) B A, merged into the weights when loaded."""

from __future__ import annotations

import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ...storage.canonical import content_id
from ...storage.errors import MissingExtra, UsageError
from . import model_files

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
READ = frozenset(
    {
        "r", "lora_alpha", "target_modules", "exclude_modules", "fan_in_fan_out", "bias", "use_rslora", "use_dora",
        "modules_to_save", "layers_to_transform", "layers_pattern", "rank_pattern", "alpha_pattern", "lora_bias",
        "target_parameters", "trainable_token_indices", "task_type",
    }
)  # fmt: skip
"""What is read of an adapter's configuration. The rest is of training, or names modules to import and files to open."""

BASE_CHANGING = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Ways to begin that change the base weights too: such an adapter fits only a base that was changed the same way."""


def merge(model: Any, folder: Path) -> Any:
    """The model with the adapter in `folder` merged into its weights; safetensors only.

    Raises MissingExtra without peft, UsageError when the adapter is a pickle, not a LoRA, or of another base model.
    """
    if find_spec("peft") is None:
        raise MissingExtra("a LoRA adapter needs the package peft", hint="pip install 'ttc-replay[local]'")
    config, weights = _read(folder)
    from peft import PeftModel
    from peft.utils.save_and_load import set_peft_model_state_dict

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # peft and transformers among themselves
            wrapped = PeftModel(model, config)
        report = set_peft_model_state_dict(wrapped, weights)
    except (RuntimeError, ValueError, KeyError, TypeError) as cause:
        raise _other_base(folder, str(cause)) from cause
    _refuse_leftovers(folder, report, len(weights))
    try:
        return wrapped.merge_and_unload(safe_merge=True)
    except ValueError as cause:  # what safe_merge finds: weights that are not finite
        raise UsageError(f"the adapter breaks the model: {cause}", place=str(folder)) from cause


def digest(base: str, folder: Path) -> str:
    """The digest of a base model with the adapter in `folder`."""
    return content_id([base, model_files.file_digest(folder / CONFIG), model_files.file_digest(folder / WEIGHTS)])


def _read(folder: Path) -> tuple[Any, dict[str, Any]]:
    if not (folder / CONFIG).is_file():
        hint = "the folder that save_pretrained of peft wrote"
        raise UsageError(f"no {CONFIG}: not the folder of an adapter", place=str(folder), hint=hint)
    if not (folder / WEIGHTS).is_file():
        for file in sorted(folder.iterdir()):
            model_files.refuse_pickle(file)
        raise UsageError(f"no {WEIGHTS} in the adapter's folder", place=str(folder))
    model_files.check_safetensors(folder / WEIGHTS)
    from safetensors.torch import load_file

    return _config(folder), load_file(folder / WEIGHTS)


def _config(folder: Path) -> Any:
    from peft import LoraConfig

    written = model_files.read_json_object(folder / CONFIG)
    if written.get("peft_type") != "LORA":
        raise UsageError(f"not a LoRA adapter: {written.get('peft_type')!r}", place=str(folder))
    begun = written.get("init_lora_weights")
    if isinstance(begun, str) and begun.startswith(BASE_CHANGING):
        hint = "convert it when saving: save_pretrained(..., path_initial_model_for_weight_conversion=...)"
        raise UsageError(f"an adapter begun with {begun!r} changes the base model too", place=str(folder), hint=hint)
    try:
        return LoraConfig(**{key: value for key, value in written.items() if key in READ}, inference_mode=True)
    except (TypeError, ValueError) as cause:
        raise UsageError(f"a wrong adapter configuration: {cause}", place=str(folder / CONFIG)) from cause


def _refuse_leftovers(folder: Path, report: Any, count: int) -> None:
    """Every tensor of the adapter has its place in the model, and every place was filled."""
    if report.unexpected_keys or not count:
        raise _other_base(folder, f"no place for {', '.join(sorted(report.unexpected_keys)[:3]) or 'nothing'}")
    empty = [key for key in report.missing_keys if "lora_" in key]
    if empty:
        raise _other_base(folder, f"nothing for {', '.join(sorted(empty)[:3])} ({len(empty)} in all)")


def _other_base(folder: Path, what: str) -> UsageError:
    lines = [line.strip() for line in what.splitlines() if line.strip()]
    first = next((line for line in lines if "size mismatch" in line), lines[0] if lines else "")
    hint = "load it with the base model that it was trained on"
    return UsageError(f"the adapter does not fit this model: {first[:300]}", place=str(folder), hint=hint)
