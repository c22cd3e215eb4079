"""A notebook as it is stored in `notebooks/`: its form, its seal, and what a person has changed in it since.

The pipeline writes a notebook in one form only (`tidy`), gives every cell an id made of its content, and seals the
outputs with a hash. So it can always tell three things: whether the outputs are those that the code printed, whether
anything in the file is somebody's own work, and, for a notebook that was only run again, that nothing has changed.

JupyterLab's server calls `tidy`, too, before it saves (see jupyter_server_config.py): hence nothing but `nbformat` and
the standard library is imported here.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

import nbformat
from nbformat import NotebookNode

KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
# As Lab writes it, but for the version of Python: notebooks do not depend on it.
LANGUAGE = {
    "codemirror_mode": {"name": "ipython", "version": 3},
    "file_extension": ".py",
    "mimetype": "text/x-python",
    "name": "python",
    "nbconvert_exporter": "python",
    "pygments_lexer": "ipython3",
}
KEPT = ("tags", "mystnb", "slideshow")  # of a cell's metadata; the rest is how somebody last looked at it
MADE_BY_GIT = re.compile(r"^<{7} .*^>{7} ", re.MULTILINE | re.DOTALL)


class Unreadable(ValueError):
    """A file cannot be read as what it should be; the message says which and why."""


# ------------------------------------------------------------------------------------------------------ its one form


def tidy(notebook: NotebookNode) -> None:
    """Bring a notebook to the stored form, in place: how it was run and looked at goes, what it says stays.

    Pieces of one stream are joined, timings and transient data go, the kernel is named as always, and what is folded is
    folded again. A notebook of the pipeline whose code printed the same again is then the same, byte for byte.
    """
    book = notebook.metadata.get("book")
    notebook.metadata = NotebookNode(
        {"kernelspec": KERNEL, "language_info": LANGUAGE} | ({"book": book} if book else {})
    )
    # The minor version from which cells have ids; a fixed one, whatever the installed nbformat prefers.
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    for cell in notebook.cells:
        cell.metadata = NotebookNode({key: cell.metadata[key] for key in KEPT if key in cell.metadata} | folded(cell))
        if cell.cell_type == "code":
            cell.outputs = _joined(cell.outputs)
    if book and outputs_hash(notebook) == book.get("outputs"):
        # What the code prints from the first cell to the last, in whatever order it was run.
        for count, cell in enumerate(code_cells(notebook), start=1):
            cell.execution_count = count
            for output in cell.outputs:
                if output.output_type == "execute_result":
                    output.execution_count = count


FOLDED = {"hide-input", "check", "setup"}  # the tags of code cells that a reader opens only if they want to


def folded(cell: NotebookNode) -> dict[str, object]:
    """How Lab shows a cell at first, by its tags: all code but the idea is folded, and what stands below a solution."""
    tags = cell.metadata.get("tags", [])
    if cell.cell_type == "code" and not FOLDED.isdisjoint(tags):
        return {"jupyter": {"source_hidden": True}}
    if cell.cell_type == "markdown" and "solution" in tags:
        return {"jp-MarkdownHeadingCollapsed": True}
    return {}


def _joined(outputs: Iterable[NotebookNode]) -> list[NotebookNode]:
    """Neighbouring pieces of one stream made one: where the kernel happened to flush is not part of the result.

    A glued number between two pieces is not shown where it stands, so it does not part them either.
    """
    kept: list[NotebookNode] = []
    for output in outputs:
        output.pop("transient", None)
        if output.output_type == "stream":
            output.text = output.text.replace("\r\n", "\n")
        last = next((one for one in reversed(kept) if "scrapbook" not in one.get("metadata", {})), None)
        if last is not None and output.output_type == last.output_type == "stream" and output.name == last.name:
            last.text += output.text
        else:
            kept.append(output)
    return kept


def text_of(notebook: NotebookNode) -> str:
    """The text of the file."""
    nbformat.validate(notebook)
    return nbformat.writes(notebook).rstrip("\n") + "\n"


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


# ------------------------------------------------------------------------------------------------------------ its seal


def name_cells(cells: Iterable[NotebookNode]) -> None:
    """Give each cell an id made of its content, so that the same chapter gives the same bytes."""
    seen: dict[str, int] = {}
    for cell in cells:
        name = content_id(cell)
        seen[name] = seen.get(name, 0) + 1
        cell.id = name if seen[name] == 1 else f"{name}-{seen[name]}"


def content_id(cell: NotebookNode) -> str:
    return hashlib.sha256(f"{cell.cell_type}\n{cell.source}".encode()).hexdigest()[:12]


def outputs_hash(notebook: NotebookNode) -> str:
    """A hash of what the cells printed and drew, in their order; how often a cell had been run is no part of it."""
    digest = hashlib.sha256()
    for cell in code_cells(notebook):
        outputs = [{key: value for key, value in out.items() if key != "execution_count"} for out in cell.outputs]
        digest.update(json.dumps([cell.get("id"), outputs], sort_keys=True).encode())
    return digest.hexdigest()[:16]


def sealed(cells: list[NotebookNode], chapter: str, executed_from: str) -> str:
    """The text of a notebook of these cells, in its stored form, with its seal.

    The seal names the chapter, a hash of all that decides the outputs (``executed_from``), and one of the outputs.
    """
    name_cells(cells)
    notebook = nbformat.v4.new_notebook(cells=cells)
    tidy(notebook)
    notebook.metadata["book"] = {
        "chapter": chapter, "executed_from": executed_from, "outputs": outputs_hash(notebook)
    }  # fmt: skip
    tidy(notebook)
    return text_of(notebook)


def read(path: Path) -> NotebookNode:
    """The notebook in a file, brought to its stored form.

    Raises:
        Unreadable: if the file is no whole notebook.
        FileNotFoundError: if there is none.
    """
    text = path.read_bytes().decode("utf-8", errors="replace").replace("\r\n", "\n")
    if not text.strip():
        raise Unreadable("it is empty")
    try:
        notebook = nbformat.v4.reads(text)  # without the repairs that `nbformat.reads` makes
        for cell in notebook.cells:
            cell.setdefault("id", "no-id")
        tidy(notebook)
        nbformat.validate(notebook)
    except (ValueError, AttributeError, KeyError, TypeError, nbformat.ValidationError) as error:
        raise Unreadable(f"it is no whole notebook ({str(error).splitlines()[0][:80]})") from None
    return notebook


def changes(path: Path, notebook: NotebookNode) -> list[str]:
    """What in a (tidy) notebook the pipeline did not write: nothing, or somebody's work.

    Args:
        path: where it stands; a copy under another name is not the pipeline's.
    """
    book = notebook.metadata.get("book", {})
    if book.get("chapter") != f"book/{path.stem}.md":
        return ["it is not the notebook of a chapter of that name"]
    if "outputs" not in book:
        return ["it has no seal"]
    found = []
    foreign = sum(cell.get("id", "").split("-")[0] != content_id(cell) for cell in notebook.cells)
    if foreign:
        found.append(f"{foreign} of its cells {'is' if foreign == 1 else 'are'} new or edited")
    if outputs_hash(notebook) != book.outputs:
        found.append("its outputs are not those that its code printed")
    return found


# ----------------------------------------------------------------------------------------------------- writing, safely


def write(path: Path, text: str, *, keep: bool = False) -> Path | None:
    """Write the whole file or nothing of it.

    Args:
        keep: whether what stands there now is somebody's work; it is then moved beside it first.

    Returns:
        Where that work is now, if there was any.
    """
    path.parent.mkdir(exist_ok=True)
    draft = path.with_name(f".{path.name}.tmp")
    try:
        with draft.open("w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        draft.unlink(missing_ok=True)
        raise
    kept = set_aside(path) if keep else None
    draft.replace(path)
    return kept


def set_aside(path: Path) -> Path | None:
    """Move somebody's work out of the way, to a name beside it that nothing has; None if git has that very file."""
    if not path.exists() or is_kept_elsewhere(path):
        return None
    content = path.read_bytes()
    for place in range(1, 10_000):
        aside = path.with_name(f"{path.stem}-yours{'' if place == 1 else f'-{place}'}.ipynb")
        if not aside.exists():
            path.rename(aside)
            return aside
        if aside.read_bytes() == content:  # put there before
            return aside
    raise OSError(f"{path.parent} is full of set-aside copies of {path.name}; remove some of them.")


def is_kept_elsewhere(path: Path) -> bool:
    """Whether nothing is lost with this file: it is empty, or git has it, committed or as two sides of a conflict."""
    content = path.read_bytes()
    if not content.strip() or MADE_BY_GIT.search(content.decode("utf-8", errors="replace")):
        return True
    try:
        difference = subprocess.run(
            ["git", "diff", "--quiet", "HEAD", "--", path.name], cwd=path.parent, capture_output=True, check=False
        )
        known = subprocess.run(
            ["git", "ls-files", "--error-unmatch", path.name], cwd=path.parent, capture_output=True, check=False
        )
    except OSError:
        return False  # no git
    return difference.returncode == 0 and known.returncode == 0
