"""Rollouts that earlier runs made from recorded states, for `blame` to count without paying for them again.

A run of any algorithm counts that had the same environment, policy, rewards and depth limit, and another seed: with the
same seed its draws would be drawn again, and counted twice. Of its tree only *first rollouts* count: the run that first
went through a child of a recorded state was played by the policy alone, while which children are visited again is the
algorithm's choice. A state's value is the mean over what the policy drew there: the first rollout of each child, as
often as that action was drawn, and for each time that it repeated the recorded action the value of the next recorded
state. Only policies that sample count: one that lists its actions was asked for those that were not known yet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..storage.canonical import seed_from
from ..storage.records import Node
from .settings import Settings

SAME = ("environment", "policy", "rewards", "combine", "max_depth")
Known = dict[str, dict[str, list[float]]]
"""By the seed of the tree, then by recorded state: the sum and number of values; see `search.blame.Evidence`."""


def gather(archive: Any, settings: Settings, run: str, trajectories: Sequence[str]) -> tuple[Known, dict[str, int]]:
    """What earlier runs know of these trajectories, and how many rollouts each run gave."""
    known: Known = {}
    given: dict[str, int] = {}
    own = settings.configuration()
    for row in archive.runs():
        name, configuration = str(row["run"]), row["configuration"] or {}
        if name != run and comparable(own, configuration):
            root = configuration.get("from_step")
            for identity in trajectories:
                states = known.setdefault(str(seed_from(settings.seed, identity)), {})
                for state, (total, count) in first_rollouts(list(archive.nodes(name, identity))).items():
                    kept = states.setdefault(str(state + (root if isinstance(root, int) else 0)), [0.0, 0])
                    kept[0] += total
                    kept[1] += count
                    given[name] = given.get(name, 0) + count
    return {seed: states for seed, states in known.items() if states}, given


def comparable(own: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether rollouts of a run with that configuration are independent draws of the same policy in the same world."""
    return (
        all(own.get(key) == other.get(key) for key in SAME)
        and own.get("seed") != other.get("seed")
        and not other.get("merge_states")
    )


def first_rollouts(nodes: Sequence[Node]) -> dict[int, tuple[float, int]]:
    """Sum and number of values by recorded state of a tree, states counted from its root; see the module's head.

    A child whose first rollout was cut, or has no verdict, is left out. The next state's value stands for at most as
    many repetitions as rollouts are known there: then the other draws count for less in the same proportion.
    """
    children: dict[int, list[Node]] = {}
    for node in sorted(nodes, key=lambda node: node.node):
        children.setdefault(node.parent, []).append(node)
    recorded = sorted((node for node in nodes if node.spine or node.parent < 0), key=lambda node: -node.depth)
    found: dict[int, tuple[float, int]] = {}
    for node in recorded:
        below = [] if node.terminal else children.get(node.node, [])
        own = [(child.samples, _first_end(child, children)) for child in below if not child.spine]
        total = sum(times * end for times, end in own if end is not None)
        count = sum(times for times, end in own if end is not None)
        repeats = sum(child.samples - 1 for child in below if child.spine)
        if repeats:
            total, count = _with_repeats(total, count, repeats, found.get(node.depth + 1))
        if count:
            found[node.depth] = (total, count)
    return found


def _with_repeats(total: float, count: int, repeats: int, after: tuple[float, int] | None) -> tuple[float, int]:
    """Add the draws that repeated the record; without a value for them nothing is known of their state."""
    if after is None:
        return 0.0, 0
    share = min(1.0, after[1] / repeats)
    kept = int((count + repeats) * share)
    mean = (total + repeats * after[0] / after[1]) / (count + repeats)
    return mean * kept, kept


def _first_end(node: Node, children: Mapping[int, Sequence[Node]]) -> float | None:
    """The verdict at the end of the first rollout through a node."""
    while not node.terminal:
        below = children.get(node.node)
        if not below:
            return None
        node = below[0]
    return None if node.imputed else node.value
