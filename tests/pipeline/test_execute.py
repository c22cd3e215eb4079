"""What execution makes of a chapter: what is stale, what is stored, and the same bytes whatever the settings."""

from __future__ import annotations

import json
import shutil
import sys

import pytest

from tools import chapters as book
from tools import execute, notebooks

from .conftest import cell


def first(checkout):
    return checkout.root / "book" / "01-first.md"


def why(checkout):
    return execute.state(first(checkout)).why


def test_a_change_of_code_stored_run_helpers_or_library_is_noticed(made):
    chapter = made.chapter(cell('print(stored_run("a"))'))
    for name in ("a", "b"):
        made.write(f"benchmarks/runs/{name}.json", "{}")
    before = execute.recipe(chapter)
    for name, text in (
        ("benchmarks/runs/a.json", "[]"),
        ("helpers/a.py", "x = 2\n"),
        ("requirements/book.txt", "numpy==2\n"),
        ("requirements/book.in", "torch==2\n"),
    ):
        old = (made.root / name).read_text(encoding="utf-8")
        made.write(name, text)
        assert execute.recipe(chapter) != before, name
        made.write(name, old)
    made.write("benchmarks/runs/b.json", "[]")  # not of this chapter
    made.write("requirements/tools.txt", "ruff==1\n")  # changes no digit
    made.write("requirements/book.txt", "# a remark\nnumpy==1\n")
    assert execute.recipe(chapter) == before
    made.chapter(cell("print(1 + 2)"))
    assert execute.recipe(chapter) != before
    assert "its code" in why(made)


def test_the_stored_runs_of_the_chapters_are_found():
    assert any(execute.STORED_RUN.findall(book.read_text(chapter)) for chapter in book.chapters())
    for chapter in book.chapters():
        for name in execute.STORED_RUN.findall(book.read_text(chapter)):
            assert (book.ROOT / "benchmarks" / "runs" / f"{name}.json").is_file()


def test_a_change_of_text_is_noticed_without_execution(made):
    text = book.read_text(first(made))
    made.write("book/01-first.md", text + "\nMore.\n")
    assert why(made) == "its text changed"
    status, said = made.run("execute")
    assert status == 0
    assert "no code has to run" in said
    assert "More." in made.notebook().read_text(encoding="utf-8")


def test_windows_newlines_change_nothing(made):
    for file in (first(made), made.notebook()):
        file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    assert why(made) is None


def test_a_printed_table_is_not_parted_by_the_numbers_that_its_rows_glue():
    def said(text):
        return notebooks.NotebookNode(output_type="stream", name="stdout", text=text)

    glued = notebooks.NotebookNode(output_type="display_data", metadata={"scrapbook": {"name": "r"}}, data={})
    joined = notebooks._joined([said("0\n"), glued, said("1\r\n"), said("2\n")])
    assert [output.text for output in joined if "text" in output] == ["0\n1\n2\n"]


HOSTILE = cell(
    "import matplotlib.pyplot as plt\n"
    "plt.plot([1, 2, 1])\n"
    "plt.show()"
) + "\n" + cell(
    "import sys\n"
    "try:\n"
    "    assert False\n"
    "except AssertionError:\n"
    "    print('asserts bite')\n"
    "import colorsys, warnings\n"
    "with warnings.catch_warnings(record=True) as caught:\n"
    "    warnings.warn('one that a filter could hide')\n"
    "print(len(caught), len(colorsys.__doc__) > 3, 'startup' in globals(), hash('a'))"
)  # fmt: skip


def test_whatever_the_readers_settings_the_bytes_are_the_same(checkout, tmp_path):
    """A backend, a matplotlibrc, a startup file, another kernel of that name, modules in the way, optimised Python."""
    checkout.chapter(HOSTILE)
    (checkout.root / "book" / "02-second.md").write_text("# Second\n", encoding="utf-8")
    assert checkout.run("execute")[0] == 0
    before = checkout.notebook().read_bytes()
    assert b"image/png" in before

    for folder in ("path", "ipython/profile_default/startup", "jupyter/kernels/python3", "config"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "path" / "colorsys.py").write_text('"""No"""', encoding="utf-8")
    shutil.copy(tmp_path / "path" / "colorsys.py", checkout.root / "notebooks" / "colorsys.py")
    (tmp_path / "ipython/profile_default/startup/a.py").write_text("startup = 1", encoding="utf-8")
    (tmp_path / "matplotlibrc").write_text("lines.linewidth: 9\nfigure.facecolor: red\n", encoding="utf-8")
    shutil.copy(tmp_path / "matplotlibrc", tmp_path / "config")
    argv = [sys.executable, "-c", "raise SystemExit('not this kernel')"]
    kernel = {"argv": argv, "display_name": "no", "language": "python"}
    (tmp_path / "jupyter/kernels/python3/kernel.json").write_text(json.dumps(kernel), encoding="utf-8")
    settings = {
        "MPLBACKEND": "agg", "MATPLOTLIBRC": str(tmp_path / "matplotlibrc"), "MPLCONFIGDIR": str(tmp_path / "config"),
        "PYTHONPATH": str(tmp_path / "path"), "IPYTHONDIR": str(tmp_path / "ipython"), "PYTHONHASHSEED": "7",
        "JUPYTER_PATH": str(tmp_path / "jupyter"), "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "2", "LC_ALL": "C",
        "PYTHONUTF8": "0",
    }  # fmt: skip
    status, said = checkout.run("execute", "01", "--all", env=settings)
    assert status == 0, said
    assert checkout.notebook().read_bytes() == before


def test_a_kernels_own_words_are_heard_only_if_it_dies(checkout):
    """Some write a traceback as they shut down, which is not about the chapter."""
    (checkout.root / "book" / "02-second.md").write_text("# Second\n", encoding="utf-8")
    at_exit = "import atexit, sys\natexit.register(lambda: print('Traceback at the end', file=sys.__stderr__))"
    checkout.chapter(cell(f"{at_exit}\nprint(1)"))
    status, said = checkout.run("execute")
    assert (status, "at the end" in said) == (0, False), said
    checkout.chapter(cell("import os, sys\nprint('last words', file=sys.__stderr__, flush=True)\nos._exit(3)"))
    status, said = checkout.run("execute")
    assert status == 1 and "code cell 1 failed" in said and "last words" in said, said


def test_optimised_python_drops_no_assert(monkeypatch):
    monkeypatch.setenv("PYTHONOPTIMIZE", "1")
    assert "PYTHONOPTIMIZE" not in execute.clean_environment()


def test_foreign_helpers_are_refused(tmp_path, monkeypatch):
    """They cannot come from PYTHONPATH; if this Python has another copy installed, nothing is executed."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "helpers").mkdir()
    (tmp_path / "helpers" / "__init__.py").write_text("", encoding="utf-8")
    execute.check_helpers()
    monkeypatch.setattr(execute.book, "ROOT", tmp_path)
    with pytest.raises(execute.Failed, match=r"would import helpers from .*pip install"):
        execute.check_helpers()


def test_two_runs_give_the_same_bytes(made):
    before = made.notebook().read_bytes()
    assert made.run("execute", "01", "--all")[0] == 0
    assert made.notebook().read_bytes() == before
