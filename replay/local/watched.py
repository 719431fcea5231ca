"""A constraint around another: ends a branch at a stop text or when nobody listens any more, and tells each token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .jobs import Constraint

Listener = Callable[[int], bool]
"""Called with each token as it is chosen; False: nobody wants to hear more."""


class Watched:
    """`inner` may be None: everything is allowed. `end` is the mask, bool `[vocabulary]`, of the end tokens, `decode`
    makes text of the last tokens. Once a text of `stops` was said only an end token is allowed."""

    def __init__(
        self,
        inner: Constraint | None,
        end: Any,
        decode: Callable[[Sequence[int]], str],
        stops: Sequence[str] = (),
        listener: Listener | None = None,
    ):
        self._inner, self._end, self._decode = inner, end, decode
        self._stops, self._listener = tuple(stops), listener
        # Every token is at least a byte, so no more than these are needed to see a stop text that has just ended.
        self._looks_back = max((len(stop.encode("utf-8", "replace")) for stop in self._stops), default=0) + 4
        self._said: list[int] = []
        self.is_over = False

    def allowed(self) -> Any:
        """The end tokens once it is over, else what the inner constraint allows."""
        if self.is_over:
            return self._end
        return None if self._inner is None else self._inner.allowed()

    def accept(self, token: int) -> None:
        """The token was chosen."""
        if self.is_over:
            return
        if self._inner is not None:
            self._inner.accept(token)
        if self._listener is not None and not self._listener(token):
            self.is_over = True
        if self._stops:
            self._said = [*self._said[-self._looks_back :], token]
            text = self._decode(self._said)
            self.is_over = self.is_over or any(stop in text for stop in self._stops)
