"""Fields that some servers read and others do not are refused, not guessed at."""

from __future__ import annotations

import pytest

from streamguard import ProtocolError
from streamguard.protocols import protocol_for_path

CHAT = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
PROMPT = {"model": "m", "prompt": "x"}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", CHAT),
        ("/v1/completions", PROMPT),
        ("/v1/embeddings", {"model": "m", "input": "x"}),
        ("/v1/responses", {"model": "m", "input": "x"}),
        ("/api/chat", CHAT),
        ("/api/generate", PROMPT),
    ],
)
@pytest.mark.parametrize("key", ["Model", "PROMPT", "Messages", "in\u017ftruction\u017f", "N"])
def test_a_field_in_another_spelling_is_refused(path, body, key):
    protocol = protocol_for_path(path)
    protocol.parse({**body, "chatId": "x", "Other": 1}, path)
    with pytest.raises(ProtocolError, match="servers differ"):
        protocol.parse({**body, key: "much more"}, path)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/api/chat"])
def test_so_is_one_in_a_message(path):
    message = {"role": "user", "content": "x", "Content": "much more"}
    with pytest.raises(ProtocolError, match="'content'"):
        protocol_for_path(path).parse({"model": "m", "messages": [message]}, path)


@pytest.mark.parametrize(
    "body",
    [
        {"contents": "hi", "systemInstruction": "x", "system_instruction": "much more"},
        {"contents": [{"parts": [{"inlineData": {"data": ""}, "inline_data": {"data": "AAAA"}}]}]},
    ],
)
def test_both_of_googles_spellings_at_once_are_refused(body):
    path = "/v1beta/models/gemini-2.5-pro:generateContent"
    gemini = protocol_for_path(path)
    with pytest.raises(ProtocolError, match="camel case"):
        gemini.prompt(gemini.parse(body, path))
