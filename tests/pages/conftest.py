"""The built site, served on this machine, and a browser."""

from __future__ import annotations

import pytest
from page_visits import serve
from playwright.sync_api import sync_playwright

from tools.browser import NoBrowser, find
from tools.build import SITE


@pytest.fixture(scope="session")
def site():
    """The address of the built book."""
    if not (SITE / "book" / "intro.html").is_file():
        pytest.fail("there is no built book: run `make book`")
    server, address = serve(SITE)
    yield address
    server.shutdown()


@pytest.fixture(scope="session")
def chromium():
    path = find()
    if path is None:
        raise NoBrowser("no Chromium: `make test` looks for one and says how to get it")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path,
            args=[
                "--no-sandbox",
                "--disable-gpu",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
            ],
        )
        yield browser
        browser.close()
