"""Find ``argmin R(·, w)``, and certify that what was found is a minimum."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from helpers.curvature import (
    HessianOperator,
    NotPositiveDefinite,
    cholesky_factor,
    cholesky_solve,
    end_of_spectrum,
    extreme_eigenvalues,
)
from helpers.risk import Risk
from helpers.solvers import NotSolved, conjugate_gradients

# Up to so many parameters the Hessian is formed; beyond, Newton's steps and the certificate use its products.
_WHOLE = 500
# So many problems are solved at once that examples × parameters × problems stays below this.
_NUMBERS_AT_ONCE = 2**28
_LANCZOS_STEPS = 50


class NotStationary(ValueError):
    """The gradient does not vanish at this ``theta``, so it is not a minimum of the risk with these weights."""


class NotAMinimum(ValueError):
    """The gradient vanishes, but the Hessian is not positive definite: a saddle, or a flat valley. `theta` is where."""

    def __init__(self, message: str, theta: Tensor) -> None:
        super().__init__(message)
        self.theta = theta

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (*self.args, self.theta)  # so that it can come home from another process


class NotConverged(RuntimeError):
    """The optimiser stopped before the gradient vanished. `theta` holds where it stopped."""

    def __init__(self, message: str, theta: Tensor) -> None:
        super().__init__(message)
        self.theta = theta

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (*self.args, self.theta)  # so that it can come home from another process


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


@dataclass(frozen=True)
class Certificates:
    """The certified minima of ``m`` problems, one a row.

    Attributes:
        thetas: the minima (m, p).
        gradient_norms: ``‖∇R‖`` at each, (m,).
        smallest_eigenvalues: of the Hessian at each (before the last tiny steps of Newton), positive, (m,). Of a large
            model, a lower bound from products alone.
    """

    thetas: Tensor
    gradient_norms: Tensor
    smallest_eigenvalues: Tensor

    def __len__(self) -> int:
        return len(self.thetas)


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
    eigenvalues = _eigenvalues(risk, theta, weights)
    smallest = float(eigenvalues[0])
    if not is_minimum(theta, norm, eigenvalues):
        raise NotAMinimum(
            f"theta is stationary (‖∇R‖ = {norm:.1e}) but no minimum: the smallest eigenvalue of its Hessian is "
            f"{smallest:.2e}. Start elsewhere, or raise the L2 strength.",
            theta,
        )
    return Certificate(theta, norm, smallest)


def is_minimum(theta: Tensor, norm: Tensor | float, eigenvalues: Tensor) -> Tensor:
    """Whether the smallest of the ``eigenvalues`` (…, p), ascending, is positive and means something; shape (…).

    It must exceed its own rounding. And the minimum, about ``‖∇R‖ / smallest`` away, must be near: where the risk only
    falls more and more slowly (separable classes without L2), gradient and curvature vanish together.
    """
    smallest, largest = eigenvalues[..., 0], eigenvalues[..., -1].abs()
    rounding = eigenvalues.shape[-1] * torch.finfo(eigenvalues.dtype).eps * largest
    return (smallest > rounding) & (norm <= smallest * 0.01 * (1 + theta.norm(dim=-1)))


def minimise(
    risk: Risk, start: Tensor, weights: Tensor | None = None, *, gtol: float = 1e-9, max_steps: int = 2000
) -> Certificate:
    """A certified minimum of ``R(·, w)``, from ``start`` (p,): L-BFGS until the end is near, then Newton's steps.

    Raises:
        NotConverged: with the gradient norm and where it stopped, if ``max_steps`` L-BFGS steps were not enough.
        NotAMinimum: if it ended at a saddle.
        TypeError, ValueError: for a start in another format, of another length or on another device than the data's.
    """
    weights = risk.check_weights(weights)
    theta = risk.check_theta(start).detach().clone().requires_grad_(True)
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
        smallest = float(_eigenvalues(risk, found, weights)[0])
        remedy = (
            "raise max_steps, or start from a better point"
            if smallest > 0
            else f"it is near a saddle (smallest eigenvalue of the Hessian {smallest:.1e}), so start elsewhere"
        )
        raise NotConverged(
            f"training stopped at ‖∇R‖ = {norm:.1e}, above gtol = {gtol:.0e}, after at most {max_steps} steps: "
            f"{remedy} (the exception's theta is where it stopped).",
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
        if smallest < 1e-14:
            break
        try:
            candidate = theta - _solve(risk, theta, weights, g)
        except (NotPositiveDefinite, NotSolved):
            break
        rounding = 4 * torch.finfo(theta.dtype).eps * risk(theta, weights).abs()
        if risk(candidate, weights) > risk(theta, weights) + rounding:
            break
        theta = candidate
    return best


def _solve(risk: Risk, theta: Tensor, weights: Tensor, g: Tensor) -> Tensor:
    """``H⁻¹g``: with the whole Hessian where it is small, from its products where it is not."""
    if risk.model.p <= _WHOLE:
        return cholesky_solve(risk.hessian(theta, weights), g)
    # A thousandth is enough: each of the steps then takes three decades off the gradient.
    return conjugate_gradients(HessianOperator(risk, theta, weights), g[:, None], rtol=1e-3).X[:, 0]


def _eigenvalues(risk: Risk, theta: Tensor, weights: Tensor | None) -> Tensor:
    """The eigenvalues of the Hessian, ascending: all where it is small, the two extreme ones where it is not."""
    if risk.model.p <= _WHOLE:
        return torch.linalg.eigvalsh(risk.hessian(theta, weights))
    return extreme_eigenvalues(HessianOperator(risk, theta, weights), rtol=0.1)  # their signs are what matters


class _Preconditioner:
    """A positive definite ``matrix`` (p, p), and its Cholesky factor `L`."""

    def __init__(self, matrix: Tensor) -> None:
        self.matrix, self.L = matrix, cholesky_factor(matrix)

    def solve(self, B: Tensor) -> Tensor:
        """The inverse times ``B`` (p, m). (PyTorch's `cholesky_solve` takes many times as long for a few columns.)"""
        half = torch.linalg.solve_triangular(self.L, B, upper=False)
        return torch.linalg.solve_triangular(self.L.T, half, upper=True)

    @cached_property
    def extremes(self) -> Tensor:
        """The smallest and the largest eigenvalue (2,), by Lanczos: only the certificates of large models ask."""
        like = self.matrix[0]
        smallest = 1 / end_of_spectrum(lambda v: self.solve(v[:, None])[:, 0], like, "LA", rtol=1e-3)
        largest = end_of_spectrum(self.matrix.__matmul__, like, "LA", rtol=1e-3)
        return torch.tensor([smallest, largest], dtype=like.dtype, device=like.device)


def minimise_many(
    risk: Risk,
    W: Tensor,
    start: Tensor,
    *,
    preconditioner: Tensor | None = None,
    gtol: float = 1e-9,
    max_steps: int = 2000,
) -> Certificates:
    """Certified minima of the ``m`` risks ``R(·, W[k])``, all found at once.

    The models are trained side by side by L-BFGS: one evaluation computes ``m`` values and gradients in one batch, and
    each model uses its own to go on, by its own line search. The batch only shares the work: no model sees another.
    At the end each Hessian is computed, for the certificate, and serves for Newton's last, tiny steps.

    Args:
        risk: what to minimise.
        W: the weights of each problem (m, n).
        start: where to start, (p,) for all or (m, p).
        preconditioner: a positive definite matrix (p, p) near the Hessian of every problem. The first step is then
            ``-H⁻¹∇R``, and the curvature that L-BFGS learns corrects ``H⁻¹`` rather than a multiple of the identity.
        gtol: how small every ``‖∇R‖`` must become.
        max_steps: the number of evaluations allowed.

    Raises:
        NotConverged: naming the problems whose gradient did not vanish, and its norms.
        NotAMinimum: naming the problems that ended at a saddle or in a flat valley, and their smallest eigenvalues.
            The exception's ``theta`` (m, p) holds where every problem stopped.
        NotPositiveDefinite: if the preconditioner is not.
        ValueError, TypeError: for weights or a start of another shape or format than the risk's.
    """
    if W.ndim != 2 or len(W) == 0:
        raise ValueError(f"W has shape {tuple(W.shape)}: give one row of weights for each problem, (m, {risk.n}).")
    risk.check_weights(W.abs().sum(0))
    m, p = len(W), start.shape[-1]
    risk.check_theta(start if start.ndim == 1 else start[0])
    if start.shape not in ((p,), (m, p)):
        raise ValueError(f"start has shape {tuple(start.shape)}, for {m} problems: give ({p},) or ({m}, {p}).")
    P = None if preconditioner is None else _Preconditioner(preconditioner)

    # Some problems at a time, so that memory does not grow with m. No problem sees another, so nothing else changes.
    together = max(1, _NUMBERS_AT_ONCE // (risk.n * p))
    pieces = zip(W.split(together), start.detach().expand(m, p).split(together), strict=True)
    found = [_minimise_some(risk, some, at, P, gtol, max_steps) for some, at in pieces]
    thetas, norms, smallest, minimum = (torch.cat(parts) for parts in zip(*found, strict=True))
    if (norms > gtol).any():
        raise NotConverged(
            f"training stopped above gtol = {gtol:.0e} after {max_steps} steps in {_which(norms > gtol, norms)}: "
            "raise max_steps, or start from better points (the exception's theta is where all of them stopped).",
            thetas,
        )
    if not minimum.all():
        raise NotAMinimum(
            "stationary, but no minimum: the smallest eigenvalue of the Hessian is not positive, or nearly 0, in "
            f"{_which(~minimum, smallest)}. Start elsewhere, or raise the L2 strength.",
            thetas,
        )
    return Certificates(thetas, norms, smallest)


def _minimise_some(
    risk: Risk, W: Tensor, start: Tensor, P: _Preconditioner | None, gtol: float, max_steps: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Where each problem ends (m, p), its ‖∇R‖, its smallest eigenvalue, and whether that makes a minimum."""
    if risk.model.p > _WHOLE:
        thetas = _lbfgs_many(risk, W, start.clone(), P, gtol, max_steps)
        norms = risk.values_and_gradients(thetas, W)[1].norm(dim=1)
        eigenvalues = _extreme_eigenvalues_many(risk, thetas, W, P)
        return thetas, norms, eigenvalues[:, 0], is_minimum(thetas, norms, eigenvalues)
    thetas = start.clone()
    # Newton's steps make up for the last two decades; where they do not, or leave a doubt, L-BFGS goes all the way.
    for tolerance in (100 * gtol, gtol):
        thetas = _lbfgs_many(risk, W, thetas, P, tolerance, max_steps)
        g, H = risk.values_and_gradients(thetas, W)[1], risk.hessians(thetas, W)
        eigenvalues = torch.linalg.eigvalsh(H)
        minimum = is_minimum(thetas, g.norm(dim=1), eigenvalues)
        thetas, norms = _newton_steps(risk, W, thetas, g, H)
        if ((norms <= gtol) & minimum).all():
            break
    return thetas, norms, eigenvalues[:, 0], minimum


def _extreme_eigenvalues_many(risk: Risk, thetas: Tensor, W: Tensor, P: _Preconditioner | None) -> Tensor:
    """A lower bound of the smallest and an upper bound of the largest eigenvalue of each problem's Hessian, (m, 2).

    With a preconditioner, by Lanczos on ``A = L⁻¹HL⁻ᵀ``, whose eigenvalues are near 1 but for a few. It starts from
    ``(A - I)r``, with a random ``r``, where the many near 1 are faint. As always with products alone, an eigenvector at
    right angles to the start would go unseen.
    """
    if P is None:
        each = zip(thetas, W, strict=True)
        return torch.stack([extreme_eigenvalues(HessianOperator(risk, theta, w), rtol=0.1) for theta, w in each])
    product, L = risk.hessian_products(thetas, W), P.L

    def A(V: Tensor) -> Tensor:
        back = torch.linalg.solve_triangular(L.T, V.T, upper=True).T
        return torch.linalg.solve_triangular(L, product(back).T, upper=False).T

    r = torch.randn(len(L), generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(thetas)
    v = A(r.expand_as(thetas)) - r + 1e-3 * r  # the last for A = I
    Q: list[Tensor] = []
    T = thetas.new_zeros(len(W), _LANCZOS_STEPS, _LANCZOS_STEPS)
    rest = v.norm(dim=1)
    for k in range(_LANCZOS_STEPS):
        # Where nothing is left but rounding, the directions so far are all that there is.
        alive = rest > 1e-10
        if k:
            T[:, k - 1, k] = T[:, k, k - 1] = torch.where(alive, rest, 0.0)
        Q.append(torch.where(alive, 1 / rest, 0.0)[:, None] * v)
        v = A(Q[k])
        T[:, k, k] = torch.where(alive, _dot(Q[k], v), T[:, 0, 0])
        for q in Q + Q:  # once more against all: rounding lets the first directions come back
            v = v - _dot(q, v)[:, None] * q
        rest = v.norm(dim=1)
        d, S = torch.linalg.eigh(T[:, : k + 1, : k + 1])
        doubt = rest[:, None] * S[:, -1].abs()  # so near to each of the d, an eigenvalue lies
        if k >= 3 and (doubt[:, 0] <= 0.1 * d[:, 0].abs()).all():
            break
    low, high = d[:, 0] - doubt[:, 0], d[:, -1] + doubt[:, -1]
    smallest, largest = P.extremes  # of LLᵀ: xᵀHx = yᵀAy with y = Lᵀx, and ‖y‖²/‖x‖² lies between the two
    return torch.stack([torch.where(low > 0, smallest, largest) * low, largest * high], 1)


def _newton_steps(risk: Risk, W: Tensor, thetas: Tensor, g: Tensor, H: Tensor) -> tuple[Tensor, Tensor]:
    """Three steps ``-H⁻¹∇R`` of every model, ``H`` (m, p, p) kept, each taken where it lowers ‖∇R‖; and the norms."""
    L = torch.linalg.cholesky_ex(H)[0]
    for _ in range(3):
        candidates = thetas - torch.cholesky_solve(g[..., None], L)[..., 0]
        new_g = risk.values_and_gradients(candidates, W)[1]
        better = (new_g.norm(dim=1) < g.norm(dim=1))[:, None]
        thetas, g = torch.where(better, candidates, thetas), torch.where(better, new_g, g)
    return thetas, g.norm(dim=1)


def _which(bad: Tensor, numbers: Tensor) -> str:
    """``problem 3 (1.2e-05), problem 7 (…)``: the first few problems where ``bad``, each with its number."""
    indices = bad.nonzero().flatten().tolist()
    named = ", ".join(f"problem {k} ({float(numbers[k]):.2e})" for k in indices[:5])
    return named + (f" and {len(indices) - 5} more" if len(indices) > 5 else "")


def _lbfgs_many(
    risk: Risk, W: Tensor, start: Tensor, P: _Preconditioner | None, gtol: float, max_steps: int, memory: int = 20
) -> Tensor:
    """Where L-BFGS, run on every problem at once, ends: (m, p). ``P`` is the preconditioner.

    Along its direction ``d`` each problem looks for a step ``t`` between ``low``, known to be too short, and ``high``,
    known to be too long, by doubling and bisection. Long enough and short enough are Wolfe's two conditions.
    """
    found = start.clone()
    problem = torch.arange(len(W), device=W.device)  # which problem each row of the batch is
    theta = start
    R, g = risk.values_and_gradients(theta, W)
    # The last steps s and changes of gradient y of each problem, newest last; 1/sᵀy is 0 where there is none yet.
    S = theta.new_zeros(memory, *theta.shape)
    Y, inverse_sy = S.clone(), theta.new_zeros(memory, len(W))
    scale = 1 / g.abs().sum(1).clamp(min=1.0)  # the first step is short: its length is not known
    d = _lbfgs_direction(g, S[:0], Y[:0], inverse_sy[:0], scale, P)
    t, low, high = torch.ones_like(R), torch.zeros_like(R), torch.full_like(R, torch.inf)

    for step in range(1, max_steps + 1):
        todo = g.norm(dim=1) > gtol
        if not todo.all():
            found[problem] = theta
            if not todo.any():
                break
            problem, W, theta, R, g = (a[todo] for a in (problem, W, theta, R, g))
            scale, d, t, low, high = (a[todo] for a in (scale, d, t, low, high))
            S, Y, inverse_sy = (a[:, todo] for a in (S, Y, inverse_sy))

        new_theta = theta + t[:, None] * d
        new_R, new_g = risk.values_and_gradients(new_theta, W)
        slope, new_slope = _dot(g, d), _dot(new_g, d)
        # Near the end R no longer changes in its last bit, but its slope does; what is not finite is too long.
        rounding = 4 * torch.finfo(R.dtype).eps * R.abs()
        long = ~(new_R <= R + 1e-4 * t * slope + rounding) | ~(new_slope <= -0.9 * slope)
        short = ~long & (new_slope < 0.9 * slope)
        high, low = torch.where(long, t, high), torch.where(short, t, low)
        t = torch.where(high.isinf(), 2 * t, (low + high) / 2)
        accepted = ~(long | short)
        if not accepted.any():
            continue

        s, y = new_theta - theta, new_g - g
        sy = _dot(s, y)  # positive: the slope has risen
        k = accepted.nonzero().flatten()
        used = slice(-min(step, memory), None)
        for memories, newest in ((S[used], s), (Y[used], y), (inverse_sy[used], 1 / sy)):
            memories[:, k] = torch.cat([memories[1:, k], newest[None, k]])
        scale = torch.where(accepted, sy / _dot(y, y), scale)
        R = torch.where(accepted, new_R, R)
        theta, g = torch.where(accepted[:, None], new_theta, theta), torch.where(accepted[:, None], new_g, g)
        new_d = _lbfgs_direction(g, S[used], Y[used], inverse_sy[used], scale, P)
        d = torch.where(accepted[:, None], new_d, d)
        t, low, high = t.where(~accepted, 1.0), low.where(~accepted, 0.0), high.where(~accepted, torch.inf)
    found[problem] = theta
    return found


def _lbfgs_direction(
    g: Tensor, S: Tensor, Y: Tensor, inverse_sy: Tensor, scale: Tensor, P: _Preconditioner | None
) -> Tensor:
    """``-B∇R`` (m, p) with the L-BFGS approximation ``B`` of each inverse Hessian, by Nocedal's two loops."""
    memories = list(zip(S.unbind(), Y.unbind(), inverse_sy.unbind(), strict=True))
    q, coefficients = g, []
    for s, y, r in reversed(memories):
        a = r * _dot(s, q)
        q = torch.addcmul(q, a[:, None], y, value=-1)
        coefficients.append(a)
    d = scale[:, None] * q if P is None else P.solve(q.T).T
    for (s, y, r), a in zip(memories, reversed(coefficients), strict=True):
        d = torch.addcmul(d, (a - r * _dot(y, d))[:, None], s)
    return -d


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """The inner products of the rows of ``a`` and ``b`` (m, p), shape (m,)."""
    return torch.linalg.vecdot(a, b)
