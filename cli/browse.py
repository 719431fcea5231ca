"""`ls`, `show`, `tree`, `diff`: look at what is stored."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .state import State

if TYPE_CHECKING:
    from rich.console import Console

    from ..storage.database import Database

KINDS = ("trajectories", "runs", "datasets", "plugins")
COLUMNS = {
    "trajectories": (
        "id",
        "dataset",
        "task_id",
        "trial",
        "agent",
        "steps",
        "outcome",
        "replay",
        "run",
        "branch_step",
        "fidelity",
    ),
    "runs": ("run", "status", "algorithm", "judge", "seed"),
    "datasets": ("dataset", "format", "trajectories", "tasks", "steps", "mean_outcome"),
    "plugins": ("kind", "name", "object", "package", "version"),
}
FOLD_LINES = 12


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (ls, show, tree, diff):
        app.command()(command)


def ls(
    ctx: typer.Context,
    kind: Annotated[str, typer.Argument(metavar="[trajectories|runs|datasets|plugins]")] = "trajectories",
    where: Annotated[str | None, typer.Option(help="SQL condition over the view, e.g. 'outcome < 1'.")] = None,
    limit: Annotated[int | None, typer.Option(min=0, help="At most so many rows.")] = None,
) -> None:
    """List trajectories, runs, datasets or plugins. Example: ttc-replay ls --where "outcome < 1"."""
    from ..storage.errors import UsageError

    state: State = ctx.obj
    if kind not in KINDS:
        raise UsageError(f"there is nothing called {kind!r} to list", hint=", ".join(KINDS))
    if kind == "plugins":
        from .plugins import catalogue

        if where is not None:
            raise UsageError("--where is for what is in the database, plugins are not")

        rows: list[dict[str, Any]] = catalogue()
    else:
        with state.database(create=False) as database:
            rows = _listed(database, kind, where, limit)
    rows = rows if limit is None else rows[:limit]
    state.emit({"v": 1, "rows": rows}, lambda console: _show_list(console, kind, rows))


def _listed(database: Database, kind: str, where: str | None, limit: int | None) -> list[dict[str, Any]]:
    source = {
        "trajectories": "v_trajectories",
        "runs": "v_runs",
        "datasets": "(SELECT dataset, format, count(*) AS trajectories, count(DISTINCT task_id) AS tasks, "
        "sum(steps) AS steps, avg(outcome) AS mean_outcome FROM v_trajectories WHERE run IS NULL "
        "GROUP BY dataset, format) AS datasets",
    }[kind]
    order = {"trajectories": "source_path, source_line, id", "runs": "run", "datasets": "dataset, format"}[kind]
    condition = f" WHERE (\n{where}\n)" if where is not None else ""  # lines of its own: it may end in a comment
    return select(database, f"SELECT * FROM {source}{condition} ORDER BY {order}", limit)  # noqa: S608


def replay_note(report: str | None) -> str:
    """A replayability report in a word or two: what stands in the way of replaying the run, or is missing."""
    if report is None:
        return ""
    found = json.loads(report)
    counted = {"unparsed_arguments": "unparsed", "unanswered_calls": "unanswered", "unasked_results": "unasked"}
    missing = {"tool_schemas": "no tools", "system_prompt": "no system prompt"}
    notes = [f"{found[key]} {word}" for key, word in counted.items() if found[key]]
    return ", ".join(notes + [word for key, word in missing.items() if not found[key]]) or "ready"


def select(database: Database, query: str, limit: int | None = None) -> list[dict[str, Any]]:
    """Rows of one read-only query as mappings."""
    columns, rows = database.query(query, limit)
    return [dict(zip(columns, row, strict=True)) for row in rows]


def _show_list(console: Console, kind: str, rows: Sequence[Mapping[str, Any]]) -> None:
    from .render import rows_table

    if not rows:
        console.print(f"no {kind}")
        return
    if kind == "trajectories":
        rows = [{**row, "replay": replay_note(row["replayability"])} for row in rows]
    rows_table(console, "", rows, [name for name in COLUMNS[kind] if any(name in row for row in rows)])
    console.print(f"{len(rows)} {kind}")


def show(
    ctx: typer.Context,
    trajectory: Annotated[str, typer.Argument(metavar="ID", help="Trajectory id, or a unique beginning of one.")],
    step: Annotated[int | None, typer.Option(help="Only this step.")] = None,
    raw: Annotated[bool, typer.Option(help="The raw record, and nothing folded.")] = False,
) -> None:
    """Show one trajectory as a transcript. Example: ttc-replay show 3fa9 --step 4."""
    from ..storage.errors import UsageError

    state: State = ctx.obj
    with state.database(create=False) as database:
        found = database.trajectory(trajectory, raw=raw)
        query = f"SELECT * FROM v_steps WHERE trajectory_id = {quoted(found.id)} ORDER BY step"  # noqa: S608
        rows = select(database, query)
        about = _about(database, found.id)
    if step is not None:
        if not 0 <= step < len(found.steps):
            raise UsageError(f"there is no step {step}", hint=f"{len(found.steps)} steps, counted from 0")
        rows = [row for row in rows if row["step"] == step]
    document: dict[str, Any] = {"v": 1, "rows": rows}
    if raw:
        document["raw"] = found.source.raw if found.source else None
    state.emit(document, lambda console: _show_trajectory(console, found, step, raw, about))


def _about(database: Database, identity: str) -> dict[str, Any]:
    """What the archive knows of a trajectory besides its steps."""
    own = select(database, f"SELECT replayability, secrets FROM v_trajectories WHERE id = {quoted(identity)}")  # noqa: S608
    same = f"SELECT same_as, format, dataset FROM v_same_as WHERE id = {quoted(identity)} ORDER BY same_as"  # noqa: S608
    inner = (
        "SELECT id, relation, branch_step, steps FROM v_trajectories "  # noqa: S608
        f"WHERE parent_id = {quoted(identity)} AND run IS NULL ORDER BY branch_step, id"
    )
    return {
        "replayability": json.loads(own[0]["replayability"] or "null"),
        "secrets": json.loads(own[0]["secrets"] or "{}"),
        "same_as": select(database, same),
        "parts": select(database, inner),
    }


def quoted(text: str) -> str:
    """An SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def _show_trajectory(console: Console, found: Any, only: int | None, raw: bool, about: Mapping[str, Any]) -> None:
    from .render import clean

    if raw and only is None and found.source and found.source.raw:
        console.print(clean(found.source.raw), soft_wrap=True)
        return
    outcome = "unknown" if found.outcome is None or found.outcome.value is None else f"{found.outcome.value:g}"
    console.print(f"{found.id}  task {clean(found.task.id)}  outcome {outcome}", style="bold")
    if found.source:
        console.print(f"from {clean(found.source.path)}:{found.source.line or 1} ({found.source.format})")
    _show_relations(console, found, about)
    for name, score in found.scores.items():
        said = score.error or ("abstains" if score.abstain else score.value)
        console.print(f"score {clean(name)}: {clean(said)}")
    if only is None:
        for message in found.prompt:
            _show_message(console, message, raw)
    for one in found.steps if only is None else [found.steps[only]]:
        console.rule(f"step {one.index}" + (f" ({one.fidelity})" if one.fidelity else ""))
        for message in (one.action, *one.observations):
            _show_message(console, message, raw)


