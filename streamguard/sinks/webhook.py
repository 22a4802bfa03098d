"""Alerts to a webhook: signed, retried, and kept on disk when they cannot be delivered."""

from __future__ import annotations

import json
import os
import random
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from ssl import SSLContext
from typing import Any, Literal

import anyio
import httpx2

from streamguard.core.alerts import Alert
from streamguard.core.signing import secret_bytes, signed_headers
from streamguard.sinks.outbound import ForbiddenAddressError, checked_url, post
from streamguard.sinks.report import Report, log_error

Format = Literal["standard", "slack"]

_GONE = 410
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 3_600.0


class Webhook:
    """One address that alerts are posted to.

    ::

        Webhook("https://ops.example.com/hook", secrets=["whsec_…"])
        Webhook("https://hooks.slack.com/services/…", format="slack")

    Args:
        url: https; plain http only with ``allow_private``.
        secrets: ``whsec_`` secrets; a message is signed with each, so that one can be
            replaced by another.
        format: "standard" is Standard Webhooks; "slack" is what Slack and its like take.
        allow_private: addresses of private networks and of this machine may be reached.
        attempts: how often a message is tried, with growing pauses and jitter.
        timeout: seconds an attempt may take.
        dead_letters: a file for what could not be delivered, one JSON object a line.
        verify: the TLS context, for a certificate authority of one's own.
        report: told when a message is given up.
        sleep: waits between attempts.

    Raises:
        ConfigurationError: a URL or a secret that cannot be used.
    """

    def __init__(
        self,
        url: str,
        *,
        secrets: Sequence[str] = (),
        format: Format = "standard",  # noqa: A002 - the plain word
        allow_private: bool = False,
        attempts: int = 6,
        timeout: float = 10.0,
        dead_letters: str | Path = "alerts-undelivered.jsonl",
        verify: SSLContext | bool = True,
        report: Report = log_error,
        sleep: Callable[[float], Any] = anyio.sleep,
    ) -> None:
        self._url = checked_url(url, allow_private=allow_private)
        self._keys = [secret_bytes(secret) for secret in secrets]
        self._format = format
        self._allow_private = allow_private
        self._attempts = attempts
        self._timeout = timeout
        self._dead_letters = Path(dead_letters)
        self._verify = verify
        self._report = report
        self._sleep = sleep

    async def deliver(self, alert: Alert) -> bool:
        """Post the alert until it is taken; False when it was given up and kept on disk."""
        message_id, body = f"msg_{uuid.uuid4().hex}", render(alert, self._format)
        reason = "cancelled"
        try:
            for attempt in range(self._attempts):
                reason, wait = await self._try(message_id, body, attempt)
                if not reason:
                    return True
                if wait is None:
                    break
                if attempt + 1 < self._attempts:
                    await self._sleep(wait)
        except anyio.get_cancelled_exc_class():
            self.give_up(alert, reason)
            raise
        self.give_up(alert, reason)
        return False

    def give_up(self, alert: Alert, reason: str) -> None:
        """Keep an alert on disk, and say so."""
        line = json.dumps({"reason": reason, "host": self._url.host, "alert": asdict(alert)})
        flags = os.O_CREAT | os.O_WRONLY | os.O_APPEND
        try:
            with os.fdopen(os.open(self._dead_letters, flags, 0o600), "a") as file:
                file.write(line + "\n")
        except OSError as error:
            reason = f"{reason}; the alert is lost: {type(error).__name__}"
        self._report("webhook_undelivered", host=self._url.host, rule=alert.rule, reason=reason)

    async def _try(self, message_id: str, body: bytes, attempt: int) -> tuple[str, float | None]:
        """("", …) when it was taken; else why not, and the seconds to wait, ``None`` for ever."""
        headers = {
            "content-type": "application/json",
            "user-agent": "streamguard",
            **signed_headers(message_id, int(time.time()), body, self._keys),
        }
        try:
            answer = await post(
                self._url,
                body,
                headers,
                allow_private=self._allow_private,
                timeout=self._timeout,
                verify=self._verify,
            )
        except ForbiddenAddressError as error:
            return error.code, None
        except (httpx2.HTTPError, OSError) as error:  # TimeoutError is an OSError
            return type(error).__name__, pause(attempt)
        if answer.is_success:
            return "", None
        reason = f"status {answer.status_code}"
        return reason, None if answer.status_code == _GONE else pause(attempt, _asked(answer))


def pause(attempt: int, asked: float = 0.0) -> float:
    """Seconds before the next attempt: 1, 4, 16, … give or take half, and not before asked."""
    backoff = _FIRST_PAUSE * 4.0**attempt * random.uniform(0.5, 1.5)  # noqa: S311 - only jitter
    return min(_LONGEST_PAUSE, max(backoff, asked))


def _asked(answer: httpx2.Response) -> float:
    text = answer.headers.get("retry-after", "")
    return float(text) if text.isascii() and text.isdigit() else 0.0


def render(alert: Alert, form: Format) -> bytes:
    """The body that is posted."""
    if form == "slack":
        mark = ":rotating_light:" if alert.severity == "critical" else ":warning:"
        return json.dumps({"text": f"{mark} *{alert.rule}* {_escaped(alert.message)}"}).encode()
    when = datetime.fromtimestamp(alert.at, UTC).isoformat().replace("+00:00", "Z")
    data = asdict(alert)
    del data["rest"], data["key"]
    return json.dumps({"type": f"alert.{alert.rule}", "timestamp": when, "data": data}).encode()


def _escaped(text: str) -> str:
    """A tenant's name must not become a link or a mention."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
