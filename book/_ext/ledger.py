"""Sphinx extension: the ledger. What is checked, where and how tightly, taken from the executed notebooks.

``{ledger}`` makes a table of every chapter's numbered equations and one of the failures that the chapters show;
``{mistakes}`` makes one of the mistakes that the tests plant, and of what catches each; ``{slips}`` one of the slips
that they plant in displayed formulas.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tools import chapters as book  # noqa: E402

MISTAKES = ROOT / "tests" / "mistakes.toml"
TYPESET = ROOT / "tests" / "typeset.toml"


def _cell(text: str) -> str:
    """Text for a cell of a Markdown table."""
    return text.replace("|", "\\|").replace("\n", " ").strip()


def _code(text: str) -> str:
    """TeX, or a piece of it, as code in a cell."""
    return f"`{_cell(' '.join(text.split()))}`"


def _row(label: str, check: book.Check) -> list[str]:
    """What the ledger says about one check of an equation."""
    where = [f"{{eq}}`{label}`", f"`{label}`"]
    if check.kind == "typeset":
        noticed = f"{check.slips - len(check.missed)} of {check.slips} slips in the TeX"
        but = f", not {', '.join(map(_code, check.missed))}" if check.missed else ""
        pieces = f"as typeset, from {len(check.pieces)} pieces: {_cell(check.because)}"
        return [*where, check.tolerance, pieces, noticed + but]
    told = "; ".join(f"{_cell(one['formula'])} ({one['off']})" for one in check.unlike)
    return [*where, check.tolerance, _cell(check.because), told or "its negative, double and half"]


def _table(heads: list[str], rows: list[list[str]]) -> list[str]:
    lines = [heads, ["---"] * len(heads), *rows]
    return [*(f"| {' | '.join(row)} |" for row in lines), ""]


class _Generated(SphinxDirective):
    """A directive whose content is Markdown made at build time."""

    def markdown(self) -> list[str]:
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        node = nodes.container(classes=["ledger"])
        source = self.env.doc2path(self.env.docname)
        self.state.nested_parse(StringList(self.markdown(), source=source), self.content_offset, node)
        return [node]


class Ledger(_Generated):
    """Every equation with its checks and every definition, chapter by chapter; then every failure that is shown."""

    def markdown(self) -> list[str]:
        self.env.note_dependency(str(TYPESET))
        beyond = book.beyond(TYPESET)
        lines, failures = [], []
        for chapter in book.chapters():
            self.env.note_dependency(str(chapter))
            self.env.note_dependency(str(book.notebook_of(chapter)))
            notebook = book.read_notebook(book.notebook_of(chapter))
            checks = book.checks(notebook, "holds", "typeset")
            rows = []
            for label in book.labels(chapter):
                found = [check for check in checks if check.name == label]
                rows += [_row(label, check) for check in found]
                where = [f"{{eq}}`{label}`", f"`{label}`"]
                if label in beyond:
                    rows.append([*where, "", "its TeX is not executed", _cell(beyond[label])])
                if label.startswith("def-"):
                    rows.append([*where, "a definition", "nothing to check", ""])
            if rows:
                heads = ["Equation", "Name", "Both sides agree to", "Why this tolerance", "Told apart from"]
                lines += [f"```{{rubric}} [](./{chapter.name})", "```", "", *_table(heads, rows)]
            failures += [
                [f"`{check.name}`", f"> {check.tolerance}", _cell(check.because), f"[](./{chapter.name})"]
                for check in book.checks(notebook, "differs")
            ]
        if failures:
            lines += ["```{rubric} Failures, each shown and asserted", "```", ""]
            lines += _table(["Claim", "Breaks by", "Why", "Shown in"], failures)
        return lines


class Slips(_Generated):
    """The slips that are planted in displayed formulas by name."""

    def markdown(self) -> list[str]:
        self.env.note_dependency(str(TYPESET))
        rows = [
            [f"{{eq}}`{slip['label']}`", _cell(slip["what"]), _code(slip["old"]), _code(slip["new"])]
            for slip in book.slips(TYPESET)
        ]
        return _table(["Equation", "Slip", "What stands there", "What was planted"], rows)


class Mistakes(_Generated):
    """The planted mistakes and what notices each."""

    def markdown(self) -> list[str]:
        try:
            planted = book.mistakes(MISTAKES)
        except FileNotFoundError as error:
            raise self.error(str(error)) from None
        self.env.note_dependency(str(MISTAKES))
        chapters = {chapter.stem: chapter for chapter in book.chapters()}
        declared = {label for chapter in chapters.values() for label in book.labels(chapter)}

        def linked(catcher: str) -> str:
            """A label as the equation's number; ``… in NN-chapter`` as a link to the chapter; a test by its id."""
            what, _, where = catcher.partition(" in ")
            if catcher in declared:
                return f"{{eq}}`{catcher}` (`{catcher}`)"
            return f"`{what}` in [](./{where}.md)" if where in chapters else f"`{catcher}`"

        rows = []
        for mistake in planted:
            caught = "; ".join(linked(catcher) for catcher in mistake["caught_by"])
            rows.append([f"`{mistake['name']}`", _cell(mistake["what"]), caught])
        return _table(["Mistake", "What is done wrong", "Caught by"], rows)


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("ledger", Ledger)
    app.add_directive("mistakes", Mistakes)
    app.add_directive("slips", Slips)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
