"""Makes the shipped log: `python -m ttc_replay.examples.analyst.record [--out DIR]`.

The imperfect analyst plays each of the 48 questions once. The output is always the same, to the byte.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ttc_replay import Message, ProposalRequest, Task, Trajectory
from ttc_replay.examples.analyst.agents import NoisyAnalyst
from ttc_replay.examples.analyst.questions import QUESTIONS, RULES, task
from ttc_replay.examples.analyst.verifier import results
from ttc_replay.examples.analyst.warehouse import build
from ttc_replay.replay.environments.sql import SqlEnvironment
from ttc_replay.storage.codec import messages_to_dicts

LOGS = Path(__file__).parent / "logs"
NOTE = "made by a scripted imperfect analyst, not by a language model"
MOST_STEPS = 24


def environment() -> SqlEnvironment:
    """The world that the log was made in: `--env sql --env-opt build=ttc_replay.examples.analyst.warehouse:build`."""
    return SqlEnvironment(build=build, instructions=RULES)


def play(recorded: Task, agent: NoisyAnalyst, world: SqlEnvironment) -> list[Message]:
    """One run of the analyst; the conversation."""
    messages = list(world.reset(recorded))
    public = Task(recorded.id, recorded.prompt, recorded.data, recorded.seed)
    for step in range(MOST_STEPS):
        seed = int.from_bytes(hashlib.sha256(f"record {recorded.id} {step}".encode()).digest()[:6], "big")
        request = ProposalRequest(public, "", step, "", tuple(messages), tuple(world.tools()), 1, seed)
        action = agent.propose([request])[0][0].action
        result = world.step(action)
        messages += [action, *result.observations]
        if result.done:
            break
    return messages


def record(number: int) -> dict[str, Any]:
    """One run as an openai-chat record; `reward` is the verdict on three warehouses."""
    recorded, world = task(number), environment()
    messages = play(recorded, NoisyAnalyst(), world)
    ended = Trajectory(id="", task=recorded, final_state=world.state())
    return {
        "task_id": recorded.id,
        "seed": recorded.seed,
        "private": recorded.private,
        "agent": "imperfect-analyst",
        "reward": results.score([ended])[0].value,
        "metadata": {**recorded.data, "generated_by": "ttc_replay.examples.analyst.record", "note": NOTE},
        "tools": world.tools(),
        "messages": messages_to_dicts(messages),
    }


def write(folder: Path) -> Path:
    """Write the log into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "analyst.jsonl"
    lines = [json.dumps(record(number), ensure_ascii=False, separators=(",", ":")) for number in range(QUESTIONS)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Make the log of the analyst example.")
    parser.add_argument("--out", type=Path, default=LOGS, help="folder to write to")
    path = write(parser.parse_args(arguments).out)
    print(f"{path}: {path.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
