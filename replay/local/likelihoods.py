"""How likely a local model finds given actions, token by token: how surprising was what the agent did."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ...storage.records import Message, ToolSchema
from .speaking import Speaker


@dataclass(frozen=True, slots=True)
class ActionScore:
    """One action under a context: the ids that say it (the end of the turn included) and the natural log of each one's
    probability. `logprobs` is shorter than `ids` where the model's context ends first."""

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]

    @property
    def is_whole(self) -> bool:
        """Whether every token was judged."""
        return len(self.logprobs) == len(self.ids)

    @property
    def total(self) -> float:
        """The natural log of the probability of what was judged."""
        return math.fsum(self.logprobs)

    @property
    def mean(self) -> float | None:
        """The mean of a token; None when nothing was judged. `-mean` is the cross-entropy in nats."""
        return self.total / len(self.logprobs) if self.logprobs else None


Situation = tuple[Sequence[Message], Sequence[ToolSchema], Message]
"""A context, its tools, and the action that was taken in it."""


def likelihoods(speaker: Speaker, situations: Sequence[Situation]) -> list[ActionScore]:
    """The score of each action, all of them in one pass: contexts that begin alike are read once.

    Raises PolicyFailed for a context that the template refuses, MemoryError.
    """
    contexts = [speaker.contexts.encode(messages, tools) for messages, tools, _ in situations]
    actions = [tuple(speaker.chat.encode_action(messages, tools, action)) for messages, tools, action in situations]
    found = speaker.score(contexts, actions)
    return [ActionScore(ids, tuple(logprobs)) for ids, logprobs in zip(actions, found, strict=True)]
