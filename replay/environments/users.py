"""The user's side of a conversation: who answers when the agent speaks instead of calling a tool."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from typing import Protocol

from ...storage.records import Message, Trajectory


class User(Protocol):
    """The user seam. Called by the engine when an action has no tool call.

    Optional: `fidelity`, the class of its replies (`recorded`); `ends(reply) -> bool`, whether a reply is its last in a
    world that does not listen; `for_one()`, the same user with an account (`calls`, `usage`) for one transition.
    """

    def reply(
        self, messages: Sequence[Message], source: tuple[str, int] | None
    ) -> Message | Awaitable[Message | None] | None:
        """The user's answer to the last of `messages`, or None when there is nothing more to say.

        `source` is `Proposal.source`: (trajectory id, step) when the agent's message was taken from a record.
        """
        ...


class TapeUser:
    """Answers from records only: the reply that followed this very message in its source run, else the next unused
    reply of `record` (design.md section 4). Stateless: what is used is counted from `messages`."""

    def __init__(self, record: Trajectory, runs: Mapping[str, Trajectory] | None = None):
        self.record = record
        self.runs = runs or {}
        self._replies = [reply for step in record.steps if (reply := user_reply(step.observations)) is not None]
        self._prompted = sum(message.role == "user" for message in record.prompt)

    def reply(self, messages: Sequence[Message], source: tuple[str, int] | None) -> Message | None:
        """See `User.reply`. Raises nothing."""
        if source is not None and source[0] in self.runs:
            steps = self.runs[source[0]].steps
            answered = user_reply(steps[source[1]].observations) if source[1] < len(steps) else None
            if answered is not None:
                return answered
        used = sum(message.role == "user" for message in messages) - self._prompted
        return self._replies[used] if used < len(self._replies) else None


def user_reply(observations: Sequence[Message]) -> Message | None:
    """The user's message among a step's observations, if any."""
    return next((message for message in observations if message.role == "user"), None)
