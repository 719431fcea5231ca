# mypy: disable-error-code="misc"
"""Make the logs of this folder (see README.md) with LiteLLM itself: mocked answers, no network. Ids are its own.

usage: python make.py
"""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
import litellm
from litellm.integrations.custom_logger import CustomLogger

HERE = Path(__file__).parent
MODEL, OTHER = "gpt-4o-mini", "gpt-4o"
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "Tell the weather in a city.",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
]


class Keeper(CustomLogger):
    """Keeps the payload of every call."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[dict[str, Any]] = []

    def log_success_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        self.rows.append(kwargs["standard_logging_object"])

    def log_failure_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        self.rows.append(kwargs["standard_logging_object"])


KEEPER = Keeper()


def ask(history: list[dict[str, Any]], answer: Any, model: str = MODEL, **options: Any) -> None:
    """One call whose answer is given; waits until it is logged."""
    before = len(KEEPER.rows)
    with suppress(litellm.exceptions.InternalServerError):
        litellm.completion(model=model, messages=history, mock_response=answer, **options)
    while len(KEEPER.rows) == before:
        time.sleep(0.02)


def says(text: str | None, *calls: tuple[str, str, str], **extra: Any) -> litellm.ModelResponse:
    made = [
        {"id": key, "type": "function", "function": {"name": name, "arguments": given}} for key, name, given in calls
    ]
    message = {"role": "assistant", "content": text, "tool_calls": made or None, **extra}
    usage = litellm.Usage(
        prompt_tokens=80, completion_tokens=12, total_tokens=92, prompt_tokens_details={"cached_tokens": 64}
    )
    return litellm.ModelResponse(
        choices=[{"index": 0, "finish_reason": "stop", "message": message}], model=MODEL, usage=usage
    )


def with_session() -> None:
    """An agent that names its session; the second request fails at first and falls back to another model."""
    options: dict[str, Any] = {"tools": TOOLS, "temperature": 0.1, "seed": 3, "metadata": {"session_id": "trip-1"}}
    history: list[dict[str, Any]] = [
        {"role": "system", "content": "You are a travel clerk."},
        {"role": "user", "content": "Bern and Basel?"},
    ]
    calls = [("call-1", "weather", '{"city": "Bern"}'), ("call-2", "weather", '{"city": "Basel"}')]
    ask(history, says(None, *calls, reasoning_content="Two cities, two calls."), **options)
    made = [
        {"id": key, "type": "function", "function": {"name": name, "arguments": given}} for key, name, given in calls
    ]
    history = [
        *history,
        {"role": "assistant", "content": None, "tool_calls": made},
        {"role": "tool", "tool_call_id": "call-2", "content": "Basel: rain"},
        {"role": "tool", "tool_call_id": "call-1", "content": "Bern: sun"},
    ]
    ask(history, Exception("the provider is down"), **options)
    ask(history, says("Sun in Bern, rain in Basel."), model=OTHER, **options)


def without_ids() -> None:
    """A chat whose caller names nothing: every request has a trace id of its own."""
    history: list[dict[str, Any]] = [{"role": "user", "content": "Name a river."}]
    ask(history, "The Aare.", temperature=1)
    history = [*history, {"role": "assistant", "content": "The Aare."}, {"role": "user", "content": "And a lake?"}]
    ask(history, "Lake Thun.", temperature=1)


def redacted() -> None:
    """Two requests of one session, logged without what was said."""
    litellm.turn_off_message_logging = True
    for said in ("What is my balance?", "Thank you."):
        ask([{"role": "user", "content": said}], "You have 12 francs.", metadata={"session_id": "bank-1"})
    litellm.turn_off_message_logging = False


def written(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """As a callback writes them, without this machine's paths and the long price list of the model."""
    kept: list[dict[str, Any]] = json.loads(json.dumps(rows, default=str))
    for row in kept:
        row["model_map_information"] = {"model_map_key": row["model_map_information"]["model_map_key"]}
        if row.get("error_information"):
            row["error_information"]["traceback"] = ""
        row["metadata"]["user_api_key_hash"] = "88dc28d0f030c55ed4ab77ed8faf098196cb1c05df778539800c9f1243fe6b4b"
        row["requester_ip_address"] = row["metadata"]["requester_ip_address"] = "192.0.2.7"
    return kept


def main() -> None:
    litellm.suppress_debug_info = True
    litellm.callbacks = [KEEPER]
    with_session()
    without_ids()
    rows = written(KEEPER.rows)
    mixed = [rows[0], rows[3], rows[1], rows[2], rows[4], rows[4]]  # runs interleave; the last was logged twice
    (HERE / "calls.jsonl").write_text("".join(json.dumps(row) + "\n" for row in mixed))
    KEEPER.rows.clear()
    redacted()
    (HERE / "redacted.json").write_text(json.dumps(written(KEEPER.rows), indent=1) + "\n")


if __name__ == "__main__":
    main()
