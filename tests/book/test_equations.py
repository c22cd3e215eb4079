"""Every numbered equation is checked by a cell of its chapter, or is marked as a definition."""

from __future__ import annotations

import re
from collections import Counter

import nbformat
import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import RichOutput, capture_output

from helpers import CheckFailed, differs, holds, typeset
from tools import chapters as book

CHAPTERS = book.chapters()
STORED = [chapter for chapter in CHAPTERS if book.notebook_of(chapter).is_file()]
# Ways to number an equation that the ledger would not see.
UNSEEN = re.compile(r"\\begin\{(?:equation|align|gather|multline|eqnarray)\}|^[`:]{3,}\{math\}|\\tag\{|\\label\{", re.M)


@pytest.fixture
def ipython():
    yield InteractiveShell.instance()
    InteractiveShell.clear_instance()


def each(chapters):
    return pytest.mark.parametrize("chapter", chapters, ids=lambda path: path.stem)


def faults(labels, code, checks, evaluated=()):
    """What is wrong with a chapter's equations.

    Args:
        labels: of its displays.
        code: of its cells.
        checks: what its notebook stored.
        evaluated: the labels whose TeX is evaluated or, with a reason, is not.
    """
    found = []
    called = set(re.findall(r"""holds\(\s*f?["']([^"']+)["']""", code))
    checked = {check.name for check in checks if check.kind == "holds"}
    for label in labels:
        if label.startswith("eq-"):
            if label not in called:
                found.append(f"{label}: no cell calls holds({label!r}, …)")
            if label not in checked:
                found.append(f"{label}: no ✓ in the outputs")
        elif not label.startswith("def-"):
            found.append(f"{label}: a label starts with eq- (checked by a cell) or def- (a definition)")
        elif label in checked:
            found.append(f"{label}: a definition is checked, so it is an equation: call it eq-…")
    found += [f"{label}: labels two equations" for label, times in Counter(labels).items() if times > 1]
    found += [f"{name}: is checked, but labels no equation" for name in checked if name not in labels]
    if evaluated:
        for check in checks:
            if check.doubts and check.name not in {other.name for other in checks if other.kind == "typeset"}:
                found.append(f"{check.name}: name in `unlike` what it tells apart ({'; '.join(check.doubts)})")
        found += [
            f"{label}: its TeX is not evaluated; give it a `typeset`, or a reason in tests/typeset.toml"
            for label in labels
            if label.startswith("eq-") and label not in evaluated
        ]
    return found


def unlike_display(displays, evaluated):
    """What is evaluated and is not what is displayed: label, and what to paste."""
    return [
        f"{label}: evaluate what the page displays:\n{displays.get(label)}"
        for _, label, tex in evaluated
        if displays.get(label, "").split() != tex.split()
    ]


@each(STORED)
def test_every_equation_is_checked(chapter):
    notebook = book.read_notebook(book.notebook_of(chapter))
    code = "\n".join(cell.source for cell in book.code_cells(notebook))
    typeset = {label for _, label, _ in book.typeset(chapter)}
    evaluated = typeset and typeset | book.beyond().keys()
    assert not faults(book.labels(chapter), code, book.checks(notebook), evaluated)


@each(CHAPTERS)
def test_what_is_evaluated_is_what_is_displayed(chapter):
    assert not unlike_display(book.displays(chapter), book.typeset(chapter))


def test_a_slip_in_a_display_alone_is_noticed():
    """Whoever changes the page and not the cell is told."""
    for chapter in CHAPTERS:
        displays, evaluated = book.displays(chapter), book.typeset(chapter)
        for slip in book.slips():
            if slip["label"] in displays:
                label, tex = slip["label"], displays[slip["label"]]
                assert tex.count(slip["old"]) == 1, f"{label}: {slip['old']} should stand there once"
                assert unlike_display(displays | {label: tex.replace(slip["old"], slip["new"])}, evaluated)


@each(CHAPTERS)
def test_no_number_goes_round_the_ledger(chapter):
    for cell in book.markdown_cells(book.read_chapter(chapter)):
        assert not UNSEEN.findall(cell.source)


