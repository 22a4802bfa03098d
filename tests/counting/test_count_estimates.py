"""Claude, Gemini and other hosts: estimates that cover, and what is documented of media."""

import base64
import struct

import pytest

from streamguard.core.counting import count_prompt
from streamguard.core.estimate import RARE, Estimator, Weights
from streamguard.core.prompt import Part, Prompt
from streamguard.counting import count_request
from streamguard.protocols import anthropic_prompt, gemini_prompt
from streamguard.tokenizers import get_tokenizer

TOKENIZER = get_tokenizer("o200k_base")
TEXT = "What is the capital of France?"


def claude(content=TEXT, model="claude-sonnet-4-5", **fields):
    messages = content if isinstance(content, list) else [{"role": "user", "content": content}]
    return count_request({"model": model, "max_tokens": 9, "messages": messages, **fields})


def gemini(*parts, model="gemini-2.5-flash", **fields):
    contents = [{"role": "user", "parts": list(parts) or [{"text": TEXT}]}]
    return count_request({"contents": contents, **fields}, model)


def picture(width, height):
    head = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", width, height)
    return base64.b64encode(head + b"\0" * 16).decode()


def test_weights_count_tokens_rare_ones_marks_and_digits():
    text = "It's 'foo' + 123456 antidisestablishmentarianism"
    ids = TOKENIZER.encode(text)
    rare = sum(1 for one in ids if one >= RARE)
    estimator = Estimator(TOKENIZER, Weights(2.0, 3.0, 5.0, 7.0))
    assert estimator.count(text) == 1000 * (2 * len(ids) + 3 * rare + 5 * 2 + 7 * 4)
    assert estimator.encode(text) == ids
    assert estimator.name != Estimator(TOKENIZER, Weights()).name
    assert Estimator(TOKENIZER, Weights()).count(text) == 1000 * len(ids)
    assert estimator.max_token_bytes == TOKENIZER.max_token_bytes


def test_the_margin_is_on_texts_and_not_on_fixed_tokens():
    parts = (Part("user", text="one two three four"), Part("overhead", tokens=100))
    count = count_prompt(Prompt(parts, "calibrated", margin=0.5), TOKENIZER)
    assert count.input_tokens == 6 + 100
    assert (count.margin, count.ratio) == (0.5, 1.0)


def test_a_cache_is_asked_for_each_text():
    asked = []

    def cache(tokenizer, text):
        asked.append(text)
        return tokenizer.count(text)

    parts = (Part("user", text="one"), Part("user", text="two"), Part("tools", tokens=3))
    plain = count_prompt(Prompt(parts), TOKENIZER)
    assert count_prompt(Prompt(parts), TOKENIZER, cache) == plain
    assert asked == ["one", "two"]
    assert plain.components == {"user": 2, "tools": 3}


@pytest.mark.parametrize(
    ("text", "known"),
    [("hello", 8), ("Say 'foo'", 12), ("What is 2+2?", 14), ("What is four plus five?", 13)],
)
def test_short_claude_prompts_are_close(text, known):
    count = claude(text)
    assert count.method == "calibrated"
    assert known <= count.input_tokens <= known + 1


def test_claude_families():
    old, new = claude(model="claude-3-5-haiku-20241022"), claude(model="claude-opus-4-8")
    assert old == claude(model="us.anthropic.claude-3-5-haiku-20241022") or old.margin == 0.08
    assert new.input_tokens > old.input_tokens
    assert claude(model="claude-next").margin == new.margin
    assert count_request({"system": "x", "messages": []}, "gpt-4o").margin == new.margin


def test_claude_counts_every_message_and_the_system():
    one = claude().input_tokens
    turns = [{"role": "user", "content": TEXT}, {"role": "assistant", "content": "Paris"}]
    count = claude([*turns, *turns[:1]], system=[{"type": "text", "text": "Be brief."}])
    assert count.input_tokens > 2 * one - 7
    assert set(count.components) == {"system", "history", "user", "overhead"}
    inline = claude([{"role": "system", "content": "Be brief."}, *turns[:1]])
    assert "system" in inline.components


TOOL = {"name": "ping", "description": "Ping.", "input_schema": {"type": "object"}}


@pytest.mark.parametrize(
    ("model", "least"),
    [
        ("claude-3-opus-20240229", 530),
        ("claude-3-haiku-20240307", 264),
        ("claude-3-5-haiku-20241022", 264),
        ("claude-3-7-sonnet-20250219", 346),
        ("claude-sonnet-4-20250514", 318),
        ("claude-opus-4-1", 318),
        ("claude-haiku-4-5-20251001", 495),
        ("claude-sonnet-4-6", 501),
        ("claude-opus-5", 346),
    ],
)
def test_tools_bring_a_hidden_prompt(model, least):
    free = claude(model=model, tools=[TOOL]).components["tools"]
    assert least < free < least + 130
    forced = claude(model=model, tools=[TOOL], tool_choice={"type": "any"})
    assert forced.components["tools"] >= free


