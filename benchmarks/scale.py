"""``python -m benchmarks.scale``: the speed and the memory that larger models need, each contender in its own process.

All 1,400 leave-one-out retrainings of the digits classifier; and one test point's influences in a network of a million
parameters.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import pickle
import time
from collections.abc import Callable
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import curvlinops
import numpy as np
import torch
from curvlinops.examples import IdentityLinearOperator
from scipy.sparse.linalg import LinearOperator, cg
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.measure import RUNS, Peak, by_pytorch, rounded, write_run
from helpers import (
    CROSS_ENTROPY,
    Data,
    FlatModel,
    HessianOperator,
    NotPositiveDefinite,
    Risk,
    Solution,
    actual_change,
    agreement,
    certify,
    cholesky_solve,
    conjugate_gradients,
    digits,
    flatten,
    hessian_vector_product,
    influence,
    leave_one_out,
    leave_out_weights,
    leverage,
    mlp,
    predicted_change,
)
from helpers.optimum import Minima
from helpers.page.notebook import NotStored, read_run

STORED = RUNS / "scale.json"
GTOL = 1e-7  # of the retrainings
RTOL = 1e-6  # of the conjugate gradients
DAMPING = 0.01  # of the network with a million parameters
QUERIES = 5  # test examples whose 1,400 changes are stored
SAMPLE = 20  # of the 1,400 retrainings, for those who do them one by one


def main() -> None:
    """Every contender in turn, in a process of its own and on one thread."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__.split(":", 1)[1])
    parser.add_argument("--json", type=Path, default=STORED, metavar="FILE", help="where the numbers go")
    parser.add_argument("--only", choices=("retraining", "million"), help="the other part is kept as it is stored")
    options = parser.parse_args()
    torch.set_num_threads(1)
    try:
        # Only if it is needed: a damaged file is made anew by a full run.
        stored = read_run(options.json) if options.only and options.json.exists() else {}
    except NotStored as error:
        parser.error(str(error))
    content: dict[str, Any] = {
        "versions": {name: metadata.version(name) for name in ("torch", "curvlinops-for-pytorch", "scipy")}
    }
    for name, part in (("retraining", retraining), ("million", million)):
        content[name] = part() if options.only in (None, name) else stored.get(name)
    write_run(options.json, "python -m benchmarks.scale", content)


# ------------------------------------------------------------------------------- 1,400 retrainings of the digits


def digits_risk() -> tuple[Risk, Tensor, Data]:
    """The digits classifier, 64-32-10, its initial parameters, and the test examples."""
    train, test = digits()
    model, start = mlp(64, 32, 10)
    return Risk(model, train, CROSS_ENTROPY, l2=0.01), start, test


