"""A policy that plays a script: the same situation always gets the same actions. For tests, demos and known repairs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

from ...storage.codec import action_key, proposal_from
from ...storage.errors import UsageError
from ...storage.records import Message, Proposal, ProposalRequest
from .base import ProposalLike

Entry: TypeAlias = str | ProposalLike
Function: TypeAlias = Callable[[ProposalRequest], Iterable[Entry]]
Situations: TypeAlias = Sequence[Any] | Mapping[Any, Any]

PATH_SEPARATOR = " > "


class ScriptedPolicy:
    """Proposes what a script says. An entry is one action or a list of alternatives; an action is an OpenAI-style
    message, a proposal (`{"action": ..., "logprob": ...}`) or a text to say.

    `script` is a list by step number, or a mapping whose keys are step numbers (`"3"`) or paths: the keys of the
    actions taken so far (`action_key`), joined by " > " (`""` is the start). A path goes before a step number. It may
    also be a function of the request. `file` is a JSON file that holds the list or mapping. `default` is the entry for
    situations that the script does not know. Raises UsageError for a script that cannot be read.
    """

    sampling = False
    inline = True

    def __init__(
        self,
        script: Situations | Function | None = None,
        file: str | None = None,
        default: Any = None,
    ):
        if script is not None and file is not None:
            raise UsageError("a scripted policy takes script or file, not both")
        if script is None and file is None and default is None:
            raise UsageError("a scripted policy needs a script", hint="--policy-opt file=script.json")
        self._function = script if callable(script) else None
        given = _read(file) if file is not None else script
        self._situations = {} if given is None or callable(given) else _situations(given, file)
        self._default = _alternatives(default, "default") if default is not None else ()

    def propose(self, requests: Sequence[ProposalRequest]) -> list[list[Proposal]]:
        """At most `n` scripted actions per request in the script's order, without those in `exclude`."""
        return [self._one(request) for request in requests]

    def _one(self, request: ProposalRequest) -> list[Proposal]:
        chosen: dict[str, Proposal] = {}
        for proposal in self._known(request):
            key = action_key(proposal.action)
            if key not in request.exclude and len(chosen) < request.n:
                chosen.setdefault(key, _with_ids(proposal, request.step))
        return list(chosen.values())

    def _known(self, request: ProposalRequest) -> Sequence[Proposal]:
        if self._function is not None:
            return [_proposal(entry) for entry in self._function(request)]
        path = PATH_SEPARATOR.join(action_key(item) for item in request.messages if item.role == "assistant")
        for situation in (path, str(request.step)):
            if situation in self._situations:
                return self._situations[situation]
        return self._default


def _read(file: str) -> Situations:
    try:
        parsed = json.loads(Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"the script cannot be read: {error}", place=file) from error
    if not isinstance(parsed, (list, dict)):
        raise UsageError("a script is a JSON list (by step) or an object (by step or path)", place=file)
    return parsed


def _situations(script: Situations, place: str | None) -> dict[str, tuple[Proposal, ...]]:
    if isinstance(script, str) or not isinstance(script, (Mapping, Sequence)):
        raise UsageError("a script is a list (by step), a mapping (by step or path) or a function", place=place)
    pairs = script.items() if isinstance(script, Mapping) else enumerate(script)
    return {str(key): _alternatives(entry, str(key), place) for key, entry in pairs}


def _alternatives(entry: Any, situation: str, place: str | None = None) -> tuple[Proposal, ...]:
    several = isinstance(entry, Sequence) and not isinstance(entry, str)
    items: Sequence[Any] = entry if several else [entry]
    try:
        return tuple(_proposal(item) for item in items)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"script entry {situation!r} is no action: {error!r}", place=place) from error


def _proposal(entry: Entry) -> Proposal:
    return Proposal(Message("assistant", entry)) if isinstance(entry, str) else proposal_from(entry)


def _with_ids(proposal: Proposal, step: int) -> Proposal:
    """A call without an id gets one from its place, so that its result can name it."""
    calls = proposal.action.tool_calls
    if all(call.id is not None for call in calls):
        return proposal
    named = tuple(
        call if call.id is not None else replace(call, id=f"call_{step}_{index}") for index, call in enumerate(calls)
    )
    return replace(proposal, action=replace(proposal.action, tool_calls=named))
