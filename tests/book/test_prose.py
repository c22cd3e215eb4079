"""A number that a computation produced is put into the text by the computation.

A number typed in a chapter's prose is a fault if a cell of the chapter prints or glues the same number: the two would
drift apart. Only numbers of two significant digits or more with a point or an exponent count (0.998, 1.4e-5; not 60,
not 0.5), rounded or not. A number that is given, not computed, is declared in its cell by a comment that no reader
sees: ``% given: 0.25 1.5``.
"""

from __future__ import annotations

import re

import nbformat
import pytest

from tools import chapters as book
from tools import reading

STORED = [chapter for chapter in book.chapters() if book.notebook_of(chapter).is_file()]
NUMBER = re.compile(r"(?<![\w.])[-−]?(\d+\.\d+(?:e[+-]?\d+)?|\d+e[+-]?\d+)(?![\w]|\.\d)")
# 3.2 × 10⁻⁶ as it is typed in mathematics.
POWER = re.compile(r"(\d+(?:\.\d+)?)\s*\\(?:times|cdot)\s*10\^\{?(-?\d+)\}?")
GIVEN = re.compile(r"^% given:(.*)$", re.MULTILINE)
# Not prose inside a paragraph: roles (glue writes the numbers), code, the targets of links.
NOT_PROSE = re.compile(r"\{[\w:]+\}`[^`]*`|`[^`\n]+`|\]\([^)]*\)|https?://\S+|<!--.*?-->", re.DOTALL)


def digits(text):
    """How many significant digits a number is typed with."""
    return len(re.sub(r"e.*", "", text).replace(".", "").lstrip("0"))


def written(text):
    """The prose of a Markdown text, that of its directives too: no code, no comments, nothing that is not read."""
    parts = []
    for token, lines in reading.blocks(text):
        directive = reading.Directive.of(token)
        if directive:
            parts += [directive.argument, written(directive.body)]
        elif token is None or token.type not in ("fence", "code_block", "myst_line_comment"):
            parts += lines
    return NOT_PROSE.sub(" ", "\n".join(parts))


def typed(prose):
    """The numbers typed in Markdown, as typed, except those that it declares as given."""
    given = {float(number) for line in GIVEN.findall(prose) for number in line.split()}
    text = POWER.sub(lambda match: f"{match[1]}e{match[2]}", written(prose)).replace("\\,", "").replace("{,}", "")
    return [number for number in NUMBER.findall(text) if digits(number) >= 2 and float(number) not in given]


def computed(notebook):
    """The numbers that the cells printed, returned or glued."""
    text = book.printed(notebook) + "\n" + "\n".join(book.glued(notebook).values())
    for cell in book.code_cells(notebook):
        for output in cell.outputs:
            if output.output_type == "execute_result":
                text += "\n" + output.data.get("text/plain", "")
    return {abs(float(number)) for number in NUMBER.findall(text)}


def same(number, value):
    """Whether the typed number is the computed value, as far as it is typed."""
    if value == 0:
        return float(number) == 0
    return float(f"{value:.{digits(number) - 1}e}") == float(number)


def drifting(prose, values):
    """The typed numbers that a cell computes."""
    return [number for number in typed(prose) if any(same(number, value) for value in values)]


@pytest.mark.parametrize("chapter", STORED, ids=lambda path: path.stem)
def test_no_typed_number_is_a_computed_one(chapter):
    values = computed(book.read_notebook(book.notebook_of(chapter)))
    found = []
    for cell in book.read_chapter(chapter).cells:
        prose = cell.source
        if cell.cell_type == "code":
            shown = cell.metadata.get("mystnb", {})
            prose = f"{shown.get('figure', {}).get('caption', '')} {shown.get('image', {}).get('alt', '')}"
        found += [(number, prose.strip()[:60]) for number in drifting(prose, values)]
    assert not found, "glue these numbers, or declare them with `% given: …` in their cell"


@pytest.mark.parametrize(
    "prose",
    [
        "The correlation is 0.998.",
        "The correlation is $r = 0.998$,",
        "$$ r = 0.998 $$",
        "rounded to 0.9978 it is",
        "an error of 3.2e-6 here",
        r"an error of $3.2 \times 10^{-6}$",
        "about −0.045, below zero",
        "- **0.998** in a list",
        "```{exercise}\n:label: ex-a\n\nIs it 0.998?\n```",
        ":::{admonition} It is 0.998\n:class: result\nSo.\n:::",
        # What stands between a directive and another is prose, whatever comes before.
        "```{solution-start} ex-a\n```\n\nIt is 0.998.\n\n```{solution-end}\n```\n\n```python\nx = 1\n```",
    ],
)
def test_a_typed_result_is_noticed(prose):
    assert drifting(prose, {0.9978, 0.998, 3.2e-6, 0.045})


@pytest.mark.parametrize(
    "prose",
    [
        "The correlation is {glue:text}`r:.3f`.",
        "The code `x = 0.998` is code.",
        "```python\nr = 0.998\n```",
        "% given: 0.998\nThe bound 0.998 was chosen.",
        "In section 3.2 of the paper",
        "A bound of 0.5, of 60 points, in 2017",
        "See [the page](https://example.org/0.998).",
        "Version 0.998.1 of something",
    ],
)
def test_other_numbers_are_left_alone(prose):
    assert not drifting(prose, {0.998, 0.5, 60.0, 2017.0})


def test_what_the_cells_printed_is_read():
    notebook = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_code_cell(
                outputs=[
                    nbformat.v4.new_output("stream", name="stdout", text="r = 0.998, slope −1.21, 1.4e-05\n"),
                    nbformat.v4.new_output("execute_result", data={"text/plain": "tensor(0.6425)"}),
                ]
            )
        ]
    )
    assert computed(notebook) == {0.998, 1.21, 1.4e-5, 0.6425}
