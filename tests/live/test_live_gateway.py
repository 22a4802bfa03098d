"""The page of ``streamguard serve``."""

from __future__ import annotations

import json
import signal
from functools import partial

import httpx2
import pytest
from support.gateways import Served, served
from support.servers import wait_until
from support.upstream import Upstream

AUTH = ("anyone", "correct-horse")
CONFIG = """
store = "memory://"
ledger = "sqlite:///{folder}/usage.db"
{page}

[[upstreams]]
url = "{url}"

[[limits]]
tokens = 9_000
per = "hour"
"""
CALL = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello."}]}
get = partial(httpx2.get, timeout=30)
post = partial(httpx2.post, timeout=30)


@pytest.fixture(scope="module")
def upstream():
    with Upstream() as one:
        yield one


@pytest.fixture
def config(tmp_path, upstream):
    def write(page='live_page = "env:LIVE_PASSWORD"'):
        path = tmp_path / "gateway.toml"
        path.write_text(CONFIG.format(folder=tmp_path, url=upstream.url, page=page))
        return ("--config", str(path))

    return write


def first_page(client, url):
    """The first whole page of the events."""
    found = {}
    with client.stream("GET", f"{url}/live/events") as reply:
        assert reply.status_code == 200
        name = ""
        for line in reply.iter_lines():
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: "):
                found[name] = json.loads(line.removeprefix("data: "))
            if name == "windows" and "windows" in found:
                return found
    raise AssertionError(found)


def test_the_page_of_a_served_gateway(tmp_path, config):
    with served(tmp_path, *config(), LIVE_PASSWORD=AUTH[1]) as gateway:
        assert get(f"{gateway.url}/live/").status_code == 401
        assert b"streamguard live" in get(f"{gateway.url}/live/", auth=AUTH).content
        key = {"authorization": "Bearer sk-somebody"}
        reply = post(f"{gateway.url}/v1/chat/completions", json=CALL, headers=key)
        total = reply.json()["usage"]["total_tokens"]
        with httpx2.Client(auth=AUTH, timeout=30) as client:

            def page():
                return first_page(client, gateway.url)

            wait_until(lambda: page()["pulse"]["calls"][-2:] != [0, 0], "the call is not there")
            found = page()
            assert sum(found["pulse"]["tokens"]) == found["windows"]["rows"][0]["used"] == total
            assert found["cost"]["source"] == "ledger"
            # An open page does not hold up the end, and its password is in no log.
            with client.stream("GET", f"{gateway.url}/live/events") as watching:
                lines = watching.iter_lines()
                next(lines)
                gateway.terminate()
                assert gateway.ended() in (0, -signal.SIGTERM)
                assert sum(1 for _ in lines) > 5
        assert AUTH[1] not in gateway.told()
        assert "sk-somebody" not in gateway.told()


def test_there_is_no_page_unless_it_is_asked_for(tmp_path, config):
    with served(tmp_path, *config(page="")) as gateway:
        for path in ("/live", "/live/", "/live/events"):
            reply = get(gateway.url + path, auth=AUTH)
            assert reply.status_code == 403
            assert b"streamguard live" not in reply.content


def test_a_short_password_is_one_clear_line(tmp_path, config):
    gateway = Served(tmp_path, *config(page='live_page = "secret"'))
    assert gateway.ended() == 1
    assert "use at least 8" in gateway.told()
    assert "secret" not in gateway.told()
    assert len(gateway.told().strip().splitlines()) == 1
