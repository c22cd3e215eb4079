"""Run the chapters: ``book/x.md`` is executed and stored as ``notebooks/x.ipynb``.

By default only what is stale is run: a notebook records a hash of its chapter's code, of the stored benchmark runs that
it reads, of `helpers/` and of the libraries that it ran with, and a hash of what came out. A change of prose needs no
execution; the notebook's text is written again beside its outputs. A notebook that a person has changed is moved aside
before a new one takes its place, and what is not the pipeline's own is left alone.
The same chapter gives the same bytes every time, whatever the settings of whoever runs it.

    python -m tools.execute            what is stale
    python -m tools.execute --all      everything
    python -m tools.execute --check    run nothing; fail if a stored notebook is not its chapter's
"""

from __future__ import annotations

import argparse
import asyncio
import atexit
import concurrent.futures
import contextlib
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

from tools import chapters as book
from tools import command, notebooks, reading
from tools.command import Failed
from tools.notebooks import Unreadable
from tools.pins import digits_pins

STORED_RUN = re.compile(r"""\bstored_run\(\s*["'](\w+)["']\s*\)""")
CELL_TIMEOUT = 120  # seconds
PORT_TAKEN = re.compile(rb"Address (already )?in use")  # by another program, after it was chosen for a kernel
TIMINGS = book.ROOT / "_build" / "execution-seconds.json"  # only to start the longest first; never in a notebook

# Settings of the reader's that would change what a chapter prints or draws, or how Python reads it (PYTHONOPTIMIZE
# would drop every assert). What decides the arithmetic's speed alone (threads, instruction set) stays.
NOT_INHERITED = re.compile(r"PYTHON(?!HASHSEED)|IPYTHON|JUPYTER|MPL|MATPLOTLIB|COLUMNS$|LINES$|NO_COLOR$|FORCE_COLOR$")


# ------------------------------------------------------------------------------------ what a stored notebook is made of


def recipe(chapter: Path) -> str:
    """A hash of all that decides the outputs: the chapter's code, its stored runs, the helpers, the libraries."""
    root = chapter.parent.parent
    digest = hashlib.sha256()
    cells = book.code_cells(book.read_chapter(chapter))
    for cell in cells:
        digest.update(json.dumps([cell.source, cell.metadata.get("tags", [])]).encode())
    named = {name for cell in cells for name in STORED_RUN.findall(cell.source)}
    runs = [root / "benchmarks" / "runs" / f"{name}.json" for name in sorted(named)]
    runs = [path for path in runs if path.exists()]  # else the cell says what is missing
    for path in [*runs, *sorted((root / "helpers").rglob("*.py"))]:
        digest.update(f"{path.relative_to(root).as_posix()}\n{book.read_text(path)}\n".encode())
    digest.update("\n".join(digits_pins(root)).encode())
    return digest.hexdigest()[:16]


def render(chapter: Path, outputs: list[list[NotebookNode]], executed_from: str) -> str:
    """The text of the notebook: the chapter's cells, readable without Sphinx, with these outputs of its code cells.

    Raises:
        Unreadable: if the chapter refers to something that does not exist.
    """
    source = book.read_chapter(chapter)
    for cell, cell_outputs in zip(book.code_cells(source), outputs, strict=True):
        cell.outputs = cell_outputs
    cells = reading.cells(source, chapter, book.glued(source))
    return notebooks.sealed(cells, f"book/{chapter.name}", executed_from)


@dataclass(frozen=True)
class State:
    """How a stored notebook stands to its chapter.

    Args:
        why: why it is not its chapter's; None if it is.
        outputs: what its code printed, where that can be shown again; None if the chapter has to run.
        theirs: what in it is not the pipeline's work, so that it is moved aside before anything takes its place.
    """

    why: str | None
    outputs: list[list[NotebookNode]] | None = None
    theirs: list[str] = field(default_factory=list)


