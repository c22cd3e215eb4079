"""The notebooks as they are read without Sphinx: plain Markdown, numbered as the pages are, with links that lead on."""

from __future__ import annotations

import html
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
from markdown_it import MarkdownIt
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from tools import chapters as book
from tools import reading
from tools.build import SITE
from tools.notebooks import Unreadable, folded

sys.path.insert(0, str(book.BOOK / "_ext"))
import page_furniture

STORED = [chapter for chapter in book.chapters() if book.notebook_of(chapter).is_file()]
# What only Sphinx or MyST understands: roles, directives, comments, labels.
RAW = re.compile(
    r"\{[a-z:]+\}`|^\{[a-z:-]+\}|^:{3,}|^%|^\([\w-]+\)=|\b(?:eq|def|ex|fig|thm|sec)-[a-z]|<!--", re.MULTILINE
)
EQUATION = re.compile(r"\\tag\{(D?[\d.]+)\}")
HEADED = {
    "Exercise": re.compile(r"^### Exercise (D?[\d.]+)$", re.MULTILINE),
    "Theorem": re.compile(r"^> \*\*Theorem (D?[\d.]+)", re.MULTILINE),
    "Figure": re.compile(r"^\*\*Figure (D?[\d.]+)\.\*\*", re.MULTILINE),
}


def prose(chapter):
    """The Markdown cells of a chapter's stored notebook."""
    return [cell.source for cell in book.markdown_cells(book.read_notebook(book.notebook_of(chapter)))]


def tokens(text):
    """The text as any reader of Markdown takes it: each block, and what is inside a paragraph."""
    for token in MarkdownIt("commonmark").parse(text):
        yield from [token, *(token.children or [])]


def raw(text):
    """What is left of the chapter's own syntax, outside of code."""
    words = ""
    for token in tokens(text):
        if token.type in ("fence", "html_block"):
            words += f"\n{token.info or token.content}\n"
        elif token.type == "code_inline":
            words += "`"
        else:
            words += "\n" if token.type in ("inline", "softbreak") else token.content
    return RAW.findall(words)


def dead(text):
    """Links to files that are not in the repository."""
    links = [
        token.attrGet("href") or token.attrGet("src") for token in tokens(text) if token.type in ("link_open", "image")
    ]
    inside = [link for link in links if link and not link.startswith(("https://", "http://"))]
    return [link for link in inside if not (book.NOTEBOOKS / link).resolve().is_file()]


@pytest.mark.parametrize("chapter", STORED, ids=lambda path: path.stem)
def test_no_syntax_of_the_book_is_left(chapter):
    assert not {cell[:60]: raw(cell) for cell in prose(chapter) if raw(cell)}


@pytest.mark.parametrize("chapter", STORED, ids=lambda path: path.stem)
def test_no_link_of_a_notebook_is_dead(chapter):
    assert not [link for cell in prose(chapter) for link in dead(cell)]


@pytest.mark.parametrize(
    "left",
    [
        "see {cite:p}`koh2017understanding`", "{glue:text}`x:.2f`", ":::{admonition} Note", "```{exercise}\nDo.\n```",
        "$$ a $$ (eq-a)", "(sec)=", "% given: 0.3", "(def-risk)", "```{figure} x.svg\n```", "<!-- later -->", ":::",
    ],
)  # fmt: skip
def test_syntax_that_is_left_is_noticed(left):
    assert raw(f"Before.\n\n{left}\n\nAfter.")


@pytest.mark.parametrize("plain", ["a (3.1) b", "$x_{\\text{a}}$", "```python\nd = {}\n```", "50 %", "the code `x-1`"])
def test_plain_text_is_left_alone(plain):
    assert not raw(f"Before.\n\n{plain}\n\nAfter.")


def test_a_dead_link_is_noticed():
    assert dead("[a](01-upweighting.ipynb) [b](01-upweighting.md) [c](https://example.org)") == ["01-upweighting.md"]


def numbered(text):
    """The numbers in a notebook's text: of its displays, exercises, theorems and figures."""
    return {"Equation": EQUATION.findall(text)} | {name: found.findall(text) for name, found in HEADED.items()}


def numbered_on_the_page(text):
    """The numbers that Sphinx wrote on a page, of the same things."""
    found = {"Equation": re.findall(r'class="eqno">\((D?[\d.]+)\)', text)}
    for name in HEADED:
        found[name] = re.findall(rf'class="caption-number">{name} (D?[\d.]+)', text)
    return found


