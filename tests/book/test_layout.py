"""The layout of the chapters' code, whose rules `python -m tools.layout --check` holds on every page."""

import re

import pytest

from tools import chapters as book
from tools.layout import COLUMNS, laid_out, laid_out_page

CHAPTERS = book.chapters()


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_no_line_is_wider_than_the_page_or_hangs_a_comment_on_a_bracket(chapter):
    for cell in book.code_cells(book.read_chapter(chapter)):
        for line in cell.source.split("\n"):
            assert len(line) <= COLUMNS, line
            assert not re.match(r"\s*[)\]}]+,?\s*#", line), line


@pytest.mark.parametrize(
    ("code", "better"),
    [
        ("f(\n    a,\n    b,\n)\n", "f(a, b)\n"),
        ("x = (\n    a + b\n)  # the sum\n", "# the sum\nx = a + b\n"),
        ("x = y[\n    t\n]  # of one,    (3,)\n", "# of one,    (3,)\nx = y[t]\n"),
        ("x = (1,)\n", "x = (1, )\n"),
        ("x = 1 # one\nyy = 2     # two\n", "x = 1   # one\nyy = 2  # two\n"),
        ("x = 1  # one\n\nyy = 2  # two\n", "x = 1  # one\n\nyy = 2  # two\n"),
        ("for x in (\n    1,\n    2,\n):  # both\n    f(x)  # each\n", "# both\nfor x in (1, 2):\n    f(x)  # each\n"),
        ("holds('eq-a', left, right, rtol=1e-3, because='" + "words " * 8 + "')\n",
         "holds('eq-a', left, right, rtol=1e-3,\n      because='" + "words " * 8 + "')\n"),
        ("%matplotlib inline\n", "%matplotlib inline\n"),
    ],
)  # fmt: skip
def test_the_rules(code, better):
    assert laid_out(code) == better
    assert laid_out(better) == better


def test_what_is_no_code_is_left_and_what_is_no_python_is_refused():
    page = "text\n```{code-cell} ipython3\n:tags: [check]\nf(a,\n  b)\n```\n```python\nf(a,\n  b)\n```\n"
    assert laid_out_page(page) == page.replace("f(a,\n  b)\n```\n```python", "f(a, b)\n```\n```python")
    with pytest.raises(SyntaxError):
        laid_out("f(\n")
