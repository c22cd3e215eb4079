"""How long does the book take: rendered when nothing has changed, and with every chapter executed afresh?"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from benchmarks.measure import Row, Table

ROOT = Path(__file__).parent.parent


def table() -> Table:
    """Run what ``make book`` runs. All chapters first, so that the second time nothing is stale."""
    execute, build = ["-m", "tools.execute"], ["-m", "tools.build"]
    afresh = seconds([*execute, "--all"])
    up_to_date = seconds(execute) + seconds(build)
    return Table(
        "Making the book",
        [
            Row("every chapter executed afresh", afresh, "allowed: 3 min"),
            Row("make book, nothing changed", up_to_date, "allowed: 20 s"),
        ],
    )


def seconds(arguments: list[str]) -> float:
    """How long one command of the pipeline takes; its own words are shown only if it fails."""
    start = time.perf_counter()
    run = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    if run.returncode:
        raise RuntimeError(f"{' '.join(arguments)} failed:\n{run.stdout}{run.stderr}")
    return time.perf_counter() - start
