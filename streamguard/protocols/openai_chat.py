"""OpenAI Chat Completions, and the many hosts that speak it (Azure, OpenRouter, vLLM, …)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from streamguard.core.prompt import Prompt
from streamguard.core.wire import Channel, Delta, EndReason, Frame, Reply, Request, Served
from streamguard.errors import StreamGuardError
from streamguard.protocols import extras, fields
from streamguard.protocols.openai_chat_prompt import render
from streamguard.protocols.openai_common import (
    DONE,
    asking_for_usage,
    is_azure,
    is_openai,
    models_of,
    openai_error,
    read_usage,
    wants_usage,
    write_usage,
)
from streamguard.protocols.slots import Slot, deltas_of, drop_empty_calls, keep, objects
from streamguard.protocols.streaming import JSONStream
from streamguard.usage import Usage

_CAPS = ("max_completion_tokens", "max_tokens")
_MISTRAL = re.compile(r"(?:open-)?(?:\w+stral)[\w.-]*", re.IGNORECASE)
"""Mistral's own API refuses fields it does not know, and reports usage without being asked."""

_CONTENT: Channel = (0, "content")
_REASONING: Channel = (0, "reasoning")


class _Delta(msgspec.Struct, gc=False):
    """The fields of a usual delta; the rest, where present, sends the chunk the general way."""

    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    refusal: Any = None
    tool_calls: Any = None
    function_call: Any = None
    audio: Any = None


class _Choice(msgspec.Struct, gc=False):
    delta: _Delta | None = None
    index: int = 0
    finish_reason: str | None = None


class _Chunk(msgspec.Struct, gc=False):
    choices: list[_Choice]
    id: str | None = None
    model: str | None = None
    created: Any = None
    usage: Any = None
    error: Any = None
    x_groq: Any = None
    service_tier: Any = None


decode_chunk = msgspec.json.Decoder(_Chunk).decode
"""The floor of what a chunk costs: nothing can be counted that is not read."""


def slots(message: Mapping[str, Any], index: int) -> Iterator[Slot]:
    """Every place of text in a delta or message, in the order a model writes them."""
    holder: Any = message
    yield Slot((index, "reasoning"), holder, ("reasoning_content", "reasoning"))
    if isinstance(message.get("content"), list):
        yield from _parts(message["content"], index)
    else:
        yield Slot((index, "content"), holder, ("content",))
    yield Slot((index, "refusal"), holder, ("refusal",))
    if isinstance(message.get("audio"), dict):
        yield Slot((index, "audio"), message["audio"], ("transcript",))
    if isinstance(message.get("function_call"), dict):
        yield from _call((index, "function_call"), message["function_call"])
    for position, call in enumerate(objects(message.get("tool_calls"))):
        function = call.get("function") or call.get("custom")
        if isinstance(function, dict):
            yield from _call((index, f"tool:{call.get('index', position)}"), function)


def _call(channel: Channel, function: dict[str, Any]) -> Iterator[Slot]:
    yield Slot(channel, function, ("name",), whole=True)
    yield Slot(channel, function, ("arguments", "input"))


def _parts(parts: Sequence[Any], index: int) -> Iterator[Slot]:
    """Mistral's content as a list: text, and thinking that is a list of text again."""
    for part in objects(parts):
        if isinstance(part.get("thinking"), list):
            for thought in objects(part["thinking"]):
                yield Slot((index, "reasoning"), thought, ("text",))
        else:
            yield Slot((index, "content"), part, ("text",))


def texts(choices: Any, *names: str) -> Iterator[Slot]:
    """The places of text in all choices, under the first of ``names`` that a choice has."""
    for choice in objects(choices):
        for name in names:
            if isinstance(choice.get(name), dict):
                yield from slots(choice[name], _index(choice))
                break


def _index(choice: Mapping[str, Any]) -> int:
    index = choice.get("index")
    return index if type(index) is int else 0


