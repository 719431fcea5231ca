"""Conversations in, messages out: chat format, grammar and decoder of one model behind one door, for every thread.

The policy and the server speak through it; what they ask at one time is decoded together.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from weakref import WeakValueDictionary

from ...storage.errors import UsageError
from ...storage.records import Message, TokenTrace, ToolSchema
from .batching import Batcher
from .jobs import Counters, FinishReason, Generated, Job, NoiseKey
from .spelling import Spelled, Spelling
from .traced_contexts import ContextEncoder
from .watched import Listener, Watched

TOLERANCES: Mapping[str, float] = {"float32": 1e-3, "float16": 0.1, "bfloat16": 1.0}
"""Leads, in units of logits, under which a token is undecided: another batch may round the other way. Measured
differences of logits between batch shapes are 7e-5 in float32 and 0.98 in bfloat16 (docs/local.md)."""


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """What decides which engine is meant: two of the same options are one engine in this process."""

    model: str
    device: str = "auto"
    dtype: str | None = None
    adapter: str | None = None
    context_length: int | None = None
    attention: str = "auto"
    cache_mib: int = 2048
    max_batch: int = 32
    threads: int = 1


@dataclass(frozen=True, slots=True)
class Factual:
    """What a recorded run said at this step, and the context it said it in, as token ids."""

    tokens: tuple[int, ...]
    context: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Ask:
    """Answers wanted to one conversation: one for each key. `traces`: sampled tokens of its last assistant messages.

    `tool_choice`: auto, required, none, or the name of a tool. `factual` is for the first key only; `listeners` hear
    the tokens of the answer with the same number. `alternatives`: see `Job`.
    """

    messages: tuple[Message, ...]
    tools: tuple[ToolSchema, ...]
    keys: tuple[NoiseKey, ...]
    max_tokens: int = 256
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    tool_choice: str = "auto"
    parallel_calls: bool = False
    stops: tuple[str, ...] = ()
    latent_steps: int = 0
    traces: tuple[TokenTrace | None, ...] = ()
    factual: Factual | None = None
    listeners: tuple[Listener, ...] = ()
    alternatives: int = 0

    def heard_by(self, listeners: tuple[Listener, ...]) -> Ask:
        """The same, with somebody who listens to each answer."""
        return replace(self, listeners=listeners)


@dataclass(frozen=True, slots=True)
class Said:
    """One answer: what the model said, read as a message, and the tokens behind it."""

    action: Message
    generated: Generated
    undecided: int

    @property
    def finish_reason(self) -> FinishReason:
        """Why it ended."""
        return self.generated.finish_reason

    @property
    def margin(self) -> float | None:
        """The smallest lead of a token over the runner-up."""
        return min(self.generated.margins, default=None)


@dataclass
class Tally:
    """What an engine has said since it began."""

    answers: int = 0
    tokens: int = 0
    undecided: int = 0
    context_full: int = 0
    out_of_memory: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, said: Said) -> None:
        """Count one answer."""
        with self._lock:
            self.answers += 1
            self.tokens += len(said.generated.tokens)
            self.undecided += said.undecided
            self.context_full += said.finish_reason == "context"
            self.out_of_memory += said.finish_reason == "memory"


class Speaker:
    """One loaded model. Raises MissingExtra and UsageError while loading; every method may be called from any thread.

    `window_seconds`: see `Batcher`.
    """

    def __init__(self, options: EngineOptions):
        from .loading import load_model, require_packages

        require_packages()
        from .chat import ChatFormat
        from .decoder import Decoder
        from .grammar import CallGrammars

        self.options = options
        self.loaded = load_model(options.model, options.device, options.dtype, options.adapter, options.context_length)
        self._set_threads()
        self.chat = ChatFormat(self.loaded)
        self.contexts = ContextEncoder(self.chat)
        self.decoder = Decoder(
            self.loaded.model,
            context_length=self.loaded.context_length,
            max_batch=options.max_batch,
            cache_bytes=options.cache_mib << 20,
            attention=options.attention,
        )
        self.grammars = CallGrammars(self.loaded.tokenizer, self.loaded.vocabulary_size, self.chat.end_tokens)
        self.spelling = Spelling(self._plain_ids, self.grammars.bytes_of)
        self.batcher = Batcher(self._decode)
        self.tally = Tally()
        self.tolerance = TOLERANCES.get(str(self.loaded.dtype).removeprefix("torch."), 1.0)
        self.mark = self.loaded.digest[:16]
        """What traces of this model are marked with."""
        self._end_mask = self._mask_of(self.chat.end_tokens)

    def counters(self) -> Counters:
        """Of the decoder."""
        return self.decoder.counters()

    def own(self, traces: Sequence[TokenTrace | None]) -> tuple[TokenTrace | None, ...]:
        """The traces without those of other models, whose ids mean nothing here."""
        return tuple(trace if trace is not None and trace.model == self.mark else None for trace in traces)

    def say(self, asks: Sequence[Ask]) -> list[list[Said]]:
        """The answers to every ask, all of them in one decode.

        Raises UsageError for tools that are none, PolicyFailed for a conversation that the template refuses.
        """
        contexts = [self.contexts.encode(ask.messages, ask.tools, ask.traces) for ask in asks]
        pairs = list(zip(asks, contexts, strict=True))
        generated = iter(self.batcher.run(lambda: [job for ask, ids in pairs for job in self._jobs(ask, ids)]))
        return [[self._said(ask, next(generated)) for _ in ask.keys] for ask in asks]

    def score(self, contexts: Sequence[Sequence[int]], continuations: Sequence[Sequence[int]]) -> list[list[float]]:
        """Natural log-probabilities of given tokens, see `Decoder.score`. Raises MemoryError."""
        with self.batcher.turn:
            self._set_threads()
            return self.decoder.score(contexts, continuations)

    def check(self, ask: Ask) -> None:
        """Raises UsageError for tools that are none and a choice that is none of them, PolicyFailed for a conversation
        that the template refuses."""
        self.contexts.encode(ask.messages, ask.tools, ask.traces)
        self._calls(ask)

    def text(self, ids: Sequence[int]) -> str:
        """What the ids say, control tokens included."""
        decoded = self.loaded.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return str(decoded)

    def _plain_ids(self, text: str) -> list[int]:
        return list(self.loaded.tokenizer.encode(text, add_special_tokens=False))

    def fits(self, ask: Ask, ids: Sequence[int]) -> bool:
        """Whether the grammar of `ask` allows these very tokens."""
        constraint = self._calls(ask)
        if constraint is None:
            return True
        for token in ids:
            if not bool(constraint.allowed()[token]):
                return False
            constraint.accept(token)
        return True

    def _decode(self, jobs: Sequence[Job]) -> Sequence[Generated]:
        self._set_threads()
        return self.decoder.generate(jobs)

    def _set_threads(self) -> None:
        """Threads of torch are a setting of the process; it is slow to use more than the cores that are free."""
        import torch

        if torch.get_num_threads() != self.options.threads:
            torch.set_num_threads(self.options.threads)

    def _jobs(self, ask: Ask, context: Sequence[int]) -> Iterator[Job]:
        shared = self._calls(ask)
        for number, key in enumerate(ask.keys):
            factual = ask.factual if number == 0 else None
            free = factual is not None and not self.fits(ask, factual.tokens)
            inner = None if shared is None or free else shared.copy()
            listener = ask.listeners[number] if ask.listeners else None
            watched = bool(ask.stops) or listener is not None
            yield Job(
                context,
                ask.max_tokens,
                key,
                ask.temperature,
                ask.top_p,
                ask.top_k,
                self.chat.end_tokens,
                Watched(inner, self._end_mask, self.text, ask.stops, listener) if watched else inner,
                None if factual is None else factual.tokens,
                None if factual is None else factual.context,
                ask.latent_steps,
                ask.alternatives,
            )

    def _calls(self, ask: Ask) -> Any:
        """The grammar of the ask's tools in its first state; None where there are none."""
        if not ask.tools:
            if ask.tool_choice not in ("auto", "none"):
                raise UsageError(f"tool_choice={ask.tool_choice}, but there are no tools")
            return None
        modes: Mapping[str, Any] = {"auto": "free", "required": "required", "none": "none"}
        calls = self.grammars.constraint_for(
            ask.tools,
            self.chat.style,
            modes.get(ask.tool_choice, "required"),
            named=None if ask.tool_choice in modes else ask.tool_choice,
            parallel=ask.parallel_calls,
            thinking=self.chat.opens_thinking,
        )
        return Spelled(calls, self.spelling)

    def _said(self, ask: Ask, generated: Generated) -> Said:
        tools = () if ask.tool_choice == "none" else ask.tools
        lead = self.tolerance / (ask.temperature or 1.0)
        undecided = sum(margin < lead for margin in generated.margins)
        said = Said(self.chat.decode(generated.tokens, tools), generated, undecided)
        self.tally.add(said)
        return said

    def _mask_of(self, tokens: frozenset[int]) -> Any:
        import torch

        mask = torch.zeros(self.loaded.vocabulary_size, dtype=torch.bool)
        mask[sorted(tokens)] = True
        return mask


_SPEAKERS: WeakValueDictionary[EngineOptions, Speaker] = WeakValueDictionary()
_LOADING = threading.Lock()


def speaker_for(options: EngineOptions) -> Speaker:
    """The engine of these options: one in a process, loaded at the first call, gone with the last who holds it."""
    with _LOADING:
        found = _SPEAKERS.get(options)
        if found is None:
            found = _SPEAKERS[options] = Speaker(options)
        return found
