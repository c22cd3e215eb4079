"""The review sheet: each sentence with a computed number, and beside it what made that number.

    python -m tools.review_sheet            every chapter (or those named: 05 09)

No test can see that a sentence calls a median a mean. A reader of this sheet can: it puts the words, the expression in
`note` and the value under each other. It also lists the sentences that give a cause, a condition or a superlative
(`--claims`): each of them should be held by a cell or proved on its page.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nbformat import NotebookNode

from tools import chapters as book
from tools import command, reading

NUMBER = re.compile(r"\{glue:text\}`([\w-]+)(?::[^`]*)?`")
# A full stop ends a sentence, but for the one in "e.g." and the like, or before a small letter.
SENTENCE = re.compile(r"(?<=[.!?])(?<!e\.g\.)(?<!i\.e\.)\s+(?=[A-Z*(\[{$\"“])")
CLAIMS = re.compile(
    r"\b(because|therefore|hence|since|so that|why|always|never|all|every|each|none|no other|only|exactly|needs?|"
    r"safe|must|cannot|guarantee\w*|first|largest|smallest|most|least|best|worst|\w+est)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Noted:
    """A sentence and the numbers in it: name -> (the expression that made it, its value)."""

    sentence: str
    numbers: dict[str, tuple[str, str]]


def noted(chapter: Path, notebook: NotebookNode) -> list[Noted]:
    """The sentences of a chapter that show a number which a cell noted.

    Args:
        notebook: the executed one, for the values.
    """
    made = expressions(chapter)
    values = book.glued(notebook)
    found = []
    for sentence in sentences(chapter):
        names = NUMBER.findall(sentence)
        if names:
            numbers = {name: (_made_by(name, made), values.get(name, "?")) for name in names}
            found.append(Noted(sentence, numbers))
    return found


def sentences(chapter: Path) -> Iterator[str]:
    """The sentences of a chapter's text and captions, exercises and solutions included."""
    for cell in book.read_chapter(chapter).cells:
        text = cell.source
        if cell.cell_type == "code":
            text = cell.metadata.get("mystnb", {}).get("figure", {}).get("caption", "")
        for paragraph in _paragraphs(text):
            yield from (" ".join(part.split()) for part in SENTENCE.split(paragraph) if part.strip())


def _paragraphs(text: str) -> Iterator[str]:
    for token, lines in reading.blocks(text):
        directive = reading.Directive.of(token)
        if directive:
            yield directive.argument
            yield from _paragraphs(directive.body)
        elif token is not None and token.type == "inline":
            yield "\n".join(lines)


def expressions(chapter: Path) -> dict[str, str]:
    """What each `note(name=…)` of a chapter was given, as it stands in the code.

    A name that is made while the code runs stands as the pattern that makes it, ``r_{name}``.
    """
    found: dict[str, str] = {}
    for cell in book.code_cells(book.read_chapter(chapter)):
        try:
            tree = ast.parse(cell.source)
        except SyntaxError:  # for IPython
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "note":
                for keyword in node.keywords:
                    if keyword.arg:
                        found[keyword.arg] = ast.unparse(keyword.value)
                    else:
                        found |= dict.fromkeys(_patterns(keyword.value), ast.unparse(keyword.value))
    return found


def _patterns(value: ast.expr) -> list[str]:
    """Of ``{f"r_{name}": …}`` or of such a comprehension: ``r_{name}``."""
    keys = value.keys if isinstance(value, ast.Dict) else [getattr(value, "key", None)]
    return [
        str(key.value) if isinstance(key, ast.Constant) else
        ast.unparse(key)[2:-1] if isinstance(key, ast.JoinedStr) else "{}"
        for key in keys
    ]  # fmt: skip


def _made_by(name: str, made: dict[str, str]) -> str:
    if name in made:
        return made[name]
    for pattern, expression in made.items():
        if "{" in pattern and re.fullmatch(re.sub(r"\\\{.*?\\\}", ".+", re.escape(pattern)), name):
            return expression
    return "?"


def sheet(chapter: Path) -> str:
    """The review sheet of one chapter."""
    lines = [f"# {chapter.stem}", ""]
    for each in noted(chapter, book.read_notebook(book.notebook_of(chapter))):
        lines.append(each.sentence)
        lines += [f"    {name} = {value}   <-  {expression}" for name, (expression, value) in each.numbers.items()]
        lines.append("")
    return "\n".join(lines)


def claims(chapter: Path) -> str:
    """The sentences of one chapter that give a cause, a condition or a superlative, each with the words that do."""
    lines = [f"# {chapter.stem}", ""]
    for sentence in sentences(chapter):
        words = sorted({match.lower() for match in CLAIMS.findall(sentence)} - {"test", "interest", "rest", "honest"})
        if words:
            lines.append(f"[{', '.join(words)}] {sentence}")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.review_sheet", description=__doc__.splitlines()[0])
    parser.add_argument("pages", nargs="*", help="the beginning of a page's name; without any, all")
    parser.add_argument(
        "--claims", action="store_true", help="the sentences with a cause, a condition or a superlative"
    )
    arguments = parser.parse_args()
    for chapter in book.chapters():
        if not arguments.pages or chapter.name.startswith(tuple(arguments.pages)):
            print((claims if arguments.claims else sheet)(chapter))
    return 0


if __name__ == "__main__":
    sys.exit(command.run(main))
