"""The dataset card: features written out, so that `load_dataset(folder)` never guesses a type (export-formats.md
section 2), and what a reader must know before training on the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .options import ExportOptions
from .token_ids import INTEGERS

_TRAIN = {
    "trl-sft": """\
```python
import json
from pathlib import Path

from datasets import load_dataset
from trl import SFTConfig, SFTTrainer

folder = Path("this folder")
settings = json.loads((folder / "sft_config.json").read_text())
settings["chat_template_path"] = str(folder / settings["chat_template_path"])
trainer = SFTTrainer(
    model,
    args=SFTConfig("out", **settings),
    train_dataset=load_dataset(str(folder))["train"],
    processing_class=tokenizer,
)
```

The settings train on the assistant's tokens of the completion only. `chat_template.jinja` is ChatML with Hermes-style
tools; use your model's own template instead if it marks generations and renders tools and calls.""",
    "trl-dpo": """\
```python
import json
from pathlib import Path

from datasets import load_dataset
from trl import DPOConfig, DPOTrainer

folder = Path("this folder")
settings = json.loads((folder / "dpo_config.json").read_text())
trainer = DPOTrainer(
    model,
    args=DPOConfig("out", **settings),
    train_dataset=load_dataset(str(folder))["train"],
    processing_class=tokenizer,
)
```

Each side is one assistant message; nothing that followed it is in the row, so no tool or user token is in the loss.
If your tokenizer's template drops tools or calls, set `tokenizer.chat_template` to `chat_template.jinja`.""",
}


def render_card(manifest: Mapping[str, Any], columns: Sequence[str], options: ExportOptions) -> bytes:
    """README.md: the YAML block that `datasets` reads, then the facts in words."""
    splits = [(name, count) for name, count in manifest["splits"].items() if name == "train" or count]
    return f"{_front_matter(columns, [name for name, _ in splits])}\n{_body(manifest, options)}\n".encode()


def _front_matter(columns: Sequence[str], splits: Sequence[str]) -> str:
    lines = ["---", "configs:", "- config_name: default", "  data_files:"]
    for split in splits:
        lines += [f"  - split: {split}", f"    path: {split}.jsonl"]
    lines += ["dataset_info:", "  features:"]
    for column in columns:
        lines += [f"  - name: {column}", f"    list: {INTEGERS.get(column, 'json')}"]
    return "\n".join([*lines, "tags:", "- ttc-replay", "---"])


def _body(manifest: Mapping[str, Any], options: ExportOptions) -> str:
    splits, counts, lengths = manifest["splits"], manifest["counts"], manifest["lengths"]
    facts = [
        f"Rows: {splits['train']} train, {splits['test']} test. Splits are by task: all branches of a task share one.",
        f"Runs: {_code(manifest['runs'], 'run')}. Sources: {_code(manifest['sources'], 'dataset')}.",
        *_environments(manifest["runs"]),
        f"Counterfactuals: {counts['counterfactuals']} ({counts['novel']} novel, {counts['copied']} equal to a recorded"
        " run in what they did to the world).",
        f"Fidelity: every state after a branch point is at least `{options.min_fidelity}`."
        + _fidelity_note(options.min_fidelity),
        f"Length: the longest row has {lengths['characters']['max']} characters (95 %: {lengths['characters']['p95']}),"
        f" about {lengths['estimated_tokens']['max']} tokens. Train with `max_length` of at least"
        f" {lengths['max_length']}: trainers cut or drop longer rows at 1024 unless told so. The figure is an estimate"
        " from bytes; check it with your tokenizer.",
        "Left out: " + (", ".join(f"{name} {n}" for name, n in manifest["dropped"].items()) or "nothing") + ".",
        *_unconfirmed(options),
        "Secrets are masked as `[SECRET:kind:hash]`." if options.redact else "Secrets were NOT masked (redaction off).",
    ]
    how = _TRAIN.get(manifest["format"], "")
    sidecar = (
        "`*.meta.jsonl` says for each row which run, trajectory, node, model call and source line it came from, and the"
        " values behind it; `manifest.json` holds hashes, options and counts."
    )
    title = f"# {manifest['format']} rows searched by ttc-replay"
    return "\n\n".join([title, *(f"- {fact}" for fact in facts), sidecar, *(["## Training", how] if how else [])])


def _environments(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """The worlds that the rows were searched in, and what they can do, where the runs say so."""
    found = {}
    for run in runs:
        name = ((run.get("configuration") or {}).get("environment") or {}).get("name")
        if name is not None and run.get("environment_class") is not None:
            found[_code([{"name": name}], "name")] = run["environment_class"]
    return [f"Environment: {', '.join(f'{name} ({kind})' for name, kind in found.items())}."] if found else []


def _unconfirmed(options: ExportOptions) -> list[str]:
    """What was let in, where it may be luck."""
    if not options.keep_unconfirmed:
        return []
    return ["Worlds with chances: runs that no fresh seeds confirmed are in; some of them may be luck."]


def _fidelity_note(least: str) -> str:
    notes = {
        "recorded": " Some answers after the branch point (such as user replies) were taken from recordings.",
        "simulated": " Some answers after the branch point may have been made up by a world model.",
    }
    return notes.get(least, "")


def _code(rows: Sequence[Mapping[str, Any]], key: str) -> str:
    """Names from the log as inline code; what would end the code span or the line is left out."""
    names = dict.fromkeys(str(row[key]) for row in rows if row[key] is not None)
    return ", ".join("`" + " ".join(name.replace("`", "").split()) + "`" for name in names) or "unnamed"
