"""Responses prompts against the derived rules, written out by hand."""

import pytest

from streamguard.counting import count_request
from streamguard.protocols.openai_prompt import PER_MESSAGE, UNSEEN
from streamguard.protocols.openai_responses_prompt import BUILT_IN, encrypted_tokens
from streamguard.tokenizers import get_tokenizer

O200K = get_tokenizer("o200k_base").count
TEXT = "What is the capital of France?"
OPEN = "# Tools\n\n## functions\n\nnamespace functions {\n\n"
PING = "// Ping.\ntype ping = () => any;\n\n} // namespace functions"
TOOL = {"type": "function", "name": "ping", "description": "Ping.", "parameters": {}}
USER = {"role": "user", "content": TEXT}


def tokens(*texts):
    return sum(map(O200K, texts))


def ask(given=TEXT, model="gpt-4o", **fields):
    return count_request({"model": model, "input": given, **fields})


PLAIN = PER_MESSAGE + tokens("user", TEXT) + 3


def test_a_text_is_one_user_message():
    count = ask()
    assert (count.input_tokens, count.method) == (PLAIN, "exact")
    assert ask([USER]).input_tokens == PLAIN
    assert ask([{"type": "message", **USER}], model="gpt-5").input_tokens == PLAIN - 1


def test_instructions_are_a_system_message():
    count = ask(instructions="Be brief.")
    assert count.input_tokens == PLAIN + 3 + tokens("system", "Be brief.")
    assert count.components["system"] == tokens("Be brief.")


def test_developer_messages_are_system_and_answers_history():
    answer = {"role": "assistant", "content": [{"type": "output_text", "text": "Paris"}]}
    count = ask([{"role": "developer", "content": "Be brief."}, USER, answer, USER])
    assert count.components["system"] == tokens("Be brief.")
    assert count.components["history"] == tokens(TEXT, "Paris")
    assert count.components["user"] == tokens(TEXT)


def test_functions_have_a_message_of_their_own():
    assert ask(tools=[TOOL]).input_tokens == PLAIN + tokens(OPEN + PING) - 3
    assert ask(tools=[TOOL], model="gpt-5").input_tokens == PLAIN - 1 + tokens(OPEN, PING) + 2


def test_a_named_choice_is_free():
    choice = {"type": "function", "name": "ping"}
    assert ask(tools=[TOOL], tool_choice=choice) == ask(tools=[TOOL])


CALL = {"type": "function_call", "call_id": "1", "name": "ping", "arguments": '{"a": 1}'}
RESULT = {"type": "function_call_output", "call_id": "1", "output": "pong"}


def test_a_call_and_its_result():
    expected = PLAIN + tokens("ping", "functions.ping", '{"a": 1}', "pong")
    assert ask([USER, CALL, RESULT]).input_tokens == expected + 10
    assert ask([USER, {**CALL, "id": "fc_1"}, RESULT]).input_tokens == expected + 13
    assert ask([USER, CALL, RESULT], model="gpt-5").input_tokens == expected - 1 + 18


def test_parallel_calls():
    one = '{"recipient_name":"functions.ping","parameters":{"a": 1}}'
    expected = PLAIN + 18 + tokens(f'{{"tool_uses":[{one},{one}]}}', '["pong", "pong"]')
    assert ask([USER, CALL, CALL, RESULT, RESULT]).input_tokens == expected


def test_results_may_be_parts_and_may_come_alone():
    parts = [{"type": "input_text", "text": "pong"}, {"type": "input_image", "image_url": "http"}]
    count = ask([USER, CALL, {**RESULT, "output": parts}])
    assert count.components["images"] == 85 + 8 * 170
    alone = ask([USER, RESULT])
    assert alone.input_tokens == PLAIN + 8 + tokens("pong")


def test_custom_calls_are_calls():
    call = {"type": "custom_tool_call", "name": "ping", "input": "x"}
    result = {"type": "custom_tool_call_output", "output": "pong"}
    expected = PLAIN + 10 + tokens("ping", "functions.ping", "x", "pong")
    assert ask([USER, call, result]).input_tokens == expected


