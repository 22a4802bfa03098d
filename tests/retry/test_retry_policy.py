"""``retry_policy``: with the real SDK against a real upstream, and on errors made by hand."""

from __future__ import annotations

import asyncio
import time
from email.utils import formatdate
from types import SimpleNamespace

import anthropic
import httpx2
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.books import HELLO, Books
from support.texts import ENGLISH
from support.upstream import Plan, Upstream, count

import streamguard
from streamguard import ConfigurationError, Limit, retry_policy
from streamguard.errors import TimeBudgetExceededError
from streamguard.guard.retry_advice import told_wait, transient
from streamguard.guard.retry_tally import current_tally

pytestmark = pytest.mark.anyio

CHAT = {"model": "gpt-4o", "messages": HELLO}


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture(scope="module")
def serving():
    with Upstream() as running:
        yield running


@pytest.fixture
def upstream(serving):
    serving.calls.clear()
    serving.default = Plan()
    return serving


class Slept:
    """Stands in for sleeping."""

    def __init__(self):
        self.waits = []

    async def __call__(self, seconds):
        self.waits.append(seconds)


@pytest.fixture
def slept():
    return Slept()


def raw(upstream, **options):
    return openai.AsyncOpenAI(base_url=upstream.base_url, api_key="k", max_retries=0, **options)


async def attempted(policy, call):
    """Run ``call`` in the policy's loop: its result, or the error raised."""
    async for attempt in policy:
        with attempt:
            return await call()
    return None


async def drained(stream):
    return "".join([c.choices[0].delta.content or "" async for c in stream if c.choices])


def told(book, event):
    return [one for one in book.sink.events if one.event == event]


async def test_a_rate_limit_is_waited_out_as_told(upstream, slept):
    book = Books()
    upstream.queue(Plan(fault="rate_limit", retry_after="7"), Plan(fault="server_error"))
    async with book.guard.wrap(raw(upstream)) as client:
        policy = retry_policy(book.guard, sleep=slept, initial_wait=0.25)
        reply = await attempted(policy, lambda: client.chat.completions.create(**CHAT))
    assert reply.choices[0].message.content == ENGLISH
    assert 7 <= slept.waits[0] <= 7.25
    assert 0 <= slept.waits[1] <= 0.5
    retried = told(book, "retried")
    assert [(event.attempt, event.status, event.code) for event in retried] == [
        (1, 429, "RateLimitError"),
        (2, 500, "InternalServerError"),
    ]
    assert retried[0].request_id == told(book, "preflight")[0].request_id
    assert book.outcomes == ["error_response", "error_response", "completed"]


async def test_as_a_decorator_each_call_has_its_own_attempts(upstream, slept):
    book = Books()
    client = book.guard.wrap(raw(upstream))

    @retry_policy(book.guard, attempts=2, sleep=slept).wraps
    async def ask():
        return (await client.chat.completions.create(**CHAT)).choices[0].message.content

    async with client:
        upstream.queue(Plan(fault="server_error"), Plan(fault="server_error"))
        with pytest.raises(openai.InternalServerError):
            await ask()
        upstream.queue(Plan(fault="server_error"))
        assert await asyncio.gather(ask(), ask()) == [ENGLISH, ENGLISH]
    assert len(upstream.calls) == 5
    assert [event.detail for event in told(book, "retry_refused")] == ["exhausted"]


async def test_all_attempts_together_stay_within_their_tokens(upstream, slept):
    book = Books()
    upstream.default = Plan(fault="server_error")
    async with book.guard.wrap(raw(upstream)) as client:
        policy = retry_policy(book.guard, attempts=50, max_total_tokens=40, sleep=slept)
        with pytest.raises(openai.InternalServerError):
            await attempted(policy, lambda: client.chat.completions.create(**CHAT))
    assert len(upstream.calls) == 3  # of 12 tokens each: a fourth would be 48
    assert [event.attempt for event in told(book, "retry_refused")] == [3]


@pytest.mark.parametrize("guarded", [True, False])
async def test_what_is_refused_as_oversized_is_sent_once(upstream, slept, guarded):
    book = Books()
    upstream.default = Plan(fault="context_length")
    async with raw(upstream) as plain:
        client = book.guard.wrap(plain)
        sender = client if guarded else plain
        policy = retry_policy(book.guard, sleep=slept, retry_on=(openai.APIError,))
        with pytest.raises(openai.BadRequestError):
            await attempted(policy, lambda: sender.chat.completions.create(**CHAT))
        with pytest.raises(streamguard.OversizedRetryError):
            await attempted(policy, lambda: client.chat.completions.create(**CHAT))
    assert len(upstream.calls) == 1
    assert slept.waits == []
    details = [event.detail for event in told(book, "retry_refused")]
    assert details.count("oversized") == 2


