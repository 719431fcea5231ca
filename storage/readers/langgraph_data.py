"""LangGraph's serialised state as plain data: no class named in a checkpoint is ever imported or constructed.

LangGraph's own serializer builds the objects that a checkpoint names; of a stranger's file that is a risk even in its
strict mode. This one (the library's `SerializerProtocol`, handed to its savers) turns them into JSON: an object becomes
its fields with its class under `__class__`, times, ids, paths and sets what they hold. Pickled and encrypted values are
refused.
"""

from __future__ import annotations

import base64
import math
from typing import Any

from ..limits import current
from .binary_size import check_msgpack
from .json_text import NOT_FINITE, NOT_JSON, TOO_DEEP, BadRecord, decode, wrong_shape

CLASS = "__class__"
_NUMPY, _SNAPSHOT = 6, 7
_PLAIN_MODULES = frozenset(
    (
        "uuid",
        "decimal",
        "datetime",
        "pathlib",
        "pathlib._local",
        "ipaddress",
        "zoneinfo",
        "collections",
        "builtins",
        "re",
    )
)


class DataSerializer:
    """Reads what LangGraph's savers store; it writes nothing."""

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        """Never called: databases are opened to be read. Raises NotImplementedError."""
        raise NotImplementedError("this serializer only reads")

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        """The value as plain JSON. Raises BadRecord for what is refused or cannot be decoded."""
        kind, content = data
        if kind == "null":
            return None
        if kind in ("bytes", "bytearray"):
            return _binary(bytes(content))
        if kind == "msgpack":
            check_msgpack(content)
            return plain(_unpacked(content))
        if kind == "json":
            return plain(decode(bytes(content)))
        if kind == "pickle" or not kind:
            raise wrong_shape("a pickled value: refused, because reading it can run code")
        raise wrong_shape(f"a value of type {str(kind)[:40]!a} (encrypted, or of an unknown serializer) is not read")


def _unpacked(content: bytes) -> Any:
    import ormsgpack

    try:
        return ormsgpack.unpackb(content, ext_hook=_object, option=ormsgpack.OPT_NON_STR_KEYS)
    except RecursionError:
        raise BadRecord(TOO_DEEP, f"nested deeper than {current().depth} levels") from None
    except ValueError as error:  # MsgpackDecodeError is one
        if isinstance(error.__cause__, BadRecord):
            raise error.__cause__ from None
        raise BadRecord(NOT_JSON, f"not msgpack: {str(error)[:80]}") from None


def _object(code: int, content: bytes) -> Any:
    """What stands for an object: (module, class, its fields, ...)."""
    inner = _unpacked(content)
    if code == _SNAPSHOT:
        return inner
    if code == _NUMPY and isinstance(inner, list) and len(inner) > 1:
        return {CLASS: "numpy.ndarray", "dtype": inner[0], "shape": inner[1]}
    if not isinstance(inner, list) or len(inner) < 2 or not all(isinstance(part, str) for part in inner[:2]):
        return {CLASS: f"extension {code}", "value": inner}
    module, name, *fields = inner
    fields_of = fields[0] if fields else None
    if module in _PLAIN_MODULES:
        return fields_of
    named = {CLASS: f"{module}.{name}"}
    return named | fields_of if isinstance(fields_of, dict) else named | {"value": fields_of}


def plain(value: Any, depth: int = 0) -> Any:
    """The value with keys that are text, no binary, and no number that JSON lacks. Raises BadRecord for the latter."""
    if depth > current().depth:
        raise BadRecord(TOO_DEEP, f"nested deeper than {current().depth} levels")
    if isinstance(value, dict):
        return {key if isinstance(key, str) else str(key): plain(value[key], depth + 1) for key in value}
    if isinstance(value, (list, tuple)):
        return [plain(item, depth + 1) for item in value]
    if isinstance(value, (bytes, bytearray)):
        return _binary(bytes(value))
    if isinstance(value, float) and not math.isfinite(value):
        raise BadRecord(NOT_FINITE, "a number in the state is not finite")
    return value


def _binary(content: bytes) -> dict[str, str]:
    return {"base64": base64.b64encode(content).decode("ascii")}
