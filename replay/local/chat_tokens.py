"""Rendered chat text to token ids, piece by piece, with the exact ids of what the model itself said put back.

Why: docs/design/token-memo.md. A piece is one added token (a role marker, an end of turn) and the text up to the next.
"""

from __future__ import annotations

import re
import threading
from array import array
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

MEMO_BYTES = 64 << 20
ENTRY_BYTES = 300
"""What an entry costs besides its text and ids, roughly."""

GUARD = "\ufdd0"
"""A code point that is never a character (Unicode, noncharacters): put into control tokens that stand in somebody's
text, so that they are read as the text they are."""


@dataclass(frozen=True, slots=True)
class _Turn:
    """Rendered text of a turn from the start of its piece, and the ids that stand for it."""

    text: str
    ids: array[int]


class TokenMemo:
    """What the model said, by the tokens before it: least recently used out first, bounded in bytes. Not locked."""

    def __init__(self, limit_bytes: int = MEMO_BYTES) -> None:
        self.limit_bytes = limit_bytes
        self.held_bytes = 0
        self._turns: OrderedDict[bytes, list[_Turn]] = OrderedDict()

    def __len__(self) -> int:
        return sum(map(len, self._turns.values()))

    def add(self, key: bytes, text: str, ids: Iterable[int]) -> bool:
        """Keep a turn. False where the same text is already there with other ids: the first one stays, since later
        turns were said after it."""
        turns = self._turns.setdefault(key, [])
        self._turns.move_to_end(key)
        turn = _Turn(text, array("i", ids))
        known = next((item for item in turns if item.text == text), None)
        if known is not None:
            return known.ids == turn.ids
        turns.append(turn)
        self.held_bytes += _cost(turn)
        self._shrink()
        return True

    def find(self, key: bytes, text: str, start: int, ends: Sequence[int] | set[int]) -> _Turn | None:
        """The longest kept turn that stands at `start` of `text` and ends at one of `ends`."""
        turns = self._turns.get(key)
        if turns is None:
            return None
        self._turns.move_to_end(key)
        fitting = [turn for turn in turns if start + len(turn.text) in ends and text.startswith(turn.text, start)]
        return max(fitting, key=lambda turn: len(turn.text), default=None)

    def _shrink(self) -> None:
        while self.held_bytes > self.limit_bytes and self._turns:
            _, turns = self._turns.popitem(last=False)
            self.held_bytes -= sum(map(_cost, turns))


