"""What a page of the book needs beside the mathematics: a session, stored numbers, numbers for its text."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch


class NotStored(RuntimeError):
    """The numbers of a benchmark are not there, or not whole."""


def stored_run(name: str) -> dict[str, Any]:
    """What ``python -m benchmarks.<name>`` measured and stored: its date, its machine, its numbers.

    Raises:
        NotStored: if there is no such run, or its file is damaged. The message says how to get it back.
    """
    # Of the same tree as this file: an installed package carries the runs, in a clone they lie with what makes them.
    package = Path(__file__).resolve().parent.parent
    folder = package / "runs" if (package / "runs").is_dir() else package.parent / "benchmarks" / "runs"
    return read_run(folder / f"{name}.json")


def read_run(file: Path) -> dict[str, Any]:
    """The run in this file, as `stored_run`."""
    try:
        run = json.loads(file.read_text(encoding="utf-8"))
        if not (isinstance(run, dict) and {"date", "command", "machine"} <= run.keys()):
            raise ValueError("It is JSON, but no run: that has a date, a command and a machine")
    except FileNotFoundError:
        others = ", ".join(sorted(other.stem for other in file.parent.glob("*.json"))) or "none"
        why = f"There is no such file (its folder has these: {others})"
    except (OSError, ValueError) as error:
        why = str(error)
    else:
        return run
    remedy = (
        f"`git checkout -- benchmarks/runs/{file.name}` brings it back, "
        f"`python -m benchmarks.{file.stem}` makes it anew"
        if file.parent.parent.name == "benchmarks"
        else "installing the package again brings it back"
    )
    raise NotStored(f"The stored run {file} cannot be read. {why}. Remedy: {remedy}.")


def glue(name: str, value: float | int | str) -> None:
    """Give the text of a page a number: ``{glue:text}`name:.2f``` writes it there.

    The notebook stores it beside the cell's outputs, as `myst-nb <https://myst-nb.readthedocs.io>`_ reads it, and does
    not show it. Of a float six significant digits are stored. They are more than any text shows, and the last of all
    digits are the machine's. Outside IPython there is no text to give it to, so nothing happens.

    Raises:
        TypeError: if the value is neither a number nor a string, for instance a tensor.
    """
    if isinstance(value, float):
        value = float(f"{value:.6g}")
    elif not isinstance(value, int | str):
        raise TypeError(f"glue({name!r}, …) takes a number or a string, not {type(value).__name__}; try float(…).")
    if "IPython" not in sys.modules:  # it would take a while to import
        return
    from IPython import display, get_ipython

    if get_ipython() is not None:
        hidden = "application/papermill.record/"
        scrap = {"name": name, "mime_prefix": hidden}
        display.publish_display_data({f"{hidden}text/plain": repr(value)}, {"scrapbook": scrap})


def setup() -> None:
    """Fix the number format (float64), one thread, and the figure style.

    Call it once, at the top of a notebook. Matrices as small as the book's are faster on one thread than on several,
    and one thread adds numbers in one order, so that the printed digits do not depend on the machine.
    """
    from .figures import use_book_style  # pyplot is imported where figures are drawn

    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    torch.set_printoptions(precision=4, sci_mode=False, linewidth=78)
    use_book_style()
