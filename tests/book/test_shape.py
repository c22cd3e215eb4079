"""The shape of a page: how long it takes is counted, and what is seen of its code is mathematics.

In-depth pages are for whoever wants all of it without a bound. In an hour has one cell that is all of it.
"""

from statistics import median

import pytest

from tools import chapters as book
from tools.shape import code_lines, pages, rounded, shape, with_time

BOUNDED = [page for page in pages() if not page.stem.startswith("depth-")]


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.stem)
def test_the_minutes_that_a_page_names_are_counted(page):
    text = book.read_text(page)
    assert with_time(text, rounded(shape(page).minutes)) == text, "`python -m tools.shape --write` writes them"


@pytest.mark.parametrize("page", BOUNDED, ids=lambda page: page.stem)
def test_a_page_takes_a_quarter_of_an_hour_and_shows_mathematics(page):
    counted = shape(page)
    assert counted.minutes <= 15
    assert counted.share >= (0.7 if page.stem[:2] >= "10" and page.stem[:2].isdigit() else 0.8)  # Parts III to V
    assert max(counted.cells) <= 20 and (median(counted.cells) <= 8 or page.stem == "in-an-hour")
    assert not counted.opens_with_code


def chapter(tmp_path, body):
    file = tmp_path / "page.md"
    file.write_text("---\njupytext:\n  text_representation:\n    format_name: myst\n---\n\n" + body, encoding="utf-8")
    return file


COUNTED = """\
# One two

three $x + y$ five [six](a.md).

$$
x
$$ (def-x)

```{code-cell} ipython3
:tags: [setup]
import torch
```

```{code-cell} ipython3
# the sum
x = f(
    1)

print(x)
```

```{code-cell} ipython3
---
tags: [hide-input]
mystnb:
  figure:
    caption: seven eight
---
plt.show()
```

:::{admonition} Nine
:class: result
ten
:::

:::{admonition} folded
:class: dropdown
not counted
:::

```{exercise}
:label: ex-a

Not counted, either.
```

```{solution-start} ex-a
```

Nor this.

```{code-cell} ipython3
y = 1
```

```{solution-end}
```

eleven
"""


def test_what_is_counted(tmp_path):
    found = shape(chapter(tmp_path, COUNTED))
    assert found.words == 11
    assert (found.equations, found.figures, found.cells, found.mathematics) == (1, 1, (3,), 2)
    assert not found.opens_with_code
    assert found.minutes == pytest.approx(11 / 200 + (25 + 45 + 3 * 3) / 60)


@pytest.mark.parametrize(
    ("code", "lines", "mathematics"),
    [
        ("import torch\nx = 1\n", 2, 1),
        ("holds('eq-a', x, y,\n      rtol=1)\nassert x\nnote(x=x)\n", 4, 0),
        ("def f(x):\n    print(x)\n    return x\n", 3, 3),
        ("for x in y:\n    print(x)\n", 2, 0),
        ("for x in y:\n    z = x\n    print(x)\n", 3, 3),
        ("fig, ax = plt.subplots()\nax.plot(x)\n", 2, 0),
        ("# a remark\n\nx = (1 +\n     2)\n", 2, 2),
    ],
)
def test_what_is_mathematics(code, lines, mathematics):
    assert code_lines(code) == (lines, mathematics)


def test_imports_that_a_reader_sees_first_are_noticed(tmp_path):
    assert shape(chapter(tmp_path, "```{code-cell} ipython3\nimport torch\n```\n")).opens_with_code
