"""Counts a whole (non-streaming) response and cuts it where it is over its allowance. Pure."""

from __future__ import annotations

from typing import NamedTuple

from streamguard.core.metering import TextMeter
from streamguard.core.tokens import Tokenizer
from streamguard.core.wire import Channel, Delta, Reply


class Measure(NamedTuple):
    """Output tokens of a reply; ``kept`` is ``None`` while it is within its allowance."""

    counted: int
    reasoning: int
    kept: list[Delta] | None


def measure(reply: Reply, tokenizer: Tokenizer, allowance: int) -> Measure:
    """Count a reply's texts; over ``allowance`` tokens, keep the longest part within it."""
    meters: dict[Channel, TextMeter] = {}
    kept: list[Delta] = []
    whole = True
    for delta in reply.deltas:
        meter = meters.setdefault(delta.channel, TextMeter(tokenizer))
        others = sum(other.count for other in meters.values() if other is not meter)
        text = meter.take(delta.text, allowance - others) if whole else ""
        whole = whole and text == delta.text
        if delta.whole and not whole:
            text = ""
        meter.feed(text)
        kept.append(Delta(delta.channel, text))
    counted = sum(meter.count for meter in meters.values())
    reasoning = sum(
        meter.count for (_, kind), meter in meters.items() if kind.startswith("reasoning")
    )
    return Measure(counted, reasoning, None if whole else kept)
