"""The laboratory in a browser: its script alone, and its forms as they stand on pages. No built book is needed."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
import torch

from tests.laboratory.scenes import Laboratory, hurried
from tests.pages.page_visits import browser, browser_context_args, page, serve, window  # noqa: F401
from tools import laboratory

PAGE = """<!doctype html><html lang="en" data-theme="light"><head><meta charset="utf-8"><title>{name}</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">
<style>html[data-theme="dark"] body {{ background: #14171a; color: #dfe3e6 }}</style></head>
<body><main><h1>{name}</h1>{before}<h2>The form</h2>{form}<p>What comes next.</p></main></body></html>"""


@pytest.fixture(autouse=True, scope="module")
def numbers_as_the_laboratory_has_them():
    """Of double precision; and on one thread, on which matrices this small are three times faster than on two."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    yield
    torch.set_default_dtype(before)


@pytest.fixture(scope="session")
def lab(browser) -> Iterator[Laboratory]:  # noqa: F811
    """The laboratory's functions, called from Python and run in the browser."""
    own = browser.new_page()
    yield Laboratory(own, laboratory.script())
    own.close()


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A site with one page for each form, by its name; ``whole`` is ``lab``; and one on which it lies far down."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "book").mkdir()
    (folder / "_static" / "lab").mkdir(parents=True)
    (folder / "_static" / "laboratory.js").write_text(hurried(laboratory.script()), encoding="utf-8")
    for name in laboratory.forms():
        still = laboratory.still(name)
        (folder / "_static" / "lab" / still.name).write_bytes(still.read_bytes())
        body = laboratory.html(name, "../")
        file = "lab" if name == "whole" else name
        (folder / "book" / f"{file}.html").write_text(PAGE.format(name=name, before="", form=body), encoding="utf-8")
    far = PAGE.format(name="far", before='<div style="height: 4000px"></div>', form=body + body)
    (folder / "book" / "far.html").write_text(re.sub(' id="laboratory[^"]*"', "", far), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def base_url(folder):
    with serve(folder) as address:
        yield address
