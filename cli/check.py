"""`check-plugin`: the contract tests on a plugin of one's own."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .replay import Options
from .state import State

if TYPE_CHECKING:
    from rich.console import Console

    from ..replay.contract_checks import Check
    from ..storage.records import Spec, Task, Trajectory

METHODS = {
    "environment": ("reset", "step"),
    "policy": ("propose",),
    "reward": ("score",),
    "algorithm": ("ask", "tell"),
    "reader": ("detect", "read"),
    "exporter": ("rows",),
}
"""What tells a plugin's kind, where its name does not."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(name="check-plugin")(check_plugin)


def check_plugin(
    ctx: typer.Context,
    spec: Annotated[
        str, typer.Argument(metavar="SPEC", help="The plugin: a name, module:attribute, or ./file.py:attribute.")
    ],
    kind: Annotated[
        str | None,
        typer.Option(help="environment, policy, reward, algorithm, reader or exporter; default: told by SPEC."),
    ] = None,
    opt: Options = None,
    task: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A task as JSON: id, prompt, data, seed, private.")
    ] = None,
    source: Annotated[
        str | None, typer.Option("--from", metavar="ID", help="Try it on this recorded run of the database.")
    ] = None,
    env: Annotated[
        str | None, typer.Option(help="For a reward: the environment in which the run is executed again.")
    ] = None,
    env_opt: Options = None,
    log: Annotated[Path | None, typer.Option(metavar="FILE", help="For a reader: a log of its format.")] = None,
) -> None:
    """Run the contract tests on a plugin. Example: ttc-replay check-plugin ./world.py:World --from 3f2a."""
    from ..replay.contract_checks import worst

    state: State = ctx.obj
    subject = _subject(spec, kind, opt or (), env_opt or ())
    material = Material.of(state, task, source, _environment(subject, env, env_opt or ()), log)
    checks = _CHECKS[subject.kind](subject.spec, material)
    document = _document(subject, checks)
    state.emit(document, lambda console: _show(console, document))
    raise typer.Exit(worst(checks))


@dataclass(frozen=True, slots=True)
class Subject:
    """What is checked."""

    kind: str
    spec: Spec


def _subject(name: str, kind: str | None, opt: Sequence[str], env_opt: Sequence[str]) -> Subject:
    """Raises UsageError for a kind that cannot be told, PluginNotFound for a name that nothing has."""
    from ..storage.errors import UsageError
    from ..storage.records import Spec
    from . import plugins

    if kind is not None and kind not in METHODS:
        raise UsageError(f"--kind {kind!r}", hint=f"one of: {', '.join(METHODS)}")
    told = kind or _kind_of(name)
    pairs = [*opt, *env_opt] if told == "environment" else opt
    return Subject(told, Spec(name, plugins.parse_options(pairs, "--opt")))


def _kind_of(name: str) -> str:
    from ..storage.errors import PluginNotFound, UsageError
    from . import plugins

    if ":" in name:
        return _kind_by_looks(name)
    found = [kind for kind in METHODS if name in plugins.installed(plugins.KINDS[kind])]
    if len(found) > 1:
        raise UsageError(f"{name!r} is {' and '.join(found)}", hint=f"--kind {found[0]}")
    if not found:
        raise PluginNotFound(f"no plugin named {name!r}", hint=f"ttc-replay ls plugins; or {plugins.FORMS}")
    return found[0]


def _kind_by_looks(name: str) -> str:
    from ..replay.environments.tools import is_tools_class
    from ..storage.errors import UsageError
    from . import plugins

    found = plugins.find("environment", name)  # by place: the kind does not matter
    for kind, methods in METHODS.items():
        if all(callable(getattr(found, method, None)) for method in methods):
            return kind
    if is_tools_class(found):
        return "environment"
    raise UsageError(f"what kind of plugin is {name!r}?", hint=f"--kind {' or --kind '.join(METHODS)}")


def _environment(subject: Subject, env: str | None, env_opt: Sequence[str]) -> Spec | None:
    """The environment in which a reward's runs are executed again."""
    from ..storage.errors import UsageError
    from . import jobs

    if env is None:
        if env_opt and subject.kind != "environment":
            raise UsageError("--env-opt without --env", hint="options of the plugin itself are --opt")
        return None
    if subject.kind != "reward":
        raise UsageError(f"--env is for a reward, not for {subject.kind}", hint="leave it out")
    return jobs.specs(env, env_opt, "--env-opt")


