"""Render the book: ``_build/html``. Nothing is executed here; a stale notebook stops the build.

python -m tools.build              what changed
python -m tools.build --all        every page
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import yaml
from jupyter_book.config import get_final_config
from sphinx.application import Sphinx
from sphinx.errors import SphinxError
from sphinx.util.docutils import docutils_namespace, patch_docutils

from tools import command
from tools.command import ROOT, Failed

SITE = ROOT / "_build" / "html"


@contextlib.contextmanager
def book() -> Iterator[Sphinx]:
    """Jupyter Book's Sphinx, as `jupyter-book build . -n -W --keep-going` sets it up; it can build more than once.

    Raises:
        Failed: if the book cannot even be set up; the message says what is wrong with it.
    """
    try:
        config, _ = get_final_config(
            user_yaml=ROOT / "_config.yml",
            cli_config={"external_toc_path": str(ROOT / "_toc.yml"), "nitpicky": True, "latex_individualpages": False},
            sourcedir=ROOT,
            use_external_toc=True,
        )
    except (yaml.YAMLError, ValueError, UnicodeDecodeError) as error:
        raise Failed(f"_config.yml: {error}") from None
    with patch_docutils(None), docutils_namespace():
        try:
            app = Sphinx(
                ROOT, None, SITE, ROOT / "_build" / ".doctrees", "html",
                confoverrides=config, status=None, warning=sys.stderr, warningiserror=True, keep_going=True,
            )  # fmt: skip
            app.setup_extension("sphinx_multitoc_numbering")
        except SphinxError as error:
            raise Failed(_said(error)) from None
        yield app


def _said(error: SphinxError) -> str:
    """What went wrong, without Sphinx's frame round what one of our extensions said."""
    return str(getattr(error, "orig_exc", None) or error)


def render(app: Sphinx, pages: list[Path] | None = None, *, everything: bool = False) -> bool:
    """Build what changed, or some pages, or everything; return whether there was no warning.

    Raises:
        Failed: if the build stopped; the message says why.
    """
    app.statuscode = app._warncount = 0  # of this build, not of the ones before
    try:
        app.build(everything, [str(page) for page in pages or []])
    except SphinxError as error:
        raise Failed(_said(error)) from None
    return app.statuscode == 0 and app._warncount == 0


def main() -> int:
    start = time.perf_counter()
    with command.alone(), book() as app:
        if not render(app, everything="--all" in sys.argv[1:]):
            print("The build has warnings, see above: every one is a mistake in a page.", file=sys.stderr)
            return 1
    print(f"Built in {time.perf_counter() - start:.0f} s: {SITE / 'index.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(command.run(main))
