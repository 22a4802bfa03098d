"""A user's own tokenizers: found by name or pattern, and never believed to be what they are not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.tokenizer_files import KINDS, byte_level, saved
from tokenizers import Tokenizer as Reader
from tokenizers import models, pre_tokenizers

from streamguard.core.bounds import fits, least_tokens
from streamguard.core.metering import TextMeter, utf8_bytes
from streamguard.core.streams import StreamMeter
from streamguard.core.tokens import NEVER, expansion
from streamguard.errors import ConfigurationError
from streamguard.protocols import stream_named
from streamguard.tokenizers.huggingface import HuggingFaceTokenizer, bounds_of, tokenizer_at
from streamguard.tokenizers.own import Tokenizers
from streamguard.tokenizers.registry import get_tokenizer

OWN = {name: HuggingFaceTokenizer(name, made) for name, made in KINDS.items()}
NASTY = st.text(st.sampled_from("aA \n\t.hello\u0130\ufdfa\u0958\U0001d160\u4e2de\u0301\u1f82"))
TEXTS = st.text(max_size=40) | NASTY


@pytest.mark.parametrize("name", list(OWN))
@given(text=TEXTS)
def test_the_bounds_hold(name, text):
    tokenizer = OWN[name]
    tokens, size = tokenizer.count(text), utf8_bytes(text)
    assert least_tokens(size, tokenizer) <= tokens
    assert tokens <= size * expansion(tokenizer)
    assert fits(size, tokens, tokenizer) is not False
    assert fits(size, tokens - 1, tokenizer) is not True


@pytest.mark.parametrize("name", list(OWN))
@given(pieces=st.lists(TEXTS, max_size=6), limit=st.integers(0, 60))
def test_the_meter_is_exact_with_any_tokenizer(name, pieces, limit):
    tokenizer = OWN[name]
    meter = TextMeter(tokenizer)
    fed = ""
    for piece in pieces:
        assert meter.would_exceed(limit, piece) == (tokenizer.count(fed + piece) > limit)
        kept = meter.take(piece, limit)
        if kept:
            assert tokenizer.count(fed + kept) <= limit
        meter.feed(piece)
        fed += piece
        assert meter.upper >= meter.nearly == meter.count == tokenizer.count(fed)


def test_a_stream_of_letters_that_make_many_tokens_is_cut_in_time():
    """U+FDFA is three bytes and, normalized, eighteen characters in thirty-three bytes."""
    tokenizer = OWN["nfkc"]
    one = tokenizer.count("\ufdfa")
    assert one > utf8_bytes("\ufdfa")
    meter = StreamMeter(stream_named("plain")(), tokenizer, 10 * one)
    assert meter.most(3) == 3 * tokenizer.expansion >= one
    out = b"".join(meter.feed("\ufdfa".encode()) for _ in range(30))
    assert meter.cut
    assert out.decode() == "\ufdfa" * 10
    assert meter.counted == 10 * one


def test_what_a_file_says_of_bounds():
    assert bounds_of({}) == (1, False)
    assert OWN["plain"].expansion == expansion(get_tokenizer("o200k_base")) == 1
    assert OWN["plain"].max_token_bytes == len("hello")
    assert OWN["nfc"].max_token_bytes == NEVER
    assert OWN["nfc"].expansion == 3
    assert OWN["llama-2"].expansion == 2
    strange = {"normalizer": {"type": "Of tomorrow"}, "model": {"type": "BPE"}}
    assert bounds_of(strange) == (64, False)
    metaspace = {"pre_tokenizer": {"type": "Metaspace"}, "model": {"type": "Unigram"}}
    assert bounds_of(metaspace) == (6, False)


def test_unknown_words_may_be_one_token_of_any_length():
    made = Reader(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = HuggingFaceTokenizer("words", made)
    assert tokenizer.count("x" * 10_000) == 1
    assert fits(10_000, 5, tokenizer) is None


def test_names_go_before_patterns_and_patterns_in_order(tmp_path):
    first = saved(byte_level(), tmp_path, "first.json")
    second = saved(byte_level(prefix=True), tmp_path, "second.json")
    own = Tokenizers({"llama-*": first, "*-8b": str(second), "llama-3": second})
    assert own.path_of("llama-3") == second
    assert own.path_of("llama-4-8b") == first
    assert own.path_of("qwen-8b") == second
    assert own.path_of("gpt-4o") is None
    assert own.for_model("llama-4").tokenizer is tokenizer_at(first)
    assert own.for_model("llama-4").exact
    assert own.for_model("gpt-4o").tokenizer is get_tokenizer("o200k_base")
    assert not own.for_model("qwen").exact


def test_a_file_that_changed_is_read_again(tmp_path):
    path = saved(byte_level(), tmp_path)
    before = tokenizer_at(path)
    saved(byte_level(prefix=True), tmp_path)
    assert tokenizer_at(path).name != before.name
    path.unlink()
    with pytest.raises(ConfigurationError, match="cannot read"):
        tokenizer_at(path)


def test_wrong_settings_are_named(tmp_path):
    with pytest.raises(ConfigurationError, match="there is no file"):
        Tokenizers({"llama": tmp_path / "none.json"})
    with pytest.raises(ConfigurationError, match="must be a model's name with the path"):
        Tokenizers({"llama": 3})


@pytest.mark.anyio
async def test_warming_up_loads_in_a_thread(tmp_path):
    path = saved(byte_level(), tmp_path)
    own = Tokenizers({"llama": path})
    await own.warm_up("llama")
    await own.warm_up("gpt-4o")
    path.write_text("{}")
    with pytest.raises(ConfigurationError, match="is not a Hugging Face"):
        await own.warm_up("llama")


@pytest.fixture
def anyio_backend():
    return "asyncio"
