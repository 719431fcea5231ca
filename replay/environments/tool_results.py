"""What a tool returns becomes text; what an instance holds becomes JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Set
from typing import Any

import msgspec

_UNKNOWN = object()
_SIMPLE = (bool, int, float, str, type(None))


def text_of(result: Any) -> str:
    """Text as it is, anything else as JSON text. Raises TypeError or ValueError for what is not JSON."""
    return result if isinstance(result, str) else json.dumps(result, ensure_ascii=False, default=plainly)


def jsonable(value: Any) -> Any:
    """`value` as plain JSON; None where it is not JSON (NaN is not)."""
    try:
        return json.loads(json.dumps(value, default=plainly, allow_nan=False))
    except (TypeError, ValueError, RecursionError):
        return None


def plainly(value: Any) -> Any:
    """One object that JSON does not know, as one that it does, one level deep: sets are sorted, records become objects,
    dates, decimals, ids and enums what `msgspec` makes of them. Raises TypeError for anything else."""
    if isinstance(value, Set):
        return _sorted(value)
    if isinstance(value, Mapping):
        return dict(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, msgspec.Struct):
        return msgspec.structs.asdict(value)
    dump = getattr(value, "model_dump", None)  # Pydantic
    return dump(mode="json") if callable(dump) else msgspec.to_builtins(value)


def _sorted(values: Set[Any]) -> list[Any]:
    """Texts and numbers in their own order, anything else in that of its JSON text: never in that of hashes."""
    if all(isinstance(value, str) for value in values) or all(isinstance(value, (int, float)) for value in values):
        return sorted(values)
    return sorted(values, key=lambda item: json.dumps(item, default=plainly))


def public_state(instance: Any, without: Set[str] = frozenset()) -> dict[str, Any]:
    """The public attributes of an instance whose values are JSON, as plain JSON, by name; class attributes only where
    they are numbers, texts, truth values or None, and not named in `without`."""
    kind = type(instance)
    shared = {name: value for base in reversed(kind.__mro__) for name, value in vars(base).items()}
    simple = [name for name, value in shared.items() if name not in without and isinstance(value, _SIMPLE)]
    slots = [name for base in kind.__mro__ for name in _slots(base)]
    found = {}
    for name in sorted({*simple, *slots, *getattr(instance, "__dict__", {})}):
        value = _UNKNOWN if name.startswith("_") else getattr(instance, name, _UNKNOWN)
        known = jsonable(value)
        if known is not None or value is None:
            found[name] = known
    return found


def _slots(kind: type) -> tuple[str, ...]:
    slots = vars(kind).get("__slots__", ())
    return (slots,) if isinstance(slots, str) else tuple(slots)
