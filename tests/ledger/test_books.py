"""Demands as every store can keep them."""

from __future__ import annotations

from streamguard.core.accounts import MAX_CAPACITY, Demand, Window, representable


def test_representable_keeps_what_is_and_clamps_what_is_not():
    small = [Demand("a", 5, Window(1), 1, 1)]
    assert representable(small) is small
    big = [*small, Demand("b", MAX_CAPACITY + 1, Window(1), 1, 1)]
    assert [demand.capacity for demand in representable(big)] == [5, MAX_CAPACITY]
