"""The influence function ``ℐ(z_i, z_test) = -g_testᵀ H⁻¹ g_i`` (equation ``eq-influence`` of the book), and training as
a differentiable function of the weights, whose backward pass is the same formula."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from helpers.curvature import HessianOperator, cholesky_solve
from helpers.data import Data
from helpers.optimum import check_stationary, minimise
from helpers.risk import Risk
from helpers.solvers import Solution, direct

#: Of leaving a point out. With ``"zero"`` its weight goes from 1/n to 0, with ``"mean"`` the others share it equally.
Convention = Literal["zero", "mean"]


def influence(
    risk: Risk,
    theta: Tensor,
    test: Data,
    *,
    weights: Tensor | None = None,
    solve: Callable[[HessianOperator, Tensor], Solution | Tensor] = direct,
    gtol: float = 1e-6,
) -> Tensor:
    """The influence of every training point on every test loss, ``ℐ = -G_test H⁻¹ Gᵀ``.

    ``ℐ[t, i] = dℓ(z_t, theta_ε)/dε`` at ε = 0, where training point ``i`` is upweighted by ε. Positive: upweighting
    ``z_i`` raises the test loss, ``z_i`` is harmful. Negative: ``z_i`` is helpful. Unit: test loss per unit of weight;
    `predicted_change` turns it into the change of the loss on removal.

    There are fewer test points than training points, as a rule, so ``H`` is solved with on the test side. The training
    gradients are never stored: their products with ``H⁻¹g_test`` are the slopes of the ``n`` losses along it.

    Args:
        risk: what was minimised. Its L2 term is in ``H``, and not in the gradients of single losses.
        theta: its minimum (p,), for the same weights.
        test: the test examples.
        weights: the training weights (n,); ``1/n`` each by default.
        solve: ``solve(H, B) = H⁻¹B``, for ``H`` given as an operator and ``B`` (p, n_test): the one step that changes
            when a model is large. `direct` forms ``H``; `helpers.solvers` has others.
        gtol: how large ``‖∇R‖`` may be.

    Returns:
        shape (n_test, n).

    Raises:
        NotStationary: with the gradient norm, if ``theta`` is not a stationary point.
        NotPositiveDefinite: with the smallest eigenvalue (or a curvature met), if ``H`` is not positive definite.
        NotSolved: with the residual, if an iterative solver did not converge.
    """
    check_stationary(risk, theta, weights, gtol=gtol)
    H = HessianOperator(risk, theta, weights)  # p × p, L2 included; nothing is computed yet
    G_test = risk.gradients(theta, test)  # n_test × p
    found = solve(H, G_test.T)
    X = found.X if isinstance(found, Solution) else found
    return -risk.slopes(theta, X.T)


def predicted_change(influence: Tensor, convention: Convention = "mean") -> Tensor:
    """The first-order change of each test loss on leaving each training point out, from ``ℐ (…, n)``, same shape.

    ``"zero"``: ``-ℐ_i/n``, when its weight is set to 0 and the others keep 1/n (equation ``eq-loo-zero``).
    ``"mean"``: ``-(ℐ_i - mean ℐ)/(n-1)``, when the mean is taken over the others (equation ``eq-loo-mean``).
    Both assume that training was ``w = (1/n)·1``. Compare each with its own retraining.
    """
    n = influence.shape[-1]
    if convention == "zero":
        return -influence / n
    if convention == "mean":
        return -(influence - influence.mean(-1, keepdim=True)) / (n - 1)
    raise ValueError(f"convention is {convention!r}: it must be 'zero' or 'mean'.")


def argmin(risk: Risk, theta: Tensor, weights: Tensor) -> Tensor:
    """``argmin R(·, w)`` near ``theta``, as a differentiable function of the weights (equation ``eq-argmin-backward``).

    Forward: minimise ``R(·, w)``. Backward: a vector ``v``, the gradient of what follows in the minimum, becomes
    ``-G H⁻¹ v``, the gradient in ``w``. The steps of the optimiser are not recorded; only the stationarity of the
    result is used.

    Args:
        risk: what to minimise.
        theta: where to start (p,); the nearest minimum is wanted.
        weights: (n,), usually with ``requires_grad=True``.

    Returns:
        the minimum, shape (p,).

    Raises:
        NotConverged, NotAMinimum: if no minimum is found.
    """
    return _Argmin.apply(weights, theta.detach(), risk)


class _Argmin(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weights: Tensor, start: Tensor, risk: Risk) -> Tensor:
        theta = minimise(risk, start, weights.detach()).theta
        ctx.risk = risk
        ctx.save_for_backward(weights.detach(), theta)
        return theta

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        (v,) = grad_outputs
        weights, theta = ctx.saved_tensors
        # Stationarity, ∇R(θ̂(w), w) = 0, differentiated with respect to w:  H dθ̂/dw + Gᵀ = 0.
        H, G = ctx.risk.hessian(theta, weights), ctx.risk.gradients(theta)
        return -G @ cholesky_solve(H, v), None, None
