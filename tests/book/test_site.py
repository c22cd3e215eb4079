"""The built site: complete, by itself, light, and the same as the notebooks."""

from __future__ import annotations

import gzip
import re
from functools import cache
from urllib.parse import unquote, urlsplit

import pytest
from bs4 import BeautifulSoup

from tools import chapters as book
from tools.build import SITE
from tools.reading import figures, number

CHAPTERS = book.chapters()
PAGES = [name for name, _ in book.table_of_contents()]
# What a page may cost before it is scrolled, in bytes as a server sends them (compressed), and with all its figures.
AT_ONCE, ALTOGETHER, REQUESTS = 250_000, 320_000, 10
FONT = SITE / "_static" / "mathematics.woff2"
LOADS = {
    "script": "src",
    "link": "href",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "video": "src",
    "object": "data",
}
# `rel`s of a link that a browser does not fetch.
NOT_FETCHED = {"canonical", "next", "prev", "author", "license", "search", "index", "apple-touch-icon"}


class Page:
    """What a page loads, links to and can be linked at, and its text."""

    def __init__(self, source: str) -> None:
        self.source = source
        found = BeautifulSoup(source, "html.parser")  # the fastest of those that need nothing else
        self.text = found.get_text()
        self.anchors = {tag[key] for key in ("id", "name") for tag in found.find_all(attrs={key: True})}
        self.loads = [
            tag[LOADS[tag.name]]
            for tag in found.find_all(list(LOADS))
            if tag.get(LOADS[tag.name]) and not set(tag.get("rel", [])) & NOT_FETCHED
        ]
        self.links = [tag["href"] for tag in found.find_all("a", href=True)]
        self.images = [dict(tag.attrs) for tag in found.find_all("img")]
        self.scripts = [dict(tag.attrs) for tag in found.find_all("script", src=True)]
        self.sheets = [tag["href"] for tag in found.find_all("link", rel="stylesheet")]


