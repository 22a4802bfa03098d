"""What a reserve would answer, told from accounts as they stand. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from streamguard.core.accounts import Balance, Refusal
from streamguard.core.admission import Terms


def outlook(terms: Terms, balances: Sequence[Balance], now: float) -> int | Refusal:
    """What a reserve would answer by these balances: output tokens, or the refusal.

    ``now`` is Unix seconds; when a window has room again is only known as nearly as it tells.
    """
    output = terms.want
    for which, (asked, balance) in enumerate(zip(terms.demands, balances, strict=True)):
        needed = asked.fixed + terms.least * asked.rate
        if asked.soft:
            continue
        if needed > balance.remaining:
            wait = max(1.0, (balance.resets_at or now) - now)
            return Refusal(which, needed, balance, wait if needed <= balance.capacity else None)
        if asked.rate:
            output = min(output, (balance.remaining - asked.fixed) // asked.rate)
    return output
