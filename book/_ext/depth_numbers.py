"""Pages in depth number their equations, figures and exercises by themselves: ``D3.2`` is the second on the third page.

They stand in no numbered part, so Sphinx would count through all of them, with bare numbers that a chapter could not be
told from.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

BEFORE, AFTER = 100, 900  # Sphinx's own numbering has 500


def take_back(app: Sphinx, env: BuildEnvironment) -> list[str]:
    """Sphinx's numbers again, so that it renders anew only the pages on which *they* change."""
    env.toc_fignumbers.update(getattr(env, "book_bare_numbers", {}))
    return []


def number(app: Sphinx, env: BuildEnvironment) -> list[str]:
    """``D``, the page's place among the pages in depth, and a count of each kind on the page."""
    pages = [page for page in env.toctree_includes.get(env.config.root_doc, []) if is_depth(page)]
    env.book_bare_numbers = {page: env.toc_fignumbers[page] for page in pages if page in env.toc_fignumbers}
    for place, page in enumerate(pages, 1):
        kinds: dict[str, dict[str, tuple[Any, ...]]] = env.toc_fignumbers.get(page, {})
        env.toc_fignumbers[page] = {
            kind: {name: (f"D{place}", count) for count, name in enumerate(numbers, 1)}
            for kind, numbers in kinds.items()
        }  # fmt: skip
    return []


def is_depth(page: str) -> bool:
    return PurePosixPath(page).name.startswith("depth-")


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("env-get-updated", take_back, priority=BEFORE)
    app.connect("env-get-updated", number, priority=AFTER)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
