"""The laboratory's script in a browser, by itself: no built book is needed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.laboratory.scenes import Laboratory
from tools import browser as browsers
from tools import laboratory


@pytest.fixture(scope="session")
def browser(browser_type, browser_type_launch_args):
    browser = browsers.launch(browser_type, **browser_type_launch_args)
    yield browser
    browser.close()


@pytest.fixture(scope="session")
def lab(browser) -> Iterator[Laboratory]:
    """The laboratory's functions, called from Python and run in the browser."""
    page = browser.new_page()
    yield Laboratory(page, laboratory.script())
    page.close()
