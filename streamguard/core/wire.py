"""What a wire format gives the core: parsed requests, frames of a stream, endings.

A protocol (``streamguard.protocols``) implements these; the meter and the shells only use
what is declared here. Nothing here does I/O.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

from streamguard.core.prompt import Prompt
from streamguard.errors import StreamGuardError
from streamguard.usage import Usage

Channel = tuple[int, str]
"""Choice (or candidate, block) index and kind: text that is tokenized in one run."""

EndReason = Literal["cut", "strict", "upstream_error"]


class Delta(NamedTuple):
    """A piece of output text that costs tokens. A ``whole`` one (a tool's name) is kept or
    dropped, never shortened.
    """

    channel: Channel
    text: str
    whole: bool = False


class Frame(NamedTuple):
    """One event of a stream with its original bytes, to be forwarded untouched.

    ``hidden`` frames are withheld from the client (a usage chunk it did not ask for).
    """

    raw: bytes
    deltas: Sequence[Delta] = ()
    hidden: bool = False


class Extras(NamedTuple):
    """What a request may be billed for beside text.

    ``searches`` is the most web searches it allows, ``None`` where nothing bounds them;
    ``long_cache`` asks for cache entries that last longer, and cost more, than the usual.
    """

    audio_input: bool = False
    audio_output: bool = False
    long_cache: bool = False
    searches: int | None = 0


NO_EXTRAS = Extras()


@dataclass(frozen=True, slots=True)
class Request:
    """A parsed request body: what the guard needs to know of it.

    Attributes:
        protocol: the wire format's name.
        model: as the client wrote it; Azure's deployment, where the path names one.
        body: the decoded JSON, never changed in place.
        stream: whether a stream was asked for.
        output_cap: the output cap the client set, tokens per choice; ``None`` when absent.
        choices: how many outputs the request asks for (n, best_of, prompt arrays, candidates).
        wants_usage: the client asked for usage in the stream.
        produces_output: False for embeddings and the like.
        cap_field: where the output cap goes in the body, for ``rewrite``.
        array_stream: its stream may come as one JSON array, of type application/json.
        writes_cache: it asks the provider to cache input, which may cost more than reading it.
        opaque: fields that bring input the guard cannot see (``previous_response_id``, …).
        also: models that may answer instead (OpenRouter's ``models``); the bill is theirs then.
        tier: the service tier asked for, such as "flex" or "priority"; empty is the usual one.
        extras: what it may be billed for beside text.
    """

    protocol: str
    model: str
    body: Mapping[str, Any]
    stream: bool = False
    output_cap: int | None = None
    choices: int = 1
    wants_usage: bool = True
    produces_output: bool = True
    cap_field: str = ""
    array_stream: bool = False
    opaque: tuple[str, ...] = ()
    writes_cache: bool = False
    also: tuple[str, ...] = ()
    tier: str = ""
    extras: Extras = NO_EXTRAS

    @property
    def models(self) -> tuple[str, ...]:
        """All models that may answer, the one asked for first."""
        return self.model, *self.also


class Served(NamedTuple):
    """Which model and service tier a response says it came from; empty is unknown."""

    model: str = ""
    tier: str = ""


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole (non-streaming) response: its text by channel, the reported usage, who answered."""

    deltas: Sequence[Delta] = ()
    usage: Usage = Usage()
    served: Served = Served()


class StreamState(Protocol):
    """One response stream: bytes in at any split, frames out. One object a stream.

    Frames are made as they are taken, so ``end`` knows what was taken and no more.
    """

    @property
    def reported(self) -> Usage:
        """Usage the provider reported so far; unknown fields are ``None``."""

    @property
    def served(self) -> Served:
        """Who answered, as far as the stream has told."""

    @property
    def ended(self) -> bool:
        """Whether the stream's own terminal marker was seen."""

    def feed(self, data: bytes) -> Iterable[Frame]:
        """Complete frames in ``data`` and what was held back before it.

        Raises:
            ProtocolError: an event is over the size cap.
        """

    def finish(self) -> Iterable[Frame]:
        """What was still held back at the end of the bytes, as a last frame."""

    def shorten(self, frame: Frame, kept: Sequence[Delta]) -> bytes:
        """A frame's bytes with its delta texts replaced by ``kept``, in order. Of several frames
        the last one comes first.

        ``kept`` may be shorter than the frame's deltas, its last one a prefix. What the frame
        finished counts as unfinished again. Empty bytes: nothing is left of it.
        """

    def end(self, reason: EndReason, usage: Usage, error: StreamGuardError | None = None) -> bytes:
        """The bytes that end the stream early in the protocol's own form."""


class WireProtocol(Protocol):
    """One wire format: request to prompt, chunk to delta, how to end early, how to refuse."""

    @property
    def name(self) -> str:
        """Its name in events, config and CLI, such as ``openai_chat``."""

    def parse(self, body: Mapping[str, Any], path: str) -> Request:
        """Read a request body.

        Raises:
            ProtocolError: a field the budget depends on is missing, ambiguous or ill-typed.
        """

    def prompt(self, request: Request) -> Prompt:
        """The prompt as the provider bills it."""

    def rewrite(self, request: Request, output_cap: int | None) -> Mapping[str, Any]:
        """The body to send: cap clamped or injected, usage asked for.

        Returns ``request.body`` itself when nothing has to change.
        """

    def stream(self, request: Request) -> StreamState:
        """A new state for this request's response stream."""

    def read_reply(self, request: Request, body: bytes) -> Reply:
        """Text and usage of a whole response; an empty Reply when it is not the protocol's."""

    def shorten_reply(self, request: Request, body: bytes, kept: Sequence[Delta]) -> bytes:
        """The whole response with its texts cut to ``kept`` and the finish reason set."""

    def refusal(self, error: StreamGuardError, numbers: Mapping[str, Any]) -> Mapping[str, Any]:
        """The JSON error body in the protocol's own envelope, with ``streamguard`` numbers."""
