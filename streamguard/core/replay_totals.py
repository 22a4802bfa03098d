"""Adds up what a replay found. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from streamguard.core.replay import Replayed
from streamguard.limits import NANO


@dataclass(slots=True)
class Sums:
    """Calls by what came of them; tokens and nano-dollars as recorded and as replayed."""

    calls: int = 0
    refused: int = 0
    cut: int = 0
    tokens_before: int = 0
    tokens_after: int = 0
    cost_before: int = 0
    cost_after: int = 0
    unpriced: int = 0

    def add(self, found: Replayed) -> None:
        """Count one call."""
        record = found.record
        self.calls += 1
        self.refused += found.outcome == "refused"
        self.cut += found.outcome == "cut"
        self.tokens_before += record.input_tokens + record.output_tokens
        if found.outcome != "refused":
            self.tokens_after += record.input_tokens + found.output_tokens
        self.unpriced += record.cost is None
        self.cost_before += record.cost or 0
        self.cost_after += found.cost or 0

    def as_dict(self) -> dict[str, Any]:
        """The sums as JSON values; money in US dollars."""
        counts = ("calls", "refused", "cut", "tokens_before", "tokens_after", "unpriced")
        return {
            **{name: getattr(self, name) for name in counts},
            "cost_usd_before": self.cost_before / NANO,
            "cost_usd_after": self.cost_after / NANO,
        }


@dataclass(slots=True)
class Totals:
    """A replay as a whole, by a dimension's values, by limit, and by time.

    Attributes:
        by: the dimension that ``parts`` are apart by.
        step: seconds of a step of ``steps``.
        limits: limit name to how many calls it refused and cut.
    """

    by: str
    step: int
    whole: Sums = field(default_factory=Sums)
    parts: dict[str, Sums] = field(default_factory=dict)
    steps: dict[int, Sums] = field(default_factory=dict)
    limits: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, found: Replayed) -> None:
        """Count one call everywhere."""
        record = found.record
        at = int(record.at // self.step) * self.step
        part = self.parts.setdefault(record.scope.get(self.by, ""), Sums())
        for sums in (self.whole, part, self.steps.setdefault(at, Sums())):
            sums.add(found)
        if found.by is not None:
            self.limits[found.by, found.outcome] += 1

    def as_dict(self, top: int) -> dict[str, Any]:
        """The figures as JSON values; the ``top`` parts by what they lost, then by tokens."""
        ranked = sorted(
            self.parts.items(),
            key=lambda part: (-(part[1].refused + part[1].cut), -part[1].tokens_before, part[0]),
        )
        return {
            "totals": self.whole.as_dict(),
            "by": self.by,
            "top": [{self.by: name, **sums.as_dict()} for name, sums in ranked[:top]],
            "limits": [
                {"limit": name, "outcome": outcome, "calls": calls}
                for (name, outcome), calls in self.limits.most_common()
            ],
            "step": self.step,
            "series": [{"at": at, **self.steps[at].as_dict()} for at in sorted(self.steps)],
        }
