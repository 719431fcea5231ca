"""The engine: the same tokens alone, batched and over a shared tree; reasons for ending; memory; counts."""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from ttc_replay.replay.local.decoder import Decoder  # noqa: E402
from ttc_replay.replay.local.jobs import Generated, Job, NoiseKey  # noqa: E402
from ttc_replay.replay.local.latent import next_logits  # noqa: E402
from ttc_replay.replay.local.sampling import Row, choose  # noqa: E402
from ttc_replay.storage.errors import UsageError  # noqa: E402

sys.path.append(str(Path(__file__).parents[3]))  # tests are not installed: they lie in the checkout
from tests.replay.local.decoders import (  # noqa: E402
    TOLERANCE,
    VOCABULARY,
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


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"max_batch": 1},
        {"max_batch": 3},
        {"cache_bytes": 400 * 3 * 2 * 2 * 12 * 4},  # 400 tokens: evicts, and goes back in batch size
    ],
    ids=["all", "one by one", "three", "small cache"],
)
def test_the_same_tokens_alone_batched_and_shared(options: dict[str, Any], alone: list[Generated]) -> None:
    decoder = decoder_of(**options)
    assert_same(decoder.generate(some_jobs()), alone)
    assert_same(decoder.generate(some_jobs()), alone)  # now on what the first call left in the tree
    reordered = decoder.generate(some_jobs()[::-1])
    assert_same(reordered[::-1], alone)
    counters = decoder.counters()
    assert counters.largest_batch <= options.get("max_batch", 14)
    assert decoder.pool.used == decoder.tree.resident_tokens
    assert all(segment.pins == 0 for segment in decoder.tree.segments())
    assert (counters.evicted_tokens > 0) == ("cache_bytes" in options)


def test_the_pooled_layout_says_the_same(alone: list[Generated]) -> None:
    jobs = [replace(job, max_new_tokens=min(job.max_new_tokens, 8)) for job in some_jobs()]
    short = [
        Generated(each.tokens[:8], each.logprobs[:8], each.margins[:8], "length", each.prompt_tokens, 0)
        for each in alone
    ]
    assert_same(decoder_of(attention="pooled").generate(jobs), short)


def beam_tree(decoder: Decoder, depth: int = 4, prompt: int = 300) -> int:
    """A beam search's calls; the tokens that nobody but a prefill can have computed."""
    contexts, unique = [tokens_of(prompt, 1)], prompt
    for level in range(depth):
        jobs = [Job(c, 12, NoiseKey(n, str(i), level)) for i, c in enumerate(contexts) for n in range(4)]
        said = decoder.generate(jobs)
        best = sorted(range(len(said)), key=lambda index: -sum(said[index].logprobs))[:2]
        if level + 1 < depth:
            contexts = [[*jobs[i].tokens, *said[i].tokens, *tokens_of(20, 10 * level + i)] for i in best]
            unique += sum(1 + 20 for _ in best)
    return unique


def revisits(decoder: Decoder) -> int:
    """A tree search's calls: one child at a time, anywhere in the tree, again and again."""
    draw, nodes, unique = random.Random(2), [tokens_of(300, 1)], 300
    visits = [0]
    for _ in range(60):
        at = draw.randrange(len(nodes))
        said = decoder.generate([Job(nodes[at], 12, NoiseKey(visits[at], str(at), 0))])[0]
        visits[at] += 1
        nodes.append([*nodes[at], *said.tokens, *tokens_of(15, len(nodes))])
        visits.append(0)
        unique += 16
        if len(nodes[-1]) > 1500:
            break
    return unique


@pytest.mark.parametrize("order", [beam_tree, revisits])
def test_each_token_is_prefilled_once(order: Callable[[Decoder], int]) -> None:
    decoder = decoder_of()
    before = decoder.counters()
    unique = order(decoder)
    counters = decoder.counters()
    prefilled = counters.prefilled_tokens - before.prefilled_tokens
    assert prefilled <= 1.05 * unique
    assert counters.prefilled_tokens <= 1.05 * counters.unique_tokens
    assert decoder.pool.used == counters.unique_tokens - before.unique_tokens


def test_the_next_prompt_prefills_only_what_is_new() -> None:
    decoder = decoder_of()
    prompt = tokens_of(100, 4)
    said = decoder.generate([Job(prompt, 20, NoiseKey(0, "t", 0))])[0]
    before = decoder.counters().prefilled_tokens
    following = decoder.generate([Job([*prompt, *said.tokens, *tokens_of(7, 5)], 5, NoiseKey(0, "t", 1))])[0]
    assert (following.prompt_tokens, following.cached_tokens) == (127, 119)
    assert decoder.counters().prefilled_tokens - before == 8


