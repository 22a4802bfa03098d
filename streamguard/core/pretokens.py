r"""Where text can be cut so that each part is tokenized as if it were alone.

The encodings first cut text into *pretokens* with a regular expression (leftmost, first
alternative that matches) and then merge bytes inside each pretoken. A position ``p`` of ``text``
is **settled** when for every continuation ``X`` the tokens of ``text + X`` are those of
``text[:p]`` alone followed by those of ``text[p:] + X`` alone.

``p`` is settled if (1) it is an edge of a pretoken of ``text + X`` for every ``X``, and (2) the
matches before ``p`` stay the same when the text ends at ``p``. The right side needs no
condition: no pattern looks behind. (2) follows from (1) unless ``p`` comes after a blank:
ending the text earlier only takes choices away from the matcher, and the only assertions,
``(?!\S)`` and ``$``, are tried after white space. After a line end they do no harm: the white
space up to the last line end is one match either way. Both finders below keep to that.

*Pairs*: neighbours that no pretoken holds together, whatever is around them. (a) no space, then
a blank: only the first character of a pretoken, or white space, comes before a blank. (b) a
line end, then no space: only ``[\r\n/]*`` goes on after a line end, so not before ``/``. (c) a
letter, then a line end or a punctuation mark: only ``'`` goes on after a letter. (d) a digit and
anything that is no number, either way round: pretokens with numbers hold only numbers. (e)
o200k: a lower-case and an upper-case letter, but for contractions such as ``'rE``. They are
spelled with characters whose class is certain.

*Scan*: the pattern itself, over classified characters. A match is the same for every ``X`` when
the matcher looked at nothing beyond ``text``. Beyond the end of its match it looks at most at a
run of white space, in o200k also of upper-case letters (it gives back what it took too many),
and at three characters after (a contraction). So matches that end before or where a last such
run starts are final: to look into the run the matcher must have been in it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from streamguard.core.characters import BLANK, MARK, OTHER_LETTER, SPACE, classify

_PUNCTUATION = r"!-/:-@\[-`{-~"
_HAN = "\u3041-\u3096\u30a1-\u30fa\u4e00-\u9fa5\uac00-\ud7a3"
_HAN_PUNCTUATION = "\u3001-\u3003\u3008-\u3011\uff01-\uff0f\uff1a-\uff20"

_PAIRS = (
    rf"[^{SPACE}](?=[{BLANK}])"
    rf"|[\r\n](?=[^{SPACE}/])"
    rf"|[A-Za-z{_HAN}](?=[\r\n!-&(-@\[-`{{-~{_HAN_PUNCTUATION}])"
    rf"|[0-9](?=[\r\nA-Za-z{_PUNCTUATION}{_HAN}{_HAN_PUNCTUATION}])"
    rf"|[{_PUNCTUATION}{_HAN_PUNCTUATION}](?=[0-9])"
)
_CAMEL = "|(?<!')[a-z](?=[A-Z])"

# The patterns of tokenizers/encodings.py over classified text.
_S = r"\t-\r "
_UPPER = f"A-Z{OTHER_LETTER}{MARK}"
_LOWER = f"a-z{OTHER_LETTER}{MARK}"
_LETTER = f"A-Za-z{OTHER_LETTER}"
_PREFIX = rf"[^\r\n{_LETTER}0-9]?"
_CONTRACTION = "(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
_O200K_SCAN = (
    rf"{_PREFIX}[{_UPPER}]*[{_LOWER}]+{_CONTRACTION}"
    rf"|{_PREFIX}[{_UPPER}]+[{_LOWER}]*{_CONTRACTION}"
    r"|[0-9]{1,3}"
    rf"| ?[^{_S}{_LETTER}0-9]+[\r\n/]*"
    rf"|[{_S}]*[\r\n]+|[{_S}]+(?![^{_S}])|[{_S}]+"
)
_CL100K_SCAN = (
    rf"'(?i:[sdmt]|ll|ve|re)|{_PREFIX}+[{_LETTER}]++"
    rf"|[0-9]{{1,3}}+| ?[^{_S}{_LETTER}0-9]++[\r\n]*+"
    rf"|[{_S}]++$|[{_S}]*[\r\n]|[{_S}]+(?![^{_S}])|[{_S}]"
)
_BLANKS = "\t\x0b\x0c "
_SPACES = _BLANKS + "\r\n"
_UPPER_LETTERS = f"ABCDEFGHIJKLMNOPQRSTUVWXYZ{OTHER_LETTER}{MARK}"
_LOOKAHEAD = 3


@dataclass(frozen=True, slots=True)
class Grammar:
    """One encoding's pretoken rules.

    Attributes:
        pairs: matches up to the last settled position that neighbours prove.
        scan: the encoding's pattern over classified text.
        runs: sets of characters; what is in a run of one of them may be given back later.
    """

    pairs: re.Pattern[str]
    scan: re.Pattern[str]
    runs: tuple[str, ...]

    def settled(self, text: str, start: int = 0) -> int:
        """The last settled position at or after ``start`` that neighbours prove; 0 if none."""
        match = self.pairs.match(text, start)
        return match.end() if match else 0

    def scanned(self, text: str) -> int:
        """The last settled position that the pattern itself proves; slow, thorough; 0 if none.

        ``text`` must start at a settled position.
        """
        classes = classify(text)
        body = classes[:-_LOOKAHEAD]
        stop = min(len(body.rstrip(run)) for run in self.runs)
        last = 0
        for match in self.scan.finditer(classes):
            end = match.end()
            if end > stop:
                break
            if classes[end - 1] not in _BLANKS:
                last = end
        return last


def _grammar(pairs: str, scan: str, *runs: str) -> Grammar:
    return Grammar(re.compile(f"(?s:.*)(?:{pairs})"), re.compile(scan), runs)


_CL100K = _grammar(_PAIRS, _CL100K_SCAN, _SPACES)
_O200K = _grammar(_PAIRS + _CAMEL, _O200K_SCAN, _SPACES, _UPPER_LETTERS)
_GRAMMARS = {"o200k_base": _O200K, "o200k_harmony": _O200K, "cl100k_base": _CL100K}


def grammar_for(encoding: str) -> Grammar | None:
    """The rules of an encoding; ``None`` for encodings whose rules are not known."""
    return _GRAMMARS.get(encoding)
