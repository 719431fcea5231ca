"""Python functions as tools: a JSON schema from type hints and docstring, and calls whose arguments are checked.

Hints may be whatever `msgspec` knows: builtins, dataclasses, structs, TypedDict, Literal, Enum, dates, unions, ranges
as `Annotated[int, Meta(ge=1)]`; and Pydantic models. `Annotated[str, "what it is"]` describes a parameter as a
docstring does.
"""

from __future__ import annotations

import inspect
import json
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import msgspec

from ...storage.canonical import plain
from ...storage.errors import UsageError
from ...storage.records import JsonObject, ToolSchema
from .tool_results import jsonable
from .wire import ATTRIBUTES

_METHODS = {"reset", "done", "state", "state_key", "close", "hear", "reseed", "fork"}
HOOKS = frozenset(_METHODS | {"tools", "forks", "inline", "isolation", *ATTRIBUTES})
"""Names that mean something to the house on a class of tools, and are no tools."""


class WrongArguments(Exception):
    """A call's arguments do not fit the tool's hints; the text says which and why."""


@dataclass(frozen=True, slots=True)
class Tool:
    """One function of a class: how it is described, and how it is called."""

    name: str
    schema: ToolSchema
    arguments: type[msgspec.Struct]
    by_position: tuple[str, ...]
    """Parameters that Python takes by position only."""
    waits: bool
    """It is `async def`."""

    def call(self, instance: Any, arguments: JsonObject) -> Any:
        """The function's result, awaitable where it `waits`. Raises WrongArguments, and whatever the function does."""
        given = self._converted(arguments)
        positions = [given.pop(name) for name in self.by_position if name in given]
        return getattr(instance, self.name)(*positions, **given)

    def _converted(self, arguments: JsonObject) -> dict[str, Any]:
        """Arguments of the hinted types, those that were given; copies, so that no tool can change the record."""
        try:
            own = json.loads(json.dumps(arguments, default=plain))
            made = msgspec.convert(own, self.arguments, dec_hook=_decoded)
        except (msgspec.ValidationError, TypeError, ValueError) as error:
            raise WrongArguments(str(error)) from error
        names = self.arguments.__struct_fields__
        return {name: value for name in names if (value := getattr(made, name)) is not msgspec.UNSET}


@lru_cache(maxsize=256)
def toolset(kind: type) -> Mapping[str, Tool]:
    """The tools of a class by name: its public functions in the order of their definition, those of bases first.

    An attribute `tools`, a list of names, picks and orders them. Raises UsageError for a hook or function that cannot
    be one, with the function's name.
    """
    _check_hooks(kind)
    chosen = getattr(kind, "tools", None)
    if callable(chosen) or isinstance(chosen, (str, property)):
        raise UsageError(f"{kind.__name__}: tools is a list of the names of functions", hint='tools = ["search"]')
    names = list(chosen) if chosen is not None else list(public_functions(kind))
    unknown = [name for name in names if not callable(getattr(kind, name, None))]
    if unknown or not names:
        raise UsageError(f"{kind.__name__} has no {'function ' + str(unknown[0]) if unknown else 'public functions'}")
    return {name: _tool(kind, name) for name in names}


def public_functions(kind: type) -> dict[str, None]:
    """Names of the Python functions of a class, in order: no leading underscore, no hooks."""
    return {
        name: None
        for base in reversed(kind.__mro__)
        for name, item in vars(base).items()
        if _is_function(item) and not name.startswith("_") and name not in HOOKS
    }


def _is_function(item: Any) -> bool:
    return inspect.isfunction(item.__func__ if isinstance(item, (staticmethod, classmethod)) else item)


def _check_hooks(kind: type) -> None:
    """Raises UsageError for a hook that could only be meant as a tool: the house calls it with other arguments."""
    for name, given in (("reset", 1), ("state", 0), ("state_key", 0), ("done", 0), ("close", 0), ("fork", 0)):
        hook = inspect.getattr_static(kind, name, None)
        if hook is None or not _is_function(hook):
            continue
        wanted = given if isinstance(hook, (staticmethod, classmethod)) else given + 1
        try:
            inspect.signature(getattr(kind, name)).bind(*(None,) * (wanted - isinstance(hook, classmethod)))
        except TypeError as error:
            takes = "the task" if given else "nothing"
            raise UsageError(
                f"{kind.__name__}.{name}: {error}", hint=f"{name} is a hook and gets {takes}; a tool needs another name"
            ) from error