def test_no_label_is_used_twice_in_the_book():
    counts = Counter(label for chapter in CHAPTERS for label in book.labels(chapter))
    assert [label for label, times in counts.items() if times > 1] == []


def stored(name, kind="holds", **more):
    """A check as a notebook has it."""
    return book.Check(kind, name, "1e-08 relative", "rounding", f"✓ {name}: …", **more)


GOOD = stored("eq-a")


@pytest.mark.parametrize(
    ("labels", "code", "checks"),
    [
        (["eq-a"], "x = 1", [GOOD]),  # not by holds
        (["eq-a"], "holds('eq-a', 1, 1)", []),  # called, but nothing came of it
        (["eq-a"], "holds('eq-a', 1, 1)", [stored("eq-a", "typeset")]),
        (["a"], "", []),
        (["eq-a", "eq-a"], "holds('eq-a', 1, 1)", [GOOD]),
        ([], "holds('eq-a', 1, 1)", [GOOD]),
        (["def-a"], "holds('def-a', 1, 1)", [stored("def-a")]),
        (["eq-a"], "holds('eq-a', 1, 1)", [stored("eq-a", doubts=("loose",))]),
        (["eq-a", "eq-b"], "holds('eq-a', 1, 1)\nholds('eq-b', 1, 1)", [GOOD, stored("eq-b")]),
    ],
)
def test_each_fault_is_noticed(labels, code, checks):
    assert len(faults(labels, code, checks, {"eq-a"})) == 1


def test_a_good_chapter_has_no_faults():
    assert not faults(["eq-a", "def-b"], "holds(\n    'eq-a', 1, 1)", [GOOD], {"eq-a"})
    typeset = [stored("eq-a", doubts=("loose",)), stored("eq-a", "typeset")]
    assert not faults(["eq-a"], "holds('eq-a', 1, 1)", typeset, {"eq-a"})


@pytest.mark.parametrize("text", [r"\begin{align} a \end{align}", "```{math}\n:label: x\n```", r"$$ a \tag{1} $$"])
def test_a_number_round_the_ledger_is_noticed(text):
    assert UNSEEN.search(text)


def test_labels_are_read_from_the_text():
    assert book.LABEL.findall("$$\na = b\n$$ (eq-a)\n\n$$ c $$ (def-c)\n\n$$ unnumbered $$\n") == ["eq-a", "def-c"]


def test_displays_are_read_from_the_text():
    text = "$$\na = b\n$$ (eq-a)\n\n$$ unnumbered $$\n\n$$ c\n= d $$ (def-c)\n"
    assert book.DISPLAY.findall(text) == [("a = b", "eq-a"), (" c\n= d", "def-c")]


def test_what_the_checks_store_is_read(ipython):
    with capture_output() as captured:
        holds("eq-a", 1.0, 1.0, rtol=1e-8, atol=1e-12, because="rounding (of one sum)", unlike={"2": 2.0})
        typeset("eq-a", "a = b + b", {"a": 2.0, "b": 1.0}, atol=1e-3, because="exact")
        differs("claim", 1.0, 2.0, by=1e-3, because="one is not two")
        with pytest.raises(CheckFailed):
            holds("eq-c", 1.0, 2.0, atol=1e-3, because="no")
    outputs = [
        nbformat.v4.new_output("display_data", one.data, metadata=one.metadata)
        for one in captured.outputs
        if isinstance(one, RichOutput)
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(outputs=outputs)])
    nbformat.validate(notebook)
    first, second, third = book.checks(notebook)
    assert (first.kind, first.name, first.tolerance) == ("holds", "eq-a", "1e-08 relative + 1e-12 absolute")
    assert first.unlike == ({"formula": "2", "off": "100 %"},)
    agree = "both sides agree to 1e-08 relative + 1e-12 absolute, and not 2, off by 100 %"
    assert first.line == f"✓ eq-a: {agree} (rounding (of one sum))"
    assert (second.kind, second.pieces, second.slips, second.missed) == ("typeset", ("a", "b"), 5, ())
    assert (third.kind, third.name, third.tolerance, third.because) == ("differs", "claim", "1e-03", "one is not two")
    assert book.checks(notebook, "differs") == [third]