@pytest.mark.parametrize("chapter", STORED, ids=lambda path: path.stem)
def test_a_notebook_numbers_as_its_page_does(chapter):
    page = SITE / "book" / f"{chapter.stem}.html"
    if not page.is_file():
        pytest.fail(f"{page.name} is not built: run `make book`")
    found = numbered("\n\n".join(prose(chapter)))
    assert bool(found["Equation"]) == bool(book.labels(chapter))
    assert len(set(found["Equation"])) == len(found["Equation"])
    on_page = numbered_on_the_page(html.unescape(page.read_text(encoding="utf-8")))
    assert {name: [n.rstrip(".") for n in numbers] for name, numbers in on_page.items()} == found


def test_numbers_that_differ_are_noticed():
    written = numbered("$$\nx\n\\tag{3.1}\n$$\n\n### Exercise 3.2\n\n> **Theorem 3.1 (So)**\n\n**Figure 3.3.** A.")
    page = '<span class="eqno">(3.1)</span><span class="caption-number">Exercise 3.2 </span>'
    assert written == {"Equation": ["3.1"], "Exercise": ["3.2"], "Theorem": ["3.1"], "Figure": ["3.3"]}
    assert numbered_on_the_page(page) != written


# --- What is made of a chapter's text ---------------------------------------------------------------------------------

HEADER = "---\njupytext:\n  text_representation:\n    format_name: myst\n---\n"


@pytest.fixture
def chapter(tmp_path):
    """A chapter among others; only its surroundings matter here."""
    folder = tmp_path / "book"
    folder.mkdir()
    (tmp_path / "_toc.yml").write_text(
        "format: jb-book\nroot: book/intro\nparts:\n- caption: A\n  numbered: 1\n  chapters:\n"
        "  - file: book/01-a\n  - file: book/02-b\n- caption: B\n  chapters:\n  - file: book/notation\n",
        encoding="utf-8",
    )
    (folder / "01-a.md").write_text(
        HEADER + "# First\n\n$$ a $$ (def-x)\n\n$$ b $$ (eq-a)\n\n(sec-a)=\n## A part\n\n"
        "```{code-cell}\n:mystnb: {figure: {name: fig-a, caption: c}}\n1\n```\n",
        encoding="utf-8",
    )
    (folder / "02-b.md").write_text(
        HEADER + "# Second\n\n$$ c $$ (eq-b)\n\n```{exercise}\n:label: ex-a\n\nDo.\n```\n\n"
        "```{prf:theorem}\n:label: thm-a\n\nSo.\n```\n",
        encoding="utf-8",
    )
    (folder / "x.svg").write_text("<svg/>", encoding="utf-8")
    (folder / "notation.md").write_text("# Notation\n", encoding="utf-8")
    (folder / "references.md").write_text("# References\n", encoding="utf-8")
    (folder / "references.bib").write_text(
        "@article{koh2017understanding, author={Koh, Pang Wei and Liang, Percy}, title={T}, year={2017}}\n"
        "@article{one, author={Hampel, Frank R.}, title={T}, year={1974}, doi={10.1/x}}\n"
        "@article{two, author={L{\\'o}pez, A and de la Cruz, B}, title={T}, year={1999}, eprint={1.2}}\n"
        "@article{many, author={A, B and C, D and E, F}, title={T}, year={2023}}\n",
        encoding="utf-8",
    )
    return folder / "02-b.md"


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("r = {glue:text}`r:.2f`.", "r = 0.99."),
        ("{glue:text}`name`", "Ann"),
        ("{cite:t}`one` says", "[Hampel (1974)](https://doi.org/10.1/x) says"),
        ("{cite:t}`two`", "[López and de la Cruz (1999)](https://arxiv.org/abs/1.2)"),
        ("known {cite:p}`one,many`", "known ([Hampel, 1974](https://doi.org/10.1/x); A et al., 2023)"),
        ("see [](01-a.md)", "see [First](01-a.ipynb)"),
        ("see [that](01-a.md#a-part)", "see [that](01-a.ipynb)"),
        ("see [](notation.md)", "see [Notation](../book/notation.md)"),
        ("see {doc}`notation`", "see [Notation](../book/notation.md)"),
        ("by {eq}`eq-a`", "by [(1.2)](01-a.ipynb)"),
        ("by {eq}`eq-b`", "by (2.1)"),
        ("by {eq}`eq-a` and [{eq}`eq-b`](01-a.md)", "by [(1.2)](01-a.ipynb) and [(2.1)](01-a.ipynb)"),
        ("by {prf:ref}`thm-a` and {ref}`ex-a`", "by Theorem 2.1 and Exercise 2.1"),
        ("(sec-b)=\n## Here", "## Here"),
        ("$$\nc\n$$ (eq-b)", "$$\n\\begin{equation*}\nc\n\\tag{2.1}\n\\end{equation*}\n$$"),
        ("$$ c $$", "$$\n\\begin{equation*}\n c \n\\end{equation*}\n$$"),
        (":::{admonition} Look\n:class: note\n$$\nc\n$$\nand {eq}`eq-b`\n:::",
         "> **Look**\n>\n> $$ \\begin{equation*} c \\end{equation*} $$\n> and (2.1)"),
        (":::{admonition} Which {eq}`eq-b`?\n:class: dropdown predict\n\n- It is {glue:text}`r:.1f`.\n:::",
         "<details><summary><b>Which (2.1)?</b></summary>\n\n- It is 1.0.\n\n</details>"),
        ("```{prf:theorem} So\n:label: thm-a\n\n- {glue:text}`r:.1f`\n```", "> **Theorem 2.1 (So)**\n>\n> - 1.0"),
        ("- a {glue:text}`r:.1f`\n\n  > b {eq}`eq-b`", "- a 1.0\n\n  > b (2.1)"),
        ("| {glue:text}`r:.1f` | {eq}`eq-b` |\n|---|---|\n| a | - |", "| 1.0 | (2.1) |\n|---|---|\n| a | - |"),
        ("in {numref}`fig-a`", "in [Figure 1.1](01-a.ipynb)"),
        ("in {ref}`this part <sec-a>`", "in [this part](01-a.ipynb)"),
        ("the {term}`influence <Influence>`", "the influence"),
        ("the code `{eq}` and ``a `b` c`` stay", "the code `{eq}` and ``a `b` c`` stay"),
        ("```python\nx = '[](01-a.md)'\n```", "```python\nx = '[](01-a.md)'\n```"),
        ("% given: 1.25\nIt is 1.25.", "It is 1.25."),
        ("![picture](x.svg)", "![picture](../book/x.svg)"),
        ("![there](https://example.org/x.svg), [out](https://example.org/x.md)",) * 2,
    ],
)  # fmt: skip
def test_text_reads_without_sphinx(chapter, written, read):
    assert reading.readable(written, chapter, {"r": "0.987654", "name": "'Ann'"}) == read


