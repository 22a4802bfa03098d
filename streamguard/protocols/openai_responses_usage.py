"""The usage of an OpenAI response, and the web searches it was made with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from streamguard.protocols import fields
from streamguard.protocols.slots import objects
from streamguard.usage import Usage


def read_usage(response: Mapping[str, Any]) -> Usage:
    """The usage that a response reports; its searches are items of its output."""
    usage = response.get("usage")
    if not isinstance(usage, Mapping):
        return Usage()
    return Usage(
        fields.count(usage, "input_tokens"),
        fields.count(usage, "output_tokens"),
        fields.count(usage, "output_tokens_details", "reasoning_tokens"),
        fields.count(usage, "input_tokens_details", "cached_tokens"),
        audio_input_tokens=fields.count(usage, "input_tokens_details", "audio_tokens"),
        audio_output_tokens=fields.count(usage, "output_tokens_details", "audio_tokens"),
        web_searches=sum(map(searched, objects(response.get("output")))),
    )


def searched(item: Mapping[str, Any]) -> bool:
    """Whether an item of the output is a web search that is billed: pages opened are not."""
    kind = fields.word(fields.child(item, "action"))
    return fields.word(item) == "web_search_call" and kind in ("", "search")


def write_usage(usage: Usage) -> dict[str, Any]:
    """The usage object of a response; clients expect every field."""
    given, output = usage.input_tokens or 0, usage.output_tokens or 0
    return {
        "input_tokens": given,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens or 0},
        "output_tokens": output,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens or 0},
        "total_tokens": given + output,
    }
