"""The encodings this package knows: their patterns, special tokens and checksums.

Source: ``tiktoken_ext/openai_public.py`` of tiktoken 0.14. The checksum is that of the published
``.tiktoken`` file (base64 of each token, a space, its rank, a newline).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from streamguard.errors import ConfigurationError

_CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
_UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_O200K_PATTERN = "|".join(
    [
        rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{_CONTRACTION}",
        rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{_CONTRACTION}",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    ]
)
_CL100K_PATTERN = (
    r"'(?i:[sdmt]|ll|ve|re)"
    r"|[^\r\n\p{L}\p{N}]?+\p{L}++"
    r"|\p{N}{1,3}+"
    r"| ?[^\s\p{L}\p{N}]++[\r\n]*+"
    r"|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
)
_HARMONY_TOKENS = {
    "<|startoftext|>": 199_998,
    "<|endoftext|>": 199_999,
    "<|return|>": 200_002,
    "<|constrain|>": 200_003,
    "<|channel|>": 200_005,
    "<|start|>": 200_006,
    "<|end|>": 200_007,
    "<|message|>": 200_008,
    "<|call|>": 200_012,
    "<|endofprompt|>": 200_018,
}


def _harmony_specials() -> dict[str, int]:
    taken = set(_HARMONY_TOKENS.values()) - {200_018}
    reserved = (number for number in range(200_000, 201_088) if number not in taken)
    return {f"<|reserved_{number}|>": number for number in reserved} | _HARMONY_TOKENS


@dataclass(frozen=True, slots=True)
class EncodingSpec:
    """One encoding.

    Attributes:
        name: as OpenAI calls it.
        vocabulary: the name of the vocabulary file, shared by encodings with the same ranks.
        sha256: of the published ``.tiktoken`` file of that vocabulary.
        pattern: the regular expression that cuts text into pretokens.
        special_tokens: text and id; never produced here, since all text is ordinary.
        max_token_bytes: UTF-8 bytes of the longest token.
    """

    name: str
    vocabulary: str
    sha256: str
    pattern: str
    special_tokens: Mapping[str, int]
    max_token_bytes: int = 128


_O200K_SHA256 = "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d"
_CL100K_SHA256 = "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7"
_SPECS = (
    EncodingSpec(
        "o200k_base",
        "o200k_base",
        _O200K_SHA256,
        _O200K_PATTERN,
        {"<|endoftext|>": 199_999, "<|endofprompt|>": 200_018},
    ),
    EncodingSpec("o200k_harmony", "o200k_base", _O200K_SHA256, _O200K_PATTERN, _harmony_specials()),
    EncodingSpec(
        "cl100k_base",
        "cl100k_base",
        _CL100K_SHA256,
        _CL100K_PATTERN,
        {
            "<|endoftext|>": 100_257,
            "<|fim_prefix|>": 100_258,
            "<|fim_middle|>": 100_259,
            "<|fim_suffix|>": 100_260,
            "<|endofprompt|>": 100_276,
        },
    ),
)
ENCODINGS: Mapping[str, EncodingSpec] = {spec.name: spec for spec in _SPECS}
"""Every encoding by name."""

NEWEST = "o200k_base"
"""What an unknown model is counted with."""


def encoding_spec(name: str) -> EncodingSpec:
    """Look an encoding up by name.

    Raises:
        ConfigurationError: no such encoding; the message lists those there are.
    """
    try:
        return ENCODINGS[name]
    except KeyError:
        known = ", ".join(ENCODINGS)
        message = f"there is no encoding {name!r}; use one of {known}"
        raise ConfigurationError(message) from None
