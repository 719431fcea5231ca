"""Secrets are found at ingest: the gate lets through whatever the rules find, and the archive keeps the marks."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pyarrow  # type: ignore[import-untyped]
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ttc_replay.storage.database import Database
from ttc_replay.storage.readers.base import find_reader
from ttc_replay.storage.records import Source, Trajectory
from ttc_replay.storage.redact import secrets_in
from ttc_replay.storage.secrets_gate import secrets_of, suspects

ALNUM = "A1b2C3d4E5f6G7h8J9k0" * 20
SECRETS = {
    "aws-access-key": "AK" + "IA" + "A1B2C3D4E5F6G7H8",
    "gcp-api-key": "AI" + "za" + ALNUM[:35],
    "gcp-oauth": "ya" + "29." + ALNUM[:40],
    "github": "gh" + "p_" + ALNUM[:36],
    "anthropic": "sk-" + "ant-api03-" + ALNUM[:95],
    "openai": "sk-" + "proj-" + ALNUM[:120],
    "slack": "xox" + "b-123456789012-" + ALNUM[:24],
    "stripe": "sk_" + "live_" + ALNUM[:24],
    "huggingface": "hf" + "_" + "aBcD" * 9,
    "gitlab": "glp" + "at-" + ALNUM[:20],
    "jwt": "ey" + "JhbGciOiJIUzI1NiJ9.ey" + "JzdWIiOiIxMjM0NTY3ODkwIn0." + ALNUM[:43],
    "private-key": "-----BEGIN PRIVATE KEY-----\\n" + ALNUM[:64] + "\\n-----END PRIVATE KEY-----",
    "aws-secret-key": "aws_secret_access_key = " + ALNUM[:40],
    "slack-webhook": "https://hooks.slack.com/services/T0001/B0001/" + ALNUM[:24],
    "bearer": "Authorization: bearer " + ALNUM[:40],
    "url-password": "postgresql://me:hunter2@db.example/x",
    "card": "4111-1111-" + "1111-1111",
    "iban": "DE89 3704 0044 " + "0532 0130 00",
}
fragments = st.sampled_from([*SECRETS.values(), " ", "\n", "text ", "12", "-", '"', ":", "://", "sk-", "@"])


@pytest.mark.parametrize("kind", SECRETS)
def test_the_gate_lets_every_kind_through(kind: str) -> None:
    assert secrets_in(SECRETS[kind]) == {kind: 1}
    assert suspects(pyarrow.array(["nothing", SECRETS[kind], None])) == [1]


@given(st.lists(fragments, max_size=6).map("".join))
def test_what_the_rules_find_passes_the_gate(text: str) -> None:
    if secrets_in(text):
        assert suspects(pyarrow.array([text])) == [0]


def test_secrets_are_summed_by_owner() -> None:
    texts = pyarrow.array([SECRETS["github"], "x", SECRETS["github"] + " " + SECRETS["card"]])
    assert secrets_of([([7, 8, 7], texts)]) == {7: {"card": 1, "github": 2}}


@pytest.mark.parametrize("place", ["prompt", "action", "observation", "beside", "arguments", "slow"])
def test_the_archive_keeps_marks_and_the_raw_text(tmp_path: Path, place: str) -> None:
    secret = SECRETS["github"]
    said = {name: secret if name == place else "x" for name in ("prompt", "action", "observation", "beside")}
    arguments = json.dumps({"key": secret if place == "arguments" else "x"})
    call = {"id": "1", "type": "function", "function": {"name": "get", "arguments": arguments}}
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": said["prompt"]},
        {"role": "assistant", "content": said["action"], "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": said["observation"]},
    ]
    if place == "slow":
        messages.append({"role": "assistant", "content": secret, "reasoning_content": "y"})
    log = json.dumps({"messages": messages, "note": said["beside"]}).encode()
    found = list(find_reader("openai-chat").read(io.BytesIO(log), Source("", path="log")))
    assert isinstance(found[0], Trajectory)
    with Database.open(str(tmp_path / "a.duckdb")) as database:
        database.add_trajectories([found[0]])
        assert database.query("SELECT secrets FROM v_trajectories")[1] == [('{"github":1}',)]
        stored = database.trajectory(found[0].id, raw=True)
    assert stored.source is not None
    assert secret in (stored.source.raw or "")
