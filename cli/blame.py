"""`blame`: which step lost the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from .replay import Ids, Options
from .shared_options import (
    Budget,
    Concurrency,
    Dataset,
    MaxCalls,
    MaxCost,
    MaxDepth,
    MaxSeconds,
    MaxTokens,
    RewardOptions,
    RunName,
    Seed,
    SuccessAt,
    Width,
)
from .state import State

if TYPE_CHECKING:
    from rich.console import Console

    from ..replay.blaming import Blamed
    from ..replay.settings import Settings
    from ..storage.records import Trajectory
    from .jobs import Selector

SHOWN = 20
"""Rows printed; -v prints all."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(blame)


def blame(
    ctx: typer.Context,
    ids: Ids = None,
    dataset: Dataset = None,
    env: Annotated[
        str | None, typer.Option(help="Environment: a name, module:attribute, or ./file.py:attribute.")
    ] = None,
    policy: Annotated[str | None, typer.Option(help="Policy that plays on from each step.")] = None,
    reward: Annotated[
        list[str] | None, typer.Option(metavar="NAME[=WEIGHT]", help="What a run is worth; repeat for more.")
    ] = None,
    env_opt: Options = None,
    policy_opt: Options = None,
    reward_opt: RewardOptions = None,
    combine: Annotated[str, typer.Option(help="How rewards become one: sum, min or product.")] = "sum",
    accept: Annotated[
        str | None, typer.Option(help="Held-back reward that decides which rollout is kept as a counterfactual.")
    ] = None,
    success_at: SuccessAt = 1.0,
    rollouts: Annotated[int, typer.Option(min=1, help="Rollouts from one step, at most.")] = 16,
    budget: Budget = 1024,
    confidence: Annotated[
        float, typer.Option(help="Of the intervals, and how sure to be of the pivotal step before it ends.")
    ] = 0.95,
    detectors_only: Annotated[
        bool, typer.Option("--detectors-only", help="Nothing is re-run: what the record alone shows.")
    ] = False,
    width: Width = 8,
    max_depth: MaxDepth = None,
    max_calls: MaxCalls = None,
    max_cost: MaxCost = None,
    max_tokens: MaxTokens = None,
    max_seconds: MaxSeconds = None,
    concurrency: Concurrency = 8,
    seed: Seed = 0,
    name: RunName = None,
) -> None:
    """Say which step lost a run: the value of every step by re-running from it; the same command again resumes.

    Example: ttc-replay blame 3fa9 --env bookkeeping --policy corpus --reward environment.
    """
    from ..replay.settings import Limits, Settings
    from ..storage.errors import UsageError
    from . import jobs, plugins

    state: State = ctx.obj
    jobs.check_run_name(name)
    jobs.check_finite(success_at=success_at, confidence=confidence, max_cost=max_cost, max_seconds=max_seconds)
    selector = jobs.Selector(tuple(ids or ()), dataset)
    if not (ids or dataset):
        raise UsageError("blame takes IDs or --dataset NAME", hint="ttc-replay ls lists trajectories and datasets")
    if detectors_only:
        _detect(state, selector, success_at)
        return
    missing = [flag for flag, given in (("--env", env), ("--policy", policy), ("--reward", reward)) if not given]
    if env is None or policy is None or missing:
        raise UsageError(f"blame needs {', '.join(missing)}", hint="or --detectors-only, which re-runs nothing")
    weighted, gate = plugins.reward_specs(reward or (), reward_opt or (), accept)
    settings = Settings(
        environment=jobs.specs(env, env_opt or (), "--env-opt"),
        policy=jobs.specs(policy, policy_opt or (), "--policy-opt"),
        rewards=weighted,
        combine=cast(Literal["sum", "min", "product"], combine),  # checked by `compose`
        accept=gate,
        width=width,
        budget=budget,
        max_depth=max_depth,
        success_at=success_at,
        seed=seed,
        concurrency=concurrency,
        limits=Limits(max_calls, max_tokens, max_cost, max_seconds),
    )
    _rerun(state, settings, selector, name, rollouts=rollouts, confidence=confidence)


def _detect(state: State, selector: Selector, success_at: float) -> None:
    """Detectors alone, on every selected run."""
    from dataclasses import replace

    from ..replay.blaming import compared, detected

    with state.database(create=False) as database:
        records = replace(selector, every=True).resolved(database).records(database)
    document = detected(records)
    compared(document, records, success_at)
    state.emit(document, lambda console: _show(console, state, document))


def _rerun(
    state: State, settings: Settings, selector: Selector, name: str | None, *, rollouts: int, confidence: float
) -> None:
    """Detectors and rollouts."""
    from ..replay.blaming import blame_settings, compared, run_blame
    from . import jobs
    from .render import progress

    plugins = jobs.make_plugins(settings)
    settings = blame_settings(settings, rollouts=rollouts, confidence=confidence)
    with state.database(create=False) as database:
        selector = selector.resolved(database)
        settings = jobs.with_selector(settings, selector)
        records = jobs.chosen(database, selector, settings.success_at)
        if not records:
            _nothing(state, settings, name)
            return
        known = jobs.recorded(database)
        with progress("blame", quiet=state.quiet) as tell:
            done = run_blame(database, settings, name, records, known, plugins, tell)
        compared(done.document, _of_dataset(known, selector) or records, settings.success_at)
    _finish(state, done)


def _of_dataset(known: Sequence[Trajectory], selector: Selector) -> list[Trajectory]:
    """All recorded runs of the named dataset, successful ones too: what detectors compare."""
    return [item for item in known if selector.dataset and item.source and item.source.dataset == selector.dataset]


