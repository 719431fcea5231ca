"""Judges a finished tau-bench run: the gold actions executed on a fresh world, then the two states compared.

tau-bench (v1): outcome = the database equals gold's (`r_actions`) and every expected output was said (`r_outputs`).
tau2-bench: the product of the parts in `reward_basis` (DB, COMMUNICATE, ENV_ASSERTION, ACTION), as its own evaluator
does it. NL_ASSERTION needs a model as judge: unless another part already failed, the verdict is None (abstains).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from ...storage.canonical import canonical_json
from ...storage.records import Task, ToolCall
from .tau2_dialect import DIALECTS
from .tau2_world import World, load_domain, start_world


@dataclass(frozen=True, slots=True)
class Criteria:
    """What a task's gold asks for. `setup` is canonical JSON of all that determines the gold state."""

    setup: str
    outputs: tuple[str, ...] = ()
    basis: frozenset[str] = frozenset({"DB", "COMMUNICATE"})
    assertions: tuple[Mapping[str, Any], ...] = ()
    actions: tuple[Mapping[str, Any], ...] = ()
    judged: bool = False
    old: bool = False

    def gold(self) -> Mapping[str, str]:
        """What the gold actions change (`World.changed`)."""
        return _gold_changes(self.setup)


@dataclass(frozen=True, slots=True)
class Verdict:
    """`reward` None: this world cannot tell. `parts` are the named verdicts it is made of."""

    reward: float | None = None
    parts: Mapping[str, float | None] = field(default_factory=dict)


def criteria_of(task: Task, domain: str, dialect: str) -> Criteria | None:
    """The gold of a task, None when it has none."""
    initial = initial_state(task)
    setup: dict[str, Any] = {"domain": domain, "dialect": dialect, "initial": initial}
    if "evaluation_criteria" not in task.private:
        if "actions" not in task.private:
            return None
        setup["calls"] = [_call(item) for item in task.private["actions"]]
        outputs = tuple(str(output) for output in task.private.get("outputs") or ())
        return Criteria(canonical_json(setup), outputs, old=True)
    given = task.private["evaluation_criteria"]
    if not given:
        return None
    actions = given.get("actions") or []
    basis = set(given.get("reward_basis") or ("DB", "COMMUNICATE"))
    if given.get("actions") is None and given.get("env_assertions") is None:
        basis -= {"DB", "ENV_ASSERTION"}  # tau2's rule: nothing said about the end state is no demand on it
    setup["calls"] = [*_history_calls(initial), *map(_call, actions)]
    return Criteria(
        setup=canonical_json(setup),
        outputs=tuple(given.get("communicate_info") or ()),
        basis=frozenset(basis),
        assertions=tuple(given.get("env_assertions") or ()),
        actions=tuple(actions),
        judged=bool(given.get("nl_assertions")),
    )


def initial_state(task: Task) -> Mapping[str, Any]:
    """tau2's `initial_state` of a task, {} for none."""
    return task.data.get("initial_state") or task.private.get("initial_state") or {}


def _call(action: Mapping[str, Any]) -> dict[str, Any]:
    arguments = action["arguments"] if "arguments" in action else action.get("kwargs")
    return {"name": action["name"], "arguments": arguments or {}, "requestor": action.get("requestor") or "assistant"}


def _history_calls(initial: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Calls of the conversation that a task begins with: gold starts after it too."""
    messages = initial.get("message_history") or ()
    return [_call(call) for message in messages for call in message.get("tool_calls") or ()]


@lru_cache(maxsize=1024)
def _gold_changes(setup: str) -> Mapping[str, str]:
    given = json.loads(setup)
    dialect = DIALECTS[given["dialect"]]
    world = start_world(load_domain(given["domain"], dialect.old), given["initial"])
    for call in given["calls"]:
        dialect.execute(world, ToolCall(None, call["name"], call["arguments"]), call["requestor"])
    return world.changed()


def judge(criteria: Criteria, world: World, said: Sequence[bool], calls: Sequence[ToolCall]) -> Verdict:
    """The verdict on a run that ended in `world`. `said` is per expected output; `calls` are all that were made."""
    database = float(world.changed() == criteria.gold())
    spoken = float(all(said))
    if criteria.old:
        return Verdict(database * spoken, {"r_actions": database, "r_outputs": spoken if criteria.outputs else None})
    parts: dict[str, float | None] = {}
    for name in sorted(criteria.basis):
        if name == "DB":
            parts[name] = database
        elif name == "COMMUNICATE":
            parts[name] = spoken
        elif name == "ENV_ASSERTION":
            parts[name] = float(all(_holds(world, assertion) for assertion in criteria.assertions))
        elif name == "ACTION":
            parts[name] = float(all(_done(action, calls) for action in criteria.actions))
        else:
            parts[name] = None if criteria.judged or name != "NL_ASSERTION" else 1.0
    if any(value == 0.0 for value in parts.values()):
        return Verdict(0.0, parts)
    return Verdict(None if None in parts.values() else 1.0, parts)


def _holds(world: World, assertion: Mapping[str, Any]) -> bool:
    expected = assertion.get("assert_value", True)
    return bool(world.fork().run(assertion) == expected)


def _done(action: Mapping[str, Any], calls: Sequence[ToolCall]) -> bool:
    """Whether some call has the action's name and the same values of the arguments to compare (default: its own)."""
    gold = action.get("arguments") or {}
    for call in calls:
        made = call.arguments or {}
        named = action.get("compare_args")
        keys = set(made if named is None else named)
        equal = {key: made[key] for key in keys & set(made)} == {key: gold[key] for key in keys & set(gold)}
        if call.name == action["name"] and equal:
            return True
    return False
