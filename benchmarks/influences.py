"""All 20 × 60 influences: pair by pair with a Hessian row by row, or as three matrices?"""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.measure import Row, Table, medians
from helpers import Data, Risk, influence, minimise, mlp, ring


def table(repeats: int) -> Table:
    """The loop that follows the formula to the letter, the same with gradients kept, and the helpers."""
    train, test = ring()
    model, theta_0 = mlp()
    risk = Risk(model, train, l2=0.02)
    theta = minimise(risk, theta_0).theta
    contenders = {
        "loop, pair by pair, H row by row": lambda: pair_by_pair(risk, theta, test),
        "loop, each gradient once, H row by row": lambda: point_by_point(risk, theta, test),
        "helpers.influence, its checks included": lambda: influence(risk, theta, test),
    }
    seconds = medians(contenders, repeats)
    reference = pair_by_pair(risk, theta, test)

    def checked(scores: Tensor) -> str:
        error = float((scores - reference).abs().max() / reference.abs().max())
        return f"agrees to {error:.0e} of the largest"

    return Table(
        "All 20 × 60 influences of the ring network, float64",
        [Row(name, seconds[name], checked(contender())) for name, contender in contenders.items()],
    )


def gradient(risk: Risk, theta: Tensor, example: Data) -> Tensor:
    """The gradient of the loss of one example, by plain autograd."""
    theta = theta.clone().requires_grad_(True)
    return torch.autograd.grad(risk.losses(theta, example)[0], theta)[0]


def inverse_hessian(risk: Risk, theta: Tensor) -> Tensor:
    """The Hessian one row at a time, each the gradient of an entry of the gradient; inverted."""
    theta = theta.clone().requires_grad_(True)
    (g,) = torch.autograd.grad(risk(theta), theta, create_graph=True)
    rows = [torch.autograd.grad(entry, theta, retain_graph=True)[0] for entry in g]
    return torch.linalg.inv(torch.stack(rows))


def pair_by_pair(risk: Risk, theta: Tensor, test: Data) -> Tensor:
    """``-g_testᵀ H⁻¹ g_i`` for every pair, with the training gradient computed anew for each test point."""
    H_inverse = inverse_hessian(risk, theta)
    scores = torch.empty(len(test), risk.n, dtype=theta.dtype)
    for t in range(len(test)):
        g_test = gradient(risk, theta, test[t])
        for i in range(risk.n):
            scores[t, i] = -g_test @ H_inverse @ gradient(risk, theta, risk.data[i])
    return scores


def point_by_point(risk: Risk, theta: Tensor, test: Data) -> Tensor:
    """The same with every gradient computed once and kept."""
    H_inverse = inverse_hessian(risk, theta)
    G = torch.stack([gradient(risk, theta, risk.data[i]) for i in range(risk.n)])
    G_test = torch.stack([gradient(risk, theta, test[t]) for t in range(len(test))])
    return -G_test @ H_inverse @ G.T
