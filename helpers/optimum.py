"""Find ``argmin R(·, w)``, of one risk or of many at once, each with its certificate.

>>> import torch
>>> from helpers import SQUARED_ERROR, Data, Risk, flatten
>>> model, start = flatten(torch.nn.Linear(1, 1, bias=False))
>>> data = Data(torch.ones(2, 1).double(), torch.tensor([1.0, 3.0]).double())
>>> found = minimise(Risk(model, data, SQUARED_ERROR, l2=0.5), start)
>>> round(float(found.theta), 12), round(found.smallest_eigenvalue, 12)  # 2 / (1 + 2·½), and 1 + 2·½
(1.0, 2.0)
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.linalg import vecdot

from .certificate import _NEAR, FOUND, Certificate, NotAMinimum, _At, _no_minimum, bound, cause, flaw, is_minimum
from .curvature import (
    _DENSE_UP_TO,
    HessianOperator,
    NotPositiveDefinite,
    cholesky_factor,
    end_of_spectrum,
    rounding_of,
)
from .risk import Risk
from .solvers import NotSolved, conjugate_gradients

_NUMBERS_AT_ONCE = 2**28  # examples × parameters × problems that are solved at once
_KEPT_BYTES = 31 * 2**20  # the largest block after whose release glibc keeps more memory
_LANCZOS_STEPS = 50


class NotConverged(_At, RuntimeError):
    """The optimiser stopped before the gradient vanished. `theta` holds where it stopped."""


@dataclass(frozen=True)
class Minima:
    """Where ``m`` problems ended, one a row, and which of these points are certified minima.

    Attributes:
        thetas: the points (m, p).
        gradient_norms: ``‖∇R‖`` at each, (m,).
        smallest_eigenvalues: of the Hessian at each (before the last tiny steps of Newton), (m,). Of a large model a
            lower bound, where a preconditioner gives a positive one; NaN where no gradient vanished.
        certified: whether each is a nondegenerate minimum, (m,).
        tolerance: how small ``‖∇R‖`` had to become.
    """

    thetas: Tensor
    gradient_norms: Tensor
    smallest_eigenvalues: Tensor
    certified: Tensor
    tolerance: float

    def __len__(self) -> int:
        return len(self.thetas)

    @property
    def rows(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The fields that have a row for each problem."""
        return self.thetas, self.gradient_norms, self.smallest_eigenvalues, self.certified

    def or_raise(self, risk: Risk, W: Tensor, item: str) -> Minima:
        """These minima, if all are certified. If not, NotConverged or NotAMinimum names the first few that are not,
        each as an ``item``, and says of the first of them why."""
        if bool(self.certified.all()):
            return self
        k = int((~self.certified).nonzero()[0])
        why = cause(HessianOperator(risk, self.thetas[k], W[k]), self.tolerance)

        def named(bad: Tensor, numbers: Tensor) -> str:
            each = [f"{item} {k} ({float(numbers[k]):.2e})" for k in bad.nonzero().flatten().tolist()]
            more = f" and {len(each) - 5} more" if len(each) > 5 else ""
            return f"{', '.join(each[:5])}{more}: {why} (the exception's theta is where all of them stopped)."

        if bool((moving := ~(self.gradient_norms <= self.tolerance)).any()):
            what = f"training stopped at a gradient norm above {self.tolerance:.1e}"
            raise NotConverged(f"{what} in {named(moving, self.gradient_norms)}", self.thetas)
        what = "stationary, but no minimum: the smallest eigenvalue of the Hessian"
        raise NotAMinimum(f"{what} in {named(~self.certified, self.smallest_eigenvalues)}", self.thetas)