def _tool(kind: type, name: str) -> Tool:
    bound = inspect.getattr_static(kind, name)
    function: Callable[..., Any] = bound.__func__ if isinstance(bound, (staticmethod, classmethod)) else bound
    place = f"{kind.__name__}.{name}"
    try:
        hints = typing.get_type_hints(function, include_extras=True)
        parameters = _parameters(function, skip=not isinstance(bound, staticmethod))
        fields = [_field(item, hints.get(item.name, Any)) for item in parameters]
        arguments = msgspec.defstruct(f"{name}_arguments", fields, kw_only=True, forbid_unknown_fields=True)
        schema = _schema(name, function, arguments, parameters, hints)
    except (TypeError, NameError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise UsageError(f"{place} cannot be a tool: {reason}", hint="a leading underscore keeps it out") from error
    positions = tuple(item.name for item in parameters if item.kind is item.POSITIONAL_ONLY)
    return Tool(name, schema, arguments, positions, inspect.iscoroutinefunction(function))


def _parameters(function: Callable[..., Any], *, skip: bool) -> list[inspect.Parameter]:
    """Raises TypeError for `*args` and `**kwargs`: a model could not know what to give."""
    found = list(inspect.signature(function).parameters.values())[int(skip) :]
    for item in found:
        if item.kind in (item.VAR_POSITIONAL, item.VAR_KEYWORD):
            raise TypeError(f"its parameter {item} has no names that a schema could list")
    return found


def _field(item: inspect.Parameter, hint: Any) -> tuple[str, Any] | tuple[str, Any, Any]:
    if item.default is item.empty:
        return item.name, hint
    return item.name, hint | msgspec.UnsetType if hint is not Any else Any, msgspec.UNSET


def _schema(
    name: str,
    function: Callable[..., Any],
    arguments: type[msgspec.Struct],
    parameters: list[inspect.Parameter],
    hints: Mapping[str, Any],
) -> ToolSchema:
    """The tool in OpenAI's style."""
    _, components = msgspec.json.schema_components(
        [arguments], schema_hook=_schema_of_model, ref_template="#/$defs/{name}"
    )
    own = components.pop(arguments.__name__)
    text, described = _docstring(function)
    for item in parameters:
        said = described.get(item.name) or _annotated(hints.get(item.name))
        shown = own["properties"][item.name]
        if said and "description" not in shown:
            shown["description"] = said
        if item.default not in (item.empty, None) and (default := jsonable(item.default)) is not None:
            shown["default"] = default
    hoisted = _hoisted(own)
    shape = {key: value for key, value in own.items() if key != "title"}
    if components or hoisted:
        shape["$defs"] = {**components, **hoisted}
    return {"type": "function", "function": {"name": name, "description": text, "parameters": shape}}


def _docstring(function: Callable[..., Any]) -> tuple[str, dict[str, str]]:
    """What the function does, and each parameter by name; Google, NumPy, reST and Epydoc style."""
    import docstring_parser

    text = inspect.getdoc(function) or ""
    try:
        parsed = docstring_parser.parse(text)
    except docstring_parser.ParseError:
        return text, {}
    said = "\n\n".join(part for part in (parsed.short_description, parsed.long_description) if part)
    return said, {item.arg_name: " ".join((item.description or "").split()) for item in parsed.params}


def _annotated(hint: Any) -> str | None:
    """The text in `Annotated[type, "text"]`."""
    return next((item for item in getattr(hint, "__metadata__", ()) if isinstance(item, str)), None)


def _schema_of_model(kind: type) -> dict[str, Any]:
    """Schema of a Pydantic model. Raises NotImplementedError for any other class, which makes msgspec complain."""
    method = getattr(kind, "model_json_schema", None)
    if method is None:
        raise NotImplementedError
    return dict(method())


def _hoisted(schema: Any) -> dict[str, Any]:
    """Take the `$defs` that Pydantic puts inside a property out of it: references are read from the root."""
    if isinstance(schema, list):
        return {key: value for item in schema for key, value in _hoisted(item).items()}
    if not isinstance(schema, dict):
        return {}
    found: dict[str, Any] = schema.pop("$defs", {})
    for item in schema.values():
        found = {**found, **_hoisted(item)}
    return found


def _decoded(kind: type, value: Any) -> Any:
    """A Pydantic model from JSON. Raises NotImplementedError for any other class."""
    method: Any = getattr(kind, "model_validate", None)
    if method is None:
        raise NotImplementedError(f"arguments cannot become a {kind.__name__}")
    return method(value)
