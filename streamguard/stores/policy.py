"""A store that may fail: time limits, a circuit breaker, and a policy for each limit.

While the store is out of reach, calls are decided by ``core.alone``. What was spent meanwhile
is charged to the store when it is back: local grants by account, and reservations that the
store itself holds by their late settle.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar
from uuid import uuid4

from streamguard.core.accounts import Balance, Decision, Demand, Grant, account_limit
from streamguard.core.alone import Alone, Debt, FailPolicy
from streamguard.core.breaker import Breaker
from streamguard.core.ledger import NOTHING
from streamguard.errors import ConfigurationError, StoreUnavailableError
from streamguard.stores.base import Store
from streamguard.stores.loops import cancelled
from streamguard.stores.memory import steady_clock
from streamguard.stores.notes import note, noted

T = TypeVar("T")
OnError = Callable[[str, StoreUnavailableError], None]


class PolicyStore:
    """``inner`` with a policy for when it fails.

    Attributes:
        policy: of every limit that ``policies`` does not name: "closed" refuses with
            ``StoreUnavailableError``, "open" grants, a number is this worker's share of what
            was last known to remain.
        policies: ``accounts.limit_key`` of a limit to its policy.
        timeout: seconds for one call of the inner store.
        on_error: told the operation and the error of each call that failed.
    """

    def __init__(
        self,
        inner: Store,
        *,
        policy: FailPolicy = "closed",
        policies: Mapping[str, FailPolicy] | None = None,
        timeout: float = 1.0,
        breaker: Breaker | None = None,
        on_error: OnError | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.inner = inner
        self.timeout = timeout
        self._clock = clock or steady_clock()
        self.breaker = breaker or Breaker()
        self._policies = {key: checked_policy(value) for key, value in (policies or {}).items()}
        self._policy = checked_policy(policy)
        self._alone = Alone(self._policy_of)
        self._tell = on_error or (lambda *_: None)
        self._calls: dict[str, Sequence[Demand]] = {}
        self._more: dict[str, list[tuple[str, int]]] = {}
        self._late: dict[str, Sequence[int] | None] = {}
        self._unpaid: dict[str, Debt] = {}
        self._payer: asyncio.Task[None] | None = None

    @property
    def owes(self) -> bool:
        """Whether something spent during an outage is not yet charged."""
        return bool(self._late or self._unpaid or self._alone.debts)

    async def open(self) -> None:
        """Open the inner store; one that is out of reach now may come back later."""
        try:
            await self._ask("open", self.inner.open)
        except StoreUnavailableError:
            if self._policy == "closed" and not self._policies:
                raise

    async def close(self) -> None:
        """Try once more to pay what is owed, then close the inner store."""
        if self._payer is not None:
            await cancelled({self._payer})
        if self.owes:
            await self._pay()
        await self.inner.close()

    async def reserve(
        self, reservation: str, demands: Sequence[Demand], *, want: int, least: int, ttl: float
    ) -> Decision:
        """See ``Store.reserve``; decided alone while the store is out of reach."""
        try:
            decision = await self._ask(
                "reserve",
                lambda: self.inner.reserve(reservation, demands, want=want, least=least, ttl=ttl),
            )
        except StoreUnavailableError:
            alone = self._alone.reserve(
                reservation, demands, want=want, least=least, ttl=ttl, now=self._clock()
            )
            if alone is None:
                raise
            return alone
        if isinstance(decision, Grant):
            self._calls[reservation] = demands
            self._alone.learn(demands, decision.balances)
        return decision

    async def extend(self, reservation: str, *, want: int, least: int, ttl: float) -> Decision:
        """See ``Store.extend``; decided alone while the store is out of reach."""
        now = self._clock()
        if self._alone.holds(reservation):
            return self._alone.extend(reservation, want=want, least=least, ttl=ttl, now=now)
        try:
            return await self._ask(
                "extend", lambda: self.inner.extend(reservation, want=want, least=least, ttl=ttl)
            )
        except StoreUnavailableError:
            return self._extend_alone(reservation, want, least, ttl, now)

    def _extend_alone(
        self, reservation: str, want: int, least: int, ttl: float, now: float
    ) -> Decision:
        demands = [demand._replace(fixed=0) for demand in self._calls.get(reservation, ())]
        more = self._more.setdefault(reservation, [])
        name = f"{reservation}/{len(more)}"
        decision = self._alone.reserve(name, demands, want=want, least=least, ttl=ttl, now=now)
        if isinstance(decision, Grant):
            more.append((name, decision.output))
        return decision or NOTHING

    async def renew(self, reservation: str, *, ttl: float) -> bool:
        """See ``Store.renew``; taken as held while the store is out of reach."""
        if self._alone.holds(reservation):
            return self._alone.renew(reservation, ttl=ttl, now=self._clock())
        try:
            return await self._ask("renew", lambda: self.inner.renew(reservation, ttl=ttl))
        except StoreUnavailableError:
            return True

    async def settle(self, reservation: str, amounts: Sequence[int]) -> Sequence[Balance]:
        """See ``Store.settle``; charged later, and empty, while the store is out of reach."""
        if self._alone.holds(reservation):
            balances = self._alone.settle(reservation, amounts, now=self._clock())
            self._start_paying()
            return balances
        demands = self._finish(reservation)
        try:
            balances = await self._ask("settle", lambda: self.inner.settle(reservation, amounts))
        except StoreUnavailableError:
            self._late[reservation] = amounts
            self._start_paying()
            return ()
        self._alone.learn(demands[: len(balances)], balances[: len(demands)])
        return balances

    async def release(self, reservation: str) -> None:
        """See ``Store.release``; done later while the store is out of reach."""
        if self._alone.holds(reservation):
            self._alone.release(reservation, now=self._clock())
            return
        self._finish(reservation)
        try:
            await self._ask("release", lambda: self.inner.release(reservation))
        except StoreUnavailableError:
            self._late[reservation] = None
            self._start_paying()

    async def balances(self, demands: Sequence[Demand]) -> Sequence[Balance]:
        """See ``Store.balances``."""
        balances = await self._ask("balances", lambda: self.inner.balances(demands))
        self._alone.learn(demands, balances)
        return balances

    async def note(self, name: str, value: bytes) -> None:
        """See ``notes.Notes``; only while the store is well, and no matter for the breaker."""
        self._check_well()
        await self._within(note(self.inner, name, value))

    async def noted(self, name: str) -> bytes | None:
        """See ``notes.Notes``; as ``note``."""
        self._check_well()
        return await self._within(noted(self.inner, name))

    def _check_well(self) -> None:
        if self.breaker.state != "closed":
            message = "the budget store is out of reach; notes wait until it is back"
            raise StoreUnavailableError(message)

    def _finish(self, reservation: str) -> Sequence[Demand]:
        """Forget a call that the store holds; what was extended alone is spent of the share."""
        demands = self._calls.pop(reservation, ())
        for name, output in self._more.pop(reservation, ()):
            spent = [output * demand.rate for demand in demands]
            self._alone.settle(name, spent, now=self._clock(), owed=False)
        return demands

    async def _ask(self, operation: str, call: Callable[[], Awaitable[T]]) -> T:
        """One call of the inner store within the time limit, if the breaker allows it."""
        if not self.breaker.allows(self._clock()):
            message = f"the budget store failed {self.breaker.threshold} times; it rests"
            raise StoreUnavailableError(message)
        try:
            result = await self._within(call())
        except StoreUnavailableError as error:
            self.breaker.failed(self._clock())
            self._tell(operation, error)
            raise
        self.breaker.succeeded()
        return result

    async def _within(self, answer: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(self.timeout):
                return await answer
        except TimeoutError as error:
            message = f"the budget store did not answer in {self.timeout} s"
            raise StoreUnavailableError(message) from error

    def _start_paying(self) -> None:
        if self._payer is None or self._payer.done():
            self._payer = asyncio.create_task(self._keep_paying())

    async def _keep_paying(self) -> None:
        while self.owes:
            if await self._pay():
                continue
            await asyncio.sleep(self.breaker.cooldown)

    async def _pay(self) -> bool:
        """Charge what is owed, each under an id of its own; False when the store is still out."""
        for debt in self._alone.take_debts():
            self._unpaid[_new_name()] = debt
        try:
            for reservation, amounts in list(self._late.items()):
                await self._ask("settle", partial(self._end, reservation, amounts))
                self._late.pop(reservation, None)
            for name, debt in list(self._unpaid.items()):
                await self._ask("settle", partial(self._charge, name, debt))
                self._unpaid.pop(name, None)
        except StoreUnavailableError:
            return False
        self._alone.paid()
        return True

    async def _end(self, reservation: str, amounts: Sequence[int] | None) -> None:
        if amounts is None:
            await self.inner.release(reservation)
        else:
            await self.inner.settle(reservation, amounts)

    async def _charge(self, name: str, debt: Debt) -> None:
        """Charge an account whatever its room is: the amount is spent already."""
        demand = debt.demand._replace(fixed=0, rate=1, soft=True)
        try:
            await self.inner.reserve(name, [demand], want=0, least=0, ttl=60.0)
        except BaseException:
            # The store releases what it could not answer: that name is used up.
            self._unpaid[_new_name()] = self._unpaid.pop(name)
            raise
        await self.inner.settle(name, [debt.amount])

    def _policy_of(self, demand: Demand) -> FailPolicy:
        return self._policies.get(account_limit(demand.account), self._policy)


def _new_name() -> str:
    return f"owed/{uuid4().hex}"


def checked_policy(policy: Any) -> FailPolicy:
    """The policy itself.

    Raises:
        ConfigurationError: it is none.
    """
    is_share = isinstance(policy, (int, float)) and not isinstance(policy, bool) and 0 < policy <= 1
    if policy in ("closed", "open") or is_share:
        known: FailPolicy = policy
        return known
    message = f"fail policy {policy!r}; use 'closed', 'open', or a share over 0 and up to 1"
    raise ConfigurationError(message)
