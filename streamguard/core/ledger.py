"""Reserve, extend, renew, settle, release, sweep: what every store must agree with.

- A reservation asks every demand for ``fixed + g * rate`` and gets the largest ``g`` in
  least..want that every hard demand has room for, or nothing at all. Soft demands hold and are
  charged too, but never refuse.
- A demand with a rate is *held* until the settle, which charges what was used at that moment.
  A demand without one is charged when reserved (``books.up_front``) and corrected by the settle.
- A hold that is not renewed expires and comes back. A settle after that still charges, so an
  account may end over its capacity by what was really used, never by more.
- Every operation is idempotent by reservation id: a repeated reserve answers the same grant and
  holds once, a second settle or release changes nothing, and an id that is over cannot be
  reserved again (an id released before its reserve arrives holds nothing).

Nothing here reads a clock: ``now`` is Unix seconds. All functions change ``books`` in place.
"""

from __future__ import annotations

from collections.abc import Sequence

from streamguard.core.accounts import Balance, Decision, Demand, Grant, Refusal
from streamguard.core.books import LATE, MAX_AMOUNT, Account, Books, Hold, up_front
from streamguard.core.windows import ruler
from streamguard.errors import ConfigurationError

PATIENCE = 1.0
"""``retry_after`` in seconds where only holds are in the way: they may come back any moment."""

NOTHING = Refusal(0, 0, Balance(0, 0, 0), None)
"""The answer to an ``extend`` of a reservation that is not held."""


def milliseconds(seconds: float) -> int:
    """Seconds as the whole milliseconds that the books are kept in."""
    return round(seconds * 1000)


def reserve(
    books: Books,
    reservation: str,
    demands: Sequence[Demand],
    *,
    want: int,
    least: int,
    ttl: float,
    now: float,
) -> Decision:
    """Hold ``fixed + g * rate`` of every demand for the largest ``g`` in least..want.

    Raises:
        ConfigurationError: two demands speak of the same account.
    """
    at, least = milliseconds(now), min(least, want)
    sweep(books, at)
    known = books.known(reservation, at)
    if known is not None and known.state != "expired":
        return _again(books, known, at, least)
    check_apart(demands)
    found = _open(books, demands, at)
    asked = [demand.fixed for demand in demands]
    output = _fit(demands, found, asked, want, least)
    if output is None:
        return _refuse(demands, found, asked, least, at)
    for demand, account in zip(demands, found, strict=True):
        if up_front(demand):
            account.charge(demand.fixed)
        else:
            account.held += demand.fixed + output * demand.rate
    books.keep(reservation, Hold(tuple(demands), output, at, at + milliseconds(ttl)))
    return _grant(demands, found, output)


def extend(
    books: Books, reservation: str, *, want: int, least: int, ttl: float, now: float
) -> Decision:
    """Hold ``g * rate`` more, for the largest ``g`` in least..want; renews the hold too."""
    at, least = milliseconds(now), min(least, want)
    sweep(books, at)
    hold = books.known(reservation, at)
    if hold is None or hold.state != "held":
        return NOTHING
    found = _open(books, hold.demands, at)
    asked = [0] * len(found)
    output = _fit(hold.demands, found, asked, want, least)
    if output is None:
        return _refuse(hold.demands, found, asked, least, at)
    for demand, account in zip(hold.demands, found, strict=True):
        account.held += output * demand.rate
    hold.granted += output
    books.renew(reservation, hold, at + milliseconds(ttl))
    return _grant(hold.demands, found, output)


def renew(books: Books, reservation: str, *, ttl: float, now: float) -> bool:
    """Put the expiry ``ttl`` seconds from now; False when the reservation is not held."""
    at = milliseconds(now)
    sweep(books, at)
    hold = books.known(reservation, at)
    if hold is None or hold.state != "held":
        return False
    books.renew(reservation, hold, at + milliseconds(ttl))
    return True


def settle(
    books: Books, reservation: str, amounts: Sequence[int], *, now: float
) -> Sequence[Balance]:
    """Replace the hold by what was used, per demand; empty for an unknown reservation.

    Raises:
        ValueError: not one amount a demand.
    """
    at = milliseconds(now)
    sweep(books, at)
    hold = books.known(reservation, at)
    if hold is None:
        return ()
    if len(amounts) != len(hold.demands):
        message = f"settled {len(amounts)} amounts for {len(hold.demands)} demands"
        raise ValueError(message)
    found = _open(books, hold.demands, at)
    if hold.state != "done":
        for demand, account, amount in zip(hold.demands, found, amounts, strict=True):
            _settle_one(hold, demand, account, max(0, min(amount, MAX_AMOUNT)), at)
        books.finish(reservation, hold, at)
    return _balances(hold.demands, found)


