"""The tau2 worlds against logs of real agents: observations, outcomes, overlays against tau2's own database hash."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ttc_replay.replay.compare import Match, compare, normalisers_from
from ttc_replay.replay.environments.base import environment_class
from ttc_replay.replay.environments.tau2 import Tau2Environment
from ttc_replay.replay.environments.tau2_world import OverlayWorld, load_domain
from ttc_replay.storage.readers.tau_bench import TauBenchReader
from ttc_replay.storage.records import Message, Source, StepResult, Task, ToolCall, Trajectory

pytest.importorskip("tau2.domains", reason="the extra [tau2] is not installed")

TRACES = Path(__file__).parents[2] / ".." / "shared" / "traces"
STOP = Message("user", "Thank you. ###STOP###")


def tau2(module: str) -> Any:
    """A module of the real package, loaded as the environment loads it (silently)."""
    load_domain("airline")
    return import_module(f"tau2.{module}")


@dataclass
class Replayed:
    """One recorded run, re-executed: the match of every step, and the results that ended the run."""

    record: Trajectory
    environment: Tau2Environment
    matches: list[Match] = field(default_factory=list)
    results: int = 0
    ends: list[StepResult] = field(default_factory=list)

    @property
    def reward(self) -> float | None:
        return self.ends[-1].reward if self.ends else None


def recorded(folder: str) -> list[Trajectory]:
    if not (TRACES / folder).is_dir():
        pytest.skip(f"no recorded runs at {TRACES / folder}")
    reader = TauBenchReader()
    runs = []
    for path in sorted((TRACES / folder).glob("*.json")):
        with path.open("rb") as stream:
            runs += [item for item in reader.read(stream, Source(folder)) if isinstance(item, Trajectory)]
    return runs


def play(record: Trajectory, environment: Tau2Environment) -> Replayed:
    environment.reset(record.task)
    replayed = Replayed(record, environment)
    for step in record.steps:
        results = [environment.step(step.action)]
        results += [environment.hear(message) for message in step.observations if message.role == "user"]
        got = [message for result in results for message in result.observations]
        replayed.matches.append(compare(step.observations, got, normalisers_from(environment.normalise)))
        replayed.results += sum(message.role == "tool" for message in step.observations)
        replayed.ends += [result for result in results if result.done]
    return replayed


@pytest.fixture(scope="module")
def airline_runs() -> list[Trajectory]:
    return recorded("tau-bench")


@pytest.fixture(scope="module")
def airline(airline_runs: list[Trajectory]) -> list[Replayed]:
    return [play(record, Tau2Environment()) for record in airline_runs]


def calls(*made: tuple[str, dict[str, Any]]) -> Message:
    return Message("assistant", tool_calls=tuple(ToolCall(f"c{at}", *one) for at, one in enumerate(made)))


def ready(task: Task | None = None, **options: Any) -> Tau2Environment:
    environment = Tau2Environment(**options)
    environment.reset(task or Task("0", data={"instruction": "", "domain": "airline"}))
    return environment


def answer(environment: Tau2Environment, name: str, **arguments: Any) -> str:
    return environment.step(calls((name, arguments))).observations[0].text


# --- tau-bench: the development set -----------------------------------------------------------------------------------


def test_every_recorded_tool_result_reproduces(airline: list[Replayed]) -> None:
    assert len(airline) == 100
    assert sum(item.results for item in airline) == 572
    with_results = [match for item in airline for match in item.matches]
    assert Counter(match.level for match in with_results)[None] == 0
    levels: Counter[str | None] = Counter()
    for item in airline:
        for match, step in zip(item.matches, item.record.steps, strict=True):
            levels[match.level] += bool(step.action.tool_calls)
    assert levels == {"exact": 166, "json": 347, "normalised": 59}


def test_the_only_rule_that_was_needed_is_the_renamed_key(airline: list[Replayed]) -> None:
    rules = {rule for item in airline for match in item.matches for rule in match.rules}
    assert rules == {"rename get_user_details: province -> state"}


def test_without_the_rule_exactly_the_renamed_results_differ(airline_runs: list[Trajectory]) -> None:
    different: Counter[str] = Counter()
    for record in airline_runs:
        replayed = play(record, Tau2Environment(normalise={}))
        for match, step in zip(replayed.matches, record.steps, strict=True):
            if match.level is None:
                different[step.action.tool_calls[0].name] += 1
    assert different == {"get_user_details": 59}


def test_recomputed_outcomes_agree_with_the_recorded_ones(airline: list[Replayed]) -> None:
    agreed: Counter[str] = Counter()
    for item in airline:
        scores, outcome = item.record.scores, item.record.outcome
        assert outcome is not None
        kind = next((name for name in ("r_actions", "r_outputs") if name in scores), "neither")
        if kind != "neither":
            assert item.ends[-1].info[kind] == scores[kind].value, item.record.task.id
            assert item.reward == outcome.value
        else:
            assert not item.ends
            assert outcome.value == 0.0
            assert item.environment.state()["finished"] is False
        agreed[kind] += 1
    assert agreed == {"r_actions": 91, "r_outputs": 7, "neither": 2}


def test_every_finished_run_ends_once_at_its_last_step(airline: list[Replayed]) -> None:
    assert Counter(len(item.ends) for item in airline) == {1: 98, 0: 2}
    transfers = [item for item in airline if item.record.steps[-1].action.tool_calls and item.ends]
    assert len(transfers) == 22
    assert {item.record.steps[-1].action.tool_calls[0].name for item in transfers} == {"transfer_to_human_agents"}


@cache
def dumped(old: bool) -> dict[str, dict[str, Any]]:
    records = load_domain("airline", old).records
    return {name: {key: record.model_dump() for key, record in items.items()} for name, items in records.items()}


def full_hash(environment: Tau2Environment) -> str:
    """tau2's own hash of the whole database with the records that the overlay holds, changed or not."""
    world = environment._world
    assert isinstance(world, OverlayWorld)
    whole = dict(dumped(environment._dialect.old))
    for name, overlay in world.database.overlays.items():
        held = {key: record.model_dump() for key, record in overlay.touched().items()}
        assert list(overlay) == [*whole[name], *(key for key in held if key not in whole[name])]
        whole[name] = {**whole[name], **held}
    return str(tau2("utils").get_dict_hash(whole))


