"""A real headless Chromium, driven by its own driver; tests that need it are skipped without."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from support.servers import wait_until

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
DRIVER = shutil.which("chromedriver") or ""
REASON = "needs Chromium and its driver: apt-get install chromium chromium-driver"
needs_chromium = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason=REASON)

_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--hide-scrollbars", "--force-color-profile=srgb",
)  # fmt: skip


class Browser:
    """One window. ``js`` runs a function's body in the page and gives its result."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def js(self, body: str, *arguments: Any) -> Any:
        return self.driver.execute_script(body, *arguments)

    def open(self, url: str, password: str = "") -> None:
        """Open a page, with the password that its user would type."""
        scheme, _, rest = url.partition("://")
        self.driver.get("about:blank")
        self.driver.get(f"{scheme}://x:{password}@{rest}" if password else url)

    def text(self, selector: str) -> str:
        return str(self.js("return document.querySelector(arguments[0]).innerText", selector))

    def texts(self, selector: str) -> list[str]:
        script = "return [...document.querySelectorAll(arguments[0])].map((n) => n.innerText)"
        return list(self.js(script, selector))

    def until(self, check: Callable[[], Any], message: str) -> None:
        wait_until(check, message, timeout=30)

    def shows(self, selector: str, *parts: str) -> None:
        """Wait until the element's text has all the parts."""
        with contextlib.suppress(TimeoutError):
            self.until(lambda: all(part in self.text(selector) for part in parts), "")
        shown = self.text(selector)
        assert all(part in shown for part in parts), f"{selector} shows {shown!r}, not {parts}"

    def window(self, width: int, height: int = 900) -> None:
        """The screen's size in CSS pixels; narrow ones are a phone's."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def prefers(self, **features: str) -> None:
        """Media features: ``color_scheme="dark"``."""
        given = [
            {"name": f"prefers-{name.replace('_', '-')}", "value": value}
            for name, value in features.items()
        ]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": given})

    def complaints(self) -> list[str]:
        """What the page said on its console since the last time."""
        return [entry["message"] for entry in self.driver.get_log("browser")]


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    """A fresh profile, thrown away afterwards."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        for flag in (*_FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        driver = webdriver.Chrome(options=options, service=Service(DRIVER))
        try:
            yield Browser(driver)
        finally:
            driver.quit()
