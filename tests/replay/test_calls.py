"""Calls of a policy: journalled before and after, never made twice, and kept exactly."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ttc_replay import Message, Proposal, ProposalRequest, Spec, Task, ToolCall, Usage
from ttc_replay.replay.calls import Caller, add_usage, call_key, proposal_from_dict, proposal_to_dict
from ttc_replay.storage.errors import ProviderUnavailable

REQUEST = ProposalRequest(
    task=Task("t1", "reach 9"),
    trajectory_id="r1",
    step=2,
    node="5",
    messages=(Message("user", "reach 9"),),
    tools=({"type": "function", "function": {"name": "add"}},),
    n=2,
    seed=17,
    sampling={"first_sample": 0},
)


class Paid:
    """A metered policy that says which call this was."""

    metered = True

    def __init__(self) -> None:
        self.asked: list[ProposalRequest] = []

    def propose(self, requests: Sequence[ProposalRequest]) -> list[list[Proposal]]:
        self.asked += requests
        usage = Usage(10, 2, None, 0.5)
        return [[Proposal(Message("assistant", f"seed {r.seed}"), usage=usage)] * r.n for r in requests]


class AsyncPaid(Paid):
    """The same, async."""

    async def propose(self, requests: Sequence[ProposalRequest]) -> list[list[Proposal]]:  # type: ignore[override]
        await asyncio.sleep(0)
        return super().propose(requests)


class Free(Paid):
    """The same, for nothing."""

    metered = False


class Down(Paid):
    """A provider that is down."""

    def propose(self, requests: Sequence[ProposalRequest]) -> list[list[Proposal]]:
        raise ProviderUnavailable("no answer", hint="wait")


class Miscounts(Paid):
    """Answers one request too few."""

    def propose(self, requests: Sequence[ProposalRequest]) -> list[list[Proposal]]:
        return super().propose(requests)[1:]


class Talks(Paid):
    """Returns what is no proposal."""

    def propose(self, requests: Sequence[ProposalRequest]) -> Any:
        return [[{"content": "a plain dict is fine"}, 7] for _ in requests]


def caller(policy: Any, lookup: Any = None, events: list[dict[str, Any]] | None = None) -> tuple[Caller, Any]:
    """A caller and the list of events it journals."""
    journal: list[dict[str, Any]] = [] if events is None else events
    made = Caller(policy, Spec("paid"), lambda event: journal.append(dict(event)), lookup or (lambda keys: {}))
    for event in list(journal):
        made.recall(event)
    return made, journal


def ask(made: Caller, *requests: ProposalRequest) -> list[Any]:
    return asyncio.run(made.propose(requests))


# --- keys -----------------------------------------------------------------------------------------------------------

OTHER_CALLS: Mapping[str, Mapping[str, Any]] = {
    "messages": {"messages": (Message("user", "reach 10"),)},
    "reasoning": {"messages": (Message("user", "reach 9", reasoning="hm"),)},
    "tools": {"tools": ()},
    "n": {"n": 3},
    "seed": {"seed": 18},
    "first sample": {"sampling": {"first_sample": 2}},
}
SAME_CALLS: Mapping[str, Mapping[str, Any]] = {
    "which node asks": {"node": "6", "step": 3},
    "what is excluded": {"exclude": frozenset({"say:x"})},
    "a live world": {"environment": object()},
}


@pytest.mark.parametrize("what", OTHER_CALLS)
def test_the_key_depends_on(what: str) -> None:
    assert call_key({}, replace(REQUEST, **OTHER_CALLS[what])) != call_key({}, REQUEST)


@pytest.mark.parametrize("what", SAME_CALLS)
def test_the_key_does_not_depend_on(what: str) -> None:
    assert call_key({}, replace(REQUEST, **SAME_CALLS[what])) == call_key({}, REQUEST)


def test_the_key_depends_on_the_policy() -> None:
    keys = {call_key(identity, REQUEST) for identity in ({}, {"model": "a"}, {"model": "b"})}
    assert len(keys) == 3


# --- paying once ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", [Paid, AsyncPaid])
def test_a_paid_call_is_journalled_before_and_after(policy: Any) -> None:
    paid = policy()
    made, events = caller(paid)
    (reply,) = ask(made, REQUEST)
    assert [event["event"] for event in events] == ["intent", "result"]
    assert events[0] == {"event": "intent", "key": reply.key, "trajectory": "r1", "node": "5"}
    assert events[1]["key"] == reply.key
    assert [proposal.action.text for proposal in reply.proposals] == ["seed 17", "seed 17"]
    assert reply.usage == Usage(20, 4, None, 1.0)
    assert made.repeated_calls == 0


def test_a_call_of_this_session_is_not_made_again() -> None:
    paid = Paid()
    made, events = caller(paid)
    first = ask(made, REQUEST)
    assert ask(made, replace(REQUEST, node="other")) == first
    assert len(paid.asked) == 1
    assert len(events) == 2


def test_a_finished_call_of_an_earlier_session_is_not_made_again() -> None:
    made, events = caller(Paid())
    first = ask(made, REQUEST)
    paid = Paid()
    again, _ = caller(paid, events=events)
    assert ask(again, REQUEST) == first
    assert paid.asked == []
    assert again.repeated_calls == 0


def test_a_call_that_was_in_flight_is_made_again_and_counted() -> None:
    made, events = caller(Paid())
    ask(made, REQUEST)
    paid = Paid()
    again, journal = caller(paid, events=events[:1])
    ask(again, REQUEST)
    assert len(paid.asked) == 1
    assert again.repeated_calls == 1
    third, _ = caller(Paid(), events=journal)
    assert third.repeated_calls == 1, "counted over all sessions of the run"


def test_the_permanent_cache_answers_across_runs() -> None:
    made, events = caller(Paid())
    first = ask(made, REQUEST)
    result = events[1]
    looked_up: list[list[str]] = []

    def lookup(keys: Sequence[str]) -> dict[str, Any]:
        looked_up.append(list(keys))
        return {key: {"body": result["body"], "usage": result["usage"]} for key in keys if key == result["key"]}

    paid = Paid()
    other, journal = caller(paid, lookup)
    assert ask(other, REQUEST) == first
    assert paid.asked == []
    assert journal == [{**result, "cached": True}], "the run's own journal is complete without the cache"
    ask(other, REQUEST)
    assert looked_up == [[result["key"]]], "asked once"
    alone = Paid()
    resumed, _ = caller(alone, events=journal)
    assert ask(resumed, REQUEST) == first
    assert alone.asked == []


def test_only_what_is_missing_of_a_batch_is_asked_and_order_is_kept() -> None:
    requests = [replace(REQUEST, seed=seed) for seed in (1, 2, 3, 4)]
    made, events = caller(Paid())
    ask(made, requests[1], requests[3])
    paid = Paid()
    again, _ = caller(paid, events=events)
    replies = ask(again, *requests)
    assert [request.seed for request in paid.asked] == [1, 3]
    assert [reply.proposals[0].action.text for reply in replies] == ["seed 1", "seed 2", "seed 3", "seed 4"]


def test_what_costs_nothing_is_not_journalled() -> None:
    free = Free()
    made, events = caller(free, lambda keys: pytest.fail("no cache for what costs nothing"))
    replies = ask(made, REQUEST, REQUEST)
    assert events == []
    assert [reply.key for reply in replies] == [None, None]
    assert len(free.asked) == 2
    assert made.estimate(REQUEST) == Usage()


# --- failures -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "code", "says"),
    [
        (Down, "TTC-E501", "no answer"),
        (Miscounts, "TTC-E402", "1 answers to 2 requests"),
        (Talks, "TTC-E402", "policy"),
    ],
)
def test_a_failure_is_the_replys_error_and_no_result(policy: Any, code: str, says: str) -> None:
    made, events = caller(policy())
    replies = ask(made, REQUEST, replace(REQUEST, seed=18))
    assert [reply.error.error_code for reply in replies] == [code, code]
    assert all(says in reply.error.message for reply in replies)
    assert [event["event"] for event in events] == ["intent", "intent"]
    ask(made, REQUEST)
    assert made.repeated_calls == 1


# --- what is kept ---------------------------------------------------------------------------------------------------

texts = st.text(max_size=8)
optional = st.none() | texts
arguments = st.none() | st.dictionaries(texts, st.integers() | texts, max_size=2)
tool_calls = st.builds(ToolCall, optional, texts, arguments, optional)
actions = st.builds(
    Message, st.just("assistant"), optional, optional, st.lists(tool_calls, max_size=2).map(tuple), optional, optional
)
counts = st.none() | st.integers(0, 10**6)
proposals = st.builds(
    Proposal,
    actions,
    st.none() | st.floats(-50, 0),
    st.none() | st.builds(Usage, counts, counts, counts, st.none() | st.floats(0, 10)),
    optional,
    st.none() | st.tuples(texts, st.integers(0, 99)),
)


@given(proposals)
def test_a_proposal_comes_back_exactly(proposal: Proposal) -> None:
    """Also calls whose arguments were never text: a resumed tree would differ from one that was not interrupted."""
    import json

    assert proposal_from_dict(json.loads(json.dumps(proposal_to_dict(proposal)))) == proposal


def test_usage_adds_up_field_by_field() -> None:
    assert add_usage([]) == Usage()
    assert add_usage([Usage(1, None, None, 0.5), Usage(2, 3, None, None)]) == Usage(3, 3, None, 0.5)
