"""`replay` and `search`: the work on stored trajectories."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from .state import State

if TYPE_CHECKING:
    from rich.console import Console

    from ..replay.running import Ran
    from ..replay.settings import FromStep, Settings
    from .jobs import Selector

Options = Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="Option of the plugin; repeat for more.")]
Ids = Annotated[list[str] | None, typer.Argument(metavar="[ID...]", help="Trajectories; a unique beginning is enough.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(replay)
    app.command()(search)


def replay(
    ctx: typer.Context,
    env: Annotated[str, typer.Option(help="Environment: a name, module:attribute, or ./file.py:attribute.")],
    ids: Ids = None,
    dataset: Annotated[str | None, typer.Option(help="Only this dataset.")] = None,
    env_opt: Options = None,
    tolerant: Annotated[bool, typer.Option(help="Go on after a difference.")] = False,
) -> None:
    """Re-execute recorded runs and compare every observation; calls no model. Example: ttc-replay replay --env tau2."""
    import asyncio

    from ..replay.drive import is_async, run_inline
    from ..replay.replaying import replay_all
    from . import jobs, plugins
    from .render import progress

    state: State = ctx.obj
    factory = plugins.factory("environment", jobs.specs(env, env_opt or (), "--env-opt"))
    drive = asyncio.run if is_async(factory(), "reset", "step", "fork", "hear", "state") else run_inline
    with state.database(create=False) as database:
        records = jobs.Selector(tuple(ids or ()), dataset, every=True).records(database)
        known = by_task(jobs.recorded(database))
    if not records:
        state.note("nothing selected: no recorded trajectory matches")
    with progress("replay", quiet=state.quiet) as tell:
        report = replay_all(
            records,
            factory,
            tolerant=tolerant,
            known=known,
            drive=drive,
            progress=lambda done, total: tell({"done": done, "total": total}),
        )
    state.emit(report, lambda console: _show_replay(console, report))
    raise typer.Exit(5 if report["totals"]["diverged"] else 0)


def by_task(records: Sequence[Any]) -> dict[str, dict[str, Any]]:
    """Recorded runs by task id, then by trajectory id."""
    known: dict[str, dict[str, Any]] = {}
    for record in records:
        known.setdefault(record.task.id, {})[record.id] = record
    return known


def _show_replay(console: Console, report: Mapping[str, Any]) -> None:
    from .render import clean, rows_table

    rows = [row for row in report["trajectories"] if row["first_divergence"] is not None]
    shown = rows or report["trajectories"][:20]
    rows_table(console, "", shown, ("id", "steps", "matched", "level", "fidelity", "baseline"))
    if not rows and len(report["trajectories"]) > len(shown):
        console.print(f"… {len(shown)} of {len(report['trajectories'])} shown (--json lists all)", markup=False)
    for row in rows[:20]:
        first = row["first_divergence"]
        console.print(
            f"{row['id'][:12]} step {first['step']}: expected {clean(first['expected'], 200)}", markup=False
        )
        console.print(f"{'':12} got {clean(first['got'], 200)}", markup=False)
    totals = report["totals"]
    levels = ", ".join(f"{count} {level}" for level, count in totals["levels"].items() if count)
    console.print(
        f"{totals['trajectories']} runs: {totals['matched']} of {totals['steps']} steps reproduce"
        f"{f' (weakest level per run: {levels})' if levels else ''}, {totals['diverged']} diverged; "
        f"recomputed outcome equals the recorded one in {totals['agreed']} of {totals['compared']}",
        markup=False,
    )


def search(
    ctx: typer.Context,
    env: Annotated[str, typer.Option(help="Environment: a name, module:attribute, or ./file.py:attribute.")],
    policy: Annotated[str, typer.Option(help="Policy: scripted, corpus, litellm, or a plugin.")],
    reward: Annotated[list[str], typer.Option(metavar="NAME[=WEIGHT]", help="Guide of the search; repeat for more.")],
    ids: Ids = None,
    dataset: Annotated[str | None, typer.Option(help="Only this dataset.")] = None,
    where: Annotated[str | None, typer.Option(help="SQL condition over v_trajectories.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Successful runs too.")] = False,
    env_opt: Options = None,
    policy_opt: Options = None,
    reward_opt: Annotated[list[str] | None, typer.Option(metavar="NAME.KEY=VALUE", help="Option of a reward.")] = None,
    combine: Annotated[str, typer.Option(help="How rewards become one: sum, min or product.")] = "sum",
    accept: Annotated[str | None, typer.Option(help="Held-back reward that alone decides what is exported.")] = None,
    candidates: Annotated[int, typer.Option(min=1, help="Leaves that the gate looks at.")] = 3,
    success_at: Annotated[float, typer.Option(help="Value from which a run counts as a success.")] = 1.0,
    algorithm: Annotated[str, typer.Option(help="best-of-n, beam, mcts, or a plugin.")] = "mcts",
    algorithm_opt: Options = None,
    from_step: Annotated[
        str | None, typer.Option(metavar="K|auto", help="Branch from step K on; auto: wherever values drop.")
    ] = None,
    width: Annotated[int, typer.Option(min=1, help="Asks open per tree; part of the run's identity.")] = 8,
    budget: Annotated[int, typer.Option(min=0, help="Transitions per trajectory.")] = 64,
    max_depth: Annotated[int | None, typer.Option(min=1, help="Steps of a run; default twice the record's.")] = None,
    max_calls: Annotated[int | None, typer.Option(min=0, help="Paid policy calls, whole run.")] = None,
    max_cost: Annotated[float | None, typer.Option(min=0, help="USD, whole run.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=0, help="Prompt and completion tokens, whole run.")] = None,
    max_seconds: Annotated[float | None, typer.Option(min=0, help="Wall seconds, whole run.")] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Workers; does not change the result.")] = 8,
    seed: Annotated[int, typer.Option(help="Seed of the run.")] = 0,
    name: Annotated[str | None, typer.Option(help="Run name; default: a hash of the configuration.")] = None,
    dry_run: Annotated[bool, typer.Option(help="Say what would be searched, and stop.")] = False,
) -> None:
    """Search counterfactuals of failed runs; the same command again resumes.

    Example: ttc-replay search --env bookkeeping --policy corpus --reward environment --accept bookkeeping-gold.
    """
    from ..replay.settings import Limits, Settings
    from . import jobs, plugins

    state: State = ctx.obj
    selector = jobs.Selector(tuple(ids or ()), dataset, where, every)
    settings = Settings(
        environment=jobs.specs(env, env_opt or (), "--env-opt"),
        policy=jobs.specs(policy, policy_opt or (), "--policy-opt"),
        rewards=plugins.reward_specs(reward, reward_opt or ()),
        combine=cast(Literal["sum", "min", "product"], combine),
        accept=jobs.specs(accept, (), "--accept") if accept else None,
        algorithm=jobs.specs(algorithm, algorithm_opt or (), "--algorithm-opt"),
        from_step=parse_from_step(from_step),
        width=width,
        budget=budget,
        max_depth=max_depth,
        candidates=candidates,
        success_at=success_at,
        seed=seed,
        concurrency=concurrency,
        limits=Limits(max_calls, max_tokens, max_cost, max_seconds),
    )
    if dry_run:
        _dry_run(state, settings, selector)
        return
    ran = run(state, settings, selector, name)
    if ran is None:
        state.note("nothing selected: no recorded trajectory is below --success-at (--all takes every one)")
        return
    finish(state, ran)


def parse_from_step(text: str | None) -> FromStep:
    """`auto`, a step number, or nothing. Raises UsageError."""
    from ..storage.errors import UsageError

    if text is None or text == "auto":
        return cast("FromStep", text)
    try:
        return int(text)
    except ValueError:
        raise UsageError(f"--from-step {text!r}", hint="a step number from 0, or auto") from None


def run(state: State, settings: Settings, selector: Selector, name: str | None) -> Ran | None:
    """The job itself; None when the selection is empty (and no earlier session of the run exists)."""
    from .. import search as search_package
    from ..replay.running import run_search
    from . import jobs
    from .render import progress

    settings = jobs.with_selector(settings, selector)
    search_package.create(settings.algorithm.name, budget=settings.budget, **settings.algorithm.options)
    plugins = jobs.make_plugins(settings)
    with state.database() as database:
        records = jobs.chosen(database, selector, settings.success_at)
        if not records:
            return None
        known = jobs.recorded(database)
        with progress("search", quiet=state.quiet) as tell:
            return run_search(database, settings, name, records, known, plugins, tell)


def _dry_run(state: State, settings: Settings, selector: Selector) -> None:
    from . import jobs

    jobs.make_plugins(settings)
    with state.database(create=False) as database:
        records = jobs.chosen(database, selector, settings.success_at)
    name = jobs.with_selector(settings, selector).run_name()
    document = {
        "v": 1,
        "run": name,
        "trajectories": [record.id for record in records],
        "transitions_at_most": len(records) * settings.budget,
    }
    state.emit(
        document,
        lambda console: console.print(
            f"{name}: {len(records)} trajectories, at most {document['transitions_at_most']} transitions", markup=False
        ),
    )


def finish(state: State, ran: Ran) -> None:
    """Print the report and leave with its exit code."""
    state.emit(ran.report, lambda console: show_report(console, ran))
    for note in ran.notes:
        state.note(note)
    if ran.error is not None:
        raise ran.error
    if ran.interrupted:
        state.note("interrupted; the same command resumes")
    raise typer.Exit(exit_code(ran))


def exit_code(ran: Ran) -> int:
    """design.md section 7."""
    rows = ran.report["trajectories"]
    failed = [row for row in rows if row["stopped"] == "error"]
    if ran.interrupted:
        return 130
    if rows and len(failed) == len(rows):
        return 5 if ran.all_diverged else 1
    if rows and all(row["stopped"] == "budget" and not row["transitions"] for row in rows):
        return 4
    return 1 if failed else 0


def show_report(console: Console, ran: Ran) -> None:
    """The report for people: rows, then what it comes to."""
    from .render import clean, rows_table

    report = ran.report
    columns = ("id", "branch_step", "observed", "baseline", "best", "counterfactual_id", "novel", "trivial", "fidelity")
    rows_table(console, f"run {report['run']}", report["trajectories"], (*columns, "transitions", "stopped"))
    totals = report["totals"]
    gate = totals["gate"]
    lines = [
        f"{totals['improved']} of {totals['trajectories'] - totals['trivial']} non-trivial runs improved "
        f"({totals['novel']} novel, {totals['improved'] - totals['novel']} copied from a recorded run); "
        f"{totals['trivial']} trivial tasks counted apart",
        f"lanes, mean: observed {clean(totals['mean_observed'])}, baseline {clean(totals['mean_baseline'])}, "
        f"best {clean(totals['mean_best'])}  (judge: {clean(report['judge'])})",
        f"gate: {gate['accepted']} accepted, {gate['refused']} refused; {totals['transitions']} transitions, "
        f"{totals['calls']} calls ({totals['repeated_calls']} repeated), {totals['tokens']} tokens, "
        f"{totals['cost_usd']:.4f} USD, {totals['seconds']:.1f} s",
    ]
    if ran.interval is not None:
        low, high = ran.interval
        lines.insert(2, f"mean gain, 95 % paired interval over tasks: [{low:.3f}, {high:.3f}]")
    for line in lines:
        console.print(line, markup=False)
    for warning in ran.warnings:
        console.print(f"note: {clean(warning, 300)}", markup=False)
