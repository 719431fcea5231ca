"""The tiny model of every test of the embedded engine, made once a session."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
NEEDED = ("torch", "transformers", "safetensors", "llguidance")


def load(name: str) -> Any:
    """A module of this folder, loaded by path: tests are no package."""
    spec = spec_from_file_location(f"tests_of_local_models_{name}", HERE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session", autouse=True)
def model_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Digests and converted models of a session, never those of the person who runs the tests."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TTC_CACHE_DIR", str(folder))
        yield folder


@pytest.fixture(scope="session")
def tiny_folder() -> Callable[..., Path]:
    """`tiny_folder(path, seed=0, context_length=2048, template=CHATML) -> Path`."""
    made: Callable[..., Path] = load("tiny").tiny_folder
    return made


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Callable[..., Path]) -> Path:
    """The folder of the tiny model. Nobody writes into it: make another with `tiny_folder` for that."""
    if any(find_spec(name) is None for name in NEEDED):
        pytest.skip("the extra [local] is not installed")
    import torch

    torch.set_num_threads(1)
    return tiny_folder(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="session")
def tiny_model(tiny: Path) -> Any:
    """A LoadedModel of the tiny folder, float32 on the CPU. Nobody changes it: load your own to set the attention."""
    from ttc_replay.replay.local.loading import load_model

    return load_model(tiny, device="cpu")


@pytest.fixture(scope="session")
def make_chat(tiny_model: Any) -> Callable[..., Any]:
    """`make_chat(family=None, controls=()) -> ChatFormat`: of the tiny model, with the template of another family
    (families.py) and further control tokens."""
    from ttc_replay.replay.local.chat import ChatFormat

    families = load("families")

    def make(family: str | None = None, controls: Sequence[Any] = ()) -> ChatFormat:
        tokenizer = copy.deepcopy(tiny_model.tokenizer)
        if family is not None:
            tokenizer.chat_template = families.TEMPLATES[family]
        more = [*families.CONTROLS.get(family, ()), *controls]
        if more:
            tokenizer.add_special_tokens({"extra_special_tokens": more})
        return ChatFormat(replace(tiny_model, tokenizer=tokenizer))

    return make


@pytest.fixture(scope="session")
def chat(make_chat: Callable[..., Any]) -> Any:
    """The chat format of the tiny model as it is."""
    return make_chat()
