"""Sphinx extension: what a search engine, a shared link and a wrong address show.

Where the site's address is known (`BOOK_SITE_URL`), its pages say so, and `sitemap.xml` lists them.
"""

from __future__ import annotations

import os
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from docutils import nodes
from sphinx.application import Sphinx

LONGEST = 155  # letters of a description that search engines show
INDEX = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<meta name="description" content="{description}">
<link rel="canonical" href="{first}">
<meta http-equiv="refresh" content="0; url={first}">
</head>
<body><main><h1>{title}</h1><p><a href="{first}">Read the book</a></p></main></body>
</html>
"""


def site_address(app: Sphinx, config: Any) -> None:
    address = os.environ.get("BOOK_SITE_URL", "").strip().rstrip("/")
    config.html_baseurl = f"{address}/" if address else ""
    config.html_additional_pages = {"404": "404.html"}


def description(doctree: nodes.document | None) -> str:
    """The first sentences of a page's own text; without any, what the book is about."""
    for paragraph in doctree.findall(nodes.paragraph) if doctree else ():
        if isinstance(paragraph.parent, nodes.section):
            text = " ".join(paragraph.astext().split())
            if len(text) > 60 and not any(paragraph.findall(nodes.math)):
                return text if len(text) <= LONGEST else text[:LONGEST].rpartition(" ")[0] + " …"
    return "Influence functions from first principles: what a trained model would say without one of its examples."


def say(app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    context["description"] = description(doctree)
    context["site"] = app.config.html_baseurl
    context["site_path"] = urlsplit(app.config.html_baseurl).path or "/"
    context["metatags"] = ""  # the theme says the same of the viewport


def store(app: Sphinx, error: Exception | None) -> None:
    """The page that leads to the first one, and, for search engines, the list of all."""
    if error or app.builder.format != "html":
        return
    folder, base, root = Path(app.outdir), app.config.html_baseurl, app.config.root_doc
    about = {"title": escape(app.config.project), "description": escape(description(app.env.get_doctree(root)))}
    (folder / "index.html").write_text(INDEX.format(first=f"{root}.html", **about), encoding="utf-8")
    if base:
        pages = "".join(f"<url><loc>{escape(base)}{name}.html</loc></url>" for name in sorted(app.env.found_docs))
        listed = f'<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">{pages}</urlset>'
        (folder / "sitemap.xml").write_text(f'<?xml version="1.0" encoding="utf-8"?>\n{listed}\n', encoding="utf-8")
        (folder / "robots.txt").write_text(f"User-agent: *\nAllow: /\nSitemap: {base}sitemap.xml\n", encoding="utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("config-inited", site_address)
    app.connect("html-page-context", say)
    app.connect("build-finished", store, priority=900)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
