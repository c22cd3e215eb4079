"""Markdown cells for a reader who opens the notebook in JupyterLab, where there is no Sphinx.

The chapter's roles that need the whole book (a glued number, a citation, a reference to another page) become plain text
and links. What `jupyterlab_myst` renders by itself (mathematics, admonitions, exercises, references inside the same
notebook) stays as it is.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

from pybtex.database import Entry, parse_file

from tools import chapters as book
from tools.chapters import Unreadable

# What a cell's Markdown is scanned for, left to right: code is kept as it is written, a role or a link is looked at.
TOKEN = re.compile(
    r"^% given:[^\n]*\n?"  # a remark for the tests, see tests/book/test_prose.py
    r"|^(?P<fence>`{3,}|~{3,})(?!\{).*?^(?P=fence)[ \t]*$"
    r"|\{(?P<role>[a-z:]+)\}`(?P<content>[^`]+)`"
    r"|(?P<tick>`+).+?(?<!`)(?P=tick)(?!`)"
    r"|(?<!!)\[(?P<text>[^\]]*)\]\((?P<page>[\w./-]+\.md)(?P<anchor>#[\w-]+)?\)",
    re.MULTILINE | re.DOTALL,
)


def readable(text: str, chapter: Path, values: dict[str, str]) -> str:
    """The Markdown of ``chapter`` with glued numbers, citations and references to other pages written out.

    Args:
        text: the cell's source.
        values: what the chapter's cells glued, see `tools.chapters.glued`.

    Raises:
        Unreadable: for a glue key, citation, label or page that does not exist.
    """

    def written_out(token: re.Match[str]) -> str:
        if token[0].startswith("% given:"):
            return ""
        if token["page"]:
            return _link(token, chapter)
        role, content = token["role"], token["content"]
        if role in ("glue", "glue:text"):
            return _glue(content, values)
        if role and role.startswith("cite"):
            return _cite(role, content, chapter)
        if role == "doc":
            return _page_link(content, chapter)
        if role in ("term", "abbr"):
            return _split(content)[0]
        if role in ("eq", "numref", "ref", "prf:ref"):
            return _reference(token, chapter)
        return token[0]

    try:
        return TOKEN.sub(written_out, text)
    except Unreadable as error:
        raise Unreadable(f"book/{chapter.name}: {error}") from None


def _split(content: str) -> tuple[str, str]:
    """``title <target>`` -> title, target; a bare target has itself as title."""
    match = re.fullmatch(r"(.*?)\s*<([^<>]+)>", content, re.DOTALL)
    return (match[1], match[2]) if match else (content, content)


def _glue(content: str, values: dict[str, str]) -> str:
    # "key:.3f"; as in myst-nb, the last colon starts the format.
    key, _, spec = content.partition(":") if content not in values else (content, "", "")
    if key not in values:
        raise Unreadable(f"nothing is glued under the name {key!r}")
    value = values[key].strip("'\"")
    return format(float(value), spec) if spec else value


@cache
def _bibliography(path: Path, changed: float) -> dict[str, Entry]:
    return dict(parse_file(str(path)).entries)


def _cite(role: str, content: str, chapter: Path) -> str:
    path = chapter.parent / "references.bib"
    entries = _bibliography(path, path.stat().st_mtime)
    texts = []
    for key in (part.strip() for part in content.split(",")):
        if key not in entries:
            raise Unreadable(f"references.bib has no entry {key!r}")
        entry = entries[key]
        names = [" ".join([*person.prelast_names, *person.last_names]) for person in entry.persons["author"]]
        names = [re.sub(r"[{}]", "", name) for name in names]
        who = names[0] if len(names) == 1 else " and ".join(names) if len(names) == 2 else f"{names[0]} et al."
        year = entry.fields.get("year", "n.d.")
        texts.append(f"{who} ({year})" if role.startswith("cite:t") else f"{who}, {year}")
    link = _relative("references.md", chapter)
    return f"[{', '.join(texts)}]({link})" if role.startswith("cite:t") else f"([{'; '.join(texts)}]({link}))"


def _relative(page: str, chapter: Path, anchor: str = "") -> str:
    """The link from the chapter's notebook to a page: its notebook, or its source where it has none."""
    target = (chapter.parent / page).resolve()
    if not target.is_file():
        raise Unreadable(f"there is no page {page}")
    if target.parent == chapter.parent and book.is_chapter(book.read_text(target)):
        target = book.notebook_of(target)
    return Path(os.path.relpath(target, book.notebook_of(chapter).parent)).as_posix() + anchor


def _title(page: Path) -> str:
    heading = re.search(r"^# (.+)$", book.read_text(page), re.MULTILINE)
    return heading[1] if heading else page.stem


def _page_link(content: str, chapter: Path) -> str:
    title, target = _split(content)
    page = target if target.endswith(".md") else f"{target}.md"
    link = _relative(page, chapter)
    return f"[{title if title != target else _title(chapter.parent / page)}]({link})"


def _link(match: re.Match[str], chapter: Path) -> str:
    link = _relative(match["page"], chapter, match["anchor"] or "")
    return f"[{match['text'] or _title(chapter.parent / match['page'])}]({link})"


# How a label is declared: after a display, above a heading, as a directive's label or name, as a figure's name.
DECLARATION = r"\$\$\s*\({0}\)|^\({0}\)=|^\s*:(?:label|name): {0}\s*$|\bname[\"']?: *[\"']?{0}(?![\w-])"


def _declares(page: Path, label: str) -> bool:
    return re.search(DECLARATION.format(re.escape(label)), book.read_text(page), re.MULTILINE) is not None


def _reference(match: re.Match[str], chapter: Path) -> str:
    """A figure gets its number, another page's label a link; what the notebook itself declares is left to MyST."""
    role, (title, label) = match["role"], _split(match["content"])
    page = next((page for page in [chapter, *sorted(chapter.parent.glob("*.md"))] if _declares(page, label)), None)
    if page is None:
        raise Unreadable(f"no page declares the label {label!r}")
    if role == "numref" and label in figures(page):
        name = f"Figure {number(page, figures(page).index(label), figures)}"
        return name if page == chapter else f"[{name}]({_relative(page.name, chapter)})"
    if page == chapter:
        return match[0]
    if role == "eq":
        title = f"({number(page, book.labels(page).index(label), book.labels)})"
    return f"[{title if title != label else _title(page)}]({_relative(page.name, chapter)})"


def number(page: Path, place: int, listed: Callable[[Path], list[str]]) -> str:
    """The number that the book gives the equation or figure at this place (from 0) of a page: chapter, dot, place.

    Pages without a chapter number share one count, in the order of the table of contents.

    Args:
        listed: what is counted, `tools.chapters.labels` for equations or `figures`.
    """
    root = page.parent.parent
    contents = book.table_of_contents(root)
    name = f"book/{page.stem}"
    chapter = dict(contents).get(name)
    if chapter:
        return f"{chapter}.{place + 1}"
    names = [other for other, numbered in contents if not numbered]
    before = names[: names.index(name)] if name in names else []
    return str(sum(len(listed(root / f"{other}.md")) for other in before) + place + 1)


def figures(page: Path) -> list[str]:
    """The names of the page's figures in order, an empty name for one that has none."""
    names = []
    for cell in book.read_chapter(page).cells:
        if cell.cell_type == "markdown":
            names += ["" for _ in re.finditer(r"^[`:]{3,}\{figure\}", cell.source, re.MULTILINE)]
        elif "figure" in cell.metadata.get("mystnb", {}):
            names.append(cell.metadata.mystnb.figure.get("name", ""))
    return names
