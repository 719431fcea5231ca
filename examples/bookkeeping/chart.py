"""The chart of accounts and the VAT codes: the same for every company of the example."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

AccountKind = Literal["control", "balance", "income", "cost"]

BANK, RECEIVABLES, PAYABLES, EQUITY = "1000", "1200", "2000", "3000"
PREPAID, ACCRUED, LOAN, SUSPENSE = "1400", "2100", "2500", "9000"
INPUT_VAT, OUTPUT_VAT = "1500", "2200"
EQUIPMENT, SALES, GOODS, SUPPLIES = "0400", "4000", "6000", "6500"
CHARGES, EXCHANGE, INTEREST = "6800", "6900", "7000"


@dataclass(frozen=True, slots=True)
class Account:
    """One account. `control` accounts are moved by the tools alone, never posted to by name."""

    code: str
    name: str
    kind: AccountKind


_TABLE: tuple[tuple[str, str, AccountKind], ...] = (
    ("0400", "Equipment: single items from 800.00 net", "balance"),
    ("1000", "Bank", "control"),
    ("1200", "Trade receivables", "control"),
    ("1400", "Prepaid expenses: paid now, belongs to a later month", "balance"),
    ("1500", "Input VAT", "control"),
    ("2000", "Trade payables", "control"),
    ("2100", "Accrued expenses: paid now, belongs to an earlier month", "balance"),
    ("2200", "Output VAT", "control"),
    ("2500", "Bank loan", "balance"),
    ("3000", "Equity", "control"),
    ("4000", "Sales, standard rate", "income"),
    ("4100", "Sales, reduced rate", "income"),
    ("6000", "Goods for resale", "cost"),
    ("6100", "Rent", "cost"),
    ("6200", "Software and hosting", "cost"),
    ("6300", "Telephone and internet", "cost"),
    ("6400", "Travel", "cost"),
    ("6500", "Office supplies and equipment under 800.00 net", "cost"),
    ("6600", "Staff meals", "cost"),
    ("6610", "Entertainment of customers", "cost"),
    ("6700", "Insurance", "cost"),
    ("6800", "Bank and card charges", "cost"),
    ("6900", "Exchange differences", "cost"),
    ("7000", "Loan interest", "cost"),
    ("9000", "Suspense: must be zero when the month is closed", "balance"),
)
ACCOUNTS: dict[str, Account] = {code: Account(code, name, kind) for code, name, kind in _TABLE}

VAT_RATES: dict[str, Decimal] = {"S20": Decimal(20), "R10": Decimal(10), "E0": Decimal(0), "N": Decimal(0)}
"""Percent by code: standard, reduced, exempt, and no VAT at all."""


def vat_account(account: str) -> str:
    """Where the VAT of a part goes: output VAT for sales, input VAT for everything else."""
    return OUTPUT_VAT if ACCOUNTS[account].kind == "income" else INPUT_VAT
