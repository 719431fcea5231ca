"""Plays in what was learned (MuZero's idea, arXiv 1911.08265): a small net predicts observation, end and outcome."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...storage.errors import UsageError, WorldUnsure
from ...storage.records import Message, StepResult, Task, ToolCall, Trajectory
from .imagined import ImaginedWorld
from .learned_events import Event, Memory, called, prompt_tokens, result_tokens, spoken
from .learned_store import Learned, load
from .world_examples import Archive


class LearnedWorlds:
    """What all learned worlds of a run share: the net, and the archive's farewells. Called once a world."""

    def __init__(self, learned: Learned, min_confidence: float):
        self.learned = learned
        self.min_confidence = min_confidence
        self.archive = Archive()

    def __call__(self) -> LearnedWorld:
        """A new world."""
        return LearnedWorld(self)

    def prepare(self, records: Iterable[Trajectory]) -> None:
        """Take what users of the archive said last."""
        self.archive = Archive(records)

    def report(self) -> dict[str, Any]:
        """What the run's report says of the world: the held-out figures of the net that played it."""
        kept = ("accuracy", "baseline", "gain_interval", "outcome_auroc", "tasks", "trusted")
        figures = {name: self.learned.report.get(name) for name in kept}
        return {"fidelity": "simulated", "model": self.learned.sha256[:16], "held_out": figures}


class LearnedWorld(ImaginedWorld):
    """See `Environment`. Built by `LearnedWorlds`. Forkable; its state is the calls so far and a latent vector.

    `shared` options: `model`, the FILE of `ttc-replay world train`; `min_confidence`, the probability below which an
    observation is not believed and the branch fails (TTC-E408); `trust` uses a model without figures, or one that is
    no better than the frequency baseline. The step that ends a run carries the probability of a won run as its reward.
    """

    inline = True

    def __init__(self, shared: LearnedWorlds):
        super().__init__(shared.archive)
        self._shared = shared
        self._memory = Memory()
        self._latent: Any = None
        self._before: Any = None
        self._latest: Event | None = None

    @staticmethod
    def shared(*, model: str, trust: bool = False, min_confidence: float = 0.25) -> LearnedWorlds:
        """The factory of worlds that share one net. Raises UsageError, also for a model that is not to be trusted."""
        if not 0 <= min_confidence <= 1:
            raise UsageError(f"learned-world: min_confidence {min_confidence!r} is not between 0 and 1")
        learned = load(Path(model))
        if not trust:
            check_trust(learned.report, model)
        return LearnedWorlds(learned, min_confidence)

    def reset(self, task: Task) -> list[Message]:
        """Rewind; the record's prompt. Raises OffTapeError when nothing was loaded."""
        import torch

        prompt = super().reset(task)
        net = self._shared.learned.seen.net
        with torch.no_grad():
            self._latent = net.start(net.bags([prompt_tokens(prompt)]))
        self._memory, self._latest = Memory(), None
        return prompt

    async def imagined(self, action: Message) -> StepResult:
        """The likeliest recorded observation of each call, in order. Raises WorldUnsure."""
        results, chances, details = [], [], []
        over, won = 0.0, 0.0
        for call in action.tool_calls:
            text, chance, choices = self._choose(call)
            result = Message("tool", text, tool_call_id=call.id, name=call.name)
            over, won = self._follow(called(call, text, self._memory))
            self._remember(call, text)
            super().note(Message("assistant", tool_calls=(call,)), [result], "simulated")
            results.append(result)
            chances.append(chance)
            details.append({"tool": call.name, "probability": chance, "choices": choices})
        info = {"confidence": min(chances), "calls": details, "over": over, "won": won}
        done = over > 0.5
        return StepResult(results, done, won if done else None, {"fidelity": "simulated", "world": info})

    def spoken(self, action: Message) -> StepResult:
        """A message without calls: may end the run, as it did in the runs that were learned from."""
        over, won = self._follow(spoken(action))
        info = {"confidence": max(over, 1 - over), "over": over, "won": won}
        done = over > 0.5
        return StepResult((), done, won if done else None, {"fidelity": "simulated", "world": info})

    def note(self, action: Message, observations: Any, fidelity: str) -> None:
        """Take one recorded step into the past and into the latent state."""
        before = len(self.past.calls)
        super().note(action, observations, fidelity)
        for call, result in zip(self.past.calls[before:], self.past.results[before:], strict=True):
            self._follow(called(call, result.text, self._memory))
            self._remember(call, result.text)
        if not action.tool_calls:
            self._follow(spoken(action, observations))

    def hear(self, reply: Message) -> StepResult:
        """As any imagined world; the latent state is that of the message with its reply."""
        event = self._latest
        if event is not None and not event.tool:
            self._latent, self._latest = self._before, None
            self._follow(replace(event, result=result_tokens(reply.text)))
        return super().hear(reply)

    def _choose(self, call: ToolCall) -> tuple[str, float, int]:
        import torch

        seen = self._shared.learned.seen
        with torch.no_grad():
            action = seen.net.bags([called(call, "", self._memory).action])
            ranked = seen.ranking(self._latent, action, call, self._memory.counters)
        if not ranked:
            raise WorldUnsure(f"nothing was learned of {call.name} that fits this call")
        text, chance = ranked[0]
        if chance < self._shared.min_confidence:
            told = f"the likeliest result of {call.name} has probability {chance:.2f}"
            raise WorldUnsure(told, hint=f"min_confidence is {self._shared.min_confidence:g}")
        return text, chance, len(ranked)

    def _follow(self, event: Event) -> tuple[float, float]:
        """Move the latent state; the probabilities that the run is over and that it will be won."""
        import torch

        net = self._shared.learned.seen.net
        self._before, self._latest = self._latent, event
        with torch.no_grad():
            action, result = net.bags([event.action]), net.bags([event.result])
            self._latent = net.move(self._latent, action, result)
            over, won = net.after(self._latent, action)
        return float(torch.sigmoid(over)), float(torch.sigmoid(won))

    def _remember(self, call: ToolCall, text: str) -> None:
        self._memory = self._memory.after(call, text)


def check_trust(report: dict[str, Any], place: str) -> None:
    """Raises UsageError, with the figures, for a model without a report or one that is no better than the baseline."""
    if not report:
        raise UsageError("no held-out report was made of this model", place=place, hint="--env-opt trust=true uses it")
    if report.get("trusted") is True:
        return
    low, high = report["gain_interval"]
    told = (
        f"held-out accuracy {report['accuracy']:.3f}, frequency baseline {report['baseline']:.3f} "
        f"(gain {low:.3f} to {high:.3f} over {report['tasks']} tasks): not above it"
    )
    raise UsageError(told, place=place, hint="more runs may help; --env-opt trust=true uses it as it is")
