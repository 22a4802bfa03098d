"""A prompt as the model sees it, in parts, and the count of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from streamguard.core.estimate import Weights
from streamguard.usage import Method

Component = Literal[
    "system", "few_shot", "history", "user", "tools", "response_format", "images", "files",
    "overhead",
]  # fmt: skip


class Part(NamedTuple):
    """One piece of a prompt: text to be tokenized, or a fixed number of tokens.

    ``bound`` marks a fixed number that is an upper bound and not a count (a remote image).
    """

    component: Component
    text: str = ""
    tokens: int = 0
    bound: bool = False


@dataclass(frozen=True, slots=True)
class Prompt:
    """All parts of a prompt, in order, and how exact the rendering is by nature.

    Texts are counted by ``weights`` where the model's tokenizer is not public, and scaled by
    ``ratio`` (which online calibration corrects); ``margin`` is the fraction added to texts so
    that under-counts are rare. Fixed tokens are never scaled. ``separate`` parts are prompts
    of their own (embeddings, prompt arrays): each has the context window to itself.
    """

    parts: tuple[Part, ...]
    method: Method = "exact"
    ratio: float = 1.0
    margin: float = 0.0
    weights: Weights | None = None
    separate: bool = False


@dataclass(frozen=True, slots=True)
class PromptCount:
    """Input tokens of a request and how they were counted.

    Attributes:
        input_tokens: the count that budgets are held against; the margin is in it.
        method: "exact", "calibrated" or "bound".
        margin: the fraction added over the estimate; 0.0 when exact.
        components: tokens by component: system, history, user, tools, ….
        model: the model the count is for.
        ratio: the correction in the count, 1.0 when there is none.
        at_least: the count is what the text has at the fewest; it was not tokenized, for that
            alone is too much.
        remote: the provider itself counted.
        longest: tokens of the longest prompt where the request holds several, else ``None``.
    """

    input_tokens: int
    method: Method
    margin: float = 0.0
    components: Mapping[str, int] = field(default_factory=dict)
    model: str | None = None
    ratio: float = 1.0
    longest: int | None = None
    at_least: bool = False
    remote: bool = False
