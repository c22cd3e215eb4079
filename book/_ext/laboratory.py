"""Sphinx extension: ``{laboratory} name`` puts a form of the laboratory on a page.

Until it is seen, and where there is no JavaScript, a picture stands in its place, and nothing else is loaded. The forms
are in ``book/_static/lab/forms.toml``.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tools import laboratory as lab  # noqa: E402


class Laboratory(SphinxDirective):
    """A form of the laboratory, by its name."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        if name not in lab.forms():
            raise self.error(f"the laboratory has no form {name!r}; forms.toml has: {', '.join(lab.forms())}")
        for path in sorted(lab.LAB.iterdir()):
            self.env.note_dependency(str(path))
        up = "../" * self.env.docname.count("/")
        return [nodes.raw("", lab.html(name, up), format="html")]


def write_script(app: Sphinx, error: Exception | None) -> None:
    """Put the laboratory's script into the site."""
    if not error and app.builder.format == "html":
        (Path(app.outdir) / lab.SCRIPT).write_text(lab.script(), encoding="utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("laboratory", Laboratory)
    app.connect("build-finished", write_script)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
