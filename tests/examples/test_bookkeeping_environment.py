"""The environment: rules and errors, parallel calls, ends, forks, keys."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ttc_replay import Environment, Message, Task, ToolCall
from ttc_replay.examples.bookkeeping.agents import call_for
from ttc_replay.examples.bookkeeping.chart import ACCOUNTS, VAT_RATES
from ttc_replay.examples.bookkeeping.environment import BookkeepingEnvironment
from ttc_replay.examples.bookkeeping.money import ZERO, parse_money
from ttc_replay.examples.bookkeeping.tools import TOOLS
from ttc_replay.examples.bookkeeping.world import World, task, tasks, world_of
from ttc_replay.replay.environments.base import environment_class, tools_of

HARD = task("bookkeeping/hard/000")
NAMES = [tool["function"]["name"] for tool in TOOLS]


def act(environment: BookkeepingEnvironment, *calls: tuple[str, Any]) -> list[Any]:
    """Make the calls in one message; the parsed observations."""
    made = tuple(ToolCall(f"c{index}", name, arguments) for index, (name, arguments) in enumerate(calls))
    return [json.loads(item.text) for item in environment.step(Message("assistant", "", tool_calls=made)).observations]


def opened(chosen: Task = HARD, *, strict_close: bool = False) -> tuple[BookkeepingEnvironment, World]:
    environment = BookkeepingEnvironment(strict_close=strict_close)
    environment.reset(chosen)
    return environment, world_of(chosen)


def posting(**changes: Any) -> dict[str, Any]:
    return {"line": "L01", "account": "6500", "amount": "-60.00", "vat_code": "S20", "vat_amount": "-10.00", **changes}


def part(**changes: Any) -> dict[str, Any]:
    return {key: value for key, value in posting(**changes).items() if key != "line"}


def matched(made: World, kind: str) -> tuple[str, str]:
    """A line and the invoice of that kind that its gold settles."""
    return next(
        (line, booking.invoice)
        for line, booking in made.gold.items()
        if booking.invoice is not None and made.invoices[booking.invoice].kind == kind
    )


def test_it_is_what_the_contract_asks_for() -> None:
    environment = BookkeepingEnvironment()
    assert isinstance(environment, Environment)
    assert environment_class(environment) == "forkable"
    assert [tool["function"]["name"] for tool in tools_of(environment)] == NAMES
    assert (
        ", ".join(NAMES) == "list_feed, search_invoices, post, split, match_invoice, undo, trial_balance, close_month"
    )
    json.dumps(tools_of(environment))


def test_the_prompt_holds_the_rules_of_every_counterparty_and_the_request() -> None:
    environment, made = opened()
    system, user = environment.reset(HARD)
    assert (system.role, user.role) == ("system", "user")
    assert all(f"- {rule.counterparty}: {rule.text}" in system.text for rule in made.rules.values())
    assert all(f"{account.code} {account.name}" in system.text for account in ACCOUNTS.values())
    assert made.month.label in user.text


def test_nothing_works_before_reset() -> None:
    with pytest.raises(RuntimeError, match="reset"):
        BookkeepingEnvironment().step(Message("assistant", "hello"))


@pytest.mark.parametrize(
    ("name", "arguments", "error"),
    [
        ("pay_bills", {}, "there is no tool pay_bills"),
        ("post", None, "not a JSON object"),
        ("post", {}, "missing argument: line, account, amount, vat_code, vat_amount"),
        ("post", posting(memo="x"), "unknown argument: memo"),
        ("post", posting(line="L99"), "no bank line 'L99'"),
        ("post", posting(line=1), "line must be a text"),
        ("post", posting(line={"a": 1}), "line must be a text"),
        ("post", posting(account="6250"), "no account '6250'"),
        ("post", posting(account="1000"), "moved by the tools"),
        ("post", posting(account="2000"), "moved by the tools"),
        ("post", posting(amount="1,000.00"), "amount must be a text"),
        ("post", posting(amount=0.001), "amount must be a text"),
        ("post", posting(amount=float("nan")), "amount must be a text"),
        ("post", posting(amount="0.00", vat_amount="0.00"), "must not be zero"),
        ("post", posting(vat_code="S19"), "no VAT code 'S19'"),
        ("post", posting(vat_code="N"), "vat_amount must be 0.00"),
        ("post", posting(vat_amount="10.00"), "have its sign"),
        ("post", posting(vat_amount="-60.00"), "inside amount"),
        ("split", {"line": "L01", "parts": []}, "list of 2 to 12"),
        ("split", {"line": "L01", "parts": "all"}, "list of 2 to 12"),
        ("split", {"line": "L01", "parts": [part()] * 13}, "list of 2 to 12"),
        ("split", {"line": "L01", "parts": [part(), "rest"]}, "each part needs exactly"),
        ("split", {"line": "L01", "parts": [part(), {"account": "6500"}]}, "each part needs exactly"),
        ("split", {"line": "L01", "parts": [part(), part()]}, "the parts add up to -120.00"),
        ("match_invoice", {"line": "L01", "invoice": "S-1"}, "no invoice 'S-1'"),
        ("undo", {"line": "L01"}, "has no booking"),
        ("close_month", {"month": "1999-01"}, "the open month is"),
        ("close_month", {"month": 3}, "month must be a text"),
        ("list_feed", {"only_open": "yes"}, "true or false"),
        ("search_invoices", {"query": None}, "query must be a text"),
    ],
)
def test_what_is_wrong_is_told_and_changes_nothing(name: str, arguments: Any, error: str) -> None:
    environment, _ = opened()
    before = environment.state_key()
    result = environment.step(Message("assistant", "", tool_calls=(ToolCall("c7", name, arguments),)))
    (observation,) = result.observations
    assert (observation.role, observation.tool_call_id, observation.name) == ("tool", "c7", name)
    assert error in json.loads(observation.text)["error"]
    assert (result.done, result.reward, environment.state_key()) == (False, None, before)


def test_invoices_are_settled_in_their_direction_and_never_by_more_than_is_open() -> None:
    environment, made = opened()
    line, sales = matched(made, "sales")
    _, purchase = matched(made, "purchase")
    value = made.invoices[sales].booked_value
    settles = {"line": line, "invoice": sales, "difference_account": "6800"}
    answers = act(
        environment,
        ("match_invoice", {"line": line, "invoice": purchase}),
        ("match_invoice", {**settles, "settled": str(value + 1)}),
        ("match_invoice", {**settles, "settled": "0.00"}),
        ("match_invoice", {"line": line, "invoice": sales, "settled": "1.00"}),
        ("match_invoice", {**settles, "settled": "1.00"}),
        ("match_invoice", {**settles, "settled": str(value)}),
        ("trial_balance", {}),
        ("undo", {"line": line}),
        ("match_invoice", {**settles, "settled": str(value)}),
        ("search_invoices", {"query": sales}),
    )
    assert "is a purchase invoice" in answers[0]["error"]
    assert "more than is open" in answers[1]["error"]
    assert "must be positive" in answers[2]["error"]
    assert "needs a difference_account" in answers[3]["error"]
    assert answers[4]["status"] == "partly paid"
    assert "more than is open" in answers[5]["error"]
    assert answers[6]["partly_paid"] == [sales]
    assert answers[7]["bookings"] == 0
    assert answers[8]["status"] == "paid"
    assert answers[9]["invoices"][0]["status"] == "paid"


def test_invoices_are_found_by_number_order_counterparty_and_amount() -> None:
    environment, made = opened()
    assert len(act(environment, ("search_invoices", {"query": ""}))[0]["invoices"]) == len(made.invoices)
    for invoice in made.invoices.values():
        for query in (invoice.number, invoice.order, invoice.counterparty.upper(), str(invoice.amount)):
            found = act(environment, ("search_invoices", {"query": query}))[0]["invoices"]
            assert invoice.number in [item["invoice"] for item in found]
    assert act(environment, ("search_invoices", {"query": "no such company"})) == [{"invoices": []}]


def test_parallel_calls_run_in_order_and_see_each_other() -> None:
    environment, made = opened()
    first = call_for(made.lines[0], made.gold["L01"])
    answers = act(
        environment, first, first, ("list_feed", {"only_open": True}), ("undo", {"line": "L01"}), ("list_feed", {})
    )
    assert [answers[0]["bookings"], answers[1]["bookings"], answers[3]["bookings"]] == [1, 2, 1]
    assert [item["line"] for item in answers[2]["lines"]] == [line.id for line in made.lines[1:]]
    assert [item["bookings"] for item in answers[4]["lines"]] == [1] + [0] * (len(made.lines) - 1)


def test_a_line_takes_no_more_than_five_bookings() -> None:
    environment, _ = opened()
    answers = act(environment, *[("post", posting())] * 6)
    assert ["error" in answer for answer in answers] == [False] * 5 + [True]


def test_closing_early_is_allowed_final_and_wrong() -> None:
    environment, made = opened()
    close = ToolCall("c0", "close_month", {"month": made.month.label})
    result = environment.step(Message("assistant", "", tool_calls=(close, ToolCall("c1", "post", posting()))))
    assert json.loads(result.observations[0].text) == {"closed": made.month.label, "open_lines": len(made.lines)}
    assert "is closed" in json.loads(result.observations[1].text)["error"]
    assert (result.done, result.reward) == (True, 0.0)
    assert result.info["identity_failures"] == ["lines_linked_once", "bank"]
    again = environment.step(Message("assistant", "", tool_calls=(close,)))
    assert (again.done, again.reward) == (True, None)
    assert "is closed" in json.loads(again.observations[0].text)["error"]


def test_strict_close_refuses_while_lines_are_open() -> None:
    environment, made = opened(strict_close=True)
    close = ("close_month", {"month": made.month.label})
    assert "bank lines are open" in act(environment, close)[0]["error"]
    assert environment.fork().state_key() == environment.state_key() != opened()[0].state_key()
    act(environment, *[call_for(made.line[line], booking) for line, booking in made.gold.items()])
    assert act(environment.fork(), close)[0]["open_lines"] == 0


def test_a_message_without_calls_ends_with_the_books_open() -> None:
    environment, made = opened()
    act(environment, *[call_for(made.line[line], booking) for line, booking in made.gold.items()])
    result = environment.step(Message("assistant", "All done."))
    assert (list(result.observations), result.done, result.reward) == ([], True, 0.0)
    assert result.info["identity_failures"] == ["closed"]
    assert environment.state()["closed"] is False


def test_numbers_and_texts_are_the_same_money() -> None:
    one, _ = opened()
    other, _ = opened()
    act(one, ("post", posting()))
    act(other, ("post", posting(amount=-60, vat_amount=-10.0)))
    assert one.state_key() == other.state_key()
    assert one.state() == other.state()


def test_the_order_of_lines_leaves_no_trace_but_bookings_do() -> None:
    keys, states, feeds = set(), [], []
    for order in (1, -1):
        environment, made = opened()
        for line in list(made.gold)[::order]:
            act(environment, call_for(made.line[line], made.gold[line]))
            keys.add(environment.state_key())
        states.append(environment.state())
        feeds.append(act(environment, ("list_feed", {}), ("trial_balance", {}), ("search_invoices", {"query": ""})))
    assert states[0] == states[1]
    assert feeds[0] == feeds[1]
    assert len(keys) == 2 * len(made.gold) - 1  # only the full books coincide


def test_the_state_is_plain_json_and_the_ledger_balances() -> None:
    environment, made = opened()
    act(environment, *[call_for(made.line[line], booking) for line, booking in made.gold.items()])
    state = environment.state()
    assert json.loads(json.dumps(state)) == state
    assert sum((parse_money(value) for value in state["balances"].values()), ZERO) == 0
    assert state["balances"]["1000"] == str(made.statement_balance)


def test_a_fork_costs_next_to_nothing() -> None:
    environment, made = opened()
    act(environment, *[call_for(made.line[line], booking) for line, booking in made.gold.items()])
    started = time.process_time()
    for _ in range(2000):
        environment.fork()
    assert (time.process_time() - started) / 2000 < 30e-6


_MONEY = st.sampled_from(["-60.00", "60.00", "1", "0.00", "-0.01", "x", "9999999999"])
_WORDS = st.one_of(
    st.sampled_from(["L01", "L02", "L03", "", "S-2001", "1400"]), st.text(max_size=5), st.none(), st.integers()
)
_PARTS = st.fixed_dictionaries(
    {
        "account": st.sampled_from([*ACCOUNTS, "6250"]),
        "amount": _MONEY,
        "vat_code": st.sampled_from([*VAT_RATES, "?"]),
        "vat_amount": _MONEY,
    }
)
_POSTS = st.builds(lambda item, line: ("post", {**item, "line": line}), _PARTS, st.sampled_from(["L01", "L02", "L03"]))
_ODD = st.tuples(
    st.sampled_from([*NAMES[:-1], "nonsense"]),
    st.one_of(
        st.none(),
        st.dictionaries(
            st.sampled_from(["line", "query", "invoice", "parts", "settled", "month", "only_open", "account"]),
            st.one_of(_WORDS, st.lists(st.one_of(_PARTS, _WORDS), max_size=3), _MONEY),
        ),
    ),
)
_GOLD = st.sampled_from([call_for(world_of(HARD).line[line], booking) for line, booking in world_of(HARD).gold.items()])
_UNDO = st.builds(lambda line: ("undo", {"line": line}), st.sampled_from(["L01", "L02", "L03"]))
CALLS = st.lists(st.one_of(_POSTS, _GOLD, _UNDO, _ODD), max_size=8)


@given(CALLS)
def test_no_call_raises_and_a_refused_one_changes_nothing(calls: list[tuple[str, Any]]) -> None:
    environment, _ = opened()
    for call in calls:
        before = environment.state_key()
        (answer,) = act(environment, call)
        if "error" in answer:
            assert environment.state_key() == before
        state = environment.state()
        json.dumps(state, allow_nan=False)
        assert sum((parse_money(value) for value in state["balances"].values()), ZERO) == 0


@given(CALLS, CALLS, CALLS)
def test_forks_are_independent_and_equal_a_fresh_run(
    shared: list[tuple[str, Any]], left: list[tuple[str, Any]], right: list[tuple[str, Any]]
) -> None:
    parent, _ = opened()
    for call in shared:
        act(parent, call)
    child = parent.fork()
    assert child.state() == parent.state()
    seen = {"left": [act(parent, call) for call in left], "right": [act(child, call) for call in right]}
    for name, calls, environment in (("left", left, parent), ("right", right, child)):
        fresh, _ = opened()
        for call in shared:
            act(fresh, call)
        assert [act(fresh, call) for call in calls] == seen[name]
        assert fresh.state() == environment.state()
        assert fresh.state_key() == environment.state_key()


def test_reset_starts_over_with_another_task() -> None:
    environment, _ = opened()
    act(environment, ("post", posting()))
    for other in (tasks("easy")[0], HARD):
        environment.reset(other)
        assert environment.state()["bookings"] == []
        assert environment.state_key() == opened(other)[0].state_key()
