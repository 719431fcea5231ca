"""A provider on the loopback that misbehaves as it is told, and a small search whose policy calls it.

Every test that asks for `fault` or `algorithm` runs with each of `FAULTS` and each of `ALGORITHMS`: none is left out.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal, cast

import pytest

from ttc_replay.cli import jobs
from ttc_replay.cli.main import main
from ttc_replay.cli.search import exit_code
from ttc_replay.replay.calls import proposal_from_dict
from ttc_replay.replay.engine import Plugins
from ttc_replay.replay.policies.litellm import LiteLLMPolicy
from ttc_replay.replay.running import Ran, run_search
from ttc_replay.replay.settings import Limits, Settings
from ttc_replay.storage.database import Database
from ttc_replay.storage.journal import read_journal
from ttc_replay.storage.records import Spec

TOYS = Path(__file__).parents[2] / "cli" / "toy_plugins.py"
ALGORITHMS = ("best-of-n", "beam", "mcts", "tot-dfs")
MODEL = "openai/gpt-4o-mini"
"""A model with a price in LiteLLM's map, so that money is counted, too."""
USD_PER_TOKEN = (0.15e-6, 0.60e-6)
MAX_TOKENS = 16
TIMEOUT_SECONDS = 20.0
SHORT_TIMEOUT_SECONDS = 0.4
"""Of the client that a silent server is to time out."""
RETRIES = 2
LIMITS = Limits(calls=14, tokens=1600, cost_usd=0.0005)
"""Small enough to end each search here, whatever its budget of transitions."""
HUGE = "x" * 300_000


# --- faults ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fault:
    """How one request is answered wrongly, and what becomes of it.

    `becomes`: "nothing" (no reply came; tried again at no cost), "useless" (a whole reply came that is no completion;
    it is paid for and asked for once more), "refused" (no attempt helps), "data" (taken as it is). `code` is the error
    of a run that meets nothing else, `text` what the journal then has of a reply that was taken.

    On the wire: `silent` answers nothing until the client leaves; `cut` sends half of the body and resets the
    connection; `half` sends half of it as if it were all; `drop` closes unanswered; `edit` changes the reply.
    """

    becomes: Literal["nothing", "useless", "refused", "data"]
    code: str = ""
    text: str = ""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_seconds: float = 0.0
    silent: bool = False
    cut: bool = False
    half: bool = False
    drop: bool = False
    edit: Callable[[dict[str, Any]], object] | None = None

    @property
    def charged(self) -> bool:
        """Whether the provider made a completion for it that a client could receive."""
        return self.becomes in ("useless", "data")


def error_body(reply: dict[str, Any]) -> None:
    usage = reply["usage"]
    reply.clear()
    reply.update(error={"message": "overloaded", "type": "t", "code": 500}, usage=usage)


def first_call(**changes: str) -> Callable[[dict[str, Any]], object]:
    return lambda reply: reply["choices"][0]["message"]["tool_calls"][0]["function"].update(changes)


