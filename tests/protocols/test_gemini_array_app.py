"""Gemini's JSON array is a stream too, though its media type is that of a whole response."""

from __future__ import annotations

import httpx2
import pytest
from support.formats import gemini_array
from support.servers import serve
from support.texts import ENGLISH
from support.wire import words_of

from streamguard import Guard, Limit, StreamGuardMiddleware
from streamguard.tokenizers import tokenizer_for_model

PATH = "/v1beta/models/gemini-2.5-flash:streamGenerateContent"
BODY = {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}
STREAM = gemini_array(words_of(ENGLISH, 1))


async def provider(scope, receive, send):
    if scope["type"] != "http":
        raise RuntimeError("http only")
    while (await receive()).get("more_body"):
        pass
    headers = [(b"content-type", b"application/json; charset=UTF-8")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for start in range(0, len(STREAM), 700):
        piece = STREAM[start : start + 700]
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


@pytest.mark.parametrize("budget", [1, 40, None])
def test_an_array_is_cut_as_it_streams(budget):
    limits = [] if budget is None else [Limit(output_tokens=budget)]
    app = StreamGuardMiddleware(provider, guard=Guard(limits, sinks=[]))
    with serve(app) as url, httpx2.Client() as client:
        answer = client.post(url + PATH, json=BODY)
    docs = answer.json()
    if budget is None:
        assert answer.content == STREAM
        return
    parts = [doc["candidates"][0]["content"]["parts"][0]["text"] for doc in docs]
    assert tokenizer_for_model("gemini-2.5-flash").tokenizer.count("".join(parts)) == budget
    assert docs[-1]["candidates"][0]["finishReason"] == "MAX_TOKENS"
    assert answer.headers["transfer-encoding"] == "chunked"
