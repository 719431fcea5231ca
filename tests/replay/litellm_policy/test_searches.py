"""Whole searches against a loopback server that answers as vLLM does (`n` choices) or as an old llama.cpp (one)."""

from __future__ import annotations

import json
import re
import shlex
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, cast

import pytest

from ttc_replay.cli.main import main

TOYS = Path(__file__).parents[2] / "cli" / "toy_plugins.py"
MODEL = "local-model"
RUNS = 4


class Model(ThreadingHTTPServer):
    """Answers additions by the seed, `n` at once or one at a time; `dies_after` requests it closes all connections."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(
        self,
        port: int = 0,
        *,
        knows_n: bool = True,
        delay_seconds: float = 0.0,
        name: str = MODEL,
        owner: str = "vllm",
    ):
        super().__init__(("127.0.0.1", port), _Handler)
        self.listing = {"object": "list", "data": [{"id": name, "object": "model", "owned_by": owner}]}
        self.knows_n = knows_n
        self.delay_seconds = delay_seconds
        self.dies_after: int | None = None
        self.lock = threading.Lock()
        self.bodies: list[dict[str, Any]] = []
        self.stopping = threading.Event()

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that leave break pipes: expected here."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        names = cast("Model", self.server).listing
        self._send(200, names if self.path == "/v1/models" else {"error": {"message": "not found"}})

    def do_POST(self) -> None:
        server = cast("Model", self.server)
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with server.lock:
            server.bodies.append(body)
            dead = server.dies_after is not None and len(server.bodies) > server.dies_after
        if dead:
            self.close_connection = True
            return
        server.stopping.wait(server.delay_seconds)
        self._send(200, completion(body, body.get("n", 1) if server.knows_n else 1))

    def _send(self, status: int, body: Any) -> None:
        payload = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)


def completion(body: dict[str, Any], count: int) -> dict[str, Any]:
    choices = []
    for index in range(count):
        arguments = json.dumps({"by": 1 + (body["seed"] // 7 + index) % 9})
        call = {"id": f"call_{index}", "type": "function", "function": {"name": "add", "arguments": arguments}}
        message = {"role": "assistant", "content": None, "tool_calls": [call]}
        choices.append({"index": index, "finish_reason": "tool_calls", "message": message})
    usage = {"prompt_tokens": 20, "completion_tokens": 5 * count, "total_tokens": 20 + 5 * count}
    return {"id": "c", "object": "chat.completion", "created": 1, "model": MODEL, "choices": choices, "usage": usage}


@pytest.fixture
def model(serving: Any) -> Iterator[Callable[..., Model]]:
    """Starts servers; all end with the test."""
    with _Stack(serving) as stack:
        yield stack.start


class _Stack:
    def __init__(self, serving: Any):
        self.serving = serving
        self.running: list[tuple[Model, Any]] = []

    def start(self, port: int = 0, **options: Any) -> Model:
        server = Model(port, **options)
        context = self.serving(server)
        context.__enter__()
        self.running.append((server, context))
        return server

    def __enter__(self) -> _Stack:
        return self

    def __exit__(self, *error: object) -> None:
        for server, context in self.running:
            server.stopping.set()
            context.__exit__(None, None, None)


def toy_record(number: int) -> dict[str, Any]:
    """A failed run of the toy world; each has a prompt of its own, so that a request tells whose it is."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": f"run {number}: reach 9"}]
    for done in range(1, 5):
        call = {"id": f"call_{done}", "type": "function", "function": {"name": "add", "arguments": '{"by": 1}'}}
        messages.append({"role": "assistant", "content": "", "tool_calls": [call]})
        messages.append({"role": "tool", "tool_call_id": f"call_{done}", "content": f'{{"total": {done}}}'})
    return {"task_id": f"t{number}", "reward": 0.0, "metadata": {"target": 9}, "messages": messages}


@dataclass
class Done:
    code: int
    report: dict[str, Any]
    err: str