def test_greedy_siblings_leave_one_segment() -> None:
    decoder = decoder_of()
    said = decoder.generate([Job(tokens_of(30, 6), 9, NoiseKey(n, "t", 0), temperature=0.0) for n in range(5)])
    assert len({each.tokens for each in said}) == 1
    assert decoder.pool.used == 30 + 8


def test_constraints_and_their_log_probabilities() -> None:
    prompt = tokens_of(20, 7)
    constraint = Only([[5, 6], None, [7], ()])
    one, other = decoder_of().generate(
        [Job(prompt, 9, NoiseKey(0, "t", 0), constraint=constraint), Job(prompt, 9, NoiseKey(1, "t", 0))]
    )
    assert (one.finish_reason, len(one.tokens), other.finish_reason, len(other.tokens)) == (
        "constraint",
        3,
        "length",
        9,
    )
    assert one.tokens[0] in (5, 6)
    assert one.tokens[2] == 7
    assert constraint.accepted == list(one.tokens)
    with torch.inference_mode():
        logits = model_of()(input_ids=torch.tensor([prompt])).logits[0, -1, [5, 6]]
    assert one.logprobs[0] == pytest.approx(float(logits.log_softmax(0)[one.tokens[0] - 5]), abs=1e-3)
    assert one.logprobs[2] == pytest.approx(0.0, abs=1e-6)


def test_a_constraint_that_allows_nothing_at_all() -> None:
    said = decoder_of().generate([Job(tokens_of(5, 8), 3, NoiseKey(0, "t", 0), constraint=Only([()]))])[0]
    assert (said.tokens, said.finish_reason) == ((), "constraint")


def test_stop_tokens_end_a_branch_and_are_part_of_it(alone: list[Generated]) -> None:
    job, whole = next((j, s) for j, s in zip(some_jobs(), alone, strict=True) if len(s.tokens) >= 18)
    stop = whole.tokens[9]
    said = decoder_of().generate([replace(job, stop=frozenset([stop])), job])
    end = whole.tokens.index(stop) + 1
    assert (said[0].tokens, said[0].finish_reason) == (whole.tokens[:end], "stop")
    assert (said[1].tokens, said[1].finish_reason) == (whole.tokens, "length")


@pytest.mark.parametrize(("prompt", "said"), [(90, 10), (99, 1), (100, 0), (150, 0)])
def test_a_full_context_ends_its_branch_and_no_other(prompt: int, said: int) -> None:
    jobs = [Job(tokens_of(prompt, 9), 30, NoiseKey(0, "t", 0)), Job(tokens_of(20, 9), 30, NoiseKey(1, "t", 0))]
    full, other = decoder_of(100).generate(jobs)
    assert (full.finish_reason, len(full.tokens)) == ("context", said)
    assert (other.finish_reason, len(other.tokens)) == ("length", 30)


def test_no_tokens_wanted() -> None:
    decoder = decoder_of()
    before = decoder.counters().prefilled_tokens
    said = decoder.generate([Job(tokens_of(9, 1), 0, NoiseKey(0, "t", 0))])[0]
    assert (said.tokens, said.finish_reason, decoder.counters().prefilled_tokens) == ((), "length", before)
    assert decoder.generate([]) == []


