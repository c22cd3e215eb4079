"""Run the chapters: ``book/x.md`` is executed and stored as ``notebooks/x.ipynb``.

By default only what is stale is run: a notebook records a hash of its chapter's code, of the stored benchmark runs that
it reads, of `helpers/` and of the pinned requirements. A change of prose needs no execution; the notebook's text is
written again beside its outputs.
The same chapter gives the same bytes every time.

    python -m tools.execute            what is stale
    python -m tools.execute --all      everything
    python -m tools.execute --check    run nothing; fail if a stored notebook is not its chapter's
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import sys
import textwrap
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell

from tools import chapters as book
from tools.chapters import Unreadable
from tools.reading import figures, number, readable

STORED_RUN = re.compile(r"benchmarks/runs/\w+\.json")
CELL_TIMEOUT = 120  # seconds
TIMINGS = book.ROOT / "_build" / "execution-seconds.json"  # only to start the longest first; never in a notebook


class Failed(Exception):
    """A chapter could not become a notebook; the message says which and why."""


def recipe(chapter: Path) -> str:
    """A hash of everything that decides the outputs: the chapter's code, its stored runs, the helpers, the pins."""
    root = chapter.parent.parent
    digest = hashlib.sha256()
    cells = book.code_cells(book.read_chapter(chapter))
    for cell in cells:
        digest.update(json.dumps([cell.source, cell.metadata.get("tags", [])]).encode())
    named = {name for cell in cells for name in STORED_RUN.findall(cell.source)}
    runs = [root / name for name in sorted(named) if (root / name).exists()]  # else the cell says what is missing
    for path in [*runs, *sorted((root / "helpers").rglob("*.py")), root / "requirements.txt"]:
        digest.update(f"{path.relative_to(root).as_posix()}\n{book.read_text(path)}\n".encode())
    return digest.hexdigest()[:16]


def render(chapter: Path, outputs: list[list[NotebookNode]], executed_from: str) -> str:
    """The text of the notebook: the chapter's cells, readable without Sphinx, with these outputs of its code cells.

    Raises:
        Unreadable: if the chapter refers to something that does not exist.
    """
    source = book.read_chapter(chapter)
    for count, (cell, cell_outputs) in enumerate(zip(book.code_cells(source), outputs, strict=True), start=1):
        cell.outputs, cell.execution_count = cell_outputs, count
    values = book.glued(source)
    cells, seen, drawn = [], {}, 0
    for cell in source.cells:
        if cell.cell_type == "markdown":
            cell = new_markdown_cell(readable(cell.source, chapter, values))
        cells.append(cell)
        figure = cell.metadata.get("mystnb", {}).get("figure")
        if figure is not None:
            caption = readable(figure.get("caption", "").strip(), chapter, values)
            cells.append(new_markdown_cell(f"**Figure {number(chapter, drawn, figures)}.** {caption}"))
            drawn += 1
    for cell in cells:
        # An id made of the content, so that the same chapter gives the same bytes.
        name = hashlib.sha256(f"{cell.cell_type}\n{cell.source}".encode()).hexdigest()[:12]
        seen[name] = seen.get(name, 0) + 1
        cell.id = name if seen[name] == 1 else f"{name}-{seen[name]}"
    notebook = nbformat.v4.new_notebook(
        cells=cells,
        metadata={
            "book": {"chapter": f"book/{chapter.name}", "executed_from": executed_from},
            "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
    )
    # The minor version from which cells have ids; a fixed one, whatever the installed nbformat prefers.
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    nbformat.validate(notebook)
    return nbformat.writes(notebook).rstrip("\n") + "\n"


def stored(chapter: Path) -> tuple[str, list[list[NotebookNode]], str] | None:
    """The stored notebook's text, outputs and recipe hash, or None if there is none (or no readable one)."""
    path = book.notebook_of(chapter)
    try:
        text = book.read_text(path)
        notebook = nbformat.reads(text, as_version=4)
        return text, [cell.outputs for cell in book.code_cells(notebook)], notebook.metadata.book.executed_from
    except (OSError, ValueError, AttributeError, nbformat.ValidationError):
        return None


def stale(chapter: Path) -> str | None:
    """Why the stored notebook is not its chapter's, or None when it is.

    Raises:
        Unreadable: if the chapter cannot be read, or refers to something that does not exist.
    """
    found = stored(chapter)
    if found is None:
        return "not executed yet"
    text, outputs, executed_from = found
    if executed_from != recipe(chapter):
        return "its code, a stored run, helpers/ or requirements.txt changed"
    return None if render(chapter, outputs, executed_from) == text else "its text changed"


def run(chapter: Path) -> str:
    """Execute a chapter and return the text of its notebook.

    Raises:
        Failed: with the cell and its error.
    """
    executed_from = recipe(chapter)
    notebook = book.read_chapter(chapter)
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    folder = book.notebook_of(chapter).parent
    folder.mkdir(exist_ok=True)
    client = NotebookClient(
        notebook,
        timeout=CELL_TIMEOUT,
        record_timing=False,
        extra_arguments=["--log-level=ERROR"],  # the kernel's start-up remarks are not for the author
        resources={"metadata": {"path": str(folder)}},
    )
    try:
        client.execute(env={**os.environ, "PYTHONHASHSEED": "0"})
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        raise Failed(_explain(chapter, notebook, error)) from None
    outputs = [[book.rounded(output) for output in cell.outputs] for cell in book.code_cells(notebook)]
    for output in (output for cell_outputs in outputs for output in cell_outputs):
        output.pop("transient", None)
        if output.output_type == "stream":
            output.text = output.text.replace("\r\n", "\n")
    try:
        return render(chapter, _merge_streams(outputs), executed_from)
    except Unreadable as error:
        raise Failed(str(error)) from None


def _merge_streams(outputs: list[list[NotebookNode]]) -> list[list[NotebookNode]]:
    """Join neighbouring pieces of one stream: where the kernel happened to flush is not part of the result.

    A glued number between two pieces is not shown where it stands, so it does not part them either.
    """
    merged = []
    for cell_outputs in outputs:
        kept: list[NotebookNode] = []
        for output in cell_outputs:
            last = next((one for one in reversed(kept) if "scrapbook" not in one.get("metadata", {})), None)
            if last is not None and output.output_type == last.output_type == "stream" and output.name == last.name:
                last.text += output.text
            else:
                kept.append(output)
        merged.append(kept)
    return merged


def _explain(chapter: Path, notebook: NotebookNode, error: Exception) -> str:
    """Which cell of which chapter failed, its source and its error, without the terminal's colours."""
    cells = book.code_cells(notebook)
    # The cell that raised; for a timeout or a dead kernel, the first that did not finish.
    place = next((n for n, cell in enumerate(cells) if _error(cell) or cell.execution_count is None), len(cells) - 1)
    failure = _error(cells[place])
    reason = f"{type(error).__name__}: {error}"
    if failure:
        trace = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(failure.traceback))
        reason = f"{failure.ename}: {failure.evalue}\n\n{trace}"
    source = textwrap.indent(cells[place].source, "    ")
    return f"book/{chapter.name}: code cell {place + 1} failed\n\n{source}\n\n{reason}"


