"""Remembers a response for requests that come again word for word, where the guard does so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from streamguard.core.answers import Answer
from streamguard.guard.answer_cache import Answers
from streamguard.guard.call import Call
from streamguard.guard.context import current_call
from streamguard.guard.subject import Subject

_REPEATED = ("content-type", "x-streamguard-model", "x-streamguard-trimmed")


class Memo:
    """One request's. Inside a guarded request it does nothing: there the middleware remembers.

    Attributes:
        wanted: whether ``add`` has any use.
    """

    def __init__(self, answers: Answers | None, subject: Subject) -> None:
        self._answers = answers if current_call.get() is None else None
        self._subject = subject
        self._parts: list[bytes] = []
        self._left = -1 if self._answers is None else self._answers.max_answer
        self.wanted = self._answers is not None

    def recall(self) -> Answer | None:
        """The answer to the same request before."""
        return None if self._answers is None else self._answers.recall(self._subject)

    def add(self, part: bytes) -> None:
        """Note what was handed on, while it is small enough to be kept."""
        if self._left >= 0:
            self._left -= len(part)
            self._parts.append(part)

    def keep(self, call: Call, headers: Mapping[str, str]) -> None:
        """Keep the response of a call that has ended."""
        if self._answers is not None and self._left >= 0:
            pairs = [(name.encode(), headers.get(name, "").encode()) for name in _REPEATED]
            kept = tuple(pair for pair in pairs if pair[1])
            self._answers.keep(self._subject, call.spent, Answer(kept, b"".join(self._parts)))


def again(answer: Answer, request_id: str, web: Any) -> Any:
    """A remembered answer as a response of the client's library, marked as such."""
    marks = [(b"x-streamguard-cache", b"hit"), (b"x-streamguard-request-id", request_id.encode())]
    return web.Response(200, headers=[*answer.headers, *marks], content=answer.body)
