"""One Claude Code session put together from its lines: a trajectory for each of its threads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ..records import Links, Message, Outcome, Rejected, Source, Task, Trajectory
from .base import identify
from .chat import first_user_text, mapping, prompt_id, string
from .claude_code_messages import (
    Conversation,
    Line,
    blocks_of_type,
    conversation,
    is_message,
    message_id,
)
from .claude_code_threads import Thread, Threads
from .clock import span, utc
from .json_input import Record
from .json_text import BadRecord
from .talk import total

_CUT_REASONS = ("api_error", "interrupted", "max_tokens")
_NOT_ASKED = ("<local-command", "<command-", "Caveat: The messages below")


class Session:
    """The lines of one file, and the trajectories in them."""

    def __init__(self, records: Sequence[Record], bad_lines: int, source: Source, *, cut: bool):
        self._lines: list[Line] = [record.value for record in records]
        self._numbers = [record.line for record in records]
        self._bad_lines = bad_lines
        self._source = source
        self._cut = cut
        self._seen_ids: set[str] = set()
        self._spent: set[str] = set()
        self._threads: list[Thread] = []
        self._agents_here: set[str] = set()
        self._called: set[tuple[str, int, str | None]] = set()

    def trajectories(self) -> Iterator[Trajectory | Rejected]:
        """The main thread first; a thread stands behind its parent. Nothing where no line is a message."""
        messages = [index for index, line in enumerate(self._lines) if is_message(line)]
        if not messages:
            return
        alone = all(self._lines[index].get("isSidechain") is True for index in messages)
        side = [] if alone else [index for index, line in enumerate(self._lines) if line.get("isSidechain") is True]
        self._agents_here = {str(self._lines[index].get("agentId")) for index in side}
        main = sorted(set(range(len(self._lines))) - set(side))
        threads = Threads(self._lines)
        found = threads.main(main)
        if alone:
            found[0].relation = "subagent"
        for thread in found:
            yield self._built(thread)
        for thread in threads.side_chains(side, self._threads[0] if self._threads else None):
            yield self._built(thread)

    def _built(self, thread: Thread) -> Trajectory | Rejected:
        lines = [self._lines[index] for index in thread.whole]
        number = self._numbers[thread.own[0]] if thread.own else None
        try:
            thread.talk = conversation(lines)
            trajectory = self._trajectory(thread, lines, number)
        except BadRecord as error:
            return Rejected(error.problem(number))
        thread.identity, thread.task = trajectory.id, trajectory.task
        self._threads.append(thread)
        return trajectory

    def _trajectory(self, thread: Thread, lines: list[Line], number: int | None) -> Trajectory:
        thread.steps = thread.talk.steps()
        step, prompt = self._branch_step(thread, lines), tuple(thread.talk.prompt)
        new = [
            step
            for step, answer in zip(thread.steps, thread.talk.answers, strict=True)
            if not answer.uuids & self._spent
        ]
        self._spent.update(*(answer.uuids for answer in thread.talk.answers))
        reason = _exit_reason(thread.talk, lines)
        times = span(utc(line.get("timestamp")) for line in lines)
        own, is_first = [self._lines[index] for index in thread.own], not self._threads
        links = self._links(thread, lines, is_first)
        resumed = is_first and thread.relation is None and links.parent is not None
        identity, source = identify(
            self._source,
            own,
            line=number,
            agent="claude-code",
            model=next((turn.model for turn in reversed(thread.talk.turns) if turn.model), None),
            counts=self._counts(own, is_first),
            extra=_about(own),
            started_at=times[0],
            ended_at=times[1],
            usage=total(step.usage for step in new),
            relation="continuation" if resumed else thread.relation,
            links=links if links != Links() else None,
        )
        return Trajectory(
            id=identity,
            task=_task(thread, lines, prompt),
            prompt=prompt,
            steps=thread.steps,
            outcome=Outcome(exit_reason=reason) if reason else None,
            truncated=(self._cut and is_first) or reason in _CUT_REASONS,
            parent_id=(thread.parent.identity or None) if thread.parent else None,
            branch_step=_copied(thread.talk) if resumed else step,
            source=source,
        )

    def _branch_step(self, thread: Thread, lines: list[Line]) -> int | None:
        if thread.relation == "branch" and thread.parent is not None:
            return _first_difference(thread, thread.parent)
        if thread.relation == "subagent" and self._threads:
            thread.parent, step = self._caller(thread, lines)
            return step
        return None

    def _caller(self, side: Thread, lines: list[Line]) -> tuple[Thread | None, int | None]:
        """The thread and step that called a side chain: by its parent line, its agent's id, or its prompt."""
        parent, agent = lines[0].get("parentUuid"), lines[0].get("agentId")
        prompt = first_user_text(side.talk.prompt)
        mains = [thread for thread in self._threads if thread.relation != "subagent"]
        for thread in mains:
            for step, answer in enumerate(thread.talk.answers):
                if isinstance(parent, str) and parent in answer.uuids:
                    return thread, step
            called = _agents(thread.talk, (self._lines[index] for index in thread.whole))
            if isinstance(agent, str) and called.get(agent) is not None:
                return thread, called[agent]
        for thread in mains:
            for step, turn in enumerate(thread.talk.turns):
                for call in turn.calls:
                    asked = mapping(call.arguments).get("prompt")
                    if asked and asked == prompt and (thread.identity, step, call.id) not in self._called:
                        self._called.add((thread.identity, step, call.id))
                        return thread, step
        return side.parent, None

    def _links(self, thread: Thread, lines: list[Line], is_first: bool) -> Links:
        sessions = [name for line in lines if is_message(line) and (name := string(line.get("sessionId")))]
        last = sessions[-1] if sessions else ""
        if is_first and thread.relation == "subagent":
            agent = next((name for line in lines if (name := string(line.get("agentId")))), None)
            return Links(keys=(f"agent:{last}/{agent}",), parent=f"session:{last}") if last and agent else Links()
        called = _agents(thread.talk, lines)
        children = {f"agent:{last}/{name}": step for name, step in called.items() if name not in self._agents_here}
        if not is_first or not last:
            return Links(children=children)
        forked = next(
            (name for line in lines if (name := string(mapping(line.get("forkedFrom")).get("sessionId")))), None
        )
        older = forked or (sessions[0] if sessions[0] != last else None)
        return Links((f"session:{last}",), f"session:{older}" if older and older != last else None, children)

    def _counts(self, own: list[Line], is_first: bool) -> dict[str, int]:
        """By the definitions of `traces/count.py`, of the lines given; what is said once for a file is the first's."""
        messages = [line for line in own if is_message(line)]
        answers = [line for line in messages if line["type"] == "assistant"]
        ids = {identity for line in answers if (identity := message_id(line))}
        nameless = sum(not message_id(line) for line in answers)
        counts = {
            "runs": int(is_first),
            "messages": len(messages),
            "assistant_turns": len(ids - self._seen_ids) + nameless,
            "assistant_lines": len(answers),
            "tool_calls": sum(len(blocks_of_type(line, "tool_use")) for line in messages),
            "tool_results": sum(len(blocks_of_type(line, "tool_result")) for line in messages),
            "rewards": 0,
        }
        self._seen_ids |= ids
        if is_first:
            sessions = {line.get("sessionId") for line in self._lines if isinstance(line.get("sessionId"), str)} - {""}
            counts |= {"events": len(self._lines), "bad_lines": self._bad_lines, "session_ids": len(sessions)}
        return counts


