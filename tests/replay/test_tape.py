"""The tape answers what was recorded, from the record first, and never guesses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from ttc_replay.replay.compare import Normaliser, compare
from ttc_replay.replay.environments.base import environment_class
from ttc_replay.replay.environments.tape import TapeEnvironment
from ttc_replay.storage.errors import OffTapeError
from ttc_replay.storage.readers.tau2_bench import Tau2BenchReader
from ttc_replay.storage.readers.tau_bench import TauBenchReader
from ttc_replay.storage.records import Message, Source, Step, StepResult, Task, ToolCall, Trajectory

TRACES = Path(__file__).parents[2] / ".." / "shared" / "traces"


def call(name: str, call_id: str, **arguments: object) -> Message:
    return Message("assistant", tool_calls=(ToolCall(call_id, name, arguments),))


def say(text: str) -> Message:
    return Message("assistant", text)


def run(
    run_id: str, *steps: tuple[Message, Sequence[str]], task: str = "t", last_user: str | None = None
) -> Trajectory:
    """A run whose tool results are the given texts; `last_user` replies to the last action."""
    made = []
    for index, (action, texts) in enumerate(steps):
        results = [
            Message("tool", text, tool_call_id=asked.id) for text, asked in zip(texts, action.tool_calls, strict=True)
        ]
        if last_user is not None and index == len(steps) - 1:
            results.append(Message("user", last_user))
        made.append(Step(index, action, tuple(results)))
    return Trajectory(run_id, Task(task), prompt=(Message("user", "go"),), steps=tuple(made))


def tape(record: Trajectory, *others: Trajectory) -> TapeEnvironment:
    environment = TapeEnvironment()
    environment.load(record, {item.id: item for item in (record, *others)})
    assert environment.reset(record.task) == list(record.prompt)
    return environment


def texts(result: StepResult) -> list[str]:
    return [message.text for message in result.observations]


def play_back(record: Trajectory, environment: TapeEnvironment) -> list[StepResult]:
    """Every step of the record, replies told; asserts that each observation is the recorded one."""
    environment.reset(record.task)
    played = []
    for step in record.steps:
        results = [environment.step(step.action)]
        results += [environment.hear(message) for message in step.observations if message.role == "user"]
        got = [message for result in results for message in result.observations]
        assert compare(step.observations, got, Normaliser()).level == "exact"
        played.extend(results)
    return played


A = run("a", (call("look", "a1"), ["dark"]), (call("take", "a2", what="lamp"), ["taken"]), (call("go", "a3"), ["out"]))
B = run("b", (call("look", "b1"), ["dark"]), (call("light", "b2"), ["bright"]), (call("go", "b3"), ["home"]))


def test_the_record_plays_back_and_ends_where_it_ended() -> None:
    results = play_back(A, tape(A, B))
    assert [result.done for result in results] == [False, False, True]
    assert environment_class(tape(A)) == "recorded only"


def test_another_run_answers_after_the_same_calls_under_the_ids_that_were_asked() -> None:
    environment = tape(A, B)
    environment.step(call("look", "x1"))
    bright = environment.step(call("light", "x2"))
    assert texts(bright) == ["bright"]
    assert bright.observations[0].tool_call_id == "x2"
    home = environment.step(call("go", "x3"))
    assert (texts(home), home.done) == (["home"], True)


def test_the_record_answers_first_where_runs_disagree() -> None:
    other = run("o", (call("look", "o1"), ["light"]))
    assert texts(tape(A, other).step(call("look", "x"))) == ["dark"]
    assert texts(tape(other, A).step(call("look", "x"))) == ["light"]


def test_the_same_call_after_other_calls_is_off_the_tape() -> None:
    environment = tape(A, B)
    with pytest.raises(OffTapeError, match=r"step 0: .*go") as caught:
        environment.step(call("go", "x"))
    assert caught.value.hint is not None
    assert "--env" in caught.value.hint


def test_runs_of_other_tasks_and_datasets_do_not_answer() -> None:
    light = (call("light", "1"), ["bright"])
    elsewhere = run("c", light, task="u")
    here = Trajectory("d", Task("t"), steps=run("d", light).steps, source=Source("x", dataset="two"))
    record = Trajectory("a", A.task, prompt=A.prompt, steps=A.steps, source=Source("x", dataset="one"))
    with pytest.raises(OffTapeError):
        tape(record, elsewhere, here).step(call("light", "x"))


def test_talk_does_not_move_the_tape() -> None:
    environment = tape(A)
    assert environment.step(say("Let me see.")) == StepResult()
    assert environment.hear(Message("user", "ok")) == StepResult([])
    assert texts(environment.step(call("look", "x"))) == ["dark"]


def test_a_run_that_ends_with_the_users_reply_ends_when_it_is_heard() -> None:
    record = run("r", (call("look", "1"), ["dark"]), (say("Bye."), []), last_user="###STOP###")
    assert [result.done for result in play_back(record, tape(record))] == [False, False, True]
    environment = tape(record)
    environment.step(call("look", "1"))
    environment.step(say("Bye."))
    assert not environment.hear(Message("user", "wait")).done


def test_a_truncated_record_does_not_end() -> None:
    cut = Trajectory("a", A.task, prompt=A.prompt, steps=A.steps, truncated=True)
    assert not any(result.done for result in play_back(cut, tape(cut)))


def test_forks_are_independent() -> None:
    environment = tape(A, B)
    environment.step(call("look", "1"))
    twin = environment.fork()
    assert texts(twin.step(call("light", "2"))) == ["bright"]
    assert texts(environment.step(call("take", "2", what="lamp"))) == ["taken"]
    assert texts(twin.step(call("go", "3"))) == ["home"]
    assert texts(environment.step(call("go", "3"))) == ["out"]


def test_reset_rewinds_and_an_empty_tape_says_so() -> None:
    environment = tape(A)
    environment.step(call("look", "1"))
    environment.reset(A.task)
    assert texts(environment.step(call("look", "1"))) == ["dark"]
    with pytest.raises(OffTapeError, match="empty"):
        TapeEnvironment().reset(A.task)


def test_tools_are_those_of_the_record() -> None:
    schema = {"type": "function", "function": {"name": "look", "parameters": {}}}
    with_tools = Trajectory("a", A.task, tools=(schema,), prompt=A.prompt, steps=A.steps)
    assert list(tape(with_tools).tools()) == [schema]
    assert list(tape(A).tools()) == []


def recorded(folder: str) -> list[Trajectory]:
    if not (TRACES / folder).is_dir():
        pytest.skip(f"no recorded runs at {TRACES / folder}")
    reader = TauBenchReader() if folder == "tau-bench" else Tau2BenchReader()
    runs = []
    for path in sorted((TRACES / folder).glob("*.json")):
        with path.open("rb") as stream:
            runs += [item for item in reader.read(stream, Source(folder)) if isinstance(item, Trajectory)]
    return runs


@pytest.mark.parametrize("folder", ["tau-bench", "tau2-bench"])
def test_every_recorded_run_plays_back_exactly(folder: str) -> None:
    runs = recorded(folder)
    by_id = {item.id: item for item in runs}
    environment = TapeEnvironment()
    for record in runs:
        environment.load(record, by_id)
        play_back(record, environment)
