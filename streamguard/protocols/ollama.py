"""Ollama's own API: ``/api/chat`` and ``/api/generate``, a JSON document a line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from streamguard.core.json_lines import LineSplitter
from streamguard.core.prompt import Prompt
from streamguard.core.wire import Delta, EndReason, Reply, Request
from streamguard.errors import ProtocolError, StreamGuardError
from streamguard.protocols import fields
from streamguard.protocols.ollama_prompt import render
from streamguard.protocols.slots import Slot, deltas_of, drop_empty_calls, keep, objects
from streamguard.protocols.streaming import JSONStream
from streamguard.usage import Usage


def line_slots(doc: dict[str, Any]) -> Iterator[Slot]:
    """Texts of one line: of a chat's message, or of what was generated."""
    message = fields.child(doc, "message")
    for holder in (message, doc):
        yield Slot((0, "reasoning"), holder, ("thinking",))
        yield Slot((0, "content"), holder, ("content", "response"))
    for position, call in enumerate(objects(message.get("tool_calls"))):
        function = fields.child(call, "function")
        yield Slot((0, f"tool:{position}"), function, ("name",), whole=True)
        yield Slot((0, f"tool:{position}"), function, ("arguments",), whole=True)


def read_usage(doc: Mapping[str, Any]) -> Usage:
    """The counts of the last line."""
    return Usage(fields.count(doc, "prompt_eval_count"), fields.count(doc, "eval_count"))


class OllamaStream(JSONStream):
    """One stream of lines; the last one says ``done``."""

    def __init__(self, request: Request) -> None:
        super().__init__(LineSplitter())
        self._chat = "messages" in request.body
        self._head: dict[str, Any] = {
            "model": request.model,
            "created_at": "1970-01-01T00:00:00Z",
        }

    def slots(self, doc: dict[str, Any]) -> Iterator[Slot]:
        """The texts of a line."""
        return line_slots(doc)

    def observe(self, doc: dict[str, Any], name: str) -> bool:
        """The end, its usage, and what the ending repeats."""
        self._ended = self._ended or doc.get("done") is True or "error" in doc
        if self._ended:
            self._reported = read_usage(doc)
        self._chat = self._chat or "message" in doc
        self._head |= {key: doc[key] for key in ("model", "created_at") if key in doc}
        return False

    def reopen(self, doc: dict[str, Any]) -> bool:
        """A last line that is cut is not the last."""
        doc["done"] = self._ended = False
        doc.pop("done_reason", None)
        drop_empty_calls(fields.child(doc, "message"))
        return True

    def write(self, doc: Any, name: str = "") -> bytes:
        """One line."""
        return fields.write_json(doc) + b"\n"

    def end(self, reason: EndReason, usage: Usage, error: StreamGuardError | None = None) -> bytes:
        """The last line, with ``done_reason: "length"`` and the counts."""
        if not self.close():
            return b""
        if reason != "cut":
            return self.write({"error": fields.ending_error(error).message})
        empty: dict[str, Any] = {"response": ""}
        if self._chat:
            empty = {"message": {"role": "assistant", "content": ""}}
        counts = {
            "total_duration": 0,
            "load_duration": 0,
            "prompt_eval_count": usage.input_tokens or 0,
            "prompt_eval_duration": 0,
            "eval_count": usage.output_tokens or 0,
            "eval_duration": 0,
        }
        done = {"done": True, "done_reason": "length"}
        return self.write({**self._head, **empty, **done, **counts, **fields.figures(error)})


class Ollama:
    """The protocol; it holds nothing, one object serves all requests."""

    name = "ollama"

    def parse(self, body: Mapping[str, Any], path: str) -> Request:
        """Read a request body; it streams unless told not to.

        Raises:
            ProtocolError: see ``WireProtocol.parse``.
        """
        fields.check_spelling(body)
        if "messages" in body:
            fields.objects(body, "messages")
        elif not isinstance(body.get("prompt", ""), str):
            raise ProtocolError("prompt must be a string")
        return Request(
            protocol=self.name,
            model=fields.name_of(body),
            body=body,
            stream=body.get("stream") is None or fields.flag(body, "stream"),
            output_cap=_cap(fields.mapping(body, "options")),
            cap_field="num_predict",
            opaque=fields.opaque(body, "context"),
        )

    def prompt(self, request: Request) -> Prompt:
        """An estimate: each model has a template of its own."""
        return render(request.body, request.model)

    def rewrite(self, request: Request, output_cap: int | None) -> Mapping[str, Any]:
        """The body to send; ``request.body`` itself when nothing has to change."""
        changes = fields.clamp(request, output_cap)
        options = fields.mapping(request.body, "options")
        return {**request.body, "options": {**options, **changes}} if changes else request.body

    def stream(self, request: Request) -> OllamaStream:
        """A new state for this request's response stream."""
        return OllamaStream(request)

    def read_reply(self, request: Request, body: bytes) -> Reply:
        """Text and usage of a whole response; an empty Reply when it is not the protocol's."""
        doc = fields.read_object(body)
        return Reply(deltas_of(line_slots(doc)), read_usage(doc))

    def shorten_reply(self, request: Request, body: bytes, kept: Sequence[Delta]) -> bytes:
        """The whole response with its texts cut and ``done_reason: "length"``."""
        doc = fields.read_object(body)
        keep(line_slots(doc), kept)
        doc["done_reason"] = "length"
        return fields.write_json(doc)

    def refusal(self, error: StreamGuardError, numbers: Mapping[str, Any]) -> Mapping[str, Any]:
        """Ollama's error: its message stands alone; code and numbers come beside it."""
        more = {"code": error.http_code, "streamguard": dict(numbers)}
        return {"error": error.message, **more}


def _cap(options: Mapping[str, Any]) -> int | None:
    """Ollama's -1 (no end) and -2 (fill the context) are no caps."""
    cap = fields.whole(options, "num_predict", least=-2)
    return cap if cap is not None and cap >= 0 else None
