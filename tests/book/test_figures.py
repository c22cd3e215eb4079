"""Every figure can be read by someone who does not see it, and has a caption."""

from __future__ import annotations

import nbformat
import pytest

from tools import chapters as book

STORED = [chapter for chapter in book.chapters() if book.notebook_of(chapter).is_file()]
SHORTEST_ALT = 25  # characters; "A plot" says nothing


def faults(cell):
    """What a cell's figure lacks; nothing for a cell that draws none."""
    pictures = [output for output in cell.outputs if any(mime.startswith("image/") for mime in output.get("data", {}))]
    if not pictures:
        return []
    shown = cell.metadata.get("mystnb", {})
    figure, alt = shown.get("figure", {}), shown.get("image", {}).get("alt", "")
    found = []
    if len(alt) < SHORTEST_ALT:
        found.append(f"alt text: {alt!r} (mystnb: image: alt)")
    if not figure.get("caption", "").strip():
        found.append("no caption (mystnb: figure: caption)")
    if not figure.get("name", "").startswith("fig-"):
        found.append("no name fig-… (mystnb: figure: name)")
    if len(pictures) > 1:
        found.append("several pictures under one caption")
    return found


@pytest.mark.parametrize("chapter", STORED, ids=lambda path: path.stem)
def test_every_figure_has_alt_text_and_caption(chapter):
    notebook = book.read_notebook(book.notebook_of(chapter))
    found = [(cell.source[:60], faults(cell)) for cell in book.code_cells(notebook) if faults(cell)]
    assert not found


def drawn(metadata, times=1):
    picture = nbformat.v4.new_output("display_data", data={"image/png": "AAAA"})
    return nbformat.v4.new_code_cell(metadata=metadata, outputs=[picture] * times)


GOOD = {
    "figure": {"name": "fig-a", "caption": "What to see."},
    "image": {"alt": "Sixty points in the plane, in two colours."},
}


def test_a_good_figure_has_no_faults():
    assert not faults(drawn({"mystnb": GOOD}))
    assert not faults(nbformat.v4.new_code_cell())


@pytest.mark.parametrize(
    "metadata",
    [{}, {**GOOD, "image": {}}, {**GOOD, "image": {"alt": "A plot"}}, {**GOOD, "figure": {"name": "fig-a"}},
     {**GOOD, "figure": {"caption": "What to see."}}],
)  # fmt: skip
def test_each_lack_is_noticed(metadata):
    assert faults(drawn({"mystnb": metadata}))


def test_two_pictures_under_one_caption_are_noticed():
    assert faults(drawn({"mystnb": GOOD}, times=2))