@pytest.mark.parametrize(
    "written", ["{glue:text}`no`", "{cite}`nobody1999`", "[](no.md)", "{doc}`no`", "{eq}`eq-no`", "{numref}`fig-no`",
     "{glue:text}`r:.q2f`", "{nobody}`x`", "```{nothing}\n```", "- a\n\n  ```{note}\n  ```", "$$ x $$ (eq-no)"],
)  # fmt: skip
def test_what_does_not_exist_is_named(chapter, written):
    with pytest.raises(Unreadable, match=r"^book/02-b\.md: .*(no|q2f)"):
        reading.readable(written, chapter, {"r": "0.5"})


EXERCISE = "```{exercise}\n:label: ex-a\n\nDo {glue:text}`r:.1f`.\n```\n\n"
SOLUTION = "```{solution-start} ex-a\n:class: dropdown\n```\n\nThus.\n\n"
END = "```{solution-end}\n```\n\n"


def made(chapter, *sources):
    """What becomes of a chapter of these cells: Markdown as it is, code as a number."""
    cells = [new_markdown_cell(s) if isinstance(s, str) else new_code_cell(str(s), metadata={}) for s in sources]
    return reading.cells(new_notebook(cells=cells), chapter, {"r": "1"})


def test_a_solution_is_folded_up_to_what_follows_it(chapter):
    cells = made(chapter, "# Title\n\nText.\n\n" + EXERCISE + SOLUTION, 1, END + "It leads on.")
    assert [cell.source for cell in cells] == [
        f"# Title\n\n{reading.HOW_TO_RUN}\n\nText.",
        "### Exercise 2.1\n\nDo 1.0.",
        "#### Solution to Exercise 2.1",
        "Thus.",
        "1",
        reading.AFTER_A_SOLUTION,
        "It leads on.",
    ]
    assert [bool(folded(cell)) for cell in cells] == [False, False, True, False, False, False, False]


@pytest.mark.parametrize("after", ["## A heading", EXERCISE])
def test_a_heading_after_a_solution_is_enough(chapter, after):
    assert reading.AFTER_A_SOLUTION not in [cell.source for cell in made(chapter, EXERCISE + SOLUTION + END + after)]


def test_code_after_a_solution_is_not_folded_with_it(chapter):
    assert [cell.source for cell in made(chapter, EXERCISE + SOLUTION + END, 1)][-2:] == [reading.AFTER_A_SOLUTION, "1"]


