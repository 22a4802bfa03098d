"""The official clients, each as a function that reads one stream and tells what it saw."""

# ruff: noqa: E501
from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import closing
from typing import Any, NamedTuple

import anthropic
import ollama
import openai
from google import genai

from support.node import run_module

ASK: list[Any] = [{"role": "user", "content": "hi"}]


class Seen(NamedTuple):
    """Text and finish reason that a client saw, the error it raised, and when it was through."""

    text: str
    finish: str | None
    error: str | None
    at: float


Client = Callable[[str, str, bool], Seen]
"""(base URL, model, leave after the first text) to what was seen."""


def _read(pieces: Iterable[tuple[str, str | None]], *, leave: bool) -> Seen:
    text, finish = "", None
    try:
        for piece, reason in pieces:
            text += piece
            finish = reason or finish
            if leave and text:
                break
    except Exception as error:  # noqa: BLE001 - what a client raises is what is looked at
        return Seen(text, finish, str(error), time.time())
    return Seen(text, finish, None, time.time())


def _openai(url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0)


def _chat_pieces(chunks: Iterable[Any]) -> Iterable[tuple[str, str | None]]:
    for chunk in chunks:
        for choice in chunk.choices:
            yield choice.delta.content or "", choice.finish_reason


def openai_raw(url: str, model: str, leave: bool) -> Seen:
    """``chat.completions.create(stream=True)``."""
    with _openai(url) as client:
        stream = client.chat.completions.create(model=model, messages=ASK, stream=True)
        with stream:
            return _read(_chat_pieces(stream), leave=leave)


def openai_helper(url: str, model: str, leave: bool) -> Seen:
    """``chat.completions.stream()``."""
    with (
        _openai(url) as client,
        client.chat.completions.stream(model=model, messages=ASK) as stream,
    ):
        chunks = (event.chunk for event in stream if event.type == "chunk")
        return _read(_chat_pieces(chunks), leave=leave)


def openai_async(url: str, model: str, leave: bool) -> Seen:
    """The asynchronous client."""

    async def pieces(stream: Any) -> AsyncIterator[tuple[str, str | None]]:
        async for chunk in stream:
            for choice in chunk.choices:
                yield choice.delta.content or "", choice.finish_reason

    async def go() -> Seen:
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0) as client:
            stream = await client.chat.completions.create(model=model, messages=ASK, stream=True)
            seen: list[tuple[str, str | None]] = []
            async with stream:
                try:
                    async for piece in pieces(stream):
                        seen.append(piece)
                        if leave and piece[0]:
                            break
                except openai.APIError as error:
                    text = "".join(piece for piece, _ in seen)
                    return Seen(text, None, str(error), time.time())
            return _read(seen, leave=False)

    return asyncio.run(go())


def _responses_pieces(events: Iterable[Any]) -> Iterable[tuple[str, str | None]]:
    for event in events:
        if event.type == "response.output_text.delta":
            yield event.delta, None
        elif event.type == "response.completed":
            yield "", "completed"
        elif event.type == "response.incomplete":
            yield "", event.response.incomplete_details.reason


def responses_raw(url: str, model: str, leave: bool) -> Seen:
    """``responses.create(stream=True)``."""
    with (
        _openai(url) as client,
        client.responses.create(model=model, input="hi", stream=True) as stream,
    ):
        return _read(_responses_pieces(stream), leave=leave)


def responses_helper(url: str, model: str, leave: bool) -> Seen:
    """``responses.stream()``."""
    with _openai(url) as client, client.responses.stream(model=model, input="hi") as stream:
        return _read(_responses_pieces(stream), leave=leave)


def completions(url: str, model: str, leave: bool) -> Seen:
    """``completions.create(stream=True)``."""
    with (
        _openai(url) as client,
        client.completions.create(model=model, prompt="hi", stream=True) as stream,
    ):
        pieces = ((c.text, c.finish_reason) for chunk in stream for c in chunk.choices)
        return _read(pieces, leave=leave)


def _message_pieces(events: Iterable[Any]) -> Iterable[tuple[str, str | None]]:
    for event in events:
        if event.type == "content_block_delta":
            yield event.delta.text, None
        elif event.type == "message_delta":
            yield "", event.delta.stop_reason


def anthropic_raw(url: str, model: str, leave: bool) -> Seen:
    """``messages.create(stream=True)``."""
    with anthropic.Anthropic(base_url=url, api_key="k", max_retries=0) as client:
        stream = client.messages.create(model=model, messages=ASK, max_tokens=4096, stream=True)
        with stream:
            return _read(_message_pieces(stream), leave=leave)


def anthropic_helper(url: str, model: str, leave: bool) -> Seen:
    """``messages.stream()``."""
    client = anthropic.Anthropic(base_url=url, api_key="k", max_retries=0)
    with client, client.messages.stream(model=model, messages=ASK, max_tokens=4096) as stream:
        return _read(_message_pieces(stream), leave=leave)


