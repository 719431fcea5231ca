"""Where the arguments of a recorded call came from, and the same provenance resolved in another context.

A call's arguments are taken apart into leaves. Each leaf is traced to the latest earlier observation that holds its
value (tool and JSON path), to what the user said (a pattern), or, failing both, it is a constant. In another context
the same places hold other values: that is the call with its arguments bound. The first list index in a path is a
choice, so one template may bind to several calls; leaves from the same list move together.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

from ...storage.canonical import canonical_json
from ...storage.records import ToolCall
from .facts import MISSING, Facts, Path, Place, follow, identity_of, last_name

Kind: TypeAlias = Literal["text", "whole", "number", "other"]

MAX_VARIANTS = 16
"""Calls that one template may bind to in one context."""


@dataclass(frozen=True, slots=True)
class Observed:
    """The observation of `tool` that lies `back` before its latest; `path` leads to the value.

    With `offset` the path leads to a list (or to an object, `keys`: its keys are the list): the value lies at the
    chosen index + offset, and on from there by `rest`.
    """

    tool: str
    back: int
    path: Path
    offset: int | None = None
    rest: Path = ()
    keys: bool = False


@dataclass(frozen=True, slots=True)
class Said:
    """Matches of `pattern` in the user's texts, the latest first: the one at the chosen index + offset."""

    pattern: str
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Constant:
    """The same value everywhere; `text` is its canonical JSON."""

    text: str


Origin: TypeAlias = Observed | Said | Constant


@dataclass(frozen=True, slots=True)
class Leaf:
    """One scalar of a call's arguments: where it stands, what kind of value it takes, where the value comes from."""

    path: Path
    kind: Kind
    origin: Origin


@dataclass(frozen=True, slots=True)
class Template:
    """A call with the origin of each argument leaf. Equal templates are the same call with the same provenance."""

    tool: str
    leaves: tuple[Leaf, ...]

    @property
    def constants(self) -> tuple[tuple[str, Path, str], ...]:
        """(tool, path, canonical value) of each constant leaf: what other runs must confirm."""
        return tuple((self.tool, leaf.path, leaf.origin.text) for leaf in self.leaves if type(leaf.origin) is Constant)


def trace(call: ToolCall, facts: Facts) -> Template | None:
    """The call as a template, from what was known when it was made; None when its arguments are not a JSON object."""
    if call.arguments is None:
        return None
    leaves = [Leaf(path, _kind(value), _origin(path, value, facts)) for path, value in leaves_of(call.arguments)]
    return Template(call.name, tuple(_relative(leaves)))


def resolve(template: Template, facts: Facts) -> Iterator[dict[str, Any]]:
    """The arguments that the template binds to in a context, in the order of the choices, at most MAX_VARIANTS.

    Nothing when a single leaf cannot be bound. Lists inside the arguments keep the length they had.
    """
    options: dict[Hashable, Sequence[Any]] = {}
    for leaf in template.leaves:
        source = _source(leaf.origin)
        if source is not None and source not in options:
            options[source] = _options(leaf.origin, facts)
            if not options[source]:
                return
    choices = itertools.product(*(range(len(values)) for values in options.values()))
    for chosen in itertools.islice(choices, MAX_VARIANTS):
        at = dict(zip(options, chosen, strict=True))
        values = [(leaf.path, _value(leaf, options, at)) for leaf in template.leaves]
        if all(value is not MISSING for _, value in values):
            yield build(values)