def state(chapter: Path) -> State:
    """How the stored notebook stands to its chapter.

    Raises:
        Unreadable: if the chapter cannot be read, or refers to something that does not exist.
    """
    path = book.notebook_of(chapter)
    executed_from = recipe(chapter)
    if not path.exists():
        return State("not executed yet")
    theirs = changed_by_hand(path)
    try:
        notebook = notebooks.read(path)
    except Unreadable as error:
        return State(str(error), theirs=theirs)
    sealed = notebook.metadata.get("book", {})
    # Edited text is put right without execution, as long as the outputs are what this very code printed.
    printed = sealed.get("executed_from") == executed_from and sealed.get("outputs") == notebooks.outputs_hash(notebook)
    outputs = [cell.outputs for cell in book.code_cells(notebook)] if printed else None
    if theirs:
        return State(f"it was changed by hand ({'; '.join(theirs)})", outputs, theirs)
    if outputs is None:
        return State("its code, a stored run, helpers/ or the pinned libraries changed")
    if render(chapter, outputs, executed_from) != book.read_text(path):
        return State("its text changed", outputs)
    return State(None, outputs)


def changed_by_hand(path: Path) -> list[str]:
    """What in a stored notebook is not the pipeline's work; nothing where there is no file."""
    try:
        return notebooks.changes(path, notebooks.read(path))
    except FileNotFoundError:
        return []
    except Unreadable as error:
        return [str(error)]


def stale(chapter: Path) -> str | None:
    """Why the stored notebook is not its chapter's, or None when it is."""
    return state(chapter).why


# ------------------------------------------------------------------------------------------------------------ running


def clean_environment() -> dict[str, str]:
    """The environment for a kernel: this one, without the settings that would change what a chapter prints."""
    kept = {name: value for name, value in os.environ.items() if not NOT_INHERITED.match(name)}
    ours = book.ROOT / "_build"
    return kept | {
        "PYTHONHASHSEED": "0",
        "PYTHONNOUSERSITE": "1",
        "IPYTHONDIR": str(ours / "ipython"),  # no profile of anyone's
        "MATPLOTLIBRC": str(book.ROOT / "tools" / "matplotlibrc"),
    }


class Kernel(AsyncKernelManager):
    """A kernel in this very Python, whatever kernel calls itself python3 on this machine."""

    @property
    def kernel_spec(self) -> KernelSpec:
        # The kernel's start-up remarks are not for the author; a file beside the notebook is not a module it imports.
        options = ["--log-level=ERROR", "--IPKernelApp.ignore_cwd=True"]
        argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}", *options]
        return KernelSpec(argv=argv, display_name="Python 3 (ipykernel)", language="python")


def check_helpers() -> None:
    """See that the chapters will import this repository's helpers.

    Raises:
        Failed: if they would import others, or none.
    """
    if not (book.ROOT / "helpers" / "__init__.py").exists():
        return  # a book without helpers
    code = "import importlib.util as u; spec = u.find_spec('helpers'); print(spec and spec.origin)"
    found = subprocess.run(
        [sys.executable, "-P", "-c", code],
        env=clean_environment(), capture_output=True, text=True, encoding="utf-8", check=False,
    )  # fmt: skip
    origin = found.stdout.strip()
    if not origin or Path(origin).parent != book.ROOT / "helpers":
        raise Failed(
            f"The kernel would import helpers from {origin or 'nowhere'}, not from {book.ROOT / 'helpers'}. "
            f"Install this repository: {sys.executable} -m pip install --no-deps -e ."
        )


async def run(chapter: Path, running: list[NotebookClient] | None = None) -> str:
    """Execute a chapter and return the text of its notebook.

    Args:
        running: where the clients that are at work are listed, so that somebody else can end them.

    Raises:
        Failed: with the cell and its error.
    """
    executed_from = recipe(chapter)
    notebook = book.read_chapter(chapter)
    folder = book.notebook_of(chapter).parent
    folder.mkdir(exist_ok=True)
    running = [] if running is None else running
    for starts_left in (2, 1, 0):
        client = NotebookClient(
            notebook,
            timeout=CELL_TIMEOUT,
            record_timing=False,
            kernel_manager_class=Kernel,
            resources={"metadata": {"path": str(folder)}},
        )
        running.append(client)
        # What a kernel says itself, beside its cells, counts only if it dies: some write a traceback as they shut down.
        with tempfile.TemporaryFile() as said:
            try:
                await client.async_execute(env=clean_environment(), stderr=said)
                break
            except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
                raise Failed(_explain(chapter, notebook, error, said)) from None
            except (RuntimeError, FileNotFoundError) as error:  # jupyter_client's word for a kernel that does not start
                said.seek(0)
                if not (starts_left and PORT_TAKEN.search(said.read())):
                    raise Failed(
                        f"book/{chapter.name}: the kernel did not start ({error}). Is ipykernel installed? `make env`"
                    ) from None
            finally:
                running.remove(client)
                atexit.unregister(client._cleanup_kernel)  # nbclient leaves it there when a kernel does not come up
    try:
        return render(chapter, [cell.outputs for cell in book.code_cells(notebook)], executed_from)
    except Unreadable as error:
        raise Failed(str(error)) from None


