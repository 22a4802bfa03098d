"""Chat prompts against the documented rules, written out by hand."""

import base64
import struct

import pytest

from streamguard.counting import count_request
from streamguard.tokenizers import get_tokenizer

O200K = get_tokenizer("o200k_base").count
CL100K = get_tokenizer("cl100k_base").count

SYSTEM = {"role": "system", "content": "You answer in one word"}
USER = {"role": "user", "content": "What is the capital of France?"}
OPEN = "# Tools\n\n## functions\n\nnamespace functions {\n\n"
CLOSE = "} // namespace functions"


def tokens(*texts):
    return sum(map(O200K, texts))


def chat(*messages, model="gpt-4o", **fields):
    return count_request({"model": model, "messages": list(messages), **fields})


def message(role, content):
    return 3 + tokens(role, content)


def function(name="ping", description="Ping.", **parameters):
    return {
        "type": "function",
        "function": {"name": name, "description": description, "parameters": parameters},
    }


PLAIN = message("system", SYSTEM["content"]) + message("user", USER["content"]) + 3


def test_messages_cost_three_each_and_three_in_the_end():
    count = chat(SYSTEM, USER)
    assert count.input_tokens == PLAIN
    assert (count.method, count.margin, count.model) == ("exact", 0.0, "gpt-4o")
    assert count.components["system"] == tokens(SYSTEM["content"])
    assert count.components["user"] == tokens(USER["content"])


def test_older_models_use_the_older_encoding():
    expected = 3 + CL100K("user") + CL100K(USER["content"]) + 3
    assert chat(USER, model="gpt-3.5-turbo").input_tokens == expected


@pytest.mark.parametrize("model", ["o3-mini", "gpt-5", "openai/gpt-5.2", "gpt-6"])
def test_reasoning_models_cost_one_token_less(model):
    assert chat(SYSTEM, USER, model=model).input_tokens == PLAIN - 1


@pytest.mark.parametrize("model", ["gpt-5-chat-latest", "chatgpt-4o-latest", "ft:gpt-4o:me::1"])
def test_chat_models_do_not(model):
    assert chat(SYSTEM, USER, model=model).input_tokens == PLAIN


def test_a_name_is_part_of_the_header():
    named = chat({**USER, "name": "alice"})
    assert named.input_tokens == 3 + tokens("user:alice", USER["content"]) + 3


def test_content_may_be_a_list_of_texts():
    pieces = [{"type": "text", "text": "One."}, "Two.", {"type": "refusal", "refusal": "No."}]
    count = chat({"role": "user", "content": pieces})
    assert count.input_tokens == 3 + tokens("user", "One.", "Two.", "No.") + 3


def test_components_tell_few_shot_history_and_the_last_turn_apart():
    count = chat(
        SYSTEM,
        {"role": "system", "name": "example_user", "content": "2+2?"},
        {"role": "system", "name": "example_assistant", "content": "4"},
        {"role": "user", "content": "Hello there"},
        {"role": "assistant", "content": "General"},
        USER,
        {"role": "assistant", "content": "Par"},
    )
    assert count.components["few_shot"] == tokens("2+2?", "4")
    assert count.components["history"] == tokens("Hello there", "General")
    assert count.components["user"] == tokens(USER["content"], "Par")
    assert sum(count.components.values()) == count.input_tokens


def test_harmony_names_a_channel_in_each_answer():
    answer = {"role": "assistant", "content": "Paris"}
    classic = chat(USER, answer, USER).input_tokens
    assert chat(USER, answer, USER, model="gpt-5").input_tokens == classic - 1 + 2


def test_refusals_and_reasoning_in_history_are_read():
    said = {"role": "assistant", "content": None, "refusal": "No.", "reasoning_content": "Hm."}
    count = chat(USER, said, USER)
    user = message("user", USER["content"])
    assert count.input_tokens == 2 * user + 3 + tokens("assistant", "No.", "Hm.") + 3


def test_tools_are_a_namespace_at_the_end_of_the_system_message():
    text = f"{OPEN}// Ping.\ntype ping = () => any;\n\n{CLOSE}"
    joined = tokens(SYSTEM["content"] + "\n\n" + text) - tokens(SYSTEM["content"])
    count = chat(SYSTEM, USER, tools=[function()])
    assert count.input_tokens == PLAIN + joined - 1
    assert count.method == "exact"


def test_tools_without_a_system_message_get_one():
    text = f"{OPEN}// Ping.\ntype ping = () => any;\n\n{CLOSE}"
    count = chat(USER, tools=[function()])
    assert count.input_tokens == message("user", USER["content"]) + 3 + 4 + tokens(text) - 1


