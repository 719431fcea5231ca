"""Messages and tools in the shapes of every framework, and blocks of every provider."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import pytest

from ttc_replay.storage.readers.encoded import opened
from ttc_replay.storage.readers.message_shapes import messages_of, system_of
from ttc_replay.storage.readers.tool_shapes import tools_of
from ttc_replay.storage.records import Message, ToolCall

ARGS = {"city": "Bern"}
RAW = '{"city": "Bern"}'
CALL = Message("assistant", tool_calls=(ToolCall("c1", "weather", ARGS, RAW),))
PARSED = Message("assistant", tool_calls=(ToolCall("c1", "weather", ARGS),))
SUN = Message("tool", "sun", tool_call_id="c1")
OPENAI = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": RAW}}
PIXELS = base64.b64encode(b"pixels" * 600).decode()
URL = {"url": "sha256:" + hashlib.sha256(b"pixels" * 600).hexdigest()}
SEEN = {"type": "image_url", "image_url": URL}


def lc(class_name: str, /, **fields: Any) -> dict[str, Any]:
    return {"lc": 1, "type": "constructor", "id": ["langchain", "schema", "messages", class_name], "kwargs": fields}


SHAPES: dict[str, tuple[Any, list[Message]]] = {
    "openai": ([{"role": "assistant", "content": None, "tool_calls": [OPENAI]}], [CALL]),
    "openai result": ([{"role": "tool", "tool_call_id": "c1", "content": "sun"}], [SUN]),
    "openai legacy": (
        {"role": "assistant", "content": "", "function_call": {"name": "weather", "arguments": RAW}},
        [Message("assistant", "", tool_calls=(ToolCall(None, "weather", ARGS, RAW),))],
    ),
    "choices": (
        {"choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}}]},
        [Message("assistant", "hi")],
    ),
    "responses": (
        [
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]},
            {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": RAW, "id": "fc"},
            {"type": "function_call_output", "call_id": "c1", "output": "sun", "id": "o"},
            {
                "type": "message",
                "role": "assistant",
                "content": [{"type": "output_text", "text": "hi", "annotations": []}],
            },
        ],
        [Message("assistant", None, "hm", CALL.tool_calls), SUN, Message("assistant", "hi")],
    ),
    "anthropic": (
        [
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "hm", "signature": "s"},
                    {"type": "text", "text": "hi"},
                    {"type": "tool_use", "id": "c1", "name": "weather", "input": ARGS},
                ],
            },
            {
                "role": "user",
                "content": [
                    {
                        "type": "tool_result",
                        "tool_use_id": "c1",
                        "content": [{"type": "text", "text": "no"}],
                        "is_error": True,
                    },
                    {"type": "tool_result", "tool_use_id": "c2", "content": "sun"},
                    {"type": "text", "text": "go on"},
                ],
            },
        ],
        [
            Message("assistant", "hi", "hm", PARSED.tool_calls),
            Message("tool", "no", tool_call_id="c1", is_error=True),
            Message("tool", "sun", tool_call_id="c2"),
            Message("user", "go on"),
        ],
    ),
    "gemini": (
        {
            "contents": [
                {"role": "user", "parts": [{"text": "hi"}]},
                {
                    "role": "model",
                    "parts": [{"text": "hm", "thought": True}, {"function_call": {"name": "weather", "args": ARGS}}],
                },
                {"role": "user", "parts": [{"functionResponse": {"name": "weather", "response": {"is": "sun"}}}]},
            ]
        },
        [
            Message("user", "hi"),
            Message("assistant", None, "hm", (ToolCall(None, "weather", ARGS),)),
            Message("tool", '{"is": "sun"}', name="weather"),
        ],
    ),
    "gemini answer": (
        {"content": {"role": "model", "parts": [{"text": "hi"}]}, "finish_reason": "STOP"},
        [Message("assistant", "hi")],
    ),
    "gemini image": (
        [{"role": "user", "parts": [{"inline_data": {"mime_type": "image/png", "data": PIXELS}}]}],
        [Message("user", [{"type": "image_url", "image_url": {**URL, "media_type": "image/png"}}])],
    ),
    "ai sdk calls": ([{"toolCallId": "c1", "toolName": "weather", "input": RAW}], [CALL]),
    "ai sdk parts": (
        [
            {
                "role": "assistant",
                "content": [{"type": "tool-call", "toolCallId": "c1", "toolName": "weather", "args": ARGS}],
            },
            {
                "role": "tool",
                "content": [
                    {
                        "type": "tool-result",
                        "toolCallId": "c1",
                        "toolName": "weather",
                        "output": {"type": "text", "value": "sun"},
                    }
                ],
            },
        ],
        [PARSED, Message("tool", "sun", tool_call_id="c1", name="weather")],
    ),
    "genai parts": (
        [
            {"role": "assistant", "parts": [{"type": "tool_call", "id": "c1", "name": "weather", "arguments": ARGS}]},
            {"role": "user", "parts": [{"type": "tool_call_response", "id": "c1", "result": "sun"}]},
            {"role": "assistant", "parts": [{"type": "text", "content": "hi"}], "finish_reason": "stop"},
        ],
        [PARSED, SUN, Message("assistant", "hi")],
    ),
    "pydantic-ai": (
        [
            {
                "kind": "request",
                "parts": [
                    {"part_kind": "system-prompt", "content": "be good"},
                    {"part_kind": "user-prompt", "content": "hi"},
                ],
            },
            {
                "kind": "response",
                "parts": [{"part_kind": "tool-call", "tool_name": "weather", "args": RAW, "tool_call_id": "c1"}],
            },
            {
                "kind": "request",
                "parts": [{"part_kind": "tool-return", "tool_name": "weather", "content": "sun", "tool_call_id": "c1"}],
            },
        ],
        [
            Message("system", "be good"),
            Message("user", "hi"),
            CALL,
            Message("tool", "sun", tool_call_id="c1", name="weather"),
        ],
    ),
    "otel events": (
        [{"event.name": "gen_ai.choice", "index": 0, "message": {"role": "assistant", "content": "hi"}}],
        [Message("assistant", "hi")],
    ),
    "calls as content, of any role": ([{"role": "tool", "content": json.dumps([OPENAI])}], [CALL]),
    "a tool's name as role": ([{"role": "weather", "content": "sun"}], [Message("tool", "sun", name="weather")]),
    "langchain constructor": (
        [
            [
                lc("HumanMessage", content="hi"),
                lc(
                    "AIMessage",
                    content="",
                    tool_calls=[{"name": "weather", "args": ARGS, "id": "c1", "type": "tool_call"}],
                ),
                lc("ToolMessage", content="no", tool_call_id="c1", status="error", name="weather"),
            ]
        ],
        [
            Message("user", "hi"),
            Message("assistant", "", tool_calls=PARSED.tool_calls),
            Message("tool", "no", tool_call_id="c1", name="weather", is_error=True),
        ],
    ),
    "langchain dump": (
        [
            {
                "type": "ai",
                "content": [{"type": "text", "text": "hi"}],
                "additional_kwargs": {"reasoning_content": "hm"},
            },
            {"type": "human", "data": {"content": "bye"}},
            {"type": "remove", "content": "", "id": "x"},
            {
                "type": "AIMessageChunk",
                "content": "",
                "invalid_tool_calls": [{"name": "weather", "args": "{", "id": "c1"}],
            },
        ],
        [
            Message("assistant", "hi", "hm"),
            Message("user", "bye"),
            Message("assistant", "", tool_calls=(ToolCall("c1", "weather", None, "{"),)),
        ],
    ),
    "langchain generations": (
        {"generations": [[{"text": "hi", "type": "ChatGeneration", "message": lc("AIMessage", content="hi")}]]},
        [Message("assistant", "hi")],
    ),
    "image data": (
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64," + PIXELS}}]}],
        [Message("user", [SEEN])],
    ),
    "image url": (
        [
            {
                "role": "user",
                "content": [{"type": "input_image", "image_url": "file:a.png"}, {"type": "text", "text": "?"}],
            }
        ],
        [Message("user", [{"type": "image_url", "image_url": {"url": "file:a.png"}}, {"type": "text", "text": "?"}])],
    ),
    "prompt": ({"prompt": "hi", "system": "be good"}, [Message("user", "hi")]),
    "transcript": (
        "system: be good\nuser: a\nb\nassistant: None",
        [Message("system", "be good"), Message("user", "a\nb"), Message("assistant")],
    ),
    "text": ("hi", [Message("user", "hi")]),
    "nothing": (None, []),
    "no messages": ([1, None, "x", ["y"]], []),
}


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("times", [0, 1, 2])
def test_every_shape_however_often_it_was_encoded(name: str, times: int) -> None:
    value, expected = SHAPES[name]
    for _ in range(times if not isinstance(value, str) else 0):
        value = json.dumps(value)
    assert list(messages_of(value)) == expected


def test_two_answers_of_a_chat_stay_two_and_pieces_of_one_become_one() -> None:
    said = {"role": "assistant", "content": "one"}
    assert [message.content for message in messages_of([said, {**said, "tool_calls": [OPENAI]}])] == ["one", "one"]
    piece = {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": RAW}
    assert messages_of([said, piece, piece]) == (Message("assistant", "one", tool_calls=CALL.tool_calls * 2),)


def test_an_answer_that_is_json_stays_text() -> None:
    for answer in ('{"quality": "good"}', "[1, 2]", '{"a": ', "7"):
        assert messages_of(answer, "assistant") == (Message("assistant", answer),)
    assert messages_of(json.dumps("quoted"), "assistant") == (Message("assistant", "quoted"),)


def test_encoding_without_end_and_nesting_without_end_are_left_alone() -> None:
    value: Any = "x"
    for _ in range(9):
        value = json.dumps(value)
    assert isinstance(opened(value), str)
    deep: Any = {"role": "user", "content": "hi"}
    for _ in range(50):
        deep = {"messages": deep}
    assert messages_of(deep) == ()


SCHEMA = {"type": "object", "properties": {}}
TOOL = {"type": "function", "function": {"name": "weather", "description": "Tell.", "parameters": SCHEMA}}
TOOLS: dict[str, Any] = {
    "openai": [TOOL],
    "responses": [
        {"type": "function", "name": "weather", "description": "Tell.", "parameters": SCHEMA, "strict": True}
    ],
    "anthropic": [{"name": "weather", "description": "Tell.", "input_schema": SCHEMA}],
    "gemini": [{"function_declarations": [{"name": "weather", "description": "Tell.", "parameters": SCHEMA}]}],
    "ai sdk": [json.dumps({"type": "function", "name": "weather", "description": "Tell.", "inputSchema": SCHEMA})],
    "pydantic-ai": [{"name": "weather", "description": "Tell.", "parameters_json_schema": SCHEMA, "kind": "function"}],
    "by name": {"weather": json.dumps({"description": "Tell.", "parameters": SCHEMA})},
}


@pytest.mark.parametrize("name", TOOLS)
def test_tools_in_every_shape(name: str) -> None:
    assert tools_of(TOOLS[name]) == (TOOL,)
    assert tools_of(json.dumps(TOOLS[name])) == (TOOL,)


@pytest.mark.parametrize("value", [None, [], {}, "x", [1], [{"function": {}}], [{"name": 5}]])
def test_what_is_no_tool_is_none(value: Any) -> None:
    assert tools_of(value) is None


@pytest.mark.parametrize(
    "value",
    [
        {"system": "be good"},
        {"instructions": "be good"},
        {"config": {"system_instruction": "be good"}},
        {"config": {"systemInstruction": {"parts": [{"text": "be good"}]}}},
        {"system": [{"type": "text", "text": "be good"}]},
    ],
)
def test_system_prompts_beside_the_messages(value: Any) -> None:
    assert system_of(json.dumps(value)) == "be good"
    assert system_of(dict.fromkeys(value)) is None
