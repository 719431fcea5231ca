"""Everything that draws: tables, trees, progress. Alone imports rich; foreign text goes through `safe`."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text
from rich.tree import Tree as RichTree

from ..storage.redact import mask, safe

PLAIN_WIDTH = 160
"""Columns in a pipe, where nobody says how wide it is."""
SILENT_SECONDS = 5.0
"""Between two progress lines in a pipe."""


class PlainConsole(Console):
    """Prints text as it is: no markup, no emoji codes, no highlighting of what others wrote."""

    def __init__(self, *, stderr: bool = False):
        is_terminal = (sys.stderr if stderr else sys.stdout).isatty()
        width = None if is_terminal else PLAIN_WIDTH
        super().__init__(
            stderr=stderr, width=width, soft_wrap=not is_terminal, markup=False, emoji=False, highlight=False
        )

    def on_broken_pipe(self) -> NoReturn:
        """Nobody reads any more: `main` decides what that means, not rich (which leaves with exit code 1)."""
        raise BrokenPipeError


def stdout_console() -> Console:
    """Results: coloured on a terminal, plain text in a pipe."""
    return PlainConsole()


def stderr_console() -> Console:
    """Progress and log."""
    return PlainConsole(stderr=True)


def clean(value: Any, limit: int | None = None) -> str:
    """Foreign text for a terminal: control sequences stripped, secrets masked, cut at `limit` characters."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    text = mask(safe(str(value)))
    return text if limit is None or len(text) <= limit else text[: limit - 1] + "…"


def table(console: Console, title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], limit: int = 60) -> None:
    """A table of foreign values."""
    if title:
        console.print(clean(title), style="bold")
    drawn = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        drawn.add_column(column, overflow="fold")
    for row in rows:
        drawn.add_row(*(Text(clean(value, limit)) for value in row))
    console.print(drawn)


def rows_table(console: Console, title: str, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """A table of the named columns of mappings; ids are shortened to 12 characters."""
    shown = [[_short(row.get(column), column) for column in columns] for row in rows]
    table(console, title, columns, shown)


def _short(value: Any, column: str) -> Any:
    is_id = column in ("id", "trajectory_id", "parent_id", "counterfactual_id")
    return str(value)[:12] if is_id and value is not None else value


def message_lines(console: Console, role: str, text: str, *, fold: int | None, style: str) -> None:
    """One message of a transcript; long tool output is folded and says so."""
    lines = clean(text).splitlines() or [""]
    shown = lines if fold is None or len(lines) <= fold else lines[:fold]
    shown = [line if fold is None or len(line) <= 400 else line[:399] + "…" for line in shown]
    console.print(Text(f"{role}: ", style=style) + Text("\n".join(shown)))
    if len(shown) < len(lines):
        console.print(Text(f"   … {len(shown)} of {len(lines)} lines shown (--raw shows all)", style="dim"))


def draw_tree(console: Console, title: str, nodes: Sequence[Mapping[str, Any]], best: set[int]) -> None:
    """A search tree as text: visits, mean value, action; spine and best path marked, closed nodes with their reason."""
    branches: dict[int, RichTree] = {}
    root = RichTree(Text(clean(title)))
    for node in nodes:
        label = Text(node_label(node), style="bold green" if node["node"] in best else "")
        parent = branches.get(node["parent"])
        branches[node["node"]] = parent.add(label) if parent is not None else root.add(label)
    console.print(root)


def node_label(node: Mapping[str, Any]) -> str:
    """One node in one line."""
    visits = node["visits"]
    mean = f"{node['value_sum'] / visits:.3f}" if visits else "–"
    marks = [word for word in ("spine", "imputed", "truncated") if node.get(word)]
    if node.get("status") not in (None, "open", "closed"):
        marks.append(f"{node['status']}: {node['reason']}" if node.get("reason") else node["status"])
    if node.get("terminal") and node.get("value") is not None:
        marks.append(f"value {node['value']:.4g}")
    suffix = f"  [{', '.join(marks)}]" if marks else ""
    return clean(f"{node['node']}  n={visits} mean={mean}  {node.get('key') or 'root'}", 140) + clean(suffix)


class Report(Protocol):
    """Takes a status mapping: done, total, transitions, cost_usd, improved."""

    def __call__(self, status: Mapping[str, Any]) -> None:
        """Say where the work stands."""


@contextmanager
def progress(label: str, *, quiet: bool) -> Iterator[Report]:
    """A bar with ETA and spend on a terminal, a plain line now and then in a pipe, nothing with -q. On stderr."""
    console = stderr_console()
    if quiet:
        yield lambda status: None
    elif console.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, TextColumn("{task.fields[spend]}"), console=console, transient=True) as bar:
            task = bar.add_task(label, total=None, spend="")
            yield lambda status: bar.update(
                task, completed=status["done"], total=status["total"], spend=spend_text(status)
            )
    else:
        yield PlainProgress(label, console)


class PlainProgress:
    """Progress in a pipe: a line at most every five seconds."""

    def __init__(self, label: str, console: Console):
        self._label = label
        self._console = console
        self._began = self._said = time.monotonic()

    def __call__(self, status: Mapping[str, Any]) -> None:
        """Say where things stand, if it was silent long enough."""
        now = time.monotonic()
        if now - self._said < SILENT_SECONDS:
            return
        self._said = now
        parts = [f"{self._label}: {progress_text(status, now - self._began)}", spend_text(status)]
        self._console.print(" ".join(part for part in parts if part))


def progress_text(status: Mapping[str, Any], seconds: float) -> str:
    """How much is done, of how many where that is known, and then how long the rest takes at this speed."""
    done, total = status["done"], status.get("total")
    if total is None:
        return f"{done} done"
    left = f", about {seconds / done * (total - done):.0f} s left" if done else ""
    return f"{done}/{total}{left}"


def spend_text(status: Mapping[str, Any]) -> str:
    """What was spent and found so far."""
    parts = []
    if "transitions" in status:
        parts.append(f"{status['transitions']} transitions")
    if status.get("calls"):
        parts.append(f"{status['calls']} calls, {status['cost_usd']:.4f} USD")
    if "improved" in status:
        parts.append(f"{status['improved']} improved")
    return ", ".join(parts)
