"""A whole stream in each wire format, and what a client would read of one."""

# ruff: noqa: E501
from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from support.wire import chat_stream, chat_text, sse_data, sse_event

USAGE = {"prompt_tokens": 7, "completion_tokens": 90, "total_tokens": 97}


@dataclass(frozen=True)
class Format:
    """How a test speaks one wire format.

    ``build`` makes a stream of these pieces of text, ``read`` the text that a client sees of
    one, ``finish`` the reason it is told for the end.
    """

    path: str
    body: dict[str, Any]
    build: Callable[[Sequence[str]], bytes]
    read: Callable[[bytes], str]
    finish: Callable[[bytes], Any]
    cut: Any
    media: str = "text/event-stream"
    by_name: bool = field(default=False)


def _chat_finish(stream: bytes) -> Any:
    return next(
        choice["finish_reason"]
        for chunk in reversed(sse_data(stream))
        if chunk != "[DONE]"
        for choice in chunk["choices"]
    )


def _completions(words: Sequence[str]) -> bytes:
    head = {
        "id": "cmpl-1",
        "object": "text_completion",
        "created": 1,
        "model": "gpt-3.5-turbo-instruct",
    }

    def chunk(text: str, finish: str | None) -> bytes:
        choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": finish}
        return sse_event({**head, "choices": [choice]})

    usage = sse_event({**head, "choices": [], "usage": USAGE})
    return b"".join(
        [*(chunk(word, None) for word in words), chunk("", "stop"), usage, sse_event("[DONE]")]
    )


def _completions_text(stream: bytes) -> str:
    chunks = [chunk for chunk in sse_data(stream) if chunk != "[DONE]"]
    return "".join(choice["text"] for chunk in chunks for choice in chunk["choices"])


def responses_stream(words: Sequence[str]) -> bytes:
    """A Responses stream: reasoning without text, then one message."""
    head = {"id": "resp_1", "object": "response", "created_at": 1, "model": "gpt-4o", "status": "in_progress",
            "error": None, "incomplete_details": None, "instructions": None, "metadata": {}, "output": [],
            "parallel_tool_calls": True, "tool_choice": "auto", "tools": [], "usage": None}  # fmt: skip
    text = "".join(words)
    part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
    message = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "status": "in_progress",
        "content": [],
    }
    thought = {"id": "rs_1", "type": "reasoning", "summary": []}
    at = {"item_id": "msg_1", "output_index": 1, "content_index": 0}
    done = {**message, "status": "completed", "content": [{**part, "text": text}]}
    usage = {"input_tokens": 7, "input_tokens_details": {"cached_tokens": 3}, "output_tokens": 90,
             "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 97}  # fmt: skip
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": head},
        {"type": "response.in_progress", "response": head},
        {"type": "response.output_item.added", "output_index": 0, "item": thought},
        {"type": "response.output_item.done", "output_index": 0, "item": thought},
        {"type": "response.output_item.added", "output_index": 1, "item": message},
        {"type": "response.content_part.added", **at, "part": part},
        *({"type": "response.output_text.delta", **at, "delta": word, "logprobs": []} for word in words),
        {"type": "response.output_text.done", **at, "text": text, "logprobs": []},
        {"type": "response.content_part.done", **at, "part": {**part, "text": text}},
        {"type": "response.output_item.done", "output_index": 1, "item": done},
        {"type": "response.completed",
         "response": {**head, "status": "completed", "output": [thought, done], "usage": usage}},
    ]  # fmt: skip
    return b"".join(
        sse_event({**event, "sequence_number": number}, event["type"])
        for number, event in enumerate(events)
    )


def _typed_text(kind: str, *path: str) -> Callable[[bytes], str]:
    def read(stream: bytes) -> str:
        found = ""
        for event in sse_data(stream):
            value = event if event != "[DONE]" and event["type"] == kind else {}
            for name in path[:-1]:
                value = value.get(name, {})
            found += value.get(path[-1], "")
        return found

    return read


def _responses_finish(stream: bytes) -> Any:
    response = sse_data(stream)[-1]["response"]
    return (response["incomplete_details"] or {}).get("reason", response["status"])


def anthropic_stream(words: Sequence[str]) -> bytes:
    """A Messages stream of one text block."""
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-sonnet-4-5", "content": [],
               "stop_reason": None, "stop_sequence": None,
               "usage": {"input_tokens": 5, "cache_read_input_tokens": 2, "cache_creation_input_tokens": 0,
                         "output_tokens": 1}}  # fmt: skip
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": message},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "ping"},
        *({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word}}
          for word in words),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None},
         "usage": {"output_tokens": 90}},
        {"type": "message_stop"},
    ]  # fmt: skip
    return b"".join(sse_event(event, event["type"]) for event in events)


def _anthropic_finish(stream: bytes) -> Any:
    assert b"event: message_stop\n" in stream
    return [e["delta"]["stop_reason"] for e in sse_data(stream) if e["type"] == "message_delta"][-1]


def gemini_chunks(words: Sequence[str]) -> list[dict[str, Any]]:
    """The documents of a Gemini stream."""

    def chunk(text: str, **more: Any) -> dict[str, Any]:
        content = {"role": "model", "parts": [{"text": text}]}
        return {"candidates": [{"content": content, "index": 0, **more}],
                "usageMetadata": {"promptTokenCount": 7, "totalTokenCount": 7},
                "modelVersion": "gemini-2.5-flash", "responseId": "r1"}  # fmt: skip

    last = chunk("", finishReason="STOP")
    last["usageMetadata"] = {
        "promptTokenCount": 7,
        "candidatesTokenCount": 90,
        "totalTokenCount": 97,
    }
    return [*map(chunk, words), last]


