from __future__ import annotations

import asyncio
import base64
import http.server
import json
import socket
import ssl
import threading
from ipaddress import ip_address

import pytest
import standardwebhooks
import trustme
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route
from support.events import refused, settled
from support.servers import serve

from streamguard.core.alert_rules import DailySpend, Refused
from streamguard.core.alerts import Alert
from streamguard.core.signing import secret_bytes, signature, signed_headers
from streamguard.errors import ConfigurationError
from streamguard.sinks.alerts import AlertSink, default_rules
from streamguard.sinks.outbound import ForbiddenAddressError, is_public, resolve
from streamguard.sinks.webhook import Webhook, pause

OLD = "whsec_" + base64.b64encode(b"o" * 24).decode()
NEW = "whsec_" + base64.b64encode(b"n" * 64).decode()
OTHER = "whsec_" + base64.b64encode(b"x" * 32).decode()
ALERT = Alert(
    "daily_spend",
    "k",
    1_790_000_000.5,
    "tenant <!channel> & co spent $51.00 today, over $50.00",
    severity="critical",
    scope={"tenant": "<!channel> & co"},
    figures={"spent_usd": 51.0},
    request_id="sg-1",
)


class Receiver:
    """A real server that keeps what it gets and answers as told: the last status repeats."""

    def __init__(self):
        self.statuses = [204]
        self.headers = {}
        self.requests = []
        routes = [
            Route("/hook", self.hook, methods=["POST"]),
            Route("/away", self.away, methods=["POST"]),
        ]
        self.app = Starlette(routes=routes)

    async def hook(self, request):
        body = await request.body()
        self.requests.append((dict(request.headers), body))
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        return Response(status_code=status, headers=self.headers)

    async def away(self, _request):
        return RedirectResponse("/hook", 307)


@pytest.fixture
def receiver():
    return Receiver()


@pytest.fixture
def url(receiver):
    with serve(receiver.app) as base:
        yield f"{base}/hook"


@pytest.fixture
def waits():
    return []


@pytest.fixture
def hook(url, tmp_path, waits):
    async def sleep(seconds):
        waits.append(seconds)

    def build(**given):
        settings = {
            "secrets": [OLD],
            "allow_private": True,
            "dead_letters": tmp_path / "dead.jsonl",
            "report": lambda *_args, **_figures: None,
            "sleep": sleep,
        }
        return Webhook(given.pop("url", url), **(settings | given))

    return build


def dead(tmp_path):
    return [json.loads(line) for line in (tmp_path / "dead.jsonl").read_text().splitlines()]


def test_the_public_library_verifies_what_arrives(hook, receiver):
    assert asyncio.run(hook().deliver(ALERT))
    ((headers, body),) = receiver.requests
    verified = standardwebhooks.Webhook(OLD).verify(body, headers)
    assert verified == {
        "type": "alert.daily_spend",
        "timestamp": "2026-09-21T14:13:20.500000Z",
        "data": {
            "rule": "daily_spend",
            "at": 1_790_000_000.5,
            "message": ALERT.message,
            "severity": "critical",
            "scope": {"tenant": "<!channel> & co"},
            "figures": {"spent_usd": 51.0},
            "request_id": "sg-1",
        },
    }
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        standardwebhooks.Webhook(OTHER).verify(body, headers)
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        standardwebhooks.Webhook(OLD).verify(body + b" ", headers)


def test_while_a_key_is_rotated_both_verify(hook, receiver):
    assert asyncio.run(hook(secrets=[NEW, OLD]).deliver(ALERT))
    ((headers, body),) = receiver.requests
    for secret in (OLD, NEW):
        standardwebhooks.Webhook(secret).verify(body, headers)


@given(st.text(min_size=1), st.integers(0, 2**40), st.text(), st.binary(min_size=24, max_size=64))
def test_signatures_are_the_public_librarys(message_id, timestamp, body, key):
    from datetime import UTC, datetime

    given_time = datetime.fromtimestamp(timestamp % 2**33, UTC)
    other = standardwebhooks.Webhook(base64.b64encode(key).decode())
    ours = signature(
        message_id.encode(errors="replace").decode(),
        timestamp % 2**33,
        body.encode(errors="replace"),
        [key],
    )
    theirs = other.sign(
        message_id.encode(errors="replace").decode(),
        given_time,
        body.encode(errors="replace").decode(),
    )
    assert ours == theirs


