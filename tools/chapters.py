"""The chapters and their notebooks: where they are, what they label, what they glued and what they checked."""

from __future__ import annotations

import ast
import re
import tomllib
from copy import deepcopy
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import jupytext
import yaml
from jupytext.myst import MystMetadataParsingError
from nbformat import NotebookNode

from tools import notebooks
from tools.notebooks import Unreadable, code_cells

ROOT = Path(__file__).resolve().parent.parent
BOOK = ROOT / "book"
NOTEBOOKS = ROOT / "notebooks"

# `$$ … $$ (eq-name)`: the label stands after the closing dollars.
LABEL = re.compile(r"\$\$\s*\(([^)\s]+)\)[ \t]*$", re.MULTILINE)
# A display: its TeX and its label.
DISPLAY = re.compile(r"^\$\$\n?((?:(?!\$\$).)+?)\s*\$\$\s*\(([^)\s]+)\)[ \t]*$", re.MULTILINE | re.DOTALL)
# What `holds`, `differs` and `typeset` store beside the lines that they show; the ledger is made of it.
RECORD = "application/vnd.influence-book.check+json"

GLUE_PREFIX = "application/papermill.record/"


@dataclass(frozen=True)
class Check:
    """What a cell checked, as it stored it.

    Args:
        kind: ``holds`` for an equation, ``typeset`` for its TeX, ``differs`` for a failure that is shown.
        name: the label, or what the failure is called.
        line: what the reader sees.
        unlike: of `holds`, wrong formulas that it tells from the right one, and how far each is off.
        doubts: of `holds`, why it says little by itself.
        slips: of `typeset`, how many slips were planted in the formula, and in ``missed`` those that nothing noticed.
    """

    kind: str
    name: str
    tolerance: str
    because: str
    line: str
    entries: int = 0
    unlike: tuple[dict[str, str], ...] = ()
    doubts: tuple[str, ...] = ()
    pieces: tuple[str, ...] = ()
    slips: int = 0
    missed: tuple[str, ...] = ()


def is_chapter(text: str) -> bool:
    """Whether a page is a MyST notebook (it says so in its header), hence executed.

    Raises:
        Unreadable: if its header is not YAML.
    """
    header = re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)
    try:
        meta = (yaml.safe_load(header[1]) if header else None) or {}
    except yaml.YAMLError as error:
        raise Unreadable(f"the header between the first two lines of --- is not YAML: {error}") from None
    return meta.get("jupytext", {}).get("text_representation", {}).get("format_name") == "myst"


def read_text(path: Path) -> str:
    """The file with newlines as the repository has them, whatever the checkout made of them.

    Raises:
        Unreadable: if it is not UTF-8; the message says in which line.
    """
    content = path.read_bytes()
    try:
        return content.decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise Unreadable(
            f"{path.parent.name}/{path.name}: line {line} has a byte (0x{content[error.start]:02x}) that is not UTF-8. "
            "Save the file as UTF-8."
        ) from None


def chapters(root: Path = ROOT) -> list[Path]:
    """Every executed page, in the order of their names.

    Raises:
        Unreadable: if a page cannot be read, or has code cells and a header that does not make it a chapter.
    """
    found = []
    for path in sorted((root / "book").glob("*.md")):
        text = read_text(path)
        try:
            executed = is_chapter(text)
        except Unreadable as error:
            raise Unreadable(f"book/{path.name}: {error}") from None
        if executed:
            found.append(path)
        elif re.search(r"^`{3,}\{code-cell\}", text, re.MULTILINE):
            raise Unreadable(
                f"book/{path.name}: it has code cells, and its header does not say that it is a MyST notebook "
                "(jupytext: text_representation: format_name: myst)."
            )
    return found


def notebook_of(chapter: Path) -> Path:
    """The executed notebook of a chapter: ``book/x.md`` has ``notebooks/x.ipynb``."""
    return chapter.parent.parent / "notebooks" / f"{chapter.stem}.ipynb"


def read_chapter(chapter: Path) -> NotebookNode:
    """The chapter as a notebook, not executed.

    Raises:
        Unreadable: if a cell's options are not YAML; the message says where.
    """
    try:
        return deepcopy(_parsed(read_text(chapter)))
    except MystMetadataParsingError as error:
        raise Unreadable(f"book/{chapter.name}: {error}") from None


@lru_cache(maxsize=64)
def _parsed(text: str) -> NotebookNode:
    # A page's numbers depend on what stands in others: the same chapter is asked for again and again.
    return jupytext.reads(text, fmt="md:myst")


