"""A tokenizer of a Hugging Face model, from a file made here."""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Reader
from tokenizers import decoders, models, pre_tokenizers

from streamguard.core.tokens import Tokenizer
from streamguard.errors import ConfigurationError
from streamguard.tokenizers.huggingface import HuggingFaceTokenizer, load_huggingface


def made():
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    pairs = [("h", "e"), ("l", "l"), ("he", "ll"), ("hell", "o")]
    words = [*letters, *("".join(pair) for pair in pairs)]
    vocab = {word: number for number, word in enumerate(words)}
    tokenizer = Reader(models.BPE(vocab=vocab, merges=pairs))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|end|>"])
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(length=8)
    return tokenizer


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "tokenizer.json"
    made().save(str(file))
    return file


def test_it_counts_whole_texts_and_no_special_tokens(path):
    tokenizer = load_huggingface(path)
    assert isinstance(tokenizer, Tokenizer)
    assert tokenizer.count("hello") == 1
    assert tokenizer.count("hello" * 10) == 10
    assert tokenizer.count("<|end|>") == 7
    assert tokenizer.count("") == 0
    assert tokenizer.max_token_bytes == len("<|end|>")
    assert repr(tokenizer) == f"<tokenizer {tokenizer.name}>"
    assert load_huggingface(str(path)).name == tokenizer.name


def test_lone_surrogates_count_as_the_replacement_character(path):
    tokenizer = load_huggingface(path)
    assert tokenizer.encode("a\ud800b") == tokenizer.encode("a\ufffdb")


KNOWN = made()
TOKENIZER = HuggingFaceTokenizer("made", KNOWN)


@given(st.text(max_size=60))
def test_ids_spell_the_text(text):
    assert KNOWN.decode(TOKENIZER.encode(text), skip_special_tokens=False) == text
    assert TOKENIZER.count(text) * TOKENIZER.max_token_bytes >= len(text.encode())


def test_errors_say_what_to_do(path, tmp_path, monkeypatch):
    with pytest.raises(ConfigurationError, match="cannot read"):
        load_huggingface(tmp_path / "absent.json")
    path.write_text("{}")
    with pytest.raises(ConfigurationError, match="not a Hugging Face"):
        load_huggingface(path)
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ConfigurationError, match=r"streamguard\[huggingface\]"):
        load_huggingface(path)
