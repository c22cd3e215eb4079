"""Every page of the built book, opened in a real browser: wide, dark, and on a phone."""

from __future__ import annotations

import pytest
from page_visits import PAGES, serve, visit

from tools.build import SITE

EXTRA = ["search"]


@pytest.fixture(scope="session")
def visits(site, chromium):
    """Each page is opened once, for all the tests about it."""
    seen = {}

    def one(page):
        if page not in seen:
            seen[page] = visit(chromium, f"{site}/{page}.html")
        return seen[page]

    return one


ASPECTS = {
    "errors": "no error on the console",
    "foreign": "nothing is asked of another host",
    "mathematics": "all mathematics is rendered",
    "access_light": "axe has no complaint in light mode",
    "access_dark": "axe has no complaint in dark mode",
    "sticks_out": "no sideways scrolling on a phone",
}


@pytest.mark.parametrize("page", [*PAGES, *EXTRA])
def test_page(visits, page):
    found = visits(page)
    wrong = {wish: getattr(found, aspect) for aspect, wish in ASPECTS.items() if getattr(found, aspect)}
    assert not wrong, "\n".join(f"{wish}: {items}" for wish, items in wrong.items())


def test_a_chapter_reads_from_the_disk_without_a_server(chromium):
    chapter = next(page for page in PAGES if page.startswith("book/0"))
    found = visit(chromium, (SITE / f"{chapter}.html").as_uri())
    assert not found.errors
    assert not found.foreign
    assert not found.mathematics


BROKEN = """<!doctype html><html><head><title>Broken</title></head><body>
<script src="https://example.org/x.js"></script>
<script>throw new Error("planted")</script>
<main><h1>Broken</h1><img src="missing.png">
<p style="color: #999; background: #aaa">too faint to read</p>
<div style="width: 900px">too wide</div>
<span class="math">\\(x^2\\)</span></main></body></html>"""


@pytest.fixture(scope="module")
def broken(chromium, tmp_path_factory):
    folder = tmp_path_factory.mktemp("broken")
    (folder / "index.html").write_text(BROKEN)
    server, address = serve(folder)
    yield visit(chromium, f"{address}/index.html")
    server.shutdown()


@pytest.mark.parametrize("aspect", ASPECTS)
def test_each_check_notices_what_is_planted(broken, aspect):
    assert getattr(broken, aspect)
