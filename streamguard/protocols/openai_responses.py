"""OpenAI Responses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import msgspec

from streamguard.core.prompt import Prompt
from streamguard.core.wire import Delta, EndReason, Reply, Request
from streamguard.errors import ProtocolError, StreamGuardError
from streamguard.protocols import extras, fields
from streamguard.protocols.openai_common import models_of, openai_error
from streamguard.protocols.openai_responses_prompt import render
from streamguard.protocols.openai_responses_usage import read_usage, searched, write_usage
from streamguard.protocols.slots import Slot, deltas_of, keep, objects
from streamguard.protocols.streaming import JSONStream
from streamguard.usage import Usage

LEAST_CAP = 16
"""Smallest ``max_output_tokens`` the API takes; the meter cuts below it."""

_KINDS = {
    "output_text": "content",
    "refusal": "refusal",
    "reasoning_text": "reasoning",
    "reasoning_summary_text": "reasoning",
    "audio.transcript": "audio",
}
"""Kinds of ``response.<what>.delta``; every other ``<what>`` with text is a tool's input."""

_FINAL = {"response.completed", "response.incomplete", "response.failed", "error"}
_PARTS = {"output_text": "text", "refusal": "refusal", "reasoning_text": "text"}
_INPUTS = {"function_call": "arguments", "mcp_call": "arguments", "custom_tool_call": "input",
           "code_interpreter_call": "code"}  # fmt: skip


def item_slots(item: dict[str, Any], index: int) -> Iterator[Slot]:
    """Texts of an output item: a message, reasoning, a call of a tool."""
    for place, part in enumerate(objects(item.get("content")) + objects(item.get("summary"))):
        kind = "reasoning" if fields.word(item) == "reasoning" else "content"
        yield Slot((index, f"{kind}:{place}"), part, ("text", "transcript"))
        yield Slot((index, f"refusal:{place}"), part, ("refusal",))
    if fields.word(item).endswith("_call"):
        yield Slot((index, "tool"), item, ("name",), whole=True)
        yield Slot((index, "tool"), item, ("arguments", "input", "code"))


class _TextEvent(msgspec.Struct, gc=False):
    type: Literal["response.output_text.delta"]
    delta: str
    output_index: int = 0
    content_index: int = 0
    sequence_number: int = 0
    response: Any = None


_decode_text = msgspec.json.Decoder(_TextEvent).decode


