"""Sphinx extension: the pages show the outputs that stand in `notebooks/`, and the build never executes anything.

myst-nb looks up a chapter's outputs in a cache. This extension puts a chapter's stored outputs there before its page is
read. A notebook that is missing or stale stops the build: nothing old is ever shown silently.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn
from myst_nb.core.read import read_myst_markdown_notebook
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tools import chapters as book  # noqa: E402
from tools.execute import stale  # noqa: E402


def begin(app: Sphinx) -> None:
    """See that every notebook is its chapter's; nothing of an earlier build is left to be looked up."""
    check(book.chapters())
    shutil.rmtree(_cache_folder(app), ignore_errors=True)


def check(chapters: list[Path]) -> None:
    """Stop the build if one of these chapters' notebooks is stale."""
    try:
        reasons = {chapter: stale(chapter) for chapter in chapters}
    except book.Unreadable as error:
        raise ExtensionError(str(error)) from None
    lines = [f"  notebooks/{book.notebook_of(chapter).name}: {why}" for chapter, why in reasons.items() if why]
    if lines:
        raise ExtensionError("these notebooks are not their chapters':\n" + "\n".join(lines) + "\nRun `make execute`.")


def _cache_folder(app: Sphinx) -> Path:
    return Path(app.config.nb_execution_cache_path or Path(app.outdir).parent / ".jupyter_cache")


def fill_cache(app: Sphinx, env: Any, docnames: list[str]) -> None:
    """Give myst-nb the stored outputs of the chapters that are about to be read."""
    chapters = [chapter for chapter in book.chapters() if f"book/{chapter.stem}" in docnames]
    check(chapters)  # a preview builds again and again, and they may have changed since it began
    cache = get_cache(_cache_folder(app))
    for chapter in chapters:
        # Read as myst-nb will read it, so that the cache knows it again; the outputs come from the stored notebook.
        notebook = read_myst_markdown_notebook(book.read_text(chapter), app.env.myst_config)
        stored = book.read_notebook(book.notebook_of(chapter))
        for cell, done in zip(book.code_cells(notebook), book.code_cells(stored), strict=True):
            cell.outputs, cell.execution_count = done.outputs, done.execution_count
            for output in cell.outputs:
                output.get("data", {}).pop(book.RECORD, None)  # for the ledger; a page shows the line beside it
        notebook.metadata["language_info"] = {"name": "python", "pygments_lexer": "ipython3"}
        bundle = CacheBundleIn(notebook, str(chapter), data={"execution_seconds": 0})
        cache.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)


def depend_on_notebook(app: Sphinx, docname: str, source: list[str]) -> None:
    """A page is read again when its notebook changes, not only when its text does."""
    if book.is_chapter(source[0]):
        app.env.note_dependency(str(book.notebook_of(ROOT / f"{docname}.md")))


def nothing_executed(app: Sphinx, env: Any) -> None:
    """The proof of the promise above: a chapter that myst-nb ran itself carries a measured run time."""
    for docname, data in getattr(env, "nb_metadata", {}).items():
        if data.get("exec_data", {}).get("runtime"):
            raise ExtensionError(f"{docname} was executed by the build instead of shown from notebooks/")


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("builder-inited", begin)
    app.connect("env-before-read-docs", fill_cache)
    app.connect("source-read", depend_on_notebook)
    app.connect("env-updated", nothing_executed)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