def test_claude_calls_and_results():
    use = {"type": "tool_use", "id": "1", "name": "ping", "input": {"host": "example.com"}}
    result = {
        "type": "tool_result",
        "tool_use_id": "1",
        "content": [{"type": "text", "text": "ok"}],
    }
    turns = [
        {"role": "user", "content": TEXT},
        {"role": "assistant", "content": [use]},
        {"role": "user", "content": [result]},
    ]
    count = claude(turns, tools=[TOOL])
    assert count.components["user"] > 75
    assert "history" not in count.components


def test_thinking_counts_in_its_own_turn():
    thought = {"type": "thinking", "thinking": "A long thought. " * 20, "signature": "x"}
    hidden = {"type": "redacted_thinking", "data": "x" * 900}
    use = {"type": "tool_use", "id": "1", "name": "ping", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "1", "content": "ok"}
    start = {"role": "user", "content": TEXT}
    open_turn = [start, {"role": "assistant", "content": [thought, use]}]
    open_turn.append({"role": "user", "content": [result]})
    closed = [*open_turn[:2], {"role": "user", "content": TEXT}]
    assert claude(open_turn).input_tokens > claude(closed).input_tokens + 50
    redacted = [start, {"role": "assistant", "content": [hidden]}]
    assert claude(redacted).components["user"] >= 300
    assert claude(redacted).method == "bound"
    thinks = {"type": "enabled", "budget_tokens": 1024}
    assert claude(thinking=thinks).input_tokens == claude().input_tokens + 34
    assert claude(thinking={"type": "disabled"}) == claude()


def test_claude_output_schemas_and_budgets():
    schema = {"type": "json_schema", "schema": {"type": "object"}}
    for field in ({"output_format": schema}, {"output_config": {"format": schema}}):
        assert claude(**field).components["response_format"] > 170
    budget = {"output_config": {"task_budget": {"tokens": 9}}}
    assert claude(**budget).input_tokens == claude().input_tokens + 48


@pytest.mark.parametrize(
    ("model", "size", "tokens"),
    [
        ("claude-sonnet-4-5", (640, 480), 410),
        ("claude-sonnet-4-5", (1092, 1092), 1_590),
        ("claude-sonnet-4-5", (4000, 4000), 1_600),
        ("claude-opus-5", (4000, 4000), 4_784),
    ],
)
def test_claude_images_by_pixels(model, size, tokens):
    source = {"type": "base64", "media_type": "image/png", "data": picture(*size)}
    count = claude([{"role": "user", "content": [{"type": "image", "source": source}]}], model)
    assert count.method == "calibrated"
    assert tokens <= count.components["images"] <= tokens * 1.05 + 9


def test_claude_images_elsewhere_cost_at_most():
    source = {"type": "url", "url": "https://example.com/a.png"}
    count = claude([{"role": "user", "content": [{"type": "image", "source": source}]}])
    assert count.method == "bound"
    assert count.components["images"] >= 1_600


def test_claude_documents():
    def document(source, **more):
        block = {"type": "document", "source": source, **more}
        return claude([{"role": "user", "content": [block]}])

    text = document({"type": "text", "data": TEXT}, title="A", context="B")
    assert text.method == "calibrated"
    assert text.components["files"] < 60
    assert document({"type": "base64", "data": "AAAA"}).components["files"] == 4_500
    nested = document({"type": "content", "content": [{"type": "text", "text": TEXT}]})
    assert nested.method == "calibrated"
    assert document({"type": "file", "file_id": "f"}).components["files"] > 20_000


@pytest.mark.parametrize(
    ("kind", "least"),
    [("web_search_20250305", 20_000), ("bash_20250124", 500), ("new_thing_20300101", 4_000)],
)
def test_claude_server_tools_are_bound(kind, least):
    count = claude(tools=[{"type": kind, "name": "x"}])
    assert count.method == "bound"
    assert count.components["tools"] > least


def test_claude_things_only_anthropic_sees_are_bound():
    assert claude(container="c_1", tools=[TOOL]).method == "bound"
    assert claude(mcp_servers=[{"url": "https://example.com"}]).method == "bound"
    for block in ({"type": "container_upload", "file_id": "f"}, {"type": "server_tool_use"}):
        assert claude([{"role": "user", "content": [block]}]).method == "bound"


def test_bedrock_blocks_have_no_type():
    count = claude([{"role": "user", "content": [{"text": TEXT}]}], system="x")
    assert count.method == "calibrated"


def test_short_gemini_prompts_are_close():
    for text, known in (("Say 'foo'", 5), ("Hello", 1), ("Count to 30.", 6)):
        count = gemini({"text": text})
        assert known <= count.input_tokens <= known + 1
    assert gemini(model="gemini-3-pro").input_tokens == gemini().input_tokens + 1
    assert gemini(model="unheard-of").margin == gemini().margin


