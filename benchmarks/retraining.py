"""Sixty leave-one-out retrainings: one after the other, as a reader would write it, or as one batched problem?"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.measure import Row, Table, medians
from helpers import Risk, actual_change, certify, leave_one_out, leave_out_weights, minimise, mlp, ring
from helpers.optimum import Minima

GTOL = 1e-9
L2 = 0.02


def table(repeats: int) -> Table:
    """From scratch in a loop, from scratch in a batch, and in a batch that starts and steps from what is known."""
    train, test = ring()
    model, theta_0 = mlp()
    risk = Risk(model, train, l2=L2)
    theta = minimise(risk, theta_0).theta
    W = leave_out_weights(len(train))

    # The certificate is part of the job, for everyone.
    def loop() -> Minima:
        return certified(risk, W, torch.stack([plain_lbfgs(train.X, train.y, w, theta_0) for w in W]))

    def loop_to_the_end() -> Minima:
        found = [minimise(risk, theta_0, w, gtol=GTOL) for w in W]
        return minima(
            torch.stack([each.theta for each in found]),
            torch.tensor([each.gradient_norm for each in found]),
            torch.tensor([each.smallest_eigenvalue for each in found]),
        )

    contenders = {
        "loop, torch.optim.LBFGS, from scratch": loop,
        "loop, L-BFGS then Newton, from scratch": loop_to_the_end,
        "batch, from scratch": lambda: leave_one_out(risk, theta, start=theta_0, gtol=GTOL),
        "batch, from the minimum, H⁻¹ preconditioned": lambda: leave_one_out(risk, theta, gtol=GTOL),
    }
    seconds = medians(contenders, repeats)
    results = {name: contender() for name, contender in contenders.items()}
    reference = actual_change(risk, theta, results["loop, L-BFGS then Newton, from scratch"], test)

    def checked(retrained: Minima) -> str:
        """How many reached the tolerance, verified here anew; and how far the test losses are from the reference."""
        reached = 0
        for each, w in zip(retrained.thetas, W, strict=True):
            if risk.gradient(each, w).norm() <= GTOL:
                certify(risk, each, w, gtol=GTOL)
                reached += 1
        error = float((actual_change(risk, theta, retrained, test) - reference).abs().max())
        return (
            f"{reached} of {len(W)} certified at ‖∇R‖ ≤ {GTOL:.0e} (worst {float(retrained.gradient_norms.max()):.0e}, "
            f"smallest eigenvalue {float(retrained.smallest_eigenvalues.min()):.1e}), test losses to {error:.0e}"
        )

    return Table(
        "Sixty leave-one-out retrainings of the ring network, float64, each with its certificate",
        [Row(name, seconds[name], checked(results[name])) for name in contenders],
    )


def plain_lbfgs(X: Tensor, y: Tensor, w: Tensor, start: Tensor) -> Tensor:
    """One retraining as a reader would write it, for a network of 2 inputs, 8 hidden units and 1 output."""
    theta = start.clone().requires_grad_(True)
    # The largest entry of the gradient, such that its norm is within the tolerance. It does not get there: near a
    # gradient of 1e-8, R no longer changes in its last bit, and the line search, which looks at R, finds no step.
    optimiser = torch.optim.LBFGS(
        [theta],
        max_iter=1000,
        tolerance_grad=GTOL / len(start) ** 0.5,
        tolerance_change=1e-20,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimiser.zero_grad()
        W1, b1, w2, b2 = theta[:16].view(8, 2), theta[16:24], theta[24:32], theta[32]
        outputs = torch.tanh(X @ W1.T + b1) @ w2 + b2
        risk = w @ F.binary_cross_entropy_with_logits(outputs, y, reduction="none") + L2 * theta @ theta
        risk.backward()
        return risk

    optimiser.step(closure)
    return theta.detach()


def certified(risk: Risk, W: Tensor, thetas: Tensor) -> Minima:
    """The gradient norm and the smallest eigenvalue of each, one after the other."""
    norms = [risk.gradient(theta, w).norm() for theta, w in zip(thetas, W, strict=True)]
    smallest = [torch.linalg.eigvalsh(risk.hessian(theta, w))[0] for theta, w in zip(thetas, W, strict=True)]
    return minima(thetas, torch.stack(norms), torch.stack(smallest))


def minima(thetas: Tensor, norms: Tensor, smallest: Tensor) -> Minima:
    return Minima(thetas, norms, smallest, torch.ones_like(norms, dtype=torch.bool), GTOL)