@torch.inference_mode(False)
def minimise(
    risk: Risk, start: Tensor, weights: Tensor | None = None, *, gtol: float | None = None, max_steps: int = 2000
) -> Certificate:
    """A certified minimum of ``R(·, w)``, from ``start`` (p,): L-BFGS until the end is near, then Newton's steps.

    Args:
        start: an initialisation, or where another optimiser stopped.
        weights: (n,); ``1/n`` each by default.
        gtol: how small ``‖∇R‖`` must become against `HessianOperator.scale`; 1e-9 in float64, 1e-5 in float32.
        max_steps: of L-BFGS.

    Raises:
        NotConverged: with the gradient norm, the likely cause and where it stopped.
        NotAMinimum: if it ended at a saddle, or in the valley of a symmetry (see `fix_gauge`).
        TypeError, ValueError: for a start in another format, of another length or on another device than the data's.
    """
    theta = risk.check_theta(start).detach().clone()
    weights = risk.check_weights(weights, theta).detach()
    gtol = bound(gtol, FOUND[theta.dtype])
    H = HessianOperator(risk, theta, weights)
    for _ in range(3):
        near = 1e-6 * H.scale  # Newton's quadratic convergence does the rest
        theta = _lbfgs(risk, weights[None], theta[None], None, near, max_steps)[0]
        scale = HessianOperator(risk, theta, weights).scale
        found = _finish(risk, theta[None], weights[None], gtol * scale, None, max_steps)
        theta, norm, smallest = found.thetas[0], float(found.gradient_norms[0]), float(found.smallest_eigenvalues[0])
        H = HessianOperator(risk, theta, weights)
        if H.scale > 1e-3 * scale:
            break  # else what was small at the start is large against tiny targets
    if found.certified[0] and not flaw(H, gtol):
        risk.refuse_mixing(theta)
        risk.remember_minimum(theta, weights)
        return Certificate(theta, norm, smallest)
    why = cause(H, found.tolerance)
    if norm <= found.tolerance:
        raise _no_minimum(theta, norm, smallest, why)
    raise NotConverged(
        f"training stopped at a gradient norm of {norm:.1e}, above {found.tolerance:.1e} (gtol = {gtol:.0e} of its "
        f"scale), after at most {max_steps} steps: {why} (the exception's theta is where it stopped).",
        theta,
    )