@dataclass
class Cli:
    folder: Path
    capsys: pytest.CaptureFixture[str]

    def __call__(self, *words: str) -> Done:
        self.capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main(["--db", str(self.folder / "ttc.duckdb"), "--json", *words])
        told = self.capsys.readouterr()
        return Done(int(cast("int", left.value.code)), json.loads(told.out) if told.out else {}, told.err)

    def search(self, base: str, *words: str, **options: Any) -> Done:
        given = {"model": f"openai/{MODEL}", "api_base": base, "api_key": "k", "retries": 0, **options}
        policy = [word for key, value in given.items() for word in ("--policy-opt", f"{key}={json.dumps(value)}")]
        world = ["--env", f"{TOYS}:Counter", "--reward", "environment", "--success-at", "2"]
        return self("search", *world, "--policy", "litellm", *policy, *words)


@pytest.fixture
def cli(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Cli:
    made = Cli(tmp_path, capsys)
    logs = tmp_path / "toys.jsonl"
    logs.write_text("".join(json.dumps(toy_record(number)) + "\n" for number in range(RUNS)), encoding="utf-8")
    assert made("ingest", str(logs)).code == 0
    return made


BEAM = ("--algorithm", "beam", "--algorithm-opt", "branching=3", "--algorithm-opt", "beam_width=2", "--budget", "15")


def test_siblings_are_one_request_and_a_server_that_gives_one_is_asked_again(cli: Cli, model: Any) -> None:
    whole, single = model(), model(knows_n=False)
    first = cli.search(whole.base, *BEAM, "--name", "n")
    second = cli.search(single.base, *BEAM, "--name", "one")
    assert (first.code, second.code) == (0, 0)
    assert {body.get("n", 1) for body in whole.bodies} == {3}
    assert [row["transitions"] for row in first.report["trajectories"]] == [15] * RUNS
    assert all(row["transitions"] >= 12 for row in second.report["trajectories"]), "a proposal said twice is a vote"
    contexts = Counter(json.dumps(body["messages"]) for body in single.bodies)
    assert {count % 3 for count in contexts.values()} == {0}, "each node gets its three"
    seeds = [(json.dumps(body["messages"]), body["seed"]) for body in single.bodies]
    assert len(set(seeds)) == len(seeds), "under another seed each time"
    assert second.report["totals"]["calls"] == len(single.bodies), "each is a call of its own"
    assert second.report["totals"]["tokens"] == 25 * len(single.bodies)


@pytest.mark.parametrize("limit", [1, 10, 17])
def test_asking_again_keeps_to_the_limit(cli: Cli, model: Any, limit: int) -> None:
    server = model(knows_n=False)
    words = (*BEAM, "--max-calls", str(limit * RUNS))
    done = cli.search(server.base, *words)
    assert done.code == 0
    assert len(server.bodies) <= limit * RUNS
    assert done.report["totals"]["calls"] == len(server.bodies)
    again = cli.search(server.base, *words)
    assert again.report["trajectories"] == done.report["trajectories"], "the same limit allows no more"
    assert done.report["totals"]["calls"] == len(server.bodies)


def test_a_cut_in_the_middle_of_an_ask_loses_nothing(cli: Cli, model: Any) -> None:
    """The first of three siblings was answered, the server died before the others."""
    server = model(knows_n=False)
    whole = cli.search(server.base, *BEAM, "--name", "whole", "--concurrency", "1")
    server.shutdown()
    server.server_close()
    asked = [json.dumps(body, sort_keys=True) for body in server.bodies]
    (cli.folder / "cut").mkdir()
    run = Cli(cli.folder / "cut", cli.capsys)
    assert run("ingest", str(cli.folder / "toys.jsonl")).code == 0
    port = server.server_port
    for after in (5, 6):  # one answer of a node's three, then two
        cut = model(port, knows_n=False)
        cut.dies_after = after
        assert run.search(cut.base, *BEAM, "--name", "whole", "--concurrency", "1").code == 7
        cut.shutdown()
        cut.server_close()
    rest = model(port, knows_n=False)
    end = run.search(rest.base, *BEAM, "--name", "whole", "--concurrency", "1")
    assert end.code == 0
    assert [row["transitions"] for row in end.report["trajectories"]] == [
        row["transitions"] for row in whole.report["trajectories"]
    ]
    assert end.report["totals"]["tokens"] == whole.report["totals"]["tokens"]
    assert [json.dumps(body, sort_keys=True) for body in rest.bodies] == asked[11:]


def switches(bodies: list[dict[str, Any]]) -> int:
    """How often one request is of another run than the one before it."""
    runs = [body["messages"][0]["content"] for body in bodies]
    return sum(first != second for first, second in pairwise(runs))


def hit_rate(bodies: list[dict[str, Any]], slots: int) -> float:
    """The share of messages that a cache of the latest `slots` conversations has already, by longest prefix."""
    held: list[list[str]] = []
    hit = total = 0
    for body in bodies:
        context = [json.dumps(row) for row in body["messages"]]
        common = [
            next((i for i, (a, b) in enumerate(zip(context, old, strict=False)) if a != b), min(len(context), len(old)))
            for old in held
        ]
        hit += max(common, default=0)
        total += len(context)
        if common and max(common) == len(held[common.index(max(common))]):
            held.pop(common.index(max(common)))  # it grows: the conversation goes on in its slot
        held = [*held, context][-slots:]
    return hit / total


@pytest.mark.parametrize(("concurrency", "least_hit"), [(1, 0.5), (4, 0.45)])
@pytest.mark.parametrize("algorithm", ["best-of-n", "mcts"])
def test_requests_with_a_common_prefix_follow_each_other(
    cli: Cli, model: Any, algorithm: str, concurrency: int, least_hit: float
) -> None:
    """In the order of asking, as they came before, the rates are 0.12 to 0.15 alone and 0.33 to 0.35 four at a time."""
    server = model(delay_seconds=0.002)
    words = ("--algorithm", algorithm, "--budget", "24", "--concurrency", str(concurrency))
    assert cli.search(server.base, *words, concurrency=concurrency).code == 0
    assert hit_rate(server.bodies, concurrency) >= least_hit
    if concurrency == 1:
        assert switches(server.bodies) == RUNS - 1, "one run after the other"


def test_the_order_of_requests_does_not_change_the_trees(cli: Cli, model: Any) -> None:
    server = model()
    reports = [
        cli.search(
            server.base, "--budget", "16", "--name", f"at-{concurrency}", "--concurrency", str(concurrency)
        ).report
        for concurrency in (1, 4)
    ]
    trees = [[(row["id"], row["best"], row["transitions"]) for row in report["trajectories"]] for report in reports]
    assert trees[0] == trees[1]
    asked = len(server.bodies)
    assert asked == len({json.dumps(body, sort_keys=True) for body in server.bodies}), "the second run asks for nothing"


def test_a_server_that_is_down_costs_nothing_and_is_told(cli: Cli, model: Any) -> None:
    server = model()
    base = server.base
    server.shutdown()
    server.server_close()
    done = cli.search(base, "--budget", "4")
    assert done.code == 7
    assert f"error[TTC-E501]: cannot reach openai/{MODEL} at {base}" in done.err
    assert "hint: is the server running" in done.err
    assert "docs/servers.md" in done.err
    assert done.report["totals"]["calls"] == 0
    assert server.bodies == []


@pytest.mark.parametrize(("option", "value", "words"), [("model", "openai/other", "it serves local-model")])
def test_a_model_that_is_not_served(cli: Cli, model: Any, option: str, value: str, words: str) -> None:
    server = model()
    done = cli.search(server.base, "--budget", "4", **{option: value})
    assert done.code == 7
    assert words in done.err
    assert server.bodies == []


def test_a_server_that_goes_down_in_the_middle_is_told_and_the_run_goes_on_later(cli: Cli, model: Any) -> None:
    """Down after some requests, then really gone, then up again at the same address."""
    server = model()
    port, command = server.server_port, ("--budget", "20", "--name", "run", "--concurrency", "2")
    server.dies_after = 30
    first = cli.search(server.base, *command)
    assert first.code == 7
    assert "error[TTC-E501]" in first.err
    assert 0 < first.report["totals"]["calls"] <= 30
    server.shutdown()
    server.server_close()
    still = cli.search(server.base, *command)
    assert (still.code, still.report["totals"]["calls"]) == (7, first.report["totals"]["calls"])
    assert "cannot reach" in still.err
    answered = {json.dumps(body, sort_keys=True) for body in server.bodies[:30]}
    again = model(port)
    last = cli.search(again.base, *command)
    assert last.code == 0
    assert {row["stopped"] for row in last.report["trajectories"]} == {"budget"}
    assert [row["transitions"] for row in last.report["trajectories"]] == [20] * RUNS
    assert answered.isdisjoint(json.dumps(body, sort_keys=True) for body in again.bodies), "nothing is paid twice"
    again.shutdown()
    again.server_close()
    after = cli.search(again.base, *command)
    assert (after.code, after.report["trajectories"]) == (0, last.report["trajectories"]), (
        "a finished run needs no server"
    )


def test_a_limit_of_cost_that_cannot_bind_is_told_at_once(
    cli: Cli, model: Any, caplog: pytest.LogCaptureFixture
) -> None:
    server = model()
    free = cli.search(server.base, "--budget", "2", "--max-cost", "1.0", "--name", "free")
    said = [line for line in caplog.messages if "--max-cost cannot bind" in line]
    assert (free.code, len(said)) == (0, 1)
    assert free.report["policy"]["name"] == "litellm"
    assert free.report["policy"]["priced"] is False
    assert free.report["totals"]["cost_usd"] == 0.0
    caplog.clear()
    prices = {"input_cost_per_token": 1e-3, "output_cost_per_token": 1e-2, "max_tokens": 5}
    words = ("--budget", "50", "--max-cost", "1.2", "--name", "priced")
    priced = cli.search(server.base, *words, **prices)
    assert [line for line in caplog.messages if "cannot bind" in line] == []
    assert priced.report["policy"]["priced"] is True
    calls = priced.report["totals"]["calls"]
    assert priced.report["totals"]["cost_usd"] == pytest.approx(calls * (20e-3 + 5e-2))
    assert 0 < priced.report["totals"]["cost_usd"] <= 1.2, "and binds"


DOCS = Path(__file__).parents[3] / "docs" / "servers.md"
RECIPE = re.compile(r"^<!-- server: (\S+) -->\n```bash\n(.*?)^```$", re.DOTALL | re.MULTILINE)
ON_THE_WIRE = {
    "vllm": {"logprobs": True, "return_token_ids": True, "top_k": -1, "min_p": 0.0},
    "sglang": {"logprobs": True, "top_k": -1, "min_p": 0.0},
    "llamacpp": {"logprobs": True, "top_p": 1.0, "cache_prompt": True, "top_k": 0, "min_p": 0.0},
}


def recipes() -> dict[str, str]:
    """The commands of docs/servers.md by server."""
    return {found[1]: found[2] for found in RECIPE.finditer(DOCS.read_text("utf-8"))}


@pytest.mark.parametrize("name", ON_THE_WIRE)
def test_the_recipes_run(name: str, model: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As they stand, but for the address: it is that of a loopback server."""
    assert set(recipes()) == set(ON_THE_WIRE)
    logs = DOCS.parents[1] / "examples" / "bookkeeping" / "logs" / "easy.jsonl"
    first = tmp_path / "easy.jsonl"
    with logs.open(encoding="utf-8") as lines:
        first.write_text("".join(islice(lines, 2)), encoding="utf-8")
    run = Cli(tmp_path, capsys)
    assert run("ingest", str(first)).code == 0
    server = model(name="qwen3-8b", owner=name)
    text, addresses = re.subn(r"http://localhost:\d+/v1", server.base, recipes()[name].replace("\\\n", " "))
    words = shlex.split(text)
    assert (words[0], addresses) == ("ttc-replay", 1)
    done = run(*words[1:])
    assert done.code == 0, done.err
    assert 0 < len(server.bodies) <= 200
    for body in server.bodies:
        assert ON_THE_WIRE[name].items() <= body.items()
        assert body["model"] == "qwen3-8b"
        assert isinstance(body["seed"], int)
        assert body["tools"]