def test_gemini_system_history_and_forms():
    contents = [
        {"role": "user", "parts": [{"text": TEXT}]},
        {"role": "model", "parts": [{"text": "Paris"}]},
        {"role": "user", "parts": [{"text": TEXT}]},
    ]
    body = {"contents": contents, "system_instruction": {"parts": [{"text": "Be brief."}]}}
    count = count_request(body, "gemini-2.5-flash")
    assert set(count.components) == {"system", "history", "user", "overhead"}
    plain = gemini()
    for odd in (TEXT, [TEXT], {"text": TEXT}, {"parts": [{"text": TEXT}]}):
        assert count_request({"contents": odd}, "gemini-2.5-flash") == plain
    assert count_request({"content": {"parts": [{"text": TEXT}]}}, "gemini-2.5-flash") == plain
    assert count_request({"contents": []}, "gemini-2.5-flash").input_tokens == 0
    short = count_request(
        {"contents": contents, "systemInstruction": "Be brief."}, "gemini-2.0-flash"
    )
    assert "overhead" not in short.components


DECLARED = {
    "name": "weather",
    "description": "Get the weather.",
    "parameters": {
        "type": "OBJECT",
        "properties": {
            "city": {"type": "STRING", "description": "Where."},
            "days": {"type": "ARRAY", "items": {"type": "STRING", "enum": ["today", "tomorrow"]}},
        },
        "required": ["city"],
    },
}


def test_gemini_functions_by_their_words():
    body = {"tools": [{"functionDeclarations": [DECLARED]}]}
    old = gemini(model="gemini-2.0-flash", **body).components["tools"]
    words = "weather\nGet the weather.\ncity\ndays\nWhere.\ntoday\ntomorrow"
    assert old == gemini({"text": words}, model="gemini-2.0-flash").input_tokens + 12
    new = gemini(**body)
    assert new.components["tools"] == old - 12 + 24 + 2 * 14
    snake = gemini(tools=[{"function_declarations": [DECLARED]}])
    assert snake == new
    calling = {"functionCallingConfig": {"mode": "ANY"}}
    assert gemini(toolConfig=calling, **body).components["tools"] == new.components["tools"] + 8


def test_gemini_calls_results_and_signatures():
    call = {"functionCall": {"name": "weather", "args": {"city": "Rome"}}}
    signed = {**call, "thoughtSignature": "x" * 1_000}
    result = {"functionResponse": {"name": "weather", "response": {"sky": "clear"}, "id": "1"}}
    plain = gemini(call, result)
    assert plain.components["user"] > 24
    assert gemini(signed, result) == plain
    third = gemini(signed, result, model="gemini-3-flash")
    assert third.components["user"] == plain.components["user"] + 230 + 8
    code = gemini({"executableCode": {"code": "print(1)"}})
    assert code.method == "bound"


@pytest.mark.parametrize(
    ("size", "tiles"), [((300, 300), 1), ((960, 540), 6), ((3000, 3000), 16), ((385, 1), 2)]
)
def test_gemini_images_by_tiles(size, tiles):
    blob = {"inlineData": {"mimeType": "image/png", "data": picture(*size)}}
    assert gemini(blob).components["images"] == tiles * 258
    assert gemini(blob, model="gemini-3-flash").components["images"] == 1_120


def test_gemini_media():
    resolution = {"generationConfig": {"mediaResolution": "MEDIA_RESOLUTION_LOW"}}
    blob = {"inline_data": {"mime_type": "image/png", "data": "AAAA"}}
    assert gemini(blob, model="gemini-3-flash", **resolution).components["images"] == 280
    assert gemini(blob).method == "bound"
    for kind in ("audio/wav", "text/plain", "application/pdf"):
        count = gemini({"inlineData": {"mimeType": kind, "data": "A" * 4_000}})
        assert count.method == "bound"
        assert count.components["files"] >= 32
    stored = gemini({"fileData": {"mimeType": "image/png", "fileUri": "gs://a"}})
    assert (stored.method, stored.components["images"]) == ("bound", 16 * 258)
    assert gemini({"fileData": {"fileUri": "https://youtu.be/a"}}).components["files"] > 20_000


def test_gemini_schemas_tools_and_caches():
    schema = {"type": "OBJECT", "properties": {"city": {"description": "Where."}}}
    assert gemini(generationConfig={"responseJsonSchema": schema}) == gemini()
    words = gemini(generationConfig={"responseSchema": schema}).components["response_format"]
    assert words >= 3
    for tool in ({"googleSearch": {}}, {"codeExecution": {}}, {"brandNew": {}}):
        count = gemini(tools=[tool])
        assert count.method == "bound"
        assert count.components["tools"] > 4_000
    assert gemini(cachedContent="cachedContents/1").method == "bound"


def test_deep_declarations_become_json():
    schema = {"type": "STRING"}
    for _ in range(60):
        schema = {"items": schema}
    count = gemini(tools=[{"functionDeclarations": [{"name": "f", "parameters": schema}]}])
    assert count.components["tools"] > 24


def test_allowances_have_names():
    assert anthropic_prompt.UNSEEN == gemini_prompt.UNSEEN
