"""The scripted run: what an agent, its tools and a second agent say, in no dialect yet."""

from __future__ import annotations

from typing import Any

SESSION = "trip-7"
MODEL = "scripted-1"
SYSTEM = "You plan trips. Use the tools."
PACKER = "You pack bags."
TOOLS = [
    {
        "type": "function",
        "name": name,
        "description": f"Tool {name}.",
        "parameters": {"type": "object", "properties": {argument: {"type": "string"}}, "required": [argument]},
    }
    for name, argument in (("get_weather", "city"), ("ask_expert", "topic"), ("book", "hotel"))
]
LOOK_UP = [{"type": "function", "name": "look_up", "parameters": {"type": "object"}}]
USER = {"role": "user", "text": "Plan a weekend: Paris or Atlantis? Ümlaut."}


def call(identity: str, name: str, **arguments: str) -> dict[str, Any]:
    return {"id": identity, "name": name, "arguments": arguments}


def answer(identity: str, name: str, text: str, error: str | None = None) -> dict[str, Any]:
    return {"role": "tool", "id": identity, "name": name, "text": text, "error": error}


WEATHER = [call("c1", "get_weather", city="Paris"), call("c2", "get_weather", city="Atlantis")]
TURNS: list[dict[str, Any]] = [
    {"role": "assistant", "text": None, "thought": "Two cities, two calls.", "calls": WEATHER},
    {"role": "assistant", "text": "Paris it is.", "calls": [call("c3", "ask_expert", topic="packing")]},
    {"role": "assistant", "text": "Take a light coat.", "calls": [call("c4", "book", hotel="Lutetia")]},
]
# The second result came first; the last call was never answered.
RESULTS = [
    [answer("c2", "get_weather", "no such city", "KeyError"), answer("c1", "get_weather", "18 C, sunny")],
    [answer("c3", "ask_expert", "A light coat.")],
    [],
]
INNER_USER = {"role": "user", "text": "What to pack for 18 C?"}
INNER: list[dict[str, Any]] = [
    {"role": "assistant", "text": None, "calls": [call("s1", "look_up", item="coat")]},
    {"role": "assistant", "text": "A light coat."},
]
INNER_RESULTS = [[answer("s1", "look_up", "in stock")], []]
USAGE = [(100, 20, 0), (160, 15, 90), (200, 12, 150)]
