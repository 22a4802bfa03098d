"""The circuit breaker."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streamguard.core.breaker import TRANSITIONS, Breaker


def test_opens_after_failures_in_a_row_and_tries_once_after_its_rest():
    breaker = Breaker(threshold=2, cooldown=5)
    breaker.failed(0)
    breaker.succeeded()
    breaker.failed(1)
    assert breaker.allows(1)
    breaker.failed(1)
    assert [breaker.allows(now) for now in (1, 5.9, 6, 6.1)] == [False, False, True, False]
    breaker.failed(7)
    assert [breaker.allows(now) for now in (11.9, 12)] == [False, True]
    breaker.succeeded()
    assert breaker.allows(12)
    assert breaker.state == "closed"


def test_a_try_that_never_reports_is_tried_again():
    breaker = Breaker(threshold=1, cooldown=5)
    breaker.failed(0)
    assert [breaker.allows(now) for now in (5, 6, 10)] == [True, False, True]


@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["allows", "failed", "succeeded"]), st.integers(0, 3)),
        max_size=40,
    )
)
def test_at_most_one_call_a_rest_while_it_is_not_closed(steps):
    breaker, now, last = Breaker(threshold=2, cooldown=2), 0, None
    for name, passed in steps:
        now += passed
        if name == "succeeded":
            breaker.succeeded()
            last = None
        elif name == "failed":
            breaker.failed(now)
            last = now if breaker.state != "closed" else None
        elif breaker.allows(now) and last is not None:
            assert now - last >= 2
            last = now
    assert breaker.state in {state for state, _ in TRANSITIONS}
