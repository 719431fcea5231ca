"""The contract of a policy, checked one promise at a time (docs/policies.md says what it promises)."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..storage.canonical import seed_from
from ..storage.codec import action_key, messages_to_dicts, proposal_from
from ..storage.errors import PolicyFailed, TtcError
from ..storage.records import Message, Proposal, ProposalRequest, Trajectory
from .contract_checks_base import (
    WAITING_SECONDS,
    Check,
    Checking,
    Said,
    brief,
    failed,
    in_thread,
    json_of,
    passed,
    run_checks,
    skipped,
    waited_seconds,
)
from .drive import finish, run_inline

WIDTH = 3
"""Actions that are asked for where the number matters."""
REPEATS = 3
TOOL = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Add a whole number to the total.",
        "parameters": {"type": "object", "properties": {"by": {"type": "integer"}}, "required": ["by"]},
    },
}
"""The tool of the request that is made up when no record is given."""
_PROMPT = (Message("user", "Count to 3."),)


@dataclass(slots=True)
class PolicyBench:
    """A policy, the requests it is asked, and the recorded runs it may see."""

    policy: Any
    requests: list[ProposalRequest]
    records: Sequence[Trajectory]
    shown: list[str]
    """The requests as they were before anybody was asked."""

    @property
    def sampling(self) -> bool:
        """Whether fewer proposals than asked do not mean that there are no others."""
        return bool(getattr(self.policy, "sampling", False))


def check_policy(
    policy: Any, *, record: Trajectory | None = None, records: Sequence[Trajectory] = (), seed: int = 0
) -> list[Check]:
    """Check a policy on the contexts of `record`, else on one that is made up; raises nothing that it raises.

    `records`: what `prepare` is given. A policy that calls a model is called about a dozen times, for money if it costs
    money. `task.private` and outcomes are empty in all that it sees.
    """
    shown = [_public(item) for item in records or ([record] if record is not None else [])]
    requests = _requests(record, seed)
    bench = PolicyBench(policy, requests, shown, [_shown(request) for request in requests])
    checks: list[tuple[str, Checking]] = [
        ("prepares", _prepares),
        ("answers", _answers),
        ("actions", _actions),
        ("n", _number),
        ("exclude", _exclude),
        ("deterministic", _deterministic),
        ("batch", _batch),
        ("usage", _usage),
        ("no-mutation", _no_mutation),
        ("inline", _inline),
        ("identity", _identity),
    ]
    return asyncio.run(run_checks(bench, checks, needed=("prepares", "answers", "actions")))


def _public(record: Trajectory) -> Trajectory:
    return replace(record, task=replace(record.task, private={}), outcome=None, final_state=None)


def _requests(record: Trajectory | None, seed: int) -> list[ProposalRequest]:
    """One at the start and, of a record, one in the middle: `n` is 1."""
    if record is None:
        made = Trajectory("check", _task_of(None), (TOOL,), _PROMPT)
        return [_request(made, 0, seed), replace(_request(made, 0, seed), seed=seed + 1, node="1")]
    return [_request(_public(record), at, seed) for at in dict.fromkeys((0, len(record.steps) // 2))]


def _task_of(record: Trajectory | None) -> Any:
    from ..storage.records import Task

    return record.task if record is not None else Task("check", "Count to 3.")


def _request(record: Trajectory, at: int, seed: int) -> ProposalRequest:
    messages = replace(record, steps=record.steps[:at]).messages
    own = seed_from(seed, record.id, at)
    return ProposalRequest(record.task, record.id, at, str(at), messages, tuple(record.tools or ()), 1, own)


async def _ask(bench: PolicyBench, requests: Sequence[ProposalRequest]) -> list[list[Proposal]]:
    """The answers as the engine reads them. Raises PolicyFailed for what is none, and an error given in its place."""
    batch: Any = await finish(bench.policy.propose(requests))
    if isinstance(batch, (str, Mapping)) or not isinstance(batch, Sequence):
        raise PolicyFailed(f"propose gave {brief(batch)}", hint="a list for each request, in their order")
    if len(batch) != len(requests):
        raise PolicyFailed(
            f"{len(requests)} requests, {len(batch)} lists", hint="a list for each request, empty or not"
        )
    found = []
    for answer in batch:
        if isinstance(answer, TtcError):
            raise answer
        if isinstance(answer, (str, Mapping)) or not isinstance(answer, Sequence):
            raise PolicyFailed(f"an answer is {brief(answer)}", hint="a list of actions")
        found.append([proposal_from(item) for item in answer])
    return found


def _wide(request: ProposalRequest) -> ProposalRequest:
    return replace(request, n=WIDTH)


def _keys(answers: Sequence[Sequence[Proposal]]) -> list[list[str]]:
    return [[action_key(proposal.action) for proposal in answer] for answer in answers]


async def _prepares(bench: PolicyBench) -> Said:
    prepare, check = getattr(bench.policy, "prepare", None), getattr(bench.policy, "check", None)
    if prepare is not None:
        await finish(prepare(bench.records))
    if check is not None:
        await finish(check())
    return passed(f"{len(bench.records)} records") if prepare is not None else skipped("no prepare()")


async def _answers(bench: PolicyBench) -> Said:
    if await _ask(bench, []) != []:
        return failed("no request, but an answer", "a list for each request")
    found = await _ask(bench, bench.requests)
    return passed(f"{len(bench.requests)} requests, {sum(map(len, found))} actions")


async def _actions(bench: PolicyBench) -> Said:
    """Each action can be kept, told apart and executed."""
    known = {str(tool.get("function", tool).get("name")) for tool in bench.requests[0].tools}
    strange: set[str] = set()
    for answer in await _ask(bench, [_wide(request) for request in bench.requests]):
        for proposal in answer:
            if (problem := _problem(proposal.action)) is not None:
                return failed(problem, "an assistant message with content or tool_calls; arguments are a JSON object")
            strange |= {call.name for call in proposal.action.tool_calls} - known
    if strange and known:
        return passed(f"well-formed; calls of unknown tools become error observations: {', '.join(sorted(strange))}")
    return passed("well-formed")


def _problem(action: Message) -> str | None:
    if action.role != "assistant":
        return f"an action of the role {action.role!r}"
    if not action.tool_calls and not action.text and action.content is None:
        return "an action with neither text nor calls"
    json.loads(json_of(messages_to_dicts([action])))
    action_key(action)
    ids = [call.id for call in action.tool_calls if call.id is not None]
    return "two calls of one id" if len(set(ids)) < len(ids) else None


async def _number(bench: PolicyBench) -> Said:
    for count in (1, WIDTH):
        for answer in await _ask(bench, [replace(request, n=count) for request in bench.requests]):
            if len(answer) > count:
                return failed(f"asked for {count}, got {len(answer)}", "at most request.n actions")
    return passed(f"at most {WIDTH} of {WIDTH}")


async def _exclude(bench: PolicyBench) -> Said:
    seen = 0
    for request in bench.requests:
        first = set(_keys(await _ask(bench, [_wide(request)]))[0])
        asked = replace(_wide(request), exclude=frozenset(first))
        again = set(_keys(await _ask(bench, [asked]))[0]) & first
        seen += len(first)
        if again and not bench.sampling:
            return failed(
                f"proposed although excluded: {brief(min(again))}", "leave out actions whose key is in exclude"
            )
        if again:
            return passed("a sample may repeat what is known: the search merges it, at a cost")
    return passed(f"{seen} excluded actions did not come back") if seen else skipped("it proposed nothing")


async def _deterministic(bench: PolicyBench) -> Said:
    wide = [_wide(request) for request in bench.requests]
    first, second = _keys(await _ask(bench, wide)), _keys(await _ask(bench, wide))
    if first == second:
        return passed("the same requests, the same actions")
    if bench.sampling:
        return passed("one seed gives several answers; it says so (sampling), and a journal keeps them")
    difference = next((one, other) for one, other in zip(first, second, strict=True) if one != other)
    said = f"one request, two answers: {brief(difference[0])} and {brief(difference[1])}"
    return failed(said, "draw from request.seed, or declare sampling = True")


async def _batch(bench: PolicyBench) -> Said:
    if bench.sampling:
        return skipped("sampling: answers may depend on the batch")
    wide = [_wide(request) for request in bench.requests]
    together, alone = _keys(await _ask(bench, wide)), [_keys(await _ask(bench, [request]))[0] for request in wide]
    if together != alone:
        return failed("answers depend on what else is asked at the same time", "each request is answered by itself")
    turned = _keys(await _ask(bench, wide[::-1]))[::-1]
    return passed("free of the batch") if turned == together else failed("answers depend on the order of the requests")


async def _usage(bench: PolicyBench) -> Said:
    for answer in await _ask(bench, bench.requests):
        for proposal in answer:
            if proposal.logprob is not None and not (math.isfinite(proposal.logprob) and proposal.logprob <= 1e-6):
                return failed(f"logprob {proposal.logprob!r}", "natural log of a probability: finite, at most 0")
            usage = proposal.usage
            given = () if usage is None else (usage.prompt_tokens, usage.completion_tokens, usage.cost_usd)
            if any(value is not None and not (math.isfinite(value) and value >= 0) for value in given):
                return failed(f"usage {usage}", "tokens and USD from 0 up; None where they are not known")
    paid = bool(getattr(bench.policy, "metered", False))
    return passed("metered: calls are journalled and budgeted" if paid else "not metered: calls are free")


def _no_mutation(bench: PolicyBench) -> Said:
    changed = bench.shown != [_shown(request) for request in bench.requests]
    return failed("propose changed its request", "copy what is to be changed") if changed else passed()


def _shown(request: ProposalRequest) -> str:
    task = [request.task.id, request.task.prompt, dict(request.task.data)]
    rest = [list(request.tools), dict(request.sampling), sorted(request.exclude)]
    return json_of([task, messages_to_dicts(request.messages), rest])


async def _inline(bench: PolicyBench) -> Said:
    if not getattr(bench.policy, "inline", False):
        return skipped("not declared: it works in threads")

    def ask() -> Any:
        return run_inline(_ask(bench, bench.requests))

    waited = [await in_thread(lambda: waited_seconds(ask)) for _ in range(REPEATS)]
    if min(waited) > WAITING_SECONDS:
        return failed(f"it waits {1000 * min(waited):.0f} ms for something each time", "leave inline = True out")
    return passed("no wait")


def _identity(bench: PolicyBench) -> Said:
    """What goes into the call key and into the report must be JSON, and the same each time."""
    said = []
    for name in ("identity", "report"):
        if callable(method := getattr(bench.policy, name, None)):
            first = json_of(method())
            if name == "identity" and json_of(method()) != first:
                return failed("identity() differs from call to call", "it is part of the call key")
            said.append(name)
    return passed(", ".join(said)) if said else skipped("neither identity() nor report()")
