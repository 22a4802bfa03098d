"""A mode for batch jobs: count some of many uniform short prompts, estimate the others."""

from __future__ import annotations

from math import ceil

from streamguard.core.bounds import least_tokens
from streamguard.core.metering import utf8_bytes
from streamguard.core.tokens import Tokenizer


class SampledCounts:
    """Counts texts by a sample, as long as they are uniform.

    The first ``learn`` texts of an encoding are counted, then every ``every``-th. The others
    are estimated as their bytes times the highest tokens per byte seen, times ``1 + margin``: a
    text is under-counted only if it is denser than every text of the sample and the margin
    together. A sample that is starts the learning anew; so does a text more than twice as long
    as the longest learnt from. It is the ``CountText`` that ``count_prompt`` takes.
    """

    def __init__(self, *, learn: int = 50, every: int = 20, margin: float = 0.05) -> None:
        self._learn = learn
        self._every = every
        self._margin = margin
        self._samples: dict[str, _Sample] = {}

    def __call__(self, tokenizer: Tokenizer, text: str) -> int:
        """Tokens of the text, counted or estimated."""
        size = utf8_bytes(text)
        sample = self._samples.get(tokenizer.name)
        if sample is None or size > 2 * sample.longest:
            sample = self._samples[tokenizer.name] = _Sample()
        sample.seen += 1
        if sample.seen > self._learn and sample.seen % self._every:
            return max(
                least_tokens(size, tokenizer), ceil(size * sample.density * (1 + self._margin))
            )
        count = tokenizer.count(text)
        if sample.seen > self._learn and count > size * sample.density * (1 + self._margin):
            sample.seen = 0
        sample.longest = max(sample.longest, size)
        sample.density = max(sample.density, count / max(size, 1))
        return count


class _Sample:
    """What was learnt of one encoding's texts."""

    __slots__ = ("density", "longest", "seen")

    def __init__(self) -> None:
        self.seen = 0
        self.longest = 0
        self.density = 0.0
