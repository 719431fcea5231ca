"""Conversations to token ids and back, by the tokenizer's own chat template: `ChatFormat`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ...storage.codec import call_to_dict
from ...storage.errors import PolicyFailed, UsageError
from ...storage.records import Message, ToolSchema
from ..policies.wire import wire_messages, wire_tool
from . import chat_shapes
from .chat_calls import END_THINK, THINK, split_calls, split_reasoning
from .chat_shapes import ANSWER, Row
from .chat_styles import CallStyle
from .chat_tokens import MEMO_BYTES, PieceEncoder
from .loading import LoadedModel

DATES = {"Y": "2026", "y": "26", "m": "01", "d": "01", "b": "Jan", "B": "January", "A": "Thursday", "a": "Thu",
         "H": "00", "M": "00", "S": "00"}  # fmt: skip
DATE = (
    "{%- macro strftime_now(format) -%}{{ format"
    + "".join(f" | replace('%{letter}', '{text}')" for letter, text in DATES.items())
    + " }}{%- endmacro -%}"
)
"""Templates that write today's date would say something else tomorrow: theirs is always 1 January 2026."""

TURN_ENDS = ("<|eot_id|>", "<|eom_id|>", "<|im_end|>", "<end_of_turn>", "<|endoftext|>")
"""Of any family: a model that says one of these has ended, whatever its configuration declares."""


