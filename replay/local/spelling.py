"""Words under a grammar are spelt as the tokenizer spells them: a constraint around that of the grammar.

A grammar over texts allows every spelling of a word in tokens. Of eight account names a model that leans to `train`,
which is not one of them, then often says `t`, and has no way on but `t`, `ravel`: half of SmolLM2's calls on the
starter level of the bookkeeping example were spelt so, and its bookings were right a third less often. Where the text
behind a token is forced anyway, only the tokenizer's own spelling of both together stays. No text is lost: what goes is
always another spelling of what stays. (Vieira et al. 2025, arXiv 2506.07956, "Language Models over Canonical Byte-Pair
Encodings", do this for whole texts; here it is done where it decides what is said.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .grammar import CallConstraint

MOST = 64
"""Allowed tokens up to which they are looked at: with more of them the text is free, as inside a string."""
BEFORE = '"'
"""Encoded in front, so that no tokenizer takes the text for the beginning of a sentence."""


class Spelling:
    """How one tokenizer spells. `encode`: text to ids, without special tokens; `bytes_of`: a token's bytes."""

    def __init__(self, encode: Callable[[str], list[int]], bytes_of: Callable[[int], bytes]) -> None:
        self._encode, self._bytes_of = encode, bytes_of
        self._before = encode(BEFORE)
        self._known: dict[bytes, int | None] = {}

    def first(self, token: int, forced: bytes) -> int | None:
        """The first token of the tokenizer's spelling of `token` and the bytes behind it; None: not to be told."""
        whole = self._bytes_of(token) + forced
        if whole not in self._known:
            if len(self._known) > 10_000:
                self._known.clear()
            self._known[whole] = self._told(whole)
        return self._known[whole]

    def _told(self, whole: bytes) -> int | None:
        try:
            ids = self._encode(BEFORE + whole.decode())
        except UnicodeDecodeError:
            return None
        size = len(self._before)
        return ids[size] if ids[:size] == self._before and len(ids) > size else None


class Spelled:
    """The constraint of a grammar without the spellings that only the grammar knows; `copy` as there."""

    def __init__(self, inner: CallConstraint, spelling: Spelling) -> None:
        self._inner, self._spelling = inner, spelling

    def copy(self) -> Spelled:
        """Another constraint in the state of this one."""
        return Spelled(self._inner.copy(), self._spelling)

    def allowed(self) -> Any:
        """Bool `[vocabulary]`, on the CPU: some token wherever the grammar allows some."""
        mask = self._inner.allowed()
        if not 1 < int(mask.sum()) <= MOST:
            return mask
        kept = mask.clone()
        for token in mask.nonzero()[:, 0].tolist():
            forced = self._inner.forced_after(token)
            first = self._spelling.first(token, forced) if forced else None
            if first is not None and first != token and bool(mask[first]):
                kept[token] = False
        return kept

    def accept(self, token: int) -> None:
        """The token was chosen. Raises ValueError for one that the grammar does not allow."""
        self._inner.accept(token)
