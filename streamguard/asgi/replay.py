"""Records a response on its way to the client, and sends one again."""

from __future__ import annotations

from streamguard.asgi.types import Message, Send
from streamguard.core.answers import Answer

_REPEATED = frozenset({b"content-type", b"x-streamguard-model", b"x-streamguard-trimmed"})
_OK = 200


class Recorder:
    """Passes messages on and keeps them while they are a plain, whole, small enough response."""

    def __init__(self, send: Send, max_bytes: int) -> None:
        self._send = send
        self._left = max_bytes
        self._headers: tuple[tuple[bytes, bytes], ...] | None = None
        self._parts: list[bytes] = []
        self._whole = False

    async def send(self, message: Message) -> None:
        """What the middleware calls instead of the server's ``send``."""
        if message["type"] == "http.response.start" and message["status"] == _OK:
            headers = [(name.lower(), value) for name, value in message["headers"]]
            if all(name != b"content-encoding" for name, _ in headers):
                self._headers = tuple(each for each in headers if each[0] in _REPEATED)
        elif message["type"] == "http.response.body" and self._left >= 0:
            part = message.get("body", b"")
            self._left -= len(part)
            self._parts.append(part)
            self._whole = not message.get("more_body", False)
        await self._send(message)

    @property
    def answer(self) -> Answer | None:
        """The response, ``None`` where it was not whole, not plain or too large."""
        if self._headers is None or not self._whole or self._left < 0:
            return None
        return Answer(self._headers, b"".join(self._parts))


async def resend(send: Send, answer: Answer, request_id: str) -> None:
    """Send a recorded answer, marked as such."""
    marks = [
        (b"x-streamguard-cache", b"hit"),
        (b"x-streamguard-request-id", request_id.encode()),
        (b"content-length", str(len(answer.body)).encode()),
    ]
    headers = [*answer.headers, *marks]
    await send({"type": "http.response.start", "status": _OK, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body, "more_body": False})
