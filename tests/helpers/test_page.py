"""What a page needs: glued numbers as a notebook stores them, and stored runs wherever the helpers are."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import RichOutput, capture_output

import helpers
from helpers import NotStored, note, stored_run, table
from helpers.page import notebook as page

ROOT = Path(helpers.__file__).parent.parent


@pytest.fixture
def ipython():
    yield InteractiveShell.instance()
    InteractiveShell.clear_instance()


def published(function, *arguments, **options):
    """What a cell that calls this adds to its notebook."""
    with capture_output() as captured:
        function(*arguments, **options)
    assert captured.stdout == captured.stderr == ""
    return [(output.data, output.metadata) for output in captured.outputs if isinstance(output, RichOutput)]


@pytest.mark.parametrize("value", [0.5, -2.0, 3, True, "Ann", 1e-7, 1e22, float("inf")])
def test_the_bundle_is_the_one_of_myst_nb(ipython, value):
    theirs = pytest.importorskip("myst_nb").glue
    ours = published(note, x=value)
    assert len(ours) == 1
    assert ours == published(theirs, "x", value, display=False)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (2 / 3, "0.666667"),
        (123456.789, "123457.0"),
        (-1.23456789e-8, "-1.23457e-08"),
        (1.2345678e20, "1.23457e+20"),
        (0.1 + 0.2, "0.3"),
        (float("nan"), "nan"),
        (123456789, "123456789"),
        ("0.123456789", "'0.123456789'"),
    ],
)
def test_six_digits_of_a_float_are_stored(ipython, value, text):
    ((data, metadata),) = published(note, x=value)
    assert data == {"application/papermill.record/text/plain": text}
    assert metadata == {"scrapbook": {"name": "x", "mime_prefix": "application/papermill.record/"}}


def test_numpys_numbers_and_a_readers_precision_change_nothing(ipython):
    import numpy

    ipython.run_line_magic("precision", "2")
    ((data, _),) = published(note, x=numpy.float64(2) / 3)
    assert list(data.values()) == ["0.666667"]


@pytest.mark.parametrize("value", [None, [1.0], torch.ones(2), torch.ones(0)])
def test_what_is_no_number_is_refused(ipython, value):
    with pytest.raises(TypeError, match=r"note\(x=…\) takes a number"):
        published(note, good=1.0, x=value)


def test_several_numbers_and_tensors_of_one(ipython):
    found = published(note, a=torch.tensor(2.0).double() / 3, b=torch.tensor([4]))
    assert [list(data.values()) for data, _ in found] == [["0.666667"], ["4"]]
    assert [metadata["scrapbook"]["name"] for _, metadata in found] == ["a", "b"]


def test_a_table_is_text_and_html():
    made = table({"point": torch.tensor([31, 43]), "kind": ["harmful", "helpful"], "I": [3.59, -0.5]}, {"I": "+.2f"})
    lines = repr(made).split("\n")
    assert lines[0].split() == ["point", "kind", "I"] and lines[2].split() == ["31", "harmful", "+3.59"]
    assert made._repr_html_().count("<tr>") == 3 and "<th" in made._repr_html_()


def test_numbers_of_a_table_are_set_as_in_the_text():
    made = table({"e-": [-1e-9, 0.25], "own": ["a-b %", "5%"]}, {"e-": ".0e"})
    assert made.columns == {"e-": ["−1e−09", "2e−01"], "own": ["a-b %", "5%"]}
    assert table({"share": [0.594]}, {"share": ".0%"}).columns == {"share": ["59\N{NO-BREAK SPACE}%"]}


def test_a_table_that_is_none_is_refused():
    with pytest.raises(ValueError, match="different lengths: 'a' 1, 'b' 2"):
        table({"a": [1], "b": [1, 2]})
    with pytest.raises(ValueError, match="lacks: c"):
        table({"a": [1]}, {"c": ".2f"})


def test_outside_ipython_it_does_nothing_and_imports_nothing():
    # The module alone: the helpers' other imports may bring IPython along.
    code = (
        "import importlib.util, sys; spec = importlib.util.spec_from_file_location('page', sys.argv[1]);"
        "page = importlib.util.module_from_spec(spec); spec.loader.exec_module(page);"
        "page.note(x=1.5); assert 'IPython' not in sys.modules;"
        "import IPython; page.note(x=1.5)"
    )
    ran = subprocess.run([sys.executable, "-c", code, page.__file__], capture_output=True, check=True)
    assert ran.stdout == ran.stderr == b""


# --- Stored runs ------------------------------------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A clone of its own, with one run. The module believes that it lives there."""
    (tmp_path / "helpers").mkdir()
    runs = tmp_path / "benchmarks" / "runs"
    runs.mkdir(parents=True)
    (runs / "a.json").write_text('{"date": "", "command": "", "machine": {}, "rows": ["é"]}', encoding="utf-8")
    monkeypatch.setattr(page, "__file__", str(tmp_path / "helpers" / "page" / "notebook.py"))
    return tmp_path


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "benchmarks" / "runs").glob("*.json")))
def test_every_run_can_be_read(name):
    run = stored_run(name)
    assert run["command"] == f"python -m benchmarks.{name}"
    assert run["date"] and run["machine"]


