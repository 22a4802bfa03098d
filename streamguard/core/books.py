"""The ledger's state: accounts, reservations, and what is due. Times are whole milliseconds."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from heapq import heappop, heappush
from typing import Literal

import msgspec

from streamguard.core.accounts import Balance, Demand, Window
from streamguard.core.windows import ruler, smooth

LATE = 86_400_000
"""How long an expired reservation is remembered, so that a late settle still charges."""

DONE = 120_000
"""How long a settled or released reservation is remembered, so that repeats change nothing."""

MAX_AMOUNT = 2**48
"""The most one call can charge one account: a provider's nonsense stays representable in
every store (281 thousand dollars, or 281 million million tokens)."""


class Account(msgspec.Struct, array_like=True):
    """What is used, by bucket of the window (oldest first), and what is held.

    ``current`` is the bucket to charge from ``since`` until ``until``. Where the window leaks,
    its one bucket is the moment at which the level was taken, ``part`` as in ``Smooth``.
    """

    window: Window
    used: int = 0
    held: int = 0
    current: int = 0
    since: int = 0
    until: int = 0
    buckets: dict[int, int] = msgspec.field(default_factory=dict)
    part: int = 0

    def roll(self, at: int) -> None:
        """Drop the buckets that no longer count at ``at``, and turn to the one to charge."""
        if self.since <= at < self.until:
            return
        if self.window.leak:
            self._leak(at)
            return
        rule, buckets = ruler(self.window), self.buckets
        first, self.current = rule.place(at)
        self.since, self.until = at, rule.until(at)
        while buckets and (oldest := next(iter(buckets))) < first:
            self.used -= buckets.pop(oldest)
        if buckets and next(reversed(buckets)) > self.current:
            self._fold()

    def _leak(self, at: int) -> None:
        """Take the level at ``at``: nothing flows off while the clock goes back."""
        self.current, self.since, self.until = at, at, at + 1
        if not self.buckets:
            return
        taken, level = self.buckets.popitem()
        gone, self.part = smooth(self.window).flow(max(0, at - taken), self.part)
        self.used = max(0, level - gone)
        if self.used:
            self.buckets[at] = self.used
        else:
            self.part = 0

    def _fold(self) -> None:
        """The clock went back: what it charged in its future is, at the latest, used now."""
        future = [bucket for bucket in self.buckets if bucket > self.current]
        moved = sum(self.buckets.pop(bucket) for bucket in future)
        self.buckets[self.current] = self.buckets.get(self.current, 0) + moved

    def charge(self, amount: int) -> None:
        """Use ``amount`` now; nothing is charged where nothing ages."""
        if amount > 0 and self.window.seconds is not None:
            self.buckets[self.current] = self.buckets.get(self.current, 0) + amount
            self.used += amount

    def refund(self, bucket: int, amount: int, at: int) -> None:
        """Take back what was charged in ``bucket``, as far as it still counts at ``at``."""
        if self.window.leak:
            # What has flowed off since would have flowed off of others' usage without it.
            rule = smooth(self.window)
            amount -= rule.flow(max(0, at - bucket), rule.period - 1)[0]
            bucket = self.current
        there = self.buckets.get(bucket, 0)
        if there and amount >= there:
            del self.buckets[bucket]
            self.used -= there
            self.part = 0
        elif there and amount > 0:
            self.buckets[bucket] = there - amount
            self.used -= amount

    def balance(self, capacity: int) -> Balance:
        """The account as it stands; ``resets_at`` as in ``Balance``, where nothing lacks."""
        used = self.used
        if not used:
            return Balance(capacity, 0, self.held)
        if self.window.leak:
            free = self.freed_at(used)
        else:
            free = ruler(self.window).release(next(iter(self.buckets)))
        return Balance(capacity, used, self.held, free / 1000)

    def empty_at(self) -> int | None:
        """When nothing is used any more if nothing happens; ``None`` while something is held."""
        if self.held:
            return None
        if self.window.leak:
            return self.freed_at(self.used) if self.used else 0
        return ruler(self.window).release(next(reversed(self.buckets))) if self.buckets else 0

    def freed_at(self, lack: int) -> int:
        """When ``lack`` of what is used has been released, Unix milliseconds."""
        if self.window.leak:
            return next(iter(self.buckets)) + smooth(self.window).time(lack, self.part)
        oldest = iter(self.buckets.items())
        while lack > 0:
            bucket, amount = next(oldest)
            lack -= amount
        return ruler(self.window).release(bucket)


Key = tuple[str, Window]
"""An account's name and its window: under another window it is another account."""

