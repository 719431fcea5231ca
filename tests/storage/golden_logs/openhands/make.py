"""Write the v1 golden logs beside this file with openhands-sdk 1.58.2 itself: a scripted model, its tools, no network.

    pip install openhands-sdk==1.58.2        # Python 3.12, in an environment of its own
    python make.py

`events/` is what the SDK persisted, one file an event; `v1-events.json` is the same as one list; `v1-output.jsonl` is
the line that the project's benchmarks write of such a run. Event ids and times are made fixed afterwards.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
TOOLS = ("think", "finish")


def scripted(sdk: Any) -> list[Any]:
    """The model's answers: two calls at once, one that no tool takes, one that ends the run."""

    def answer(text: str, *calls: tuple[str, str, str], **more: Any) -> Any:
        made = [
            sdk.MessageToolCall(id=identity, name=name, arguments=arguments, origin="completion")
            for identity, name, arguments in calls
        ]
        return sdk.Message(role="assistant", content=[sdk.TextContent(text=text)], tool_calls=made or None, **more)

    return [
        answer(
            "Let me think twice.",
            ("call_1", "think", '{"thought": "greet() returns nothing"}'),
            ("call_2", "think", '{"thought": "it must return the greeting"}'),
            reasoning_content="Both thoughts are independent.",
        ),
        answer("", ("call_3", "terminal", '{"command": "ls"}')),
        answer("", ("call_4", "think", '{"idea": "wrong argument"}')),
        answer("There is no such tool. May I stop here?"),
        answer("", ("call_5", "finish", '{"message": "greet() needs a return."}')),
    ]


def run(folder: Path) -> list[Path]:
    llm = import_module("openhands.sdk.llm")
    sdk = import_module("openhands.sdk")
    model = import_module("openhands.sdk.testing").TestLLM.from_messages(scripted(llm), model="scripted-1")
    agent = sdk.Agent(llm=model, tools=[])
    talk = sdk.Conversation(
        agent=agent, workspace=folder / "work", persistence_dir=folder / "kept", visualizer=None, delete_on_close=False
    )
    talk.send_message("Why does greet() not greet?")
    talk.run()
    talk.send_message("Yes.")
    talk.run()
    talk.close()
    return sorted((folder / "kept").rglob("event-*.json"))


def tidy(paths: list[Path], folder: Path) -> list[dict[str, Any]]:
    """The events with ids, times and paths that do not change from run to run, and a short system prompt."""
    events = [json.loads(path.read_text()) for path in paths]
    text = json.dumps(events)
    names = {event["id"]: f"00000000-0000-4000-8000-{number:012d}" for number, event in enumerate(events)}
    for old, new in names.items():
        text = text.replace(old, new)
    text = text.replace(str(folder), "/tmp/greeting")
    found = dict.fromkeys(re.findall(r'"timestamp": "([^"]+)"', text))
    for number, time in enumerate(found):
        text = text.replace(time, f"2026-01-05T10:00:{number:02d}.000001")
    result: list[dict[str, Any]] = json.loads(text)
    for event in result:
        if event["kind"] == "SystemPromptEvent":
            event["system_prompt"]["text"] = event["system_prompt"]["text"][:120]
            event["dynamic_context"] = None
            event["tools"] = [tool for tool in event["tools"] if tool.get("kind", "").lower().startswith(TOOLS)]
            for tool in event["tools"]:
                tool["description"] = tool["description"].split("\n")[0]
        for key in ("stats", "agent"):
            if isinstance(event.get("value"), dict):
                event["value"].pop(key, None)
    return result


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        events = tidy(run(folder), folder)
    shutil.rmtree(HERE / "events", ignore_errors=True)
    (HERE / "events").mkdir()
    for number, event in enumerate(events):
        path = HERE / "events" / f"event-{number:05d}-{event['id']}.json"
        path.write_text(json.dumps(event))
    (HERE / "v1-events.json").write_text(json.dumps(events, indent=1) + "\n")
    line = {
        "instance_id": "tools__greet-1",
        "attempt": 1,
        "test_result": {"git_patch": "diff --git a/greet.py b/greet.py\n"},
        "instruction": "Why does greet() not greet?",
        "metadata": {"llm": {"model": "scripted-1", "temperature": 0.0}, "max_iterations": 100},
        "history": events,
        "metrics": {
            "model_name": "scripted-1",
            "accumulated_cost": 0.75,
            "accumulated_token_usage": {"prompt_tokens": 300, "completion_tokens": 40, "cache_read_tokens": 120},
            "costs": [{"model": "scripted-1", "cost": 0.5}, {"model": "scripted-1", "cost": 0.25}],
            "token_usages": [
                {
                    "model": "scripted-1",
                    "prompt_tokens": 100,
                    "completion_tokens": 25,
                    "cache_read_tokens": 20,
                    "response_id": "test-response-1",
                }
            ],
        },
        "error": None,
    }
    (HERE / "v1-output.jsonl").write_text(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