def _nothing(state: State, settings: Settings, name: str | None) -> None:
    from ..replay.blaming import detected

    document = {**detected(()), "run": settings.run_name(name), "by_tool": []}
    state.emit(document, lambda console: _show(console, state, document))
    state.note("nothing selected: no recorded trajectory is below --success-at (an ID takes any)")


def _finish(state: State, done: Blamed) -> None:
    """Print the report, say on stderr what failed, and leave with the run's exit code."""
    from . import search
    from .failures import complain_items

    state.emit(done.document, lambda console: _show(console, state, done.document))
    for run, count in done.reused.items():
        state.note(f"{count} rollouts of run {run} counted, not paid again")
    for note in done.ran.notes:
        state.note(note)
    complain_items(done.ran.failures)
    if done.ran.error is not None:
        raise done.ran.error
    if done.ran.interrupted:
        state.note("interrupted; the same command resumes")
    raise typer.Exit(search.exit_code(done.ran))


def _show(console: Console, state: State, document: Mapping[str, Any]) -> None:
    """The report for people: one run in full, else a row for each; then what tools and kinds lose."""
    rows, most = document["trajectories"], None if state.verbose else SHOWN
    if len(rows) == 1:
        _show_steps(console, rows[0])
    elif document["run"] is not None:
        _show_runs(console, document["run"], rows[:most])
        _cut(console, len(rows), "runs", most)
    _show_findings(console, rows, most)
    if len(rows) != 1:
        _show_tools(console, document["by_tool"][:most])
        _cut(console, len(document["by_tool"]), "tools and kinds", most)
    totals = document["totals"]
    console.print(f"{totals['trajectories']} runs, {totals['findings']} findings of detectors")
    if document["run"] is not None:
        console.print(
            f"{totals['pivotal']} pivotal steps; {totals['rollouts']} rollouts (and {totals['reused']} of earlier "
            f"runs), {totals['transitions']} transitions, {totals['calls']} calls ({totals['repeated_calls']} "
            f"repeated), {totals['tokens']} tokens, {totals['cost_usd']:.4f} USD, {totals['seconds']:.1f} s"
        )


def _cut(console: Console, count: int, what: str, most: int | None) -> None:
    if most is not None and count > most:
        console.print(f"… {most} of {count} {what} shown (-v and --json list all)")


def _show_steps(console: Console, row: Mapping[str, Any]) -> None:
    from .render import clean, table

    if row["steps"]:
        pivotal = row["pivotal"]["step"] if row["pivotal"] else None
        cells = [
            (
                f"{step['index']}{' *' if step['index'] == pivotal else ''}",
                step["tool"],
                _between(step["value"], step["low"], step["high"]),
                _between(step["drop"], step["drop_low"], step["drop_high"]),
                step["probability_pivotal"],
                step["rollouts"],
                step["transitions"],
                step["calls"],
                step["tokens"],
                step["cost_usd"],
            )
            for step in row["steps"]
        ]
        columns = (
            "step",
            "tool",
            "value before",
            "drop",
            "pivotal",
            "rollouts",
            "transitions",
            "calls",
            "tokens",
            "USD",
        )
        table(console, f"{row['id'][:12]}  task {row['task_id']}", columns, cells)
    for line in _verdict(row):
        console.print(clean(line, 700))


def _between(value: float, low: float, high: float) -> str:
    return f"{value:.2f} [{low:.2f}, {high:.2f}]"


def _verdict(row: Mapping[str, Any]) -> list[str]:
    """What the numbers say, in words."""
    from ..replay.blame import STOPPED

    found, window = row["pivotal"], row["window"]
    if found is None:
        where = f"; the largest drop lies in steps {window[0]} to {window[1]}" if window else ""
        said = [f"no step is pivotal{where}"] if row["stopped"] else []
    else:
        said = [f"step {found['step']} lost the run, with probability {found['probability']:.2f}: {found['action']}"]
        if found["instead"] is not None:
            said.append(
                f"better there: {found['instead']} (value {found['instead_value']:.2f} in "
                f"{found['instead_rollouts']} rollouts)"
            )
    return [*said, f"{row['stopped']}: {STOPPED[row['stopped']]}"] if row["stopped"] else said


def _show_runs(console: Console, run: str, rows: Sequence[Mapping[str, Any]]) -> None:
    from .render import table

    cells = []
    for row in rows:
        found = row["pivotal"] or {}
        place = [row["id"][:12], row["task_id"], len(row["steps"]), found.get("step"), found.get("probability")]
        cells.append([*place, found.get("action"), found.get("instead"), row["rollouts"], row["stopped"]])
    columns = ("id", "task", "steps", "pivotal", "probability", "action", "instead", "rollouts", "stopped")
    table(console, f"run {run}", columns, cells, limit=60)


def _show_findings(console: Console, rows: Sequence[Mapping[str, Any]], most: int | None) -> None:
    from .render import table

    cells = [
        (row["id"][:12], found["step"], found["kind"], found["tool"], found["detail"])
        for row in rows
        for found in row["detectors"]
    ]
    if cells:
        table(console, "detectors", ("id", "step", "kind", "tool", "detail"), cells[:most], limit=100)
        _cut(console, len(cells), "findings", most)


def _show_tools(console: Console, rows: Sequence[Mapping[str, Any]]) -> None:
    from .render import table

    def share(row: Mapping[str, Any], side: str) -> str | None:
        if row[f"share_{side}"] is None:
            return None
        return f"{row[f'share_{side}']:.0%} [{row[f'{side}_low']:.0%}, {row[f'{side}_high']:.0%}]"

    cells = [
        (row["tool"], row["kind"], row["runs"], share(row, "lost"), share(row, "won"), row["share_steps"])
        for row in rows
    ]
    if cells:
        columns = ("tool", "kind", "runs", "of lost runs", "of won runs", "share of steps")
        table(console, "what loses runs (95 % intervals)", columns, cells)