async def test_our_own_refusals_are_not_retried(upstream, slept):
    book = Books(Limit(tokens=1, per="day"))
    async with book.guard.wrap(raw(upstream)) as client:
        policy = retry_policy(book.guard, sleep=slept)
        with pytest.raises(streamguard.WindowBudgetExceededError):
            await attempted(policy, lambda: client.chat.completions.create(**CHAT))
    assert (upstream.calls, slept.waits) == ([], [])


async def test_a_window_that_resets_soon_is_waited_for(upstream, slept):
    book = Books(Limit(requests=1, per="30s"))
    async with book.guard.wrap(raw(upstream)) as client:
        call = client.chat.completions.create
        await call(**CHAT)
        policy = retry_policy(book.guard, attempts=2, initial_wait=0, sleep=slept)
        with pytest.raises(streamguard.WindowBudgetExceededError):
            await attempted(policy, lambda: call(**CHAT))
        impatient = retry_policy(book.guard, max_wait=0.5, sleep=slept)
        with pytest.raises(openai.RateLimitError):
            await attempted(impatient, lambda: call(**CHAT))
    assert len(slept.waits) == 1
    assert 1 < slept.waits[0] <= 60
    assert [event.detail for event in told(book, "retry_refused")] == ["exhausted", "wait_too_long"]
    assert told(book, "retried")[0].code == "budget_exceeded"


@pytest.mark.parametrize("kind", ["wrapped", "stream"])
@pytest.mark.parametrize("again", [False, True])
async def test_output_that_was_handed_on_is_not_asked_for_again(upstream, slept, kind, again):
    book = Books()
    upstream.queue(Plan(fault="abort", fault_after=3))
    plain = raw(upstream)
    client = book.guard.wrap(plain)

    async def answer():
        if kind == "wrapped":
            return await drained(await client.chat.completions.create(**CHAT, stream=True))
        source = plain.chat.completions.create(**CHAT, stream=True)
        async with book.guard.stream(source, **CHAT) as stream:
            return await drained(stream)

    policy = retry_policy(book.guard, sleep=slept, retry_after_output=again)
    async with client:
        if again:
            assert await attempted(policy, answer) == ENGLISH
        else:
            with pytest.raises((openai.APIConnectionError, httpx2.TransportError)):
                await attempted(policy, answer)
    assert len(upstream.calls) == 1 + again
    details = [event.detail for event in told(book, "retry_refused")]
    assert details == ([] if again else ["output_handed_on"])


async def test_before_the_first_output_a_stream_is_retried(upstream, slept):
    book = Books()
    upstream.queue(Plan(fault="abort", fault_after=0))
    async with book.guard.wrap(raw(upstream)) as client:

        async def answer():
            return await drained(await client.chat.completions.create(**CHAT, stream=True))

        assert await attempted(retry_policy(book.guard, sleep=slept), answer) == ENGLISH


async def test_the_output_received_counts_for_the_tokens(upstream, slept):
    book = Books()
    upstream.default = Plan(fault="abort", fault_after=30)
    async with book.guard.wrap(raw(upstream)) as client:

        async def answer():
            return await drained(await client.chat.completions.create(**CHAT, stream=True))

        policy = retry_policy(
            book.guard, max_total_tokens=60, attempts=9, retry_after_output=True, sleep=slept
        )
        with pytest.raises((openai.APIConnectionError, httpx2.TransportError)):
            await attempted(policy, answer)
    assert len(upstream.calls) == 2


async def test_tokens_of_an_inner_loop_count_for_the_outer_one(slept):
    book = Books()

    async def inner():
        stream = book.guard.stream(_items(["Hello"]), **CHAT)
        return [item async for item in stream]

    seen = []

    async def outer():
        await attempted(retry_policy(book.guard, sleep=slept), inner)
        seen.append(current_tally.get())
        raise TimeoutError

    with pytest.raises(TimeoutError):
        await attempted(
            retry_policy(book.guard, max_total_tokens=14, attempts=9, sleep=slept), outer
        )
    assert len(seen) == 1
    assert seen[0].tokens == 13
    assert seen[0].handed_on
    assert current_tally.get() is None


async def _items(items):
    for item in items:
        yield item


async def test_errors_of_ones_own_are_retried_where_asked(slept):
    book = Books()
    calls = []

    async def flaky():
        calls.append(1)
        if len(calls) < 3:
            raise ValueError("bad JSON")
        return "ok"

    with pytest.raises(ValueError, match="bad JSON"):
        await attempted(retry_policy(book.guard, sleep=slept), flaky)
    calls.clear()
    policy = retry_policy(book.guard, sleep=slept, retry_on=(ValueError,))
    assert await attempted(policy, flaky) == "ok"
    assert [event.request_id for event in told(book, "retried")] == ["unguarded"] * 2


