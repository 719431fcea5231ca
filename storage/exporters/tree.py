"""The stored search tree of one trajectory, as exporters walk it: from a counterfactual to its nodes and siblings."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from ..codec import action_key, messages_to_dicts
from ..records import Node, Step

ROOT = 0


def mean_value(node: Node) -> float | None:
    """The mean of what the node's visits returned; its own value when none was backed up; None: unknown."""
    return node.value_sum / node.visits if node.visits else node.value


class StoredTree:
    """Nodes by id, with children in the order in which they were told."""

    def __init__(self, nodes: Iterable[Node]):
        self.nodes = {node.node: node for node in nodes}
        self._children: dict[int, list[Node]] = defaultdict(list)
        for node in sorted(self.nodes.values(), key=lambda item: item.node):
            if node.node != ROOT:
                self._children[node.parent].append(node)

    def children(self, node: int) -> Sequence[Node]:
        """The children of a node."""
        return self._children.get(node, ())

    @property
    def root_step(self) -> int | None:
        """The index of the step that leads out of the root; None for a tree without children."""
        first = [child.step.index for child in self.children(ROOT) if child.step is not None]
        return min(first) if first else None

    def follow(self, steps: Sequence[Step]) -> dict[int, Node]:
        """The nodes that `steps` (a whole trajectory, from step 0) pass through, by step index.

        Ends early where the tree does not hold a step.
        """
        path: dict[int, Node] = {}
        start, parent = self.root_step, ROOT
        for step in steps[start:] if start is not None else ():
            found = self._child_for(parent, step)
            if found is None:
                break
            path[step.index] = found
            parent = found.node
        return path

    def _child_for(self, parent: int, step: Step) -> Node | None:
        key = action_key(step.action)
        same = [
            child for child in self.children(parent) if child.step is not None and action_key(child.step.action) == key
        ]
        # One action may have several outcomes in the tree: what came back tells them apart.
        seen = messages_to_dicts(step.observations)
        equal = [child for child in same if child.step and messages_to_dicts(child.step.observations) == seen]
        return next(iter(equal or same), None)
