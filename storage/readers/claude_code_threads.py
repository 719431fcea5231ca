"""Which lines of a Claude Code session make a conversation, and what these threads are to each other."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field

from ..records import Relation, Step, Task
from .chat import string
from .claude_code_messages import Conversation, Line, blocks_of, blocks_of_type, conversation, is_message, message_id
from .event_tree import Path, paths


@dataclass(slots=True)
class Thread:
    """Lines (their numbers among the file's) that make one conversation, and what it is to the others."""

    whole: list[int]
    own: list[int]
    relation: Relation | None = None
    parent: Thread | None = None
    fork: int | None = None
    talk: Conversation = field(default_factory=Conversation)
    steps: tuple[Step, ...] = ()
    identity: str = ""
    task: Task | None = None


class Threads:
    """The lines of one file, told apart into threads."""

    def __init__(self, lines: Sequence[Line]):
        self._lines = lines

    def main(self, main: list[int]) -> list[Thread]:
        """Those of the lines `main`: the session's first, then each behind its parent. No line is in two `own`.

        Raises TooManyBranches.
        """
        nodes = self._nodes(main)
        parents = self._parents(nodes)
        matters = [is_message(self._lines[node]) for node in nodes]
        found = [
            Thread([nodes[entry] for entry in path.whole], [nodes[entry] for entry in path.own], fork=_at(path, nodes))
            for path in paths(parents, matters, self._groups(nodes), self._weights(nodes))
        ]
        ordered = self._related(found)
        left = set(main).difference(*(thread.own for thread in found))
        ordered[0].own = sorted({*ordered[0].own, *left})
        return ordered

    def _nodes(self, main: list[int]) -> list[int]:
        """The lines of the tree; one that was written twice stands there once."""
        found: list[int] = []
        last: dict[str, Line] = {}
        for index in main:
            line = self._lines[index]
            uuid = string(line.get("uuid"))
            if uuid is None and not is_message(line):
                continue
            if uuid is not None and last.get(uuid) == line:
                continue
            if uuid is not None:
                last[uuid] = line
            found.append(index)
        return found

    def _parents(self, nodes: list[int]) -> list[int | None]:
        """Parents stand before their children. A missing one is the line before; in a plain list every one is."""
        place: dict[str, int] = {}
        named: list[int | None] = []
        for entry, node in enumerate(nodes):
            line = self._lines[node]
            parent = line.get("parentUuid")
            named.append(place.get(parent) if isinstance(parent, str) else None)
            if isinstance(line.get("uuid"), str):
                place[line["uuid"]] = entry
        plain = all(parent is None for parent in named)
        for entry, node in enumerate(nodes):
            if named[entry] is None and entry and (plain or isinstance(self._lines[node].get("parentUuid"), str)):
                named[entry] = entry - 1
        return named

    def _weights(self, nodes: list[int]) -> list[int]:
        """A line, and each further kilobyte of its message."""
        return [1 + len(str(self._lines[node].get("message"))) // 1024 for node in nodes]

    def _groups(self, nodes: list[int]) -> list[str | None]:
        """One answer of the API and the results of its calls are a group."""
        by_call: dict[str, str] = {}
        found: list[str | None] = []
        for node in nodes:
            line = self._lines[node]
            identity = message_id(line)
            for block in blocks_of_type(line, "tool_use") if identity else ():
                if isinstance(block.get("id"), str):
                    by_call[block["id"]] = str(identity)
            results = blocks_of_type(line, "tool_result")
            if results and len(results) == len(blocks_of(line)):
                call = results[0].get("tool_use_id")
                identity = by_call.get(call) if isinstance(call, str) else None
            found.append(identity)
        return found

    def _related(self, found: list[Thread]) -> list[Thread]:
        """Say what each thread is to the others; the session's first one comes first, children behind their parents."""
        owner = {index: thread for thread in found for index in thread.own}
        self._continue(found, owner)
        first = found[0]
        while first.parent is not None:
            first = first.parent
        for thread in found:
            if thread is first or thread.relation is not None:
                continue
            if thread.fork is not None:
                thread.relation, thread.parent = "branch", owner[thread.fork]
            elif self._same_talk(thread, first):
                thread.relation, thread.parent = "branch", first
        return _behind_parents(first, found)

    def _continue(self, found: list[Thread], owner: dict[int, Thread]) -> None:
        """A thread whose root is a compaction goes on from the line before it, where that is in the file."""
        order = sorted(owner)
        named = {uuid: index for index in order if isinstance(uuid := self._lines[index].get("uuid"), str)}
        for thread in found:
            root = self._lines[thread.whole[0]]
            compacted = any(self._lines[index].get("isCompactSummary") is True for index in thread.whole[:2])
            if thread.fork is not None or not (compacted or root.get("subtype") == "compact_boundary"):
                continue
            logical = root.get("logicalParentUuid")
            before = named.get(logical) if isinstance(logical, str) else None
            place = bisect_left(order, thread.whole[0])
            if before is None or before >= thread.whole[0]:
                before = order[place - 1] if place else None
            if before is not None:
                thread.relation, thread.parent = "continuation", owner[before]

    def _same_talk(self, thread: Thread, first: Thread) -> bool:
        """Whether two roots are two versions of one first prompt, not two conversations."""
        later = max(thread, first, key=lambda item: item.whole[0])
        said = (message for index in later.whole[:5] for message in conversation([self._lines[index]]).prompt)
        cleared = any("<command-name>/clear<" in message.text for message in said)
        sessions = {string(self._lines[item.whole[0]].get("sessionId")) for item in (thread, first)} - {None}
        return not cleared and len(sessions) < 2

    def side_chains(self, side: list[int], parent: Thread | None) -> list[Thread]:
        """The old side chains: a prompt without a parent, or of another agent, begins the next one."""
        owner: dict[str, Thread] = {}
        found: list[Thread] = []
        for index in side:
            line = self._lines[index]
            names = [name for key in ("parentUuid", "agentId") if isinstance(name := line.get(key), str)]
            thread = next((owner[name] for name in names if name in owner), None)
            if thread is None and found and not (line.get("type") == "user" and is_message(line)):
                thread = found[-1]
            if thread is None:
                thread = Thread([], [], "subagent", parent)
                found.append(thread)
            thread.own.append(index)
            owner |= {name: thread for key in ("uuid", "agentId") if isinstance(name := line.get(key), str)}
        for thread in found:
            thread.whole = thread.own
        return found


def _at(path: Path, nodes: list[int]) -> int | None:
    return None if path.fork is None else nodes[path.fork]


def _behind_parents(first: Thread, found: list[Thread]) -> list[Thread]:
    """The first thread, then the others in their order of roots, each behind its parent."""
    children: dict[int, list[Thread]] = {}
    for thread in sorted(found, key=lambda item: item.own[0]):
        if thread is not first:
            children.setdefault(id(thread.parent), []).append(thread)
    ordered: list[Thread] = []
    waiting = [*reversed(children.get(id(None), [])), first]
    while waiting:
        thread = waiting.pop()
        ordered.append(thread)
        waiting.extend(reversed(children.get(id(thread), [])))
    return ordered
