"""The warehouse of a seed: a shop's customers, orders, invoices, payments and returns, with what trips analysts.

Cancelled orders and test customers are in it; times are UTC while the office is nine hours ahead; a discount may be
NULL; an invoice is paid in parts, and a line comes back in parts, so that joins multiply rows; invoices have an issue
date and a due date. The same seed gives the same database, to the byte.
"""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

from ttc_replay import Task
from ttc_replay.replay.environments.sql_sqlite import SqliteImage, image_of_connection

SCHEMA = """
CREATE TABLE customers (customer_id INTEGER PRIMARY KEY, name TEXT NOT NULL, country TEXT NOT NULL,
    segment TEXT NOT NULL, signed_up_at TEXT NOT NULL, is_test INTEGER NOT NULL);
CREATE TABLE products (product_id INTEGER PRIMARY KEY, name TEXT NOT NULL, category TEXT NOT NULL,
    list_price REAL NOT NULL);
CREATE TABLE orders (order_id INTEGER PRIMARY KEY, customer_id INTEGER NOT NULL REFERENCES customers(customer_id),
    ordered_at TEXT NOT NULL, status TEXT NOT NULL, channel TEXT NOT NULL);
CREATE TABLE order_lines (order_id INTEGER NOT NULL REFERENCES orders(order_id), line_no INTEGER NOT NULL,
    product_id INTEGER NOT NULL REFERENCES products(product_id), quantity INTEGER NOT NULL, unit_price REAL NOT NULL,
    discount REAL, PRIMARY KEY (order_id, line_no));
CREATE TABLE invoices (invoice_id INTEGER PRIMARY KEY, order_id INTEGER NOT NULL REFERENCES orders(order_id),
    issued_on TEXT NOT NULL, due_on TEXT NOT NULL, amount REAL NOT NULL);
CREATE TABLE payments (payment_id INTEGER PRIMARY KEY, invoice_id INTEGER NOT NULL REFERENCES invoices(invoice_id),
    paid_at TEXT NOT NULL, amount REAL NOT NULL);
CREATE TABLE returns (return_id INTEGER PRIMARY KEY, order_id INTEGER NOT NULL, line_no INTEGER NOT NULL,
    returned_at TEXT NOT NULL, quantity INTEGER NOT NULL, reason TEXT,
    FOREIGN KEY (order_id, line_no) REFERENCES order_lines(order_id, line_no));
"""
COUNTRIES = ("Japan", "Korea", "Taiwan", "Vietnam")
SEGMENTS = ("home", "office", "school")
CATEGORIES = ("desks", "chairs", "lamps", "shelves")
CHANNELS = ("web", "phone", "store")
REASONS = ("damaged", "wrong item", "too late", None)
YEAR = 2024
OFFICE = "+9 hours"
"""The modifier that turns UTC into the office's time."""
_DISCOUNTS = (None, None, 0.0, 0.05, 0.1, 0.2)
_STATUSES = ("completed",) * 7 + ("open", "cancelled", "cancelled")
_STYLES = ("Aki", "Haru", "Kumo", "Mori", "Sora", "Yuki")
_SIZES = {"customers": 200, "orders": 450}


def build(task: Task) -> sqlite3.Connection:
    """The task's warehouse: what `--env-opt build=` names. A task without a seed has warehouse 0."""
    return connection(task.seed or 0)


@lru_cache(maxsize=64)
def image(seed: int) -> SqliteImage:
    """The warehouse of a seed, shared and unchanging."""
    return image_of_connection(connection(seed))


def connection(seed: int) -> sqlite3.Connection:
    """A new warehouse in memory; the caller closes it."""
    made = sqlite3.connect(":memory:")
    made.executescript(SCHEMA)
    rng = random.Random(f"warehouse {seed}")
    prices = _products(made, rng)
    tests = _customers(made, rng)
    for order in range(1, _SIZES["orders"] + 1):
        _order(made, rng, order, prices, tests)
    made.commit()
    return made


def _insert(made: sqlite3.Connection, table: str, *values: Any) -> None:
    marks = ",".join("?" * len(values))
    made.execute(f"INSERT INTO {table} VALUES ({marks})", values)  # noqa: S608 - table names are ours


