"""What a request may be billed for beside text, and what responses report of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from streamguard.core.wire import NO_EXTRAS, Extras
from streamguard.protocols import protocol_named

SEARCH = {"type": "web_search_20250305", "name": "web_search"}
HEARD = {"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}
SOUND = {"inline_data": {"mime_type": "Audio/wav", "data": ""}}
IMAGE = {"inlineData": {"mimeType": "image/png", "data": ""}}
LONG = {"type": "ephemeral", "ttl": "1h"}
SHORT = {"type": "ephemeral", "ttl": "5m"}


def extras(name: str, path: str = "/x", **body: Any) -> Extras:
    base = {"model": "m", "messages": [], "contents": []}
    return protocol_named(name).parse({**base, **body}, path).extras


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ({}, NO_EXTRAS),
        ({"modalities": ["text"]}, NO_EXTRAS),
        ({"modalities": ["text", "Audio"]}, Extras(audio_output=True)),
        ({"audio": {"voice": "alloy"}}, Extras(audio_output=True)),
        ({"messages": [{"content": [HEARD]}]}, Extras(audio_input=True)),
        ({"messages": [{"role": "assistant", "audio": {"id": "a"}}]}, Extras(audio_input=True)),
        ({"messages": [{"content": "input_audio"}, {"content": [{"type": "text"}]}]}, NO_EXTRAS),
        ({"web_search_options": {"search_context_size": "low"}}, Extras(searches=1)),
        ({"model": "openai/gpt-4o-search-preview"}, Extras(searches=1)),
        ({"plugins": [{"id": "web", "max_results": 1}]}, Extras(searches=None)),
        ({"plugins": [{"id": "file-parser"}]}, NO_EXTRAS),
        ({"search_parameters": {"mode": "auto"}}, Extras(searches=None)),
        ({"search_parameters": {"mode": "off"}}, NO_EXTRAS),
        ({"tools": [{"type": "function", "function": {"name": "web_search"}}]}, NO_EXTRAS),
        ({"tools": [{"type": "openrouter:web_search"}]}, Extras(searches=None)),
        (
            {"tools": [{"type": "builtin_function", "function": {"name": "$web_search"}}]},
            Extras(searches=None),
        ),
    ],
)
def test_of_chat(body, found):
    assert extras("openai_chat", **body) == found


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ({"input": "hi"}, NO_EXTRAS),
        ({"input": [HEARD]}, Extras(audio_input=True)),
        ({"input": [{"role": "user", "content": [HEARD]}]}, Extras(audio_input=True)),
        ({"modalities": ["audio"]}, Extras(audio_output=True)),
        ({"tools": [{"type": "file_search"}], "max_tool_calls": 3}, NO_EXTRAS),
        ({"tools": [{"type": "web_search"}]}, Extras(searches=None)),
        ({"tools": [{"type": "web_search_preview"}], "max_tool_calls": 3}, Extras(searches=3)),
        ({"tools": [{"type": "web_search"}] * 2, "max_tool_calls": 3}, Extras(searches=3)),
        ({"tools": [{"type": "web_search"}], "max_tool_calls": True}, Extras(searches=None)),
    ],
)
def test_of_responses(body, found):
    assert extras("openai_responses", **body) == found


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ({"cache_control": SHORT}, NO_EXTRAS),
        ({"cache_control": {"type": "ephemeral"}}, NO_EXTRAS),
        ({"cache_control": LONG}, Extras(long_cache=True)),
        ({"system": [{"cache_control": SHORT}, {"cache_control": LONG}]}, Extras(long_cache=True)),
        ({"messages": [{"content": [{"cache_control": LONG}]}]}, Extras(long_cache=True)),
        ({"tools": [{"name": "web_search"}]}, NO_EXTRAS),
        ({"tools": [SEARCH]}, Extras(searches=None)),
        ({"tools": [{**SEARCH, "max_uses": 5}]}, Extras(searches=5)),
        ({"tools": [{**SEARCH, "max_uses": 5}, {**SEARCH, "max_uses": 2}]}, Extras(searches=7)),
        ({"tools": [{**SEARCH, "max_uses": 5}, SEARCH]}, Extras(searches=None)),
    ],
)
def test_of_anthropic(body, found):
    assert extras("anthropic", **body) == found


@pytest.mark.parametrize(
    ("model", "body", "found"),
    [
        ("gemini-3-pro", {}, NO_EXTRAS),
        ("gemini-3-pro", {"contents": "audio/wav"}, NO_EXTRAS),
        ("gemini-3-pro", {"contents": [{"parts": [IMAGE]}, {"parts": "x"}]}, NO_EXTRAS),
        ("gemini-3-pro", {"contents": [{"parts": [IMAGE, SOUND]}]}, Extras(audio_input=True)),
        ("gemini-3-pro", {"contents": {"parts": SOUND}}, Extras(audio_input=True)),
        ("gemini-3-pro", {"contents": [SOUND]}, Extras(audio_input=True)),
        (
            "gemini-3.8-live",
            {"generationConfig": {"responseModalities": ["AUDIO"]}},
            Extras(audio_output=True),
        ),
        (
            "gemini-2.5-pro-tts",
            {"generation_config": {"response_modalities": ["AUDIO"]}},
            NO_EXTRAS,
        ),
        ("gemini-2.5-pro", {"tools": [{"google_search": {}}]}, Extras(searches=1)),
        ("gemini-3-pro", {"tools": {"googleSearch": {}}}, Extras(searches=None)),
        ("gemini-3-pro", {"tools": [{"functionDeclarations": []}]}, NO_EXTRAS),
    ],
)
def test_of_gemini(model, body, found):
    assert extras("gemini", f"/v1beta/models/{model}:generateContent", **body) == found


def reply(name: str, doc: Any) -> Any:
    request = protocol_named(name).parse({"model": "m", "messages": [], "contents": []}, "/x")
    return protocol_named(name).read_reply(request, json.dumps(doc).encode()).usage


def test_reports_tell_of_audio():
    details = {"prompt_tokens_details": {"audio_tokens": 3},
               "completion_tokens_details": {"audio_tokens": 4}}  # fmt: skip
    usage = reply("openai_chat", {"usage": {"prompt_tokens": 9, "completion_tokens": 9, **details}})
    assert (usage.audio_input_tokens, usage.audio_output_tokens) == (3, 4)
    details = {"input_tokens_details": {"audio_tokens": 3},
               "output_tokens_details": {"audio_tokens": 4}}  # fmt: skip
    usage = reply("openai_responses", {"usage": {"input_tokens": 9, "output_tokens": 9, **details}})
    assert (usage.audio_input_tokens, usage.audio_output_tokens) == (3, 4)
    heard = [{"modality": "TEXT", "tokenCount": 2}, {"modality": "AUDIO", "tokenCount": 7}]
    said = {"promptTokenCount": 9, "promptTokensDetails": heard, "candidatesTokensDetails": [{}]}
    usage = reply("gemini", {"usageMetadata": said})
    assert (usage.audio_input_tokens, usage.audio_output_tokens) == (7, 0)
    usage = reply("gemini", {"usageMetadata": {"promptTokenCount": 9}})
    assert (usage.audio_input_tokens, usage.audio_output_tokens) == (None, None)


def test_reports_tell_of_long_cache_writes_and_searches():
    said = {"input_tokens": 1, "cache_creation_input_tokens": 8, "output_tokens": 1,
            "cache_creation": {"ephemeral_1h_input_tokens": 6},
            "server_tool_use": {"web_search_requests": 2}}  # fmt: skip
    usage = reply("anthropic", {"usage": said})
    assert (usage.cache_write_tokens, usage.long_cache_write_tokens) == (8, 6)
    assert usage.web_searches == 2
    assert reply("anthropic", {"usage": {"input_tokens": 1}}).web_searches is None


def searching(action: str) -> dict[str, Any]:
    return {"type": "web_search_call", "action": {"type": action}}


def test_a_responses_searches_are_items_of_its_output():
    items = [searching("search"), searching("open_page"), {"type": "web_search_call"}, {}]
    usage = reply("openai_responses", {"usage": {"output_tokens": 1}, "output": items})
    assert usage.web_searches == 2


def streamed(name: str, events: list[dict[str, Any]]) -> list[int | None]:
    protocol = protocol_named(name)
    state = protocol.stream(protocol.parse({"model": "m", "messages": [], "stream": True}, "/x"))
    seen = []
    for event in events:
        list(state.feed(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()))
        seen.append(state.reported.web_searches)
    return seen


def test_searches_count_as_a_stream_shows_them():
    done = "response.output_item.done"
    events = [
        {"type": "response.created", "response": {"id": "r", "usage": None, "output": []}},
        {"type": done, "output_index": 0, "item": searching("search")},
        {"type": done, "output_index": 1, "item": searching("open_page")},
        {"type": done, "output_index": 2, "item": searching("search")},
        {"type": "response.completed", "response": {"usage": {"output_tokens": 1}, "output": []}},
    ]
    assert streamed("openai_responses", events) == [None, 1, 1, 2, 0]
    start, tool = "content_block_start", {"type": "server_tool_use", "name": "web_search"}
    events = [
        {"type": "message_start", "message": {"usage": {"input_tokens": 1, "output_tokens": 1}}},
        {"type": start, "index": 0, "content_block": tool},
        {"type": start, "index": 1, "content_block": {**tool, "name": "web_fetch"}},
        {"type": start, "index": 2, "content_block": {**tool, "type": "tool_use"}},
        {
            "type": "message_delta",
            "usage": {"output_tokens": 9, "server_tool_use": {"web_search_requests": 3}},
        },
    ]
    assert streamed("anthropic", events) == [0, 1, 1, 1, 3]
