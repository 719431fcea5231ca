"""Calls folded into conversations: each call repeats the one before it, so a conversation is their common thread.

A call belongs to the thread whose last input its own begins with. What follows in it is the echo of that call's answer
(which may be spelled otherwise, or missing), then what is new. A call that extends no thread starts one: a sub-agent
under its parent agent's span, a branch where it shares a beginning with another thread of its agent, else the
continuation of its agent's last one (the context was cut or summed up).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from ..records import Message, Relation
from .likeness import Likeness, common_steps
from .otlp_calls import Call
from .otlp_history import History, history
from .otlp_spans import Span

_LATEST = 64  # threads that are looked at for one call, when very many begin alike


@dataclass(slots=True, eq=False)
class Thread:
    """One conversation. `actions[i]` is the place in `messages` of the first message that call i gave, None when it
    gave none. `scope`: ids of the agents' spans around its first call, the nearest first.
    """

    scope: tuple[str, ...]
    agent: str | None
    system: History
    calls: list[Call] = field(default_factory=list)
    actions: list[int | None] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    keys: list[Likeness] = field(default_factory=list)
    relation: Relation | None = None
    parent: Thread | None = None
    branch_step: int | None = None
    prompts: int = 1
    _input: list[Likeness] = field(default_factory=list)
    _output: list[Likeness] = field(default_factory=list)

    @property
    def start(self) -> int:
        """When its first call began."""
        return self.calls[0].span.start or 0

    @property
    def end(self) -> int:
        """When its last call ended."""
        span = self.calls[-1].span
        return span.end or span.start or 0

    def fits(self, call: Call) -> tuple[int, int] | None:
        """How well a call goes on with this thread: (exactness, messages in common); None when it does not."""
        given = call.inputs.keys
        if not given:
            return (1, 0) if not self._input else None
        common = len(self._input)
        if given[:common] != self._input:
            return self._answers(call)
        rest = given[common:]
        if rest[: len(self._output)] == self._output:
            return (3, common) if common or self._output else None
        if rest and common:
            return (2, common) if rest[0][0] in ("assistant", "tool") else None
        return None

    def _answers(self, call: Call) -> tuple[int, int] | None:
        """Stateful services are sent the new messages only: the results of this thread's open calls."""
        first = call.inputs.messages[0]
        if first.role != "tool" or not first.tool_call_id:
            return None
        last = next((message for message in reversed(self.messages) if message.role == "assistant"), None)
        waiting = {made.id for made in last.tool_calls} if last else set()
        return (2, 0) if first.tool_call_id in waiting else None

    def take(self, call: Call) -> None:
        """Append a call that `fits`, or the first."""
        given, common = call.inputs, len(self._input)
        repeats = bool(given.keys) and given.keys[:common] == self._input
        rest = History(given.messages[common:], given.keys[common:]) if repeats else given
        self._choose(rest)
        if self.calls and self.actions[-1] is None and rest.keys and rest.keys[0][0] == "assistant":
            self.actions[-1] = len(self.messages)  # the answer is known from its echo only
        self._append(_without_echo(rest, self._output) if self._output else rest)
        if self.calls and call.system.keys != self.system.keys:
            self.prompts += 1
        self._input = given.keys if repeats or not common else self._input + self._output + given.keys
        self._answer(call)

    def _answer(self, call: Call) -> None:
        """Append what a call gave. A call of which nothing was captured is an empty message, unless it failed."""
        output = call.choices[0] if call.choices else History()
        silent = not output.messages and not call.inputs.keys and call.span.error is None
        self.calls.append(call)
        self.actions.append(len(self.messages) if output.messages or silent else None)
        self._append(output)
        self._output = output.keys
        if silent:
            self._append(history([Message("assistant")]))

    def _choose(self, rest: History) -> None:
        """Of several alternatives the one holds that the next input repeats."""
        choices = self.calls[-1].choices if self.calls else []
        place = self.actions[-1] if self.calls else None
        for choice in choices if len(choices) > 1 and place is not None else ():
            if choice.keys != self._output and rest.keys[: len(choice.keys)] == choice.keys:
                del self.messages[place:], self.keys[place:]
                self._append(choice)
                self._output = choice.keys
                return

    def finish(self) -> None:
        """A last call whose answer was not captured, though it did not fail, still is a step."""
        if self.actions[-1] is None and self.calls[-1].span.error is None:
            self.actions[-1] = len(self.messages)
            self._append(history([Message("assistant")]))

    def _append(self, more: History) -> None:
        self.messages += more.messages
        self.keys += more.keys


