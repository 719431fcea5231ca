"""The tables and the stable views, in SQLAlchemy Core, the same for DuckDB and PostgreSQL.

Rules that keep DuckDB fast and safe: text ids from the client, no foreign keys, no secondary indexes, no cascades, JSON
as TEXT (JSONB reorders keys, which breaks byte-exact replay). Tables that only ever grow in bulk have no key on DuckDB,
where it would cost memory and CPU and speed up nothing; on PostgreSQL an index stands in for DuckDB's zone maps.

What the tables are now is here, for queries; how an old file gets there is `migrations.py`, for ever frozen.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Boolean, Column, Double, Integer, MetaData, Table, Text
from sqlalchemy.types import TypeEngine

metadata = MetaData()


def _table(name: str, key: str | None = None, **columns: str) -> Table:
    """A table whose columns are named by type: `text="id dataset"`."""
    kinds: dict[str, type[TypeEngine[Any]]] = {
        "text": Text,
        "integer": Integer,
        "bigint": BigInteger,
        "double": Double,
        "boolean": Boolean,
    }
    made = [
        Column(column, kinds[kind], primary_key=column == key, autoincrement=False)
        for kind, names in columns.items()
        for column in names.split()
    ]
    return Table(name, metadata, *made)


schema_version = _table("schema_version", key="version", integer="version", text="name applied_at")

trajectories = _table(
    "trajectories",
    key="id",
    # `number` counts up in the order of insertion; steps carry it too, so that DuckDB's zone maps find them.
    bigint="number source_line",
    text=(
        "id dataset format task_id trial agent model parent_id run fidelity source_path"
        " task task_private tools prompt outcome_detail scores final_state counts extra raw"
        # relation: what a recorded run is to parent_id. conversation: the same run in two formats has it in common.
        " started_at ended_at relation links tags usage sampling replayability secrets conversation raw_layout"
    ),
    integer="steps branch_step",
    double="outcome",
    boolean="truncated",
)

steps = _table(
    "steps",
    bigint="trajectory_number",
    # role, text and tools (names of the called tools, comma separated) repeat what is in `action`, for queries.
    # tokens: what a local policy sampled, NULL otherwise.
    text="trajectory_id role text tools action observations fidelity usage scores started_at ended_at model tokens",
    integer="position step_index",
    double="logprob",
)

# Logged chats have no rows in `steps` in a DuckDB file: canonical texts of their messages, comma separated, some steps
# on each page; position -1 is the prompt, every other the first step of its page (`chat_log.py`).
pages = _table("pages", bigint="trajectory_number", integer="position", text="messages")

scores = _table(
    "scores",
    # node NULL: a score of the trajectory, or of one of its steps where step_index is set.
    text="run trajectory_id name error detail",
    integer="node step_index",
    double="value",
    boolean="abstain",
)

runs = _table(
    "runs",
    key="run",
    text="run configuration status algorithm judge digest report started_at ended_at",
    bigint="seed",
)

results = _table(
    "results",
    text="run trajectory_id counterfactual_id fidelity stopped detail",
    integer="position branch_step",
    bigint="transitions calls tokens",
    double="observed baseline best cost_usd",
    boolean="novel trivial",
)

nodes = _table(
    "nodes",
    text="run trajectory_id key status reason fidelity call_key tools text step",
    integer="node parent depth samples step_index",
    bigint="visits",
    double="value_sum prior value",
    boolean="terminal truncated spine imputed",
)

calls = _table(
    "calls",
    key="key",
    text="key run provider body result created_at",
    bigint="prompt_tokens completion_tokens cached_tokens",
    double="cost_usd",
)

exports = _table("exports", key="export", text="export run format path sha256 created_at", bigint="rows")

export_rows = _table(
    "export_rows",
    text="export path run trajectory_id call_key source_path sha256",
    integer="node",
    bigint="row source_line",
)

folded_journals = _table("folded_journals", key="path", text="path", bigint="last_seq size")

# Files that were read whole: the account of one that has not changed since need not be made again.
read_files = _table("read_files", key="key", text="key account")


_V_TRAJECTORIES = """
SELECT id, dataset, format, task_id, trial, agent, model, steps, outcome, parent_id, branch_step, run, fidelity,
       source_path, source_line, started_at, ended_at, relation, tags, usage, replayability, secrets
FROM trajectories
"""

_V_STEPS = """
SELECT s.trajectory_id, t.dataset, t.task_id, t.run, s.step_index AS step, s.role, s.text, s.tools, s.fidelity,
       s.logprob, s.action, s.observations, s.usage, s.scores, s.started_at, s.ended_at, s.model
FROM steps s JOIN trajectories t ON t.number = s.trajectory_number AND t.id = s.trajectory_id
"""

# The steps on pages: DuckDB builds them from JSON when somebody asks, and only on the pages that are asked for.
_V_STEPS_ON_PAGES = """
SELECT t.id, t.dataset, t.task_id, t.run, s.step, 'assistant',
       replace(coalesce(s.action ->> '$.content', ''), chr(0), chr(65533)),
       replace(coalesce(array_to_string(s.action ->> '$.tool_calls[*].function.name', ','), ''), chr(0), chr(65533)),
       CAST(NULL AS VARCHAR), CAST(NULL AS DOUBLE), s.action,
       '[' || array_to_string(s.observations, ',') || ']', CAST(NULL AS VARCHAR),
       CAST(NULL AS VARCHAR), CAST(NULL AS VARCHAR), CAST(NULL AS VARCHAR), CAST(NULL AS VARCHAR)
