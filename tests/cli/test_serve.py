"""`ttc-replay serve` as a process: it says where it listens, answers, and ends on a signal; what is refused."""

from __future__ import annotations

import json
import runpy
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest

TINY = Path(__file__).parents[1] / "replay" / "local" / "tiny.py"
NEEDED = ("torch", "transformers", "safetensors", "llguidance")
SECONDS = 90
pytestmark = pytest.mark.skipif(
    any(find_spec(name) is None for name in NEEDED), reason="the extra [local] is not installed"
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made: Path = runpy.run_path(str(TINY))["tiny_folder"](tmp_path_factory.mktemp("tiny") / "model")
    return made


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TTC_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def fetched(url: str, body: dict[str, Any] | None = None) -> tuple[int, Any]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as reply:
            return reply.status, json.loads(reply.read())
    except HTTPError as refused:
        return refused.code, json.loads(refused.read())


def loaded(health: str) -> Any:
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        status, row = fetched(health)
        if status == 200:
            return row
        assert (status, row) == (503, {"status": "loading"})
        time.sleep(0.2)
    raise AssertionError("the model was not loaded in time")


OPEN = "0.0.0.0 is not a loopback address, and there is no authentication: whoever reaches it may use it"


@pytest.mark.parametrize(
    ("ending", "options", "notes"),
    [(signal.SIGINT, (), []), (signal.SIGTERM, ("--host", "0.0.0.0"), [OPEN])],
)
def test_it_serves_until_a_signal(
    spawn: Callable[..., subprocess.Popen[str]],
    model: Path,
    ending: signal.Signals,
    options: tuple[str, ...],
    notes: list[str],
) -> None:
    process = spawn("serve", "--policy", "local", "--policy-opt", f"model={model}", "--json", *options)
    assert process.stdout is not None
    told = json.loads(process.stdout.readline())
    assert told["v"] == 1
    assert told["url"].startswith(f"http://{options[1] if options else '127.0.0.1'}:")
    told = {name: text.replace("0.0.0.0", "127.0.0.1") for name, text in told.items() if name != "v"}
    assert loaded(told["health"]) == {"status": "ok", "model": "model"}
    body = {"model": "model", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4, "seed": 1}
    status, answer = fetched(told["url"] + "/chat/completions", body)
    assert (status, answer["object"]) == (200, "chat.completion")
    process.send_signal(ending)
    out, err = process.communicate(timeout=SECONDS)
    assert (process.returncode, out) == (0, "")
    assert err.splitlines() == [*notes, "the model is loaded", "stopped"]


def test_a_model_that_cannot_be_loaded_ends_it(spawn: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> None:
    process = spawn("serve", "--policy-opt", f"model={tmp_path / 'nowhere'}")
    _, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 2
    assert err.startswith("error[TTC-E1")
    assert "nowhere" in err


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--policy", "corpus"), "only the embedded engine"),
        (("--policy", "nobody"), "no policy named"),
        ((), "model"),
        (("--policy-opt", "model=x", "--policy-opt", "counterfactual=true"), "recorded runs"),
        (("--policy-opt", "model=x", "--policy-opt", "colour=red"), "colour"),
        (("--policy-opt", "model=x", "--host", "198.51.100.7"), "cannot listen"),
    ],
)
def test_what_cannot_be_served_is_refused(cli: Any, options: tuple[str, ...], told: str) -> None:
    done = cli("serve", *options)
    assert done.code == 2
    assert told in done.err
    assert done.out == ""


def test_a_port_that_is_taken_is_refused(cli: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = cli("serve", "--policy-opt", "model=x", "--port", taken.getsockname()[1])
    assert done.code == 2
    assert "cannot listen" in done.err
