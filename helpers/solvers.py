"""Ways to apply ``H⁻¹``: each a function ``solve(H, B)`` that says how well it solved, or refuses.

``influence`` takes any of them as its ``solve``. An iterative one never returns quietly: it reports its residual and
its number of iterations, raises when it did not converge, and refuses a direction of negative curvature, in which what
it looks for does not exist.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from helpers.curvature import HessianOperator, NotPositiveDefinite, cholesky_solve


class Operator(Protocol):
    """What a solver needs of ``H``: its products, and its size."""

    shape: tuple[int, int]

    def __matmul__(self, V: Tensor) -> Tensor: ...


class NotSolved(RuntimeError):
    """An iterative solver stopped before its residual was small enough. `X` is where it stopped."""

    def __init__(self, message: str, X: Tensor) -> None:
        super().__init__(message)
        self.X = X

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (*self.args, self.X)  # so that it can come home from another process


@dataclass(frozen=True)
class Solution:
    """``X ≈ H⁻¹B``, and how good it is.

    Attributes:
        X: the solution (p, m).
        residuals: ``‖Hx - b‖ / ‖b‖`` of each column (m,).
        iterations: how many products with ``H`` each column took at most.
    """

    X: Tensor
    residuals: Tensor
    iterations: int


def direct(H: HessianOperator, B: Tensor) -> Solution:
    """``H⁻¹B`` by Cholesky: ``H`` is formed, p² numbers, and factored, p³/3 operations.

    Raises:
        NotPositiveDefinite: with the smallest eigenvalue.
    """
    dense = H.dense()
    X = cholesky_solve(dense, B)
    return Solution(X, _relative(dense @ X - B, B.norm(dim=0)), 0)


def refined(H: HessianOperator, B: Tensor, *, rtol: float = 1e-12) -> Solution:
    """``H⁻¹B`` to the digits of float64, with ``H`` formed and factored in float32: less memory, and less time.

    The factor knows seven digits. As the preconditioner of conjugate gradients on ``H`` itself, with products in
    float64, each iteration adds about as many as it has right: two or three are enough where ``H`` is well conditioned.

    Raises:
        NotPositiveDefinite: if ``H`` is not positive definite, or not by enough for float32 to see.
        NotSolved: as `conjugate_gradients`.
    """
    L, info = torch.linalg.cholesky_ex(H.to(torch.float32).dense())
    if info:
        raise NotPositiveDefinite(
            "H is not positive definite in float32: its smallest eigenvalue is negative, or below a ten-millionth of "
            "its largest. `direct`, which works in float64, will tell."
        )

    def solve(R: Tensor) -> Tensor:
        return torch.cholesky_solve(R.to(L.dtype), L).to(R.dtype)

    return conjugate_gradients(H, B, rtol=rtol, max_iterations=50, preconditioner=solve)


def conjugate_gradients(
    H: Operator,
    B: Tensor,
    *,
    rtol: float = 1e-8,
    max_iterations: int = 1000,
    preconditioner: Callable[[Tensor], Tensor] | None = None,
) -> Solution:
    """``H⁻¹B`` by conjugate gradients, all columns side by side (equation ``eq-cg-step``).

    Args:
        H: symmetric positive definite, (p, p), given by its products.
        B: right-hand sides (p, m).
        rtol: how small each ``‖Hx - b‖ / ‖b‖`` must become.
        max_iterations: how many products with ``H`` are allowed.
        preconditioner: ``R ↦ M⁻¹R`` for a positive definite ``M`` near ``H``.

    Raises:
        NotPositiveDefinite: with the curvature along the direction in which it is not positive.
        NotSolved: with the largest residual, if ``max_iterations`` were not enough.
    """
    X = torch.zeros_like(B)
    columns = torch.arange(B.shape[1], device=B.device)  # those that are not solved yet: x, R and P are theirs
    size = B.norm(dim=0)
    x, R = torch.zeros_like(B), B.clone()
    Z = R if preconditioner is None else preconditioner(R)
    P, rz = Z.clone(), _dot(R, Z)
    for iteration in range(max_iterations + 1):
        residuals = _relative(R, size)
        todo = residuals > rtol
        if not todo.all():
            X[:, columns] = x
            columns, size, rz, x, R, P = columns[todo], size[todo], rz[todo], x[:, todo], R[:, todo], P[:, todo]
        if not todo.any():
            # The residual that was carried along has drifted by rounding; what is reported is the true one.
            return Solution(X, _relative((H @ X).sub_(B), B.norm(dim=0)), iteration)
        if iteration == max_iterations:
            break
        HP = H @ P
        curvature = _dot(P, HP)
        _refuse_negative(curvature, P)
        alpha = rz / curvature
        x.addcmul_(P, alpha)
        R.addcmul_(HP, alpha, value=-1)
        Z = R if preconditioner is None else preconditioner(R)
        new = _dot(R, Z)
        P.mul_(new / rz).add_(Z)
        rz = new
    X[:, columns] = x
    raise _stopped(X, residuals, rtol, max_iterations, "raise max_iterations, or give a preconditioner.")


def block_conjugate_gradients(H: Operator, B: Tensor, *, rtol: float = 1e-8, max_iterations: int = 1000) -> Solution:
    """``H⁻¹B`` by conjugate gradients in which all columns search together (O'Leary 1980).

    Each step is the best one in the space of all directions at once, so what one column finds serves all. With a
    hundred columns that takes a tenth of the products or less. The price: within ``rtol``, a column's answer depends on
    its company, and all go on until the last is done.

    Args:
        H, B, rtol: as in `conjugate_gradients`.
        max_iterations: how many products with ``H``, of as many columns as ``B`` has, are allowed.

    Raises:
        NotPositiveDefinite, NotSolved: as `conjugate_gradients`.
    """
    size = B.norm(dim=0)
    X, R = torch.zeros_like(B), B.clone()
    P = torch.linalg.qr(R).Q
    for iteration in range(max_iterations + 1):
        residuals = _relative(R, size)
        if (residuals <= rtol).all():
            return Solution(X, _relative((H @ X).sub_(B), B.norm(dim=0)), iteration)
        if iteration == max_iterations:
            break
        HP = H @ P
        curvature = P.T @ HP  # of H along every direction in the span of P, whose columns are orthonormal
        L, info = torch.linalg.cholesky_ex((curvature + curvature.T) / 2)
        if info:
            raise _not_positive(float(torch.linalg.eigvalsh(curvature)[0]))
        step = torch.cholesky_solve(P.T @ R, L)
        X.addmm_(P, step)
        R.addmm_(HP, step, alpha=-1)
        P = torch.linalg.qr(R - P @ torch.cholesky_solve(HP.T @ R, L)).Q
    raise _stopped(X, residuals, rtol, max_iterations, "raise max_iterations.")


def lissa(
    H: HessianOperator,
    B: Tensor,
    *,
    scale: float,
    depth: int,
    batch: int | None = None,
    repeats: int = 1,
    seed: int = 0,
    rtol: float = 0.1,
) -> Solution:
    """``H⁻¹B`` by the truncated Neumann series with sampled Hessians (equation ``eq-lissa``), a mean of ``repeats``.

    ``x ← x + (b - H_S x) / scale``, ``depth`` times, with ``H_S`` the Hessian of ``batch`` examples drawn each time.
    It converges in the mean if and only if every eigenvalue of ``H`` lies between 0 and ``2·scale``.

    Args:
        H: the Hessian of a risk, with its damping.
        B: right-hand sides (p, m).
        scale: at least half of the largest eigenvalue of ``H``. For small batches much more: single examples of a
            non-convex model curve downwards, too, and their noise can grow where the mean shrinks.
        depth: how many steps.
        batch: how many examples each step sees, drawn without replacement by their weights; None for all.
        repeats: how many independent runs are averaged.
        seed: of the draws.
        rtol: how large ``‖Hx - b‖ / ‖b‖``, measured with the whole ``H``, may be in the end.

    Raises:
        NotPositiveDefinite: if the whole ``H`` curves downwards along the result.
        NotSolved: if the residual is larger than ``rtol``: it has diverged, or the depth was not enough.
    """
    if not scale > 0 or depth < 1 or repeats < 1:
        raise ValueError(f"scale = {scale}, depth = {depth}, repeats = {repeats} must be positive.")
    generator = torch.Generator().manual_seed(seed)
    total = torch.zeros_like(B)
    for _ in range(repeats):
        x = B / scale
        for _ in range(depth):
            sample = H if batch is None else H.sample(batch, generator)
            x = x + (B - sample @ x) / scale
        total += x
    X = total / repeats
    HX = H @ X
    residuals = _relative(HX - B, B.norm(dim=0))
    if torch.isfinite(X).all():
        _refuse_negative(_dot(X, HX), X)
    if not (residuals <= rtol).all():
        raise NotSolved(
            f"LiSSA ended at a residual of {float(residuals.max()):.1e}, above rtol = {rtol:g}, after {depth} steps "
            f"and {repeats} repeats: if it diverged, raise scale; if not, raise depth (for noise: repeats or batch). "
            "Where H curves downwards, nothing helps: see its smallest eigenvalue.",
            X,
        )
    return Solution(X, residuals, depth * repeats)


def _stopped(X: Tensor, residuals: Tensor, rtol: float, iterations: int, remedy: str) -> NotSolved:
    return NotSolved(
        f"conjugate gradients stopped after {iterations} iterations at a residual of {float(residuals.max()):.1e}, "
        f"above rtol = {rtol:.0e}: {remedy}",
        X,
    )


def _refuse_negative(curvature: Tensor, P: Tensor) -> None:
    """Raise if ``PᵀHP`` is not positive in some column."""
    ratio = curvature / P.norm(dim=0).square()
    if not (ratio > 0).all():
        raise _not_positive(float(ratio.min()))


def _not_positive(curvature: float) -> NotPositiveDefinite:
    return NotPositiveDefinite(
        f"H is not positive definite: along a direction that the solver met, its curvature is {curvature:.2e}. "
        "Training has not reached a nondegenerate minimum: train on, raise the L2 strength, or damp."
    )


def _dot(A: Tensor, B: Tensor) -> Tensor:
    """The inner products of the columns of ``A`` and ``B`` (p, m), shape (m,)."""
    return torch.linalg.vecdot(A, B, dim=0)


def _relative(R: Tensor, size: Tensor) -> Tensor:
    """``‖r‖ / ‖b‖`` of each column, from the residuals ``R`` (p, m) and the sizes of the right-hand sides (m,)."""
    return torch.where(size > 0, R.norm(dim=0) / size, R.norm(dim=0))
