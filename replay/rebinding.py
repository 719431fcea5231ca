"""Re-binding: a recorded run goes on in a world that gives other ids.

An id that an observation of the record holds and a later recorded action uses stands for the id at the same place of
this world's observation. Arguments are re-bound before they are executed, observations are compared up to the renaming,
and whoever acts next sees the record's ids only. docs/design/rebinding.md says what was rejected.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..storage.codec import result_from
from ..storage.records import Message, Step, StepResult
from .drive import finish
from .forking import capability, duplicate
from .naming import Names, Pair, Permit, ids_in, is_id_name
from .policies.facts import parse_observation


class Rebound:
    """A world seen in the record's ids: actions are translated on their way in, observations on their way out.

    `binds` False: it only carries what is known of ids. It has the optional members that the world itself has.
    """

    def __init__(self, world: Any, names: Names, *, binds: bool):
        self.world = world
        self.names = names
        self.binds = binds

    def step(self, action: Message) -> Any:
        """As the world's own, awaitable where that is."""
        result = self.world.step(bound(action, self.names)[0] if self.binds else action)
        return self._later(result) if hasattr(result, "__await__") else self._seen(result)

    def __getattr__(self, name: str) -> Any:
        if name in ("fork", "forks"):
            if (capability(self.world) == "reexecute") is (name == "fork"):
                raise AttributeError(name)
            return self._fork if name == "fork" else "native" if capability(self.world) != "reexecute" else "reexecute"
        found = getattr(self.world, name)
        if not self.binds or name not in ("hear", "state"):
            return found
        return self._hear if name == "hear" else self._state

    async def _later(self, result: Any) -> StepResult:
        return self._seen(await finish(result))

    def _seen(self, result: Any) -> StepResult:
        known = result_from(result)
        if not self.binds:
            return known
        return replace(known, observations=[seen(message, self.names) for message in known.observations])

    def _hear(self, reply: Message) -> Any:
        return self.world.hear(bound(reply, self.names)[0])

    async def _state(self) -> Any:
        return self.names.in_record(await finish(self.world.state()))

    def _fork(self) -> Any:
        twin = duplicate(self.world)
        return self._forked(twin) if hasattr(twin, "__await__") else self._twin(twin)

    async def _forked(self, twin: Any) -> Rebound:
        return self._twin(await finish(twin))

    def _twin(self, twin: Any) -> Rebound:
        return Rebound(twin, self.names.copy(), binds=self.binds)


def opened(environment: Any) -> tuple[Any, Names]:
    """The world itself, and what is known of its ids."""
    if isinstance(environment, Rebound):
        return environment.world, environment.names
    return environment, Names()


def closed(environment: Any, names: Names, *, binds: bool) -> Any:
    """The same world with what is known now; itself, as long as nothing is."""
    if isinstance(environment, Rebound):
        environment.names = names
        return environment
    return Rebound(environment, names, binds=binds) if len(names) else environment


def bound(message: Message, names: Names) -> tuple[Message, int]:
    """A message whose calls speak of this world's ids, and how many places of their arguments were re-bound."""
    if not message.tool_calls or not len(names):
        return message, 0
    calls, total = [], 0
    for call in message.tool_calls:
        arguments, count = names.in_world(call.arguments) if call.arguments is not None else (None, 0)
        calls.append(replace(call, arguments=arguments, arguments_raw=None) if count else call)
        total += count
    return (replace(message, tool_calls=tuple(calls)), total) if total else (message, 0)


def seen(message: Message, names: Names) -> Message:
    """A tool's result in the record's ids."""
    if message.role not in ("tool", "function"):
        return message
    if isinstance(message.content, str):
        text = names.text_in_record(message.content)
        return message if text == message.content else replace(message, content=text)
    return replace(message, content=names.in_record(message.content))


def used_later(steps: Sequence[Step]) -> Mapping[str, set[str]]:
    """Every value that the calls of these steps use, with the keys that it stands under."""
    found: dict[str, set[str]] = {}
    for step in steps:
        for call in step.action.tool_calls:
            for value, key in ids_in(call.arguments or {}, every=True):
                found.setdefault(value, set()).add(key)
    return found


def settled_by(prompt: Iterable[Message], steps: Sequence[Step]) -> Iterator[str]:
    """Ids that the record holds before a step: who uses one of them means that one."""
    for message in prompt:
        yield from (token for token, _ in ids_in(message.text))
    for step in steps:
        for call in step.action.tool_calls:
            yield from (token for token, _ in ids_in(call.arguments or {}))
        for message in step.observations:
            yield from (token for token, _ in ids_in(parse_observation(message.text)))


def used_by(steps: Sequence[Step]) -> Permit:
    """Ids of an observation may be re-bound when a call of these later steps uses them.

    A number of decimal digits counts as an id only where a key says so, here or there: it may be an amount.
    """
    used: Mapping[str, set[str]] | None = None

    def permit(pair: Pair) -> bool:
        nonlocal used
        used = used_later(steps) if used is None else used
        keys = used.get(pair.old)
        if keys is None:
            return False
        digits = pair.old.isdecimal() or pair.new.isdecimal()
        return pair.named or (pair.strong and (not digits or any(map(is_id_name, keys))))

    return permit


def any_id(pair: Pair) -> bool:
    """Two executions of one world are compared: what looks like an id may be one."""
    return pair.strong or pair.named
