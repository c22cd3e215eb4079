"""A chapter's cells for a reader who opens the notebook where there is no Sphinx: JupyterLab, GitHub, Colab, VS Code.

Everything becomes plain Markdown. What needs the whole book (a glued number, a citation, a reference) becomes text and
links; exercises become headings, boxes become quotations (folded ones what HTML folds), and equations carry the numbers
that the book gives them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import yaml
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from myst_parser.config.main import MdParserConfig
from myst_parser.parsers.mdit import create_md_parser
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell
from pybtex.database import Entry, parse_file

from tools import chapters as book
from tools import laboratory
from tools.notebooks import Unreadable

HOW_TO_RUN = (
    "*To run this notebook: `make lab` in a clone of the book. Anywhere else, first run "
    '`%pip install "hessian-book-helpers[book] @ git+ADDRESS"` in a cell, with the address of the repository that the '
    "notebook comes from; the page “Run the book yourself” of the book shows the whole line.*"
)
# A folded solution reaches to the next heading, so what follows the last one needs a heading of its own.
AFTER_A_SOLUTION = "## Next"

# Inside a paragraph, left to right: code stays as it is, a role or a link to a file is written out.
INLINE = re.compile(
    r"\{(?P<role>[a-z:]+)\}(?P<quote>`+)(?P<content>.+?)(?<!`)(?P=quote)(?!`)"
    r"|(?P<code>`+).+?(?<!`)(?P=code)(?!`)"
    r"|(?P<image>!?)\[(?P<text>[^\]]*)\]\((?P<file>[\w./-]+\.\w+)(?:#[\w-]+)?\)",
    re.DOTALL,
)


@cache
def _grammar() -> MarkdownIt:
    """The parser with which Jupyter Book reads the pages, set as _config.yml sets it."""
    options = yaml.safe_load(book.read_text(book.ROOT / "_config.yml"))["parse"]
    extensions = set(options.pop("myst_enable_extensions"))
    options = {name.removeprefix("myst_"): value for name, value in options.items()}
    return create_md_parser(MdParserConfig(enable_extensions=extensions, **options), RendererHTML)


def blocks(text: str) -> Iterator[tuple[Token | None, list[str]]]:
    """The lines of a Markdown text, cut into its smallest blocks, each with its token (None for what is between)."""
    lines, place = text.split("\n"), 0
    for token in _grammar().parse(text):
        # The cells of a table's row have the same line; the first one takes it.
        if token.nesting or token.map is None or token.map[0] < place:
            continue
        start, end = token.map
        yield None, lines[place:start]
        yield token, lines[start:end]
        place = end
    yield None, lines[place:]


@dataclass(frozen=True)
class Directive:
    """A fence with a name in braces: ```{name} argument, then lines ``:option: value``, then the body."""

    name: str
    argument: str
    options: dict[str, str]
    body: str

    @classmethod
    def of(cls, token: Token | None) -> Directive | None:
        """The directive that a block is, or None."""
        if token is None or token.type not in ("fence", "colon_fence"):
            return None
        head = re.fullmatch(r"\{([\w:-]+)\}\s*(.*)", token.info.strip())
        if head is None:
            return None
        options, lines = {}, token.content.split("\n")
        while option := re.fullmatch(r":([\w-]+):\s*(.*)", lines[0]):
            options[option[1]] = option[2]
            del lines[0]
        return cls(head[1], head[2], options, "\n".join(lines).strip("\n"))

    @property
    def label(self) -> str:
        return self.options.get("label", self.options.get("name", ""))


# --- What the pages number -------------------------------------------------------------------------------------------


@cache
def _declared(page: Path, changed: int) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {"equation": [], "figure": [], "exercise": [], "theorem": [], "section": []}
    for cell in book.read_chapter(page).cells:
        if cell.cell_type == "code":
            if "figure" in cell.metadata.get("mystnb", {}):
                found["figure"].append(cell.metadata.mystnb.figure.get("name", ""))
            continue
        for token, _ in blocks(cell.source):
            directive = Directive.of(token)
            if token is not None and token.type == "math_block_label":
                found["equation"].append(token.info)
            elif token is not None and token.type == "myst_target":
                found["section"].append(token.content)
            elif directive and directive.name in ("figure", "stored-figure", "exercise"):
                found[directive.name.removeprefix("stored-")].append(directive.label)
            elif directive and directive.name == "prf:theorem":
                found["theorem"].append(directive.label)
    return found


def _listed(page: Path) -> dict[str, list[str]]:
    """What the page declares, in order: kind -> labels (an empty one for a figure without a name)."""
    return _declared(page, page.stat().st_mtime_ns)


def figures(page: Path) -> list[str]:
    """The names of the page's figures in order, an empty name for one that has none."""
    return _listed(page)["figure"]


def exercises(page: Path) -> list[str]:
    """The labels of the page's exercises, in order."""
    return _listed(page)["exercise"]


def theorems(page: Path) -> list[str]:
    """The labels of the page's theorems, in order."""
    return _listed(page)["theorem"]


COUNTED: dict[str, Callable[[Path], list[str]]] = {
    "equation": book.labels,
    "figure": figures,
    "exercise": exercises,
    "theorem": theorems,
}


def number(page: Path, place: int, listed: Callable[[Path], list[str]]) -> str:
    """The number that the book gives the equation or figure at this place (from 0) of a page: chapter, dot, place.

    A page in depth stands for a chapter: D and its place among them (`book/_ext/depth_numbers.py`). The other pages
    without a chapter number share one count, in the order of the table of contents.

    Args:
        listed: what is counted, `tools.chapters.labels` for equations, `figures`, `exercises` or `theorems`.
    """
    root = page.parent.parent
    contents = book.table_of_contents(root)
    name = f"book/{page.stem}"
    chapter = dict(contents).get(name)
    if chapter:
        return f"{chapter}.{place + 1}"
    depth = [other for other, _ in contents if other.startswith("book/depth-")]
    if name in depth:
        return f"D{depth.index(name) + 1}.{place + 1}"
    names = [other for other, numbered in contents if not numbered]
    before = names[: names.index(name)] if name in names else []
    return str(sum(len(listed(root / f"{other}.md")) for other in before) + place + 1)


# --- Writing out -----------------------------------------------------------------------------------------------------


def cells(source: NotebookNode, chapter: Path, values: dict[str, str]) -> list[NotebookNode]:
    """The chapter's cells for a reader: the code cells as they are, everything else in plain Markdown.

    A solution stands under a heading of its own, tagged; `tools.notebooks.folded` folds there.

    Args:
        source: the chapter as a notebook, its code cells with their outputs.
        values: what the code cells glued, see `tools.chapters.glued`.

    Raises:
        Unreadable: for a reference that leads nowhere, or for a role or directive that has no plain form.
    """
    writer = _Writer(chapter, values)
    made: list[NotebookNode] = []
    solved = False

    def add(cell: NotebookNode, *, heading: bool = False) -> None:
        nonlocal solved
        if solved and not heading:
            made.append(new_markdown_cell(AFTER_A_SOLUTION))
        solved = False
        made.append(cell)

    for cell in source.cells:
        if cell.cell_type == "code":
            add(cell)
            caption = cell.metadata.get("mystnb", {}).get("figure")
            if caption is not None:
                add(new_markdown_cell(writer.caption(caption.get("caption", "").strip())))
            continue
        for directive, text in _cut(cell.source):
            if directive is None:
                plain = writer.text(text)
                if plain:
                    add(new_markdown_cell(plain), heading=plain.startswith("#"))
            elif directive.name == "exercise":
                add(new_markdown_cell(writer.exercise(directive)), heading=True)
            elif directive.name == "solution-start":
                title = f"#### Solution to Exercise {writer.number_of('exercise', directive.argument)}"
                add(new_markdown_cell(title, metadata={"tags": ["solution"]}), heading=True)
            else:
                solved = True
    if made and made[0].source.startswith("# "):
        title, _, rest = made[0].source.partition("\n")
        made[0].source = f"{title}\n\n{HOW_TO_RUN}\n{rest}".strip()
    return made


def readable(text: str, chapter: Path, values: dict[str, str]) -> str:
    """The Markdown of ``chapter``, such as a caption's, in plain Markdown; see `cells`."""
    return _Writer(chapter, values).text(text)


def _cut(text: str) -> Iterator[tuple[Directive | None, str]]:
    """The text, cut at its exercises and at the marks round its solutions."""
    part: list[str] = []
    for token, lines in blocks(text):
        directive = Directive.of(token)
        if directive and directive.name in ("exercise", "solution-start", "solution-end"):
            yield None, "\n".join(part)
            yield directive, ""
            part = []
        else:
            part += lines
    yield None, "\n".join(part)


def _quotation(title: str, text: str) -> list[str]:
    return [f"> {line}".rstrip() for line in [f"**{title}**", "", *text.split("\n")]]


def _split(content: str) -> tuple[str, str]:
    """``title <target>`` -> title, target; a bare target has itself as title."""
    match = re.fullmatch(r"(.*?)\s*<([^<>]+)>", content, re.DOTALL)
    return (match[1], match[2]) if match else (content, content)


def _title(page: Path) -> str:
    heading = re.search(r"^# (.+)$", book.read_text(page), re.MULTILINE)
    return heading[1] if heading else page.stem


@cache
def _bibliography(path: Path, changed: int) -> dict[str, Entry]:
    return dict(parse_file(str(path)).entries)


def _address(entry: Entry) -> str | None:
    """Where a cited work can be read, as far as references.bib knows."""
    if "doi" in entry.fields:
        return f"https://doi.org/{entry.fields['doi']}"
    if "eprint" in entry.fields:
        return f"https://arxiv.org/abs/{entry.fields['eprint']}"
    return entry.fields.get("url")


@dataclass
class _Writer:
    """Writes the Markdown of one chapter out."""

    chapter: Path
    values: dict[str, str]
    drawn: int = field(default=0, init=False)  # figures so far

    def text(self, text: str, *, quoted: bool = False) -> str:
        """A text of any number of blocks.

        Args:
            quoted: whether it will stand in a quotation, where JupyterLab takes a display of one line only.
        """
        try:
            parts = [line for token, lines in blocks(text) for line in self._block(token, lines, quoted)]
        except Unreadable as error:
            name = f"book/{self.chapter.name}: "
            raise Unreadable(name + str(error).removeprefix(name)) from None
        return "\n".join(parts).strip("\n")

    def _block(self, token: Token | None, lines: list[str], quoted: bool) -> list[str]:
        if token is None:
            return lines
        directive = Directive.of(token)
        if token.level and (directive or token.type.startswith("math")):
            raise Unreadable(f"inside a list or a quotation, this has no plain form in tools/reading.py: {lines[0]}")
        if directive:
            return self._directive(directive)
        match token.type:
            case "inline":
                return self._inline("\n".join(lines)).split("\n")
            case "math_block" | "math_block_label":
                return self._display(token, quoted)
            case "myst_line_comment" | "myst_target":
                return []
        return lines

    def _display(self, token: Token, quoted: bool) -> list[str]:
        # The environment says that there is no other number, which jupyterlab_myst would put there.
        lines = ["$$", r"\begin{equation*}", *token.content.strip("\n").split("\n"), r"\end{equation*}", "$$"]
        if token.type == "math_block_label":
            lines.insert(-2, rf"\tag{{{self.number_of('equation', token.info)}}}")
        return [" ".join(line.strip() for line in lines)] if quoted else lines

    def _directive(self, directive: Directive) -> list[str]:
        name, argument = directive.name, directive.argument
        if name == "admonition" or name in ("note", "tip", "warning", "important"):
            title = self._inline(argument) or name.capitalize()
            if "dropdown" in directive.options.get("class", ""):
                # Markdown inside of HTML is Markdown after an empty line.
                summary = f"<details><summary><b>{title}</b></summary>"
                return [summary, "", *self.text(directive.body).split("\n"), "", "</details>"]
            return _quotation(title, self.text(directive.body, quoted=True))
        if name == "prf:theorem":
            title = f"Theorem {self.number_of('theorem', directive.label)}"
            title += f" ({self._inline(argument)})" if argument else ""
            return _quotation(title, self.text(directive.body, quoted=True))
        if name == "figure":
            picture = f"![{directive.options.get('alt', '')}]({self._relative(argument)})"
            return [picture, "", self.caption(directive.body)]
        if name == "laboratory":
            form = laboratory.forms().get(argument)
            if form is None:
                raise Unreadable(f"the laboratory has no form {argument!r}")
            picture = f"![{form['alt']}]({self._relative(laboratory.still(argument))})"
            return [picture, "", f"*On the page of the book, this moves.* {form['task']}"]
        raise Unreadable(f"the directive {{{name}}} has no plain form in tools/reading.py")

    def exercise(self, directive: Directive) -> str:
        heading = f"### Exercise {self.number_of('exercise', directive.label)}"
        return f"{heading}\n\n{self.text(directive.body)}"

    def caption(self, text: str) -> str:
        self.drawn += 1
        return f"**Figure {number(self.chapter, self.drawn - 1, figures)}.** {self.text(text)}"

    def number_of(self, kind: str, label: str) -> str:
        """The number of something that this chapter declares."""
        labels = COUNTED[kind](self.chapter)
        if label not in labels:
            raise Unreadable(f"no {kind} is labelled {label!r}")
        return number(self.chapter, labels.index(label), COUNTED[kind])

    def _inline(self, text: str) -> str:
        return INLINE.sub(self._written_out, text)

    def _written_out(self, match: re.Match[str]) -> str:
        if match["code"]:
            return match[0]
        if match["file"]:
            link = self._relative(match["file"])
            text = self._inline(match["text"]) or _title(self.chapter.parent / match["file"])
            return f"{match['image']}[{text}]({link})"
        role, content = match["role"], match["content"]
        if role in ("glue", "glue:text"):
            return self._glue(content)
        if role.startswith("cite"):
            return self._cite(role, content)
        if role in ("term", "abbr"):
            return _split(content)[0]
        if role == "doc":
            title, target = _split(content)
            page = target if target.endswith(".md") else f"{target}.md"
            link = self._relative(page)
            return f"[{title if title != target else _title(self.chapter.parent / page)}]({link})"
        if role in ("eq", "numref", "ref", "prf:ref"):
            return self._reference(*_split(content))
        raise Unreadable(f"the role {{{role}}} has no plain form in tools/reading.py")

    def _glue(self, content: str) -> str:
        # "key:.3f"; as in myst-nb, the last colon starts the format.
        key, _, spec = content.partition(":") if content not in self.values else (content, "", "")
        if key not in self.values:
            raise Unreadable(f"nothing is glued under the name {key!r}")
        value = self.values[key].strip("'\"")
        try:
            return re.sub("^-", "−", format(float(value), spec)) if spec else value
        except ValueError as error:
            raise Unreadable(f"{{glue:text}}`{content}`: {error}") from None

    def _cite(self, role: str, content: str) -> str:
        path = self.chapter.parent / "references.bib"
        entries = _bibliography(path, path.stat().st_mtime_ns)
        texts = []
        for key in (part.strip() for part in content.split(",")):
            if key not in entries:
                raise Unreadable(f"references.bib has no entry {key!r}")
            entry = entries[key]
            names = [
                " ".join(str(name) for name in [*person.rich_prelast_names, *person.rich_last_names])
                for person in entry.persons["author"]
            ]
            who = names[0] if len(names) == 1 else " and ".join(names) if len(names) == 2 else f"{names[0]} et al."
            year = entry.fields.get("year", "n.d.")
            text = f"{who} ({year})" if role.startswith("cite:t") else f"{who}, {year}"
            address = _address(entry)
            texts.append(f"[{text}]({address})" if address else text)
        return ", ".join(texts) if role.startswith("cite:t") else f"({'; '.join(texts)})"

    def _relative(self, file: str | Path) -> str:
        """The link from the chapter's notebook to a file of the book: to a chapter's notebook, else to the file."""
        target = (self.chapter.parent / file).resolve()
        if not target.is_file():
            raise Unreadable(f"there is no page {file}" if file.endswith(".md") else f"there is no file {file}")
        if target.suffix == ".md" and target.parent == self.chapter.parent and book.is_chapter(book.read_text(target)):
            target = book.notebook_of(target)
        return Path(os.path.relpath(target, book.notebook_of(self.chapter).parent)).as_posix()

    def _reference(self, title: str, label: str) -> str:
        """A number or a title; a link to it where another page has it."""
        pages = [self.chapter, *sorted(self.chapter.parent.glob("*.md"))]
        declared = ((page, kind) for page in pages for kind, labels in _listed(page).items() if label in labels)
        page, kind = next(declared, (None, ""))
        if page is None:
            raise Unreadable(f"no page declares the label {label!r}")
        if title == label:
            title = _title(page)
            if kind in COUNTED:
                count = number(page, COUNTED[kind](page).index(label), COUNTED[kind])
                title = f"({count})" if kind == "equation" else f"{kind.capitalize()} {count}"
        return title if page == self.chapter else f"[{title}]({self._relative(page.name)})"
