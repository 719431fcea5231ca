"""Tool calls under a grammar: what a model may say next so that every call it opens is a valid one (llguidance).

JSON is written as chat templates write it, `{"a": 1, "b": [1, 2]}`: one space after a comma and a colon and no other,
properties in the order of the schema. The spacing changes what a small model chooses, so it is fixed.
"""

from __future__ import annotations

import importlib
import json
import logging
import threading
from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeVar

import numpy as np
import torch

from ...storage.errors import MissingExtra, UsageError
from ...storage.records import ToolSchema
from .argument_schemas import ANY_OBJECT, escapes, tight_or_not, tool_schema
from .chat_styles import HERMES, CallStyle
from .grammar_text import Mode, Turn

SPACING = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
KEPT_GRAMMARS = 64
"""Compiled grammars kept per model; a search has a few (tools times modes)."""

_LOG = logging.getLogger("ttc_replay.local")

T = TypeVar("T")


class CallConstraint:
    """What one branch may say next (`jobs.Constraint`); it has a state, `copy` gives another branch its own."""

    def __init__(self, matcher: Any, vocabulary_size: int, end_tokens: frozenset[int]) -> None:
        self._matcher = matcher
        self._vocabulary_size = vocabulary_size
        self._end_tokens = end_tokens
        self.ended = False

    def copy(self) -> CallConstraint:
        """Another constraint in the state of this one."""
        other = CallConstraint(self._matcher.deep_copy(), self._vocabulary_size, self._end_tokens)
        other.ended = self.ended
        return other

    def allowed(self) -> torch.Tensor:
        """Bool `[vocabulary]`, on the CPU. End tokens are allowed exactly where the turn may end; nothing is allowed
        behind one, and where the grammar has become too complex for its limits."""
        if not self.ended and not self._matcher.is_error():
            biases = np.frombuffer(self._matcher.compute_logit_bias(), dtype=np.uint8)
            if not self._matcher.is_error():
                return torch.from_numpy(biases[: self._vocabulary_size] > 0)
        return torch.zeros(self._vocabulary_size, dtype=torch.bool)

    def accept(self, token: int) -> None:
        """The token was chosen. Raises ValueError for one that was not allowed."""
        if self.ended or not self._matcher.consume_token(token):
            raise ValueError(f"token {token} is not allowed here")
        self.ended = token in self._end_tokens

    @property
    def may_end(self) -> bool:
        """Whether the turn is whole as it stands."""
        return bool(self.ended or self._matcher.is_accepting())

    def forced_after(self, token: int) -> bytes:
        """What must follow `token`, should it be chosen; empty where there is a choice, or it is not allowed."""
        after = self._matcher.deep_copy()
        return bytes(after.compute_ff_bytes()) if after.consume_token(token) else b""


