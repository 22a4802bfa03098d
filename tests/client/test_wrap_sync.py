"""``guard.wrap(OpenAI())``: the same flow, driven by a client that blocks."""

from __future__ import annotations

import asyncio
import gc
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import httpx2
import openai
import pytest
from support.books import HELLO, Books
from support.servers import wait_until
from support.texts import CJK, ENGLISH
from support.upstream import Plan, count

import streamguard
from streamguard import Guard, Limit
from streamguard.client import flow, io

CHAT = {"model": "gpt-4o", "messages": HELLO}


def client_of(upstream, book, **options):
    options.setdefault("max_retries", 0)
    return book.guard.wrap(openai.OpenAI(base_url=upstream.base_url, api_key="k", **options))


def drained(stream):
    text, finish = "", None
    for chunk in stream:
        for choice in chunk.choices:
            text += choice.delta.content or ""
            finish = choice.finish_reason or finish
    return text, finish


def test_whole_replies_and_streams_are_counted_and_settled(upstream):
    book = Books()
    with client_of(upstream, book) as client:
        reply = client.chat.completions.create(**CHAT)
        got = drained(client.chat.completions.create(**CHAT, stream=True))
    assert type(client) is openai.OpenAI
    assert reply.choices[0].message.content == ENGLISH
    assert got == (ENGLISH, "stop")
    assert book.charged == [(call.prompt_tokens, call.generated) for call in upstream.calls]


@pytest.mark.parametrize("budget", [1, 64])
def test_a_stream_is_cut_at_the_exact_token_and_its_upstream_closed(deaf, budget):
    book = Books(Limit(output_tokens=budget))
    deaf.default = Plan(text=CJK, chunk="char", delay=0.002)
    with client_of(deaf, book) as client:
        got, finish = drained(client.chat.completions.create(**CHAT, stream=True))
        call = deaf.calls[0].wait_over()
    assert (count(got), finish) == (budget, "length")
    assert call.closed_at is not None
    assert book.outcomes == ["cut"]


def test_a_refusal_is_both_errors_for_copies_too(upstream):
    book = Books(Limit(input_tokens=3))
    with (
        client_of(upstream, book, max_retries=2) as client,
        pytest.raises(streamguard.InputBudgetExceededError) as caught,
    ):
        client.with_options(timeout=5).chat.completions.create(**CHAT)
    assert isinstance(caught.value, openai.APIStatusError)
    assert upstream.calls == []


def test_what_the_provider_refused_as_oversized_is_sent_once(upstream):
    book = Books()
    upstream.queue(Plan(fault="context_length"))
    with client_of(upstream, book) as client:
        for expected in (openai.BadRequestError, streamguard.OversizedRetryError):
            with pytest.raises(expected):
                client.chat.completions.create(**CHAT)
    assert len(upstream.calls) == 1


def test_an_abort_of_the_upstream_is_charged_as_far_as_it_came(upstream):
    book = Books()
    upstream.queue(Plan(fault="abort", fault_after=4))
    with client_of(upstream, book) as client, pytest.raises(openai.APIConnectionError):
        drained(client.chat.completions.create(**CHAT, stream=True))
    call = upstream.calls[0].wait_over()
    assert book.charged == [(call.prompt_tokens, call.visible_tokens)]
    assert book.outcomes == ["upstream_error"]


def test_closing_early_and_dropping_settle(upstream):
    book = Books()
    upstream.default = Plan(delay=0.005)
    with client_of(upstream, book) as client:
        stream = client.chat.completions.create(**CHAT, stream=True)
        next(stream)
        stream.close()
        assert book.outcomes == ["cancelled"]
        for taken in (0, 1):
            stream = client.chat.completions.create(**CHAT, stream=True)
            _ = [next(stream) for _ in range(taken)]
            del stream
            gc.collect()
        wait_until(lambda: len(book.ended) == 3, "the dropped streams were not settled")
    assert all(call.wait_over().closed_at is not None for call in upstream.calls)


