"""The local policy: one decode for many trees, the same tree at any concurrency, coded ends, kept tokens."""

from __future__ import annotations

import asyncio
import math
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

from ttc_replay import Message, ProposalRequest, Spec, Step, Task, TtcError
from ttc_replay.replay.calls import proposal_from_dict, proposal_to_dict
from ttc_replay.replay.policies.local import LocalPolicy
from ttc_replay.storage.codec import action_key
from ttc_replay.storage.errors import ContextFull, MissingExtra, OutOfMemory, PolicyFailed, UsageError
from ttc_replay.storage.journal import digest, read_journal

TOOL = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Add a number to the total.",
        "parameters": {
            "type": "object",
            "properties": {"by": {"type": "integer", "enum": [1, 2, 3]}},
            "required": ["by"],
            "additionalProperties": False,
        },
    },
}


def request(text: str = "reach 9", n: int = 2, seed: int = 7, **changed: Any) -> ProposalRequest:
    made = ProposalRequest(Task("t"), "run", 0, "0", (Message("user", text),), (TOOL,), n, seed)
    return replace(made, **changed)


def answers(policy: LocalPolicy, *requests: ProposalRequest) -> list[list[Any]]:
    said = policy.propose(requests)
    assert all(isinstance(batch, list) for batch in said), said
    return [list(batch) for batch in said if not isinstance(batch, TtcError)]


@pytest.fixture(scope="module")
def policy(tiny: Path) -> Iterator[LocalPolicy]:
    made = LocalPolicy(str(tiny), max_tokens=48, tool_choice="required")
    made.check()
    yield made
    made.close()


@pytest.fixture(scope="module")
def talker(tiny: Path) -> LocalPolicy:
    """Says what it likes."""
    return LocalPolicy(str(tiny), max_tokens=24)


# --- loading ---------------------------------------------------------------------------------------------------------


