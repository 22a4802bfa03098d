"""Answers to requests that were asked before, word for word: they cost nothing and say so."""

from __future__ import annotations

import time
from collections.abc import Callable

from streamguard.core.answers import Answer, AnswerMemory, question
from streamguard.core.billing import Spent
from streamguard.guard.settings import Cache
from streamguard.guard.subject import Subject
from streamguard.guard.teller import Teller


class Answers:
    """The cache of one guard. A tenant's answers are never given to another tenant."""

    def __init__(
        self, cache: Cache, teller: Teller, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """``clock`` is monotonic seconds."""
        self.max_answer = cache.max_answer
        self._any_temperature = cache.any_temperature
        self._memory = AnswerMemory(ttl=cache.ttl, max_bytes=cache.max_bytes)
        self._teller = teller
        self._clock = clock

    def recall(self, subject: Subject) -> Answer | None:
        """The answer to the same request of the same tenant, told of as ``cached``."""
        if not self._applies(subject):
            return None
        answer = self._memory.recall(_asked(subject), self._clock())
        if answer is not None:
            self._teller.tell("cached", subject, status=200)
        return answer

    def keep(self, subject: Subject, spent: Spent | None, answer: Answer | None) -> None:
        """Keep an answer that is whole: the provider ended it and reported its usage."""
        if answer is None or spent is None or not self._applies(subject):
            return
        if spent.outcome == "completed" and spent.reported.output_tokens is not None:
            self._memory.remember(_asked(subject), answer, self._clock())

    def _applies(self, subject: Subject) -> bool:
        """Only what is meant to have one answer, and changes nothing at the provider. Which form a
        Gemini stream has is said in the query, and not known here.
        """
        request = subject.request
        if request.array_stream:
            return False
        fixed = self._any_temperature or request.body.get("temperature") == 0
        return (
            fixed and request.produces_output and not (request.opaque or request.body.get("store"))
        )


def _asked(subject: Subject) -> bytes:
    owner = f"{subject.identity.tenant}\x00{subject.protocol.name}"
    return question(owner, subject.endpoint, subject.request.body)
