"""The proxy between a graph and its chat models and tools, wherever the graph keeps them.

A graph may have its model anywhere: in a closure of `create_agent`, in a global, made anew in a node. So the proxy sits
where all of them pass, on `BaseChatModel.generate`, `agenerate`, `stream` and `astream`, and does something only inside
`watching(...)`, a context variable that LangGraph hands to the threads and tasks of its nodes. Outside, and for all
other graphs of the process, calls go through unchanged. In the same way a tool that a watched model called ends the run
before it runs (`BaseTool.run`, `arun`). Imports LangChain: imported late.
"""

from __future__ import annotations

import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any

from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessageChunk
from langchain_core.messages.tool import ToolCallChunk
from langchain_core.tools import BaseTool
from langgraph.errors import GraphBubbleUp

from .model_calls import ModelCalls, seeded

_CURRENT: ContextVar[ModelCalls | None] = ContextVar("ttc_model_calls", default=None)
_installing = threading.Lock()
_installed: set[str] = set()


class ToolReached(GraphBubbleUp):
    """A tool that a model's reply called is about to run in a graph that only proposes: the run ends here.

    LangGraph's own kind of exception that nodes and tools let through.
    """

    def __init__(self, reply: Any):
        super().__init__("a tool was reached")
        self.reply = reply


@contextmanager
def watching(calls: ModelCalls) -> Iterator[None]:
    """Inside, models that are called in this context pass through `calls`, and tools that they called do not run."""
    _install()
    token = _CURRENT.set(calls)
    try:
        yield
    finally:
        _CURRENT.reset(token)


def _install() -> None:
    with _installing:
        if _installed:
            return
        for owner, name, wrap in (
            (BaseChatModel, "generate", _generate),
            (BaseChatModel, "agenerate", _agenerate),
            (BaseChatModel, "stream", _stream),
            (BaseChatModel, "astream", _astream),
            (BaseTool, "run", _run),
            (BaseTool, "arun", _arun),
        ):
            setattr(owner, name, wrap(getattr(owner, name)))
            _installed.add(name)


def _generate(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def generate(self: Any, messages: Any, *args: Any, **options: Any) -> Any:
        calls = _CURRENT.get()
        if calls is None:
            return original(self, messages, *args, **options)
        key = calls.key(self, messages, options)
        if (known := calls.recalled(key)) is not None:
            return known
        with _inside(calls):
            result = original(seeded(self, key), messages, *args, **options)
        calls.finished(key, result)
        return result

    return generate


def _agenerate(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    async def agenerate(self: Any, messages: Any, *args: Any, **options: Any) -> Any:
        calls = _CURRENT.get()
        if calls is None:
            return await original(self, messages, *args, **options)
        key = calls.key(self, messages, options)
        if (known := calls.recalled(key)) is not None:
            return known
        with _inside(calls):
            result = await original(seeded(self, key), messages, *args, **options)
        calls.finished(key, result)
        return result

    return agenerate


@contextmanager
def _inside(calls: ModelCalls) -> Iterator[None]:
    """A model that asks another one is one call; what it raises is remembered as the model's failure."""
    token = _CURRENT.set(None)
    try:
        yield
    except Exception as error:
        calls.failure = error
        raise
    finally:
        _CURRENT.reset(token)


def _stream(original: Callable[..., Any]) -> Callable[..., Any]:
    """A watched model is never streamed: a cut stream cannot be told from a finished one. One chunk has the reply."""

    @wraps(original)
    def stream(self: Any, input: Any, config: Any = None, *, stop: Any = None, **options: Any) -> Iterator[Any]:
        if _CURRENT.get() is None:
            yield from original(self, input, config, stop=stop, **options)
        else:
            yield _chunk(self.invoke(input, config, stop=stop, **options))

    return stream


def _astream(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    async def astream(
        self: Any, input: Any, config: Any = None, *, stop: Any = None, **options: Any
    ) -> AsyncIterator[Any]:
        if _CURRENT.get() is None:
            async for chunk in original(self, input, config, stop=stop, **options):
                yield chunk
        else:
            yield _chunk(await self.ainvoke(input, config, stop=stop, **options))

    return astream


def _chunk(reply: Any) -> Any:
    fields = reply.model_dump(exclude={"type", "tool_calls", "invalid_tool_calls"})
    pieces = [
        ToolCallChunk(name=call["name"], args=_text(call["args"]), id=call["id"], index=index, type="tool_call_chunk")
        for index, call in enumerate([*reply.tool_calls, *reply.invalid_tool_calls])
    ]
    return AIMessageChunk(**fields, tool_call_chunks=pieces, chunk_position="last")


def _text(arguments: Any) -> str:
    return arguments if isinstance(arguments, str) else json.dumps(arguments)


def _stop(tool: Any, call_id: Any) -> None:
    """Raises ToolReached for a tool that a reply of this run called; what a node reads by itself goes on."""
    calls = _CURRENT.get()
    if calls is None:
        return
    for reply in reversed(calls.replies):
        for call in reply.tool_calls:
            if call["id"] == call_id if call_id is not None else call["name"] == tool.name:
                raise ToolReached(reply)


def _run(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def run(self: Any, *args: Any, **options: Any) -> Any:
        _stop(self, options.get("tool_call_id"))
        return original(self, *args, **options)

    return run


def _arun(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    async def arun(self: Any, *args: Any, **options: Any) -> Any:
        _stop(self, options.get("tool_call_id"))
        return await original(self, *args, **options)

    return arun
