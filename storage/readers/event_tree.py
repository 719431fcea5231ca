"""Logs whose entries name their parents: the main path to the latest leaf, and the branches that were left.

Entries are numbers in file order; a parent stands before its children, so there are no cycles. Calls that ran at the
same time make forks that are none: an entry beside a path belongs to it when it is of a group (one answer of the model
and its tool results) of which the path has an entry.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

MAX_WEIGHT = 500_000
"""Of all paths together, so that a file of many branches is not read for ever: every branch holds its whole path."""


@dataclass(frozen=True, slots=True)
class Path:
    """`whole`: its entries from the root on, in file order. `own`: those of no earlier path. `fork`: the entry of an
    earlier path from which it leaves; None for one with a root of its own.
    """

    whole: tuple[int, ...]
    own: tuple[int, ...]
    fork: int | None


class TooManyBranches(Exception):
    """The paths together weigh more than `MAX_WEIGHT`."""


def paths(
    parents: Sequence[int | None], matters: Sequence[bool], groups: Sequence[str | None], weights: Sequence[int]
) -> Iterator[Path]:
    """The path to the last entry that matters, then one for each leaf that no earlier path holds, latest first.

    Raises TooManyBranches when there is more of them than can be read.
    """
    children = _children(parents)
    taken: set[int] = set()
    total = 0
    for leaf in range(len(parents) - 1, -1, -1):
        if not matters[leaf] or leaf in taken:
            continue
        line = _ancestors(leaf, parents)
        total += sum(weights[entry] for entry in line)
        if taken and total > MAX_WEIGHT:
            raise TooManyBranches
        fork = next((entry for entry in line if entry in taken), None)
        whole = sorted(_with_groups(line, children, groups))
        yield Path(tuple(whole), tuple(entry for entry in whole if entry not in taken), fork)
        taken.update(whole)


def _children(parents: Sequence[int | None]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for entry, parent in enumerate(parents):
        if parent is not None:
            found.setdefault(parent, []).append(entry)
    return found


def _ancestors(leaf: int, parents: Sequence[int | None]) -> list[int]:
    """From the leaf up to its root."""
    line: list[int] = []
    entry: int | None = leaf
    while entry is not None:
        line.append(entry)
        entry = parents[entry]
    return line


def _with_groups(line: list[int], children: dict[int, list[int]], groups: Sequence[str | None]) -> set[int]:
    found = set(line)
    present = {groups[entry] for entry in line} - {None}
    waiting = list(line)
    while waiting:
        for child in children.get(waiting.pop(), ()):
            if child not in found and groups[child] in present:
                found.add(child)
                waiting.append(child)
    return found