def test_the_runs_are_those_of_the_same_tree(tree):
    assert stored_run("a")["rows"] == ["é"]


def test_in_an_installed_package_they_are_inside(tree):
    shutil.move(tree / "benchmarks" / "runs", tree / "helpers" / "runs")
    assert stored_run("a")["rows"] == ["é"]
    with pytest.raises(NotStored, match="installing the package again"):
        stored_run("b")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, r"no such file \(its folder has these: a\)"),
        (b"", "Expecting value"),
        (b'{"date": "", "comm', "Unterminated"),
        (b"<<<<<<< ours\n{}", "Expecting value"),
        (b"[1]", "no run"),
        (b'{"rows": []}', "no run"),
        (b'{"date": "\xe9"}', "utf-8"),
    ],
)
def test_a_run_that_is_not_there_or_not_whole_is_named_with_what_helps(tree, content, why):
    file = tree / "benchmarks" / "runs" / "b.json"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(NotStored, match=why) as raised:
        stored_run("b")
    for part in (str(file), "`git checkout -- benchmarks/runs/b.json`", "`python -m benchmarks.b`"):
        assert part in str(raised.value)


def test_a_folder_in_its_place_is_named(tree):
    (tree / "benchmarks" / "runs" / "b.json").mkdir()
    with pytest.raises(NotStored, match=r"b\.json"):
        stored_run("b")


def test_it_is_read_from_any_folder_under_any_locale(tmp_path):
    # As UTF-8, which this environment would not do by itself, neither on Linux nor on Windows.
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONPATH": str(ROOT)}
    code = (
        "import sys; from helpers import stored_run; stored_run('libraries')\n"
        "try: open(sys.argv[1]).read()\n"
        "except UnicodeDecodeError: print('not by itself')"
    )
    file = ROOT / "benchmarks" / "runs" / "libraries.json"
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(file)],
        cwd=tmp_path, env=os.environ | plain, capture_output=True, text=True, encoding="utf-8", check=True,
    )  # fmt: skip
    assert "not by itself" in ran.stdout or sys.platform == "darwin", ran.stdout  # a Mac knows no other encoding


def test_a_wheel_carries_the_runs(tmp_path):
    for name in ("helpers", "benchmarks/runs"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    build = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, "."], cwd=tmp_path, capture_output=True, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    shutil.unpack_archive(wheel, tmp_path / "site", "zip")
    for file in (ROOT / "benchmarks" / "runs").glob("*.json"):
        packed = tmp_path / "site" / "helpers" / "runs" / file.name
        assert json.loads(packed.read_text("utf-8")) == stored_run(file.stem)
    assert {path.name for path in (ROOT / "helpers").glob("*.py")} == {
        path.name for path in (tmp_path / "site" / "helpers").glob("*.py")
    }
