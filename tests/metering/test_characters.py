"""Character classes are those of the engines' regular expressions."""

from __future__ import annotations

import pytest
import tiktoken

from streamguard.core.characters import MARK, OTHER_LETTER, UNKNOWN, UNSTABLE, classify

CLASSES = {
    "A": r"[\p{Lu}\p{Lt}]",
    "a": r"\p{Ll}",
    OTHER_LETTER: r"[\p{Lm}\p{Lo}]",
    MARK: r"\p{M}",
    "0": r"\p{N}",
    "\t": r"\s",
}
CHARACTERS = [chr(code) for code in range(128, 0x110000) if not 0xD800 <= code < 0xE000]


def matched(pattern: str) -> set[str]:
    """All characters that tiktoken's own regex engine matches."""
    ranks = {bytes([byte]): byte for byte in range(256)}
    probe = tiktoken.Encoding("probe", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
    return set(bytes(probe.encode_ordinary("".join(CHARACTERS))).decode())


@pytest.mark.parametrize("stand_in", CLASSES)
def test_classes_are_those_of_tiktokens_regex(stand_in: str) -> None:
    theirs = matched(CLASSES[stand_in])
    for character in CHARACTERS:
        if not UNSTABLE.match(character):
            mine = classify(character)
            assert (mine == stand_in) == (character in theirs) or not mine, hex(ord(character))


def test_ascii_stands_for_itself() -> None:
    text = "".join(map(chr, range(128)))
    assert classify(text) == text


def test_text_ends_at_the_first_character_whose_class_is_not_sure() -> None:
    assert classify("aé字!") == f"aa{OTHER_LETTER}!"
    assert classify("é\U000323b0é") == "a"
    assert classify("é\ud800é") == "a"
    assert UNKNOWN not in classify("é\ufdd0é")


def test_the_long_s_is_an_s() -> None:
    assert classify("'ſ") == "'s"


def test_unstable_characters_are_rare() -> None:
    for text in (
        "Straße, naïve — “quoted”, Ελληνικά, русский, עברית, العربية, हिन्दी",
        "ไทย, 漢字, かな, 한국어, 😀👨\u200d👩\u200d👧👍🏽, ½ ² ™ ∀x∈ℝ \U0001d400 \U0001d7d8",
    ):
        assert not UNSTABLE.search(text)
    for character in "ſ\ud800\u088f\u1acf\ua7cb\U00010d40\U0001e5d0\U0002ebf0\U000323b0":
        assert UNSTABLE.match(character)
