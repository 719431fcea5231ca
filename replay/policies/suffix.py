"""The rest of a recorded run in another context: ids that came out otherwise here are re-bound in its actions.

The calls of the recorded run are paired with the same calls of this context (same tool and arguments, the n-th time);
an id in an answer of the record stands for the id at the same place of the answer here. The first answer that held an
id decides. What is equal on both sides, or stands elsewhere in the answer here, stays.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from ...storage.records import Message, ToolCall
from ..naming import Names, Pair, aligned, ids_in
from ..rebinding import any_id, bound


@dataclass(frozen=True, slots=True)
class Answered:
    """A call and what was answered: parsed, and as `key`, which is equal for equal texts."""

    call: ToolCall
    digest: int
    key: str
    value: Any


Twins = Mapping[tuple[int, int], Answered]
"""Answered calls by (digest, how many times it was called before)."""


def twins_of(answers: Sequence[Answered]) -> Twins:
    """The calls of a context, to be looked up."""
    seen: Counter[int] = Counter()
    found = {}
    for answer in answers:
        found[answer.digest, seen[answer.digest]] = answer
        seen[answer.digest] += 1
    return found


def names_here(source: Sequence[Answered], twins: Twins, digest_of: Callable[[ToolCall], int]) -> Names:
    """What ids of the recorded run stand for in the context that `twins` are of."""
    names, seen, equal = Names(), Counter[int](), list[Answered]()
    for answer in source:
        digest = digest_of(_bound(answer.call, names)) if len(names) else answer.digest
        twin = twins.get((digest, seen[digest]))
        seen[digest] += 1
        if twin is not None and twin.key == answer.key:
            equal.append(answer)
        elif twin is not None:
            _learn(names, answer, twin, equal)
    return names


@dataclass(frozen=True, slots=True)
class _Texts:
    """An answer, equal to others of the same text."""

    key: str
    value: Any = field(compare=False)


@lru_cache(maxsize=5_000)
def _pairs(answer: _Texts, twin: _Texts) -> tuple[Pair, ...]:
    """Ids that differ between two answers to the same call; asked again and again for the same two."""
    return tuple(pair for pair in aligned(answer.value, twin.value) if pair.old != pair.new and any_id(pair))


def _bound(call: ToolCall, names: Names) -> ToolCall:
    return bound(Message("assistant", tool_calls=(call,)), names)[0].tool_calls[0]


def _learn(names: Names, answer: Answered, twin: Answered, equal: Sequence[Answered]) -> None:
    if not (pairs := _pairs(_Texts(answer.key, answer.value), _Texts(twin.key, twin.value))):
        return
    stay = {token for token, _ in ids_in(twin.value)}
    stay.update(token for other in equal for token, _ in ids_in(other.value))
    for pair in pairs:
        if pair.old not in stay:
            names.add(pair)
