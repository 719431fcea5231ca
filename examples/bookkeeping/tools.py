"""The tools as the agent sees them: OpenAI-style schemas."""

from __future__ import annotations

from typing import Any

from ttc_replay.examples.bookkeeping.chart import VAT_RATES


def _text(description: str) -> dict[str, Any]:
    return {"type": "string", "description": description}


_LINE = _text("Bank line, for example L01")
_PART: dict[str, Any] = {
    "account": _text("Account code"),
    "amount": _text('Gross amount, signed as in the feed, for example "-120.00"'),
    "vat_code": {"type": "string", "enum": list(VAT_RATES)},
    "vat_amount": _text('VAT inside amount, same sign, for example "-20.00"'),
}


def _tool(name: str, description: str, properties: dict[str, Any], optional: tuple[str, ...] = ()) -> dict[str, Any]:
    parameters = {
        "type": "object",
        "properties": properties,
        "required": [key for key in properties if key not in optional],
        "additionalProperties": False,
    }
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


TOOLS: tuple[dict[str, Any], ...] = (
    _tool(
        "list_feed",
        "The month's bank lines with the number of bookings linked to each, and the statement's balances.",
        {"only_open": {"type": "boolean", "description": "Only lines without a booking"}},
        ("only_open",),
    ),
    _tool(
        "search_invoices",
        "Invoices whose number, counterparty, order or amount contains the query; an empty query lists all.",
        {"query": _text("Text to look for")},
    ),
    _tool("post", "Book a bank line to one account.", {"line": _LINE, **_PART}),
    _tool(
        "split",
        "Book a bank line to several accounts; the parts add up to the line.",
        {
            "line": _LINE,
            "parts": {
                "type": "array",
                "minItems": 2,
                "maxItems": 12,
                "items": {
                    "type": "object",
                    "properties": _PART,
                    "required": list(_PART),
                    "additionalProperties": False,
                },
            },
        },
    ),
    _tool(
        "match_invoice",
        "Settle an invoice with a bank line. What the line brings above or below settled goes to difference_account.",
        {
            "line": _LINE,
            "invoice": _text("Invoice number"),
            "settled": _text("EUR value of the invoice that is cleared, positive; default: the line's amount"),
            "difference_account": _text("Account of the difference, needed when settled is not the line's amount"),
        },
        ("settled", "difference_account"),
    ),
    _tool("undo", "Take back the latest booking of a bank line.", {"line": _LINE}),
    _tool("trial_balance", "Balances by account, bank ledger against statement, open lines, partly paid invoices.", {}),
    _tool(
        "close_month",
        "Close the month. Final: the work ends here, whatever is left.",
        {"month": _text("The month, for example 2025-03")},
    ),
)
"""All eight, in a fixed order."""

REQUIRED = {tool["function"]["name"]: tuple(tool["function"]["parameters"]["required"]) for tool in TOOLS}
KNOWN = {tool["function"]["name"]: frozenset(tool["function"]["parameters"]["properties"]) for tool in TOOLS}
PART_KEYS = frozenset(_PART)
