"""The built site, served on this machine, and a browser."""

from __future__ import annotations

import functools
import http.server
import threading

import pytest
from playwright.sync_api import sync_playwright

from tools.browser import NoBrowser, find
from tools.build import SITE
from tools.chapters import table_of_contents

PAGES = [name for name, _ in table_of_contents()]


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        """Quiet."""


def serve(folder):
    """A server of ``folder`` on a free port; returns it and its address."""
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(_Quiet, directory=str(folder))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, f"http://127.0.0.1:{server.server_address[1]}"


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
