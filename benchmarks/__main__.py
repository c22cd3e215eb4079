"""``python -m benchmarks [--json FILE] [--repeats N] [--build]``: print how much faster the helpers are."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from benchmarks import build, influences, retraining
from benchmarks.measure import machine, write_json


def main() -> None:
    """Everyone runs on one thread, as the chapters do."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="What is fast, measured side by side.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers to a file as well")
    parser.add_argument("--repeats", type=int, default=5, help="how often each contender runs; the median counts")
    parser.add_argument("--build", action="store_true", help="also execute all chapters and render the book")
    options = parser.parse_args()

    torch.set_num_threads(1)
    print(", ".join(f"{name} {value}" for name, value in machine().items()), "\n")
    tables = []
    for table in (retraining.table, influences.table):
        tables.append(table(options.repeats))
        print(tables[-1], "\n")
    if options.build:
        tables.append(build.table())
        print(tables[-1], "\n")
    if options.json:
        report = {"machine": machine(), "tables": [table.as_dict() for table in tables]}
        write_json(options.json, report)


if __name__ == "__main__":
    main()
