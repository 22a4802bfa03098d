"""Count a request body's input tokens, whatever its wire format."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from streamguard.core.counting import count_prompt
from streamguard.core.prompt import Prompt, PromptCount
from streamguard.errors import ProtocolError
from streamguard.protocols import anthropic_prompt, chat_prompt, gemini_prompt, responses_prompt
from streamguard.tokenizers import encoding_for_model, get_tokenizer

Render = Callable[[Mapping[str, Any], str], Prompt]


def count_request(body: Mapping[str, Any], model: str | None = None) -> PromptCount:
    """Count the input tokens of a request ``body`` as its provider bills them.

    The wire format is told from the body's shape. ``model`` overrides the body's own.

    Raises:
        ProtocolError: the body has none of the known shapes.
    """
    name = model or str(body.get("model") or "")
    prompt = _renderer(body)(body, name)
    tokenizer = get_tokenizer(encoding_for_model(name).encoding)
    return replace(count_prompt(prompt, tokenizer), model=name or None)


def _renderer(body: Mapping[str, Any]) -> Render:
    if body.get("contents") is not None:
        return gemini_prompt.render
    if isinstance(body.get("messages"), list):
        return anthropic_prompt.render if "claude" in str(body.get("model")) else chat_prompt.render
    if body.get("input") is not None or body.get("instructions") or body.get("prompt"):
        return responses_prompt.render
    message = "the body has no messages, input, contents or prompt: not a known request"
    raise ProtocolError(message)
