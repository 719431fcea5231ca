"""Faults of a provider, over a real loopback server and through the whole engine, for four algorithms.

What a retry mends leaves no trace in the tree; what it does not ends the run with exit code 7, keeps what was paid for,
and the same command goes on from there. Budgets hold by the server's own count.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import pytest

from ttc_replay.cli import jobs
from ttc_replay.cli.search import exit_code
from ttc_replay.replay.engine import Plugins
from ttc_replay.replay.policies.litellm import LiteLLMPolicy
from ttc_replay.replay.running import Ran, run_search
from ttc_replay.replay.settings import Limits, Settings
from ttc_replay.storage.database import Database
from ttc_replay.storage.journal import read_journal
from ttc_replay.storage.records import Spec

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("litellm") is None, reason="the extra [litellm] is not installed"),
    # LiteLLM installs this very filter when it is imported; pytest undoes it for each test.
    pytest.mark.filterwarnings("ignore:.*`ReadOnly` qualifier.*:UserWarning"),
    # aiohttp warns of a request over 1 MiB: a conversation with huge replies in it.
    pytest.mark.filterwarnings("ignore:Sending a large body directly:ResourceWarning"),
]

TOYS = Path(__file__).parents[1] / "cli" / "toy_plugins.py"
ALGORITHMS = ("best-of-n", "beam", "mcts", "tot-bfs")
MODEL = "openai/gpt-4o-mini"
"""A model with a price in LiteLLM's map, so that money is counted, too."""
USD_PER_TOKEN = (0.15e-6, 0.60e-6)
MAX_TOKENS = 16
TIMEOUT_SECONDS = 20.0
SHORT_TIMEOUT_SECONDS = 0.5  # of the client that a slow server is to time out
RETRIES = 2
HUGE = "x" * 300_000


