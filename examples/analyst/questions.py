"""Questions over the warehouse by number, each with its right query and the wrong ones that its traps lead to.

A kind of question is a function from parameters and *flaws* (mistakes by name) to a query; without a flaw it is the
gold, which policies, guides and prompts never see.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TypeAlias, TypeVar

from ttc_replay import Task
from ttc_replay.examples.analyst import queries
from ttc_replay.examples.analyst.warehouse import CATEGORIES, COUNTRIES, SEGMENTS, YEAR

QUESTIONS = 48
"""Questions that ship: four of each kind. Any other number makes another question."""
Flaws: TypeAlias = frozenset[str]
Parameters: TypeAlias = Mapping[str, str]
Value = TypeVar("Value")

FLAWS: Mapping[str, str] = {
    "cancelled": "cancelled orders are counted",
    "test_customers": "test customers are counted",
    "utc": "days are those of UTC, not of the office",
    "null_discount": "lines without a discount get lost",
    "null_reason": "returns without a reason get lost",
    "fan_out": "a join counts rows several times",
    "inner_join": "what has no partner in a join gets lost",
    "distinct": "lines are counted in place of orders",
    "issued_due": "the issue date in place of the due date, or the other way round",
}
"""What each mistake does."""

RULES = """\
You answer questions about the shop's database in SQL (SQLite). Look at the tables first, try your query with run_sql, \
then give the final query with answer. House rules, which hold for every question:
1. Cancelled orders (status 'cancelled') and customers with is_test = 1 never count, nor does anything that belongs \
to them.
2. Times (columns that end in _at) are UTC. Days and months are those of the office, nine hours ahead all year. \
Columns that end in _on are office days already.
3. Net sales of a line are quantity * unit_price * (1 - discount); no discount (NULL) is 0.
4. An invoice may be paid in several parts, and a line may come back in several parts.
5. Round nothing. The query has to be right for the tables as they will be, not for today's rows only."""