@torch.inference_mode(False)
def minimise_many(
    risk: Risk,
    W: Tensor,
    start: Tensor,
    *,
    preconditioner: Tensor | HessianOperator | None = None,
    gtol: float | None = None,
    max_steps: int = 2000,
    throw: bool = True,
) -> Minima:
    """Certified minima of the ``m`` risks ``R(·, W[k])``, all found at once.

    The models are trained side by side by L-BFGS: one evaluation computes ``m`` values and gradients in one batch, and
    each model goes on by its own line search. The batch only shares the work: no model sees another. At the end each
    Hessian is computed, for the certificate, and serves for Newton's last, tiny steps.

    Args:
        W: the weights of each problem (m, n).
        start: where to start, (p,) for all or (m, p).
        preconditioner: a positive definite matrix or operator (p, p) near the Hessian of every problem. The first step
            is then ``-H⁻¹∇R``, and the curvature that L-BFGS learns corrects ``H⁻¹``, not a multiple of the identity.
        gtol: how small every ``‖∇R‖`` must become, as in `minimise`; scaled as at the operator or first start.
        max_steps: the number of evaluations allowed.
        throw: whether a problem without a certified minimum is an error. If not, `Minima.certified` tells.

    Raises:
        NotConverged: naming the problems whose gradient did not vanish, and its norms.
        NotAMinimum: naming the problems that ended at a saddle or in a flat valley, and their smallest eigenvalues.
            The exception's ``theta`` (m, p) holds where every problem stopped.
        NotPositiveDefinite: if the preconditioner is not.
        ValueError, TypeError: for weights or a start of another shape or format than the risk's.
    """
    if W.ndim != 2 or len(W) == 0:
        raise ValueError(f"W has shape {tuple(W.shape)}: give one row of weights for each problem, (m, {risk.n}).")
    m, p = len(W), start.shape[-1]
    first = risk.check_theta(start if start.ndim == 1 else start[0]).detach()
    risk.check_weights(W.abs().sum(0), first)
    if start.shape not in ((p,), (m, p)):
        raise ValueError(f"start has shape {tuple(start.shape)}, for {m} problems: give ({p},) or ({m}, {p}).")
    P = None if preconditioner is None else _Preconditioner(preconditioner)
    # Blocks of some MiB go back to the system after each batch, and new pages are slow: a fifth of the time. Once a
    # larger block was released, the C library keeps what is smaller.
    torch.empty(_KEPT_BYTES, dtype=torch.uint8, device="cpu")
    if isinstance(preconditioner, HessianOperator):
        scale = preconditioner.scale
    else:  # of the problem with the least weights; where these hear next to nothing, of all examples alike
        total = W.abs().sum(1)
        least = int(total.where(total > 0, torch.inf).argmin())
        alike = HessianOperator(risk, first).scale * float(total[least])
        scale = max(HessianOperator(risk, first, W[least]).scale, alike)
    tolerance = bound(gtol, FOUND[start.dtype]) * scale

    # Some problems at a time, so that memory does not grow with m. No problem sees another, so nothing else changes.
    together = max(1, _NUMBERS_AT_ONCE // (risk.n * p))
    starts = start.detach().expand(m, p).split(together)
    found = [
        _finish(risk, _lbfgs(risk, some, at, P, 100 * tolerance, max_steps), some, tolerance, P, max_steps)
        for some, at in zip(W.split(together), starts, strict=True)
    ]
    thetas, norms, smallest, certified = map(torch.cat, zip(*(each.rows for each in found), strict=True))
    minima = Minima(thetas, norms, smallest, certified, tolerance)
    return minima.or_raise(risk, W, "problem") if throw else minima


def _finish(
    risk: Risk, thetas: Tensor, W: Tensor, tolerance: float, P: _Preconditioner | None, max_steps: int
) -> Minima:
    """From near the end to it by Newton's steps, with a certificate for each row of ``thetas`` (m, p)."""
    newton = _by_matrices if risk.model.p <= _DENSE_UP_TO else _by_products
    found = newton(risk, thetas, W, tolerance, P)
    for attempt in range(3):
        left = (~found.certified).nonzero().flatten()
        if not len(left):
            break
        # Where Newton's steps do not make up for the last two decades, or leave a doubt, L-BFGS goes all the way.
        at = found.thetas[left]
        at = at if attempt else _lbfgs(risk, W[left], at, P, tolerance, max_steps)
        again = newton(risk, at, W[left], tolerance, P)
        both = zip(found.rows, again.rows, strict=True)
        thetas, norms, smallest, certified = (rows.index_copy(0, left, new) for rows, new in both)
        found = Minima(thetas, norms, smallest, certified, tolerance)
    return found


def _by_matrices(risk: Risk, thetas: Tensor, W: Tensor, tolerance: float, P: _Preconditioner | None) -> Minima:
    """Up to three steps ``-H⁻¹∇R`` of every model, with one ``H`` for all of them, each taken where it lowers ‖∇R‖.

    Where ``H`` has a negative eigenvalue no step is taken: it would walk to a saddle. Where it is flat, by rounding
    little more than zero, its pseudo-inverse stays clear of the flat directions.
    """
    g, H = risk.values_and_gradients(thetas, W)[1], risk.hessians(thetas, W)
    finite = torch.isfinite(H).all(-1).all(-1)
    eigenvalues = torch.linalg.eigvalsh(H.where(finite[:, None, None], 0.0)).where(finite[:, None], torch.nan)
    minimum = is_minimum(thetas, g.norm(dim=1), eigenvalues)
    L, info = torch.linalg.cholesky_ex(H)
    rounding, force = rounding_of(eigenvalues), 10 * g.norm(dim=1) / (1e-300 + thetas.norm(dim=1))
    below = rounding + torch.minimum(force, 1e-6 * eigenvalues[:, -1].abs())  # as `HessianOperator.zero`
    up, flat = eigenvalues[:, 0] > below, (eigenvalues[:, 0].abs() <= below) & (eigenvalues[:, -1] > 0)
    for _ in range(3):
        todo = g.norm(dim=1) > 1e-6 * tolerance  # of each by itself: no problem sees another
        if not todo.any():
            break
        steps = torch.cholesky_solve(g[..., None], L)[..., 0]
        far = (steps.abs() > _NEAR * (1 + thetas.abs())).any(1)  # as where a risk only falls: a step of 1, for ever
        minimum &= ~(far & up)
        for k in flat.nonzero().flatten().tolist():
            d, Q = torch.linalg.eigh(H[k])
            along, soft = Q.T @ g[k], d <= below[k]
            if along[soft].norm() > 0.5 * g[k].norm():  # flat by L2 alone: along a symmetry there is no force
                soft = d <= rounding[k]
            steps[k] = Q @ torch.where(soft, 0.0, along / d)
        new_thetas = thetas - torch.where((up & (info == 0) | flat)[:, None], steps, 0.0)
        new_g = risk.values_and_gradients(new_thetas, W)[1]
        better = (todo & (new_g.norm(dim=1) < g.norm(dim=1)))[:, None]
        thetas, g = torch.where(better, new_thetas, thetas), torch.where(better, new_g, g)
    norms = g.norm(dim=1)
    return Minima(thetas, norms, eigenvalues[:, 0], (norms <= tolerance) & minimum, tolerance)


def _by_products(risk: Risk, thetas: Tensor, W: Tensor, tolerance: float, P: _Preconditioner | None) -> Minima:
    """Newton's steps ``-H⁻¹∇R`` by conjugate gradients, for the models that are not there yet.

    The value of the risk loses its last digits long before its gradient does, so the gradient decides. A step must not
    raise the risk by more than rounding: it cannot walk to a saddle.
    """
    values, g = risk.values_and_gradients(thetas, W)
    thetas, norms = thetas.clone(), g.norm(dim=1)
    solve = None if P is None else P.solve
    for k in range(len(W)):
        theta, gradient, value = thetas[k], g[k], values[k]
        for _ in range(20):
            if not gradient.norm() > 0.01 * tolerance:
                break
            H = HessianOperator(risk, theta, W[k])
            try:  # a thousandth is enough: each of the steps then takes three decades off the gradient
                step = conjugate_gradients(H, gradient[:, None], rtol=1e-3, preconditioner=solve).X[:, 0]
            except (NotPositiveDefinite, NotSolved):
                break
            new_value, new_gradient = (a[0] for a in risk.values_and_gradients((theta - step)[None], W[k : k + 1]))
            rounding = 4 * torch.finfo(value.dtype).eps * value.abs()
            if not new_value <= value + rounding or not new_gradient.norm() < gradient.norm():
                break
            theta, gradient, value = theta - step, new_gradient, new_value
        thetas[k], norms[k] = theta, gradient.norm()
    ends, there = _bounds(risk, thetas, W, P), norms <= tolerance
    for k in (there & ~is_minimum(thetas, norms, ends)).nonzero().flatten().tolist():
        with contextlib.suppress(NotPositiveDefinite):  # the sign of a very large model's stays unknown
            ends[k] = HessianOperator(risk, thetas[k], W[k]).eigenvalues[[0, -1]]
    return Minima(thetas, norms, ends[:, 0], there & is_minimum(thetas, norms, ends), tolerance)


class _Preconditioner:
    """A positive definite matrix by its Cholesky factor `L` (p, p)."""

    def __init__(self, matrix: Tensor | HessianOperator) -> None:
        self.L = matrix.factor if isinstance(matrix, HessianOperator) else cholesky_factor(matrix)

    def solve(self, B: Tensor) -> Tensor:
        """The inverse times ``B`` (p, m). (PyTorch's `cholesky_solve` takes many times as long for a few columns.)"""
        half = torch.linalg.solve_triangular(self.L, B, upper=False)
        return torch.linalg.solve_triangular(self.L.T, half, upper=True)

    @cached_property
    def extremes(self) -> tuple[float, float]:
        """The smallest and the largest eigenvalue, by Lanczos: only the certificates of large models ask."""
        smallest = 1 / end_of_spectrum(lambda v: self.solve(v[:, None])[:, 0], self.L[0], "LA", rtol=1e-3)
        return smallest, end_of_spectrum(lambda v: self.L @ (self.L.T @ v), self.L[0], "LA", rtol=1e-3)


def _bounds(risk: Risk, thetas: Tensor, W: Tensor, P: _Preconditioner | None) -> Tensor:
    """A lower bound of the smallest and an upper bound of the largest eigenvalue of each problem's Hessian, (m, 2); NaN
    without a preconditioner.

    By Lanczos on ``A = L⁻¹HL⁻ᵀ``, whose eigenvalues are near 1 but for a few. It starts from ``(A - I)r``, with a
    random ``r``, where the many near 1 are faint. As always with products alone, an eigenvector at right angles to the
    start would go unseen.
    """
    if P is None:
        return thetas.new_full((len(W), 2), torch.nan)
    products, L = risk.products(thetas, W), P.L

    def A(V: Tensor) -> Tensor:
        back = torch.linalg.solve_triangular(L.T, V.T, upper=True).T
        return torch.linalg.solve_triangular(L, products(back[None])[0].T, upper=False).T

    r = torch.randn(len(L), generator=torch.Generator().manual_seed(0), dtype=torch.float64, device="cpu").to(thetas)
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
        T[:, k, k] = torch.where(alive, vecdot(Q[k], v), T[:, 0, 0])
        for q in Q + Q:  # once more against all: rounding lets the first directions come back
            v = v - vecdot(q, v)[:, None] * q
        rest = v.norm(dim=1)
        d, S = torch.linalg.eigh(T[:, : k + 1, : k + 1])
        doubt = rest[:, None] * S[:, -1].abs()  # so near to each of the d, an eigenvalue lies
        if k >= 3 and (doubt[:, 0] <= 0.1 * d[:, 0].abs()).all():
            break
    low, high = d[:, 0] - doubt[:, 0], d[:, -1] + doubt[:, -1]
    smallest, largest = P.extremes  # of LLᵀ: xᵀHx = yᵀAy with y = Lᵀx, and ‖y‖²/‖x‖² lies between the two
    return torch.stack([low * torch.where(low > 0, smallest, largest), largest * high], 1)


def _lbfgs(risk: Risk, W: Tensor, start: Tensor, P: _Preconditioner | None, gtol: float, max_steps: int) -> Tensor:
    """Where L-BFGS, run on every problem at once, ends: (m, p). ``P`` is the preconditioner.

    Along its direction ``d`` each problem looks for a step ``t`` between ``low``, known to be too short, and ``high``,
    known to be too long, by doubling and bisection. Long enough and short enough are Wolfe's two conditions.
    """
    found, theta = start.clone(), start
    problem = torch.arange(len(W), device=W.device)  # which problem each row of the batch is
    R, g = risk.values_and_gradients(theta, W)
    memory = _Memory(g, P)
    d = memory.direction(g)
    t, low, high = torch.ones_like(R), torch.zeros_like(R), torch.full_like(R, torch.inf)

    for _ in range(max_steps):
        # Of a problem whose step has shrunk to rounding nothing more is to be had this way.
        todo = (g.norm(dim=1) > gtol) & (t * d.norm(dim=1) > torch.finfo(t.dtype).eps * theta.norm(dim=1))
        if not todo.all():
            found[problem] = theta
            if not todo.any():
                break
            problem, W, theta, R, g = (rows[todo] for rows in (problem, W, theta, R, g))
            d, t, low, high = (rows[todo] for rows in (d, t, low, high))
            memory.keep(todo)
        new_theta = theta + t[:, None] * d
        new_R, new_g = risk.values_and_gradients(new_theta, W)
        slope, new_slope = vecdot(g, d), vecdot(new_g, d)
        # Near the end R no longer changes in its last bit, but its slope does; what is not finite is too long.
        rounding = 4 * torch.finfo(R.dtype).eps * R.abs()
        long = ~(new_R <= R + 1e-4 * t * slope + rounding) | ~(new_slope <= -0.9 * slope)
        short = ~long & (new_slope < 0.9 * slope)
        high, low = torch.where(long, t, high), torch.where(short, t, low)
        t = torch.where(high.isinf(), 2 * t, (low + high) / 2)
        accepted = ~(long | short)
        if accepted.any():
            memory.add(accepted, new_theta - theta, new_g - g)
            R, row = torch.where(accepted, new_R, R), accepted[:, None]
            theta, g = torch.where(row, new_theta, theta), torch.where(row, new_g, g)
            d = torch.where(row, memory.direction(g), d)
            t, low, high = t.where(~accepted, 1.0), low.where(~accepted, 0.0), high.where(~accepted, torch.inf)
    found[problem] = theta
    return found


class _Memory:
    """The L-BFGS approximation ``B`` of each problem's inverse Hessian, by its last steps ``s`` and changes of gradient
    ``y``, newest last; ``1/sᵀy`` is 0 where there is none yet."""

    def __init__(self, g: Tensor, P: _Preconditioner | None, size: int = 20) -> None:
        self.P, self.size, self.used = P, size, 0
        self.S, self.Y = g.new_zeros(2, size, *g.shape)
        self.inverse_sy = g.new_zeros(size, len(g))
        self.scale = 1 / g.abs().sum(1).clamp(min=1.0)  # the first step is short: its length is not known

    def keep(self, rows: Tensor) -> None:
        self.S, self.Y, self.inverse_sy = self.S[:, rows], self.Y[:, rows], self.inverse_sy[:, rows]
        self.scale = self.scale[rows]

    def add(self, rows: Tensor, s: Tensor, y: Tensor) -> None:
        self.used = min(self.used + 1, self.size)
        sy, k = vecdot(s, y), rows.nonzero().flatten()  # sᵀy is positive: the slope has risen
        for memories, newest in ((self.S, s), (self.Y, y), (self.inverse_sy, 1 / sy)):
            some = memories[self.size - self.used :]
            some[:, k] = torch.cat([some[1:, k], newest[None, k]])
        self.scale = torch.where(rows, sy / vecdot(y, y), self.scale)

    def direction(self, g: Tensor) -> Tensor:
        """``-B∇R`` (m, p), by Nocedal's two loops."""
        memories = [each[self.size - self.used :].unbind() for each in (self.S, self.Y, self.inverse_sy)]
        triples = list(zip(*memories, strict=True))
        q, coefficients = g, []
        for s, y, r in reversed(triples):
            coefficients.append(r * vecdot(s, q))
            q = torch.addcmul(q, coefficients[-1][:, None], y, value=-1)
        d = self.scale[:, None] * q if self.P is None else self.P.solve(q.T).T
        for (s, y, r), a in zip(triples, reversed(coefficients), strict=True):
            d = torch.addcmul(d, (a - r * vecdot(y, d))[:, None], s)
        return -d
