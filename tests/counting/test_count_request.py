"""Which wire format a body is, and what any body at all may do."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamguard.core.prompt import PromptCount
from streamguard.counting import count_request, renderer_of
from streamguard.errors import ProtocolError
from streamguard.protocols import (
    anthropic_prompt,
    completions_prompt,
    gemini_prompt,
    ollama_prompt,
    openai_chat_prompt,
    openai_responses_prompt,
)
from streamguard.tokenizers import get_tokenizer

O200K = get_tokenizer("o200k_base").count
CL100K = get_tokenizer("cl100k_base").count
HI = [{"role": "user", "content": "Hi"}]


LONG = "All work and no play makes Jack a dull boy. " * 20


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [{"role": "user", "content": {"odd": LONG}}]},
        {"messages": [{"role": "user", "content": {"type": "text", "text": LONG}}]},
        {"messages": [{"role": "user", "content": [LONG, 5]}]},
        {"messages": [{"role": "user", "content": {"odd": LONG}}], "options": {}},
        {"messages": [{"role": "user", "content": {"type": "text", "text": LONG}}], "system": "x"},
        {"messages": [{"role": "user", "content": [LONG]}], "system": "x"},
        {"input": {"role": "user", "content": LONG}},
        {"input": [{"role": "user", "content": {"odd": LONG}}, LONG]},
        {"contents": {"parts": {"text": LONG}}},
        {"contents": [{"parts": LONG}]},
        {"contents": [{"parts": [{"text": {"odd": LONG}}]}]},
        {"contents": [], "systemInstruction": {"parts": {"text": LONG}}},
    ],
)
def test_text_in_odd_places_is_counted(body):
    assert count_request(body, "gpt-4o").input_tokens >= O200K(LONG)


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [{"role": "user", "content": 5}]},
        {"messages": [{"role": "user", "content": True}], "system": "x"},
        {"input": 5, "instructions": "x"},
        {"contents": [{"parts": [{"text": 5}]}]},
    ],
)
def test_what_is_no_text_is_a_bound(body):
    assert count_request(body, "gpt-4o").method == "bound"


@pytest.mark.parametrize("messages", [["hi"], [{"role": "user", "content": "hi"}, 5]])
def test_messages_are_objects(messages):
    with pytest.raises(ProtocolError, match="messages must be a list of objects"):
        count_request({"messages": messages}, "gpt-4o")


@pytest.mark.parametrize(
    ("body", "model", "render"),
    [
        ({"messages": HI}, "gpt-4o", openai_chat_prompt.render),
        ({"messages": HI}, "anthropic/claude-sonnet-4", openai_chat_prompt.render),
        ({"messages": HI}, "claude-sonnet-4-5", anthropic_prompt.render),
        ({"messages": HI, "system": "x"}, "", anthropic_prompt.render),
        (
            {"messages": HI, "tools": [{"name": "a", "input_schema": {}}]},
            "",
            anthropic_prompt.render,
        ),
        ({"messages": HI, "tools": [{"type": "bash_20250124"}]}, "", anthropic_prompt.render),
        (
            {"messages": HI, "tools": [{"type": "function", "function": {}}]},
            "claude-3-haiku",
            openai_chat_prompt.render,
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]},
            "",
            anthropic_prompt.render,
        ),
        ({"messages": HI, "options": {"num_ctx": 9}}, "llama3", ollama_prompt.render),
        ({"prompt": "Hi", "keep_alive": "5m"}, "llama3", ollama_prompt.render),
        ({"contents": []}, "", gemini_prompt.render),
        ({"content": {"parts": []}}, "", gemini_prompt.render),
        ({"prompt": "Hi"}, "gpt-3.5-turbo-instruct", completions_prompt.render),
        ({"prompt": ["Hi"]}, "", completions_prompt.render),
        ({"input": "Hi"}, "text-embedding-3-small", completions_prompt.render_embeddings),
        ({"input": "Hi", "dimensions": 9}, "", completions_prompt.render_embeddings),
        ({"input": ["Hi"]}, "", completions_prompt.render_embeddings),
        ({"input": "Hi"}, "gpt-4o", openai_responses_prompt.render),
        ({"input": HI}, "gpt-4o", openai_responses_prompt.render),
        ({"instructions": "x"}, "", openai_responses_prompt.render),
        ({"prompt": {"id": "p"}}, "", openai_responses_prompt.render),
        ({"previous_response_id": "r"}, "", openai_responses_prompt.render),
    ],
)
def test_the_shape_tells_the_format(body, model, render):
    assert renderer_of(body, model) is render


@pytest.mark.parametrize("body", [{}, {"model": "gpt-4o"}, {"input": []}, {"messages": "Hi"}])
def test_no_known_shape_is_an_error(body):
    with pytest.raises(ProtocolError, match="no messages"):
        count_request(body)


def test_a_body_must_be_an_object():
    with pytest.raises(ProtocolError, match="JSON object"):
        count_request(["Hi"])


def test_the_model_may_be_given_apart():
    body = {"messages": HI, "model": "gpt-4o"}
    assert count_request(body, "gpt-3.5-turbo").model == "gpt-3.5-turbo"
    assert count_request({"messages": HI}).model is None
    assert count_request({"messages": HI}).method == "calibrated"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"prompt": "One two"}, CL100K("One two")),
        (
            {"prompt": ["One", "two"], "suffix": "End"},
            CL100K("One") + CL100K("two") + CL100K("End"),
        ),
        ({"prompt": [1, 2, 3]}, 3),
        ({"prompt": [[1, 2], [3]]}, 3),
    ],
)
def test_completions_are_billed_as_they_stand(body, expected):
    count = count_request(body, "gpt-3.5-turbo-instruct")
    assert (count.input_tokens, count.method) == (expected, "exact")


def test_odd_prompts_are_bound():
    for value in ([{"a": 1}], [["a"]], [1, ["b", 2]]):
        assert count_request({"prompt": value}, "davinci-002").method == "bound"
    odd = completions_prompt.render({"prompt": {"a": 1}}, "davinci-002")
    assert odd.parts[0].bound


def test_embeddings_are_billed_as_they_stand():
    count = count_request({"input": ["One", "two"]}, "text-embedding-3-small")
    assert (count.input_tokens, count.method) == (2, "exact")


def test_ollama_prompts_and_images():
    chat = count_request({"messages": HI, "options": {}}, "llama3")
    assert chat.method == "calibrated"
    pictured = [{**HI[0], "images": ["AAAA"]}]
    seen = count_request({"messages": pictured, "options": {}}, "llava")
    assert (seen.method, seen.components["images"]) == ("bound", 4_096)
    body = {"prompt": "Hi", "system": "Be brief.", "options": {}, "context": [1, 2, 3]}
    made = count_request(body, "llama3")
    assert made.components["history"] == 3
    assert made.components["system"] >= 3
    assert count_request({**body, "context": "x"}, "llama3").method == "bound"


def test_text_that_is_nested_too_deeply_is_refused():
    deep = {"type": "text", "text": "x"}
    for _ in range(200_000):  # Python 3.14 and later go as deep as their stack
        deep = {"type": "tool_result", "content": [deep]}
    with pytest.raises(ProtocolError, match="deep"):
        count_request({"messages": [{"role": "user", "content": [deep]}]}, "claude-3-haiku")
    with pytest.raises(ProtocolError, match="deep"):
        count_request({"messages": [{"role": "user", "content": [{"type": "x", "y": deep}]}]}, "o3")
    while "content" in deep:  # taken apart gently: freeing it at once would recurse as deep
        deep = deep.pop("content")[0]


def test_what_is_not_json_is_refused():
    with pytest.raises(ProtocolError, match="not JSON"):
        count_request({"messages": [{"role": "user", "content": [{"type": b"x"}]}]}, "gpt-4o")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=8,
)
KEYS = st.sampled_from(
    [
        "role", "content", "type", "text", "name", "tool_calls", "function", "arguments", "tools",
        "image_url", "source", "data", "parts", "inlineData", "functionCall", "input", "output",
        "input_schema", "parameters", "properties", "format", "schema", "thinking", "images",
    ]
)  # fmt: skip
WORDS = st.sampled_from(
    [
        "user", "assistant", "system", "tool", "text", "image", "image_url", "tool_use", "function",
        "tool_result", "document", "function_call", "function_call_output", "reasoning", "object",
        "input_image", "file", "data:image/png;base64,iVBORw0KGgo=", "base64", "json_schema",
    ]
)  # fmt: skip
ODD = st.recursive(
    JSON | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=12,
)
FIELDS = st.sampled_from(
    [
        "messages", "input", "contents", "prompt", "instructions", "system", "tools", "functions",
        "response_format", "tool_choice", "text", "generationConfig", "toolConfig", "reasoning",
        "systemInstruction", "options", "thinking", "output_config", "prediction", "images",
    ]
)  # fmt: skip
MODELS = st.sampled_from(
    ["", "gpt-4o", "gpt-3.5-turbo", "gpt-5", "o3", "claude-3-haiku", "gemini-2.0-flash", "llama3"]
)


@settings(max_examples=250, deadline=None)
@given(st.dictionaries(FIELDS, ODD | st.lists(ODD, max_size=3), min_size=1, max_size=4), MODELS)
def test_any_body_is_counted_or_refused(body, model):
    try:
        count = count_request(body, model)
    except ProtocolError:
        return
    assert isinstance(count, PromptCount)
    assert count.input_tokens == sum(count.components.values()) >= 0


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(max_size=40), min_size=1, max_size=4), MODELS, st.text(max_size=20))
def test_one_more_message_never_costs_less(texts, model, more):
    messages = [{"role": "user", "content": text} for text in texts]
    fewer = count_request({"messages": messages}, model).input_tokens
    added = [*messages, {"role": "user", "content": more}]
    assert count_request({"messages": added}, model).input_tokens > fewer


@given(st.text(max_size=60))
def test_exact_counts_are_the_tokenizers(text):
    count = count_request({"messages": [{"role": "user", "content": text}]}, "gpt-4o")
    assert count.input_tokens == 3 + O200K("user") + O200K(text) + 3
