"""Sphinx extension: the ledger. What is checked, where and how tightly, taken from the executed notebooks.

``{ledger}`` makes one table of every numbered equation, one of the definitions and one of the failures that are shown;
``{mistakes}`` makes one of the mistakes that the tests plant, and of what catches each.
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


def _cell(text: str) -> str:
    """Text for a cell of a Markdown table."""
    return text.replace("|", "\\|").replace("\n", " ").strip()


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
    """Every equation with its check, every definition, every failure shown."""

    def markdown(self) -> list[str]:
        equations, definitions, failures = [], [], []
        for chapter in book.chapters():
            notebook_path = book.notebook_of(chapter)
            self.env.note_dependency(str(chapter))
            self.env.note_dependency(str(notebook_path))
            notebook = book.read_notebook(notebook_path)
            page = f"[]({chapter.name})"
            declared = book.labels(chapter)
            definitions += [[f"{{eq}}`{name}`", f"`{name}`", page] for name in declared if name.startswith("def-")]
            for check in book.holds_lines(notebook):
                equation = f"{{eq}}`{check.name}`" if check.name in declared else ""
                equations.append([equation, f"`{check.name}`", check.tolerance, _cell(check.reason), page])
            failures += [
                [f"`{check.name}`", f"> {check.tolerance}", _cell(check.reason), page]
                for check in book.differs_lines(notebook)
            ]
        lines = ["**Equations, each checked by a cell beside it**", ""]
        lines += _table(["Equation", "Name", "Both sides agree to", "Why this tolerance", "Chapter"], equations)
        if definitions:
            lines += ["**Definitions, with nothing to check**", ""]
            lines += _table(["Equation", "Name", "Chapter"], definitions)
        if failures:
            lines += ["**Failures, each shown and asserted**", ""]
            lines += _table(["Claim", "Breaks by", "Why", "Chapter"], failures)
        return lines


class Mistakes(_Generated):
    """The planted mistakes and what notices each."""

    def markdown(self) -> list[str]:
        try:
            planted = book.mistakes(MISTAKES)
        except FileNotFoundError as error:
            raise self.error(str(error)) from None
        self.env.note_dependency(str(MISTAKES))
        declared = {label for chapter in book.chapters() for label in book.labels(chapter)}
        rows = []
        for mistake in planted:
            caught = [
                f"{{eq}}`{name}` (`{name}`)" if name in declared else f"`{name}`" for name in mistake["caught_by"]
            ]
            rows.append([f"`{mistake['name']}`", _cell(mistake["what"]), "; ".join(caught)])
        return _table(["Mistake", "What is done wrong", "Caught by"], rows)


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("ledger", Ledger)
    app.add_directive("mistakes", Mistakes)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
