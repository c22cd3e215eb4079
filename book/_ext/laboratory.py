"""Sphinx extension: ``{laboratory} name`` puts a form of the laboratory on a page.

Until it is seen, and where there is no JavaScript, a picture stands in its place, and nothing else is loaded. The forms
are in ``book/_static/lab/forms.toml``.
"""

from __future__ import annotations

import hashlib
import sys
from html import escape
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tools import laboratory as lab  # noqa: E402

SCRIPT = "_static/laboratory.js"
# Loads the script when the form comes into view; the script finds all forms of the page.
LOADER = """<script>(() => { const place = document.currentScript.previousElementSibling, src = "%s";
new IntersectionObserver((seen, eye) => { if (!seen.some((one) => one.isIntersecting)) return; eye.disconnect();
if (!document.querySelector(`script[src="${src}"]`)) document.head.append(Object.assign(
document.createElement("script"), { src })); }, { rootMargin: "400px" }).observe(place); })();</script>"""


def html(name: str, form: dict[str, Any], up: str) -> str:
    """The place of a form: what is asked, a picture, and what the script needs to know. ``up`` leads to the site's root."""
    data = {key: form.get(key, "") for key in ("views", "controls", "more", "state", "goal")}
    data["home"] = f"{up}book/lab.html"
    if name == "whole":
        data["whole"] = ""
    attributes = "".join(f' data-{key}="{escape(value)}"' for key, value in data.items())
    version = hashlib.sha256(lab.script().encode()).hexdigest()[:8]
    return (
        f'<div class="laboratory" id="laboratory-{name}"{attributes}>\n'
        f'<p class="task">{escape(form["task"])}</p>\n'
        f'<figure class="still"><img src="{up}_static/lab/{lab.still(name).name}" alt="{escape(form["alt"])}" '
        'loading="lazy" width="800" height="400"></figure>\n'
        "</div>\n" + LOADER % f"{up}{SCRIPT}?{version}"
    )


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
        return [nodes.raw("", html(name, lab.forms()[name], up), format="html")]


def write_script(app: Sphinx, error: Exception | None) -> None:
    """Put the laboratory's script into the site."""
    if not error and app.builder.format == "html":
        (Path(app.outdir) / SCRIPT).write_text(lab.script(), encoding="utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("laboratory", Laboratory)
    app.connect("build-finished", write_script)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
