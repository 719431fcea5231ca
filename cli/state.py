"""What every command shares: the global options, the open database, and how results leave the process."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from ..storage.database import Database

VALUE_FLAGS = ("--db",)
PLAIN_FLAGS = ("--json", "--quiet", "--verbose", "--debug")
_SHORT_FLAGS = re.compile("-[qv]+")
_UNSAFE = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""What JSON leaves as it is and a terminal, or a reader of lines, does not take as text."""


@dataclass(slots=True)
class State:
    """The global options, accepted before and after the command."""

    db: str = "./ttc.duckdb"
    json: bool = False
    quiet: bool = False
    verbose: bool = False
    debug: bool = False

    def database(self, *, create: bool = True, compress: bool = True) -> Database:
        """Open the database; `create` False: a missing file is an error; `compress`: of the text that is written."""
        from ..storage.database import Database

        return Database.open(self.db, create=create, compress=compress)

    def emit(self, document: Mapping[str, Any], human: Callable[[Console], None]) -> None:
        """The result: one JSON document on stdout, or what `human` prints (rich on a terminal, plain in a pipe)."""
        if self.json:
            sys.stdout.write(json_text(document) + "\n")
        else:
            from .render import stdout_console

            human(stdout_console())
        sys.stdout.flush()

    def note(self, text: str) -> None:
        """One line for people, on stderr; silent with -q."""
        if not self.quiet:
            from .render import clean, stderr_console

            stderr_console().print(clean(text), soft_wrap=True)

    def detail(self, text: str) -> None:
        """As `note`, only with -v."""
        if self.verbose:
            self.note(text)


def json_text(document: Mapping[str, Any]) -> str:
    """One line of JSON, secrets masked, nothing in it that steers a terminal; NaN and infinities become text."""
    from ..storage.redact import mask_json

    masked = mask_json(document)
    ascii_only = (sys.stdout.encoding or "").lower().replace("-", "") != "utf8"
    try:
        text = json.dumps(masked, ensure_ascii=ascii_only, default=str, allow_nan=False)
    except ValueError:
        text = json.dumps(_finite(masked), ensure_ascii=ascii_only, default=str, allow_nan=False)
    return _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _finite(value: Any) -> Any:
    """NaN and infinities as text: JSON has none, and null would say unknown."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list) else value


def hoist(arguments: Sequence[str]) -> list[str]:
    """Move global options in front of the command; nothing after `--` is touched."""
    front: list[str] = []
    rest: list[str] = []
    items = iter(arguments)
    for item in items:
        if item == "--":
            rest += [item, *items]
            break
        if item in PLAIN_FLAGS or item.startswith("--db=") or _SHORT_FLAGS.fullmatch(item):
            front.append(item)
        elif item in VALUE_FLAGS:
            front += [item, *([value] if (value := next(items, None)) is not None else [])]
        else:
            rest.append(item)
    return front + rest
