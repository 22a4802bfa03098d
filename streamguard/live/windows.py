"""The windows of who called lately: what is used, held and left, and how it got there."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from streamguard.core.accounts import Balance, Demand
from streamguard.core.admission import Ask, Rates, applies, demand
from streamguard.core.prompt import PromptCount
from streamguard.identity import Identity
from streamguard.limits import Limit
from streamguard.live.figures import Who
from streamguard.sinks.schema import identifier

if TYPE_CHECKING:
    from streamguard.guard.engine import Engine

ASKED = 200
"""Accounts whose balance is asked for at once."""

SHOWN = 24
POINTS = 90
"""Moments of a window's history."""

_LOOKED_UP = 10.0  # seconds that looked-up limits are believed
_KNOWN = 512  # callers whose limits are kept
_NOTHING = Ask(PromptCount(0, "exact"), cap=0, reserve=0)
_FREE = Rates(None, 0, 0)


class _Account(NamedTuple):
    limit: Limit
    demand: Demand
    scope: Mapping[str, str]


class Windows:
    """Finds the accounts of who called, asks for their balances and remembers how they were.

    History is kept while somebody watches, for the windows that are shown.
    """

    def __init__(self, guard: Engine) -> None:
        self._guard = guard
        self._limits: OrderedDict[Who, tuple[float, Sequence[Limit]]] = OrderedDict()
        self._history: OrderedDict[str, deque[tuple[float, int, int]]] = OrderedDict()

    async def limits(self, who: Who, now: float) -> Sequence[Limit]:
        """The limits in force for a caller, looked up at most every ten seconds."""
        known = self._limits.get(who)
        if known is None or now - known[0] > _LOOKED_UP:
            identity = Identity(who.tenant, who.user, who.feature)
            found = await self._guard.settings.limits_for(identity, who.model or "")
            known = self._limits[who] = (now, found)
            if len(self._limits) > _KNOWN:
                self._limits.popitem(last=False)
        return known[1]

    async def rows(self, callers: Iterable[Who], now: float) -> dict[str, Any]:
        """The tightest windows first; ``known`` is how many there are among these callers.

        Raises:
            StoreUnavailableError: the store is out of reach.
        """
        await self._guard.open()
        accounts = await self._accounts(callers, now)
        balances = await self._guard.books.balances([one.demand for one in accounts])
        pairs = sorted(zip(accounts, balances, strict=True), key=_tightness)
        rows = [self._row(account, balance, now) for account, balance in pairs[:SHOWN]]
        while len(self._history) > 4 * SHOWN:
            self._history.popitem(last=False)
        return {"known": len(accounts), "rows": rows}

    async def _accounts(self, callers: Iterable[Who], now: float) -> list[_Account]:
        found: dict[str, _Account] = {}
        for who in callers:
            if not who.whole:  # the account's name is made from the whole names
                continue
            scope = {name: value or "" for name, value in who._asdict().items()}
            for limit in await self.limits(who, now):
                if applies(limit, scope) and (limit.span is not None or _counts_open(limit)):
                    asked = demand(limit, _NOTHING, scope, _FREE)
                    mine: dict[str, str] = {name: scope[name] for name in limit.scope}
                    found.setdefault(asked.account, _Account(limit, asked, mine))
            if len(found) >= ASKED:
                break
        return list(found.values())

    def _row(self, account: _Account, balance: Balance, now: float) -> dict[str, Any]:
        limit = account.limit
        return {
            "id": account.demand.account,
            "name": identifier(limit.name),
            "unit": limit.unit,
            "soft": limit.soft,
            "span": limit.span,
            "calendar": account.demand.window.calendar,
            "scope": {name: identifier(value) for name, value in account.scope.items()},
            "limit": balance.capacity,
            "used": balance.used,
            "held": balance.held,
            "resets_at": balance.resets_at,
            "history": self._remember(account, balance, now),
        }

    def _remember(self, account: _Account, balance: Balance, now: float) -> list[list[float]]:
        """When, what was left and what was used, whenever that changed: by the second in a
        minute, by the minute in a day.
        """
        step = min(60.0, max(1.0, (account.limit.span or 60) / POINTS))
        points = self._history.setdefault(account.demand.account, deque(maxlen=POINTS))
        self._history.move_to_end(account.demand.account)
        state = (balance.remaining, balance.used)
        changed = not points or state != points[-1][1:]
        if changed and (len(points) < 2 or now - points[-1][0] >= step - 0.5):  # noqa: PLR2004
            points.append((now, *state))
        shown = [*points, (now, *state)] if state != points[-1][1:] else points
        return [[round(at), *amounts] for at, *amounts in shown]


def _counts_open(limit: Limit) -> bool:
    return limit.unit == "concurrency"


def _tightness(pair: tuple[_Account, Balance]) -> tuple[int, str]:
    """In steps of a twentieth, so that rows seldom change places."""
    account, balance = pair
    return balance.remaining * 20 // max(1, balance.capacity), account.demand.account