class ResponsesStream(JSONStream):
    """One stream of typed events; the ending repeats the open item's text, so it is kept."""

    def __init__(self, request: Request) -> None:
        super().__init__()
        self._response: dict[str, Any] = {
            "id": "resp_streamguard", "object": "response", "created_at": 0, "error": None,
            "model": request.model, "parallel_tool_calls": True, "tool_choice": "auto",
            "tools": [], "instructions": None, "metadata": {},
        }  # fmt: skip
        self._started = False
        self._sequence = -1
        self._items: dict[int, dict[str, Any]] = {}
        self._open: dict[int, dict[tuple[int, str], list[str]]] = {}

    def quick(self, data: bytes) -> Sequence[Delta] | None:
        """A piece of the message."""
        try:
            event = _decode_text(data)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return None
        index, place = event.output_index, event.content_index
        if not event.delta or min(index, place) < 0 or event.response is not None:
            return None
        self._sequence = max(self._sequence, event.sequence_number)
        texts = self._open.setdefault(index, {})
        texts.setdefault((place, "output_text"), []).append(event.delta)
        return (Delta((index, f"content:{place}"), event.delta),)

    def slots(self, doc: dict[str, Any]) -> Iterator[Slot]:
        """The text of a ``.delta`` event; the name of a tool where its item is added."""
        kind = fields.word(doc)
        index = fields.count(doc, "output_index") or 0
        if kind == "response.output_item.added":
            yield from item_slots(fields.child(doc, "item"), index)
        elif kind.endswith(".delta"):
            what, place = kind[len("response.") : -len(".delta")], _place(doc)
            if what in _KINDS:
                yield Slot((index, f"{_KINDS[what]}:{place}"), doc, ("delta",))
            elif what != "audio":
                yield Slot((index, "tool"), doc, ("delta",))

    def observe(self, doc: dict[str, Any], name: str) -> bool:
        """Follow the response, its items and the text of those still open."""
        kind = fields.word(doc)
        self._sequence = max(self._sequence, fields.count(doc, "sequence_number") or 0)
        if response := fields.child(doc, "response"):
            self._started = True
            self._response = response
            self._served = fields.served(response, self._served)
            self._reported = self._reported.merged(read_usage(response))
        self._ended = self._ended or kind in _FINAL or name == "error"
        index = fields.count(doc, "output_index") or 0
        if kind == "response.output_item.added":
            self._items[index] = fields.child(doc, "item")
            self._open[index] = {}
        elif kind == "response.output_item.done":
            item = self._items[index] = fields.child(doc, "item")
            self._open.pop(index, None)
            if searched(item):
                count = (self._reported.web_searches or 0) + 1
                self._reported = replace(self._reported, web_searches=count)
        elif kind.endswith(".delta") and isinstance(doc.get("delta"), str):
            texts = self._open.setdefault(index, {})
            texts.setdefault(_key(doc), []).append(doc["delta"])
        return False

    def reopen(self, doc: dict[str, Any]) -> bool:
        """Correct what the ending repeats; drop deltas without text and items without a name."""
        kind, index = fields.word(doc), fields.count(doc, "output_index") or 0
        if kind.endswith(".delta") and isinstance(doc.get("delta"), str):
            pieces = self._open.get(index, {}).get(_key(doc), [])
            pieces[-1:] = [doc["delta"]] if doc["delta"] else []
            dropped = not doc["delta"]
        else:
            item = fields.child(doc, "item")
            dropped = item.get("name") == ""
            if dropped:
                self._items.pop(index, None)
                self._open.pop(index, None)
            elif item:
                self._items[index] = item
        if dropped:
            self._sequence = (fields.count(doc, "sequence_number") or 0) - 1
        return not dropped

    def write(self, doc: Any, name: str = "") -> bytes:
        """Events carry their type twice."""
        return super().write(doc, name or fields.word(doc))

    def end(self, reason: EndReason, usage: Usage, error: StreamGuardError | None = None) -> bytes:
        """Finish what is open, then ``response.incomplete`` with the reason and the usage."""
        if not self.close():
            return b""
        if reason != "cut":
            problem = openai_error(fields.ending_error(error), {})["error"]
            told = {"code": problem["code"], "message": problem["message"], "param": None}
            return self._event("error", **told, error=problem)
        events = []
        if not self._started:
            begun = {**self._response, "status": "in_progress", "output": []}
            events.append(self._event("response.created", response=begun))
        for index in sorted(self._open):
            events += self._finish_item(index, self._items.setdefault(index, _EMPTY_MESSAGE))
        response = {
            **self._response,
            "status": "incomplete",
            "incomplete_details": {"reason": "max_output_tokens"},
            "output": [self._items[index] for index in sorted(self._items)],
            "usage": write_usage(usage),
            **fields.figures(error),
        }
        return b"".join([*events, self._event("response.incomplete", response=response)])

    def _finish_item(self, index: int, item: dict[str, Any]) -> Iterator[bytes]:
        place = {"item_id": item.get("id", ""), "output_index": index}
        content: list[dict[str, Any]] = []
        summary: list[dict[str, Any]] = []
        done = {**item, "status": "incomplete"}
        for (at, what), pieces in sorted(self._open[index].items()):
            text = "".join(pieces)
            if what == "reasoning_summary_text":
                summary.append({"type": "summary_text", "text": text})
            elif what in _PARTS:
                told = {**place, "content_index": at}
                part: dict[str, Any] = {"type": what, _PARTS[what]: text}
                done_part = {**told, _PARTS[what]: text}
                if what == "output_text":
                    part["annotations"] = []
                    done_part["logprobs"] = []
                content.append(part)
                yield self._event(f"response.{what}.done", **done_part)
                yield self._event("response.content_part.done", **told, part=part)
            elif fields.word(item) in _INPUTS:
                done[_INPUTS[fields.word(item)]] = text
        if fields.word(item) == "message":
            done["content"] = content
        elif fields.word(item) == "reasoning":
            done |= {"summary": summary, **({"content": content} if content else {})}
        self._items[index] = done
        yield self._event("response.output_item.done", output_index=index, item=done)

    def _event(self, kind: str, **more: Any) -> bytes:
        self._sequence += 1
        return self.write({"type": kind, "sequence_number": self._sequence, **more})


