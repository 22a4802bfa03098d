"""What OpenAI's formats share: usage, errors, model names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from streamguard.errors import StreamGuardError
from streamguard.protocols import fields
from streamguard.usage import Usage

DONE = b"data: [DONE]\n\n"

_DEPLOYMENT = re.compile(r"/openai/deployments/([^/]+)/", re.IGNORECASE)
_ENGINE = re.compile(r"/engines/(.+?)/(?:(?:chat/)?completions|embeddings)\Z", re.IGNORECASE)
_AZURE = re.compile(r"/openai/", re.IGNORECASE)
_MODEL = re.compile(r"(?:ft:)?(?:gpt-|chatgpt-|codex-|o\d)", re.IGNORECASE)
_TYPES = {400: "invalid_request_error", 413: "invalid_request_error", 415: "invalid_request_error",
          429: "insufficient_quota"}  # fmt: skip


def models_of(body: Mapping[str, Any], path: str) -> tuple[str, ...]:
    """The models that may answer: a deployment in Azure's path or an engine in OpenAI's old ones
    decides, whatever the body says.

    Raises:
        ProtocolError: there is none, or a name is none.
    """
    plain = fields.spelled(path)
    found = _DEPLOYMENT.search(plain) or _ENGINE.search(plain)
    if found is None:
        return fields.models_of(body)
    return tuple(dict.fromkeys((found[1], *fields.others_of(body))))


def is_azure(path: str) -> bool:
    """Whether a path names a deployment, as Azure's do."""
    return _DEPLOYMENT.search(fields.spelled(path)) is not None


def has_deployments(path: str) -> bool:
    """Whether models may be deployments of Azure there, in the path or in the body."""
    return _AZURE.search(fields.spelled(path)) is not None


def is_openai(model: str) -> bool:
    """Whether a model is OpenAI's own by its name, behind a vendor prefix or not."""
    return _MODEL.match(model.rsplit("/", 1)[-1]) is not None


def wants_usage(body: Mapping[str, Any]) -> bool:
    """Whether the client is to see the usage: in a stream only where it asked for it.

    Raises:
        ProtocolError: a flag that is none.
    """
    stream = fields.flag(body, "stream")
    return fields.flag(fields.mapping(body, "stream_options"), "include_usage") or not stream


def asking_for_usage(body: Mapping[str, Any]) -> dict[str, Any]:
    """The change by which a stream reports its usage."""
    options = fields.mapping(body, "stream_options")
    return {"stream_options": {**options, "include_usage": True}}


def read_usage(usage: Any) -> Usage:
    """OpenAI's usage object. Where the total is more than its two parts (xAI, Gemini), the rest
    is output: reasoning that was left out.
    """
    given = fields.count(usage, "prompt_tokens")
    output = fields.count(usage, "completion_tokens")
    total = fields.count(usage, "total_tokens")
    if given is not None and output is not None and total is not None:
        output = max(output, total - given)
    cached = fields.count(usage, "prompt_tokens_details", "cached_tokens")
    if cached is None:
        cached = fields.count(usage, "prompt_cache_hit_tokens")
    reasoning = fields.count(usage, "completion_tokens_details", "reasoning_tokens")
    return Usage(
        given,
        output,
        reasoning,
        cached,
        audio_input_tokens=fields.count(usage, "prompt_tokens_details", "audio_tokens"),
        audio_output_tokens=fields.count(usage, "completion_tokens_details", "audio_tokens"),
    )


def write_usage(usage: Usage) -> dict[str, Any]:
    """OpenAI's usage object; what is unknown is left out of the sums."""
    given, output = usage.input_tokens or 0, usage.output_tokens or 0
    written: dict[str, Any] = {
        "prompt_tokens": given,
        "completion_tokens": output,
        "total_tokens": given + output,
    }
    if usage.cached_tokens is not None:
        written["prompt_tokens_details"] = {"cached_tokens": usage.cached_tokens}
    if usage.reasoning_tokens is not None:
        written["completion_tokens_details"] = {"reasoning_tokens": usage.reasoning_tokens}
    return written


def openai_error(error: StreamGuardError, numbers: Mapping[str, Any]) -> dict[str, Any]:
    """OpenAI's error object with ``streamguard`` numbers beside its own fields."""
    return {
        "error": {
            "message": error.message,
            "type": _TYPES.get(error.http_status, "server_error"),
            "param": None,
            "code": error.http_code,
            "streamguard": dict(numbers),
        }
    }
