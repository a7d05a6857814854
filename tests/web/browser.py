"""Headless Chromium, driven by playwright; what must not happen in a page is collected."""

from __future__ import annotations

import functools
import http.server
import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-headless-shell", "google-chrome"))), None)
SECONDS = 120
"""How long something may take on a busy machine."""


@contextmanager
def served(folder: Path, headers: Mapping[str, str] | None = None) -> Iterator[str]:
    """The address of a web server for a folder, as long as the block runs."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def end_headers(self) -> None:
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            super().end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@dataclass
class Watched:
    """A page, and what it asked for elsewhere and complained of."""

    page: Any
    foreign: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def wait(self, selector: str, state: str = "visible") -> Any:
        found = self.page.locator(selector).first
        found.wait_for(state=state, timeout=1000 * SECONDS)
        return found


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser, as long as the block runs; where there is none, the test is skipped."""
    if CHROMIUM is None:
        pytest.skip("needs Chromium")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def opened(browser: Any, url: str, width: int = 1000) -> Iterator[Watched]:
    """A page at `url`; requests to anywhere else are stopped and noted."""
    context = browser.new_context(viewport={"width": width, "height": 800})
    page = context.new_page()
    page.set_default_timeout(1000 * SECONDS)
    watched = Watched(page)

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
    context.close()
