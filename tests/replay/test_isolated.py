"""Worlds in processes of their own: the same trees, whatever the world does to its process."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ttc_replay import Message, Proposal, Source, Spec, StepResult, Task, ToolCall, TtcError
from ttc_replay.cli import plugins
from ttc_replay.examples.bookkeeping.environment import BookkeepingEnvironment
from ttc_replay.replay import session
from ttc_replay.replay.drive import finish
from ttc_replay.replay.environments import child, host, isolated
from ttc_replay.replay.environments.base import environment_class
from ttc_replay.replay.environments.family import Recipe
from ttc_replay.replay.environments.wire import encode
from ttc_replay.replay.replaying import replay_all
from ttc_replay.replay.transition import execute, hear, state_key, state_of
from ttc_replay.storage.codec import action_key, messages_from
from ttc_replay.storage.errors import DivergedError, EnvironmentFailed, UsageError, boundary
from ttc_replay.storage.journal import digest, read_journal
from ttc_replay.storage.readers.base import find_reader

ROOT = Path(__file__).parents[2]
WORLDS = Path(__file__).with_name("isolated_worlds.py")
LOGS = ROOT / "examples" / "bookkeeping" / "logs" / "easy.jsonl"
TASK = Task("t1", data={"target": 9}, private={"gold": 9})


def children() -> set[int]:
    """Process ids of the hosts that this process has, by what the kernel says."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
                if parent == str(os.getpid()) and child.HOST.encode() in (entry / "cmdline").read_bytes():
                    found.add(int(entry.name))
            except OSError:  # gone in between
                continue
    return found


@pytest.fixture(autouse=True)
def _nobody_left() -> Iterator[None]:
    """Every test closes what it opens: no process is left."""
    yield
    gc.collect()
    assert children() == set()


def factory(name: str, **options: Any) -> Callable[[], Any]:
    made = plugins.factory("environment", Spec(f"{WORLDS}:{name}", options))
    assert isinstance(made, isolated.IsolatedFactory)
    return made


def inside(name: str, **options: Any) -> Callable[[], Any]:
    """The same worlds in this process."""
    return partial(plugins.in_process, f"{WORLDS}:{name}", options)


def opened(made: str | Callable[[], Any], **options: Any) -> Any:
    world = factory(made, **options)() if isinstance(made, str) else made()
    world.reset(TASK)
    return world


def searched(engine: Any) -> tuple[str, list[Any]]:
    """What a search comes to: its digest, and what failed in it."""
    asyncio.run(engine.run())
    engine.journal.close()
    assert engine.error is None
    events = read_journal(engine.journal.path)[0]
    tells = sorted((event["t"], event["ask"], event) for event in events if event["event"] == "tell")
    return digest(events), [event.get("failures") for _, _, event in tells]


class Numbers:
    """A policy that proposes these numbers at every step."""

    sampling = False
    inline = True

    def __init__(self, actions: list[Message]):
        self.actions = actions

    def propose(self, requests: Any) -> list[list[Proposal]]:
        return [
            [Proposal(action) for action in self.actions if action_key(action) not in request.exclude][: request.n]
            for request in requests
        ]


# -- like any world --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "trees", "budget"), [("Isolated", 2, 16), ("Unforked", 1, 5)])
def test_a_search_finds_the_same_tree(make_engine: Any, toy: Any, name: str, trees: int, budget: int) -> None:
    records = [toy.record(1, 1, 1, 1, task="a", target=11), toy.record(3, 1, 1, 2, task="b", target=11)][:trees]
    rewards = (("closeness", toy.closeness), ("environment", toy.environment_reward))
    policy = Numbers([toy.add(by) for by in (1, 13, 3)])
    made = [
        searched(
            make_engine(
                records, world=world, rewards=rewards, accept=toy.gold, policy=policy, folder=folder, budget=budget
            )
        )
        for folder, world in (("inside", inside(name)), ("isolated", factory(name)))
    ]
    assert made[0] == made[1]
    assert any("TTC-E401" in text for failures in made[0][1] for text in failures or ())
    assert children() == set()


