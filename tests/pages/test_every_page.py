"""Every page of the built book, opened once in a real browser: wide, dark, and on a phone."""

from __future__ import annotations

import pytest

from tests.pages.page_visits import PAGES, serve, visit
from tools.build import SITE

ASPECTS = {
    "errors": "no error on the console",
    "foreign": "nothing is asked of another host",
    "moved": "nothing moves while the page loads",
    "mathematics": "all mathematics is rendered",
    "access_light": "axe has no complaint in light mode",
    "access_dark": "axe has no complaint in dark mode",
    "access_phone": "axe has no complaint on a phone",
    "figures": "every figure is legible in the dark",
    "sticks_out": "no sideways scrolling on a phone",
}


@pytest.mark.parametrize("name", [*PAGES, "search"])
def test_page(page, base_url, name):
    found = visit(page, f"{base_url}{name}.html")
    wrong = {wish: getattr(found, aspect) for aspect, wish in ASPECTS.items() if getattr(found, aspect)}
    assert not wrong, "\n".join(f"{wish}: {items}" for wish, items in wrong.items())


def test_a_chapter_reads_from_the_disk_without_a_server(page):
    chapter = next(name for name in PAGES if name.startswith("book/0"))
    found = visit(page, (SITE / f"{chapter}.html").as_uri())
    assert not found.errors
    assert not found.foreign
    assert not found.mathematics


# A white picture, which stays white in the dark; and a button that loses its only text on a phone.
BROKEN = """<!doctype html><html><head><title>Broken</title>
<style>@media (max-width: 500px) { button span { display: none } } [data-theme=dark] body { background: #111 }</style>
</head><body><script src="https://example.org/x.js"></script>
<script>addEventListener("load", () => requestAnimationFrame(() => requestAnimationFrame(() => {
  document.body.prepend(Object.assign(document.createElement("div"), {style: "height: 300px"})); })));</script>
<script>throw new Error("planted")</script>
<main class="bd-article"><h1>Broken</h1><img src="missing.png">
<img alt="white" src='data:image/svg+xml,<svg xmlns="http://www.w3.org/2000/svg" width="90" height="90"><rect width="90"
height="90" fill="white"/><rect width="40" height="40"/></svg>'>
<button><span>Search</span></button>
<p style="color: #999; background: #aaa">too faint to read</p>
<div style="width: 900px">too wide</div>
<span class="math">\\(x^2\\)</span></main></body></html>"""


@pytest.fixture(scope="module")
def broken(browser, browser_context_args, tmp_path_factory):
    folder = tmp_path_factory.mktemp("broken")
    (folder / "index.html").write_text(BROKEN, encoding="utf-8")
    with serve(folder) as address:
        page = browser.new_page(**browser_context_args | {"base_url": address})
        yield visit(page, f"{address}index.html")
        page.close()


@pytest.mark.parametrize("aspect", ASPECTS)
def test_each_check_notices_what_is_planted(broken, aspect):
    assert getattr(broken, aspect)


CODE = """<!doctype html><html lang="en"><head><title>Code</title><style>
body { background: #fff; color: #000 }</style></head><body><main>
<h1>Code</h1><pre tabindex="0"><span class="c"># as always</span>
<span class="n">one</span> <span class="n">two</span> <span class="n">three</span> <span class="n">four</span></pre>
LAST</main></body></html>"""


@pytest.mark.parametrize(
    ("last", "wrong"),
    [
        ('<pre tabindex="0"><span class="n">five</span></pre>', []),
        ('<pre tabindex="0"><span class="n" style="color: #bbb">five</span></pre>', ["color-contrast"]),
        ('<pre tabindex="0"><a href="x" class="n"></a></pre>', ["link-name"]),
        ('<p><math aria-hidden="true"><mtext><a href="x">in a formula</a></mtext></math></p>', ["aria-hidden-focus"]),
    ],
)  # fmt: skip
def test_what_axe_is_shown_has_a_piece_of_every_kind(page, tmp_path, last, wrong):
    """One more token of a kind that was seen; of that kind, but paler; and what is left of code and formulas."""
    file = tmp_path / "code.html"
    file.write_text(CODE.replace("LAST", last), encoding="utf-8")
    found = visit(page, file.as_uri())
    assert sorted({finding.partition(":")[0] for finding in found.access_light + found.access_phone}) == wrong


def test_what_only_a_phone_hides_is_noticed_only_there(broken):
    assert any("button-name" in finding for finding in broken.access_phone)
    assert not any("button-name" in finding for finding in broken.access_light)
