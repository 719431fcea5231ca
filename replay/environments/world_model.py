"""The world of a tool that cannot be called again: records first, then a policy predicts what the tool would say.

RAP (arXiv 2305.14992): a language model as the world model of a search. An action that some run of the same task took
after the same sequence of calls is answered from that record (fidelity `recorded`). Any other call is predicted from
recorded examples of the same tool; its step is `simulated` and carries how far the model agreed with itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ...storage.canonical import seed_from
from ...storage.errors import UsageError, WorldUnsure
from ...storage.records import Message, ProposalRequest, StepResult, Task, ToolCall, Trajectory, Usage
from ..calls import Append, Lookup, add_usage
from .imagined import ImaginedWorld
from .world_calls import WorldCalls
from .world_examples import Archive, ToolExamples
from .world_prompt import RULES, Agreement, Question, agreement, answers, prompt

NODE = "world"
_NO_EXAMPLES = ToolExamples(())


@dataclass(frozen=True, slots=True)
class Options:
    """What a world model is told, checked. `most_calls`: tool calls of one action that may be imagined."""

    samples: int = 3
    min_confidence: float = 0.5
    examples: int = 4
    min_examples: int = 1
    prompt_bytes: int = 24_000
    most_calls: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        wrong = {
            "samples": not 1 <= self.samples <= 64,
            "min_confidence": not 0 <= self.min_confidence <= 1,
            "examples": self.examples < 0,
            "min_examples": self.min_examples < 0,
            "prompt_bytes": self.prompt_bytes < 4_000,
            "most_calls": self.most_calls < 1,
        }
        for name, is_wrong in wrong.items():
            if is_wrong:
                raise UsageError(f"world-model: {name} {getattr(self, name)!r} cannot be", hint="docs/world-models.md")
        if self.samples == 1 and self.min_confidence > 0:
            told = "world-model: one sample says nothing about its confidence"
            raise UsageError(told, hint="samples of 2 or more, or min_confidence=0")


class WorldModels:
    """What all imagined worlds of a run share: the policy, the archive, the journal. Called once a world.

    Counters of this session, for reports: `simulated` (steps imagined, also on the way back to a state) and `unsure`
    (actions that were refused).
    """

    def __init__(self, policy: Any, options: Options):
        if not callable(getattr(policy, "propose", None)):
            told = f"world-model: policy {policy!r} is no policy"
            raise UsageError(told, hint="--env-opt policy=litellm --env-opt policy_opt='{\"model\": ...}'")
        self.options = options
        self.calls = WorldCalls(policy)
        self.archive = Archive()
        self.simulated = self.unsure = 0
        self._confidences: list[float] = []

    def __call__(self) -> WorldModel:
        """A new world."""
        return WorldModel(self)

    @property
    def metered(self) -> bool:
        """Whether imagining costs something."""
        return self.calls.metered

    @property
    def repeated_calls(self) -> int:
        """Calls that were begun more than once: those in flight at a kill."""
        return self.calls.repeated_calls

    def prepare(self, records: Iterable[Trajectory]) -> None:
        """Take the archive's examples: every recorded run, of every task."""
        known = list(records)
        self.archive = Archive(known)
        inner = getattr(self.calls.policy, "prepare", None)
        if inner is not None:
            inner(known)

    def check(self) -> None:
        """The inner policy's own check (a key that is missing shows before anything is spent)."""
        method = getattr(self.calls.policy, "check", None)
        if method is not None:
            method()

    def bind(self, append: Append, lookup: Lookup) -> None:
        """Journal the calls of this model here; see `WorldCalls`."""
        self.calls.bind(append, lookup)

    def recall(self, event: Mapping[str, Any]) -> None:
        """Take an event of an earlier session of the same run."""
        self.calls.recall(event)

    def worst(self) -> tuple[int, Usage]:
        """Calls and use that one action may cost at most: what a budget reserves for it."""
        if not self.metered:
            return 0, Usage()
        options = self.options
        filler = Message("user", "x" * options.prompt_bytes)
        whole = ProposalRequest(Task(""), "", 0, NODE, (Message("system", RULES), filler), (), options.samples, 0)
        rests = options.samples - 1 if self.calls.sampling else 0
        spent = [self.calls.estimate(whole), *[self.calls.estimate(replace(whole, n=1))] * rests]
        return options.most_calls * len(spent), add_usage(spent * options.most_calls)

    def close(self) -> Any:
        """The inner policy's own close; may be awaitable."""
        method = getattr(self.calls.policy, "close", None)
        return method() if method is not None else None

    def report(self) -> dict[str, Any]:
        """What the run's report says of the world."""
        known = self._confidences
        mean = sum(known) / len(known) if known else None
        return {"fidelity": "simulated", "simulated": self.simulated, "unsure": self.unsure, "mean_confidence": mean}

    def count(self, confidence: float | None) -> None:
        """One imagined step; its confidence, where that is known."""
        self.simulated += 1
        if confidence is not None:
            self._confidences.append(confidence)

    async def imagine(self, question: Question, trajectory_id: str, step: int) -> tuple[Agreement, list[Usage]]:
        """The model's answer to one call, and what each call to the model cost.

        Raises WorldUnsure below `min_confidence` and for no usable answer (`usages` of the error: what was paid).
        """
        messages, options = prompt(question, self.options.prompt_bytes), self.options
        texts: list[str] = []
        paid: list[Usage] = []
        asked = 0
        while asked < options.samples:
            first = not paid
            seed = seed_from(options.seed, "world", [[item.role, item.text] for item in messages], len(paid))
            want = options.samples if first else 1
            request = ProposalRequest(Task(""), trajectory_id, step, NODE, messages, (), want, seed)
            reply = await self.calls.ask(request)
            paid.append(reply.usage)
            asked += max(1, len(reply.proposals))
            texts += answers(reply.proposals)
            if not self.calls.sampling or len(paid) == options.samples:
                break
        return self._sure(question.call, texts, paid), paid

    def _sure(self, call: ToolCall, texts: Sequence[str], paid: Sequence[Usage]) -> Agreement:
        if not texts:
            self.unsure += 1
            raise WorldUnsure(f"the world model gave no result for {call.name}", usages=paid)
        found = agreement(texts)
        if not self.calls.sampling:
            found = replace(found, confidence=None)  # a table that answers alike each time agrees with itself
        if found.confidence is not None and found.confidence < self.options.min_confidence:
            self.unsure += 1
            told = f"{found.agreed} of {found.samples} samples agree on the result of {call.name}"
            raise WorldUnsure(told, hint=f"min_confidence is {self.options.min_confidence:g}", usages=paid)
        return found


