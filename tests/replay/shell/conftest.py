"""Worlds of the shell environment over small folders; skipped, with the reason, where no sandbox can be made."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ttc_replay import Message, Task
from ttc_replay.replay.environments.shell import ShellEnvironment
from ttc_replay.replay.environments.shell_layers import open_store
from ttc_replay.storage.errors import SandboxUnavailable
from ttc_replay.storage.records import ToolCall

try:
    open_store("overlay")
    WHY_NOT = None
except SandboxUnavailable as reason:
    WHY_NOT = reason.message

Say = Callable[..., str]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if WHY_NOT is not None:
        here = Path(__file__).parent
        for item in items:
            if here in item.path.parents:
                item.add_marker(pytest.mark.skip(reason=WHY_NOT))


def bash(command: str, call_id: str = "call") -> Message:
    """An action that runs a command."""
    call = ToolCall(call_id, "bash", {"command": command}, json.dumps({"command": command}))
    return Message("assistant", tool_calls=(call,))


@pytest.fixture
def action() -> Callable[..., Message]:
    return bash


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small folder: two files, one in a folder, and a link."""
    top = tmp_path_factory.mktemp("project")
    (top / "kept").mkdir()
    (top / "kept" / "inner.txt").write_text("inner\n")
    (top / "plain.txt").write_text("plain\n")
    (top / "link").symlink_to("plain.txt")
    return top


@pytest.fixture
def opened(folder: Path) -> Callable[..., ShellEnvironment]:
    """Opens a world over the small folder."""

    def make(**options: Any) -> ShellEnvironment:
        world = ShellEnvironment(str(folder), **options)
        world.reset(Task("t"))
        return world

    return make


@pytest.fixture
def say() -> Say:
    """Runs commands in a world and gives what the last one is answered."""

    def run(world: ShellEnvironment, *commands: str) -> str:
        text = ""
        for command in commands:
            text = "\n".join(message.text for message in world.step(bash(command)).observations)
        return text

    return run
