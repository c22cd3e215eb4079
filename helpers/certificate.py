"""Is this point a minimum of ``R(·, w)``? If so, a certificate; if not, why not, as far as can be seen from there.

Norms of gradients are held against `HessianOperator.scale`, so that no tolerance depends on the units of targets or
inputs.

>>> import torch
>>> from helpers import SQUARED_ERROR, Data, Risk, flatten
>>> model, _ = flatten(torch.nn.Linear(1, 1, bias=False))
>>> data = Data(torch.ones(2, 1).double(), torch.tensor([1.0, 3.0]).double())
>>> risk = Risk(model, data, SQUARED_ERROR, l2=0.5)
>>> round(certify(risk, torch.tensor([1.0]).double()).smallest_eigenvalue, 12)  # 1 + 2·½, at 2 / (1 + 2·½)
2.0
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .curvature import (
    _DENSE_UP_TO,
    TOO_STIFF,
    HessianOperator,
    NotPositiveDefinite,
    least_in_units,
    not_positive_definite,
    rounding_of,
    singular_to_rounding,
)
from .probe import REPLACED, differences, direction
from .risk import Risk
from .solvers import NotSolved, conjugate_gradients

_NEAR = 0.01  # of 1 + ‖θ‖: so near must be the minimum that certifies a point
_KINK = (
    "the risk has a kink there: its slope jumps however short the step, as with ReLU, max-pooling or absolute values. "
    "It is not smooth, so no gradient vanishes for a reason; use a smooth activation (tanh, GELU, softplus) and loss"
)
_OTHER_CURVATURE = f"its Hessian is not the derivative of its gradient there: {REPLACED}"
_FALLING = (
    "the risk only falls more and more slowly there, as where classes can be separated, or one has no example, or "
    "where the training is not at its end: no minimum is near. Train on (minimise); if that finds none, raise the L2"
)
#: How small ``‖∇R‖`` must be against its scale: for a minimum that was looked for, and for one that was brought along.
FOUND = {torch.float64: 1e-9, torch.float32: 1e-5}
BROUGHT = {torch.float64: 1e-6, torch.float32: 1e-4}


class _At(Exception):
    """An exception that says where: `theta`."""

    def __init__(self, message: str, theta: Any = None) -> None:  # None for pickle, which sets theta afterwards
        super().__init__(message)
        self.theta = theta


class NotStationary(ValueError):
    """The gradient does not vanish at this ``theta``, so it is not a minimum of the risk with these weights."""


class NotAMinimum(_At, ValueError):
    """The gradient vanishes, but the Hessian is not positive definite: a saddle, or a flat valley. `theta` is where."""


@dataclass(frozen=True)
class Certificate:
    """A certified minimum ``theta`` (p,), and what makes it one: ``‖∇R‖`` and the smallest eigenvalue."""

    theta: Tensor
    gradient_norm: float
    smallest_eigenvalue: float


@torch.inference_mode(False)
def certify(risk: Risk, theta: Tensor, weights: Tensor | None = None, *, gtol: float | None = None) -> Certificate:
    """Certify that ``theta`` is a nondegenerate minimum: no gradient is left, and ``H`` is positive definite.

    Args:
        gtol: how large ``‖∇R‖`` may be against `HessianOperator.scale`; 1e-9 in float64, 1e-5 in float32.

    Raises:
        NotStationary: with the gradient norm.
        NotAMinimum: with the smallest eigenvalue.
    """
    H = HessianOperator(risk, theta, weights)
    norm = check_stationary(H, bound(gtol, FOUND[theta.dtype]))
    smallest = float(H.eigenvalues[0])
    if not is_minimum(theta, norm, H.eigenvalues) or flaw(H, gtol):
        raise _no_minimum(theta, norm, smallest, cause(H, float("inf")))
    risk.remember_minimum(theta, weights)
    return Certificate(theta, norm, smallest)


def _no_minimum(theta: Tensor, norm: float, smallest: float, why: str) -> NotAMinimum:
    return NotAMinimum(
        f"theta is stationary (gradient norm {norm:.1e}) but no minimum: the smallest eigenvalue of its Hessian is "
        f"{smallest:.2e}. {why}.",
        theta,
    )


def bound(gtol: float | None, usual: float) -> float:
    if gtol is not None and not gtol > 0:
        raise ValueError(f"gtol = {gtol} must be positive.")
    return usual if gtol is None else gtol


def check_stationary(H: HessianOperator, gtol: float | None = None) -> float:
    """``‖∇R(θ, w)‖`` if it is at most ``gtol`` times `HessianOperator.scale`; raises `NotStationary` otherwise."""
    gtol = bound(gtol, BROUGHT[H.theta.dtype])
    norm, scale, l2 = H.gradient_norm, H.scale, H.risk.l2
    if not (norm < float("inf") and scale < float("inf")) and gtol < float("inf"):
        raise NotStationary(f"theta has no finite gradient or curvature: {not_finite(H.risk, H.theta)}.")
    if not norm <= gtol * scale:
        term = "has a strength for each parameter"
        if not isinstance(l2, Tensor):
            term = f"is {l2:g} times the squares of all parameters, biases included"
        raise NotStationary(
            f"theta is not stationary: its gradient norm is {norm:.1e}, of a scale of {scale:.1e}, and more than "
            f"gtol = {gtol:.0e} of it. Influence is a statement about a minimum: train on (in float64), pass the "
            f"weights that theta was trained with, and see that the risk is what was trained (its L2 term {term})."
        )
    return norm


def check_minimum(H: HessianOperator, gtol: float | None = None) -> None:
    """Raise `NotStationary` unless a point that was brought along looks like a minimum: no gradient is left, it has no
    kink, and Newton's step from it is short. Its curvature is for whoever solves with it. Whoever allows more than the
    usual ``gtol`` knows that it is none."""
    check_stationary(H, gtol)
    if H.is_known_minimum or (gtol or 0.0) > BROUGHT[H.theta.dtype]:
        return
    if why := flaw(H):
        raise NotStationary(f"theta is stationary to gtol, but no smooth minimum: {why}.")
    H.risk.refuse_mixing(H.theta)


def check_curvature(H: HessianOperator) -> None:
    """Raise where ``H`` has a negative eigenvalue, which an iterative solver does not see if no right-hand side has a
    part along it, or directions so soft that no residual sees them. (Of a large model not if its point was certified
    before.)"""
    if (len(H.theta) > _DENSE_UP_TO and H.is_known_minimum) or H.eigenvalues[0] > (zero := H.zero(H.eigenvalues)):
        return
    decomposed = len(H.theta) <= 4 * _DENSE_UP_TO
    if H.eigenvalues[0] < -zero or (decomposed and not H.curves_up):
        raise not_positive_definite(float(H.eigenvalues[0]))
    if decomposed and (H.is_stiff or not H.flat_is_silent):
        raise singular_to_rounding()


def is_minimum(theta: Tensor, norm: Tensor | float, eigenvalues: Tensor) -> Tensor:
    """Whether the smallest of the ``eigenvalues`` (…, k), ascending, exceeds its rounding; shape (…).

    And the minimum, about ``‖∇R‖ / smallest`` away, must be near: where the risk only falls more and more slowly
    (separable classes without L2), gradient and curvature vanish together.
    """
    smallest = eigenvalues[..., 0]
    return (smallest > rounding_of(eigenvalues)) & (norm <= smallest * _NEAR * (1 + theta.norm(dim=-1)))


def flaw(H: HessianOperator, gtol: float | None = None) -> str:
    """Why a point without a gradient is no minimum, whatever its curvature; empty where nothing speaks against it."""
    if has_kink(H):
        return _KINK
    if has_other_curvature(H):
        return _OTHER_CURVATURE
    return "" if minimum_is_near(H, gtol) else _FALLING


def has_kink(H: HessianOperator) -> bool:
    """Whether the gradient jumps right at ``theta``, by more than ``H`` says, along one direction drawn at random.

    A jump does not shrink with the step; what a smooth gradient has beyond ``H`` falls with its cube.
    """
    risk, theta, eps = H.risk, H.theta, torch.finfo(H.theta.dtype).eps
    d = eps**0.5 * (1 + theta.norm()) * direction(theta)
    stated = 2 * (H @ d)

    def jump(part: float) -> Tensor:
        ahead, behind = (risk.gradient(theta + side * d, H.weights) for side in (part, -part))
        return (ahead - behind - part * stated).norm()

    return bool((seen := jump(1.0)) > 10 * stated.norm() + H.rounding) and bool(jump(0.125) > seen / 2)


def has_other_curvature(H: HessianOperator) -> bool:
    """Whether ``H`` is not the derivative of ``∇R`` along a direction drawn at random, however long the step."""
    d = direction(H.theta)
    stated = H @ d - H.damping * d
    return all(
        (difference - stated).norm() > 0.01 * torch.maximum(stated.norm(), difference.norm()) + H.rounding / h
        for h, difference in differences(lambda theta: H.risk.gradient(theta, H.weights), H.theta)
    )


def minimum_is_near(H: HessianOperator, gtol: float | None = None) -> bool:
    """Whether Newton's step from here is short, takes away the gradient along itself, and next to nothing of the loss.
    Where the risk only falls, as ``exp(-t)`` does, a good third of the gradient stays however far one has gone. And a
    gradient that is small beside others may be one in other units, or the residuals of a fit that is nearly exact."""
    seen = H.gradient_norm > H.rounding
    if not seen and len(H.theta) > _DENSE_UP_TO:
        return True
    s = newton_step(H)
    if not seen:  # what is left may be rounding, unless a parameter would go far for it
        return bool((s.abs() <= _NEAR * (1 + H.theta.abs())).all())
    short = s.norm() <= _NEAR * (1 + H.theta.norm())
    excess = has_excess(H, s, gtol) and bool(s @ H.gradient > H.rounding * s.norm())
    return bool(short) and not (excess or falls_on(H, s))


def falls_on(H: HessianOperator, step: Tensor) -> bool:
    """Whether much of the gradient along Newton's ``step`` (p,) is still there behind it: no parabola."""
    had, left = step @ H.gradient, step @ H.risk.gradient(H.theta - step, H.weights)
    return bool((left > 0.1 * had) & (had > H.rounding * step.norm()))