def _show_relations(console: Console, found: Any, about: Mapping[str, Any]) -> None:
    from .render import clean

    if found.run:
        console.print(
            f"counterfactual of {found.parent_id}: run {clean(found.run)}, branches at step {found.branch_step}, "
            f"fidelity {found.fidelity}"
        )
    elif found.parent_id:
        where = "" if found.branch_step is None else f", step {found.branch_step}"
        console.print(f"{found.source.relation or 'part'} of {found.parent_id}{where}")
    for part in about["parts"]:
        where = "" if part["branch_step"] is None else f" at step {part['branch_step']}"
        console.print(f"{part['relation'] or 'part'} {part['id'][:12]}{where}: {part['steps']} steps")
    for same in about["same_as"]:
        console.print(f"same as {same['same_as'][:12]} ({clean(same['format'])}, dataset {clean(same['dataset'])})")
    if about["replayability"] is not None:
        console.print(f"replay: {replay_note(json.dumps(about['replayability']))}")
    if about["secrets"]:
        counted = ", ".join(f"{count} {kind}" for kind, count in about["secrets"].items())
        console.print(f"secrets: {counted} (masked wherever text is shown)")


def _show_message(console: Console, message: Any, raw: bool) -> None:
    from .render import clean, message_lines

    style = {"assistant": "bold cyan", "user": "bold green", "tool": "bold yellow"}.get(message.role, "bold")
    fold = None if raw else FOLD_LINES
    if message.reasoning:
        message_lines(console, "reasoning", message.reasoning, fold=fold, style="dim")
    if message.text or not message.tool_calls:
        label = f"{message.role} {message.name}" if message.name else message.role
        label += " (error)" if message.is_error else ""
        message_lines(console, clean(label), message.text, fold=fold, style=style)
    for call in message.tool_calls:
        arguments = call.arguments_raw if call.arguments_raw is not None else dict(call.arguments or {})
        message_lines(console, "call", f"{call.name}({arguments})", fold=fold, style=style)