@pytest.mark.parametrize("concurrency", [1, 4])
def test_a_crash_is_a_failed_step_and_no_more(make_engine: Any, toy: Any, concurrency: int) -> None:
    """Forks that share the process with the one that crashed go on as if nothing had been."""
    calm, wild = ([toy.add(by) for by in numbers] for numbers in ((1, 13), (1, 111)))
    made = {
        folder: searched(
            make_engine(
                [toy.record(1, 1, 1, 1, target=99)],
                world=world,
                policy=Numbers(actions),
                folder=folder,
                budget=7,
                concurrency=concurrency,
            )
        )[1]
        for folder, world, actions in (("in", inside("Crashing"), calm), ("out", factory("Crashing"), wild))
    }
    assert [bool(failures) for failures in made["in"]] == [bool(failures) for failures in made["out"]]
    said = {text for failures in made["out"] for text in failures or ()}
    assert said
    assert all(text.startswith("TTC-E401: Crashing, step ") and "SIGSEGV" in text for text in said)


OUTSIDE = """
from ttc_replay.examples.bookkeeping.environment import BookkeepingEnvironment

class Books(BookkeepingEnvironment):
    isolation = "process"
"""


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A real environment in a package that is installed elsewhere, under a name of its own."""
    (tmp_path / "outside_books.py").write_text(OUTSIDE)
    (tmp_path / "outside-1.0.dist-info").mkdir()
    (tmp_path / "outside-1.0.dist-info" / "METADATA").write_text("Name: outside\nVersion: 1.0\n")
    points = "[ttc_replay.environments]\noutside-books = outside_books:Books\n"
    (tmp_path / "outside-1.0.dist-info" / "entry_points.txt").write_text(points)
    monkeypatch.syspath_prepend(tmp_path)
    return plugins.find("environment", "outside-books")


def test_replay_says_the_same(outside: Any) -> None:
    """`isolated` is what a Python user calls; a child process imports the class by its module."""
    with LOGS.open("rb") as stream:
        records: list[Any] = list(find_reader("openai-chat").read(stream, Source("openai-chat", str(LOGS))))[:3]
    before = replay_all(records, BookkeepingEnvironment)
    made = isolated.isolated(partial(outside, strict_close=False))
    assert replay_all(records, made) == before
    assert before["totals"]["matched"] > 20
    assert isolated.isolated(made) is made


@pytest.mark.parametrize("name", ["outside-books", "outside_books:Books"])
def test_installed_environments(outside: Any, name: str) -> None:
    world = plugins.factory("environment", Spec(name, {"strict_close": True}))()
    assert type(world) is isolated.World
    assert [tool["function"]["name"] for tool in world.tools()] == [
        tool["function"]["name"] for tool in BookkeepingEnvironment().tools()
    ]
    world.close()
    wrong = isolated.isolated(partial(outside, lenient=True))
    with pytest.raises(EnvironmentFailed, match=r"could not be built: TypeError: .*'lenient'"):
        wrong()


def script(label: str, world: Any, calls: list[tuple[Any, ...]]) -> list[Any]:
    """What each call comes to, through the seams of the house: a value, or an error's line."""
    seams: dict[str, Any] = {
        "execute": execute,
        "hear": hear,
        "state": state_of,
        "fork": session.fork,
        "close": session.close,
    }
    said: list[Any] = []
    for name, *arguments in calls:
        try:
            if name == "fork":
                world = asyncio.run(seams[name](world))
            elif name in seams:
                value = asyncio.run(seams[name](world, *arguments))
                said.append(tuple(value.observations) if isinstance(value, StepResult) else value)
                said.append((value.done, value.reward, value.info) if isinstance(value, StepResult) else None)
            else:
                with boundary(EnvironmentFailed, f"{label}.{name}"):
                    value = asyncio.run(finish(getattr(world, name)(*arguments)))
                said.append(messages_from(value) if name == "reset" else value)
        except TtcError as error:
            said.append((type(error), error.line(), error.hint))
    return said


