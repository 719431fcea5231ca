"""A paid model of the toy tool, for imagined worlds in processes that are killed; its answers are left in a file."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from ttc_replay import Message, Proposal, ProposalRequest, Score, Trajectory, Usage, reward


class Paid:
    """Says what the tool would say; appends the seed of every call that it answered to the file `log`."""

    metered = True
    sampling = True
    inline = True

    def __init__(self, log: str, api_key: str = "") -> None:
        self.log = Path(log)

    def identity(self) -> dict[str, str]:
        return {"policy": "paid toy world"}

    def estimate(self, request: ProposalRequest) -> Usage:
        return Usage(100, 10 * request.n, None, 0.01)

    def propose(self, requests: Sequence[ProposalRequest]) -> list[list[Proposal]]:
        return [self._one(request) for request in requests]

    def _one(self, request: ProposalRequest) -> list[Proposal]:
        text = request.messages[-1].text
        totals = re.findall(r'"total": (\d+)', text.partition("This run so far:")[2])
        total = int(totals[-1] if totals else 0) + int(re.findall(r'add\({"by":(\d+)}\)\nResult:', text)[0])
        descriptor = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(descriptor, f"{request.seed}\n".encode())
        os.close(descriptor)
        said = Message("assistant", f'{{"total": {total}}}')
        return [Proposal(said, usage=None if at else Usage(80, 5, None, 0.005)) for at in range(request.n)]


@reward
def sums_up(trajectory: Trajectory) -> Score:
    """Whether the amounts of all calls are the target."""
    total = sum(row["arguments"]["by"] for row in trajectory.final_state["calls"])
    return Score(float(total == trajectory.task.data["metadata"]["target"]))
