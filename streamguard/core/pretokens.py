"""Where text can be cut so that each part is tokenized as if it were alone.

Both o200k and cl100k first cut text into *pretokens* with a regular expression and then merge
bytes inside each pretoken. A position ``p`` is **settled** when for every continuation ``X``
the tokens of ``text + X`` are the tokens of ``text[:p]`` followed by those of ``text[p:] + X``.
"""

from __future__ import annotations

import re

_BLANK = "\t\x0b\x0c \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_SPACE = f"\r\n{_BLANK}"
_PUNCTUATION = r"!-/:-@\[-`{-~"
_HAN = "\u3041-\u3096\u30a1-\u30fa\u4e00-\u9fa5\uac00-\ud7a3"
_HAN_PUNCTUATION = "\u3001-\u3003\u3008-\u3011\uff01-\uff0f\uff1a-\uff20"

_COMMON = (
    rf"[^{_SPACE}](?=[{_BLANK}])"
    rf"|[\r\n](?=[^{_SPACE}/])"
    rf"|[A-Za-z{_HAN}](?=[\r\n!-&(-@\[-`{{-~{_HAN_PUNCTUATION}])"
    rf"|[0-9](?=[\r\nA-Za-z{_PUNCTUATION}{_HAN}{_HAN_PUNCTUATION}])"
    rf"|[{_PUNCTUATION}{_HAN_PUNCTUATION}](?=[0-9])"
)
_CAMEL = "|(?<!')[a-z](?=[A-Z])"


class Grammar:
    """Finds settled positions under one encoding's pretoken rules."""

    __slots__ = ("_last",)

    def __init__(self, pairs: str) -> None:
        """``pairs`` matches a character before a settled position and looks at the next."""
        self._last = re.compile(f"(?s:.*)(?:{pairs})").match

    def settled(self, text: str) -> int:
        """The last settled position that two neighbouring characters prove; 0 if none."""
        match = self._last(text)
        return match.end() if match else 0


_CL100K = Grammar(_COMMON)
_O200K = Grammar(_COMMON + _CAMEL)
_GRAMMARS = {"o200k_base": _O200K, "o200k_harmony": _O200K, "cl100k_base": _CL100K}


def grammar_for(encoding: str) -> Grammar | None:
    """The rules of an encoding; ``None`` for encodings whose rules are not known."""
    return _GRAMMARS.get(encoding)
