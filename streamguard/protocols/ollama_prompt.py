"""Ollama's chat and generate: an estimate, as each model has a template of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from streamguard.core.json_text import as_list, as_text, maps
from streamguard.core.prompt import Component, Part, Prompt
from streamguard.protocols import openai_chat_prompt
from streamguard.protocols.openai_prompt import UNSEEN

IMAGE = 4_096
"""Tokens of one image at most; models that take pictures differ widely."""
TEMPLATE = 40
"""What a template says around a prompt."""


def render(body: Mapping[str, Any], model: str) -> Prompt:
    """The prompt of an ``/api/chat`` or ``/api/generate`` body.

    Raises:
        ProtocolError: a value is not JSON or nested too deeply.
    """
    base = openai_chat_prompt.render(body, model)
    return replace(base, parts=(*base.parts, *_generate(body), *_images(body)))


def _generate(body: Mapping[str, Any]) -> Iterator[Part]:
    for key in ("system", "template", "prompt", "suffix"):
        if body.get(key):
            component: Component = "user" if key in {"prompt", "suffix"} else "system"
            yield Part(component, text=as_text(body[key]))
    if body.get("prompt"):
        yield Part("overhead", tokens=TEMPLATE)
    if body.get("context"):
        known = as_list(body["context"])
        yield Part("history", tokens=len(known) or UNSEEN, bound=not known)


def _images(body: Mapping[str, Any]) -> Iterator[Part]:
    for holder in (body, *maps(body.get("messages"))):
        for _ in as_list(holder.get("images")):
            yield Part("images", tokens=IMAGE, bound=True)
