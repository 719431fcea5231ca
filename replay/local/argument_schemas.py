"""The JSON schemas of tools' arguments, made ready for a grammar: checked, closed and with finite numbers."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from ...storage.errors import UsageError
from ...storage.records import ToolSchema
from ..policies.wire import wire_tool

LARGEST_NUMBER = 2**53 - 1
"""Beyond it JSON readers disagree (RFC 8259, section 6); and a small model that repeats a digit needs an end."""
ANY = "any-json-value"
ANY_REFERENCE = {"$ref": f"#/$defs/{ANY}"}
ANY_VALUE: dict[str, Any] = {
    "anyOf": [
        {"type": "string"},
        {"type": "number", "minimum": -LARGEST_NUMBER, "maximum": LARGEST_NUMBER},
        {"type": ["boolean", "null"]},
        {"type": "array", "items": ANY_REFERENCE},
        {"type": "object", "additionalProperties": ANY_REFERENCE},
    ]
}
ANY_OBJECT: dict[str, Any] = {"type": "object", "additionalProperties": ANY_REFERENCE, "$defs": {ANY: ANY_VALUE}}
"""Every JSON object whose numbers are finite."""

ANNOTATIONS = frozenset({"title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly"})
ONE = ("items", "additionalProperties")
MANY = ("prefixItems", "anyOf", "oneOf")
NAMED = ("properties", "patternProperties", "$defs", "definitions")
"""Keywords that hold one schema, a list of them, and schemas by name."""
MERGING = frozenset({"allOf", "not", "if", "dependentSchemas", "unevaluatedProperties", "propertyNames"})
"""Where one of them stands, several schemas speak about one object, and to close one of them may forbid everything."""
LEFT_OPEN = frozenset({"additionalProperties", "patternProperties", "minProperties", "$ref", "anyOf", "oneOf"})
BOUNDS = {"minimum": "exclusiveMinimum", "maximum": "exclusiveMaximum"}
UNNAMED_CONTROL = re.compile(r"\\u00[01][0-9a-f]|\x7f")
"""In JSON text: a control character that has no escape of one letter."""


def tool_schema(tool: ToolSchema) -> tuple[str, dict[str, Any]]:
    """(name, schema of the arguments). A tool without parameters takes none (as OpenAI's API reads it).

    Raises UsageError, naming the tool, for parameters that are no JSON schema of an object.
    """
    function = wire_tool(tool)["function"]
    name = function.get("name") if isinstance(function, Mapping) else None
    if not name or not isinstance(name, str):
        raise UsageError(f"a tool without a name: {str(tool)[:120]}")
    parameters = function.get("parameters")
    if parameters is None:
        return name, {"type": "object", "properties": {}, "additionalProperties": False}
    if not isinstance(parameters, Mapping):
        raise UsageError(f"tool {name}: its parameters are no JSON schema but {type(parameters).__name__}")
    kinds = parameters.get("type", "object")
    if "object" not in (kinds if isinstance(kinds, (list, tuple)) else [kinds]):
        raise UsageError(f"tool {name}: its parameters must be of type object, not {kinds!r}")
    try:
        copied = json.loads(json.dumps(parameters, default=dict, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as cause:
        raise UsageError(f"tool {name}: its parameters are no JSON: {cause}") from None
    return name, {**copied, "type": "object"}


def tightened(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A schema for fewer values, all of them valid under `schema`: objects take only the properties they list, numbers
    are at most 2^53 - 1 in size and have no exponent. A small model fills every freedom it is given."""
    closes = not any(f'"{word}"' in json.dumps(schema) for word in MERGING)
    tight: dict[str, Any] = _tight(schema, closes)
    definitions = tight.get("$defs", {})
    if isinstance(definitions, dict):
        tight["$defs"] = {**definitions, ANY: ANY_VALUE}
    return tight


def tight_or_not(schema: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What to try in turn: tightened, and as it is, where tightening left nothing."""
    return tightened(schema), schema


def escapes(schema: Mapping[str, Any]) -> str:
    r"""The letters allowed after a backslash. `\uXXXX` only where a constant needs it: any character can be written as
    itself, and half of a surrogate pair, which no UTF-8 can hold, cannot be written at all."""
    needs_hexadecimal = UNNAMED_CONTROL.search(json.dumps(schema, ensure_ascii=False)) is not None
    return 'nrbtf\\"u' if needs_hexadecimal else 'nrbtf\\"'


def _tight(schema: Any, closes: bool) -> Any:
    if schema is True or (isinstance(schema, Mapping) and schema.keys() <= ANNOTATIONS):
        return ANY_REFERENCE
    if not isinstance(schema, Mapping):
        return schema
    tight = dict(schema)
    for word in ONE:
        if word in tight:
            tight[word] = _tight(tight[word], closes)
    for word in MANY:
        if isinstance(tight.get(word), list):
            tight[word] = [_tight(item, closes) for item in tight[word]]
    for word in NAMED:
        if isinstance(tight.get(word), Mapping):
            tight[word] = {name: _tight(item, closes) for name, item in tight[word].items()}
    if "enum" in tight or "const" in tight:
        return tight
    kinds = tight.get("type")
    return _filled(tight, kinds if isinstance(kinds, list) else [kinds], closes)


def _filled(tight: dict[str, Any], kinds: list[Any], closes: bool) -> dict[str, Any]:
    if "integer" in kinds or "number" in kinds:
        _bound(tight)
    if "array" in kinds and "items" not in tight and "prefixItems" not in tight:
        tight["items"] = ANY_REFERENCE
    if "object" in kinds and closes and not LEFT_OPEN & tight.keys():
        listed = tight.get("properties")
        if not listed and not tight.get("required"):
            tight["additionalProperties"] = ANY_REFERENCE if listed is None else False
        elif isinstance(listed, Mapping) and set(tight.get("required", ())) <= listed.keys():
            tight["additionalProperties"] = False
    return tight


def _bound(tight: dict[str, Any]) -> None:
    ends = {name: tight.get(name, tight.get(other)) for name, other in BOUNDS.items()}
    given = [value for value in ends.values() if value is not None]
    if any(isinstance(value, bool) or not isinstance(value, (int, float)) for value in given):
        return  # an older draft of JSON schema, or a mistake: for the grammar's compiler to say
    if all(abs(value) < LARGEST_NUMBER for value in given):
        signs = {"minimum": -LARGEST_NUMBER, "maximum": LARGEST_NUMBER}
        tight.update({name: signs[name] for name, value in ends.items() if value is None})