def release(books: Books, reservation: str, *, now: float) -> None:
    """Give the whole hold back. An unknown id is remembered, lest its reserve arrive later."""
    at = milliseconds(now)
    sweep(books, at)
    hold = books.known(reservation, at)
    if hold is None:
        hold = Hold((), 0, at, at, "expired")
        books.keep(reservation, hold)
    if hold.state == "held":
        _give_back(books, hold, at, at)
    if hold.state != "done":
        books.finish(reservation, hold, at)


def sweep(books: Books, at: int) -> None:
    """Give back what expired by ``at`` (milliseconds), forget what is long over, drop what is
    empty. Every operation begins with it.
    """
    if books.due and books.due[0][0] <= at:
        for hold in books.overdue(at):
            _give_back(books, hold, at, hold.due - LATE)
    if books.turns:
        books.prune(at)


def balances(books: Books, demands: Sequence[Demand], *, now: float) -> Sequence[Balance]:
    """The accounts as they stand."""
    at = milliseconds(now)
    sweep(books, at)
    return [books.peek(demand, at).balance(demand.capacity) for demand in demands]


def _open(books: Books, demands: Sequence[Demand], at: int) -> list[Account]:
    return [books.account(demand, at) for demand in demands]


def check_apart(demands: Sequence[Demand]) -> None:
    """Each demand of a call must speak of its own account.

    Raises:
        ConfigurationError: two speak of the same.
    """
    if len(demands) > 1 and len({demand.account for demand in demands}) < len(demands):
        names = sorted(demand.account for demand in demands)
        message = f"two demands of one call speak of the same account: {names}; name limits apart"
        raise ConfigurationError(message)


def _fit(
    demands: Sequence[Demand], found: list[Account], asked: list[int], want: int, least: int
) -> int | None:
    """The largest output in least..want that every hard demand has room for."""
    output = want
    for demand, account, fixed in zip(demands, found, asked, strict=True):
        if demand.soft:
            continue
        room = demand.capacity - account.used - account.held - fixed
        if room < output * demand.rate or room < 0:
            if room < least * demand.rate or room < 0:
                return None
            output = room // demand.rate
    return output


def _refuse(
    demands: Sequence[Demand], found: list[Account], asked: list[int], least: int, at: int
) -> Refusal:
    """Name the demand that takes longest to have room."""
    refusals = []
    for which, (demand, account, fixed) in enumerate(zip(demands, found, asked, strict=True)):
        needed = fixed + least * demand.rate
        if not demand.soft and needed > demand.capacity - account.used - account.held:
            refusals.append(_refusal(which, demand, account, needed, at))
    return max(refusals, key=_patience)


def _patience(refusal: Refusal) -> float:
    return float("inf") if refusal.retry_after is None else refusal.retry_after


def _refusal(which: int, demand: Demand, account: Account, needed: int, at: int) -> Refusal:
    balance = account.balance(demand.capacity)
    if needed > demand.capacity:
        return Refusal(which, needed, balance, None)
    lack = needed + account.used - demand.capacity
    if lack <= 0:
        return Refusal(which, needed, balance, PATIENCE)
    free = account.freed_at(lack)
    return Refusal(which, needed, balance._replace(resets_at=free / 1000), (free - at) / 1000)


def _grant(demands: Sequence[Demand], found: list[Account], output: int) -> Grant:
    standing = _balances(demands, found)
    over = [
        which
        for which, demand in enumerate(demands)
        if demand.soft and standing[which].used + standing[which].held > demand.capacity
    ]
    return Grant(output, standing, tuple(over))


def _again(books: Books, hold: Hold, at: int, least: int) -> Decision:
    """The answer to a repeated reserve."""
    found = _open(books, hold.demands, at)
    if hold.state == "held":
        return _grant(hold.demands, found, hold.granted)
    if not found:
        return NOTHING
    demand = hold.demands[0]
    needed = demand.fixed + least * demand.rate
    return Refusal(0, needed, found[0].balance(demand.capacity), None)


def _settle_one(hold: Hold, demand: Demand, account: Account, amount: int, at: int) -> None:
    if hold.state == "held":
        if up_front(demand):
            born = ruler(demand.window).place(hold.born)[1]
            account.refund(born, demand.fixed - amount, at)
            amount -= demand.fixed
        else:
            account.held -= demand.fixed + hold.granted * demand.rate
    account.charge(amount)


def _give_back(books: Books, hold: Hold, at: int, ended: int) -> None:
    """Give back at ``at`` what a hold that ended at ``ended`` holds."""
    for demand, account in zip(hold.demands, _open(books, hold.demands, at), strict=True):
        if up_front(demand):
            born = ruler(demand.window).place(hold.born)[1]
            account.refund(born, demand.fixed, ended)
        else:
            account.held -= demand.fixed + hold.granted * demand.rate


def _balances(demands: Sequence[Demand], found: list[Account]) -> list[Balance]:
    return [
        account.balance(demand.capacity) for demand, account in zip(demands, found, strict=True)
    ]
