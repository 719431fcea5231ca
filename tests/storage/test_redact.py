"""Foreign text on terminals and secrets in exports."""

from __future__ import annotations

import json
import random
import re
import string
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ttc_replay.storage.redact import kinds, mask, mask_json, safe, secrets_in

ALNUM = string.ascii_letters + string.digits
MARK = re.compile(r"\[SECRET:[a-z-]+:[0-9a-f]{4}\]")


def some(alphabet: str, length: int, seed: int = 7) -> str:
    """Secrets are made at run time, so that no scanner finds one in this file."""
    return "".join(random.Random(seed * 1000 + length).choices(alphabet, k=length))


def pem(kind: str = "RSA PRIVATE KEY", newline: str = "\n", header: str = "") -> str:
    body = newline.join(some(ALNUM + "+/", 64, seed) for seed in range(12))
    return f"-----BEGIN {kind}-----{newline}{header}{body}{newline}-----END {kind}-----"


SECRETS = {
    "aws-access-key": ["AK" + "IA" + some(string.ascii_uppercase + string.digits, 16), "AS" + "IA" + "J7" * 8],
    "gcp-api-key": ["AI" + "za" + some(ALNUM + "_-", 34) + "x"],
    "gcp-oauth": ["ya" + "29." + some(ALNUM, 80), "GOC" + "SPX-" + some(ALNUM, 28)],
    "github": [*(f"gh{kind}_" + some(ALNUM, 36) for kind in "pousr"), "github_" + "pat_" + some(ALNUM, 82)],
    "anthropic": ["sk-" + "ant-api03-" + some(ALNUM, 93) + "AA", "sk-" + "ant-oat01-" + some(ALNUM, 95)],
    "openai": ["sk-" + some(ALNUM, 48), "sk-" + "proj-" + some(ALNUM, 120), "sk-" + "svcacct-" + some(ALNUM, 60)],
    "slack": ["xox" + "b-123456789012-1234567890123-" + some(ALNUM, 24), "xap" + "p-1-A0B1C2D3E4F-" + some(ALNUM, 64)],
    "stripe": ["sk_" + "live_" + some(ALNUM, 24), "rk_" + "test_" + some(ALNUM, 99), "whs" + "ec_" + some(ALNUM, 32)],
    "huggingface": ["hf" + "_" + some(string.ascii_letters, 34)],
    "gitlab": ["glp" + "at-" + some(ALNUM, 20)],
    "jwt": ["ey" + "JhbGciOiJIUzI1NiJ9.ey" + "JzdWIiOiIxMjM0NTY3ODkwIn0." + some(ALNUM + "_", 43)],
    "private-key": [
        pem(),
        pem("EC PRIVATE KEY"),
        pem("PRIVATE KEY", "\\n"),
        pem(header="DEK-Info: AES-128-CBC,00FF\n\n"),
    ],
}
CASES = [(kind, secret) for kind, secrets in SECRETS.items() for secret in secrets]
SURROUNDINGS = [
    "{}",
    "key={}",
    "'{}',",
    '{{"k": "{}"}}',
    "text before {} and after.",
    "(line)\n{}\n",
    "a\\n{}\\nb",
    "<{}>",
]


@pytest.mark.parametrize(("kind", "secret"), CASES)
@pytest.mark.parametrize("surrounding", SURROUNDINGS)
def test_every_secret_is_masked_whole_and_nothing_else(kind: str, secret: str, surrounding: str) -> None:
    masked = mask(surrounding.format(secret))
    mark = MARK.search(masked)
    assert mark is not None
    assert mark[0].startswith(f"[SECRET:{kind}:")
    assert masked == surrounding.format(mark[0])