def test_every_method_answers_as_it_does_in_this_process(toy: Any) -> None:
    record = toy.record(1, 2)
    reply = Message("user", "stop", tool_calls=toy.add(1).tool_calls)
    scripts: dict[str, list[tuple[Any, ...]]] = {
        "Isolated": [
            ("reset", TASK),
            ("execute", toy.add(1), 0),
            ("execute", toy.add(13), 1),
            ("execute", Message("assistant", "", tool_calls=(ToolCall("c", "subtract", {}),)), 1),
            ("fork",),
            ("hear", reply),
            ("state",),
            ("state_key",),
            ("tools",),
            ("execute", Message("assistant", "done"), 1),
            ("close",),
            ("close",),
        ],
        "Unusual": [
            ("reset", TASK),
            ("execute", toy.add(2), 0),
            ("state",),
            ("execute", toy.add(1), 1),
            ("state",),
            ("state_key",),
            ("reset", Task("t1", data={"target": "nine"})),
        ],
        "Unforkable": [
            ("load", record, {record.id: record}),
            ("reset", TASK),
            ("execute", Message("assistant", "one"), 0),
            ("hear", reply),
            ("reseed", 7),
            ("close",),
        ],
    }
    for name, calls in scripts.items():
        here, there = inside(name)(), factory(name)()
        assert environment_class(there) == environment_class(here)
        assert not there.inline
        expected, got = script(name, here, calls), script(name, there, calls)
        assert [str(item) for item in got] == [str(item) for item in expected], name
        assert any(isinstance(item, tuple) and isinstance(item[0], type) for item in got if item) == (
            name != "Unforkable"
        )
        there.close()


def test_options_and_attributes_reach_the_world() -> None:
    world = factory("Unforkable", normalise={"ignore": ["at"]})()
    assert world.normalise == {"ignore": ["at"]}
    assert environment_class(world) == "recorded only"
    assert not any(hasattr(world, name) for name in ("fork", "tools", "state_key", "inlined", "__await__"))
    world.reset(TASK)
    assert state_key(world) is None
    assert world.state()["heard"] == [["t1", {"gold": 9}]]
    world.close()


