"""The official JavaScript clients read cut streams, from a real server."""

# ruff: noqa: E501
from __future__ import annotations

import pytest
from support.node import run_module
from support.origin import Origin
from support.servers import serve
from support.texts import ENGLISH
from support.wire import chat_chunk

OPENAI = """
import OpenAI from "openai";
const [url, ...models] = process.argv.slice(2);
const client = new OpenAI({ baseURL: url + "/v1", apiKey: "k", maxRetries: 0 });
const messages = [{ role: "user", content: "hi" }];
const found = [];
for (const model of models) {
  const one = {};
  try {
    const raw = await client.chat.completions.create({
      model, messages, stream: true, stream_options: { include_usage: true } });
    one.text = ""; one.finish = [];
    for await (const chunk of raw) {
      for (const choice of chunk.choices) {
        one.text += choice.delta.content ?? "";
        if (choice.finish_reason) one.finish.push(choice.finish_reason);
      }
      if (chunk.usage) one.usage = chunk.usage.completion_tokens;
    }
    const runner = client.chat.completions.stream({ model, messages, n: model.startsWith("many") ? 3 : 1 });
    const last = await runner.finalChatCompletion();
    one.helper = last.choices.map((choice) => [choice.message.content, choice.finish_reason]);
  } catch (error) { one.error = String(error); }
  found.push(one);
}
console.log(JSON.stringify(found));
"""

RESPONSES = """
import OpenAI from "openai";
const [url, ...models] = process.argv.slice(2);
const client = new OpenAI({ baseURL: url + "/v1", apiKey: "k", maxRetries: 0 });
const found = [];
for (const model of models) {
  const one = { text: "" };
  try {
    for await (const event of await client.responses.create({ model, input: "hi", stream: true })) {
      if (event.type === "response.output_text.delta") one.text += event.delta;
      if (event.type === "response.incomplete") one.finish = event.response.incomplete_details.reason;
    }
    const last = await client.responses.stream({ model, input: "hi" }).finalResponse();
    one.helper = [last.output_text, last.status];
  } catch (error) { one.error = String(error); }
  found.push(one);
}
console.log(JSON.stringify(found));
"""

ANTHROPIC = """
import Anthropic from "@anthropic-ai/sdk";
const [url, ...models] = process.argv.slice(2);
const client = new Anthropic({ baseURL: url, apiKey: "k", maxRetries: 0 });
const messages = [{ role: "user", content: "hi" }];
const found = [];
for (const model of models) {
  const one = {};
  try {
    const stream = client.messages.stream({ model, messages, max_tokens: 100 });
    const last = await stream.finalMessage();
    one.text = last.content.map((block) => block.text).join("");
    one.finish = last.stop_reason;
    one.usage = last.usage.output_tokens;
  } catch (error) { one.error = String(error); }
  found.push(one);
}
console.log(JSON.stringify(found));
"""

AI = """
import { parseJsonEventStream, readUIMessageStream, uiMessageChunkSchema } from "ai";
const [url, ...models] = process.argv.slice(2);
const found = [];
for (const model of models) {
  const one = { types: [] };
  try {
    const answer = await fetch(url + "/ai_sdk", { method: "POST", body: JSON.stringify({ model }) });
    const parts = parseJsonEventStream({ stream: answer.body, schema: uiMessageChunkSchema })
      .pipeThrough(new TransformStream({
        transform(part, out) {
          if (!part.success) throw part.error;
          one.types.push(part.value.type);
          out.enqueue(part.value);
        } }));
    for await (const message of readUIMessageStream({ stream: parts, terminateOnError: true })) {
      one.text = message.parts.filter((part) => part.type === "text").map((part) => part.text).join("");
      one.states = message.parts.filter((part) => part.type === "text").map((part) => part.state);
    }
  } catch (error) { one.error = String(error); }
  found.push(one);
}
console.log(JSON.stringify(found));
"""

BUDGETS = [0, 1, 2, 7, 45]
MODELS = [f"m-{budget}" for budget in BUDGETS]


@pytest.fixture(scope="module")
def origin():
    return Origin()


@pytest.fixture(scope="module")
def url(origin):
    with serve(origin) as address:
        yield address


@pytest.fixture(autouse=True)
def _fresh(origin):
    origin.meters.clear()


def test_openai_node_chat(origin, url):
    parts = [chat_chunk({"role": "assistant", "content": ""}, index=at) for at in range(3)]
    words = ENGLISH.split()
    parts += [chat_chunk({"content": f" {word}"}, index=at % 3) for at, word in enumerate(words)]
    origin.scenes["many"] = b"".join(parts)
    *found, many, strict = run_module(OPENAI, url, *MODELS, "many-20", "strict-5")
    meters = iter(origin.meters[::2])
    for budget, one in zip(BUDGETS, found, strict=True):
        assert "error" not in one
        counted = next(meters).counted
        assert one["finish"] == ["length"]
        assert one["usage"] == counted
        assert budget - 3 <= counted <= budget
        ((content, finish),) = one["helper"]
        assert (content or "", finish) == (one["text"], "length")
    assert [finish for _, finish in many["helper"]] == ["length"] * 3
    assert "over its budget of 5 tokens" in strict["error"]


def test_openai_node_responses(origin, url):
    *found, strict = run_module(RESPONSES, url, *MODELS, "strict-5")
    for one in found:
        assert "error" not in one
        assert one["finish"] == "max_output_tokens"
        assert one["helper"] == [one["text"], "incomplete"]
    assert "over its budget of 5 tokens" in strict["error"]


def test_anthropic_node(origin, url):
    *found, strict = run_module(ANTHROPIC, url, *MODELS, "strict-5")
    for meter, one in zip(origin.meters, found, strict=False):
        assert "error" not in one
        assert (one["finish"], one["usage"]) == ("max_tokens", meter.counted)
    assert "over its budget of 5 tokens" in strict["error"]


def test_ai_npm(origin, url):
    *found, strict = run_module(AI, url, *MODELS, "graceful-30", "strict-5")
    for one in found:
        assert "error" not in one
        assert one["types"][-3:] == ["text-end", "finish-step", "finish"]
        assert one["states"] == ["done"]
    assert "over its budget of 5 tokens" in strict["error"]