class ChatStream(JSONStream):
    """One chat stream: what was seen of each choice decides how it ends."""

    def __init__(self, request: Request) -> None:
        super().__init__()
        self._wants_usage = request.wants_usage
        self._head: dict[str, Any] = {"id": "", "created": 0, "model": request.model}
        self._open: dict[int, bool] = {}
        self._tier: Any = ""

    @property
    def served(self) -> Served:
        """Who answered, as far as the stream has told."""
        return fields.served({**self._head, "service_tier": self._tier})

    def read(self, raw: bytes, data: bytes, name: str) -> Frame:
        """One chunk: typed where it is the usual kind, else the general way."""
        try:
            chunk = decode_chunk(data)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return super().read(raw, data, name)
        if chunk.id:
            self._head["id"] = chunk.id
            self._head["model"] = chunk.model
            self._head["created"] = chunk.created
            self._tier = chunk.service_tier or self._tier
        if chunk.error or chunk.x_groq:
            return super().read(raw, data, name)
        if chunk.usage:
            self._reported = self._reported.merged(read_usage(chunk.usage))
            if not chunk.choices:
                return Frame(raw, (), not self._wants_usage)
        deltas = self._texts(chunk.choices)
        return super().read(raw, data, name) if deltas is None else Frame(raw, deltas)

    def _texts(self, choices: list[_Choice]) -> list[Delta] | None:
        """The usual texts; ``None`` where a delta holds more than those."""
        deltas: list[Delta] = []
        for choice in choices:
            index, delta = choice.index, choice.delta
            self._open[index] = choice.finish_reason is None
            if (
                delta is None
                or delta.tool_calls
                or delta.refusal
                or delta.function_call
                or delta.audio
            ):
                return None
            if text := delta.reasoning_content or delta.reasoning:
                deltas.append(Delta((index, "reasoning") if index else _REASONING, text))
            if text := delta.content:
                deltas.append(Delta((index, "content") if index else _CONTENT, text))
        return deltas

    def slots(self, doc: dict[str, Any]) -> Iterator[Slot]:
        """The texts of all choices."""
        return texts(doc.get("choices"), "delta", "message")

    def observe(self, doc: dict[str, Any], name: str) -> bool:
        """Errors, usage and which choices are open."""
        if doc.get("error") or name == "error":
            self._ended = True
        usage, choices = doc.get("usage"), objects(doc.get("choices"))
        groq = fields.child(doc, "x_groq").get("usage")  # where usage was not asked for
        self._reported = self._reported.merged(read_usage(groq))
        self._reported = self._reported.merged(read_usage(usage))
        for choice in choices:
            self._open[_index(choice)] = choice.get("finish_reason") is None
        alone = bool(usage) and not choices and not doc.get("error")
        return alone and not self._wants_usage

    def reopen(self, doc: dict[str, Any]) -> bool:
        """Choices that the chunk finished go on to the ending; its usage would be too early."""
        for choice in objects(doc.get("choices")):
            self._open[_index(choice)] = True
            choice["finish_reason"] = None
            for delta in objects([choice.get("delta")]):
                delta.pop("reasoning_details", None)  # OpenRouter's second copy of the reasoning
                drop_empty_calls(delta)
        doc.pop("usage", None)
        return True

    def end(self, reason: EndReason, usage: Usage, error: StreamGuardError | None = None) -> bytes:
        """``finish_reason: "length"`` for each open choice, usage if asked for, ``[DONE]``;
        or an error event. A finish without ``[DONE]`` or ``[DONE]`` alone would look complete.
        """
        if not self.close():
            return b""
        if reason != "cut":
            problem = fields.ending_error(error)
            return self.write(openai_error(problem, {}))
        parts = [] if self._open else [self._chunk(0, {"role": "assistant", "content": ""}, None)]
        unfinished = [index for index, is_open in sorted(self._open.items()) if is_open]
        numbers = fields.figures(error)
        unfinished = unfinished if self._open else [0]
        parts.extend(self._chunk(index, {}, "length", **numbers) for index in unfinished)
        if self._wants_usage:
            parts.append(self._event([], usage=write_usage(usage)))
        return b"".join([*parts, DONE])

    def _chunk(self, index: int, delta: Any, finish: str | None, **more: Any) -> bytes:
        return self._event([{"index": index, "delta": delta, "finish_reason": finish}], **more)

    def _event(self, choices: list[Any], **more: Any) -> bytes:
        head = {**self._head, "object": "chat.completion.chunk"}
        return self.write({**head, "choices": choices, **more})


class OpenAIChat:
    """The protocol; it holds nothing, one object serves all requests."""

    name = "openai_chat"

    def parse(self, body: Mapping[str, Any], path: str) -> Request:
        """Read a request body; a deployment in Azure's path is the model.

        Raises:
            ProtocolError: see ``WireProtocol.parse``.
        """
        fields.check_spelling(body)
        model, *others = models_of(body, path)
        fields.objects(body, "messages")
        seen = wants_usage(body)
        cap_field = fields.one_of(body, *_CAPS)
        return Request(
            protocol=self.name,
            model=model,
            body=body,
            stream=fields.flag(body, "stream"),
            output_cap=fields.whole(body, cap_field) if cap_field else None,
            choices=fields.whole(body, "n") or 1,
            wants_usage=seen,
            cap_field=cap_field or _CAPS[0 if is_azure(path) or is_openai(model) else 1],
            also=tuple(others),
            tier=fields.tier_of(body, "service_tier"),
            extras=extras.of_chat(body, model),
        )

    def prompt(self, request: Request) -> Prompt:
        """The prompt as the provider bills it."""
        return render(request.body, request.model)

    def rewrite(self, request: Request, output_cap: int | None) -> Mapping[str, Any]:
        """The body to send; ``request.body`` itself when nothing has to change."""
        changes = fields.clamp(request, output_cap)
        if not request.wants_usage and not _MISTRAL.fullmatch(request.model):
            changes |= asking_for_usage(request.body)
        return {**request.body, **changes} if changes else request.body

    def stream(self, request: Request) -> ChatStream:
        """A new state for this request's response stream."""
        return ChatStream(request)

    def read_reply(self, request: Request, body: bytes) -> Reply:
        """Text and usage of a whole response; an empty Reply when it is not the protocol's."""
        doc = fields.read_object(body)
        places = texts(doc.get("choices"), "message")
        return Reply(deltas_of(places), read_usage(doc.get("usage")), fields.served(doc))

    def shorten_reply(self, request: Request, body: bytes, kept: Sequence[Delta]) -> bytes:
        """The whole response with its texts cut and ``finish_reason: "length"``."""
        doc = fields.read_object(body)
        keep(texts(doc.get("choices"), "message"), kept)
        for choice in objects(doc.get("choices")):
            drop_empty_calls(fields.child(choice, "message"))
            choice["finish_reason"] = "length"
        return fields.write_json(doc)

    def refusal(self, error: StreamGuardError, numbers: Mapping[str, Any]) -> Mapping[str, Any]:
        """OpenAI's error object."""
        return openai_error(error, numbers)
