"""Which of many texts may hold a secret: one linear pass of RE2 in Arrow, as fast as the rest of an ingest.

What passes the gate is looked at by the rules of `redact.py`; the gate must let through whatever they would find.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow  # type: ignore[import-untyped]
import pyarrow.compute  # type: ignore[import-untyped]

from .redact import secrets_in

_GATE = "|".join(
    (
        r"PRIVATE KEY",
        r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{8}",
        r"(?i:aws_secret|secretaccesskey)",
        r"AIza[A-Za-z0-9_-]{8}|ya29\.|GOCSPX-",
        r"gh[pousr]_[A-Za-z0-9]{8}|github_pat_|glpat-",
        r"sk-[A-Za-z0-9_-]{8}|[sr]k_(?:live|test)_|whsec_",
        r"xox[abeoprs]|xapp-|hooks\.slack\.com",
        r"hf_[A-Za-z0-9]{8}|eyJ[A-Za-z0-9_-]{8}",
        r"(?i:bearer)(?:\s|%20|\+)",
        r"://[^\s/:@\"'<>]*:[^\s/\"'<>]+@",
        r"(?:^|[^0-9])[2-6]\d{3}[ -]?\d{4}[ -]?\d{2}[ -]?\d{2}[ -]?\d{2}",
        r"(?:^|[^A-Z0-9])[A-Z]{2}\d{2} ?[A-Z0-9]{4} ?[A-Z0-9]{3}",
    )
)


def suspects(texts: Any) -> list[int]:
    """The places of those texts in an Arrow array that may hold a secret."""
    compute: Any = pyarrow.compute  # its functions are made at run time, no type checker sees them
    matched = compute.match_substring_regex(texts, _GATE)
    places: list[int] = compute.indices_nonzero(matched.fill_null(False)).to_pylist()
    return places


def secrets_of(parts: Iterable[tuple[Sequence[int], Any]]) -> dict[int, dict[str, int]]:
    """Secrets by owner, counted by kind: each part is the owners of an Arrow array's texts, and the array."""
    found: dict[int, Counter[str]] = {}
    for owners, texts in parts:
        for place in suspects(texts):
            secrets = secrets_in(texts[place].as_py())
            if secrets:
                found.setdefault(owners[place], Counter()).update(secrets)
    return {owner: dict(sorted(counts.items())) for owner, counts in found.items()}
