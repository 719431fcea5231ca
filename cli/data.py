"""`ingest` and `export`: data in, datasets out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from .state import State

if TYPE_CHECKING:
    from rich.console import Console

    from ..storage.ingest import IngestOptions

SHOWN_PROBLEMS = 20
"""Problems printed for one file; -v prints all."""


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(ingest)
    app.command()(export)


def ingest(
    ctx: typer.Context,
    paths: Annotated[
        list[str],
        typer.Argument(metavar="PATH|-...", help="Files, folders, globs, archives, postgresql://, or - for stdin."),
    ],
    format_name: Annotated[str, typer.Option("--format", help="Log format, auto, or a plugin.")] = "auto",
    dataset: Annotated[str | None, typer.Option(help="Dataset name; default: the name of the file's folder.")] = None,
    on_bad: Annotated[
        str, typer.Option(help="skip: go on behind bad records; fail: store nothing at all when there is one.")
    ] = "skip",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read and report, store nothing.")] = False,
    limit: Annotated[int | None, typer.Option(min=0, help="At most so many trajectories.")] = None,
    tag: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Stored with each trajectory; repeatable.")
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(metavar="DATE", help="Leave out runs that started earlier; those without a time stay."),
    ] = None,
    reward_from: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Outcomes kept apart from the logs, joined by id: JSON, JSON lines, CSV."),
    ] = None,
    compress: Annotated[
        bool, typer.Option("--compress/--no-compress", help="Compress text in the database: smaller, slower.")
    ] = True,
    max_line: Annotated[str, typer.Option(metavar="SIZE", help="Most bytes of one record.")] = "128MiB",
    max_file: Annotated[str, typer.Option(metavar="SIZE", help="Most bytes of one file, unpacked.")] = "8GiB",
    max_ratio: Annotated[int, typer.Option(help="Most bytes that one packed byte may become.")] = 200,
    max_depth: Annotated[int, typer.Option(help="Most levels of nesting in a record.")] = 200,
    max_members: Annotated[int, typer.Option(help="Most files in one archive.")] = 100_000,
) -> None:
    """Read logs into the database. Example: ttc-replay ingest logs/ --dataset march."""
    from ..storage.accounts import exit_code
    from ..storage.ingest import IngestOptions
    from ..storage.joined import load_outcomes
    from ..storage.limits import Limits, parse_size
    from . import plugins

    state: State = ctx.obj
    options = IngestOptions(
        on_bad=_on_bad(on_bad),
        format=format_name if format_name == "auto" else plugins.reader(format_name),
        dataset=dataset,
        dry_run=dry_run,
        limit=limit,
        tags=_tags(tag or ()),
        since=None if since is None else _date(since),
        outcomes=None if reward_from is None else load_outcomes(reward_from),
        limits=Limits(
            line=parse_size(max_line, "--max-line"),
            file=parse_size(max_file, "--max-file"),
            ratio=max_ratio,
            depth=max_depth,
            members=max_members,
        ),
    )
    report = _ingest(state, paths, options, compress=compress)
    state.emit(report, lambda console: _show_ingest(console, report, None if state.verbose else SHOWN_PROBLEMS))
    _tell_filtered(state, report)
    _tell_joined(state, report)
    code = exit_code(report)
    if code:
        _complain(report)
    raise typer.Exit(code)


def _on_bad(text: str) -> Literal["skip", "fail"]:
    from ..storage.errors import UsageError

    if text not in ("skip", "fail"):
        raise UsageError(f"--on-bad {text!r}", hint="skip or fail")
    return "fail" if text == "fail" else "skip"


def _tags(given: Sequence[str]) -> dict[str, str]:
    from ..storage.errors import UsageError

    tags: dict[str, str] = {}
    for text in given:
        key, sign, value = text.partition("=")
        if not key or not sign:
            raise UsageError(f"--tag {text!r} is not key=value", hint="--tag team=search --tag week=12")
        if tags.setdefault(key, value) != value:
            raise UsageError(f"--tag {key!r} is given twice", hint="one value a key")
    return tags


def _date(text: str) -> datetime:
    from ..storage.errors import UsageError

    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"--since {text!r} is no date", hint="2026-03-31, or 2026-03-31T12:00:00Z") from None


def _tell_filtered(state: State, report: Mapping[str, Any]) -> None:
    """What `--since` left out, and what it could not judge."""
    filtered, undated = (report["totals"].get(key, 0) for key in ("filtered", "undated"))
    if filtered:
        state.note(f"{filtered} trajectories started before --since: left out")
    if undated:
        state.note(f"{undated} trajectories have no time: kept, whatever --since says")


def _tell_joined(state: State, report: Mapping[str, Any]) -> None:
    """What `--reward-from` found, and what found nobody."""
    joined = report.get("reward_from")
    if joined is None:
        return
    state.note(f"{joined['joined']} trajectories got an outcome from --reward-from")
    if joined["unmatched"]:
        some = ", ".join(joined["unmatched"][:5]) + (", ..." if len(joined["unmatched"]) > 5 else "")
        state.note(f"{len(joined['unmatched'])} ids of it found no trajectory: {some}")


def _ingest(state: State, paths: list[str], options: IngestOptions, *, compress: bool) -> dict[str, Any]:
    from ..storage.ingest import check
    from ..storage.ingest import ingest as run
    from .render import progress

    check(paths, options.format)  # a path that does not exist is an error before the database is made
    with ExitStack() as stack:
        database = None if options.dry_run else stack.enter_context(state.database(compress=compress))
        tell = stack.enter_context(progress("ingest", quiet=state.quiet))
        return run(database, paths, options, progress=lambda path, count: tell({"done": count, "total": None}))


def _complain(report: Mapping[str, Any]) -> None:
    """The first problem on stderr, and how many more there are: the list itself is the result."""
    from .failures import HINTS, complain

    files = [file for file in report["files"] if file["problems"]]
    problems = sum(file["skipped"] + file["rejected"] for file in files)
    first = files[0]["problems"][0]
    where = f"{files[0]['path']}:{first['line']}" if first["line"] else files[0]["path"]
    more = f" (and {problems - 1} more)" if problems > 1 else ""
    hint = HINTS.get(first["code"], "the rest was read; --on-bad fail stops at the first bad record instead")
    complain(f"error[{first['code']}]: {where}: {first['message']}{more}", hint)


def _show_ingest(console: Console, report: Mapping[str, Any], most: int | None) -> None:
    from .render import clean, table

    columns = ("file", "format", "new", "already there", "skipped", "rejected")
    rows = [
        (f["path"], f["format"], f["accepted"], f["duplicates"], f["skipped"], f["rejected"]) for f in report["files"]
    ]
    table(console, "", columns, rows, limit=90)
    for file in report["files"]:
        for problem in file["problems"][:most]:
            where = f"{file['path']}:{problem['line']}" if problem["line"] else file["path"]
            console.print(f"  {problem['code']} {clean(where)}: {clean(problem['message'])}")
        if most is not None and len(file["problems"]) > most:
            console.print(f"  … {most} of {len(file['problems'])} problems shown (-v and --json list all)")
    if report["ignored"]:
        console.print(f"ignored (no reader claims them): {', '.join(map(clean, report['ignored']))}")
    totals = report["totals"]
    console.print(
        f"{totals['trajectories']} trajectories new, {totals['duplicates']} already there, "
        f"{totals['skipped']} skipped, {totals['rejected_files']} files rejected; "
        f"{totals['steps']} steps, {totals['tool_calls']} tool calls"
    )


def export(
    ctx: typer.Context,
    format_name: Annotated[str, typer.Option("--format", help="Dataset format: trl-sft, trl-dpo, or a plugin.")],
    out: Annotated[Path, typer.Option(help="Folder to write, or a bare .jsonl file.")],
    runs: Annotated[list[str] | None, typer.Argument(metavar="RUN...", help="Runs to export.")] = None,
    dataset: Annotated[str | None, typer.Option(help="All runs over this dataset instead.")] = None,
    unit: Annotated[str | None, typer.Option(help="rest: the continuation a row; step: one message a row.")] = None,
    min_gain: Annotated[float | None, typer.Option(help="Least gain over the baseline; default: any above 0.")] = None,
    min_fidelity: Annotated[
        str, typer.Option(help="simulated, recorded, reexecuted or snapshot: the least true branch taken.")
    ] = "reexecuted",
    per_task: Annotated[int | None, typer.Option(help="At most so many counterfactuals a task.")] = None,
    keep_copied: Annotated[
        bool, typer.Option("--keep-copied", help="Keep counterfactuals that repeat a recorded run.")
    ] = False,
    keep_trivial: Annotated[
        bool, typer.Option("--keep-trivial", help="Keep tasks that a run which does nothing passes.")
    ] = False,
    keep_unconfirmed: Annotated[
        bool, typer.Option("--keep-unconfirmed", help="Keep what no fresh seeds confirmed in a world with chances.")
    ] = False,
    margin: Annotated[float, typer.Option(help="Pairs: by how much the rejected sibling's mean is lower.")] = 0.1,
    min_visits: Annotated[int, typer.Option(help="Pairs: visits a searched sibling needs to be rejected.")] = 2,
    test_fraction: Annotated[float, typer.Option(help="Share of tasks held out as test split.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Seed of the split.")] = 0,
    redact: Annotated[bool, typer.Option("--redact/--no-redact", help="Mask secrets.")] = True,
    token_ids: Annotated[
        bool, typer.Option("--token-ids", help="Also the token ids that a local policy saw and sampled, with masks.")
    ] = False,
) -> None:
    """Write a fine-tuning dataset. Example: ttc-replay export RUN --format trl-sft --out sft/."""
    from ..storage.export import export as run
    from ..storage.exporters.options import ExportOptions
    from ..storage.records import Fidelity
    from . import jobs, plugins

    state: State = ctx.obj
    options = ExportOptions(
        format=format_name,
        out=out,
        runs=tuple(runs or ()),
        dataset=dataset,
        unit=unit,
        min_gain=min_gain,
        min_fidelity=cast(Fidelity, min_fidelity),  # checked by the exporter, which names the values
        per_task=per_task,
        keep_copied=keep_copied,
        keep_trivial=keep_trivial,
        test_fraction=test_fraction,
        seed=seed,
        redact=redact,
        margin=margin,
        min_visits=min_visits,
        token_ids=token_ids,
        keep_unconfirmed=keep_unconfirmed,
    )
    exporter = plugins.exporter(format_name)
    with state.database(create=False) as database:
        jobs.check_dataset(database, dataset)
        report = run(database, options, exporter)
    state.emit(report, lambda console: _show_export(console, report))
    if not report["files"]:
        state.note("nothing selected: no run searched these trajectories; nothing was written")


def _show_export(console: Console, report: Mapping[str, Any]) -> None:
    from .render import table

    splits = report["splits"]
    table(
        console,
        f"{report['format']}: {splits.get('train', 0)} train rows, {splits.get('test', 0)} test rows",
        ("file", "rows", "sha256"),
        [(file["path"], file["rows"], file["sha256"][:16]) for file in report["files"]],
        limit=100,
    )
    dropped = ", ".join(f"{count} {reason}" for reason, count in sorted(report["dropped"].items()))
    console.print(f"dropped: {dropped or 'nothing'}")