def test_the_join_merges_into_the_last_text_of_a_list():
    listed = {"role": "system", "content": [{"type": "text", "text": "Be brief."}]}
    plain = {"role": "system", "content": "Be brief."}
    tools = [function()]
    assert (
        chat(listed, USER, tools=tools).input_tokens == chat(plain, USER, tools=tools).input_tokens
    )


def test_an_empty_system_message_is_joined_too():
    empty = chat({"role": "system", "content": None}, USER, tools=[function()])
    text = f"{OPEN}// Ping.\ntype ping = () => any;\n\n{CLOSE}"
    user = message("user", USER["content"])
    assert empty.input_tokens == user + 3 + 3 + tokens("system", "\n\n", text) - 1


def test_legacy_functions_are_tools():
    assert (
        chat(USER, functions=[function()["function"]]).input_tokens
        == chat(USER, tools=[function()]).input_tokens
    )


@pytest.mark.parametrize("field", ["tool_choice", "function_call"])
def test_a_function_that_must_be_called_is_named_in_the_answer(field):
    choice = {"type": "function", "function": {"name": "ping"}}
    choice = choice if field == "tool_choice" else {"name": "ping"}
    free = chat(USER, tools=[function()]).input_tokens
    forced = chat(USER, tools=[function()], **{field: choice}).input_tokens
    assert forced == free + 7 + tokens("ping")
    assert chat(USER, tools=[function()], tool_choice="required").input_tokens == free


def test_harmony_tools_stand_apart():
    head, rest = OPEN, f"// Ping.\ntype ping = () => any;\n\n{CLOSE}"
    expected = message("user", USER["content"]) + 2 + 84 + tokens(head) + tokens(rest)
    assert chat(USER, model="gpt-5", tools=[function()]).input_tokens == expected


def test_a_call_and_its_result():
    call = {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "1", "type": "function", "function": {"name": "ping", "arguments": '{"a": 1}'}}
        ],
    }
    result = {"role": "tool", "tool_call_id": "1", "content": "pong"}
    expected = 12 + tokens("ping", "functions.ping", '{"a":1}', "pong")
    both = chat(USER, call, result).input_tokens
    assert both == message("user", USER["content"]) + expected + 3
    assert chat(USER, call, result, model="gpt-5").input_tokens == both - 1 + 6


def test_a_legacy_call_and_its_result():
    call = {"role": "assistant", "function_call": {"name": "ping", "arguments": "not json"}}
    result = {"role": "function", "name": "ping", "content": "pong"}
    expected = 12 + tokens("ping", "functions.ping", "not json", "pong")
    assert chat(USER, call, result).input_tokens == message("user", USER["content"]) + expected + 3


def test_parallel_calls_are_one_call_of_calls():
    calls = [{"function": {"name": name, "arguments": "{}"}} for name in ("one", "two")]
    result = {"role": "tool", "content": [{"type": "text", "text": "Mexico\n"}]}
    uses = ",".join(
        f'{{"recipient_name":"functions.{name}","parameters":{{}}}}' for name in ("one", "two")
    )
    call = f'{{"tool_uses":[{uses}]}}'
    expected = 20 + tokens(call, '["Mexico\\n", "ok"]')
    count = chat(
        USER, {"role": "assistant", "tool_calls": calls}, result, {"role": "tool", "content": "ok"}
    )
    assert count.input_tokens == message("user", USER["content"]) + expected + 3


def test_parallel_calls_without_results():
    calls = [{"function": {"name": name, "arguments": ""}} for name in ("one", "two")]
    count = chat(USER, {"role": "assistant", "tool_calls": calls}, USER)
    uses = ",".join(
        f'{{"recipient_name":"functions.{name}","parameters":{{}}}}' for name in ("one", "two")
    )
    user = message("user", USER["content"])
    assert count.input_tokens == 2 * user + 20 + tokens(f'{{"tool_uses":[{uses}]}}') + 3


def test_what_is_said_before_a_call_is_a_message():
    call = {"tool_calls": [{"function": {"name": "ping", "arguments": "{}"}}], "role": "assistant"}
    silent = chat(USER, call).input_tokens
    assert chat(USER, {**call, "content": ""}).input_tokens == silent
    said = chat(USER, {**call, "content": "One moment."}).input_tokens
    assert said == silent + message("assistant", "One moment.")


