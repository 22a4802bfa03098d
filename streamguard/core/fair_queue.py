"""Who is next: the highest priority, then tenants in turn, then who came first. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from typing import NamedTuple


class Ticket(NamedTuple):
    """One call that waits. A higher ``priority`` goes first."""

    id: str
    tenant: str = ""
    priority: int = 0


class FairQueue:
    """Tickets in the order in which they will be served.

    Among tickets of one priority the tenant that was served longest ago is next, so one tenant's
    thousand calls delay another's single one by one call.
    """

    def __init__(self) -> None:
        self._tickets: dict[str, Ticket] = {}
        self._turns: dict[str, int] = {}
        self._turn = 0

    def __len__(self) -> int:
        return len(self._tickets)

    def join(self, ticket: Ticket) -> int:
        """Add a ticket; its position, from 1."""
        self._tickets[ticket.id] = ticket
        return self.positions()[ticket.id]

    def leave(self, ticket_id: str, *, served: bool) -> None:
        """Take a ticket out; when it was ``served`` its tenant goes to the back of the turns."""
        ticket = self._tickets.pop(ticket_id, None)
        if ticket is not None and served:
            self._turn += 1
            self._turns[ticket.tenant] = self._turn
        if not self._tickets:
            self._turns.clear()

    def head(self) -> str | None:
        """The id of the ticket that is next."""
        return next(self._ordered(), None)

    def positions(self) -> dict[str, int]:
        """Every ticket's position, from 1, in the order of service."""
        return {ticket_id: at for at, ticket_id in enumerate(self._ordered(), start=1)}

    def _ordered(self) -> Iterator[str]:
        for priority in sorted({each.priority for each in self._tickets.values()}, reverse=True):
            yield from self._in_turn(priority)

    def _in_turn(self, priority: int) -> Iterator[str]:
        waiting: dict[str, list[str]] = {}
        for ticket in self._tickets.values():
            if ticket.priority == priority:
                waiting.setdefault(ticket.tenant, []).append(ticket.id)
        tenants = sorted(waiting, key=lambda tenant: self._turns.get(tenant, 0))
        for round_ in zip_longest(*(waiting[tenant] for tenant in tenants)):
            yield from (ticket_id for ticket_id in round_ if ticket_id is not None)
