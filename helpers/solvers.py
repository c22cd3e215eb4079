"""Ways to apply ``H⁻¹``: each a function ``solve(H, B)`` that says how well it solved, or refuses.

``influence`` takes any of them as its ``solve``. An iterative one reports its true residual, ``B - HX`` computed once
more, raises when that is too large, and refuses a direction of negative curvature: no minimum lies along it.

>>> import torch
>>> H = torch.tensor([[2.0, 1.0], [1.0, 2.0]]).double()
>>> conjugate_gradients(H, torch.tensor([[3.0], [3.0]]).double()).X.T
tensor([[1., 1.]], dtype=torch.float64)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.linalg import vecdot

from .curvature import (
    HessianOperator,
    NotPositiveDefinite,
    not_positive_definite,
    refuse_unsolvable,
    singular_to_rounding,
)
from .risk import Products

_MET = "along a direction that the solver met, its curvature is"
Operator = HessianOperator | Tensor  # or whatever else has products and a shape


class NotSolved(RuntimeError):
    """An iterative solver stopped before its residual was small enough. `X` is where it stopped."""

    def __init__(self, message: str, X: Any = None) -> None:  # None for pickle, which sets X afterwards
        super().__init__(message)
        self.X = X


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
    """``H⁻¹B`` by Cholesky: ``H`` is formed, p² numbers, and factored, p³/3 operations; the operator keeps the factor.

    Raises:
        NotPositiveDefinite: with the smallest eigenvalue.
        MemoryError: as `HessianOperator.dense`.
    """
    _check(H, B)
    X = torch.cholesky_solve(B, H.factor)
    return Solution(X, _relative(H.factor @ (H.factor.T @ X) - B, B), 0)


def pseudo_inverse(H: HessianOperator, B: Tensor) -> Solution:
    """``H⁺B``: the smallest of the solutions of ``HX = B`` where ``H`` has exactly flat directions.

    A symmetry of a model, such as a rotation between two linear layers, leaves ``H`` singular at every minimum, and no
    gradient has a part along its flat directions. Nothing depends on where in such a valley the minimum lies, so this
    solution serves as well as any (equation ``eq-influence``). `fix_gauge` does the same for a whole analysis.

    Raises:
        NotPositiveDefinite: for a negative eigenvalue, or a column of ``B`` with a part along a flat direction.
    """
    _check(H, B)
    if not H.curves_up:
        raise not_positive_definite(float(H.eigen[0][0]))
    X, N = H.solve_but_for(H.is_flat, B), H.flat
    X = X - N @ (N.T @ X)
    R, unit = H.matrix @ X - B, H.unit[:, None]
    refuse_unsolvable(unit * B, (unit * R).norm(dim=0))
    if not H.flat_is_silent:
        raise singular_to_rounding()
    return Solution(X, _relative(R, B), 0)


def refined(H: HessianOperator, B: Tensor, *, rtol: float = 1e-12) -> Solution:
    """``H⁻¹B`` to the digits of float64, with ``H`` formed and factored in float32: less memory, and less time.

    The factor knows seven digits. As the preconditioner of conjugate gradients with products in float64, it adds about
    as many at each iteration: two or three are enough where ``H`` is well conditioned.

    Raises:
        NotPositiveDefinite: if ``H`` is not positive definite, or not by enough for float32 to see.
        NotSolved: as `conjugate_gradients`.
    """
    _check(H, B)
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
    H: Operator, B: Tensor, *, rtol: float = 1e-8, max_iterations: int = 1000, preconditioner: Products | None = None
) -> Solution:
    """``H⁻¹B`` by conjugate gradients, all columns of ``B`` (p, m) side by side (equation ``eq-cg-step``).

    Args:
        H: symmetric positive definite, (p, p), given by its products.
        rtol: how small each ``‖Hx - b‖ / ‖b‖`` must become.
        max_iterations: how many products with ``H`` are allowed.
        preconditioner: ``R ↦ M⁻¹R`` for a positive definite ``M`` near ``H``.

    Raises:
        TypeError, ValueError: for right-hand sides of another format or shape, or not finite.
        NotPositiveDefinite: with the curvature along the direction in which it is not positive.
        NotSolved: with the largest true residual, if ``max_iterations`` were not enough or the format's digits are not.
    """

    precondition = preconditioner or (lambda R: R)

    def solve(R: Tensor, steps: int) -> tuple[Tensor, int]:
        X, x, R = torch.zeros_like(R), torch.zeros_like(R), R.clone()
        columns = torch.arange(R.shape[1], device=R.device)  # those that are not solved yet: x, R and P are theirs
        Z = precondition(R)
        P, rz = Z.clone(), vecdot(R, Z, dim=0)
        for iteration in range(steps + 1):
            todo = ~(R.norm(dim=0) <= rtol)
            left = int(todo.sum())
            if left < len(columns):
                X[:, columns] = x
                columns, rz, x, R, P = columns[todo], rz[todo], x[:, todo], R[:, todo], P[:, todo]
            if not left or iteration == steps:
                break
            HP = H @ P
            curvature = vecdot(P, HP, dim=0)
            _refuse_negative(curvature, P)
            alpha = rz / curvature
            x.addcmul_(P, alpha)
            R.addcmul_(HP, alpha, value=-1)
            Z = precondition(R)
            new = vecdot(R, Z, dim=0)
            P.mul_(new / rz).add_(Z)
            rz = new
        X[:, columns] = x
        return X, iteration

    return _until_true(H, B, solve, rtol, max_iterations, "raise max_iterations, or give a preconditioner")


def block_conjugate_gradients(H: Operator, B: Tensor, *, rtol: float = 1e-8, max_iterations: int = 1000) -> Solution:
    """``H⁻¹B`` by conjugate gradients in which all columns search together (O'Leary 1980).

    Each step is the best one in the space of all directions at once, so what one column finds serves all: with a
    hundred columns, a tenth of the products or less. The price: within ``rtol``, a column's answer depends on its
    company, and all go on until the last is done. Of directions that depend on each other, or become so, only those are
    kept that add something (Ji and Li 2017 do it likewise). Arguments and exceptions as in `conjugate_gradients`.
    """

    def solve(R: Tensor, steps: int) -> tuple[Tensor, int]:
        X, R = torch.zeros_like(R), R.clone()
        P = _basis(R)
        for iteration in range(steps + 1):
            if iteration == steps or not P.shape[1] or bool((R.norm(dim=0) <= rtol).all()):
                break
            HP = H @ P
            curvature = P.T @ HP  # of H along every direction in the span of P, whose columns are orthonormal
            L, info = torch.linalg.cholesky_ex((curvature + curvature.T) / 2)
            if info:
                raise not_positive_definite(float(torch.linalg.eigvalsh(curvature)[0]), _MET)
            step = torch.cholesky_solve(P.T @ R, L)
            X.addmm_(P, step)
            R.addmm_(HP, step, alpha=-1)
            P = _basis(R - P @ torch.cholesky_solve(HP.T @ R, L))
        return X, iteration

    return _until_true(H, B, solve, rtol, max_iterations, "raise max_iterations")


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
    """``H⁻¹B`` by the truncated Neumann series with sampled Hessians (equation ``eq-lissa``), a mean of ``repeats``
    independent runs.

    ``x ← x + (b - H_S x) / scale``, ``depth`` times, with ``H_S`` the Hessian of ``batch`` examples drawn each time.
    It converges in the mean if and only if every eigenvalue of ``H`` lies between 0 and ``2·scale``.

    Args:
        scale: at least half of the largest eigenvalue of ``H``. For small batches much more: single examples of a
            non-convex model curve downwards, too, and their noise can grow where the mean shrinks.
        batch: how many examples each step sees, drawn without replacement; None for all.
        seed: of the draws.
        rtol: how large ``‖Hx - b‖ / ‖b‖``, measured with the whole ``H``, may be in the end, and how much of the
            result the second half of the steps may have changed: in soft directions the residual knows little of it.

    Raises:
        NotPositiveDefinite: if the whole ``H`` curves downwards along the result.
        NotSolved: if one of these is larger than ``rtol``: it has diverged, or the depth was not enough.
    """
    if not scale > 0 or depth < 1 or repeats < 1:
        raise ValueError(f"scale = {scale}, depth = {depth}, repeats = {repeats} must be positive.")
    _check(H, B)
    generator = torch.Generator().manual_seed(seed)
    total, half = torch.zeros_like(B), torch.zeros_like(B)
    for _ in range(repeats):
        x = B / scale
        for step in range(depth):
            if step == depth // 2:
                half += x
            sample = H if batch is None else H.sample(batch, generator)
            x = x + (B - sample @ x) / scale
        total += x
    X = total / repeats
    HX, still = H @ X, _relative(X - half / repeats, X)
    residuals = _relative(HX - B, B)
    if torch.isfinite(X).all():
        _refuse_negative(vecdot(X, HX, dim=0), X)
    if (residuals <= rtol).all() and (still <= rtol).all():
        return Solution(X, residuals, depth * repeats)
    raise NotSolved(
        f"LiSSA ended at a residual of {float(residuals.max()):.1e}, and the second half of {depth} steps changed the "
        f"result by {float(still.max()):.1e} of itself; rtol = {rtol:g}, with {repeats} repeats. If it diverged, raise "
        "scale; if not, raise depth (for noise: repeats or batch). Where H curves downwards, nothing helps: see its "
        "smallest eigenvalue.",
        X,
    )


def _until_true(
    H: Operator,
    B: Tensor,
    solve: Callable[[Tensor, int], tuple[Tensor, int]],
    rtol: float,
    max_iterations: int,
    remedy: str,
) -> Solution:
    """``solve(R, steps)`` until the true residual is small: the one that a recursion carries along drifts by rounding,
    and what is left is then solved for in turn, as long as that helps."""
    _check(H, B)
    size = B.abs().amax(0)  # first, so that no square overflows or vanishes
    size = torch.where(size > 0, size * (B / size.clamp(min=torch.finfo(B.dtype).tiny)).norm(dim=0), 1.0)
    R = B / size
    X, iterations, worst = torch.zeros_like(B), 0, float("inf")
    while True:
        correction, some = solve(R, max_iterations - iterations)
        X, iterations = X + correction, iterations + some
        R = B / size - H @ X
        residuals = R.norm(dim=0)
        before, worst = worst, float(residuals.max())
        if worst <= rtol:
            return Solution(X * size, residuals, iterations)
        if iterations >= max_iterations or not worst < before / 2:
            break
    digits = "" if iterations >= max_iterations else f"; {B.dtype} has no more digits for this H, so raise rtol"
    raise NotSolved(
        f"conjugate gradients stopped after {iterations} iterations at a true residual of {worst:.1e}, above "
        f"rtol = {rtol:.0e}: {remedy}{digits}.",
        X * size,
    )


def _check(H: Operator, B: Tensor) -> None:
    if B.ndim != 2 or B.shape[0] != H.shape[0] or B.shape[1] == 0:
        raise ValueError(f"B has shape {tuple(B.shape)}: give right-hand sides as columns, ({H.shape[0]}, m).")
    like = getattr(H, "theta", H)
    if isinstance(like, Tensor) and like.dtype != B.dtype:
        raise TypeError(f"B is {B.dtype} and H {like.dtype}: convert one, B.to({like.dtype}).")
    if not torch.isfinite(B).all():
        raise ValueError("a right-hand side is not finite: see the gradients of the test losses.")


def _basis(R: Tensor) -> Tensor:
    """Orthonormal columns that span those of ``R`` (p, m), without what is only rounding."""
    size = R.norm(dim=0)
    Q, T = torch.linalg.qr(R[:, size > 0] / size[size > 0])
    U, s, _ = torch.linalg.svd(T, full_matrices=False)
    return Q @ U[:, s > 1e-10 * s[:1]]


def _refuse_negative(curvature: Tensor, P: Tensor) -> None:
    """Raise if ``PᵀHP`` is not positive in some column that is not zero."""
    size = P.norm(dim=0).square()
    if not bool(((curvature > 0) | (size == 0)).all()):
        raise not_positive_definite(float((curvature / size)[size > 0].min()), _MET)


def _relative(R: Tensor, B: Tensor) -> Tensor:
    """``‖r‖ / ‖b‖`` of each column, from the residuals ``R`` and the right-hand sides ``B`` (p, m)."""
    size = B.norm(dim=0)
    return torch.where(size > 0, R.norm(dim=0) / size, R.norm(dim=0))
