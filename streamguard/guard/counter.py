"""Counts prompts with the model's tokenizer, off the event loop when they are big."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import anyio
import anyio.to_thread

from streamguard.core.calibration import Calibrator
from streamguard.core.count_cache import CountCache
from streamguard.core.counting import CountText, count_least, count_prompt, with_own_tokenizer
from streamguard.core.prompt import Prompt, PromptCount
from streamguard.core.samples import latest
from streamguard.core.sampling import SampledCounts
from streamguard.guard.counts import CountRemote
from streamguard.guard.settings import Settings
from streamguard.guard.subject import Subject
from streamguard.tokenizers.own import Tokenizers

BIG = 32_768
"""Size above which a prompt is rendered and counted in a thread: some 0.3 ms of work."""

_MARGIN = 0.05
"""What a sampled estimate adds."""

_SAMPLED_TENANTS = 1_000

_MESSAGE = 64  # what one message costs beside its text, in characters


class Counted(NamedTuple):
    """A rendered prompt and its count."""

    prompt: Prompt
    result: PromptCount


class PromptCounter:
    """Counts prompts; parts seen before (system prompts, earlier turns) come from a cache.

    Attributes:
        tokenizers: of the models, a user's own first.
        calibrator: corrects estimates by what providers report.
        remote_failures: how often the provider was asked for a count and gave none in time.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        """Count as the settings say."""
        self._settings = settings or Settings()
        self._sampled = self._settings.counting == "sampled"
        self._cache = CountCache()
        self._samples: OrderedDict[str, SampledCounts] = OrderedDict()
        self.tokenizers = Tokenizers(self._settings.tokenizers)
        self.calibrator = Calibrator()
        self.remote_failures = 0

    async def count(self, subject: Subject, most: int | None = None) -> Counted:
        """The prompt's tokens for the request's model.

        A text that surely has more than ``most`` tokens is not tokenized; the count is then the
        fewest it can have. Where the settings have somebody to ask, estimates and bounds are
        replaced by the provider's own count.

        Raises:
            ProtocolError: the body cannot be rendered.
        """
        await self.tokenizers.warm_up(subject.request.model)
        if self._settings.observe or self._settings.fit is not None:
            most = None  # the call goes on, and needs the count
        if (subject.size or weight(subject.request.body)) > BIG:
            counted = await anyio.to_thread.run_sync(self._count, subject, most)
        else:
            counted = self._count(subject, most)
        ask = self._settings.count_remote
        if ask is None or counted.result.method == "exact" or counted.result.at_least:
            return counted
        return await self._asked(ask, subject, counted)

    def _count(self, subject: Subject, most: int | None) -> Counted:
        model, tenant = subject.request.model, subject.identity.tenant or ""
        prompt = subject.protocol.prompt(subject.request)
        if self.tokenizers.path_of(model) is not None:
            prompt = with_own_tokenizer(prompt)
        prompt = self.calibrator.corrected(prompt, model, tenant)
        tokenizer = self.tokenizers.for_model(model).tokenizer
        count = None if most is None else count_least(prompt, tokenizer)
        if count is None or most is None or count.input_tokens <= most:
            count = count_prompt(prompt, tokenizer, self._texts(tenant))
            if self._sampled and count.method == "exact":
                count = replace(count, method="calibrated", margin=_MARGIN)
        return Counted(prompt, replace(count, model=model))

    def _texts(self, tenant: str) -> CountText:
        """What counts texts: a cache for everybody, or a tenant's own samples."""
        if not self._sampled:
            return self._cache
        return latest(self._samples, tenant, SampledCounts(margin=_MARGIN), _SAMPLED_TENANTS)

    async def _asked(self, ask: CountRemote, subject: Subject, counted: Counted) -> Counted:
        """The provider's count, which also corrects the estimates to come."""
        tokens = None
        try:
            with anyio.fail_after(self._settings.count_remote_seconds):
                tokens = await ask(subject.request)
        except Exception:  # noqa: BLE001 - a user's callable; the estimate stands
            self.remote_failures += 1
        if type(tokens) is not int or tokens < 0:
            return counted
        self.calibrator.observe(counted.result, tokens, subject.identity.tenant or "")
        return Counted(counted.prompt, told(counted.result, tokens))


def told(count: PromptCount, tokens: int) -> PromptCount:
    """A count that the provider gave; the components share it as they share the estimate."""
    whole, running = max(1, count.input_tokens), 0
    components = {}
    for name, part in count.components.items():
        before, running = running, running + part
        components[name] = running * tokens // whole - before * tokens // whole
    return replace(
        count,
        input_tokens=tokens,
        method="calibrated",
        margin=0.0,
        ratio=1.0,
        components=components,
        remote=True,
        longest=None if count.longest is None else tokens,
    )


def weight(body: Mapping[str, Any]) -> int:
    """About how many characters of prompt a body holds; cheap, for bodies that came decoded."""
    total = 0
    for key in ("messages", "input", "contents", "prompt"):
        turns = body.get(key)
        if isinstance(turns, str):
            total += len(turns)
        elif isinstance(turns, list):
            total += sum(_weight_of(turn) for turn in turns)
    return total


def _weight_of(turn: Any) -> int:
    content = turn.get("content", turn.get("parts")) if isinstance(turn, dict) else turn
    if isinstance(content, str):
        return _MESSAGE + len(content)
    if isinstance(content, list):
        return _MESSAGE + sum(
            len(text)
            for part in content
            if isinstance(part, dict) and isinstance(text := part.get("text", ""), str)
        )
    return _MESSAGE
