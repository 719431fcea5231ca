"""The engine without enough memory: smaller batches, a smaller cache, branches that end, errors that leave nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from ttc_replay.replay.local.decoder import Decoder  # noqa: E402
from ttc_replay.replay.local.jobs import Generated, Job, NoiseKey  # noqa: E402

sys.path.append(str(Path(__file__).parents[3]))  # tests are not installed: they lie in the checkout
from tests.replay.local.decoders import (  # noqa: E402
    Only,
    assert_same,
    decoder_of,
    model_of,
    plain,
    some_jobs,
    tokens_of,
)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def alone() -> list[Generated]:
    model = model_of()
    return [plain(model, job) for job in some_jobs()]


class Device:
    """A device on which a forward of more than `tokens` tokens does not fit; `None`: all fit."""

    def __init__(self, error: Callable[[], BaseException]) -> None:
        self.error = error
        self.tokens: int | None = None
        self.refused = 0

    def __call__(self, tokens: int) -> None:
        if self.tokens is not None and tokens > self.tokens:
            self.refused += 1
            raise self.error()


@pytest.mark.parametrize(
    "error",
    [
        MemoryError,
        lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        lambda: RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes"),
    ],
)
def test_out_of_memory_halves_the_batch(error: Callable[[], BaseException], alone: list[Generated]) -> None:
    device = Device(error)
    decoder = decoder_of(check_memory=device)
    device.tokens = 17
    assert_same(decoder.generate(some_jobs()), alone)
    assert decoder.counters().halved_batches >= 4  # of a chunk of 256 tokens
    assert device.refused == decoder.counters().halved_batches
    decoder = decoder_of(check_memory=device)
    device.tokens = 16
    jobs = [Job(tokens_of(16, n), 12, NoiseKey(n, "t", 0)) for n in range(32)]
    small = decoder.generate(jobs)
    assert decoder.counters().largest_batch <= 16
    device.tokens = None
    assert_same(decoder_of().generate(jobs), small)
    assert {each.finish_reason for each in small} == {"length"}


def test_what_cannot_run_alone_ends_and_the_process_goes_on() -> None:
    token_bytes = 3 * 2 * 2 * 12 * 4
    decoder = decoder_of(cache_bytes=150 * token_bytes)
    large, small = Job(tokens_of(200, 1), 5, NoiseKey(0, "t", 0)), Job(tokens_of(50, 2), 5, NoiseKey(1, "t", 0))
    said = decoder.generate([small, large, replace(small, key=NoiseKey(2, "t", 0))])
    assert [(each.finish_reason, len(each.tokens)) for each in said] == [("length", 5), ("memory", 0), ("length", 5)]
    assert decoder.counters().halved_batches > 0
    assert decoder.pool.used <= 150
    assert_same([said[0], said[2]], decoder_of().generate([small, replace(small, key=NoiseKey(2, "t", 0))]))


def test_a_branch_that_outgrows_memory_keeps_what_it_said() -> None:
    token_bytes = 3 * 2 * 2 * 12 * 4
    job = Job(tokens_of(60, 1), 500, NoiseKey(0, "t", 0))
    said = decoder_of(cache_bytes=300 * token_bytes).generate([job])[0]
    assert said.finish_reason == "memory"
    assert len(said.tokens) >= 190  # of 300, 60 are the prompt's
    whole = decoder_of().generate([replace(job, max_new_tokens=len(said.tokens))])[0]
    assert_same([said], [whole])


def test_the_cache_shrinks_before_a_branch_is_given_up() -> None:
    """A device whose free memory depends on the size of the pool."""
    decoder: list[Decoder] = []

    def check(tokens: int) -> None:
        if decoder and decoder[0].pool.capacity > 1024:
            raise MemoryError

    decoder.append(decoder_of(check_memory=check))
    pool = decoder[0].pool
    pool._resize(4096)
    said = decoder[0].generate([Job(tokens_of(50, 1), 5, NoiseKey(0, "t", 0))])[0]
    assert (said.finish_reason, pool.capacity) == ("length", 1024)


def test_other_errors_are_errors_and_leave_nothing_pinned() -> None:
    class Broken(Only):
        def accept(self, token: int) -> None:
            if len(self.accepted) == 2:
                raise RuntimeError("broken grammar")
            super().accept(token)

    decoder = decoder_of()
    jobs = [Job(tokens_of(30, 1), 9, NoiseKey(n, "t", 0)) for n in range(3)]
    broken = replace(jobs[0], constraint=Broken([None] * 9))
    with pytest.raises(RuntimeError, match="broken grammar"):
        decoder.generate([*jobs, broken])
    assert all(segment.pins == 0 for segment in decoder.tree.segments())
    assert decoder.pool.used == decoder.tree.resident_tokens
    assert_same(decoder.generate(jobs), decoder_of().generate(jobs))


def test_latent_branches_survive_a_smaller_batch() -> None:
    jobs = [Job(tokens_of(40, 1), 100, NoiseKey(n, "t", 0), latent_steps=2) for n in range(4)]
    whole = decoder_of().generate(jobs)
    tight = decoder_of(cache_bytes=330 * 3 * 2 * 2 * 12 * 4)
    assert_same(tight.generate(jobs), whole)
    assert tight.counters().halved_batches > 0


def test_score_without_memory_is_a_clear_error() -> None:
    device = Device(MemoryError)
    decoder = decoder_of(check_memory=device)
    device.tokens = 8
    assert len(decoder.score([[1, 2, 3]], [[4, 5]])[0]) == 2
    with pytest.raises(MemoryError, match="not enough memory to score one continuation alone"):
        decoder.score([tokens_of(40, 1)], [[5]])
    assert decoder.pool.used == decoder.tree.resident_tokens


def test_memory_is_that_of_unique_tokens_not_of_branches() -> None:
    used = []
    for branches in (1, 16):
        decoder = decoder_of()
        decoder.generate([Job(tokens_of(500, 3), 10, NoiseKey(n, "t", 0)) for n in range(branches)])
        used.append((decoder.pool.used, decoder.pool.peak_used))
    assert used[0][0] == 500 + 9
    assert used[1][0] <= 500 + 16 * 9
    assert used[1][1] <= 500 + 16 * 9 + 16
