"""The endpoint in the hands of its users: the `openai` client, and our own `litellm` policy in a search over it."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ttc_replay import Message, Spec
from ttc_replay.replay.local.batching import Batcher
from ttc_replay.replay.local.jobs import Generated, Job, NoiseKey
from ttc_replay.replay.local.serving import ModelServer, is_loopback
from ttc_replay.replay.local.serving_reply import cut_at
from ttc_replay.replay.local.serving_request import Refused, parse_request
from ttc_replay.replay.policies.local import LocalPolicy

openai: Any = pytest.importorskip("openai", reason="the extra [litellm] brings the client")

HI = [{"role": "user", "content": "What is the capital of France?"}]
TOOL = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Add a number.",
        "parameters": {
            "type": "object",
            "properties": {"by": {"type": "integer", "enum": [1, 2, 3]}},
            "required": ["by"],
            "additionalProperties": False,
        },
    },
}


def running(server: ModelServer) -> threading.Thread:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    return thread


@pytest.fixture(scope="module")
def server(tiny: Path) -> Iterator[ModelServer]:
    made = ModelServer(LocalPolicy(str(tiny), max_tokens=24))
    made.load()
    thread = running(made)
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


@pytest.fixture(scope="module")
def client(server: ModelServer) -> Iterator[Any]:
    with openai.OpenAI(base_url=server.url, api_key="none", max_retries=0) as made:
        yield made


@pytest.fixture(scope="module")
def complete(client: Any, server: ModelServer) -> Callable[..., Any]:
    def ask(**options: Any) -> Any:
        assert server.speaker is not None
        return client.chat.completions.create(**{"model": server.speaker.loaded.name, "messages": HI, **options})

    return ask


# --- answers ---------------------------------------------------------------------------------------------------------


def test_it_says_what_it_serves(client: Any, server: ModelServer) -> None:
    (model,) = client.models.list().data
    assert model.id == "model"
    assert client.models.retrieve("model").id == "model"
    health = raw(server, "GET", "/health")
    assert (health.status, health.row) == (200, {"status": "ok", "model": "model"})


def test_a_seed_chooses_the_answers(complete: Any) -> None:
    first = complete(n=3, seed=5)
    texts = [choice.message.content for choice in first.choices]
    assert len(set(texts)) == 3
    assert [choice.index for choice in first.choices] == [0, 1, 2]
    assert [choice.message.content for choice in complete(n=3, seed=5).choices] == texts
    assert [choice.message.content for choice in complete(n=2, seed=5).choices] == texts[:2]
    assert complete(seed=6).choices[0].message.content != texts[0]
    assert complete().choices[0].message.content != complete().choices[0].message.content
    assert first.system_fingerprint == complete(seed=1).system_fingerprint
    usage = first.usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert usage.prompt_tokens_details.cached_tokens <= usage.prompt_tokens


def test_it_is_the_policy_that_answers(complete: Any, server: ModelServer) -> None:
    """Greedy: the likeliest token at each place, as the model itself says."""
    import torch

    speaker = server.speaker
    assert speaker is not None
    said = complete(temperature=0, max_tokens=6, logprobs=True).choices[0]
    ids = list(speaker.chat.encode([Message("user", HI[0]["content"])]))
    from transformers import AutoModelForCausalLM

    plain = AutoModelForCausalLM.from_pretrained(server.policy.model)
    told = []
    with torch.inference_mode():
        for _ in range(6):
            logprobs = plain(torch.tensor([ids])).logits[0, -1].log_softmax(dim=0)
            ids.append(int(logprobs.argmax()))
            told.append(float(logprobs.max()))
    assert [token.token for token in said.logprobs.content] == [speaker.text([token]) for token in ids[-6:]]
    assert [token.logprob for token in said.logprobs.content] == pytest.approx(told, abs=1e-3)


def test_the_most_likely_tokens_of_each_place(server: Any, complete: Any) -> None:
    """Those of the model itself, best first; the sampled token has the same number in both places."""
    said = complete(seed=5, max_tokens=4, logprobs=True, top_logprobs=3).choices[0].logprobs.content
    speaker = server.speaker
    assert speaker is not None
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForCausalLM

    plain = AutoModelForCausalLM.from_pretrained(server.policy.model)
    ids = list(speaker.chat.encode([Message("user", HI[0]["content"])]))
    with torch.inference_mode():
        best = plain(torch.tensor([ids])).logits[0, -1].log_softmax(dim=0).topk(3)
    assert [row.token for row in said[0].top_logprobs] == [speaker.text([token]) for token in best.indices.tolist()]
    assert [row.logprob for row in said[0].top_logprobs] == pytest.approx(best.values.tolist(), abs=1e-3)
    for row in said:
        values = [other.logprob for other in row.top_logprobs]
        assert values == sorted(values, reverse=True)
        assert row.logprob <= values[0] + 1e-6
        same = [other.logprob for other in row.top_logprobs if other.token == row.token]  # two tokens may read alike
        assert not same or row.logprob in same or row.logprob < values[-1]
    assert complete(seed=5, max_tokens=4, logprobs=True).choices[0].logprobs.content[0].token == said[0].token


def test_log_probabilities_are_of_the_tokens_of_the_text(complete: Any) -> None:
    choice = complete(seed=3, logprobs=True).choices[0]
    rows = choice.logprobs.content
    assert all(row.logprob <= 0 and row.top_logprobs == [] for row in rows)
    whole = b"".join(bytes(row.bytes) for row in rows if row.bytes is not None)
    if all(row.bytes is not None for row in rows):
        assert whole.decode() == choice.message.content
    assert complete(seed=3).choices[0].logprobs is None


@pytest.mark.parametrize(
    ("choice", "calls"),
    [("required", True), ({"type": "function", "function": {"name": "add"}}, True), ("none", False)],
)
def test_tools_are_called_by_the_schema(complete: Any, choice: Any, calls: bool) -> None:
    answers = complete(tools=[TOOL], tool_choice=choice, max_tokens=60, n=4, seed=1).choices
    for answer in answers:
        assert bool(answer.message.tool_calls) is calls
        for call in answer.message.tool_calls or ():
            assert answer.finish_reason == "tool_calls"
            assert answer.message.content is None
            assert call.function.name == "add"
            assert json.loads(call.function.arguments)["by"] in (1, 2, 3)


def test_an_agent_goes_on_with_the_tokens_that_were_sampled(complete: Any, server: ModelServer) -> None:
    said = complete(tools=[TOOL], tool_choice="required", max_tokens=60, seed=2)
    message = said.choices[0].message
    result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "3"}
    history = [*HI, message.model_dump(exclude_none=True), result]
    again = complete(messages=history, tools=[TOOL], tool_choice="required", max_tokens=60, seed=2)
    before = said.usage.prompt_tokens + said.usage.completion_tokens
    assert again.usage.prompt_tokens_details.cached_tokens >= before - 1
    assert again.choices[0].message.tool_calls[0].id != message.tool_calls[0].id


def test_a_stop_text_ends_the_answer_before_it(complete: Any) -> None:
    whole = complete(seed=4, max_tokens=40, logprobs=True)
    text = whole.choices[0].message.content
    stop = text[12:15]
    cut = complete(seed=4, max_tokens=40, stop=[stop, "never said"], logprobs=True)
    assert cut.choices[0].message.content == text[: text.find(stop)]
    assert cut.choices[0].finish_reason == "stop"
    assert cut.usage.completion_tokens < whole.usage.completion_tokens
    said = "".join(row.token for row in cut.choices[0].logprobs.content)
    assert stop not in said
    assert whole.choices[0].finish_reason == "length"


# --- streams ---------------------------------------------------------------------------------------------------------


def put_together(chunks: Any) -> SimpleNamespace:
    """What a client makes of a stream."""
    found = SimpleNamespace(roles=[], texts={}, calls={}, reasons={}, logprobs={}, usage=None, pieces=0, ids=set())
    for chunk in chunks:
        found.ids.add(chunk.id)
        found.usage = chunk.usage or found.usage
        for choice in chunk.choices:
            if choice.delta.role:
                found.roles.append(choice.index)
            found.pieces += bool(choice.delta.content)
            found.texts[choice.index] = found.texts.get(choice.index, "") + (choice.delta.content or "")
            found.calls.setdefault(choice.index, []).extend(choice.delta.tool_calls or [])
            found.logprobs.setdefault(choice.index, []).extend(choice.logprobs.content if choice.logprobs else [])
            if choice.finish_reason:
                found.reasons[choice.index] = choice.finish_reason
    return found


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"n": 3},
        {"stop": ["a", "the"]},
        {"max_tokens": 200, "stop": ["zzz"]},
        {"logprobs": True},
        {"tools": [TOOL], "tool_choice": "required", "max_tokens": 60, "n": 2},
        {"tools": [TOOL], "tool_choice": "none"},
    ],
)
@pytest.mark.parametrize("seed", [1, 2])
def test_a_stream_says_what_the_whole_answer_says(complete: Any, options: dict[str, Any], seed: int) -> None:
    whole = complete(seed=seed, **options)
    found = put_together(complete(seed=seed, stream=True, stream_options={"include_usage": True}, **options))
    assert found.roles == [choice.index for choice in whole.choices]
    assert len(found.ids) == 1
    assert found.usage.completion_tokens == whole.usage.completion_tokens
    for choice in whole.choices:
        assert found.texts[choice.index] == (choice.message.content or "")
        assert found.reasons[choice.index] == choice.finish_reason
        calls = [(call.id, call.function.name, call.function.arguments) for call in found.calls[choice.index]]
        expected = choice.message.tool_calls or ()
        assert calls == [(call.id, call.function.name, call.function.arguments) for call in expected]
        told = choice.logprobs.content if choice.logprobs else []
        assert [row.token for row in found.logprobs[choice.index]] == [row.token for row in told]


def test_text_comes_while_it_is_sampled(complete: Any) -> None:
    found = put_together(complete(seed=1, stream=True, max_tokens=40))
    assert found.pieces > 10
    assert found.usage is None


def test_a_client_that_leaves_ends_its_branch(complete: Any, server: ModelServer) -> None:
    assert server.speaker is not None
    before = server.speaker.counters().decoded_tokens
    stream = complete(seed=1, stream=True, max_tokens=1500, temperature=0.7)
    next(iter(stream))
    stream.close()
    complete(seed=2, max_tokens=2)  # waits for its turn behind the first
    assert server.speaker.counters().decoded_tokens - before < 1000


def test_the_async_client(server: ModelServer) -> None:
    async def ask() -> list[Any]:
        async with openai.AsyncOpenAI(base_url=server.url, api_key="none", max_retries=0) as client:
            asks = [client.chat.completions.create(model="model", messages=HI, seed=seed) for seed in range(6)]
            answers = await asyncio.gather(*asks)
            stream = await client.chat.completions.create(model="model", messages=HI, seed=0, stream=True)
            text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
            assert text == answers[0].choices[0].message.content
            return list(answers)

    answers = asyncio.run(ask())
    assert len({answer.choices[0].message.content for answer in answers}) == 6


def test_requests_that_wait_are_decoded_together(complete: Any, server: ModelServer) -> None:
    assert server.speaker is not None
    batcher = server.speaker.batcher
    alone = [complete(seed=seed).choices[0].message.content for seed in range(8)]
    before, batcher.window_seconds = batcher.batches, 0.3
    try:
        with ThreadPoolExecutor(8) as threads:
            together = list(threads.map(lambda seed: complete(seed=seed).choices[0].message.content, range(8)))
    finally:
        batcher.window_seconds = 0.0
    assert together == alone
    assert batcher.batches - before < 4
    assert batcher.largest >= 4


# --- refusals --------------------------------------------------------------------------------------------------------

REFUSED: list[tuple[dict[str, Any], int, str | None]] = [
    ({"model": "gpt-4o"}, 404, "model"),
    ({"messages": []}, 400, "messages"),
    ({"messages": [{"role": "robot", "content": "hi"}]}, 400, "messages[0].role"),
    ({"messages": [*HI, {"role": "user", "content": [{"type": "image_url"}]}]}, 400, "messages[1].content"),
    ({"messages": [{"role": "user", "content": 3}]}, 400, "messages[0].content"),
    ({"messages": [{"role": "assistant", "tool_calls": [{"id": "c"}]}]}, 400, "messages[0].tool_calls"),
    ({"messages": [{"role": "user", "content": "word " * 4000}]}, 413, "messages"),
    ({"n": 0}, 400, "n"),
    ({"n": 1000}, 400, "n"),
    ({"seed": "one"}, 400, "seed"),
    ({"temperature": -1}, 400, "temperature"),
    ({"temperature": True}, 400, "temperature"),
    ({"top_p": 0}, 400, "top_p"),
    ({"max_tokens": 0}, 400, "max_tokens"),
    ({"max_completion_tokens": 1.5}, 400, "max_completion_tokens"),
    ({"stop": ["a"] * 5}, 400, "stop"),
    ({"stop": [""]}, 400, "stop"),
    ({"stream": "yes"}, 400, "stream"),
    ({"logprobs": True, "top_logprobs": 21}, 400, "top_logprobs"),
    ({"logprobs": True, "top_logprobs": -1}, 400, "top_logprobs"),
    ({"top_logprobs": 2}, 400, "top_logprobs"),
    ({"tools": [{"type": "function"}]}, 400, "tools[0]"),
    ({"tools": [TOOL, TOOL]}, 400, "tools[1]"),
    ({"tools": [TOOL], "tool_choice": "perhaps"}, 400, "tool_choice"),
    ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "sub"}}}, 400, "tool_choice"),
    ({"tool_choice": "required"}, 400, "tool_choice"),
    ({"tools": [{"type": "function", "function": {"name": "x", "parameters": {"type": "array"}}}]}, 400, "tools"),
    ({"response_format": {"type": "json_object"}}, 400, "response_format"),
    ({"frequency_penalty": 0.5}, 400, "frequency_penalty"),
    ({"parallel_tool_calls": "no"}, 400, "parallel_tool_calls"),
    ({"logit_bias": {"1": 2}}, 400, "logit_bias"),
    ({"extra_body": {"min_p": 0.1}}, 400, "min_p"),
]


@pytest.mark.parametrize(("options", "status", "param"), REFUSED)
@pytest.mark.parametrize("stream", [False, True])
def test_what_is_wrong_is_refused_by_name(
    complete: Any, options: dict[str, Any], status: int, param: str | None, stream: bool
) -> None:
    with pytest.raises(openai.APIStatusError) as refused:
        complete(**{"stream": stream, **options})
    error = refused.value
    assert (error.status_code, error.body["param"]) == (status, param)
    assert error.body["type"] == "invalid_request_error"
    assert error.body["message"]
    if status == 413:
        assert error.body["code"] == "context_length_exceeded"


def test_what_changes_nothing_is_taken(complete: Any) -> None:
    plain = complete(seed=1).choices[0].message.content
    more: dict[str, Any] = {"user": "me", "presence_penalty": 0, "response_format": {"type": "text"}, "store": False}
    assert complete(seed=1, metadata={"a": "b"}, **more).choices[0].message.content == plain
    parts = [{"role": "user", "content": [{"type": "text", "text": HI[0]["content"]}]}]
    assert complete(seed=1, messages=parts).choices[0].message.content == plain


def raw(server: ModelServer, method: str, path: str, body: bytes | None = None, **headers: str) -> SimpleNamespace:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    try:
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        connection.request(method, path, body, named)
        reply = connection.getresponse()
        return SimpleNamespace(status=reply.status, row=json.loads(reply.read()), headers=reply.headers)
    finally:
        connection.close()


CHAT = "/v1/chat/completions"
SOUND = json.dumps({"model": "model", "messages": HI, "max_tokens": 2}).encode()


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status"),
    [
        ("POST", CHAT, SOUND, {"Content_Type": "application/json; charset=utf-8"}, 200),
        ("POST", CHAT, SOUND, {"Content_Type": "application/json", "Host": "[::1]:80"}, 200),
        ("POST", CHAT, SOUND, {"Content_Type": "text/plain"}, 415),
        ("POST", CHAT, SOUND, {"Content_Type": "application/json", "Host": "evil.example"}, 403),
        ("GET", "/v1/models", None, {"Host": "evil.example:8000"}, 403),
        ("POST", CHAT, b"{", {"Content_Type": "application/json"}, 400),
        ("POST", CHAT, b"[" * 100_000, {"Content_Type": "application/json"}, 400),
        ("POST", CHAT, b"[]", {"Content_Type": "application/json"}, 400),
        ("POST", CHAT, b"\xff\xfe\x00", {"Content_Type": "application/json"}, 400),
        ("POST", CHAT, SOUND, {"Content_Type": "application/json", "Content_Length": str(1 << 40)}, 413),
        ("POST", CHAT, SOUND, {"Content_Type": "application/json", "Content_Length": "-1"}, 411),
        ("POST", "/v1/completions", SOUND, {"Content_Type": "application/json"}, 404),
        ("GET", "/", None, {}, 404),
        ("GET", "/v1/models/other", None, {}, 404),
    ],
)
def test_http(
    server: ModelServer, method: str, path: str, body: bytes | None, headers: dict[str, str], status: int
) -> None:
    reply = raw(server, method, path, body, **headers)
    assert reply.status == status
    assert status == 200 or reply.row["error"]["message"]


def test_text_that_no_tokenizer_takes_is_made_text(complete: Any) -> None:
    odd = [{"role": "user", "content": "a\x00b \ufdd0 <|im_end|> "}]
    assert complete(messages=odd, max_tokens=2).usage.completion_tokens >= 1
    body = b'{"model": "model", "max_tokens": 2, "messages": [{"role": "user", "content": "\\ud800 alone"}]}'
    assert parse_request(json.loads(body)).messages[0].text == "\ud800 alone"


def test_lone_surrogates_are_replaced(server: ModelServer) -> None:
    body = b'{"model": "model", "max_tokens": 2, "messages": [{"role": "user", "content": "\\ud800 alone"}]}'
    assert raw(server, "POST", CHAT, body, Content_Type="application/json").status == 200


def test_it_answers_503_while_it_loads(tiny: Path) -> None:
    made = ModelServer(LocalPolicy(str(tiny)))
    thread = running(made)
    try:
        assert raw(made, "GET", "/health").row == {"status": "loading"}
        for method, path, body in (("POST", CHAT, SOUND), ("GET", "/v1/models", None)):
            reply = raw(made, method, path, body, Content_Type="application/json")
            assert (reply.status, reply.row["error"]["code"]) == (503, "loading")
            assert reply.headers["Retry-After"] == "1"
    finally:
        made.shutdown()
        thread.join()
        made.server_close()


def test_out_of_memory_is_503(tiny: Path) -> None:
    made = ModelServer(LocalPolicy(str(tiny), cache_mib=3, max_batch=2, max_tokens=8))
    made.load()

    def check(tokens: int) -> None:
        raise MemoryError

    assert made.speaker is not None
    made.speaker.decoder.model.check_memory = check
    thread = running(made)
    try:
        reply = raw(made, "POST", CHAT, SOUND, Content_Type="application/json")
        assert (reply.status, reply.row["error"]["code"]) == (503, "out_of_memory")
        streamed = json.dumps({**json.loads(SOUND), "stream": True}).encode()
        with openai.OpenAI(base_url=made.url, api_key="none", max_retries=0) as client:
            stream = client.chat.completions.create(**json.loads(streamed))
            with pytest.raises(openai.APIError, match="memory"):
                list(stream)
    finally:
        made.shutdown()
        thread.join()
        made.server_close()


@pytest.mark.parametrize(
    ("host", "is_own"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("[::1]", True), ("localhost", True), ("LOCALHOST", True),
     ("0.0.0.0", False), ("192.168.1.5", False), ("example.org", False), ("", False), ("localhost.evil", False)],
)  # fmt: skip
def test_loopback_addresses(host: str, is_own: bool) -> None:
    assert is_loopback(host) is is_own


def test_a_stop_text_within_the_reasoning_ends_all() -> None:
    action = Message("assistant", "answer", reasoning="I think STOP so")
    assert cut_at(action, ("STOP",)) == (Message("assistant", "", reasoning="I think "), True)
    assert cut_at(action, ("never",)) == (action, False)


def test_a_refusal_is_in_the_shape_of_openai() -> None:
    with pytest.raises(Refused) as refused:
        parse_request({"model": "m", "messages": HI, "seed": 2**70})
    error = refused.value.body()["error"]
    assert set(error) == {"message", "type", "param", "code"}


# --- batching --------------------------------------------------------------------------------------------------------


def job(token: int) -> Job:
    return Job([token], 1, NoiseKey(0, "", 0))


def test_what_one_thread_asks_wrongly_fails_no_other() -> None:
    began, release = threading.Event(), threading.Event()

    def decode(jobs: Any) -> list[Generated]:
        if jobs[0].tokens == [0]:
            began.set()
            assert release.wait(10)
        if any(item.tokens == [13] for item in jobs):
            raise ValueError("13")
        return [Generated(tuple(item.tokens), (), (), "stop", 1, 0) for item in jobs]

    batcher = Batcher(decode)
    with ThreadPoolExecutor(4) as threads:
        first = threads.submit(batcher.run, lambda: [job(0)])
        assert began.wait(10)
        waiting = [threads.submit(batcher.run, jobs) for jobs in (lambda: [job(1), job(2)], lambda: [job(5), job(6)])]
        wrong = threads.submit(batcher.run, lambda: [job(13)])
        while len(batcher._waiting) < 3:
            time.sleep(0.001)
        release.set()
        assert [item.tokens for item in first.result(10)] == [(0,)]
        assert [[item.tokens for item in done.result(10)] for done in waiting] == [[(1,), (2,)], [(5,), (6,)]]
        with pytest.raises(ValueError, match="13"):
            wrong.result(10)
    assert batcher.largest == 4 or batcher.largest == 5


# --- a search over it ------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*`ReadOnly` qualifier.*:UserWarning")
def test_the_litellm_policy_searches_over_it(server: ModelServer, make_engine: Any, toy: Any) -> None:
    pytest.importorskip("litellm", reason="the extra [litellm] is not installed")
    from ttc_replay.replay.policies.litellm import LiteLLMPolicy

    class Limited(toy.ReExecutable):  # type: ignore[misc]
        def tools(self) -> list[dict[str, Any]]:
            return [TOOL]

    def search(folder: str, concurrency: int) -> tuple[Any, list[tuple[int, str]]]:
        policy = LiteLLMPolicy(
            "openai/model", api_base=server.url, max_tokens=60, tool_choice="required", logprobs=True
        )
        engine = make_engine(
            [toy.record(1, 1, 1, 1)],
            policy=policy,
            world=Limited,
            folder=folder,
            budget=6,
            width=3,
            concurrency=concurrency,
            algorithm=Spec("best-of-n"),
        )

        async def run() -> None:
            try:
                await engine.run()
            finally:
                await policy.close()

        asyncio.run(run())
        assert engine.error is None
        return engine, [(node.parent, node.key) for node in engine.groves[0].tree.rows("r")]

    engine, grown = search("one", 1)
    tree = engine.groves[0].tree
    searched = [step for step in tree.steps[5:] if step is not None]
    assert len(searched) >= 4
    assert all(step.action.tool_calls[0].name == "add" for step in searched)
    assert all(step.logprob is not None and step.logprob < 0 for step in searched)
    assert tree.calls >= 4
    assert search("many", 4)[1] == grown
