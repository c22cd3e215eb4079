"""What a reader does in JupyterLab, started as `make lab` starts it: read, follow links, unfold, run, save."""

from __future__ import annotations

import contextlib
import json
import os
import posixpath
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest

from tests.pages.page_visits import WIDE
from tools import chapters as book
from tools import notebooks

CHAPTER = "03-argmin"  # short, with exercises and a theorem
QUICK = "02-chain-rule"
OTHERS = ("04-influence-function", "your-own-model")
# What Lab shows of a notebook: is it marked as changed, what text is to be seen, where do its links go.
LOADED = """name => { const panel = window.jupyterapp.shell.currentWidget;
  return panel && panel.context && panel.context.path === `notebooks/${name}.ipynb` && panel.context.isReady
    && panel.sessionContext.session && panel.sessionContext.session.kernel
    && panel.sessionContext.session.kernel.status === "idle"; }"""
ALL_CHANGED = """() => [...window.jupyterapp.shell.widgets("main")].filter((w) => w.context.model.dirty)
  .map((w) => w.context.path)"""
CHANGED = "() => window.jupyterapp.shell.currentWidget.context.model.dirty"
OPEN = "path => window.jupyterapp.commands.execute('docmanager:open', { path }).then(() => null)"
DO = "command => window.jupyterapp.commands.execute(command).then(() => null)"


def files(folder):
    """Every file below a folder and its bytes, but for what is never committed."""
    skipped = {"__pycache__", ".ipynb_checkpoints"}
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not skipped & set(path.parts)
    }


def lab_command(port):
    """The command that `make lab` runs, with this Python."""
    # As from a shell: `make test` would tell this make that it is one within another, and it would say so.
    makes = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")
    environment = {name: value for name, value in os.environ.items() if name not in makes}
    made = subprocess.run(
        ["make", "--no-print-directory", "-n", "-o", "env", "lab", f"PORT={port}", "VENV=python"],
        cwd=book.ROOT, env=environment, capture_output=True, text=True, encoding="utf-8", check=True,
    )  # fmt: skip
    program, *arguments = shlex.split(made.stdout)
    assert program == "python"
    return [sys.executable, *arguments, "--LabApp.expose_app_in_browser=True"]


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A copy of what a reader has, in a folder with a space and an umlaut in its name."""
    folder = tmp_path_factory.mktemp("lab") / "my Bücher"
    for name in ("book", "notebooks", "tools", "benchmarks", "helpers"):
        shutil.copytree(book.ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", ".ipynb*"))
    return folder


@pytest.fixture(scope="module")
def lab(clone, tmp_path_factory):
    """The address of a server of the copy."""
    if shutil.which("make") is None:
        pytest.skip("there is no make to ask what `make lab` does")
    own = tmp_path_factory.mktemp("jupyter")
    (own / "jupyter_server_config.json").write_text(
        json.dumps({"ServerApp": {"allow_root": True, "open_browser": False}, "IdentityProvider": {"token": ""}}),
        encoding="utf-8",
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    variables = {f"JUPYTER_{name}_DIR": str(own) for name in ("CONFIG", "DATA", "RUNTIME")}
    variables |= {"JUPYTER_CONFIG_PATH": str(clone / "tools")}  # as the Makefile sets it
    with (own / "log").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(
            lab_command(port), cwd=clone, env=os.environ | variables, stdout=log, stderr=subprocess.STDOUT
        )
    address = f"http://127.0.0.1:{port}"
    for _ in range(240):
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"{address}/api/status", timeout=5).close()
            break
        if process.poll() is not None:
            break
        time.sleep(0.25)
    try:
        assert process.poll() is None, (own / "log").read_text(encoding="utf-8")
        yield address
    finally:
        for _ in range(3):  # a signal that meets the server as it writes to its log is lost
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=15)
                break
        assert process.poll() is not None, "the server does not stop"


@pytest.fixture(scope="module")
def window(browser, lab):
    """Lab, as it opens. To load it takes longer than all that is done in it."""
    context = browser.new_context(viewport=WIDE)
    page = context.new_page()
    page.wrong = []
    page.on("response", lambda answer: answer.status >= 400 and page.wrong.append(f"{answer.status} {answer.url}"))
    page.on("pageerror", lambda error: page.wrong.append(str(error)))
    page.goto(lab)
    page.wait_for_function("window.jupyterapp !== undefined", timeout=60_000)
    yield page
    context.close()


@pytest.fixture
def tab(window):
    window.wrong.clear()
    return window


def open_notebook(tab, name):
    tab.evaluate(OPEN, f"notebooks/{name}.ipynb")
    tab.wait_for_function(LOADED, arg=name, timeout=60_000)


def status(lab, link):
    """The status with which the server answers Lab when a link of a notebook is followed."""
    path = posixpath.normpath(f"notebooks/{link}")
    try:
        with urllib.request.urlopen(f"{lab}/api/contents/{path}?content=0", timeout=30) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def links(notebook):
    """Where a notebook's text leads inside the repository."""
    text = "\n".join(cell.source for cell in book.markdown_cells(notebook))
    return sorted(set(re.findall(r"\]\((?!https?:)([^)#\s]+)", text)))


