"""Vercel's AI SDK: the UI message stream that an app sends to its own pages. Response only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from streamguard.core.wire import EndReason, Request
from streamguard.errors import StreamGuardError
from streamguard.protocols import fields
from streamguard.protocols.openai_common import DONE
from streamguard.protocols.slots import Slot
from streamguard.protocols.streaming import JSONStream
from streamguard.usage import Usage

_KINDS = {"text-delta": "content", "reasoning-delta": "reasoning"}
_OPENING = {"text-start": "text-end", "reasoning-start": "reasoning-end"}
_CLOSING = frozenset(_OPENING.values())
_FINAL = frozenset({"finish", "error", "abort"})


class UIMessageStream(JSONStream):
    """One stream of parts. The SDK checks them strictly: no part may have a key too many."""

    def __init__(self, request: Request) -> None:
        super().__init__()
        self._started = False
        self._in_step = False
        self._finished = False
        self._open: dict[str, str] = {}

    def slots(self, doc: dict[str, Any]) -> Iterator[Slot]:
        """Text, reasoning, and the input of tools as it is written."""
        kind = fields.word(doc)
        if kind in _KINDS:
            yield Slot((0, f"{_KINDS[kind]}:{doc.get('id')}"), doc, ("delta",))
        elif kind == "tool-input-start":
            yield Slot((0, f"tool:{doc.get('toolCallId')}"), doc, ("toolName",), whole=True)
        elif kind == "tool-input-delta":
            yield Slot((0, f"tool:{doc.get('toolCallId')}"), doc, ("inputTextDelta",))

    def observe(self, doc: dict[str, Any], name: str) -> bool:
        """Follow the message, its step, and the parts that are open."""
        kind, part = fields.word(doc), str(doc.get("id"))
        self._started = True
        if kind in {"start-step", "finish-step"}:
            self._in_step = kind == "start-step"
        elif kind in _OPENING:
            self._open[part] = _OPENING[kind]
        elif kind in _CLOSING:
            self._open.pop(part, None)
        elif kind in _FINAL:
            self._ended = True
        return False

    def reopen(self, doc: dict[str, Any]) -> bool:
        """Drop deltas without text, and the start of a tool call whose name is dropped."""
        texts = {"delta", "inputTextDelta", "toolName"} & doc.keys()
        return not texts or any(doc[key] for key in texts)

    def end(self, reason: EndReason, usage: Usage, error: StreamGuardError | None = None) -> bytes:
        """Close the open parts and the step, finish; or an error part. Then ``[DONE]``."""
        if not self.close():
            return b""
        parts: list[dict[str, Any]] = [] if self._started else [{"type": "start"}]
        if reason == "cut":
            parts += [{"type": kind, "id": part} for part, kind in self._open.items()]
            parts += [{"type": "finish-step"}] if self._in_step else []
            parts.append({"type": "finish"})
        else:
            parts.append({"type": "error", "errorText": fields.ending_error(error).message})
        return b"".join([*map(self.write, parts), DONE])