# --- the server ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fault:
    """How the server misbehaves: what becomes of the whole reply, or a status instead of it.

    `cut` sends half of the body and resets the connection; `drop` closes it unanswered; `edit` changes the reply.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_seconds: float = 0.0
    cut: bool = False
    drop: bool = False
    body: bytes | None = None
    edit: Callable[[dict[str, Any]], None] | None = None


NONE = Fault()


class Provider(ThreadingHTTPServer):
    """An OpenAI-compatible server that answers by the seed and reports the worst case as usage.

    `faulty` decides on each request, by its number from 0 and its body. `asked`, `answered`: requests by identity,
    those that came and those whose reply went out whole with choices in it. `usage`: tokens of all replies that went
    out with a usage, discarded ones too.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.lock = threading.Lock()
        self.stopping = threading.Event()
        self.reset()

    def reset(self) -> None:
        self.faulty: Callable[[int, dict[str, Any]], Fault] = lambda number, body: NONE
        self.asked: list[str] = []
        self.answered: Counter[str] = Counter()
        self.usage: list[tuple[int, int]] = []

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    @property
    def tokens(self) -> int:
        return sum(prompt + completion for prompt, completion in self.usage)

    @property
    def cost_usd(self) -> float:
        return sum(prompt * USD_PER_TOKEN[0] + completion * USD_PER_TOKEN[1] for prompt, completion in self.usage)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that time out break pipes: expected here."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_POST(self) -> None:
        server = cast("Provider", self.server)
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        identity = json.dumps([body["seed"], body["messages"]])
        with server.lock:
            fault = server.faulty(len(server.asked), body)
            server.asked.append(identity)
        if server.stopping.wait(fault.delay_seconds):
            return
        self._send(server, fault, body, identity)

    def _send(self, server: Provider, fault: Fault, body: dict[str, Any], identity: str) -> None:
        self.close_connection = fault.cut or fault.drop
        if fault.drop:
            return
        reply: dict[str, Any] = (
            completion(body) if fault.status == 200 else {"error": {"message": "not now", "type": "t", "code": "c"}}
        )
        if fault.edit is not None:
            fault.edit(reply)
        payload = json.dumps(reply).encode() if fault.body is None else fault.body
        self.send_response(fault.status)
        for name, value in {"content-type": "application/json", **fault.headers}.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload[: len(payload) // 2] if fault.cut else payload)
        if fault.cut:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            os.close(self.connection.detach())
        elif fault.body is None and fault.status == 200:
            with server.lock:
                if reply.get("choices"):
                    server.answered[identity] += 1
                usage = reply.get("usage")
                if usage:
                    server.usage.append((usage["prompt_tokens"], usage["completion_tokens"]))


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


@pytest.fixture(scope="module")
def _provider() -> Iterator[Provider]:
    with Provider() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield running
        running.stopping.set()
        running.shutdown()
        thread.join()


@pytest.fixture
def provider(_provider: Provider) -> Provider:
    """One server for all tests (its address is in the run's identity), each with a clean log and no fault."""
    _provider.reset()
    return _provider


# --- faults ----------------------------------------------------------------------------------------------------------


def edited(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda reply: reply.update(changes)


def first_call(**changes: str) -> Callable[[dict[str, Any]], None]:
    return lambda reply: reply["choices"][0]["message"]["tool_calls"][0]["function"].update(changes)


def huge(reply: dict[str, Any]) -> None:
    reply["choices"][0]["message"]["content"] = HUGE


MENDED: dict[str, Fault] = {
    "429": Fault(429),
    "429 with Retry-After": Fault(429, {"retry-after": "3"}),
    "500": Fault(500),
    "503": Fault(503),
    "time-out": Fault(delay_seconds=2 * SHORT_TIMEOUT_SECONDS),
    "closed unanswered": Fault(drop=True),
    "reset in the middle of the body": Fault(cut=True),
    "half of the JSON": Fault(body=b'{"id": "c1", "object": "chat.completion", "choices": [{"index": 0, "mess'),
    "an error body under 200": Fault(body=b'{"error": {"message": "overloaded", "type": "t", "code": 500}}'),
    "no choices": Fault(edit=edited(choices=[])),
}
"""What another attempt mends. These come now and then, by the number of the request."""

LASTING: dict[str, tuple[Fault, str]] = {
    "429": (Fault(429), "TTC-E501"),
    "429 with Retry-After": (Fault(429, {"retry-after": "900"}), "TTC-E501"),
    "500": (Fault(500), "TTC-E501"),
    "closed unanswered": (Fault(drop=True), "TTC-E501"),
    "reset in the middle of the body": (Fault(cut=True), "TTC-E501"),
    "half of the JSON": (MENDED["half of the JSON"], "TTC-E503"),
    "an error body under 200": (MENDED["an error body under 200"], "TTC-E503"),
    "no choices": (MENDED["no choices"], "TTC-E503"),
    "401": (Fault(401), "TTC-E502"),
}
"""The same for ever, from some request on, and the error that the run ends with."""

ODD: dict[str, tuple[Fault, str]] = {
    "malformed arguments": (Fault(edit=first_call(arguments='{"by": ')), "Error: the arguments are not a JSON object"),
    "arguments that are a list": (
        Fault(edit=first_call(arguments="[1]")),
        "Error: the arguments are not a JSON object",
    ),
    "an unknown tool": (Fault(edit=first_call(name="subtract")), "Error: there is no tool subtract"),
    "no usage": (Fault(edit=lambda reply: reply.pop("usage") and None), '"usage":{}'),
    "huge": (Fault(edit=huge), HUGE),
    "slow": (Fault(delay_seconds=0.05), ""),
}
"""Replies that are taken, by their seed, and what the journal then has: an impossible call is answered as an error."""


def now_and_then(fault: Fault) -> Callable[[int, dict[str, Any]], Fault]:
    return lambda number, body: fault if number % 5 == 1 else NONE


def first_attempts(fault: Fault) -> Callable[[int, dict[str, Any]], Fault]:
    """Each call is answered at its second attempt only."""
    seen: set[int] = set()

    def faulty(number: int, body: dict[str, Any]) -> Fault:
        again = body["seed"] in seen
        seen.add(body["seed"])
        return NONE if again else fault

    return faulty


def from_request(first: int, fault: Fault) -> Callable[[int, dict[str, Any]], Fault]:
    return lambda number, body: fault if number >= first else NONE


def by_seed(fault: Fault) -> Callable[[int, dict[str, Any]], Fault]:
    return lambda number, body: fault if body["seed"] % 2 == 0 or len(body["messages"]) == 1 else NONE


# --- the client ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Search:
    """A search of two toy runs over a copy of their archive; `again` is the same command once more."""

    archive: Path
    settings: Settings
    provider: Provider
    plugins: Plugins
    waits: list[float]

    def run(self, **changes: Any) -> Ran:
        settings = replace(self.settings, **changes)
        policy = LiteLLMPolicy(**settings.policy.options, sleep=self._sleep)
        with Database.open(str(self.archive), create=False) as archive:
            known = jobs.recorded(archive)
            return run_search(archive, settings, "run", known[:2], known, replace(self.plugins, policy=policy))

    async def _sleep(self, seconds: float) -> None:
        self.waits.append(seconds)

    def stored(self) -> tuple[int, list[str]]:
        """Nodes in the database, and the keys of the calls that its cache has."""
        with Database.open(str(self.archive), create=False) as archive:
            nodes = archive.query("select count(*) from nodes")[1][0][0]
            return nodes, [row[0] for row in archive.query("select key from calls order by key")[1]]

    @property
    def journal(self) -> Path:
        return Path(f"{self.archive}.runs") / "run" / "journal.jsonl"

    def results(self) -> list[str]:
        """The keys of calls whose result the journal has."""
        events, _ = read_journal(self.journal)
        return [event["key"] for event in events if event["event"] == "result"]


def code_of(ran: Ran) -> int:
    """The exit code, as the command line gives it."""
    return ran.error.exit_code if ran.error is not None else exit_code(ran)


MakeSearch = Callable[..., Search]


@pytest.fixture(scope="module")
def built() -> dict[str, Plugins]:
    """World and rewards by algorithm: building them costs as much as a small search."""
    return {}


@pytest.fixture
def make_search(job: Any, provider: Provider, built: dict[str, Plugins], tmp_path: Path) -> MakeSearch:
    def make(algorithm: str, folder: str = "faults", **options: Any) -> Search:
        (tmp_path / folder).mkdir()
        archive = shutil.copy(job.after_folder("ingest") / "ttc.duckdb", tmp_path / folder / "ttc.duckdb")
        policy = {"model": MODEL, "api_base": provider.base, "api_key": "sk-test", "max_tokens": MAX_TOKENS}
        settings = Settings(
            environment=Spec(f"{TOYS}:Counter"),
            policy=Spec("litellm", {**policy, "timeout_seconds": TIMEOUT_SECONDS, "retries": RETRIES, **options}),
            rewards=((Spec("environment"), 1.0),),
            algorithm=Spec(algorithm),
            success_at=2.0,
            budget=8,
            width=3,
            concurrency=3,
        )
        if algorithm not in built:
            built[algorithm] = jobs.make_plugins(replace(settings, policy=Spec("corpus")))
        return Search(Path(archive), settings, provider, built[algorithm], [])

    return make


@pytest.fixture(scope="module")
def calm() -> dict[str, str]:
    """The digest of each algorithm's run without faults, filled by `digest_without_faults`."""
    return {}


@pytest.fixture
def digest_without_faults(calm: dict[str, str], make_search: MakeSearch, provider: Provider) -> Callable[[str], str]:
    def of(algorithm: str) -> str:
        if algorithm not in calm:
            ran = make_search(algorithm, "calm").run()
            assert code_of(ran) == 0
            calm[algorithm] = ran.digest
            provider.reset()
        return calm[algorithm]

    return of


# --- tests -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("what", MENDED)
def test_what_a_retry_mends_leaves_no_trace(
    make_search: MakeSearch, provider: Provider, digest_without_faults: Any, what: str, algorithm: str
) -> None:
    expected = digest_without_faults(algorithm)
    hasty = {"timeout_seconds": SHORT_TIMEOUT_SECONDS, "retries": 9} if what == "time-out" else {}
    search = make_search(algorithm, **hasty)
    provider.faulty = now_and_then(MENDED[what])
    ran = search.run()
    assert (code_of(ran), ran.failures) == (0, [])
    assert ran.digest == expected
    assert len(search.waits) == len(provider.asked) - len(search.results()) > 0, "each fault was waited for"
    if "retry-after" in MENDED[what].headers:
        assert min(search.waits) >= 3
    assert set(provider.answered) == set(provider.asked), "every call was answered in the end"
    assert len(search.results()) == len(set(search.results())) == len(provider.answered)
    assert ran.report["totals"]["tokens"] == provider.tokens, "discarded replies are counted, too"


def each_with_one(names: Iterable[str], all_of: Collection[str]) -> list[tuple[str, str]]:
    """Names in `all_of` with every algorithm, the others with one in turn."""
    pairs = []
    for number, name in enumerate(names):
        chosen = ALGORITHMS if name in all_of else (ALGORITHMS[number % len(ALGORITHMS)],)
        pairs += [(name, algorithm) for algorithm in chosen]
    return pairs


@pytest.mark.parametrize(
    ("what", "algorithm"), each_with_one(LASTING, {"429", "reset in the middle of the body", "no choices"})
)
def test_what_no_retry_mends_ends_the_run_and_loses_nothing(
    make_search: MakeSearch, provider: Provider, digest_without_faults: Any, what: str, algorithm: str
) -> None:
    expected = digest_without_faults(algorithm)
    fault, code = LASTING[what]
    search = make_search(algorithm)
    provider.faulty = from_request(3, fault)
    ran = search.run()
    assert code_of(ran) == 7
    assert ran.error is not None
    assert ran.error.error_code == code
    assert ran.error.hint
    results = search.results()
    assert len(results) == len(provider.answered) > 0, "what was paid for is in the journal"
    assert search.stored()[1] == sorted(results), "and in the cache for other runs"
    assert ran.report["totals"]["calls"] <= len(results)
    assert len(provider.asked) <= 3 + search.settings.concurrency * (RETRIES + 1)

    answered = dict(provider.answered)
    provider.reset()
    again = search.run()
    assert (code_of(again), again.digest) == (0, expected)
    assert set(answered).isdisjoint(provider.asked), "what was answered is not asked for again"
    assert search.stored()[0] > 0


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("what", ODD)
def test_odd_replies_are_data(make_search: MakeSearch, provider: Provider, what: str, algorithm: str) -> None:
    fault, text = ODD[what]
    search = make_search(algorithm)
    provider.faulty = by_seed(fault)
    ran = search.run()
    assert (code_of(ran), ran.failures) == (0, []), ran.error
    assert text in search.journal.read_text()
    assert {row["stopped"] for row in ran.report["trajectories"]} <= {"budget", "exhausted"}
    assert len(search.results()) == len(provider.answered) == len(provider.asked)
    asked = len(provider.asked)
    assert (search.run().digest, len(provider.asked)) == (ran.digest, asked), "a finished run asks for nothing"


LIMITS = {
    "calls": Limits(calls=8),
    "tokens": Limits(tokens=2000),
    "money": Limits(cost_usd=0.0004),
}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize(
    ("limit", "what"),
    [
        *(("tokens", what) for what in ("no fault", "429", "reset in the middle of the body", "no choices")),
        *((limit, what) for limit in ("calls", "money") for what in ("no fault", "no choices")),
    ],
)
def test_budgets_hold_by_the_servers_own_count(
    make_search: MakeSearch, provider: Provider, limit: str, what: str, algorithm: str
) -> None:
    """The server reports the worst case for every reply, so that a reservation that is too small would show."""
    search, limits = make_search(algorithm), LIMITS[limit]
    provider.faulty = first_attempts(MENDED.get(what, NONE))
    ran = search.run(limits=limits, budget=1000)
    assert code_of(ran) == 0 or (what == "no choices" and "the budget allows no other" in str(ran.error))
    assert {row["stopped"] for row in ran.report["trajectories"]} <= ({"budget"} if ran.error is None else {"error"})
    assert len(search.results()) > 0, "what was found within the budget is usable"
    spent = {"calls": len(provider.usage), "tokens": provider.tokens, "money": provider.cost_usd}[limit]
    allowed = {"calls": limits.calls, "tokens": limits.tokens, "money": limits.cost_usd}[limit]
    assert allowed is not None
    assert spent <= allowed + 1e-9
    if ran.error is None and limit == "calls":
        assert ran.report["totals"]["calls"] == len(provider.usage)
        assert ran.report["totals"]["cost_usd"] == pytest.approx(provider.cost_usd)
        asked = len(provider.asked)
        again = search.run(limits=limits, budget=1000)
        assert (again.digest, len(provider.asked)) == (ran.digest, asked), "the same budget allows no more"


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_calls_without_usage_cost_the_worst_case(make_search: MakeSearch, provider: Provider, algorithm: str) -> None:
    """Unknown is not nothing: a server that reports no usage must not make a token budget endless."""
    search = make_search(algorithm)
    honest: list[int] = []

    def silent(reply: dict[str, Any]) -> None:
        honest.append(reply.pop("usage")["total_tokens"])

    provider.faulty = lambda number, body: Fault(edit=silent)
    ran = search.run(limits=Limits(tokens=2000), budget=1000)
    assert code_of(ran) == 0
    assert 0 < sum(honest) <= 2000
