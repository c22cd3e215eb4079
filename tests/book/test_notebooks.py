"""The stored notebooks are the chapters', executed from top to bottom, and the same bytes every time."""

from __future__ import annotations

import re

import pytest
from nbformat.v4 import new_output

from tools import chapters as book
from tools import execute

CHAPTERS = book.chapters()
STORED = [chapter for chapter in CHAPTERS if book.notebook_of(chapter).is_file()]
# What must not stand in a notebook that other people open: this machine's folders, an object's address.
PRIVATE = re.compile(
    r"(?<![\w.])/(?:home|root|Users|tmp|usr|opt|var|private)/\w|[A-Z]:\\\\|site-packages|\bat 0x[0-9a-f]{6,}"
)


def each(chapters):
    return pytest.mark.parametrize("chapter", chapters, ids=lambda path: path.stem)


@each(CHAPTERS)
def test_is_its_chapters(chapter):
    assert execute.stale(chapter) is None


def test_no_notebook_without_a_chapter():
    assert execute.orphans() == []


@each(STORED)
def test_counts_run_from_one(chapter):
    cells = book.code_cells(book.read_notebook(book.notebook_of(chapter)))
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))


@each(STORED)
def test_prints_no_warning_and_no_error(chapter):
    for cell in book.code_cells(book.read_notebook(book.notebook_of(chapter))):
        for output in cell.outputs:
            assert output.output_type != "error"
            assert output.get("name") != "stderr", output.text


@each(STORED)
def test_has_nothing_private(chapter):
    found = PRIVATE.findall(book.read_text(book.notebook_of(chapter)))
    assert not found


@pytest.mark.parametrize(
    "text", ["/home/ann/x.py", "C:\\\\Users\\\\ann", "<object at 0x7f0a12bc>", "lib/site-packages/torch", "see /tmp/a1"]
)
def test_private_things_are_noticed(text):
    assert PRIVATE.search(text)


@pytest.mark.parametrize("text", ["w/home/x", "1/n", "https://example.org/usr", "at 0x"])
def test_harmless_things_are_not(text):
    assert not PRIVATE.search(text.replace("https://example.org", "org"))


def test_a_glued_number_is_compared_as_its_page_shows_it(tmp_path):
    """On another processor the last digits of a number may differ; those that a reader sees may not."""
    (tmp_path / "page.md").write_text("r = {glue:text}`r:.2f`, {glue:text}`name`\n", encoding="utf-8")

    def noted(name, value):
        data = {book.GLUE_PREFIX + "text/plain": repr(value)}
        metadata = {"scrapbook": {"name": name}}
        return new_output("display_data", data, metadata=metadata)

    def same(one, other):
        return book.as_shown([one], tmp_path / "page.md") == book.as_shown([other], tmp_path / "page.md")

    assert same(noted("r", 0.494268), noted("r", 0.494269))
    assert not same(noted("r", 0.4949), noted("r", 0.4951))
    assert not same(noted("name", "14, 31"), noted("name", "14, 33"))
    assert same(noted("nowhere", 1.0), noted("nowhere", 2.0))
    assert not same(new_output("stream", text="0.494268\n"), new_output("stream", text="0.494269\n"))
