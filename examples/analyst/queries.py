"""The queries of each kind of question, right or with named flaws (`questions.FLAWS`)."""

# ruff: noqa: S608 - queries are what this module makes; every part of them is ours

from __future__ import annotations

from collections.abc import Mapping

Parameters = Mapping[str, str]
Flaws = frozenset[str]

_CUSTOMERS = "JOIN customers c ON c.customer_id = o.customer_id"
_LINES = "JOIN order_lines l ON l.order_id = o.order_id"
_OWN_ORDERS = "JOIN orders o ON o.order_id = i.order_id"


def _query(*parts: str) -> str:
    return " ".join(part for part in parts if part)


def _where(flaws: Flaws, *conditions: str) -> str:
    """WHERE with the house's filters, as far as they are not forgotten."""
    house = {"cancelled": "o.status <> 'cancelled'", "test_customers": "c.is_test = 0"}
    kept = [text for name, text in house.items() if name not in flaws]
    every = [*conditions, *kept]
    return f"WHERE {' AND '.join(every)}" if every else ""


def _day(column: str, flaws: Flaws) -> str:
    return f"date({column})" if "utc" in flaws else f"date({column}, '+9 hours')"


def _month(column: str, flaws: Flaws) -> str:
    return f"strftime('%Y-%m', {column})" if "utc" in flaws else f"strftime('%Y-%m', {column}, '+9 hours')"


def _from_to(month: str, given: Parameters) -> str:
    return f"{month} BETWEEN '{given['month']}' AND '{given['later']}'"


def _net(flaws: Flaws) -> str:
    discount = "l.discount" if "null_discount" in flaws else "coalesce(l.discount, 0)"
    return f"l.quantity * l.unit_price * (1 - {discount})"


def _date_of(right: str, flaws: Flaws) -> str:
    """`issued_on` or `due_on`, taken for the other when that is the flaw."""
    other = {"issued_on": "due_on", "due_on": "issued_on"}
    return f"i.{other[right] if 'issued_due' in flaws else right}"


def net_sales(given: Parameters, flaws: Flaws) -> str:
    """Net sales of a month to a country."""
    when, where = f"{_month('o.ordered_at', flaws)} = '{given['month']}'", f"c.country = '{given['country']}'"
    return _query(f"SELECT sum({_net(flaws)}) FROM orders o", _CUSTOMERS, _LINES, _where(flaws, where, when))


def top_products(given: Parameters, flaws: Flaws) -> str:
    """The three products of a category that sold most in three months."""
    returned = "LEFT JOIN returns r ON r.order_id = l.order_id AND r.line_no = l.line_no" if "fan_out" in flaws else ""
    when = _from_to(_month("o.ordered_at", flaws), given)
    return _query(
        f"SELECT p.name, sum({_net(flaws)}) AS net FROM orders o",
        _CUSTOMERS,
        _LINES,
        "JOIN products p ON p.product_id = l.product_id",
        returned,
        _where(flaws, f"p.category = '{given['category']}'", when),
        "GROUP BY p.product_id ORDER BY net DESC LIMIT 3",
    )


def overdue(given: Parameters, flaws: Flaws) -> str:
    """Invoices due in a month that are not paid in full."""
    join = "JOIN" if "inner_join" in flaws else "LEFT JOIN"
    where = _where(flaws, f"strftime('%Y-%m', {_date_of('due_on', flaws)}) = '{given['month']}'")
    if "fan_out" in flaws:  # each payment is compared by itself
        unpaid = "i.amount - coalesce(p.amount, 0)"
        paid, end = f"{join} payments p ON p.invoice_id = i.invoice_id", f"AND {unpaid} > 0.005"
    else:
        unpaid = "i.amount - coalesce(p.paid, 0)"
        paid = f"{join} (SELECT invoice_id, sum(amount) AS paid FROM payments GROUP BY invoice_id) p"
        paid, end = f"{paid} ON p.invoice_id = i.invoice_id", f"AND {unpaid} > 0.005"
    return _query(f"SELECT i.invoice_id, {unpaid} AS unpaid FROM invoices i", _OWN_ORDERS, _CUSTOMERS, paid, where, end)


def invoiced(given: Parameters, flaws: Flaws) -> str:
    """The amount invoiced in a month, by country."""
    paid = "JOIN payments p ON p.invoice_id = i.invoice_id" if "fan_out" in flaws else ""
    where = _where(flaws, f"strftime('%Y-%m', {_date_of('issued_on', flaws)}) = '{given['month']}'")
    return _query(
        "SELECT c.country, sum(i.amount) FROM invoices i", _OWN_ORDERS, _CUSTOMERS, paid, where, "GROUP BY c.country"
    )


def no_orders(given: Parameters, flaws: Flaws) -> str:
    """Customers of a segment who signed up in three months and have no order."""
    counts = "" if "cancelled" in flaws else " AND o.status <> 'cancelled'"
    real = "" if "test_customers" in flaws else "AND c.is_test = 0"
    return _query(
        f"SELECT count(*) FROM customers c WHERE c.segment = '{given['segment']}'",
        f"AND {_from_to(_month('c.signed_up_at', flaws), given)}",
        real,
        f"AND NOT EXISTS (SELECT 1 FROM orders o WHERE o.customer_id = c.customer_id{counts})",
    )


