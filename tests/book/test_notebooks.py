"""The stored notebooks are the chapters', executed from top to bottom, and the same bytes every time."""

from __future__ import annotations

import re
import shutil

import pytest

from tools import chapters as book
from tools import execute

CHAPTERS = book.chapters()
STORED = [chapter for chapter in CHAPTERS if book.notebook_of(chapter).is_file()]
# What must not stand in a notebook that other people open: this machine's folders, an object's address.
PRIVATE = re.compile(
    r"(?<![\w.])/(?:home|root|Users|tmp|usr|opt|var|private)/\w|[A-Z]:\\\\|site-packages|\bat 0x[0-9a-f]{6,}"
)


def each(chapters):
    return pytest.mark.parametrize("chapter", chapters, ids=lambda path: path.stem)


@each(CHAPTERS)
def test_is_its_chapters(chapter):
    assert execute.stale(chapter) is None


def test_no_notebook_without_a_chapter():
    assert execute.orphans() == []


@each(STORED)
def test_counts_run_from_one(chapter):
    cells = book.code_cells(book.read_notebook(book.notebook_of(chapter)))
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))


@each(STORED)
def test_prints_no_warning_and_no_error(chapter):
    for cell in book.code_cells(book.read_notebook(book.notebook_of(chapter))):
        for output in cell.outputs:
            assert output.output_type != "error"
            assert output.get("name") != "stderr", output.text


@each(STORED)
def test_has_nothing_private(chapter):
    found = PRIVATE.findall(book.read_text(book.notebook_of(chapter)))
    assert not found


@pytest.mark.parametrize(
    "text", ["/home/ann/x.py", "C:\\\\Users\\\\ann", "<object at 0x7f0a12bc>", "lib/site-packages/torch", "see /tmp/a1"]
)
def test_private_things_are_noticed(text):
    assert PRIVATE.search(text)


@pytest.mark.parametrize("text", ["w/home/x", "1/n", "https://example.org/usr", "at 0x"])
def test_harmless_things_are_not(text):
    assert not PRIVATE.search(text.replace("https://example.org", "org"))


@pytest.mark.skipif(not STORED, reason="no chapter has been executed yet")
def test_two_runs_give_the_same_bytes():
    seconds = execute.timings()
    shortest = min(STORED, key=lambda path: seconds.get(path.stem, 60))
    # Compared with each other, not with what is stored: a picture's bytes may differ between systems.
    assert execute.run(shortest) == execute.run(shortest)


# --- What execution does with a chapter, on a small book of its own --------------------------------------------------

HEADER = """---
jupytext:
  text_representation:
    extension: .md
    format_name: myst
kernelspec:
  display_name: Python 3
  name: python3
---

# A title

"""


def cell(code):
    return f"```{{code-cell}} ipython3\n{code}\n```\n"


@pytest.fixture
def small_book(tmp_path):
    """A book of one chapter, and a way to write it."""
    for folder in ("book", "helpers", "notebooks"):
        (tmp_path / folder).mkdir()
    (tmp_path / "requirements.txt").write_text("torch==1\n")
    (tmp_path / "helpers" / "a.py").write_text("x = 1\n")
    shutil.copy(book.ROOT / "_toc.yml", tmp_path)
    shutil.copy(book.BOOK / "references.bib", tmp_path / "book")

    def write(text):
        chapter = tmp_path / "book" / "01-upweighting.md"
        chapter.write_text(HEADER + text, encoding="utf-8")
        return chapter

    return write


def stored_from(chapter):
    execute.write(book.notebook_of(chapter), execute.run(chapter))
    return book.notebook_of(chapter)


def test_a_change_of_code_stored_run_helpers_or_pins_is_noticed(small_book):
    chapter = small_book(cell('print(open("../benchmarks/runs/a.json").read())'))
    assert execute.stale(chapter) == "not executed yet"
    root = chapter.parent.parent
    runs = root / "benchmarks" / "runs"
    runs.mkdir(parents=True)
    for name in ("a.json", "b.json"):
        (runs / name).write_text("{}")
    stored_from(chapter)
    assert execute.stale(chapter) is None
    for path, text in (
        (runs / "a.json", "[]"),
        (root / "helpers" / "a.py", "x = 2\n"),
        (root / "requirements.txt", "torch==2\n"),
    ):
        before = path.read_text()
        path.write_text(text)
        assert "changed" in execute.stale(chapter)
        path.write_text(before)
    (runs / "b.json").write_text("[]")  # not of this chapter
    assert execute.stale(chapter) is None
    assert "its code" in execute.stale(small_book(cell("print(1 + 2)")))


def test_a_change_of_text_is_noticed_without_execution(small_book):
    stored_from(small_book(cell("print(1)")))
    assert execute.stale(small_book(cell("print(1)") + "\nMore.\n")) == "its text changed"


def test_a_tampered_text_is_noticed(small_book):
    chapter = small_book("Some words.\n\n" + cell("print(1)"))
    path = stored_from(chapter)
    path.write_text(path.read_text().replace("Some words", "Other words"))
    assert execute.stale(chapter) == "its text changed"


def test_windows_newlines_change_nothing(small_book):
    chapter = small_book(cell("print(1)"))
    path = stored_from(chapter)
    for file in (chapter, path):
        file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    assert execute.stale(chapter) is None


def test_a_cell_that_fails_is_named_and_the_old_notebook_stays(small_book, capsys):
    path = stored_from(small_book(cell("print(1)")))
    before = path.read_bytes()
    chapter = small_book(cell("x = 0") + "\n" + cell("1 / x"))
    failures = execute.execute([chapter], jobs=1)
    assert len(failures) == 1
    for part in ("01-upweighting.md", "code cell 2", "    1 / x", "ZeroDivisionError"):
        assert part in failures[0]
    assert "FAILED 01-upweighting" in capsys.readouterr().out
    assert path.read_bytes() == before


def test_options_that_are_no_yaml_are_named(small_book):
    chapter = small_book("```{code-cell} ipython3\n---\na: b: c\n---\nprint(1)\n```\n")
    with pytest.raises(book.Unreadable, match=r"book/01-upweighting\.md"):
        book.read_chapter(chapter)


def test_a_printed_table_is_not_parted_by_the_numbers_that_its_rows_glue(small_book):
    code = "from myst_nb import glue\nfor i in range(3):\n    print(i)\n    glue(f'row-{i}', i, display=False)"
    notebook = book.read_notebook(stored_from(small_book(cell(code))))
    assert [output.text for output in book.code_cells(notebook)[0].outputs if "text" in output] == ["0\n1\n2\n"]


def test_glued_numbers_are_stored_with_six_digits(small_book):
    code = "from myst_nb import glue\nglue('third', 1 / 3, display=False)\nglue('name', 'Ann', display=False)"
    notebook = book.read_notebook(stored_from(small_book(cell(code) + "\nIt is {glue:text}`third:.2f`.\n")))
    assert book.glued(notebook) == {"third": "0.333333", "name": "'Ann'"}
    assert book.markdown_cells(notebook)[-1].source == "It is 0.33."