def leaves_of(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Scalars and empty containers of a JSON value, with the path to each; an empty object at the top has none."""
    if isinstance(value, Mapping) and (value or not path):
        for key, item in value.items():
            yield from leaves_of(item, (*path, key))
    elif isinstance(value, (list, tuple)) and value:
        for index, item in enumerate(value):
            yield from leaves_of(item, (*path, index))
    else:
        yield path, value


def build(leaves: Sequence[tuple[Path, Any]]) -> dict[str, Any]:
    """The inverse of `leaves_of` for an object."""
    root: dict[Any, Any] = {}
    for path, value in leaves:
        place = root
        for part in path[:-1]:
            place = place.setdefault(part, {})
        place[path[-1]] = value
    return {key: _with_lists(value) for key, value in root.items()}


def shape_of(text: str) -> str | None:
    """A pattern for what looks like `text` (`mia_li_3668`: two words and four digits); None when any word looks so.

    Only identifiers have a shape worth trusting: without blanks, four characters or more, and either a digit, an
    underscore, an at-sign or a slash among other characters, or nothing but capitals and digits.
    """
    if len(text) < 4 or any(character.isspace() for character in text):
        return None
    if re.fullmatch(r"[A-Z0-9]{5,}", text) and not text.isdigit():
        return rf"(?<!\w)[A-Z0-9]{{{len(text)}}}(?!\w)"
    parts = re.findall(r"[0-9]+|[a-z]+|[A-Z]+|[^0-9a-zA-Z]", text)
    if len(parts) < 2 or not re.search(r"[0-9_@/]", text):
        return None
    return r"(?<!\w)" + "".join(map(_part_pattern, parts)) + r"(?!\w)"


def spoken(said: Sequence[str], pattern: str) -> list[str]:
    """What matches in the user's texts, each once, the latest first."""
    found = [match.group() for text in reversed(said) for match in reversed(list(re.finditer(pattern, text)))]
    return list(dict.fromkeys(found))


def _part_pattern(part: str) -> str:
    if part.isascii() and part.isdigit():
        return rf"[0-9]{{{len(part)}}}"
    if part.isascii() and part.isalpha():
        return "[a-z]+" if part.islower() else f"[A-Z]{{{len(part)}}}"
    return re.escape(part)


def _with_lists(value: Any) -> Any:
    """Objects whose keys are indexes become lists again."""
    if not isinstance(value, dict):
        return value
    if value and all(isinstance(key, int) for key in value):
        return [_with_lists(value[key]) for key in sorted(value)]
    return {key: _with_lists(item) for key, item in value.items()}


def _kind(value: Any) -> Kind:
    if isinstance(value, str):
        return "text"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return "other"
    return "whole" if isinstance(value, int) else "number"


def _origin(path: Path, value: Any, facts: Facts) -> Origin:
    return _observed(last_name(path), value, facts) or _said(value, facts) or Constant(canonical_json(value))


def _observed(name: str, value: Any, facts: Facts) -> Observed | None:
    """The latest observation that holds the value under the same name; else, when nobody meets such a value by
    accident, the latest that holds it at all."""
    wanted = identity_of(value)
    if wanted is None:
        return None
    unlike: Observed | None = None
    for tool, back, places in facts.places(wanted):
        alike = next((place for place in places if last_name(place.path) == name), None)
        if alike is not None:
            return _at(tool, back, alike)
        unlike = unlike or _at(tool, back, places[0])
    return unlike if _distinctive(value) else None


def _distinctive(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) >= 4 or any(character.isdigit() for character in value)
    return bool(abs(value) >= 10)


def _at(tool: str, back: int, place: Place) -> Observed:
    """Split the path at its first index: that one is a choice."""
    path = place.path
    split = next((index for index, part in enumerate(path) if isinstance(part, int)), None)
    if split is None:
        return Observed(tool, back, path)
    return Observed(tool, back, path[:split], int(path[split]), path[split + 1 :], place.key)


def _said(value: Any, facts: Facts) -> Said | None:
    text = "" if _kind(value) == "other" else str(value)
    literal = rf"(?<!\w){re.escape(text)}(?!\w)"
    if not text.strip() or not any(re.search(literal, said) for said in facts.said):
        return None
    shape = shape_of(text)
    matches = spoken(facts.said, shape) if shape is not None else []
    return Said(shape, matches.index(text)) if shape is not None and text in matches else Said(literal)


def _relative(leaves: Sequence[Leaf]) -> Iterator[Leaf]:
    """Offsets count from the first leaf of each source, so that only the choice itself differs between contexts."""
    first: dict[Hashable, int] = {}
    for leaf in leaves:
        origin = leaf.origin
        if isinstance(origin, Constant) or origin.offset is None:
            yield leaf
        else:
            base = first.setdefault(_source(origin), origin.offset)
            yield replace(leaf, origin=replace(origin, offset=origin.offset - base))


def _source(origin: Origin) -> Hashable | None:
    """Leaves of one source are chosen together; None: a constant has nothing to choose."""
    if isinstance(origin, Said):
        return origin.pattern
    if isinstance(origin, Observed):
        return (origin.tool, origin.back, origin.path, origin.offset is None, _keys_are_options(origin))
    return None


def _keys_are_options(origin: Observed) -> bool:
    return origin.keys and not origin.rest


def _options(origin: Origin, facts: Facts) -> Sequence[Any]:
    if isinstance(origin, Said):
        return spoken(facts.said, origin.pattern)
    if not isinstance(origin, Observed):
        return ()
    value = follow(facts.latest(origin.tool, origin.back), origin.path)
    if origin.offset is None:
        return () if value is MISSING else (value,)
    if _keys_are_options(origin):
        return list(value) if isinstance(value, dict) else ()
    return value if isinstance(value, list) else ()


def _value(leaf: Leaf, options: Mapping[Hashable, Sequence[Any]], at: Mapping[Hashable, int]) -> Any:
    origin = leaf.origin
    if isinstance(origin, Constant):
        return json.loads(origin.text)
    source = _source(origin)
    index = at[source] + (origin.offset or 0)
    if not 0 <= index < len(options[source]):
        return MISSING
    value = options[source][index]
    if isinstance(origin, Observed) and origin.rest:
        value = follow(value, origin.rest, keys=origin.keys)
    return _as_kind(value, leaf.kind)


def _as_kind(value: Any, kind: Kind) -> Any:
    """The value as the argument takes it (what a user says is text, a sum may come as 255.0), else MISSING."""
    if kind == "text":
        return value if isinstance(value, str) and value else MISSING
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return MISSING
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return MISSING
    if not math.isfinite(number):
        return MISSING
    if kind == "whole" and number.is_integer():
        return int(number)
    return number if isinstance(value, str) else value
