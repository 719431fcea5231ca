"""An imperfect analyst, as a policy: it looks around, drafts a query, revises it, answers. A script, no language model.

It knows the right query of a question (from its number) and writes one with flaws, drawn by rates; each question has a
habit besides, a flaw that it makes nearly always. From the observations it learns that a query failed, nothing else.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

from ttc_replay import Message, Proposal, ProposalRequest, ToolCall
from ttc_replay.examples.analyst.questions import Flaws, Question, question, question_of
from ttc_replay.storage.codec import action_key

FLAW, HABIT = 0.3, 0.8
"""How often a draft has a flaw; one that is the question's habit."""
TYPO = 0.12
"""How often a first draft names a column that does not exist."""
HASTE = 0.15
"""How often the agent drafts without a look at the tables."""
ANSWERS = 0.45
"""How often a query that ran is answered; else it is revised."""
TRIES = 4
"""Draws for each proposal that is wanted: repetitions are dropped."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What the conversation holds: which calls were made, the last query, and whether it failed."""

    calls: tuple[str, ...]
    sql: str | None
    failed: bool


class NoisyAnalyst:
    """Proposes what the imperfect analyst would do next, drawn by the request's seed. `skill`: from 0 (as it is) to 1
    (no flaws). Raises ValueError for a skill out of range."""

    sampling = True
    inline = True

    def __init__(self, skill: float = 0.0):
        if not 0 <= skill <= 1:
            raise ValueError(f"skill {skill}: from 0 to 1")
        self._noise = 1 - skill

    def propose(self, requests: Sequence[ProposalRequest]) -> list[list[Proposal]]:
        """At most `n` different actions for each request."""
        return [list(self._different(request)) for request in requests]

    def _different(self, request: ProposalRequest) -> Iterator[Proposal]:
        rng = random.Random(f"{request.seed} {request.step}")
        asked, seen = question_of(request.task), seen_in(request.messages)
        made: set[str] = set(request.exclude)
        wanted = request.n
        for _ in range(TRIES * request.n):
            action = self.act(asked, seen, rng, request.step)
            key = action_key(action)
            if key not in made and wanted:
                made.add(key)
                wanted -= 1
                yield Proposal(action)

    def act(self, asked: Question, seen: Seen, rng: random.Random, step: int) -> Message:
        """The next action."""
        if seen.sql is None:
            return self._look(asked, seen, rng, step)
        if seen.failed:
            return _call(step, "That failed, let me correct it.", "run_sql", sql=self._draft(asked, rng))
        if rng.random() < ANSWERS:
            return _call(step, "This answers the question.", "answer", sql=seen.sql)
        return _call(step, "Let me check that again.", "run_sql", sql=self._revised(asked, seen.sql, rng))

    def _look(self, asked: Question, seen: Seen, rng: random.Random, step: int) -> Message:
        described = sum(name in ("describe", "sample") for name in seen.calls)
        if not seen.calls and rng.random() >= HASTE:
            return _call(step, "I look at the tables first.", "list_tables")
        if described < len(asked.kind.tables) and rng.random() >= HASTE * (1 + described):
            tool = "sample" if rng.random() < 0.3 else "describe"
            return _call(step, "", tool, table=asked.kind.tables[described])
        sql = self._draft(asked, rng)
        if rng.random() < TYPO * self._noise:
            sql = sql.replace("customer_id", "customerid", 1)
        return _call(step, "A first try.", "run_sql", sql=sql)

    def _rates(self, asked: Question) -> Mapping[str, float]:
        habit = asked.kind.flaws[asked.number // 12 % len(asked.kind.flaws)]
        return {name: self._noise * (HABIT if name == habit else FLAW) for name in asked.kind.flaws}

    def _draft(self, asked: Question, rng: random.Random) -> str:
        rates = self._rates(asked)
        return asked.sql(frozenset(name for name in asked.kind.flaws if rng.random() < rates[name]))

    def _revised(self, asked: Question, sql: str, rng: random.Random) -> str:
        """The query with one of its decisions taken anew; a query that it did not write is written anew."""
        flaws = flaws_of(asked, sql)
        if flaws is None:
            return self._draft(asked, rng)
        name = rng.choice(asked.kind.flaws)
        again = {name} if rng.random() < self._rates(asked)[name] else set()
        return asked.sql((flaws - {name}) | again)


def seen_in(messages: Sequence[Message]) -> Seen:
    """What the analyst knows from the conversation."""
    calls, sql, failed = [], None, False
    for message in messages:
        for call in message.tool_calls:
            calls.append(call.name)
            if call.name == "run_sql" and call.arguments is not None:
                sql = str(call.arguments.get("sql"))
        if message.role == "tool" and message.name == "run_sql":
            failed = message.text.startswith('{"error"')
    return Seen(tuple(calls), sql, failed)


def flaws_of(asked: Question, sql: str) -> Flaws | None:
    """The flaws with which the question's query is this text; None when there are none such."""
    return _texts(asked.number).get(sql)


@lru_cache(maxsize=256)
def _texts(number: int) -> Mapping[str, Flaws]:
    asked = question(number)
    every = asked.kind.flaws
    some = [frozenset(chosen) for size in range(len(every) + 1) for chosen in combinations(every, size)]
    return {asked.sql(flaws): flaws for flaws in reversed(some)}


def _call(step: int, content: str, name: str, **arguments: str) -> Message:
    return Message("assistant", content or None, tool_calls=(ToolCall(f"call_{step}", name, arguments),))
