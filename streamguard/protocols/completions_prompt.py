"""OpenAI's Completions and Embeddings: texts are billed as they stand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from streamguard.core.families import family_of, prompt_of
from streamguard.core.json_text import spaced
from streamguard.core.prompt import Part, Prompt


def render(body: Mapping[str, Any], model: str) -> Prompt:
    """The prompts and the suffix of a Completions ``body``.

    Raises:
        ProtocolError: a value is not JSON or nested too deeply.
    """
    return _prompt([body.get("prompt"), body.get("suffix")], model)


def render_embeddings(body: Mapping[str, Any], model: str) -> Prompt:
    """The inputs of an Embeddings ``body``.

    Raises:
        ProtocolError: a value is not JSON or nested too deeply.
    """
    return _prompt([body.get("input")], model)


def _prompt(given: list[Any], model: str) -> Prompt:
    parts = (part for value in given for part in _parts(value))
    # A suffix belongs to every prompt: then the sum is the sound bound of the longest.
    several = isinstance(given[0], list) and not any(given[1:])
    return replace(prompt_of(parts, family_of(model)), separate=several)


def _parts(value: Any) -> Iterator[Part]:
    """A text, token ids, or lists of them; anything else as its JSON."""
    if isinstance(value, str):
        yield Part("user", text=value)
    elif isinstance(value, list):
        ids = sum(1 for item in value if type(item) is int)
        yield Part("user", tokens=ids)
        for item in value:
            if type(item) is not int:
                yield from _inner(item)
    elif value is not None:
        yield Part("user", text=spaced(value), bound=True)


def _inner(item: Any) -> Iterator[Part]:
    """One prompt of several: lists go no deeper than lists of token ids."""
    if isinstance(item, str):
        yield Part("user", text=item)
    elif isinstance(item, list) and all(type(one) is int for one in item):
        yield Part("user", tokens=len(item))
    else:
        yield Part("user", text=spaced(item), bound=True)
