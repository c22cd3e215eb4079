"""The layout of the chapters' code: 86 columns, the page's width, filled.

    python -m tools.layout           lay out every chapter (or those named: 03 04)
    python -m tools.layout --check   only name the chapters that are not laid out

`yapf` breaks the lines. Before it, three things that it leaves as they are: a comma before a closing bracket goes, a
comment at the end of a line goes above a statement that takes several lines, and brackets round a whole value go.
After it, comments at the ends of neighbouring lines are put into one column. What a cell does never changes: its
syntax tree is compared.
"""

from __future__ import annotations

import argparse
import ast
import io
import re
import sys
import tokenize
from itertools import pairwise
from pathlib import Path

from yapf.yapflib.yapf_api import FormatCode

from tools import chapters as book
from tools import command
from tools.notebooks import write

COLUMNS = 86
STYLE = {
    "based_on_style": "pep8",
    "column_limit": COLUMNS,
    "blank_lines_around_top_level_definition": 1,
    "coalesce_brackets": True,
    "each_dict_entry_on_separate_line": False,
    "split_before_first_argument": False,
    "split_before_named_assigns": False,
    "split_penalty_after_opening_bracket": 30,
    "allow_split_before_dict_value": False,
}
CELL = re.compile(
    r"(?P<head>^```\{code-cell\}[^\n]*\n(?:---\n.*?\n---\n|(?::[^\n]*\n)*))(?P<code>.*?)(?=^```$)",
    re.MULTILINE | re.DOTALL,
)


def laid_out(code: str) -> str:
    """The code in the book's layout.

    Raises:
        SyntaxError: if it is no Python.
    """
    try:
        tree = _tree(code)
    except SyntaxError:
        if code.lstrip().startswith(("%", "!")):  # for IPython
            return code
        raise
    for step in (_without_last_commas, _comments_above, _without_outer_brackets, _long_imports_in_brackets):
        code = step(code)
    formatted, _ = FormatCode(code, style_config=STYLE)
    formatted = _comments_in_a_column(formatted)
    if _tree(formatted) != tree:
        raise AssertionError(f"the layout would change what this does:\n{code}")
    return formatted


def laid_out_page(text: str) -> str:
    """The page with the code of all its cells in the book's layout."""
    return CELL.sub(lambda cell: cell["head"] + laid_out(cell["code"]), text)


def _tree(code: str) -> str:
    return ast.dump(ast.parse(code))


def _tokens(code: str) -> list[tokenize.TokenInfo]:
    return list(tokenize.generate_tokens(io.StringIO(code).readline))


def _without_last_commas(code: str) -> str:
    """A comma before a closing bracket goes, where it makes no tuple: it would spread the call over many lines."""
    tokens = [each for each in _tokens(code) if each.type not in (tokenize.NL, tokenize.COMMENT)]
    lines, tree = code.splitlines(keepends=True), _tree(code)
    for comma, after in reversed(list(pairwise(tokens))):
        if comma.string == "," and comma.type == tokenize.OP and after.string in "]})":
            row, column = comma.start
            before = lines[row - 1]
            lines[row - 1] = before[:column] + before[column + 1 :]
            if _tree("".join(lines)) != tree:
                lines[row - 1] = before
    return "".join(lines)


def _comments_above(code: str) -> str:
    """A comment at the end of a line goes above its statement (or the head of it) if this takes several lines."""
    lines = code.splitlines()
    statements = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.stmt)]
    moved: dict[int, list[str]] = {}
    for comment in _tokens(code):
        row, column = comment.start
        if comment.type != tokenize.COMMENT or not lines[row - 1][:column].strip():
            continue
        around = [each for each in statements if each.lineno <= row <= (each.end_lineno or row)]
        first, last = _head(min(around, key=lambda each: (each.end_lineno or 0) - each.lineno))
        if first <= row <= last and last > first:
            moved.setdefault(first, []).append(comment.string)
            lines[row - 1] = lines[row - 1][:column].rstrip()
    for row in sorted(moved, reverse=True):
        indent = re.match(r"\s*", lines[row - 1])
        assert indent is not None
        lines[row - 1 : row - 1] = [indent[0] + comment for comment in moved[row]]
    return "\n".join(lines) + "\n"


