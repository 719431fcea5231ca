"""A process that forks commands: each is a process of its own, to be killed, without the second that imports take.

Reads one job a line, `{"arguments", "folder", "environment"}`, and answers each with its return code and its output.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import sys
from typing import Any

from ttc_replay.cli.main import main
from ttc_replay.storage import ingest, kill_points

SMALL_BATCH = 2
"""Records of an ingest's batch: a small log then has several."""
HEAVY = (
    *("ttc_replay.storage.database", "ttc_replay.storage.export", "ttc_replay.storage.exporters.trl_sft"),
    *("ttc_replay.replay.running", "ttc_replay.replay.policies.corpus", "ttc_replay.rewards.environment"),
    *("ttc_replay.search.mcts", "ttc_replay.search.best_of_n", "ttc_replay.cli.jobs", "ttc_replay.cli.render"),
    *("ttc_replay.cli.failures", "http.client", "zoneinfo", "pandas", "pydantic"),
)
"""What the commands import late; DuckDB takes pandas where it is installed."""


def run(job: dict[str, Any]) -> dict[str, Any]:
    """One command in a child of this process, which has one thread only; its return code as `subprocess` has it."""
    streams = [os.path.join(job["folder"], name) for name in (".stdout", ".stderr")]
    child = os.fork()
    if child == 0:
        os.chdir(job["folder"])
        os.environ.update(job["environment"])
        for number, path in enumerate(streams, 1):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
        kill_points.arm()
        try:
            main(job["arguments"])
        finally:
            sys.stdout.flush()
            os._exit(_code(sys.exc_info()[1]))
    _, status = os.waitpid(child, 0)
    texts = []
    for path in streams:
        with open(path, encoding="utf-8") as stream:
            texts.append(stream.read())
        os.remove(path)
    return {"code": os.waitstatus_to_exitcode(status), "out": texts[0], "err": texts[1]}


def _code(left: BaseException | None) -> int:
    code = left.code if isinstance(left, SystemExit) else 70
    return code if isinstance(code, int) else 0


if __name__ == "__main__":
    ingest.BATCH_RECORDS = SMALL_BATCH
    for module in HEAVY:
        if importlib.util.find_spec(module) is not None:
            importlib.import_module(module)
    for line in sys.stdin:
        sys.__stdout__.write(json.dumps(run(json.loads(line))) + "\n")  # type: ignore[union-attr]
        sys.__stdout__.flush()  # type: ignore[union-attr]
