"""Messages in every shape that the attributes of spans hold them in."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import pytest

from ttc_replay.storage.readers.message_shapes import items_of, with_system
from ttc_replay.storage.records import Message, ToolCall

IMAGE = base64.b64encode(b"\x89PNG" * 100).decode()
DIGEST = "sha256:" + hashlib.sha256(b"\x89PNG" * 100).hexdigest()
CALL = ToolCall("c1", "f", {"a": 1})
CALL_TEXT = ToolCall("c1", "f", {"a": 1}, '{"a": 1}')


def assistant(text: str | None = None, *calls: ToolCall, reasoning: str | None = None) -> Message:
    return Message("assistant", text, reasoning, calls)


def result(text: str = "r", failed: bool = False, name: str | None = None) -> Message:
    return Message("tool", text, tool_call_id="c1", name=name, is_error=failed)


OPENAI_CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
SHAPES: dict[str, tuple[Any, list[Message]]] = {
    "genai": (
        [
            {"role": "user", "parts": [{"type": "text", "content": "hi"}]},
            {
                "role": "assistant",
                "parts": [
                    {"type": "reasoning", "content": "hm"},
                    {"type": "text", "content": "ok"},
                    {"type": "tool_call", "id": "c1", "name": "f", "arguments": {"a": 1}},
                ],
            },
            {"role": "tool", "parts": [{"type": "tool_call_response", "id": "c1", "response": "r"}]},
        ],
        [Message("user", "hi"), assistant("ok", CALL, reasoning="hm"), result()],
    ),
    "genai results in one message": (
        [
            {
                "role": "user",
                "parts": [
                    {"type": "tool_call_response", "id": "c1", "result": {"x": 1}},
                    {"type": "text", "content": "so"},
                ],
            }
        ],
        [result('{"x": 1}'), Message("user", "so")],
    ),
    "genai data": (
        [
            {
                "role": "user",
                "parts": [
                    {"type": "blob", "modality": "image", "mime_type": "image/png", "content": IMAGE},
                    {"type": "uri", "modality": "image", "uri": "gs://bucket/x.png"},
                    {"type": "server_tool_call", "id": "s", "name": "search", "server_tool_call": {"type": "web"}},
                ],
            }
        ],
        [
            Message(
                "user",
                [
                    {"type": "image_url", "image_url": {"url": DIGEST, "media_type": "image/png"}},
                    {"type": "image_url", "image_url": {"url": "gs://bucket/x.png"}},
                    {"type": "server_tool_call", "id": "s", "name": "search", "server_tool_call": {"type": "web"}},
                ],
            )
        ],
    ),
    "openai chat": (
        [
            {"role": "developer", "content": "be brief"},
            {"role": "assistant", "content": None, "tool_calls": [OPENAI_CALL]},
            {"role": "tool", "tool_call_id": "c1", "content": "r"},
        ],
        [Message("developer", "be brief"), assistant(None, CALL_TEXT), result()],
    ),
    "responses": (
        {
            "instructions": "be brief",
            "input": [
                {"role": "user", "content": [{"type": "input_text", "text": "hi"}]},
                {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}], "encrypted_content": "x"},
                {"type": "reasoning", "summary": []},
                {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"a": 1}'},
                {"type": "function_call_output", "call_id": "c1", "output": "r"},
            ],
        },
        [
            Message("system", "be brief"),
            Message("user", "hi"),
            assistant(reasoning="hm"),
            assistant(None, CALL_TEXT),
            result(),
        ],
    ),
    "anthropic": (
        {
            "system": [{"type": "text", "text": "be brief"}],
            "messages": [
                {"role": "assistant", "content": [{"type": "tool_use", "id": "c1", "name": "f", "input": {"a": 1}}]},
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "tool_result",
                            "tool_use_id": "c1",
                            "content": [{"type": "text", "text": "r"}],
                            "is_error": True,
                        },
                        {"type": "text", "text": "go on"},
                    ],
                },
            ],
        },
        [Message("system", "be brief"), assistant(None, CALL), result(failed=True), Message("user", "go on")],
    ),
    "gemini": (
        {
            "config": {"system_instruction": "be brief"},
            "contents": [
                {"role": "user", "parts": [{"text": "hi"}]},
                {"role": "model", "parts": [{"function_call": {"id": "c1", "name": "f", "args": {"a": 1}}}]},
                {"role": "user", "parts": [{"function_response": {"id": "c1", "name": "f", "response": {"x": 1}}}]},
            ],
        },
        [Message("system", "be brief"), Message("user", "hi"), assistant(None, CALL), result('{"x": 1}', name="f")],
    ),
    "bedrock": (
        [
            {
                "role": "assistant",
                "content": [{"text": "ok"}, {"toolUse": {"toolUseId": "c1", "name": "f", "input": {"a": 1}}}],
            },
            {
                "role": "user",
                "content": [{"toolResult": {"toolUseId": "c1", "status": "error", "content": [{"text": "r"}]}}],
            },
            {"role": "assistant", "content": [{"reasoningContent": {"reasoningText": {"text": "hm"}}}]},
        ],
        [assistant("ok", CALL), result(failed=True), assistant(reasoning="hm")],
    ),
    "langchain": (
        [
            [
                {
                    "lc": 1,
                    "type": "constructor",
                    "id": ["x", "HumanMessage"],
                    "kwargs": {"content": "hi", "type": "human"},
                },
                {"type": "ai", "content": "", "tool_calls": [{"name": "f", "args": {"a": 1}, "id": "c1"}]},
                {"type": "tool", "content": "r", "tool_call_id": "c1", "status": "error"},
            ]
        ],
        [Message("user", "hi"), assistant("", CALL), result(failed=True)],
    ),
    "ai sdk": (
        [
            {"role": "user", "content": [{"type": "text", "text": "hi"}]},
            {
                "role": "assistant",
                "content": [{"type": "tool-call", "toolCallId": "c1", "toolName": "f", "args": {"a": 1}}],
            },
            {
                "role": "tool",
                "content": [
                    {
                        "type": "tool-result",
                        "toolCallId": "c1",
                        "toolName": "f",
                        "output": {"type": "error-text", "value": "r"},
                    }
                ],
            },
        ],
        [Message("user", "hi"), assistant(None, CALL), result(failed=True, name="f")],
    ),
    "pydantic-ai": (
        [
            {
                "kind": "request",
                "parts": [
                    {"part_kind": "system-prompt", "content": "be brief"},
                    {"part_kind": "user-prompt", "content": ["hi", {"kind": "image-url", "url": "file://x.png"}]},
                ],
            },
            {
                "kind": "response",
                "parts": [{"part_kind": "tool-call", "tool_name": "f", "args": {"a": 1}, "tool_call_id": "c1"}],
            },
            {
                "kind": "request",
                "parts": [{"part_kind": "tool-return", "tool_name": "f", "content": "r", "tool_call_id": "c1"}],
            },
        ],
        [
            Message("system", "be brief"),
            Message(
                "user",
                [{"type": "text", "text": "hi"}, {"type": "image_url", "image_url": {"url": "file://x.png"}}],
            ),
            assistant(None, CALL),
            result(name="f"),
        ],
    ),
    "openinference": (
        [
            {
                "message": {
                    "role": "user",
                    "contents": [
                        {"message_content": {"type": "text", "text": "see"}},
                        {
                            "message_content": {
                                "type": "image",
                                "image": {"image": {"url": f"data:image/png;base64,{IMAGE}"}},
                            }
                        },
                    ],
                }
            },
            {
                "message": {
                    "role": "model",
                    "tool_calls": [{"tool_call": {"id": "c1", "function": OPENAI_CALL["function"]}}],
                }
            },
            {"message": {"role": "assistant", "function_call_name": "g", "function_call_arguments_json": "{}"}},
        ],
        [
            Message("user", [{"type": "text", "text": "see"}, {"type": "image_url", "image_url": {"url": DIGEST}}]),
            assistant(None, CALL_TEXT),
            assistant(None, ToolCall(None, "g", {}, "{}")),
        ],
    ),
    "text": ("just text", [Message("user", "just text")]),
    "json text": ('{"messages": [{"role": "user", "content": "hi"}]}', [Message("user", "hi")]),
    "nothing": ([None, 1, {}, [[]], {"messages": None}], []),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_messages_of_every_shape(shape: str) -> None:
    value, expected = SHAPES[shape]
    assert with_system(items_of(value), value) == expected
