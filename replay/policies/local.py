"""The `local` policy: a model of transformers in this process, on the CPU or on CUDA, without a server.

All requests of a batch, of many trees, go to one decode; each shared prefix is kept once (docs/local.md). A token is a
function of its context and of noise keyed by seed, trajectory, step and position, so in float32 a tree does not depend
on concurrency. Torch is imported when the model is loaded.

Decisions: `exclude` is not filtered (a duplicate is a vote); an answer that the full context or missing memory cut
short is no action, and an ask without any action fails with that reason; the tokens of every action are kept.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from ...search.tree import mix
from ...storage.errors import ContextFull, OutOfMemory, PolicyFailed, TtcError, UsageError
from ...storage.records import Message, Proposal, ProposalRequest, TokenTrace, ToolSchema, Trajectory, Usage
from ..local.jobs import NoiseKey
from ..local.likelihoods import ActionScore, Situation, likelihoods
from ..local.speaking import Ask, EngineOptions, Said, Speaker, speaker_for
from .local_counterfactual import Records

DIGITS = 5
"""Decimals of log-probabilities and margins that are kept: float32 has no more that mean anything."""
CUT_SHORT = ("context", "memory", "constraint")
"""Reasons for which an answer is not the model's own end, nor the user's limit."""


@dataclass(eq=False)
class LocalPolicy:
    """Proposes what a local language model says.

    `model`: a Hugging Face folder with safetensors, a .gguf file, or "smollm2". `device`: auto, cpu, cuda, cuda:N.
    `dtype` None: float32 on the CPU, bfloat16 on CUDA. `adapter`: the folder of a LoRA adapter. `temperature` 0 takes
    the likeliest token; `top_k` 0 and `top_p` 1 cut nothing. `max_tokens` of one answer. `tool_choice`: auto, required,
    none, or a tool's name. `counterfactual`: the first answer is what the recorded run would have said (see
    `local_counterfactual`). `latent_steps`: hidden states fed back before an answer, for models trained so.
    `prompt_ids`: keep the ids of contexts too, for exports with token ids. `cache_mib` holds keys and values,
    `max_batch` branches are decoded at once, `threads` are torch's. Raises UsageError on options that cannot be.

    Counters for reports: `report()`.
    """

    model: str
    device: str = "auto"
    dtype: str | None = None
    adapter: str | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    max_tokens: int = 256
    cache_mib: int = 2048
    max_batch: int = 32
    tool_choice: str = "auto"
    parallel_tool_calls: bool = False
    counterfactual: bool = False
    latent_steps: int = 0
    attention: str = "auto"
    context_length: int | None = None
    threads: int = 1
    prompt_ids: bool = False

    batched: ClassVar[bool] = True
    sampling: ClassVar[bool] = True
    metered: ClassVar[bool] = True

    records: Records = field(default_factory=Records, init=False, repr=False)

    def __post_init__(self) -> None:
        _check_options(self)
        self._speaker: Speaker | None = None
        self._loading = threading.Lock()

    def check(self) -> None:
        """Load the model, so that whatever is wrong with it is known before anything is spent.

        Raises MissingExtra, and UsageError for a folder, file, template or option that cannot be used.
        """
        dtype = str(self.speaker().loaded.dtype).removeprefix("torch.")
        if self.counterfactual and dtype != "float32":
            told = f"counterfactual=true needs float32, not {dtype}: in other types batches of another size say others"
            raise UsageError(told, hint="--policy-opt dtype=float32")

    def identity(self) -> dict[str, Any]:
        """What goes into the call key: the model's digest, and every parameter that changes what is said."""
        loaded = self.speaker().loaded
        names = ("temperature", "top_p", "top_k", "max_tokens", "tool_choice", "parallel_tool_calls")
        more = ("counterfactual", "latent_steps", "prompt_ids")
        return {
            "policy": "local",
            "model": loaded.name,
            "digest": loaded.digest,
            "device": str(loaded.device.type),
            "dtype": str(loaded.dtype).removeprefix("torch."),
            "context_length": loaded.context_length,
            **{name: getattr(self, name) for name in (*names, *more)},
        }

    def estimate(self, request: ProposalRequest) -> Usage:
        """The worst case of one call: its prompt, and `n * max_tokens`. A conversation that the template refuses costs
        nothing: `propose` says why."""
        try:
            traces = self.speaker().own(request.tokens)
            prompt = len(self.speaker().contexts.encode(request.messages, request.tools, traces))
        except PolicyFailed:
            return Usage(0, 0, 0, 0.0)
        return Usage(prompt, request.n * int(request.sampling.get("max_tokens", self.max_tokens)), None, 0.0)

    def prepare(self, records: Iterable[Trajectory]) -> None:
        """Know what the recorded runs said (only `counterfactual` asks)."""
        if self.counterfactual:
            self.records.keep(records)

    def propose(self, requests: Sequence[ProposalRequest]) -> list[list[Proposal] | TtcError]:
        """The answers to all requests, from one decode; an error stands in the place of a request that has none."""
        speaker = self.speaker()
        found: list[list[Proposal] | TtcError | None] = [None] * len(requests)
        asks: dict[int, Ask] = {}
        for place, request in enumerate(requests):
            try:
                asks[place] = self._ask(request, speaker)
            except TtcError as error:
                found[place] = error
        said = speaker.say(list(asks.values())) if asks else []
        for place, answers in zip(asks, said, strict=True):
            found[place] = self._proposals(requests[place], answers, speaker)
        return [item for item in found if item is not None]

    def score_actions(
        self, context: Sequence[Message], actions: Sequence[Message], tools: Sequence[ToolSchema] = ()
    ) -> list[ActionScore]:
        """How likely each of `actions` is after `context`, token by token, at temperature 1 and under no grammar.

        Raises what `check` raises, PolicyFailed where the template refuses the context, OutOfMemory.
        """
        return self._likelihoods([(context, tools, action) for action in actions])

    def score_steps(self, items: Sequence[Trajectory], *, last: bool = False) -> list[list[ActionScore]]:
        """`score_actions` for the actions that each trajectory took, all in one pass; `last`: for its last one only."""
        situations: list[Situation] = []
        counts = []
        for item in items:
            steps = item.steps[-1:] if last else item.steps
            first = len(item.steps) - len(steps)
            counts.append(len(steps))
            for place, step in enumerate(steps, first):
                before = list(item.prompt)
                for earlier in item.steps[:place]:
                    before += [earlier.action, *earlier.observations]
                situations.append((before, item.tools or (), step.action))
        scores = iter(self._likelihoods(situations))
        return [[next(scores) for _ in range(count)] for count in counts]

    def report(self) -> dict[str, Any]:
        """What this session's report says of the engine; empty before it was used."""
        if self._speaker is None:
            return {}
        speaker, done = self._speaker, self._speaker.counters()
        tally = speaker.tally
        return {
            "model": speaker.loaded.name,
            "answers": tally.answers,
            "sampled_tokens": tally.tokens,
            "undecided_tokens": tally.undecided,
            "context_full": tally.context_full,
            "out_of_memory": tally.out_of_memory,
            "prefilled_tokens": done.prefilled_tokens,
            "unique_tokens": done.unique_tokens,
            "largest_batch": done.largest_batch,
        }

    def close(self) -> None:
        """Let the model go; another policy of this process with the same options may keep it."""
        self._speaker = None

    def options(self) -> EngineOptions:
        """What decides which engine is meant."""
        names = ("device", "dtype", "adapter", "context_length", "attention", "cache_mib", "max_batch", "threads")
        return EngineOptions(str(self.model), **{name: getattr(self, name) for name in names})

    def speaker(self) -> Speaker:
        """The engine, loaded at the first call. Raises what `check` raises."""
        with self._loading:
            if self._speaker is None:
                self._speaker = speaker_for(self.options())
            return self._speaker

    def _ask(self, request: ProposalRequest, speaker: Speaker) -> Ask:
        sampling = request.sampling
        seeds = [mix(request.seed, number) >> 1 for number in range(request.n)]
        keys = [NoiseKey(seed, request.trajectory_id, request.step) for seed in seeds]
        ask = Ask(
            request.messages,
            request.tools,
            tuple(keys),
            int(sampling.get("max_tokens", self.max_tokens)),
            float(sampling.get("temperature", self.temperature)),
            float(sampling.get("top_p", self.top_p)),
            self.top_k,
            self.tool_choice if request.tools else "auto",
            self.parallel_tool_calls,
            latent_steps=self.latent_steps,
            traces=speaker.own(request.tokens),
        )
        if self.counterfactual and not sampling.get("first_sample"):
            keys[0] = self.records.key(request)
            ask = replace(ask, keys=tuple(keys), factual=self.records.factual(request, speaker))
        speaker.check(ask)
        return ask

    def _proposals(
        self, request: ProposalRequest, answers: Sequence[Said], speaker: Speaker
    ) -> list[Proposal] | TtcError:
        whole = [said for said in answers if said.finish_reason not in CUT_SHORT]
        if not whole:
            return _nothing_said(answers[0], speaker.loaded.context_length)
        prompt: tuple[int, ...] | None = None
        shared = 0
        if self.prompt_ids:
            traces = speaker.own(request.tokens)
            prompt, shared = speaker.contexts.new_part(request.messages, request.tools, traces)
        usages = _usages(answers, whole)
        found = []
        for said, usage in zip(whole, usages, strict=True):
            trace = replace(_trace(said), prompt=prompt, shared=shared, model=speaker.mark)
            action = with_ids(said.action, request.step)
            found.append(Proposal(action, math.fsum(trace.logprobs), usage, said.finish_reason, tokens=trace))
        return found

    def _likelihoods(self, situations: Sequence[Situation]) -> list[ActionScore]:
        try:
            return likelihoods(self.speaker(), situations)
        except MemoryError as error:
            raise OutOfMemory(str(error), hint="a smaller cache_mib, or a shorter context") from error