def gemini_stream(words: Sequence[str]) -> bytes:
    """As server-sent events, with Google's CRLF."""
    return b"".join(
        b"data: " + json.dumps(doc).encode() + b"\r\n\r\n" for doc in gemini_chunks(words)
    )


def gemini_array(words: Sequence[str]) -> bytes:
    """As a JSON array, printed as Google prints it."""
    return (
        "[" + "\n,\r\n".join(json.dumps(doc, indent=2) for doc in gemini_chunks(words)) + "\n]\n"
    ).encode()


def _gemini_docs(stream: bytes) -> list[Any]:
    return sse_data(stream.replace(b"\r\n", b"\n"))


def _gemini_text(docs: list[Any]) -> str:
    return "".join(
        part.get("text", "") for doc in docs for part in doc["candidates"][0]["content"]["parts"]
    )


def _gemini_finish(docs: list[Any]) -> Any:
    return docs[-1]["candidates"][0].get("finishReason")


def ollama_stream(words: Sequence[str]) -> bytes:
    """A chat's lines."""
    head = {"model": "llama3.2", "created_at": "2026-01-01T00:00:00Z"}
    lines = [
        {**head, "message": {"role": "assistant", "content": word}, "done": False} for word in words
    ]
    end = {"done": True, "done_reason": "stop", "prompt_eval_count": 7, "eval_count": 90}
    lines.append({**head, "message": {"role": "assistant", "content": ""}, **end})
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def _lines(stream: bytes) -> list[Any]:
    assert stream == b"" or stream.endswith(b"\n")
    return [json.loads(line) for line in stream.splitlines()]


def ai_sdk_stream(words: Sequence[str]) -> bytes:
    """A UI message stream of one step and one text."""
    parts: list[dict[str, Any]] = [
        {"type": "start", "messageId": "m1"},
        {"type": "start-step"},
        {"type": "text-start", "id": "0"},
        *({"type": "text-delta", "id": "0", "delta": word} for word in words),
        {"type": "text-end", "id": "0"},
        {"type": "finish-step"},
        {"type": "finish"},
    ]
    return b"".join([*map(sse_event, parts), sse_event("[DONE]")])


_BASE = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}], "stream": True}
_GOOGLE = "/v1beta/models/gemini-2.5-flash:streamGenerateContent"
_CONTENTS = {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}

FORMATS = {
    "openai_chat": Format(
        "/v1/chat/completions",
        {**_BASE, "stream_options": {"include_usage": True}},
        lambda words: chat_stream(words, usage=USAGE),
        chat_text,
        _chat_finish,
        "length",
    ),
    "completions": Format(
        "/v1/completions",
        {"model": "gpt-3.5-turbo-instruct", "prompt": "hi", "stream": True,
         "stream_options": {"include_usage": True}},
        _completions,
        _completions_text,
        _chat_finish,
        "length",
    ),
    "openai_responses": Format(
        "/v1/responses",
        {"model": "gpt-4o", "input": "hi", "stream": True},
        responses_stream,
        _typed_text("response.output_text.delta", "delta"),
        _responses_finish,
        "max_output_tokens",
    ),
    "anthropic": Format(
        "/v1/messages",
        {**_BASE, "model": "claude-sonnet-4-5", "max_tokens": 500},
        anthropic_stream,
        _typed_text("content_block_delta", "delta", "text"),
        _anthropic_finish,
        "max_tokens",
    ),
    "gemini": Format(
        _GOOGLE,
        _CONTENTS,
        gemini_stream,
        lambda stream: _gemini_text(_gemini_docs(stream)),
        lambda stream: _gemini_finish(_gemini_docs(stream)),
        "MAX_TOKENS",
    ),
    "gemini array": Format(
        _GOOGLE,
        _CONTENTS,
        gemini_array,
        lambda stream: _gemini_text(json.loads(stream)),
        lambda stream: _gemini_finish(json.loads(stream)),
        "MAX_TOKENS",
        "application/json",
    ),
    "ollama": Format(
        "/api/chat",
        {"model": "llama3.2", "messages": []},
        ollama_stream,
        lambda stream: "".join(line["message"]["content"] for line in _lines(stream)),
        lambda stream: _lines(stream)[-1].get("done_reason"),
        "length",
        "application/x-ndjson",
    ),
    "ai_sdk": Format(
        "",
        {},
        ai_sdk_stream,
        _typed_text("text-delta", "delta"),
        lambda stream: [e if e == "[DONE]" else e["type"] for e in sse_data(stream)][-4:],
        ["text-end", "finish-step", "finish", "[DONE]"],
        by_name=True,
    ),
    "plain": Format(
        "",
        {},
        lambda words: "".join(words).encode(),
        lambda stream: stream.decode(),
        lambda stream: None,
        None,
        "text/plain",
        by_name=True,
    ),
    "sse": Format(
        "",
        {},
        lambda words: b"".join(
            "".join(f"data: {line}\n" for line in word.split("\n")).encode() + b"\n" for word in words
        ),
        lambda stream: "".join(
            "\n".join(line.removeprefix("data: ") for line in block.split("\n"))
            for block in stream.decode().split("\n\n")[:-1]
            if not block.startswith("event: ")
        ),
        lambda stream: json.loads(stream.rsplit(b"data: ", 1)[1])["finish_reason"],
        "length",
        by_name=True,
    ),
}  # fmt: skip