@pytest.mark.parametrize("secret", ["whsec_!", "whsec_", "whsec_c2hvcnQ=", "whsec_" + "A" * 100])
def test_a_secret_that_cannot_be_is_refused_and_not_shown(secret):
    with pytest.raises(ConfigurationError) as refusal:
        secret_bytes(secret)
    assert secret.removeprefix("whsec_") not in str(refusal.value) or secret == "whsec_"


def test_without_a_secret_nothing_is_signed():
    assert signed_headers("msg_1", 1, b"", []) == {}


def test_slack_gets_text_in_which_a_name_is_no_mention(hook, receiver):
    assert asyncio.run(hook(format="slack", secrets=[]).deliver(ALERT))
    ((headers, body),) = receiver.requests
    assert json.loads(body) == {
        "text": ":rotating_light: *daily_spend* tenant &lt;!channel&gt; &amp; co spent $51.00 "
        "today, over $50.00"
    }
    assert "webhook-signature" not in headers


def test_a_failure_is_tried_again_under_the_same_id(hook, receiver, waits, tmp_path):
    receiver.statuses = [500, 429, 204]
    receiver.headers = {"retry-after": "30"}
    assert asyncio.run(hook().deliver(ALERT))
    assert len({headers["webhook-id"] for headers, _body in receiver.requests}) == 1
    assert len(receiver.requests) == 3
    assert [wait >= 30 for wait in waits] == [True, True]
    assert not (tmp_path / "dead.jsonl").exists()


def test_pauses_grow_with_jitter_up_to_an_hour():
    for attempt, base in enumerate((1, 4, 16, 64)):
        pauses = {pause(attempt) for _ in range(50)}
        assert all(base / 2 <= one <= base * 1.5 for one in pauses)
        assert len(pauses) > 10
    assert pause(20) == pause(0, 1e9) == 3_600


def test_what_is_never_taken_is_kept_on_disk(hook, receiver, waits, tmp_path):
    receiver.statuses = [500]
    reports = []
    given = hook(attempts=3, report=lambda event, **figures: reports.append((event, figures)))
    assert not asyncio.run(given.deliver(ALERT))
    assert len(receiver.requests) == 3
    assert len(waits) == 2
    (letter,) = dead(tmp_path)
    assert (letter["reason"], letter["host"]) == ("status 500", "127.0.0.1")
    assert letter["alert"]["message"] == ALERT.message
    assert (tmp_path / "dead.jsonl").stat().st_mode & 0o77 == 0
    figures = {"host": "127.0.0.1", "rule": "daily_spend", "reason": "status 500"}
    assert reports == [("webhook_undelivered", figures)]


def test_an_address_that_is_gone_is_not_tried_again(hook, receiver, waits):
    receiver.statuses = [410]
    assert not asyncio.run(hook().deliver(ALERT))
    assert (len(receiver.requests), waits) == (1, [])


def test_a_disk_that_takes_no_dead_letter_is_said(hook, receiver, tmp_path):
    receiver.statuses = [410]
    reports = []
    given = hook(dead_letters=tmp_path, report=lambda _event, **figures: reports.append(figures))
    assert not asyncio.run(given.deliver(ALERT))
    assert reports[0]["reason"] == "status 410; the alert is lost: IsADirectoryError"


def test_redirects_are_not_followed(hook, url, receiver, tmp_path):
    assert not asyncio.run(hook(url=url.replace("/hook", "/away"), attempts=1).deliver(ALERT))
    assert receiver.requests == []
    assert dead(tmp_path)[0]["reason"] == "status 307"


def test_a_server_that_is_not_there_is_tried_again(hook, tmp_path, waits):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    given = hook(url=f"http://127.0.0.1:{port}/", attempts=2)
    assert not asyncio.run(given.deliver(ALERT))
    assert dead(tmp_path)[0]["reason"] == "ConnectError"
    assert len(waits) == 1


