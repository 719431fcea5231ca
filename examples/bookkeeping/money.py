"""Money: `Decimal` with two places; every rounding is ROUND_HALF_UP (half a cent goes away from zero)."""

from __future__ import annotations

import re
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

CENT = Decimal("0.01")
ZERO = Decimal("0.00")

_MONEY = re.compile(r"-?[0-9]{1,9}(\.[0-9]{1,2})?")


def rounded(value: Decimal) -> Decimal:
    """To the cent, half up."""
    return value.quantize(CENT, ROUND_HALF_UP)


def vat_in(gross: Decimal, rate: Decimal) -> Decimal:
    """The VAT contained in `gross` at `rate` percent, with the sign of `gross`."""
    return rounded(gross * rate / (100 + rate)) + ZERO  # the sum turns a negative zero into a plain one


def parse_money(value: Any) -> Decimal:
    """A money amount from a tool argument: a text such as "-12.30", or a JSON number.

    Raises ValueError on anything else: thousands separators, exponents, more than two decimals, over nine digits.
    """
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise ValueError('must be a text such as "-12.30"')
    text = str(value)
    if not _MONEY.fullmatch(text):
        raise ValueError(f'must be a text such as "-12.30" with at most two decimals, not {text[:40]!r}')
    return Decimal(text).quantize(CENT) + ZERO