def test_pictures_in_tool_results_are_counted():
    call = {"tool_calls": [{"function": {"name": "ping", "arguments": "{}"}}], "role": "assistant"}
    picture = {"type": "image_url", "image_url": {"url": png(100, 100)}}
    result = {"role": "tool", "content": [{"type": "text", "text": "Look."}, picture]}
    count = chat(USER, call, result)
    assert count.components["images"] == 85 + 170


def schema_format(**more):
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string", "default": "x", "maxLength": 9}},
        "required": ["city"],
        "additionalProperties": False,
    }
    named = {"name": "Place", "schema": schema, "strict": True, **more}
    return {"type": "json_schema", "json_schema": named}


SCHEMA = '{"type":"object","properties":{"city":{"type":"string","maxLength":9}}}'
FORMAT = f"# Response Formats\n\n## Place\n\n{SCHEMA}"


def test_a_response_schema_goes_to_the_system_message_and_names_the_answer():
    joined = tokens(SYSTEM["content"] + "\n\n" + FORMAT) - tokens(SYSTEM["content"])
    count = chat(SYSTEM, USER, response_format=schema_format())
    assert count.input_tokens == PLAIN + joined + 2 + tokens("Place")


def test_a_response_schema_without_a_system_message():
    count = chat(USER, response_format=schema_format())
    expected = message("user", USER["content"]) + 3 + tokens(FORMAT) + 6 + tokens("Place")
    assert count.input_tokens == expected


def test_a_response_schema_after_tools():
    plain = chat(SYSTEM, USER, tools=[function()]).input_tokens
    count = chat(SYSTEM, USER, tools=[function()], response_format=schema_format())
    assert count.input_tokens == plain + tokens("\n\n", FORMAT)


def test_a_response_schema_may_have_a_description():
    plain = chat(USER, response_format=schema_format()).input_tokens
    described = chat(USER, response_format=schema_format(description="Where it is.")).input_tokens
    head = "# Response Formats\n\n## Place\n\n"
    more = tokens(f"{head}// Where it is.\n{SCHEMA}") - tokens(head + SCHEMA)
    assert described == plain + more


def test_answers_under_a_response_schema_are_named():
    answer = {"role": "assistant", "content": '{"city":"Rome"}'}
    expected = message("assistant", answer["content"]) + 2 + tokens("Place")
    once = chat(USER, USER, response_format=schema_format()).input_tokens
    assert chat(USER, answer, USER, response_format=schema_format()).input_tokens == once + expected


def test_formats_without_a_schema_are_free_and_unknown_ones_are_bound():
    plain = chat(USER)
    for kind in ("text", "json_object"):
        assert chat(USER, response_format={"type": kind}) == plain
    grammar = chat(USER, response_format={"type": "grammar", "grammar": "a | b"})
    assert grammar.method == "bound"
    assert grammar.input_tokens > plain.input_tokens + tokens("a | b")


def test_custom_tools_are_bound():
    tool = {"type": "custom", "custom": {"name": "sql", "description": "Runs SQL."}}
    count = chat(USER, tools=[tool])
    assert count.method == "bound"
    assert count.components["tools"] > 120


def test_predictions_and_searches_are_counted():
    prediction = {"type": "content", "content": "def f(): pass"}
    expected = chat(USER).input_tokens + tokens("def f(): pass")
    assert chat(USER, prediction=prediction).input_tokens == expected
    assert chat(USER, web_search_options={}).method == "bound"


def png(width, height):
    head = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", width, height)
    return "data:image/png;base64," + base64.b64encode(head + b"\0" * 16).decode()


@pytest.mark.parametrize(
    ("model", "size", "detail", "expected"),
    [
        ("gpt-4o", (640, 480), "auto", 85 + 2 * 170),
        ("gpt-4o", (640, 480), "low", 85),
        ("gpt-4o", (1024, 1024), "high", 85 + 4 * 170),
        ("gpt-4o", (2048, 4096), "high", 85 + 6 * 170),
        ("gpt-4o-mini", (1, 1), None, 2833 + 5667),
        ("o1", (512, 512), "auto", 75 + 150),
        ("gpt-5", (512, 512), "auto", 70 + 140),
        ("o4-mini", (640, 480), "auto", 517),
        ("gpt-4.1-mini", (640, 480), "auto", 486 + 2),
        ("gpt-5-mini", (640, 480), "auto", 360 + 1),
        ("gpt-5-mini", (1600, 1600), "auto", 1826 + 1),
        ("gpt-5.4", (1600, 1600), "auto", 3000 + 1),
        ("gpt-5.4", (9600, 9600), "original", 12000 + 1),
    ],
)
def test_images_by_tiles_or_patches(model, size, detail, expected):
    image = {"type": "image_url", "image_url": {"url": png(*size), "detail": detail}}
    count = chat({"role": "user", "content": [image]}, model=model)
    assert count.components["images"] == expected
    assert count.method == "exact"