@cache
def page(name: str) -> Page:
    """A page of the site, parsed once for all tests."""
    path = SITE / f"{name}.html"
    if not path.is_file():
        pytest.fail(f"{path.name} is not built: run `make book`")
    return Page(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def pages():
    # Only what the book has now: a build leaves the pages of chapters that are gone.
    return {SITE / f"{name}.html": page(name) for name in [*PAGES, "search", "index"]}


def foreign(page: Page) -> list[str]:
    """What a page would load from another host."""
    return [url for url in page.loads if urlsplit(url).netloc or url.startswith("//")]


def broken(page: Page, path, pages) -> list[str]:
    """Links of a page to files or anchors that are not there."""
    found = []
    for link in page.links + page.loads:
        parts = urlsplit(link)
        if parts.scheme or parts.netloc:
            continue
        target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
        target = target / "index.html" if target.is_dir() else target
        missing_anchor = parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors
        if not target.is_file() or missing_anchor:
            found.append(link)
    return found


@pytest.mark.parametrize("name", [*PAGES, "search"])
def test_page_loads_nothing_from_another_host(name):
    assert not foreign(page(name))
    scripts = "".join(re.findall(r"<script[^>]*>(.*?)</script>", page(name).source, re.DOTALL))
    assert not re.findall(r"unpkg\.com|jsdelivr|cdnjs|googleapis|cdn\.", scripts)


def test_style_sheets_load_nothing_from_another_host():
    sheets = list(SITE.rglob("*.css"))
    assert sheets
    found = {
        path.name: re.findall(r"(?:url\(|@import\s+)[\"']?((?:https?:)?//[^)\"']+)", path.read_text(encoding="utf-8"))
        for path in sheets
    }
    assert not {name: urls for name, urls in found.items() if urls}


def test_foreign_and_broken_things_are_noticed(tmp_path):
    path = tmp_path / "a.html"
    path.write_text("", encoding="utf-8")
    links = '<a href="b.html">b</a><a href="#no">c</a><a id="yes" href="#yes">d</a>'
    made = Page(f'<script src="//cdn.example/x.js"></script>{links}')
    assert foreign(made) == ["//cdn.example/x.js"]
    assert broken(made, path, {path: made}) == ["b.html", "#no"]


def test_every_internal_link_and_anchor_exists(pages):
    assert pages
    found = {path.name: broken(one, path, pages) for path, one in pages.items()}
    assert not {name: links for name, links in found.items() if links}


def test_every_page_is_in_the_table_of_contents():
    assert sorted(PAGES) == sorted(f"book/{path.stem}" for path in book.BOOK.glob("*.md"))


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_page_shows_what_the_notebook_printed(chapter):
    text = page(f"book/{chapter.stem}").text
    notebook = book.read_notebook(book.notebook_of(chapter))
    # Where a check is folded, the number of its equation stands in place of the label.
    said = [check.line.partition(": ")[2] for check in book.checks(notebook)]
    for line in [*book.printed(notebook).splitlines(), *said]:
        assert line in text


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_notebook_and_page_number_alike(chapter):
    text = page(f"book/{chapter.stem}").source
    for place, label in enumerate(book.labels(chapter)):
        shown = re.search(rf'id="equation-{label}".*?class="eqno">\((D?[\d.]+)\)', text, re.DOTALL)
        assert shown, f"{label} has no number on the page"
        assert shown[1] == number(chapter, place, book.labels)
    for place, name in enumerate(figures(chapter)):
        if name:
            shown = re.search(rf'<figure[^>]*id="{name}".*?caption-number">Figure (D?[\d.]+)', text, re.DOTALL)
            assert shown, f"{name} has no number on the page"
            assert shown[1] == number(chapter, place, figures)


@pytest.mark.parametrize("name", PAGES)
def test_every_picture_has_alt_text(name):
    for image in page(name).images:
        alt = image.get("alt", "")
        decoration = image.get("role") == "presentation" or "logo" in image.get("class", "")
        assert decoration or (alt and not re.fullmatch(r"\S*[0-9a-f]{16,}\S*", alt)), image


def too_much(page: Page, path) -> list[str]:
    """What of a page is beyond the budget: bytes, requests, and what it waits for before it shows itself."""
    lazy = {(path.parent / image["src"]).resolve() for image in page.images if image.get("loading") == "lazy"}
    files = {
        path,
        *((path.parent / load).resolve() for load in page.loads),
        *([FONT] if "<math" in page.source else []),
    }
    packed = {".webp", ".png", ".woff2"}
    size = {
        file: len(file.read_bytes() if file.suffix in packed else gzip.compress(file.read_bytes())) for file in files
    }
    found = {
        f"{len(files)} requests": len(files) > REQUESTS,
        f"{sum(size.values())} bytes": sum(size.values()) > ALTOGETHER,
        f"{sum(size[file] for file in files - lazy)} bytes at once": sum(size[file] for file in files - lazy) > AT_ONCE,
        f"style sheets: {page.sheets}": len(page.sheets) > 1,
    }
    waits = [
        script["src"] for script in page.scripts if not {"defer", "async"} & script.keys() and "type" not in script
    ]
    moves = [image["src"] for image in page.images if not {"width", "height"} <= image.keys()]
    return [what for what, wrong in found.items() if wrong] + waits + moves


@pytest.mark.parametrize("name", [*PAGES, "search", "404"])
def test_page_is_light(name):
    assert not too_much(page(name), SITE / f"{name}.html")


def test_a_heavy_page_is_noticed(tmp_path):
    path = tmp_path / "a.html"
    (tmp_path / "big.webp").write_bytes(bytes(AT_ONCE))
    (tmp_path / "x.js").write_bytes(b"")
    path.write_text("<p>", encoding="utf-8")
    picture = '<img src="big.webp" width="1" height="1"'
    assert too_much(Page(f"{picture} loading=lazy>"), path) == []
    assert too_much(Page(f"{picture}>"), path) == [f"{AT_ONCE + len(gzip.compress(b'<p>'))} bytes at once"]
    assert too_much(Page('<script src="x.js"></script>'), path) == ["x.js"]
    assert too_much(Page('<img src="x.js">'), path) == ["x.js"]


@pytest.mark.parametrize("name", [*PAGES, "404"])
def test_page_says_what_it_is_about(name):
    assert re.search(r'<meta name="description" content="[^"]{60,160}"', page(name).source)
    assert page(name).source.count('name="viewport"') == 1


def test_what_was_there_is_still_styled():
    """The rules in use are kept, whoever names them; those that fit nothing are gone."""
    sheet = (SITE / "_static" / "site.css").read_text("utf-8")
    for selector in (
        ".toggle-hidden",
        ".copybtn",
        ".tooltip",
        ".book-check",
        ".dropdown-menu",
        "@media print",
        "@font-face",
    ):
        assert selector in sheet  # of scripts, of the book, of the theme
    assert ".accordion-button" not in sheet
    assert "fontawesome" not in sheet


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_the_buttons_lead_somewhere(chapter):
    links = page(f"book/{chapter.stem}").links
    assert f"../notebooks/{chapter.stem}.ipynb" in links
    assert (SITE / "notebooks" / f"{chapter.stem}.ipynb").read_bytes() == book.notebook_of(chapter).read_bytes()
    launches = [unquote(link) for link in links if "mybinder.org" in link]
    assert all(link.endswith(f"urlpath=lab/tree/notebooks/{chapter.stem}.ipynb") for link in launches)
    assert "running.html" in links
    colab = [unquote(link) for link in links if "colab.research" in link]
    assert all(re.search(rf"/github/[^/]+/[^/]+/blob/.+/notebooks/{chapter.stem}\.ipynb$", link) for link in colab)


def test_the_page_on_running_shows_the_line_that_installs_a_notebook():
    shown = page("book/running").text
    assert re.search(
        r'%pip install "hessian-book-helpers\[book\] @ git\+https://\S+"|pip install -e "\.\[book\]"', shown
    )
    assert "ADDRESS" not in shown


def test_no_script_of_thebe():
    for name in PAGES:
        assert "thebe" not in " ".join(page(name).loads).lower()
        assert "THEBE_JS_URL" not in page(name).source


def missing_from(ledger: str) -> list[str]:
    """Labels of the book that a ledger's text does not name."""
    names = {label for chapter in CHAPTERS for label in book.labels(chapter)}
    for chapter in CHAPTERS:
        names |= {check.name for check in book.checks(book.read_notebook(book.notebook_of(chapter)), "differs")}
    return sorted(name for name in names if not re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", ledger))


def test_the_ledger_is_complete():
    assert missing_from(page("book/ledger").text) == []


def test_a_gap_in_the_ledger_is_noticed():
    label = next(label for chapter in CHAPTERS for label in book.labels(chapter))
    assert label in missing_from(page("book/ledger").text.replace(label, ""))


def test_the_ledger_lists_the_planted_mistakes():
    text = page("book/ledger").text
    for mistake in book.mistakes():
        assert mistake["name"] in text
        for by in mistake["caught_by"]:
            assert by.partition(" in ")[0] in text


def test_mathematics_needs_no_script():
    assert "<math" in page("book/03-argmin").source
    assert not [name for name in PAGES if "mathjax" in " ".join(page(name).loads).lower()]
