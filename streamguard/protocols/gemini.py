"""Google's Gemini: ``generateContent``, and its stream as server-sent events or a JSON array."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import unquote

from streamguard.core.json_lines import ArraySplitter
from streamguard.core.prompt import Prompt
from streamguard.core.wire import Delta, EndReason, Frame, Reply, Request
from streamguard.errors import ProtocolError, StreamGuardError
from streamguard.protocols import extras, fields
from streamguard.protocols.gemini_prompt import render
from streamguard.protocols.slots import Slot, deltas_of, keep, objects
from streamguard.protocols.streaming import JSONStream
from streamguard.usage import Usage

_PATH = re.compile(r"/models/([^/:]+):(stream)?generatecontent", re.IGNORECASE)
_STATUS = {400: "INVALID_ARGUMENT", 413: "INVALID_ARGUMENT", 415: "INVALID_ARGUMENT",
           429: "RESOURCE_EXHAUSTED", 503: "UNAVAILABLE"}  # fmt: skip
_SPELLINGS = {
    "generationConfig": "generation_config",
    "maxOutputTokens": "max_output_tokens",
    "candidateCount": "candidate_count",
    "thinkingConfig": "thinking_config",
    "thinkingBudget": "thinking_budget",
    "cachedContent": "cached_content",
}
"""Google reads both spellings of a field."""


def candidate_slots(doc: Mapping[str, Any]) -> Iterator[Slot]:
    """Texts, thoughts, calls and code of all candidates."""
    for candidate in objects(doc.get("candidates")):
        index = fields.count(candidate, "index") or 0
        for part in objects(fields.child(candidate, "content").get("parts")):
            kind = "reasoning" if part.get("thought") is True else "content"
            yield Slot((index, kind), part, ("text",))
            if call := fields.child(part, "functionCall"):
                yield Slot((index, "tool"), call, ("name",), whole=True)
                yield Slot((index, "tool"), call, ("args",), whole=True)
            yield Slot((index, "tool"), fields.child(part, "executableCode"), ("code",))


def read_usage(usage: Any) -> Usage:
    """``usageMetadata``: thoughts and the input of tools come on top of what is named first."""
    given, tools = (
        fields.count(usage, f"{name}TokenCount") for name in ("prompt", "toolUsePrompt")
    )
    shown, thought = (
        fields.count(usage, f"{name}TokenCount") for name in ("candidates", "thoughts")
    )
    known = shown is not None or thought is not None
    return Usage(
        None if given is None else given + (tools or 0),
        (shown or 0) + (thought or 0) if known else None,
        thought,
        fields.count(usage, "cachedContentTokenCount"),
        audio_input_tokens=_audio(usage, "promptTokensDetails"),
        audio_output_tokens=_audio(usage, "candidatesTokensDetails"),
    )


def _audio(usage: Any, name: str) -> int | None:
    """Tokens of audio by the details of a report; 0 where the details tell of none."""
    details = usage.get(name) if isinstance(usage, Mapping) else None
    if not isinstance(details, list):
        return None
    heard = (each for each in objects(details) if fields.word(each, "modality") == "AUDIO")
    return sum(fields.count(each, "tokenCount") or 0 for each in heard)


def write_usage(usage: Usage) -> dict[str, Any]:
    """``usageMetadata`` of an ending."""
    given, output = usage.input_tokens or 0, usage.output_tokens or 0
    return {
        "promptTokenCount": given,
        "candidatesTokenCount": output,
        "totalTokenCount": given + output,
    }


class GeminiStream(JSONStream):
    """One stream; its first byte tells which of the two forms it has."""

    def __init__(self, request: Request) -> None:
        super().__init__()
        self._choices = request.choices
        self._array = False
        self._begun = False
        self._prefix = b""
        self._elements = 0
        self._head: dict[str, Any] = {"modelVersion": request.model}
        self._open: dict[int, bool] = {}
        self._usage: dict[str, Any] = {}

    @property
    def reported(self) -> Usage:
        """Usage so far: every chunk repeats it, so it is read only when asked for."""
        return read_usage(self._usage)

    def feed(self, data: bytes) -> Iterable[Frame]:
        """See ``JSONStream.feed``."""
        if self._begun:
            return super().feed(data)
        self._prefix += data
        start = self._prefix.lstrip(b"\xef\xbb\xbf \r\n\t")[:1]
        return self._begin(start) if start else ()

    def finish(self) -> Iterator[Frame]:
        """See ``JSONStream.finish``."""
        if not self._begun:
            yield from self._begin(b"")
        yield from super().finish()

    def _begin(self, start: bytes) -> Iterable[Frame]:
        self._begun = True
        self._array = start == b"["
        self._closed = start == b"{"  # one object, an error mostly: nothing may follow
        if self._array or self._closed:
            self._splitter = ArraySplitter()
        return super().feed(self._prefix)

    def slots(self, doc: dict[str, Any]) -> Iterator[Slot]:
        """The texts of all candidates."""
        return candidate_slots(doc)

    def observe(self, doc: dict[str, Any], name: str) -> bool:
        """Usage, open candidates and what the ending repeats."""
        self._elements += 1
        self._usage |= fields.child(doc, "usageMetadata")
        for key in ("modelVersion", "responseId"):
            if key in doc:
                self._head[key] = doc[key]
        for candidate in objects(doc.get("candidates")):
            index = fields.count(candidate, "index") or 0
            self._open[index] = candidate.get("finishReason") is None
        finished = len(self._open) >= self._choices and not any(self._open.values())
        self._ended = self._ended or finished or "error" in doc or name == "error"
        return False

    def reopen(self, doc: dict[str, Any]) -> bool:
        """Candidates that the chunk finished go on to the ending."""
        doc.pop("usageMetadata", None)
        self._elements -= 1
        self._ended = False
        for candidate in objects(doc.get("candidates")):
            self._open[fields.count(candidate, "index") or 0] = True
            candidate.pop("finishReason", None)
            _drop_empty_calls(candidate)
        return True

    def write(self, doc: Any, name: str = "") -> bytes:
        """An event, or the next element of the array."""
        if not self._array:
            return super().write(doc)
        self._elements += 1
        return (b"[" if self._elements == 1 else b",") + fields.write_json(doc)

    def end(self, reason: EndReason, usage: Usage, error: StreamGuardError | None = None) -> bytes:
        """``MAX_TOKENS`` for each open candidate, with usage; an array is closed."""
        if not self.close():
            return b""
        if reason == "cut":
            unfinished = [index for index, is_open in sorted(self._open.items()) if is_open]
            doc: dict[str, Any] = {
                "candidates": [_finish(index) for index in unfinished or [0]],
                "usageMetadata": write_usage(usage),
                **self._head,
                **fields.figures(error),
            }
        else:
            doc = refusal(fields.ending_error(error), {})
        return self.write(doc) + (b"]" if self._array else b"")


def _drop_empty_calls(candidate: dict[str, Any]) -> None:
    content = fields.child(candidate, "content")
    parts = objects(content.get("parts"))
    content["parts"] = [
        part
        for part in parts
        if "functionCall" not in part or fields.child(part, "functionCall").get("name")
    ] or [{"text": ""}]


def _finish(index: int) -> dict[str, Any]:
    content = {"role": "model", "parts": [{"text": ""}]}
    return {"index": index, "content": content, "finishReason": "MAX_TOKENS"}


def refusal(error: StreamGuardError, numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Google's error object: the numbers go where it has details."""
    status = error.http_status
    told = {"reason": error.http_code, **({"streamguard": dict(numbers)} if numbers else {})}
    body = {"code": status, "message": error.message, "status": _STATUS.get(status, "INTERNAL")}
    return {"error": {**body, "details": [told], **told}}