_EMPTY_MESSAGE: dict[str, Any] = {"id": "", "type": "message", "role": "assistant", "content": []}


def _place(doc: Mapping[str, Any]) -> int:
    return fields.count(doc, "content_index") or fields.count(doc, "summary_index") or 0


def _key(doc: Mapping[str, Any]) -> tuple[int, str]:
    return (_place(doc), doc["type"][len("response.") : -len(".delta")])


class OpenAIResponses:
    """The protocol; it holds nothing, one object serves all requests."""

    name = "openai_responses"

    def parse(self, body: Mapping[str, Any], path: str) -> Request:
        """Read a request body.

        Raises:
            ProtocolError: see ``WireProtocol.parse``; also for ``background``, whose output
                would be fetched past the guard.
        """
        fields.check_spelling(body)
        if fields.flag(body, "background"):
            raise ProtocolError("background responses cannot be metered; leave background out")
        if not isinstance(body.get("input", ""), (str, list, type(None))):
            raise ProtocolError("input must be a string or a list")
        model, *others = models_of(body, path)
        return Request(
            protocol=self.name,
            model=model,
            body=body,
            stream=fields.flag(body, "stream"),
            output_cap=fields.whole(body, "max_output_tokens"),
            cap_field="max_output_tokens",
            opaque=fields.opaque(body, "previous_response_id", "conversation", "prompt"),
            also=tuple(others),
            tier=fields.tier_of(body, "service_tier"),
            extras=extras.of_responses(body),
        )

    def prompt(self, request: Request) -> Prompt:
        """The prompt as the provider bills it."""
        return render(request.body, request.model)

    def rewrite(self, request: Request, output_cap: int | None) -> Mapping[str, Any]:
        """The body to send; ``request.body`` itself when nothing has to change."""
        changes = fields.clamp(request, output_cap and max(LEAST_CAP, output_cap))
        return {**request.body, **changes} if changes else request.body

    def stream(self, request: Request) -> ResponsesStream:
        """A new state for this request's response stream."""
        return ResponsesStream(request)

    def read_reply(self, request: Request, body: bytes) -> Reply:
        """Text and usage of a whole response; an empty Reply when it is not the protocol's."""
        doc = fields.read_object(body)
        return Reply(deltas_of(_reply_slots(doc)), read_usage(doc), fields.served(doc))

    def shorten_reply(self, request: Request, body: bytes, kept: Sequence[Delta]) -> bytes:
        """The whole response with its texts cut and ``status: "incomplete"``."""
        doc = fields.read_object(body)
        keep(_reply_slots(doc), kept)
        doc |= {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
        return fields.write_json(doc)

    def refusal(self, error: StreamGuardError, numbers: Mapping[str, Any]) -> Mapping[str, Any]:
        """OpenAI's error object."""
        return openai_error(error, numbers)


def _reply_slots(doc: dict[str, Any]) -> Iterator[Slot]:
    for index, item in enumerate(objects(doc.get("output"))):
        yield from item_slots(item, index)
