"""Print the whole book: ``_build/html/book.pdf``, from the pages that are built.

python -m tools.pdf

One document, so that its links lead to its own pages, with an outline of its headings. Everything that folds is open.
"""

from __future__ import annotations

import re
import sys
import time

from playwright.sync_api import sync_playwright

from tools import browser, command
from tools.build import SITE
from tools.chapters import table_of_contents
from tools.command import Failed

PDF = SITE / "book.pdf"
START, END = '<article class="bd-article">', "</article>"
SHEET = """@page { size: A4; margin: 18mm 16mm 20mm }
article { break-before: page } details > summary { display: none }
.bd-article :is(.formula, .pst-scrollable-table-container, div.highlight pre) { overflow: hidden !important }
.bd-article :is(td, th, td *, th *) { white-space: normal !important; overflow-wrap: anywhere }
body, .bd-main, .bd-content { display: block !important } .bd-article div.cell { margin-inline: 0 !important }
:root { --book-code: 0.72rem } html { font-size: 14px }"""
WIDTH = 673  # of the text, in CSS pixels: A4 without its margins
# A formula that is wider than the paper is set smaller: nothing scrolls there.
FIT = """() => document.querySelectorAll(".formula").forEach((box) => {
  const room = box.clientWidth / box.scrollWidth;
  if (room < 1) box.firstElementChild.style.fontSize = `${1.13 * room * 0.98}em`;
})"""
NUMBER = """<div style="width: 100%; text-align: center; font: 9px serif"><span class="pageNumber"></span></div>"""


def article(name: str, text: str, pages: set[str]) -> str:
    """A page's text, with identifiers of its own and links to where the other pages are in this document."""

    def link(found: re.Match[str]) -> str:
        page, _, anchor = found[1].partition("#")
        target = page.removesuffix(".html") if page else name
        if target not in pages:
            return found[0]
        return f'href="#{target}--{anchor}"' if anchor else f'href="#{target}"'

    body = text.partition(START)[2].partition(END)[0]
    body = re.sub(r'\bid="([^"]*)"', rf'id="{name}--\1"', body)
    body = re.sub(r'href="((?!\w+:)[^"]*)"', link, body)
    body = body.replace(' loading="lazy"', "").replace("<details", "<details open")
    return f'<article class="bd-article" id="{name}">{body}</article>'


def document() -> str:
    """All pages as one.

    Raises:
        Failed: without a built book.
    """
    names = [name.removeprefix("book/") for name, _ in table_of_contents()]
    try:
        texts = [(SITE / "book" / f"{name}.html").read_text(encoding="utf-8") for name in names]
    except FileNotFoundError as error:
        raise Failed(f"{error.filename} is missing: there is no whole book to print. Run `make book`.") from None
    articles = "\n".join(article(name, text, set(names)) for name, text in zip(names, texts, strict=True))
    return f"""<!doctype html><html lang="en" data-theme="light"><head><meta charset="utf-8">
<title>Where Does the Hessian Come From?</title><link rel="stylesheet" href="../_static/site.css">
<style>{SHEET}</style></head><body><div class="bd-main"><div class="bd-content">{articles}</div></div></body></html>"""


def main() -> int:
    start = time.perf_counter()
    with command.alone():
        whole = SITE / "book" / "whole.html"
        whole.write_text(document(), encoding="utf-8")
        try:
            with sync_playwright() as playwright:
                chromium = browser.launch(playwright.chromium)
                page = chromium.new_page(viewport={"width": WIDTH, "height": 900})
                page.emulate_media(media="print", color_scheme="light")
                page.goto(whole.as_uri())
                page.evaluate("document.fonts.ready.then(() => true)")
                page.evaluate(FIT)
                page.pdf(
                    path=PDF, prefer_css_page_size=True, outline=True, tagged=True,
                    display_header_footer=True, header_template="<span></span>", footer_template=NUMBER,
                )  # fmt: skip
                chromium.close()
        except browser.NoBrowser as error:
            raise Failed(str(error)) from None
        finally:
            whole.unlink()
    print(f"Printed in {time.perf_counter() - start:.0f} s: {PDF}")
    return 0


if __name__ == "__main__":
    sys.exit(command.run(main))
