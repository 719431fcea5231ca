"""How model families write a tool call: data only, read by the parser (chat.py) and by the grammar (grammar.py)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CallStyle:
    """The text of the calls of one turn:

        opening body[0] NAME body[1] ARGUMENTS body[2] closing

    NAME is bare (the quotes are part of `body`), ARGUMENTS is a JSON object. Further calls follow after `separator`:
    each with its own opening and closing, or, where `together`, all inside one pair. Then comes `end`.

    `opening`, `closing` and `end` may be single tokens of the vocabulary or plain text: ask the tokenizer.
    `end` is the text of the end-of-turn token; it depends on the template, so the table leaves it empty and
    `ChatFormat.style` has it filled in.
    """

    name: str
    opening: str
    body: tuple[str, str, str]
    closing: str
    separator: str = "\n"
    together: bool = False
    end: str = ""

    @property
    def marker(self) -> str:
        """What a reader looks for: the opening without the white space around it; empty where calls are bare JSON."""
        return self.opening.strip()

    def write(self, calls: list[tuple[str, str]]) -> str:
        """The calls, each (name, arguments as JSON text), as the family writes them, without `end`."""
        before, between, after = self.body
        bodies = [f"{before}{name}{between}{arguments}{after}" for name, arguments in calls]
        if self.together:
            return f"{self.opening}{self.separator.join(bodies)}{self.closing}" if bodies else ""
        return self.separator.join(f"{self.opening}{body}{self.closing}" for body in bodies)

    def matches(self, rendered: str, name: str) -> bool:
        """Whether a turn that a template rendered for a call of `name` is in this style, white space aside."""
        return any(piece in _squeezed(rendered) for piece in self._beginnings(name))

    def _beginnings(self, name: str) -> Iterator[str]:
        before, between, _ = self.body
        yield _squeezed(f"{self.opening}{before}{name}{between}")


HERMES = CallStyle(
    name="hermes",
    opening="<tool_call>\n",
    body=('{"name": "', '", "arguments": ', "}"),
    closing="\n</tool_call>",
)
"""Hermes 2 Pro and later, Qwen 2.5 and 3, SmolLM; also what a template without tools is given."""

MISTRAL_LIST = CallStyle(
    name="mistral",
    opening="[TOOL_CALLS][",
    body=('{"name": "', '", "arguments": ', "}"),
    closing="]",
    separator=", ",
    together=True,
)
"""Mistral tokenizers v3 to v7: one JSON list behind a control token."""

MISTRAL_ARGUMENTS = CallStyle(
    name="mistral-args",
    opening="[TOOL_CALLS]",
    body=("", "[ARGS]", ""),
    closing="",
    separator="",
)
"""Mistral tokenizers v11 and later: name and arguments behind control tokens."""

LLAMA_JSON = CallStyle(
    name="llama3-json",
    opening="",
    body=('{"name": "', '", "parameters": ', "}"),
    closing="",
    separator="; ",
)
"""Llama 3.1 to 3.3: the whole turn is one bare JSON object."""

STYLES = (MISTRAL_LIST, MISTRAL_ARGUMENTS, HERMES, LLAMA_JSON)
"""In the order in which they are tried: the ones with a marker first."""


def detect(rendered: str, name: str) -> CallStyle | None:
    """The style in which a template rendered a turn with a call of `name`; None: one that is not in the table."""
    return next((style for style in STYLES if style.matches(rendered, name)), None)


def _squeezed(text: str) -> str:
    return re.sub(r"\s+", "", text)
