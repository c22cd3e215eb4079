"""The forms of the laboratory as chapters take them: one line in the chapter, a picture in its notebook."""

from __future__ import annotations

import re

import pytest

from tools import chapters as book
from tools import laboratory, reading
from tools.notebooks import Unreadable

CHAPTER = book.chapters()[0]


@pytest.mark.parametrize("name", laboratory.forms())
def test_a_form_says_all_that_is_needed(name):
    form = laboratory.forms()[name]
    assert {"views", "controls", "state", "task", "alt"} <= form.keys() <= {*laboratory.SETTINGS, "task", "alt"}
    assert "goal" in form or name == "whole"
    assert form["task"].endswith((".", "?"))
    assert not set("*_`[]<>") & set(form["task"] + form["alt"])  # it stands in HTML and in Markdown as it is


@pytest.mark.parametrize("name", laboratory.forms())
def test_in_a_notebook_a_picture_stands_in_its_place(name):
    text = reading.readable(f"Before.\n\n```{{laboratory}} {name}\n```\n\nAfter.", CHAPTER, {})
    assert re.match(r"Before\.\n\n!\[", text)
    assert text.endswith("\n\nAfter.")
    (target,) = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)
    assert (book.NOTEBOOKS / target).resolve() == laboratory.still(name)
    assert laboratory.forms()[name]["task"] in text


def test_a_form_that_does_not_exist_stops_the_notebook():
    with pytest.raises(Unreadable, match="no form 'none'"):
        reading.readable("```{laboratory} none\n```", CHAPTER, {})


def test_a_module_that_would_not_fit_into_the_script_is_noticed(tmp_path):
    """The script's maker knows few forms of import and export; others must not slip through it."""
    (tmp_path / "lab.css").write_text("", encoding="utf-8")
    (tmp_path / "main.js").write_text('import x from "./other.js";\n', encoding="utf-8")
    with pytest.raises(ValueError, match=r"main\.js"):
        laboratory.script(tmp_path)
