"""The guide to the agent frameworks, with the frameworks themselves."""

from __future__ import annotations

import pytest
from support.frameworks import tried, versions

ANSWER = "Noted. Checking the next batch."
REFUSED = "32000 input_tokens/request"


@pytest.mark.timeout(300)  # the first one installs them
@pytest.mark.parametrize(
    ("name", "kind", "cause"),
    [
        ("langchain", "APIStatusError", "NoneType"),
        ("pydantic_ai", "ModelHTTPError", "InputBudgetExceededError"),
        ("openai_agents", "InputBudgetExceededError", "NoneType"),
        ("litellm", "APIError", "NoneType"),
    ],
)
def test_the_code_of_the_guide_answers_is_refused_and_is_cut(name, kind, cause):
    told = tried(name)
    finish, _, text = told["answer"].partition(": ")
    assert text == ANSWER
    assert finish in {"stop", "?"}
    assert told["kinds"][0] == kind
    assert told["causes"][0] == cause
    assert told["status"] == 413
    assert REFUSED in told["text"]
    assert told["sent"] == 0
    finish, _, text = told["cut"].partition(": ")
    assert text == "Noted."
    assert finish in {"length", "?"}


def test_the_guide_names_the_versions_it_was_tried_with():
    assert set(versions()) == {
        "langchain-openai", "litellm", "openai-agents", "pydantic-ai-slim",
    }  # fmt: skip
