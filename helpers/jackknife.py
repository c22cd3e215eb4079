"""What the influences say about another draw of the training data: error bars, and cross-validation without retraining.

For the mean of three numbers, ``y = 1, 2, 6``, each leverage is 1/3, and the classic standard error, with n - 1, is
``HC2``. Without ``y_i`` the mean is that of the other two:

>>> import torch
>>> from helpers import SQUARED_ERROR, Data, Risk, flatten
>>> one, y = torch.ones(3, 1).double(), torch.tensor([1.0, 2.0, 6.0]).double()
>>> risk = Risk(flatten(torch.nn.Linear(1, 1, bias=False))[0], Data(one, y), SQUARED_ERROR)
>>> theta = torch.tensor([3.0]).double()
>>> standard_errors(risk, theta, Data(one[:1], y[1:2]), kind="HC2")  # (θ̂ - 2) · std(y)/√3
tensor([1.5275], dtype=torch.float64)
>>> 2 * cross_validated_losses(risk, theta)  # (4 - 1)², (3.5 - 2)², (1.5 - 6)²
tensor([ 9.0000,  2.2500, 20.2500], dtype=torch.float64)
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.func import grad, jacrev

from .auditing import leverage
from .certificate import check_minimum
from .curvature import HessianOperator
from .data import Data
from .influences import influence
from .risk import Risk, _without_last_one

#: What the influence of a point with leverage ``h`` is divided by: 1, ``√(1 - h)`` or ``1 - h``.
Kind = Literal["HC0", "HC2", "HC3"]
_ALONE = 1 - 1e-9  # the leverage, up to rounding, from which on a point holds its outputs alone
_POWERS = {"HC0": 0.0, "HC2": 0.5, "HC3": 1.0}


@torch.inference_mode(False)
def standard_errors(risk: Risk, theta: Tensor, test: Data, *, kind: Kind = "HC3") -> Tensor:
    """How much each test loss would scatter over other draws of the ``n`` training examples, to first order, (n_test,).

    ``HC0`` is the infinitesimal jackknife, ``√(Σ_i (ℐ_i - mean ℐ)²) / n``, which is the sandwich (equation
    ``eq-sandwich`` of the book). It is too small where points hold their own predictions. ``HC3`` divides each term
    by ``1 - h_i``, with the `leverage` h: to leave the points out one by one gives the same (``eq-jackknife``).
    ``HC2`` divides by the root of that.

    Args:
        risk: trained with equal weights on examples drawn independently.
        theta: its minimum (p,).

    Raises:
        NotStationary, NotPositiveDefinite: as `influence`.
        ValueError: for an unknown kind, one training example only, or a leverage of 1 or more.
    """
    if kind not in _POWERS:
        raise ValueError(f"kind is {kind!r}: it must be 'HC0', 'HC2' or 'HC3'.")
    if risk.n < 2:
        raise ValueError("one training example does not scatter: give at least two.")
    I = influence(risk, theta, test)
    centred = I - I.mean(1, keepdim=True)
    if kind != "HC0":
        h = leverage(risk, theta)
        if not (highest := float(h.max())) < _ALONE:
            raise ValueError(
                f"the leverage of point {int(h.argmax())} is {highest:.2f}: from 1 on there is no correction for it. "
                "Raise the L2 strength, or take HC0, which is then too small."
            )
        centred = centred / (1 - h) ** _POWERS[kind]
    return centred.norm(dim=1) / risk.n


@torch.inference_mode(False)
def cross_validated_losses(risk: Risk, theta: Tensor, weights: Tensor | None = None) -> Tensor:
    """What the loss of each training example would be if the model were trained without it, (n,), from one minimum.

    Approximate leave-one-out: with ``r`` and ``Λ`` the gradient and the Hessian of the loss in the outputs ``f`` of
    example ``i``, ``J`` their Jacobian and ``A = w_i J H⁻¹ Jᵀ``, its outputs without it are about
    ``f + (I - AΛ)⁻¹ A r`` (equation ``eq-alo``: ``f + h/(1 - h) · ℓ'/ℓ''`` for one output). Exact for least squares
    with one weight set to zero. The mean is the cross-validated loss.

    Raises:
        NotStationary: with the gradient norm, if ``theta`` is not a stationary point.
        NotPositiveDefinite: with the smallest eigenvalue, if ``H`` is not positive definite.
        ValueError: naming the examples that hold their outputs alone (an eigenvalue of ``AΛ`` is 1 or more).
    """
    H = HessianOperator(risk, theta.detach(), weights)
    check_minimum(H)
    L, model = H.factor, risk.model

    def without(x: Tensor, y: Tensor, w: Tensor) -> Tensor:
        f = model(H.theta, x[None])

        def loss(outputs: Tensor) -> Tensor:
            return risk.loss.of(*_without_last_one(outputs.reshape(f.shape), y[None]))[0]

        J = jacrev(lambda t: model(t, x[None]).flatten())(H.theta)
        r, curvature = grad(loss)(f.flatten()), jacrev(grad(loss))(f.flatten())
        half = torch.linalg.solve_triangular(L, J.T, upper=False)
        A = w * half.T @ half
        moved = torch.linalg.solve_ex(torch.eye(len(r), dtype=A.dtype, device=A.device) - A @ curvature, A @ r)[0]
        return torch.cat([loss(f.flatten() + moved)[None], (A @ curvature).flatten()])

    losses, held = risk._each(without, risk.data.X, risk.data.y, H.weights).tensor_split([1], dim=1)
    outputs = round(held.shape[1] ** 0.5)
    highest = torch.linalg.eigvals(held.reshape(-1, outputs, outputs)).real.amax(1)
    if bad := (highest >= _ALONE).nonzero().flatten().tolist():
        raise ValueError(
            f"examples {bad[:5]} hold their outputs alone (leverage up to {float(highest.max()):.2f}): no first order "
            "tells what becomes of them. Train without them (leave_one_out), or raise the L2 strength."
        )
    return losses[:, 0]
