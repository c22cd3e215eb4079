"""The tools: what they make of a chapter's text, of a repository's address."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest

from tools import browser, reading
from tools import chapters as book

sys.path.insert(0, str(book.BOOK / "_ext"))
import page_furniture

HEADER = "---\njupytext:\n  text_representation:\n    format_name: myst\n---\n"


@pytest.fixture
def chapter(tmp_path):
    """A chapter among others; only its surroundings matter here."""
    folder = tmp_path / "book"
    folder.mkdir()
    (tmp_path / "_toc.yml").write_text(
        "format: jb-book\nroot: book/intro\nparts:\n- caption: A\n  numbered: 1\n  chapters:\n"
        "  - file: book/01-a\n  - file: book/02-b\n- caption: B\n  chapters:\n  - file: book/notation\n"
    )
    (folder / "01-a.md").write_text(
        HEADER + "# First\n\n$$ a $$ (def-x)\n\n$$ b $$ (eq-a)\n\n(sec-a)=\n## A part\n\n"
        "```{code-cell}\n:mystnb: {figure: {name: fig-a, caption: c}}\n1\n```\n"
    )
    (folder / "02-b.md").write_text(HEADER + "# Second\n\n$$ c $$ (eq-b)\n")
    (folder / "notation.md").write_text("# Notation\n")
    (folder / "references.md").write_text("# References\n")
    (folder / "references.bib").write_text(
        "@article{koh2017understanding, author={Koh, Pang Wei and Liang, Percy}, title={T}, year={2017}}\n"
        "@article{one, author={Hampel, Frank R.}, title={T}, year={1974}}\n"
        "@article{many, author={A, B and C, D and E, F}, title={T}, year={2023}}\n"
    )
    return folder / "02-b.md"


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("r = {glue:text}`r:.2f`.", "r = 0.99."),
        ("{glue:text}`name`", "Ann"),
        ("{cite:t}`one` says", "[Hampel (1974)](../book/references.md) says"),
        ("known {cite:p}`koh2017understanding,many`", "known ([Koh and Liang, 2017; A et al., 2023](../book/references.md))"),  # noqa: E501
        ("see [](01-a.md)", "see [First](01-a.ipynb)"),
        ("see [that](01-a.md#a-part)", "see [that](01-a.ipynb#a-part)"),
        ("see [](notation.md)", "see [Notation](../book/notation.md)"),
        ("see {doc}`notation`", "see [Notation](../book/notation.md)"),
        ("by {eq}`eq-a`", "by [(1.2)](01-a.ipynb)"),
        ("by {eq}`eq-b`", "by {eq}`eq-b`"),
        ("in {numref}`fig-a`", "in [Figure 1.1](01-a.ipynb)"),
        ("in {ref}`this part <sec-a>`", "in [this part](01-a.ipynb)"),
        ("the {term}`influence <Influence>`", "the influence"),
        ("the code `{eq}` and ``a `b` c`` stay", "the code `{eq}` and ``a `b` c`` stay"),
        ("```python\nx = '[](01-a.md)'\n```", "```python\nx = '[](01-a.md)'\n```"),
        ("% given: 1.25\nIt is 1.25.", "It is 1.25."),
        ("![picture](_static/x.svg) and [out](https://example.org/x.md)", "![picture](_static/x.svg) and [out](https://example.org/x.md)"),
    ],
)  # fmt: skip
def test_text_reads_without_sphinx(chapter, written, read):
    assert reading.readable(written, chapter, {"r": "0.987654", "name": "'Ann'"}) == read


@pytest.mark.parametrize(
    "written", ["{glue:text}`no`", "{cite}`nobody1999`", "[](no.md)", "{doc}`no`", "{eq}`eq-no`", "{numref}`fig-no`"]
)
def test_what_does_not_exist_is_named(chapter, written):
    with pytest.raises(book.Unreadable, match=r"book/02-b\.md: .*no"):
        reading.readable(written, chapter, {})


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


@pytest.mark.parametrize(("url", "launches"), [("https://github.com/a/b", 2), ("", 1)])
def test_without_a_repository_there_is_no_launch_link(monkeypatch, tmp_path, url, launches):
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
    page_furniture.furnish(None, name, "page.html", context, None)
    groups = {button["label"]: button for button in context["header_buttons"]}
    assert len(groups["launch-buttons"]["buttons"]) == launches
    assert ("repository-button" in groups) == bool(url)
    assert groups["download-buttons"]["buttons"][0]["url"] == f"notebooks/{book.chapters()[0].stem}.ipynb"
    assert "fullscreen-button" in groups
    assert [script.filename for script in context["script_files"]] == ["_static/a.js"]


def _no_remote(*arguments, **options):
    raise subprocess.CalledProcessError(2, "git")


def test_a_named_browser_that_is_not_there_is_an_error(monkeypatch):
    monkeypatch.setenv("CHROMIUM", "/no/such/chromium")
    with pytest.raises(browser.NoBrowser, match="/no/such/chromium"):
        browser.find()


def test_without_a_browser_it_says_what_helps(monkeypatch):
    monkeypatch.setattr(browser, "find", lambda: None)
    monkeypatch.setattr(browser, "install", lambda: None)
    with pytest.raises(browser.NoBrowser, match="playwright install"):
        browser.ensure()


def test_without_the_list_of_mistakes_the_error_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"tests/mistakes\.toml"):
        book.mistakes(tmp_path / "mistakes.toml")
