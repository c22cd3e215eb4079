"""Contenders for one job, timed in turn, and a table of how they compare."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Row:
    """One contender: its name, its time, and what was checked about its result."""

    name: str
    seconds: float
    checked: str


@dataclass(frozen=True)
class Table:
    """The answer to one question; the first row is what the others are compared with."""

    question: str
    rows: list[Row]

    def __str__(self) -> str:
        lines = [self.question, f"  {'':44}{'time':>10}{'faster':>9}   checked"]
        for row in self.rows:
            ratio = self.rows[0].seconds / row.seconds
            lines.append(f"  {row.name:44}{1e3 * row.seconds:>7.0f} ms{ratio:>8.1f}×   {row.checked}")
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def medians(contenders: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """The median time of each, in seconds: the processor's, which what else runs on the machine disturbs least.

    On one thread, and on a quiet machine, it is the time on the clock. The contenders take turns, so that a busy
    moment hits all of them.
    """
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for contender in contenders.values():
        contender()  # the first call compiles, allocates and imports
    for _ in range(repeats):
        for name, contender in contenders.items():
            start = time.process_time()
            contender()
            times[name].append(time.process_time() - start)
    return {name: statistics.median(measured) for name, measured in times.items()}


def machine() -> dict[str, str | int]:
    """What the numbers were measured on."""
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as info:
            return next(line.split(":", 1)[1].strip() for line in info if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown"
