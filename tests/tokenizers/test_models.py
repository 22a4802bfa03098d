"""Which encoding a model is counted with, and whether that is known to be its own."""

from __future__ import annotations

import pytest

from streamguard.core.families import base_model
from streamguard.tokenizers import encoding_for_model, tokenizer_for_model

EXACT = {
    "o200k_base": """
        gpt-4o gpt-4o-mini gpt-4o-2024-08-06 chatgpt-4o-latest gpt-4.1 gpt-4.1-nano gpt-4.5-preview
        gpt-5 gpt-5-mini gpt-5.2_2025-12-11 gpt-5.6-sol gpt-5-nano-2025-08-07 o1 o1-mini o3-mini
        o3 o4-mini-2025-04-16 codex-mini-latest openai/gpt-4o azure/gpt-4o-mini
        openrouter/openai/gpt-5 ft:gpt-4o-mini:org::id ft:gpt-4o-2024-08-06:acme:x:9 GPT-4o
    """,
    "cl100k_base": """
        gpt-4 gpt-4-0613 gpt-4-32k gpt-4-turbo-2024-04-09 gpt-4-vision-preview gpt-3.5-turbo
        gpt-3.5-turbo-0125 gpt-35-turbo gpt-3.5 ft:gpt-3.5-turbo:org::id text-embedding-3-small
        text-embedding-3-large text-embedding-ada-002 davinci-002 babbage-002 ft:davinci-002:o::i
        azure/gpt-35-turbo-16k
    """,
    "o200k_harmony": """
        gpt-oss-20b openai/gpt-oss-120b openai/gpt-oss-20b:free gpt-oss:20b @cf/openai/gpt-oss-20b
        openai.gpt-oss-120b-1:0 us.openai.gpt-oss-20b-1:0
    """,
}
NEAREST = {
    "o200k_base": """
        gpt-6 gpt-6-mini gpt-4x o5 o2 o30 claude-3-5-haiku-latest gemini-2.5-flash llama-3.1-70b
        mistral-large deepseek-chat azure/my-deployment text-embedding-004 muse-spark-1.1
        us.anthropic.claude-sonnet-4 my-gpt-4o unknown
    """,
    "cl100k_base": """
        text-davinci-003 code-davinci-002 davinci curie ada babbage gpt2 gpt-2 davinci-codex
        text-similarity-ada-001 code-search-ada-code-001 ft:curie:org::id
    """,
}


@pytest.mark.parametrize("exact", [True, False])
def test_models(exact: bool) -> None:
    table = EXACT if exact else NEAREST
    for encoding, models in table.items():
        for model in models.split():
            assert encoding_for_model(model) == (encoding, exact), model


def test_the_empty_model_is_unknown() -> None:
    assert encoding_for_model("") == ("o200k_base", False)


def test_base_model_strips_provider_fine_tuning_and_variant() -> None:
    assert base_model(" openai/ft:gpt-4o-mini:org::id ") == "gpt-4o-mini"


def test_the_tokenizer_of_a_model() -> None:
    tokenizer, exact = tokenizer_for_model("claude-sonnet-4-5")
    assert (tokenizer.name, exact) == ("o200k_base", False)
