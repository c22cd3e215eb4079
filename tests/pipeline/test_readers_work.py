"""Nothing of a reader's is deleted or overwritten, and nothing is shown that the code did not print."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest

from tools import execute, notebooks

from .conftest import cell


def edit(path, change):
    """Change a notebook as another program would, and save it."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    change(notebook["cells"], notebook)
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")


def code(cells):
    return [each for each in cells if each["cell_type"] == "code"]


NEW = {"cell_type": "code", "id": "f00", "metadata": {}, "source": "l2 * 2", "outputs": [], "execution_count": 9}
ERROR = {"output_type": "error", "ename": "ValueError", "evalue": "no", "traceback": []}


def experiment(cells, notebook):
    code(cells)[1]["source"] = ["l2 = 0.002\n", "print(f'{1 / 3:.3f}')"]
    code(cells)[2]["outputs"][0]["data"]["text/plain"] = ["0.002"]


EDITS = {
    "another λ, run and saved": experiment,
    "one digit of an output": lambda cells, notebook: code(cells)[1]["outputs"][0].update(text=["0.334\n"]),
    "all outputs cleared": lambda cells, notebook: [each.update(outputs=[]) for each in code(cells)],
    "one output cleared": lambda cells, notebook: code(cells)[1].update(outputs=[]),
    "an error in place of an output": lambda cells, notebook: code(cells)[1].update(outputs=[ERROR]),
    "a code cell more": lambda cells, notebook: cells.append(NEW),
    "a code cell fewer": lambda cells, notebook: cells.remove(code(cells)[0]),
    "two outputs exchanged": lambda cells, notebook: code(cells)[0].update(outputs=code(cells)[1]["outputs"]),
    "no seal": lambda cells, notebook: notebook["metadata"]["book"].pop("outputs"),
}


def state(checkout):
    return execute.state(checkout.root / "book" / "01-first.md")


@pytest.mark.parametrize("change", EDITS.values(), ids=EDITS)
def test_an_edit_is_seen_and_none_of_its_outputs_is_believed(made, change):
    assert state(made).why is None
    edit(made.notebook(), change)
    found = state(made)
    assert found.theirs
    assert "changed by hand" in found.why
    assert found.outputs is None


def test_an_edited_notebook_is_named_executed_again_and_kept(made):
    path = made.notebook()
    before = path.read_bytes()
    edit(path, experiment)
    edit(path, EDITS["a code cell more"])
    theirs = path.read_bytes()
    status, said = made.run("execute", "--check")
    assert status == 1
    assert "01-first.ipynb is stale: it was changed by hand" in said
    status, said = made.run("execute")
    assert status == 0, said
    assert "kept as notebooks/01-first-yours.ipynb" in said
    assert path.read_bytes() == before
    assert path.with_name("01-first-yours.ipynb").read_bytes() == theirs
    assert made.run("execute", "--check")[0] == 0