def order_value(given: Parameters, flaws: Flaws) -> str:
    """Average net sales of an order, by channel."""
    number = "count(*)" if "distinct" in flaws else "count(DISTINCT o.order_id)"
    where = _where(flaws, _from_to(_month("o.ordered_at", flaws), given))
    select = f"SELECT o.channel, sum({_net(flaws)}) / {number} FROM orders o"
    return _query(select, _CUSTOMERS, _LINES, where, "GROUP BY o.channel")


def return_rate(given: Parameters, flaws: Flaws) -> str:
    """Share of the units sold that came back, by category."""
    join = "JOIN" if "inner_join" in flaws else "LEFT JOIN"
    back = (
        "returns"
        if "fan_out" in flaws
        else ("(SELECT order_id, line_no, sum(quantity) AS quantity FROM returns GROUP BY order_id, line_no)")
    )
    return _query(
        "SELECT p.category, 1.0 * coalesce(sum(r.quantity), 0) / sum(l.quantity) FROM orders o",
        _CUSTOMERS,
        _LINES,
        "JOIN products p ON p.product_id = l.product_id",
        f"{join} {back} r ON r.order_id = l.order_id AND r.line_no = l.line_no",
        _where(flaws, f"c.country = '{given['country']}'"),
        "GROUP BY p.category",
    )


def days_to_pay(given: Parameters, flaws: Flaws) -> str:
    """Average days from an invoice's issue to the payment that completed it."""
    start = _date_of("issued_on", flaws)
    inner = _where(flaws, f"c.country = '{given['country']}'")
    whole = "GROUP BY i.invoice_id HAVING sum(p.amount) > i.amount - 0.005"
    paid = "JOIN payments p ON p.invoice_id = i.invoice_id"
    if "fan_out" in flaws:  # the mean over payments, not over the invoices' last ones
        full = "(SELECT sum(q.amount) FROM payments q WHERE q.invoice_id = i.invoice_id) > i.amount - 0.005"
        days = f"julianday({_day('p.paid_at', flaws)}) - julianday({start})"
        return _query(f"SELECT avg({days}) FROM invoices i", _OWN_ORDERS, _CUSTOMERS, paid, inner, "AND", full)
    days = f"julianday({_day('max(p.paid_at)', flaws)}) - julianday({start})"
    return _query(
        f"SELECT avg(days) FROM (SELECT {days} AS days FROM invoices i",
        _OWN_ORDERS,
        _CUSTOMERS,
        paid,
        inner,
        whole,
        ")",
    )


def repeat_customers(given: Parameters, flaws: Flaws) -> str:
    """Customers of a country with two orders or more in three months."""
    lines = _LINES if "distinct" in flaws else ""
    where = _where(flaws, f"c.country = '{given['country']}'", _from_to(_month("o.ordered_at", flaws), given))
    inner = _query("SELECT o.customer_id FROM orders o", _CUSTOMERS, lines, where)
    return f"SELECT count(*) FROM ({inner} GROUP BY o.customer_id HAVING count(*) >= 2)"


def weekdays(given: Parameters, flaws: Flaws) -> str:
    """Orders by day of the week."""
    lines = _LINES if "distinct" in flaws else ""
    day = f"strftime('%w', {_day('o.ordered_at', flaws)})"
    where = _where(flaws, _from_to(_month("o.ordered_at", flaws), given))
    return _query(
        f"SELECT CAST({day} AS INTEGER) AS weekday, count(*) FROM orders o",
        _CUSTOMERS,
        lines,
        where,
        "GROUP BY weekday ORDER BY weekday",
    )


def receivables(given: Parameters, flaws: Flaws) -> str:
    """What was unpaid at the end of a month on a segment's invoices."""
    paid_by = f"{_month('p.paid_at', flaws)} <= '{given['month']}'"
    issued = f"strftime('%Y-%m', {_date_of('issued_on', flaws)}) <= '{given['month']}'"
    where = _where(flaws, f"c.segment = '{given['segment']}'", issued)
    if "fan_out" in flaws:
        select = "SELECT sum(i.amount) - coalesce(sum(p.amount), 0) FROM invoices i"
        paid = f"LEFT JOIN payments p ON p.invoice_id = i.invoice_id AND {paid_by}"
        return _query(select, _OWN_ORDERS, _CUSTOMERS, paid, where)
    paid = f"(SELECT coalesce(sum(p.amount), 0) FROM payments p WHERE p.invoice_id = i.invoice_id AND {paid_by})"
    return _query(f"SELECT sum(i.amount - {paid}) FROM invoices i", _OWN_ORDERS, _CUSTOMERS, where)


def return_reasons(given: Parameters, flaws: Flaws) -> str:
    """Units that came back for another reason than damage."""
    reason = "r.reason <> 'damaged'" if "null_reason" in flaws else "coalesce(r.reason, '') <> 'damaged'"
    where = _where(flaws, reason, _from_to(_month("r.returned_at", flaws), given))
    return _query(
        "SELECT coalesce(sum(r.quantity), 0) FROM returns r JOIN orders o ON o.order_id = r.order_id", _CUSTOMERS, where
    )
