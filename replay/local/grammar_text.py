"""The grammar of one turn, in llguidance's Lark dialect: text, tool calls in the style of the model's family, the end.

    free      text, or text and then calls; once the opening of a call is said, it must be a valid one
    required  one call (several with `parallel`) and nothing else
    none      text in which no call is opened

Behind the last call comes the end of the turn: text there would belong to nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from .chat_styles import CallStyle

Mode = Literal["free", "required", "none"]
END_THINK = "</think>"
ANYTHING = r"/(?s:.*)/"
NOT_BARE_CALL = r"/\s*([^{\s](?s:.*))?/"
"""Where calls are bare JSON, a turn that begins with a brace is one."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What a grammar is made for. `tools`: (name, arguments as a `%json` expression) each. `thinking`: the prompt has
    already opened the model's reasoning, which ends with `</think>` before anything else. `special`: the special tokens
    of the vocabulary, text to id; a grammar speaks of them by number."""

    tools: Sequence[tuple[str, str]]
    style: CallStyle
    special: Mapping[str, int]
    mode: Mode = "free"
    parallel: bool = False
    thinking: bool = False

    def grammar(self) -> str:
        """The whole text; its start rule is `start`."""
        rules = [f"start: {'thought ' if self.thinking else ''}turn", *self._rules()]
        rules.append(f"TEXT: {ANYTHING}")
        rules.append(f"SAID: {self._text_without_calls()}")
        if self.thinking:
            rules.append(self._head("thought", END_THINK))
        return "\n".join(rules) + "\n"

    def _rules(self) -> list[str]:
        if self.mode == "none" or not self.tools:
            return ["turn: SAID"]
        blank = '"\\n\\n" ' if self.thinking else ""
        if self.mode == "required":
            return [f"turn: {blank}calls", *self._calls(self.style.opening)]
        if not self.style.marker:
            return [f"turn: SAID | {blank}calls", *self._calls(self.style.opening)]
        trigger = self._trigger()
        after = self.style.opening.partition(trigger)[2]
        # Until the trigger is said the turn is text: lazy, so that the first one ends the text whatever follows.
        return ["turn: SAID | opened calls", self._head("opened", trigger), *self._calls(after)]

    def _trigger(self) -> str:
        """The part of the opening that tells a call from text: a special token, else the words before the first."""
        return self._pieces(self.style.marker)[0]

    def _head(self, rule: str, mark: str) -> str:
        first, *more = self._pieces(mark)
        if first in self.special:
            return f"{rule}: {'TEXT' if rule == 'thought' else 'SAID'} {self._literal(mark)}"
        return f"{rule}: {rule}_text {self._literal(''.join(more))}\n{rule}_text[lazy]: TEXT {json.dumps(first)}"

    def _calls(self, lead: str) -> list[str]:
        """`calls`, whose first begins with `lead`; the later ones with what stands between two calls."""
        style = self.style
        between = style.separator if style.together else style.separator + style.opening
        ending = self._literal(style.closing) if style.together else ""
        more = self._any("more") if self.parallel else ""
        rules = [f"calls: ({self._any('first', star=False)}) {more} {ending}"]
        for index, (name, arguments) in enumerate(self.tools):
            rules.append(f"first_{index}: {self._call(lead, name, index)}")
            if self.parallel:
                rules.append(f"more_{index}: {self._call(between, name, index)}")
            rules.append(f"arguments_{index}: {arguments}")
        return rules

    def _any(self, rule: str, star: bool = True) -> str:
        names = " | ".join(f"{rule}_{index}" for index in range(len(self.tools)))
        return f"({names})*" if star else names

    def _call(self, lead: str, name: str, index: int) -> str:
        before, between, after = self.style.body
        written = json.dumps(name, ensure_ascii=False)[1:-1] if before.endswith('"') else name
        ending = after if self.style.together else after + self.style.closing
        return f"{self._literal(lead + before + written + between)} arguments_{index} {self._literal(ending)}"

    def _text_without_calls(self) -> str:
        """Text in which nobody finds the opening of a call, spelled in ordinary tokens either."""
        if not self.tools:
            return ANYTHING
        if not self.style.marker:
            return NOT_BARE_CALL
        trigger = re.escape(self._trigger()).replace("/", r"\/")
        return rf"{ANYTHING} & ~/(?s:.*){trigger}(?s:.*)/"

    def _literal(self, text: str) -> str:
        """The text as a sequence of quoted strings and special tokens."""
        pieces = self._pieces(text)
        return " ".join(
            f"<[{self.special[piece]}]>" if piece in self.special else json.dumps(piece) for piece in pieces
        )

    def _pieces(self, text: str) -> list[str]:
        if not self.special:
            return [text] if text else []
        longest_first = sorted(self.special, key=len, reverse=True)
        pattern = "|".join(re.escape(token) for token in longest_first)
        return [piece for piece in re.split(f"({pattern})", text) if piece]