def with_ids(action: Message, step: int) -> Message:
    """The action with ids for its calls, made from its place, so that results can name them."""
    calls = tuple(replace(call, id=f"call_{step}_{place}") for place, call in enumerate(action.tool_calls))
    return replace(action, tool_calls=calls) if calls else action


def _trace(said: Said) -> TokenTrace:
    generated, margin = said.generated, said.margin
    logprobs = tuple(round(value, DIGITS) for value in generated.logprobs)
    lead = None if margin is None else round(margin, DIGITS)
    return TokenTrace(generated.tokens, logprobs, lead, said.undecided)


def _usages(answers: Sequence[Said], whole: Sequence[Said]) -> list[Usage]:
    """The usage of each whole answer: the first one bears the prompt, which all share, and what was cut short."""
    cut_short = sum(len(said.generated.tokens) for said in answers if said not in whole)
    usages = [Usage(0, len(said.generated.tokens), 0, 0.0) for said in whole]
    prompt, cached = answers[0].generated.prompt_tokens, min(said.generated.cached_tokens for said in answers)
    usages[0] = Usage(prompt, len(whole[0].generated.tokens) + cut_short, cached, 0.0)
    return usages


def _nothing_said(said: Said, context_length: int) -> TtcError:
    """Why an ask has no action at all."""
    if said.finish_reason == "context":
        told = f"{said.generated.prompt_tokens} tokens and an answer do not fit into {context_length}"
        return ContextFull(told, hint="a model with a longer context, or a smaller --max-depth")
    if said.finish_reason == "memory":
        told = f"no memory for one branch of {said.generated.prompt_tokens} tokens"
        return OutOfMemory(told, hint="a smaller cache_mib or model, or dtype=bfloat16")
    return PolicyFailed("the grammar of the tools allowed no token", hint="tool_choice=none, or simpler schemas")


