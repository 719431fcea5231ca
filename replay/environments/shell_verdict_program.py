"""Runs inside the sandbox, on the standard library only: unit tests in one process, the code they test in another.

`python3 -I shell_verdict_program.py tests` runs the unit tests in /hidden. A module that is neither there nor in the
standard library is imported by the other process, `... agent`, and stands here as a `Remote`. Plain values (numbers,
texts, lists, ...) cross as JSON, everything else as a reference; nothing that the code under test does to its own
process (patching unittest, leaving early, printing verdicts) reaches the process that compares.

Three kinds of things do not cross: functions of the tests, open files, and classes of the code under test to inherit
from.
"""

from __future__ import annotations

import builtins
import importlib
import json
import operator
import os
import sys
import types

TYPE_CHECKING = False  # what only annotations need is not worth its start-up time, which every verdict pays twice
if TYPE_CHECKING:
    import io
    import unittest
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from importlib.machinery import ModuleSpec
    from typing import Any

REQUESTS_OUT, PIPE_IN, PIPE_OUT = 7, 8, 9
HIDDEN = "/hidden"
REPORT_NAMES = 50
_UNRAISED = ("KeyboardInterrupt", "GeneratorExit")
_TEXTS: Mapping[str, tuple[str, Callable[[Any], Any], Callable[[Any, Any], Any]]] = {
    "builtins.bytes": ("bytes", bytes.hex, lambda kind, text: kind.fromhex(text)),
    "decimal.Decimal": ("decimal", str, lambda kind, text: kind(text)),
    "fractions.Fraction": ("fraction", str, lambda kind, text: kind(text)),
    "datetime.date": ("date", lambda value: value.isoformat(), lambda kind, text: kind.fromisoformat(text)),
    "datetime.datetime": ("datetime", lambda value: value.isoformat(), lambda kind, text: kind.fromisoformat(text)),
    "datetime.time": ("time", lambda value: value.isoformat(), lambda kind, text: kind.fromisoformat(text)),
    "datetime.timedelta": (
        "timedelta",
        lambda value: [value.days, value.seconds, value.microseconds],
        lambda kind, parts: kind(*parts),
    ),
    "pathlib.PurePosixPath": ("pure path", str, lambda kind, text: kind(text)),
    "pathlib.PosixPath": ("path", str, lambda kind, text: kind(text)),
}
_PLACES = {short: place for place, (short, _, _) in _TEXTS.items()}
_MANY: Mapping[str, Callable[[Iterable[Any]], Any]] = {
    "list": list,
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
    "slice": lambda parts: slice(*parts),
}
_OPERATIONS: dict[str, Callable[..., Any]] = {
    **{
        name: getattr(operator, name)
        for name in (
            *("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "neg", "abs", "and_", "or_", "xor"),
            *("lt", "le", "gt", "ge", "eq", "getitem", "setitem", "delitem", "contains"),
        )
    },
    **{kind.__name__: kind for kind in (len, str, repr, bool, int, float, hash, iter, next, isinstance, dir)},
}


def encode(value: Any, refer: Callable[[Any], Any]) -> Any:
    """A value as JSON; `refer` says what stands for one that is not plain."""
    kind = type(value)
    if value is None or kind in (bool, int, float, str):
        return value
    if kind is dict:
        return ["dict", [[encode(key, refer), encode(item, refer)] for key, item in value.items()]]
    if kind is slice:
        return ["slice", [encode(item, refer) for item in (value.start, value.stop, value.step)]]
    if kind in (list, tuple, set, frozenset):
        return [kind.__name__, [encode(item, refer) for item in value]]
    place = f"{kind.__module__}.{kind.__qualname__}"
    if place in _TEXTS and kind is _kind(place):
        short, to_text, _ = _TEXTS[place]
        return [short, to_text(value)]
    return refer(value)


def _kind(place: str) -> Any:
    """The class at a place of the standard library."""
    module, _, name = place.rpartition(".")
    return getattr(importlib.import_module(module), name)


def decode(value: Any, resolve: Callable[[Sequence[Any]], Any]) -> Any:
    """The inverse of `encode`; `resolve` finds what a reference stands for."""
    if not isinstance(value, list):
        return value
    kind, inner = value[0], value[1]
    if kind == "dict":
        return {decode(key, resolve): decode(item, resolve) for key, item in inner}
    if kind in _MANY:
        return _MANY[kind](decode(item, resolve) for item in inner)
    if kind in _PLACES:
        return _TEXTS[_PLACES[kind]][2](_kind(_PLACES[kind]), inner)
    return resolve(value)


# -- the process with the code under test ------------------------------------------------------------------------------


class Agent:
    """Does what the tests ask, in the working folder."""

    def __init__(self) -> None:
        self._objects: dict[int, Any] = {}

    def answer(self, request: Sequence[Any]) -> Any:
        """The reply to one request; what the code under test raises is a reply, too."""
        try:
            given = [decode(item, lambda value: self._objects[value[1]]) for item in request[1:]]
            result = getattr(self, "do_" + request[0])(*given)
            return ["ok", encode(result, self._refer)]
        except BaseException as error:  # noqa: BLE001 (whatever it is, the tests shall see it)
            return ["raise", *self._described(error)]

    def _refer(self, value: Any) -> Any:
        self._objects[id(value)] = value
        names = None
        if isinstance(value, type) and issubclass(value, BaseException):
            names = [f"{kind.__module__}.{kind.__qualname__}" for kind in value.__mro__]
        return ["ref", id(value), names]

    def _described(self, error: BaseException) -> list[Any]:
        names = [f"{kind.__module__}.{kind.__qualname__}" for kind in type(error).__mro__]
        try:
            return [names, encode(error.args, self._refer)]
        except Exception as cause:  # noqa: BLE001 (arguments may be anything)
            return [names, encode((f"{type(cause).__name__} in its arguments",), self._refer)]

    def do_import(self, name: str) -> Any:
        """The module of that name."""
        return importlib.import_module(name)

    def do_get(self, owner: Any, name: str) -> Any:
        """An attribute."""
        return getattr(owner, name)

    def do_set(self, owner: Any, name: str, value: Any) -> None:
        """Set an attribute."""
        setattr(owner, name, value)

    def do_call(self, called: Any, arguments: Sequence[Any], named: Mapping[str, Any]) -> Any:
        """Call it."""
        return called(*arguments, **named)

    def do_op(self, name: str, *arguments: Any) -> Any:
        """One of the operations."""
        return _OPERATIONS[name](*arguments)

    def do_run(self, words: Sequence[str], text: str, seconds: float) -> Any:
        """Run a program: (exit code, output, errors)."""
        import subprocess

        done = subprocess.run(  # noqa: S603 (in the sandbox)
            words, input=text, capture_output=True, text=True, timeout=seconds, check=False
        )
        return done.returncode, done.stdout, done.stderr


def serve() -> None:
    """Answer requests until there are no more."""
    sys.path[:0] = [os.getcwd(), os.path.join(os.getcwd(), "src")]
    agent = Agent()
    with open(PIPE_IN, encoding="utf-8") as requests, open(PIPE_OUT, "w", encoding="utf-8") as replies:
        for line in requests:
            reply = json.dumps(agent.answer(json.loads(line)))
            replies.write(reply + "\n")
            replies.flush()


# -- the process with the tests ----------------------------------------------------------------------------------------


class Wire:
    """Asks the other process. Raises what the code under test raised."""

    def __init__(self, requests: io.TextIOBase, replies: io.TextIOBase):
        self._requests = requests
        self._replies = replies
        self._raised: dict[str, type[BaseException]] = {}

    def ask(self, *request: Any) -> Any:
        """One question. Raises EOFError when the other process is gone."""
        words = [request[0], *(encode(item, _reference) for item in request[1:])]
        self._requests.write(json.dumps(words) + "\n")
        self._requests.flush()
        line = self._replies.readline()
        if not line:
            raise EOFError("the process with the code under test has ended")
        reply = json.loads(line)
        if reply[0] == "ok":
            return decode(reply[1], self._resolve)
        arguments = decode(reply[2], self._resolve)
        raise self._exception(reply[1])(*arguments)

    def _resolve(self, value: Sequence[Any]) -> Any:
        if value[0] != "ref":
            raise ValueError(f"an unknown kind of value: {value[0]!r}")
        return Remote(self, int(value[1])) if value[2] is None else self._exception(value[2])

    def _exception(self, names: Sequence[str]) -> type[BaseException]:
        """A class of ours for one of theirs; those of Python are themselves."""
        for name in names:
            module, _, short = name.rpartition(".")
            known = getattr(builtins, short, None) if module == "builtins" else None
            if isinstance(known, type) and issubclass(known, BaseException):
                parent = known if issubclass(known, Exception) or short == "SystemExit" else Exception
                if name == names[0] and short not in _UNRAISED:
                    return parent
                first = names[0].rpartition(".")[2]
                made: Any = type(first, (parent,), {"__init__": _any_arguments})
                return self._raised.setdefault(names[0], made)
        raise ValueError("an exception without a class")


def _any_arguments(self: BaseException, *arguments: Any) -> None:
    self.args = arguments


def _reference(value: Any) -> Any:
    if isinstance(value, Remote):
        return ["ref", object.__getattribute__(value, "_ref"), None]
    raise TypeError(f"{type(value).__name__} cannot cross to the code under test")


class Remote:
    """Something in the other process. It equals only what is there, too: no plain value."""

    def __init__(self, wire: Wire, ref: int):
        object.__setattr__(self, "_wire", wire)
        object.__setattr__(self, "_ref", ref)

    def __getattr__(self, name: str) -> Any:
        return object.__getattribute__(self, "_wire").ask("get", self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        object.__getattribute__(self, "_wire").ask("set", self, name, value)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Call it there."""
        return object.__getattribute__(self, "_wire").ask("call", self, arguments, named)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Remote):
            return NotImplemented
        return object.__getattribute__(self, "_wire").ask("op", "eq", self, other) is True

    def __hash__(self) -> int:
        return int(_operation(self, "hash"))

    def __instancecheck__(self, item: object) -> bool:
        return isinstance(item, Remote) and _operation(item, "isinstance", self) is True


def _operation(first: Remote, name: str, *others: Any) -> Any:
    return object.__getattribute__(first, "_wire").ask("op", name, first, *others)


def _give_operations() -> None:
    """The methods behind operators, each asking for the operation of its name."""
    for name in _OPERATIONS:
        if name in ("eq", "hash", "isinstance", "dir"):
            continue
        method = f"__{name.strip('_')}__"
        setattr(Remote, method, lambda self, *others, _name=name: _operation(self, _name, *others))


class RemoteModule(types.ModuleType):
    """A module of the code under test."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name != "__version__":
            raise AttributeError(name)
        return getattr(self.__dict__["remote"], name)


class Finder:
    """Finds modules in the other process; Python's own and those of the tests come first."""

    def __init__(self, wire: Wire):
        self._wire = wire

    def find_spec(self, name: str, path: object, target: object = None) -> ModuleSpec | None:
        """See `importlib`."""
        top = name.partition(".")[0]
        own = any(os.path.exists(os.path.join(HIDDEN, top + end)) for end in ("", ".py"))
        if top in sys.stdlib_module_names or own:
            return None
        from importlib import machinery

        loader: Any = self
        return machinery.ModuleSpec(name, loader, is_package=True)

    def create_module(self, spec: ModuleSpec) -> types.ModuleType:
        """Import it there. Raises what the import raises."""
        module = RemoteModule(spec.name)
        module.__dict__["remote"] = self._wire.ask("import", spec.name)
        return module

    def exec_module(self, module: types.ModuleType) -> None:
        """Nothing to execute here."""


def judge() -> None:
    """Run the tests and report on the pipe that only this process has."""
    import unittest

    with (
        open(REQUESTS_OUT, "w", encoding="utf-8") as requests,
        open(PIPE_IN, encoding="utf-8") as replies,
        open(PIPE_OUT, "w", encoding="utf-8") as report,
    ):
        wire = Wire(requests, replies)
        _give_operations()
        helper = types.ModuleType("sandbox")
        helper.__dict__["run"] = lambda words, text="", seconds=10: wire.ask("run", list(words), text, seconds)
        sys.modules["sandbox"] = helper
        finder: Any = Finder(wire)
        sys.meta_path.insert(0, finder)
        result = unittest.TestResult()
        unittest.defaultTestLoader.discover(HIDDEN, top_level_dir=HIDDEN).run(result)
        json.dump(_summary(result), report)


def _summary(result: unittest.TestResult) -> dict[str, Any]:
    bad = [(str(test), text.strip().splitlines()[-1:]) for test, text in (*result.failures, *result.errors)]
    bad += [(str(test), ["passed unexpectedly"]) for test in result.unexpectedSuccesses]
    failed = {name: " ".join(text)[:200] for name, text in bad}
    counted = max(result.testsRun - len(result.skipped), len(failed))
    return {
        "of": counted,
        "passed": counted - len(failed),
        "failed": dict(sorted(failed.items())[:REPORT_NAMES]),
    }


if __name__ == "__main__":
    judge() if sys.argv[1:] == ["tests"] else serve()
