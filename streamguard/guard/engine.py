"""Preflight, reserve, settle: the one object all shells share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Self
from weakref import WeakSet

import anyio.to_thread

from streamguard.catalog import Catalog
from streamguard.core.accounts import Grant, Refusal
from streamguard.core.admission import Ask, Rates, Terms
from streamguard.core.admission import terms as terms_of
from streamguard.core.billing import Spent
from streamguard.core.outlook import outlook
from streamguard.core.room import most_input
from streamguard.core.wire import WireProtocol
from streamguard.errors import (
    OversizedRetryError,
    ProtocolError,
    StoreUnavailableError,
    StreamGuardError,
)
from streamguard.guard.adaptive import AdaptiveReserve, with_slack
from streamguard.guard.answers import Answers
from streamguard.guard.assess import (
    Assessment,
    Preflight,
    Subject,
    ask_for,
    check_others,
    new_request_id,
    rates_of,
    window_error,
)
from streamguard.guard.bookkeeper import Bookkeeper
from streamguard.guard.call import Call
from streamguard.guard.context import current_call, current_identity
from streamguard.guard.counter import PromptCounter
from streamguard.guard.failing import with_policies
from streamguard.guard.fitting import fit_to
from streamguard.guard.joining import join
from streamguard.guard.notebook import Notebook
from streamguard.guard.recourse import Recourse
from streamguard.guard.refusals import Refusals
from streamguard.guard.settings import Settings
from streamguard.guard.tally import current_tally
from streamguard.guard.teller import Teller
from streamguard.guard.waiting import Waiting
from streamguard.identity import Identity
from streamguard.limits import Limit
from streamguard.protocols import normal_path, protocol_for_path
from streamguard.sinks.base import Sink
from streamguard.sinks.structlog import StructlogSink
from streamguard.stores import open_store
from streamguard.stores.base import Store
from streamguard.tokenizers import warm_up
from streamguard.usage import Usage

CHAT = "/v1/chat/completions"


class Engine:
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
        self.settings = settings
        self.catalog = catalog or Catalog()
        self.teller = Teller([StructlogSink()] if sinks is None else sinks)
        told = self.teller.store_error
        self.books = Bookkeeper(with_policies(open_store(store), settings, told), settings, told)
        self.counter = PromptCounter(settings)
        self._notebook = Notebook(self.books, self.counter.calibrator)
        self._refusals = Refusals()
        self._recourse = Recourse(settings, self.catalog, self.teller, self.counter)
        self.answers = None if settings.cache is None else Answers(settings.cache, self.teller)
        self._adaptive = AdaptiveReserve(settings)
        self.open_calls: WeakSet[Call] = WeakSet()
        self._opened = False
        self._lock = asyncio.Lock()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def open(self) -> None:
        """Open the store and the sinks, load the newest tokenizer; later calls cost nothing."""
        if self._opened:
            return
        async with self._lock:
            if not self._opened:
                await self.books.open()
                await self._notebook.load()
                await self.teller.open()
                await warm_up()
                # The first look-up loads the price list, which takes a while.
                await anyio.to_thread.run_sync(self.catalog.model_info, "")
                self._opened = True

    async def close(self) -> None:
        """Wait for settles under way, then close the store and the sinks."""
        await self._notebook.save()
        await self.books.close()
        await self.teller.close()
        self._opened = False

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
            return await self._foreseen(await self._assess(subject))
        except StreamGuardError as error:
            self._refused(subject, error)
            raise

    async def _foreseen(self, assessment: Assessment) -> Preflight:
        terms = assessment.terms
        await self.open()
        balances = await self.books.balances(terms.demands)
        output = outlook(terms, balances, time.time())
        if isinstance(output, Refusal):
            raise window_error(output, terms.limits[output.which], assessment.subject.scope())
        names = [limit.name for limit in terms.limits]
        return Preflight(
            count=assessment.count,
            output_limit=output,
            context_window=assessment.rates.context_window,
            balances=dict(zip(names, balances, strict=True)),
        )

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
            identity=identity or await current_identity(),
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
            return await self._recourse.begin(subject, self._begin)
        except StreamGuardError as error:
            self._refused(subject, error)
            raise

    async def _begin(self, subject: Subject) -> Call:
        assessment = self._adaptive.adapted(await self._assess(subject))
        await self.open()
        outer = current_call.get()
        drawn = None
        if outer is None or outer.finished:
            outer, assessment = None, with_slack(assessment)
        else:
            drawn, assessment = join(assessment, outer)
        try:
            grant = await self._reserve(assessment)
        except BaseException:
            if outer is not None and drawn is not None:
                outer.fund.put_back(drawn, type(drawn)(0, 0))
            raise
        if not grant.balances:  # nothing is held: nothing is to be settled
            terms = replace(assessment.terms, demands=(), limits=())
            assessment = replace(assessment, terms=terms)
        call = Call(self, assessment, grant, outer=outer, drawn=drawn)
        self.open_calls.add(call)
        self.teller.admitted(assessment, call.ceiling, grant)
        self.teller.crossed(assessment, grant)
        return call

    @property
    def waiting(self) -> list[Waiting]:
        """The calls that wait in this process for a budget, each with its position."""
        return self._recourse.waiting

    def learn_oversized(
        self, body: Mapping[str, Any], error: StreamGuardError, model: str = ""
    ) -> None:
        """Remember that the provider refused the request with this body as oversized."""
        self._refusals.remember(body, error, (), model)

    def learn(self, assessment: Assessment, spent: Spent, usage: Usage) -> None:
        """Note what the provider says of the prompt, and how long the output was: one that was
        broken off says nothing.
        """
        if spent.reported.input_tokens is not None:
            tenant = assessment.subject.identity.tenant or ""
            reported = spent.reported.input_tokens
            self.counter.calibrator.observe(assessment.count, reported, tenant)
            self._notebook.changed()
        self._adaptive.learn(assessment, spent.outcome, usage)

    async def _reserve(self, assessment: Assessment) -> Grant:
        subject, terms = assessment.subject, assessment.terms
        try:
            decision = await self.books.reserve(subject.request_id, terms)
        except StoreUnavailableError:
            if not self.settings.observe:
                raise
            return Grant(terms.want, ())
        if isinstance(decision, Refusal):
            raise window_error(decision, terms.limits[decision.which], subject.scope())
        return decision

    async def _assess(self, subject: Subject) -> Assessment:
        request = subject.request
        limits = await self.settings.limits_for(subject.identity, *request.models)
        grew: dict[str, int] = {}
        try:
            if not self.settings.observe:
                self._refusals.check(subject, limits)
            rates = rates_of(self.catalog, request)
            most = most_input(limits, subject.scope(), rates)
            prompt, count = await self.counter.count(subject, most)
            conversation, grew = self._refusals.grew(prompt, count, subject.identity)
            ask = ask_for(request, count, self.settings)
            subject, ask, trimmed = await fit_to(
                limits, rates, subject, ask, self.settings, self.counter
            )
            terms = self._terms(subject, ask, rates, limits)
        except StreamGuardError as error:
            error.grew = grew
            self._refusals.remember(request.body, error, limits, request.model)
            raise
        return Assessment(subject, ask.count, rates, terms, conversation, trimmed=trimmed)

    def _terms(self, subject: Subject, ask: Ask, rates: Rates, limits: Sequence[Limit]) -> Terms:
        try:
            check_others(subject.request, limits)
            return terms_of(ask, limits, subject.scope(), rates)
        except StreamGuardError as error:
            if not self.settings.observe:
                raise
            self.teller.spared(subject, error)
            return Terms(want=ask.cap * ask.choices, least=0)

    def _refused(self, subject: Subject, error: StreamGuardError) -> None:
        self.teller.refused(subject, error, repeated=isinstance(error, OversizedRetryError))