def retraining() -> dict[str, Any]:
    """The warm loop, as a reader would write it, against the batch, both to the same gradient norm; and what for.

    That is: how well the influences predict what the 1,400 retrainings do, to the test losses and to the own ones.
    """
    risk, start, test = digits_risk()
    theta = by_pytorch(risk, start)
    sample = torch.arange(0, risk.n, risk.n // SAMPLE)
    rows = [
        {"name": f"loop: L-BFGS from the minimum, no certificate (of {SAMPLE})", **alone(warm_loop, theta, sample)},
        {"name": f"loop: the same and a certificate (of {SAMPLE})", **alone(warm_loop_certified, theta, sample)},
        {"name": "batch: leave_one_out, each certified", **alone(batched, theta)},
    ]
    *loops, batch = rows
    found: Minima = batch.pop("result")
    # Verified here anew, one by one: the tolerance for all, the certificate for the sample.
    W = leave_out_weights(risk.n)
    norms = torch.stack([risk.gradient(each, w).norm() for each, w in zip(found.thetas, W, strict=True)])
    for i in sample.tolist():
        certify(risk, found.thetas[i], W[i], gtol=GTOL)
    batch["worst_gradient_norm"] = rounded(float(norms.max()))
    batch["smallest_eigenvalue"] = rounded(float(found.smallest_eigenvalues.min()))
    actual = actual_change(risk, theta, found, test)
    for row in loops:
        thetas = row.pop("result")
        by_loop = actual_change(
            risk, theta, replace(found, thetas=thetas, certified=thetas[:, 0] == thetas[:, 0]), test
        )
        error = (by_loop - actual[:, sample]).abs().max() / actual[:, sample].abs().max()
        row["difference"] = rounded(float(error))
        row["seconds"] = rounded(row["seconds"] * risk.n / len(sample), digits=4)
    for row in rows:
        show(row, rows[0])
    return {"rows": rows, **predictions(risk, theta, found, test, actual)}


def predictions(risk: Risk, theta: Tensor, found: Minima, test: Data, actual: Tensor) -> dict[str, Any]:
    """First order against retraining: the losses of all test examples, and each point's own, one by one."""
    G = risk.gradients(theta)
    solved = cholesky_solve(HessianOperator(risk, theta).dense(), G.T)
    fit = agreement(predicted_change(-risk.gradients(theta, test) @ solved), actual)
    predicted = predicted_change(-G @ solved).diagonal()
    after = torch.stack([risk.losses(each, risk.data[[i]])[0] for i, each in enumerate(found.thetas)])
    own = after - risk.losses(theta)
    print(f"  test losses: r {fit.r:.4f}, slope {fit.slope:.3f}; own: r {agreement(predicted, own).r:.4f}", flush=True)
    return {
        "test": {"points": len(test), "r": rounded(fit.r, digits=4), "slope": rounded(fit.slope, digits=4)},
        "queries": [[rounded(float(x)) for x in row] for row in actual[:QUERIES]],
        "own": {
            "predicted": [rounded(float(x)) for x in predicted],
            "actual": [rounded(float(x)) for x in own],
            "leverage": [rounded(float(x)) for x in leverage(risk, theta)],
        },
    }


class _Reached(Exception):
    """The gradient is small enough."""


def warm_loop(theta: Tensor, sample: Tensor) -> Callable[[], Tensor]:
    """PyTorch's L-BFGS from the minimum, until ‖∇R‖ ≤ GTOL: the memory of 100 steps is the best for it."""
    risk = digits_risk()[0]
    W = leave_out_weights(risk.n)

    def one(w: Tensor) -> Tensor:
        at = theta.clone().requires_grad_(True)
        optimiser = torch.optim.LBFGS(
            [at],
            max_iter=5000,
            tolerance_grad=0.0,
            tolerance_change=0.0,
            history_size=100,
            line_search_fn="strong_wolfe",
        )

        def closure() -> Tensor:
            optimiser.zero_grad()
            value = risk.value(at, w)
            value.backward()
            if at.grad is not None and at.grad.norm() <= GTOL:
                raise _Reached
            return value

        try:
            optimiser.step(closure)
        except _Reached:
            return at.detach()
        raise RuntimeError("L-BFGS did not get there.")

    return lambda: torch.stack([one(W[i]) for i in sample])


def warm_loop_certified(theta: Tensor, sample: Tensor) -> Callable[[], Tensor]:
    risk = digits_risk()[0]
    W, loop = leave_out_weights(risk.n), warm_loop(theta, sample)

    def run() -> Tensor:
        thetas = loop()
        for i, each in zip(sample.tolist(), thetas, strict=True):
            certify(risk, each, W[i], gtol=GTOL)
        return thetas

    return run


def batched(theta: Tensor) -> Callable[[], Minima]:
    risk = digits_risk()[0]
    return lambda: leave_one_out(risk, theta, gtol=GTOL)


# ------------------------------------------------------------------------------------------- a million parameters


def large() -> tuple[nn.Module, FlatModel, Tensor, Data, Data]:
    """A network 784-1024-256-10 on digits of 28 × 28 pixels."""
    train, test = digits()

    def enlarged(data: Data) -> Data:
        images = data.X.reshape(-1, 1, 8, 8)
        return Data(F.interpolate(images, (28, 28), mode="bilinear").reshape(-1, 784), data.y)

    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(784, 1024), nn.Tanh(), nn.Linear(1024, 256), nn.Tanh(), nn.Linear(256, 10))
    model, theta = flatten(module)
    return module.double(), model, theta, enlarged(train), enlarged(test)[:1]


def million() -> dict[str, Any]:
    """Trained for a while, as such networks are, not to a minimum: so H is damped until CG meets no negative curvature.

    With a damping of 0.01 it meets none, to this tolerance; with none it does, and says so.
    """
    _, model, start, train, test = large()
    risk = Risk(model, train, CROSS_ENTROPY)
    theta = trained(risk, start, steps=100)
    b = risk.gradients(theta, test).T
    report = {
        "parameters": model.p,
        "gradient_norm": rounded(float(risk.gradient(theta).norm())),
        "damping": DAMPING,
        "rtol": RTOL,
        "products": conjugate_gradients(HessianOperator(risk, theta, damping=DAMPING), b, rtol=RTOL).iterations,
        "undamped": refusal(HessianOperator(risk, theta), b),
    }
    print(f"\n{report}")
    reference = plain(risk, theta, test)
    rows = []
    for name, contender in (
        ("curvlinops: CG inverse, scores not included", by_curvlinops),
        ("helpers.influence by conjugate_gradients", by_helpers),
    ):
        row = alone(contender, theta)
        found = row.pop("result")
        if contender is by_curvlinops:
            found = -risk.slopes(theta, found.T)[0]
        row["r"] = rounded(agreement(found, reference).r, digits=8)
        row["error"] = rounded(float((found - reference).abs().max() / reference.abs().max()))
        rows.append({"name": name, **row})
        show(rows[-1], rows[0])
    return report | {"rows": rows}


