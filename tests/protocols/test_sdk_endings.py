"""The official clients read cut streams, from a real server: no crash, and the cut is seen."""

from __future__ import annotations

import asyncio

import anthropic
import ollama
import openai
import pytest
from google import genai
from google.genai import errors as google_errors
from support.formats import FORMATS
from support.origin import TOKENIZER, Origin
from support.servers import serve
from support.texts import ENGLISH
from support.wire import CHAT_HEAD, chat_chunk, sse_data, sse_event, words_of

ASK = [{"role": "user", "content": "hi"}]


@pytest.fixture(scope="module")
def origin():
    return Origin()


@pytest.fixture(scope="module")
def url(origin):
    with serve(origin) as address:
        yield address


BUDGETS = [0, 1, 2, 3, 7, 20, 45]


def collect(chunks):
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)


@pytest.mark.parametrize("budget", BUDGETS)
def test_openai_python_chat(origin, url, budget):
    options = {"model": f"m-{budget}", "messages": ASK, "stream_options": {"include_usage": True}}
    with openai.OpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0) as client:
        chunks = list(client.chat.completions.create(stream=True, **options))
        origin.expect(collect(chunks), budget)
        assert chunks[-2].choices[0].finish_reason == "length"
        assert chunks[-1].usage.completion_tokens == origin.meters[-1].counted
        with client.chat.completions.stream(**options) as stream:
            final = final_of(stream)
        origin.expect(final.choices[0].message.content, budget)
        assert final.choices[0].finish_reason == "length"
        assert final.usage.completion_tokens == origin.meters[-1].counted


def final_of(stream):
    """The helper reads all of a cut stream and then raises its own error for it."""
    with pytest.raises(openai.LengthFinishReasonError) as caught:
        stream.get_final_completion()
    return caught.value.completion


def test_openai_python_chat_async(origin, url):
    async def go():
        options = {"model": "m-9", "messages": ASK}
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0) as client:
            raw = await client.chat.completions.create(stream=True, **options)
            chunks = [chunk async for chunk in raw]
            origin.expect(collect(chunks), 9)
            assert chunks[-1].choices[0].finish_reason == "length"
            async with client.chat.completions.stream(**options) as stream:
                with pytest.raises(openai.LengthFinishReasonError) as caught:
                    await stream.get_final_completion()
            final = caught.value.completion
            origin.expect(final.choices[0].message.content, 9)
            assert final.choices[0].finish_reason == "length"

    asyncio.run(go())


def test_openai_python_sees_many_choices_end(origin, url):
    parts = [chat_chunk({"role": "assistant", "content": ""}, index=at) for at in range(3)]
    parts += [
        chat_chunk({"content": f" {word}"}, index=at % 3) for at, word in enumerate(ENGLISH.split())
    ]
    origin.scenes["many"] = b"".join(parts)
    with openai.OpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0) as client:
        with client.chat.completions.stream(model="many-20", messages=ASK, n=3) as stream:
            final = final_of(stream)
        assert [choice.finish_reason for choice in final.choices] == ["length"] * 3
        texts = [choice.message.content for choice in final.choices]
        assert sum(map(TOKENIZER.count, texts)) == 20


def test_openai_python_sees_a_cut_tool_call(origin, url):
    call = {
        "index": 0,
        "id": "call_1",
        "type": "function",
        "function": {"name": "get", "arguments": ""},
    }
    more = [
        chat_chunk({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]})
        for piece in words_of('{"city": "Paris", "days": 5, "units": "metric"}', 3)
    ]
    first = chat_chunk({"role": "assistant", "content": None, "tool_calls": [call]})
    origin.scenes["tool"] = b"".join([first, *more, chat_chunk({}, "tool_calls")])
    with openai.OpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0) as client:
        with client.chat.completions.stream(model="tool-6", messages=ASK) as stream:
            final = final_of(stream)
        assert final.choices[0].finish_reason == "length"
        function = final.choices[0].message.tool_calls[0].function
        assert TOKENIZER.count(function.name + function.arguments) == 6


def test_openai_python_raises_on_a_strict_end(origin, url):
    with openai.OpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0) as client:
        with pytest.raises(openai.APIError, match="over its budget of 5 tokens"):
            list(client.chat.completions.create(model="strict-5", messages=ASK, stream=True))
        with pytest.raises(openai.APIError, match="over its budget of 5 tokens"):
            list(client.responses.create(model="strict-5", input="hi", stream=True))
        with pytest.raises(openai.APIError, match="over its budget of 5 tokens"):
            list(client.completions.create(model="strict-5", prompt="hi", stream=True))


@pytest.mark.parametrize("budget", BUDGETS)
def test_openai_python_responses(origin, url, budget):
    options = {"model": f"m-{budget}", "input": "hi"}
    with openai.OpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0) as client:
        events = list(client.responses.create(stream=True, **options))
        deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
        origin.expect("".join(deltas), budget)
        assert [event.sequence_number for event in events] == list(range(len(events)))
        end = events[-1]
        assert end.type == "response.incomplete"
        assert end.response.status == "incomplete"
        assert end.response.incomplete_details.reason == "max_output_tokens"
        assert end.response.output_text == "".join(deltas)
        assert end.response.output[-1].status == "incomplete"
        assert end.response.usage.output_tokens == origin.meters[-1].counted
        with client.responses.stream(**options) as stream:
            seen = list(stream)
        assert seen[-1].type == "response.incomplete"


