"""``python -m benchmarks.products``: products with a large Hessian as the data grow, and what is built on products.

Six products with the Hessian of a million parameters, each contender in a process of its own, on 1,400 and on 5,600
examples: in batches that fit into some megabytes, in one graph, and by curvlinops over its own batches. Then block
conjugate gradients with columns that depend on each other, and an audit of 1,210 parameters.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import curvlinops
import torch
from torch import Tensor, nn

from benchmarks.scale import alone, digits_risk, large
from helpers import (
    CROSS_ENTROPY,
    Data,
    HessianOperator,
    Risk,
    audit,
    block_conjugate_gradients,
    digits,
    minimise,
    mlp,
)

PRODUCTS = 6
CURVLINOPS_BATCH = 256  # of its memory and time the best of 64, 256 and 1,400


def main() -> None:
    torch.set_num_threads(1)
    print(f"{PRODUCTS} products with the Hessian of a million parameters")
    for copies in (1, 4):
        rows = {
            "helpers, as it comes": alone(by_helpers, copies, None),
            "helpers, one graph": alone(by_helpers, copies, 1400 * copies),
            f"curvlinops, batches of {CURVLINOPS_BATCH}": alone(by_curvlinops, copies),
        }
        reference = rows["helpers, one graph"]["result"]
        for name, row in rows.items():
            error = float((row["result"] - reference).norm() / reference.norm())
            print(
                f"  n = {1400 * copies:,}  {name:30}{row['seconds']:7.1f} s{row['peak_mib']:6} MiB   error {error:.0e}"
            )
    dependent_columns()
    whole_audit()


def enlarged(copies: int) -> tuple[Any, Any, Tensor, Data]:
    module, model, theta, train, _ = large()
    return module, model, theta, Data(train.X.repeat(copies, 1), train.y.repeat(copies))


def by_helpers(copies: int, batch: int | None) -> Callable[[], Tensor]:
    _, model, theta, data = enlarged(copies)
    risk = Risk(model, data, CROSS_ENTROPY, batch=batch)
    risk(theta)  # its first use tries the model
    H, v = HessianOperator(risk, theta), torch.ones_like(theta)
    return lambda: [H @ v for _ in range(PRODUCTS)][-1]


def by_curvlinops(copies: int) -> Callable[[], Tensor]:
    module, _, theta, data = enlarged(copies)
    batches = list(zip(data.X.split(CURVLINOPS_BATCH), data.y.split(CURVLINOPS_BATCH), strict=True))
    parameters = list(module.parameters())
    nn.utils.vector_to_parameters(theta, parameters)
    H = curvlinops.HessianLinearOperator(module, nn.CrossEntropyLoss(), parameters, batches, check_deterministic=False)
    v = torch.ones_like(theta)
    return lambda: [H @ v for _ in range(PRODUCTS)][-1]


def dependent_columns() -> None:
    """How many iterations block conjugate gradients take when columns repeat, depend on others, or vanish."""
    risk, start, test = digits_risk()
    theta = minimise(risk, start).theta
    H, B = HessianOperator(risk, theta), risk.gradients(theta, test[:100]).T
    print("\nblock conjugate gradients to 1e-8, the digits' 2,410 parameters")
    for name, columns in (
        ("100 test images", B),
        ("and a duplicate", torch.cat([B, B[:, :1]], 1)),
        ("and ten duplicates", torch.cat([B, B[:, :10]], 1)),
        ("and their mean", torch.cat([B, B.mean(1, keepdim=True)], 1)),
        ("and a column of zeros", torch.cat([B, 0 * B[:, :1]], 1)),
    ):
        found = block_conjugate_gradients(H, columns)
        print(f"  {name:24}{found.iterations:3} iterations, largest residual {float(found.residuals.max()):.0e}")


def whole_audit() -> None:
    train, test = digits()
    model, start = mlp(64, 16, 10)
    risk = Risk(model, train, CROSS_ENTROPY, l2=0.01)
    theta = minimise(risk, start).theta
    begun = time.process_time()
    report = audit(risk, theta, test[:20])
    print(f"\naudit of {model.p:,} parameters, ten retrainings: {time.process_time() - begun:.1f} s, {report.verdict}")


if __name__ == "__main__":
    main()
