"""What the calls made inside one attempt of a retry loop sent and handed on."""

from __future__ import annotations

from contextvars import ContextVar

from streamguard.guard.subject import Subject


class Tally:
    """Tokens of all attempts of one retry loop, and whether output left it.

    Attributes:
        tokens: prompts sent and output received, whether the provider bills them or not.
        last_prompt: tokens of the prompt sent last; the next attempt costs as much again.
        handed_on: output was given to the code around, which may have passed it on.
        subject: the request tried last.
    """

    def __init__(self, outer: Tally | None = None) -> None:
        """Tokens count for the loop around this one as well."""
        self.tokens = 0
        self.last_prompt = 0
        self.handed_on = False
        self.subject: Subject | None = None
        self._outer = outer

    def tried(self, subject: Subject) -> None:
        """A request came to the guard."""
        self.subject = subject
        if self._outer is not None:
            self._outer.tried(subject)

    def sent(self, input_tokens: int) -> None:
        """A prompt went out."""
        self.tokens += input_tokens
        self.last_prompt = input_tokens
        if self._outer is not None:
            self._outer.sent(input_tokens)

    def received(self, output_tokens: int) -> None:
        """Output came back."""
        self.tokens += output_tokens
        if self._outer is not None:
            self._outer.received(output_tokens)

    def hand_on(self) -> None:
        """Output was given to the code around."""
        self.handed_on = True
        if self._outer is not None:
            self._outer.hand_on()


current_tally: ContextVar[Tally | None] = ContextVar("streamguard_tally", default=None)
"""The retry loop around this code."""