def has_excess(H: HessianOperator, step: Tensor, gtol: float | None) -> bool:
    """Whether Newton's ``step`` (p,) would take away more than next to nothing of the loss."""
    losses, w = H.risk.losses(H.theta).abs(), H.weights.abs()
    loss = w @ losses + torch.finfo(losses.dtype).eps ** 0.5 * w.sum() * losses.mean()  # as in `HessianOperator.scale`
    return bool(step @ H.gradient > max(gtol or 0.0, BROUGHT[H.theta.dtype]) * loss)


def newton_step(H: HessianOperator) -> Tensor:
    """A solution (p,) of ``Hs = ∇R``, minus the way to the nearest minimum: of a large model by at most 100 products,
    so too short; of others in units of the parameters in which ``H`` is 1, so that a stiff one hides no other."""
    g = H.gradient
    if len(g) <= _DENSE_UP_TO:
        return H.solve_but_for(H.in_units[0].abs() <= least_in_units(H.matrix), g[:, None])[:, 0]
    try:
        return conjugate_gradients(H, g[:, None], rtol=0.1, max_iterations=100).X[:, 0]
    except NotSolved as stopped:
        return stopped.X[:, 0]  # the iterates grow
    except NotPositiveDefinite:
        return torch.zeros_like(g)  # for whoever solves to say