class CallGrammars:
    """The grammars of one model: its vocabulary and the compiled grammars are kept. Safe from several threads.

    `end_tokens` end a turn. `vocabulary_size` is the width of the logits; ids that no token has are never allowed.
    """

    def __init__(self, tokenizer: Any, vocabulary_size: int, end_tokens: Collection[int]) -> None:
        self._llguidance = load_llguidance()
        self._vocabulary_size = vocabulary_size
        self._end_tokens = frozenset(end_tokens)
        if not self._end_tokens:
            raise UsageError("the model's tokenizer and configuration name no end token: no turn could end")
        self._tokens = self._wrapped(tokenizer, vocabulary_size)
        added = tokenizer.added_tokens_decoder.items()
        self._special = {str(token.content): int(number) for number, token in added if self._is_special(number)}
        self._grammars: dict[Any, Any] = {}
        self._schemas: dict[str, tuple[str, str | None]] = {}
        self._unions: dict[str, str | None] = {}
        self._told: set[tuple[str, str]] = set()
        self._lock = threading.Lock()

    def constraint_for(
        self,
        tools: Sequence[ToolSchema],
        style: CallStyle,
        mode: Mode = "free",
        *,
        named: str | None = None,
        parallel: bool = False,
        thinking: bool = False,
    ) -> CallConstraint:
        """A fresh constraint for one turn (modes: see `grammar_text`). `named`: this very tool is called.

        `parallel`: further calls may follow the first. `thinking`: the prompt ends inside the model's reasoning.
        Raises UsageError for a tool that is unknown or whose parameters are no schema of an object, and for a call that
        is required where there are no tools. A schema that a grammar cannot express is no error: it is logged once,
        and see `unexpressed`.
        """
        chosen = [tool for tool in tools if named is None or tool_schema(tool)[0] == named]
        if named is not None and not chosen:
            known = ", ".join(tool_schema(tool)[0] for tool in tools) or "none"
            raise UsageError(f"no tool is called {named}", hint=f"there are: {known}")
        mode = "required" if named is not None else mode
        if mode == "required" and not chosen:
            raise UsageError("a tool call is required, but there are no tools")
        found = self._arguments(chosen)
        self._tell(found)
        arguments = [(name, text) for name, (text, _) in found]
        turn = Turn(arguments, style, self._special, mode, parallel, thinking)
        key = (tuple(arguments), style, mode, parallel, thinking)
        matcher = self._kept(self._grammars, key, lambda: self._compiled(turn))
        return CallConstraint(matcher.deep_copy(), self._vocabulary_size, self._end_tokens)

    def bytes_of(self, token: int) -> bytes:
        """The bytes of a token of the vocabulary."""
        return bytes(self._tokens.decode_bytes([token]))

    def unexpressed(self, tools: Sequence[ToolSchema]) -> dict[str, str]:
        """By the tool's name, what its schema asks and the grammar does not see to: valid JSON objects all the same."""
        return {name: reason for name, (_, reason) in self._arguments(tools) if reason is not None}

    def _tell(self, found: Sequence[tuple[str, tuple[str, str | None]]]) -> None:
        for name, (_, reason) in found:
            if reason is not None and (name, reason) not in self._told:
                self._told.add((name, reason))
                _LOG.warning("tool %s: its schema is not wholly in the grammar: %s", name, reason)

    def _arguments(self, tools: Sequence[ToolSchema]) -> list[tuple[str, tuple[str, str | None]]]:
        found = [(name, self._expression(schema)) for name, schema in map(tool_schema, tools)]
        key = json.dumps([text for _, (text, _) in found])
        problem = self._kept(self._unions, key, lambda: self._union_problem(found)) if len(found) > 1 else None
        if problem is None:
            return found
        return [
            (name, (_json_expression(ANY_OBJECT), f"any JSON object: all tools together: {problem}"))
            for name, _ in found
        ]

    def _union_problem(self, found: Sequence[tuple[str, tuple[str, str | None]]]) -> str | None:
        """Why the tools do not compile in one grammar, though each does; of the largest grammar there is of them."""
        arguments = [(name, text) for name, (text, _) in found]
        return self._problem(Turn(arguments, HERMES, {}, "free", parallel=True, thinking=True).grammar())[0]

    def _expression(self, schema: dict[str, Any]) -> tuple[str, str | None]:
        return self._kept(self._schemas, json.dumps(schema), lambda: self._expressed(schema))

    def _expressed(self, schema: dict[str, Any]) -> tuple[str, str | None]:
        """The schema as the grammar's expression, as much of it as can be had, and what could not."""
        first_problem = None
        for candidate in tight_or_not(schema):
            text = _json_expression(candidate)
            problem, _ = self._problem(f"start: {text}")
            if problem is None:
                return text, None
            first_problem = first_problem or problem
        for candidate in tight_or_not(schema):
            text = _json_expression(candidate, lenient=True)
            problem, ignored = self._problem(f"start: {text}")
            if problem is None:
                return text, f"ignored: {ignored}"
        return _json_expression(ANY_OBJECT), f"any JSON object: {first_problem}"

    def _problem(self, grammar: str) -> tuple[str | None, str]:
        """(why the grammar does not compile, or None; warnings). By a whole matcher: the library's validation builds
        no parser and finds not all."""
        matcher = self._matcher(grammar)
        if matcher.is_error():
            return _brief(matcher.get_error()), ""
        return None, "; ".join(_brief(warning) for warning in matcher.get_grammar_warnings())

    def _compiled(self, turn: Turn) -> Any:
        matcher = self._matcher(turn.grammar())
        if matcher.is_error():
            raise UsageError(f"no grammar for the calls of style {turn.style.name}: {_brief(matcher.get_error())}")
        return matcher

    def _matcher(self, grammar: str) -> Any:
        return self._llguidance.LLMatcher(self._tokens, grammar, log_level=0)

    def _kept(self, store: dict[Any, T], key: Any, make: Callable[[], T]) -> T:
        with self._lock:
            if key in store:
                store[key] = store.pop(key)
            else:
                store[key] = make()
                if len(store) > KEPT_GRAMMARS:
                    del store[next(iter(store))]
            return store[key]

    def _wrapped(self, tokenizer: Any, vocabulary_size: int) -> Any:
        backend = tokenizer.backend_tokenizer.__class__.from_str(tokenizer.backend_tokenizer.to_str())
        backend.no_padding()
        backend.no_truncation()
        size = max(vocabulary_size, len(tokenizer))
        ends = sorted(self._end_tokens)
        return self._llguidance.LLTokenizer(backend.to_str(), n_vocab=size, eos_token=ends)

    def _is_special(self, number: int) -> bool:
        return bool(self._tokens.is_special_token(number))


def load_llguidance() -> Any:
    """The module. Raises MissingExtra."""
    try:
        return importlib.import_module("llguidance")
    except ImportError as cause:
        raise MissingExtra(
            f"tool calls of a local model need llguidance: {cause}", hint="pip install 'ttc-replay[local]'"
        ) from cause


def _json_expression(schema: dict[str, Any], lenient: bool = False) -> str:
    options = {**SPACING, "json_allowed_escapes": escapes(schema), "lenient": lenient}
    return f"%json {json.dumps({**schema, 'x-guidance': options})}"


def _brief(message: str, limit: int = 200) -> str:
    """The compiler's reason without the grammar's text behind it."""
    reason = message.partition("\n   1 | ")[0].partition("<state>")[0].partition("<backtrace>")[0]
    reason = " ".join(reason.partition("failed to compile JSON schema: ")[2].split() or reason.split())
    return reason if len(reason) <= limit else reason[: limit - 1] + "…"
