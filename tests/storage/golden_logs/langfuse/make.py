"""Make the logs of this folder (see README.md) along the schema of Langfuse's API, as its real exports have it.

usage: python make.py
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
Row = dict[str, Any]


def time(second: float) -> str:
    return f"2026-02-03T09:00:{second:06.3f}Z"


def row(trace: str, key: str, parent: str | None, kind: str, name: str, begun: float, ended: float, **more: Any) -> Row:
    about = {"id": key, "traceId": trace, "parentObservationId": parent, "type": kind, "name": name}
    level = {"level": more.pop("level", "DEFAULT"), "statusMessage": more.pop("status", None)}
    texts = {key: encoded(more.pop(key, None)) for key in ("input", "output", "metadata")}
    return {**about, "startTime": time(begun), "endTime": time(ended), **level, **texts, **more}


def encoded(value: Any) -> Any:
    """Langfuse gives objects back as JSON text."""
    return value if value is None or isinstance(value, str) else json.dumps(value)


def generation(trace: str, key: str, parent: str, begun: float, asked: Any, said: Any, **more: Any) -> Row:
    usage = {"input": 40, "input_cached_tokens": 60, "output": 8, "output_reasoning_tokens": 4, "total": 112}
    known = {"model": "gpt-5-mini", "modelParameters": {"temperature": "0.3", "seed": 11}, "usageDetails": usage}
    money = {"costDetails": {"input": 0.00002, "output": 0.00001, "total": 0.00003}, "totalCost": 0.00003}
    return row(
        trace,
        key,
        parent,
        "GENERATION",
        "chat",
        begun,
        begun + 1,
        input=asked,
        output=said,
        **{**known, **money, **more},
    )


def score(trace: str, name: str, value: Any, kind: str, observation: str | None = None, text: str | None = None) -> Row:
    about = {"id": f"score-{name}", "traceId": trace, "observationId": observation, "name": name, "source": "API"}
    return {**about, "value": value, "dataType": kind, "stringValue": text, "comment": f"on {name}"}


def called(*calls: tuple[str, str, Any]) -> list[Row]:
    return [
        {"id": key, "type": "function", "function": {"name": name, "arguments": json.dumps(given)}}
        for key, name, given in calls
    ]


def desk() -> Row:
    """An agent whose tool is an agent itself; one tool fails, one result comes back out of order, one never."""
    trace, tools = (
        "trace-desk",
        {"archive": json.dumps({"description": "Ask the archive.", "parameters": {"type": "object"}})},
    )
    asked: list[Any] = [
        {"role": "system", "content": "You man the desk."},
        {"role": "user", "content": "Deed 7 and map 3?"},
    ]
    first: Row = {"role": "assistant", "content": None, "reasoning_content": "Ask for both."}
    first["tool_calls"] = called(("c1", "archive", {"deed": 7}), ("c2", "map", {"number": 3}))
    results = [
        {"role": "tool", "tool_call_id": "c2", "content": "no such map"},
        {"role": "tool", "tool_call_id": "c1", "content": "Deed 7 lies in room 2."},
    ]
    last = {"role": "assistant", "content": "Room 2.", "tool_calls": called(("c3", "ring", {}), ("c4", "log", {}))}
    below: list[Any] = [{"role": "system", "content": "You know the archive."}, {"role": "user", "content": "Deed 7?"}]
    looked = {"role": "assistant", "content": "", "tool_calls": called(("c9", "index", {"deed": 7}))}
    answer = [{"role": "tool", "tool_call_id": "c9", "content": "room 2"}]
    observations = [
        generation(trace, "g2", "desk", 9, [*asked, first, *results], last, toolDefinitions=tools),
        row(trace, "desk", None, "AGENT", "desk", 0, 12, input={"question": "Deed 7 and map 3?"}),
        generation(trace, "g1", "desk", 1, json.dumps(json.dumps(asked)), first, toolDefinitions=tools),
        row(trace, "t1", "desk", "TOOL", "archive", 2, 8, input={"deed": 7}, output="Deed 7 lies in room 2."),
        row(trace, "a1", "t1", "AGENT", "archivist", 2.1, 7.9),
        generation(trace, "g3", "a1", 3, below, looked),
        row(trace, "t3", "a1", "TOOL", "index", 4, 5, input={"deed": 7}, output="room 2"),
        generation(trace, "g4", "a1", 6, [*below, looked, *answer], {"role": "assistant", "content": "Room 2."}),
        row(trace, "t2", "desk", "TOOL", "map", 2, 3, input={"number": 3}, level="ERROR", status="no such map"),
        row(trace, "t4", "desk", "TOOL", "ring", 11, 12, input={}, output={"rang": True}),
        row(trace, "e1", "desk", "EVENT", "bell", 11, 11),
    ]
    scores = [
        score(trace, "tone", None, "CATEGORICAL", text="kind"),
        score(trace, "helpful", 0.75, "NUMERIC"),
        score(trace, "found", 1, "BOOLEAN"),
        score(trace, "brief", 0.5, "NUMERIC", observation="g2"),
    ]
    about = {
        "name": "desk",
        "timestamp": time(0),
        "sessionId": "s1",
        "userId": None,
        "public": False,
        "bookmarked": False,
    }
    return {"id": trace, **about, "tags": ["demo"], "observations": observations, "scores": scores}


def reader_of_images() -> Row:
    """Anthropic blocks with thinking and an image; the first answer is asked for again; the last call fails."""
    trace = "trace-image"
    pixels = base64.b64encode(bytes(range(256)) * 12).decode()
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": pixels}}
    asked = {
        "system": "You describe.",
        "messages": [{"role": "user", "content": [image, {"type": "text", "text": "What is it?"}]}],
    }
    blocks = [{"type": "thinking", "thinking": "Noise?", "signature": "s"}, {"type": "text", "text": "A gradient."}]
    tool = [
        {"type": "text", "text": "Let me zoom."},
        {"type": "tool_use", "id": "z1", "name": "zoom", "input": {"by": 2}},
    ]
    zoomed = {
        "type": "tool_result",
        "tool_use_id": "z1",
        "content": [{"type": "text", "text": "grey"}],
        "is_error": True,
    }
    longer = {
        **asked,
        "messages": [*asked["messages"], {"role": "assistant", "content": tool}, {"role": "user", "content": [zoomed]}],
    }
    observations = [
        row(trace, "root", None, "SPAN", "describe", 20, 30),
        generation(trace, "h1", "root", 21, asked, {"role": "assistant", "content": blocks}),
        generation(trace, "h2", "root", 23, asked, {"role": "assistant", "content": tool}),
        generation(trace, "h3", "root", 25, longer, None, level="ERROR", status="overloaded"),
    ]
    about = {
        "id": trace,
        "name": "describe",
        "timestamp": time(20),
        "sessionId": None,
        "public": False,
        "bookmarked": False,
    }
    return {"trace": {**about, "scores": [], "observations": observations}, "observations": observations}


def without_calls() -> Row:
    """A trace that has no observations: what went in and what came out."""
    about = {
        "id": "trace-bare",
        "name": "bare",
        "timestamp": time(40),
        "sessionId": "s2",
        "public": False,
        "bookmarked": True,
    }
    return {**about, "input": json.dumps("Good day"), "output": "Good day to you", "scores": [], "observations": []}


def main() -> None:
    traces = [desk(), reader_of_images(), without_calls()]
    (HERE / "traces.jsonl").write_text("".join(json.dumps(trace) + "\n" for trace in traces))
    page = {"data": [desk(), without_calls()], "meta": {"page": 1, "limit": 50, "totalItems": 2, "totalPages": 1}}
    (HERE / "page.json").write_text(json.dumps(page, indent=1) + "\n")


if __name__ == "__main__":
    main()
