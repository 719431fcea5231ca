"""Ids: what looks like one, which ids of two observations stand at the same place, and a bijection between them.

A world that makes new ids at every reset says the same in other names. Two observations then agree *up to renaming*:
each recorded id stands for exactly one id of this world, everywhere. Two ids that change places are a difference.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

_UUID = r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}"
_HEX = r"(?=[0-9a-fA-F]*[0-9])(?=[0-9a-fA-F]*[a-fA-F])[0-9a-fA-F]{8,128}"
_PREFIXED = r"(?:[A-Za-z]{1,16}[-_]){1,3}(?=[A-Za-z]*\d)[A-Za-z0-9]{4,64}"
_DIGITS = r"\d{6,40}"
TOKEN = re.compile(rf"(?<![\w-])(?:{_UUID}|{_PREFIXED}|{_HEX}|{_DIGITS})~*(?!\w|-\w|\.\d)")
"""What looks like an id wherever it stands: UUIDs, hexadecimal numbers of 8 digits and more, decimal ones of 6 and
more, and those with a word before them (`ord_8f3a`, `BK-2041`)."""
_COMPACT = re.compile(r"[\w.:/+=-]{1,64}")
_ID_NAME = re.compile(
    r"(?:^|[_\-.]|(?<=[a-z0-9])(?=[A-Z]))(?:id|ids|uuid|guid|ref|refs|reference|token|handle|key|keys|number|no|nr|code|codes|hash|"
    r"sha|sku|iban|account|booking|invoice|order|ticket|reservation|line|session|node|user|customer)$",
    re.IGNORECASE,
)


class Pair(NamedTuple):
    """An id of the record, the one that stands at its place in this world, and the key that both stand under."""

    old: str
    new: str
    name: str

    @property
    def strong(self) -> bool:
        """Both look like ids wherever they stand."""
        return is_id(self.old) and is_id(self.new)

    @property
    def named(self) -> bool:
        """The key says that it is an id (`booking_id`)."""
        return bool(_ID_NAME.search(self.name))


Permit = Callable[[Pair], bool]


def is_id(text: str) -> bool:
    """Whether a text looks like an id by itself."""
    return TOKEN.fullmatch(text) is not None


def is_id_name(name: str) -> bool:
    """Whether values under this key are ids."""
    return bool(_ID_NAME.search(name))


def ids_in(value: Any, name: str = "", *, every: bool = False) -> Iterator[tuple[str, str]]:
    """(id, key) of what may be an id in a JSON value: tokens in texts and keys, and what stands under an id's key.

    `every`: every short text and every whole number, whatever its key.
    """
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from ((token, name) for token in TOKEN.findall(str(key)))
            yield from ids_in(item, str(key), every=every)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from ids_in(item, name, every=every)
    elif isinstance(value, str):
        if (every or is_id_name(name)) and _COMPACT.fullmatch(value):
            yield value, name
        yield from ((token, name) for token in TOKEN.findall(value))
    elif _whole(value) and (every or is_id_name(name)):
        yield str(value), name


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def aligned(left: Any, right: Any, name: str = "") -> Iterator[Pair]:
    """Ids, equal or not, at the same place of two JSON values, or of two texts that are equal but for them."""
    if isinstance(left, str) and isinstance(right, str):
        yield from _aligned_texts(left, right, name)
    elif _whole(left) and _whole(right):
        if is_id_name(name):
            yield Pair(str(left), str(right), name)
    elif isinstance(left, dict) and isinstance(right, dict):
        yield from _aligned_members(left, right, name)
    elif isinstance(left, list) and isinstance(right, list) and len(left) == len(right):
        for first, second in zip(left, right, strict=True):
            yield from aligned(first, second, name)


def _aligned_members(left: dict[str, Any], right: dict[str, Any], name: str) -> Iterator[Pair]:
    """Members of the same key, then what is left on either side in order: ids may be keys."""
    for key in left.keys() & right.keys() if left.keys() != right.keys() else left.keys():
        yield from aligned(left[key], right[key], key)
    rest = [key for key in left if key not in right], [key for key in right if key not in left]
    if len(rest[0]) == len(rest[1]):
        for old, new in zip(*rest, strict=True):
            yield Pair(old, new, name)
            yield from aligned(left[old], right[new], old)


def _aligned_texts(left: str, right: str, name: str) -> Iterator[Pair]:
    if is_id_name(name) and _COMPACT.fullmatch(left) and _COMPACT.fullmatch(right):
        yield Pair(left, right, name)
    elif TOKEN.sub("\0", left) == TOKEN.sub("\0", right):
        for old, new in zip(TOKEN.findall(left), TOKEN.findall(right), strict=True):
            yield Pair(old, new, name)


class Names:
    """Which id of this world stands for which id of the record: one for one, in both directions."""

    __slots__ = ("_new", "_old")

    def __init__(self, new: Mapping[str, str] | None = None):
        self._new = dict(new or {})
        self._old = {value: key for key, value in self._new.items()}

    def __len__(self) -> int:
        return len(self._new)

    def copy(self) -> Names:
        """An independent copy."""
        return Names(self._new)

    def add(self, pair: Pair) -> bool:
        """Take one pair; False, and nothing taken, when one of the two stands for another already, or when the pair
        would close a circle: then ids have changed places."""
        if self._new.get(pair.old, pair.new) != pair.new or self._old.get(pair.new, pair.old) != pair.old:
            return False
        at = pair.new
        while at in self._new:
            at = self._new[at]
            if at == pair.old:
                return False
        self._new[pair.old] = pair.new
        self._old[pair.new] = pair.old
        return True

    def in_world(self, value: Any) -> tuple[Any, int]:
        """A value that speaks of recorded ids, in this world's: (value, how many places changed)."""
        return _renamed(value, self._new, "")

    def in_record(self, value: Any) -> Any:
        """What this world says, in the record's ids. An id that is new here, but means another thing in the record, is
        told apart by a tilde."""
        for token, _ in list(ids_in(value)):
            if token in self._new and token not in self._old:
                self.add(Pair(token + "~", token, ""))
        return _renamed(value, self._old, "")[0]

    def text_in_record(self, text: str) -> str:
        """As `in_record`, for the text of an observation. Unchanged, byte for byte, when no known id is in it."""
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            return str(self.in_record(text))
        renamed = self.in_record(value)
        return text if renamed == value else json.dumps(renamed)