def test_figures_are_counted_wherever_they_come_from(chapter):
    source = HEADER + "# Second\n\n```{figure} x.svg\n:alt: A\n\nDrawn.\n```\n\n"
    source += "```{code-cell}\n:mystnb: {figure: {name: fig-b, caption: Made.}}\n1\n```\n\n{numref}`fig-b`\n"
    chapter.write_text(source, encoding="utf-8")
    cells = reading.cells(book.read_chapter(chapter), chapter, {})
    assert cells[0].source.endswith("![A](../book/x.svg)\n\n**Figure 2.1.** Drawn.")
    assert [cell.source for cell in cells[1:]] == ["1", "**Figure 2.2.** Made.", "Figure 2.2"]


@pytest.mark.parametrize(
    ("remote", "address"),
    [
        ("https://github.com/a/b.git", "https://github.com/a/b"),
        ("https://user:secret@github.com/a/b", "https://github.com/a/b"),
        ("git@gitlab.com:group/sub/b.git", "https://gitlab.com/group/sub/b"),
        ("ssh://git@example.org:2222/a/b.git", "https://example.org/a/b"),
        ("/srv/git/b.git", None),
        ("../b", None),
        ("file:///srv/b.git", None),
        ("", None),
    ],
)
def test_the_address_of_a_remote(remote, address):
    assert page_furniture.web_address(remote) == address


@pytest.mark.parametrize(
    ("url", "link"),
    [
        ("https://github.com/a/b", "https://mybinder.org/v2/gh/a/b/main?urlpath=lab%2Ftree%2Fnotebooks%2Fx.ipynb"),
        ("https://gitlab.com/g/s/b", "https://mybinder.org/v2/gl/g%2Fs%2Fb/main?urlpath=lab%2Ftree%2Fnotebooks%2Fx.ipynb"),
        ("https://example.org/b", "https://mybinder.org/v2/git/https%3A%2F%2Fexample.org%2Fb/main"
                                  "?urlpath=lab%2Ftree%2Fnotebooks%2Fx.ipynb"),
    ],
)  # fmt: skip
def test_the_launch_link(url, link):
    assert page_furniture.binder_link(url, "main", "notebooks/x.ipynb") == link


@pytest.mark.parametrize(
    ("url", "link"),
    [
        ("https://github.com/a/b", "https://colab.research.google.com/github/a/b/blob/main/notebooks/x.ipynb"),
        ("https://gitlab.com/g/b", None),
    ],
)
def test_colab_opens_what_is_on_github(url, link):
    assert page_furniture.colab_link(url, "main", "notebooks/x.ipynb") == link


def test_the_line_that_installs_what_a_notebook_needs():
    url = "https://github.com/a/b"
    assert page_furniture.install_line(url) == f'%pip install "hessian-book-helpers[book] @ git+{url}"'
    assert page_furniture.install_line(None) == 'pip install -e ".[book]"'
    # The notebook's own line is the same but for the address that it cannot know.
    assert f"`{page_furniture.install_line('ADDRESS')}`" in reading.HOW_TO_RUN


@pytest.mark.parametrize(
    ("url", "launches"),
    [
        ("https://github.com/a/b", ["binder", "colab", "run-locally", "install-line"]),
        ("https://gitlab.com/a/b", ["binder", "run-locally", "install-line"]),
        ("", ["run-locally"]),
    ],
)
def test_there_is_no_launch_link_to_nowhere(monkeypatch, url, launches):
    monkeypatch.setenv("BOOK_REPOSITORY_URL", url)
    if not url:  # nor a remote
        monkeypatch.setattr(page_furniture.subprocess, "run", _no_remote)
    context = {
        "script_files": [SimpleNamespace(filename="_static/sphinx-thebe.js"), SimpleNamespace(filename="_static/a.js")],
        "css_files": [],
        "header_buttons": [{"label": "download-buttons"}, {"label": "fullscreen-button"}],
        "pathto": lambda name, kind=0: name,
        "sourcename": "x.md",
        "body": "",
    }
    name = f"book/{book.chapters()[0].stem}"
    page_furniture.furnish(SimpleNamespace(config=SimpleNamespace(book_pdf="")), name, "page.html", context, None)
    groups = {button["label"]: button for button in context["header_buttons"]}
    assert [button["label"] for button in groups["launch-buttons"]["buttons"]] == launches
    assert ("repository-button" in groups) == bool(url)
    assert groups["download-buttons"]["buttons"][0]["url"] == f"notebooks/{book.chapters()[0].stem}.ipynb"
    assert "fullscreen-button" in groups
    assert [script.filename for script in context["script_files"]] == ["_static/a.js"]


def _no_remote(*arguments, **options):
    raise subprocess.CalledProcessError(2, "git")
