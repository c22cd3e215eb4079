"""A process that runs chapters and tests against planted mistakes. The tests start it and give it jobs.

Each line of the standard input is a job, a JSON object; each line of the standard output is its answer. What every job
needs is imported once, here; each job then runs in a process of its own that is forked from this one. Mistakes in a
chapter's own code share what stands before them: the chapter runs once, as it is, and at the cell where a mistake
begins a process is forked that has it instead. Where there is no fork, the tests start this anew for every job.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import linecache
import os
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

os.environ["MPLBACKEND"] = "Agg"
os.environ["CUDA_VISIBLE_DEVICES"] = ""  # a driver that was started does not survive a fork

import matplotlib.pyplot as plt
import torch

FORKS = hasattr(os, "fork")
PATIENCE = 300  # seconds; a mistake may make an endless loop
# What most jobs import; and a first derivative makes torch import a thousand modules more.
SHARED = ("scipy.sparse.linalg", "sklearn.datasets", "pytest", "hypothesis")

torch.set_num_threads(1)  # threads that exist do not survive a fork
# What is tested here are numbers; drawing takes time.
plt.show = lambda *args, **kwargs: plt.close("all")

Found = dict[str, Any]


def forked(work: Callable[[], Any]) -> Any:
    """What ``work`` returns in a process of its own, forked from here."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.alarm(PATIENCE)
            with os.fdopen(writing, "w", encoding="utf-8") as answer:
                answer.write(json.dumps(work()))
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as answer:
        text = answer.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return json.loads(text) if text else {"error": "Crash", "message": f"the process ended with {status}", "line": ""}


def error_in(namespace: dict[str, Any], number: int, source: str) -> Found | None:
    """What stops a cell: the error's type, its message, and the line of the cell that raised it; None if nothing."""
    name = f"<cell {number}>"
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    try:
        exec(compile(source, name, "exec"), namespace)
    except Exception as error:
        lines = [frame.line or "" for frame in traceback.extract_tb(error.__traceback__) if frame.filename == name]
        return {"error": type(error).__name__, "message": str(error), "line": "".join(lines[-1:])}
    return None


def first_error(namespace: dict[str, Any], cells: list[str], start: int) -> Found:
    """What stops the cells first, from number ``start`` on; ``{"error": None}`` if nothing does."""
    found = (error_in(namespace, number, cells[number]) for number in range(start, len(cells)))
    return next((error for error in found if error), {"error": None})


def run(root: str, cells: list[str], planted: dict[str, list[str]]) -> dict[str, Found | None]:
    """What stops these cells first, under "", and under each mistake's name what stops the cells that have it.

    None stands for a mistake that begins where threads are running: nobody may fork there.
    """
    os.chdir(Path(root) / "book")  # from where a chapter reads a stored run
    namespace: dict[str, Any] = {"__name__": "__main__"}
    found: dict[str, Found | None] = {}
    waiting = dict(planted)
    for number, source in enumerate(cells):
        for name in [name for name, theirs in waiting.items() if theirs[number : number + 1] != [source]]:
            theirs = waiting.pop(name)
            alone = threading.active_count() == 1
            found[name] = forked(partial(first_error, namespace, theirs, number)) if alone else None
        if error := error_in(namespace, number, source):
            return found | {"": error}
    return found | {"": {"error": None}}


def run_tests(root: str, tests: list[str]) -> Found:
    """Run pytest's tests in a copy of the book; its exit status, and what it wrote."""
    import pytest

    os.chdir(root)
    with tempfile.TemporaryFile("w+", encoding="utf-8") as written:
        os.dup2(written.fileno(), 1)
        # The plugins were imported before pytest could look at their assertions; nobody needs them.
        options = ["-x", "-q", "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
        status = pytest.main([*options, *tests])
        sys.stdout.flush()
        written.seek(0)
        return {"status": int(status), "written": written.read()[-5000:]}


def answer(job: dict[str, Any]) -> Any:
    root = job["root"]
    sys.path.insert(0, root)
    import helpers

    if not Path(helpers.__file__).resolve().is_relative_to(Path(root).resolve()):
        raise ImportError(f"helpers came from {helpers.__file__}, not {root}")
    if "tests" in job:
        return run_tests(**job)
    with contextlib.redirect_stdout(io.StringIO()):
        return run(**job)


def main() -> None:
    if FORKS:
        for module in SHARED:
            importlib.import_module(module)
        torch.func.vmap(torch.func.grad(torch.sin))(torch.zeros(2))
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")  # whatever a job does to its own output
    for line in sys.stdin:
        job = json.loads(line)
        print(json.dumps(forked(partial(answer, job)) if FORKS else answer(job)), file=answers, flush=True)


# A process that a chapter spawns imports this file, too, and must leave the jobs alone.
if __name__ == "__main__":
    main()
