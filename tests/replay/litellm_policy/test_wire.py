"""Messages and seeds as strict servers want them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ttc_replay.replay.policies.wire import fold_seed, wire_messages
from ttc_replay.storage.records import Message, ToolCall


def test_messages_for_strict_servers() -> None:
    rows = wire_messages(
        [
            Message("user", None),
            Message("assistant", None, "thought", (ToolCall(None, "a", {"x": 1}), ToolCall(None, "b", None, "{oops"))),
            Message("tool", "1"),
            Message("user", "mine", tool_calls=(ToolCall("u", "phone", {}),), requestor="user"),
            Message("tool", "ring", tool_call_id="u", requestor="user"),
            Message("assistant", None),
            Message("assistant", "x", tool_calls=(ToolCall("k", "c", {}, ""),)),
            Message("function", "done", tool_call_id="k", name="c"),
            Message("user", "bad \ud800 text"),
        ],
        reasoning=False,
    )
    assert rows == [
        {"role": "user", "content": ""},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"type": "function", "function": {"name": "a", "arguments": '{"x":1}'}, "id": "call_1_0"},
                {"type": "function", "function": {"name": "b", "arguments": '{"invalid":"{oops"}'}, "id": "call_1_1"},
            ],
        },
        {"role": "tool", "content": "1", "tool_call_id": "call_1_0"},
        {"role": "tool", "tool_call_id": "call_1_1", "content": "Error: not executed"},
        {"role": "assistant", "content": ""},
        {
            "role": "assistant",
            "content": "x",
            "tool_calls": [{"id": "k", "type": "function", "function": {"name": "c", "arguments": "{}"}}],
        },
        {"role": "tool", "content": "done", "tool_call_id": "k", "name": "c"},
        {"role": "user", "content": rows[-1]["content"]},
    ]
    rows[-1]["content"].encode("utf-8")
    assert rows[-1]["content"].startswith("bad ")


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), max_size=6))
def test_every_call_on_the_wire_is_answered_once(turns: list[tuple[int, int]]) -> None:
    messages = [Message("user", "go")]
    for calls, results in turns:
        messages.append(Message("assistant", "", tool_calls=tuple(ToolCall(None, "f", {}) for _ in range(calls))))
        messages += [Message("tool", "r")] * min(calls, results)
    rows = wire_messages(messages, reasoning=False)
    asked = [call["id"] for row in rows for call in row.get("tool_calls", ())]
    answered = [row["tool_call_id"] for row in rows if row["role"] == "tool"]
    assert asked == answered
    assert len(set(asked)) == len(asked)


@given(st.integers(0, (1 << 63) - 1))
def test_seeds_fit_every_server(seed: int) -> None:
    assert 0 <= fold_seed(seed) < 1 << 31
    assert fold_seed(seed) != fold_seed(seed ^ 1)
