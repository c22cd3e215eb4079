"""What the preview shows after edits is what a whole build of the same text would show."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tools import chapters as book

FIGURE = "```{{figure}} dot.svg\n:name: {name}\n:alt: A dot.\n\n{caption}\n```\n\n"
REFERENCE = "See {numref}`fig-old`.\n\n$$\nx = 1\n$$ (eq-x)\n\n"
# Each line of what it reads is one update; what it prints says that the update is done.
PREVIEW = """
import sys
from tools import build
from tools.serve import Preview
{slip}
with build.book() as app:
    preview = Preview(app)
    preview.update()
    print("READY", flush=True)
    for line in sys.stdin:
        preview.update()
        print("READY", flush=True)
"""
# As it would be without the care for what one build leaves to the next.
FORGETFUL = {
    "numbers and scripts": "from tools import serve; serve._carried_over = lambda app: []",
    "figures": "Preview._forget = lambda *arguments: None",
}


class Ended(Exception):
    """The preview came to an end by itself; the message is all that it said."""


def previewed(made, edits, slip=""):
    """The pages of a preview that has followed some edits: each edit a file and its text."""
    process = subprocess.Popen(
        [sys.executable, "-c", PREVIEW.format(slip=slip)], cwd=made.root,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8",
    )  # fmt: skip
    said = []
    try:
        for edit in [None, *edits]:
            if edit:
                made.write(*edit)
                process.stdin.write("\n")
                process.stdin.flush()
            while (line := process.stdout.readline()) != "READY\n":
                if not line:
                    raise Ended("".join(said))
                said.append(line)
    finally:
        process.kill()
        process.communicate()
    return pages(made)


def pages(made):
    folder = made.root / "_build" / "html" / "book"
    return {page.stem: page.read_text(encoding="utf-8") for page in folder.glob("0*.html")}


def edits(made):
    """A figure and its caption, a page that refers to it, a heading, an equation, a slip, and a word."""
    made.write("book/dot.svg", '<svg xmlns="http://www.w3.org/2000/svg"><circle r="1"/></svg>')
    first, second = (book.read_text(made.root / "book" / name) for name in ("01-first.md", "02-second.md"))
    old = first + "\n" + FIGURE.format(caption="Old caption", name="fig-old")
    new = first.replace("Some words.", FIGURE.format(caption="Before it", name="fig-new")) + "\n"
    new += FIGURE.format(caption="New caption", name="fig-old")
    return [
        ("book/01-first.md", old),
        ("book/02-second.md", second + "\n" + REFERENCE),
        ("book/01-first.md", new.replace("# A title", "# Another title")),
        ("book/02-second.md", second + "\n{glue:text}`no:.q`\n"),
        ("book/02-second.md", second + "\nA word.\n\n" + REFERENCE + "By {eq}`eq-x`.\n"),
    ]


def test_the_preview_shows_what_a_whole_build_shows(made):
    shown = previewed(made, edits(made))
    assert "Another title" in shown["01-first"]
    assert "Fig. 1.2" in shown["02-second"]  # no longer the first
    assert "A word." in shown["02-second"]
    status, said = made.run("build", "--all")
    assert status == 0, said
    assert shown == pages(made)


@pytest.mark.parametrize("slip", FORGETFUL)
def test_a_preview_that_goes_on_with_what_was_is_noticed(made, slip):
    try:
        shown = previewed(made, edits(made), FORGETFUL[slip])
    except Ended:  # so it is with figures: Sphinx misses the new one's number
        return
    assert made.run("build", "--all")[0] == 0
    assert shown != pages(made)