def test_overlay_verdicts_equal_the_full_hash_on_all_runs(airline: list[Replayed]) -> None:
    gold_hashes: dict[str, str] = {}
    for item in airline:
        task = item.record.task
        if task.id not in gold_hashes:
            gold = ready(task)
            for action in task.private["actions"]:
                gold.step(calls((action["name"], action["kwargs"])))
            gold_hashes[task.id] = full_hash(gold)
        equal = full_hash(item.environment) == gold_hashes[task.id]
        assert item.environment.state()["db_equal"] is equal, task.id
        if item.ends:
            assert item.ends[-1].info["r_actions"] == float(equal)
    assert len(gold_hashes) == 50


def test_the_overlay_executes_as_tau2_itself_does(airline_runs: list[Trajectory]) -> None:
    """All runs on tau2's own environment, with its own hash where a tool may have written.

    Its one database is mended in between from the pristine one, where the overlay says that it changed: the hash at the
    end shows that nothing else had.
    """
    native_call = tau2("data_model.message").ToolCall
    native = tau2("domains.airline.environment").get_environment()
    pristine = load_domain("airline").environment.tools.db
    untouched = native.get_db_hash()
    assert full_hash(ready(dialect="tau2-bench")) == untouched
    for record in airline_runs:
        environment = ready(record.task, dialect="tau2-bench")
        made = [call for step in record.steps for call in step.action.tool_calls]
        for call in made:
            assert call.arguments is not None
            wanted = native.get_response(native_call(id="1", name=call.name, arguments=dict(call.arguments)))
            assert answer(environment, call.name, **call.arguments) == wanted.content
        changed = environment._world.changed()
        if any(load_domain("airline").writing["assistant"].get(call.name) for call in made):
            native_hash = native.get_db_hash()
            assert native_hash == full_hash(environment)
            assert (native_hash == untouched) == (not changed)
        for place in changed:
            name, key = place.split("/", 1)
            mend(getattr(native.tools.db, name), getattr(pristine, name), key)
    assert native.get_db_hash() == untouched


def mend(records: dict[str, Any], pristine: dict[str, Any], key: str) -> None:
    if key in pristine:
        records[key] = pristine[key].model_copy(deep=True)
    else:
        del records[key]


def test_the_shared_base_is_never_written(airline: list[Replayed]) -> None:
    loaded_again = tau2("domains.airline.environment").get_environment()
    assert load_domain("airline").environment.get_db_hash() == loaded_again.get_db_hash()