FROM (
    SELECT trajectory_number, unnest(list_transform(range(1, len(starts) + 1), lambda k: {
        'step': position + k - 1,
        'action': CAST(list[starts[k]] AS VARCHAR),
        'observations': CAST(list[starts[k] + 1 : coalesce(starts[k + 1], len(list) + 1) - 1] AS VARCHAR[])
    })) AS s
    FROM (
        SELECT *, list_filter(range(1, len(list) + 1), lambda i: (list[i] ->> '$.role') = 'assistant') AS starts
        FROM (
            SELECT trajectory_number, position, json_extract('[' || messages || ']', '$[*]') AS list
            FROM pages WHERE position >= 0
        )
    )
) p JOIN trajectories t ON t.number = p.trajectory_number
"""

_V_RUNS = """
SELECT r.run, r.status, r.algorithm, r.judge, r.seed, r.started_at, r.ended_at, r.digest, o.trajectories, o.improved,
       o.novel, o.trivial, o.mean_observed, o.mean_baseline, o.mean_best, o.transitions, o.calls, o.tokens, o.cost_usd
FROM runs r LEFT JOIN (
    SELECT run, count(*) AS trajectories,
           sum(CASE WHEN best > baseline THEN 1 ELSE 0 END) AS improved,
           sum(CASE WHEN novel THEN 1 ELSE 0 END) AS novel, sum(CASE WHEN trivial THEN 1 ELSE 0 END) AS trivial,
           avg(observed) AS mean_observed, avg(baseline) AS mean_baseline, avg(best) AS mean_best,
           sum(transitions) AS transitions, sum(calls) AS calls, sum(tokens) AS tokens, sum(cost_usd) AS cost_usd
    FROM results GROUP BY run
) o ON o.run = r.run
"""

_V_NODES = """
SELECT run, trajectory_id, node, parent, depth, step_index AS step, tools, text, visits, value_sum,
       CASE WHEN visits > 0 THEN value_sum / visits END AS mean_value, prior, value, terminal, truncated, spine,
       imputed, samples, status, reason, fidelity, call_key, key
FROM nodes
"""

_V_SCORES = """
SELECT run, trajectory_id, node, step_index AS step, name, value, abstain, error, detail FROM scores
"""

_VERDICT = "name || '=' || coalesce(CAST(value AS VARCHAR), CASE WHEN abstain THEN 'abstains' ELSE 'error' END)"

# An exported row names the counterfactual or the searched trajectory itself; nodes and results know only the latter.
_V_EXPORTS = f"""
SELECT e.export, e.format, e.created_at, x.path, x.row, x.sha256, x.run, x.trajectory_id, x.parent_id, x.searched_id,
       x.node, n.depth AS node_depth, n.value AS node_value, n.visits AS node_visits, n.fidelity AS node_fidelity,
       v.verdicts AS node_verdicts, coalesce(x.call_key, n.call_key) AS call_key, c.provider,
       c.prompt_tokens, c.completion_tokens, c.cost_usd, q.observed, q.baseline, q.best, w.verdicts AS verdicts,
       coalesce(x.source_path, p.source_path) AS source_path, coalesce(x.source_line, p.source_line) AS source_line
FROM (
    SELECT r.*, t.parent_id,
           CASE WHEN t.run = r.run AND t.parent_id IS NOT NULL THEN t.parent_id ELSE r.trajectory_id END AS searched_id
    FROM export_rows r LEFT JOIN trajectories t ON t.id = r.trajectory_id
) x
JOIN exports e ON e.export = x.export
LEFT JOIN trajectories p ON p.id = x.searched_id
LEFT JOIN nodes n ON n.run = x.run AND n.trajectory_id = x.searched_id AND n.node = x.node
LEFT JOIN calls c ON c.key = coalesce(x.call_key, n.call_key)
LEFT JOIN results q ON q.run = x.run AND q.trajectory_id = x.searched_id
LEFT JOIN (
    SELECT run, trajectory_id, node, string_agg({_VERDICT}, ', ' ORDER BY name) AS verdicts
    FROM scores WHERE node IS NOT NULL GROUP BY run, trajectory_id, node
) v ON v.run = x.run AND v.trajectory_id = x.searched_id AND v.node = x.node
LEFT JOIN (
    SELECT trajectory_id, string_agg({_VERDICT}, ', ' ORDER BY name) AS verdicts
    FROM scores WHERE node IS NULL AND step_index IS NULL GROUP BY trajectory_id
) w ON w.trajectory_id = x.trajectory_id
"""  # noqa: S608 (constants only)

# The same conversation logged in two formats is two trajectories: content tells that they are one run.
_V_SAME_AS = """
SELECT a.id, b.id AS same_as, b.format, b.dataset
FROM trajectories a JOIN trajectories b ON a.conversation = b.conversation AND a.id <> b.id
WHERE a.run IS NULL AND b.run IS NULL
"""

VIEWS: dict[str, str] = {
    "v_trajectories": _V_TRAJECTORIES,
    "v_steps": _V_STEPS,
    "v_runs": _V_RUNS,
    "v_nodes": _V_NODES,
    "v_scores": _V_SCORES,
    "v_exports": _V_EXPORTS,
    "v_same_as": _V_SAME_AS,
}
"""Name and query of each stable view. Columns may be added at the end, never renamed or removed."""


def view_query(name: str, dialect: str) -> str:
    """The query of a view; DuckDB files have logged chats on pages."""
    query = VIEWS[name]
    return f"{query} UNION ALL {_V_STEPS_ON_PAGES}" if name == "v_steps" and dialect == "duckdb" else query
