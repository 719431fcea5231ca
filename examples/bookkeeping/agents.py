"""Imperfect agents: they play through the real environment, one message at a time, and err by profile and seed.

An agent knows the auditor's booking of each line (it is a script, no model) and, by the rates of its profile, acts on a
mistaken one instead. What it notices afterwards it learns from the observations alone: an error, the trial balance.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ttc_replay import Message, Task, ToolCall
from ttc_replay.examples.bookkeeping.environment import BookkeepingEnvironment
from ttc_replay.examples.bookkeeping.ledger import Booking
from ttc_replay.examples.bookkeeping.mistakes import MISTAKES, blind_spot
from ttc_replay.examples.bookkeeping.world import FeedLine, World, world_of

Call = tuple[str, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Profile:
    """How an agent errs: probabilities per line by mistake, and its habits.

    `duplicate` and `typo` (an account that does not exist) are per line, the others per run. `early_close`: stops
    before the last lines. `forgets_close`: says that it is done instead. `review`: looks at the trial balance.
    `attention`: mends each problem that it shows. `searches_first`: lists all invoices at the start.
    """

    name: str
    rates: Mapping[str, float]
    duplicate: float = 0.01
    typo: float = 0.02
    early_close: float = 0.0
    forgets_close: float = 0.0
    review: float = 0.5
    attention: float = 0.5
    searches_first: float = 0.5


_HASTY = Profile(
    "hasty",
    {"suspense": 0.04, "cut_off_ignored": 0.15, "misread": 0.15, "sign_flip": 0.05, "fee_netted": 0.05},
    duplicate=0.06,
    typo=0.03,
    early_close=0.3,
    forgets_close=0.12,
    review=0.3,
)
_CONFUSED = Profile(
    "account-confused",
    {"wrong_account": 0.1, "wrong_vat_code": 0.04, "vat_rounding": 0.05, "misread": 0.3, "cut_off_ignored": 0.1},
    typo=0.05,
    review=0.7,
    attention=0.7,
)
_CARELESS = Profile(
    "careless-with-invoices",
    {"invoice_left_open": 0.15, "fee_netted": 0.15, "exchange_rounding": 0.5, "sign_flip": 0.04, "misread": 0.2},
    attention=0.4,
    searches_first=0.2,
)
_CAREFUL = Profile(
    "careful",
    {"vat_rounding": 0.04, "misread": 0.25, "exchange_rounding": 0.3, "wrong_account": 0.03, "cut_off_ignored": 0.05},
    review=0.95,
    attention=0.9,
    searches_first=0.8,
)

PROFILES = {profile.name: profile for profile in (_HASTY, _CONFUSED, _CARELESS, _CAREFUL)}
"""By name; the shipped logs give each task one run of each."""


@dataclass
class Bookkeeper:
    """One run of one agent: what it said and saw (`messages`), and what it believes to have booked (`made`)."""

    environment: BookkeepingEnvironment
    world: World
    profile: Profile
    rng: random.Random
    messages: list[Message] = field(default_factory=list)
    made: dict[str, list[Booking]] = field(default_factory=dict)
    calls: int = 0

    def act(self, content: str, *calls: Call) -> list[Any]:
        """Say something, make the calls in one message, and read what came back."""
        made = []
        for name, arguments in calls:
            self.calls += 1
            made.append(ToolCall(f"call_{self.calls:03d}", name, arguments))
        action = Message("assistant", content, tool_calls=tuple(made))
        observations = self.environment.step(action).observations
        self.messages.extend((action, *observations))
        return [json.loads(observation.text) for observation in observations]

    def chance(self, probability: float) -> bool:
        """True with that probability."""
        return self.rng.random() < probability

    def work(self) -> None:
        """The whole month."""
        self.act("I start with the bank feed.", ("list_feed", {}))
        searched = self.chance(self.profile.searches_first)
        if searched:
            self.act("Which invoices are open?", ("search_invoices", {"query": ""}))
        self._book_lines(searched)
        if self.chance(self.profile.review):
            self._review()
        if self.chance(self.profile.forgets_close):
            self.act(f"All lines of {self.world.month.name} are booked. Anything else?")
        else:
            self.act("That is everything, I close the month.", ("close_month", {"month": self.world.month.label}))

    def _book_lines(self, searched: bool) -> None:
        lines = list(self.world.lines)
        if self.chance(self.profile.early_close):
            lines = lines[: -self.rng.randrange(1, 3)]
        blind = blind_spot(self.world)
        for line in lines:
            right = self.world.gold[line.id]
            if right.invoice is not None and not searched:
                word = self.rng.choice([line.counterparty, line.counterparty.split()[0]])
                self.act(
                    f"{line.id}: is there an invoice of {line.counterparty}?", ("search_invoices", {"query": word})
                )
            intended = blind.get(line.id) or self._mistaken(line, right)
            self._book(line, intended or right)

    def _mistaken(self, line: FeedLine, right: Booking) -> Booking | None:
        for name, mistake in MISTAKES.items():
            if self.chance(self.profile.rates.get(name, 0.0)):
                wrong = mistake(self.world, line, right)
                if wrong is not None:
                    return wrong
        return None

    def _book(self, line: FeedLine, booking: Booking) -> None:
        """Book a line; an error makes the agent think again, and it then gets the line right."""
        call = call_for(line, booking)
        if call[0] == "post" and self.chance(self.profile.typo):
            self.act(_remark(line), ("post", {**call[1], "account": "6250"}))
            self.act("No such account, let me look at the chart again.", call)
        elif "error" in self.act(_remark(line), call)[0]:
            booking = self.world.gold[line.id]
            self.act("That was refused, I settle it at its booked value.", call_for(line, booking))
        self.made.setdefault(line.id, []).append(booking)
        if self.chance(self.profile.duplicate):
            seen = self.act(f"{line.id} does not seem to be in yet.", call_for(line, booking))[0]
            self.made[line.id] += [] if "error" in seen else [booking]

    def _review(self) -> None:
        """Look at the trial balance and mend what it shows, as far as the agent pays attention."""
        seen = self.act("Let me check the trial balance.", ("trial_balance", {}))[0]
        for name in seen["open_lines"]:
            if self.chance(self.profile.attention):
                self._mend(self.world.line[name], f"{name} is still open.")
        if seen["bank_difference"] != "0.00" and self.chance(self.profile.attention):
            for line in self.world.lines:
                if sum((item.bank_amount for item in self.made.get(line.id, ())), start=-line.amount) and self.made.get(
                    line.id
                ):
                    self._mend(line, f"The bank is off, {line.id} was booked wrongly.")
        for line in self.world.lines:
            bookings = self.made.get(line.id, ())
            parked = "9000" in seen["balances"] and any(
                part.account == "9000" for item in bookings for part in item.parts
            )
            partly = any(item.invoice in seen["partly_paid"] for item in bookings)
            if (parked or partly) and self.chance(self.profile.attention):
                self._mend(line, f"{line.id} is not finished.")

    def _mend(self, line: FeedLine, remark: str) -> None:
        """Take back what was booked on a line, then book what the agent takes for right."""
        for _ in self.made.pop(line.id, ()):
            self.act(remark, ("undo", {"line": line.id}))
        booking = blind_spot(self.world).get(line.id) or self.world.gold[line.id]
        if "error" in self.act(f"Now {line.id} once more.", call_for(line, booking))[0]:
            booking = self.world.gold[line.id]
            self.act("Refused, at its booked value then.", call_for(line, booking))
        self.made[line.id] = [booking]


def call_for(line: FeedLine, booking: Booking) -> Call:
    """The tool call that makes a booking; arguments that equal their default are left out."""
    if booking.invoice is not None:
        arguments = {"line": line.id, "invoice": booking.invoice}
        if booking.parts:
            arguments["settled"] = str(abs(booking.settled))
            arguments["difference_account"] = booking.parts[0].account
        return "match_invoice", arguments
    parts = [
        {
            "account": part.account,
            "amount": str(part.amount),
            "vat_code": part.vat_code,
            "vat_amount": str(part.vat_amount),
        }
        for part in booking.parts
    ]
    if len(parts) == 1:
        return "post", {"line": line.id, **parts[0]}
    return "split", {"line": line.id, "parts": parts}


def play(task: Task, profile: Profile, trial: int) -> Bookkeeper:
    """One run of a task. The same arguments give the same run, to the byte."""
    environment = BookkeepingEnvironment()
    prompt = environment.reset(task)
    rng = random.Random(f"{task.id}/{trial}/{profile.name}")
    agent = Bookkeeper(environment, world_of(task), profile, rng, list(prompt))
    agent.work()
    return agent


def _remark(line: FeedLine) -> str:
    way = "from" if line.amount > 0 else "to"
    return f"{line.id}: {line.amount} {way} {line.counterparty}, {line.text}."
