"""Whether closing the connection stops a provider's billing, by its protocol and model. Pure."""

from __future__ import annotations

import re

_DRAIN_PROTOCOLS = frozenset({"gemini"})
_DRAIN_MODELS = re.compile(
    r"(?:^|/|\.)(?:gemini|gemma|mistral|mixtral|ministral|magistral|codestral|pixtral|devstral)"
    r"|^groq/|^bedrock/|^(?:[a-z]{2}\.)?(?:amazon|meta|cohere|ai21)\.",
    re.IGNORECASE,
)


def keeps_billing(protocol: str, model: str) -> bool:
    """Whether a provider generates and bills on after its connection is closed.

    Source: OpenRouter's table of stream cancellation: OpenAI, Azure, Anthropic and DeepSeek stop;
    Amazon Bedrock, Groq, Google and Mistral do not.
    """
    return protocol in _DRAIN_PROTOCOLS or _DRAIN_MODELS.search(model) is not None