def _first_difference(thread: Thread, parent: Thread) -> int:
    if thread.talk.prompt != parent.talk.prompt:
        return 0
    pairs = zip(thread.steps, parent.steps, strict=False)
    shared = (
        step
        for step, (one, other) in enumerate(pairs)
        if (one.action, one.observations) != (other.action, other.observations)
    )
    return next(shared, min(len(thread.steps), len(parent.steps)))


def _copied(talk: Conversation) -> int:
    """How many of the first steps were copied from the session before."""
    last = talk.answers[-1].session if talk.answers else None
    return next((step for step, answer in enumerate(talk.answers) if answer.session == last), len(talk.answers))


def _agents(talk: Conversation, lines: Iterable[Line]) -> dict[str, int | None]:
    """The sub-agents that tool results name, with the step of the call."""
    found: dict[str, int | None] = {}
    for line in lines:
        agent = string(mapping(line.get("toolUseResult")).get("agentId"))
        if agent is not None and is_message(line):
            ids = (block.get("tool_use_id") for block in blocks_of_type(line, "tool_result"))
            found[agent] = next((talk.step_of_call(name) for name in ids if isinstance(name, str)), None)
    return found


def _exit_reason(talk: Conversation, lines: list[Line]) -> str | None:
    """Why the last answer ended, unless the user interrupted it."""
    said = talk.turns[-1].observations if talk.turns else talk.prompt
    if said and said[-1].role == "user" and said[-1].text.startswith("[Request interrupted by user"):
        return "interrupted"
    return talk.answers[-1].stop_reason if talk.answers else None


def _task(thread: Thread, lines: list[Line], prompt: tuple[Message, ...]) -> Task:
    """A continuation has the task of what it continues; else equal prompts are one task."""
    if thread.relation == "continuation" and thread.parent is not None and thread.parent.task is not None:
        return thread.parent.task
    asked = [line for line in lines if is_message(line) and line["type"] == "user" and line.get("isMeta") is not True]
    texts = (first_user_text(conversation([line]).prompt) for line in asked)
    return Task(prompt_id(prompt), next((text for text in texts if text and not text.startswith(_NOT_ASKED)), ""))


def _about(own: list[Line]) -> dict[str, Any]:
    """What the lines say about the session: versions, folders, git branches, ids, titles and summaries."""
    found: dict[str, Any] = {}
    for name, key in _ABOUT.items():
        values = list(dict.fromkeys(value for line in own if isinstance(value := line.get(key), str)))
        if values:
            found[name] = values[-1] if len(values) == 1 else values
    return found


_ABOUT = {
    "session": "sessionId",
    "agent_id": "agentId",
    "version": "version",
    "cwd": "cwd",
    "git_branch": "gitBranch",
    "summary": "summary",
    "title": "customTitle",
    "ai_title": "aiTitle",
}
