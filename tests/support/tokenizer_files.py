"""Tokenizers in files of Hugging Face's form, made here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

PAIRS = [("h", "e"), ("l", "l"), ("he", "ll"), ("hell", "o")]


def byte_level(normalizer: Any = None, *, prefix: bool = False) -> Tokenizer:
    """A byte-level BPE that knows "hello"."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*letters, *("".join(pair) for pair in PAIRS)]
    vocab = {word: number for number, word in enumerate(words)}
    made = Tokenizer(models.BPE(vocab=vocab, merges=PAIRS))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    if normalizer is not None:
        made.normalizer = normalizer
    return made


def fallback(normalizer: Any, *, space: bool) -> Tokenizer:
    """A BPE of characters that falls back to bytes, as SentencePiece's does."""
    words = [f"<0x{byte:02X}>" for byte in range(256)] + ["▁"] * space
    vocab = {word: number for number, word in enumerate(words)}
    made = Tokenizer(models.BPE(vocab=vocab, merges=[], byte_fallback=True))
    made.normalizer = normalizer
    return made


def saved(made: Tokenizer, folder: Path, name: str = "tokenizer.json") -> Path:
    """The tokenizer in a file."""
    path = folder / name
    made.save(str(path))
    return path


LLAMA_2 = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
KINDS = {
    "plain": byte_level(),
    "prefix": byte_level(prefix=True),
    "nfc": byte_level(normalizers.NFC()),
    "nfkc": byte_level(normalizers.NFKC()),
    "nfkd": byte_level(normalizers.NFKD()),
    "lower": byte_level(normalizers.Lowercase()),
    "longer": byte_level(normalizers.Replace("a", "banana")),
    "bert": byte_level(normalizers.BertNormalizer()),
    "llama-2": fallback(LLAMA_2, space=True),
    "no-space": fallback(LLAMA_2, space=False),
}
