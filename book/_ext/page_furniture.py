"""Sphinx extension: the buttons of a page, its scripts, and the notebooks to download.

- The launch button opens the chapter's executed notebook on Binder and Colab, for the repository the build comes from.
  Without a known repository there is no launch link to nowhere, but one to the page that says how to run the book.
- ``{install-line}`` shows the line that installs what a notebook needs, from that repository.
- The download button gives the stored notebook, the one that the tests ran.
- ``{stored-figure}`` shows a figure of a chapter, as its stored notebook has it, on another page.
- No page loads anything from another host.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote

from docutils import nodes
from docutils.parsers.rst import directives
from docutils.parsers.rst.directives.images import Figure
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tools import chapters as book  # noqa: E402

BINDER = "https://mybinder.org/v2"
# What docutils and the extensions write, and what says the same better, most of it for accessible pages: an item of
# a bibliography is none of a list, a heading of a table is empty, identifiers are there twice, and a label hides from
# screen readers what everyone else reads.
BETTER = {
    ' role="doc-biblioentry"': ' role="listitem"',
    '<th class="head"><p></p></th>': "<td></td>",
    '<section id="exercise-content">': "<section>",
    '<section id="solution-content">': "<section>",
    '<summary aria-label="Toggle hidden content">': "<summary>",
    '<span class="pasted-text">-': '<span class="pasted-text">−',  # a number below zero
}
# Code that is run on the page, by a program that the book has not got.
THEBE = re.compile(r'<script type="text/x-thebe-config">.*?</script>\s*<script>kernelName = .*?</script>', re.DOTALL)
PRINTED = re.compile(
    r'(<div class="output stream [^>]*><div class="highlight"><pre><span></span>)(.*?)(</pre>)', re.DOTALL
)
LONG = 60  # letters


def repository() -> str | None:
    """The web address of the repository: `BOOK_REPOSITORY_URL`, else the remote `origin`, else None."""
    url = os.environ.get("BOOK_REPOSITORY_URL", "").strip()
    if not url:
        try:
            url = subprocess.run(
                ["git", "remote", "get-url", "origin"], cwd=ROOT, capture_output=True, text=True, check=True
            ).stdout.strip()
        except (OSError, subprocess.CalledProcessError):
            return None
    return web_address(url)


def web_address(url: str) -> str | None:
    """``git@host:a/b.git``, ``ssh://git@host/a/b``, ``https://user:secret@host/a/b.git`` -> ``https://host/a/b``.

    None for what no reader can open: a folder, or a host without a dot.
    """
    match = re.fullmatch(
        r"(?:(?:https?|ssh|git)://)?(?:[^@/]+@)?(?P<host>[\w-]+(?:\.[\w-]+)+)(?::\d+)?[:/](?P<path>[^?#]+?)(?:\.git)?/?",
        url,
    )
    return f"https://{match['host']}/{match['path'].strip('/')}" if match else None


def binder_link(url: str, branch: str, notebook: str) -> str:
    """The address that opens ``notebook`` (its path in the repository) on Binder, in JupyterLab."""
    host, _, path = url.removeprefix("https://").partition("/")
    if host == "github.com":
        source = f"gh/{path}/{quote(branch, safe='')}"
    elif host == "gitlab.com":
        source = f"gl/{quote(path, safe='')}/{quote(branch, safe='')}"
    else:
        source = f"git/{quote(url, safe='')}/{quote(branch, safe='')}"
    return f"{BINDER}/{source}?urlpath={quote(f'lab/tree/{notebook}', safe='')}"


def colab_link(url: str, branch: str, notebook: str) -> str | None:
    """The address that opens ``notebook`` on Google Colab, which reads repositories on GitHub only; else None."""
    host, _, path = url.removeprefix("https://").partition("/")
    if host != "github.com":
        return None
    return f"https://colab.research.google.com/github/{path}/blob/{quote(branch, safe='')}/{notebook}"


def install_line(url: str | None) -> str:
    """What installs all that a notebook needs: from the repository, or in a clone where no repository is known."""
    return f'%pip install "hessian-book-helpers[book] @ git+{url}"' if url else 'pip install -e ".[book]"'


class InstallLine(SphinxDirective):
    """The line of `install_line`, as code to copy. Its content is for those who read the page's source."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        line = install_line(self.config.book_repository)
        return [nodes.literal_block(line, line, language="ipython3" if line.startswith("%") else "bash")]


class StoredFigure(Figure):
    """``{stored-figure} chapter figure-name``: the figure that this chapter's notebook drew, with its alt text.

    The content is the caption.
    """

    required_arguments = 2
    final_argument_whitespace = False
    option_spec: ClassVar = {"name": directives.unchanged}

    def run(self) -> list[nodes.Node]:
        chapter, figure = self.arguments
        notebook = book.notebook_of(book.BOOK / f"{chapter}.md")
        for cell in book.code_cells(book.read_notebook(notebook)):
            shown = cell.metadata.get("mystnb", {})
            if shown.get("figure", {}).get("name") == figure:
                break
        else:
            raise self.error(f"{notebook.name} has no figure {figure}")
        (png,) = [out.data["image/png"] for out in cell.outputs if "image/png" in out.get("data", {})]
        file = ROOT / "_build" / "stored-figures" / f"{figure}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(base64.b64decode(png))
        self.env.note_dependency(str(notebook))
        self.arguments = [f"/{file.relative_to(ROOT).as_posix()}"]
        self.options["alt"] = " ".join(shown["image"]["alt"].split())
        return super().run()

    @property
    def env(self) -> Any:
        return self.state.document.settings.env


