"""What every command shares: the global options, the open database, and how results leave the process."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from ..storage.database import Database

VALUE_FLAGS = ("--db",)
PLAIN_FLAGS = ("--json", "-q", "--quiet", "-v", "--verbose", "--debug")


@dataclass(slots=True)
class State:
    """The global options, accepted before and after the command."""

    db: str = "./ttc.duckdb"
    json: bool = False
    quiet: bool = False
    verbose: bool = False
    debug: bool = False

    def database(self, *, create: bool = True) -> Database:
        """Open the database; `create` False: a missing file is an error."""
        from ..storage.database import Database

        return Database.open(self.db, create=create)

    def emit(self, document: Mapping[str, Any], human: Callable[[Console], None]) -> None:
        """The result: one JSON document on stdout, or what `human` prints (rich on a terminal, plain in a pipe)."""
        if self.json:
            sys.stdout.write(json.dumps(document, ensure_ascii=False, default=str, allow_nan=False) + "\n")
            sys.stdout.flush()
            return
        from .render import stdout_console

        human(stdout_console())

    def note(self, text: str) -> None:
        """One line for people, on stderr; silent with -q."""
        if not self.quiet:
            from .render import stderr_console

            stderr_console().print(text, markup=False, highlight=False, soft_wrap=True)


def hoist(arguments: Sequence[str]) -> list[str]:
    """Move global options in front of the command; nothing after `--` is touched."""
    front: list[str] = []
    rest: list[str] = []
    items = iter(arguments)
    for item in items:
        if item == "--":
            rest += [item, *items]
            break
        if item in PLAIN_FLAGS or item.startswith("--db="):
            front.append(item)
        elif item in VALUE_FLAGS:
            front += [item, *([value] if (value := next(items, None)) is not None else [])]
        else:
            rest.append(item)
    return front + rest
