"""Foreign text made harmless: `safe` for terminals, `mask` for secrets in reports and exports. Standard library only.

A rule is a literal gate (a plain `in`, which most texts fail) and an anchored pattern. Every pattern starts at a fixed
prefix, may not start inside a longer word, and is bounded, so that no text makes it slow. A masked secret keeps four
hex digits of its hash: equal secrets stay recognisable as equal, and nothing of the secret itself remains.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

# One alternative per shape: CSI; OSC, DCS, SOS, PM, APC up to their terminator on the same line; other escapes of
# two or three bytes; the 8-bit forms of the first two. What is left of a broken one is taken by the class at the end.
_CONTROL = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"
    r"|\x1b[\]PX^_][^\x00-\x08\x0a-\x1f\x7f-\x9f]*(?:\x07|\x1b\\|\x9c)"
    r"|\x1b[ -/]*[0-OQ-WYZ\\`-~]"
    r"|\x9b[0-?]*[ -/]*[@-~]"
    r"|[\x90\x98\x9d-\x9f][^\x00-\x08\x0a-\x1f\x7f-\x9f]*(?:\x07|\x1b\\|\x9c)"
    r"|[\x00-\x08\x0b-\x1f\x7f-\x9f]"
    r"|[\u202a-\u202e\u2066-\u2069]"  # overrides of direction: what is read would not be what is there
)
_SURROGATE = re.compile("[\ud800-\udfff]")


def safe(text: str) -> str:
    """`text` without anything that steers a terminal: the one function for foreign text that is printed.

    Whole escape sequences go, then all of C0 but newline and tab, DEL and C1, and overrides of direction. Lone
    surrogates, which cannot be printed, become U+FFFD. Idempotent.
    """
    return _SURROGATE.sub("\ufffd", _CONTROL.sub("", text))


class _Rule(NamedTuple):
    """`pattern` has the group `secret`; only that is replaced. `gate`: one of these must be in the text (none: no
    literal stands in it). `holds`: what the text must say besides, such as a checksum.
    """

    kind: str
    gate: tuple[str, ...]
    pattern: re.Pattern[str]
    holds: Callable[[str], bool] | None = None


# Not inside a word; but the `n` of an escaped newline in JSON text is no word.
_WORD_STARTS = r"(?:(?<![A-Za-z0-9])|(?<=\\[nrtbf])|(?<=\\u[0-9a-fA-F]{4}))"
# The same, said behind the first character: patterns that begin with a class of characters are found much faster.
_STARTED = r"(?:(?<![A-Za-z0-9].)|(?<=\\[nrtbf].)|(?<=\\u[0-9a-fA-F]{4}.))"
_WORD_ENDS = r"(?![A-Za-z0-9])"
_TOKEN_ENDS = r"(?![A-Za-z0-9_-])"  # noqa: S105 (a pattern)


def _rule(
    kind: str,
    gate: str,
    secret: str,
    *,
    before: str = _WORD_STARTS,
    after: str = "",
    holds: Callable[[str], bool] | None = None,
) -> _Rule:
    return _Rule(kind, tuple(gate.split()), re.compile(f"{before}(?P<secret>{secret}){after}"), holds)


def _is_card(text: str) -> bool:
    """ISO/IEC 7812: a known issuer with its length, and the Luhn check digit."""
    digits = [int(digit) for digit in text if digit.isdigit()]
    number = "".join(map(str, digits))
    doubled = (sum(divmod(2 * digit, 10)) for digit in digits[-2::-2])
    return _ISSUER.fullmatch(number) is not None and (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


_ISSUER = re.compile(
    r"4\d{15}|4\d{18}|5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}|3[47]\d{13}"
    r"|6(?:011|5\d\d|4[4-9]\d)\d{12}|3(?:0[0-5]|[689]\d)\d{11}|35(?:2[89]|[3-8]\d)\d{12}"
)
_IBAN_LENGTHS = {
    **dict.fromkeys(("NO",), 15),
    **dict.fromkeys(("BE",), 16),
    **dict.fromkeys(("DK", "FI", "FO", "GL", "NL"), 18),
    **dict.fromkeys(("MK", "SI"), 19),
    **dict.fromkeys(("AT", "BA", "EE", "KZ", "LT", "LU", "XK"), 20),
    **dict.fromkeys(("CH", "HR", "LI", "LV"), 21),
    **dict.fromkeys(("BG", "BH", "CR", "DE", "GB", "GE", "IE", "ME", "RS"), 22),
    **dict.fromkeys(("AE", "GI", "IL", "IQ", "TL"), 23),
    **dict.fromkeys(("AD", "CZ", "ES", "MD", "PK", "RO", "SA", "SE", "SK", "TN", "VG"), 24),
    **dict.fromkeys(("LY", "PT", "ST"), 25),
    **dict.fromkeys(("IS", "TR"), 26),
    **dict.fromkeys(("BI", "DJ", "FR", "GR", "IT", "MC", "MR", "SM"), 27),
    **dict.fromkeys(("AL", "AZ", "BY", "CY", "DO", "GT", "HU", "LB", "NI", "PL", "SV"), 28),
    **dict.fromkeys(("BR", "EG", "PS", "QA", "UA"), 29),
    **dict.fromkeys(("JO", "KW", "MU"), 30),
    **dict.fromkeys(("MT", "SC"), 31),
    **dict.fromkeys(("LC",), 32),
    **dict.fromkeys(("RU",), 33),
}


def _is_iban(text: str) -> bool:
    """ISO 13616: the country's length, and the rest of 1 modulo 97."""
    plain = text.replace(" ", "")
    if _IBAN_LENGTHS.get(plain[:2]) != len(plain):
        return False
    return int("".join(str(int(letter, 36)) for letter in plain[4:] + plain[:4])) % 97 == 1


