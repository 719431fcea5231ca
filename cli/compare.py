"""`compare`: two or more runs over the same tasks, at equal spend."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .state import State

if TYPE_CHECKING:
    from rich.console import Console

    from ..replay.comparison import Pair, SearchedRun
    from ..replay.curve import Curve
    from ..storage.database import Database

PAIR_COLUMNS = ("a", "b", "tasks", "mean_a", "mean_b", "difference", "interval", "win/tie/loss", "test", "p", "p_holm")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(compare)


def compare(
    ctx: typer.Context,
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Two or more runs over the same trajectories.")],
    spend: Annotated[
        str, typer.Option(metavar="UNIT", help="Equal in what: transitions, tokens, usd or calls.")
    ] = "transitions",
    force: Annotated[
        bool, typer.Option("--force", help="Compare what should not be; the reasons are warnings.")
    ] = False,
) -> None:
    """Say which run solved more of the same tasks at equal spend, and whether that may be chance.

    Example: ttc-replay compare mcts best-of-n.
    """
    from ..replay.comparison import compare as compared_runs
    from ..replay.comparison_report import document_of
    from ..storage.errors import NothingToShow

    state: State = ctx.obj
    _check(runs, spend)
    with state.database(create=False) as database:
        loaded_runs = loaded(database, runs)
        compared = compared_runs(loaded_runs, spend)
    document = document_of(loaded_runs, compared)
    document["warnings"] += _forced([pair for pair, _ in compared], force=force)
    if not any(pair["tasks"] for pair in document["pairs"]):
        raise NothingToShow("the runs share no trajectory that counts", hint="ttc-replay ls runs")
    state.emit(document, lambda console: _show(console, document))


def _check(runs: Sequence[str], spend: str) -> None:
    from ..replay.curve import UNITS
    from ..storage.errors import UsageError

    if len(runs) < 2:
        raise UsageError("one run alone is compared with nothing", hint="ttc-replay compare RUN RUN...")
    if twice := sorted({run for run in runs if runs.count(run) > 1}):
        raise UsageError(f"{twice[0]} is given twice", hint="name each run once")
    if spend not in UNITS:
        raise UsageError(f"--spend {spend!r}", hint=", ".join(UNITS))


def _forced(pairs: Sequence[Pair], *, force: bool) -> list[str]:
    """The objections as warnings. Raises UsageError with the first of them unless forced."""
    from ..replay.objections import objections
    from ..storage.errors import UsageError

    said = [objection for pair in pairs for objection in objections(pair)]
    if said and not force:
        more = f" (and {len(said) - 1} more objections)" if len(said) > 1 else ""
        raise UsageError(said[0].message + more, hint=f"{said[0].hint}; --force compares all the same")
    return list(dict.fromkeys(objection.message for objection in said))


# -- reading -----------------------------------------------------------------------------------------------------------


def loaded(database: Database, names: Sequence[str]) -> list[SearchedRun]:
    """The runs of these names as they are stored. Raises UnknownId."""
    from ..storage.errors import UnknownId

    known = [str(row["run"]) for row in database.runs()]
    for name in names:
        if name not in known:
            near = get_close_matches(name, known, n=1, cutoff=0.4)
            listed = ", ".join(known[:8]) or "none yet"
            hint = f"did you mean {near[0]}? Runs here: {listed}" if near else f"runs here: {listed}"
            raise UnknownId(f"no run named {name!r}", hint=hint)
    return [_run(database, name) for name in names]


def _run(database: Database, name: str) -> SearchedRun:
    from ..replay.comparison import Searched, SearchedRun

    row = database.run(name) or {}
    configuration = row["configuration"] or {}
    algorithm = _algorithm(configuration.get("algorithm") or {})
    results = {str(result["trajectory_id"]): Searched.of_row(result) for result in database.results(name)}
    return SearchedRun(
        name=name,
        status=str(row["status"] or "unknown"),
        algorithm=str(row["algorithm"] or "unknown"),
        judge=str(row["judge"] or "unknown"),
        configuration=configuration,
        rows=results,
        curve=_unknown if hasattr(algorithm, "vote") else _curves(database, name, configuration, results),
        plans_ahead=getattr(algorithm, "budget", None) is not None,
        environment_class=(row.get("report") or {}).get("environment_class"),
    )


def _algorithm(spec: Mapping[str, Any]) -> Any:
    """The run's algorithm, told some budget: one that plans ahead keeps it. None where it is not installed any more."""
    from .. import search
    from ..replay.plugins import own_options
    from ..storage.errors import TtcError
    from ..storage.records import Spec

    known = Spec(str(spec.get("name")), spec.get("options") or {})
    with contextlib.suppress(TtcError, TypeError, ValueError):
        return search.create(known.name, **{"budget": 1, **own_options(known)})
    return None


