"""What holds whatever is asked of the ledger, in any order."""

from __future__ import annotations

from collections import defaultdict

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    rule,
)

from streamguard.core import ledger
from streamguard.core.accounts import Demand, Grant, Refusal, Window
from streamguard.core.books import Books

WINDOWS = {
    "slide": Window(60),
    "day": Window(86_400, calendar=True, timezone="Europe/Berlin"),
    "slots": Window(None),
    "up": Window(600),
    "drip": Window(60, leak=70),
    "tap": Window(7, leak=90),
}
RATES = {"slide": 1, "day": 7, "slots": 0, "up": 0, "drip": 1, "tap": 0}


class Honest(RuleBasedStateMachine):
    """Callers that settle at most what they hold, and at times crash."""

    held = Bundle("held")

    @initialize(capacity=st.integers(0, 400))
    def start(self, capacity):
        self.books, self.now, self.capacity = Books(), 1_700_000_000.0, capacity
        self.names = 0
        self.charges = defaultdict(list)
        self.born = {}

    def demand(self, name, fixed):
        return Demand(name, self.capacity, WINDOWS[name], fixed, RATES[name])

    @rule(seconds=st.sampled_from([0, 0.001, 0.4, 3, 29.9, 61, 700, 90_000]))
    def wait(self, seconds):
        self.now += seconds

    @rule(
        target=held,
        fixed=st.integers(0, 60),
        want=st.integers(0, 200),
        least=st.integers(0, 20),
        accounts=st.sets(st.sampled_from(sorted(WINDOWS)), min_size=1),
    )
    def reserve(self, fixed, want, least, accounts):
        self.names += 1
        self.born[str(self.names)] = self.now
        demands = [self.demand(name, fixed) for name in sorted(accounts)]
        before = ledger.balances(self.books, demands, now=self.now)
        decision = ledger.reserve(
            self.books, str(self.names), demands, want=want, least=least, ttl=30, now=self.now
        )
        least = min(least, want)
        room = [
            b.capacity - b.used - b.held - d.fixed for b, d in zip(before, demands, strict=True)
        ]
        fits = [r // d.rate if d.rate else want for r, d in zip(room, demands, strict=True)]
        if min(room) < 0 or min(fits) < least:
            assert isinstance(decision, Refusal)
            assert ledger.balances(self.books, demands, now=self.now) == before
            self.check_refusal(decision, demands, least)
        else:
            assert isinstance(decision, Grant)
            assert decision.output == min(want, *fits)
        return (str(self.names), demands, decision)

    def check_refusal(self, decision, demands, least):
        demand = demands[decision.which]
        assert decision.needed == demand.fixed + least * demand.rate
        if decision.needed > self.capacity:
            assert decision.retry_after is None
        elif decision.balance.used + decision.needed > self.capacity:
            later = self.now + decision.retry_after
            sooner = ledger.balances(self.books, [demand], now=self.now)[0]
            assert sooner.used + decision.needed > self.capacity
            assert self.used_at(later, demand) + decision.needed <= self.capacity
            if demand.window.leak:
                assert self.used_at(later - 0.001, demand) + decision.needed > self.capacity

    def used_at(self, moment, demand):
        """What an account will have used if nothing happens."""
        books = Books()
        books.accounts = {k: _copy(v) for k, v in self.books.accounts.items()}
        return ledger.balances(books, [demand], now=moment)[0].used

    @rule(made=held, want=st.integers(0, 100))
    def extend(self, made, want):
        name, _, decision = made
        granted = self.granted(name, decision)
        answer = ledger.extend(self.books, name, want=want, least=0, ttl=30, now=self.now)
        if isinstance(answer, Grant):
            assert self.granted(name, decision) == granted + answer.output

    @rule(made=held)
    def renew(self, made):
        ledger.renew(self.books, made[0], ttl=30, now=self.now)

    def granted(self, name, decision):
        hold = self.books.holds.get(name)
        return hold.granted if hold is not None else getattr(decision, "output", 0)

    @rule(made=consumes(held), part=st.floats(0, 1), twice=st.booleans())
    def settle(self, made, part, twice):
        name, demands, decision = made
        if isinstance(decision, Refusal):
            assert ledger.settle(self.books, name, [0] * len(demands), now=self.now) == ()
            return
        if not ledger.renew(self.books, name, ttl=30, now=self.now):
            return
        output = int(self.granted(name, decision) * part)
        amounts = [demand.fixed + output * demand.rate for demand in demands]
        first = ledger.settle(self.books, name, amounts, now=self.now)
        for demand, amount in zip(demands, amounts, strict=True):
            when = self.now if demand.rate else self.born[name]
            self.charges[demand.account].append((when, amount))
        if twice:
            assert ledger.settle(self.books, name, [1000] * len(demands), now=self.now) == first

    @rule(made=consumes(held))
    def release(self, made):
        ledger.release(self.books, made[0], now=self.now)

    @invariant()
    def never_over(self):
        if not hasattr(self, "books"):
            return
        for name in WINDOWS:
            balance = ledger.balances(self.books, [self.demand(name, 0)], now=self.now)[0]
            assert balance.used + balance.held <= self.capacity
            assert balance.used >= 0
            assert balance.held >= 0
        recent = [a for t, a in self.charges["slide"] if t > self.now - 60]
        assert sum(recent) <= self.capacity
        for name in ("drip", "tap"):
            self.within_rate(WINDOWS[name], self.charges[name])

    def within_rate(self, window, charges):
        """Any stretch of t seconds lets through the capacity and t times the rate at most."""
        for start, _ in charges:
            for end in {t for t, _ in charges if t >= start}:
                flowed = (end - start + 0.001) * window.leak / window.seconds
                through = sum(amount for t, amount in charges if start <= t <= end)
                assert through <= self.capacity + flowed

    def teardown(self):
        if not hasattr(self, "books"):
            return
        for name in range(1, self.names + 1):
            ledger.release(self.books, str(name), now=self.now)
        for name in WINDOWS:
            assert ledger.balances(self.books, [self.demand(name, 0)], now=self.now)[0].held == 0


def _copy(account):
    copied = dict(account.buckets)
    return type(account)(
        account.window, account.used, account.held, buckets=copied, part=account.part
    )


Honest.TestCase.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
TestHonest = Honest.TestCase
