"""What the configuration files mean: values for the options of the commands, in the form of click's `default_map`.

Precedence: option > `TTC_*` variable > project's file > user's file > default. Keys are the names of the options, in a
table for each command; global options stand at the top. Options that are repeated `KEY=VALUE` are tables.
"""

from __future__ import annotations

import difflib
import json
import os
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import NoneType
from typing import Any

from ..storage.errors import UsageError
from .config_files import ConfigFile, config_files
from .plugins import parse_value

SKIPPED = ("help", "install-completion", "show-completion")
PAIRS = "KEY=VALUE"
KINDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    list: "a list",
    dict: "a table",
}
Values = dict[tuple[str, ...], "Setting"]
"""By the path of commands and the name of the parameter: `("search", "policy_opt")`."""


@dataclass(frozen=True, slots=True)
class Known:
    """An option as a file names it: `name` is the parameter's, `kind` its Python type, `pairs` a table of values."""

    name: str
    kind: type
    many: bool
    pairs: bool


@dataclass(frozen=True, slots=True)
class Setting:
    """The value of one option, and where it was given."""

    value: Any
    file: Path
    place: str
    option: str


@dataclass(slots=True)
class Configuration:
    """All that the files say, merged."""

    files: list[ConfigFile] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    values: Values = field(default_factory=dict)

    def default_map(self) -> dict[str, Any]:
        """Nested by command, as click takes it."""
        nested: dict[str, Any] = {}
        for path, setting in self.values.items():
            table = nested
            for name in path[:-1]:
                table = table.setdefault(name, {})
            table[path[-1]] = setting.value
        return nested


def load(command: Any, folder: Path | None = None, environment: Mapping[str, str] | None = None) -> Configuration:
    """Read and check the files that hold in `folder`, for the program `command`. Raises UsageError."""
    files, notes = config_files(folder or Path.cwd(), os.environ if environment is None else environment)
    merged = Configuration(files, notes)
    for file in files:
        _lay_over(merged.values, dict(_settings(file, command, file.table, ())))
    return merged


def _lay_over(below: Values, above: Values) -> None:
    """The upper file wins by option, and by key within a table; another plugin does not get the lower one's options."""
    for path, setting in above.items():
        opt = (*path[:-1], f"{path[-1]}_opt")
        if path in below and opt in below and below[path].value != setting.value:
            del below[opt]
    for path, setting in above.items():
        if path in below and path[-1].endswith("_opt"):
            below[path] = replace(setting, value=merged_pairs(below[path].value, setting.value))
        else:
            below[path] = setting


def merged_pairs(below: Iterable[str], above: Sequence[str]) -> list[str]:
    """`key=value` texts: those of `above`, after those of `below` whose key is not among them."""
    given = {key_of(pair) for pair in above}
    return [*(pair for pair in below if key_of(pair) not in given), *above]


def key_of(pair: str) -> str:
    """The key of `key=value`; dashes are underscores."""
    return pair.partition("=")[0].replace("-", "_")


# -- what may be said --------------------------------------------------------------------------------------------------


def options_of(command: Any) -> dict[str, Known]:
    """The options of a command by their names without dashes (`policy-opt`)."""
    hints = typing.get_type_hints(command.callback) if command.callback is not None else {}
    found = {}
    for parameter in command.params:
        if parameter.param_type_name == "option" and (name := option_name(parameter)) not in SKIPPED:
            kind, many = _kind(hints.get(parameter.name, str))
            pairs = many and str(parameter.metavar or "").endswith(PAIRS)
            found[name] = Known(parameter.name, kind, many, pairs)
    return found


def option_name(parameter: Any) -> str:
    """The longest spelling of an option, without its dashes."""
    return max((str(option).lstrip("-") for option in parameter.opts), key=len)


def _kind(hint: Any) -> tuple[type, bool]:
    """The type of one value, and whether there may be many."""
    for inner in typing.get_args(hint) if typing.get_origin(hint) is not list else ():
        if inner is not NoneType:
            return _kind(inner)
    if typing.get_origin(hint) is list:
        return _kind(typing.get_args(hint)[0])[0], True
    return (hint if hint in (bool, int, float) else str), False