@pytest.mark.parametrize("tokens", [[], [1, VOCABULARY], [-1]])
def test_jobs_that_are_none(tokens: list[int]) -> None:
    decoder = decoder_of()
    with pytest.raises(UsageError, match="context"):
        decoder.generate([Job(tokens, 3, NoiseKey(0, "t", 0))])
    with pytest.raises(UsageError, match="context"):
        decoder.score([tokens], [[1]])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_batch": 0}, "max_batch 0"),
        ({"cache_bytes": 100}, "hold keys and values of 1 tokens"),
        ({"attention": "flash"}, "'flash' is not one of"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        decoder_of(**options)


def latent_by_hand(job: Job) -> list[int]:
    """The tokens after latent positions, through transformers' own cache."""
    model = model_of()
    cache = transformers.DynamicCache(config=model.config)
    said: list[int] = []
    with torch.inference_mode():

        def run(**inputs: Any) -> Any:
            return model.base_model(**inputs, past_key_values=cache, use_cache=True).last_hidden_state[:, -1]

        hidden = run(input_ids=torch.tensor([list(job.tokens)]))
        for _ in range(job.latent_steps):
            hidden = run(inputs_embeds=hidden[:, None])
        for position in range(job.max_new_tokens):
            said += choose(model.lm_head(hidden), [Row(job, position)]).tokens
            hidden = run(input_ids=torch.tensor([said[-1:]]))
    return said


def test_latent_steps() -> None:
    jobs = [
        Job(tokens_of(20 + n, n), 10, NoiseKey(n, "t", 0), latent_steps=steps) for n, steps in enumerate((0, 3, 1, 3))
    ]
    decoder = decoder_of()
    said = decoder.generate(jobs)
    assert [list(each.tokens) for each in said] == [latent_by_hand(job) for job in jobs]
    first = next_logits(model_of(), torch.tensor([list(jobs[1].tokens)]), 3)
    assert said[1].tokens[0] == choose(first, [Row(jobs[1], 0)]).tokens[0]
    assert decoder.pool.used == sum(len(job.tokens) for job in jobs) + 9  # thoughts are of nobody else
    plain_again = decoder.generate([replace(job, latent_steps=0) for job in jobs])
    assert_same(plain_again, decoder_of().generate([replace(job, latent_steps=0) for job in jobs]))


def test_factual_noise_says_the_recorded_tokens_again() -> None:
    prompt, recorded = tokens_of(25, 1), tokens_of(12, 2)
    job = Job(prompt, 16, NoiseKey(0, "t", 0), factual=recorded, factual_context=prompt)
    changed = replace(job, tokens=[*prompt[:10], *tokens_of(3, 3), *prompt[13:]])
    decoder = decoder_of()
    same, other, fresh = decoder.generate([job, changed, replace(job, factual=None, factual_context=None)])
    assert list(same.tokens[:12]) == recorded
    assert len(other.tokens) == 16
    assert list(other.tokens[:12]) != recorded
    assert fresh.tokens != same.tokens
    again = decoder_of(max_batch=1).generate([changed])
    assert_same(again, [other])


def test_a_recorded_text_longer_than_the_context() -> None:
    job = Job(tokens_of(20, 1), 9, NoiseKey(0, "t", 0), factual=tokens_of(90, 2), factual_context=tokens_of(20, 3))
    said = decoder_of(100).generate([job])[0]
    assert (said.tokens, said.finish_reason) == ((), "context")


def test_score_is_what_sampling_said(alone: list[Generated]) -> None:
    jobs = some_jobs()
    decoder = decoder_of(max_batch=4)
    got = decoder.score([job.tokens for job in jobs], [said.tokens for said in alone])
    for mine, said in zip(got, alone, strict=True):
        assert mine == pytest.approx(list(said.logprobs), abs=1e-3)
    assert decoder.score([[5, 6]], [[]]) == [[]]
    assert decoder.score([], []) == []
    assert decoder.score([[7]], [[8]])[0][0] < 0


def test_score_ends_where_the_context_ends() -> None:
    decoder = decoder_of(50)
    assert [len(each) for each in decoder.score([tokens_of(45, 1), tokens_of(60, 1)], [[3] * 9, [3]])] == [5, 0]


def test_threads_take_turns(alone: list[Generated]) -> None:
    decoder = decoder_of()
    said: dict[int, list[Generated]] = {}

    def work(number: int) -> None:
        said[number] = decoder.generate(some_jobs()[number::2])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(2):
        assert_same(said[number], alone[number::2])


def test_seconds_are_counted_by_part() -> None:
    decoder = decoder_of()
    decoder.generate(some_jobs())
    seconds = decoder.counters().seconds
    assert set(seconds) == {"prefill", "decode", "mask", "noise", "sampling"}
    assert all(spent > 0 for spent in seconds.values())


PROMPTS = st.lists(st.integers(3, 5), min_size=1, max_size=10)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.lists(st.tuples(PROMPTS, st.integers(1, 12), st.integers(0, 2)), min_size=1, max_size=6), max_size=3),
    st.integers(1, 5),
    st.integers(60, 200),
)
def test_any_calls_in_any_order_say_the_same(
    calls: list[list[tuple[list[int], int, int]]], max_batch: int, cache_tokens: int
) -> None:
    decoder, fresh = _shared(max_batch, cache_tokens)
    for call in calls:
        jobs = [Job(prompt, count, NoiseKey(seed, "t", 0)) for prompt, count, seed in call]
        said = decoder.generate(jobs)
        assert_same_or_undecided(said, [fresh.generate([job])[0] for job in jobs])
        assert decoder.pool.used == decoder.tree.resident_tokens <= cache_tokens


def _shared(max_batch: int, cache_tokens: int) -> tuple[Decoder, Decoder]:
    return decoder_of(max_batch=max_batch, cache_bytes=cache_tokens * 3 * 2 * 2 * 12 * 4), decoder_of(max_batch=1)


def assert_same_or_undecided(got: Sequence[Generated], expected: Sequence[Generated]) -> None:
    for mine, theirs in zip(got, expected, strict=True):
        decided = next((at for at, margin in enumerate(theirs.margins) if margin < TOLERANCE), len(theirs.margins))
        assert mine.tokens[:decided] == theirs.tokens[:decided]
