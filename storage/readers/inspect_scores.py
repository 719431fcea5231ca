"""Verdicts of an Inspect sample: its scores, and why it ended."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..records import Outcome, Score
from .chat import listing, mapping, number, string

_LETTERS = {"C": 1.0, "I": 0.0, "P": 0.5, "N": 0.0}
_DETAIL = ("answer", "explanation", "metadata")
Json = Mapping[str, Any]


def verdicts(sample: Json, header: Json) -> tuple[Outcome | None, dict[str, Score], dict[str, int]]:
    """(outcome, named scores, counts). The outcome is the log's headline score where the sample has it as one number,
    bool or letter (C 1, P 0.5, I and N 0), else the sample's first such score. A score that is an object is one score
    a key, `name.key`; one that is a text or not a number abstains.
    """
    given = _given(sample)
    scores = dict(_scores(given))
    plain = [name for name, value in given.items() if _value(mapping(value).get("value"), name) is not None]
    headline = mapping(mapping(header.get("results")).get("headline"))
    wanted = [string(headline.get("score")), string(headline.get("scorer"))]
    main = next((name for name in (*wanted, *plain) if name in plain), None)
    reason = _reason(sample)
    counts = {"rewards": int(bool(plain)), "scored": int(bool(given))}
    if main is None:
        return (None if reason is None else Outcome(exit_reason=reason)), scores, counts
    return Outcome(scores[main].value, main, reason, scores[main].detail), scores, counts


def _given(sample: Json) -> Json:
    """Old logs have one score, without a name."""
    return mapping(sample.get("scores")) or ({"score": sample["score"]} if sample.get("score") else {})


def _scores(given: Json) -> Iterator[tuple[str, Score]]:
    for name, value in given.items():
        score = mapping(value)
        detail = {key: score[key] for key in _DETAIL if score.get(key) is not None}
        verdict = score.get("value")
        if isinstance(verdict, dict):
            for key, part in verdict.items():
                yield f"{name}.{key}", _score(part, f"{name}.{key}", detail)
        else:
            yield name, _score(verdict, name, detail)


def _score(verdict: Any, name: str, detail: dict[str, Any]) -> Score:
    value = _value(verdict, name)
    if isinstance(verdict, str) or value is None:
        detail = detail | {"value": verdict}
    return Score(value, abstain=value is None, detail=detail)


def _value(verdict: Any, name: str) -> float | None:
    """A letter's, number's or bool's value; None for anything else, NaN included."""
    if isinstance(verdict, str):
        return _LETTERS.get(verdict)
    return number(verdict, f"score {name}")


def _reason(sample: Json) -> str | None:
    """Why it ended: an error, a limit, else what the last call's answer says."""
    error, limit = sample.get("error"), sample.get("limit")
    if error is not None:
        return f"error: {string(mapping(error).get('message')) or 'unknown'}"
    if limit is not None:
        return f"limit: {string(mapping(limit).get('type')) or 'unknown'}"
    choices = listing(mapping(sample.get("output")).get("choices"))
    return string(mapping(choices[0]).get("stop_reason")) if choices else None
