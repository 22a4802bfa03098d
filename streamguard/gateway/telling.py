"""Whom the gateway tells: what its ``[tell]`` table names, and the page that Prometheus reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from streamguard.asgi.types import Receive, Scope, Send
from streamguard.errors import ConfigurationError
from streamguard.live.door import Door
from streamguard.live.page import deny
from streamguard.sinks.base import Sink
from streamguard.sinks.configured import from_environment, placed, sinks_beside

PAGE = "prometheus"


class MetricsPage:
    """An ASGI app with the metrics in Prometheus' text format, behind the live page's door."""

    def __init__(self, password: str | None) -> None:
        """Without a ``password`` only this machine is served.

        Raises:
            ConfigurationError: the password is too short.
        """
        from streamguard.sinks.prometheus import PrometheusSink

        self.sink = PrometheusSink()
        self._door = Door(password, "metrics page")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Show the figures to who may see them."""
        denial = await self._door.deny(scope)
        if denial is None:
            await self.sink.app(scope, receive, send)
        else:
            await deny(send, denial)


class Told(NamedTuple):
    """Who is told beside the log and the ledger."""

    sinks: list[Sink]
    page: MetricsPage | None


def told_by(table: Mapping[str, Any], where: str = "tell") -> Told:
    """What a ``[tell]`` table says; ``prometheus`` is ``true`` or the page's password.

    Raises:
        ConfigurationError: a key that is unknown or wrong.
    """
    sinks = sinks_beside({key: value for key, value in table.items() if key != PAGE}, where)
    page = _page(table.get(PAGE, False), f"{where}.{PAGE}")
    return Told(sinks, page) if page is None else Told([*sinks, page.sink], page)


def _page(wanted: Any, where: str) -> MetricsPage | None:
    if wanted is False:
        return None
    if wanted is not True and not isinstance(wanted, str):
        raise ConfigurationError(f"{where}={wanted!r} must be true, or the page's password")
    password = None if wanted is True else from_environment(wanted, where)
    try:
        with placed(where):
            return MetricsPage(password)
    except ImportError as error:
        message = f"{where} needs pip install 'streamguard[prometheus]'"
        raise ConfigurationError(message) from error
