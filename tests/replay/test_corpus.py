"""The corpus policy: levels, ranking, priors, determinism; on 100 real runs it finds what the other trial did."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ttc_replay.replay.policies.base import Policy
from ttc_replay.replay.policies.corpus import CorpusPolicy
from ttc_replay.storage.codec import action_key, messages_from, steps_from_messages
from ttc_replay.storage.errors import PolicyFailed, UsageError
from ttc_replay.storage.records import Message, Outcome, ProposalRequest, Source, Step, Task, ToolCall, Trajectory

Act = tuple[str, Any, Any]
"""("say", text, user's reply) or (tool, arguments, result)."""

TAU = Path(__file__).parents[2] / ".." / "shared" / "traces" / "tau-bench" / "gpt-4o-airline.trials-0-1.json"


def step(number: int, act: Act, ids: str = "c") -> Step:
    """One step in the short notation."""
    name, given, answer = act
    if name == "say":
        reply = () if answer is None else (Message("user", answer),)
        return Step(number, Message("assistant", given), reply)
    call = ToolCall(f"{ids}{number}", name, given)
    content = answer if isinstance(answer, str) else json.dumps(answer)
    return Step(
        number, Message("assistant", tool_calls=(call,)), (Message("tool", content, tool_call_id=call.id, name=name),)
    )


def run(name: str, task: str, outcome: float | None, *acts: Act, asks: str = "Please help.") -> Trajectory:
    """A recorded run in the short notation."""
    return Trajectory(
        name,
        Task(task),
        prompt=(Message("system", "Be good."), Message("user", asks)),
        steps=tuple(step(number, act) for number, act in enumerate(acts)),
        outcome=None if outcome is None else Outcome(outcome),
    )


def request(
    task: str, *acts: Act, asks: str = "Please help.", n: int = 8, seed: int = 0, exclude: Sequence[str] = ()
) -> ProposalRequest:
    """What the engine would ask after these acts in a branch of an unknown run of the task."""
    branch = run("branch", task, None, *acts, asks=asks)
    return ProposalRequest(
        branch.task, "branch", len(acts), "0", branch.messages, (), n, seed, exclude=frozenset(exclude)
    )


def prepared(*records: Trajectory, **options: Any) -> CorpusPolicy:
    """A policy that has seen these."""
    policy = CorpusPolicy(**options)
    policy.prepare(records)
    return policy


def keys(policy: CorpusPolicy, asked: ProposalRequest) -> list[str]:
    """Proposed action keys, best first."""
    return [action_key(proposal.action) for proposal in policy.propose([asked])[0]]


LOOK = ("look", {"at": "door"}, {"locked": True})
OPEN = ("open", {"with": "key"}, "opened")
FORCE: Act = ("force", {}, "Error: too heavy")
ASK = ("say", "Which door?", "The red one.")

GOOD = run("good", "door", 1.0, LOOK, OPEN, ("enter", {}, "inside"))
BAD = run("bad", "door", 0.0, LOOK, FORCE, FORCE, ("say", "I give up.", None))


@pytest.mark.parametrize(
    ("acts", "key", "level"),
    [
        ((), 'call:look({"at":"door"})', 1),
        ((LOOK,), 'call:open({"with":"key"})', 1),
        ((LOOK, FORCE), "call:force({})", 1),
        ((LOOK, OPEN), "call:enter({})", 1),
        ((OPEN, LOOK), "call:enter({})", 1),
        ((ASK, OPEN), "call:enter({})", 2),
        ((("hum", {}, "la"), FORCE), "say:I give up.", 2),
        ((), "call:enter({})", 3),
        ((("hum", {}, "la"),), "say:I give up.", 3),
    ],
)
def test_levels(acts: tuple[Act, ...], key: str, level: int) -> None:
    found = {candidate.key: candidate for candidate in prepared(GOOD, BAD).candidates(request("door", *acts))}
    assert found[key].level == level


def test_it_is_a_finite_policy_that_never_blocks() -> None:
    policy = CorpusPolicy()
    assert isinstance(policy, Policy)
    assert (policy.sampling, policy.inline) == (False, True)


def test_what_ended_well_goes_first() -> None:
    policy = prepared(GOOD, BAD)
    assert keys(policy, request("door", LOOK))[0] == 'call:open({"with":"key"})'


def test_how_often_against_how_well() -> None:
    often = [run(f"often{number}", "door", 0.0, LOOK, FORCE) for number in range(4)]
    records = (*often, run("once", "door", 1.0, LOOK, OPEN))
    assert keys(prepared(*records, success_weight=0.0), request("door", LOOK))[0] == "call:force({})"
    assert keys(prepared(*records, success_weight=3.0), request("door", LOOK))[0] == 'call:open({"with":"key"})'


def test_success_rates_are_smoothed_and_unknown_outcomes_say_nothing() -> None:
    records = (run("a", "t", 1.0, ("a", {}, "")), run("b", "t", 0.0, ("b", {}, "")), run("c", "t", None, ("c", {}, "")))
    found = {candidate.key: candidate.score for candidate in prepared(*records).candidates(request("t"))}
    assert found["call:a({})"] / found["call:c({})"] == pytest.approx((2 / 3) / (1 / 2))
    assert found["call:b({})"] / found["call:c({})"] == pytest.approx((1 / 3) / (1 / 2))


def test_priors_are_shares_of_all_candidates_and_do_not_depend_on_what_is_excluded() -> None:
    policy = prepared(GOOD, BAD)
    everything = policy.propose([request("door", LOOK)])[0]
    assert sum(math.exp(item.logprob or 0) for item in everything) == pytest.approx(1.0)
    first = action_key(everything[0].action)
    later = policy.propose([request("door", LOOK, n=1, exclude=[first])])[0]
    assert later == [everything[1]]


@pytest.mark.parametrize("n", [1, 2, 100])
def test_n_and_exclude_are_honoured(n: int) -> None:
    policy = prepared(GOOD, BAD)
    everything = keys(policy, request("door", LOOK, n=100))
    assert keys(policy, request("door", LOOK, n=n)) == everything[:n]
    assert keys(policy, request("door", LOOK, n=n, exclude=everything[:2])) == everything[2:][:n]
    assert keys(policy, request("door", LOOK, n=n, exclude=everything)) == []


def test_limit_bounds_a_situation_for_good() -> None:
    asked = request("door", LOOK)
    policy = prepared(GOOD, BAD, limit=2)
    known = keys(policy, asked)
    assert len(known) == 2
    assert keys(policy, request("door", LOOK, exclude=known)) == []


def test_every_recorded_action_names_its_source() -> None:
    runs = {"good": GOOD, "bad": BAD}
    for acts in ((), (LOOK,), (LOOK, FORCE)):
        for proposal in prepared(GOOD, BAD).propose([request("door", *acts)])[0]:
            assert proposal.source is not None
            name, number = proposal.source
            assert action_key(runs[name].steps[number].action) == action_key(proposal.action)


def test_an_action_is_repeated_only_as_often_as_its_run_did() -> None:
    policy = prepared(GOOD, BAD)
    assert "call:force({})" in keys(policy, request("door", LOOK, FORCE))
    assert "call:force({})" not in keys(policy, request("door", LOOK, FORCE, FORCE))
    assert 'call:look({"at":"door"})' not in keys(policy, request("door", LOOK))


def test_spoken_messages_are_followed_by_what_followed_them() -> None:
    talker = run("talker", "door", 1.0, ASK, ("say", "Red it is.", "Yes."), LOOK)
    policy = prepared(talker, run("other", "door", 1.0, ("say", "Hello.", "Hi."), OPEN))
    assert keys(policy, request("door", ASK))[0] == "say:Red it is."
    assert policy.propose([request("door", ASK)])[0][0].source == ("talker", 1)


def test_a_failed_call_changes_nothing() -> None:
    found = {item.key: item for item in prepared(GOOD).candidates(request("door", LOOK, FORCE))}
    assert found['call:open({"with":"key"})'].level == 1


def test_equal_ids_of_other_formats_or_domains_are_other_tasks() -> None:
    def labelled(name: str, log_format: str, domain: str, tool: str) -> Trajectory:
        plain = run(name, "0", 1.0, (tool, {}, "ok"))
        task = Task("0", data={"domain": domain})
        return Trajectory(name, task, prompt=plain.prompt, steps=plain.steps, source=Source(log_format))

    airline, retail = labelled("a", "x", "airline", "fly"), labelled("r", "x", "retail", "buy")
    policy = prepared(airline, retail, labelled("o", "y", "airline", "walk"), same_task_only=True)
    of_record = ProposalRequest(airline.task, "a", 0, "0", tuple(airline.prompt), (), 8, 0)
    of_stranger = ProposalRequest(airline.task, "unknown", 0, "0", tuple(airline.prompt), (), 8, 0)
    assert keys(policy, of_record) == ["call:fly({})"]
    assert set(keys(policy, of_stranger)) == {"call:fly({})", "call:walk({})"}


def test_tools_that_are_not_there_are_not_proposed() -> None:
    asked = request("door", LOOK)
    tools = ({"type": "function", "function": {"name": "open"}},)
    narrowed = ProposalRequest(asked.task, "branch", 1, "0", asked.messages, tools, 8, 0)
    assert set(keys(prepared(GOOD, BAD), narrowed)) == {'call:open({"with":"key"})', "say:I give up."}


def user_run(name: str, task: str, user: str, orders: Sequence[str], outcome: float = 1.0) -> Trajectory:
    """Finds a user by what was said, then looks at the user's second order."""
    return run(
        name,
        task,
        outcome,
        ("find_user", {"user_id": user, "strict": True}, {"name": "x", "orders": list(orders)}),
        ("get_order", {"order_id": orders[1]}, {"order_id": orders[1], "status": "sent"}),
        asks=f"I am {user}.",
    )


def test_other_tasks_lend_their_tools_with_arguments_bound_here() -> None:
    records = (
        user_run("a", "t1", "ann_lee_11", ["A-100", "A-101"]),
        user_run("b", "t2", "bob_ray_22", ["B-200", "B-201"]),
    )
    policy = prepared(*records)
    first = request("t9", asks="Hello, cay_fox_33 here.")
    assert keys(policy, first) == ['call:find_user({"strict":true,"user_id":"cay_fox_33"})']
    found = ("find_user", {"user_id": "cay_fox_33", "strict": True}, {"orders": ["C-300", "C-301", "C-302"]})
    bound = policy.propose([request("t9", found, asks="Hello, cay_fox_33 here.")])[0]
    assert {action_key(item.action) for item in bound} == {
        f'call:get_order({{"order_id":"C-30{number}"}})' for number in range(3)
    }
    assert all(item.source is None and item.action.tool_calls[0].id for item in bound)
    assert keys(prepared(*records, same_task_only=True), first) == []


def test_a_call_that_cannot_be_bound_or_was_made_is_not_proposed() -> None:
    policy = prepared(
        user_run("a", "t1", "ann_lee_11", ["A-100", "A-101"]), user_run("b", "t2", "bob_ray_22", ["B-200", "B-201"])
    )
    nobody = ("find_user", {"user_id": "cay_fox_33", "strict": True}, "Error: no such user")
    assert keys(policy, request("t9", asks="Hello there.")) == []
    assert keys(policy, request("t9", nobody, asks="I am cay_fox_33.")) == []


@pytest.mark.parametrize(("value", "proposed"), [("north", True), ("south", False)])
def test_a_constant_must_be_the_same_in_two_runs(value: str, proposed: bool) -> None:
    policy = prepared(
        run("a", "t1", 1.0, ("turn", {"to": "north"}, "ok")), run("b", "t2", 1.0, ("turn", {"to": value}, "ok"))
    )
    assert (keys(policy, request("t9")) == ['call:turn({"to":"north"})']) == proposed
    assert bool(keys(policy, request("t9"))) == proposed


def test_call_ids_stay_unique_in_a_stitched_branch() -> None:
    late = run("late", "door", 1.0, OPEN, LOOK)
    early = step(0, LOOK)
    branch = (Message("user", "Please help."), early.action, *early.observations)
    asked = ProposalRequest(Task("door"), "branch", 1, "0", branch, (), 8, 0)
    proposal = prepared(late).propose([asked])[0][0]
    assert (late.steps[0].action.tool_calls[0].id, early.action.tool_calls[0].id) == ("c0", "c0")
    assert proposal.action.tool_calls[0].id not in (None, "c0")
    assert proposal.source == ("late", 0)


def test_what_the_user_does_with_own_tools_is_not_seen() -> None:
    own = Message("user", tool_calls=(ToolCall("u", "reboot", {}),), requestor="user")
    result = Message("tool", "done", tool_call_id="u", requestor="user")
    plain = request("door", LOOK)
    asked = ProposalRequest(plain.task, "branch", 1, "0", (*plain.messages, own, result), (), 8, 0)
    policy = prepared(GOOD, BAD)
    assert policy.propose([asked]) == policy.propose([plain])


@given(st.permutations([GOOD, BAD, run("third", "door", 0.5, OPEN, LOOK), run("else", "other", 1.0, LOOK, OPEN)]))
def test_the_order_of_the_archive_does_not_matter(records: list[Trajectory]) -> None:
    asked = [request("door"), request("door", LOOK), request("fresh", LOOK)]
    assert prepared(*records).propose(asked) == prepared(*sorted(records, key=lambda item: item.id)).propose(asked)


def test_ties_are_broken_by_the_seed_and_by_nothing_else() -> None:
    policy = prepared(*(run(f"r{number}", "t", 1.0, (f"tool{number}", {}, "ok")) for number in range(6)))
    orders = {seed: keys(policy, request("t", seed=seed)) for seed in range(5)}
    assert all(set(order) == set(orders[0]) for order in orders.values())
    assert len({tuple(order) for order in orders.values()}) > 1
    assert all(keys(policy, request("t", seed=seed)) == order for seed, order in orders.items())


def test_the_same_run_twice_counts_once_and_preparing_replaces() -> None:
    policy = prepared(GOOD, GOOD, BAD)
    assert policy.propose([request("door")]) == prepared(GOOD, BAD).propose([request("door")])
    policy.prepare([])
    assert policy.propose([request("door")]) == [[]]


def test_unprepared_and_bad_options() -> None:
    with pytest.raises(PolicyFailed):
        CorpusPolicy().propose([request("door")])
    bad: list[dict[str, Any]] = [{"limit": 0}, {"success_weight": -1.0}, {"success_weight": math.nan}]
    for options in bad:
        with pytest.raises(UsageError):
            CorpusPolicy(**options)


def airline_runs(trial: int) -> list[Trajectory]:
    """One trial of the 50 recorded airline tasks."""
    runs = []
    for row in json.loads(TAU.read_text(encoding="utf-8")):
        if row["trial"] == trial:
            prompt, steps = steps_from_messages(messages_from(row["traj"]))
            name = f"{row['task_id']}/{trial}"
            runs.append(Trajectory(name, Task(str(row["task_id"])), None, prompt, steps, Outcome(row["reward"])))
    return runs


@pytest.mark.skipif(not TAU.exists(), reason="the shared tau-bench traces are not beside this checkout")
def test_half_of_the_calls_of_a_real_trial_are_found_in_the_other_trial() -> None:
    policy = prepared(*airline_runs(0))
    tried = found = 0
    for record in airline_runs(1):
        messages = list(record.prompt)
        for taken in record.steps:
            if taken.action.tool_calls:
                asked = ProposalRequest(record.task, record.id, taken.index, "0", tuple(messages), (), 8, 0)
                tried += 1
                found += action_key(taken.action) in keys(policy, asked)
            messages += [taken.action, *taken.observations]
    assert tried > 200
    assert found / tried > 0.45
