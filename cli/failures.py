"""How errors look to people: one coded line, one hint, on stderr, foreign text made safe."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..replay.failures import Failure

HINTS = {
    "TTC-E010": "check the path and its permissions",
    "TTC-E013": "name the format with --format, or write a reader: ttc-replay ls plugins lists what there is",
    "TTC-E015": "the file has no content; was it copied completely?",
    "TTC-E016": "the file is of the format, but holds no run of an agent",
    "TTC-E301": "ttc-replay replay --tolerant shows every difference; --env-opt normalise=... declares a known one",
    "TTC-E302": "the record holds no answer to this action: choose an environment that executes actions",
    "TTC-E401": "the environment raised: it must answer a wrong action with an observation",
    "TTC-E402": "the policy raised: the search went on without these proposals",
    "TTC-E403": "the reward raised: what it did not judge is never exported; mend it and search under another --name",
}
"""What to do next, by code, where the failure of an item is only a line of text."""


def complain(line: str, hint: str | None) -> None:
    """One line, and a hint, on stderr."""
    sys.stderr.write(one_line(line) + "\n")
    if hint:
        sys.stderr.write(f"hint: {one_line(hint)}\n")
    sys.stderr.flush()


def one_line(text: str) -> str:
    """Foreign text as one line, control sequences stripped, secrets masked."""
    from ..storage.redact import mask, safe

    return " ".join(mask(safe(text)).split())


def complain_items(failures: Iterable[Failure]) -> None:
    """A line for each kind of failure of a run: code, first message, how often."""
    for failure in failures:
        often = f" ({failure.times} times in this run)" if failure.times > 1 else ""
        complain(f"error[{failure.code}]: {failure.message}{often}", HINTS.get(failure.code))
