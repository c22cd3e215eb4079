"""The influence function ``ℐ(z_i, z_test) = -g_testᵀ H⁻¹ g_i`` (equation ``eq-influence`` of the book), and training as
a differentiable function of the weights, whose backward pass is the same formula.

For a mean, ``θ̂ = Σ w_i y_i``, and the loss ``½(θ - y_test)²``, it is ``-(θ̂ - y_test)(θ̂ - y_i)``:

>>> import torch
>>> from helpers import SQUARED_ERROR, Data, Risk, flatten
>>> model, _ = flatten(torch.nn.Linear(1, 1, bias=False))
>>> one = torch.ones(3, 1).double()
>>> risk = Risk(model, Data(one, torch.tensor([1.0, 2.0, 6.0]).double()), SQUARED_ERROR)
>>> influence(risk, torch.tensor([3.0]).double(), Data(one[:1], torch.tensor([2.0]).double()))
tensor([[-2., -1.,  3.]], dtype=torch.float64)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from .certificate import check_curvature, check_excess, check_minimum
from .curvature import HessianOperator, cholesky_solve, refuse_unsolvable
from .data import Data, check_tensor, check_weights
from .optimum import minimise
from .risk import Risk
from .solvers import NotSolved, Solution, direct, pseudo_inverse, refined

#: Of leaving a point out. With ``"zero"`` its weight goes to 0, with ``"mean"`` the others share it in proportion.
Convention = Literal["zero", "mean"]


@torch.inference_mode(False)
def influence(
    risk: Risk,
    theta: Tensor,
    test: Data,
    *,
    weights: Tensor | None = None,
    solve: Callable[[HessianOperator, Tensor], Solution | Tensor] = direct,
    gtol: float | None = None,
) -> Tensor:
    """The influence of every training point on every test loss, ``ℐ = -G_test H⁻¹ Gᵀ``.

    ``ℐ[t, i] = dℓ(z_t, theta_ε)/dε`` at ε = 0, where training point ``i`` is upweighted by ε. Positive: upweighting
    ``z_i`` raises the test loss, ``z_i`` is harmful. Negative: ``z_i`` is helpful. Unit: test loss per unit of weight;
    `predicted_change` turns it into the change of the loss on removal. Shape (n_test, n).

    ``H`` is solved with on the test side, where there are fewer points as a rule. The training gradients are never
    stored: their products with ``H⁻¹g_test`` are the slopes of the ``n`` losses along it.

    Args:
        risk: what was minimised. Its L2 term is in ``H``, and not in the gradients of single losses.
        theta: its minimum (p,).
        weights: those of training (n,); ``1/n`` each by default.
        solve: ``solve(H, B) = H⁻¹B``, for ``H`` given as an operator and ``B`` (p, n_test): the one step that changes
            when a model is large. `direct` forms ``H``; `helpers.solvers` has others. With one that cannot see a
            negative eigenvalue, ``H`` is searched for one first, unless ``theta`` comes from `minimise` of this risk.
        gtol: how large ``‖∇R‖`` may be against `HessianOperator.scale`; 1e-6 in float64, 1e-4 in float32. With ``inf``
            nothing is looked at: the numbers are the formula's, at whatever ``theta``.

    Raises:
        NotStationary: with the gradient norm, if ``theta`` is not a stationary point; or none is near, or it has a
            kink, see `check_minimum`.
        NotPositiveDefinite: with the smallest eigenvalue (or a curvature met), if ``H`` is not positive definite; or if
            a test loss changes along a flat direction.
        NotSolved: with the residual, if a solver did not converge, says itself that its answer is no better than 0, or
            leaves some parameters out.
        TypeError: if the solver returns no tensor in the format of ``theta``.
        MemoryError: if the solver needs more memory than there is.
    """
    check_tensor("theta", theta)
    theta = theta.detach()
    H = HessianOperator(risk, theta, weights)  # p × p, L2 included; nothing is computed yet
    by_steps = gtol != float("inf") and solve not in (direct, refined, pseudo_inverse)
    if gtol != float("inf"):
        check_minimum(H, gtol)
    if by_steps:
        check_curvature(H)
    G_test = gradients_of_tests(risk, theta, test)  # n_test × p
    solution = solve(H, G_test.T)
    X, residuals = (solution.X, solution.residuals) if isinstance(solution, Solution) else (solution, 0.0)
    worst = float(torch.as_tensor(residuals, device=theta.device).max())
    check_tensor("what the solver returned", X)
    if X.dtype != theta.dtype:
        raise TypeError(f"the solver returned {X.dtype}, and theta is {theta.dtype}: let it keep the format.")
    if X.shape != G_test.T.shape or not bool(torch.isfinite(X).all()):
        shapes = f"{tuple(X.shape)} for {tuple(G_test.T.shape)}"
        raise NotSolved(f"the solver returned shape {shapes}, or no finite numbers.", X)
    if not worst < 1:
        raise NotSolved(f"the solver reports a residual of {worst:.1e} of a right-hand side: no better than X = 0.", X)
    if by_steps and isinstance(solution, Solution):
        check_residual(H, X, G_test.T, worst)
    if gtol != float("inf") and solve is not pseudo_inverse:
        check_excess(H, solve, gtol)
    return -risk.slopes(theta, X.T.contiguous())


def check_residual(H: HessianOperator, X: Tensor, B: Tensor, worst: float) -> None:
    """Raise `NotSolved` where the residual is small only beside other parameters, in units of their own. How much each
    of them counts is told by what ``H`` makes of random vectors. Who solved with another matrix, damped or
    approximate, knows it."""
    R = H @ X - B
    if float((R.norm(dim=0) / B.norm(dim=0)).nan_to_num(0.0).max()) > 2 * worst + 1e-12:
        return
    Z = torch.randn(len(X), 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64, device="cpu")
    size = (H @ Z.to(X)).norm(dim=1)
    size = size.clamp(min=1e-9 * float(size.max()))[:, None]
    missed = float((R / size).norm(dim=0).div((B / size).norm(dim=0)).nan_to_num(0.0).max())
    if missed > max(0.01, 5 * worst):
        raise NotSolved(
            f"the residual is {worst:.1e} of a right-hand side, but {missed:.1e} of it if all parameters count alike: "
            "some are hardly solved for. Bring the inputs to one scale, ask for a smaller residual, or use direct.",
            X,
        )


def gradients_of_tests(risk: Risk, theta: Tensor, test: Data) -> Tensor:
    """``∇ℓ(z_t, θ)`` as rows (n_test, p); refused if they have a part along directions that `fix_gauge` has pinned."""
    G_test = risk.gradients(theta, test)
    _refuse_pinned(risk, G_test)
    return G_test


def _refuse_pinned(risk: Risk, G: Tensor) -> None:
    if risk.gauge is not None:
        refuse_unsolvable(G.T, (G @ functional.normalize(risk.gauge[0], dim=0)).norm(dim=1))


def predicted_change(influence: Tensor, convention: Convention = "mean", weights: Tensor | None = None) -> Tensor:
    """The first-order change of each test loss on leaving each training point out, from ``ℐ (…, n)``, same shape.

    ``"zero"``: ``-w_i ℐ_i``, when its weight is set to 0 and the others keep theirs (equation ``eq-loo-zero``).
    ``"mean"``: ``-w_i (W ℐ_i - Σ_j w_j ℐ_j) / (W - w_i)`` with ``W = Σ_j w_j``, when the others share its weight in
    proportion. With ``w = 1/n`` that is ``-(ℐ_i - mean ℐ)/(n-1)`` (equation ``eq-loo-mean``).
    Compare each with its own retraining. The ``weights`` (n,) are those of the influence, ``1/n`` each by default.

    Raises:
        TypeError: if one of them is no tensor.
        ValueError: for an unknown convention, weights of another shape or not finite, or a point without which the
            others have no weight, or weights that cancel.
    """
    check_tensor("influence", influence)
    n = influence.shape[-1]
    w = influence.new_full((n,), 1 / n) if weights is None else check_weights(weights, n).to(influence)
    if convention == "zero":
        return -w * influence
    if convention != "mean":
        raise ValueError(f"convention is {convention!r}: it must be 'zero' or 'mean'.")
    total = w.sum()
    if bool((empty := are_rounding(total - w, w)).any()):
        first = int(empty.nonzero()[0])
        raise ValueError(f"without point {first} all weights are 0, or they cancel: nothing is left to train on.")
    return -(w / (total - w)) * (total * influence - (influence @ w)[..., None])


def are_rounding(sums: Tensor, weights: Tensor) -> Tensor:
    """Whether sums of some of the weights are 0, or would be without rounding."""
    return sums.abs() <= 100 * torch.finfo(weights.dtype).eps * weights.abs().sum()


def argmin(risk: Risk, theta: Tensor, weights: Tensor) -> Tensor:
    """``argmin R(·, w)`` near ``theta``, as a differentiable function of the weights (equation ``eq-argmin-backward``).

    Forward: minimise ``R(·, w)`` from ``theta`` (p,). Backward: a vector ``v``, the gradient of what follows in the
    minimum, becomes ``-G H⁻¹ v``, the gradient in ``w`` (n,). The steps of the optimiser are not recorded; only the
    stationarity of the result is used.

    Raises:
        NotConverged, NotAMinimum: if no minimum is found.
        RuntimeError: if its derivative is to be differentiated in turn (``create_graph=True``).
    """
    _refuse_transforms(weights)
    return _Argmin.apply(weights, theta.detach(), risk)


def _refuse_transforms(tensor: Tensor) -> None:
    kinds = torch._C._functorch
    if kinds.is_functorch_wrapped_tensor(tensor) or kinds.is_legacy_batchedtensor(tensor):
        raise RuntimeError(
            "argmin is for backward() and torch.autograd.grad, one vector at a time, not for torch.func."
        )


class _Argmin(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weights: Tensor, start: Tensor, risk: Risk) -> Tensor:
        theta = minimise(risk, start, weights.detach()).theta
        ctx.risk = risk
        ctx.save_for_backward(weights.detach(), theta)
        return theta

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        if torch.is_grad_enabled():
            raise RuntimeError("argmin has a first derivative only: differentiate it without create_graph.")
        (v,) = grad_outputs
        _refuse_transforms(v)
        weights, theta = ctx.saved_tensors
        _refuse_pinned(ctx.risk, v[None])
        # Stationarity, ∇R(θ̂(w), w) = 0, differentiated with respect to w:  H dθ̂/dw + Gᵀ = 0.
        H, G = ctx.risk.hessian(theta, weights), ctx.risk.gradients(theta)
        return -G @ cholesky_solve(H, v), None, None
