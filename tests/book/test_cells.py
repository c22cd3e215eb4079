"""On a page a check is one line beside its equation, and what it printed is said once."""

from __future__ import annotations

import re

import pytest
from bs4 import BeautifulSoup

from tools import chapters as book
from tools.build import SITE
from tools.reading import number

FOLDED = [
    chapter
    for chapter in book.chapters()
    if any("check" in cell.metadata.get("tags", []) for cell in book.read_chapter(chapter).cells)
]


def tagged(chapter, tag):
    """The code cells of a chapter's notebook that have this tag."""
    notebook = book.read_notebook(book.notebook_of(chapter))
    return [cell for cell in book.code_cells(notebook) if tag in cell.metadata.get("tags", [])]


def lines(cell):
    """What `holds`, `typeset` and `differs` said in a cell."""
    shown = [out.data["text/plain"] for out in cell.outputs if "text/plain" in out.get("data", {})]
    return [line for text in shown for line in text.split("\n") if line.startswith(("✓ ", "✗ "))]


@pytest.mark.parametrize("chapter", FOLDED, ids=lambda path: path.stem)
def test_a_check_is_folded_to_what_it_said(chapter):
    page = BeautifulSoup((SITE / "book" / f"{chapter.stem}.html").read_text(encoding="utf-8"), "html.parser")
    cells = tagged(chapter, "check")
    folded = page.select("details.book-folded.tag_check")
    assert len(folded) == len(cells)
    assert len(page.select("details.book-folded.tag_setup")) == len(tagged(chapter, "setup"))
    labels = book.labels(chapter)
    for details, cell in zip(folded, cells, strict=True):
        assert "open" not in details.attrs
        said = [line.get_text() for line in details.select(".book-lines p")]
        summary = details.summary.get_text()
        if not said:
            assert summary == "Check"
        for line, written in zip(said, lines(cell), strict=True):
            name, rest = re.fullmatch(r". ([\w-]+)(: .*)", written).groups()
            where = (
                f"({number(chapter, labels.index(name), book.labels)})" if name in labels else name.replace("-", " ")
            )
            assert line == f"{written[0]} {where}{rest}"
            assert where in summary
            assert details.parent.get_text().count(line) == said.count(line), "it is said twice"


@pytest.mark.parametrize("chapter", FOLDED, ids=lambda path: path.stem)
def test_an_equation_leads_to_its_check(chapter):
    page = BeautifulSoup((SITE / "book" / f"{chapter.stem}.html").read_text(encoding="utf-8"), "html.parser")
    checked = {
        line.split()[1].rstrip(":") for cell in tagged(chapter, "check") for line in lines(cell) if line[0] == "✓"
    }
    for label in checked & set(book.labels(chapter)):
        tick = page.select_one(f"#equation-{label} a.book-tick")
        assert tick is not None and tick["aria-label"], label
        assert page.find(id=tick["href"].removeprefix("#")) is not None