@dataclass(frozen=True, slots=True)
class Material:
    """What a plugin is tried on."""

    task: Task | None = None
    record: Trajectory | None = None
    known: Sequence[Trajectory] = ()
    factory: Callable[[], Any] | None = None
    log: bytes | None = None

    @staticmethod
    def of(state: State, task: Path | None, source: str | None, env: Spec | None, log: Path | None) -> Material:
        """Read it. Raises UsageError, UnknownId."""
        from ..storage.errors import UsageError
        from . import jobs, plugins

        if task is not None and source is not None:
            raise UsageError("--task beside --from", hint="a recorded run has its task")
        factory = plugins.environment(env)[0] if env is not None else None
        data = None if log is None else _read(log)
        if source is None:
            return Material(None if task is None else _task(task), factory=factory, log=data)
        with state.database(create=False) as database:
            record = database.trajectory(database.resolve(source))
            return Material(record.task, record, jobs.recorded(database), factory, data)

    @property
    def runs(self) -> dict[str, Trajectory]:
        """The recorded runs of the record's task, by id."""
        return {run.id: run for run in self.known if self.record is not None and run.task.id == self.record.task.id}


def _read(path: Path) -> bytes:
    from ..storage.errors import UsageError

    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", place=str(path)) from error


def _task(path: Path) -> Task:
    from ..storage.errors import UsageError
    from ..storage.records import Task

    try:
        given = json.loads(_read(path))
        return Task(**{"id": path.stem, **given})
    except (ValueError, TypeError, RecursionError) as error:
        hint = '{"id": "t1", "prompt": "...", "data": {}, "seed": 0, "private": {}}'
        raise UsageError(f"no task: {error}", place=str(path), hint=hint) from error


# -- by kind -----------------------------------------------------------------------------------------------------------


def _check_environment(spec: Spec, material: Material) -> list[Check]:
    from ..replay.contract_checks import check_environment
    from ..replay.environments.family import Recipe
    from . import plugins

    factory, _ = plugins.environment(spec)
    place = f"{plugins.__name__}:{plugins.in_process.__name__}"
    recipe = Recipe(place, {"name": spec.name, "options": dict(spec.options)})
    return check_environment(factory, material.task, record=material.record, runs=material.runs, recipe=recipe)


def _check_policy(spec: Spec, material: Material) -> list[Check]:
    from ..replay.contract_checks import check_policy
    from . import plugins

    return check_policy(plugins.policy(spec), record=material.record, records=material.known)


def _check_reward(spec: Spec, material: Material) -> list[Check]:
    from ..replay.contract_checks import check_reward
    from . import plugins

    model = plugins.build("reward", spec)
    return check_reward(model, record=material.record, factory=material.factory, known=material.known)


def _check_algorithm(spec: Spec, material: Material) -> list[Check]:
    from .. import search
    from ..replay.contract_checks import check_algorithm
    from . import plugins

    return check_algorithm(search.create(plugins.algorithm(spec) or spec.name, **{"budget": 40, **spec.options}))


def _check_reader(spec: Spec, material: Material) -> list[Check]:
    from ..replay.contract_checks import check_reader
    from . import plugins

    return check_reader(plugins.reader(spec.name), material.log)


def _check_exporter(spec: Spec, material: Material) -> list[Check]:
    from ..replay.contract_checks import check_exporter
    from . import plugins

    return check_exporter(plugins.build("exporter", spec))


_CHECKS: dict[str, Callable[[Spec, Material], list[Check]]] = {
    "environment": _check_environment,
    "policy": _check_policy,
    "reward": _check_reward,
    "algorithm": _check_algorithm,
    "reader": _check_reader,
    "exporter": _check_exporter,
}


# -- showing -----------------------------------------------------------------------------------------------------------


def _document(subject: Subject, checks: Sequence[Check]) -> dict[str, Any]:
    rows = [{"name": item.name, "status": item.status, "detail": item.detail, "hint": item.hint} for item in checks]
    counts = {status: sum(item.status == status for item in checks) for status in ("pass", "fail", "skip")}
    return {"v": 1, "plugin": subject.spec.name, "kind": subject.kind, "checks": rows, "totals": counts}


def _show(console: Console, document: dict[str, Any]) -> None:
    from .render import clean

    width = max(len(row["name"]) for row in document["checks"])
    for row in document["checks"]:
        console.print(f"{row['status']}  {row['name']:<{width}}  {clean(row['detail'])}".rstrip())
        if row["status"] == "fail" and row["hint"]:
            console.print(f"      {'':<{width}}  hint: {clean(row['hint'])}")
    totals = document["totals"]
    said = f"{totals['pass']} passed, {totals['fail']} failed, {totals['skip']} skipped"
    console.print(f"{document['kind']} {clean(document['plugin'])}: {said}")