def test_a_server_that_never_answers_is_given_up(hook, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        assert not asyncio.run(hook(url=url, attempts=1, timeout=0.1).deliver(ALERT))
    assert "Timeout" in dead(tmp_path)[0]["reason"]


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/",
        "ftp://example.com/",
        "https:///x",
        "https://u:p@example.com/",
        "https://h:99999/",
        "https://h\0/",
    ],
)
def test_urls_that_may_not_be_used(url):
    with pytest.raises(ConfigurationError) as refusal:
        Webhook(url)
    assert "u:p" not in str(refusal.value)


PRIVATE = [
    "127.0.0.1",
    "127.8.9.1",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "0.0.0.0",
    "255.255.255.255",
    "224.0.0.1",
    "239.1.1.1",
    "198.18.0.1",
    "::1",
    "::",
    "fe80::1",
    "fc00::1",
    "fd12::1",
    "ff02::1",
    "ff0e::1",
    "::ffff:127.0.0.1",
    "::ffff:a9fe:a9fe",
    "2002:7f00:1::",
    "2002:a9fe:a9fe::1",
    "64:ff9b::7f00:1",
    "64:ff9b::10.0.0.1",
    "2001:0:7f00:1::1",
    "2001:db8::1",
]
PUBLIC = ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8"]


@pytest.mark.parametrize("address", PRIVATE)
def test_an_address_of_no_public_host_is_refused(address):
    assert not is_public(ip_address(address))


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_fine(address):
    assert is_public(ip_address(address))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "::1", "0"])
def test_this_machine_is_refused_however_it_is_written(host, url, receiver, tmp_path):
    port = int(url.split(":")[2].partition("/")[0])
    shown = f"[{host}]" if ":" in host else host
    given = Webhook(
        f"https://{shown}:{port}/hook",
        dead_letters=tmp_path / "dead.jsonl",
        report=lambda *_a, **_k: None,
    )
    assert not asyncio.run(given.deliver(ALERT))
    assert receiver.requests == []
    assert dead(tmp_path)[0]["reason"] == "forbidden_address"


@pytest.fixture
def names(monkeypatch):
    """A resolver of our own: each look-up of a name takes the next of its answers."""
    answers, asked = {}, []
    real = socket.getaddrinfo

    def look_up(host, port, *rest, **more):
        name = host.decode() if isinstance(host, bytes) else host
        if name not in answers:
            return real(host, port, *rest, **more)
        asked.append(name)
        found = answers[name].pop(0)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in found]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    answers["asked"] = asked
    return answers


def test_a_name_is_resolved_once_and_the_connection_goes_there(names, hook, url, receiver):
    names["hook.example"] = [["127.0.0.1"], ["192.0.2.1"]]
    assert asyncio.run(hook(url=url.replace("127.0.0.1", "hook.example")).deliver(ALERT))
    assert names["asked"] == ["hook.example"]
    assert receiver.requests[0][0]["host"].startswith("hook.example:")


def test_of_mixed_answers_only_a_public_one_is_used(names):
    names["mixed.example"] = [["10.0.0.1", "8.8.8.8"]]
    assert asyncio.run(resolve("mixed.example", 443, allow_private=False)) == "8.8.8.8"
    names["inside.example"] = [["10.0.0.1", "127.0.0.1"]]
    with pytest.raises(ForbiddenAddressError, match=r"inside\.example"):
        asyncio.run(resolve("inside.example", 443, allow_private=False))


def test_a_name_that_does_not_resolve_is_tried_again(hook, tmp_path, waits, monkeypatch):
    def unknown(*_args, **_more):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert not asyncio.run(hook(url="https://nowhere.example/", attempts=2).deliver(ALERT))
    assert dead(tmp_path)[0]["reason"] == "gaierror"


class Quiet(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_args):
        pass