def test_reasoning_counts_while_its_turn_goes_on():
    hidden = {"type": "reasoning", "summary": [], "encrypted_content": "x" * 1_330}
    count = ask([USER, hidden, CALL, RESULT], model="gpt-5")
    assert count.method == "bound"
    plain = ask([USER, CALL, RESULT], model="gpt-5").input_tokens
    assert count.input_tokens == plain + encrypted_tokens("x" * 1_330) == plain + 100
    assert ask([hidden, USER], model="gpt-5").input_tokens == PLAIN - 1
    kept = ask([hidden, USER], model="gpt-5", reasoning={"context": "all_turns"})
    assert kept.input_tokens == PLAIN - 1 + 100
    stored = ask([USER, {"type": "reasoning", "id": "rs_1"}], model="gpt-5")
    assert stored.input_tokens == PLAIN - 1 + UNSEEN


def test_a_short_secret_is_still_worth_something():
    assert encrypted_tokens("") == 64


@pytest.mark.parametrize("kind", [*BUILT_IN, "shell"])
def test_tools_that_run_elsewhere_are_bound(kind):
    count = ask(tools=[{"type": kind}])
    assert count.method == "bound"
    assert count.components["tools"] >= BUILT_IN.get(kind, 4_096)


def test_namespaces_hold_functions():
    grouped = ask(tools=[{"type": "namespace", "name": "n", "tools": [TOOL]}])
    assert grouped.input_tokens == ask(tools=[TOOL]).input_tokens


def test_tools_that_join_later_are_bound():
    added = {"type": "additional_tools", "role": "developer", "tools": [TOOL]}
    count = ask([USER, added])
    assert count.method == "bound"
    assert count.input_tokens >= PLAIN + tokens(PING)


@pytest.mark.parametrize(
    ("item", "least"),
    [
        ({"type": "item_reference", "id": "msg_1"}, UNSEEN),
        ({"type": "compaction", "encrypted_content": "x" * 2_000}, 200),
        ({"type": "image_generation_call", "result": "A" * 9_000}, 85 + 8 * 170),
        ({"type": "web_search_call", "action": {"query": "capital of France"}}, 10),
    ],
)
def test_items_of_other_kinds_are_bound(item, least):
    count = ask([USER, item])
    assert count.method == "bound"
    assert PLAIN + least <= count.input_tokens < PLAIN + UNSEEN + 100


def test_an_image_that_was_made_is_not_counted_as_text():
    small, big = (
        ask([USER, {"type": "image_generation_call", "result": "A" * size}]) for size in (1, 9_000)
    )
    assert big == small


@pytest.mark.parametrize("field", ["previous_response_id", "conversation"])
def test_state_elsewhere_is_bound(field):
    count = ask(**{field: "id_1"})
    assert (count.method, count.components["history"]) == ("bound", UNSEEN)


def test_a_stored_prompt_and_its_variables_are_bound():
    variables = {"city": "Rome", "page": {"type": "input_text", "text": "Hi"}}
    count = count_request({"model": "gpt-4o", "prompt": {"id": "pmpt_1", "variables": variables}})
    assert count.method == "bound"
    assert count.input_tokens == UNSEEN + tokens("Rome", "Hi") + 3


def test_pro_mode_reads_more_than_once():
    count = ask(reasoning={"mode": "pro"}, model="gpt-5.6")
    assert count.method == "bound"
    assert count.input_tokens > 4_000


def test_text_formats():
    schema = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
    text = '# Response Formats\n\n## P\n\n{"type":"object","properties":{"a":{"type":"string"}}}'
    given = {"type": "json_schema", "name": "P", "schema": schema}
    assert ask(text={"format": given}).input_tokens == PLAIN + tokens(text) + 1
    for kind in ("text", "json_object"):
        assert ask(text={"format": {"type": kind}}).input_tokens == PLAIN
    assert ask(text={"format": {"type": "grammar"}}).method == "bound"


def test_pictures_and_files():
    picture = {"type": "input_image", "image_url": "https://example.com", "detail": "low"}
    count = ask([{"role": "user", "content": [picture]}])
    assert count.components["images"] == 85
    file = {"type": "input_file", "file_data": "data:application/pdf;base64,AAAA"}
    assert ask([{"role": "user", "content": [file]}]).components["files"] == 3_000
