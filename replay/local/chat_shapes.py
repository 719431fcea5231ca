"""What a chat template understands, found out by asking it, and conversations rewritten so that it understands them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from ...storage.canonical import canonical_json
from ...storage.codec import parse_arguments
from ...storage.records import Message
from .chat_styles import HERMES, CallStyle, detect

Row: TypeAlias = dict[str, Any]
Render: TypeAlias = Callable[..., str]
"""`render(rows, tools, prompt)`: the text of a conversation; raises ValueError where the template refuses it."""

NAME, KEY, RESULT, LATE, SYSTEM, USER, ANSWER = (
    "zqname", "zqkey", "zqresult", "zqlate", "zqsystem", "zquser", "zqanswer",
)  # fmt: skip
PROBE_ARGUMENTS = '{"zqkey":   5}'
"""Spaced as no template would: it shows whether the text is passed on as it is."""

PROBE_TOOL: Row = {
    "type": "function",
    "function": {
        "name": NAME,
        "description": "A probe.",
        "parameters": {"type": "object", "properties": {KEY: {"type": "integer", "description": "A key."}}},
    },
}
INSTRUCTIONS = """\
You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
{tools}
</tools>

For each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:
<tool_call>
{{"name": <function-name>, "arguments": <args-json-object>}}
</tool_call>"""


@dataclass(frozen=True, slots=True)
class Shape:
    """What of a conversation a template shows. All False is the plainest: user and assistant turns that alternate.

    `tools`: it lists tools and writes calls in `style`; `calls`: those of this conversation too. `text_arguments`:
    arguments as JSON text, passed on unchanged. `late_system`: system messages after the first. `repeats`: two turns of
    one role in a row.
    """

    style: CallStyle = HERMES
    tools: bool = False
    calls: bool = False
    text_arguments: bool = False
    tool_role: bool = False
    system: bool = False
    late_system: bool = False
    repeats: bool = False

    @property
    def plainest(self) -> Shape:
        """Tools are still listed by the template; everything else is rewritten, calls as text in the same style."""
        return replace(self, calls=False, tool_role=False, system=False, late_system=False, repeats=False)


def probe(render: Render) -> Shape:
    """Ask a template what it understands: words that come out again were understood."""
    system, user = _row("system", SYSTEM), _row("user", USER)

    def shows(*rows: Row) -> bool:
        return all(_shown(row) in _try(render, rows) for row in rows)

    style = _style(render, user)
    call = _call_row(PROBE_ARGUMENTS)
    result: Row = {"role": "tool", "name": NAME, "tool_call_id": "zqcall001", "content": RESULT}
    return Shape(
        style=style or HERMES,
        tools=style is not None,
        calls=style is not None,
        text_arguments=PROBE_ARGUMENTS in _try(render, [user, call]),
        tool_role=style is not None and RESULT in _try(render, [user, _call_row({KEY: 5}), result]),
        system=shows(system, user),
        late_system=shows(system, user, _row("assistant", ANSWER), _row("system", LATE)),
        repeats=shows(user, _row("user", LATE)),
    )


def fit(rows: Sequence[Row], tools: Sequence[Mapping[str, Any]], shape: Shape) -> list[Row]:
    """The conversation as the template understands it; what it holds is kept, in order."""
    done = [_spoken(row, shape) for row in rows]
    if tools and not shape.tools:
        count = _leading_systems(done)
        done.insert(count, _row("system", hermes_instructions(tools)))
    done = _systems(done, shape)
    done = _merged(done, _both_responses, "\n")
    if not shape.repeats:
        done = _merged(done, _same_role, "\n\n")
    return [{key: value for key, value in row.items() if key != "response"} for row in done]


def hermes_instructions(tools: Sequence[Mapping[str, Any]]) -> str:
    """What a template without tools is told in the system message: the tools, and how to call one."""
    return INSTRUCTIONS.format(tools="\n".join(json.dumps(tool, ensure_ascii=False, default=dict) for tool in tools))


def _style(render: Render, user: Row) -> CallStyle | None:
    """The style of calls where the template both lists tools and writes calls in a known one."""
    if NAME not in _try(render, [user], [PROBE_TOOL]):
        return None
    turn = _try(render, [user, _call_row({KEY: 5})], [PROBE_TOOL])
    alone = _try(render, [user], [PROBE_TOOL])
    return detect(turn.removeprefix(alone), NAME)


def _try(render: Render, rows: Sequence[Row], tools: Sequence[Row] = ()) -> str:
    try:
        return render(rows, tools, False)
    except ValueError:
        return ""


def _row(role: str, content: str) -> Row:
    return {"role": role, "content": content}


def _call_row(arguments: Any) -> Row:
    call = {"id": "zqcall001", "type": "function", "function": {"name": NAME, "arguments": arguments}}
    return {"role": "assistant", "content": "", "tool_calls": [call]}


def _shown(row: Row) -> str:
    return str(row["content"])


def _both_responses(one: Row, other: Row) -> bool:
    return "response" in one and "response" in other


def _same_role(one: Row, other: Row) -> bool:
    return bool(one["role"] == other["role"] != "tool")


def _leading_systems(rows: Sequence[Row]) -> int:
    return next((place for place, row in enumerate(rows) if row["role"] != "system"), len(rows))


def _spoken(row: Row, shape: Shape) -> Row:
    """One message in keys that templates know; calls and results become text where the template has no room."""
    role = {"developer": "system", "function": "tool"}.get(row["role"], row["role"])
    done: Row = {"role": role, "content": _text(row.get("content"))}
    if row.get("reasoning_content"):
        done["reasoning_content"] = row["reasoning_content"]
    if row.get("tool_calls"):
        _with_calls(done, row["tool_calls"], shape)
    if role == "tool" and not shape.tool_role:
        text = f"<tool_response>\n{done['content']}\n</tool_response>"
        return {"role": "user", "content": text, "response": True}
    if role == "tool":
        done.update({key: row[key] for key in ("name", "tool_call_id") if row.get(key) is not None})
        done["tool_call_id"] = _identity(done.get("tool_call_id", ""), shape)
    return done


def _text(content: Any) -> str:
    """The text of a content; pictures and sounds are left out: the model cannot take them."""
    return Message("", content).text


def _with_calls(done: Row, calls: Sequence[Row], shape: Shape) -> None:
    if not shape.calls:
        written = [(call["function"]["name"], call["function"]["arguments"]) for call in calls]
        done["content"] = "\n".join(part for part in (done["content"], shape.style.write(written)) if part)
        return
    done["tool_calls"] = [
        {
            "id": _identity(call["id"], shape),
            "type": "function",
            "function": {"name": call["function"]["name"], "arguments": _arguments(call, shape)},
        }
        for call in calls
    ]


def _arguments(call: Row, shape: Shape) -> Any:
    raw = call["function"]["arguments"]
    return raw if shape.text_arguments else parse_arguments(raw) or {}


def _identity(given: str, shape: Shape) -> str:
    """Mistral's templates insist on nine letters and digits."""
    if not shape.style.name.startswith("mistral"):
        return given
    return hashlib.sha256(canonical_json(given).encode()).hexdigest()[:9]


def _systems(rows: Sequence[Row], shape: Shape) -> list[Row]:
    """One system message in front at most; later ones become user turns where the template has no room for them."""
    count = _leading_systems(rows)
    text = "\n\n".join(row["content"] for row in rows[:count] if row["content"])
    rest = [
        {**row, "role": "user"} if row["role"] == "system" and not shape.late_system else row for row in rows[count:]
    ]
    if not text:
        return rest
    if shape.system:
        return [_row("system", text), *rest]
    if rest and rest[0]["role"] == "user":
        return [{**rest[0], "content": f"{text}\n\n{rest[0]['content']}"}, *rest[1:]]
    return [_row("user", text), *rest]


def _merged(rows: Sequence[Row], together: Callable[[Row, Row], bool], joint: str) -> list[Row]:
    """Neighbours that belong together as one turn."""
    done: list[Row] = []
    for row in rows:
        if not done or not together(done[-1], row):
            done.append(dict(row))
            continue
        last = done[-1]
        last["content"] = joint.join(part for part in (last["content"], row["content"]) if part)
        if "tool_calls" in row:
            last["tool_calls"] = [*last.get("tool_calls", ()), *row["tool_calls"]]
    return done