def _settings(
    file: ConfigFile, command: Any, table: Mapping[str, Any], path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], Setting]]:
    options: dict[str, Known] = options_of(command)
    commands: Mapping[str, Any] = getattr(command, "commands", {})
    for key, value in table.items():
        keys = (*path, key)
        if key in commands:
            if not isinstance(value, dict):
                raise _wrong(file, keys, value, dict)
            yield from _settings(file, commands[key], value, keys)
        elif key in options:
            known = options[key]
            given = _value(file, keys, value, known)
            yield (*path, known.name), Setting(given, file.path, file.place(keys), ".".join(keys))
        else:
            raise _unknown(file, keys, [*options, *commands], command)


def _unknown(file: ConfigFile, keys: tuple[str, ...], known: Sequence[str], command: Any) -> UsageError:
    near = difflib.get_close_matches(keys[-1].replace("_", "-"), known, n=1, cutoff=0.5)
    owners = [
        f"{name}.{keys[-1]}"
        for name, inner in getattr(command, "commands", {}).items()
        if keys[-1] in options_of(inner)
    ]
    hint = f"did you mean {(owners or near)[0]}? " if near or owners else ""
    where = f"[{'.'.join(keys[:-1])}] has" if keys[:-1] else "there is"
    return UsageError(
        f"{where} no key {keys[-1]!r}", place=file.place(keys), hint=f"{hint}known: {', '.join(sorted(known))}"
    )


def _wrong(file: ConfigFile, keys: tuple[str, ...], value: Any, wanted: type) -> UsageError:
    given = KINDS.get(type(value), f"a {type(value).__name__}")
    return UsageError(f"{'.'.join(keys)} takes {KINDS[wanted]}, not {given}", place=file.place(keys))


# -- values ------------------------------------------------------------------------------------------------------------


def _value(file: ConfigFile, keys: tuple[str, ...], value: Any, known: Known) -> Any:
    """As click takes it: one value, or a list of them."""
    if known.pairs and isinstance(value, dict):
        return list(_pairs(file, keys, value))
    if not known.many:
        return _single(file, keys, value, known)
    if isinstance(value, dict):
        raise _wrong(file, keys, value, list)
    return [_single(file, keys, item, known) for item in (value if isinstance(value, list) else [value])]


def _single(file: ConfigFile, keys: tuple[str, ...], value: Any, known: Known) -> Any:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if known.kind is str and number:  # `from-step = 2`
        return str(value)
    right = number if known.kind is float else type(value) is known.kind
    if not right:
        raise _wrong(file, keys, value, known.kind)
    return _path(file, value, is_path=keys == ("db",)) if isinstance(value, str) else value


def _pairs(file: ConfigFile, keys: tuple[str, ...], table: Mapping[str, Any]) -> Iterator[str]:
    """`key=value` as on the command line; of an option of named things (`--reward-opt`) `name.key=value`."""
    named = keys[-1] == "reward-opt"
    for key, value in table.items():
        if named and not isinstance(value, dict):
            raise _wrong(file, (*keys, key), value, dict)
        if named:
            owner = _path(file, key)
            yield from (f"{owner}.{inner}={_text(file, (*keys, key, inner), item)}" for inner, item in value.items())
        else:
            yield f"{key}={_text(file, (*keys, key), value)}"


def _text(file: ConfigFile, keys: tuple[str, ...], value: Any) -> str:
    """The text that `parse_value` reads as this very value."""
    if isinstance(value, str):
        value = _path(file, value)
        return value if parse_value(value) == value else json.dumps(value)
    try:
        return json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{'.'.join(keys)} is no JSON: {error}", place=file.place(keys)) from error


def _path(file: ConfigFile, text: str, *, is_path: bool = False) -> str:
    """Texts that begin with ./ or ../ are relative to the file that says them, whatever folder one works in."""
    relative = text.startswith(("./", "../")) or (is_path and "://" not in text and not os.path.isabs(text))
    if not relative or (is_path and text == ":memory:"):
        return text
    if file.path.parent == Path.cwd() and text.startswith("./"):
        return text
    found = os.path.relpath(os.path.normpath(file.path.parent / text))
    return found if found.startswith("../") else f"./{found}"
