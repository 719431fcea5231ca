"""What tests of the engine share: a small model with random weights, jobs, and what is said without an engine."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from ttc_replay.replay.local.decoder import Decoder  # noqa: E402
from ttc_replay.replay.local.jobs import Generated, Job, NoiseKey  # noqa: E402
from ttc_replay.replay.local.sampling import Row, choose  # noqa: E402

VOCABULARY = 400
TOLERANCE = 1e-3
CACHE_BYTES = 64 << 20


def model_of(context_length: int = 2048) -> Any:
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=48, intermediate_size=128, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=context_length, initializer_range=0.2,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return transformers.LlamaForCausalLM(config).eval()


def decoder_of(context_length: int = 2048, **options: Any) -> Decoder:
    return Decoder(model_of(context_length), **{"cache_bytes": CACHE_BYTES, **options})


def tokens_of(count: int, seed: int) -> list[int]:
    draw = random.Random(seed)
    return [draw.randrange(3, VOCABULARY) for _ in range(count)]


def plain(model: Any, job: Job) -> Generated:
    """One request on its own: a fresh cache of transformers, its own attention, one row."""
    cache = transformers.DynamicCache(config=model.config)
    tokens, said, logprobs, margins = list(job.tokens), [], [], []
    for position in range(job.max_new_tokens):
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([tokens]), past_key_values=cache, use_cache=True).logits[:, -1]
        chosen = choose(logits, [Row(job, position)])
        said += chosen.tokens
        logprobs += chosen.logprobs
        margins += chosen.margins
        tokens = chosen.tokens
        if said[-1] in job.stop:
            break
    return Generated(tuple(said), tuple(logprobs), tuple(margins), "length", len(job.tokens), 0)


def assert_same(got: Sequence[Generated], expected: Sequence[Generated]) -> None:
    """Equal up to the first token that was not decided; almost all are."""
    undecided, tokens = 0, sum(len(each.tokens) for each in expected)
    for mine, theirs in zip(got, expected, strict=True):
        decided = next((at for at, margin in enumerate(theirs.margins) if margin < TOLERANCE), len(theirs.margins))
        undecided += decided < len(theirs.margins)
        assert mine.tokens[:decided] == theirs.tokens[:decided]
        assert mine.logprobs[:decided] == pytest.approx(theirs.logprobs[:decided], abs=1e-3)
        assert mine.margins[:decided] == pytest.approx(theirs.margins[:decided], abs=1e-3)
    assert undecided <= 1 + 0.003 * tokens


def some_jobs() -> list[Job]:
    """Siblings, prompts that are prefixes of others, different lengths and settings."""
    draw, base = random.Random(5), tokens_of(90, 0)
    jobs = list[Job]()
    for index in range(14):
        prompt = [*base[: draw.choice([20, 55, 90])], *tokens_of(draw.choice([0, 6, 25]), draw.randrange(3))]
        key = NoiseKey(index % 4, f"run {index // 4}", index % 3)
        choices: list[dict[str, Any]] = [
            {},
            {},
            {"temperature": 0.0},
            {"temperature": 0.7, "top_p": 0.9},
            {"top_k": 20},
        ]
        jobs.append(Job(prompt, draw.choice([1, 4, 18, 70]), key, **draw.choice(choices)))
    return jobs


class Only:
    """Allows `sets[i]` at position i; nothing after the last."""

    def __init__(self, sets: Sequence[Sequence[int] | None]) -> None:
        self.sets = list(sets)
        self.accepted: list[int] = []

    def allowed(self) -> Any:
        at = len(self.accepted)
        tokens = self.sets[at] if at < len(self.sets) else ()
        if tokens is None:
            return None
        mask = torch.zeros(VOCABULARY, dtype=torch.bool)
        mask[list(tokens)] = True
        return mask

    def accept(self, token: int) -> None:
        self.accepted.append(token)
