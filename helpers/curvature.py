"""The Hessian as a matrix: its spectrum, its product with a vector, and solving with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import Any, cast

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor
from torch.func import grad, jvp, vjp, vmap

from helpers.risk import Risk, rows_at_once


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


class HessianOperator:
    """``H = ∇²_θ R(θ, w) + damping·I`` known by its products: ``H @ V`` costs about a gradient a column of ``V``.

    The gradient is computed once, at the first product, and its graph is kept; each product is a backward pass through
    that graph, which multiplies by the transpose of its Jacobian: ``Hᵀ = H`` (equation ``eq-hvp-double-backward``).

    Args:
        risk: whose Hessian; its L2 term is in it.
        theta: where (p,).
        weights: the training weights (n,); ``1/n`` each by default.
        damping: added to the diagonal.

    Attributes:
        shape: ``(p, p)``.
        risk, theta, weights, damping: as given.
    """

    def __init__(self, risk: Risk, theta: Tensor, weights: Tensor | None = None, *, damping: float = 0.0) -> None:
        if not damping >= 0:
            raise ValueError(f"damping = {damping} must not be negative.")
        self.risk, self.theta, self.weights, self.damping = risk, theta, risk.check_weights(weights), damping
        self.shape = (risk.model.p, risk.model.p)
        risk.check_theta(theta)

    @cached_property
    def _pull(self) -> Callable[[Tensor], tuple[Tensor]]:
        """Backwards through the gradient: ``v ↦ vᵀ ∂∇R/∂θ``. Built, and its graph kept, when it is first asked for."""

        def gradient(t: Tensor) -> Tensor:
            return grad(self.risk.value)(t, self.weights)

        return cast(Callable[[Tensor], tuple[Tensor]], vjp(gradient, self.theta.detach())[1])

    def __matmul__(self, V: Tensor) -> Tensor:
        """``HV``, for ``V`` (p,) or (p, m)."""
        if V.shape[:1] != self.shape[:1] or V.ndim > 2:
            raise ValueError(f"V has shape {tuple(V.shape)}: ({self.shape[0]},) or ({self.shape[0]}, m) was expected.")
        if V.ndim == 1:
            return self._products(V[None])[0]
        return self._products(V.T).T

    def dense(self) -> Tensor:
        """``H`` as a matrix (p, p), symmetric to the last bit, computed a few rows at a time."""
        H = torch.empty(self.shape, dtype=self.theta.dtype, device=self.theta.device)
        for rows in torch.arange(self.shape[0], device=H.device).split(rows_at_once(self.risk.n, self.shape[0])):
            directions = torch.zeros(len(rows), self.shape[0], dtype=H.dtype, device=H.device)
            directions[torch.arange(len(rows)), rows] = 1
            H[rows] = self._products(directions)
        # Differentiating in one order and in the other rounds differently; the mean is taken in place, block by block.
        for i in range(0, self.shape[0], 512):
            for j in range(0, i + 1, 512):
                block = (H[i : i + 512, j : j + 512] + H[j : j + 512, i : i + 512].T) / 2
                H[i : i + 512, j : j + 512], H[j : j + 512, i : i + 512] = block, block.T
        return H

    def to(self, dtype: torch.dtype) -> HessianOperator:
        """The same Hessian, computed in another format."""
        risk = replace(self.risk, data=self.risk.data.to(dtype))
        return HessianOperator(risk, self.theta.to(dtype), self.weights.to(dtype), damping=self.damping)

    def sample(self, batch: int, generator: torch.Generator) -> HessianOperator:
        """The Hessian of ``batch`` examples drawn without replacement, scaled so that its mean is this one.

        The weights are those of the risk, so it is meant for uniform ones.
        """
        n = self.risk.n
        if not 1 <= batch <= n:
            raise ValueError(f"batch = {batch} must lie between 1 and n = {n}.")
        chosen = torch.randperm(n, generator=generator)[:batch].to(self.theta.device)
        part = replace(self.risk, data=self.risk.data[chosen])
        return HessianOperator(part, self.theta, self.weights[chosen] * n / batch, damping=self.damping)

    def _products(self, rows: Tensor) -> Tensor:
        """``H`` times each row of ``rows`` (k, p), again as rows."""
        with torch.no_grad():  # no graph of the products is wanted
            if len(rows) == 1:
                products = self._pull(rows[0])[0][None]
            else:
                products = vmap(self._pull, chunk_size=rows_at_once(self.risk.n, self.shape[0]))(rows)[0]
            return products.add_(rows, alpha=self.damping) if self.damping else products


def extreme_eigenvalues(H: HessianOperator, rtol: float = 1e-2) -> Tensor:
    """The smallest and the largest eigenvalue of ``H``, shape (2,), from products alone: Lanczos, by SciPy's `eigsh`.

    It stops when ``‖Hv - dv‖ ≤ rtol·|d|``. The eigenvalue is then known far better than to ``rtol``, as a rule.
    """
    p = H.shape[0]
    # The small end is crowded. The more directions are kept there until a restart, the fewer products; each is stored.
    crowded = min(p, max(20, min(160, 2**24 // p)))
    ends = [end_of_spectrum(H.__matmul__, H.theta, end, rtol, kept) for end, kept in (("SA", crowded), ("LA", None))]
    return torch.tensor(ends, dtype=H.theta.dtype, device=H.theta.device)


def end_of_spectrum(
    product: Callable[[Tensor], Tensor], like: Tensor, end: str, rtol: float, kept: int | None = None
) -> float:
    """The smallest (``"SA"``) or largest (``"LA"``) eigenvalue of the symmetric matrix with this ``product``.

    Vectors are (p,), in the format and on the device of ``like`` (p,); ``kept`` of them are stored at a time.
    """

    def multiply(v: Any) -> Any:
        return product(torch.as_tensor(v, dtype=like.dtype, device=like.device).reshape(-1)).cpu().numpy()

    p = len(like)
    operator = LinearOperator((p, p), matvec=multiply, dtype=np.float64)
    start = np.random.default_rng(0).standard_normal(p)  # the same on every run
    return float(eigsh(operator, k=1, which=end, v0=start, ncv=kept, tol=rtol, return_eigenvectors=False)[0])


def hessian_vector_product(risk: Risk, theta: Tensor, v: Tensor, weights: Tensor | None = None) -> Tensor:
    """``Hv`` (p,) at ``theta``, without ``H``: the derivative of ``∇R`` along ``v`` (p,), forward over reverse."""
    weights = risk.check_weights(weights)

    def gradient(t: Tensor) -> Tensor:
        return grad(risk.value)(t, weights)

    return jvp(gradient, (theta,), (v,))[1]