class PieceEncoder:
    """Encodes rendered chats with one tokenizer; safe to call from several threads.

    `exact`: encoding piece by piece gives what the tokenizer gives for the whole text. Where it does not (`verify`
    found a difference), texts are encoded as a whole and nothing is remembered.
    """

    def __init__(self, tokenizer: Any, memo_bytes: int = MEMO_BYTES, unguarded: Iterable[str] = ()) -> None:
        added = tokenizer.added_tokens_decoder
        self.ids = {str(token): int(index) for index, token in added.items()}
        self.exact = bool(self.ids) and not any(token.lstrip or token.single_word for token in added.values())
        self.memo = TokenMemo(memo_bytes)
        self._tokenizer = tokenizer
        self._lock = threading.Lock()
        special = {str(token) for token in added.values() if token.special} - set(unguarded)
        self._added = _any_of(self.ids)
        self._special = _any_of(item for item in special if len(item) > 1)
        self._guarded = _any_of(item[:1] + GUARD + item[1:] for item in special if len(item) > 1)
        self._backend = _backend(tokenizer)

    def guard(self, text: str) -> str:
        """The text with the control tokens in it made ordinary text."""
        return self._special.sub(lambda found: found[0][:1] + GUARD + found[0][1:], text)

    def verify(self, texts: Iterable[str]) -> None:
        """Switch `exact` off where pieces and whole differ in one of these rendered chats."""
        self.exact = self.exact and all(self.encode(text) == self.whole(text) for text in texts)

    def whole(self, text: str) -> list[int]:
        """What the tokenizer itself says. Guarded control tokens are broken up by a space."""
        broken = self._guarded.sub(lambda found: found[0].replace(GUARD, " "), text)
        return list(self._tokenizer(broken, add_special_tokens=False, verbose=False)["input_ids"])

    def encode(self, text: str) -> list[int]:
        """Token ids, nothing added; a turn that was remembered behind the same tokens has the ids it was said with."""
        with self._lock:
            return self._pieces(text) if self.exact else self.whole(text)

    def encode_text(self, text: str) -> list[int]:
        """Token ids of a text by itself, as it goes on behind a prompt; nothing that was remembered is put back."""
        with self._lock:
            starts = self._starts(text)
            ends = [*starts[1:], len(text)]
            return [token for start, end in zip(starts, ends, strict=True) for token in self._piece(text[start:end])]

    def first_added(self, text: str) -> str | None:
        """The first added token in a text."""
        found = self._added.search(text)
        return found[0] if found is not None else None

    def remember(self, prompt: Sequence[int], prompt_text: str, turn_text: str, said: Sequence[int]) -> bool:
        """`said` behind `prompt` will be read as `turn_text` behind `prompt_text`.

        True: from now on such a text starts with prompt + said. Neither holds the end of the turn.
        """
        if not self.exact:
            return False
        start = self._starts(prompt_text)[-1]
        with self._lock:
            before = self._pieces(prompt_text[:start])
            if list(prompt[: len(before)]) != before:
                return False
            key = blake2b(_bytes(before), digest_size=16).digest()
            return self.memo.add(key, prompt_text[start:] + turn_text, [*prompt[len(before) :], *said])

    def _pieces(self, text: str) -> list[int]:
        starts = self._starts(text)
        ends = {*starts, len(text)}
        ids: list[int] = []
        before = blake2b(digest_size=16)
        place = 0
        for start, end in zip(starts, [*starts[1:], len(text)], strict=True):
            if start < place:  # inside a turn that was put back
                continue
            turn = self.memo.find(before.digest(), text, start, ends) if self.memo.held_bytes else None
            piece = turn.ids.tolist() if turn is not None else self._piece(text[start:end])
            place = start + len(turn.text) if turn is not None else end
            before.update(_bytes(piece))
            ids.extend(piece)
        return ids

    def _starts(self, text: str) -> list[int]:
        found = [match.start() for match in self._added.finditer(text)]
        return found if found and found[0] == 0 else [0, *found]

    def _piece(self, piece: str) -> list[int]:
        if GUARD in piece and self._guarded.search(piece):
            return self._plain(piece)
        return self._encode(piece)

    def _plain(self, piece: str) -> list[int]:
        """A piece with control tokens that are text: only the added token it begins with is one."""
        head = self._added.match(piece)
        text = piece[head.end() :] if head is not None else piece
        text = self._guarded.sub(lambda found: found[0].replace(GUARD, ""), text)
        return [*([self.ids[head[0]]] if head is not None else []), *self._encode(text, split=True)]

    def _encode(self, text: str, *, split: bool = False) -> list[int]:
        if self._backend is None:
            given = self._tokenizer(text, add_special_tokens=False, verbose=False, split_special_tokens=split)
            return list(given["input_ids"])
        self._backend.encode_special_tokens = split
        try:
            return list(self._backend.encode(text, add_special_tokens=False).ids)
        finally:
            self._backend.encode_special_tokens = False


def _backend(tokenizer: Any) -> Any:
    """A private copy of the Rust tokenizer, many times faster than the layers above it; None: there is none."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    copy = type(backend).from_str(backend.to_str())
    copy.no_truncation()
    copy.no_padding()
    return copy


def _any_of(texts: Iterable[str]) -> re.Pattern[str]:
    """The longest of the texts that stands at a place; of no texts: nothing anywhere."""
    ordered = sorted(texts, key=lambda text: (-len(text), text))
    return re.compile("|".join(map(re.escape, ordered)) or r"(?!)")


def _bytes(ids: Sequence[int]) -> bytes:
    return array("i", ids).tobytes()


def _cost(turn: _Turn) -> int:
    return ENTRY_BYTES + 4 * len(turn.text) + turn.ids.itemsize * len(turn.ids)
