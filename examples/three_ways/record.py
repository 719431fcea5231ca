"""Runs the agent as in production, with checkpoints: `python -m ttc_replay.examples.three_ways.record FILE`.

Three runs in three threads, each in a depot of its own: two of one order, the first with a slip, and one of another
order with a slip.
"""

from __future__ import annotations

import sqlite3
import sys
from contextlib import closing

from langchain_core.messages import HumanMessage
from langgraph.checkpoint.sqlite import SqliteSaver

from ttc_replay.examples.three_ways.agent import make_graph
from ttc_replay.examples.three_ways.depot import Depot

RUNS = (
    ("wrong", "Ship 4 tea and 2 cups.", 1),
    ("right", "Ship 4 tea and 2 cups.", None),
    ("other", "Ship 3 cups and 1 pots.", 0),
)
"""Thread, order, the line in which the clerk slips."""


def record(path: str) -> None:
    """Write the checkpoint database."""
    with closing(sqlite3.connect(path, check_same_thread=False)) as connection:
        saver = SqliteSaver(connection)
        for thread, order, slip in RUNS:
            graph = make_graph(slip).copy({"checkpointer": saver})
            config = {"configurable": {"thread_id": thread, "environment": Depot()}}
            graph.invoke({"messages": [HumanMessage(order)]}, config, durability="sync")


if __name__ == "__main__":
    record(sys.argv[1])
