"""Correct estimates by what providers report: a running ratio and margin per model. Pure.

The guard notes each settled call whose count was calibrated; the correction it gets back
replaces the family's ratio and margin once enough calls are known. Medians and trimmed
quantiles, so that a few odd reports (an edited prompt, a cached reply) change nothing.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from streamguard.core.prompt import Prompt, PromptCount

LEAST_MARGIN = 0.01
MOST_MARGIN = 0.5
_CLIP = (0.25, 4.0)
"""Ratios beyond these come from another prompt than the one that was counted."""


class Correction(NamedTuple):
    """What a model's reports say: its ratio to the estimate, the margin that covers all but a
    few calls, and from how many calls that was learned.
    """

    ratio: float
    margin: float
    samples: int


class _Sample:
    """The latest ratios of one model, in order of arrival and of size."""

    __slots__ = ("latest", "sorted")

    def __init__(self, size: int) -> None:
        self.latest: deque[float] = deque(maxlen=size)
        self.sorted: list[float] = []

    def add(self, ratio: float) -> None:
        if len(self.latest) == self.latest.maxlen:
            del self.sorted[bisect_left(self.sorted, self.latest[0])]
        self.latest.append(ratio)
        insort(self.sorted, ratio)

    def at(self, quantile: float) -> float:
        return self.sorted[int(quantile * (len(self.sorted) - 1))]


class Calibrator:
    """Learns a correction for each model from settled calls; bounded in memory."""

    def __init__(
        self,
        *,
        quantile: float = 0.99,
        least: int = 20,
        size: int = 200,
        models: int = 1_000,
        least_tokens: int = 50,
    ) -> None:
        """Correct from the latest ``size`` calls of a model, once there are ``least``.

        Prompts below ``least_tokens`` say more about rounding than about the model. Beyond
        ``models``, the one that was longest unseen is forgotten.
        """
        self._quantile = quantile
        self._least = least
        self._size = size
        self._models = models
        self._least_tokens = least_tokens
        self._samples: OrderedDict[str, _Sample] = OrderedDict()

    def observe(self, counted: PromptCount, reported: int) -> None:
        """Note what the provider reported for a prompt that was counted.

        Bounds and the provider's own counts teach nothing; neither do prompts without a model
        or without usage.
        """
        if counted.method == "bound" or counted.remote:
            return
        if not counted.model or reported < self._least_tokens:
            return
        raw = counted.input_tokens / (1.0 + counted.margin) / counted.ratio
        if raw >= self._least_tokens:
            self._note(counted.model, reported / raw)

    def _note(self, model: str, ratio: float) -> None:
        sample = self._samples.setdefault(model, _Sample(self._size))
        self._samples.move_to_end(model)
        sample.add(min(max(ratio, _CLIP[0]), _CLIP[1]))
        while len(self._samples) > self._models:
            self._samples.popitem(last=False)

    def correction(self, model: str) -> Correction | None:
        """The correction for a model; ``None`` before enough is known."""
        sample = self._samples.get(model)
        if sample is None or len(sample.sorted) < self._least:
            return None
        return self._measured(sample)

    def _measured(self, sample: _Sample) -> Correction:
        ratio = sample.at(0.5)
        margin = sample.at(self._quantile) / ratio - 1.0
        margin = min(max(margin, LEAST_MARGIN), MOST_MARGIN)
        return Correction(ratio, margin, len(sample.sorted))

    def corrected(self, prompt: Prompt, model: str) -> Prompt:
        """The prompt with the model's correction; exact prompts stay as they are."""
        found = self.correction(model) if prompt.method == "calibrated" else None
        if found is None:
            return prompt
        return replace(prompt, ratio=found.ratio, margin=found.margin)

    def drift(self) -> dict[str, Correction]:
        """What is known of each model, exact ones too: a ratio off 1.0 is drift."""
        return {model: self._measured(sample) for model, sample in self._samples.items()}

    def dump(self) -> dict[str, Any]:
        """A JSON value that ``load`` takes: ratios in ten-thousandths, oldest first."""
        return {
            "version": 1,
            "models": {
                model: [round(ratio * 10_000) for ratio in sample.latest]
                for model, sample in self._samples.items()
            },
        }

    def load(self, value: Mapping[str, Any]) -> None:
        """Take up what ``dump`` gave; what is not of its form is left out."""
        models = value.get("models") if value.get("version") == 1 else None
        for model, ratios in models.items() if isinstance(models, Mapping) else ():
            for ratio in ratios if isinstance(ratios, list) else ():
                if isinstance(model, str) and type(ratio) is int:
                    self._note(model, ratio / 10_000)