def _without_echo(rest: History, output: Sequence[Likeness]) -> History:
    """What follows the echo of an answer. An echo that is spelled otherwise than the answer is the assistant's messages
    at the beginning; of an answer in several items each may stand before its own results.
    """
    size = len(output)
    if rest.keys[:size] == output:
        return History(rest.messages[size:], rest.keys[size:])
    items = list(output) if size > 1 else []
    left = History()
    for place, (message, key) in enumerate(zip(rest.messages, rest.keys, strict=True)):
        if key in items:
            items.remove(key)
        elif not (place < size and key[0] == "assistant" and len(left.keys) == 0):
            left.messages.append(message)
            left.keys.append(key)
    return left


class Folder:
    """Folds the calls of one run."""

    def __init__(self) -> None:
        self.threads: list[Thread] = []
        self._open: dict[Likeness | None, list[Thread]] = {}

    def add(self, call: Call, around: Sequence[Span]) -> None:
        """Take the next call, in the order of start times. `around`: the agents' spans around it, the nearest first."""
        scope = tuple(span.id for span in around)
        agent = next((span.agent for span in around if span.agent), None) or call.span.agent
        thread = self._best(call, scope, agent)
        if thread is None:
            thread = Thread(scope, agent, call.system)
            self.threads.append(thread)
            for first in {None, call.inputs.keys[0] if call.inputs.keys else None}:
                self._open.setdefault(first, []).append(thread)
        thread.take(call)

    def _best(self, call: Call, scope: tuple[str, ...], agent: str | None) -> Thread | None:
        best, chosen = None, None
        for thread in self._candidates(call):
            fit = thread.fits(call)
            same = thread.scope == scope
            if fit is None or not (same or _continues(thread, call, scope, agent, fit)):
                continue
            rank = (fit[0], same, fit[1], thread.end)
            if best is None or rank >= best:
                best, chosen = rank, thread
        return chosen

    def _candidates(self, call: Call) -> Iterator[Thread]:
        """The threads that begin as the call does, and those without a beginning; of each only the latest ones."""
        first = call.inputs.keys[0] if call.inputs.keys else None
        if first is not None:
            yield from self._open.get(first, [])[-_LATEST:]
        if first is None or first[0] in ("tool", "assistant"):
            yield from self._open.get(None, [])[-_LATEST:]


def _continues(thread: Thread, call: Call, scope: tuple[str, ...], agent: str | None, fit: tuple[int, int]) -> bool:
    """Whether a call under another agent's span (the next turn of a session) goes on with the thread."""
    nested = bool(thread.scope) and thread.scope[0] in scope
    same_agent = agent is not None and agent == thread.agent
    same_prompt = thread.system.keys == call.system.keys
    return fit[0] > 1 and fit[1] > 0 and (same_agent or (same_prompt and not nested))


def relate(threads: list[Thread]) -> list[Thread]:
    """Say what each thread is to which other one; the threads, each behind its parent."""
    places = _Places()
    for thread in threads:
        places.place(thread)
    children: dict[int, list[Thread]] = {}
    for thread in threads:
        if thread.parent is not None:
            children.setdefault(id(thread.parent), []).append(thread)
    for thread in threads:
        if id(thread) in children and thread.relation != "branch":
            _prefer_latest_leaf(thread, children[id(thread)])
    _break_circles(threads)
    return sorted(threads, key=_depth)


