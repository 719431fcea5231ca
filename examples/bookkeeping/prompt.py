"""What the agent reads first: the company's rules as the system message, the month's request as the user's."""

from __future__ import annotations

from functools import lru_cache

from ttc_replay import Message
from ttc_replay.examples.bookkeeping.chart import ACCOUNTS
from ttc_replay.examples.bookkeeping.world import World, request_text

_RULES = """\
You are the bookkeeper of {company}. You close {month} ({label}) with the tools; currency is EUR. Company rules:
1. Every bank line is booked exactly once, with the amount of the feed: money in is positive, money out negative. \
Nothing stays in 9000 at the end.
2. vat_amount is the VAT inside amount: amount * rate / (100 + rate), rounded half up to the cent, signed like amount. \
Codes: S20 20 %, R10 10 %, E0 exempt and N no VAT (vat_amount 0.00 for both).
3. Invoices: a payment for an open invoice settles it with match_invoice; it is not posted. Find it by number, order \
or counterparty. A paid invoice does not stay open: settle it in full and give the difference its account. Charges \
that somebody kept go to 6800. An invoice in another currency is settled at its booked value, amount / booked_rate, \
rounded half up; the difference goes to 6900.
4. Cut-off: the text names the month that a cost is for (MM/YYYY). For a later month book it to 1400, for an earlier \
one to 2100, instead of the cost account; the VAT stays the same. For a range of months this month's equal share, \
rounded half up, goes to the cost account and the rest to 1400 (split).
5. Refunds from suppliers go to the account and VAT code of the purchase, as money in.
6. Look at the trial balance when all lines are booked. close_month is final.
Counterparties:
{rules}
Accounts (1000, 1200, 1500, 2000, 2200 and 3000 are moved by the tools, never posted to):
{accounts}"""

_ACCOUNTS = "\n".join(f"{account.code} {account.name}" for account in ACCOUNTS.values())


@lru_cache(maxsize=512)
def prompt_messages(world: World) -> tuple[Message, ...]:
    """System and user message of a world."""
    rules = "\n".join(f"- {rule.counterparty}: {rule.text}" for rule in world.rules.values())
    system = _RULES.format(
        company=world.company, month=world.month.name, label=world.month.label, rules=rules, accounts=_ACCOUNTS
    )
    return Message("system", system), Message("user", request_text(world))
