"""One agent, three ways: replays differ exactly as they should, and a fork with side effects is a fresh run."""

from __future__ import annotations

import gzip
import json
import re
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("langgraph")
pytest.importorskip("langchain")

from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver

from ttc_replay import Message, Source, Task, ToolCall, Trajectory
from ttc_replay.cli.main import main
from ttc_replay.examples.three_ways import agent, record
from ttc_replay.examples.three_ways.depot import Depot, LiveDepot
from ttc_replay.replay.environments.langgraph import LangGraphEnvironment
from ttc_replay.storage.readers.langgraph import LangGraphReader

README = Path(__file__).parents[2] / "examples" / "three_ways" / "README.md"
PLACE = "ttc_replay.examples.three_ways"
LOG = README.parent / "logs" / "depot.sqlite.gz"
GRAPH = ("--env", "langgraph", "--env-opt", f"graph={PLACE}.agent:graph")
WAYS: dict[str, tuple[str, ...]] = {
    "graph, a world for each branch": (*GRAPH, "--env-opt", f"world={PLACE}.depot:Depot"),
    "graph, one world put back": (*GRAPH, "--env-opt", f"world={PLACE}.agent:DEPOT"),
    "graph, nothing put back": GRAPH,
    "tools class": ("--env", f"{PLACE}.depot:Depot"),
    "tape": ("--env", "tape"),
}


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped log, ingested."""
    path = tmp_path_factory.mktemp("three_ways") / "archive.duckdb"
    with pytest.raises(SystemExit) as left:
        main(["ingest", str(LOG), "--db", str(path)])
    assert left.value.code in (0, None)
    return path


@pytest.fixture
def cli(archive: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """`cli(command, ...)`: (exit code, the JSON document)."""
    monkeypatch.chdir(archive.parent)
    monkeypatch.setenv("LANGSMITH_TRACING", "false")
    agent.DEPOT.restore(LiveDepot().snapshot())

    def run(*arguments: str) -> tuple[int, Any]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main([*arguments, "--json", "--db", str(archive)])
        return int(left.value.code or 0), json.loads(capsys.readouterr().out)

    return run


def test_the_shipped_log_is_what_the_recorder_makes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANGSMITH_TRACING", "false")
    record.record(str(tmp_path / "depot.sqlite"))
    runs = []
    for data in ((tmp_path / "depot.sqlite").read_bytes(), gzip.decompress(LOG.read_bytes())):
        found = list(LangGraphReader().read(BytesIO(data), Source("langgraph")))
        assert all(isinstance(run, Trajectory) for run in found)
        runs.append([run.messages for run in found if isinstance(run, Trajectory)])
    assert runs[0] == runs[1]
    assert [len(messages) for messages in runs[0]] == [13, 13, 13]


def test_replays_differ_exactly_as_the_readme_says(cli: Any) -> None:
    table = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in README.read_text().splitlines()
        if line.startswith("|") and re.search(r"\d+ of \d+", line)
    ]
    found = []
    for name, options in WAYS.items():
        code, report = cli("replay", *options)
        rows, totals = report["trajectories"], report["totals"]
        classes = ", ".join(sorted({row["fidelity"] for row in rows}))
        levels = ", ".join(level for level, count in totals["levels"].items() if count)
        steps = f"{totals['matched']} of {totals['steps']}"
        found.append([name, report["environment_class"], steps, levels, classes, str(code)])
    assert [row[:6] for row in table] == found


def test_a_search_from_a_checkpoint_of_the_log_to_rows_for_a_trainer(cli: Any) -> None:
    query = """SELECT trajectory_id FROM v_steps WHERE step = 3 AND action LIKE '%"cups","count":3%'"""
    [wrong] = cli("sql", query)[1]["rows"]
    graph = ("--policy", "langgraph", "--policy-opt", f"graph={PLACE}.agent:graph")
    reward = ("--reward", f"{PLACE}.depot:shipped_right", "--from-step", "3", "--budget", "24", "--name", "fix")
    code, report = cli("search", wrong["trajectory_id"], *WAYS["graph, a world for each branch"], *graph, *reward)
    assert code == 0
    [row] = report["trajectories"]
    assert (row["baseline"], row["best"], row["branch_step"], row["fidelity"]) == (0.0, 1.0, 3, "snapshot")
    assert row["calls"] >= row["transitions"] > 0
    assert row["tokens"] > 100
    again = cli("search", wrong["trajectory_id"], *WAYS["graph, a world for each branch"], *graph, *reward)[1]
    assert again["trajectories"] == report["trajectories"]
    assert again["totals"]["repeated_calls"] == 0
    assert cli("show", row["counterfactual_id"])[0] == 0
    code, replayed = cli("replay", row["counterfactual_id"], *WAYS["tools class"])
    assert (code, replayed["trajectories"][0]["level"]) == (0, "exact")
    code, exported = cli("export", "fix", "--format", "trl-dpo", "--out", "pairs", "--keep-copied")
    assert code == 0
    rows = [json.loads(line) for line in Path(exported["files"][0]["path"]).read_text().splitlines()]
    chosen = [call["function"]["arguments"] for call in rows[0]["chosen"][0]["tool_calls"]]
    rejected = [call["function"]["arguments"] for call in rows[0]["rejected"][0]["tool_calls"]]
    assert (chosen, rejected) == ([{"item": "cups", "count": 2}], [{"item": "cups", "count": 3}])


def calls(*named: tuple[str, dict[str, Any]]) -> Message:
    return Message("assistant", "", tool_calls=tuple(ToolCall(f"c{at}", *one) for at, one in enumerate(named)))


def test_a_fork_with_side_effects_is_a_fresh_run_and_a_plain_langgraph_fork_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LANGSMITH_TRACING", "false")
    monkeypatch.setattr(agent, "DEPOT", LiveDepot())
    before = [
        calls(("look", {"item": "tea"}), ("look", {"item": "cups"})),
        calls(("reserve", {"item": "tea", "count": 4})),
    ]
    other = calls(("reserve", {"item": "tea", "count": 2}))

    def observed(world: LangGraphEnvironment, action: Message) -> str:
        return world.step(action).observations[-1].text

    fresh = LangGraphEnvironment(agent.graph, Depot)
    fresh.reset(Task("order"))
    observed(fresh, before[0])
    expected = observed(fresh, other)
    assert expected == '{"reservation": "R-1", "free": 7}'

    for given in (Depot, LiveDepot()):
        world = LangGraphEnvironment(agent.graph, given)
        world.reset(Task("order"))
        observed(world, before[0])
        branch = world.fork()
        observed(world, before[1])
        observed(world, calls(("ship", {"reservation": "R-1"})))
        assert observed(branch, other) == expected

    # the same by LangGraph's own means: graph state goes back, the depot does not
    graph = agent.make_graph().copy({"checkpointer": InMemorySaver()})
    config = {"configurable": {"thread_id": "1"}}
    graph.invoke({"messages": [HumanMessage("Ship 4 tea and 2 cups.")]}, config, durability="sync")
    stops = [state for state in graph.get_state_history(config) if "tools" in state.next]
    first = stops[-2]  # from the newest to the oldest: ..., ship, reserve, look
    last = first.values["messages"][-1]
    turned = AIMessage("", id=last.id, tool_calls=[{"name": "reserve", "args": {"item": "tea", "count": 2}, "id": "x"}])
    forked = graph.update_state(first.config, {"messages": [turned]}, as_node="model")
    ended = graph.invoke(None, forked, interrupt_after=["tools"], durability="sync")
    contaminated = ended["messages"][-1].text
    assert contaminated == '{"reservation": "R-3", "free": 3}'
    assert contaminated != expected
