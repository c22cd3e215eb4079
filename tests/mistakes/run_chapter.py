"""Run the code of a chapter, cell by cell, and report the first error. The tests start this and give it jobs.

Each line of the standard input is a job: a JSON list of the folder from which ``helpers`` is to be imported and the
sources of the cells. Each line of the standard output is its report. PyTorch is imported once, and each job runs in a
process of its own that is forked from here; where there is no fork, the tests start this anew for every job.
"""

from __future__ import annotations

import contextlib
import io
import json
import linecache
import os
import sys
import traceback
import types
from pathlib import Path

os.environ["MPLBACKEND"] = "Agg"

# Figures and glued numbers are not what is tested here, and drawing and IPython take time.
no_glue = types.ModuleType("myst_nb")
no_glue.glue = lambda *args, **kwargs: None
sys.modules["myst_nb"] = no_glue

import matplotlib.pyplot as plt  # noqa: E402
import torch  # noqa: E402

torch.set_num_threads(1)  # threads that exist do not survive a fork
plt.show = lambda *args, **kwargs: plt.close("all")


def run(root: str, cells: list[str]) -> dict[str, object]:
    """What stops the cells first: the error's type, its message, and the line of the cell that raised it."""
    sys.path.insert(0, root)
    os.chdir(Path(root) / "book")  # from where a chapter reads a stored run
    import helpers

    if not Path(helpers.__file__).resolve().is_relative_to(Path(root).resolve()):
        return {"error": "ImportError", "message": f"helpers came from {helpers.__file__}, not {root}", "line": ""}
    namespace: dict[str, object] = {"__name__": "__main__"}
    for number, source in enumerate(cells):
        name = f"<cell {number}>"
        linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
        try:
            exec(compile(source, name, "exec"), namespace)
        except Exception as error:
            lines = [frame.line or "" for frame in traceback.extract_tb(error.__traceback__) if frame.filename == name]
            return {"error": type(error).__name__, "message": str(error), "line": "".join(lines[-1:])}
    return {"error": None}


def report(job: str) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        found = run(*json.loads(job))
    print(json.dumps(found), flush=True)


# A process that a chapter spawns imports this file, too, and must leave the jobs alone.
if __name__ == "__main__":
    for job in sys.stdin:
        if not hasattr(os, "fork"):
            report(job)
        elif child := os.fork():
            if os.waitpid(child, 0)[1]:
                print(json.dumps({"error": "Crash", "message": "the process died", "line": ""}), flush=True)
        else:
            report(job)
            os._exit(0)