def _renamed(value: Any, names: Mapping[str, str], key: str) -> tuple[Any, int]:
    """A copy with ids exchanged: whole texts, tokens in texts, keys, and whole numbers under an id's key."""
    if isinstance(value, str):
        return _renamed_text(value, names, key)
    if isinstance(value, Mapping):
        return _renamed_members(value, names)
    if isinstance(value, (list, tuple)):
        items = [_renamed(item, names, key) for item in value]
        return [item for item, _ in items], sum(count for _, count in items)
    if _whole(value) and str(value) in names and is_id_name(key):
        other = names[str(value)]
        return (int(other) if other.isdecimal() else other), 1
    return value, 0


def _renamed_members(value: Mapping[str, Any], names: Mapping[str, str]) -> tuple[dict[str, Any], int]:
    made, total = {}, 0
    for key, item in value.items():
        renamed, count = _renamed(item, names, key)
        made[names.get(key, key)] = renamed
        total += count + (key in names)
    return made, total


def _renamed_text(text: str, names: Mapping[str, str], key: str) -> tuple[str, int]:
    if text in names and (is_id(text) or is_id_name(key)):
        return names[text], 1
    changed = 0

    def other(found: re.Match[str]) -> str:
        nonlocal changed
        changed += found[0] in names
        return names.get(found[0], found[0])

    return TOKEN.sub(other, text), changed


def accepted(
    names: Names, left: Any, right: Any, permit: Permit, settled: Callable[[], Iterable[str]]
) -> tuple[Names, Any]:
    """What it takes to rename `right` (a world's, in the record's ids as far as `names` knows them) into `left`.

    The names with the permitted pairs, and `right` renamed by these; both unchanged when the pairs contradict what is
    known or each other. `settled`: ids that stand for themselves, because both sides used them before.
    """
    every = list(dict.fromkeys(aligned(left, right)))
    pairs = [pair for pair in every if pair.old != pair.new and permit(pair)]
    if not pairs:
        return names, right
    same, found = {pair.old for pair in every if pair.old == pair.new}.union(settled()), names.copy()
    for pair in pairs:
        if pair.old in same or pair.new in same or not found.add(pair):
            return names, right
    return found, _renamed(right, {pair.new: pair.old for pair in pairs}, "")[0]
