"""Waits for a budget only as long as the client does."""

from __future__ import annotations

import anyio

from streamguard.asgi.body import ClientGone, gone
from streamguard.asgi.types import Receive
from streamguard.core.billing import Spent
from streamguard.guard.call import Call
from streamguard.guard.engine import Engine
from streamguard.guard.subject import Subject


async def unless_gone(guard: Engine, subject: Subject, receive: Receive) -> Call:
    """Begin the call; where that may take a while, leave the line when the client goes.

    Raises:
        StreamGuardError: the refusal.
        ClientGone: the client went away; nothing is held.
    """
    if guard.settings.queue is None:
        return await guard.begin(subject)
    beginning = _Beginning(guard, subject)
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(beginning.watch, receive, group.cancel_scope)
            await beginning.run()
            group.cancel_scope.cancel()
    except BaseException:  # cancelled between the call's begin and its run
        beginning.drop()
        raise
    return await beginning.result()


class _Beginning:
    """What came of it: a call, a refusal, or nobody who waits for either."""

    def __init__(self, guard: Engine, subject: Subject) -> None:
        self._guard = guard
        self._subject = subject
        self._outcome: Call | Exception = ClientGone()
        self._gone = False

    async def run(self) -> None:
        """Begin the call and keep what comes, so that it leaves the task group as it is."""
        try:
            self._outcome = await self._guard.begin(self._subject)
        except Exception as error:  # noqa: BLE001 - raised again by ``result``
            self._outcome = error

    async def watch(self, receive: Receive, scope: anyio.CancelScope) -> None:
        """Stop waiting when the client leaves."""
        await gone(receive)
        self._gone = True
        scope.cancel()

    def drop(self) -> None:
        """Give back what a call holds that nobody will run."""
        if isinstance(self._outcome, Call):
            self._outcome.finish_soon(Spent("cancelled", billed=False))

    async def result(self) -> Call:
        """The call, or what was raised."""
        if not isinstance(self._outcome, Call):
            raise ClientGone if self._gone else self._outcome
        if self._gone:
            await self._outcome.finish(Spent("disconnected", billed=False))
            raise ClientGone
        return self._outcome