def _check_options(policy: LocalPolicy) -> None:
    if not policy.model or not isinstance(policy.model, str):
        raise UsageError("the local policy needs a model", hint="--policy-opt model=FOLDER, FILE.gguf or smollm2")
    whole = {"max_tokens": 1, "cache_mib": 1, "max_batch": 1, "threads": 1, "top_k": 0, "latent_steps": 0}
    if policy.context_length is not None:
        whole["context_length"] = 1
    for name, low in whole.items():
        value = getattr(policy, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < low:
            raise UsageError(f"{name} must be a whole number, at least {low}: {value!r}")
    for name, high in {"temperature": math.inf, "top_p": 1.0}.items():
        value = getattr(policy, name)
        sound = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= high
        if not sound or value == math.inf or (name == "top_p" and value == 0):
            raise UsageError(f"{name} must be a number from 0 to {high:g}: {value!r}")
    for name in ("parallel_tool_calls", "counterfactual", "prompt_ids"):
        if not isinstance(getattr(policy, name), bool):
            raise UsageError(f"{name} must be true or false: {getattr(policy, name)!r}")
    if policy.counterfactual and (not policy.temperature or policy.top_p < 1 or policy.top_k or policy.latent_steps):
        told = "counterfactual=true samples the whole distribution: no temperature 0, top_p, top_k or latent_steps"
        raise UsageError(told, hint="docs/design/counterfactual-sampling.md says why")
