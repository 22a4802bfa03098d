"""What a request may be billed for beside text: audio, long cache writes, web searches."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from streamguard.core.wire import Extras
from streamguard.protocols.fields import MOST, word
from streamguard.protocols.slots import objects

_SEARCHES = re.compile(r"-search-(?:preview|api)")
"""OpenAI's chat models that search the web once a call."""
_GROUNDING = (
    "google_search", "googleSearch", "google_search_retrieval", "googleSearchRetrieval",
    "enterprise_web_search", "enterpriseWebSearch",
)  # fmt: skip
_MEDIA = ("inlineData", "inline_data", "fileData", "file_data")
_PER_PROMPT = re.compile(r"(?:.*/)?gemini-[12]\b")
"""Gemini models that bill a prompt that was grounded; later ones bill each of its queries."""


def of_chat(body: Mapping[str, Any], model: str) -> Extras:
    """Those of a chat request to OpenAI and the hosts that speak like it."""
    plugins = (plugin.get("id") == "web" for plugin in objects(body.get("plugins")))
    mode = body.get("search_parameters")  # xAI's
    live = isinstance(mode, Mapping) and mode.get("mode") != "off"
    searches = None if live or any(plugins) else _searches(body.get("tools"))
    if searches == 0 and (body.get("web_search_options") or _SEARCHES.search(model)):
        searches = 1
    return Extras(
        audio_input=any(_is_audio(message) for message in objects(body.get("messages"))),
        audio_output=_lists(body.get("modalities"), "audio") or body.get("audio") is not None,
        searches=searches,
    )


def of_responses(body: Mapping[str, Any]) -> Extras:
    """Those of a Responses request, whose ``max_tool_calls`` bounds all its searches."""
    searches = _searches(body.get("tools"), _bound(body.get("max_tool_calls")))
    turns = objects(body.get("input"))
    return Extras(
        audio_input=any(_is_audio(turn) or word(turn) == "input_audio" for turn in turns),
        audio_output=_lists(body.get("modalities"), "audio"),
        searches=searches,
    )


def of_anthropic(body: Mapping[str, Any], places: Iterable[Mapping[str, Any]]) -> Extras:
    """Those of a Messages request; ``places`` is where its cache controls may stand."""
    controls = (place.get("cache_control") for place in places)
    long = any(isinstance(each, Mapping) and each.get("ttl", "5m") != "5m" for each in controls)
    return Extras(long_cache=long, searches=_searches(body.get("tools")))


def of_gemini(body: Mapping[str, Any], config: Mapping[str, Any], model: str) -> Extras:
    """Those of a request to Gemini; what a model for speech makes is audio at its usual price."""
    asked = config.get("responseModalities", config.get("response_modalities"))
    tools = objects(_listed(body.get("tools")))
    grounded = any(tool.get(name) is not None for tool in tools for name in _GROUNDING)
    once = 1 if _PER_PROMPT.match(model.lower()) else None
    return Extras(
        audio_input=any(kind.startswith("audio/") for kind in _kinds(body.get("contents"))),
        audio_output=_lists(asked, "audio") and "tts" not in model.lower(),
        searches=once if grounded else 0,
    )


def _kinds(contents: Any) -> Iterator[str]:
    """The media types of a prompt's parts."""
    for turn in objects(_listed(contents)):
        for part in objects(_listed(turn.get("parts", turn))):
            for data in (part.get(name) for name in _MEDIA):
                if isinstance(data, Mapping):
                    yield str(data.get("mimeType", data.get("mime_type"))).lower()


def _listed(given: Any) -> list[Any]:
    return given if isinstance(given, list) else [given]


def _is_audio(message: Mapping[str, Any]) -> bool:
    parts = message.get("content")
    if isinstance(parts, list) and any(word(part) == "input_audio" for part in objects(parts)):
        return True
    return message.get("audio") is not None


def _lists(given: Any, name: str) -> bool:
    return any(isinstance(kind, str) and kind.lower() == name for kind in _listed(given))


def _searches(tools: Any, most: int | None = None) -> int | None:
    """The most web searches that the tools may make; ``None`` has no bound. ``most`` is that of
    the whole call.
    """
    bounds = [_bound(tool.get("max_uses")) for tool in objects(tools) if _is_search(tool)]
    if not bounds or most is not None:
        return most if bounds else 0
    known = [bound for bound in bounds if bound is not None]
    return sum(known) if len(known) == len(bounds) else None


def _is_search(tool: Mapping[str, Any]) -> bool:
    function = tool.get("function")
    name = word(function, "name") if isinstance(function, Mapping) else ""
    return "web_search" in word(tool) or name == "$web_search"  # Moonshot's


def _bound(given: Any) -> int | None:
    return given if type(given) is int and 0 <= given <= MOST else None
