"""A smooth account lets through its burst and its rate, whatever is given back and when."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from streamguard.core import ledger
from streamguard.core.accounts import Demand, Grant, Window
from streamguard.core.books import Books

START, TTL = 1_700_000_000.0, 20
CALLS = st.lists(
    st.tuples(
        st.sampled_from([0, 1, 700, 4_000]),  # milliseconds since the call before
        st.integers(20, 60),  # what it asks for up front
        st.sampled_from([1, 1_500, 7_777, 25_000]),  # milliseconds until it ends
        st.sampled_from([None, 0.0, 0.3, 1.0]),  # released, or the part of it that was used
    ),
    min_size=3,
    max_size=12,
)


def run(calls, capacity, window):
    """The calls in order of time: when each was let through, and how much of it stayed."""
    events, at = [], 0
    for number, (wait, fixed, takes, part) in enumerate(calls):
        at += wait
        events.append((at, 1, number, fixed, part))
        events.append((at + takes, 0, number, fixed, part))
    books, through = Books(), {}
    for at, starts, number, fixed, part in sorted(events):
        now = START + at / 1000
        if starts:
            demand = Demand("a", capacity, window, fixed, 0)
            answer = ledger.reserve(books, str(number), [demand], want=0, least=0, ttl=TTL, now=now)
            if isinstance(answer, Grant):
                through[number] = (at, fixed)
                assert answer.balances[0].used <= capacity
        elif number in through and ledger.renew(books, str(number), ttl=TTL, now=now):
            stayed = 0 if part is None else int(fixed * part)
            if part is None:
                ledger.release(books, str(number), now=now)
            else:
                ledger.settle(books, str(number), [stayed], now=now)
            through[number] = (through[number][0], stayed)
        else:
            through.pop(number, None)  # it never held, or has expired
    return list(through.values())


@settings(max_examples=800, deadline=None)
@given(calls=CALLS, capacity=st.integers(60, 110), leak=st.sampled_from([7, 300, 601]))
def test_any_stretch_of_time_lets_through_the_burst_and_the_rate(calls, capacity, leak):
    through = run(calls, capacity, Window(60, leak=leak))
    for start, _ in through:
        for end, _ in through:
            amount = sum(amount for at, amount in through if start <= at <= end)
            assert amount <= capacity + max(0, end - start) * leak / 60_000


def test_what_is_given_back_late_has_partly_flowed_off_of_others():
    window, books = Window(50, leak=100), Books()

    def ask(name, fixed, now, *, capacity=100):
        demand = Demand("a", capacity, window, fixed, 0)
        return ledger.reserve(books, name, [demand], want=0, least=0, ttl=TTL, now=START + now)

    ask("first", 50, 0)
    assert ask("second", 40, 10).balances[0].used == 70  # 20 have flowed off of the first
    ledger.release(books, "first", now=START + 10)
    assert not isinstance(ask("third", 61, 10), Grant)
    assert ask("fourth", 60, 10).balances[0].used == 100


def test_what_expires_is_given_back_as_of_then_whenever_that_is_seen():
    window = Window(50, leak=100)
    seen = []
    for looks in ([], [20]):
        books = Books()
        for name, fixed, now in (("lost", 50, 0), ("kept", 90, 10)):
            demand = Demand("a", 200, window, fixed, 0)
            ledger.reserve(books, name, [demand], want=0, least=0, ttl=TTL, now=START + now)
        ledger.settle(books, "kept", [90], now=START + 10)
        seen.append([ledger.balances(books, [demand], now=START + t)[0].used for t in (*looks, 35)])
    assert seen[0][-1] == seen[1][-1] == 60