def check_excess(H: HessianOperator, solve: Callable[[HessianOperator, Tensor], Any], gtol: float | None) -> None:
    """Raise `NotStationary` where ``solve``, which goes further than the few products of `newton_step`, finds an excess
    of the loss after all: what is left of the gradient may lie along a soft direction."""
    if len(H.theta) <= _DENSE_UP_TO or H.is_known_minimum or H.gradient_norm <= H.rounding:
        return
    try:
        solution = solve(H, H.gradient[:, None])
    except NotSolved as stopped:
        solution = stopped
    step = solution if isinstance(solution, Tensor) else solution.X
    if step is not None and has_excess(H, step[:, 0], gtol):
        raise NotStationary(f"theta is stationary to gtol, but {_FALLING}.")


@torch.inference_mode(False)
def fix_gauge(risk: Risk, theta: Tensor, weights: Tensor | None = None) -> Risk:
    """The same risk, with the directions pinned along which a symmetry of the model leaves every minimum flat.

    Two linear maps in a row (a factorised matrix, LoRA, the queries and keys of attention) can be rotated against each
    other, and with equal L2 nothing changes: ``H`` has zero eigenvalues at every minimum. ``½‖Nᵀ(θ - θ̂)‖²`` is added,
    with ``N`` the flat directions at ``theta``, each as stiff as the softest of the others. No training loss changes
    along them, here or in a retraining; a test loss that does has no one influence, and `influence` refuses it.

    Args:
        theta: a stationary point (p,), for instance the ``theta`` of the exception that sent you here.

    Raises:
        NotStationary: if the gradient does not vanish, or no minimum is near.
        NotAMinimum: if the Hessian has a negative eigenvalue, or a zero one along which the examples' losses change.
    """
    H = HessianOperator(risk, theta.detach(), weights)
    check_minimum(H)
    N = H.flat
    if not (H.curves_up and H.flat_is_silent):
        why = TOO_STIFF if H.curves_up else "start elsewhere"
        raise NotAMinimum(f"some direction is flat or curves down, and losses change along it: {why}.", theta)
    if not N.shape[1]:
        return risk
    softest = H.eigen[0][N.shape[1]]
    return risk.but(gauge=(N * softest**0.5, H.theta))


