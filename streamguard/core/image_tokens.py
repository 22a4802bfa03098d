"""Tokens of an image by model: OpenAI's tiles and patches.

Sources: OpenAI's guide "Images and vision"; where the guide and the bill differ (GPT-5 mini and
nano), reported usage decides.
"""

from __future__ import annotations

import math
import re
from functools import lru_cache
from typing import NamedTuple

from streamguard.core.families import base_model
from streamguard.core.image_size import Size


class ImageCount(NamedTuple):
    """Tokens of one image; ``bound`` when its size is not known."""

    tokens: int
    bound: bool = False


class Tiles(NamedTuple):
    """A base and a price for each 512-pixel tile, after shrinking to 2048 by 768."""

    base: int
    tile: int

    def cost(self, size: Size | None, detail: str) -> ImageCount:
        """Low detail costs the base alone."""
        if detail == "low":
            return ImageCount(self.base)
        if size is None:
            return ImageCount(self.base + 8 * self.tile, bound=True)
        shrink = min(1.0, 2048 / max(size))
        shrink = min(shrink, 768 / min(size))
        across, down = (math.ceil(round(side * shrink, 3) / 512) for side in size)
        return ImageCount(self.base + across * down * self.tile)


class Patches(NamedTuple):
    """A price for each 32-pixel patch, after shrinking to ``most`` patches."""

    price: float
    most: int = 1536
    extra: int = 2
    """The tokens around an image that some models bill; on others, that much too many."""

    def cost(self, size: Size | None, detail: str) -> ImageCount:
        """The detail makes no difference but for "original", which newer models know."""
        most = 10_000 if detail == "original" else self.most
        if size is None:
            return ImageCount(self._tokens(most), bound=True)
        return ImageCount(self._tokens(self._patches(size, most)))

    def _tokens(self, patches: int) -> int:
        return math.ceil(round(patches * self.price, 6)) + self.extra

    def _patches(self, size: Size, most: int) -> int:
        across, down = (math.ceil(side / 32) for side in size)
        if across * down <= most:
            return across * down
        shrink = math.sqrt(32 * 32 * most / (size.width * size.height))
        sides = [max(side * shrink / 32, 1.0) for side in size]
        shrink = min(math.floor(side) / side for side in sides)
        across, down = (math.ceil(round(side * shrink, 6)) for side in sides)
        return min(across * down, most)


Rule = Tiles | Patches

_RULES: tuple[tuple[re.Pattern[str], Rule], ...] = tuple(
    (re.compile(pattern), rule)
    for pattern, rule in (
        (r"gpt-4o-mini", Tiles(2833, 5667)),
        (r"gpt-4\.1-mini", Patches(1.62)),
        (r"gpt-4\.1-nano", Patches(2.46)),
        (r"o4-mini|codex-mini", Patches(1.72, extra=1)),
        (r"gpt-4|chatgpt", Tiles(85, 170)),
        (r"o[1-9]", Tiles(75, 150)),
        (r"computer-use", Tiles(65, 129)),
        (r"gpt-5-mini", Patches(1.2, extra=1)),
        (r"gpt-5-nano", Patches(1.5, extra=1)),
        (r"gpt-5(?:\.1)?(?:$|-)", Tiles(70, 140)),
        (r"gpt-5\.[23]", Patches(1.2, extra=1)),
    )
)
_NEWEST = Patches(1.2, most=2500, extra=1)


@lru_cache(maxsize=1024)
def image_rule(model: str) -> Rule:
    """How OpenAI bills images for a model; the newest rule for models that are not known."""
    name = base_model(model)
    return next((rule for pattern, rule in _RULES if pattern.match(name)), _NEWEST)