def test_a_file_is_found_from_another_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Also an object, which is no class: the command line may name one."""
    monkeypatch.chdir(WORLDS.parent)
    made, probe = plugins.environment(Spec("./isolated_worlds.py:ONE"))
    probe.close()
    monkeypatch.chdir(tmp_path)
    world = made()
    assert world.reset(TASK)[0].content == "reach 9"
    world.close()


# -- processes -------------------------------------------------------------------------------------------------------


def test_forks_live_in_one_process_and_end_with_the_last(toy: Any) -> None:
    root = opened("Isolated", length=9)
    root.step(toy.add(1))
    first, second = root.fork(), root.fork()
    first.step(toy.add(2))
    root.close()
    assert first.fork().state()["total"] == 3
    assert second.state() == {"total": 1, "done": 1, "pid": first.state()["pid"]}
    gc.collect()
    assert children() == {first.state()["pid"]}
    assert os.getpgid(first.state()["pid"]) != os.getpgid(0)  # a terminal's Ctrl-C is for the parent
    other = opened("Isolated", length=9)
    assert other.state()["pid"] != first.state()["pid"]
    other.close()
    first.close()
    first.close()
    assert len(children()) == 1
    second.close()
    assert children() == set()
    assert root.tools()[0]["function"]["name"] == "add"  # asked for later by the house
    with pytest.raises(EnvironmentFailed, match="closed"):
        root.step(toy.add(1))


def test_a_forgotten_world_ends_its_process(toy: Any) -> None:
    """Also one that failed: what it raised must not keep it alive."""
    world = opened("Crashing")
    twin, failing = world.fork(), world.fork()
    with pytest.raises(EnvironmentFailed):
        failing.step(toy.add(103))
    del failing
    del world
    gc.collect()
    assert twin.step(toy.add(1)).observations[0].content == '{"total": 1}'
    del twin
    gc.collect()
    assert children() == set()


def test_a_process_forgets_forks_that_are_closed_or_forgotten() -> None:
    root = opened("Counted")
    forks = [root.fork() for _ in range(4)]
    assert root.state() == 5
    forks.pop().close()
    forks.clear()
    gc.collect()
    assert root.state() == 1
    root.close()


def test_two_threads_may_use_two_forks(toy: Any) -> None:
    root = opened("Isolated", length=1000)

    def count(by: int) -> int:
        world = root.fork()
        for _ in range(50):
            world.step(toy.add(by))
            world = world.fork()
        total: int = world.state()["total"]
        world.close()
        return total

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(count, range(8))) == [50 * by for by in range(8)]
    root.close()


def test_a_world_is_closed_once(tmp_path: Path) -> None:
    world = opened("Unforkable", log=str(tmp_path / "log"))
    world.close()
    assert (tmp_path / "log").read_text() == "closed [['t1', {'gold': 9}]]\n"


def test_idle_processes_are_put_to_rest() -> None:
    """Two processes for four worlds (`isolation_processes`): each goes on where it was, told again what it was told."""
    made = factory("Unforkable", normalise={"replace": [["at \\d+", ""]]})
    worlds = [made() for _ in range(4)]
    for number, world in enumerate(worlds):
        world.reset(TASK)
        world.step(Message("assistant", f"one {number}"))
        world.step(Message("assistant", "time"))  # differs when told again, in what `normalise` allows
        world.reseed(number)
        assert len(children()) <= 2
    pids = set()
    for number, world in enumerate(worlds):
        state = world.state()
        assert state["heard"] == [["t1", {"gold": 9}], f"one {number}", "time", number]
        pids.add(state["pid"])
        assert len(children()) <= 2
    assert len(pids) == 4
    for world in worlds:
        world.close()


def test_a_world_that_is_not_the_same_again_is_a_divergence() -> None:
    made = factory("Unforkable")
    worlds = [made() for _ in range(3)]
    for world in worlds:
        world.reset(TASK)
        world.step(Message("assistant", "one"))
        world.step(Message("assistant", "time"))
    with pytest.raises(DivergedError, match="step 1: observation differs: expected time at"):
        worlds[0].state()
    for world in worlds:
        world.close()


# -- what a world may do ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "number", "said"),
    [
        ("Crashing", 103, "its process ended with exit code 3"),
        ("Crashing", 104, "its process ended with exit code 4"),
        ("Crashing", 111, "its process was ended by SIGSEGV"),
        ("Hanging", 5, "no answer within 1 s: its process was killed"),
    ],
)
def test_the_end_of_a_process_is_data(toy: Any, name: str, number: int, said: str) -> None:
    made = factory(name)
    root = opened(made)
    root.step(toy.add(1))
    twin = root.fork()
    for call in (partial(execute, root, toy.add(number), 1), partial(state_of, root)):  # and stays failed
        with pytest.raises(EnvironmentFailed) as failed:
            asyncio.run(call())
        assert failed.value.line() == f"error[TTC-E401]: {name}, step 1: environment.step: {said}"
    assert twin.step(toy.add(2)).observations[0].content == '{"total": 3}'
    root.close()
    twin.close()
    again = opened(made)
    assert again.state() == {"total": 0, "done": 0}
    again.close()


def test_printing_and_reading_do_not_touch_the_answers(toy: Any, capfd: pytest.CaptureFixture[str]) -> None:
    world = opened("Printing")
    assert world.step(toy.add(1)).observations[0].content == '{"total": 1}'
    world.close()
    out, err = capfd.readouterr()
    assert out == ""
    assert all(text in err for text in ("print print", "descriptor", "program"))


def test_huge_answers(toy: Any) -> None:
    world = opened("Printing")
    assert world.step(toy.add(5)).observations[0].content == "é\n" * 2_500_000
    world.close()
    small = child.Child({"loader": "builtins:str", "arguments": {}}, 60, reply_bytes=1 << 20)
    huge = {"world": 0, "method": "x" * (1 << 20), "arguments": [], "drop": []}
    with pytest.raises(child.Gone, match="killed: an answer of more than 1 MiB"):
        small.ask(encode(huge), 60)  # the error repeats the method's name


@pytest.mark.parametrize("number", [1, 5])
def test_the_parents_death_leaves_no_orphan(number: int) -> None:
    """While the world is idle, and in the midst of a step, with a thread that is no daemon. Its program ends, too."""
    code = (
        "import sys, time; from ttc_replay.cli import plugins; from ttc_replay import *\n"
        f"world = plugins.environment(Spec({str(WORLDS) + ':Starting'!r}))[0]()\n"
        "world.reset(Task('t', data={'target': 1}))\n"
        f"world.step(Message('assistant', '', tool_calls=(ToolCall('c', 'add', {{'by': {number}}}),)))\n"
        "time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True) as parent:
        assert parent.stderr is not None
        assert parent.stderr.readline() == "started\n"
        parent.kill()
        began = time.monotonic()
        assert parent.stderr.read() == ""  # whoever still lives holds the other end
        assert time.monotonic() - began < host.GRACE_SECONDS + 10


@pytest.mark.parametrize("crash", [False, True])
def test_programs_end_with_the_process(toy: Any, crash: bool) -> None:
    world = opened("Starting")
    world.step(toy.add(1))
    program = world.state()
    assert alive(program)
    if crash:
        with pytest.raises(EnvironmentFailed, match="exit code 3"):
            world.step(toy.add(103))
    world.close()
    deadline = time.monotonic() + 10
    while alive(program):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_an_answer_that_is_no_json_is_a_failed_step(toy: Any) -> None:
    world = opened("Unusual")
    with pytest.raises(EnvironmentFailed, match=r"environment\.step: TypeError: not JSON: bytes"):
        world.step(toy.add(1))
    world.close()


# -- what cannot be built --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "error", "said"),
    [
        ("Unbuildable", {}, EnvironmentFailed, "the environment could not be built: ValueError: no such month"),
        ("Unbuildable", {"how": "exit"}, EnvironmentFailed, "could not be built: its process ended with exit code 9"),
        ("Half", {}, UsageError, "Half is no environment: it has no step"),
        ("Isolated", {"lenght": 4}, UsageError, "unexpected keyword argument 'lenght'|got an unexpected"),
    ],
)
def test_what_cannot_be_built(name: str, options: Any, error: type[TtcError], said: str) -> None:
    with pytest.raises(error, match=said):
        plugins.environment(Spec(f"{WORLDS}:{name}", options))
    gc.collect()
    assert children() == set()


def test_a_loader_that_cannot_be_imported() -> None:
    made = isolated.isolated(Asking, Recipe("no_such_module:World"))
    with pytest.raises(EnvironmentFailed, match="could not be built: ModuleNotFoundError: No module named 'no_such"):
        made()


class Asking:
    isolation: str | None = "process"

    def __init__(self, *given: Any, **options: Any) -> None:
        raise AssertionError("never built here")


def asking(**members: Any) -> Any:
    return type("Odd", (Asking,), members)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (asking(), "cannot import 'Odd'"),
        (partial(Asking, False), "keywords only"),
        (partial(Asking, strict_close=object()), "JSON only"),
        (asking(isolation="thread"), "isolation = 'thread'"),
        (asking(isolation_timeout_seconds=0), "isolation_timeout_seconds = 0 is not a positive number"),
        (asking(isolation_processes="two"), "isolation_processes = 'two' is not a positive number"),
    ],
)
def test_what_cannot_be_isolated(made: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        isolated.isolated(made)


def test_a_world_that_does_not_ask_stays_as_it_is(toy: Any) -> None:
    assert isolated.isolated(toy.Counter) is toy.Counter
    assert isinstance(plugins.environment(Spec(f"{WORLDS}:Plain"))[0]().fork(), object)
    assert signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL  # nothing of the process's own is touched