def cause(H: HessianOperator, tolerance: float) -> str:
    """Why there is no certified minimum at the ``theta`` of ``H``, as far as can be seen from there, and the remedy."""
    risk, theta, norm = H.risk, H.theta, H.gradient_norm
    if not norm < float("inf") or (len(theta) <= _DENSE_UP_TO and not torch.isfinite(H.matrix).all()):
        return not_finite(risk, theta)
    if H.scale < 1e-9 * HessianOperator(risk, torch.zeros_like(theta), H.weights).scale:
        return _FALLING
    if has_kink(H) or (norm > max(tolerance, H.rounding) and _kink(H)):
        return _KINK
    smallest = float(H.eigenvalues[0])
    if risk.model.p <= 4 * _DENSE_UP_TO:
        if not H.matrix.any():
            return "its Hessian is zero: a loss without curvature, as absolute values have; use a smooth one, or add L2"
        flats = int(H.is_flat.sum())
        if H.curves_up and flats and H.flat_is_silent:
            return (
                f"{flats} of the {len(theta)} eigenvalues are zero to rounding, and along these directions no training "
                "loss changes: a symmetry of the model (as when two linear maps in a row can be rotated against each "
                "other), or something that the training data do not determine (a feature, a class, more parameters "
                "than examples). L2 helps in the second case alone; fix_gauge(risk, theta) pins these directions and "
                "changes no training loss (or solve=pseudo_inverse in influence; or damp)"
            )
        d = H.in_units[0]
        if H.curves_up and (H.is_stiff or d[0] <= rounding_of(d)) and not falls_on(H, newton_step(H)):
            return TOO_STIFF
    if norm <= tolerance and not minimum_is_near(H):
        return _FALLING
    if smallest < -rounding_of(H.eigenvalues) and norm <= 1e6 * tolerance:  # else it was only on its way
        return (
            f"it is near a saddle (smallest eigenvalue of the Hessian {smallest:.1e}): start elsewhere, or raise the L2"
        )
    if has_other_curvature(H):
        return _OTHER_CURVATURE
    if theta.dtype == torch.float32:
        return "float32 has few digits for this: use float64 (flatten, data.to(torch.float64)), or a larger gtol"
    if norm <= tolerance:
        return TOO_STIFF
    if norm <= H.rounding:
        return "what is left is rounding, so use a larger gtol"
    y = risk.data.y[H.weights != 0]
    if y.is_floating_point() and not 1e-3 <= (size := float(y.abs().max())) <= 1e3:
        return f"the targets are up to {size:.1e}, far from the scale of outputs: standardise them, or raise max_steps"
    return "raise max_steps, or start from a better point"


def not_finite(risk: Risk, theta: Tensor) -> str:
    """Whose fault it is that a gradient or a Hessian is not finite."""
    if not torch.isfinite(theta).all():
        return "theta itself is not finite"
    for numbers, what in (
        (risk.losses(theta)[:, None], "no finite loss: start elsewhere, or scale the inputs"),
        (risk.gradients(theta), "no finite derivative (a root, a logarithm or a norm at zero?)"),
    ):
        if bad := (~torch.isfinite(numbers).all(1)).nonzero().flatten().tolist():
            return f"examples {bad[:5]} have {what}"
    return "some example has no finite second derivative (a root or a norm at zero?)"


def _kink(H: HessianOperator) -> bool:
    """Whether the slope along ``-∇R`` jumps a little ahead: by much, however short the step."""
    d, length = -H.gradient / H.gradient_norm, 1 + float(H.theta.norm())
    curvature = float(d @ (H @ d))

    def slope(t: float) -> float:
        return float(H.risk.gradient(H.theta + t * length * d, H.weights) @ d)

    for high in (1e-6, 1e-4, 1e-2):
        low, below, above = 0.0, slope(0.0), slope(high)
        for _ in range(24):
            middle = (low + high) / 2
            between = slope(middle)
            if abs(between - below) > abs(above - between):
                high, above = middle, between
            else:
                low, below = middle, between
        smooth = 10 * abs(curvature) * (high - low) * length  # over a step of 1e-9 or less
        if abs(above - below) > 0.03 * H.gradient_norm + smooth:
            return True
    return False
