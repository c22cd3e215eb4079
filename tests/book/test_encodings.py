"""Text is read and written as UTF-8 everywhere. Without being told, Python asks the system, and Windows differs.

Ruff's rule (PLW1514) sees no cell of a chapter, and of a ``path.read_text()`` only those whose type it can tell.
"""

from __future__ import annotations

import ast

import pytest

from tools import chapters as book

FOLDERS = ("helpers", "benchmarks", "tools", "book/_ext", "tests")
NO_TEXT = ("os", "Image")  # whose open() is another


def unspecified(source: str) -> list[int]:
    """The lines that open a text file without an encoding."""
    return [node.lineno for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call) and _asks(node)]


def _asks(call: ast.Call) -> bool:
    named = {word.arg for word in call.keywords}
    if "encoding" in named or None in named:  # None: ** may bring it
        return False
    name = getattr(call.func, "attr", getattr(call.func, "id", ""))
    if name in ("read_text", "write_text"):
        return len(call.args) < (1 if name == "read_text" else 2)
    if name == "open" and getattr(getattr(call.func, "value", None), "id", None) not in NO_TEXT:
        place = 0 if isinstance(call.func, ast.Attribute) else 1  # of the mode: path.open(mode), open(path, mode)
        modes = [*call.args[place : place + 1], *(word.value for word in call.keywords if word.arg == "mode")]
        return not any(isinstance(mode, ast.Constant) and "b" in mode.value for mode in modes)
    return False


def sources():
    for folder in FOLDERS:
        for path in sorted((book.ROOT / folder).rglob("*.py")):
            yield path.relative_to(book.ROOT).as_posix(), book.read_text(path)
    for chapter in book.chapters():
        for number, cell in enumerate(book.code_cells(book.read_chapter(chapter)), start=1):
            yield f"{chapter.name}, code cell {number}", cell.source


def test_every_text_file_is_opened_with_its_encoding():
    found = {name: unspecified(source) for name, source in sources()}
    assert len(found) > 100
    assert not {name: lines for name, lines in found.items() if lines}


@pytest.mark.parametrize(
    "line",
    [
        'json.loads(Path("../runs/a.json").read_text())',
        "file.write_text(text)",
        'file.write_text(text, newline="\\n")',
        "open(name)",
        'open(name, "w")',
        'path.open("a")',
        "path.open()",
        'open("b.txt")',
    ],
)
def test_a_call_without_one_is_noticed(line):
    assert unspecified(line) == [1]


@pytest.mark.parametrize(
    "line",
    [
        'file.read_text(encoding="utf-8")',
        'file.read_text("utf-8")',
        'file.write_text(text, "utf-8")',
        'open(name, "rb")',
        'path.open("xb")',
        'open(name, mode="wb")',
        'open(name, encoding="utf-8")',
        "os.open(name, os.O_RDONLY)",
        "Image.open(name)",
        "open(name, **options)",
        "file.read_bytes()",
    ],
)
def test_a_call_that_has_one_is_not(line):
    assert unspecified(line) == []
