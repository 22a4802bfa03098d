"""What makes a refusal useful: which part grew, and that it is not sent twice."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from typing import Any

from streamguard.core.admission import applies
from streamguard.core.growth import GrowthMemory, conversation_key
from streamguard.core.oversized import OversizedMemory, fingerprint
from streamguard.core.prompt import Prompt, PromptCount
from streamguard.errors import (
    BudgetExceededError,
    ContextWindowExceededError,
    OversizedRetryError,
    StreamGuardError,
    WindowBudgetExceededError,
)
from streamguard.guard.subject import Subject
from streamguard.identity import Identity
from streamguard.limits import Limit


class Refusals:
    """Remembers oversized requests and how conversations grow. Digests and figures only."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """``clock`` is monotonic seconds."""
        self._oversized = OversizedMemory()
        self._growth = GrowthMemory()
        self._clock = clock

    def check(self, subject: Subject, limits: Sequence[Limit]) -> None:
        """Refuse a request that its tenant was refused as oversized before, by a limit that is
        also its own. Nobody learns what other tenants were refused for.

        Raises:
            OversizedRetryError: with the first refusal's figures, status and code.
        """
        if not len(self._oversized):
            return
        scope, request = subject.scope(), subject.request
        mine = [limit for limit in limits if applies(limit, scope)]
        digest = fingerprint(request.body, request.model, _sender(subject.identity))
        first = self._oversized.recall(digest, mine, self._clock())
        if first is not None:
            first = copy(first)  # of another user, maybe
            first.scope = {key: scope[key] for key in first.scope}
            message = f"refused before and sent again unchanged: {first.message}"
            raise OversizedRetryError(message, first=first) from first

    def remember(
        self,
        body: Mapping[str, Any],
        error: StreamGuardError,
        limits: Sequence[Limit],
        model: str,
        identity: Identity,
    ) -> None:
        """Keep a refusal that no retry can change; others are not kept."""
        if isinstance(error, WindowBudgetExceededError):
            return
        if isinstance(error, (ContextWindowExceededError, BudgetExceededError)):
            limit = next((one for one in limits if one.name == error.limit_name), None)
            # A copy: the error itself keeps its traceback, and that the whole request alive.
            kept = copy(error)
            digest = fingerprint(body, model, _sender(identity))
            self._oversized.remember(digest, kept, limit, self._clock())

    def grew(
        self, prompt: Prompt, count: PromptCount, identity: Identity
    ) -> tuple[str, dict[str, int]]:
        """The conversation's digest and what each component gained since its last call."""
        key = conversation_key(prompt, f"{identity.tenant}\x00{identity.user}")
        return key.hex(), self._growth.compare(key, count.components)


def _sender(identity: Identity) -> str:
    """The tenant; its users may know of each other. Without one, the user."""
    return f"\0{identity.user or ''}" if identity.tenant is None else identity.tenant
