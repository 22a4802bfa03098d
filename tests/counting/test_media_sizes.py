"""Sizes of images from their first bytes; bounds of documents and audio."""

import base64
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamguard.core.documents import PAGE, audio_tokens, document_tokens
from streamguard.core.image_size import Size, size_of_bytes, size_of_data
from streamguard.core.image_tokens import Patches, Tiles, image_rule

W, H = 640, 480
PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", W, H) + b"\0" * 8
GIF = b"GIF89a" + struct.pack("<HH", W, H)
SOF = b"\xff\xc0\0\x11\x08" + struct.pack(">HH", H, W)
JPEG = b"\xff\xd8\xff\xe0\0\x04ab\xff" + SOF
WEBP = b"RIFF\0\0\0\0WEBP"
LOSSY = WEBP + b"VP8 " + b"\0" * 10 + struct.pack("<HH", W, H)
LOSSLESS = WEBP + b"VP8L\0\0\0\0\x2f" + struct.pack("<I", (W - 1) | (H - 1) << 14)
EXTENDED = WEBP + b"VP8X" + b"\0" * 8 + struct.pack("<I", W - 1)[:3] + struct.pack("<I", H - 1)[:3]


@pytest.mark.parametrize("raw", [PNG, GIF, JPEG, LOSSY, LOSSLESS, EXTENDED])
def test_sizes(raw):
    assert size_of_bytes(raw) == (W, H)
    data = base64.b64encode(raw + b"\0" * 3).decode()
    assert size_of_data(data) == size_of_data(f"data:image/x;base64,{data}") == (W, H)


@pytest.mark.parametrize(
    "raw",
    [b"", b"BM", PNG[:20], GIF[:7], JPEG[:8], b"\xff\xd8ab", WEBP + b"VP9 ", LOSSY[:20]],
)
def test_unknown_sizes(raw):
    assert size_of_bytes(raw) is None


def test_an_image_without_pixels_has_no_size():
    assert size_of_bytes(GIF[:6] + b"\0" * 4) is None


@pytest.mark.parametrize("data", ["data:image/png,plain", "data:", "éééé", "A"])
def test_data_that_is_not_an_image(data):
    assert size_of_data(data) is None


@given(st.binary(max_size=60))
def test_any_bytes_are_taken(raw):
    for head in (b"", PNG[:8], b"\xff\xd8", WEBP, b"GIF89a"):
        size = size_of_bytes(head + raw)
        assert size is None or min(size) > 0


SIDES = st.integers(1, 30_000)


@given(SIDES, SIDES, st.sampled_from(["auto", "high", "original", "low"]))
def test_no_image_costs_more_than_one_of_unknown_size(width, height, detail):
    for model in ("gpt-4o", "gpt-4o-mini", "o1", "gpt-4.1-nano", "gpt-5", "gpt-5-mini", "gpt-9"):
        rule = image_rule(model)
        known, most = rule.cost(Size(width, height), detail), rule.cost(None, detail)
        assert 0 < known.tokens <= most.tokens
        assert not known.bound


def test_rules_by_model():
    assert isinstance(image_rule("openai/gpt-4.1"), Tiles)
    assert isinstance(image_rule("gpt-4.1-mini"), Patches)
    assert image_rule("gpt-5.2") != image_rule("gpt-5.9")


def test_documents_by_pages():
    def data(raw):
        return base64.b64encode(raw).decode()

    assert document_tokens(data(b"x")) == PAGE
    assert document_tokens(data(b"x" * 30_000)) == 11 * PAGE
    assert document_tokens(data(b"/Type /Page >> /Type/Page" * 4)) == 8 * PAGE
    assert document_tokens(data(b"/Type /Pages /Type /PageLabel")) == PAGE
    assert document_tokens("data:text/plain;base64," + data(b"x" * 300)) == 300
    assert document_tokens("éééé") == PAGE


def test_audio_by_length():
    second = "A" * (16_000 * 4 // 3)
    assert audio_tokens(second, "wav") == 10
    assert audio_tokens(second, "mp3") == 80
    assert audio_tokens(second, None, "gemini") == 8 * 32
