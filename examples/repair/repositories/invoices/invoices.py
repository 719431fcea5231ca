"""Amounts of an invoice, in whole cents."""


def parse_amount(text):
    """Cents from a text such as "19.99" or "1,250.00"."""
    return int(float(text) * 100)


def line_total(quantity, unit_cents, discount_percent=0):
    """What a line costs; half a cent is rounded up, as on the supplier's invoices."""
    full = quantity * unit_cents
    return full * (100 - discount_percent) // 100


def total(lines):
    """The sum of (quantity, amount as text, discount in percent)."""
    return sum(line_total(quantity, parse_amount(text), discount) for quantity, text, discount in lines)