def test_it_is_registered_and_loads_no_torch_before_it_is_used() -> None:
    (point,) = entry_points(group="ttc_replay.policies", name="local")
    assert point.load() is LocalPolicy
    code = (
        "import sys; from ttc_replay.replay.policies.local import LocalPolicy; import ttc_replay.cli.main;"
        "LocalPolicy('model'); sys.exit(bool({'torch', 'transformers', 'llguidance', 'peft'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd="/").returncode == 0


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"model": ""}, "needs a model"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_batch": True}, "max_batch"),
        ({"cache_mib": "much"}, "cache_mib"),
        ({"threads": 0}, "threads"),
        ({"top_k": -1}, "top_k"),
        ({"context_length": 0}, "context_length"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": math.inf}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"top_p": math.nan}, "top_p"),
        ({"prompt_ids": "yes"}, "prompt_ids"),
        ({"counterfactual": True, "temperature": 0}, "counterfactual"),
        ({"counterfactual": True, "top_k": 5}, "counterfactual"),
        ({"counterfactual": True, "latent_steps": 1}, "counterfactual"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        LocalPolicy(**{"model": "somewhere", **options})


def test_what_cannot_be_loaded_is_refused_before_anything_is_spent(
    tmp_path: Path, tiny: Path, tiny_folder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError):
        LocalPolicy(str(tmp_path / "nowhere")).check()
    (tmp_path / "pickled").mkdir()
    (tmp_path / "pickled" / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(UsageError):
        LocalPolicy(str(tmp_path / "pickled")).check()
    with pytest.raises(UsageError, match="template"):
        LocalPolicy(str(tiny_folder(tmp_path / "base", template=None))).check()
    with pytest.raises(UsageError, match="float32"):
        LocalPolicy(str(tiny), dtype="bfloat16", counterfactual=True).check()
    with pytest.raises(UsageError, match="attention"):
        LocalPolicy(str(tiny), attention="sparse").check()
    monkeypatch.setattr("ttc_replay.replay.local.loading.find_spec", lambda name: None)
    with pytest.raises(MissingExtra) as missing:
        LocalPolicy(str(tiny), max_batch=3).check()
    assert missing.value.hint == "pip install 'ttc-replay[local]'"


def test_identity_says_what_changes_the_answers_and_nothing_else(tiny: Path, policy: LocalPolicy) -> None:
    same = LocalPolicy(str(tiny), max_tokens=48, tool_choice="required", max_batch=2, cache_mib=64)
    assert same.identity() == policy.identity()
    assert policy.identity()["digest"] == policy.speaker().loaded.digest
    for changed in ({"temperature": 0.5}, {"max_tokens": 47}, {"tool_choice": "auto"}, {"context_length": 1000}):
        options: dict[str, Any] = {"max_tokens": 48, "tool_choice": "required", **changed}
        assert LocalPolicy(str(tiny), **options).identity() != policy.identity(), changed


def test_policies_of_the_same_options_share_one_engine(tiny: Path, policy: LocalPolicy) -> None:
    assert LocalPolicy(str(tiny), temperature=0.3).speaker() is policy.speaker()
    assert LocalPolicy(str(tiny), max_batch=1).speaker() is not policy.speaker()


# --- answers ---------------------------------------------------------------------------------------------------------


def test_every_answer_is_a_valid_call_with_its_tokens(policy: LocalPolicy) -> None:
    (said,) = answers(policy, request(n=4))
    assert len(said) == 4
    for proposal in said:
        (call,) = proposal.action.tool_calls
        assert (call.name, call.id) == ("add", "call_0_0")
        assert call.arguments["by"] in (1, 2, 3)
        trace = proposal.tokens
        assert len(trace.ids) == len(trace.logprobs)
        assert proposal.logprob == pytest.approx(sum(trace.logprobs))
        assert trace.margin >= 0
        assert trace.prompt is None
        assert proposal_from_dict(proposal_to_dict(proposal)) == proposal


def test_the_call_costs_tokens_and_no_money(policy: LocalPolicy) -> None:
    asked = request(n=3)
    (said,) = answers(policy, asked)
    worst = policy.estimate(asked)
    assert [item.usage.cost_usd for item in said] == [0.0] * 3
    assert [item.usage.completion_tokens for item in said] == [len(item.tokens.ids) for item in said]
    assert sum(item.usage.prompt_tokens for item in said) == worst.prompt_tokens
    assert worst.completion_tokens == 3 * 48
    assert said[0].usage.cached_tokens <= worst.prompt_tokens


@pytest.mark.parametrize("tools", [(), (TOOL,)])
def test_an_answer_does_not_depend_on_its_company(policy: LocalPolicy, talker: LocalPolicy, tools: Any) -> None:
    speaks = policy if tools else talker
    goals = (4, 9, 12)
    asked = [request(f"reach {goal}", seed=goal, trajectory_id=f"run {goal}", tools=tools) for goal in goals]
    together = answers(speaks, *asked)
    alone = [answers(speaks, item)[0] for item in reversed(asked)][::-1]
    ids = [[item.tokens.ids for item in batch] for batch in together]
    assert ids == [[item.tokens.ids for item in batch] for batch in alone]
    assert tools or len({said for batch in ids for said in batch}) == 6
    before = speaks.speaker().batcher.batches
    answers(speaks, *asked)
    assert speaks.speaker().batcher.batches == before + 1


def test_seed_trajectory_and_step_choose_the_noise(talker: LocalPolicy) -> None:
    first = answers(talker, request())[0]
    assert answers(talker, request())[0] == first
    others: list[dict[str, Any]] = [{"seed": 8}, {"trajectory_id": "other"}, {"step": 1}]
    for changed in others:
        assert answers(talker, request(**changed))[0][0].tokens.ids != first[0].tokens.ids, changed


def test_a_full_context_ends_that_request_and_no_other(tiny: Path) -> None:
    short = LocalPolicy(str(tiny), max_tokens=48, tool_choice="required", context_length=320)
    full, fine = short.propose([request("reach 9 " * 80), request()])
    assert isinstance(full, ContextFull)
    assert full.error_code == "TTC-E406"
    assert isinstance(fine, list)
    assert len(fine) == 2
    assert short.report()["context_full"] == 2


def test_an_answer_that_the_context_cuts_short_is_no_action(tiny: Path, talker: LocalPolicy) -> None:
    length = talker.estimate(request()).prompt_tokens or 0
    short = LocalPolicy(str(tiny), max_tokens=200, tool_choice="required", context_length=length + 12)
    (cut,) = short.propose([request()])
    assert isinstance(cut, ContextFull)


def test_no_memory_is_an_error_with_a_code(tiny: Path) -> None:
    poor = LocalPolicy(str(tiny), max_tokens=30, tool_choice="required", cache_mib=1, max_batch=2)

    def check(tokens: int) -> None:
        raise MemoryError

    poor.speaker().decoder.model.check_memory = check
    (said,) = poor.propose([request()])
    assert isinstance(said, OutOfMemory)
    assert said.error_code == "TTC-E407"
    with pytest.raises(OutOfMemory):
        poor.score_actions([Message("user", "hi")], [Message("assistant", "yes")])


def test_a_tool_choice_that_is_none_of_the_tools_is_refused(tiny: Path) -> None:
    (said,) = LocalPolicy(str(tiny), tool_choice="subtract").propose([request()])
    assert isinstance(said, UsageError)
    assert "subtract" in said.message


def test_tool_choice_none_calls_nothing(tiny: Path) -> None:
    (said,) = answers(LocalPolicy(str(tiny), tool_choice="none", max_tokens=30), request(n=4))
    assert [item.action.tool_calls for item in said] == [()] * 4


def test_undecided_tokens_are_counted_and_reported(tiny: Path) -> None:
    unsure = LocalPolicy(str(tiny), max_tokens=20, max_batch=5)
    assert unsure.report() == {}
    unsure.speaker().tolerance = 1e12
    (said,) = answers(unsure, request(tools=()))
    assert [item.tokens.undecided for item in said] == [len(item.tokens.ids) for item in said]
    report = unsure.report()
    assert report["undecided_tokens"] == report["sampled_tokens"] == sum(len(item.tokens.ids) for item in said)


# --- contexts --------------------------------------------------------------------------------------------------------


def later(first: Any, **changed: Any) -> ProposalRequest:
    """The request after `first` was said and answered."""
    seen = Message("tool", '{"total": 3}', tool_call_id="call_0_0", name="add")
    return request(step=1, messages=(Message("user", "reach 9"), first.action, seen), tokens=(first.tokens,), **changed)


def test_what_was_sampled_keeps_its_tokens_in_later_contexts(tiny: Path) -> None:
    policy = LocalPolicy(str(tiny), max_tokens=48, tool_choice="required", prompt_ids=True)
    contexts = policy.speaker().contexts
    (first,) = answers(policy, request(n=1))[0]
    (second,) = answers(policy, later(first, n=1))[0]
    start = contexts.encode((Message("user", "reach 9"),), (TOOL,))
    assert (first.tokens.prompt, first.tokens.shared) == (start, 0)
    whole = (*start, *first.tokens.ids)
    assert second.tokens.shared == len(whole)
    after = contexts.encode(later(first).messages, (TOOL,), (first.tokens,))
    assert (*whole, *second.tokens.prompt) == after


def test_other_tokens_of_the_same_text_make_another_context(talker: LocalPolicy) -> None:
    """And nothing that was said before changes what a context is."""
    speaker = talker.speaker()
    (said,) = answers(talker, request(n=1))[0]
    text = Message("assistant", "capital")
    usual = tuple(speaker.chat.encode_action([Message("user", "hi")], (), text))
    spelled = tuple(token for letter in "capital" for token in speaker.chat.encoder.encode_text(letter))
    assert spelled != usual[:-1]
    messages = (Message("user", "hi"), text, Message("user", "and?"))
    plain = speaker.contexts.encode(messages, ())
    trace = replace(said.tokens, ids=(*spelled, usual[-1]))
    traced = speaker.contexts.encode(messages, (), (trace,))
    assert traced != plain
    assert speaker.text(traced) == speaker.text(plain)
    assert speaker.contexts.encode(messages, (), (None,)) == plain
    foreign = replace(trace, model="another")
    assert speaker.own([trace, None, foreign]) == (trace, None, None)
    asked = request(messages=messages, tools=(), n=1)
    told = [answers(talker, replace(asked, tokens=tokens))[0][0] for tokens in ((), (foreign,), (trace,))]
    assert told[0].tokens.ids == told[1].tokens.ids != told[2].tokens.ids


# --- searches --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world() -> Any:
    """Makes the toy world with a tool that a grammar can say, in threads."""

    def of(toy: Any) -> Any:
        class Limited(toy.ReExecutable):  # type: ignore[misc]
            def tools(self) -> list[dict[str, Any]]:
                return [TOOL]

        return Limited

    return of


def grown(engine: Any) -> tuple[str, list[list[tuple[Any, ...]]]]:
    asyncio.run(engine.run())
    engine.journal.sync()
    events, _ = read_journal(engine.journal.path)
    trees = [
        [(node.parent, node.key, node.visits, node.value_sum, node.status) for node in grove.tree.rows("r")]
        for grove in engine.groves
    ]
    engine.journal.close()
    return digest(events), trees


def searched(make_engine: Any, toy: Any, world: Any, tiny: Path, folder: str, **options: Any) -> Any:
    records = [toy.record(1, 1, 1, 1), toy.record(3, 3, 3, 3, task="t2")]
    policy = LocalPolicy(str(tiny), max_tokens=48, tool_choice="required", max_batch=options.pop("max_batch", 32))
    settings: dict[str, Any] = {"budget": 10, "width": 4, "algorithm": Spec("mcts"), "seed": 5, **options}
    engine = make_engine(records, policy=policy, world=world(toy), folder=folder, **settings)
    return engine, grown(engine)


def test_the_tree_is_the_same_at_any_concurrency(make_engine: Any, toy: Any, world: Any, tiny: Path) -> None:
    one, alone = searched(make_engine, toy, world, tiny, "one", concurrency=1, max_batch=1)
    many, together = searched(make_engine, toy, world, tiny, "many", concurrency=8)
    assert one.plugins.policy.report()["undecided_tokens"] == 0
    assert alone == together
    assert many.plugins.policy.report()["largest_batch"] > one.plugins.policy.report()["largest_batch"]
    assert all(len(tree) > 8 for tree in together[1])


def test_a_run_that_goes_on_ends_like_one_that_never_stopped(
    make_engine: Any, toy: Any, world: Any, tiny: Path
) -> None:
    _, whole = searched(make_engine, toy, world, tiny, "whole", concurrency=4)
    searched(make_engine, toy, world, tiny, "parts", concurrency=4, budget=5)
    _, resumed = searched(make_engine, toy, world, tiny, "parts", concurrency=4)
    assert resumed == whole


def test_a_branch_whose_context_is_full_ends_with_its_reason(
    make_engine: Any, toy: Any, world: Any, tiny: Path
) -> None:
    length = LocalPolicy(str(tiny)).estimate(request()).prompt_tokens or 0
    policy = LocalPolicy(str(tiny), max_tokens=48, tool_choice="required", context_length=length + 100)
    record = toy.record(1, 1, 1, 1)
    engine = make_engine([record], policy=policy, world=world(toy), budget=12, algorithm=Spec("mcts"), max_depth=8)
    asyncio.run(engine.run())
    rows = engine.groves[0].tree.rows("r")
    full = [row for row in rows if row.status == "failed"]
    assert full
    assert all((row.reason or "").startswith("TTC-E406: ") for row in full)
    assert engine.error is None
    assert {row.depth for row in rows} > {row.depth for row in full}


# --- likelihoods -----------------------------------------------------------------------------------------------------


def test_actions_are_scored_as_the_model_itself_scores_them(tiny: Path, talker: LocalPolicy) -> None:
    import torch

    speaker = talker.speaker()
    context = [Message("user", "What is the capital of France?")]
    actions = [Message("assistant", "Paris"), Message("assistant", "The capital of France is Paris.")]
    for score, action in zip(talker.score_actions(context, actions), actions, strict=True):
        prompt = speaker.chat.encode(context)
        assert speaker.text(score.ids).startswith(action.text)
        from transformers import AutoModelForCausalLM

        plain = AutoModelForCausalLM.from_pretrained(tiny)
        with torch.inference_mode():
            logits = plain(torch.tensor([[*prompt, *score.ids]])).logits[0, len(prompt) - 1 : -1]
        told = logits.log_softmax(dim=1).gather(1, torch.tensor(score.ids)[:, None])[:, 0]
        assert score.logprobs == pytest.approx(told.tolist(), abs=1e-3)
        assert score.is_whole
        assert score.mean == pytest.approx(float(told.mean()), abs=1e-3)


def test_a_score_says_where_the_context_ended(tiny: Path) -> None:
    short = LocalPolicy(str(tiny), context_length=24)
    (score,) = short.score_actions([Message("user", "hi")], [Message("assistant", "Paris " * 20)])
    assert not score.is_whole
    assert 0 < len(score.logprobs) < len(score.ids)


def test_the_actions_of_a_run_are_scored_in_their_contexts(toy: Any, talker: LocalPolicy) -> None:
    run = replace(toy.record(1, 2, 3), tools=(TOOL,))
    (scores,) = talker.score_steps([run])
    context = [*run.prompt, run.steps[0].action, *run.steps[0].observations]
    (alone,) = talker.score_actions(context, [run.steps[1].action], [TOOL])
    assert len(scores) == 3
    assert scores[1].ids == alone.ids
    assert scores[1].logprobs == pytest.approx(alone.logprobs, abs=1e-4)
    (last,) = talker.score_steps([run], last=True)
    assert [score.ids for score in last] == [scores[2].ids]


# --- counterfactuals -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def factual(tiny: Path) -> LocalPolicy:
    return LocalPolicy(str(tiny), max_tokens=64, counterfactual=True)


def at(record: Any, step: int, **changed: Any) -> ProposalRequest:
    """The request at a step of the record, in the recorded context."""
    messages = list(record.prompt)
    for earlier in record.steps[:step]:
        messages += [earlier.action, *earlier.observations]
    return request(
        messages=tuple(messages), trajectory_id=record.id, step=step, sampling={"first_sample": 0}, **changed
    )


def with_texts(record: Any, *texts: str) -> Any:
    """The record with steps that say something, too."""
    said = [Step(index, Message("assistant", text)) for index, text in enumerate(texts)]
    moved = [replace(step, index=step.index + len(said)) for step in record.steps]
    return replace(record, id=record.id + "+", steps=(*said, *moved))


@pytest.mark.parametrize("step", range(6))
@pytest.mark.parametrize("seed", [1, 2])
def test_in_the_recorded_context_it_says_what_was_recorded(
    toy: Any, factual: LocalPolicy, step: int, seed: int
) -> None:
    record = with_texts(toy.record(3, 1, 2, 13 - 10), "I shall add numbers.", "é 漢字 {}")
    factual.prepare([record])
    first, second = answers(factual, at(record, step, seed=seed))[0]
    assert action_key(first.action) == action_key(record.steps[step].action)
    assert first.finish_reason == "stop"
    assert action_key(second.action) != action_key(record.steps[step].action)


def changed_goal(asked: ProposalRequest, goal: str) -> ProposalRequest:
    return replace(asked, messages=(Message("user", goal), *asked.messages[1:]))


def test_in_a_changed_context_it_says_one_thing_and_undoing_the_change_undoes_it(
    toy: Any, factual: LocalPolicy
) -> None:
    record = with_texts(toy.record(3, 1, 2), "The capital of France is Paris.")
    factual.prepare([record])
    asked = at(record, 0, n=1)
    goals = [f"reach {goal}, please: post the payment" for goal in range(8)]
    said = [answers(factual, changed_goal(asked, goal))[0][0] for goal in goals]
    again = answers(factual, *[replace(changed_goal(asked, goal), seed=99) for goal in reversed(goals)])
    assert [batch[0].tokens.ids for batch in reversed(again)] == [item.tokens.ids for item in said]
    assert {action_key(item.action) for item in said} != {action_key(record.steps[0].action)}
    assert answers(factual, asked)[0][0].action == record.steps[0].action


def test_only_the_first_answer_at_a_node_is_factual(toy: Any, factual: LocalPolicy) -> None:
    record = with_texts(toy.record(3, 1, 2), "The capital of France is Paris.")
    factual.prepare([record])
    more = replace(at(record, 0), sampling={"first_sample": 2})
    assert all(action_key(item.action) != action_key(record.steps[0].action) for item in answers(factual, more)[0])


def test_behind_the_record_the_noise_is_of_the_run_alone(toy: Any, factual: LocalPolicy) -> None:
    record = toy.record(1, 1)
    factual.prepare([record])
    asked = at(record, 2, n=2)
    one, other = answers(factual, asked)[0], answers(factual, replace(asked, seed=1234))[0]
    assert one[0].tokens.ids == other[0].tokens.ids
    assert one[1].tokens.ids != other[1].tokens.ids


def test_a_template_that_refuses_fails_that_request_alone(tmp_path: Path, tiny_folder: Any) -> None:
    picky = (
        "{%- for message in messages %}{%- if message['content'] == 'no' %}{{ raise_exception('no') }}{%- endif %}"
        "{{- '<|im_start|>' + message['role'] + '\n' + (message['content'] or '') + '<|im_end|>\n' }}{%- endfor %}"
        "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
    )
    policy = LocalPolicy(str(tiny_folder(tmp_path / "picky", template=picky)), max_tokens=8)
    asked: Sequence[ProposalRequest] = [request("no", tools=()), request("yes", tools=())]
    assert policy.estimate(asked[0]).prompt_tokens == 0
    refused, said = policy.propose(asked)
    assert isinstance(refused, PolicyFailed)
    assert isinstance(said, list)