class ChatFormat:
    """How one model reads a conversation and how what it says is read. Safe to call from several threads.

    `style`: how it writes calls, for the parser and the grammar. `end_tokens`: ids that end an answer. `shape`: what
    its template understands; the rest of a conversation is rewritten to fit. `encoder.exact`: whether what the model
    said keeps its very tokens in later prompts (`remember`).
    """

    def __init__(self, loaded: LoadedModel, memo_bytes: int = MEMO_BYTES) -> None:
        self._tokenizer = loaded.tokenizer
        self._templates: dict[bool, str] = {}
        probed = chat_shapes.probe(self._render)
        self.encoder = PieceEncoder(loaded.tokenizer, memo_bytes, unguarded=(THINK, END_THINK))
        self._end = self._end_of_turn()
        self.style: CallStyle = replace(probed.style, end=self._end)
        self.shape = replace(probed, style=self.style)
        self.end_tokens = self._end_tokens(loaded)
        self._kept = frozenset(self.encoder.ids[mark] for mark in self._marks() if mark in self.encoder.ids)
        self._special = frozenset(self._tokenizer.all_special_ids) | self._control_ids()
        self.opens_thinking = self._render([{"role": "user", "content": "hi"}], (), True).rstrip().endswith(THINK)
        self.encoder.verify(self._probes())

    @property
    def supports_tools(self) -> bool:
        """Whether the template itself lists tools; else they are put into the system message."""
        return self.shape.tools

    def encode(self, messages: Sequence[Message], tools: Sequence[ToolSchema] = ()) -> list[int]:
        """The prompt for the next answer. It may be longer than the model's context: the decoder says so.

        Raises PolicyFailed where the template refuses the conversation in every form.
        """
        return self.encoder.encode(self._text(messages, tools, prompt=True))

    def encode_action(self, messages: Sequence[Message], tools: Sequence[ToolSchema], action: Message) -> list[int]:
        """The ids that say `action` behind `encode(messages, tools)`, the end of the turn included.

        As the template writes the turn; as the model would say it where the template drops or rewrites something.
        """
        turn = self._turn(messages, tools, action)
        ids = self.encoder.encode_text(turn[1] if turn is not None else self._written(action))
        return [*ids, self.encoder.ids[self._end]] if self._end else ids

    def decode(self, tokens: Sequence[int], tools: Sequence[ToolSchema] = ()) -> Message:
        """What the model said as a message of the assistant: reasoning, text, calls (without ids)."""
        said = [token for token in tokens if token not in self.end_tokens and self._is_text(token)]
        text = self._tokenizer.decode(said, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        reasoning, rest = split_reasoning(text, opened=self.opens_thinking)
        names = {wire_tool(tool)["function"]["name"] for tool in tools}
        content, calls = split_calls(rest, self.style, names) if tools else (rest, ())
        return Message("assistant", content or (None if calls else ""), reasoning, calls)

    def remember(
        self, messages: Sequence[Message], tools: Sequence[ToolSchema], action: Message, generated: Sequence[int]
    ) -> bool:
        """`generated` behind `encode(messages, tools)` was read as `action`.

        True: a later prompt that goes on from there starts with the same ids (an end token that is not the template's
        own aside). False where the template drops or rewrites something of the turn, and where the encoder is not
        exact: the turn is encoded from its text.
        """
        turn = self._turn(messages, tools, action)
        if turn is None:
            return False
        prompt_text, turn_text = turn
        said = list(generated[:-1] if generated and generated[-1] in self.end_tokens else generated)
        return self.encoder.remember(self.encoder.encode(prompt_text), prompt_text, turn_text, said)

    def _turn(
        self, messages: Sequence[Message], tools: Sequence[ToolSchema], action: Message
    ) -> tuple[str, str] | None:
        """(prompt, turn without its end) as rendered; None unless the whole action stands behind the prompt."""
        prompt = self._text(messages, tools, prompt=True)
        whole = self._text([*messages, action], tools, prompt=False)
        end = whole.find(self._end, len(prompt)) if self._end else -1
        if not whole.startswith(prompt) or end < 0:
            return None
        turn = whole[len(prompt) : end]
        parts = [action.reasoning or "", action.text, *(call.name for call in action.tool_calls)]
        return (prompt, turn) if all(self.encoder.guard(part).strip() in turn for part in parts) else None

    def _written(self, action: Message) -> str:
        """The turn as the model itself would say it."""
        guard = self.encoder.guard
        calls = [(guard(call.name), guard(call_to_dict(call)["function"]["arguments"])) for call in action.tool_calls]
        said = "\n".join(part for part in (guard(action.text), self.style.write(calls)) if part)
        thought = guard(action.reasoning or "")
        if self.opens_thinking:
            return f"{thought}\n{END_THINK}\n\n{said}"
        return f"{THINK}\n{thought}\n{END_THINK}\n\n{said}" if thought and THINK in self.encoder.ids else said

    def _text(self, messages: Sequence[Message], tools: Sequence[ToolSchema], *, prompt: bool) -> str:
        """The rendered conversation, control tokens in anybody's text guarded."""
        rows = self._guarded(wire_messages(messages, reasoning=True))
        listed = self._guarded([wire_tool(tool) for tool in tools])
        refusal = ""
        for shape in (self.shape, self.shape.plainest):
            try:
                return self._render(chat_shapes.fit(rows, listed, shape), listed if shape.tools else (), prompt)
            except ValueError as cause:
                refusal = str(cause)
        raise PolicyFailed(
            f"the chat template refuses this conversation: {refusal}",
            hint="most templates want a user's message first and at least one",
        )

    def _render(self, rows: Sequence[Row], tools: Sequence[Mapping[str, Any]], prompt: bool) -> str:
        """The template's text. Raises ValueError for whatever the template raises."""
        from jinja2 import TemplateError

        try:
            text = self._tokenizer.apply_chat_template(
                list(rows),
                tools=list(tools) or None,
                chat_template=self._template(bool(tools)),
                add_generation_prompt=prompt,
                tokenize=False,
            )
        except (TemplateError, TypeError, ValueError, KeyError, IndexError, AttributeError, RecursionError) as cause:
            raise ValueError(f"{type(cause).__name__}: {cause}") from cause
        return str(text)

    def _template(self, with_tools: bool) -> str:
        if with_tools not in self._templates:
            found = self._tokenizer.get_chat_template(None, [{}] if with_tools else None)
            self._templates[with_tools] = DATE + found if "strftime_now" in found else found
        return self._templates[with_tools]

    def _guarded(self, value: Any) -> Any:
        """Every text in a JSON value guarded."""
        if isinstance(value, str):
            return self.encoder.guard(value)
        if isinstance(value, Mapping):
            return {self._guarded(key): self._guarded(item) for key, item in value.items()}
        return [self._guarded(item) for item in value] if isinstance(value, (list, tuple)) else value

    def _end_of_turn(self) -> str:
        """The token that the template puts behind an answer; without one, the tokenizer's end of text."""
        rows = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": ANSWER}]
        behind = self._render(rows, (), False).partition(ANSWER)[2]
        return self.encoder.first_added(behind) or self._tokenizer.eos_token or ""

    def _end_tokens(self, loaded: LoadedModel) -> frozenset[int]:
        declared = getattr(loaded.model.generation_config, "eos_token_id", None)
        ids = [*(declared if isinstance(declared, (list, tuple)) else [declared]), self._tokenizer.eos_token_id]
        ids += [self.encoder.ids.get(text) for text in (self._end, *TURN_ENDS)]
        found = frozenset(int(index) for index in ids if index is not None)
        if not found:
            raise UsageError("no token ends an answer: neither the template nor the tokenizer has one")
        return found

    def _marks(self) -> tuple[str, ...]:
        return (self.style.marker, "[TOOL_CALLS]", "[ARGS]", self.style.closing.strip(), THINK, END_THINK)

    def _control_ids(self) -> frozenset[int]:
        return frozenset(index for index, token in self._tokenizer.added_tokens_decoder.items() if token.special)

    def _is_text(self, token: int) -> bool:
        return token not in self._special or token in self._kept

    def _probes(self) -> list[str]:
        """Rendered chats with what makes tokenizers differ: blanks at the seams, line ends, other alphabets, calls."""
        said = ("Hello  there.", " a", "\n\nx ", "", "é 漢字 🙂\t1234567890", 'if x:\n    y = {"a": [1, 2]}\n')
        rows = [Message(("user", "assistant")[place % 2], text) for place, text in enumerate(said)]
        return [self._text(rows[:count], (), prompt=count % 2 == 1) for count in range(1, len(rows) + 1)]
