"""The shape of the pages: how long they take, and how much of the code that is seen is mathematics.

    python -m tools.shape            print the table
    python -m tools.shape --write    also write each page's minutes into its line **Time**

Counted is the main text: what is folded, exercises and their solutions are not. A minute is 200 words of prose or
captions; a displayed equation takes 25 seconds, a figure 45, a visible line of code 3. A visible line is mathematics
unless its statement imports, checks, notes a number, prints or draws.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from nbformat import NotebookNode

from tools import chapters as book
from tools import command, reading
from tools.notebooks import FOLDED, write

WORDS_A_MINUTE = 200
SECONDS_AN_EQUATION, SECONDS_A_FIGURE, SECONDS_A_LINE = 25, 45, 3
# What a statement that calls one of these is for is not the mathematics.
PLUMBING = {
    "holds", "differs", "typeset", "note", "table", "print", "setup", "display", "show", "plot", "scatter", "subplots",
    "legend", "savefig",
}  # fmt: skip
TIME = re.compile(r"^(\*\*Time\*\* )(?P<minutes>[\w -]+?)( minutes)", re.MULTILINE)
NOT_READ = re.compile(r"\]\([^)]*\)|\{[\w:-]+\}")  # targets of links, names of roles
ONE_WORD = re.compile(r"\$[^$]*\$|`[^`]*`")


@dataclass(frozen=True)
class Shape:
    """What was counted on a page."""

    page: Path
    words: int
    equations: int
    figures: int
    cells: tuple[int, ...]  # visible cells: lines of code, without blank lines and comments
    mathematics: int  # lines of these
    opens_with_code: bool  # whether the first code cell is one that a reader sees and that imports

    @property
    def lines(self) -> int:
        return sum(self.cells)

    @property
    def share(self) -> float:
        """Of mathematics in the visible code; 1 where none is seen."""
        return self.mathematics / self.lines if self.lines else 1.0

    @property
    def minutes(self) -> float:
        seconds = self.equations * SECONDS_AN_EQUATION + self.figures * SECONDS_A_FIGURE + self.lines * SECONDS_A_LINE
        return self.words / WORDS_A_MINUTE + seconds / 60


def shape(page: Path) -> Shape:
    """Count a page of the book."""
    text = book.read_text(page)
    cells = book.read_chapter(page).cells if book.is_chapter(text) else [_markdown(text)]
    words = equations = figures = mathematics = 0
    visible: list[int] = []
    opens = None
    for cell in _main_text(cells):
        if cell.cell_type == "markdown":
            prose, displays, pictures = _prose(cell.source)
            words, equations, figures = words + _count(prose), equations + displays, figures + pictures
            continue
        figure = cell.metadata.get("mystnb", {}).get("figure")
        if figure is not None:
            figures += 1
            words += _count(figure.get("caption", ""))
        seen = FOLDED.isdisjoint(cell.metadata.get("tags", []))
        lines, idea = code_lines(cell.source)
        if opens is None:
            opens = seen and bool(re.search(r"^(from|import) ", cell.source, re.MULTILINE))
        if seen and lines:
            visible.append(lines)
            mathematics += idea
    return Shape(page, words, equations, figures, tuple(visible), mathematics, bool(opens))


def _markdown(text: str) -> NotebookNode:
    return NotebookNode(
        cell_type="markdown", source=re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL), metadata={}
    )


def _main_text(cells: list[NotebookNode]) -> Iterator[NotebookNode]:
    """The cells without exercises and solutions. A text cell that an exercise or a solution cuts is cut there."""
    solving = False
    for cell in cells:
        if cell.cell_type == "code":
            if not solving:
                yield cell
            continue
        kept: list[str] = []
        for token, lines in reading.blocks(cell.source):
            directive = reading.Directive.of(token)
            if directive and directive.name == "solution-start":
                solving = True
            elif directive and directive.name == "solution-end":
                solving = False
            elif not solving and not (directive and directive.name == "exercise"):
                kept += lines
        yield NotebookNode(cell_type="markdown", source="\n".join(kept), metadata={})


def _prose(text: str) -> tuple[str, int, int]:
    """What of a Markdown text is read, the number of its displays and that of its figures."""
    parts: list[str] = []
    displays = figures = 0
    for token, lines in reading.blocks(text):
        directive = reading.Directive.of(token)
        if directive:
            if "dropdown" in directive.options.get("class", ""):
                continue
            figures += directive.name == "figure"
            inner, more, pictures = _prose(directive.body)
            parts += [directive.argument if directive.name != "figure" else "", inner]
            displays, figures = displays + more, figures + pictures
        elif token is not None and token.type.startswith("math_block"):
            displays += 1
        elif token is None or token.type not in ("fence", "code_block", "myst_line_comment", "myst_target"):
            parts += lines
    return "\n".join(parts), displays, figures


def _count(text: str) -> int:
    """How many words a reader reads; a formula or a name in code is one."""
    return len(re.findall(r"\w\S*", ONE_WORD.sub(" x ", NOT_READ.sub(" ", text))))


def code_lines(code: str) -> tuple[int, int]:
    """How many lines of code there are, without blank lines and comments, and how many of them are mathematics."""
    try:
        body = ast.parse(code).body
    except SyntaxError:  # for IPython
        return 0, 0
    full = {k for k, line in enumerate(code.split("\n"), 1) if line.strip() and not line.strip().startswith("#")}
    idea = {
        k
        for statement in body
        if not _is_plumbing(statement)
        for k in range(statement.lineno, (statement.end_lineno or 0) + 1)
    }
    return len(full), len(full & idea)


def _is_plumbing(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.Import | ast.ImportFrom | ast.Assert):
        return True
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        return False
    if isinstance(statement, ast.For | ast.With | ast.If):
        return all(_is_plumbing(inner) for inner in statement.body)
    if not isinstance(statement, ast.Expr | ast.Assign):
        return False
    calls = [node.func for node in ast.walk(statement) if isinstance(node, ast.Call)]
    names = {call.id if isinstance(call, ast.Name) else getattr(call, "attr", "") for call in calls}
    return not PLUMBING.isdisjoint(names)


def with_time(text: str, minutes: int) -> str:
    """The page with these minutes in its line **Time**."""
    return TIME.sub(rf"\g<1>{minutes}\g<3>", text)


def rounded(minutes: float) -> int:
    """What the page says: whole minutes, at least one."""
    return max(1, round(minutes))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.shape", description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="write the minutes into the pages")
    arguments = parser.parse_args()
    print(
        f"{'page':<26}{'minutes':>8}{'words':>7}{'eq':>4}{'fig':>4}{'cells':>6}{'lines':>6}{'median':>7}{'most':>5}{'math':>6}"
    )
    for page in pages():
        each = shape(page)
        cells = each.cells or (0,)
        print(
            f"{page.stem:<26}{each.minutes:8.1f}{each.words:7}{each.equations:4}{each.figures:4}{len(each.cells):6}"
            f"{each.lines:6}{median(cells):7.0f}{max(cells):5}{100 * each.share:5.0f} %"
            f"{'  opens with imports' if each.opens_with_code else ''}"
        )
        if arguments.write:
            text = book.read_text(page)
            better = with_time(text, rounded(each.minutes))
            if better != text:
                write(page, better)
    return 0


def pages() -> list[Path]:
    """The pages that say how long they take, in the order of the contents."""
    files = [book.ROOT / f"{name}.md" for name, _ in book.table_of_contents()]
    return [file for file in files if re.search(r"^\*\*Time\*\*", book.read_text(file), re.MULTILINE)]


if __name__ == "__main__":
    sys.exit(command.run(main))
