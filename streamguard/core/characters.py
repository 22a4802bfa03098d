"""Character classes as the encodings' patterns see them.

The patterns speak of Unicode letters, marks, numbers and white space. Python's ``re`` does not
know these, so text is first *classified*: each character that is not ASCII becomes a stand-in
of its class, and the patterns are written over ASCII and the stand-ins.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

BLANK = "\t\x0b\x0c \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
"""White space but for line ends, for use inside ``[…]``. Python's ``\\s`` has four more."""

SPACE = f"\r\n{BLANK}"
"""White space, for use inside ``[…]``."""

OTHER_LETTER, MARK, UNKNOWN = "ª", "\u0301", "\ufdd0"
"""Stand-ins of caseless letters, of marks, and of characters whose class is not sure."""

LONG_S = 0x17F
"""The letter that folds to ``s``: tiktoken takes it for one in a contraction, others do not."""

UNSTABLE = re.compile(
    "[^\x00-\u017e\u2000-\ua7bf\ua800-\ud7ff\ue000-\uffff\u0180-\u087f\u08a0-\u0c5b\u0c5d-\u0cdb"
    "\u0cdd-\u0cf2\u0cf4-\u0ecd\u0ecf-\u1abf\u1b00-\u1c7f\u1c90-\u1fff"
    "\U0001d300-\U0001deff\U0001e700-\U0002b738]"
)
"""Characters that tokenizer engines class differently: those that became letters, marks or
numbers in Unicode 15 to 17 (whole neighbourhoods of them), ``LONG_S``, and surrogates. The
ranges listed are those that are safe, the commonest first, which makes the search fast.
"""

_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")
_SURROGATES = re.compile("[\ud800-\udfff]+")

_STAND_INS = {
    "Lu": "A", "Lt": "A", "Ll": "a", "Lm": OTHER_LETTER, "Lo": OTHER_LETTER,
    "Mn": MARK, "Mc": MARK, "Me": MARK, "Nd": "0", "Nl": "0", "No": "0", "Cn": UNKNOWN,
}  # fmt: skip
_BLANK = re.compile(f"[{BLANK}]")


class _Classes:
    """A translation table that is worked out as characters turn up."""

    @staticmethod
    @lru_cache(maxsize=4096)
    def stand_in(code: int) -> str:
        """The character's stand-in; ASCII stands for itself."""
        character = chr(code)
        if character.isascii():
            return character
        if code == LONG_S:
            return "s"
        if UNSTABLE.match(character):
            return UNKNOWN
        if _BLANK.match(character):
            return "\t"
        return _STAND_INS.get(unicodedata.category(character), "$")

    def __getitem__(self, code: int) -> str:
        return self.stand_in(code)


_CLASSES = _Classes()


def classify(text: str) -> str:
    """The text with every character replaced by its stand-in, up to the first unsure one."""
    if text.isascii():
        return text
    return text.translate(_CLASSES).partition(UNKNOWN)[0]


def without_surrogates(text: str) -> str:
    """Surrogate pairs become the character they stand for, lone surrogates U+FFFD."""
    whole = _PAIR.sub(lambda pair: _joined(*pair[0]), text)
    return _SURROGATES.sub(lambda lone: "\ufffd" * len(lone[0]), whole)


def _joined(high: str, low: str) -> str:
    return chr(0x10000 + (ord(high) - 0xD800) * 0x400 + ord(low) - 0xDC00)