class WorldModel(ImaginedWorld):
    """See `Environment`. Built by `WorldModels`; needs `load` before `reset`. Its state is the calls so far.

    `shared` options: `policy`, an object with `propose` (the command line builds it from `policy` and `policy_opt`);
    `samples` asked for each call, whose most frequent answer is taken; `min_confidence`, the share of them that must
    agree, else the branch fails (TTC-E408); `examples` shown, `min_examples` without which nothing is imagined;
    `prompt_bytes` and `most_calls` bound what one action may cost; `seed`.
    """

    policy_options = ("policy",)

    def __init__(self, shared: WorldModels):
        super().__init__(shared.archive)
        self._shared = shared
        self._paid: list[Usage] = []

    @staticmethod
    def shared(
        *,
        policy: Any,
        samples: int = 3,
        min_confidence: float = 0.5,
        examples: int = 4,
        min_examples: int = 1,
        prompt_bytes: int = 24_000,
        most_calls: int = 4,
        seed: int = 0,
    ) -> WorldModels:
        """The factory of worlds that share one policy and one archive. Raises UsageError."""
        checked = Options(samples, min_confidence, examples, min_examples, prompt_bytes, most_calls, seed)
        return WorldModels(policy, checked)

    async def imagined(self, action: Message) -> StepResult:
        """The model's answers to the calls in order, each seen by the next. Raises WorldUnsure, ProviderError."""
        if len(action.tool_calls) > self._shared.options.most_calls:
            told = f"{len(action.tool_calls)} calls in one action, most_calls is {self._shared.options.most_calls}"
            raise WorldUnsure(told)
        results, shares, details, ends = [], [], [], False
        for call in action.tool_calls:
            known = self._shared.archive.tools.get(call.name, _NO_EXAMPLES)
            found, detail = await self._answer(call, known)
            result = Message("tool", found.text, tool_call_id=call.id, name=call.name)
            self.note(Message("assistant", tool_calls=(call,)), [result], "simulated")
            ends = ends or known.ends(result)
            results.append(result)
            shares.append(found.confidence)
            details.append(detail)
        known_shares = [share for share in shares if share is not None]
        confidence = min(known_shares) if len(known_shares) == len(shares) else None
        self._shared.count(confidence)
        info = {"confidence": confidence, "calls": details}
        return StepResult(results, ends, info={"fidelity": "simulated", "world": info})

    async def _answer(self, call: ToolCall, known: ToolExamples) -> tuple[Agreement, dict[str, Any]]:
        options = self._shared.options
        if len(known.examples) < options.min_examples:
            self._shared.unsure += 1
            told = f"{len(known.examples)} recorded examples of {call.name}"
            raise WorldUnsure(told, hint=f"min_examples is {options.min_examples}; ingest runs that call this tool")
        alike = known.alike(call, self.past, options.examples)
        question = Question(call, self.past, self.schema(call.name), alike)
        trajectory = self.record.id if self.record is not None else ""
        try:
            found, paid = await self._shared.imagine(question, trajectory, self.steps_done - 1)
        except WorldUnsure as error:
            self._paid += error.usages
            raise
        self._paid += paid
        shown = [[item.run_id, item.step] for item in alike]
        return found, {"tool": call.name, "samples": found.samples, "agreed": found.agreed, "examples": shown}

    def spent(self) -> tuple[int, Usage]:
        """Calls to the model and their use since this was last asked; what is remembered counts where it is used."""
        paid, self._paid = self._paid, []
        return len(paid), add_usage(paid)

    def fork(self) -> WorldModel:
        """An independent copy of the calls so far; what was paid stays with the original."""
        twin: WorldModel = super().fork()
        twin._paid = []
        return twin
