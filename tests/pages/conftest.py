"""The built book, served on this machine, and pytest-playwright's browser: the first that starts here.

Its options for the browser hold, for instance --headed, --browser-channel=msedge.
"""

from __future__ import annotations

import pytest

from tests.pages.page_visits import browser, browser_context_args, page, serve, window  # noqa: F401
from tools.build import SITE


@pytest.fixture(scope="session")
def base_url():
    """The address of the built book, for `page.goto("book/intro.html")`."""
    if not (SITE / "book" / "intro.html").is_file():
        pytest.fail("there is no built book: run `make book`")
    with serve(SITE) as address:
        yield address