FAULTS: dict[str, Fault] = {
    "429": Fault("nothing", "TTC-E501", status=429),
    "429 with Retry-After": Fault("nothing", "TTC-E501", status=429, headers={"retry-after": "3"}),
    "500": Fault("nothing", "TTC-E501", status=500),
    "time-out": Fault("nothing", "TTC-E501", silent=True),
    "closed unanswered": Fault("nothing", "TTC-E501", drop=True),
    "reset in the middle of the body": Fault("nothing", "TTC-E501", cut=True),
    "half of the JSON": Fault("useless", "TTC-E503", half=True),
    "an error body under 200": Fault("useless", "TTC-E503", edit=error_body),
    "no choices": Fault("useless", "TTC-E503", edit=lambda reply: reply.update(choices=[])),
    "no choices, no usage": Fault(
        "useless", "TTC-E503", edit=lambda reply: (reply.update(choices=[]), reply.pop("usage"))
    ),
    "401": Fault("refused", "TTC-E502", status=401),
    "malformed arguments": Fault(
        "data", text="Error: the arguments are not a JSON object", edit=first_call(arguments='{"by": ')
    ),
    "an unknown tool": Fault("data", text="Error: there is no tool subtract", edit=first_call(name="subtract")),
    "no usage": Fault("data", text='"usage":{}', edit=lambda reply: reply.pop("usage")),
    "huge": Fault("data", text=HUGE, edit=lambda reply: reply["choices"][0]["message"].update(content=HUGE)),
    "slow": Fault("data", delay_seconds=0.05),
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "algorithm" in metafunc.fixturenames:
        metafunc.parametrize("algorithm", ALGORITHMS)
    if "fault" in metafunc.fixturenames:
        metafunc.parametrize("fault", FAULTS.values(), ids=list(FAULTS))


# --- the server ------------------------------------------------------------------------------------------------------


Faulty = Callable[[dict[str, Any], bool], "Fault | None"]
"""What is wrong with a request, by its body and whether it is its call's first attempt."""


class Provider(ThreadingHTTPServer):
    """An OpenAI-compatible server that answers by the seed; its completions cost the worst case.

    Its log: `asked`, every request by the identity of its call, in order of arrival; `answered`, by the same identity
    the tool calls of each reply that went out whole with choices in it; `charged`, prompt and completion tokens of
    every completion that it made and sent, useless ones too.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.lock = threading.Lock()
        self.stopping = threading.Event()
        self.reset()

    def reset(self) -> None:
        self.faulty: Faulty = lambda body, first: None
        self.asked: list[str] = []
        self.answered: dict[str, list[str]] = {}
        self.charged: list[tuple[int, int]] = []

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    @property
    def tokens(self) -> int:
        return sum(prompt + completion for prompt, completion in self.charged)

    @property
    def cost_usd(self) -> float:
        return sum(prompt * USD_PER_TOKEN[0] + completion * USD_PER_TOKEN[1] for prompt, completion in self.charged)

    def sent(self) -> Counter[str]:
        """The tool calls of every reply that went out whole."""
        return Counter(text for replies in self.answered.values() for text in replies)

    def now_and_then(self, fault: Fault) -> None:
        """One reply in three is faulty: by the seed, or, where one may ask again, each second call's first attempt."""
        calls: list[str] = []

        def faulty(body: dict[str, Any], first: bool) -> Fault | None:
            if fault.becomes == "data":
                return fault if body["seed"] % 3 == 0 or len(body["messages"]) == 1 else None
            calls.extend(["call"] * first)
            return fault if first and len(calls) % 2 == 0 else None

        self.faulty = faulty

    def from_request(self, number: int, fault: Fault) -> None:
        """All requests from that one on are answered so."""
        self.faulty = lambda body, first: fault if len(self.asked) >= number else None

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that time out break pipes: expected here."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else each reply waits 40 ms for the acknowledgement of its head

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_POST(self) -> None:
        server = cast("Provider", self.server)
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        identity = identity_of(body)
        with server.lock:
            fault = server.faulty(body, identity not in server.asked) or Fault("data")
            server.asked.append(identity)
        server.stopping.wait(fault.delay_seconds)
        self.close_connection = fault.cut or fault.drop or fault.silent
        if fault.silent:
            self._wait_for_the_client_to_leave(server)
        elif not fault.drop:
            self._send(server, fault, body, identity)

    def _wait_for_the_client_to_leave(self, server: Provider) -> None:
        while not server.stopping.is_set() and not select.select([self.connection], [], [], 0.05)[0]:
            pass

    def _send(self, server: Provider, fault: Fault, body: dict[str, Any], identity: str) -> None:
        reply = completion(body)
        usage = reply["usage"]["prompt_tokens"], reply["usage"]["completion_tokens"]
        if fault.status != 200:
            reply = {"error": {"message": "not now", "type": "t", "code": "c"}}
        if fault.edit is not None:
            fault.edit(reply)
        payload = json.dumps(reply).encode()
        payload = payload[: len(payload) // 2] if fault.half else payload
        self.send_response(fault.status)
        for name, value in {"content-type": "application/json", **fault.headers}.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload[: len(payload) // 2] if fault.cut else payload)
        if fault.cut:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            os.close(self.connection.detach())
        elif fault.charged:
            with server.lock:
                server.charged.append(usage)
                if fault.becomes == "data":
                    server.answered.setdefault(identity, []).append(calls_of(reply))


def identity_of(body: Mapping[str, Any]) -> str:
    """What makes two requests the same call."""
    return json.dumps([body["seed"], body["messages"]])


def completion(body: Mapping[str, Any]) -> dict[str, Any]:
    """A reply of `n` additions, as long as it may be."""
    count = body.get("n", 1)
    wire = json.dumps({"messages": body["messages"], "tools": body.get("tools", [])}, ensure_ascii=False)
    prompt, answer = -(-len(wire.encode()) // 3), count * body["max_tokens"]
    return {
        "id": "c1",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-4o-mini",
        "choices": [choice(index, 1 + (body["seed"] + index) % 3) for index in range(count)],
        "usage": {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer},
    }


def choice(index: int, by: int) -> dict[str, Any]:
    call = {"id": f"call_{by}", "type": "function", "function": {"name": "add", "arguments": json.dumps({"by": by})}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    return {"index": index, "finish_reason": "tool_calls", "message": message}


def calls_of(reply: Mapping[str, Any]) -> str:
    """What a reply says to do: name and arguments of every call, as written."""
    functions = [call["function"] for item in reply["choices"] for call in item["message"]["tool_calls"]]
    return json.dumps([[function["name"], function["arguments"]] for function in functions])


@pytest.fixture(scope="session")
def _provider(serving: Any) -> Iterator[Provider]:
    provider = Provider()
    with serving(provider):
        yield provider
        provider.stopping.set()


@pytest.fixture
def provider(_provider: Provider) -> Provider:
    """One server for all tests (its address is in the run's identity), each with a clean log and no fault."""
    _provider.reset()
    return _provider


# --- the client ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Search:
    """A search of two toy runs over a copy of their archive; `run` again is the same command once more."""

    archive: Path
    settings: Settings
    provider: Provider
    plugins: Plugins
    waits: list[float] = field(default_factory=list)
    cached: list[str] = field(default_factory=list)
    """The keys of the calls that the database's cache has after a run."""

    def run(self, **changes: Any) -> Ran:
        settings = replace(self.settings, **changes)
        policy = LiteLLMPolicy(**settings.policy.options, sleep=self._sleep)
        with Database.open(str(self.archive), create=False) as archive:
            known = jobs.recorded(archive)
            ran = run_search(archive, settings, "run", known, known, replace(self.plugins, policy=policy))
            self.cached[:] = [row[0] for row in archive.query("select key from calls order by key")[1]]
        return ran

    async def _sleep(self, seconds: float) -> None:
        self.waits.append(seconds)

    @property
    def journal(self) -> Path:
        return Path(f"{self.archive}.runs") / "run" / "journal.jsonl"

    def results(self) -> dict[str, str]:
        """By key, the tool calls of each reply that the journal has; a key is there once."""
        events = [event for event in read_journal(self.journal)[0] if event["event"] == "result"]
        found = {}
        for event in events:
            calls = [call for item in event["body"] for call in proposal_from_dict(item).action.tool_calls]
            found[event["key"]] = json.dumps([[call.name, call.arguments_raw] for call in calls])
        assert len(found) == len(events)
        return found


def code_of(ran: Ran) -> int:
    """The exit code, as the command line gives it."""
    return ran.error.exit_code if ran.error is not None else exit_code(ran)


MakeSearch = Callable[..., Search]


@pytest.fixture(scope="session")
def toys(tmp_path_factory: pytest.TempPathFactory, toy_runs: list[dict[str, Any]]) -> Path:
    """Two failed runs of the toy world, ingested once."""
    folder = tmp_path_factory.mktemp("toys")
    logs = folder / "toys.jsonl"
    logs.write_text("".join(json.dumps(record) + "\n" for record in toy_runs), encoding="utf-8")
    with pytest.raises(SystemExit) as left:
        main(["--db", str(folder / "ttc.duckdb"), "-q", "ingest", str(logs)])
    assert left.value.code == 0
    return folder / "ttc.duckdb"


@pytest.fixture(scope="session")
def built() -> dict[str, Plugins]:
    """World and rewards by algorithm: building them costs as much as a small search."""
    return {}


@pytest.fixture
def make_search(toys: Path, provider: Provider, built: dict[str, Plugins], tmp_path: Path) -> MakeSearch:
    def make(algorithm: str, fault: Fault | None = None, folder: str = "faults", **changes: Any) -> Search:
        (tmp_path / folder).mkdir()
        archive = shutil.copy(toys, tmp_path / folder / "ttc.duckdb")
        hasty = {"timeout_seconds": SHORT_TIMEOUT_SECONDS, "retries": 1} if fault is not None and fault.silent else {}
        policy = {"model": MODEL, "api_base": provider.base, "api_key": "sk-test", "max_tokens": MAX_TOKENS}
        settings = Settings(
            environment=Spec(f"{TOYS}:Counter"),
            policy=Spec("litellm", {**policy, "timeout_seconds": TIMEOUT_SECONDS, "retries": RETRIES, **hasty}),
            rewards=((Spec("environment"), 1.0),),
            algorithm=Spec(algorithm),
            success_at=2.0,
            budget=1000,
            width=3,
            concurrency=3,
            limits=LIMITS,
        )
        if algorithm not in built:
            built[algorithm] = jobs.make_plugins(replace(settings, policy=Spec("corpus")))
        return Search(Path(archive), replace(settings, **changes), provider, built[algorithm])

    return make


@pytest.fixture(scope="session")
def calm() -> dict[tuple[str, str], Ran]:
    """Runs without faults, by what was searched."""
    return {}


@pytest.fixture
def without_faults(calm: dict[tuple[str, str], Ran], make_search: MakeSearch, provider: Provider) -> Callable[..., Ran]:
    """What the same search gives at a provider without faults."""

    def of(algorithm: str, **changes: Any) -> Ran:
        key = algorithm, repr(changes)
        if key not in calm:
            calm[key] = make_search(algorithm, folder="calm", **changes).run()
            assert code_of(calm[key]) == 0
            provider.reset()
        return calm[key]

    return of


@pytest.fixture
def parts() -> Any:
    """What test files need of this one (test files do not import each other)."""

    class Parts:
        faults = FAULTS
        toys = TOYS
        model = MODEL
        retries = RETRIES
        code_of = staticmethod(code_of)
        identity = staticmethod(identity_of)

    return Parts