def _head(statement: ast.stmt) -> tuple[int, int]:
    """The first and the last line of a statement without what is indented under it."""
    body = getattr(statement, "body", None)
    last = body[0].lineno - 1 if isinstance(body, list) and body else statement.end_lineno
    return statement.lineno, max(last or 0, statement.lineno)


def _without_outer_brackets(code: str) -> str:
    """``x = (a + b)`` is ``x = a + b``, where the value then stands on one line."""
    tree, lines = _tree(code), code.splitlines(keepends=True)
    statements = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Assign)]
    for node in sorted(statements, key=lambda each: each.lineno, reverse=True):
        whole = "".join(lines[node.lineno - 1 : node.end_lineno])
        match = re.fullmatch(r"(\s*[\w, .\[\]]+ = )\(\s*(.*?)\s*\)(\s*)", whole, re.DOTALL)
        if match is None:
            continue
        inner = re.sub(r"\s*\n\s*", " ", match[2])
        new = f"{match[1]}{inner}{match[3]}"
        if len(new) > COLUMNS + 1 or "#" in inner or inner.endswith(","):
            continue
        attempt = [*lines[: node.lineno - 1], new, *lines[node.end_lineno :]]
        try:
            same = _tree("".join(attempt)) == tree
        except SyntaxError:
            same = False
        if same:
            lines = attempt
    return "".join(lines)


def _long_imports_in_brackets(code: str) -> str:
    """So that they can be broken."""
    lines = code.split("\n")
    for k, line in enumerate(lines):
        if len(line) > COLUMNS and (match := re.fullmatch(r"(\s*from \S+ import )([\w, ]+)", line)):
            lines[k] = f"{match[1]}({match[2]})"
    return "\n".join(lines)


def _comments_in_a_column(code: str) -> str:
    """Comments at the ends of neighbouring lines stand in one column, where that is on the page."""
    lines = code.split("\n")
    ends = {
        each.start[0] - 1: each.start[1]
        for each in _tokens(code)
        if each.type == tokenize.COMMENT and lines[each.start[0] - 1][: each.start[1]].strip()
    }
    for first in sorted(ends):
        if first - 1 in ends:
            continue
        block = [first]
        while block[-1] + 1 in ends:
            block.append(block[-1] + 1)
        column = max(ends[k] for k in block)
        if all(column + len(lines[k]) - ends[k] <= COLUMNS for k in block):
            for k in block:
                lines[k] = lines[k][: ends[k]].rstrip().ljust(column) + lines[k][ends[k] :]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.layout", description=__doc__.splitlines()[0])
    parser.add_argument("pages", nargs="*", help="the beginning of a page's name; without any, all")
    parser.add_argument("--check", action="store_true", help="write nothing")
    arguments = parser.parse_args()
    wrong: list[Path] = []
    for chapter in book.chapters():
        if arguments.pages and not chapter.name.startswith(tuple(arguments.pages)):
            continue
        text = book.read_text(chapter)
        try:
            better = laid_out_page(text)
        except SyntaxError as error:
            why = f"{error.msg}: {(error.text or '').strip()}"
            raise command.Failed(f"book/{chapter.name}: a cell is no Python ({why})") from None
        if better != text:
            wrong.append(chapter)
            if not arguments.check:
                write(chapter, better)
    for chapter in wrong:
        print(f"book/{chapter.name}: {'not laid out' if arguments.check else 'laid out'}")
    return 1 if wrong and arguments.check else 0


if __name__ == "__main__":
    sys.exit(command.run(main))
