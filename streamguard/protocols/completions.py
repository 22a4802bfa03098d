"""OpenAI's legacy Completions: ``prompt`` in, ``choices[].text`` out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from streamguard.core.prompt import Prompt
from streamguard.core.wire import Delta, EndReason, Reply, Request, Served
from streamguard.errors import ProtocolError, StreamGuardError
from streamguard.protocols import fields
from streamguard.protocols.completions_prompt import render
from streamguard.protocols.openai_common import (
    DONE,
    asking_for_usage,
    models_of,
    openai_error,
    read_usage,
    wants_usage,
    write_usage,
)
from streamguard.protocols.slots import Slot, deltas_of, keep, objects
from streamguard.protocols.streaming import JSONStream
from streamguard.usage import Usage


def prompts_in(prompt: Any, name: str) -> int:
    """How many prompts (or inputs) a field holds.

    Raises:
        ProtocolError: not a string, a list of strings, of token ids, or of lists of them.
    """
    if prompt is None or isinstance(prompt, str) or _are_tokens(prompt):
        return 1
    items = prompt if isinstance(prompt, list) else []
    if items and (all(isinstance(item, str) for item in items) or all(map(_are_tokens, items))):
        return len(items)
    raise ProtocolError(f"{name} must be a string, a list of strings, or lists of token ids")


def _are_tokens(value: Any) -> bool:
    is_list = isinstance(value, list) and bool(value)
    return is_list and set(map(type, value)) == {int} and min(value) >= 0


def text_slots(doc: Mapping[str, Any]) -> Iterator[Slot]:
    """The text of all choices."""
    for choice in objects(doc.get("choices")):
        yield Slot((fields.count(choice, "index") or 0, "content"), choice, ("text",))


class CompletionStream(JSONStream):
    """One stream of text chunks."""

    def __init__(self, request: Request) -> None:
        super().__init__()
        self._wants_usage = request.wants_usage
        self._head: dict[str, Any] = {"id": "", "created": 0, "model": request.model}
        self._open: dict[int, bool] = {}

    @property
    def served(self) -> Served:
        """Who answered, as far as the stream has told."""
        return fields.served(self._head)

    def slots(self, doc: dict[str, Any]) -> Iterator[Slot]:
        """The text of all choices."""
        return text_slots(doc)

    def observe(self, doc: dict[str, Any], name: str) -> bool:
        """Errors, usage and which choices are open."""
        self._ended = self._ended or bool(doc.get("error")) or name == "error"
        if not self._head["id"]:
            self._head |= {key: doc[key] for key in self._head if doc.get(key)}
        if usage := doc.get("usage"):
            self._reported = self._reported.merged(read_usage(usage))
        for choice in objects(doc.get("choices")):
            index = fields.count(choice, "index") or 0
            self._open[index] = choice.get("finish_reason") is None
        alone = bool(usage) and not doc.get("choices") and not doc.get("error")
        return alone and not self._wants_usage

    def reopen(self, doc: dict[str, Any]) -> bool:
        """Choices that the chunk finished go on to the ending; its usage would be too early."""
        doc.pop("usage", None)
        for choice in objects(doc.get("choices")):
            self._open[fields.count(choice, "index") or 0] = True
            choice["finish_reason"] = None
        return True

    def end(self, reason: EndReason, usage: Usage, error: StreamGuardError | None = None) -> bytes:
        """``finish_reason: "length"`` for each open choice, usage if asked for, ``[DONE]``."""
        if not self.close():
            return b""
        if reason != "cut":
            return self.write(openai_error(fields.ending_error(error), {}))
        unfinished = [index for index, is_open in sorted(self._open.items()) if is_open]
        choices = [_finish(index) for index in (unfinished if self._open else [0])]
        head = {**self._head, "object": "text_completion"}
        parts = [self.write({**head, "choices": [c], **fields.figures(error)}) for c in choices]
        if self._wants_usage:
            parts.append(self.write({**head, "choices": [], "usage": write_usage(usage)}))
        return b"".join([*parts, DONE])


def _finish(index: int) -> dict[str, Any]:
    return {"index": index, "text": "", "logprobs": None, "finish_reason": "length"}


class Completions:
    """The protocol; it holds nothing, one object serves all requests."""

    name = "completions"

    def parse(self, body: Mapping[str, Any], path: str) -> Request:
        """Read a request body: each prompt has ``n`` outputs, or ``best_of`` that are billed.

        Raises:
            ProtocolError: see ``WireProtocol.parse``.
        """
        fields.check_spelling(body)
        seen = wants_usage(body)
        model, *others = models_of(body, path)
        each = max(fields.whole(body, "n") or 1, fields.whole(body, "best_of") or 1)
        return Request(
            protocol=self.name,
            model=model,
            body=body,
            stream=fields.flag(body, "stream"),
            output_cap=fields.whole(body, "max_tokens", least=0),
            choices=each * prompts_in(body.get("prompt"), "prompt"),
            wants_usage=seen,
            cap_field="max_tokens",
            also=tuple(others),
            tier=fields.tier_of(body, "service_tier"),
        )

    def prompt(self, request: Request) -> Prompt:
        """The prompts, and the suffix, as they stand."""
        return render(request.body, request.model)

    def rewrite(self, request: Request, output_cap: int | None) -> Mapping[str, Any]:
        """The body to send; ``request.body`` itself when nothing has to change."""
        changes = fields.clamp(request, output_cap)
        if not request.wants_usage:
            changes |= asking_for_usage(request.body)
        return {**request.body, **changes} if changes else request.body

    def stream(self, request: Request) -> CompletionStream:
        """A new state for this request's response stream."""
        return CompletionStream(request)

    def read_reply(self, request: Request, body: bytes) -> Reply:
        """Text and usage of a whole response; an empty Reply when it is not the protocol's."""
        doc = fields.read_object(body)
        usage = read_usage(doc.get("usage"))
        return Reply(deltas_of(text_slots(doc)), usage, fields.served(doc))

    def shorten_reply(self, request: Request, body: bytes, kept: Sequence[Delta]) -> bytes:
        """The whole response with its texts cut and ``finish_reason: "length"``."""
        doc = fields.read_object(body)
        keep(text_slots(doc), kept)
        for choice in objects(doc.get("choices")):
            choice["finish_reason"] = "length"
        return fields.write_json(doc)

    def refusal(self, error: StreamGuardError, numbers: Mapping[str, Any]) -> Mapping[str, Any]:
        """OpenAI's error object."""
        return openai_error(error, numbers)