@pytest.mark.parametrize(
    ("before", "secret", "after", "kind"),
    [
        ("Authorization: Bearer ", some(ALNUM, 40), "", "bearer"),
        ('-H "authorization: bearer ', some(ALNUM, 20) + "1==", '" https://x', "bearer"),
        ("postgresql://me:", "hunter2!", "@db.example:5432/x", "url-password"),
        ("https://user:", "p@ss:word", "@host/path?a=b@c", "url-password"),
        ("redis://:", "s3cr3t", "@localhost", "url-password"),
        ("aws_secret_access_key = ", some(ALNUM + "/+", 40), "\n", "aws-secret-key"),
        ('"SecretAccessKey": "', some(ALNUM + "/+", 40), '"', "aws-secret-key"),
        ('{\\"secretAccessKey\\": \\"', some(ALNUM + "/+", 40), '\\"}', "aws-secret-key"),
        ("https://hooks.slack.com/", "services/T0001/B0001/" + some(ALNUM, 24), ")", "slack-webhook"),
    ],
)
def test_secrets_known_by_their_place(before: str, secret: str, after: str, kind: str) -> None:
    masked = mask(before + secret + after)
    assert re.fullmatch(re.escape(before) + rf"\[SECRET:{kind}:[0-9a-f]{{4}}\]" + re.escape(after), masked)


def test_every_rule_is_tested_above() -> None:
    assert set(kinds()) == {*SECRETS, "bearer", "url-password", "aws-secret-key", "slack-webhook", "card", "iban"}


# The numbers that card schemes and banks publish for tests and examples, written apart.
CARDS = ["4111 1111 " + "1111 1111", "5555-5555-" + "5555-4444", "3782 822463 " + "10005", "60111111" + "11111117"]
IBANS = ["DE89 3704 0044 " + "0532 0130 00", "GB82WEST" + "12345698765432", "NO93 8601 " + "1117 947"]


@pytest.mark.parametrize(("kind", "number"), [*(("card", card) for card in CARDS), *(("iban", iban) for iban in IBANS)])
@pytest.mark.parametrize("surrounding", ["{}", "pay {} now", '{{"n": "{}"}}', "a\\n{}\\nb", "({})"])
def test_numbers_with_a_checksum_are_masked(kind: str, number: str, surrounding: str) -> None:
    masked = mask(surrounding.format(number))
    assert re.fullmatch(re.escape(surrounding.format("MARK")).replace("MARK", rf"\[SECRET:{kind}:\w{{4}}\]"), masked)
    last = "1" if number[-1] != "1" else "2"
    assert mask(surrounding.format(number[:-1] + last)) == surrounding.format(number[:-1] + last)


@given(st.integers(10**12, 10**19).map(str))
def test_numbers_of_no_known_issuer_stay(number: str) -> None:
    if number[0] in "1789":
        assert mask(f"id {number}") == f"id {number}"


def test_secrets_are_counted_by_kind() -> None:
    first, second = SECRETS["github"][:2]
    marked = "[SECRET:jwt:ab12]"
    assert secrets_in(f"{first} {marked} {second} {CARDS[0]}") == {"github": 2, "card": 1}
    assert secrets_in(f"nothing {marked}") == {}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "the risk-averse task-force asked for a desk-" + "a" * 40,
        "commit 9fceb02d0ae598e95dc970b74767f19372d61af8 in sk-learn",
        "https://example.org:8080/path@v2, mail me@example.org",
        "Bearer instruments are transferable; bearer authentication is required",
        "-----BEGIN PUBLIC KEY-----\nMIIBIjANBgkq\n-----END PUBLIC KEY-----",
        "eyJ is how a JWT begins. whsec_short, ghp_short, AKIA, xoxb-1",
        "uuid 123e4567-e89b-12d3-a456-426614174000, time 12:30:45 @ noon",
        "file://host/a:b@c",
        "order 4111111111111112, phone +49 30 901820, 2024-05-15 12:30:45.123456, 1.41421356237309504880",
        "GB82WEST12345698765433 and XX00ABCD12345678901",
    ],
)
def test_ordinary_text_stays(text: str) -> None:
    assert mask(text) == text


