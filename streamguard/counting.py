"""Count a request body's input tokens, whatever its wire format."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from streamguard.core.counting import count_prompt, with_own_tokenizer
from streamguard.core.json_text import as_text, maps
from streamguard.core.prompt import Prompt, PromptCount
from streamguard.errors import ProtocolError
from streamguard.protocols import (
    anthropic_prompt,
    completions_prompt,
    gemini_prompt,
    ollama_prompt,
    openai_chat_prompt,
    openai_responses_prompt,
)
from streamguard.tokenizers.own import Paths, Tokenizers

Render = Callable[[Mapping[str, Any], str], Prompt]

_BLOCKS = frozenset({"tool_use", "tool_result", "image", "document", "thinking"})


def count_request(
    body: Mapping[str, Any], model: str | None = None, *, tokenizers: Paths | None = None
) -> PromptCount:
    """Count the input tokens of a request ``body`` as its provider bills them.

    The wire format is told from the body's shape: Chat Completions, Responses, Completions and
    Embeddings of OpenAI, Anthropic Messages, Gemini, Ollama. ``model`` overrides the body's own.
    ``tokenizers`` are names or patterns of models with the paths of their own ``tokenizer.json``.

    Raises:
        ProtocolError: the body has none of the known shapes, or is nested too deeply.
        ConfigurationError: a file is no tokenizer.
    """
    if not isinstance(body, Mapping):
        raise ProtocolError("the request body must be a JSON object")
    name = model or str(body.get("model") or "")
    own = Tokenizers(tokenizers)
    prompt = renderer_of(body, name)(body, name)
    if own.path_of(name) is not None:
        prompt = with_own_tokenizer(prompt)
    return replace(count_prompt(prompt, own.for_model(name).tokenizer), model=name or None)


def renderer_of(body: Mapping[str, Any], model: str) -> Render:
    """What renders a body of this shape.

    Raises:
        ProtocolError: the body has none of the known shapes, or messages that are no objects.
    """
    if isinstance(body.get("contents"), (list, dict, str)) or isinstance(body.get("content"), dict):
        return gemini_prompt.render
    if isinstance(body.get("options"), dict) or "keep_alive" in body or "num_ctx" in body:
        return ollama_prompt.render
    if isinstance(messages := body.get("messages"), list):
        if len(maps(messages)) < len(messages):
            raise ProtocolError("messages must be a list of objects")
        return anthropic_prompt.render if _is_anthropic(body, model) else openai_chat_prompt.render
    if isinstance(body.get("prompt"), (str, list)):
        return completions_prompt.render
    if _is_embedding(body, model):
        return completions_prompt.render_embeddings
    if any(body.get(key) for key in ("input", "instructions", "prompt", "previous_response_id")):
        return openai_responses_prompt.render
    message = "the body has no messages, input, contents or prompt; pass a provider's request body"
    raise ProtocolError(message)


def _is_anthropic(body: Mapping[str, Any], model: str) -> bool:
    """System beside the messages, tools with ``input_schema``, blocks only Anthropic has."""
    if "system" in body or "anthropic_version" in body:
        return True
    tools = maps(body.get("tools"))
    if tools:
        return any("input_schema" in tool for tool in tools) or all(
            "function" not in tool and "custom" not in tool for tool in tools
        )
    blocks = (
        as_text(block.get("type"))
        for message in maps(body["messages"])
        for block in maps(message.get("content"))
    )
    return ("/" not in model and "claude" in model.lower()) or any(
        kind in _BLOCKS for kind in blocks
    )


def _is_embedding(body: Mapping[str, Any], model: str) -> bool:
    given = body.get("input")
    if given is None:
        return False
    if "embed" in model.lower() or "encoding_format" in body or "dimensions" in body:
        return True
    return isinstance(given, list) and bool(given) and not isinstance(given[0], Mapping)
