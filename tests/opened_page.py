"""A page of medseg in a browser, opened from its file, that tells whether anything leaves it or goes wrong."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no chromium on this machine: install it to test the page")
EVIL = "<img src=x onerror=\"document.title='taken'\">"
"""A name that a careless page would run."""


class OpenedPage:
    """The page in a browser of its own storage; nothing may leave it. Its scripts give `medseg`."""

    def __init__(self, browser: Any, file: Path, *scripts: str, **options: object) -> None:
        self.context = browser.new_context(**{"viewport": {"width": 1000, "height": 760}, **options})
        self.context.set_default_timeout(30_000)
        self.file = file
        self.asked: list[str] = []
        self.errors: list[str] = []
        self.context.route("**", self._no_network)
        for script in scripts:
            self.context.add_init_script(script)
        self.open()

    def open(self) -> None:
        self.page = self.context.new_page()
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda said: self.errors.append(said.text) if said.type == "error" else None)
        self.page.goto(self.file.as_uri())
        self.do("medseg.ready")

    def _no_network(self, route: Any) -> None:
        if route.request.url == self.file.as_uri():
            route.continue_()
        else:
            self.asked.append(route.request.url)
            route.abort()

    def do(self, script: str) -> Any:
        """Run a script, then wait until the page is drawn."""
        answer = self.page.evaluate(script)
        self.page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        return answer

    def key(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)
        self.do("0")

    def text(self, selector: str) -> str:
        return self.page.locator(selector).inner_text()

    def close(self) -> None:
        assert self.errors == [] and self.asked == []
        self.context.close()
