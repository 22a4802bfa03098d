"""Every store answers what ``core.ledger`` answers, whatever is asked of it in any order."""

from __future__ import annotations

import asyncio
import itertools
from functools import partial

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test
from support.redis_server import needs_redis, redis_cluster, redis_server

from streamguard.core import ledger
from streamguard.core.accounts import Demand, Window
from streamguard.core.books import Books
from streamguard.stores import redis_urls
from streamguard.stores.memory import MemoryStore
from streamguard.stores.sqlite import SqliteStore

START = 1_700_000_000.0
WINDOWS = {
    "minute": Window(60),
    "second": Window(1),
    "day": Window(86_400, calendar=True, timezone="Europe/Berlin"),
    "ticks": Window(60, calendar=True),
    "slots": Window(None),
    "wide": Window(3600),
    "smooth": Window(60, leak=100),
    "quick": Window(7, leak=60_001),
}
RUN = itertools.count()
PHASES = (Phase.explicit, Phase.reuse, Phase.generate)
"""No shrinking: against a server it takes minutes."""
IDS = st.sampled_from(["a", "b", "c", "d"])
AMOUNTS = st.one_of(st.integers(0, 120), st.sampled_from([-3, 10**6, 10**20]))
DEMANDS = st.lists(
    st.builds(
        lambda tag, name, capacity, fixed, rate, soft: Demand(
            f"{tag}|{name}", capacity, WINDOWS[name], fixed, rate, soft
        ),
        st.sampled_from(["acme", "zeta", "all"]),
        st.sampled_from(sorted(WINDOWS)),
        st.sampled_from([0, 50, 100, 300, 2**53]),
        st.integers(0, 60),
        st.sampled_from([0, 1, 3]),
        st.booleans(),
    ),
    max_size=4,
    unique_by=lambda demand: demand.account,
)


class Agreement(RuleBasedStateMachine):
    """Asks the ledger and a store the same; subclasses say which store."""

    exact = True

    def __init__(self, make, loop, exact):
        super().__init__()
        self.now, self.books, self.exact, self.loop = START, Books(), exact, loop
        self.demands, self.run, self.seen = {}, next(RUN), set()
        self.lives = dict.fromkeys("abcd", 0)
        self.store = make(lambda: self.now)
        self.loop.run(self.store.open())

    def teardown(self):
        self.loop.run(self.store.close())

    def ask(self, name, *words, **named):
        """The store's answer, which must be the ledger's."""
        expected = getattr(ledger, name)(self.books, *words, now=self.now, **named)
        self.seen.update(self.books.holds)
        answer = self.loop.run(getattr(self.store, name)(*words, **named))
        assert comparable(answer) == comparable(expected), f"{name}: {answer}, ledger: {expected}"

    def own(self, demands):
        """Accounts of this run only: the servers live longer."""
        return [d._replace(account=f"{d.account.replace('|', f'{self.run}|')}") for d in demands]

    @rule(seconds=st.sampled_from([0.01, 0.5, 1, 7, 29.99, 30, 61, 400, 4000, 90_000]))
    def wait(self, seconds):
        self.now += seconds

    @rule(seconds=st.sampled_from([0.4, 2, 90, 5000, 90_000]))
    def go_back(self, seconds):
        """A clock step. What it does depends on when an account is looked at: look at all."""
        self.balances()
        for name in "abcd":
            self.ask("release", self.id(name))
            self.lives[name] += 1
        self.now -= seconds
        self.balances()

    def id(self, name):
        """A reservation's id; one that was forgotten is not used again."""
        at = ledger.milliseconds(self.now)
        ledger.sweep(self.books, at)
        current = f"{self.run}{name}{self.lives[name]}"
        if current in self.seen and self.books.known(current, at) is None:
            self.lives[name] += 1
        return f"{self.run}{name}{self.lives[name]}"

    @rule(name=IDS, demands=DEMANDS, want=st.integers(0, 90), least=st.integers(0, 9))
    def reserve(self, name, demands, want, least):
        name = self.id(name)
        if name in self.seen:
            demands = self.demands[name]
        else:
            demands = self.demands[name] = self.own(demands)
        self.ask("reserve", name, demands, want=want, least=least, ttl=30)

    @rule(name=IDS, want=st.integers(0, 90), least=st.integers(0, 9))
    def extend(self, name, want, least):
        self.ask("extend", self.id(name), want=want, least=least, ttl=30)

    @rule(name=IDS, ttl=st.sampled_from([1, 30, 600]))
    def renew(self, name, ttl):
        self.ask("renew", self.id(name), ttl=ttl)

    @rule(name=IDS, amounts=st.lists(AMOUNTS, min_size=4, max_size=4))
    def settle(self, name, amounts):
        name = self.id(name)
        self.ask("settle", name, amounts[: len(self.demands.get(name, ()))])

    @rule(name=IDS)
    def release(self, name):
        name = self.id(name)
        if name not in self.seen:
            self.demands[name] = []
        self.ask("release", name)

    @rule()
    def balances(self):
        seen = {d.account: d for demands in self.demands.values() for d in demands}
        self.ask("balances", list(seen.values()))


def comparable(answer):
    """Lists and tuples alike."""
    if isinstance(answer, (list, tuple)):
        return tuple(comparable(part) for part in answer)
    return answer


def check(make, *, examples, exact=True):
    with asyncio.Runner() as loop:
        run_state_machine_as_test(
            partial(Agreement, make, loop, exact),
            settings=settings(
                max_examples=examples, stateful_step_count=30, deadline=None, phases=PHASES
            ),
        )


def test_memory_agrees_with_the_ledger():
    check(lambda clock: MemoryStore(clock=clock), examples=25)


def test_sqlite_agrees_with_the_ledger(tmp_path):
    files = itertools.count()
    check(lambda clock: SqliteStore(str(tmp_path / f"{next(files)}.db"), clock=clock), examples=20)


@needs_redis
def test_redis_agrees_with_the_ledger():
    with redis_server() as server:
        check(lambda clock: _redis(server.url, clock), examples=20)


def _redis(url, clock):
    store = redis_urls.from_url(f"{url}?timeout=5")
    store._clock = clock
    return store


@needs_redis
def test_redis_cluster_agrees_with_the_ledger():
    with redis_cluster() as servers:
        check(lambda clock: _cluster(servers, clock), examples=8)


def _cluster(servers, clock):
    url = f"redis+cluster://127.0.0.1:{servers[0].port}?timeout=5"
    store = redis_urls.from_url(url)
    store._clock = clock
    return store
