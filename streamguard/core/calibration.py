"""Correct estimates by what providers report: a ratio and margin per tenant and model. Pure.

The guard notes each settled call whose count was calibrated; the correction it gets back
replaces the family's ratio and margin once enough calls are known. Medians and trimmed
quantiles, so that a few odd reports (an edited prompt, a cached reply) change nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from streamguard.core.accounts import tenant_key
from streamguard.core.prompt import Prompt, PromptCount
from streamguard.core.samples import Room, Sample, Samples

LEAST_MARGIN = 0.01
MOST_MARGIN = 0.5
_CLIP = (0.25, 4.0)
"""Ratios beyond these come from another prompt than the one that was counted."""

ROOM = Room(tenants=200, keys=10, size=200)


class Correction(NamedTuple):
    """What a model's reports say: its ratio to the estimate, the margin that covers all but a
    few calls, and from how many calls that was learned.
    """

    ratio: float
    margin: float
    samples: int


class Calibrator:
    """Learns corrections from settled calls, for each tenant and model; bounded in memory.

    A tenant's own calls correct its estimates and nobody else's: prompts that were written to
    mislead the estimate mislead only who sent them.
    """

    def __init__(
        self,
        *,
        quantile: float = 0.99,
        least: int = 20,
        room: Room = ROOM,
        least_tokens: int = 50,
    ) -> None:
        """Correct from the latest calls of a model, once there are ``least``.

        Prompts below ``least_tokens`` say more about rounding than about the model.
        """
        self._quantile = quantile
        self._least = least
        self._least_tokens = least_tokens
        self._samples: Samples[float] = Samples(room)

    def observe(self, counted: PromptCount, reported: int, tenant: str = "") -> None:
        """Note what the provider reported for a tenant's prompt that was counted.

        Bounds and the provider's own counts teach nothing; neither do prompts without a model
        or without usage.
        """
        if counted.method == "bound" or counted.remote:
            return
        if not counted.model or reported < self._least_tokens:
            return
        raw = counted.input_tokens / (1.0 + counted.margin) / counted.ratio
        if raw >= self._least_tokens:
            self._note(tenant_key(tenant), counted.model, reported / raw)

    def _note(self, key: str, model: str, ratio: float) -> None:
        self._samples.add(key, model, min(max(ratio, _CLIP[0]), _CLIP[1]))

    def correction(self, model: str, tenant: str = "") -> Correction | None:
        """The correction for a tenant's calls of a model; ``None`` before enough is known."""
        sample = self._samples.get(tenant_key(tenant), model)
        if sample is None or len(sample) < self._least:
            return None
        return self._measured(sample)

    def _measured(self, sample: Sample[float]) -> Correction:
        ratio = _at(sample, 0.5)
        margin = _at(sample, self._quantile) / ratio - 1.0
        margin = min(max(margin, LEAST_MARGIN), MOST_MARGIN)
        return Correction(ratio, margin, len(sample))

    def corrected(self, prompt: Prompt, model: str, tenant: str = "") -> Prompt:
        """The prompt with the model's correction; exact prompts stay as they are."""
        found = self.correction(model, tenant) if prompt.method == "calibrated" else None
        if found is None:
            return prompt
        return replace(prompt, ratio=found.ratio, margin=found.margin)

    def drift(self, tenant: str = "") -> dict[str, Correction]:
        """What a tenant's calls tell of each model, exact ones too: a ratio off 1.0 is drift."""
        known = self._samples.of(tenant_key(tenant))
        return {model: self._measured(sample) for model, sample in known.items()}

    def dump(self) -> dict[str, Any]:
        """A JSON value that ``load`` takes: ratios in ten-thousandths, oldest first. Tenants
        are digests.
        """
        return {
            "version": 2,
            "tenants": {
                key: {
                    model: [round(ratio * 10_000) for ratio in sample.latest]
                    for model, sample in self._samples.of(key).items()
                }
                for key in self._samples
            },
        }

    def load(self, value: Mapping[str, Any]) -> None:
        """Take up what ``dump`` gave; what is not of its form is left out."""
        for key, models in _pairs(value.get("tenants") if value.get("version") == 2 else None):  # noqa: PLR2004
            for model, ratios in _pairs(models):
                for ratio in ratios if isinstance(ratios, list) else ():
                    if type(ratio) is int:
                        self._note(key, model, ratio / 10_000)


def _at(sample: Sample[float], quantile: float) -> float:
    return sample.sorted[int(quantile * (len(sample) - 1))]


def _pairs(value: Any) -> Iterator[tuple[str, Any]]:
    for key, held in value.items() if isinstance(value, Mapping) else ():
        if isinstance(key, str):
            yield key, held
