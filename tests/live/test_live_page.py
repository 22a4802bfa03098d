"""The page over HTTP: real servers, real connections."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from functools import partial

import anyio
import httpx2
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from support.asgi import Wire
from support.gateways import free_port
from support.servers import SERVERS, serve, wait_until

from streamguard import Guard, Identity, Limit, StreamGuardMiddleware
from streamguard.live import Beside, LivePage
from streamguard.live import feed as live_feed
from streamguard.live import page as live
from streamguard.live.document import document
from streamguard.tokenizers import get_tokenizer

PASSWORD = "correct horse"
AUTH = ("live", PASSWORD)
O200K = get_tokenizer("o200k_base")
get = partial(httpx2.get, timeout=30)


@pytest.fixture(autouse=True)
def _lively(monkeypatch):
    monkeypatch.setattr(live_feed, "PING_SECONDS", 0.2)  # wakes readers, and finds who left
    monkeypatch.setattr(live_feed, "SAMPLE_SECONDS", 0.05)


def guarded(**options):
    guard = Guard([Limit(tokens=9_000, per="hour", scope=("tenant",))], sinks=[])
    return guard, LivePage(guard, password=PASSWORD, **options)


def mounted(page):
    home = Route("/", lambda _: PlainTextResponse("home"))
    return Starlette(routes=[Mount("/in/live", page), home])


class Watching:
    """Reads the events of a page in a thread: ``latest`` of each kind."""

    def __init__(self, url, auth=AUTH):
        self.latest = {}
        self.status = None
        self.over = threading.Event()
        self._stop = False
        self._thread = threading.Thread(target=self._run, args=(url, auth), daemon=True)
        self._thread.start()

    def _run(self, url, auth):
        try:
            with httpx2.Client(auth=auth, timeout=30) as client, client.stream("GET", url) as reply:
                self.status, self.headers = reply.status_code, reply.headers
                name = ""
                for line in reply.iter_lines():
                    if self._stop:
                        return
                    if line.startswith("event: "):
                        name = line.removeprefix("event: ")
                    elif line.startswith("data: "):
                        self.latest[name] = json.loads(line.removeprefix("data: "))
        except httpx2.HTTPError:
            pass
        finally:
            self.over.set()

    def until(self, check, message="the page did not show it"):
        wait_until(lambda: self.status and check(self.latest), message)
        return self

    def stop(self):
        self._stop = True


@pytest.mark.parametrize("server", SERVERS)
def test_the_page_and_its_events_under_every_server(server):
    _, page = guarded()
    with serve(mounted(page), server) as url:
        at = f"{url}/in/live"
        reply = get(f"{at}/", auth=AUTH)
        assert (reply.status_code, reply.content) == (200, document().body)
        watching = Watching(f"{at}/events").until(lambda latest: "windows" in latest)
        assert watching.latest["hello"]["version"]
        assert watching.headers["content-type"] == "text/event-stream"
        assert watching.headers["cache-control"] == "no-store"
        assert len(page._feed) == 1
        watching.stop()
        wait_until(lambda: not page._feed, "the viewer is still counted", timeout=25)


def test_the_page_needs_its_password_and_never_shows_it(caplog):
    _, page = guarded()
    with serve(mounted(page)) as url:
        for path in ("/in/live/", "/in/live/events", "/in/live/other"):
            reply = get(url + path)
            assert reply.status_code == 401
            assert "basic" in reply.headers["www-authenticate"].lower()
            assert b"<" not in reply.content
        seen = get(f"{url}/in/live/", auth=AUTH)
        assert PASSWORD not in seen.text + str(seen.headers) + caplog.text
        assert get(url).text == "home"


def test_the_policy_allows_this_style_and_this_script_and_nothing_else():
    reply = anyio.run(Wire(path="/", method="GET", **_here()).through, _open_page())
    policy = dict(
        part.split(" ", 1)
        for part in reply.headers[b"content-security-policy"].decode().split("; ")
    )
    text = reply.body.decode()
    for tag, name in (("style", "style-src"), ("script", "script-src")):
        (inside,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert policy[name] == f"'sha256-{digest}'"
        assert len(inside) > 1_000
    assert policy["default-src"] == policy["frame-ancestors"] == policy["form-action"] == "'none'"
    assert policy["connect-src"] == "'self'"
    assert policy["require-trusted-types-for"] == "'script'"
    assert "unsafe" not in str(policy)
    assert reply.headers[b"x-content-type-options"] == b"nosniff"
    assert reply.headers[b"referrer-policy"] == b"no-referrer"
    outside = set(re.findall(r"https?://[^\s'\"<)]+", text)) - {"http://www.w3.org/2000/svg"}
    assert outside == set()
    assert not re.findall(r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b", text)
    assert not re.findall(r"\son\w+=|\sstyle=", text)


def _here():
    return {"client": ("127.0.0.1", 1), "headers": [(b"host", b"127.0.0.1:80")]}


def _open_page():
    return LivePage(Guard([], sinks=[]))


@pytest.mark.parametrize(
    ("scope", "status", "header"),
    [
        ({"path": "/", "method": "GET"}, 200, None),
        ({"path": "/x", "method": "GET"}, 404, None),
        ({"path": "/events/", "method": "GET"}, 404, None),
        ({"path": "/", "method": "POST"}, 405, (b"allow", b"GET")),
        ({"path": "/events", "method": "HEAD"}, 405, (b"allow", b"GET")),
        (
            {"path": "/a/live", "root_path": "/a/live", "method": "GET"},
            307,
            (b"location", b"live/"),
        ),
        ({"path": "/a/live/", "root_path": "/a/live", "method": "GET"}, 200, None),
    ],
)
def test_paths_and_methods(scope, status, header):
    reply = anyio.run(Wire(**scope, **_here()).through, _open_page())
    assert reply.status == status
    if header is not None:
        assert reply.headers[header[0]] == header[1]


def test_there_is_no_websocket():
    wire = Wire(type="websocket")
    anyio.run(wire.through, _open_page())
    assert wire.got == [{"type": "websocket.close", "code": 1008, "reason": "no websocket here"}]


def test_it_can_be_an_app_of_its_own_and_others_are_refused_when_it_has_no_password():
    guard = Guard([], sinks=[])
    page = LivePage(guard)
    with serve(page) as url:
        assert get(f"{url}/").status_code == 200
        assert get(f"{url}/", headers={"host": "evil.example"}).status_code == 403
        watching = Watching(f"{url}/events", auth=None).until(lambda latest: "cost" in latest)
    assert watching.over.wait(20)
    assert page._feed.closed


def test_too_many_viewers_are_turned_away():
    _, page = guarded(viewers=2)
    with serve(mounted(page)) as url:
        at = f"{url}/in/live/events"
        watching = [Watching(at).until(lambda latest: "hello" in latest) for _ in range(2)]
        reply = get(at, auth=AUTH)
        assert reply.status_code == 503
        assert reply.headers["retry-after"]
        assert "watching" in reply.text
        for one in watching:
            one.stop()


def test_a_viewer_that_accepts_nothing_is_dropped(monkeypatch):
    monkeypatch.setattr(live, "SEND_SECONDS", 0.01)
    page = _open_page()

    async def scene():
        sent = []

        async def send(message):
            sent.append(message)
            if len(sent) > 2:
                await anyio.sleep_forever()

        wire = Wire(path="/events", method="GET", **_here())
        await page(wire.scope, wire.receive, send)
        return sent

    sent = anyio.run(scene)
    assert sent[0]["status"] == 200
    assert len(page._feed) == 0


def test_a_viewer_that_leaves_is_forgotten():
    page = _open_page()

    async def scene():
        wire = Wire(path="/events", method="GET", **_here())
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wire.through, page)
            while len(wire.got) < 3:
                await anyio.sleep(0.001)
            assert len(page._feed) == 1
            wire.left.set()
        return wire

    wire = anyio.run(scene)
    assert len(page._feed) == 0
    assert wire.got[-1] == {"type": "http.response.body", "body": b""}


def test_the_page_closes_with_its_guard_and_opens_with_it_again():
    guard, page = guarded()

    async def status():
        wire = Wire(path="/events", method="GET", headers=[_basic()])
        wire.left.set()
        return (await wire.through(page)).status

    async def scene():
        async with guard:
            first = await status()
        closed = await status()
        async with guard:
            return first, closed, await status()

    assert anyio.run(scene) == (200, 503, 200)


def _basic():
    return b"authorization", b"Basic " + base64.b64encode(f"x:{PASSWORD}".encode())


def test_the_page_beside_an_app_that_cannot_mount_it():
    guard, page = guarded()

    async def app(scope, receive, send):
        assert scope["type"] == "http"
        await PlainTextResponse(f"app {scope['path']}")(scope, receive, send)

    both = StreamGuardMiddleware(Beside(app, page), guard=guard, identify=lambda _: Identity())
    with serve(Beside(app, page, at="/a/b")) as url, serve(both) as guarded_url:
        assert get(f"{url}/a/b", auth=AUTH).headers["location"] == "b/"
        assert b"<main" in get(f"{url}/a/b/", auth=AUTH).content
        for path in ("/", "/a", "/a/bc", "/live/"):
            assert get(url + path).text == f"app {path}"
        Watching(f"{guarded_url}/live/events").until(lambda latest: "windows" in latest).stop()


SERVED = """
    import asyncio, contextlib, os
    import uvicorn
    from starlette.applications import Starlette
    from starlette.routing import Mount
    from streamguard import Guard
    from streamguard.live import LivePage

    guard = Guard([], sinks=[])

    @contextlib.asynccontextmanager
    async def lifespan(app):
        async with guard:
            yield
        print("closed in order", flush=True)

    page = LivePage(guard, password="correct horse")
    app = Starlette(routes=[Mount("/live", page)], lifespan=lifespan)
    uvicorn.run(app, port=int(os.environ["PORT"]), log_level="warning")
