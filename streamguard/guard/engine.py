"""Preflight → reserve → settle: the one object all shells share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Self
from weakref import WeakSet

from streamguard.catalog import Catalog
from streamguard.core.wire import WireProtocol
from streamguard.errors import OversizedRetryError, ProtocolError, StreamGuardError
from streamguard.guard.call import Call
from streamguard.guard.context import current_call, current_identity
from streamguard.guard.preflight import assess, foresee
from streamguard.guard.recourse import Recourse
from streamguard.guard.reserve import reserve
from streamguard.guard.retry_tally import current_tally
from streamguard.guard.settings import Settings
from streamguard.guard.shared import Shared
from streamguard.guard.subject import Preflight, Subject, new_request_id
from streamguard.guard.waiting import Waiting
from streamguard.identity import ANONYMOUS, Identity, checked
from streamguard.protocols import normal_path, protocol_for_path
from streamguard.sinks.base import Sink
from streamguard.stores.base import Store

CHAT = "/v1/chat/completions"


class Engine(Shared):
    """Preflight → reserve → settle over one store, one catalog and some sinks.

    Use it as an async context manager, or let the first call open it.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        store: Store | str = "memory://",
        catalog: Catalog | None = None,
        sinks: Sequence[Sink] | None = None,
    ) -> None:
        """``store`` is a Store or its URL; ``sinks`` default to structlog."""
        super().__init__(settings, store=store, catalog=catalog, sinks=sinks)
        self._recourse = Recourse(settings, self.catalog, self.teller, self.counter)
        self._reserve = partial(reserve, self)
        self._calls: WeakSet[Call] = WeakSet()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def preflight(
        self,
        request_body: Mapping[str, Any],
        identity: Identity | None = None,
        *,
        path: str = CHAT,
    ) -> Preflight:
        """Count a request and decide on it, without holding anything or sending it.

        Raises:
            StreamGuardError: the refusal that sending it would meet.
        """
        subject = await self.subject(request_body, path=path, identity=identity)
        try:
            return await foresee(self, await assess(self, subject))
        except StreamGuardError as error:
            self._refused(subject, error)
            raise

    async def subject(
        self,
        body: Mapping[str, Any],
        *,
        path: str,
        identity: Identity | None = None,
        protocol: WireProtocol | None = None,
        request_id: str | None = None,
        size: int = 0,
    ) -> Subject:
        """Parse a request body; ``size`` is its bytes, where it was bytes.

        Raises:
            ProtocolError: the path or the body is of no known form.
        """
        wire = protocol or protocol_for_path(path)
        if wire is None:
            message = f"{path!r} is no endpoint streamguard knows; name its protocol in routes="
            raise ProtocolError(message)
        return Subject(
            request_id=request_id or new_request_id(),
            protocol=wire,
            request=self.settings.deployed(wire.parse(body, path), path),
            identity=checked(await current_identity() if identity is None else identity),
            endpoint=normal_path(path),
            size=size,
        )

    async def begin(self, subject: Subject) -> Call:
        """Preflight and reserve. Inside a guarded request, join its reservation.

        Raises:
            StreamGuardError: the refusal; nothing is held then.
        """
        tally = current_tally.get()
        if tally is not None:
            tally.tried(subject)
        try:
            call = await self._recourse.begin(subject, self._reserve)
        except StreamGuardError as error:
            self._refused(subject, error)
            raise
        self._calls.add(call)
        return call

    @property
    def open_calls(self) -> list[Call]:
        """The calls that are not being settled yet."""
        return [call for call in list(self._calls) if not call.finished]

    @property
    def waiting(self) -> list[Waiting]:
        """The calls that wait in this process for a budget, each with its position."""
        return self._recourse.waiting

    def learn_oversized(
        self, body: Mapping[str, Any], error: StreamGuardError, model: str = ""
    ) -> None:
        """Remember that the provider refused the request with this body as oversized, for whom
        the guarded call around belongs to.
        """
        outer = current_call.get()
        identity = ANONYMOUS if outer is None else outer.assessment.subject.identity
        self.refusals.remember(body, error, (), model, identity)

    def _refused(self, subject: Subject, error: StreamGuardError) -> None:
        self.teller.refused(subject, error, repeated=isinstance(error, OversizedRetryError))