def tree(
    ctx: typer.Context,
    run: Annotated[str, typer.Argument(metavar="RUN", help="Run name.")],
    trajectory: Annotated[str | None, typer.Argument(metavar="ID", help="One trajectory of the run.")] = None,
) -> None:
    """Show the search trees of a run as text. Example: ttc-replay tree RUN 3fa9."""
    from ..storage.errors import UnknownId

    state: State = ctx.obj
    with state.database(create=False) as database:
        if database.run(run) is None:
            known = ", ".join(str(row["run"]) for row in database.runs()) or "none"
            raise UnknownId(f"no run named {run!r}", hint=f"runs: {known}")
        chosen = database.resolve(trajectory) if trajectory is not None else None
        condition = f" AND trajectory_id = {quoted(chosen)}" if chosen is not None else ""
        query = f"SELECT * FROM v_nodes WHERE run = {quoted(run)}{condition} ORDER BY trajectory_id, node"  # noqa: S608
        rows = select(database, query)
        results = {str(row["trajectory_id"]): row for row in database.results(run)}
        best = {item: _best_path(database, rows, row) for item, row in results.items() if chosen in (None, item)}
    if chosen is not None and not rows:
        raise UnknownId(f"run {run!r} has no tree for {chosen[:12]}", hint=f"ttc-replay tree {run} shows all it has")
    state.emit({"v": 1, "rows": rows}, lambda console: _show_trees(console, rows, results, best))


def _best_path(database: Database, rows: Sequence[Mapping[str, Any]], result: Mapping[str, Any]) -> set[int]:
    """The nodes of the accepted path: the gate's node is kept with the counterfactual."""
    if not result["counterfactual_id"]:
        return set()
    found = database.trajectory(result["counterfactual_id"])
    node = (found.source.extra if found.source else {}).get("node", 0)
    parents = {row["node"]: row["parent"] for row in rows if row["trajectory_id"] == result["trajectory_id"]}
    path = set()
    while node > 0:
        path.add(node)
        node = parents.get(node, 0)
    return path


def _show_trees(
    console: Console,
    rows: Sequence[Mapping[str, Any]],
    results: Mapping[str, Mapping[str, Any]],
    best: Mapping[str, set[int]],
) -> None:
    from .render import draw_tree

    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row["trajectory_id"], []).append(row)
    for trajectory_id, nodes in groups.items():
        result = results.get(trajectory_id, {})
        title = (
            f"{trajectory_id[:12]}  baseline {result.get('baseline')}  best {result.get('best')}  "
            f"{result.get('transitions')} transitions, stopped: {result.get('stopped')}"
        )
        draw_tree(console, title, nodes, best.get(trajectory_id, set()))
    console.print("best path bold; n = visits, mean = value_sum / visits" if groups else "no trees")


def diff(
    ctx: typer.Context,
    trajectory: Annotated[str, typer.Argument(metavar="ID", help="Recorded trajectory.")],
    counterfactual: Annotated[str, typer.Argument(metavar="CF-ID", help="Counterfactual, or any other trajectory.")],
) -> None:
    """Show two runs side by side from the step where they part. Example: ttc-replay diff ID CF-ID."""
    from ..storage.codec import action_key

    state: State = ctx.obj
    with state.database(create=False) as database:
        left, right = database.trajectory(trajectory), database.trajectory(counterfactual)
    keys = [[action_key(step.action) for step in side.steps] for side in (left, right)]
    shared = next((i for i, (a, b) in enumerate(zip(*keys, strict=False)) if a != b), min(map(len, keys)))
    rows = []
    for index in range(shared, max(map(len, keys))):
        sides = [side.steps[index] if index < len(side.steps) else None for side in (left, right)]
        rows.append(
            {
                "step": index,
                "left": _step_text(sides[0]),
                "right": _step_text(sides[1]),
                "same": index < min(map(len, keys)) and keys[0][index] == keys[1][index],
            }
        )
    outcomes = [side.outcome.value if side.outcome else None for side in (left, right)]
    document = {"v": 1, "left": left.id, "right": right.id, "shared_steps": shared, "outcomes": outcomes, "rows": rows}
    state.emit(document, lambda console: _show_diff(console, document))


def _step_text(step: Any) -> str | None:
    from ..storage.codec import action_key

    if step is None:
        return None
    answers = " ".join(message.text for message in step.observations)
    said = step.action.text if not step.action.tool_calls else action_key(step.action).removeprefix("call:")
    return f"{said} → {answers}"


def _show_diff(console: Console, document: Mapping[str, Any]) -> None:
    from .render import clean, table

    left, right = (
        f"{document[side][:12]} (outcome {clean(value)})"
        for side, value in zip(("left", "right"), document["outcomes"], strict=True)
    )
    rows = [(row["step"], "=" if row["same"] else "", row["left"], row["right"]) for row in document["rows"]]
    table(console, f"{document['shared_steps']} steps shared", ("step", "", left, right), rows, limit=300)