def _error(cell: NotebookNode) -> NotebookNode | None:
    return next((output for output in cell.outputs if output.output_type == "error"), None)


def timings() -> dict[str, float]:
    try:
        return json.loads(TIMINGS.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _longest_first(chapters: Iterable[Path], seconds: dict[str, float]) -> list[Path]:
    # A chapter never timed goes first: it may be the longest.
    return sorted(chapters, key=lambda path: -seconds.get(path.stem, float("inf")))


def execute(chapters: list[Path], jobs: int) -> list[str]:
    """Execute these chapters in parallel, write their notebooks, and return what failed.

    A chapter that fails leaves its old notebook as it was.
    """
    seconds, failures, lock = timings(), [], threading.Lock()

    def one(chapter: Path) -> tuple[Path, float, str]:
        start = time.perf_counter()
        text = run(chapter)
        return chapter, time.perf_counter() - start, text

    with ThreadPoolExecutor(max_workers=jobs) as pool:
        futures = {pool.submit(one, chapter): chapter for chapter in _longest_first(chapters, seconds)}
        for done, future in enumerate(as_completed(futures), start=1):
            counter = f"[{done}/{len(chapters)}]"
            try:
                chapter, took, text = future.result()
            except Failed as failure:
                failures.append(str(failure))
                print(f"{counter} FAILED {futures[future].stem}", flush=True)
                continue
            with lock:
                write(book.notebook_of(chapter), text)
                seconds[chapter.stem] = round(took, 2)
            print(f"{counter} {chapter.stem}: {took:.1f} s", flush=True)
    TIMINGS.parent.mkdir(exist_ok=True)
    TIMINGS.write_text(json.dumps(seconds, indent=1, sort_keys=True), encoding="utf-8")
    return failures


def write(path: Path, text: str) -> None:
    """Write the whole file or nothing of it."""
    path.parent.mkdir(exist_ok=True)
    draft = path.with_suffix(".tmp")
    draft.write_text(text, encoding="utf-8", newline="\n")
    draft.replace(path)


def orphans(root: Path = book.ROOT) -> list[Path]:
    """Notebooks that no chapter stands behind."""
    expected = {book.notebook_of(chapter) for chapter in book.chapters(root)}
    return [path for path in sorted((root / "notebooks").glob("*.ipynb")) if path not in expected]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.execute", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="chapters by the start of their name, as in 03 (default: all)")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--all", action="store_true", help="execute also what is up to date")
    mode.add_argument("--check", action="store_true", help="execute nothing; fail if a notebook is stale")
    parser.add_argument("--jobs", type=int, default=min(os.cpu_count() or 1, 4), help="how many at a time")
    options = parser.parse_args(arguments)

    try:
        return _main(options)
    except Unreadable as error:
        print(error, file=sys.stderr)
        return 1


def _main(options: argparse.Namespace) -> int:
    chosen = [
        path
        for path in book.chapters()
        if not options.names or any(path.stem.startswith(name) for name in options.names)
    ]
    if not chosen:
        print(f"no chapter is called {', '.join(options.names)}" if options.names else "book/ has no chapters")
        return 1

    reasons = {chapter: stale(chapter) for chapter in chosen}
    if options.check:
        for path in orphans():
            print(f"notebooks/{path.name}: no chapter stands behind it")
        for chapter, reason in reasons.items():
            if reason:
                print(f"notebooks/{book.notebook_of(chapter).name} is stale: {reason}")
        if any(reasons.values()) or orphans():
            print("Run `make execute`.")
            return 1
        return 0

    todo = []
    for chapter, reason in reasons.items():
        found = stored(chapter)
        if options.all or found is None or found[2] != recipe(chapter):
            todo.append(chapter)
        elif reason:
            write(book.notebook_of(chapter), render(chapter, found[1], found[2]))
            print(f"{chapter.stem}: only its text changed")
    for path in orphans():
        path.unlink()
        print(f"notebooks/{path.name}: removed, its chapter is gone")
    if not todo:
        print("Every notebook is up to date.")
        return 0
    failures = execute(todo, max(1, options.jobs))
    for failure in failures:
        print(f"\n{'-' * 78}\n{failure}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