State = Literal["held", "expired", "done"]


class Hold(msgspec.Struct, array_like=True):
    """One reservation. ``due`` is when it expires, or, later, when it is forgotten."""

    demands: tuple[Demand, ...]
    granted: int
    born: int
    due: int
    state: State = "held"


class Books:
    """All accounts and reservations of one ledger, bounded in memory.

    An empty account is dropped by a clock hand that looks at two accounts for each new one. A
    finished reservation is forgotten after ``DONE``, or when ``remember`` newer ones are.
    """

    __slots__ = ("_done", "_hand", "accounts", "due", "holds", "remember", "turns")

    def __init__(
        self,
        remember: int = 100_000,
        accounts: dict[Key, Account] | None = None,
        holds: dict[str, Hold] | None = None,
    ) -> None:
        self.accounts = {} if accounts is None else accounts
        self.holds = {} if holds is None else holds
        self.due: list[tuple[int, str]] = []
        self.remember = remember
        self._done: deque[str] = deque()
        self._hand: deque[Key] = deque()
        self.turns = 0

    def account(self, demand: Demand, at: int) -> Account:
        """The account that a demand speaks of, up to date; made when absent."""
        key = (demand.account, demand.window)
        account = self.accounts.get(key)
        if account is None:
            self.turns += 2
            account = self.accounts[key] = Account(demand.window)
            self._hand.append(key)
        account.roll(at)
        return account

    def peek(self, demand: Demand, at: int) -> Account:
        """The account as ``account`` would give it, without keeping a new one."""
        account = self.accounts.get((demand.account, demand.window)) or Account(demand.window)
        account.roll(at)
        return account

    def known(self, reservation: str, at: int) -> Hold | None:
        """A reservation that is not forgotten yet."""
        hold = self.holds.get(reservation)
        return None if hold is None or hold.due <= at else hold

    def keep(self, reservation: str, hold: Hold) -> None:
        """Remember a reservation until it is due."""
        self.holds[reservation] = hold
        heappush(self.due, (hold.due, reservation))

    def renew(self, reservation: str, hold: Hold, due: int) -> None:
        """Change when a reservation expires; what is queued already covers a later time."""
        if due < hold.due:
            heappush(self.due, (due, reservation))
        hold.due = due

    def finish(self, reservation: str, hold: Hold, at: int) -> None:
        """Remember that a reservation is over."""
        hold.state, hold.due = "done", at + DONE
        self._done.append(reservation)
        if len(self._done) > self.remember:
            oldest = self.holds.get(gone := self._done.popleft())
            if oldest is not None and oldest.state == "done":
                del self.holds[gone]

    def overdue(self, at: int) -> Sequence[Hold]:
        """Take out what is due: forgets the finished, returns the held that expired."""
        expired = []
        while self.due and self.due[0][0] <= at:
            reservation = heappop(self.due)[1]
            hold = self.holds.get(reservation)
            if hold is None:
                continue
            if hold.due > at:
                heappush(self.due, (hold.due, reservation))
            elif hold.state == "held":
                hold.state, hold.due = "expired", hold.due + LATE
                heappush(self.due, (hold.due, reservation))
                expired.append(hold)
            else:
                del self.holds[reservation]
        return expired

    def prune(self, at: int) -> None:
        """Drop empty accounts, between operations only: an open account may be empty yet."""
        while self.turns and self._hand:
            self.turns -= 1
            key = self._hand.popleft()
            account = self.accounts[key]
            account.roll(at)
            if account.used or account.held:
                self._hand.append(key)
            else:
                del self.accounts[key]


def up_front(demand: Demand) -> bool:
    """Whether a demand is charged when reserved: it costs the same whatever the output.

    Requests and input tokens are sent at once; charging them then, and not at the end of a
    long stream, keeps "10 requests a minute" what it says.
    """
    return demand.rate == 0 and demand.window.seconds is not None
