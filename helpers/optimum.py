"""Find ``θ̂(w) = argmin R(·, w)``, and certify that what was found is a minimum."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from helpers.curvature import NotPositiveDefinite, cholesky_solve
from helpers.risk import Risk


class NotStationary(ValueError):
    """The gradient does not vanish at this ``theta``, so it is not a minimum of the risk with these weights."""


class NotAMinimum(ValueError):
    """The gradient vanishes, but the Hessian is not positive definite: a saddle, or a flat valley."""


class NotConverged(RuntimeError):
    """The optimiser stopped before the gradient vanished. `theta` holds where it stopped."""

    def __init__(self, message: str, theta: Tensor) -> None:
        super().__init__(message)
        self.theta = theta


@dataclass(frozen=True)
class Certificate:
    """A certified minimum: the parameters, and the two numbers that make them one.

    Attributes:
        theta: the minimum (p,).
        gradient_norm: ``‖∇R‖`` there.
        smallest_eigenvalue: of the Hessian there, positive.
    """

    theta: Tensor
    gradient_norm: float
    smallest_eigenvalue: float


def check_stationary(risk: Risk, theta: Tensor, weights: Tensor | None = None, *, gtol: float) -> float:
    """``‖∇R(θ, w)‖`` if it is at most ``gtol``; raises `NotStationary` otherwise."""
    norm = float(risk.gradient(theta, weights).norm())
    if not norm <= gtol:
        raise NotStationary(
            f"theta is not stationary: ‖∇R‖ = {norm:.1e}, more than gtol = {gtol:.0e}. Influence is a statement about "
            "a minimum: train on (in float64), and pass the weights that theta was trained with."
        )
    return norm


def certify(risk: Risk, theta: Tensor, weights: Tensor | None = None, *, gtol: float = 1e-9) -> Certificate:
    """Certify that ``theta`` is a nondegenerate minimum: ``‖∇R‖ ≤ gtol`` and all eigenvalues of the Hessian positive.

    Raises:
        NotStationary: with the gradient norm.
        NotAMinimum: with the smallest eigenvalue.
    """
    norm = check_stationary(risk, theta, weights, gtol=gtol)
    smallest = float(torch.linalg.eigvalsh(risk.hessian(theta, weights))[0])
    if not smallest > 0:
        raise NotAMinimum(
            f"theta is stationary (‖∇R‖ = {norm:.1e}) but no minimum: the smallest eigenvalue of its Hessian is "
            f"{smallest:.2e}. Start elsewhere, or raise the L2 strength."
        )
    return Certificate(theta, norm, smallest)


def minimise(
    risk: Risk, start: Tensor, weights: Tensor | None = None, *, gtol: float = 1e-9, max_steps: int = 2000
) -> Certificate:
    """A certified minimum of ``R(·, w)``, from ``start`` (p,): L-BFGS until the end is near, then Newton's steps.

    Raises:
        NotConverged: with the gradient norm and where it stopped, if ``max_steps`` L-BFGS steps were not enough.
        NotAMinimum: if it ended at a saddle.
    """
    weights = risk.check_weights(weights)
    theta = start.detach().clone().requires_grad_(True)
    # The tolerance is on the largest entry of the gradient; Newton's quadratic convergence does the rest.
    lbfgs = torch.optim.LBFGS(
        [theta],
        max_iter=max_steps,
        tolerance_grad=1e-6,
        tolerance_change=0.0,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        lbfgs.zero_grad()
        value = risk.value(theta, weights)
        value.backward()
        return value

    lbfgs.step(closure)
    found = _newton_finish(risk, theta.detach(), weights)
    norm = float(risk.gradient(found, weights).norm())
    if not norm <= gtol:
        raise NotConverged(
            f"training stopped at ‖∇R‖ = {norm:.1e}, above gtol = {gtol:.0e}, after at most {max_steps} steps: raise "
            "max_steps, or start from a better point (the exception's theta is where it stopped).",
            found,
        )
    return certify(risk, found, weights, gtol=gtol)


def _newton_finish(risk: Risk, theta: Tensor, weights: Tensor, steps: int = 20) -> Tensor:
    """Newton's steps while the Hessian is positive definite and the risk does not rise: it cannot walk to a saddle."""
    best, smallest = theta, torch.inf
    for _ in range(steps):
        g = risk.gradient(theta, weights)
        # In a narrow valley a step may lower the risk and yet raise the gradient, so the best point is remembered.
        if g.norm() < smallest:
            best, smallest = theta, float(g.norm())
        try:
            candidate = theta - cholesky_solve(risk.hessian(theta, weights), g)
        except NotPositiveDefinite:
            break
        rounding = 4 * torch.finfo(theta.dtype).eps * risk(theta, weights).abs()
        if smallest < 1e-14 or risk(candidate, weights) > risk(theta, weights) + rounding:
            break
        theta = candidate
    return best
