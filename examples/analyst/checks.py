"""`analyst-checks`: what can be said of a query without the gold. It guides the search.

The query must run, find something, and keep the house rules, each of which says what must *not* matter: cancelled
orders, at what hour of the office's day something happened, in how many parts an invoice was paid. So the warehouse is
changed in just that (a metamorphic relation, Chen et al. 1998, arXiv:2002.12543), and the result must stay the same.
What a rule does not say, such as which date was meant, goes unnoticed: these checks can be passed and the answer wrong.
"""

# ruff: noqa: S608 - the queries are ours
from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from ttc_replay import Score, Trajectory, reward
from ttc_replay.examples.analyst.comparison import Rows, same_rows
from ttc_replay.examples.analyst.verifier import LIMITS
from ttc_replay.examples.analyst.warehouse import copy_changed, image
from ttc_replay.replay.environments.sql_results import Refused, TimedOut
from ttc_replay.replay.environments.sql_sqlite import SqliteImage

_DROP = """
DELETE FROM returns WHERE order_id IN ({orders});
DELETE FROM payments WHERE invoice_id IN (SELECT invoice_id FROM invoices WHERE order_id IN ({orders}));
DELETE FROM invoices WHERE order_id IN ({orders});
DELETE FROM order_lines WHERE order_id IN ({orders});
"""
_NOON = "UPDATE {table} SET {column} = date({column}, '+9 hours') || ' 03:00:00';"
_TIMES = (("customers", "signed_up_at"), ("orders", "ordered_at"), ("payments", "paid_at"), ("returns", "returned_at"))

RULES: Mapping[str, str] = {
    "cancelled": _DROP.format(orders="SELECT order_id FROM orders WHERE status = 'cancelled'")
    + "DELETE FROM orders WHERE status = 'cancelled';",
    "test_customers": _DROP.format(
        orders="SELECT order_id FROM orders JOIN customers USING (customer_id) WHERE is_test = 1"
    )
    + "DELETE FROM orders WHERE customer_id IN (SELECT customer_id FROM customers WHERE is_test = 1);"
    "DELETE FROM customers WHERE is_test = 1;",
    "office_days": "".join(_NOON.format(table=table, column=column) for table, column in _TIMES),
    "no_discount": "UPDATE order_lines SET discount = 0 WHERE discount IS NULL;",
    "no_reason": "UPDATE returns SET reason = 'not stated' WHERE reason IS NULL;",
    "parts_of_payments": "UPDATE payments SET amount = amount / 2 WHERE payment_id % 2;"
    "INSERT INTO payments SELECT NULL, invoice_id, paid_at, amount FROM payments WHERE payment_id % 2;",
    "parts_of_returns": "INSERT INTO returns SELECT NULL, order_id, line_no, returned_at, quantity / 2, reason "
    "FROM returns WHERE quantity > 1; UPDATE returns SET quantity = quantity - quantity / 2 WHERE quantity > 1 AND "
    "return_id <= {returns};",
    "parts_of_lines": "INSERT INTO order_lines SELECT order_id, line_no + 100, product_id, quantity / 2, unit_price, "
    "discount FROM order_lines WHERE quantity > 1;"
    "UPDATE order_lines SET quantity = quantity - quantity / 2 WHERE quantity > 1 AND line_no < 100;",
}
"""Changes after which the answer to any question of the house is the same."""

RUNS, FINDS, HOUSE = 0.1, 0.1, 0.8
"""What a query earns for running, for finding something, and for the house rules."""
UNANSWERED = 0.95
"""A query that is not yet the answer earns this share."""


@reward(process=True)
def checks(trajectory: Trajectory) -> Score | None:
    """How good the last query of a prefix looks, in [0, 1]: 1.0 only when it was answered and all checks hold.

    0.0 while there is no query, and for a run that ended without an answered one. `detail["broken"]` names the house
    rules that it breaks. A time-out is an error. Reads no gold.
    """
    sql, answered = last_query(trajectory)
    if sql is None:
        return Score(0.0, detail={"why": "no query"})
    runs, finds, broken = judged(trajectory.task.seed or 0, sql)
    value = RUNS * runs + FINDS * finds + HOUSE * runs * (1 - len(broken) / len(RULES))
    ended = not trajectory.steps or not trajectory.last.action.tool_calls
    if ended and not answered:
        return Score(0.0, detail={"why": "ended without an answer"})
    return Score(value if answered else value * UNANSWERED, detail={"runs": runs, "finds": finds, "broken": broken})


def last_query(trajectory: Trajectory) -> tuple[str | None, bool]:
    """The last query that was run or answered, and whether it is the answer that stands."""
    answer = (trajectory.final_state or {}).get("answer")
    if answer is not None:
        return answer["sql"], True
    calls = [call for step in trajectory.steps for call in step.action.tool_calls if call.name in ("run_sql", "answer")]
    said = [call.arguments["sql"] for call in calls if call.arguments and isinstance(call.arguments.get("sql"), str)]
    return (said[-1] if said else None), False


@lru_cache(maxsize=4096)
def judged(seed: int, sql: str) -> tuple[bool, bool, tuple[str, ...]]:
    """Whether a query runs on a warehouse, finds something (not NULLs only), and which house rules it breaks.

    Raises TimedOut.
    """
    rows = _rows(image(seed), sql)
    if rows is None:
        return False, False, tuple(RULES)
    finds = any(value is not None for row in rows for value in row)
    broken = [name for name in RULES if not _kept(seed, name, sql, rows)]
    return True, finds, tuple(broken)


def _kept(seed: int, name: str, sql: str, rows: Rows) -> bool:
    changed = _rows(without(seed, name), sql)
    return changed is not None and same_rows(rows, changed, ordered=False)


def _rows(warehouse: SqliteImage, sql: str) -> Rows | None:
    try:
        found = warehouse.run(sql, LIMITS)
    except TimedOut:
        raise
    except Refused:
        return None
    return None if found.more else found.rows


@lru_cache(maxsize=1024)
def without(seed: int, name: str) -> SqliteImage:
    """The warehouse of a seed, changed in what a house rule says does not matter."""
    returns = image(seed).run("SELECT coalesce(max(return_id), 0) FROM returns", LIMITS).rows[0][0]
    return copy_changed(seed, RULES[name].replace("{returns}", str(returns)))