async def test_a_cancelled_attempt_is_not_retried(slept):
    policy = retry_policy(Books().guard, sleep=slept, retry_on=(Exception,))

    async def cancelled():
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await attempted(policy, cancelled)
    assert slept.waits == []


@pytest.mark.parametrize(
    "figures", [{"attempts": 0}, {"max_total_tokens": 0}, {"initial_wait": -1}, {"max_wait": -1}]
)
def test_figures_that_cannot_work_are_refused(figures):
    with pytest.raises(ConfigurationError):
        retry_policy(Books().guard, **figures)


@pytest.mark.parametrize("wrong", ["ValueError", [ValueError], (ValueError, "x")])
def test_what_to_retry_on_is_exceptions(wrong):
    with pytest.raises(ConfigurationError, match=r"must be a tuple of exceptions, such as"):
        retry_policy(Books().guard, retry_on=wrong)
    retry_policy(Books().guard, retry_on=ValueError)


def status_error(status, headers=None, body=None, sdk=openai):
    request = httpx2.Request("POST", "https://api.example/v1/chat/completions")
    response = httpx2.Response(status, headers=headers, request=request)
    return sdk.APIStatusError("failed", response=response, body=body)


@pytest.mark.parametrize(
    ("error", "again"),
    [
        *[(status_error(status), True) for status in (408, 409, 429, 500, 503, 529)],
        *[(status_error(status), False) for status in (400, 401, 403, 404, 413, 422)],
        (status_error(529, sdk=anthropic), True),
        (status_error(400, sdk=anthropic), False),
        (status_error(400, {"x-should-retry": "true"}), True),
        (status_error(503, {"x-should-retry": "false"}), False),
        (status_error(429, body={"code": "insufficient_quota"}), False),
        (openai.APIConnectionError(request=httpx2.Request("GET", "https://x")), True),
        (openai.APITimeoutError(request=httpx2.Request("GET", "https://x")), True),
        (httpx2.ReadError("gone"), True),
        (ConnectionResetError(), True),
        (TimeoutError(), True),
        (ValueError(), False),
        (KeyboardInterrupt(), False),
        (streamguard.StoreUnavailableError("gone"), True),
        (TimeBudgetExceededError("late", lapse="idle", seconds=1.0), True),
        (streamguard.ContextWindowExceededError("too long"), False),
        (streamguard.WindowBudgetExceededError("spent", retry_after=5.0), True),
        (streamguard.WindowBudgetExceededError("spent", retry_after=5000.0), False),
    ],
    ids=lambda value: value if isinstance(value, bool) else f"{type(value).__name__}",
)
def test_which_errors_are_transient(error, again):
    assert transient(error) is again


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "250", "retry-after": "3"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "3"}, 3.0),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "Wed, 99 Foo 2026 25:61:61 GMT"}, None),
        ({"retry-after": "Wed, 21 Oct 99999999999999999999 07:28:00 GMT"}, None),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"}, 0.0),
        ({}, None),
    ],
)
def test_the_wait_that_headers_tell(headers, wait):
    assert told_wait(status_error(429, headers)) == wait


def test_the_wait_until_a_date():
    date = formatdate(time.time() + 100, usegmt=True)
    assert 90 < told_wait(status_error(429, {"retry-after": date})) <= 100


def test_errors_without_headers_tell_no_wait():
    assert told_wait(ValueError()) is None
    assert told_wait(streamguard.WindowBudgetExceededError("spent", retry_after=4.0)) == 4.0


@given(st.text(max_size=40), st.text(max_size=40))
@settings(max_examples=50)
def test_no_header_breaks_the_policy(after, milliseconds):
    error = ValueError()
    error.response = SimpleNamespace(headers={"retry-after": after, "retry-after-ms": milliseconds})
    wait = told_wait(error)
    assert wait is None or wait >= 0


async def test_a_request_that_the_error_does_not_show_cannot_be_remembered(slept):
    class Bare(Exception):  # noqa: N818
        status_code = 413

    async def refused():
        raise Bare

    book = Books()
    with pytest.raises(Bare):
        await attempted(retry_policy(book.guard, sleep=slept), refused)
    assert [event.detail for event in told(book, "retry_refused")] == ["oversized"]


async def test_the_default_sleep_is_asyncios(upstream):
    book = Books()
    upstream.queue(Plan(fault="server_error"))
    async with book.guard.wrap(raw(upstream)) as client:
        policy = retry_policy(book.guard, initial_wait=0.001)
        await attempted(policy, lambda: client.chat.completions.create(**CHAT))
    assert len(upstream.calls) == 2
    assert count(ENGLISH) == upstream.billed
