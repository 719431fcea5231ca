"""Recall and false marks of the secret rules: 500 made secrets planted into texts of logs, and the same texts without.

recall        planted secrets of which no character is left after `mask`
gate          planted secrets whose text passes the gate of the ingest
false marks   marks in the texts as they were, by kind (those of the recorded logs are listed: some are real finds)
speed         megabytes per CPU second of `mask` and of the gate

python benchmarks/secrets_planted.py [FOLDER OF LOGS] [--secrets 500] [--seed 0]
"""

from __future__ import annotations

import argparse
import random
import re
import string
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow  # type: ignore[import-untyped]

from ttc_replay.storage.redact import mask, secrets_in
from ttc_replay.storage.secrets_gate import suspects

ALNUM = string.ascii_letters + string.digits
UPPER = string.ascii_uppercase + string.digits
HEX = "0123456789abcdef"
SURROUNDINGS = (
    "{}",
    "key={}",
    '"{}"',
    "'{}'",
    '{{"k": "{}"}}',
    "a\\n{}\\nb",
    "({})",
    "<{}>",
    "export X={}\n",
    "text {} text",
)


def _some(randomly: random.Random, alphabet: str, length: int) -> str:
    return "".join(randomly.choices(alphabet, k=length))


def _luhn(randomly: random.Random) -> str:
    digits = "4" + _some(randomly, string.digits, 14)
    total = sum(sum(divmod(2 * int(digit), 10)) for digit in digits[::-2]) + sum(int(digit) for digit in digits[-2::-2])
    number = digits + str(-total % 10)
    return randomly.choice((number, " ".join(re.findall("....", number)), "-".join(re.findall("....", number))))


def _iban(randomly: random.Random) -> str:
    body = _some(randomly, string.digits, 18)
    check = 98 - int(body + "131400") % 97
    number = f"DE{check:02}{body}"
    return randomly.choice((number, " ".join(re.findall("..?.?.?", number))))


def _pem(randomly: random.Random) -> str:
    lines = "\n".join(_some(randomly, ALNUM + "+/", 64) for _ in range(12))
    return f"-----BEGIN RSA PRIVATE KEY-----\n{lines}\n-----END RSA PRIVATE KEY-----"


MAKERS: dict[str, Callable[[random.Random], str]] = {
    "aws-access-key": lambda r: "AK" + "IA" + _some(r, UPPER, 16),
    "gcp-api-key": lambda r: "AI" + "za" + _some(r, ALNUM, 35),
    "github": lambda r: "gh" + "p_" + _some(r, ALNUM, 36),
    "github (fine)": lambda r: "github_" + "pat_" + _some(r, ALNUM, 82),
    "openai": lambda r: "sk-" + "proj-" + _some(r, ALNUM + "-_", 119) + "A",
    "openai (old)": lambda r: "sk-" + _some(r, ALNUM, 48),
    "anthropic": lambda r: "sk-" + "ant-api03-" + _some(r, ALNUM + "-_", 93) + "AA",
    "slack": lambda r: "xox" + "b-" + _some(r, string.digits, 12) + "-" + _some(r, ALNUM, 24),
    "stripe": lambda r: "sk_" + "live_" + _some(r, ALNUM, 24),
    "jwt": lambda r: f"ey{'J'}{_some(r, ALNUM, 30)}.ey{'J'}{_some(r, ALNUM, 60)}.{_some(r, ALNUM + '-_', 42)}a",
    "private-key": _pem,
    "bearer": lambda r: "Bearer " + _some(r, ALNUM, 39) + "7",
    "url-password": lambda r: f"postgresql://me:{_some(r, ALNUM + '!$*', 12)}@db.example:5432/x",
    "card": _luhn,
    "iban": _iban,
}  # fmt: skip
VISIBLE = {"bearer": lambda secret: secret[7:], "url-password": lambda secret: secret.split(":")[2].split("@")[0]}


def texts(folder: Path | None, randomly: random.Random) -> list[str]:
    """Pieces of logs of 200 to 2,000 characters; made-up words where there is no folder."""
    found: list[str] = []
    for path in sorted(folder.rglob("*.json*")) if folder else ():
        text = path.read_text(encoding="utf-8", errors="replace")
        start = 0
        while start < len(text):
            size = randomly.randint(200, 2000)
            found.append(text[start : start + size])
            start += size
    return found or [" ".join(_some(randomly, string.ascii_lowercase, 6) for _ in range(60)) for _ in range(200)]


def planted(pieces: list[str], count: int, randomly: random.Random) -> Iterator[tuple[str, str, str]]:
    """Kind, what must not be left, text with the secret in it at a word's border."""
    kinds = list(MAKERS)
    for number in range(count):
        kind = kinds[number % len(kinds)]
        secret = MAKERS[kind](randomly)
        piece = randomly.choice(pieces)
        at = randomly.choice([0, len(piece), *(match.start() for match in re.finditer(r"[ \n]", piece))])
        written = randomly.choice(SURROUNDINGS).format(secret)
        yield kind, VISIBLE.get(kind, str)(secret), f"{piece[:at]} {written} {piece[at:]}"


def main() -> None:
    """Run and print; exit code 1 below a recall of 0.98."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--secrets", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    randomly = random.Random(options.seed)
    pieces = texts(options.folder, randomly)
    missed: Counter[str] = Counter()
    stopped: Counter[str] = Counter()
    for kind, secret, text in planted(pieces, options.secrets, randomly):
        missed[kind] += secret in mask(text)
        stopped[kind] += not suspects(pyarrow.array([text]))
    marks: Counter[str] = Counter()
    for piece in pieces:
        marks.update(secrets_in(piece))
    size = sum(map(len, pieces)) / 10**6
    print(f"recall {1 - missed.total() / options.secrets:.3f} of {options.secrets}, missed: {dict(+missed) or 'none'}")
    print(f"gate   {1 - stopped.total() / options.secrets:.3f}, stopped: {dict(+stopped) or 'none'}")
    print(f"marks in {len(pieces)} texts without planted secrets ({size:.1f} MB): {dict(marks) or 'none'}")
    for name, way in (
        ("mask", lambda: [mask(piece) for piece in pieces]),
        ("gate", lambda: suspects(pyarrow.array(pieces))),
    ):
        start = time.process_time()
        way()
        print(f"{name}: {size / (time.process_time() - start):.0f} MB per CPU second")
    raise SystemExit(0 if missed.total() <= 0.02 * options.secrets else 1)


if __name__ == "__main__":
    main()
