"""Mistakes planted in the laboratory's modules: each is noticed, by the test that the list says."""

from __future__ import annotations

import contextlib
import inspect
import shutil

import pytest

from tests.laboratory import test_mathematics, test_use
from tests.laboratory.scenes import Laboratory, hurried
from tests.pages.page_visits import serve
from tools import chapters as book
from tools import laboratory

PLANTED = [mistake for mistake in book.mistakes() if mistake["plant_file"].startswith("book/_static/lab/")]
# What a test with parameters is given.
GIVEN = {"scene": test_mathematics.RING, "convention": "mean", "hidden": 8}


def planted(mistake, folder):
    """The script with the mistake in it."""
    modules = folder / "lab"
    shutil.copytree(laboratory.LAB, modules)
    path = modules / mistake["plant_file"].rpartition("/")[2]
    text = path.read_text(encoding="utf-8")
    assert text.count(mistake["old"]) == 1, (
        f"{mistake['name']}: `old` occurs {text.count(mistake['old'])} times, not once"
    )
    path.write_text(text.replace(mistake["old"], mistake["new"]), encoding="utf-8")
    return laboratory.script(modules)


@pytest.mark.parametrize("mistake", PLANTED, ids=lambda mistake: mistake["name"])
def test_is_caught(mistake, request, tmp_path):
    script = planted(mistake, tmp_path)
    (catcher,) = mistake["caught_by"]
    file, _, name = catcher.partition("::")
    module = {each.__file__.replace("\\", "/").rpartition("/")[2]: each for each in (test_mathematics, test_use)}[
        file.rpartition("/")[2]
    ]
    test = getattr(module, name)
    wanted = inspect.signature(test).parameters
    with contextlib.ExitStack() as stack:
        if "page" in wanted:
            given = GIVEN | {"page": stack.enter_context(opened(script, request, tmp_path))}
        else:
            given = GIVEN | {"lab": Laboratory(request.getfixturevalue("page"), script)}
        with pytest.raises((AssertionError, pytest.fail.Exception)):
            test(**{key: value for key, value in given.items() if key in wanted})


@contextlib.contextmanager
def opened(script, request, tmp_path):
    """A page of a site like the others', but with this script."""
    site = tmp_path / "site"
    shutil.copytree(request.getfixturevalue("folder"), site)
    (site / "_static" / "laboratory.js").write_text(hurried(script), encoding="utf-8")
    with serve(site) as address:
        page = request.getfixturevalue("browser").new_page(base_url=address)
        yield page
        page.close()


def test_without_a_mistake_nothing_is_noticed(lab):
    """The tests that are named pass with what a test with parameters is given here."""
    for mistake in PLANTED:
        file, _, name = mistake["caught_by"][0].partition("::")
        if file.endswith("test_mathematics.py"):
            test = getattr(test_mathematics, name)
            given = GIVEN | {"lab": lab}
            test(**{key: given[key] for key in inspect.signature(test).parameters})