# In this order: a whole PEM block before what is in it, a vendor's key before the bearer or URL that carries it.
_RULES = (
    _rule(
        "private-key",
        "PRIVATE",
        r"-----BEGIN (?P<kind>[A-Z0-9 ]{0,32}PRIVATE KEY(?: BLOCK)?)-----"
        r"(?:(?:(?!-----)[\s\S]){0,16384}-----END (?P=kind)-----|(?:(?:\\[nr]|\s){0,4}[A-Za-z0-9+/=]{20,100}){0,400})",
        before="",
    ),
    _rule("aws-access-key", "AKIA ASIA ABIA ACCA", r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}", after=_WORD_ENDS),
    _rule(
        "aws-secret-key",
        "aws_secret AWS_SECRET SecretAccessKey secretAccessKey",
        r"[A-Za-z0-9/+=]{40}",
        before=r"(?:(?i:aws_secret_access_key|aws_secret_key)|[sS]ecretAccessKey)\\?[\"']?\s{0,4}[=:]\s{0,4}\\?[\"']?",
        after=r"(?![A-Za-z0-9/+=])",
    ),
    _rule("gcp-api-key", "AIza", r"AIza[A-Za-z0-9_-]{35}", after=_TOKEN_ENDS),
    _rule(
        "gcp-oauth", "ya29. GOCSPX-", r"(?:ya29\.[A-Za-z0-9_-]{20,2048}|GOCSPX-[A-Za-z0-9_-]{28})", after=_TOKEN_ENDS
    ),
    _rule("github", "ghp_ gho_ ghu_ ghs_ ghr_", r"gh[pousr]_[A-Za-z0-9]{36,255}", after=_WORD_ENDS),
    _rule("github", "github_pat_", r"github_pat_[A-Za-z0-9_]{22,255}", after=_TOKEN_ENDS),
    _rule("anthropic", "sk-ant-", r"sk-ant-[A-Za-z0-9]{2,12}-[A-Za-z0-9_-]{20,255}", after=_TOKEN_ENDS),
    _rule(
        "openai",
        "sk-",
        r"sk-(?:(?:proj|svcacct|admin|None)-[A-Za-z0-9_-]{20,255}|[A-Za-z0-9]{32,128})",
        after=_TOKEN_ENDS,
    ),
    _rule("slack", "xox xapp-", r"(?:xox[abeoprs]|xapp|xoxe\.xox[bp])-[A-Za-z0-9-]{10,255}+", after=_TOKEN_ENDS),
    _rule(
        "slack-webhook",
        "hooks.slack.com",
        r"(?:services|workflows|triggers)/[A-Za-z0-9/_+-]{30,128}",
        before=r"hooks\.slack\.com/",
    ),
    _rule(
        "stripe",
        "sk_live_ sk_test_ rk_live_ rk_test_ whsec_",
        r"(?:[sr]k_(?:live|test)_[A-Za-z0-9]{16,255}|whsec_[A-Za-z0-9+/=]{24,255})",
        after=_WORD_ENDS,
    ),
    _rule("huggingface", "hf_", r"hf_[A-Za-z0-9]{30,64}", after=_WORD_ENDS),
    _rule("gitlab", "glpat-", r"glpat-[A-Za-z0-9_-]{20,64}", after=_TOKEN_ENDS),
    _rule(
        "jwt",
        "eyJ",
        r"eyJ[A-Za-z0-9_-]{8,4096}\.eyJ[A-Za-z0-9_-]{8,16384}\.[A-Za-z0-9_-]{0,4096}",
        after=_TOKEN_ENDS,
    ),
    _rule(
        "bearer",
        "earer EARER",
        r"(?=[A-Za-z._~+/-]{0,255}[0-9])[A-Za-z0-9._~+/-]{16,4096}={0,2}",
        before=_WORD_STARTS + r"(?i:bearer)(?:\s|%20|\+){1,4}",
        after=r"(?![A-Za-z0-9._~+/=-])",
    ),
    _rule(
        "url-password",
        "://",
        r"(?!\[SECRET:[a-z-]{1,32}:[0-9a-f]{4}\]@)[^\s/\"'<>]{1,256}",
        before=r"://[^\s/:@\"'<>]{0,128}:",
        after=r"(?=@)",
    ),
    _rule(
        "card",
        "",
        rf"[2-6](?<![_.-].){_STARTED}(?:\d{{3}}(?:[ -]?\d{{4}}){{2}}[ -]?\d{{2,7}}|\d{{3}}[ -]?\d{{6}}[ -]?\d{{4,5}})",
        before="",
        after=r"(?![A-Za-z0-9_-]|\.\d)",
        holds=_is_card,
    ),
    _rule(
        "iban",
        "",
        rf"[A-Z]{_STARTED}[A-Z]\d{{2}}(?:(?: [A-Z0-9]{{4}}){{2,7}}(?: [A-Z0-9]{{1,3}})?|[A-Z0-9]{{11,29}})",
        before="",
        after=_WORD_ENDS,
        holds=_is_iban,
    ),
)
_MARK = re.compile(r"\[SECRET:([a-z-]{1,32}):[0-9a-f]{4}\]")


