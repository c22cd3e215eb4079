"""``python -m benchmarks.batches``: six products with the Hessian of a million parameters, for more and more examples.

`helpers` keep the graph of the gradient from product to product while one batch holds all examples, and build it anew
for each product where it does not; curvlinops builds it anew always. Each measurement has a process of its own. Counted
is what the products add to the memory of model, data and operator: the highest resident set above the one before them.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from typing import Any

import curvlinops
import torch
from torch import Tensor, nn

from benchmarks.measure import RUNS, Peak, rounded, write_run
from benchmarks.scale import large
from helpers import CROSS_ENTROPY, Data, HessianOperator, Risk

BATCH = 1400  # of curvlinops' loader
PRODUCTS = 6


def product(name: str, data: Data) -> Callable[[Tensor], Tensor]:
    module, model, theta, _, _ = large()
    if name == "helpers":
        H = HessianOperator(Risk(model, data, CROSS_ENTROPY), theta)
    else:
        loader = [(data.X[k : k + BATCH], data.y[k : k + BATCH]) for k in range(0, len(data), BATCH)]
        loss, parameters = nn.CrossEntropyLoss(), list(module.parameters())
        H = curvlinops.HessianLinearOperator(module, loss, parameters, loader, check_deterministic=False)
    return lambda v: H @ v


def measured(name: str, n: int) -> dict[str, Any]:
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    _, model, _, train, _ = large()
    copies = -(-n // len(train))
    data = Data(train.X.repeat(copies, 1)[:n], train.y.repeat(copies)[:n])
    v = torch.randn(model.p, generator=torch.Generator().manual_seed(0))
    product(name, data[:50])(v)
    apply = product(name, data)  # a risk tries its model at its first use: once, and no product's memory
    peak, start = Peak(), time.process_time()
    for _ in range(PRODUCTS):
        apply(v)
    mib = peak.mib()
    seconds = rounded(time.process_time() - start)
    return {"name": name, "n": n, "cpu_seconds": seconds, "peak_mib": None if mib is None else round(mib)}


def main() -> None:
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as alone:
        rows = alone.starmap(measured, [(k, n) for n in (1400, 2800, 5600) for k in ("helpers", "curvlinops")], 1)
    for row in rows:
        print(row)
    write_run(RUNS / "batches.json", "python -m benchmarks.batches", {"products": PRODUCTS, "rows": rows})


if __name__ == "__main__":
    main()
