"""What a call costs: whole-number arithmetic in atto-dollars, so that nothing rounds down."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import NamedTuple

from streamguard.usage import Usage

ATTO_PER_NANO = 10**9


class Price(NamedTuple):
    """1e-18 dollars (atto) per token; above ``start`` input tokens a tier's price holds for all."""

    base: int
    tiers: tuple[tuple[int, int], ...] = ()

    def at(self, input_tokens: int) -> int:
        """The price of each token of a call with so many input tokens."""
        for start, price in reversed(self.tiers):
            if input_tokens > start:
                return price
        return self.base

    @property
    def worst(self) -> int:
        """The dearest tier."""
        return max((self.base, *(price for _start, price in self.tiers)))


@dataclass(frozen=True, slots=True)
class Prices:
    """What a call is charged by; ``request`` is atto-dollars a call."""

    input: Price | None = None
    output: Price | None = None
    cached: Price | None = None
    reasoning: Price | None = None
    request: int = 0

    def cost(self, usage: Usage) -> int | None:
        """Nano-dollars; ``None`` when a count or the price of what was used is unknown."""
        taken, made = usage.input_tokens, usage.output_tokens
        if taken is None or made is None or self.input is None or (made and self.output is None):
            return None
        cached = min(usage.cached_tokens or 0, taken) if self.cached else 0
        thought = min(usage.reasoning_tokens or 0, made) if self.reasoning else 0
        counts = (taken - cached, made - thought, cached, thought)
        prices = (self.input, self.output, self.cached, self.reasoning)
        total = self.request + sum(
            count * price.at(taken) for count, price in zip(counts, prices, strict=True) if price
        )
        return -(-total // ATTO_PER_NANO)

    def over(self, other: Prices) -> Prices:
        """These prices, and the other's where these have none."""
        merged = {
            field.name: getattr(self, field.name) or getattr(other, field.name)
            for field in fields(self)
        }
        return Prices(**merged)