def test_a_stream_longer_than_usual_holds_more_as_it_goes(deaf):
    book = Books()
    with client_of(deaf, book) as client:
        deaf.default = Plan(text="short")
        for _ in range(25):
            drained(client.chat.completions.create(**CHAT, stream=True))
        deaf.default = Plan(text=ENGLISH * 9, chunk=16)
        got, finish = drained(client.chat.completions.create(**CHAT, stream=True))
    assert (got, finish) == (ENGLISH * 9, "stop")
    assert asyncio.run(book.balance()).held == 0


def test_a_whole_reply_too_large_is_not_shown(upstream, monkeypatch):
    monkeypatch.setattr(flow, "MAX_WHOLE_BYTES", 10)
    book = Books()
    with client_of(upstream, book) as client, pytest.raises(openai.InternalServerError):
        client.chat.completions.create(**CHAT)
    assert book.outcomes == ["unmetered"]


@pytest.mark.parametrize("web", [httpx, httpx2], ids=["httpx", "httpx2"])
def test_any_client_of_both_libraries_is_guarded(web, deaf):
    book = Books(Limit(output_tokens=9))
    with book.guard.wrap(web.Client(base_url=deaf.url)) as client:
        answer = client.post("/v1/chat/completions", json=CHAT)
        passed = client.get("/v1/files")
    assert answer.json()["choices"][0]["finish_reason"] == "length"
    assert passed.status_code == 404
    assert book.outcomes == ["cut"]


def test_threads_share_one_budget(deaf):
    book = Books(Limit(output_tokens=100, per="hour", name="tight"))

    def one(_):
        try:
            return drained(client.chat.completions.create(**CHAT, stream=True, max_tokens=40))[0]
        except streamguard.WindowBudgetExceededError:
            return None

    with client_of(deaf, book) as client, ThreadPoolExecutor(4) as pool:
        texts = [text for text in pool.map(one, range(6)) if text is not None]
    assert 2 <= len(texts) < 6
    assert sum(count(text) for text in texts) <= 100


@pytest.mark.anyio
async def test_a_guard_that_a_loop_has_opened_is_asked_on_that_loop(upstream):
    book = Books()
    async with book.guard:
        with client_of(upstream, book) as client:
            call = client.chat.completions.create
            await asyncio.to_thread(lambda: call(**CHAT))
            assert book.guard.books.loop is asyncio.get_running_loop()
            call(**CHAT)  # blocks the loop, so the guard runs beside it
    assert book.outcomes == ["completed"] * 2


def test_a_guard_is_opened_and_closed_without_a_loop(upstream):
    book = Books()
    with book.guard as guard:
        assert guard is book.guard
        assert guard.books.loop is io.background_loop()
        with client_of(upstream, book) as client:
            client.chat.completions.create(**CHAT)
    assert book.outcomes == ["completed"]
    with book.guard, client_of(upstream, book) as client:
        client.chat.completions.create(**CHAT)
    assert book.outcomes == ["completed"] * 2


def test_an_interrupt_while_the_guard_is_asked_cancels_the_asking():
    asked, cancelled = threading.Event(), threading.Event()

    async def ask():
        asked.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    class Interrupted(BaseException):
        pass

    class Io(io.SyncIo):
        def _wait(self, future):
            asked.wait(10)
            raise Interrupted

    with pytest.raises(Interrupted):
        io.run_now(Io(lambda: None).guard(ask))
    assert cancelled.wait(10)


def test_a_flow_that_suspends_is_an_error():
    async def suspends():
        await asyncio.sleep(0)

    with pytest.raises(RuntimeError, match="must not suspend"):
        io.run_now(suspends())


def test_the_background_loop_is_made_again_where_its_thread_is_gone(monkeypatch):
    first = io.background_loop()
    assert io.background_loop() is first
    gone = threading.Thread(target=int)
    gone.start()
    gone.join()
    monkeypatch.setattr(io, "_threads", [(gone, first)])
    second = io.background_loop()
    assert second is not first
    assert asyncio.run_coroutine_threadsafe(asyncio.sleep(0, 7), second).result(10) == 7
    second.call_soon_threadsafe(second.stop)
    io._threads[0][0].join(10)
    second.close()


def test_a_guard_without_calls_needs_no_loop():
    client = Guard(sinks=[]).wrap(httpx2.Client())
    client.close()
    assert client.is_closed
