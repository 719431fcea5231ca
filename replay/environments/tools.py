"""A class of plain Python functions as an environment: public methods are the tools, the instance is the state.

    class Shop:
        def __init__(self, stock: int = 3): ...
        def buy(self, item: str, count: int = 1) -> dict[str, int]: ...

Hooks, all optional and found by name: `reset(task)` sets up from the task and may return prompt messages; `done` (an
attribute or a function) ends the run; `state()`, `state_key()`, `close()`, `hear(reply)`, `reseed(seed)`, `normalise`,
`inline`, `isolation` mean what they mean on an environment; `forks`, `fork()`, `snapshot_every` as in `forking`;
`tools = ["buy"]` picks the functions. Functions and hooks may be `async def`.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ...storage.codec import messages_from
from ...storage.errors import TtcError, UsageError
from ...storage.records import Message, StepResult, Task, ToolCall, ToolSchema
from ..drive import finish, run_inline
from ..forking import Capability, capability, duplicate
from .tool_functions import HOOKS, Tool, WrongArguments, public_functions, toolset
from .tool_results import jsonable, public_state, text_of
from .wire import ATTRIBUTES

PASSED = frozenset(("close", "hear", "inline", "reseed", "state_key", *ATTRIBUTES))
"""Hooks that mean on the instance what they mean on an environment."""
_DECLARED = ("isolation", "isolation_timeout_seconds", "isolation_processes")
_MAY_WAIT = ("reset", "done", "state", "fork", "close", "hear", "reseed")
_OTHER_PLUGINS = ("step", "propose", "score")
"""A class with one of these was meant as something else."""


class ToolsEnvironment:
    """See `Environment`. `cls` (a class, or a function that gives an instance) is called with `options` for each task.

    Whatever is wrong with a call is an observation, `Error: ...` with `is_error`, and the run goes on. Raises
    UsageError for a class that cannot be one of tools.
    """

    def __init__(self, cls: Callable[..., Any], /, **options: Any):
        if isinstance(cls, str) or not callable(cls):
            raise UsageError(f"{cls!r} is no class of functions", hint="--env-opt cls=./file.py:Class")
        self._build = functools.partial(cls, **options)
        self._fresh = self._build()  # the first task's own
        self._take(self._fresh)

    def _take(self, instance: Any) -> None:
        self._instance = instance
        kind: Any = type(instance)
        self._tools: Mapping[str, Tool] = toolset(kind)

    @property
    def forks(self) -> Capability:
        """`native` where the instance can be copied: `fork()` here does it."""
        return "reexecute" if self.forks_inside == "reexecute" else "native"

    @property
    def forks_inside(self) -> Capability:
        """What the class declares."""
        return capability(self._instance)

    @property
    def _waits(self) -> bool:
        hooks = (getattr(type(self._instance), name, None) for name in _MAY_WAIT)
        return any(tool.waits for tool in self._tools.values()) or any(map(inspect.iscoroutinefunction, hooks))

    @property
    def reset(self) -> Callable[[Task], Any]:
        """`reset(task)`: a new instance, and its prompt; a coroutine function where the class has one."""
        return self._reset if self._waits else lambda task: run_inline(self._reset(task))

    @property
    def step(self) -> Callable[[Message], Any]:
        """`step(action)`: execute the calls in order; a coroutine function where the class has one.

        A message without calls is left to the user, and ends the run where there is none.
        """
        return self._step if self._waits else lambda action: run_inline(self._step(action))

    async def _reset(self, task: Task) -> list[Message]:
        self._take(self._fresh if self._fresh is not None else self._build())
        self._fresh = None
        hook = getattr(self._instance, "reset", None)
        said: Any = None if hook is None else await finish(hook(task))
        if said is None:
            said = task.prompt
        if isinstance(said, str):
            return [Message("user", said)] if said else []
        return list(messages_from(said))

    async def _step(self, action: Message) -> StepResult:
        observations = [await self._observe(call) for call in action.tool_calls]
        done = getattr(self._instance, "done", False)
        return StepResult(observations, bool(await finish(done() if callable(done) else done)))

    async def _observe(self, call: ToolCall) -> Message:
        text, failed = await self._text(call)
        return Message("tool", text, tool_call_id=call.id, name=call.name, is_error=failed)

    async def _text(self, call: ToolCall) -> tuple[str, bool]:
        """What the tool said, and whether that is an error."""
        tool = self._tools.get(call.name)
        if tool is None:
            return f"Error: there is no tool {call.name}", True
        if call.arguments is None:
            return "Error: the arguments are not a JSON object", True
        try:
            return text_of(await finish(tool.call(self._instance, call.arguments))), False
        except WrongArguments as error:
            return f"Error: wrong arguments for {call.name}: {error}", True
        except TtcError:  # the house's own: a missing package, say
            raise
        except (Exception, SystemExit) as error:  # noqa: BLE001  the user's code may raise anything
            return f"Error: {_reason(error)}", True

    def fork(self) -> Any:
        """A twin whose instance is copied by the capability that the class declares; awaitable where its `fork()` is.

        Raises what `duplicate` raises.
        """
        copied = duplicate(self._instance)
        return self._later_twin(copied) if hasattr(copied, "__await__") else self._twin(copied)

    def _twin(self, instance: Any) -> ToolsEnvironment:
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        twin._instance, twin._fresh = instance, None
        return twin

    async def _later_twin(self, copied: Any) -> ToolsEnvironment:
        return self._twin(await copied)

    def tools(self) -> list[ToolSchema]:
        """One schema for each tool, in OpenAI's style."""
        return [tool.schema for tool in self._tools.values()]

    def state(self) -> Any:
        """The class's own `state()`, else the public attributes that are JSON."""
        method = getattr(self._instance, "state", None)
        if not callable(method):
            return public_state(self._instance, HOOKS)
        said = method()
        return _later_state(said) if hasattr(said, "__await__") else _plain_state(said)

    def __getattr__(self, name: str) -> Any:
        if name in PASSED:
            return getattr(self._instance, name)
        raise AttributeError(f"ToolsEnvironment has no {name}")


async def _later_state(said: Any) -> Any:
    return _plain_state(await said)


def _plain_state(said: Any) -> Any:
    """Raises TypeError for a state that is not JSON: a reward would see less than the class meant to say."""
    known = jsonable(said)
    if known is None and said is not None:
        raise TypeError("the state is not JSON")
    return known


def _reason(error: BaseException) -> str:
    """The error's own words; its type before them where they are only a key, or none."""
    text = str(error)
    return text if text and not isinstance(error, KeyError) else f"{type(error).__name__}: {text}".rstrip(": ")


def is_tools_class(found: Any) -> bool:
    """Whether `found` is a class of plain functions: no environment and no other plugin, and with a function."""
    if not inspect.isclass(found) or any(callable(getattr(found, name, None)) for name in _OTHER_PLUGINS):
        return False
    return bool(public_functions(found))


def as_environment(cls: Callable[..., Any]) -> Callable[..., ToolsEnvironment]:
    """A factory of `ToolsEnvironment`s over `cls`, with its options, name and wish for isolation."""

    def make(**options: Any) -> ToolsEnvironment:
        return ToolsEnvironment(cls, **options)

    make.__doc__, make.__name__ = cls.__doc__, getattr(cls, "__name__", "tools")
    declared: dict[str, Any] = {name: getattr(cls, name) for name in _DECLARED if hasattr(cls, name)}
    make.__dict__.update(declared, __wrapped__=cls)  # inspect.signature looks through it
    return make


__all__: Sequence[str] = ("ToolsEnvironment", "as_environment", "is_tools_class")
