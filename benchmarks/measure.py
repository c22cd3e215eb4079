"""How time and memory are measured, and how the result is shown or stored."""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from helpers import Risk, minimise
from helpers.files import write_whole

RUNS = Path(__file__).parent / "runs"


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


def resident() -> dict[str, float]:
    """Memory of this process in MiB: present ("VmRSS"), peak ("VmHWM"), and address space; {} if Linux does not say."""
    with suppress(OSError):
        fields = re.findall(r"^(Vm\w+):\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"), re.M)
        return {name: int(kilobytes) / 1024 for name, kilobytes in fields}
    return {}


class Peak:
    """How far memory rises above where it stands now, in MiB.

    On Linux the kernel's own peak is set back first. Elsewhere it is the growth of the highest peak so far, and None on
    Windows.
    """

    def __init__(self) -> None:
        self.how = "highest resident set (VmHWM, set back after the warm-up) above the resident set at the start"
        self.start: float | None
        try:
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
            self.start = resident()["VmRSS"]
        except (OSError, KeyError):
            self.how = "growth of ru_maxrss"
            self.start = self.highest()

    @staticmethod
    def highest() -> float | None:
        try:
            import resource
        except ImportError:
            return None
        unit = 2**20 if sys.platform == "darwin" else 2**10
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit

    def mib(self) -> float | None:
        now = resident().get("VmHWM") if self.how.startswith("highest") else self.highest()
        return None if now is None or self.start is None else now - self.start


def rounded(x: float, digits: int = 3) -> float | None:
    """To so many significant digits; None for what JSON does not have."""
    return float(f"{x:.{digits}g}") if abs(x) < float("inf") else None


def write_run(file: Path, command: str, content: Mapping[str, Any]) -> None:
    """Store a run: the day, the command that repeats it, what it was measured on, and its content."""
    write_json(file, {"date": date.today().isoformat(), "command": command, "machine": machine(), **content})


def write_json(file: Path, content: Mapping[str, Any]) -> None:
    """Write the whole file or nothing of it. If that fails, the numbers are printed: it took long to get them."""
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    try:
        write_whole(file, text.encode())
    except OSError as error:
        sys.exit(f"{text}\n{file} cannot be written: {error}. What should stand in it stands above.")


def machine() -> dict[str, str | int]:
    """What the numbers were measured on."""
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count() or 1,
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as info:
            return next(line.split(":", 1)[1].strip() for line in info if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown"


def by_pytorch(risk: Risk, start: Tensor, weights: Tensor | None = None, max_steps: int = 2000) -> Tensor:
    """A certified minimum (p,): where PyTorch's L-BFGS leads, as a reader's own training might, and `minimise` ends."""
    theta = start.detach().clone()
    options: dict[str, Any] = {"tolerance_grad": 1e-6, "tolerance_change": 0.0, "history_size": 20}
    lbfgs = torch.optim.LBFGS([theta], max_iter=max_steps, line_search_fn="strong_wolfe", **options)

    def closure() -> float:
        theta.grad = risk.gradient(theta, weights)
        return float(risk(theta, weights))

    lbfgs.step(closure)
    return minimise(risk, theta, weights).theta
