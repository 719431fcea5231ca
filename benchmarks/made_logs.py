"""Made-up logs for the ingest benchmarks: seeded, as large as wanted, with the sizes of real ones.

`support`: the shape of the recorded tau-bench airline runs: a system prompt of 5 kB that all runs share, 30 messages of
about 600 bytes, every second action a call. `coding`: the shape of SWE-agent runs: 40 messages, observations of 1 to
8 kB. Words come from a vocabulary of 6,000 by Zipf's law, with numbers and ids, so that zstd makes a quarter.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Json = dict[str, Any]
_LETTERS = "etaoinshrdlucmfwypvbgk"


class Writer:
    """Text of one seed."""

    def __init__(self, seed: int):
        self.random = random.Random(seed)
        vocabulary = random.Random(7)
        self.words = ["".join(vocabulary.choices(_LETTERS, k=vocabulary.randint(2, 10))) for _ in range(6000)]
        self.weights = [1 / (rank + 3) for rank in range(len(self.words))]
        self.cumulative = list(_sums(self.weights))

    def text(self, size: int) -> str:
        """About so many characters."""
        words = self.random.choices(self.words, cum_weights=self.cumulative, k=max(1, size // 7))
        for _ in range(len(words) // 9):
            words[self.random.randrange(len(words))] = f"{self.random.randrange(10**6)}"
        return " ".join(words)


def _sums(weights: list[float]) -> Iterator[float]:
    total = 0.0
    for weight in weights:
        total += weight
        yield total


def support_run(writer: Writer, system: str, number: int) -> Json:
    """One customer-service run of about 18 kB."""
    messages: list[Json] = [{"role": "system", "content": system}, {"role": "user", "content": writer.text(300)}]
    for turn in range(14):
        if turn % 2 == 0:
            arguments = json.dumps({"id": f"{writer.random.randrange(10**6):06d}", "note": writer.text(60)})
            call = {"id": f"call_{number}_{turn}", "type": "function"}
            call["function"] = {"name": f"get_reservation_{turn % 5}", "arguments": arguments}  # type: ignore[assignment]
            messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
            answer = json.dumps({"status": "ok", "rows": [writer.text(120) for _ in range(8)]})
            messages.append({"role": "tool", "tool_call_id": call["id"], "name": "get", "content": answer})
        else:
            messages.append({"role": "assistant", "content": writer.text(400)})
            messages.append({"role": "user", "content": writer.text(250)})
    return {
        "messages": messages,
        "reward": number % 2,
        "task_id": str(number % 50),
        "trial": number // 50,
        "id": f"run-{number}",
    }


def coding_run(writer: Writer, system: str, number: int) -> Json:
    """One software-engineering run of about 90 kB."""
    messages: list[Json] = [
        {"role": "system", "content": system[:3000]},
        {"role": "user", "content": writer.text(2500)},
    ]
    for turn in range(19):
        arguments = json.dumps({"command": writer.text(200)})
        call = {"id": f"call_{number}_{turn}", "type": "function", "function": {"name": "bash", "arguments": arguments}}
        messages.append({"role": "assistant", "content": writer.text(500), "tool_calls": [call]})
        shown = "\n".join(writer.text(70) for _ in range(writer.random.randint(15, 110)))
        messages.append({"role": "tool", "tool_call_id": call["id"], "content": shown})
    return {"messages": messages, "resolved": number % 3 == 0, "instance_id": f"repo__issue-{number}"}


MAKERS = {"support": support_run, "coding": coding_run}


def write_chat(path: Path, profile: str, megabytes: float) -> int:
    """Write openai-chat JSON lines; the number of runs."""
    writer, count, size = Writer(1), 0, 0
    system = Writer(2).text(5000)
    with path.open("w", encoding="utf-8") as file:
        while size < megabytes * 10**6:
            line = json.dumps(MAKERS[profile](writer, system, count))
            file.write(line + "\n")
            size += len(line) + 1
            count += 1
    return count


def otlp_line(run: Json, number: int) -> str:
    """The run as one OTLP export: a span for each model call, each with the whole history before it, as OTel has it."""
    spans: list[Json] = []
    history: list[Json] = []
    trace = f"{number:032x}"
    for message in run["messages"]:
        if message["role"] == "assistant":
            output = [{**_parts(message), "finish_reason": "stop"}]
            values = {
                "gen_ai.operation.name": "chat",
                "gen_ai.provider.name": "openai",
                "gen_ai.request.model": "m-1",
                "gen_ai.input.messages": json.dumps(history),
                "gen_ai.output.messages": json.dumps(output),
            }
            spans.append(_span(trace, len(spans), values))
        history.append(_parts(message))
    scope = {"scope": {"name": "made"}, "spans": spans}
    return json.dumps({"resourceSpans": [{"resource": {"attributes": []}, "scopeSpans": [scope]}]})


def _span(trace: str, number: int, values: Json) -> Json:
    start = 1_700_000_000_000_000_000 + number * 10**9
    return {
        "traceId": trace,
        "spanId": f"{number + 1:016x}",
        "name": "chat m-1",
        "kind": 3,
        "startTimeUnixNano": str(start),
        "endTimeUnixNano": str(start + 5 * 10**8),
        "attributes": [{"key": key, "value": {"stringValue": value}} for key, value in values.items()],
    }


def _parts(message: Json) -> Json:
    parts: list[Json] = []
    if message["role"] == "tool":
        parts.append({"type": "tool_call_response", "id": message["tool_call_id"], "response": message["content"]})
    elif message.get("content"):
        parts.append({"type": "text", "content": message["content"]})
    for call in message.get("tool_calls") or ():
        function = call["function"]
        arguments = json.loads(function["arguments"])
        parts.append({"type": "tool_call", "id": call["id"], "name": function["name"], "arguments": arguments})
    return {"role": message["role"], "parts": parts}


def write_otlp(path: Path, profile: str, megabytes: float) -> int:
    """Write OTLP JSON lines, one trace a line; the number of runs."""
    writer, count, size = Writer(1), 0, 0
    system = Writer(2).text(5000)
    with path.open("w", encoding="utf-8") as file:
        while size < megabytes * 10**6:
            line = otlp_line(MAKERS[profile](writer, system, count), count + 1)
            file.write(line + "\n")
            size += len(line) + 1
            count += 1
    return count
