"""How a guard counts: a user's tokenizers, a sample, the provider, or bounds alone."""

from __future__ import annotations

import anyio
import pytest
from support.tokenizer_files import byte_level, saved

from streamguard import (
    ConfigurationError,
    ContextWindowExceededError,
    Guard,
    Identity,
    InputBudgetExceededError,
    Limit,
    OutputCounter,
    Usage,
    count_request,
)
from streamguard.core.billing import Spent
from streamguard.core.counting import count_least
from streamguard.core.prompt import Part, Prompt, PromptCount
from streamguard.guard.counter import told
from streamguard.tokenizers import get_tokenizer

pytestmark = pytest.mark.anyio

LLAMA = "llama-3-70b"


def body(content, model="gpt-4o", **more):
    return {"model": model, "messages": [{"role": "user", "content": content}], **more}


@pytest.fixture
def own(tmp_path):
    return {"llama-*": saved(byte_level(), tmp_path)}


async def test_a_model_is_counted_and_metered_with_its_own_tokenizer(own):
    async with Guard([Limit(output_tokens=3)], sinks=[], tokenizers=own) as guard:
        found = await guard.preflight(body("hello" * 100, LLAMA))
        assert (found.count.method, found.count.margin) == ("calibrated", 0.02)
        assert found.count.components["user"] == pytest.approx(105, abs=6)
        call = await guard.begin(await guard.subject(body("x", LLAMA), path="/v1/chat/completions"))
        assert call.tokenizer.name.startswith("huggingface-")
        usage = await call.finish(Spent("completed", Usage(output_tokens=3), Usage(None, 2)))
        assert usage.output_tokens == 3  # what was seen is not refunded: the count is exact
        other = await guard.preflight(body("hello" * 100, "qwen"))
        assert other.count.margin > 0.02


async def test_count_request_and_output_counter_take_them(own):
    counter = OutputCounter(LLAMA, tokenizers=own)
    counter.feed("hello" * 5)
    assert (counter.count, counter.exact) == (5, True)
    assert counter.take("hellohello!", 6) == "hello"
    mine = count_request(body("hello" * 100, LLAMA), tokenizers=own)
    assert mine.margin == 0.02
    assert mine.input_tokens < count_request(body("hello" * 100, LLAMA)).input_tokens
    exact = count_request(body("hello"), tokenizers={"gpt-*": own["llama-*"]})
    assert exact.method == "exact"


async def test_a_file_names_them(own, tmp_path):
    file = tmp_path / "guard.toml"
    file.write_text(f'counting = "sampled"\n[tokenizers]\n"llama-*" = "{own["llama-*"]}"\n')
    async with Guard.from_config(file) as guard:
        assert guard.counter.tokenizers.path_of(LLAMA) == own["llama-*"]
        assert guard.settings.counting == "sampled"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"tokenizers": {"llama": "/nowhere/tokenizer.json"}}, "there is no file"),
        ({"tokenizers": ["llama"]}, "must be a table"),
        ({"counting": "roughly"}, "use one of"),
        ({"count_remote": "https://count"}, "must be an async callable"),
        ({"count_remote_seconds": 0}, "must be more than 0 seconds"),
    ],
)
def test_options_that_cannot_work_are_named(options, said):
    with pytest.raises(ConfigurationError, match=said):
        Guard(sinks=[], **options)


async def test_sampled_counts_are_called_calibrated_and_cover_uniform_prompts():
    tokenizer = get_tokenizer("o200k_base")
    async with Guard(sinks=[], counting="sampled") as guard:
        for number in range(200):
            request = body(f"Summarise ticket {number} of the harbour in one short sentence.")
            found = await guard.preflight(request)
            assert found.count.method == "calibrated"
            assert found.count.margin == 0.05
            real = tokenizer.count(request["messages"][0]["content"]) + 7
            assert real <= found.input_tokens <= real * 1.2 + 2
        claude = await guard.preflight(body("hi", "claude-sonnet-4-5"))
        assert claude.count.margin > 0.05


async def test_a_tenants_dense_texts_raise_nobody_elses_sampled_counts():
    text = body("Summarise this ticket of the harbour in one short sentence, please.")
    counts = []
    for dense in (False, True):
        async with Guard(sinks=[], counting="sampled") as guard:
            for _ in range(60):
                if dense:
                    await guard.preflight(body("⸘⸙⸚" * 9), identity=Identity("mallory"))
                found = await guard.preflight(text, identity=Identity("acme"))
            counts.append(found.input_tokens)
    assert counts[0] == counts[1]


