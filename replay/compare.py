"""Compares the observations of one step with the record: exact, JSON-equal, equal after declared rules, or different.

A rule is never silent: the level and the rules that were needed are in the `Match`. Which rules there are: `rules.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from ..storage.canonical import canonical_json
from ..storage.records import Message
from .equality import Naming, agree
from .naming import Names
from .rules import Normaliser, normalisers_from

__all__ = ["LEVELS", "Level", "Match", "Naming", "Normaliser", "compare", "normalisers_from"]

Level: TypeAlias = Literal["exact", "json", "normalised"]
LEVELS: tuple[Level, ...] = ("exact", "json", "normalised")
"""From the strictest to the weakest; the level of a step is the weakest of its results."""

REBIND = "rebind ids"
"""The rule that is named where ids of the record stand for other ids of the world."""
_NOTHING = "(no result)"


@dataclass(frozen=True, slots=True)
class Match:
    """How the tool results of one step compare. `level` None: they differ, first at `expected` and `got`."""

    level: Level | None
    expected: str | None = None
    got: str | None = None
    rules: tuple[str, ...] = ()


def compare(
    expected: Sequence[Message], got: Sequence[Message], normalisers: Normaliser, naming: Naming | None = None
) -> Match:
    """Compare the tool results among two lists of observations; user replies come from the user seam and are left out.

    Results are paired by call id, the rest in order. A result that only one side has is a difference. `naming` carries
    from step to step which id stands for which; it is told what this comparison adds, if the results are equal.
    """
    level, rules = 0, dict[str, None]()
    known = naming or Naming(Names())
    trial = Naming(known.names, known.permit, known.settled)
    for wanted, found in _pairs(_results(expected), _results(got)):
        if wanted is None or found is None:
            return Match(None, _text(wanted), _text(found))
        reached, needed = _level(_text(wanted), _text(found), found.name or wanted.name, normalisers, trial)
        if reached is None:
            return Match(None, _text(wanted), _text(found))
        level = max(level, reached)
        rules.update(dict.fromkeys(needed))
    known.names = trial.names
    return Match(LEVELS[level], rules=tuple(rules))


def _level(
    expected: str, got: str, tool: str | None, normalisers: Normaliser, naming: Naming
) -> tuple[int | None, tuple[str, ...]]:
    """The level reached and the names of the rules it took; `naming` is told what was found out."""
    known = naming.names.text_in_record(got) if len(naming.names) else got
    renamed = known != got
    if expected == known:
        return (2, (REBIND,)) if renamed else (0, ())
    if agree((), expected, known, naming) is not None:
        return (2, (REBIND,)) if renamed else (1, ())
    needed = _needed(expected, known, tool, normalisers, naming)
    if needed is None:
        return None, ()
    return 2, tuple(dict.fromkeys((*needed, *((REBIND,) if renamed else ()))))


def _needed(
    expected: str, got: str, tool: str | None, normalisers: Normaliser, naming: Naming
) -> tuple[str, ...] | None:
    """Names of a smallest set of rules under which both texts are equal; None when all of them together fail.

    Ids are re-bound only where the declared rules alone do not do.
    """
    rules, permit = list(normalisers.of(tool)), None
    names = agree(rules, expected, got, naming) if rules else None
    if names is None and naming.permit is not None:
        permit = naming.permit
        names = agree(rules, expected, got, naming, permit)
    if names is None:
        return None
    for rule in tuple(rules):
        fewer = [other for other in rules if other is not rule]
        if (simpler := agree(fewer, expected, got, naming, permit)) is not None:
            rules, names = fewer, simpler
    naming.names = names
    return (*(rule.name for rule in rules), *((REBIND,) if permit is not None else ()))


def _results(observations: Sequence[Message]) -> list[Message]:
    return [message for message in observations if message.role in ("tool", "function")]


def _pairs(expected: Sequence[Message], got: Sequence[Message]) -> list[tuple[Message | None, Message | None]]:
    """By call id where the id is there once on both sides; the others in order, the shorter side filled with None."""
    counted = [Counter(message.tool_call_id for message in side) for side in (expected, got)]
    by_id = {message.tool_call_id: message for message in got}
    known = {key for key in by_id if key is not None and counted[0][key] == counted[1][key] == 1}
    rest = iter([message for message in got if message.tool_call_id not in known])
    pairs: list[tuple[Message | None, Message | None]] = [
        (wanted, by_id[wanted.tool_call_id] if wanted.tool_call_id in known else next(rest, None))
        for wanted in expected
    ]
    return pairs + [(None, extra) for extra in rest]


def _text(message: Message | None) -> str:
    if message is None:
        return _NOTHING
    content = message.content
    return canonical_json(content) if content is not None and not isinstance(content, str) else message.text