def _explain(chapter: Path, notebook: NotebookNode, error: Exception, said: BinaryIO) -> str:
    """Which cell of which chapter failed, its source and its error, without the terminal's colours.

    Args:
        said: what the kernel itself has written.
    """
    cells = book.code_cells(notebook)
    # The cell that raised; for a timeout or a dead kernel, the first that did not finish.
    place = next((n for n, cell in enumerate(cells) if _error(cell) or cell.execution_count is None), len(cells) - 1)
    failure = _error(cells[place])
    said.seek(0)
    last = said.read().decode("utf-8", errors="replace").strip()[-2000:]
    reason = "\n\n".join(filter(None, [f"{type(error).__name__}: {error}", last]))
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


class Execution:
    """Chapters executed side by side; each notebook is written as soon as it is there.

    A chapter that fails leaves its old notebook as it was. The kernels are awaited in a thread of their own, so that
    Ctrl-C reaches this one: the first ends all kernels and keeps what is finished, the second does not even wait.
    """

    def __init__(self, chapters: list[Path], jobs: int) -> None:
        self.failures: list[str] = []
        self._seconds = timings()
        # A chapter never timed goes first: it may be the longest.
        self._chapters = sorted(chapters, key=lambda path: -self._seconds.get(path.stem, float("inf")))
        self._jobs, self._done = jobs, 0
        self._running: list[NotebookClient] = []
        self._ended, self._interrupted = threading.Event(), False

    def __call__(self) -> list[str]:
        """Execute, and return what failed.

        Raises:
            KeyboardInterrupt: after Ctrl-C, when everything has been ended.
        """
        loop = asyncio.new_event_loop()
        threading.Thread(target=loop.run_forever, daemon=True).start()
        work = asyncio.run_coroutine_threadsafe(self._all(), loop)
        try:
            while not self._ended.wait(0.2):  # a wait without end could not be interrupted on Windows
                pass
            work.result()
        except KeyboardInterrupt:
            self._stop(work)
            raise
        finally:
            loop.call_soon_threadsafe(loop.stop)
            with contextlib.suppress(OSError):  # a convenience
                TIMINGS.parent.mkdir(exist_ok=True)
                TIMINGS.write_text(json.dumps(self._seconds, indent=1, sort_keys=True), encoding="utf-8")
        return self.failures

    def _stop(self, work: concurrent.futures.Future[None]) -> None:
        self._interrupted = True
        left = len(self._chapters) - self._done
        groups = [_group(client) for client in self._running]

        def at_once(*_: object) -> None:
            for group in groups:
                _kill(group)
            os._exit(command.INTERRUPTED)

        signal.signal(signal.SIGINT, at_once)
        print(
            f"\nInterrupted; {left} of {len(self._chapters)} chapters are left. The same command goes on with them.",
            flush=True,
        )
        for client in list(self._running):
            client.shutdown_kernel = "immediate"
        work.cancel()
        self._ended.wait(10)
        for group in groups:
            _kill(group)

    async def _all(self) -> None:
        free = asyncio.Semaphore(self._jobs)
        try:
            await asyncio.gather(*(self._one(chapter, free) for chapter in self._chapters))
        finally:
            rest = asyncio.all_tasks() - {asyncio.current_task()}
            for task in rest:  # nbclient's watchers of kernels that are gone
                task.cancel()
            await asyncio.gather(*rest, return_exceptions=True)
            self._ended.set()

    async def _one(self, chapter: Path, free: asyncio.Semaphore) -> None:
        async with free:
            start = time.perf_counter()
            try:
                text = await run(chapter, self._running)
                path = book.notebook_of(chapter)
                kept = notebooks.write(path, text, keep=bool(changed_by_hand(path)))
            except (Failed, OSError) as failure:
                if self._interrupted:
                    return
                self.failures.append(command.explained(failure) if isinstance(failure, OSError) else str(failure))
                self._say(f"FAILED {chapter.stem}")
                return
            took = time.perf_counter() - start
            self._seconds[chapter.stem] = round(took, 2)
            self._say(f"{chapter.stem}: {took:.1f} s")
            _say_kept(chapter, kept)

    def _say(self, words: str) -> None:
        self._done += 1
        print(f"[{self._done}/{len(self._chapters)}] {words}", flush=True)


