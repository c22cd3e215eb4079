"""Sphinx extension: a page shows the idea, and folds what checks it and what sets it up.

A cell tagged `check` folds to one line, with the numbers of the equations that it holds. One click opens what `holds`,
`typeset` and `differs` said, and the code. The equation, in turn, carries a ✓ that leads to its check. A cell tagged
`setup` folds to a word.
"""

from __future__ import annotations

import re
from html import escape
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform

VERDICT = re.compile(r"^(?P<mark>[✓✗]) (?P<name>[\w-]+)(?P<said>: .*)$")
EQUATION = re.compile(
    r'(<div class="[^"]*\bmath\b[^"]*" id="equation-(?P<label>[\w-]+)">\s*<span class="eqno">\([^)<]*\))'
)
SUMMARY = {"tag_check": "Check", "tag_setup": "Set-up"}
KINDS = {"✓": "book-check", "✗": "book-break"}


class Folded(nodes.General, nodes.Element):
    """A cell's code behind one line: `summary` and `lines` are HTML, `checks` the labels of what is held there."""


def visit(translator: Any, node: Folded) -> None:
    identifiers = "".join(f'<span id="check-{label}"></span>' for label in node["checks"])
    classes = f"hide above-input book-folded {node['kind']}"
    lines = (
        f'<div class="book-lines">{"".join(f"<p>{line}</p>" for line in node["lines"])}</div>' if node["lines"] else ""
    )
    translator.body.append(f'<details class="{classes}">{identifiers}<summary>{node["summary"]}</summary>{lines}\n')


def depart(translator: Any, node: Folded) -> None:
    translator.body.append("</details>\n")


class FoldCells(SphinxPostTransform):
    """Before myst-nb folds what is tagged `hide-input`."""

    default_priority = 198
    formats = ("html",)

    def run(self, **_: Any) -> None:
        named: set[str] = set()  # an equation that two cells check leads to the first
        for cell in list(self.document.findall(nodes.container)):
            kind = next((each for each in SUMMARY if each in cell["classes"]), None)
            if cell.get("nb_element") != "cell_code" or kind is None or cell.get("hide_mode"):
                continue
            verdicts = self._take_verdicts(cell)
            checks = {verdict["name"] for verdict in verdicts if verdict["mark"] == "✓"} - named
            named |= checks
            folded = Folded(
                kind=kind, summary=self._summary(verdicts) or f"<span>{SUMMARY[kind]}</span>",
                lines=[self._line(verdict) for verdict in verdicts], checks=sorted(checks),
            )  # fmt: skip
            code = cell.children[0]
            cell.replace(code, folded)
            folded += code

    def _take_verdicts(self, cell: nodes.container) -> list[re.Match[str]]:
        """What was printed about checks; it stands in the summary then, and no more among the outputs."""
        taken: list[re.Match[str]] = []
        for block in list(cell.findall(nodes.literal_block)):
            if block.parent is None or block.parent.get("nb_element") == "cell_code_source":
                continue
            matches = [(line, VERDICT.match(line)) for line in block.astext().split("\n")]
            found = [match for _, match in matches if match]
            if not found:
                continue
            taken += found
            rest = "\n".join(line for line, match in matches if not match).strip("\n")
            if rest:
                block.parent.replace(block, nodes.literal_block(rest, rest, **block.attributes))
            else:
                _prune(block)
        return taken

    def _summary(self, verdicts: list[re.Match[str]]) -> str:
        """``✓ (3.7) (3.8)  ✗ old minimum new weights``: each once."""
        names = {mark: list(dict.fromkeys(self._name(v) for v in verdicts if v["mark"] == mark)) for mark in KINDS}
        return "\n".join(
            f'<span class="{KINDS[mark]}">{mark} {escape((" " if mark == "✓" else ", ").join(each))}</span>'
            for mark, each in names.items()
            if each
        )

    def _line(self, verdict: re.Match[str]) -> str:
        mark = verdict["mark"]
        return f'<span class="{KINDS[mark]}">{mark} {escape(self._name(verdict) + verdict["said"])}</span>'

    def _name(self, verdict: re.Match[str]) -> str:
        number = self._number(verdict["name"])
        return f"({number})" if number else verdict["name"].replace("-", " ")

    def _number(self, label: str) -> str:
        """The number of the equation on its page, as the reference role writes it; "" for what is no equation."""
        docname, _ = self.env.get_domain("math").equations.get(label, ("", 0))
        numbers = self.env.toc_fignumbers.get(docname, {}).get("displaymath", {}).get(f"equation-{label}", ())
        return ".".join(map(str, numbers))


def _prune(node: nodes.Node) -> None:
    """Take the node out, and what is empty without it."""
    parent = node.parent
    parent.remove(node)
    if not parent.children and isinstance(parent, nodes.container):
        _prune(parent)


def tick_equations(app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    """An equation that the page checks says so beside its number."""
    if doctree is None or "body" not in context:
        return
    checked = {label for folded in doctree.findall(Folded) for label in folded["checks"]}

    def ticked(match: re.Match[str]) -> str:
        label = match["label"]
        if label not in checked:
            return match[0]
        return f'{match[0]}<a class="book-tick" href="#check-{label}" aria-label="the check of this equation">✓</a>'

    context["body"] = EQUATION.sub(ticked, context["body"])


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_node(Folded, html=(visit, depart))
    app.add_post_transform(FoldCells)
    app.connect("html-page-context", tick_equations, priority=800)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
