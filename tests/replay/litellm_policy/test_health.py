"""What a look at the server's list of models tells before the first call: down, elsewhere, another model, no key."""

from __future__ import annotations

import asyncio
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from ttc_replay.replay.policies.health import other_bases, served, serves
from ttc_replay.storage.errors import MissingKey, ProviderRefused, ProviderUnavailable, TtcError

PROVIDERS = ("openai/local-model", "hosted_vllm/local-model")


def listing(wire: Any, *names: str, owner: str = "vllm") -> Any:
    rows = [{"id": name, "object": "model", "owned_by": owner} for name in names]
    return wire.Reply(body={"object": "list", "data": rows})


@pytest.mark.parametrize("model", PROVIDERS)
def test_the_server_is_asked_once_before_all_calls_with_the_key(wire: Any, server: Any, model: str) -> None:
    server.script = [wire.completion("ok")] * 4
    server.pages = {"/v1/models": listing(wire, "other", "local-model")}
    policy = wire.policy_for(server, model)

    async def work() -> None:
        await asyncio.gather(*(policy.propose([wire.request(seed=seed)]) for seed in range(4)))

    wire.run(policy, work)
    [look] = server.looks
    assert look.headers["authorization"] == f"Bearer {wire.KEY}"
    assert (len(server.calls), policy.attempts_total) == (4, 4)


@pytest.mark.parametrize(
    ("pages", "kind", "words"),
    [
        ({"/v1/models": ("a", "b")}, ProviderRefused, "does not serve the model local-model; it serves a, b"),
        ({"/v1/models": tuple("abcdefghij")}, ProviderRefused, "a, b, c, d, e, f, g, h and 2 more"),
        ({"/v1/models": 401}, ProviderRefused, "the key is refused (401)"),
    ],
    ids=["another model", "many models", "401"],
)
@pytest.mark.parametrize("model", PROVIDERS)
def test_what_is_refused_before_any_call(
    wire: Any, server: Any, model: str, pages: dict[str, Any], kind: type[TtcError], words: str
) -> None:
    server.pages = {
        path: wire.failing(page) if isinstance(page, int) else listing(wire, *page) for path, page in pages.items()
    }
    error = wire.refusal(wire.policy_for(server, model))
    assert isinstance(error, kind)
    assert words in error.message
    assert server.base in error.message
    assert (error.exit_code, len(server.calls)) == (7, 0)


@pytest.mark.parametrize(
    ("path", "other"), [("", "/v1"), ("/v1/chat/completions", "/v1"), ("/api", "/v1"), ("/o", "/o/v1")]
)
def test_a_wrong_path_is_told_with_the_right_one(wire: Any, server: Any, path: str, other: str) -> None:
    server.pages = {f"{other}/models": listing(wire, "local-model")}
    root = server.base.removesuffix("/v1")
    error = wire.refusal(wire.policy_for(server, api_base=root + path))
    assert isinstance(error, ProviderRefused)
    assert error.hint == f"--policy-opt api_base={root}{other}"
    assert (error.exit_code, len(server.calls)) == (7, 0)


def test_no_key_where_one_is_wanted_is_exit_2(wire: Any, server: Any) -> None:
    server.pages = {"/v1/models": wire.failing(401)}
    error = wire.refusal(wire.policy_for(server, api_key=None))
    assert isinstance(error, MissingKey)
    assert (error.exit_code, len(server.calls)) == (2, 0)
    assert "authorization" not in server.looks[0].headers


SURE_OF_NOTHING: dict[str, tuple[Any, str | None]] = {
    "no list": (lambda wire: wire.failing(404), "has no list of models (404)"),
    "not allowed": (lambda wire: wire.failing(405), "has no list of models (405)"),
    "a key without that right": (lambda wire: wire.failing(403), "has no list of models (403)"),
    "loading": (lambda wire: wire.failing(503, "Loading model"), None),
    "html": (lambda wire: wire.Reply(body=b"<html>hello</html>"), "has no list of models (200)"),
    "half of the list": (lambda wire: wire.Reply(body=b'{"data": [{"id": "a"'), "has no list of models (200)"),
    "another list": (lambda wire: wire.Reply(body={"data": [1, {"name": "a"}]}), "has no list of models (200)"),
    "empty list": (lambda wire: wire.Reply(body={"data": []}), "has no list of models (200)"),
    "cut": (lambda wire: wire.Reply(body={"data": []}, cut=True), "the model's name is not checked"),
    "closed": (lambda wire: wire.Reply(drop=True), "the model's name is not checked"),
    "silent": (lambda wire: wire.Reply(delay_seconds=5.0), "the model's name is not checked"),
    "llama.cpp": (lambda wire: listing(wire, "/models/x.gguf", owner="llamacpp"), "answers under any name"),
    "a pattern": (lambda wire: listing(wire, "gpt-*", "local-*"), None),
    "a tag": (lambda wire: listing(wire, "local-model:latest"), None),
}


