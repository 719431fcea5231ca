"""Budgets: never over the limit, nothing lost in the arithmetic."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ttc_replay.search import Budget, Ledger, Spent, slices
from ttc_replay.storage.errors import UsageError


@pytest.mark.parametrize("quantity", ["transitions", "calls", "tokens", "cost_usd", "seconds"])
def test_each_quantity_refuses_by_itself(quantity: str) -> None:
    ledger = Ledger(Budget(**{quantity: 10}))
    assert ledger.reserve(Spent(**{quantity: 6}))
    assert not ledger.reserve(Spent(**{quantity: 5}))
    assert ledger.refused == quantity
    assert ledger.reserve(Spent(**{quantity: 4}))
    assert ledger.refused is None
    ledger.settle(Spent(**{quantity: 6}), Spent(**{quantity: 1}))
    assert ledger.reserve(Spent(**{quantity: 5}))
    assert getattr(ledger.remaining(), quantity) == 0


def test_no_limit_never_refuses() -> None:
    ledger = Ledger(Budget())
    assert ledger.reserve(Spent(transitions=10**9, calls=10**9, tokens=10**12, cost_usd=1e9, seconds=1e9))
    assert ledger.remaining() == Budget()


def test_prices_that_are_no_binary_fractions_fit_exactly() -> None:
    ledger = Ledger(Budget(cost_usd=0.3))
    assert all(ledger.reserve(Spent(cost_usd=0.1)) for _ in range(3))
    assert not ledger.reserve(Spent(cost_usd=1e-6))
    for _ in range(3):
        ledger.settle(Spent(cost_usd=0.1), Spent(cost_usd=0.1))
    assert ledger.remaining().cost_usd == pytest.approx(0.0, abs=1e-12)


def test_what_was_spent_before_counts_and_depth_stays() -> None:
    ledger = Ledger(Budget(calls=5, depth=20), Spent(calls=4))
    assert ledger.remaining() == Budget(calls=1, depth=20)
    assert not ledger.reserve(Spent(calls=2))


def test_an_overrun_is_booked_and_remaining_stays_at_zero() -> None:
    ledger = Ledger(Budget(tokens=100))
    assert ledger.reserve(Spent(tokens=80))
    ledger.settle(Spent(tokens=80), Spent(tokens=130))
    assert (ledger.spent.tokens, ledger.remaining().tokens, ledger.reserve(Spent())) == (130, 0, False)


def test_settling_what_was_not_reserved_is_refused() -> None:
    ledger = Ledger(Budget(calls=5))
    assert ledger.reserve(Spent(calls=1))
    with pytest.raises(UsageError, match="more was settled"):
        ledger.settle(Spent(calls=2), Spent(calls=2))


@given(
    st.integers(0, 60),
    st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20), st.booleans()), max_size=60),
)
def test_spent_and_reserved_never_pass_the_limit(limit: int, moves: list[tuple[int, int, bool]]) -> None:
    ledger, flying, settled = Ledger(Budget(tokens=limit)), [], 0
    for estimate, actual, settle_one in moves:
        if ledger.reserve(Spent(tokens=estimate)):
            flying.append((estimate, min(estimate, actual)))
        if settle_one and flying:
            reserved, spent = flying.pop(0)
            ledger.settle(Spent(tokens=reserved), Spent(tokens=spent))
            settled += spent
        total = ledger.spent.tokens + ledger.reserved.tokens
        assert total <= limit
        assert ledger.remaining().tokens == limit - total
        assert ledger.spent.tokens == settled


@given(st.integers(0, 10_000), st.integers(1, 300))
def test_whole_slices_add_up_and_the_first_get_the_remainder(limit: int, count: int) -> None:
    shares: list[Any] = slices(limit, count)
    assert (len(shares), sum(shares)) == (count, limit)
    assert shares == sorted(shares, reverse=True)
    assert shares[0] - shares[-1] <= 1


def test_other_slices() -> None:
    assert slices(None, 3) == [None, None, None]
    assert slices(1.0, 4) == [0.25] * 4
    assert slices(7, 3) == [3, 2, 2]
    assert slices(5, 0) == []
    with pytest.raises(UsageError):
        slices(5, -1)


@pytest.mark.parametrize("limits", [{"calls": -1}, {"cost_usd": float("nan")}, {"tokens": "9"}])
def test_limits_are_numbers_from_zero(limits: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(limits))):
        Budget(**limits)