def _unknown(item: str) -> Curve | None:
    """The curve of a run that votes: who would have led at a cut is not in the tree."""
    return None


def _curves(
    database: Database, name: str, configuration: Mapping[str, Any], results: Mapping[str, Any]
) -> Callable[[str], Curve | None]:
    """Curves by trajectory id, from the run's journal and tree; the journal is read when the first is asked for."""
    from ..replay.curve import Told, curve, told_by_trajectory
    from ..storage.journal import FILE_NAME, read_journal, runs_folder
    from .browse import quoted, select

    path = runs_folder(database.location) / name / FILE_NAME
    told: dict[str, Told] = {}

    def find(item: str) -> Curve | None:
        """None when the journal is gone, or has another run's trajectories."""
        if not told and path.exists():
            told.update(told_by_trajectory(read_journal(path)[0]))
        if item not in told:
            return None
        where = f"run = {quoted(name)} AND trajectory_id = {quoted(item)}"
        query = f"SELECT node, parent, depth, value, terminal, spine, imputed FROM v_nodes WHERE {where} ORDER BY node"  # noqa: S608
        options = {"candidates": int(configuration.get("candidates", 3)), "baseline": results[item].baseline}
        return curve(
            told[item],
            select(database, query),
            **options,
            gate=bool(configuration.get("accept")),
            confirm=bool(configuration.get("confirm")),
        )

    return find


# -- showing -----------------------------------------------------------------------------------------------------------


def _show(console: Console, document: Mapping[str, Any]) -> None:
    from ..replay.comparison_report import cost_rows
    from .render import clean, rows_table

    rows_table(console, "", [_row(pair) for pair in document["pairs"]], PAIR_COLUMNS)
    costs = cost_rows(document)
    console.print("")
    rows_table(console, "cost per solved task", costs, [name for name in costs[0] if len(costs) > 2 or name != "pair"])
    console.print("")
    kinds = ", ".join(f"{run['run']} {run['environment_class']}" for run in document["runs"])
    console.print(f"environment: {clean(kinds)}")
    for pair in document["pairs"]:
        console.print(clean(pair["sentence"]))
        for line in _notes(pair):
            console.print(clean(line))
    for warning in document["warnings"]:
        console.print(f"warning: {clean(warning)}")


def _row(pair: Mapping[str, Any]) -> dict[str, Any]:
    interval = pair["interval"]
    shown = f"[{interval[0]:.3f}, {interval[1]:.3f}]" if interval else None
    return {**pair, "interval": shown, "win/tie/loss": f"{pair['wins']}/{pair['ties']}/{pair['losses']}"}


def _notes(pair: Mapping[str, Any]) -> list[str]:
    """What was cut and what was left out, where something was."""
    said = []
    for side in ("a", "b"):
        cost = pair["spend"][side]
        if cost["cut"]:
            said.append(f"  {pair[side]} spent more: {cost['cut']} of its trajectories count as they stood at the cut")
        if cost["near"]:
            said.append(
                f"  {pair[side]} spent up to 5 % more in {cost['near']} trajectories, which count as they ended"
            )
    out = pair["left_out"]
    if any(out.values()):
        said.append(
            f"  left out: {out['trivial']} trivial trajectories, {out['unknown']} without a known value, "
            f"{out['only_a']} only in {pair['a']}, {out['only_b']} only in {pair['b']}"
        )
    return said