def _moment(rng: random.Random, first: datetime, days: float) -> datetime:
    """Some time in so many days. A sixth happen in the last evening of a month (UTC), when the office has the first of
    the next month already."""
    moment = first + timedelta(seconds=rng.randrange(int(days * 86_400)))
    if rng.random() < 1 / 6:
        turn = (moment.replace(day=28) + timedelta(days=4)).replace(day=1, hour=0, minute=0, second=0)
        return turn - timedelta(seconds=rng.randrange(1, 9 * 3600))
    return moment


def _stamp(moment: datetime) -> str:
    return moment.isoformat(" ")


def _office_day(moment: datetime) -> datetime:
    """Midnight of the office's day."""
    return (moment + timedelta(hours=9)).replace(hour=0, minute=0, second=0)


def _products(made: sqlite3.Connection, rng: random.Random) -> Sequence[float]:
    prices = []
    for number in range(24):
        prices.append(float(rng.randrange(20, 400)))
        name = f"{_STYLES[number % len(_STYLES)]} {CATEGORIES[number % 4][:-1]} {number + 1}"
        _insert(made, "products", number + 1, name, CATEGORIES[number % 4], prices[-1])
    return prices


def _customers(made: sqlite3.Connection, rng: random.Random) -> set[int]:
    tests = set(rng.sample(range(1, _SIZES["customers"] + 1), 24))
    for number in range(1, _SIZES["customers"] + 1):
        joined = _stamp(_moment(rng, datetime(YEAR - 1, 10, 1), 420))
        country, segment = rng.choice(COUNTRIES), rng.choice(SEGMENTS)
        _insert(made, "customers", number, f"Customer {number}", country, segment, joined, int(number in tests))
    return tests


def _order(made: sqlite3.Connection, rng: random.Random, order: int, prices: Sequence[float], tests: set[int]) -> None:
    """One order with lines, and, unless it was cancelled at once, its invoice, payments and returns."""
    ordered = _moment(rng, datetime(YEAR, 1, 1), 360)
    status = rng.choice(_STATUSES)
    customer = rng.choice(sorted(tests)) if rng.random() < 0.12 else 1 + min(int(rng.expovariate(0.02)), 199)
    _insert(made, "orders", order, customer, _stamp(ordered), status, rng.choice(CHANNELS))
    total = 0.0
    for line in range(1, rng.randrange(1, 5) + 1):
        product, quantity, discount = rng.randrange(len(prices)), rng.randrange(1, 7), rng.choice(_DISCOUNTS)
        _insert(made, "order_lines", order, line, product + 1, quantity, prices[product], discount)
        total += quantity * prices[product] * (1 - (discount or 0.0))
        if status != "open" and rng.random() < 0.25:
            _returns(made, rng, (order, line), quantity, ordered)
    if status != "cancelled" or rng.random() < 0.6:
        _invoice(made, rng, order, round(total, 2), _office_day(ordered))


def _returns(
    made: sqlite3.Connection, rng: random.Random, line: tuple[int, int], quantity: int, ordered: datetime
) -> None:
    left = quantity
    while left and rng.random() < 0.75:
        some = rng.randrange(1, left + 1)
        _insert(made, "returns", None, *line, _stamp(_moment(rng, ordered, 45)), some, rng.choice(REASONS))
        left -= some


def _invoice(made: sqlite3.Connection, rng: random.Random, order: int, total: float, day: datetime) -> None:
    issued = day + timedelta(days=rng.randrange(0, 6))
    due = issued + timedelta(days=rng.choice((14, 30, 45)))
    row = (order, order, issued.date().isoformat(), due.date().isoformat(), total)
    _insert(made, "invoices", *row)
    left = total
    for part in range(rng.choice((0, 1, 1, 2, 3))):
        paid = left if part == 2 or rng.random() < 0.5 else round(left * rng.choice((0.25, 0.5, 0.6)), 2)
        if paid > 0:
            _insert(made, "payments", None, order, _stamp(_moment(rng, issued, 60)), paid)
            left = round(left - paid, 2)


def copy_changed(seed: int, script: str) -> SqliteImage:
    """The warehouse of a seed after a script of changes."""
    changed = sqlite3.connect(":memory:")
    with closing(changed):
        changed.deserialize(image(seed).content)
        changed.executescript(script)
        changed.commit()
        return SqliteImage(changed.serialize())