@pytest.mark.parametrize(
    ("model", "most"), [("gpt-4o", 85 + 8 * 170), ("gpt-5-mini", 1844 + 1), ("o3", 75 + 8 * 150)]
)
def test_an_image_elsewhere_costs_at_most(model, most):
    image = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    count = chat({"role": "user", "content": [image]}, model=model)
    assert (count.components["images"], count.method) == (most, "bound")
    low = {"type": "image_url", "image_url": {"url": "https://example.com", "detail": "low"}}
    assert chat({"role": "user", "content": [low]}).components["images"] == 85


def test_files_and_audio_are_bound():
    pdf = {"type": "file", "file": {"file_data": "data:application/pdf;base64," + "A" * 400}}
    stored = {"type": "file", "file": {"file_id": "file-1"}}
    audio = {"type": "input_audio", "input_audio": {"data": "A" * 40_000, "format": "mp3"}}
    odd = {"type": "hologram", "size": 3}
    for piece, least in ((pdf, 3_000), (stored, 10_000), (audio, 150), (odd, 5)):
        count = chat({"role": "user", "content": [piece]})
        assert count.method == "bound"
        assert count.input_tokens >= least
    heard = chat({"role": "assistant", "content": None, "audio": {"id": "audio_1"}})
    assert heard.method == "bound"


def test_other_hosts_are_calibrated_and_count_tools_as_json():
    plain = chat(USER, model="llama-3.3-70b")
    exact = chat(USER).input_tokens
    assert plain.method == "calibrated"
    assert plain.margin > 0
    assert plain.input_tokens > exact
    assert chat(USER, model="gpt-oss-120b").input_tokens == exact + 72 + 1
    tools = chat(USER, model="llama-3.3-70b", tools=[function()])
    assert tools.input_tokens > plain.input_tokens + 80
    image = {"type": "image_url", "image_url": {"url": png(9, 9)}}
    assert chat({"role": "user", "content": [image]}, model="qwen-vl").method == "bound"


def test_tools_that_expand_without_end_fit_no_window():
    defs = {
        f"L{level}": {
            "type": "object",
            "properties": {s: {"$ref": f"#/$defs/L{level + 1}"} for s in "ab"},
        }
        for level in range(40)
    }
    tool = function(**{"$defs": defs, "properties": {"a": {"$ref": "#/$defs/L0"}}})
    count = chat(USER, tools=[tool])
    assert (count.method, count.components["tools"] > 2_000_000) == ("bound", True)


def test_the_join_skips_what_is_not_text():
    picture = {"type": "image_url", "image_url": {"url": png(9, 9)}}
    shown = {"role": "system", "content": [{"type": "text", "text": "Be brief."}, picture]}
    plain = chat({"role": "system", "content": "Be brief."}, USER, tools=[function()])
    assert chat(shown, USER, tools=[function()]).input_tokens == plain.input_tokens + 85 + 170


def test_response_schemas_of_other_dialects_stand_apart():
    for model in ("gpt-5", "llama-3.3-70b"):
        plain = chat(USER, model=model).input_tokens
        count = chat(USER, model=model, response_format=schema_format())
        assert count.input_tokens >= plain + tokens(FORMAT)


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"anyOf": [{"type": "null"}, {"minimum": 1}]}, '{"anyOf":[{"type":"null"},{}]}'),
        (
            {"properties": {"default": {"type": "null"}}},
            '{"properties":{"default":{"type":"null"}}}',
        ),
        ({"properties": [1]}, '{"properties":[1]}'),
        ({"description": "\u2014"}, '{"description":"\\u2014"}'),
    ],
)
def test_what_of_a_schema_is_billed(schema, text):
    head = "# Response Formats\n\n## Place\n\n"
    empty = chat(USER, response_format=schema_format(schema={})).input_tokens
    count = chat(USER, response_format=schema_format(schema=schema))
    assert count.input_tokens == empty + tokens(head + text) - tokens(head + "{}")


def test_deep_schemas_stay_as_they_are():
    schema = {"default": 1}
    for _ in range(60):
        schema = {"items": schema}
    shallow = chat(USER, response_format=schema_format(schema={"items": {"default": 1}}))
    deep = chat(USER, response_format=schema_format(schema=schema))
    assert deep.input_tokens > shallow.input_tokens + tokens('"default":1')
