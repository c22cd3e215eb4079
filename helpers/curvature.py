"""The Hessian as a matrix: its spectrum, its product with a vector, and solving with it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.func import grad, jvp

from helpers.risk import Risk


class NotPositiveDefinite(ValueError):
    """The Hessian has an eigenvalue that is not positive: the point is no minimum, and the formula does not hold."""


def spectrum(H: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues ``d`` (p,), ascending, and eigenvectors ``Q`` (p, p) as columns, so that ``H = Q diag(d) Qᵀ``.

    Raises:
        ValueError: if ``H`` is not a square, finite, symmetric matrix (an asymmetric one means that a transpose or a
            factor went wrong where it was built).
    """
    check_symmetric(H)
    d, Q = torch.linalg.eigh(H)
    return d, Q


def condition_number(H: Tensor) -> float:
    """Largest over smallest absolute eigenvalue of a symmetric ``H`` (p, p); infinite if one of them vanishes."""
    d = spectrum(H)[0].abs()
    return float(d.max() / d.min())


def check_symmetric(H: Tensor) -> None:
    """Raise ValueError unless ``H`` is square, finite and symmetric to rounding."""
    if H.ndim != 2 or H.shape[0] != H.shape[1]:
        raise ValueError(f"H has shape {tuple(H.shape)}: a Hessian is square, (p, p).")
    if not torch.isfinite(H).all():
        raise ValueError("H has entries that are not finite: the loss overflows at this theta.")
    asymmetry = float((H - H.T).abs().max())
    allowed = 1e3 * torch.finfo(H.dtype).eps * float(H.abs().max())
    if asymmetry > allowed:
        raise ValueError(
            f"H is not symmetric: |H - Hᵀ| reaches {asymmetry:.1e}. A Hessian is; look for a missing transpose or a "
            "row computed at another theta."
        )


def cholesky_factor(H: Tensor) -> Tensor:
    """The lower triangular ``L`` (p, p) with ``H = LLᵀ``; it exists exactly when ``H`` is positive definite.

    Raises:
        NotPositiveDefinite: with the smallest eigenvalue, when ``H`` is not positive definite.
        ValueError: when ``H`` is not symmetric.
    """
    check_symmetric(H)
    L, info = torch.linalg.cholesky_ex(H)
    # A singular H may pass by an accident of rounding, and then shows a pivot that is little more than rounding.
    if info or L.diagonal().min() ** 2 <= 100 * len(H) * torch.finfo(H.dtype).eps * H.diagonal().max():
        smallest = float(torch.linalg.eigvalsh(H)[0])
        raise NotPositiveDefinite(
            f"H is not positive definite: its smallest eigenvalue is {smallest:.2e}. At such a point training has not "
            "reached a nondegenerate minimum; train on, start elsewhere, or raise the L2 strength."
        )
    return L


def cholesky_solve(H: Tensor, B: Tensor) -> Tensor:
    """``H⁻¹B`` for a positive definite ``H`` (p, p) and ``B`` (p, m) or (p,), by Cholesky; no inverse is formed.

    Raises:
        NotPositiveDefinite, ValueError: as `cholesky_factor`.
    """
    columns = B[:, None] if B.ndim == 1 else B
    return torch.cholesky_solve(columns, cholesky_factor(H)).reshape(B.shape)


def hessian_vector_product(risk: Risk, theta: Tensor, v: Tensor, weights: Tensor | None = None) -> Tensor:
    """``Hv`` (p,) at ``theta``, without ``H``: the derivative of ``∇R`` along ``v`` (p,), forward over reverse."""
    weights = risk.check_weights(weights)

    def gradient(t: Tensor) -> Tensor:
        return grad(risk.value)(t, weights)

    return jvp(gradient, (theta,), (v,))[1]