_PASSES = 4  # a mark is a new word boundary, behind which a second pass may find what was glued to the secret


def mask(text: str) -> str:
    """`text` with each secret replaced by `[SECRET:kind:abcd]`. Idempotent; equal secrets give equal marks."""
    for _ in range(_PASSES):
        before = text
        for rule in _RULES:
            if not rule.gate or any(literal in text for literal in rule.gate):
                text = rule.pattern.sub(partial(_marked, rule), text)
        if text == before:
            break
    return text


def mask_json(value: Any) -> Any:
    """A JSON value with `mask` applied to every text in it, keys too. Tuples become lists."""
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, Mapping):
        return {mask_json(key): mask_json(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
        return [mask_json(item) for item in value]
    return value


def kinds() -> Iterable[str]:
    """The kinds of secret that are known, in the order of their rules."""
    return dict.fromkeys(rule.kind for rule in _RULES)


def secrets_in(text: str) -> dict[str, int]:
    """How many secrets of each kind `mask` would replace."""
    masked = mask(text)
    if masked == text:
        return {}
    found = Counter(_MARK.findall(masked))
    found.subtract(_MARK.findall(text))
    return {kind: count for kind, count in found.items() if count > 0}


def _marked(rule: _Rule, match: re.Match[str]) -> str:
    secret, whole = match["secret"], match[0]
    if rule.holds is not None and not rule.holds(secret):
        return whole
    start = match.start("secret") - match.start()
    digest = hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()[:4]
    return f"{whole[:start]}[SECRET:{rule.kind}:{digest}]{whole[start + len(secret) :]}"
