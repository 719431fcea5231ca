"""What of a logged run is there to replay it: a short report, stored with every recorded trajectory.

system_prompt        there is a system or developer message
tool_schemas         the log has the schemas of its tools
calls                calls the agent made
unparsed_arguments   of these: whose arguments are no JSON object
unanswered_calls     of these: without a result
unasked_results      results that answer no call
sampling             the parameters of sampling are known
replayable           every call can be made again, and what came back is known
"""

from __future__ import annotations

from typing import Any

from .records import Message, Trajectory


class Answers:
    """Matches the results of one step after another to its calls: by id, else in order."""

    __slots__ = ("calls", "unanswered", "unasked", "unparsed")

    def __init__(self) -> None:
        self.calls = self.unparsed = self.unanswered = self.unasked = 0

    def step(self, asked: list[str | None], answered: list[str | None]) -> None:
        """One action's call ids and the ids its results name."""
        self.calls += len(asked)
        if asked == answered:  # nearly always
            return
        waiting = list(asked)
        strangers = 0
        for identity in answered:
            if identity is not None and identity in waiting:
                waiting.remove(identity)
            else:
                strangers += 1
        in_order = min(strangers, len(waiting)) if _nameless(asked, answered) else 0
        self.unanswered += len(waiting) - in_order
        self.unasked += strangers - in_order

    def report(self, *, system_prompt: bool, tool_schemas: bool, sampling: bool) -> dict[str, Any]:
        """The report of this module's head."""
        return {
            "system_prompt": system_prompt,
            "tool_schemas": tool_schemas,
            "calls": self.calls,
            "unparsed_arguments": self.unparsed,
            "unanswered_calls": self.unanswered,
            "unasked_results": self.unasked,
            "sampling": sampling,
            "replayable": not (self.unparsed or self.unanswered or self.unasked),
        }


def _nameless(asked: list[str | None], answered: list[str | None]) -> bool:
    """Whether order is all there is to go by: some call or some result has no id."""
    return None in asked or None in answered


def replayability(trajectory: Trajectory) -> dict[str, Any]:
    """The report of one recorded trajectory."""
    answers = Answers()
    for step in trajectory.steps:
        calls = step.action.tool_calls
        answers.unparsed += sum(call.arguments is None for call in calls)
        answers.step([call.id for call in calls], [item.tool_call_id for item in step.observations if _answers(item)])
    source = trajectory.source
    return answers.report(
        system_prompt=any(message.role in ("system", "developer") for message in trajectory.prompt),
        tool_schemas=trajectory.tools is not None,
        sampling=source is not None and source.sampling is not None,
    )


def _answers(message: Message) -> bool:
    """A result for the agent; what the user's own tools answered is none."""
    return message.role == "tool" and message.requestor != "user"