COMMON: tuple[str, ...] = ("cancelled", "test_customers")


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of question. `text` has `{parameter}` places; `flaws`: mistakes that its query can have."""

    name: str
    text: str
    flaws: tuple[str, ...]
    sql: Callable[[Parameters, Flaws], str]
    tables: tuple[str, ...]
    ordered: bool = False


KINDS: tuple[Kind, ...] = (
    Kind(
        "net_sales",
        "What were the net sales to customers in {country} in {month}? One number.",
        (*COMMON, "utc", "null_discount"),
        queries.net_sales,
        ("orders", "order_lines", "customers"),
    ),
    Kind(
        "top_products",
        "Which 3 products of the category {category} had the highest net sales from {month} to {later}? Name and net "
        "sales, the highest first.",
        (*COMMON, "utc", "null_discount", "fan_out"),
        queries.top_products,
        ("orders", "order_lines", "products"),
        True,
    ),
    Kind(
        "overdue",
        "Which invoices that fell due in {month} are not paid in full? Invoice id and the amount that is open.",
        (*COMMON, "issued_due", "fan_out", "inner_join"),
        queries.overdue,
        ("invoices", "payments", "orders"),
    ),
    Kind(
        "invoiced",
        "How much did we invoice in {month}, by country of the customer? Country and amount.",
        (*COMMON, "issued_due", "fan_out"),
        queries.invoiced,
        ("invoices", "orders", "customers"),
    ),
    Kind(
        "no_orders",
        "How many customers of the segment {segment} who signed up from {month} to {later} have no order? One number.",
        (*COMMON, "utc"),
        queries.no_orders,
        ("customers", "orders"),
    ),
    Kind(
        "order_value",
        "What are the average net sales of an order from {month} to {later}, by channel? Channel and average.",
        (*COMMON, "utc", "null_discount", "distinct"),
        queries.order_value,
        ("orders", "order_lines"),
    ),
    Kind(
        "return_rate",
        "For customers in {country}: which share of the units sold came back, by category of the product? Category and "
        "share.",
        (*COMMON, "fan_out", "inner_join"),
        queries.return_rate,
        ("order_lines", "returns", "products"),
    ),
    Kind(
        "days_to_pay",
        "For invoices to customers in {country} that are paid in full: how many days pass on average from the issue to "
        "the payment that completed it? One number.",
        (*COMMON, "utc", "issued_due", "fan_out"),
        queries.days_to_pay,
        ("invoices", "payments", "customers"),
    ),
    Kind(
        "repeat_customers",
        "How many customers in {country} placed two orders or more from {month} to {later}? One number.",
        (*COMMON, "utc", "distinct"),
        queries.repeat_customers,
        ("orders", "customers"),
    ),
    Kind(
        "weekdays",
        "How many orders came in on each day of the week from {month} to {later}? Number of the day (0 is Sunday) and "
        "orders, in the order of the days; days without orders are left out.",
        (*COMMON, "utc", "distinct"),
        queries.weekdays,
        ("orders",),
        True,
    ),
    Kind(
        "receivables",
        "Of the invoices of the segment {segment} that were issued up to the end of {month}: how much was still unpaid "
        "at the end of {month}? One number.",
        (*COMMON, "utc", "issued_due", "fan_out"),
        queries.receivables,
        ("invoices", "payments", "customers"),
    ),
    Kind(
        "return_reasons",
        "How many units came back from {month} to {later} for another reason than 'damaged'? No stated reason is "
        "another reason. One number.",
        (*COMMON, "utc", "null_reason"),
        queries.return_reasons,
        ("returns", "orders"),
    ),
)


@dataclass(frozen=True, slots=True)
class Question:
    """One question: its number is the warehouse's seed, too."""

    number: int
    kind: Kind
    parameters: Parameters

    @property
    def id(self) -> str:
        """As in logs: analyst/overdue/014."""
        return f"analyst/{self.kind.name}/{self.number:03d}"

    @property
    def text(self) -> str:
        """What the user asks."""
        return self.kind.text.format_map(self.parameters)

    def sql(self, flaws: Flaws = frozenset()) -> str:
        """The query with these flaws; the gold without any."""
        return self.kind.sql(self.parameters, flaws)

    def wrong(self, most: int) -> list[Flaws]:
        """Sets of one to `most` flaws that its query can have."""
        return [frozenset(some) for size in range(1, most + 1) for some in combinations(self.kind.flaws, size)]


def question(number: int) -> Question:
    """The question of a number; the kinds take turns. Raises ValueError below 0."""
    if number < 0:
        raise ValueError(f"there is no question {number}")
    turn, place = divmod(number, len(KINDS))
    kind = KINDS[place]
    rng = random.Random(f"questions of kind {kind.name}")
    month = _turns(rng, range(2, 10), turn)
    parameters = {
        "month": f"{YEAR}-{month:02d}",
        "later": f"{YEAR}-{month + 2:02d}",
        "country": _turns(rng, COUNTRIES, turn),
        "segment": _turns(rng, SEGMENTS, turn),
        "category": _turns(rng, CATEGORIES, turn),
    }
    return Question(number, kind, parameters)


def _turns(rng: random.Random, values: Sequence[Value], turn: int) -> Value:
    """Each value in turn, in an order of the kind's own: the shipped questions of a kind are all different."""
    return rng.sample(values, len(values))[turn % len(values)]


def question_of(task: Task) -> Question:
    """The question behind a task's id. Raises ValueError when the id is not one of ours."""
    kind, _, number = task.id.removeprefix("analyst/").partition("/")
    if not number.isdecimal() or question(int(number)).kind.name != kind:
        raise ValueError(f"{task.id!r} is no question of the analyst example")
    return question(int(number))


def task(number: int) -> Task:
    """The task of a number: the gold is in `private` and nowhere else."""
    asked = question(number)
    return Task(
        id=asked.id,
        prompt=asked.text,
        data={"kind": asked.kind.name},
        seed=number,
        private={"gold_sql": asked.sql(), "ordered": asked.kind.ordered},
    )
