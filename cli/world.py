"""`world`: trains the model of a `learned-world`, and shows how good it is on tasks that it has not seen."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .state import State

if TYPE_CHECKING:
    from rich.console import Console

ACTIONS = ("train", "report")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(world)


def world(
    ctx: typer.Context,
    action: Annotated[str, typer.Argument(metavar="train|report", help="Make a model, or show the report of one.")],
    file: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="report: the model.")] = None,
    dataset: Annotated[str | None, typer.Option(help="train: only this dataset.")] = None,
    where: Annotated[str | None, typer.Option(help="train: SQL condition over v_trajectories.")] = None,
    out: Annotated[Path | None, typer.Option(help="train: the file to write; its report is FILE.json.")] = None,
    epochs: Annotated[int, typer.Option(min=1, help="train: passes over the runs.")] = 30,
    test_fraction: Annotated[float, typer.Option(help="train: share of tasks that the report is made on.")] = 0.25,
    success_at: Annotated[float, typer.Option(help="train: value from which a run counts as a success.")] = 1.0,
    seed: Annotated[int, typer.Option(help="train: seed of the split and of the training.")] = 0,
) -> None:
    """Learn the world of recorded runs for `--env learned-world`. Example: ttc-replay world train --out w.safetensors.

    What a model is worth is measured on tasks that it has not seen; a model that is no better than the most frequent
    result of each tool is refused by the environment.
    """
    from ..storage.errors import UsageError
    from . import jobs

    state: State = ctx.obj
    jobs.one_of("world", action, ACTIONS)
    jobs.check_finite(test_fraction=test_fraction, success_at=success_at)
    if action == "report":
        _report(state, file)
        return
    if out is None or file is not None:
        raise UsageError("world train writes a model", hint="ttc-replay world train --dataset NAME --out FILE")
    selector = jobs.Selector((), dataset, where, every=True)
    document = _train(state, selector, out, epochs=epochs, held_out=test_fraction, success_at=success_at, seed=seed)
    state.emit(document, lambda console: show(console, document))


def _train(
    state: State, selector: Any, out: Path, *, epochs: int, held_out: float, success_at: float, seed: int
) -> dict[str, Any]:
    """Train, write both files, and say what came of it. Raises UsageError, MissingExtra."""
    from ..storage.errors import MissingExtra

    try:
        from ..replay.environments.learned_events import run_of
        from ..replay.environments.learned_store import save
        from ..replay.environments.learned_training import train
    except ModuleNotFoundError as error:
        hint = "pip install 'ttc-replay[local]'"
        raise MissingExtra(f"world train needs the package {error.name}", hint=hint) from error
    with state.database(create=False) as database:
        records = selector.resolved(database).records(database)
    trained = train([run_of(record, success_at) for record in records], epochs=epochs, seed=seed, held_out=held_out)
    written = save(trained, out)
    return {"v": 1, "out": str(out), **{name: written[name] for name in ("sha256", "settings", "report")}}


def _report(state: State, file: Path | None) -> None:
    from ..replay.environments.learned_store import read_report
    from ..storage.errors import UsageError

    if file is None:
        raise UsageError("world report needs a model", hint="ttc-replay world report FILE")
    document = {"v": 1, "out": str(file), **read_report(file)}
    state.emit(document, lambda console: show(console, document))


def show(console: Console, document: Mapping[str, Any]) -> None:
    """The report for people: what the model is worth, then tool by tool."""
    from .render import rows_table

    report = document["report"]
    if not report:
        console.print("no held-out report")
        return
    low, high = report["gain_interval"]
    auroc = "unknown" if report["outcome_auroc"] is None else f"{report['outcome_auroc']:.3f}"
    rows = [{"tool": name, **figures} for name, figures in report["by_tool"].items()]
    rows_table(console, str(document["out"]), rows, ("tool", "observations", "accuracy", "baseline", "coverage"))
    for line in (
        f"held out: {report['tasks']} tasks, {report['runs']} runs, {report['observations']} observations",
        f"observation: {report['accuracy']:.3f} right, most frequent template {report['baseline']:.3f}, most frequent "
        f"text {report['text_baseline']:.3f}, at best {report['coverage']:.3f}",
        f"gain over the template baseline, 95 % over tasks: [{low:.3f}, {high:.3f}]; calibration error "
        f"{report['calibration_error']:.3f}",
        f"end of run: {report['end_accuracy']:.3f} right (never: {report['end_baseline']:.3f}); outcome AUROC {auroc} "
        f"over {report['outcome_runs']} runs",
        "learned-world takes it" if report["trusted"] else "learned-world refuses it (--env-opt trust=true uses it)",
    ):
        console.print(line, soft_wrap=True)
