"""Makes the shipped logs: `python -m ttc_replay.examples.bookkeeping.record [--out DIR]`.

Each of the first eight tasks of a difficulty is played once by every profile. The output is always the same, to the
byte.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ttc_replay import Task, Trajectory
from ttc_replay.examples.bookkeeping.agents import PROFILES, Bookkeeper, Profile, play
from ttc_replay.examples.bookkeeping.verifiers import gold, identity, policy
from ttc_replay.examples.bookkeeping.world import DIFFICULTIES, Difficulty, task
from ttc_replay.storage.codec import messages_to_dicts

LOGS = Path(__file__).parent / "logs"
TASKS_RECORDED = 8
NOTE = "made by a scripted imperfect agent, not by a language model"


def record(recorded: Task, profile: Profile, trial: int) -> dict[str, Any]:
    """One run as an openai-chat record, with the verdicts of its final books. `reward` is the auditor's."""
    agent = play(recorded, profile, trial)
    verdicts = _verdicts(recorded, agent)
    return {
        "task_id": recorded.id,
        "trial": trial,
        "seed": recorded.seed,
        "agent": f"imperfect-{profile.name}",
        "reward": verdicts["gold"],
        "scores": {name: verdicts[name] for name in ("identity", "policy")},
        "metadata": {
            **recorded.data,
            "generated_by": "ttc_replay.examples.bookkeeping.record",
            "profile": profile.name,
            "note": NOTE,
        },
        "tools": agent.environment.tools(),
        "messages": messages_to_dicts(agent.messages),
    }


def records(difficulty: Difficulty) -> Iterator[dict[str, Any]]:
    """All shipped runs of a difficulty, task by task."""
    for number in range(TASKS_RECORDED):
        for trial, profile in enumerate(PROFILES.values()):
            yield record(task(f"bookkeeping/{difficulty}/{number:03d}"), profile, trial)


def write(folder: Path) -> list[Path]:
    """Write one JSONL file for each difficulty into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for difficulty in DIFFICULTIES:
        path = folder / f"{difficulty}.jsonl"
        lines = [json.dumps(row, ensure_ascii=False, separators=(",", ":")) for row in records(difficulty)]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        paths.append(path)
    return paths


def _verdicts(recorded: Task, agent: Bookkeeper) -> dict[str, float]:
    ended = Trajectory(id="", task=recorded, final_state=agent.environment.state())
    named = {"identity": identity, "policy": policy, "gold": gold}
    values = {name: model.score([ended])[0].value for name, model in named.items()}
    return {name: value for name, value in values.items() if value is not None}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Make the logs of the bookkeeping example.")
    parser.add_argument("--out", type=Path, default=LOGS, help="folder to write to")
    for path in write(parser.parse_args(arguments).out):
        print(f"{path}: {path.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