class Counting:
    """Counts how often the tokenizer is asked."""

    def __init__(self):
        self.calls = 0

    def __call__(self, tokenizer, text):
        self.calls += 1
        return tokenizer.count(text)


async def test_what_surely_does_not_fit_is_refused_without_tokenizing():
    async with Guard(sinks=[]) as guard:
        guard.counter._cache = counting = Counting()
        huge = body("x" * 1_200_000, "gpt-4")  # 8,192 tokens at 128 bytes are 1 MB
        with pytest.raises(ContextWindowExceededError) as caught:
            await guard.preflight(huge)
        assert counting.calls == 0
        assert "the prompt is at least 9," in str(caught.value)
        assert "Shorten the prompt by at least " in str(caught.value)
        assert "counted: bound" in str(caught.value)
        with pytest.raises(ContextWindowExceededError) as caught:
            await guard.preflight(body("word " * 20_000, "gpt-4"))  # bounds do not tell
        assert counting.calls > 0
        assert "at least" not in str(caught.value)


async def test_a_limit_decides_by_bounds_where_the_window_is_not_known():
    async with Guard([Limit(input_tokens=100, name="short")], sinks=[]) as guard:
        guard.counter._cache = counting = Counting()
        with pytest.raises(InputBudgetExceededError, match="needs at least 2") as caught:
            await guard.preflight(body("x" * 26_000, "gpt-5.99"))
        assert counting.calls == 0
        assert caught.value.used > 200
    soft = [Limit(input_tokens=100, soft=True), Limit(tokens=9, where={"model": "o3"})]
    async with Guard(soft, sinks=[]) as guard:
        assert not (await guard.preflight(body("x" * 26_000))).count.at_least


async def test_calls_that_go_on_are_counted_whole():
    huge = body("x" * 26_000)
    async with Guard([Limit(input_tokens=100)], sinks=[], observe=True) as guard:
        assert not (await guard.preflight(huge)).count.at_least


def test_only_one_exact_prompt_has_a_fewest():
    tokenizer = get_tokenizer("o200k_base")
    parts = (Part("user", "x" * 1_000), Part("overhead", tokens=-3), Part("images", tokens=85))
    least = count_least(Prompt(parts), tokenizer)
    assert least is not None
    assert (least.input_tokens, least.components) == (90, {"user": 8, "images": 85})
    assert count_least(Prompt(parts, "calibrated"), tokenizer) is None
    assert count_least(Prompt(parts, separate=True), tokenizer) is None
    bound = (Part("images", tokens=9, bound=True),)
    assert count_least(Prompt(bound), tokenizer) is None


async def test_a_remote_count_that_is_late_or_odd_leaves_the_estimate():
    answers = [TimeoutError(), ValueError("no"), None, -1, "12", True, 400]

    async def ask(request):
        assert request.model == "claude-sonnet-4-5"
        answer = answers.pop(0)
        if isinstance(answer, TimeoutError):
            await anyio.sleep(60)
        if isinstance(answer, Exception):
            raise answer
        return answer

    claude = body("The keeper wrote letters. " * 50, "claude-sonnet-4-5")
    options = {"count_remote": ask, "count_remote_seconds": 0.05}
    async with Guard(sinks=[], **options) as guard:
        estimates = [await guard.preflight(claude) for _ in range(6)]
        assert len({each.input_tokens for each in estimates}) == 1
        assert not any(each.count.remote for each in estimates)
        assert guard.counter.remote_failures == 2
        assert (await guard.preflight(claude)).input_tokens == 400
        assert answers == []


async def test_remote_counts_correct_the_estimates():
    async def ask(request):
        return 1_000

    claude = body("The keeper wrote letters. " * 50, "claude-sonnet-4-5")
    async with Guard(sinks=[], count_remote=ask) as guard:
        for _ in range(25):
            await guard.preflight(claude)
        call = await guard.begin(await guard.subject(claude, path="/v1/chat/completions"))
        assert call.assessment.count.remote
        learned = guard.counter.calibrator.correction("claude-sonnet-4-5")
        await call.finish(Spent("completed", Usage(output_tokens=5), Usage(4_000, 5)))
        assert guard.counter.calibrator.correction("claude-sonnet-4-5") == learned
        assert learned is not None
        assert learned.ratio > 1.5


def test_components_share_a_remote_count():
    estimate = PromptCount(10, "calibrated", 0.1, {"system": 3, "user": 7}, "m", 1.2)
    found = told(estimate, 101)
    assert (found.input_tokens, found.components) == (101, {"system": 30, "user": 71})
    assert (found.margin, found.ratio, found.longest) == (0.0, 1.0, None)
    assert told(PromptCount(0, "bound", longest=0), 5).longest == 5