def test_openai_python_completions(origin, url):
    with openai.OpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0) as client:
        chunks = list(client.completions.create(model="m-11", prompt="hi", stream=True))
    origin.expect("".join(chunk.choices[0].text for chunk in chunks), 11)
    assert chunks[-1].choices[0].finish_reason == "length"


@pytest.mark.parametrize("budget", BUDGETS)
def test_anthropic_python(origin, url, budget):
    options = {"model": f"m-{budget}", "messages": ASK, "max_tokens": 100}
    with anthropic.Anthropic(base_url=url, api_key="k", max_retries=0) as client:
        events = list(client.messages.create(stream=True, **options))
        texts = [event.delta.text for event in events if event.type == "content_block_delta"]
        origin.expect("".join(texts), budget)
        assert [event.type for event in events[-3:]] == [
            "content_block_stop", "message_delta", "message_stop",
        ]  # fmt: skip
        assert events[-2].delta.stop_reason == "max_tokens"
        with client.messages.stream(**options) as stream:
            text = "".join(stream.text_stream)
            final = stream.get_final_message()
        origin.expect(text, budget)
        assert final.stop_reason == "max_tokens"
        assert final.usage.output_tokens == origin.meters[-1].counted


def test_anthropic_python_async_and_a_cut_tool_use(origin, url):
    head = sse_data(FORMATS["anthropic"].build([]))[0]
    block = {"type": "tool_use", "id": "toolu_1", "name": "get", "input": {}}
    events = [
        head,
        {"type": "content_block_start", "index": 0, "content_block": block},
        *(
            {
                "type": "content_block_delta",
                "index": 0,
                "delta": {"type": "input_json_delta", "partial_json": piece},
            }
            for piece in words_of('{"city": "Paris", "days": 5, "units": "metric"}', 3)
        ),
        {"type": "content_block_stop", "index": 0},
    ]
    origin.scenes["tooluse"] = b"".join(sse_event(event, event["type"]) for event in events)

    async def go():
        async with anthropic.AsyncAnthropic(base_url=url, api_key="k", max_retries=0) as client:
            options = {"model": "tooluse-6", "messages": ASK, "max_tokens": 100}
            async with client.messages.stream(**options) as stream:
                final = await stream.get_final_message()
            assert final.stop_reason == "max_tokens"
            assert final.content[0].name == "get"
            assert final.content[0].input in ({"city": "Paris"}, {"city": "Par"}, {})

    asyncio.run(go())


def test_anthropic_python_raises_on_a_strict_end(url):
    client = anthropic.Anthropic(base_url=url, api_key="k", max_retries=0)
    with client, pytest.raises(anthropic.APIStatusError, match="over its budget of 5 tokens"):
        list(client.messages.create(model="strict-5", messages=ASK, max_tokens=9, stream=True))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("budget", BUDGETS)
def test_google_genai(origin, url, budget):
    client = genai.Client(api_key="k", http_options={"base_url": url})
    try:
        chunks = list(client.models.generate_content_stream(model=f"m-{budget}", contents="hi"))
    finally:
        client.close()
    origin.expect("".join(chunk.text or "" for chunk in chunks), budget)
    assert chunks[-1].candidates[0].finish_reason == "MAX_TOKENS"
    assert chunks[-1].usage_metadata.candidates_token_count == origin.meters[-1].counted


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_google_genai_raises_on_a_strict_end(url):
    client = genai.Client(api_key="k", http_options={"base_url": url})
    try:
        with pytest.raises(google_errors.APIError, match="over its budget of 5 tokens"):
            list(client.models.generate_content_stream(model="strict-5", contents="hi"))
    finally:
        client.close()


@pytest.mark.parametrize("budget", BUDGETS)
def test_ollama_python(origin, url, budget):
    client = ollama.Client(host=url)
    chunks = list(client.chat(model=f"m-{budget}", messages=ASK, stream=True))
    origin.expect("".join(chunk.message.content for chunk in chunks), budget)
    assert chunks[-1].done_reason == "length"
    assert chunks[-1].eval_count == origin.meters[-1].counted
    with pytest.raises(ollama.ResponseError, match="over its budget of 5 tokens"):
        list(client.chat(model="strict-5", messages=ASK, stream=True))


def test_a_stream_of_only_a_usage_chunk_has_a_valid_ending(origin, url):
    origin.scenes["empty"] = sse_event({**CHAT_HEAD, "choices": []}) + chat_chunk({"content": "x"})
    with openai.OpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0) as client:
        with client.chat.completions.stream(model="empty-0", messages=ASK) as stream:
            final = final_of(stream)
        assert final.choices[0].finish_reason == "length"
