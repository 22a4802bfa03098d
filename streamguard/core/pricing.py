"""What a call costs: whole-number arithmetic in atto-dollars, so that nothing rounds down."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import NamedTuple

from streamguard.usage import Usage

ATTO_PER_NANO = 10**9

_USUAL = frozenset({"auto", "default", "standard", "standard_only", "on_demand", "scale"})
_CHEAPER = frozenset({"flex", "batch"})


def as_tier(name: str) -> str:
    """A service tier as prices are listed by it; empty for those that cost what is usual.

    "auto" is what the account is set to: the usual, unless its owner pays for more.
    """
    tier = name.strip().lower().removeprefix("service_tier_")
    return "" if tier in _USUAL else tier


def possible_tiers(asked: str) -> tuple[str, ...]:
    """The tiers at whose prices a call may be billed: the usual one where another is not granted.

    A cheaper tier than the usual one may always be missed.
    """
    return ("",) if not asked or asked in _CHEAPER else ("", asked)


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
    written: Price | None = None
    reasoning: Price | None = None
    request: int = 0

    def cost(self, usage: Usage) -> int | None:
        """Nano-dollars; ``None`` when a count or the price of what was used is unknown."""
        taken, made = usage.input_tokens, usage.output_tokens
        if taken is None or made is None or self.input is None or (made and self.output is None):
            return None
        total = self.request + taken * self.input.at(taken)
        if self.output is not None:
            total += made * self.output.at(taken)
        if self.cached is not None and usage.cached_tokens:
            part = min(usage.cached_tokens, taken)
            total += part * (self.cached.at(taken) - self.input.at(taken))
        if self.written is not None and usage.cache_write_tokens:
            part = min(usage.cache_write_tokens, taken)
            total += part * (self.written.at(taken) - self.input.at(taken))
        if self.reasoning is not None and self.output is not None and usage.reasoning_tokens:
            part = min(usage.reasoning_tokens, made)
            total += part * (self.reasoning.at(taken) - self.output.at(taken))
        return -(-total // ATTO_PER_NANO)

    def over(self, other: Prices) -> Prices:
        """These prices, and the other's where these have none."""
        merged = {
            field.name: getattr(self, field.name) or getattr(other, field.name)
            for field in fields(self)
        }
        return Prices(**merged)
