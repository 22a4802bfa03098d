"""What calls teach: how long outputs are, so that less is held, and how the provider counts."""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace

from streamguard.core.billing import Spent
from streamguard.core.calibration import Calibrator
from streamguard.core.fund import SLACK
from streamguard.core.json_text import as_map
from streamguard.core.learning import OutputLearner
from streamguard.core.samples import latest
from streamguard.core.wire import Request
from streamguard.guard.bookkeeper import Bookkeeper
from streamguard.guard.notebook import Notebook
from streamguard.guard.settings import Settings, thinks_unseen
from streamguard.guard.subject import Assessment
from streamguard.usage import Usage

HEAD_START = 512
"""Output tokens held beyond the usual, so that a usual stream never comes near a top-up: what is
left is judged by bytes, and a chunk has many more of them than tokens."""

_HIDES = re.compile(
    r"gemini-(?:[2-9]\.5|[3-9]|(?:pro|flash|flash-lite)-latest)|grok-[4-9]|grok-3-mini"
)
_ASKS_TO_HIDE = (
    "reasoning", "reasoning_effort", "reasoning_format", "include_reasoning", "thinking",
    "thinkingConfig", "thinking_config", "prediction", "best_of", "extra_body",
)  # fmt: skip
_FEW = 64
_MODELS = 1_000


def may_hide(request: Request) -> bool:
    """Whether the provider may bill output that the stream does not show, thoughts or drafts, by
    the model's name or because the body asks for them.
    """
    body = request.body
    names = [name.lower().rpartition("/")[2] for name in request.models]
    if any(thinks_unseen(name) or _HIDES.match(name) for name in names):
        return True
    configs = [as_map(body.get(name)) for name in ("generationConfig", "generation_config")]
    return any(each.get(name) is not None for each in (body, *configs) for name in _ASKS_TO_HIDE)


class Learning:
    """Learns outputs by tenant, model and feature; a call that can be topped up holds the usual.

    What it learns of prompts is kept in the store.
    """

    def __init__(
        self,
        settings: Settings,
        books: Bookkeeper,
        calibrator: Calibrator,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``clock`` is monotonic seconds."""
        self._on = settings.adaptive_reserve
        self._outputs = OutputLearner()
        self._hiding: OrderedDict[str, bool] = OrderedDict()
        self._prompts = calibrator
        self._notebook = Notebook(books, calibrator, clock)

    async def load(self) -> None:
        """Take up what was learnt before."""
        await self._notebook.load()

    async def save(self) -> None:
        """Keep what was learnt since the last save."""
        await self._notebook.save()

    def learn(self, assessment: Assessment, spent: Spent, usage: Usage) -> None:
        """Note what the provider says of the prompt, and how long the output was: one that was
        broken off says nothing.
        """
        subject = assessment.subject
        if spent.reported.input_tokens is not None:
            tenant = subject.identity.tenant or ""
            self._prompts.observe(assessment.count, spent.reported.input_tokens, tenant)
            self._notebook.changed()
        thought, seen = spent.reported.reasoning_tokens, spent.counted.reasoning_tokens
        if (thought or 0) > (seen or 0) + _FEW:
            latest(self._hiding, subject.request.model, True, _MODELS)
        if spent.outcome in ("completed", "cut") and usage.output_tokens is not None:
            self._outputs.learn(*subject.kind, usage.output_tokens)

    def adapted(self, assessment: Assessment) -> Assessment:
        """The call with the usual output as its first hold, and the whole as its ceiling. Output
        that does not pass the meter cannot be topped up for: where there may be some, all is held.
        """
        request, terms = assessment.subject.request, assessment.terms
        fixed = not self._on or not request.stream or not terms.demands
        if fixed or request.model in self._hiding or may_hide(request):
            return assessment
        usual = self._outputs.estimate(*assessment.subject.kind)
        first = max(usual or terms.want, terms.least) + SLACK + HEAD_START
        if first >= terms.want:
            return assessment
        first_terms = replace(terms, want=first, least=min(first, terms.least + SLACK))
        return replace(assessment, terms=first_terms, ceiling=terms.want)


def with_slack(assessment: Assessment) -> Assessment:
    """Where the provider cannot be held to a cap, the chunk that is cut must be held too."""
    terms = assessment.terms
    if assessment.subject.steered or not terms.demands or not terms.want:
        return assessment
    if assessment.ceiling:  # the first hold has it
        return replace(assessment, ceiling=assessment.ceiling + SLACK)
    more = replace(terms, want=terms.want + SLACK, least=terms.least + SLACK)
    return replace(assessment, terms=more)
