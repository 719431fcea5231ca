"""Toy worlds whose every answer is known: a number that must reach a target, and policies over it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from ttc_replay import Message, Proposal, ProposalRequest, Score, Step, StepResult, Task, ToolCall, Trajectory, reward
from ttc_replay.replay.engine import Engine, Plugins
from ttc_replay.replay.settings import Settings
from ttc_replay.rewards.compose import Weighted, compose
from ttc_replay.rewards.environment import environment as environment_reward
from ttc_replay.storage.journal import Journal
from ttc_replay.storage.records import Outcome, Source, Spec

SCHEMA = {
    "type": "function",
    "function": {"name": "add", "parameters": {"type": "object", "properties": {"by": {"type": "integer"}}}},
}


def add(by: int) -> Message:
    """The only action of the toy world."""
    return Message("assistant", "", tool_calls=(ToolCall(f"call_{by}", "add", {"by": by}),))


class Counter:
    """Four additions; success is a total of exactly `task.data["target"]`. Forkable, in memory."""

    inline = True
    steps_made = 0

    def __init__(self, length: int = 4) -> None:
        self.length = length
        self.total = self.done = self.target = 0

    def reset(self, task: Task) -> list[dict[str, Any]]:
        self.total = self.done = 0
        self.target = int(task.data["target"])
        return [{"role": "user", "content": f"reach {self.target}"}]

    def step(self, action: Message) -> StepResult:
        type(self).steps_made += 1
        if not action.tool_calls:
            return StepResult([], True, 0.0)
        by = (action.tool_calls[0].arguments or {})["by"]
        if by == 13:
            raise RuntimeError("the world does not like 13")
        self.total += by
        self.done += 1
        over = self.done >= self.length
        value = (1.0 if self.total == self.target else 0.0) if over else None
        answer = Message("tool", f'{{"total": {self.total}}}', tool_call_id=action.tool_calls[0].id, name="add")
        return StepResult([answer], over, value)

    def fork(self) -> Counter:
        other = type(self)(self.length)
        other.total, other.done, other.target = self.total, self.done, self.target
        return other

    def tools(self) -> list[dict[str, Any]]:
        return [SCHEMA]

    def state(self) -> dict[str, int]:
        return {"total": self.total, "done": self.done}


class ReExecutable:
    """The same world without `fork`, not inline: runs in worker threads and is re-executed for every branch."""

    def __init__(self) -> None:
        self._inner = Counter()
        self.threads: set[int] = set()

    def reset(self, task: Task) -> list[dict[str, Any]]:
        return self._inner.reset(task)

    def step(self, action: Message) -> StepResult:
        self.threads.add(threading.get_ident())
        return self._inner.step(action)

    def tools(self) -> list[dict[str, Any]]:
        return self._inner.tools()

    def state(self) -> dict[str, int]:
        return self._inner.state()


class AsyncCounter(Counter):
    """The same world, async."""

    inline = False

    async def step(self, action: Message) -> StepResult:  # type: ignore[override]
        return super().step(action)


class Digits:
    """Proposes 1, 2, 3 with fixed priors; a finite, known set."""

    sampling = False
    inline = True
    asked = 0

    def propose(self, requests: Sequence[ProposalRequest]) -> list[list[Proposal]]:
        type(self).asked += len(requests)
        return [self._one(request) for request in requests]

    def _one(self, request: ProposalRequest) -> list[Proposal]:
        from ttc_replay.storage.codec import action_key

        options = [add(by) for by in (1, 2, 3)]
        fresh = [action for action in options if action_key(action) not in request.exclude]
        return [Proposal(action, logprob=-1.0) for action in fresh[: request.n]]


def record(*amounts: int, target: int = 9, task: str = "t1", outcome: float = 0.0) -> Trajectory:
    """A recorded run of the toy world."""
    world = Counter()
    job = Task(task, data={"target": target}, private={"gold": target})
    prompt = (Message("user", f"reach {target}"),)
    world.reset(job)
    steps = []
    for index, by in enumerate(amounts):
        result = world.step(add(by))
        steps.append(Step(index, add(by), tuple(result.observations)))
    name = f"{task}:{'-'.join(map(str, amounts))}"
    source = Source("test", "toy.jsonl", 1, "toy")
    return Trajectory(name, job, prompt=prompt, steps=tuple(steps), outcome=Outcome(outcome), source=source)


@reward(process=True)
def closeness(trajectory: Trajectory) -> Score:
    """How near the total is to what is still possible: 1 while the target can be reached."""
    total, done = trajectory.final_state["total"], trajectory.final_state["done"]
    left = 4 - done
    target = int(trajectory.task.data["target"])
    return Score(1.0 if total + left <= target <= total + 3 * left else 0.0)


@reward
def gold(trajectory: Trajectory) -> float:
    """The gate: needs the gold, which only it may see."""
    return float(trajectory.final_state["total"] == trajectory.task.private["gold"])


MakeEngine = Callable[..., Engine]


@pytest.fixture
def toy() -> Any:
    """The toy world's parts as one namespace (test files do not import each other)."""

    class Toy:
        pass

    toy = Toy()
    parts = (Counter, ReExecutable, AsyncCounter, Digits, record, closeness, gold, add, environment_reward)
    for part in parts:
        setattr(toy, getattr(part, "__name__", "environment_reward"), part)
    toy.record, toy.add, toy.closeness, toy.gold = record, add, closeness, gold  # type: ignore[attr-defined]
    toy.environment_reward = environment_reward  # type: ignore[attr-defined]
    return toy


@pytest.fixture
def make_engine(tmp_path: Any) -> MakeEngine:
    """An engine on toy worlds: `make_engine(records, policy=..., world=..., folder=..., **settings)`."""

    def make(
        records: Sequence[Trajectory],
        *,
        policy: Any = None,
        world: Callable[[], Any] = Counter,
        rewards: Sequence[tuple[str, Any]] = (("environment", environment_reward),),
        accept: Any = None,
        answer: Any = None,
        folder: str = "run",
        archive: Sequence[Trajectory] | None = None,
        lookup: Any = None,
        **options: Any,
    ) -> Engine:
        specs = tuple((Spec(name), 1.0) for name, _ in rewards)
        settings = Settings(
            environment=Spec("toy"),
            policy=Spec("toy"),
            rewards=specs,
            accept=Spec("gold") if accept is not None else None,
            **options,
        )
        guide = compose([Weighted(name, model) for name, model in rewards])
        gate = compose([Weighted("gold", accept)]) if accept is not None else None
        plugins = Plugins(policy or Digits(), world, guide, gate, answer=answer)
        journal = Journal.open(tmp_path / folder, settings.configuration(), [item.id for item in records])
        known = list(archive) if archive is not None else list(records)
        return Engine(settings, folder, records, known, plugins, journal, lookup or (lambda keys: {}))

    return make
