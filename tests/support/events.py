"""Usage events for tests, with sensible figures."""

from __future__ import annotations

from typing import Any

from streamguard.identity import Identity
from streamguard.usage import Usage, UsageEvent

START = 1_790_000_000.0


def settled(number: int = 0, *, at: float | None = None, tokens: int = 120, **other: Any):
    """A settled call of ``tokens``, a sixth of them output."""
    made = tokens // 6
    used = Usage(tokens - made, made, None, 5)
    given = {
        "identity": Identity("acme", "ann", "chat"),
        "model": "gpt-4o",
        "endpoint": "/v1/chat/completions",
        "counted": used,
        "reported": used,
        "charged": used,
        "method": "exact",
        "cost_nano_usd": tokens * 1_000,
        "outcome": "completed",
        "duration": 1.5,
        "first_token": 0.25,
        "status": 200,
        "conversation": "c1",
        "context_window": 128_000,
    }
    moment = START + number if at is None else at
    return UsageEvent("settled", f"sg-{number}", moment, **(given | other))


def refused(number: int = 0, *, at: float | None = None, **other: Any):
    """A call refused by a window's budget."""
    given = {
        "identity": Identity("acme", "ann", "chat"),
        "model": "gpt-4o",
        "endpoint": "/v1/chat/completions",
        "counted": Usage(input_tokens=900),
        "status": 429,
        "code": "budget_exceeded",
        "limit_name": "day",
        "limit": 1_000,
        "used": 800,
        "requested": 900,
        "resets_at": START + 86_400,
    }
    moment = START + number if at is None else at
    return UsageEvent("refused", f"sg-{number}", moment, **(given | other))
