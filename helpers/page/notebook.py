"""What a page of the book needs beside the mathematics: a session, stored numbers, numbers for its text."""

from __future__ import annotations

import contextlib
import json
import re
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


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


def note(**values: float | int | str | Tensor) -> None:
    """Give the text of a page numbers: after ``note(r=…)``, ``{glue:text}`r:.2f``` writes the number there.

    The notebook stores them beside the cell's outputs, as `myst-nb <https://myst-nb.readthedocs.io>`_ reads them, and
    does not show them. Of a float six significant digits are stored. They are more than any text shows, and the last
    of all digits are the machine's. Outside IPython there is no text to give them to, so nothing happens.

    Raises:
        TypeError: if a value is neither a number (a tensor of one number, too) nor a string.
    """
    stored = {name: _number(name, value) for name, value in values.items()}
    if "IPython" not in sys.modules:  # it would take a while to import
        return
    from IPython import display, get_ipython

    if get_ipython() is not None:
        hidden = "application/papermill.record/"
        for name, value in stored.items():
            scrap = {"name": name, "mime_prefix": hidden}
            display.publish_display_data({f"{hidden}text/plain": repr(value)}, {"scrapbook": scrap})


def _number(name: str, value: Any) -> float | int | str:
    if hasattr(value, "item"):  # torch and numpy
        with contextlib.suppress(ValueError, RuntimeError):  # more than one number
            value = value.item()
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, int | str):
        return value
    raise TypeError(f"note({name}=…) takes a number or a string, not {type(value).__name__} ({value!r:.60}).")


def _as_in_text(value: Any, form: str) -> str:
    """A number as it is set in the text: with a true minus, and a space before %."""
    text = format(value.item() if hasattr(value, "item") else value, form)
    return text if isinstance(value, str) else text.replace("-", "−").replace("%", "\N{NO-BREAK SPACE}%")


class Table:
    """A table of numbers for a page: text where only text is shown, else HTML. Made by `table`."""

    def __init__(self, columns: dict[str, Any], formats: dict[str, str]) -> None:
        if len({len(column) for column in columns.values()}) > 1:
            sizes = ", ".join(f"{name!r} {len(column)}" for name, column in columns.items())
            raise ValueError(f"the columns of a table have different lengths: {sizes}.")
        if unknown := formats.keys() - columns.keys():
            raise ValueError(f"formats are given for columns that the table lacks: {', '.join(sorted(unknown))}.")
        # Formatted here: `tabulate` would read "31" as a number, and write it in its own way.
        self.columns = {
            name: [_as_in_text(value, formats.get(name, "")) for value in column] for name, column in columns.items()
        }

    def _written(self, form: str) -> str:
        from tabulate import tabulate  # type: ignore[import-untyped]

        words = [any(re.search("[A-Za-z]{3}", each) for each in column) for column in self.columns.values()]
        align = ["left" if each else "right" for each in words]
        return tabulate(self.columns, headers="keys", tablefmt=form, disable_numparse=True, colalign=align)

    def __repr__(self) -> str:
        return self._written("simple")

    def _repr_html_(self) -> str:
        return self._written("html")


def table(columns: dict[str, Any], formats: dict[str, str] | None = None) -> Table:
    """Columns of the same length, each under its name, as a table: the last line of a cell shows it.

    Args:
        columns: name -> the column's values, numbers or words.
        formats: name -> how its numbers are written, as in an f-string: ``"+.3f"``; minus and % are set as in the text.

    Raises:
        ValueError: for columns of different lengths, or a format for a column that is not there.

    >>> table({"point": [31, 43], "influence": [3.5901, -0.52]}, {"influence": "+.2f"})
      point    influence
    -------  -----------
         31        +3.59
         43        −0.52
    """
    return Table(columns, formats or {})


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