@pytest.mark.parametrize(("certified", "taken"), [("hook.example", True), ("other.example", False)])
def test_tls_still_verifies_the_name(names, hook, tmp_path, certified, taken):
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(certified).configure_cert(context)
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    server = http.server.HTTPServer(("127.0.0.1", 0), Quiet)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.handle_error = lambda *_args: None
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
    try:
        names["hook.example"] = [["127.0.0.1"]]
        url = f"https://hook.example:{server.server_port}/"
        assert asyncio.run(hook(url=url, verify=trust, attempts=1).deliver(ALERT)) is taken
    finally:
        server.shutdown()
        server.server_close()
    if not taken:
        assert dead(tmp_path)[0]["reason"] == "ConnectError"


def run(sink, *events):
    async def go():
        for event in events:
            sink.emit(event)
        await sink.close()

    asyncio.run(go())


def test_a_sink_posts_what_fires_to_every_channel_and_logs_it(hook, receiver):
    logged = []
    sink = AlertSink(
        [Refused()],
        [hook(), hook(format="slack", secrets=[])],
        report=lambda event, **figures: logged.append((event, figures)),
    )
    run(sink, settled(1), refused(2), refused(3))
    bodies = sorted(body for _headers, body in receiver.requests)
    assert len(bodies) == 2
    assert json.loads(bodies[0])["text"].startswith(":warning: *budget_refusal* day refused")
    assert json.loads(bodies[1])["data"]["figures"]["limit"] == 1_000
    message = "day refused a call of tenant acme, user ann, feature chat, model gpt-4o"
    figures = {"rule": "budget_refusal", "message": message, "severity": "warning"}
    assert logged == [("alert", figures)]


def silent(*_args, **_figures):
    pass


def test_history_begins_the_books_and_sends_nothing(hook, receiver):
    today = settled(1, cost_nano_usd=2 * 10**9)
    sink = AlertSink([DailySpend("1")], [hook()], history=[today], report=silent)
    run(sink, settled(2, cost_nano_usd=10**9))
    assert receiver.requests == []


class Stuck:
    """A channel that delivers nothing until it is let go, or breaks."""

    def __init__(self, error=None):
        self.error = error
        self.given_up = []
        self.delivered = []

    async def deliver(self, alert):
        if self.error is not None:
            raise self.error
        await asyncio.sleep(60)
        self.delivered.append(alert)

    def give_up(self, alert, reason):
        self.given_up.append((alert.request_id, reason))


def test_close_does_not_wait_for_ever(hook, receiver, tmp_path):
    receiver.statuses = [500]
    slow = hook(sleep=asyncio.sleep)
    stuck = Stuck()
    sink = AlertSink([Refused()], [slow, stuck], close_seconds=0.3, report=silent)
    run(sink, refused(1), refused(2, limit_name="other"))
    assert stuck.given_up == [("sg-2", "shut down")]
    reasons = {letter["alert"]["request_id"]: letter["reason"] for letter in dead(tmp_path)}
    assert reasons == {"sg-1": "status 500", "sg-2": "shut down"}


def test_a_channel_that_breaks_loses_nothing():
    broken = Stuck(ValueError("no"))
    sink = AlertSink([Refused()], [broken], report=silent)
    run(sink, refused(1), refused(2, limit_name="other"))
    assert broken.given_up == [("sg-1", "ValueError"), ("sg-2", "ValueError")]


def test_a_queue_that_is_full_gives_up_at_once(monkeypatch):
    monkeypatch.setattr("streamguard.sinks.alerts._WAITING", 1)
    stuck = Stuck()
    sink = AlertSink([Refused()], [stuck], close_seconds=0.01, report=silent)
    run(sink, *(refused(n, limit_name=f"{n}") for n in range(3)))
    assert stuck.given_up == [(f"sg-{n}", "too many alerts are waiting") for n in (1, 2)]


def test_the_default_rules_are_quiet_on_ordinary_calls():
    names = [rule.name for rule in default_rules()]
    assert len(names) == len(set(names)) == 5
    sink = AlertSink(report=lambda event, **_figures: pytest.fail(event))
    run(sink, *(settled(n * 10) for n in range(50)))