def google_genai(url: str, model: str, leave: bool) -> Seen:
    """``models.generate_content_stream``."""
    client = genai.Client(api_key="k", http_options={"base_url": url})
    with (
        closing(client),
        closing(client.models.generate_content_stream(model=model, contents="hi")) as chunks,
    ):
        pieces = (
            (
                chunk.text or "",
                str(reason.value) if (reason := chunk.candidates[0].finish_reason) else None,
            )
            for chunk in chunks
        )
        return _read(pieces, leave=leave)


def ollama_python(url: str, model: str, leave: bool) -> Seen:
    """``chat(stream=True)``."""
    chunks = ollama.Client(host=url).chat(model=model, messages=ASK, stream=True)
    with closing(chunks):
        pieces = ((chunk.message.content or "", chunk.done_reason) for chunk in chunks)
        return _read(pieces, leave=leave)


def _node(kind: str) -> Client:
    def run(url: str, model: str, leave: bool) -> Seen:
        found = run_module(SCRIPT, kind, url, model, "leave" if leave else "")
        return Seen(found["text"], found.get("finish"), found.get("error"), found["at"])

    return run


CLIENTS: dict[str, dict[str, Client]] = {
    "openai_chat": {
        "openai-python": openai_raw,
        "openai-python .stream()": openai_helper,
        "openai-python async": openai_async,
        "openai-node": _node("chat"),
    },
    "openai_responses": {
        "openai-python": responses_raw,
        "openai-python .stream()": responses_helper,
        "openai-node": _node("responses"),
    },
    "completions": {"openai-python": completions},
    "anthropic": {
        "anthropic-python": anthropic_raw,
        "anthropic-python .stream()": anthropic_helper,
        "anthropic-ts": _node("anthropic"),
    },
    "gemini": {"google-genai": google_genai},
    "ollama": {"ollama-python": ollama_python},
    "ai_sdk": {"ai (npm)": _node("ai")},
}
"""Wire format to clients."""

SCRIPT = """
import OpenAI from "openai";
import Anthropic from "@anthropic-ai/sdk";
import { parseJsonEventStream, readUIMessageStream, uiMessageChunkSchema } from "ai";
const [kind, url, model, leave] = process.argv.slice(2);
const openai = new OpenAI({ baseURL: url + "/v1", apiKey: "k", maxRetries: 0 });
const anthropic = new Anthropic({ baseURL: url, apiKey: "k", maxRetries: 0 });
const messages = [{ role: "user", content: "hi" }];
const one = { text: "" };
const stop = () => { if (leave && one.text) throw "left"; };
const kinds = {
  async chat() {
    const stream = await openai.chat.completions.create({ model, messages, stream: true });
    for await (const chunk of stream) for (const choice of chunk.choices) {
      one.text += choice.delta.content ?? "";
      if (choice.finish_reason) one.finish = choice.finish_reason;
      stop();
    }
  },
  async responses() {
    for await (const event of await openai.responses.create({ model, input: "hi", stream: true })) {
      if (event.type === "response.output_text.delta") one.text += event.delta;
      if (event.type === "response.completed") one.finish = "completed";
      if (event.type === "response.incomplete") one.finish = event.response.incomplete_details.reason;
      stop();
    }
  },
  async anthropic() {
    const stream = await anthropic.messages.create({ model, messages, max_tokens: 4096, stream: true });
    for await (const event of stream) {
      if (event.type === "content_block_delta") one.text += event.delta.text;
      if (event.type === "message_delta") one.finish = event.delta.stop_reason;
      stop();
    }
  },
  async ai() {
    const abort = new AbortController();
    const body = JSON.stringify({ model, messages, stream: true });
    const answer = await fetch(url + "/ai_sdk", { method: "POST", body, signal: abort.signal,
      headers: { "content-type": "application/json" } });
    const parts = parseJsonEventStream({ stream: answer.body, schema: uiMessageChunkSchema })
      .pipeThrough(new TransformStream({
        transform(part, out) {
          if (!part.success) throw part.error;
          if (part.value.type === "finish") one.finish = "finish";
          if (part.value.type === "error") one.told = part.value.errorText;
          out.enqueue(part.value);
        } }));
    for await (const message of readUIMessageStream({ stream: parts, terminateOnError: true })) {
      one.text = message.parts.filter((part) => part.type === "text").map((part) => part.text).join("");
      if (leave && one.text) abort.abort();
      stop();
    }
  },
};
try { await kinds[kind](); } catch (error) { if (error !== "left") one.error = String(error); }
one.at = Date.now() / 1000;
console.log(JSON.stringify(one));
process.exit(0);
"""