def read_notebook(path: Path) -> NotebookNode:
    """A stored notebook."""
    return notebooks.read(path)


def markdown_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "markdown"]


def labels(chapter: Path) -> list[str]:
    """The labels of the chapter's numbered displays, in order: ``eq-…`` are checked, ``def-…`` are definitions."""
    return [label for cell in markdown_cells(read_chapter(chapter)) for label in LABEL.findall(cell.source)]


def displays(chapter: Path) -> dict[str, str]:
    """The TeX of the chapter's numbered displays, by label."""
    found = {}
    for cell in markdown_cells(read_chapter(chapter)):
        found |= {label: tex for tex, label in DISPLAY.findall(cell.source)}
    return found


def typeset(chapter: Path) -> list[tuple[int, str, str]]:
    """The calls of `typeset` in the chapter's code: the number of the cell, the label, the TeX."""
    calls = []
    for number, cell in enumerate(code_cells(read_chapter(chapter))):
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "typeset":
                label, tex = (ast.literal_eval(argument) for argument in node.args[:2])
                calls.append((number, label, tex))
    return calls


def printed(notebook: NotebookNode) -> str:
    """Everything the notebook wrote to its standard output."""
    return "".join(
        output.text
        for cell in code_cells(notebook)
        for output in cell.outputs
        if output.output_type == "stream" and output.name == "stdout"
    )


def checks(notebook: NotebookNode, *kinds: str) -> list[Check]:
    """What the notebook checked, in order; of these kinds only, if any are given."""
    found = []
    for cell in code_cells(notebook):
        for output in cell.outputs:
            record = output.get("data", {}).get(RECORD)
            if record:
                stored = {key: tuple(value) if isinstance(value, list) else value for key, value in record.items()}
                found.append(Check(line=output.data["text/plain"], **stored))
    return [check for check in found if not kinds or check.kind in kinds]


def glued(notebook: NotebookNode) -> dict[str, str]:
    """The values that the cells glued, as text: name -> representation."""
    values = {}
    for cell in code_cells(notebook):
        for output in cell.outputs:
            scrap = output.get("metadata", {}).get("scrapbook")
            if scrap:
                data = output.data
                values[scrap.name] = data.get(GLUE_PREFIX + "text/plain", data.get("text/plain", ""))
    return values


def as_shown(outputs: list[NotebookNode], chapter: Path) -> list[NotebookNode]:
    """The outputs of a cell, with each glued number as the text of its page shows it: nobody sees its other digits,
    and on another processor the last of them may differ."""
    forms: dict[str, set[str]] = {}
    for content in re.findall(r"\{glue:text\}`([^`]+)`", read_text(chapter)):
        name, _, form = content.partition(":")
        forms.setdefault(name, set()).add(form)
    shown = deepcopy(outputs)
    for output in shown:
        scrap, kind = output.get("metadata", {}).get("scrapbook"), GLUE_PREFIX + "text/plain"
        if scrap and kind in output.data:
            value = ast.literal_eval(output.data[kind])
            output.data[kind] = " ".join(format(value, form) for form in sorted(forms.get(scrap["name"], ())))
    return shown


def mistakes(path: Path = ROOT / "tests" / "mistakes.toml") -> list[dict[str, Any]]:
    """The planted mistakes, and what catches each.

    Raises:
        FileNotFoundError: without the file; the ledger page needs it.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"{path.name} is missing: the ledger lists the planted mistakes from tests/mistakes.toml."
        )
    return tomllib.loads(read_text(path))["mistake"]


def slips(path: Path = ROOT / "tests" / "typeset.toml") -> list[dict[str, str]]:
    """The slips that are planted in the TeX of displayed equations, which `typeset` must notice."""
    return tomllib.loads(read_text(path))["slip"]


def beyond(path: Path = ROOT / "tests" / "typeset.toml") -> dict[str, str]:
    """The equations whose TeX cannot be evaluated, and why."""
    return tomllib.loads(read_text(path))["beyond"]


@cache
def table_of_contents(root: Path = ROOT) -> tuple[tuple[str, int | None], ...]:
    """The pages in reading order, each with its chapter number (None where the part is not numbered)."""
    toc = yaml.safe_load(read_text(root / "_toc.yml"))
    pages: list[tuple[str, int | None]] = [(toc["root"], None)]
    count = 0
    for part in toc["parts"]:
        for entry in part["chapters"]:
            if part.get("numbered"):
                count += 1
                pages.append((entry["file"], count))
            else:
                pages.append((entry["file"], None))
    return tuple(pages)
