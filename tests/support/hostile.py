"""Texts that are hard to tokenize or to cut, for Hypothesis and for plain tests."""

from __future__ import annotations

from hypothesis import strategies as st

ATOMS = (  # noqa: SIM905  # a list would be a page
    "a z A q ab aA Hello HELLO camelCase snake_case international internation don't I'm WE'LL "
    "'s 'S 're 'LL 'x '' x' 1 12 123 1234 12345 3.14 ½ ① ² Ⅷ ٣ !? ... --- === // /* {} [] () "
    '": ", <|endoftext|> <|im_start|> é ß ñandú Привет ПРИВЕТ привет 字 漢字かな カナ 你好，世界。 '
    "한국어 ไทยภาษา हिन्दी العربية 😀 😀🎉 ❤️ 👨‍👩‍👧 👍🏽 🇫🇷 ª ʰ ǅ Dž უ ქართული ្ខ ſ 's ſt 'ſ x'ſy "
    "\U00010400 \U000323b0 \u088f \U0001d400 \ue000"
).split()
BLANKS = [
    " ", "  ", "    ", "\t", "\n", "\n\n", "\r\n", "\r", " \n", "\n ", "\xa0", "\u2003", "\u2028",
    "\u3000", "\x0b", "\x0c", "\x85", "\x1c", "\x1f", "\u200b", "\ufeff", "\u0301", "e\u0301",
    "\u0301\u0308", "/", "\n/", "'",
]  # fmt: skip
SURROGATES = ["\ud800", "\udfff", "\ud83d", "\ude00", "\ud83d\ude00"]

atoms = st.sampled_from([*ATOMS, *BLANKS])
words = st.one_of(atoms, atoms, st.characters(exclude_categories=["Cs"]))
texts = st.lists(words, max_size=30).map("".join)
"""Mixed scripts without surrogates."""

any_texts = st.lists(st.one_of(words, st.sampled_from(SURROGATES)), max_size=30).map("".join)
"""The same with surrogates, alone and in pairs."""

RUNS = {
    "letter": "a", "letters": "etaoinshrdlu", "capitals": "ABCDEF", "capital": "Q",
    "spaces": " ", "tabs": "\t", "blanks": " \t\xa0\u3000", "line ends": "\n", "crlf": "\r\n",
    "signs": "=", "mixed signs": "!#$%&()*+,-.:;<=>?@[]^_`{|}~'", "slashes": "/",
    "han": "字", "chinese": "你好世界的人在有我", "thai": "ไทยภาษากำ", "hindi": "हिन्दीका",
    "marks": "\u0301", "emoji": "😀", "emojis": "😀🎉👍", "cyrillic": "привет", "long s": "ſ",
}  # fmt: skip
"""Characters whose runs are one endless pretoken in at least one encoding."""


def run(kind: str, length: int) -> str:
    """A run of exactly ``length`` characters, without a short period."""
    characters = RUNS[kind]
    return "".join(characters[(i * i + i // 7) % len(characters)] for i in range(length))


runs = st.builds(run, st.sampled_from(sorted(RUNS)), st.integers(1100, 2600))


@st.composite
def chunked(draw: st.DrawFn, source: st.SearchStrategy[str] = any_texts) -> list[str]:
    """A text in pieces, some of them empty."""
    text = draw(source)
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=12)))
    return [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