class Gemini:
    """The protocol; it holds nothing, one object serves all requests."""

    name = "gemini"

    def parse(self, body: Mapping[str, Any], path: str) -> Request:
        """Read a request body; the path names the model and whether it streams.

        Raises:
            ProtocolError: see ``WireProtocol.parse``; also when a field is there in both of
                Google's spellings.
        """
        found = _PATH.search(unquote(path))
        config = _config(body)
        _field(fields.mapping(config, _field(config, "thinkingConfig")), "thinkingBudget")
        if not isinstance(body.get("contents"), (list, dict, str)):
            raise ProtocolError("contents must be a list of objects")
        model = unquote(found[1]) if found else fields.name_of(body)
        return Request(
            protocol=self.name,
            model=model,
            body=body,
            stream=bool(found and found[2]),
            array_stream=bool(found and found[2]),
            output_cap=fields.whole(config, _field(config, "maxOutputTokens")),
            choices=fields.whole(config, _field(config, "candidateCount")) or 1,
            cap_field=_field(config, "maxOutputTokens"),
            opaque=fields.opaque(body, _field(body, "cachedContent")),
            tier=fields.tier_of(body, "serviceTier", "service_tier"),
            extras=extras.of_gemini(body, config, model),
        )

    def prompt(self, request: Request) -> Prompt:
        """The prompt as the provider bills it."""
        return render(request.body, request.model)

    def rewrite(self, request: Request, output_cap: int | None) -> Mapping[str, Any]:
        """Clamp the cap and, within it, the thinking budget (-1, dynamic, stays so)."""
        clamped = fields.clamp(request, output_cap)
        if not clamped:
            return request.body
        config = {**_config(request.body), **clamped}
        name = _field(config, "thinkingConfig")
        thinking = fields.mapping(config, name)
        budget = _field(thinking, "thinkingBudget")
        if type(thinking.get(budget)) is int and thinking[budget] > clamped[request.cap_field]:
            config[name] = {**thinking, budget: clamped[request.cap_field]}
        return {**request.body, _field(request.body, "generationConfig"): config}

    def stream(self, request: Request) -> GeminiStream:
        """A new state for this request's response stream."""
        return GeminiStream(request)

    def read_reply(self, request: Request, body: bytes) -> Reply:
        """Text and usage of a whole response; an empty Reply when it is not the protocol's."""
        docs = _documents(body)
        usage: dict[str, Any] = {}
        for doc in docs:
            usage |= fields.child(doc, "usageMetadata")
        return Reply(deltas_of(_all_slots(docs)), read_usage(usage))

    def shorten_reply(self, request: Request, body: bytes, kept: Sequence[Delta]) -> bytes:
        """The whole response with its texts cut and ``finishReason: "MAX_TOKENS"``."""
        docs = _documents(body)
        keep(_all_slots(docs), kept)
        for candidate in (each for doc in docs for each in objects(doc.get("candidates"))):
            _drop_empty_calls(candidate)
        for candidate in objects(docs[-1].get("candidates")) if docs else ():
            candidate["finishReason"] = "MAX_TOKENS"
        return fields.write_json(docs if body.lstrip().startswith(b"[") else docs[0])

    def refusal(self, error: StreamGuardError, numbers: Mapping[str, Any]) -> Mapping[str, Any]:
        """Google's error object."""
        return refusal(error, numbers)


def _documents(body: bytes) -> list[dict[str, Any]]:
    """A reply, or all elements of a stream's array that was read as one."""
    read = fields.read_json(body)
    return objects(read if isinstance(read, list) else [read])


def _all_slots(docs: Sequence[dict[str, Any]]) -> Iterator[Slot]:
    for doc in docs:
        yield from candidate_slots(doc)


def _field(body: Mapping[str, Any], name: str) -> str:
    """The spelling of a field that is used."""
    return fields.one_of(body, name, _SPELLINGS[name]) or name


def _config(body: Mapping[str, Any]) -> Mapping[str, Any]:
    return fields.mapping(body, _field(body, "generationConfig"))
