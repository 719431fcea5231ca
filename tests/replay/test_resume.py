"""A run that ends at any line of its journal, whole or torn, and is run again ends like one that was not stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from ttc_replay import Proposal, ProposalRequest, Spec, Usage
from ttc_replay.replay.report import row_of
from ttc_replay.storage.journal import digest, read_journal


class Sampler:
    """A paid, sampling policy: duplicates are votes, and nodes run dry after some tells in vain."""

    metered = True
    sampling = True
    batched = False
    inline = True

    def __init__(self, add: Any) -> None:
        self.add = add
        self.asked: list[ProposalRequest] = []

    def identity(self) -> dict[str, str]:
        return {"policy": "sampler"}

    def estimate(self, request: ProposalRequest) -> Usage:
        return Usage(10, 10, None, 0.5)

    def propose(self, requests: Sequence[ProposalRequest]) -> list[list[Proposal]]:
        self.asked += requests
        return [[self._one(request, index) for index in range(request.n)] for request in requests]

    def _one(self, request: ProposalRequest, index: int) -> Proposal:
        usage = Usage(7, 3, None, 0.25) if index == 0 else None
        return Proposal(self.add(1 + (request.seed + index) % 3), logprob=-0.5, usage=usage)


SEARCHES: dict[str, dict[str, Any]] = {
    "mcts": {"algorithm": Spec("mcts")},
    "best-of-n": {"algorithm": Spec("best-of-n")},
    "beam": {"algorithm": Spec("beam")},
    "pruned by a process reward": {"algorithm": Spec("mcts", {"prune_below": 0.5}), "process": True},
    "from every step": {"algorithm": Spec("mcts"), "from_step": "auto"},
    "from one step": {"algorithm": Spec("best-of-n"), "from_step": 2},
    "one ask at a time": {"algorithm": Spec("mcts"), "width": 1},
    "merged by votes, paid": {"algorithm": Spec("best-of-n"), "metered": True},
    "paid mcts": {"algorithm": Spec("mcts"), "metered": True},
}


@pytest.mark.parametrize("what", SEARCHES)
def test_a_run_resumes_from_every_line(make_engine: Any, toy: Any, what: str) -> None:
    options = dict(SEARCHES[what])
    metered, process = options.pop("metered", False), options.pop("process", False)
    if process:
        options |= {"rewards": [("closeness", toy.closeness)]}
    records = [toy.record(1, 1, 1, 1, task="a", target=10), toy.record(3, 1, 1, 2, task="b", target=99)]

    def run(folder: str) -> tuple[Any, Any]:
        policy = Sampler(toy.add) if metered else None
        engine = make_engine(records, folder=folder, accept=toy.gold, budget=16, policy=policy, **options)
        asyncio.run(engine.run())
        engine.journal.close()
        return engine, policy

    engine, whole_policy = run("whole")
    events = read_journal(engine.journal.path)[0]
    expected = digest(events)
    rows = [{**row_of(grove), "counterfactual_id": None} for grove in engine.groves]  # an id names its run
    trees = [grove.tree.rows("same") for grove in engine.groves if grove.tree]
    first, _ = run("parts")
    path = first.journal.path
    lines = path.read_bytes().splitlines(keepends=True)
    for kept in range(1, len(lines), 3 if metered else 1):
        torn = lines[kept][: len(lines[kept]) * (kept % 3) // 3]
        path.write_bytes(b"".join(lines[:kept]) + torn)
        again, policy = run("parts")
        found = read_journal(path)[0]
        assert digest(found) == expected, f"cut behind line {kept}"
        assert [{**row_of(grove), "counterfactual_id": None} for grove in again.groves] == rows
        assert [grove.tree.rows("same") for grove in again.groves if grove.tree] == trees
        if metered:
            results = [event["key"] for event in found if event["event"] == "result"]
            assert len(results) == len(set(results)) == len(whole_policy.asked)
            paid = sum(b'"event":"result"' in line for line in lines[:kept])
            assert len(policy.asked) == len(results) - paid, "what was finished is not asked for again"