def _group(client: NotebookClient) -> int | None:
    """The group of processes that a kernel and all that it starts belong to."""
    provisioner = getattr(client.km, "provisioner", None)
    return getattr(provisioner, "pgid", None) or getattr(provisioner, "pid", None)


def _kill(group: int | None) -> None:
    """End a kernel and all that it started, now."""
    with contextlib.suppress(OSError):
        if group and hasattr(os, "killpg"):
            os.killpg(group, signal.SIGKILL)
        elif group:
            os.kill(group, signal.SIGTERM)


def execute(chapters: list[Path], jobs: int) -> list[str]:
    """Execute these chapters in parallel, write their notebooks, and return what failed."""
    check_helpers()
    return Execution(chapters, jobs)()


# --------------------------------------------------------------------------------------------------------- the command


def strangers(root: Path = book.ROOT) -> list[Path]:
    """Notebooks in notebooks/ that no chapter stands behind."""
    expected = {book.notebook_of(chapter) for chapter in book.chapters(root)}
    return [path for path in sorted((root / "notebooks").glob("*.ipynb")) if path not in expected]


def orphans(root: Path = book.ROOT) -> list[Path]:
    """Those among the strangers that the pipeline made, as their seal shows, and whose chapter is gone."""
    found = []
    for path in strangers(root):
        with contextlib.suppress(Unreadable, OSError):
            if not (root / "book" / f"{path.stem}.md").exists() and not notebooks.changes(path, notebooks.read(path)):
                found.append(path)
    return found


def _say_kept(chapter: Path, kept: Path | None) -> None:
    if kept:
        print(
            f"notebooks/{book.notebook_of(chapter).name} had been changed by hand: it is kept as notebooks/{kept.name}"
        )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.execute", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="chapters by the start of their name, as in 03 (default: all)")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--all", action="store_true", help="execute also what is up to date")
    mode.add_argument("--check", action="store_true", help="execute nothing; fail if a notebook is stale")
    parser.add_argument("--jobs", type=int, default=min(os.cpu_count() or 1, 4), help="how many at a time")
    options = parser.parse_args(arguments)
    chosen = [
        path
        for path in book.chapters()
        if not options.names or any(path.stem.startswith(name) for name in options.names)
    ]
    if not chosen:
        raise Failed(f"no chapter is called {', '.join(options.names)}" if options.names else "book/ has no chapters")
    if options.check:
        return _check(chosen)
    with command.alone():
        return _bring_up_to_date(chosen, everything=options.all, jobs=max(1, options.jobs))


def _check(chosen: list[Path]) -> int:
    gone = orphans()
    for path in gone:
        print(f"notebooks/{path.name}: its chapter is gone")
    reasons = {chapter: why for chapter in chosen if (why := stale(chapter))}
    for chapter, why in reasons.items():
        print(f"notebooks/{book.notebook_of(chapter).name} is stale: {why}")
    if not (reasons or gone):
        return 0
    print("Run `make execute`.")
    return 1


def _bring_up_to_date(chosen: list[Path], *, everything: bool, jobs: int) -> int:
    todo, failures = [], []
    for chapter in chosen:
        if everything:
            todo.append(chapter)
            continue
        try:
            found = state(chapter)
            if found.outputs is None:
                todo.append(chapter)
                if found.theirs:
                    print(f"{chapter.stem}: {found.why}; it is executed again")
            elif found.why:
                text = render(chapter, found.outputs, recipe(chapter))
                kept = notebooks.write(book.notebook_of(chapter), text, keep=bool(found.theirs))
                print(f"{chapter.stem}: {found.why}; no code has to run")
                _say_kept(chapter, kept)
        except Unreadable as error:
            failures.append(str(error))
    for path in orphans():
        path.unlink()
        print(f"notebooks/{path.name}: removed, its chapter is gone")
    others = [path.name for path in strangers()]
    if others:
        print(f"Left alone in notebooks/, as no chapter stands behind them: {', '.join(others)}")
    failures += execute(todo, jobs) if todo else []
    if not (todo or failures):
        print("Every notebook is up to date.")
    for failure in failures:
        print(f"\n{'-' * 78}\n{failure}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(command.run(main))