def test_it_starts_with_the_first_chapter(tab):
    first = book.chapters()[0].stem
    tab.wait_for_function(LOADED, arg=first, timeout=60_000)
    assert not tab.wrong


def test_an_opened_notebook_is_not_marked_as_changed(tab):
    for name in OTHERS:
        open_notebook(tab, name)
    tab.wait_for_timeout(1000)  # what a kernel's start changes comes a little later
    assert tab.evaluate(ALL_CHANGED) == []
    assert not tab.wrong


def test_solutions_are_folded_and_open(tab):
    open_notebook(tab, CHAPTER)
    notebook = book.read_notebook(book.NOTEBOOKS / f"{CHAPTER}.ipynb")
    solutions = [k for k, cell in enumerate(notebook.cells) if "solution" in cell.metadata.get("tags", [])]
    hidden = "k => window.jupyterapp.shell.currentWidget.content.widgets[k].isHidden"
    assert solutions
    for k in solutions:
        assert [tab.evaluate(hidden, place) for place in (k - 1, k, k + 1)] == [False, False, True]
    last = len(notebook.cells) - 1
    assert tab.evaluate(hidden, last) is False
    tab.evaluate("k => window.jupyterapp.shell.currentWidget.content.scrollToItem(k)", solutions[0])
    tab.locator(".jp-showHiddenCellsButton:visible").first.click()
    assert tab.evaluate(hidden, solutions[0] + 1) is False


def test_code_that_the_page_hides_is_folded(tab):
    open_notebook(tab, CHAPTER)
    folded = tab.evaluate(
        "() => window.jupyterapp.shell.currentWidget.content.widgets.map(w => w.inputHidden && w.model.type === 'code')"
    )
    cells = book.read_notebook(book.NOTEBOOKS / f"{CHAPTER}.ipynb").cells
    assert any(folded)
    assert folded == [not notebooks.FOLDED.isdisjoint(cell.metadata.get("tags", [])) for cell in cells]


def test_no_link_of_a_notebook_is_dead(lab):
    assert status(lab, "../book/no-such-page.md") == 404
    every = {link for chapter in book.chapters() for link in links(book.read_notebook(book.notebook_of(chapter)))}
    assert every
    assert not [link for link in sorted(every) if status(lab, link) != 200]


def test_a_link_opens_the_other_notebook(tab):
    open_notebook(tab, CHAPTER)
    tab.locator(".jp-MarkdownCell a", has_text="the two factors").first.click()
    tab.wait_for_function(LOADED, arg="02-chain-rule", timeout=60_000)
    assert not tab.wrong


def test_running_everything_and_saving_changes_no_file(tab, clone):
    before = files(clone)
    open_notebook(tab, QUICK)
    tab.evaluate(DO, "notebook:run-all-cells")
    assert tab.evaluate(CHANGED) is True
    tab.evaluate(DO, "docmanager:save")
    assert tab.evaluate(CHANGED) is False
    assert files(clone) == before
    # What the reader writes is kept, on the other hand.
    tab.evaluate(DO, "notebook:insert-cell-below")
    tab.keyboard.press("Enter")
    tab.keyboard.type("1 + 1")
    tab.evaluate(DO, "docmanager:save")
    after = files(clone)
    assert {name for name in after if after[name] != before.get(name)} == {f"notebooks/{QUICK}.ipynb"}
    assert b'"1 + 1"' in after[f"notebooks/{QUICK}.ipynb"]
