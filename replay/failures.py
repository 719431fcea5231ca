"""What failed in a run, from its journal: by code, so that nothing that plugins raised is dropped silently."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..storage.errors import RewardFailed, TtcError

_CODED = re.compile(r"(TTC-E\d+): (.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Failure:
    """One kind of failure: its code, the first message and how often it happened."""

    code: str
    message: str
    times: int


def coded(error: TtcError) -> str:
    """An error as the journal keeps it: code, place and message in one text."""
    return error.line().removeprefix("error[").replace("]: ", ": ", 1)


def failures(events: Iterable[Mapping[str, Any]]) -> list[Failure]:
    """Every kind of failure in a journal, in the order of first sight; earlier sessions of the run count, too."""
    found: dict[str, Failure] = {}
    for event in events:
        for code, message in _of(event):
            before = found.get(code, Failure(code, message, 0))
            found[code] = replace(before, times=before.times + 1)
    return list(found.values())


def _of(event: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    kind = event["event"]
    if kind == "baseline" and event["error"] is not None:
        yield event["error_code"], event["error"]
    if kind == "tell":
        yield from (_split(text) for text in event.get("failures", ()))
    if kind in ("baseline", "score", "gate"):
        for name, score in event["scores"].items():
            # the combination repeats its parts; without a held-back reward the gate repeats the guide
            repeated = name == "guide" or (kind == "gate" and not name.startswith("accept:"))
            if score.get("error") and not repeated:
                yield RewardFailed.code, score["error"]


def _split(text: str) -> tuple[str, str]:
    match = _CODED.fullmatch(text)
    return (match[1], match[2]) if match else (TtcError.code, text)
