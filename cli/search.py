"""`search`: counterfactuals of stored trajectories."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from .replay import USAGE, Ids, Options, rebound_said
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

    from ..replay.running import Ran
    from ..replay.settings import FromStep, Settings
    from ..storage.records import Trajectory
    from .jobs import Selector

ALGORITHM_HELP = (
    "How to search; `ls plugins` lists all. mcts is the default: at equal spend it solves at least as much as the best "
    "peer on each of six test problems, never less than random rollouts (docs/benchmarks.md)."
)
NOTHING_SPENT = 4
"""Exit code of a search whose budget allowed no transition at all."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(search)


def search(
    ctx: typer.Context,
    env: Annotated[str, typer.Option(help="Environment: a name, module:attribute, or ./file.py:attribute.")],
    policy: Annotated[str, typer.Option(help="Policy: scripted, corpus, litellm, or a plugin.")],
    reward: Annotated[list[str], typer.Option(metavar="NAME[=WEIGHT]", help="Guide of the search; repeat for more.")],
    ids: Ids = None,
    dataset: Dataset = None,
    where: Annotated[str | None, typer.Option(help="SQL condition over v_trajectories.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Successful runs too.")] = False,
    env_opt: Options = None,
    policy_opt: Options = None,
    user_policy: Annotated[
        str, typer.Option(help="Who plays the user after the branch point: tape, scripted, litellm, or a plugin.")
    ] = "tape",
    user_policy_opt: Options = None,
    reward_opt: RewardOptions = None,
    combine: Annotated[str, typer.Option(help="How rewards become one: sum, min or product.")] = "sum",
    accept: Annotated[str | None, typer.Option(help="Held-back reward that alone decides what is exported.")] = None,
    candidates: Annotated[int, typer.Option(min=1, help="Leaves that the gate looks at.")] = 3,
    confirm: Annotated[
        int, typer.Option(min=0, help="Plays under fresh seeds that an accepted run must stand (worlds with chances).")
    ] = 0,
    success_at: SuccessAt = 1.0,
    algorithm: Annotated[str, typer.Option(help=ALGORITHM_HELP)] = "mcts",
    algorithm_opt: Options = None,
    from_step: Annotated[
        str | None, typer.Option(metavar="K|auto", help="Branch from step K on; auto: wherever values drop.")
    ] = None,
    merge_states: Annotated[
        bool, typer.Option("--merge-states", help="States with one state_key() share their evaluation.")
    ] = False,
    width: Width = 8,
    budget: Budget = 64,
    allocate: Annotated[
        str, typer.Option(help="uniform: the budget for each; adaptive: more for those that are still improving.")
    ] = "uniform",
    max_depth: MaxDepth = None,
    max_calls: MaxCalls = None,
    max_cost: MaxCost = None,
    max_tokens: MaxTokens = None,
    max_seconds: MaxSeconds = None,
    concurrency: Concurrency = 8,
    seed: Seed = 0,
    name: RunName = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be searched, and stop.")] = False,
) -> None:
    """Search counterfactuals of failed runs; the same command again resumes.

    Example: ttc-replay search --env bookkeeping --policy corpus --reward environment --accept bookkeeping-gold.
    """
    from ..replay.settings import Limits, Settings
    from . import jobs, plugins

    state: State = ctx.obj
    jobs.check_run_name(name)
    jobs.check_finite(success_at=success_at, max_cost=max_cost, max_seconds=max_seconds)
    weighted, gate = plugins.reward_specs(reward, reward_opt or (), accept)
    settings = Settings(
        environment=jobs.specs(env, env_opt or (), "--env-opt"),
        policy=jobs.specs(policy, policy_opt or (), "--policy-opt"),
        rewards=weighted,
        combine=cast(Literal["sum", "min", "product"], combine),  # checked by `compose`
        accept=gate,
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
        merge_states=merge_states,
        confirm=confirm,
        user_policy=jobs.user_spec(user_policy, user_policy_opt or ()),
        allocate=jobs.one_of("--allocate", allocate, ("uniform", "adaptive")),
    )
    run(state, Order(settings, jobs.Selector(tuple(ids or ()), dataset, where, every), name), dry=dry_run)