def test_giving_up_at_once_passes_only_where_gold_writes_nothing(airline_runs: list[Trajectory]) -> None:
    tasks = {record.task.id: record.task for record in airline_runs}
    verdicts: Counter[tuple[float, float | None]] = Counter()
    for task in tasks.values():
        result = ready(task).step(calls(("transfer_to_human_agents", {"summary": "I cannot help."})))
        assert result.done
        assert result.observations[0].text == "Transfer successful"
        assert result.reward == float(all(part in (1.0, None) for part in result.info.values()))
        verdicts[result.info["r_actions"], result.info["r_outputs"]] += 1
    assert verdicts == {(1.0, None): 19, (1.0, 0.0): 1, (0.0, None): 27, (0.0, 0.0): 3}


# --- forks ------------------------------------------------------------------------------------------------------------

WRITES: Sequence[tuple[str, dict[str, Any]]] = (
    ("cancel_reservation", {"reservation_id": "Z7GOZK"}),
    ("send_certificate", {"user_id": "mia_li_3668", "amount": 50}),
    ("send_certificate", {"user_id": "mia_li_3668", "amount": 70}),
    (
        "update_reservation_baggages",
        {"reservation_id": "NO6JO3", "total_baggages": 3, "nonfree_baggages": 1, "payment_id": "credit_card_4421486"},
    ),
    ("update_reservation_passengers", {"reservation_id": "NO6JO3", "passengers": []}),
    ("get_user_details", {"user_id": "mia_li_3668"}),
    ("get_reservation_details", {"reservation_id": "NO6JO3"}),
    (
        "book_reservation",
        {
            "user_id": "mia_li_3668",
            "origin": "JFK",
            "destination": "SEA",
            "flight_type": "one_way",
            "cabin": "economy",
            "flights": [{"flight_number": "HAT083", "date": "2024-05-20"}],
            "passengers": [{"first_name": "Mia", "last_name": "Li", "dob": "1990-04-05"}],
            "payment_methods": [{"payment_id": "credit_card_4421486", "amount": 100}],
            "total_baggages": 0,
            "nonfree_baggages": 0,
            "insurance": "no",
        },
    ),
)


@pytest.mark.parametrize("dialect", ["tau-bench", "tau2-bench"])
@settings(max_examples=60, deadline=None)
@given(plan=st.lists(st.tuples(st.integers(0, 3), st.integers(-1, len(WRITES) - 1)), max_size=25))
def test_forks_never_see_each_other(dialect: str, plan: list[tuple[int, int]]) -> None:
    """Each (branch, call) of the plan acts on one of the living branches; call -1 forks it. Every branch must end in
    the state that its own calls make in a fresh world."""
    branches: list[tuple[Tau2Environment, list[int]]] = [(ready(dialect=dialect), [])]
    for at, call in plan:
        environment, done = branches[at % len(branches)]
        if call < 0:
            branches.append((environment.fork(), list(done)))
        else:
            environment.step(calls(WRITES[call]))
            done.append(call)
    for environment, done in branches:
        fresh = ready(dialect=dialect)
        for call in done:
            fresh.step(calls(WRITES[call]))
        assert environment._world.changed() == fresh._world.changed()
        assert environment.state_key() == fresh.state_key()
        assert fresh.step(calls(WRITES[5])) == environment.step(calls(WRITES[5]))


def test_a_fork_keeps_what_was_said_and_called() -> None:
    task = Task("0", data={"instruction": ""}, private={"actions": [], "outputs": ["1286"]})
    environment = ready(task)
    environment.step(Message("assistant", "That is $1,286 in total."))
    twin, other = environment.fork(), ready(task).fork()
    assert twin.hear(STOP).reward == 1.0
    assert other.hear(STOP).reward == 0.0
    assert twin.state()["outputs_said"] is True
    assert environment.state()["finished"] is False


def test_the_cost_of_a_fork_is_far_below_a_copy() -> None:
    environment = ready()
    for call in WRITES:
        environment.step(calls(call))
    started = time.process_time()
    for _ in range(500):
        environment.fork()
    assert (time.process_time() - started) / 500 < 0.001  # a deep copy costs .4 s; the benchmark has the real figure