def test_equal_secrets_have_equal_marks_and_a_cut_key_goes_too() -> None:
    first, second = SECRETS["github"][:2]
    masked = mask(f"{first} {second} {first}").split(" ")
    assert masked[0] == masked[2] != masked[1]
    cut = mask(pem()[:400] + "\n\nThe log goes on with words here.")
    assert re.fullmatch(r"\[SECRET:private-key:[0-9a-f]{4}\]\n\nThe log goes on with words here\.", cut)


FRAGMENTS = [secret for _, secret in CASES] + [
    "Bearer ", "https://u:", "@host", "aws_secret_access_key=", some(ALNUM + "/+", 40), "-", "_", " ", "\n", "\\n", "://",
    "a", "1", ":", "[SECRET:jwt:ab12]", "-----BEGIN PRIVATE KEY-----", "hooks.slack.com/services/", "sk-", '"',
]  # fmt: skip


@given(st.lists(st.sampled_from(FRAGMENTS), max_size=12).map("".join))
def test_mask_is_idempotent(text: str) -> None:
    once = mask(text)
    assert mask(once) == once


@given(st.text())
def test_mask_takes_any_text(text: str) -> None:
    assert mask(mask(text)) == mask(text)


def test_mask_json_reaches_keys_and_nested_texts_and_keeps_the_rest() -> None:
    secret = SECRETS["github"][0]
    value = {"a": [1, 2.5, None, True, {"deep": (f"x {secret}", "y")}], secret: "key"}
    masked = mask_json(value)
    assert secret not in json.dumps(masked)
    assert masked["a"][:4] == [1, 2.5, None, True]
    assert masked["a"][4]["deep"][1] == "y"
    assert mask_json(masked) == masked


@pytest.mark.parametrize(
    "unit",
    [
        *("eyJ" + "a" * 8 + ".", "-----BEGIN PRIVATE KEY-----\n", "://a:", "sk-", "Bearer a.", "ghp_", "xoxb-", "AKIA"),
        "hooks.slack.com/services/",
    ],
)
def test_no_text_makes_it_slow(unit: str) -> None:
    text = unit * (200_000 // len(unit))
    start = time.process_time()
    mask(text)
    assert time.process_time() - start < 4


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\ttext\nnext é 漢 😀", "plain\ttext\nnext é 漢 😀"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b[2J\x1b[1;1Hgone", "gone"),
        ("\x1b]0;title\x07after", "after"),
        ("\x1b]8;;https://evil\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1bP1$r payload\x1b\\x", "x"),
        ("\x9b31mred\x9d0;t\x9cx", "redx"),
        ("\x1b]52;c;never ended\nnext line", "]52;c;never ended\nnext line"),
        ("\x1b", ""),
        ("\x1b[", "["),
        ("\x1bcreset\x1b(Bset", "resetset"),
        ("over\rwrite\x08\x08 \x7f\x85\x00", "overwrite "),
        ("\x1b\x1b[31m[31mx", "[31mx"),
        ("lone \ud800 half", "lone \ufffd half"),
        ("safe\u202egpj.exe\u2066\u2069", "safegpj.exe"),
    ],
)
def test_safe(text: str, shown: str) -> None:
    assert safe(text) == shown


CONTROLS = "".join(chr(code) for code in [*range(32), *range(127, 160)] if chr(code) not in "\n\t")


@given(st.text(alphabet=st.sampled_from(CONTROLS + "[]0;mHP\\\n\t abc\ud800")))
def test_safe_leaves_no_control_character_and_is_idempotent(text: str) -> None:
    shown = safe(text)
    assert not set(shown) & set(CONTROLS)
    assert safe(shown) == shown
    shown.encode()


def test_safe_is_linear() -> None:
    start = time.process_time()
    for unit in ("\x1b]", "\x1bP", "\x9d", "\x1b[", "\x1b[0"):
        safe(unit * 200_000)
    assert time.process_time() - start < 4
