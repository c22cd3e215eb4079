"""Every numbered equation is checked by a cell of its chapter, or is marked as a definition."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from helpers.page.checks import CheckFailed, differs, holds
from tools import chapters as book

CHAPTERS = book.chapters()
STORED = [chapter for chapter in CHAPTERS if book.notebook_of(chapter).is_file()]
# Ways to number an equation that the ledger would not see.
UNSEEN = re.compile(r"\\begin\{(?:equation|align|gather|multline|eqnarray)\}|^[`:]{3,}\{math\}|\\tag\{|\\label\{", re.M)


def each(chapters):
    return pytest.mark.parametrize("chapter", chapters, ids=lambda path: path.stem)


def faults(labels, code, printed):
    """What is wrong with a chapter's equations: labels, the code of its cells, what they printed."""
    found = []
    called = set(re.findall(r"""holds\(\s*f?["']([^"']+)["']""", code))
    checked = {match["name"] for match in book.HOLDS.finditer(printed)}
    for label in labels:
        if label.startswith("eq-"):
            if label not in called:
                found.append(f"{label}: no cell calls holds({label!r}, …)")
            if label not in checked:
                found.append(f"{label}: no ✓ line in the outputs")
        elif not label.startswith("def-"):
            found.append(f"{label}: a label starts with eq- (checked by a cell) or def- (a definition)")
        elif label in checked:
            found.append(f"{label}: a definition is checked, so it is an equation: call it eq-…")
    found += [f"{label}: labels two equations" for label, times in Counter(labels).items() if times > 1]
    found += [f"{name}: is checked, but labels no equation" for name in checked if name not in labels]
    return found


@each(STORED)
def test_every_equation_is_checked(chapter):
    notebook = book.read_notebook(book.notebook_of(chapter))
    code = "\n".join(cell.source for cell in book.code_cells(notebook))
    assert not faults(book.labels(chapter), code, book.printed(notebook))


@each(CHAPTERS)
def test_no_number_goes_round_the_ledger(chapter):
    for cell in book.markdown_cells(book.read_chapter(chapter)):
        assert not UNSEEN.findall(cell.source)


def test_no_label_is_used_twice_in_the_book():
    counts = Counter(label for chapter in CHAPTERS for label in book.labels(chapter))
    assert [label for label, times in counts.items() if times > 1] == []


GOOD = "✓ eq-a: both sides agree to 1e-08 relative (rounding)\n"


@pytest.mark.parametrize(
    ("labels", "code", "printed"),
    [
        (["eq-a"], "x = 1", GOOD),  # printed by hand, not by holds
        (["eq-a"], "holds('eq-a', 1, 1)", ""),  # called, but nothing came of it
        (["a"], "", ""),
        (["eq-a", "eq-a"], "holds('eq-a', 1, 1)", GOOD),
        ([], "holds('eq-a', 1, 1)", GOOD),
        (["def-a"], "holds('def-a', 1, 1)", GOOD.replace("eq-", "def-")),
    ],
)
def test_each_fault_is_noticed(labels, code, printed):
    assert faults(labels, code, printed)


def test_a_good_chapter_has_no_faults():
    assert not faults(["eq-a", "def-b"], "holds(\n    'eq-a', 1, 1)", GOOD)


@pytest.mark.parametrize("text", [r"\begin{align} a \end{align}", "```{math}\n:label: x\n```", r"$$ a \tag{1} $$"])
def test_a_number_round_the_ledger_is_noticed(text):
    assert UNSEEN.search(text)


def test_labels_are_read_from_the_text():
    assert book.LABEL.findall("$$\na = b\n$$ (eq-a)\n\n$$ c $$ (def-c)\n\n$$ unnumbered $$\n") == ["eq-a", "def-c"]


def test_the_ledger_understands_what_the_helpers_print(capsys):
    holds("eq-a", 1.0, 1.0, rtol=1e-8, atol=1e-12, because="rounding (of one sum)")
    holds("eq-b", 1.0, 1.0, atol=1e-3, because="a step of h")
    differs("claim", 1.0, 2.0, by=1e-3, because="one is not two")
    with pytest.raises(CheckFailed):
        holds("eq-c", 1.0, 2.0, atol=1e-3, because="no")
    printed = capsys.readouterr().out
    assert [match.groups() for match in book.HOLDS.finditer(printed)] == [
        ("eq-a", "1e-08 relative + 1e-12 absolute", "rounding (of one sum)"),
        ("eq-b", "1e-03 absolute", "a step of h"),
    ]
    assert [match.groups() for match in book.DIFFERS.finditer(printed)] == [("claim", "1e-03", "one is not two")]