# --- the old dialect --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "arguments", "text"),
    [
        ("no_such_tool", {}, "Unknown action no_such_tool"),
        ("think", {"thought": "hm"}, ""),
        ("get_user_details", {"user_id": "nobody"}, "Error: user not found"),
        ("get_reservation_details", {"reservation_id": "XXXXXX"}, "Error: user not found"),
        ("cancel_reservation", {"reservation_id": "XXXXXX"}, "Error: reservation not found"),
        ("cancel_reservation", {"reservation_id": []}, "Error: unhashable type: 'list'"),
        ("get_flight_status", {"flight_number": "HAT000", "date": "x"}, "Error: flight HAT000 not found"),
        ("calculate", {"expression": "2 * 3"}, "6.0"),
        ("calculate", {"expression": "2 ** 10"}, "1024.0"),
        ("calculate", {"expression": "x"}, "Error: invalid characters in expression"),
        ("calculate", {"expression": "1 / 0"}, "Error: division by zero"),
        ("calculate", {"expression": "9**9**9**9"}, "Error: the power is too large"),
        ("calculate", {"expression": "9**(9999*9999)"}, "Error: the power is too large"),
        (
            "cancel_reservation",
            {},
            "Error: CancelReservation.invoke() missing 1 required positional argument: 'reservation_id'",
        ),
    ],
)
def test_errors_go_back_to_the_agent_in_the_old_wording(name: str, arguments: dict[str, Any], text: str) -> None:
    environment = ready()
    assert answer(environment, name, **arguments) == text
    assert environment.state()["touched"] == {}


def test_arguments_that_are_no_object_are_an_observation() -> None:
    for dialect in ("tau-bench", "tau2-bench"):
        bad = Message("assistant", tool_calls=(ToolCall("c", "calculate", None, "{"),))
        result = ready(dialect=dialect).step(bad)
        assert result.observations[0].text == "Error: the arguments are not a JSON object"


def test_the_old_agent_executes_one_call_a_message_and_the_new_one_all() -> None:
    both = calls(*WRITES[1:3])
    old, new = ready(dialect="tau-bench"), ready(dialect="tau2-bench")
    assert [message.text[:11] for message in old.step(both).observations] == ["Certificate", "Error: not "]
    assert [message.text[:11] for message in new.step(both).observations] == ["Certificate", "Certificate"]
    assert [message.tool_call_id for message in old.step(both).observations] == ["c0", "c1"]


def test_text_beside_an_old_call_was_not_said() -> None:
    task = Task("0", data={"instruction": ""}, private={"actions": [], "outputs": ["1286"]})
    beside = replace(calls(("think", {"thought": ""})), content="1286")
    old, new = ready(task), ready(task, dialect="tau2-bench")
    old.step(beside)
    new.step(beside)
    assert (old.hear(STOP).reward, new.hear(STOP).reward) == (0.0, 1.0)


def test_old_seats_and_cabins_stay_and_new_ones_change() -> None:
    booked = WRITES[-1]
    for dialect, places in (("tau-bench", 2), ("tau2-bench", 3)):
        environment = ready(dialect=dialect)
        environment.step(calls(booked))
        assert len(environment.state()["touched"]) == places  # user and reservation; today the flight too


def test_without_gold_there_is_no_verdict() -> None:
    environment = ready(Task("0", data={"instruction": "", "domain": "airline"}))
    ended = environment.hear(STOP)
    assert (ended.done, ended.reward) == (True, None)
    assert environment.state()["db_equal"] is None


def test_the_state_is_small_json_without_gold(airline: list[Replayed]) -> None:
    for item in airline:
        state = json.loads(json.dumps(item.environment.state()))
        assert set(state) == {"domain", "touched", "db_equal", "outputs_said", "finished"}
        assert len(json.dumps(state)) < 50_000


def test_tools_are_schemas_of_the_domain() -> None:
    old = {tool["function"]["name"] for tool in ready().tools()}
    new = {tool["function"]["name"] for tool in ready(dialect="tau2-bench").tools()}
    assert old - new == {"think"}
    assert len(new) == 14
    assert {tool["function"]["name"] for tool in Tau2Environment(domain="retail").tools()} >= {"get_order_details"}
    assert all(tool["function"]["parameters"]["type"] == "object" for tool in ready().tools())


def test_the_prompt_is_the_policy_and_the_first_message() -> None:
    prompt = Tau2Environment().reset(Task("0", "Hello", {"instruction": ""}, private={"actions": []}))
    assert [message.role for message in prompt] == ["system", "user"]
    assert "Airline Agent Policy" in prompt[0].text
    assert environment_class(ready()) == "forkable"
