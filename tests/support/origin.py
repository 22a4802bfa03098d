"""A provider whose streams are metered before they leave; the model's name tells the scene."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from streamguard.core.streams import StreamMeter
from streamguard.errors import OutputBudgetExceededError
from streamguard.protocols import protocol_for_path, stream_named
from streamguard.tokenizers import get_tokenizer
from support.formats import FORMATS
from support.texts import CODE, EMOJI, ENGLISH
from support.wire import random_pieces, words_of

TOKENIZER = get_tokenizer("o200k_base")
OVER = OutputBudgetExceededError("the output is over its budget of 5 tokens", limit=5, used=5)
TEXT = ENGLISH[:200] + EMOJI[:60] + CODE[:200]


class Origin:
    """An ASGI app. Model ``m-7`` streams ``TEXT`` cut at 7 tokens, ``strict-7`` ends in an error,
    and ``graceful-7`` with a sentence; ``scenes`` adds streams by name. Paths that are no
    provider's (``/ai_sdk``) name a format.
    """

    def __init__(self) -> None:
        self.meters: list[StreamMeter] = []
        self.scenes: dict[str, bytes] = {}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise RuntimeError("http only")
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        media, pieces = self.answer(scope["path"], json.loads(body))
        headers = [(b"content-type", media.encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for piece in pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    def answer(self, path: str, body: dict[str, Any]) -> tuple[str, Iterator[bytes]]:
        """The media type and the metered bytes."""
        protocol = protocol_for_path(path)
        if protocol is None:
            name, model = path.strip("/"), body["model"]
            state = stream_named(name)()
        else:
            request = protocol.parse(body, path)
            name, model, state = protocol.name, request.model, protocol.stream(request)
        scene, _, budget = model.partition("-")
        soft = 30 if scene == "graceful" else None
        self.meters.append(StreamMeter(state, TOKENIZER, int(budget), soft=soft))
        stream = self.scenes.get(scene) or FORMATS[name].build(words_of(TEXT, int(budget)))
        return FORMATS[name].media, self._pieces(self.meters[-1], stream, scene)

    def _pieces(self, meter: StreamMeter, stream: bytes, scene: str) -> Iterator[bytes]:
        for piece in random_pieces(stream, 1):
            yield meter.feed(piece)
            if meter.cut:
                yield meter.end("strict" if scene == "strict" else "cut", OVER)
                return
        yield meter.finish()

    def expect(self, text: str, budget: int) -> None:
        """The text is what the last stream was cut to, at its budget or a character before."""
        assert TEXT.startswith(text)
        assert TOKENIZER.count(text) == self.meters[-1].counted
        assert budget - 3 <= self.meters[-1].counted <= budget
