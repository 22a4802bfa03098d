"""The official clients, unmodified: only base_url and the key differ."""

from __future__ import annotations

import anthropic
import openai
import pytest
from google import genai
from google.genai import errors as genai_errors
from google.genai.types import HttpOptions
from support.node import run_module
from support.providers import TEXT
from support.upstream import count

BUDGET = """
[[limits]]
output_tokens = 40
"""
HELLO = [{"role": "user", "content": "hi"}]


def openai_of(running):
    return openai.OpenAI(base_url=f"{running.url}/v1", api_key=running.key, max_retries=0)


def cut_to(text, budget=40):
    assert TEXT.startswith(text)
    assert budget - 3 <= count(text) <= budget
    return True


def test_openai_python(run, providers):
    running = run()
    with openai_of(running) as client:
        reply = client.chat.completions.create(model="gpt-4o", messages=HELLO)
        assert reply.choices[0].message.content == TEXT
        chunks = list(client.chat.completions.create(model="gpt-4o", messages=HELLO, stream=True))
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == TEXT
        events = client.responses.create(model="gpt-4o", input="hi", stream=True)
        text = [event.delta for event in events if event.type == "response.output_text.delta"]
        assert "".join(text) == TEXT
        found = client.embeddings.create(model="text-embedding-3-small", input="hi")
        assert found.data[0].embedding == [0.5]
        assert client.moderations.create(input="hi").id == "modr-1"
        assert client.models.list().data[0].id == "m"
        assert client.models.retrieve("ft:gpt-4o:org::abc").object == "list"
    assert {seen.header("authorization") for seen in providers.seen} == {
        "Bearer sk-upstream-secret"
    }
    assert [event.identity.tenant for event in running.sink.events][-1] == "acme"


def test_openai_python_is_cut_at_the_budget(run):
    with openai_of(run(BUDGET)) as client:
        chunks = list(client.chat.completions.create(model="gpt-4o", messages=HELLO, stream=True))
    assert cut_to("".join(chunk.choices[0].delta.content or "" for chunk in chunks))
    assert chunks[-1].choices[0].finish_reason == "length"


NODE = """
import OpenAI from "openai";
const [url, key] = process.argv.slice(2);
const client = new OpenAI({ baseURL: url + "/v1", apiKey: key, maxRetries: 0 });
const messages = [{ role: "user", content: "hi" }];
let text = "", finish = null, refused = null;
for await (const chunk of await client.chat.completions.create({ model: "gpt-4o", messages, stream: true })) {
  text += chunk.choices[0]?.delta?.content ?? "";
  finish = chunk.choices[0]?.finish_reason ?? finish;
}
const models = (await client.models.list()).data.length;
try { await new OpenAI({ baseURL: url + "/v1", apiKey: "wrong" }).models.list(); }
catch (error) { refused = [error.constructor.name, error.code]; }
console.log(JSON.stringify({ text, finish, models, refused }));
"""  # noqa: E501


def test_openai_node(run):
    running = run(BUDGET)
    found = run_module(NODE, running.url, running.key)
    assert cut_to(found["text"])
    assert found["finish"] == "length"
    assert found["models"] == 1
    assert found["refused"] == ["AuthenticationError", "invalid_api_key"]


def test_anthropic(run, providers):
    running = run(BUDGET)
    asked = {"model": "claude-next", "max_tokens": 500, "messages": HELLO}
    with anthropic.Anthropic(base_url=running.url, api_key=running.key, max_retries=0) as client:
        with client.messages.stream(**asked) as stream:
            last = stream.get_final_message()
        assert TEXT.startswith(last.content[0].text)
        assert last.stop_reason == "max_tokens"
        assert providers.last.body["max_tokens"] == 40
        counted = client.messages.count_tokens(model="claude-next", messages=HELLO)
        assert counted.input_tokens == 3
        assert client.models.list().data[0].id == "m"
        assert client.messages.create(**asked).stop_reason == "max_tokens"
    assert {seen.header("x-api-key") for seen in providers.seen} == {"sk-upstream-secret"}
    assert {seen.header("authorization") for seen in providers.seen} == {None}


def test_google_genai(run, providers):
    running = run()
    options = HttpOptions(base_url=running.url)
    client = genai.Client(api_key=running.key, http_options=options)
    models = client.models
    chunks = models.generate_content_stream(model="gemini-2.5-flash", contents="hi")
    assert "".join(chunk.text or "" for chunk in chunks) == TEXT
    assert models.generate_content(model="gemini-2.5-flash", contents="hi").text == TEXT
    assert models.count_tokens(model="gemini-2.5-flash", contents="hi").total_tokens == 3
    assert [model.name for model in models.list()] == ["models/m"]
    client.close()
    assert {seen.header("x-goog-api-key") for seen in providers.seen} == {"sk-upstream-secret"}


def test_ollama(run, providers):
    import ollama

    running = run()
    headers = {"authorization": f"Bearer {running.key}"}
    client = ollama.Client(host=running.url, headers=headers)
    parts = client.chat(model="llama3.2", messages=HELLO, stream=True)
    assert "".join(part.message.content for part in parts) == TEXT
    client._client.close()
    assert providers.last.header("authorization") == "Bearer sk-upstream-secret"


def test_refusals_are_the_clients_own_errors(run):
    running = run()
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key="wrong") as client:
        with pytest.raises(openai.AuthenticationError, match="not known") as one:
            client.chat.completions.create(model="gpt-4o", messages=HELLO)
        assert one.value.code == "invalid_api_key"
    with (
        anthropic.Anthropic(base_url=running.url, api_key="wrong") as client,
        pytest.raises(anthropic.AuthenticationError, match="not known") as two,
    ):
        client.messages.create(model="claude-next", max_tokens=5, messages=HELLO)
    assert two.value.body["error"]["type"] == "authentication_error"
    client = genai.Client(api_key="wrong", http_options=HttpOptions(base_url=running.url))
    with pytest.raises(genai_errors.ClientError, match="UNAUTHENTICATED"):
        client.models.generate_content(model="gemini-2.5-flash", contents="hi")
    client.close()
