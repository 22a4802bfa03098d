"""OpenAI's Embeddings: input tokens only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from streamguard.core.prompt import Prompt
from streamguard.core.wire import Delta, Reply, Request, StreamState
from streamguard.errors import StreamGuardError
from streamguard.protocols import fields
from streamguard.protocols.completions import prompts_in
from streamguard.protocols.completions_prompt import render_embeddings
from streamguard.protocols.openai_common import models_of, openai_error, read_usage
from streamguard.protocols.plain import PassedOn


class _Reply(msgspec.Struct):
    """The vectors are left unread: a reply has megabytes of them."""

    usage: Any = None


class Embeddings:
    """The protocol; it holds nothing, one object serves all requests."""

    name = "embeddings"

    def parse(self, body: Mapping[str, Any], path: str) -> Request:
        """Read a request body.

        Raises:
            ProtocolError: see ``WireProtocol.parse``.
        """
        fields.check_spelling(body)
        prompts_in(body.get("input"), "input")
        model, *others = models_of(body, path)
        return Request(self.name, model, body, produces_output=False, also=tuple(others))

    def prompt(self, request: Request) -> Prompt:
        """The inputs as they stand."""
        return render_embeddings(request.body, request.model)

    def rewrite(self, request: Request, output_cap: int | None) -> Mapping[str, Any]:
        """The body as it is: there is no output to cap."""
        return request.body

    def stream(self, request: Request) -> StreamState:
        """Bytes without any output in them."""
        return PassedOn()

    def read_reply(self, request: Request, body: bytes) -> Reply:
        """The usage of a whole response; an empty Reply when it is not the protocol's."""
        try:
            return Reply((), read_usage(msgspec.json.decode(body, type=_Reply).usage))
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return Reply()

    def shorten_reply(self, request: Request, body: bytes, kept: Sequence[Delta]) -> bytes:
        """The body as it is."""
        return body

    def refusal(self, error: StreamGuardError, numbers: Mapping[str, Any]) -> Mapping[str, Any]:
        """OpenAI's error object."""
        return openai_error(error, numbers)
