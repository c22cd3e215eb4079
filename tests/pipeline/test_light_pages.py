"""The one style sheet of all pages follows the book's own, whether or not a page changed with it."""

from __future__ import annotations

import shutil

from tests.pipeline.conftest import CONFIG
from tools import chapters as book

BUNDLED = """\
    light_pages: book/_ext
  config:
    html_static_path: [book/_static]
    html_css_files: [book.css]
    html_theme_options: {pygments_light_style: default, pygments_dark_style: monokai}
"""


def test_a_style_sheet_that_changed_alone_is_on_the_pages(made):
    shutil.copy(book.BOOK / "_ext" / "light_pages.py", made.root / "book" / "_ext")
    (made.root / "book" / "_static").mkdir()
    made.write("_config.yml", CONFIG + BUNDLED)
    for colour in ("#123450", "#123451"):
        made.write("book/_static/book.css", f".bd-article {{ color: {colour} }}\n")
        status, said = made.run("build")
        assert status == 0, said
        sheet = (made.root / "_build" / "html" / "_static" / "site.css").read_text("utf-8")
        assert colour in sheet
        assert 'html[data-theme="dark"] .highlight' in sheet  # code has its colours in the dark
