"""Tools of real Model Context Protocol servers, in real processes: put back by a restart, and never trusted."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ttc_replay import Message, Step, Task, ToolCall, Trajectory
from ttc_replay.replay.drive import run_inline
from ttc_replay.replay.environments.base import environment_class
from ttc_replay.replay.environments.mcp import McpEnvironment, McpServers
from ttc_replay.replay.session import Session
from ttc_replay.storage.errors import DivergedError, EnvironmentFailed, UsageError

SERVER = Path(__file__).with_name("mcp_server.py")
BARE = Path(__file__).with_name("mcp_bare_server.py")
Make = Callable[..., McpServers]


@pytest.fixture
def servers() -> Iterator[Make]:
    made: list[McpServers] = []

    def make(*words: object, **options: Any) -> McpServers:
        command = [sys.executable, "-S", str(BARE), *map(str, words)]
        made.append(McpEnvironment.shared(**{"command": command, "timeout_seconds": 20.0, **options}))
        return made[-1]

    yield make
    for item in made:
        item.close()


def call(name: str, call_id: str = "c", **arguments: object) -> Message:
    return Message("assistant", tool_calls=(ToolCall(call_id, name, arguments),))


def said(world: McpEnvironment, action: Message) -> str:
    (message,) = world.step(action).observations
    return message.text


def opened(made: McpServers) -> McpEnvironment:
    world = made()
    world.reset(Task("t"))
    return world


def test_tools_calls_errors_pictures_and_structure_become_schemas_and_observations(servers: Make) -> None:
    world = opened(servers(command=f"{sys.executable} {SERVER}"))
    assert [tool["function"]["name"] for tool in world.tools()] == ["status", "refund", "count", "picture"]
    assert world.tools()[0]["function"]["parameters"]["required"] == ["order"]
    assert world.tools()[0]["function"]["description"] == "The status of an order."
    assert environment_class(world) == "re-executable"
    both = Message("assistant", tool_calls=(ToolCall("a", "status", {"order": "W-1"}), ToolCall("b", "count", {})))
    first, second = world.step(both).observations
    assert (first.text, first.tool_call_id, first.name, first.is_error) == ("open", "a", "status", False)
    assert second.text.replace(" ", "").replace("\n", "") == '{"orders":2}'
    (missing,) = world.step(call("status", order="W-9")).observations
    assert missing.is_error
    assert "no order W-9" in missing.text
    assert "a pixel:\n[image image/png, 70 bytes, sha256 " in said(world, call("picture"))
    for wrong in (call("fly"), Message("assistant", tool_calls=(ToolCall("x", "status", None, "{"),)), call("status")):
        (refused,) = world.step(wrong).observations
        assert refused.is_error
    assert said(world, call("status", order="W-1")) == "open"  # still there
    assert world.step(Message("assistant", "done")).observations == []
    assert world.state()["server"]["name"] == "orders"


def test_a_reset_is_another_process_and_worlds_do_not_share(servers: Make) -> None:
    made = servers("pid")
    world, other = opened(made), opened(made)
    first = said(world, call("refund", order="W-1"))
    assert said(other, call("status", order="W-1")) == "open"
    world.reset(Task("t"))
    assert said(world, call("status", order="W-1")) == "open"
    assert said(world, call("refund", order="W-1")) != first
    assert world.state()["put_back_by"] == "a fresh server process"


def record_of(*pairs: tuple[Message, str]) -> Trajectory:
    steps = [
        Step(index, action, (Message("tool", text, tool_call_id=action.tool_calls[0].id),))
        for index, (action, text) in enumerate(pairs)
    ]
    return Trajectory("r", Task("t"), prompt=(Message("user", "refund"),), steps=tuple(steps))


REFUND = (call("refund", "a", order="W-1"), "refunded W-1")
STATUS = (call("status", "b", order="W-1"), "refunded")


def test_a_record_is_reexecuted_on_a_fresh_server_and_compared(servers: Make) -> None:
    made = servers()
    replayed = run_inline(Session(record_of(REFUND, STATUS), made).replay())
    assert replayed.error is None
    assert [match.fidelity for match in replayed.matches] == ["reexecuted", "reexecuted"]
    differs = run_inline(Session(record_of(REFUND, (STATUS[0], "open")), made).replay())
    assert differs.diverged is not None
    assert differs.diverged.got == "refunded"


def test_a_server_with_state_elsewhere_never_claims_to_be_put_back(servers: Make, tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    made = servers("diary", diary, stateful="external")
    record = record_of((REFUND[0], "refund 1"), STATUS)
    replayed = run_inline(Session(record, made).replay())
    assert [step.fidelity for step in replayed.steps] == ["recorded", "recorded"]
    again = run_inline(Session(record, made).replay())  # the diary was not put back, and the comparison shows it
    assert again.diverged is not None
    assert (again.diverged.index, again.diverged.got) == (0, "refund 2")
    assert "stays changed" in made.report()["put_back_by"]


def test_a_server_at_rest_is_told_again_what_it_was_told(servers: Make, tmp_path: Path) -> None:
    made = servers(most_open=1)
    world = opened(made)
    said(world, call("refund", order="W-1"))
    other = opened(made)  # room for one: the first is put to rest
    assert said(other, call("status", order="W-1")) == "open"
    assert said(world, call("status", order="W-1")) == "refunded"
    shifting = servers("diary", tmp_path / "diary", most_open=1)
    world = opened(shifting)
    said(world, call("refund", order="W-1"))
    opened(shifting)
    with pytest.raises(DivergedError, match=r"refund 1.*refund 2"):
        said(world, call("status", order="W-1"))


def test_a_search_runs_on_it_with_worlds_in_threads(servers: Make, make_engine: Any) -> None:
    from ttc_replay import Proposal, Spec, reward

    class Desk:
        sampling = False
        inline = True

        def propose(self, requests: Any) -> Any:
            return [[Proposal(call("refund", "p", order=name)) for name in ("W-1", "W-2")] for _ in requests]

    @reward
    def second(trajectory: Trajectory) -> float:
        names = [row["arguments"]["order"] for row in trajectory.final_state["calls"]]
        return float(names == ["W-2", "W-1"])

    made = servers(most_open=3)
    settings = {"budget": 8, "max_depth": 2, "algorithm": Spec("mcts"), "width": 2, "concurrency": 2}
    engine = make_engine(
        [record_of(REFUND, STATUS)], policy=Desk(), world=made, rewards=[("second", second)], **settings
    )
    asyncio.run(engine.run())
    found = engine.groves[0].verdict.counterfactual
    assert found is not None
    assert found.fidelity == "reexecuted"
    assert [item.text for step in found.steps for item in step.observations] == [
        "refunded W-2", "refunded W-1"
    ]  # fmt: skip


# -- servers that misbehave --------------------------------------------------------------------------------------------

CALLS: dict[str, tuple[str, dict[str, Any], str]] = {
    "dies": ("die", {}, r"no answer to misbehave.*code 3.*out of paper"),
    "answers nonsense": ("broken", {}, r"the answer to misbehave is none"),
    "hangs": ("hang", {"timeout_seconds": 0.5}, r"no answer to misbehave"),
    "says too much": ("talk", {"most_bytes": 1 << 20}, r"longer than most_bytes"),
}


@pytest.mark.parametrize("what", CALLS)
def test_a_call_that_goes_wrong_is_a_coded_failure_and_the_next_reset_works(servers: Make, what: str) -> None:
    how, options, why = CALLS[what]
    world = opened(servers(how if how == "broken" else "", **options))
    begun = time.monotonic()
    with pytest.raises(EnvironmentFailed, match=why) as failed:
        world.step(call("misbehave", order=how))
    assert failed.value.error_code == "TTC-E401"
    assert time.monotonic() - begun < 10
    with pytest.raises(EnvironmentFailed, match="is gone"):
        world.step(call("status", order="W-1"))
    if how != "broken":
        world.reset(Task("t"))
        assert said(world, call("status", order="W-1")) == "open"


STARTS: dict[str, tuple[tuple[object, ...], dict[str, Any], str]] = {
    "lists too many tools": (("many", 1200), {}, r"more than 1000 tools"),
    "lists without end": (("endless",), {"most_tools": 50}, r"more than 50 tools"),
    "floods": (("flood",), {}, r"did not start.*does not speak the protocol"),
    "says nothing": (("silent",), {"start_seconds": 1.0}, r"did not start within 1 s"),
    "is no program": ((), {"command": ["/nowhere/at/all"]}, r"did not start: FileNotFoundError"),
    "ends at once": ((), {"command": [sys.executable, "-c", "raise SystemExit('no licence')"]}, r"no licence"),
}


@pytest.mark.parametrize("what", STARTS)
def test_a_server_that_cannot_be_used_is_a_coded_failure_of_the_run(servers: Make, what: str) -> None:
    words, options, why = STARTS[what]
    made = servers(*words, **options)
    replayed = run_inline(Session(record_of(REFUND), made).replay())
    assert isinstance(replayed.error, EnvironmentFailed)
    with pytest.raises(EnvironmentFailed, match=why):
        raise replayed.error


def test_no_process_outlives_its_world(servers: Make) -> None:
    made = servers("pid")
    world = opened(made)
    process = int(said(world, call("refund", order="W-1")).rpartition(" ")[2])
    os.kill(process, 0)
    world.close()
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


WRONG: dict[str, dict[str, Any]] = {
    "neither": {},
    "both": {"command": ["x"], "url": "http://127.0.0.1:1/mcp"},
    "elsewhere": {"url": "http://192.0.2.7/mcp"},
    "a name elsewhere": {"url": "https://example.org/mcp"},
    "a url and a process": {"url": "http://127.0.0.1:1/mcp", "stateful": "process"},
    "an unknown place": {"command": ["x"], "stateful": "moon"},
    "no time": {"command": ["x"], "timeout_seconds": 0},
}


@pytest.mark.parametrize("what", WRONG)
def test_options_that_cannot_be_are_refused(what: str) -> None:
    with pytest.raises(UsageError):
        McpEnvironment.shared(**WRONG[what])


def test_a_server_over_http_keeps_its_state_and_its_answers_count_as_recorded() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, str(SERVER), str(port)], stderr=subprocess.DEVNULL)
    made = McpEnvironment.shared(url=f"http://127.0.0.1:{port}/mcp")
    try:
        _wait_for(port)
        world = opened(made)
        result = world.step(REFUND[0])
        assert (result.observations[0].text, result.info["fidelity"]) == (REFUND[1], "recorded")
        world.reset(Task("t"))
        assert said(world, STATUS[0]) == "refunded"  # the reset did not put it back, and says so
        assert "stays changed" in world.state()["put_back_by"]
        process.kill()
        process.wait()
        with pytest.raises(EnvironmentFailed):
            world.step(STATUS[0])
    finally:
        made.close()
        process.kill()
        process.wait()


def _wait_for(port: int) -> None:
    for _ in range(200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError("the server did not start")
