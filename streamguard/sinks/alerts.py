"""Watches the events and sends alerts."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Protocol

import anyio

from streamguard.core.alert_rules import ContextShare, DailyGrowth, Refused, Runaway, UserBurst
from streamguard.core.alerts import Alert, AlertBook, Rule
from streamguard.sinks.report import Report, log_error
from streamguard.usage import UsageEvent

_WAITING = 1_000


class Channel(Protocol):
    """Somewhere alerts go, such as a ``Webhook``."""

    async def deliver(self, alert: Alert) -> bool:
        """Deliver it, however long it takes; whether it arrived."""

    def give_up(self, alert: Alert, reason: str) -> None:
        """Keep an alert that there was no time or room to deliver."""


def default_rules() -> list[Rule]:
    """Every rule that needs no figure of the user's; ``DailySpend`` takes an amount."""
    return [ContextShare(), DailyGrowth(), Refused(), UserBurst(), Runaway()]


class AlertSink:
    """Feeds events to alert rules and hands what fires to channels, in the background.

    ::

        AlertSink([*default_rules(), DailySpend("50")], [Webhook(url, secrets=[secret])])

    What fires is logged too. Each process watches the calls it guards.

    Args:
        rules: see ``streamguard.core.alert_rules``.
        channels: where alerts go; each at its own pace.
        per_hour: alerts an hour at most, over all rules.
        history: events of the last days, oldest first, to begin with: nothing is sent for
            them. ``streamguard.sinks.ledger_queries.history`` reads them from a ledger.
        close_seconds: how long ``close`` waits for deliveries; the rest goes to ``give_up``.
        report: the log.
    """

    def __init__(
        self,
        rules: Sequence[Rule] | None = None,
        channels: Sequence[Channel] = (),
        *,
        per_hour: int = 60,
        history: Iterable[UsageEvent] = (),
        close_seconds: float = 5.0,
        report: Report = log_error,
    ) -> None:
        self._book = AlertBook(default_rules() if rules is None else rules, per_hour=per_hour)
        self._lines = [_Line(channel) for channel in channels]
        self._close_seconds = close_seconds
        self._report = report
        for event in history:
            self._book.feed(event)

    def emit(self, event: UsageEvent) -> None:
        """Ask the rules; queue what fires."""
        for alert in self._book.feed(event):
            self._report("alert", rule=alert.rule, message=alert.message, severity=alert.severity)
            for line in self._lines:
                line.put(alert)

    async def close(self) -> None:
        """Wait for deliveries under way, for a while; what is left is given up and kept."""
        with anyio.move_on_after(self._close_seconds):
            await asyncio.gather(*(line.idle() for line in self._lines))
        for line in self._lines:
            await line.stop()


class _Line:
    """One channel's queue and the task that works it off."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._waiting: deque[Alert] = deque()
        self._task: asyncio.Task[None] | None = None

    def put(self, alert: Alert) -> None:
        """Queue it, bounded; a full queue gives the alert up at once."""
        if len(self._waiting) >= _WAITING:
            self._channel.give_up(alert, "too many alerts are waiting")
            return
        self._waiting.append(alert)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._work())

    async def idle(self) -> None:
        """Wait until the queue is empty."""
        if self._task is not None:
            await asyncio.wait([self._task])

    async def stop(self) -> None:
        """End the task; the delivery under way and what waits are given up."""
        if self._task is not None and self._task.cancel():
            await asyncio.wait([self._task])
        while self._waiting:
            self._channel.give_up(self._waiting.popleft(), "shut down")

    async def _work(self) -> None:
        while self._waiting:
            alert = self._waiting.popleft()
            try:
                await self._channel.deliver(alert)
            except Exception as error:  # noqa: BLE001 - a channel that breaks must not stop the rest
                self._channel.give_up(alert, type(error).__name__)
