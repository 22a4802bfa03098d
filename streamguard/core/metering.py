"""Output metering: the exact token count of a text that arrives in pieces.

A meter keeps the count of the settled part of the text and, of the text itself, only the rest.
It tokenizes lazily: a token is at least one byte, so while the UTF-8 bytes of what is not yet
counted cannot cross a limit nothing is encoded. A stream within its limit is encoded once, in
batches; one that nears its limit some ten times more, then once a piece, each time only the
unsettled rest: usually a word.

Work is linear in the text. Text that nothing settles (``runs`` says what does) is encoded anew
with each exact question; beyond ``_HOPELESS`` characters it counts as its bytes, an upper
bound. It takes a line end followed by a million blanks, or the like.

Tokenizers that rewrite text may make more than one token of a byte: their ``expansion`` then
stands for each byte in all bounds. Where the grammar is not known, nothing settles.
"""

from __future__ import annotations

from copy import copy
from typing import Self

from streamguard.core.characters import without_surrogates
from streamguard.core.prefixes import longest_prefix
from streamguard.core.pretokens import Grammar, grammar_for
from streamguard.core.runs import fold_run
from streamguard.core.tokens import NEVER, Tokenizer, expansion

_BATCH = 4096
"""Unsettled bytes that are tokenized without being asked: some 20 µs of work."""

_LONG = 1024
"""Characters without a settled position after which the slow finders are tried."""

_HOPELESS = 1_000_000


def utf8_bytes(text: str) -> int:
    """UTF-8 bytes of the text; a surrogate counts as the three bytes of U+FFFD."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


class TextMeter:
    """Counts one run of text, piece by piece. Pure; not safe to share between threads.

    Attributes:
        upper: an upper bound of ``count`` that costs nothing to read: settled tokens and the
            bytes of the rest. (The count of the rest and the bytes of what comes would be none:
            "import" is one token, "importr" three.)
    """

    __slots__ = (
        "_due",
        "_exact",
        "_expansion",
        "_grammar",
        "_open",
        "_patience",
        "_pending",
        "_searched",
        "_settled",
        "_tokenizer",
        "upper",
    )

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._expansion = expansion(tokenizer)
        self._grammar = grammar_for(tokenizer.name)
        self._settled = 0  # tokens; may include minus those of a lead in _open
        self._open = ""  # the unsettled rest
        self._searched = 0  # characters of _open without a settled pair
        self._patience = _LONG  # length of _open at which to try the slow finders
        self._pending: list[str] = []  # fed, not yet in _open
        self._exact: int | None = 0
        self._due = _BATCH
        self.upper = 0

    def feed(self, text: str) -> None:
        """Add text. Costs a tenth of a microsecond; every 4 KB a batch is tokenized."""
        if not text:
            return
        self._pending.append(text)
        self._exact = None
        self.upper += (len(text) if text.isascii() else utf8_bytes(text)) * self._expansion
        if self.upper > self._due:
            self.settle()

    @property
    def count(self) -> int:
        """Tokens of all text fed so far, exactly."""
        if self._exact is None:
            self.settle()
            self._exact = self._settled + self._tokenizer.count(self._open)
        return self._exact

    def would_exceed(self, limit: int, text: str = "") -> bool:
        """Whether all text fed and ``text`` together are over ``limit`` tokens, exactly.

        Decides by bounds where they suffice. Does not feed ``text``.
        """
        size = (len(text) if text.isascii() else utf8_bytes(text)) * self._expansion
        return self.upper + size > limit and self._exceeds(limit, text, size)

    def _exceeds(self, limit: int, text: str, size: int) -> bool:
        self.settle()
        if self.upper + size <= limit:
            return False
        characters = len(self._open) + len(text)
        longest = self._tokenizer.max_token_bytes
        if longest < NEVER and self._settled + characters / longest > limit:
            return True
        if len(text) > _BATCH:
            return self._exceeds_long(limit, text)
        return self._settled + self._tokenizer.count(self._open + text) > limit

    def _exceeds_long(self, limit: int, text: str) -> bool:
        """Count a long text in batches, no further than the answer needs."""
        ahead = self.copy()
        for start in range(0, len(text), _BATCH):
            ahead.feed(text[start : start + _BATCH])
            if ahead.lower > limit:
                return True
        return ahead.count > limit

    def take(self, text: str, limit: int) -> str:
        """The longest prefix of ``text`` that keeps everything within ``limit`` tokens.

        Of *all* prefixes the longest: a longer text may have fewer tokens ("internation" has
        two, "international" one). Never cuts a surrogate pair. Empty when nothing fits.
        Does not feed what it takes.
        """
        if not self.would_exceed(limit, text):
            return text
        return longest_prefix(self, text, limit)

    @property
    def lower(self) -> int:
        """Tokens that are settled: however the text goes on, there are no fewer."""
        return self._settled

    @property
    def nearly(self) -> int:
        """``count`` for a look from outside: leaves the meter as it is, and is ``upper`` where
        counting would take long.
        """
        unsettled = self.upper - self._settled
        return self.copy().count if unsettled <= 4 * _BATCH * self._expansion else self.upper

    def copy(self) -> Self:
        """A meter that goes on from here on its own."""
        other = copy(self)
        other._pending = self._pending.copy()  # noqa: SLF001
        return other

    def settle(self) -> None:
        """Fold the settled part of the text into a number; tightens ``upper`` and ``lower``."""
        if self._pending:
            self._open = _mend(self._open + "".join(self._pending))
            self._pending.clear()
            if self._grammar is not None:
                self._settle_pairs(self._grammar)
            self.upper = self._settled + utf8_bytes(self._open) * self._expansion
            self._due = self.upper + _BATCH * self._expansion

    def _settle_pairs(self, grammar: Grammar) -> None:
        self._settle_to(grammar.settled(self._open, max(0, self._searched - 1)))
        if len(self._open) > self._patience:
            self._settle_long(grammar)
        self._searched = len(self._open)

    def _settle_to(self, position: int) -> None:
        if position:
            self._settled += self._tokenizer.count(self._open[:position])
            self._open = self._open[position:]
            self._patience = _LONG

    def _settle_long(self, grammar: Grammar) -> None:
        """Try the slow finders; if they fail, not again until the text is a quarter longer."""
        self._settle_to(grammar.scanned(self._open))
        if len(self._open) > _LONG:
            fold = fold_run(self._tokenizer, self._open)
            if fold is not None:
                self._settled += fold.tokens
                self._open = fold.lead + self._open[fold.position :]
        if len(self._open) > _HOPELESS:
            self._settled += utf8_bytes(self._open)
            self._open = ""
        self._patience = max(_LONG, len(self._open) * 5 // 4)


def _mend(text: str) -> str:
    """Surrogates as the characters they count as, but for one that may yet become a pair."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        last = text[-1:] if "\ud800" <= text[-1] <= "\udbff" else ""
        return without_surrogates(text[: len(text) - len(last)]) + last
    return text
