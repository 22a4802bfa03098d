"""What a call costs: whole-number arithmetic in atto-dollars, so that nothing rounds down."""

from __future__ import annotations

from collections.abc import Iterable
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
    """What a call is charged by; ``request`` is atto-dollars a call, ``search`` a web search."""

    input: Price | None = None
    output: Price | None = None
    cached: Price | None = None
    written: Price | None = None
    reasoning: Price | None = None
    request: int = 0
    audio_input: Price | None = None
    audio_output: Price | None = None
    written_long: Price | None = None
    search: Price | None = None

    def cost(self, usage: Usage) -> int | None:
        """Nano-dollars; ``None`` when a count or the price of what was used is unknown."""
        taken, made = usage.input_tokens, usage.output_tokens
        if taken is None or made is None or self.input is None or (made and self.output is None):
            return None
        searches = 0 if self.search is None else (usage.web_searches or 0) * self.search.base
        total = self.request + searches + self._taken(taken, self.input.at(taken), usage)
        if self.output is not None:
            parts = (
                (usage.audio_output_tokens, self.audio_output),
                (usage.reasoning_tokens, self.reasoning),
            )
            total += _sum(made, self.output.at(taken), parts, taken)
        return -(-total // ATTO_PER_NANO)

    def _taken(self, taken: int, usual: int, usage: Usage) -> int:
        long = usage.long_cache_write_tokens or 0
        parts = (
            (long, self.long_write if long else None),
            ((usage.cache_write_tokens or 0) - long, self.written),
            (usage.audio_input_tokens, self.audio_input),
            (usage.cached_tokens, self.cached),
        )
        return _sum(taken, usual, parts, taken)

    @property
    def long_write(self) -> Price | None:
        """What a token costs that is cached for an hour: as listed, else twice the input's price,
        as Anthropic's "Prompt caching" has it.
        """
        if self.written_long is not None or self.input is None:
            return self.written_long
        tiers = tuple((start, 2 * price) for start, price in self.input.tiers)
        return Price(2 * self.input.base, tiers)

    def over(self, other: Prices) -> Prices:
        """These prices, and the other's where these have none."""
        merged = {
            field.name: getattr(self, field.name) or getattr(other, field.name)
            for field in fields(self)
        }
        return Prices(**merged)


def _sum(
    tokens: int, usual: int, parts: Iterable[tuple[int | None, Price | None]], taken: int
) -> int:
    """Tokens at the usual price, but for the parts that have their own: a token is in one."""
    total, left = tokens * usual, tokens
    for count, price in parts:
        if count and count > 0 and price is not None:
            part = min(count, left)
            left -= part
            total += part * (price.at(taken) - usual)
    return total
