"""Configuration files: which there are, what they say, and on which line.

The project's file is the nearest `ttc.toml`, or `pyproject.toml` with a table `[tool.ttc-replay]`, from the working
folder upwards; the user's is `$XDG_CONFIG_HOME/ttc-replay/config.toml` (default `~/.config`). Secrets are refused.
"""

from __future__ import annotations

import os
import re
import stat
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..storage.errors import UsageError

NAME = "ttc.toml"
PYPROJECT = "pyproject.toml"
TABLE = ("tool", "ttc-replay")
MAX_BYTES = 1 << 20
"""Nobody writes a longer one by hand."""

_SECRET = re.compile(r"api_?key|token(?!s|iz)|secret|passw(or)?d|passphrase|credential|authorization")
_AT_LINE = re.compile(r"\(?at line (\d+)")
_KEY = re.compile(r"""[A-Za-z0-9_-]+|"(?:[^"\\\n]|\\.)*"|'[^'\n]*'""")
_SCANNED = re.compile(rf"(?:{_KEY.pattern})(?:\s*\.\s*(?:{_KEY.pattern}))*")
_NOT_SECRET = ("card", "iban")
"""Kinds of masked text that no provider takes as a key."""


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """One file: its table of ours, and its text, which knows the lines."""

    path: Path
    table: Mapping[str, Any]
    text: str
    prefix: tuple[str, ...] = ()

    def place(self, keys: Sequence[str] = ()) -> str:
        """`path:line` of a key, by its path in the table; without a line where it cannot be told."""
        line = line_of(self.text, (*self.prefix, *keys)) if keys else None
        return shown(self.path) + ("" if line is None else f":{line}")


def shown(path: Path) -> str:
    """As people name it: from the working folder where it lies in it, else in full."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def config_files(folder: Path, environment: Mapping[str, str]) -> tuple[list[ConfigFile], list[str]]:
    """The user's file and the project's, as far as they exist, in this order; and notes on what was left out.

    Raises UsageError for a file that cannot be read, is no TOML, or holds a secret.
    """
    notes: list[str] = []
    user = _user_path(environment)
    files = [_file(user)] if user is not None and user.is_file() else []
    project = _project(folder, notes)
    files += [project] if project is not None and (not files or project.path != files[0].path) else []
    for file in files:
        _refuse_secrets(file, file.table, ())
    return files, notes


def _user_path(environment: Mapping[str, str]) -> Path | None:
    given = environment.get("XDG_CONFIG_HOME", "")
    home = environment.get("HOME", "")
    if os.path.isabs(given):  # a relative one is invalid, says the XDG specification, and is ignored
        return Path(given) / "ttc-replay" / "config.toml"
    return Path(home) / ".config" / "ttc-replay" / "config.toml" if os.path.isabs(home) else None


def _project(folder: Path, notes: list[str]) -> ConfigFile | None:
    for place in (folder, *folder.parents):
        for name in (NAME, PYPROJECT):
            path = place / name
            if not path.is_file():
                continue
            if not _ours(path):
                notes.append(f"{shown(path)} belongs to another user: not read")
            elif (found := _file(path) if name == NAME else _pyproject(path)) is not None:
                return found
    return None


def _ours(path: Path) -> bool:
    """Whether this user or root owns the file, and nobody else may write it: a file in /tmp must not run code here."""
    about = path.stat()
    return not hasattr(os, "getuid") or (about.st_uid in (0, os.getuid()) and not about.st_mode & stat.S_IWOTH)


def _file(path: Path) -> ConfigFile:
    text = _text(path)
    return ConfigFile(path, _parsed(path, text), text)


def _pyproject(path: Path) -> ConfigFile | None:
    """None without our table. One that is no TOML, and does not name it either, is somebody else's trouble."""
    try:
        text = _text(path)
        if TABLE[-1] not in text:
            return None
    except UsageError:
        return None
    table: Any = _parsed(path, text)
    for key in TABLE:
        table = table.get(key) if isinstance(table, dict) else None
    return ConfigFile(path, table, text, TABLE) if isinstance(table, dict) else None


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise UsageError(f"a configuration file of more than {MAX_BYTES >> 20} MiB", place=shown(path))
        return data.decode("utf-8")
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", place=shown(path)) from error
    except UnicodeDecodeError as error:
        raise UsageError("not UTF-8", place=shown(path), hint="TOML is UTF-8") from error


def _parsed(path: Path, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError, ValueError) as error:
        found = _AT_LINE.search(str(error))
        place = shown(path) + (f":{found[1]}" if found else "")
        raise UsageError(f"not TOML: {error}", place=place, hint="docs/configuration.md shows one") from error


# -- secrets -----------------------------------------------------------------------------------------------------------


def _refuse_secrets(file: ConfigFile, value: Any, keys: tuple[str, ...]) -> None:
    """Raises UsageError for a key named like a secret and for a text that looks like one, at any depth."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            _refuse_secrets(file, item, (*keys, key))
    elif isinstance(value, list):
        for item in value:
            _refuse_secrets(file, item, keys)
    elif keys and (_named_secret(keys[-1], value) or (isinstance(value, str) and _looks_secret(value))):
        raise UsageError(
            f"{'.'.join(keys)} is a secret: keys are taken from the environment only",
            place=file.place(keys),
            hint='export it; api_key_env = "NAME" says in which variable it is',
        )


def _named_secret(key: str, value: Any) -> bool:
    plain = key.lower().replace("-", "_")
    return not plain.endswith("_env") and not isinstance(value, bool) and _SECRET.search(plain) is not None


def _looks_secret(text: str) -> bool:
    """A known shape of key, a password in a URL, or `api_key=...` written as on the command line."""
    from ..storage.redact import secrets_in

    name, equals, value = text.partition("=")
    pair = bool(equals) and " " not in name and "/" not in name and _named_secret(name.rpartition(".")[2], value)
    return pair or any(kind not in _NOT_SECRET for kind in secrets_in(text))


# -- lines -------------------------------------------------------------------------------------------------------------


def line_of(text: str, keys: Sequence[str]) -> int | None:
    """The line, from 1, on which the key is given, else the one of the table that it is in; None: not found.

    TOML's own parser keeps no lines. This looks for `[a.b]` and `a.b =` at the beginning of lines, which is where
    people write them.
    """
    wanted, best, found = tuple(keys), 0, None
    for line, given in _given(text):
        known = len(given) if given == wanted[: len(given)] else 0
        if known > best:
            best, found = known, line
    return found


def _given(text: str) -> Iterator[tuple[int, tuple[str, ...]]]:
    """(line, path of keys) of every header and assignment."""
    table: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), 1):
        bare = line.strip()
        start = bare.lstrip("[") if bare.startswith("[") else bare
        match = _SCANNED.match(start.lstrip())
        if match is None:
            continue
        keys = tuple(_unquoted(part) for part in _KEY.findall(match[0]))
        rest = start.lstrip()[match.end() :].lstrip()
        if bare.startswith("[") and rest.startswith("]"):
            table = keys
            yield number, table
        elif not bare.startswith("[") and rest.startswith("="):
            yield number, (*table, *keys)


def _unquoted(part: str) -> str:
    return part[1:-1] if part[:1] in "\"'" else part