def refusal(H: HessianOperator, b: Tensor) -> str | None:
    """What conjugate gradients say of a matrix that is not positive definite, and None if they do not notice."""
    try:
        conjugate_gradients(H, b, rtol=RTOL)
    except NotPositiveDefinite as found:
        return str(found).split(". ")[0]
    return None


def trained(risk: Risk, start: Tensor, steps: int) -> Tensor:
    theta = start.clone().requires_grad_(True)
    adam = torch.optim.Adam([theta], lr=1e-3)
    for _ in range(steps):
        adam.zero_grad()
        risk.value(theta, risk.uniform).backward()
        adam.step()
    return theta.detach()


def plain(risk: Risk, theta: Tensor, test: Data) -> Tensor:
    """The reference: SciPy's CG to nine digits, products forward over reverse, gradients point by point."""
    p = risk.model.p

    def product(v: np.ndarray) -> np.ndarray:
        direction = torch.from_numpy(v.reshape(-1).copy())
        return (hessian_vector_product(risk, theta, direction) + DAMPING * direction).numpy()

    b = risk.gradients(theta, test)[0]
    x, failed = cg(LinearOperator((p, p), matvec=product, dtype=np.float64), b.numpy(), rtol=1e-9)
    if failed:
        raise RuntimeError("the reference did not converge.")
    solution = torch.from_numpy(x)
    pieces = [risk.gradients(theta, risk.data[some]) @ solution for some in torch.arange(risk.n).split(20)]
    return -torch.cat(pieces)


def by_helpers(theta: Tensor) -> Callable[[], Tensor]:
    _, model, _, train, test = large()
    risk = Risk(model, train, CROSS_ENTROPY)
    risk.gradients(theta, test)  # loads what a first gradient loads, which is nobody's memory

    def solve(H: HessianOperator, B: Tensor) -> Solution:
        damped = HessianOperator(risk, theta, damping=DAMPING)
        return conjugate_gradients(damped, B, rtol=RTOL)

    return lambda: influence(risk, theta, test, solve=solve, gtol=torch.inf)[0]


def by_curvlinops(theta: Tensor) -> Callable[[], Tensor]:
    module, model, _, train, test = large()
    nn.utils.vector_to_parameters(theta, module.parameters())
    b = Risk(model, train, CROSS_ENTROPY).gradients(theta, test)[0]

    def run() -> Tensor:
        parameters = list(module.parameters())
        batches = [(train.X, train.y)]
        H = curvlinops.HessianLinearOperator(
            module, nn.CrossEntropyLoss(), parameters, batches, check_deterministic=False
        )
        identity = IdentityLinearOperator([tuple(each.shape) for each in parameters], theta.device, theta.dtype)
        # With its own eps, 1e-10, it takes no step whose curvature sᵀHs is smaller, and never gets to RTOL.
        inverse = curvlinops.CGInverseLinearOperator(H + DAMPING * identity, tolerance=RTOL, eps=1e-30, max_iter=1000)
        return (inverse @ b)[:, None]

    return run


# ------------------------------------------------------------------------------------------------------- measuring


def alone(contender: Callable[..., Callable[[], Any]], *arguments: Any) -> dict[str, Any]:
    """Run ``contender(*arguments)()`` in a process of its own: its result, its seconds, and its memory in MiB.

    The contender prepares model and data and returns what is measured: the time of the processor, and how far the
    memory rises above what the process held before.
    """
    # Linux's allocator would keep what was freed. So it goes back, and what is measured is what is in use.
    os.environ["MALLOC_MMAP_THRESHOLD_"] = str(2**20)
    context = multiprocessing.get_context("spawn")
    mine, its = context.Pipe(duplex=False)
    process = context.Process(target=_measured, args=(its, contender, arguments))
    process.start()
    its.close()
    result, seconds, peak = pickle.loads(mine.recv_bytes())
    process.join()
    return {"seconds": round(seconds, 2), "peak_mib": None if peak is None else round(peak), "result": result}


def _measured(pipe: Any, contender: Callable[..., Callable[[], Any]], arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    run = contender(*arguments)
    peak, start = Peak(), time.process_time()
    result = run()
    seconds, mib = time.process_time() - start, peak.mib()
    # By value: torch would hand over its memory, which ends with this process.
    pipe.send_bytes(pickle.dumps((result, seconds, mib)))


def show(row: dict[str, Any], first: dict[str, Any]) -> None:
    """One line of the table."""
    checked = ", ".join(
        f"{key} {value:.2g}" for key, value in row.items() if key not in ("name", "seconds", "peak_mib")
    )
    ratio = first["seconds"] / row["seconds"]
    print(f"  {row['name']:60}{row['seconds']:>9.1f} s{ratio:>7.1f}×{row['peak_mib']!s:>7} MiB   {checked}", flush=True)


if __name__ == "__main__":
    main()