def _break_circles(threads: list[Thread]) -> None:
    """Nobody is their own ancestor: damaged traces, with spans that stand twice, can say so."""
    for thread in threads:
        above, seen = thread, {id(thread)}
        while above.parent is not None and id(above.parent) not in seen:
            above = above.parent
            seen.add(id(above))
        if above.parent is not None:
            above.parent, above.relation, above.branch_step = None, None, None


class _Places:
    """The threads so far, by where a later one may belong."""

    def __init__(self) -> None:
        self._scopes: dict[tuple[str, ...], list[Thread]] = {}
        self._beginnings: dict[tuple[tuple[str, ...], tuple[Likeness, ...], Likeness], Thread] = {}
        self._agents: dict[str, Thread] = {}

    def place(self, thread: Thread) -> None:
        """Link a thread to an earlier one, if it belongs to any."""
        self._find(thread)
        self._scopes.setdefault(thread.scope, []).append(thread)
        if thread.agent:
            self._agents[thread.agent] = thread
        if thread.keys and thread.relation != "branch":
            self._beginnings[self._beginning(thread)] = thread

    def _beginning(self, thread: Thread) -> tuple[tuple[str, ...], tuple[Likeness, ...], Likeness]:
        return thread.scope, tuple(thread.system.keys), thread.keys[0]

    def _find(self, thread: Thread) -> None:
        siblings = self._scopes.get(thread.scope, [])
        like = self._beginnings.get(self._beginning(thread)) if thread.keys else None
        if like is not None:
            _link(thread, like, "branch", common_steps(like.keys, thread.keys))
        elif siblings:
            after = siblings[-1].end <= thread.start
            _link(thread, siblings[-1] if after else siblings[0], "continuation" if after else "subagent", None)
        elif not self._inside(thread):
            before = self._agents.get(thread.agent or "")
            if before is not None and before.end <= thread.start:
                _link(thread, before, "continuation", None)

    def _inside(self, thread: Thread) -> bool:
        """Link to the latest thread of the nearest agent around this one's."""
        for level in range(1, len(thread.scope) + 1):
            outer = self._scopes.get(thread.scope[level:])
            if outer:
                _link(thread, outer[-1], "subagent", _step_before(outer[-1], thread.start))
                return True
        return False


def _link(thread: Thread, parent: Thread, relation: Relation, step: int | None) -> None:
    thread.parent, thread.relation, thread.branch_step = parent, relation, step


def _step_before(parent: Thread, start: int) -> int | None:
    """The step of the parent that was the last to begin before `start`."""
    found = None
    for call, place in zip(parent.calls, parent.actions, strict=True):
        if place is not None and (call.span.start or 0) <= start:
            found = place
    return None if found is None else sum(key[0] == "assistant" for key in parent.keys[:found])


def _prefer_latest_leaf(thread: Thread, children: list[Thread]) -> None:
    """Of the branches of one conversation the one that was worked on last is the main one."""
    family = [thread, *(other for other in children if other.relation == "branch")]
    latest = max(family, key=lambda other: (other.end, len(other.messages)))
    if latest is thread:
        return
    _link_as(latest, thread)
    for other in children:
        if other.relation != "branch" and latest.start <= other.start:
            other.parent = latest
            other.branch_step = None if other.branch_step is None else _step_before(latest, other.start)
    for other in family:
        if other is not latest:
            _link(other, latest, "branch", common_steps(latest.keys, other.keys))


def _link_as(thread: Thread, other: Thread) -> None:
    thread.parent, thread.relation, thread.branch_step = other.parent, other.relation, other.branch_step


def _depth(thread: Thread) -> tuple[int, int]:
    """How many parents a thread has, then its start."""
    depth, above = 0, thread.parent
    while above is not None:
        depth, above = depth + 1, above.parent
    return depth, thread.start