"""


def test_an_open_page_does_not_hold_up_uvicorn_when_it_is_told_to_stop(tmp_path):
    port = free_port()
    script = tmp_path / "served.py"
    script.write_text(textwrap.dedent(SERVED))
    env = {**os.environ, "PORT": str(port)}
    process = subprocess.Popen([sys.executable, script], env=env, stdout=subprocess.PIPE)
    try:
        wait_until(lambda: _accepts(port), "the server did not start")
        url = f"http://127.0.0.1:{port}/live/events"
        watching = Watching(url).until(lambda latest: "windows" in latest)
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=30)  # without our help it waits for ever
        assert watching.over.wait(5)
        assert b"closed in order" in out
    finally:
        process.kill()
        process.wait()


def _accepts(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_connected_viewer_sees_what_happens():
    guard, page = guarded()
    messages = [{"role": "user", "content": "hello"}]
    got = {}

    async def say(_):
        async def source():
            yield "some words "
            await anyio.to_thread.run_sync(got["go"].wait)
            yield "and more"

        got["go"] = threading.Event()
        stream = guard.stream(
            source(), model="gpt-4o", messages=messages, identity=Identity("<b>acme</b>")
        )
        async with stream:
            parts = [part async for part in stream]
        got["usage"] = stream.usage
        return PlainTextResponse("".join(parts))

    app = Starlette(routes=[Mount("/live", page), Route("/say", say)])
    with serve(app) as url:
        watching = Watching(f"{url}/live/events").until(lambda latest: "windows" in latest)
        caller = threading.Thread(target=get, args=(f"{url}/say",))
        caller.start()
        watching.until(lambda latest: _outputs(latest) == [O200K.count("some words ")])
        row = watching.latest["streams"]["rows"][0]
        assert (row["tenant"], row["model"]) == ("<b>acme</b>", "gpt-4o")
        got["go"].set()
        caller.join()
        watching.until(lambda latest: latest["cost"]["calls"] == 1)
        watching.until(lambda latest: latest["streams"]["open"] == 0)
        watching.until(lambda latest: latest["windows"]["rows"][0]["held"] == 0)
        total = got["usage"].total_tokens
        assert watching.latest["windows"]["rows"][0]["used"] == total
        assert watching.latest["cost"]["tokens"] == sum(watching.latest["pulse"]["tokens"]) == total
        assert abs(watching.latest["hello"]["now"] - time.time()) < 60
        watching.stop()


def _outputs(latest):
    return [row["output"] for row in latest["streams"]["rows"]]