def parse_from_step(text: str | None) -> FromStep:
    """`auto`, a step number, or nothing. Raises UsageError."""
    from ..storage.errors import UsageError

    if text is None or text == "auto":
        return cast("FromStep", text)
    try:
        return int(text)
    except ValueError:
        raise UsageError(f"--from-step {text!r}", hint="a step number from 0, or auto") from None


@dataclass(frozen=True, slots=True)
class Order:
    """What was asked for, before the database is looked at."""

    settings: Settings
    selector: Selector
    name: str | None


def run(state: State, order: Order, *, dry: bool) -> None:
    """The job itself: plugins are built and the selection is made before anything is spent."""
    from ..replay.running import run_search
    from . import jobs
    from .render import progress

    plugins = jobs.make_plugins(order.settings)
    with state.database(create=False) as database:
        selector = order.selector.resolved(database)
        settings = jobs.with_selector(order.settings, selector)
        records = jobs.chosen(database, selector, settings.success_at)
        if dry or not records:
            _nothing_run(state, settings, order.name, records, plugins.environment_class, dry=dry)
            return
        place = f"{database.location}.runs" if "://" not in database.location else "the folder of runs"
        state.detail(f"run {settings.run_name(order.name)}: {len(records)} trajectories; journal in {place}")
        with progress("search", quiet=state.quiet) as tell:
            ran = run_search(database, settings, order.name, records, jobs.recorded(database), plugins, tell)
    finish(state, ran)


def _nothing_run(
    state: State,
    settings: Settings,
    name: str | None,
    records: Sequence[Trajectory],
    environment_class: str | None,
    *,
    dry: bool,
) -> None:
    """A dry run says what would be searched; an empty selection is an empty report."""
    run_name, transitions = settings.run_name(name), len(records) * settings.budget
    said = (
        f"{run_name}: {len(records)} trajectories, at most {transitions} transitions; {environment_class} environment"
    )
    if dry:
        ids = [record.id for record in records]
        document = {"v": 1, "run": run_name, "environment_class": environment_class, "trajectories": ids}
        document["transitions_at_most"] = transitions
        state.emit(document, lambda console: console.print(said))
    else:
        from ..replay.costs import Costs
        from ..replay.report import empty_report, with_costs

        document = with_costs(empty_report(settings, run_name, environment_class), Costs())
        state.emit(document, lambda console: console.print(said))
    if not records:
        state.note("nothing selected: no recorded trajectory is below --success-at (--all takes every one)")


def finish(state: State, ran: Ran) -> None:
    """Print the report, say on stderr what failed, and leave with the run's exit code."""
    from ..replay.costs import said_of
    from .failures import complain_items

    state.emit(ran.report, lambda console: show_report(console, ran))
    state.detail(said_of(ran.report["environment"]))
    for note in ran.notes:
        state.note(note)
    complain_items(ran.failures)
    if ran.error is not None:
        raise ran.error
    if ran.interrupted:
        state.note("interrupted; the same command resumes")
    code = exit_code(ran)
    if code == NOTHING_SPENT:
        state.note("the budget allowed no transition: raise --budget, or --max-calls, --max-tokens, --max-cost")
    raise typer.Exit(code)


def exit_code(ran: Ran) -> int:
    """design.md section 7."""
    rows = ran.report["trajectories"]
    if ran.interrupted:
        return 130
    if rows and all(row["stopped"] == "error" for row in rows):
        misused = all(failure.code in USAGE for failure in ran.failures)
        return 5 if ran.all_diverged else 2 if misused else 1
    if rows and all(row["stopped"] == "budget" and not row["transitions"] for row in rows):
        return NOTHING_SPENT
    return 1 if ran.failures else 0


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
        f"environment: {report['environment_class']}"
        f"{', does not always answer alike' if report['stochastic'] else ''}{rebound_said(totals['rebound'])}",
    ]
    if ran.interval is not None:
        low, high = ran.interval
        lines.insert(2, f"mean gain, 95 % paired interval over tasks: [{low:.3f}, {high:.3f}]")
    for line in lines:
        console.print(line)
    for warning in ran.warnings:
        console.print(f"note: {clean(warning, 300)}")
