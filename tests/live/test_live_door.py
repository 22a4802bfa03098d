"""Who may see the page."""

from __future__ import annotations

import base64

import anyio
import pytest

from streamguard.errors import ConfigurationError
from streamguard.live import door as live_door
from streamguard.live.door import Door

PASSWORD = "correct horse ü"
HERE = {"client": ("127.0.0.1", 5000), "host": "127.0.0.1:8000"}


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(live_door, "GUESS_SECONDS", 0)


def basic(password, user="anyone", kind="Basic"):
    return f"{kind} ".encode() + base64.b64encode(f"{user}:{password}".encode())


def scope(client=("10.0.0.9", 4321), host="live.example", **headers):
    named = {"host": host.encode(), **headers}
    pairs = [(name.replace("_", "-").encode(), value) for name, value in named.items()]
    return {"type": "http", "client": client, "headers": pairs}


def answer(door, asked):
    denial = anyio.run(door.deny, asked)
    return None if denial is None else denial.status


@pytest.mark.parametrize("user", ["", "live", "ä"])
def test_the_password_lets_in_whatever_the_name(user):
    door = Door(PASSWORD)
    assert answer(door, scope(authorization=basic(PASSWORD, user))) is None
    assert answer(door, scope(authorization=basic(PASSWORD, kind="bAsIc"))) is None


@pytest.mark.parametrize(
    "given",
    [
        basic("wrong"), basic(PASSWORD + " "), basic(""), basic(PASSWORD, kind="Bearer"),
        b"Basic", b"Basic ???", b"Basic YQ", b"", PASSWORD.encode(),
        b"Basic " + base64.b64encode(PASSWORD.encode()),
    ],
)  # fmt: skip
def test_anything_else_does_not(given):
    assert answer(Door(PASSWORD), scope(authorization=given)) == 401


def test_a_browser_is_asked_for_the_password():
    denial = anyio.run(Door(PASSWORD).deny, scope())
    assert denial.status == 401
    name, challenge = denial.headers[0]
    assert name == "www-authenticate"
    assert challenge.startswith("Basic ")
    assert "UTF-8" in challenge
    assert PASSWORD not in str(denial)


def test_even_this_machine_needs_the_password_where_there_is_one():
    assert answer(Door(PASSWORD), scope(**HERE)) == 401


@pytest.mark.parametrize("password", ["", "1234567"])
def test_a_short_password_is_refused(password):
    with pytest.raises(ConfigurationError, match="use at least 8") as caught:
        Door(password)
    assert f"has {len(password)} " in str(caught.value)


def test_passwords_cannot_be_tried_quickly_and_the_right_one_never_waits(monkeypatch):
    monkeypatch.setattr(live_door, "GUESS_SECONDS", 60)
    door = Door(PASSWORD)

    async def race():
        denials = []

        async def guess(number):
            denials.append(await door.deny(scope(authorization=basic(f"guess {number}"))))

        async with anyio.create_task_group() as tasks:
            for number in range(20):
                tasks.start_soon(guess, number)
            await anyio.wait_all_tasks_blocked()
            right = await door.deny(scope(authorization=basic(PASSWORD)))
            early = list(denials)
            tasks.cancel_scope.cancel()
        return right, early

    right, early = anyio.run(race)
    assert right is None
    assert [one.status for one in early] == [429] * (20 - live_door.GUESSES)
    assert dict(early[0].headers)["retry-after"]
    assert door._guessing == 0


@pytest.mark.parametrize(
    "host", ["127.0.0.1:80", "localhost", "LOCALHOST:1", "[::1]:8000", "[::1]"]
)
@pytest.mark.parametrize("client", ["127.0.0.1", "::1"])
def test_without_a_password_this_machine_is_let_in(host, client):
    assert answer(Door(None), scope(client=(client, 1), host=host)) is None


@pytest.mark.parametrize(
    "asked",
    [
        scope(),
        scope(client=("10.0.0.9", 1), host="127.0.0.1"),
        scope(client=None, host="127.0.0.1"),
        scope(**{**HERE, "host": "evil.example:8000"}),  # a name that resolves to this machine
        scope(**{**HERE, "host": "127.0.0.1.evil.example"}),
        scope(**{**HERE, "host": ""}),
        scope(**HERE, x_forwarded_for=b"127.0.0.1"),
        scope(**HERE, forwarded=b"for=127.0.0.1"),
        {"type": "http", "client": ("127.0.0.1", 1), "headers": []},
    ],
)
def test_without_a_password_nobody_else_is(asked):
    denial = anyio.run(Door(None).deny, asked)
    assert denial.status == 403
    assert "set one" in denial.message


@pytest.mark.parametrize(
    ("site", "mode", "allowed"),
    [
        (b"same-origin", b"cors", True),
        (b"none", b"navigate", True),
        (b"cross-site", b"navigate", True),  # a link to the page
        (b"cross-site", b"no-cors", False),
        (b"cross-site", b"cors", False),
        (b"same-site", b"cors", False),
    ],
)
def test_other_sites_cannot_use_the_browsers_password(site, mode, allowed):
    asked = scope(authorization=basic(PASSWORD), sec_fetch_site=site, sec_fetch_mode=mode)
    assert answer(Door(PASSWORD), asked) == (None if allowed else 403)