WRECKS = {
    "truncated": lambda content: content[: len(content) // 2],
    "an empty object": lambda content: b"{}",
    "a list": lambda content: b"[]",
    "null": lambda content: b"null",
    "random bytes": lambda content: bytes(range(256)),
}


@pytest.mark.parametrize("wreck", WRECKS.values(), ids=WRECKS)
def test_what_is_no_notebook_is_not_believed(made, wreck):
    path = made.notebook()
    path.write_bytes(wreck(path.read_bytes()))
    found = state(made)
    assert found.why
    assert found.theirs
    assert found.outputs is None


def test_a_truncated_notebook_is_executed_again_whatever_the_target(made):
    path = made.notebook()
    before = path.read_bytes()
    path.write_bytes(WRECKS["truncated"](before))
    status, said = made.run("execute", "01", "--all")
    assert status == 0, said
    assert path.read_bytes() == before
    assert made.listed() == ["01-first-yours.ipynb", "01-first.ipynb", "02-second.ipynb"]


@pytest.mark.parametrize("content", ["", "<<<<<<< HEAD\n{}\n=======\n[]\n>>>>>>> other\n"], ids=["empty", "conflict"])
def test_where_nothing_is_lost_nothing_is_kept(made, content):
    made.notebook().write_text(content, encoding="utf-8")
    assert state(made).outputs is None
    assert notebooks.write(made.notebook(), "new", keep=True) is None
    assert made.listed() == ["01-first.ipynb", "02-second.ipynb"]


def test_what_git_has_is_not_kept_twice(made):
    def git(*words):
        subprocess.run(["git", "-c", "user.name=n", "-c", "user.email=e", *words], cwd=made.root, check=True)

    edit(made.notebook(), EDITS["one digit of an output"])
    assert not notebooks.is_kept_elsewhere(made.notebook())
    git("init", "-q")
    git("add", "notebooks")
    assert not notebooks.is_kept_elsewhere(made.notebook())  # not committed yet
    git("commit", "-q", "-m", "an old edition")
    assert notebooks.is_kept_elsewhere(made.notebook())


def test_each_experiment_is_kept_beside_the_ones_before(made):
    for text in ("a", "b", "a"):
        made.notebook().write_text(text, encoding="utf-8")
        notebooks.write(made.notebook(), "new", keep=True)
    assert made.listed() == [
        "01-first-yours-2.ipynb", "01-first-yours.ipynb", "01-first.ipynb", "02-second.ipynb",
    ]  # fmt: skip


def test_edited_text_is_put_right_without_execution(made):
    before = made.notebook().read_bytes()
    edit(made.notebook(), lambda cells, notebook: cells[0].update(source="# My title"))
    status, said = made.run("execute")
    assert status == 0
    assert "no code has to run" in said
    assert made.notebook().read_bytes() == before
    assert made.notebook().with_name("01-first-yours.ipynb").exists()


def test_running_again_and_looking_is_no_change(made):
    def as_lab_saves(cells, notebook):
        notebook["metadata"]["language_info"]["version"] = "3.13.0"
        for count, each in enumerate(code(cells), start=12):
            each["execution_count"] = count
            each["metadata"]["execution"] = {"iopub.execute_input": "2026-01-01T00:00:00Z"}
            each["metadata"]["scrolled"] = True
            for output in each["outputs"]:
                if "execution_count" in output:
                    output["execution_count"] = count

    before = made.notebook().read_bytes()
    edit(made.notebook(), as_lab_saves)
    status, said = made.run("execute")
    assert (status, made.notebook().read_bytes()) == (0, before)
    assert "no code has to run" in said
    assert made.listed() == ["01-first.ipynb", "02-second.ipynb"]


def test_a_readers_own_notebooks_are_named_and_left(made):
    own = {
        "Untitled.ipynb": '{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}',
        "01-first-Copy1.ipynb": made.notebook().read_text(encoding="utf-8"),
        "broken.ipynb": "{",
        "notes.txt": "mine",
    }
    for name, text in own.items():
        made.notebook().with_name(name).write_text(text, encoding="utf-8")
    for arguments in (["--all"], []):
        status, said = made.run("execute", *arguments)
        assert status == 0
        assert "Left alone in notebooks/" in said
        assert "Untitled.ipynb" in said
    assert made.run("execute", "--check")[0] == 0
    for name, text in own.items():
        assert made.notebook().with_name(name).read_text(encoding="utf-8") == text


def test_only_what_the_pipeline_made_unchanged_is_removed_with_its_chapter(made):
    made.chapter("Third.\n\n" + cell("print(3)"), "03-third")
    assert made.run("execute")[0] == 0
    third = made.notebook("03-third")
    shutil.copy(third, made.root / "kept.ipynb")
    (made.root / "book" / "03-third.md").unlink()

    edit(third, lambda cells, notebook: cells.append(NEW))
    status, said = made.run("execute")
    assert status == 0
    assert third.exists()
    assert "Left alone" in said

    shutil.copy(made.root / "kept.ipynb", third)
    assert made.run("execute", "--check")[0] == 1
    status, said = made.run("execute")
    assert status == 0
    assert "removed, its chapter is gone" in said
    assert not third.exists()


def test_nothing_is_overwritten_when_the_copy_cannot_be_kept(tmp_path, monkeypatch):
    path = tmp_path / "01-first.ipynb"
    path.write_text("my work", encoding="utf-8")

    def full(self, target):
        raise OSError(28, "No space left on device", str(self))

    monkeypatch.setattr(type(path), "rename", full)
    with pytest.raises(OSError, match="No space"):
        notebooks.write(path, "the pipeline's", keep=True)
    assert path.read_text(encoding="utf-8") == "my work"
