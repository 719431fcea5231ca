"""What a node of a graph can reach: the models, tools and functions that its code refers to.

Names say nothing: `create_agent` keeps its model in a closure, other graphs keep it in a global. So the objects behind
a node are walked: steps of sequences, bound runnables, closures, the globals that the code names. Nothing is called.
"""

from __future__ import annotations

import functools
import inspect
import sysconfig
from collections import deque
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from types import CodeType, FunctionType, MethodType
from typing import Any

MOST_OBJECTS = 4000
"""Objects looked at for one graph; a walk that went on for ever would find nothing more."""
_LIBRARIES = tuple({sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")})


def reach(*roots: Any) -> Iterator[Any]:
    """Every object that the roots refer to, themselves first, nearest first, each once."""
    seen: set[int] = set()
    waiting = deque(roots)
    while waiting and len(seen) < MOST_OBJECTS:
        item = waiting.popleft()
        if id(item) in seen or item is None or isinstance(item, (str, bytes, int, float)):
            continue
        seen.add(id(item))
        yield item
        waiting.extend(_behind(item))


def _behind(item: Any) -> Iterator[Any]:
    if isinstance(item, FunctionType):
        yield from _named(item)
    elif isinstance(item, MethodType):
        yield from (item.__func__, item.__self__)
    elif isinstance(item, functools.partial):
        yield from (item.func, *item.args, *item.keywords.values())
    elif isinstance(item, (list, tuple, set, frozenset)):
        yield from item
    elif isinstance(item, dict):
        yield from item.values()
    elif not inspect.isclass(item) and not inspect.ismodule(item):
        yield from _parts(item)


def _named(function: FunctionType) -> Iterator[Any]:
    """The closure and the globals that a function's code names, and what decorators have wrapped."""
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # not filled yet
            continue
    for name in _global_names(function.__code__):
        if name in function.__globals__:
            yield function.__globals__[name]
    yield getattr(function, "__wrapped__", None)


def _global_names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _global_names(constant)


_INSIDE = ("bound", "steps", "steps__", "func", "afunc", "coroutine", "tools_by_name", "runnable", "fallbacks", "first")
"""Attributes of runnables, graphs' nodes and tools that hold further ones."""


def _parts(item: Any) -> Iterator[Any]:
    for name in _INSIDE:
        try:
            part = inspect.getattr_static(item, name, None)
            if part is not None:
                yield getattr(item, name)
        except Exception:  # noqa: BLE001, S112  a property of foreign code may raise anything
            continue
    nodes = getattr(item, "nodes", None) if type(item).__module__.startswith("langgraph.") else None
    if isinstance(nodes, dict):
        yield from nodes.values()


def source_digest(*roots: Any) -> str:
    """SHA-256 over the user's own source files behind some roots, and the settings of the models there: another prompt,
    model or tool makes another digest. Files of installed packages do not count."""
    total = sha256()
    files: set[Path] = set()
    settings: list[str] = []
    for item in reach(*roots):
        if isinstance(item, FunctionType):
            files.add(Path(item.__code__.co_filename))
        elif _is_model(item):
            files.add(Path(inspect.getsourcefile(type(item)) or ""))
            settings.append(_settings(item))
    for path in sorted(files):
        if path.is_file() and not str(path).startswith(_LIBRARIES):
            total.update(path.read_bytes() + b"\0")
    total.update("\n".join(sorted(settings)).encode())
    return total.hexdigest()


def _is_model(item: Any) -> bool:
    from langchain_core.language_models.chat_models import BaseChatModel

    return isinstance(item, BaseChatModel)


def _settings(model: Any) -> str:
    """A model's class and what it says identifies it; values that are objects count by their type only."""
    plain = (str, int, float, bool, type(None))
    known = {
        key: value if isinstance(value, plain) else type(value).__name__
        for key, value in sorted(dict(model._identifying_params).items())
    }
    return f"{type(model).__module__}.{type(model).__qualname__} {known}"


def found(kind: type | tuple[type, ...], *roots: Any) -> list[Any]:
    """The reachable instances of a class."""
    return [item for item in reach(*roots) if isinstance(item, kind)]
