"""The review sheet shows what made each number of the text, so that a reader sees a median called a mean."""

import pytest

from tools import chapters as book
from tools import review_sheet
from tools.notebooks import NotebookNode


@pytest.mark.parametrize("chapter", book.chapters(), ids=lambda path: path.stem)
def test_every_number_of_the_text_has_its_expression(chapter):
    for each in review_sheet.noted(chapter, book.read_notebook(book.notebook_of(chapter))):
        for name, (expression, value) in each.numbers.items():
            assert expression != "?" and value != "?", f"{name} in: {each.sentence}"


PAGE = """\
---
jupytext:
  text_representation:
    format_name: myst
---

# A page

The mean is {glue:text}`middle:.2f`, e.g. here. It is the {glue:text}`r_a_2` largest,
because of *b*. Nothing else.

```{code-cell} ipython3
note(middle=x.median(), **{"a": 1})
for k in "ab":
    note(**{f"r_{k}_2": f(k)})
```
"""


def test_a_number_stands_beside_what_made_it(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(PAGE, encoding="utf-8")
    cells = book.read_chapter(page).cells
    for cell in book.code_cells(NotebookNode(cells=cells)):
        cell.outputs = []
    first, second = review_sheet.noted(page, NotebookNode(cells=cells))
    assert first.sentence == "The mean is {glue:text}`middle:.2f`, e.g. here."
    assert first.numbers == {"middle": ("x.median()", "?")}
    assert second.numbers == {"r_a_2": ("{f'r_{k}_2': f(k)}", "?")}
    said = review_sheet.claims(page)
    assert "[because, largest] It is" in said and "Nothing else" not in said
