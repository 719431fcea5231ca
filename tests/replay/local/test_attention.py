"""Attention over the pool beside the models' own attention, and what is refused."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from ttc_replay.replay.local.attention import RowSpan, Run, context_positions, shared_pieces, token_offsets  # noqa: E402
from ttc_replay.replay.local.decoder import Decoder  # noqa: E402
from ttc_replay.replay.local.forward import refuse_unsupported  # noqa: E402
from ttc_replay.replay.local.pooled import BLOCK, blocks, visible  # noqa: E402
from ttc_replay.storage.errors import UsageError  # noqa: E402

SIZES: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
MODELS: dict[str, dict[str, Any]] = {
    "Llama": {},
    "Llama, a head each": {"num_key_value_heads": 4},
    "Llama, one key head": {"num_key_value_heads": 1},
    "Llama, long rotary": {
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 1e4,
            "factor": 4.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        }
    },
    "Qwen2": {},
    "Qwen3": {"head_dim": 16},
    "Gemma": {"head_dim": 16},
    "Mistral": {"sliding_window": 512},
}


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> None:
    torch.set_num_threads(1)


def model_of(name: str, **options: Any) -> Any:
    kind = name.split(",", maxsplit=1)[0]
    config = getattr(transformers, f"{kind}Config")(**{**SIZES, **MODELS.get(name, {}), **options})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return getattr(transformers, f"{kind}ForCausalLM")(config).eval()


def plain_logits(make: Callable[[], Any], rows: Sequence[Sequence[int]]) -> list[Any]:
    """Each row alone through the model as transformers runs it."""
    model = make()
    with torch.inference_mode():
        return [model(input_ids=torch.tensor([list(row)]), use_cache=False).logits[0].float() for row in rows]


def some_tree(seed: int) -> list[list[int]]:
    """Contexts that share prefixes of many lengths; some are prefixes of others."""
    draw = random.Random(seed)
    contexts = [[draw.randrange(3, 300) for _ in range(40)]]
    for _ in range(9):
        parent = draw.choice(contexts)
        kept = parent[: draw.randrange(1, len(parent) + 1)]
        contexts.append([*kept, *(draw.randrange(3, 300) for _ in range(draw.choice([0, 1, 7, 30])))])
    return contexts


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("attention", ["segments", "pooled"])
def test_log_probabilities_are_those_of_a_full_forward(name: str, attention: str) -> None:
    contexts = some_tree(1)[: 10 if attention == "segments" else 4]
    said = [[5, 6, 7], [8], [9, 10]] * 4
    expected = []
    for context, tokens, logits in zip(
        contexts,
        said,
        plain_logits(lambda: model_of(name), [[*c, *s] for c, s in zip(contexts, said, strict=False)]),
        strict=False,
    ):
        rows = logits[len(context) - 1 : len(context) + len(tokens) - 1].log_softmax(dim=-1)
        expected.append([float(rows[index, token]) for index, token in enumerate(tokens)])
    decoder = Decoder(model_of(name), attention=attention)
    for _ in range(2 if attention == "segments" else 1):  # the second time most of it is in the tree
        got = decoder.score(contexts, said[: len(contexts)])
        for mine, theirs in zip(got, expected, strict=True):
            assert mine == pytest.approx(theirs, abs=1e-3)


@pytest.mark.parametrize("chunk", [16, 23, 256])
def test_chunks_of_a_prefill_change_nothing(chunk: int) -> None:
    contexts = some_tree(2)
    whole = Decoder(model_of("Llama")).score(contexts, [[4, 5]] * len(contexts))
    decoder = Decoder(model_of("Llama"))
    decoder._prefiller.largest_chunk = chunk
    got = decoder.score(contexts, [[4, 5]] * len(contexts))
    for mine, theirs in zip(got, whole, strict=True):
        assert mine == pytest.approx(theirs, abs=1e-4)


def test_bfloat16_stays_near_float32() -> None:
    contexts = some_tree(3)
    exact = Decoder(model_of("Llama")).score(contexts, [[4]] * len(contexts))
    rough = Decoder(model_of("Llama").to(torch.bfloat16)).score(contexts, [[4]] * len(contexts))
    assert max(abs(a[0] - b[0]) for a, b in zip(exact, rough, strict=True)) < 0.5


@st.composite
def row_spans(draw: st.DrawFn) -> list[RowSpan]:
    """Rows of a random tree, depth-first, as a decoder lays them out."""
    runs: list[Run] = []
    at = 0
    for length in draw(st.lists(st.integers(1, 9), min_size=1, max_size=6)):
        at += draw(st.integers(0, 2))
        runs.append(Run(at, length))
        at += length
    paths: list[list[Run]] = [[], [runs[0]]]
    for run in runs[1:]:
        paths.append([*draw(st.sampled_from(paths)), run])
    chosen = sorted(draw(st.lists(st.sampled_from(paths), min_size=1, max_size=6)), key=lambda p: [r.start for r in p])
    rows = []
    for path in chosen:
        before, count = draw(st.integers(0, 3)), draw(st.integers(1, 4))
        rows.append(RowSpan(path, at, before, count, before + count))
        at += before + count
    return rows


@given(row_spans())
def test_every_row_sees_all_of_its_ancestors_once_and_in_place(rows: list[RowSpan]) -> None:
    offsets = token_offsets(rows)
    pieces = shared_pieces(rows)
    for index, row in enumerate(rows):
        position, expected = 0, {}
        for run in row.path:
            expected.update({run.start + at: position + at for at in range(run.length)})
            position += run.length
        for token in range(offsets[index], offsets[index + 1]):
            seen = [
                (piece.start + at, piece.column + at)
                for piece in pieces
                if piece.first <= token < piece.last
                for at in range(piece.length)
            ]
            assert len(seen) == len(expected)
            assert dict(seen) == expected


def test_a_shared_ancestor_is_one_piece_and_neighbours_are_one_product() -> None:
    prompt, action, left, right = Run(0, 10), Run(10, 5), Run(40, 3), Run(50, 3)
    rows = [RowSpan([prompt, action, side], 100 + 4 * at, 0, 1, 4) for at, side in enumerate((left, left, right))]
    pieces = [(piece.first, piece.last, piece.start, piece.length) for piece in shared_pieces(rows)]
    assert pieces == [(0, 3, 0, 15), (0, 2, 40, 3), (2, 3, 50, 3)]


@settings(max_examples=30)
@given(row_spans())
def test_the_table_of_the_pooled_layout_says_the_same(rows: list[RowSpan]) -> None:
    capacity = max(row.own + row.room for row in rows) + 200
    table, order = visible(rows, capacity)
    positions = context_positions(rows)
    owner = [index for index, row in enumerate(rows) for _ in range(row.count)]
    (counts, indices), (whole, places) = blocks(table, order, np.array(owner), np.array(positions))
    assert counts.shape == whole.shape == (1,)
    partly, wholly = set(indices[0, : counts[0]].tolist()), set(places[0, : whole[0]].tolist())
    assert not partly & wholly
    for token, position in enumerate(positions):
        seen = [key for key in range(capacity) if table[owner[token], key] and order[key] <= position]
        assert sorted(int(order[key]) for key in seen) == list(range(position + 1))
        assert {key // BLOCK for key in seen} <= partly | wholly
        assert {block * BLOCK + at for block in wholly for at in range(BLOCK)} <= set(seen)
    assert all(a < b for a, b in pairwise(indices[0, : counts[0]].tolist()))


def test_blocks_that_all_rows_see_whole() -> None:
    prompt = Run(0, 3 * BLOCK + 20)
    rows = [RowSpan([prompt], 512 + 64 * slot, 5, 1, 64) for slot in range(3)]
    table, order = visible(rows, 2048)
    positions = np.array(context_positions(rows))
    (counts, indices), (whole, places) = blocks(table, order, np.arange(3), positions)
    assert (places[0, : whole[0]].tolist(), indices[0, : counts[0]].tolist()) == ([0, 1, 2], [3, 4, 5])


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("Gemma2", {"head_dim": 16}, "soft-capped"),
    ("Mistral", {"sliding_window": 100}, "a window of 100 tokens, and a context may have 512"),
    ("GptOss", {"num_local_experts": 2, "num_experts_per_tok": 1, "sliding_window": 512}, "sinks|differ"),
    (
        "Llama",
        {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}, "max_position_embeddings": 256},
        "rotary positions change beyond 256",
    ),
]


@pytest.mark.parametrize(("name", "options", "message"), REFUSED)
def test_models_that_would_be_wrong_are_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        Decoder(model_of(name, **options), context_length=512)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("name", "options", "length"),
    [
        ("Mistral", {"sliding_window": 100}, 100),
        ("Qwen2", {"sliding_window": 64, "use_sliding_window": False}, 512),
        ("Gemma3", {"sliding_window": 64, "head_dim": 16}, 64),
    ],
)
def test_a_window_that_no_context_leaves_is_none(name: str, options: dict[str, Any], length: int) -> None:
    kind = f"{name}TextConfig" if name == "Gemma3" else f"{name}Config"
    refuse_unsupported(getattr(transformers, kind)(**{**SIZES, **options}), length)


def test_models_without_attention_are_refused() -> None:
    with pytest.raises(UsageError, match="it has no attention"):
        Decoder(
            transformers.MambaForCausalLM(transformers.MambaConfig(hidden_size=8, num_hidden_layers=1)),
            context_length=9,
        )


def test_hybrid_models_are_refused_by_their_layers() -> None:
    config = transformers.LlamaConfig(**SIZES)
    config.layer_types = ["full_attention", "linear_attention", "full_attention"]
    with pytest.raises(UsageError, match="its layers are linear_attention"):
        refuse_unsupported(config, 512)


def test_a_model_that_counts_otherwise_is_found_by_its_logits() -> None:
    """Learned positions shifted by one: nothing in the configuration says so."""
    model = model_of("Llama")
    rotary = model.model.rotary_emb
    plain = rotary.forward
    rotary.forward = lambda states, position_ids: plain(states, position_ids=position_ids * (states.shape[1] == 8))
    with pytest.raises(UsageError, match="its logits differ by"):
        Decoder(model)


def test_the_model_cannot_be_called_around_its_decoder() -> None:
    model = model_of("Llama")
    Decoder(model)
    with pytest.raises(UsageError, match="belongs to a Decoder"):
        model(input_ids=torch.tensor([[1, 2]]))
