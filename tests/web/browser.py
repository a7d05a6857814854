"""Headless Chromium, driven by playwright; what must not happen in a page is collected."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-headless-shell", "google-chrome"))), None)
SECONDS = 120
"""How long something may take on a busy machine."""


@dataclass
class Watched:
    """A page, and what it asked for and complained of."""

    page: Any
    origin: str
    foreign: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def wait(self, selector: str, state: str = "visible") -> Any:
        found = self.page.locator(selector).first
        found.wait_for(state=state, timeout=1000 * SECONDS)
        return found


@contextmanager
def opened(url: str, width: int = 1000) -> Iterator[Watched]:
    """A page at `url`; requests to anywhere else are stopped and noted."""
    if CHROMIUM is None:
        pytest.skip("needs Chromium")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        context = browser.new_context(viewport={"width": width, "height": 800})
        page = context.new_page()
        page.set_default_timeout(1000 * SECONDS)
        watched = Watched(page, url)

        def route(route: Any) -> None:
            if route.request.url.startswith((url, f"blob:{url}", "data:")):
                route.continue_()
            else:
                watched.foreign.append(route.request.url)
                route.abort()

        context.route("**/*", route)
        page.on("pageerror", lambda error: watched.complaints.append(str(error)))
        page.on(
            "console",
            lambda message: message.type in ("error", "warning") and watched.complaints.append(message.text),
        )
        page.goto(url)
        yield watched
        browser.close()