@pytest.mark.parametrize("name", SURE_OF_NOTHING)
def test_a_server_that_may_work_is_not_refused(
    wire: Any, server: Any, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The completion decides; what was odd stands in the log, once."""
    page, warning = SURE_OF_NOTHING[name]
    server.pages = {"/v1/models": page(wire)}
    server.script = [wire.completion("ok")] * 2
    policy = wire.policy_for(server, timeout_seconds=0.4)
    for _ in range(2):
        [[proposal]] = wire.ask(policy)
        assert proposal.action.content == "ok"
    assert len(server.calls) == 2
    said = [record.getMessage() for record in caplog.records if record.name == "ttc_replay.litellm"]
    assert [warning in line if warning else False for line in said] == ([True] if warning else [])


@pytest.mark.parametrize(
    ("model", "options"),
    [("openai/local-model", {"health_check": False}), ("anthropic/claude-local", {}), ("azure/deployment", {})],
)
def test_who_is_not_looked_at(
    wire: Any, server: Any, model: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_API_VERSION", "2024-10-21")
    server.pages = {}
    base = server.base if options else server.base.removesuffix("/v1")
    wire.refusal(wire.policy_for(server, model, api_base=base, **options))
    assert server.looks == []
    assert len(server.calls) == 1, "the script is empty: 418"


def test_an_address_from_the_environment_is_looked_at(wire: Any, server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", server.base)
    server.pages = {"/v1/models": listing(wire, "another")}
    assert "it serves another" in wire.refusal(wire.policy_for(server, api_base=None)).message


def test_a_server_that_goes_down_between_two_calls(wire: Any, serving: Any, server: Any) -> None:
    """Retries as for any lost connection, then the address and what to do."""
    server.script = [wire.completion("ok")]
    policy = wire.policy_for(server, retries=2)
    wire.ask(policy)
    server.shutdown()
    server.server_close()
    error = wire.refusal(policy)
    assert isinstance(error, ProviderUnavailable)
    assert f"cannot reach openai/local-model at {server.base}" in error.message
    assert "3 attempts" in error.message
    assert "docs/servers.md" in str(error.hint)
    assert policy.attempts_total == 4


def test_a_host_that_nobody_knows(wire: Any) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as free:
        port = free.server_port
    fake = type("Free", (), {"base": f"http://no-such-host.invalid:{port}/v1"})()
    error = wire.refusal(wire.policy_for(fake))
    assert isinstance(error, ProviderUnavailable)
    assert "no-such-host.invalid" in error.message


@pytest.mark.parametrize(
    ("name", "model", "same"),
    [
        ("a", "a", True),
        ("a", "b", False),
        ("a:latest", "a", True),
        ("a", "a:adapter", True),
        ("*", "a/b", True),
        ("x/*", "x/y", True),
        ("x/*", "y", False),
        ("a.c", "abc", False),
        ("a*", "ba", False),
    ],
)
def test_which_names_stand_for_a_model(name: str, model: str, same: bool) -> None:
    assert serves(name, model) is same


@pytest.mark.parametrize("body", [None, [], "x", 3, {}, {"data": None}, {"data": {}}, {"data": [None, {"id": 3}]}])
def test_what_is_no_list(body: Any) -> None:
    assert served(body) is None


def test_the_address_itself_is_never_a_guess() -> None:
    assert list(other_bases("http://h:1/v1/")) == ["http://h:1/v1/v1"]
    assert list(other_bases("http://h:1")) == ["http://h:1/v1"]
    assert list(other_bases("http://h:1/v1/chat/completions")) == ["http://h:1/v1", "http://h:1/v1/v1"]
