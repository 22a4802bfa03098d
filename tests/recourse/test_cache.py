"""The same request again, word for word: answered at once, for nothing, and marked so."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import httpx2
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.asgi import Wire
from support.proxy import proxy
from support.servers import serve, wait_until
from support.upstream import Plan, Upstream

from streamguard import ConfigurationError, Guard, Identity, Limit, StreamGuardMiddleware, Usage
from streamguard.asgi.replay import Recorder
from streamguard.core.answers import Answer, AnswerMemory, question
from streamguard.core.billing import Spent
from streamguard.guard.answer_cache import Answers
from streamguard.guard.settings import Cache
from streamguard.sinks.memory import ListSink

pytestmark = pytest.mark.anyio

PATH = "/v1/chat/completions"
DAY = Limit(tokens=100_000, per="day", scope=("tenant",), name="a day")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def upstream():
    with Upstream(default=Plan(text="Good morning")) as running:
        yield running


def body(**more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": "hi"}]
    return {"model": "gpt-4o", "messages": messages, "temperature": 0, "max_tokens": 50, **more}


def guarded(upstream, **settings):
    sink = ListSink()
    guard = Guard([DAY], sinks=[sink], **{"cache": Cache(), **settings})

    def identify(scope):
        return Identity(dict(scope["headers"])[b"x-tenant"].decode())

    app = StreamGuardMiddleware(proxy(upstream.base_url), guard=guard, identify=identify)
    return app, sink


def kept(app, answers=1):
    """An answer is kept after its last byte has left."""
    wait_until(lambda: len(app.guard.answers._memory) == answers, "the answer was not kept")


def post(url, tenant="a", **more):
    return httpx2.post(f"{url}{PATH}", json=body(**more), headers={"x-tenant": tenant})


@pytest.mark.parametrize("stream", [True, False])
def test_the_second_answer_is_the_first_and_costs_nothing(upstream, stream):
    app, sink = guarded(upstream)
    with serve(app, "uvicorn") as url:
        first = post(url, stream=stream)
        kept(app)
        second = post(url, stream=stream)
    assert second.content == first.content
    assert second.headers["content-type"] == first.headers["content-type"]
    assert "x-streamguard-cache" not in first.headers
    assert second.headers["x-streamguard-cache"] == "hit"
    assert len(upstream.calls) == 1
    assert len(sink.named("settled")) == 1
    (cached,) = sink.named("cached")
    assert cached.request_id == second.headers["x-streamguard-request-id"]
    assert cached.charged is None


async def test_the_official_client_reads_a_cached_stream(upstream):
    app, _ = guarded(upstream)
    with serve(app, "uvicorn") as url:
        headers = {"x-tenant": "a"}
        async with openai.AsyncOpenAI(
            base_url=f"{url}/v1", api_key="k", default_headers=headers
        ) as client:
            texts = []
            for _ in range(2):
                stream = await client.chat.completions.create(**body(stream=True))
                chunks = [chunk async for chunk in stream]
                kept(app)
                texts.append("".join(c.choices[0].delta.content or "" for c in chunks if c.choices))
    assert texts == ["Good morning"] * 2
    assert len(upstream.calls) == 1


@pytest.mark.parametrize(
    "other",
    [
        {"tenant": "b"},
        {"temperature": 0, "stream": True},
        {"max_tokens": 49},
        {"messages": [{"role": "user", "content": "hi "}]},
    ],
)
def test_what_differs_at_all_is_asked_again(upstream, other):
    app, sink = guarded(upstream)
    with serve(app, "uvicorn") as url:
        post(url)
        kept(app)
        post(url, **other)
    assert len(upstream.calls) == 2
    assert not sink.named("cached")


@pytest.mark.parametrize("more", [{"temperature": 0.7}, {"temperature": None}, {"store": True}])
def test_what_may_differ_or_is_kept_by_the_provider_is_asked_again(upstream, more):
    app, _ = guarded(upstream)
    with serve(app, "uvicorn") as url:
        post(url, **more)
        post(url, **more)
    assert len(upstream.calls) == 2


def test_any_temperature_when_asked_for(upstream):
    app, _ = guarded(upstream, cache={"any_temperature": True})
    with serve(app, "uvicorn") as url:
        post(url, temperature=1)
        kept(app)
        post(url, temperature=1)
    assert len(upstream.calls) == 1


@pytest.mark.parametrize(
    "plan",
    [
        Plan(text="word " * 400),
        Plan(fault="rate_limit"),
        Plan(fault="error_event"),
        Plan(fault="bare_end", fault_after=3),
    ],
)
def test_cut_failed_and_broken_answers_are_not_kept(upstream, plan):
    app, sink = guarded(upstream)
    upstream.default = plan
    with serve(app, "uvicorn") as url:
        for _ in range(2):
            with contextlib.suppress(httpx2.RemoteProtocolError):
                post(url, stream=True)
    assert len(upstream.calls) == 2
    assert not sink.named("cached")


def test_a_large_answer_is_not_kept(upstream):
    app, _ = guarded(upstream, cache={"max_answer": 100})
    with serve(app, "uvicorn") as url:
        post(url, stream=True)
        post(url, stream=True)
    assert len(upstream.calls) == 2


def test_another_models_answer_says_so_again(upstream):
    app, _ = guarded(upstream, sizes={"auto": [(9_000, "gpt-4o-mini")]})
    with serve(app, "uvicorn") as url:
        first = post(url, model="auto")
        kept(app)
        second = post(url, model="auto")
    assert second.headers["x-streamguard-cache"] == "hit"
    assert second.headers["x-streamguard-model"] == first.headers["x-streamguard-model"]
    assert len(upstream.calls) == 1


async def test_an_answer_grows_old():
    now = [0.0]
    sink = ListSink()
    guard = Guard(sinks=[sink], cache=Cache(ttl=60))
    answers = Answers(guard.settings.cache, guard.teller, lambda: now[0])
    subject = await guard.subject(body(), path=PATH)
    whole = Spent("completed", reported=Usage(1, 2))
    answers.keep(subject, whole, Answer((), b"x"))
    now[0] = 59.9
    assert answers.recall(subject) == Answer((), b"x")
    now[0] = 60.0
    assert answers.recall(subject) is None
    answers.keep(subject, None, Answer((), b"x"))
    answers.keep(subject, whole, None)
    assert answers.recall(subject) is None


async def test_a_compressed_response_is_not_recorded():
    sent = []

    async def send(message):
        sent.append(message)

    recorder = Recorder(send, 100)
    headers = [(b"Content-Encoding", b"gzip")]
    await recorder.send({"type": "http.response.start", "status": 200, "headers": headers})
    await recorder.send({"type": "http.response.body", "body": b"abc"})
    await recorder.send({"type": "http.response.trailers"})
    assert recorder.answer is None
    assert len(sent) == 3


STEPS = st.lists(
    st.tuples(st.sampled_from("abcdef"), st.integers(0, 40), st.floats(0, 30)), max_size=40
)


@settings(max_examples=100, deadline=None)
@given(STEPS)
def test_the_memory_is_bounded_and_never_wrong(steps):
    memory, now, model = AnswerMemory(ttl=50, max_bytes=60), 0.0, {}
    for name, size, later in steps:
        now += later
        found = memory.recall(name.encode(), now)
        if found is not None:
            made, answer = model[name]
            assert found == answer
            assert now - made < 50
        answer = Answer((), name.encode() * size)
        memory.remember(name.encode(), answer, now)
        model[name] = (now, answer)
        assert memory.recall(name.encode(), now) == answer
        assert memory.bytes <= 60
        assert memory.bytes == sum(len(answer.body) for _, answer in memory._known.values())
        assert len(memory) <= 6


def test_questions_are_the_same_in_any_order_of_keys_only():
    one = question("a", "/x", {"b": 1, "c": [1, 2]})
    assert one == question("a", "/x", {"c": [1, 2], "b": 1})
    others = [("b", "/x", {"b": 1, "c": [1, 2]}), ("a", "/y", {"b": 1, "c": [1, 2]})]
    others += [("a", "/x", {"b": 1, "c": [2, 1]}), ("a", "/x", {"b": "1", "c": [1, 2]})]
    assert one not in {question(*other) for other in others}


@pytest.mark.parametrize(
    "cache", [{"ttl": 0}, {"max_answer": 0}, {"max_bytes": 5, "max_answer": 6}, {"size": 3}]
)
def test_figures_that_cannot_be(cache):
    with pytest.raises(ConfigurationError, match="cache"):
        Guard(cache=cache)


async def test_a_gemini_stream_is_asked_for_again_for_the_query_says_which_form_it_has():
    doc = {
        "candidates": [{"content": {"parts": [{"text": "x"}]}, "finishReason": "STOP"}],
        "usageMetadata": {"promptTokenCount": 1, "candidatesTokenCount": 1},
    }
    forms = {
        b"alt=sse": (b"text/event-stream", b"data: %b\n\n"),
        b"": (b"application/json", b"[%b]"),
    }

    async def app(scope: Any, receive: Any, send: Any) -> None:
        kind, form = forms[scope["query_string"]]
        headers = [(b"content-type", kind)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        written = form % json.dumps(doc).encode()
        await send({"type": "http.response.body", "body": written})

    path = "/v1beta/models/gemini-2.5-flash:streamGenerateContent"
    asked = json.dumps({"contents": "hi"}).encode()
    async with Guard(sinks=[], cache=Cache(any_temperature=True)) as guard:
        for query, (_, form) in forms.items():
            wire = Wire(asked, path=path, query_string=query)
            await wire.through(StreamGuardMiddleware(app, guard=guard))
            assert wire.body[:1] == form[:1]