def _button(text: str, url: str, icon: str, tooltip: str, label: str) -> dict[str, Any]:
    return {"type": "link", "text": text, "url": url, "icon": icon, "tooltip": tooltip, "label": label}


def _group(buttons: list[dict[str, Any]], icon: str, tooltip: str, label: str) -> dict[str, Any]:
    return {"type": "group", "buttons": buttons, "icon": icon, "tooltip": tooltip, "label": label}


def mark(printed: str) -> str:
    """Tell the lines that `holds` (✓) and `differs` (✗) printed from others, and sentences from tables.

    A sentence may go on in the next line where the page is narrow; a table keeps its columns, and scrolls.
    """

    def marked(line: str) -> str:
        text = re.sub("<[^>]*>", "", line)
        kind = {"✓ ": "check", "✗ ": "break"}.get(text[:2])
        if not kind and len(text) > LONG and not re.search(r"\S {2,}\S", text):
            kind = "sentence"
        return f'<span class="book-{kind}">{line}</span>' if kind else line

    return "\n".join(map(marked, printed.split("\n")))


def furnish(app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    """Replace the theme's buttons, which know only the page's source, by the book's."""
    # Thebe's script is put on every page, twice, used or not; the second one is an error.
    context["script_files"] = [
        script
        for script in context["script_files"]
        if "thebe" not in str(getattr(script, "filename", "")).lower()
        and "THEBE" not in str(getattr(script, "attributes", {}).get("body", ""))
    ]
    context["css_files"] = [sheet for sheet in context["css_files"] if "thebe" not in str(sheet)]
    body = THEBE.sub("", context.get("body", ""))
    for written, better in BETTER.items():
        body = body.replace(written, better)
    context["body"] = PRINTED.sub(lambda found: found[1] + mark(found[2]) + found[3], body)
    source = ROOT / f"{pagename}.md"
    if not source.is_file() or "header_buttons" not in context:
        return
    pathto, url = context["pathto"], repository()
    branch = os.environ.get("BOOK_REPOSITORY_BRANCH", "main")
    buttons = []
    downloads = [
        _button(".md", f"{pathto('_sources', 1)}/{context['sourcename']}", "fas fa-file", "Source of this page", "md")
    ]
    if book.is_chapter(book.read_text(source)):
        notebook = f"notebooks/{source.stem}.ipynb"
        running = pathto("book/running")
        launch = [_button("On your computer", running, "fas fa-laptop", "How to run it", "run-locally")]
        if url:
            launch.insert(
                0, _button("Binder", binder_link(url, branch, notebook), "fas fa-rocket", "Run it on Binder", "binder")
            )
            colab = colab_link(url, branch, notebook)
            if colab:
                launch.insert(
                    1, _button("Colab", colab, "fas fa-rocket", f"Run it on Colab, after {install_line(url)}", "colab")
                )
            launch.append(
                _button(
                    "Anywhere else", f"{running}#anywhere-else", "fas fa-terminal", install_line(url), "install-line"
                )
            )
        buttons.append(_group(launch, "fas fa-rocket", "Run this chapter", "launch-buttons"))
        downloads.insert(0, _button(".ipynb", pathto(notebook, 1), "fas fa-code", "The executed notebook", "ipynb"))
    if app.config.book_pdf:
        downloads.append(_button("All (.pdf)", pathto("book.pdf", 1), "fas fa-book", "The whole book, to print", "pdf"))
    if url:
        buttons.append(_button("", url, "fas fa-code-branch", "Repository", "repository-button"))
    buttons.append(_group(downloads, "fas fa-download", "Download this page", "download-buttons"))
    # Keep what the theme adds beside these: full screen, theme and search buttons.
    mine = {"launch-buttons", "download-buttons", "source-buttons", "source-repository-button"}
    kept = [button for button in context["header_buttons"] if button.get("label") not in mine]
    context["header_buttons"] = [*buttons, *kept]


def copy_files(app: Sphinx, error: Exception | None) -> None:
    """Put the stored notebooks into the site."""
    if error or app.builder.format != "html":
        return
    notebooks = Path(app.outdir) / "notebooks"
    shutil.rmtree(notebooks, ignore_errors=True)
    notebooks.mkdir()
    for chapter in book.chapters():
        shutil.copy2(book.notebook_of(chapter), notebooks)


def _extensions() -> str:
    """A hash of all that makes the pages beside their text."""
    sources = sorted(path for path in Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in sources)).hexdigest()


def setup(app: Sphinx) -> dict[str, Any]:
    # Part of the environment: another repository, or another of these extensions, renders the pages again.
    app.add_config_value("book_repository", repository(), "env")
    app.add_config_value("book_extensions", _extensions(), "env")
    app.add_config_value("book_pdf", (ROOT / "_build" / "html" / "book.pdf").is_file(), "html")
    app.add_directive("install-line", InstallLine)
    app.add_directive("stored-figure", StoredFigure)
    # The theme makes its buttons at 501.
    app.connect("html-page-context", furnish, priority=900)
    app.connect("build-finished", copy_files)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
