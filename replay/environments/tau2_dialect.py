"""How the two generations of tau-bench speak: what ends a run, how results and errors are worded, what tools differ.

Logs of tau-bench (v1) were made by older tools over the same data. What those *tools* did otherwise is done here, so
that the state and every later answer follow the log; what changed in the *data* is left to the observation normaliser.
Checked against the tool results of the recorded gpt-4o airline runs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import date
from typing import Any, Protocol

from ...storage.records import Message, Task, ToolCall, ToolSchema
from .tau2_world import Domain, OverlayWorld, World

TRANSFER = "transfer_to_human_agents"
_BAD_ARGUMENTS = "Error: the arguments are not a JSON object"


class Dialect(Protocol):
    """One generation. `old`: tau-bench (v1), whose agent executes only the first tool call of a message."""

    name: str
    old: bool

    def tools(self, domain: Domain) -> tuple[ToolSchema, ...]:
        """The agent's tool schemas."""
        ...

    def execute(self, world: World, call: ToolCall, requestor: str) -> str:
        """Execute one call; the observation's text. Errors, unknown tools and bad arguments are texts too."""
        ...

    def spoken(self, action: Message) -> str:
        """What the agent said to the user by this message, "" for nothing."""
        ...

    def ends_on(self, action: Message) -> bool:
        """Whether the run ends when this action is executed."""
        ...

    def ends_after(self, reply: Message) -> bool:
        """Whether the run ends with this reply of the user."""
        ...


class TauBench:
    """tau-bench (v1): airline and retail; the transfer tool and `###STOP###` end a run."""

    name = "tau-bench"
    old = True

    def tools(self, domain: Domain) -> tuple[ToolSchema, ...]:
        """See `Dialect.tools`: with `think`, which newer toolkits dropped."""
        return (*domain.tools, _THINK)

    def execute(self, world: World, call: ToolCall, requestor: str) -> str:
        """See `Dialect.execute`."""
        if call.arguments is None:
            return _BAD_ARGUMENTS
        if call.name == "think":
            return ""
        if not world.has(call.name, requestor):
            return f"Unknown action {call.name}"
        try:
            return _old_text(_old_call(world, call.name, call.arguments))
        except Exception as error:  # noqa: BLE001 - whatever a tool raises is what the agent gets to read
            return f"Error: {_old_error(call.name, error)}"

    def spoken(self, action: Message) -> str:
        """See `Dialect.spoken`: text beside a tool call was not sent."""
        return "" if action.tool_calls else action.text

    def ends_on(self, action: Message) -> bool:
        """See `Dialect.ends_on`."""
        return bool(action.tool_calls) and action.tool_calls[0].name == TRANSFER

    def ends_after(self, reply: Message) -> bool:
        """See `Dialect.ends_after`."""
        return "###STOP###" in reply.text


class Tau2Bench:
    """tau2-bench: all domains; users may call tools, and only they end a run."""

    name = "tau2-bench"
    old = False

    def tools(self, domain: Domain) -> tuple[ToolSchema, ...]:
        """See `Dialect.tools`."""
        return domain.tools

    def execute(self, world: World, call: ToolCall, requestor: str) -> str:
        """See `Dialect.execute`."""
        if call.arguments is None:
            return _BAD_ARGUMENTS
        if not world.has(call.name, requestor):
            return f"Error: Tool '{call.name}' not found."
        try:
            result = world.call(call.name, call.arguments, requestor)
            return result if isinstance(result, str) else json.dumps(_plain(result), default=str)
        except Exception as error:  # noqa: BLE001 - whatever a tool raises is what the agent gets to read
            return f"Error: {error}"

    def spoken(self, action: Message) -> str:
        """See `Dialect.spoken`."""
        return action.text

    def ends_on(self, action: Message) -> bool:
        """See `Dialect.ends_on`: never."""
        return False

    def ends_after(self, reply: Message) -> bool:
        """See `Dialect.ends_after`."""
        return any(word in reply.text for word in ("###STOP###", "###TRANSFER###", "###OUT-OF-SCOPE###"))


DIALECTS: Mapping[str, Dialect] = {dialect.name: dialect for dialect in (TauBench(), Tau2Bench())}


def dialect_of(task: Task) -> Dialect:
    """tau-bench for a task whose gold is a list of `name, kwargs`, else tau2-bench."""
    old = "evaluation_criteria" not in task.private and ("actions" in task.private or "instruction" in task.data)
    return DIALECTS["tau-bench" if old else "tau2-bench"]


_THINK: ToolSchema = {
    "type": "function",
    "function": {
        "name": "think",
        "description": "Write down a thought. Nothing is looked up and nothing is changed.",
        "parameters": {
            "type": "object",
            "properties": {"thought": {"type": "string", "description": "The thought."}},
            "required": ["thought"],
        },
    },
}


def _plain(value: Any) -> Any:
    """tau2's own JSON form of a result: numbers and booleans become texts unless they are inside a record."""
    if hasattr(value, "model_dump"):
        return value.model_dump(warnings=False)
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, date):
        return value.isoformat()
    return str(value) if isinstance(value, (int, float)) else value


def _old_call(world: World, name: str, arguments: Mapping[str, Any]) -> Any:
    """The call as the old airline tools did it (retail's did nothing otherwise that the records show)."""
    if not isinstance(world, OverlayWorld) or world.domain.name != "airline":
        return world.call(name, arguments, "assistant")
    overlays = world.database.overlays
    if name == "update_reservation_flights":
        before = overlays["reservations"].get(arguments.get("reservation_id", ""))
        cabin = before.cabin if before is not None else None
        updated = world.call(name, arguments, "assistant")
        updated.cabin = cabin  # the old tool charged for the new cabin and left the old one in the reservation
        return updated
    try:
        result = world.call(name, arguments, "assistant")
    finally:
        overlays["flights"].forget()  # the old tools took no seats
    if name == "list_all_airports":
        return {airport.iata: airport.city for airport in result}
    if name == "search_onestop_flight":
        return [[first, _second_leg(world, first, second)] for first, second in result]
    return result


def _second_leg(world: OverlayWorld, first: Any, second: Any) -> Any:
    """The old search showed the seats and prices of the first leg's date for a second leg on the next day."""
    if first.date == second.date:
        return second
    shown = world.database.overlays["flights"][second.flight_number].dates[first.date].model_dump(warnings=False)
    return {**second.model_dump(exclude={"status", "available_seats", "prices"}), **shown}


def _old_text(result: Any) -> str:
    return result if isinstance(result, str) else json.dumps(_old_plain(result))


def _old_plain(value: Any) -> Any:
    """Old records had no empty fields, and users did not repeat their own key."""
    if hasattr(value, "model_dump"):
        hidden = {"user_id"} if type(value).__name__ == "User" else None
        return value.model_dump(warnings=False, exclude_none=True, exclude=hidden)
    if isinstance(value, (list, tuple)):
        return [_old_plain(item) for item in value]
    return value


def _old_error(name: str, error: Exception) -> str:
    """The old wording: lower case, missing records without their key, Python's own errors under the old class names."""
    text = str(error)
    if isinstance(error, TypeError):
        old = "".join(part.capitalize() for part in name.split("_")) + ".invoke()"
        return re.sub(rf"\b\w+\.{re.escape(name)}\(\)", old, text)
    missing = re.fullmatch(r"(User|Reservation|Order|Product) (?:.* )?not found", text)
    if missing:
        return "user not found" if name == "get_reservation_details" else f"{missing[1].lower()} not found"
    return text[:1].lower() + text[1:]
