"""The Hessian as a matrix: its spectrum, its product with a vector, and solving with it.

>>> import torch
>>> H = torch.tensor([[2.0, 1.0], [1.0, 2.0]])
>>> spectrum(H)[0]
tensor([1., 3.])
>>> cholesky_solve(H, torch.tensor([3.0, 3.0])).round(decimals=3)
tensor([1., 1.])
"""

from __future__ import annotations

import os
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import grad, jvp

from .probe import direction
from .risk import Products, Risk

_DENSE_UP_TO = 500  # so many parameters: below, all eigenvalues cost less than a few by products
TOO_STIFF = (
    "the eigenvalues of its Hessian span more orders of magnitude than numbers have digits: bring the inputs to one "
    "scale; and where the L2 shrinks weights whose size changes no loss, as those before a normalisation, there is no "
    "minimum: leave these out of it (l2 by name); nor for a bias without L2 whose label has no example of either kind; "
    "a variance that the model predicts needs a floor"
)


class NotPositiveDefinite(ValueError):
    """The Hessian has an eigenvalue that is not positive: the point is no minimum, and the formula does not hold."""


def spectrum(H: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues ``d`` (p,), ascending, and eigenvectors ``Q`` (p, p) as columns, so that ``H = Q diag(d) Qᵀ``.

    Raises:
        ValueError: if ``H`` is not a square, finite, symmetric matrix.
    """
    check_symmetric(H)
    d, Q = torch.linalg.eigh(H)
    return d, Q


def condition_number(H: Tensor) -> float:
    """Largest over smallest absolute eigenvalue of a symmetric ``H`` (p, p); infinite if one of them vanishes."""
    d = spectrum(H)[0].abs()
    return float(d.max() / d.min()) if d.min() > 0 else float("inf")


def check_symmetric(H: Tensor) -> None:
    """Raise ValueError unless ``H`` is square, finite and symmetric to rounding."""
    if H.ndim != 2 or H.shape[0] != H.shape[1]:
        raise ValueError(f"H has shape {tuple(H.shape)}: a Hessian is square, (p, p).")
    if not torch.isfinite(H).all():
        raise ValueError("H has entries that are not finite: the loss overflows at this theta.")
    asymmetry = float((H - H.T).abs().max())
    if asymmetry > 1e3 * torch.finfo(H.dtype).eps * float(H.abs().max()):
        raise ValueError(
            f"H is not symmetric: |H - H^T| reaches {asymmetry:.1e}. A Hessian is; look for a missing transpose or a "
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
    if info or _smallest_in_units(L) <= least_in_units(H):
        raise not_positive_definite(float(torch.linalg.eigvalsh(H)[0]))
    return L


def least_in_units(H: Tensor) -> float:
    """In units in which the diagonal of ``H`` (p, p) is 1: the least eigenvalue that is solved for."""
    return 100 * len(H) * torch.finfo(H.dtype).eps


def _smallest_in_units(L: Tensor) -> float:
    """About the smallest eigenvalue of ``LLᵀ`` in units in which its diagonal is 1, by inverse iteration. A factor does
    not depend on units; but a singular ``H`` may have one by an accident of rounding."""
    L = L / L.norm(dim=1, keepdim=True)
    v = direction(L[0])[:, None]
    for _ in range(3):
        v = torch.cholesky_solve(v / v.norm(), L)
    return 1 / float(v.norm())


def not_positive_definite(smallest: float, found: str = "its smallest eigenvalue is") -> NotPositiveDefinite:
    doubt = ", nothing but rounding beside its largest" if smallest > 0 else ""
    return NotPositiveDefinite(
        f"H is not positive definite: {found} {smallest:.2e}{doubt}. At such a point training has not reached a "
        "nondegenerate minimum; train on, start elsewhere, raise the L2 strength, or damp. Where a symmetry of the "
        "model leaves a direction flat at every minimum, see fix_gauge."
    )


def refuse_unsolvable(B: Tensor, along: Tensor) -> None:
    """Raise if columns of ``B`` (p, m) have more than rounding of their length ``along`` (m,) flat directions."""
    share = float(torch.where(along > 0, along / B.norm(dim=0), 0.0).max())
    if share > torch.finfo(B.dtype).eps ** 0.4:
        raise NotPositiveDefinite(
            f"H is singular, and a right-hand side has {share:.1e} of its length along directions in which H is flat: "
            "it has no solution. This is no symmetry: a test loss changes where no training loss does; or theta is not "
            "near enough to its minimum to tell. Train on, raise the L2 strength, or damp."
        )


def singular_to_rounding() -> NotPositiveDefinite:
    return NotPositiveDefinite(
        f"H is singular to rounding, but losses change along its flat directions: this is no symmetry, {TOO_STIFF}; or "
        "theta is not near enough to its minimum to tell: train on, or damp."
    )


def rounding_of(d: Tensor) -> Tensor:
    """What of the eigenvalues ``d`` (..., p) of a matrix may be rounding, (...)."""
    return 1e3 * torch.finfo(d.dtype).eps * d.shape[-1] ** 0.5 * d.abs().amax(-1)


def cholesky_solve(H: Tensor, B: Tensor) -> Tensor:
    """``H⁻¹B`` for ``B`` (p, m) or (p,), by Cholesky; no inverse is formed. Raises as `cholesky_factor`."""
    if not torch.isfinite(B).all():
        raise ValueError("a right-hand side is not finite: see the gradients that it was made of.")
    columns = B[:, None] if B.ndim == 1 else B
    return torch.cholesky_solve(columns, cholesky_factor(H)).reshape(B.shape)


class HessianOperator:
    """``H = ∇²_θ R(θ, w) + damping·I`` known by its products: ``H @ V`` costs about a gradient a column of ``V``.

    What is asked for is computed once and kept: the graph of the gradient (`Risk.products`), the matrix, its factor.

    The L2 term is in it. ``weights`` (n,) are ``1/n`` each by default. Attributes are the arguments, and ``shape``.
    """

    def __init__(self, risk: Risk, theta: Tensor, weights: Tensor | None = None, *, damping: float = 0.0) -> None:
        if not damping >= 0:
            raise ValueError(f"damping = {damping} must not be negative.")
        self.risk, self.theta, self.damping = risk, risk.check_theta(theta), damping
        self.weights = risk.check_weights(weights, theta)
        self.shape = (risk.model.p, risk.model.p)

    @cached_property
    def is_known_minimum(self) -> bool:
        """Whether theta was certified with these weights before, by this risk."""
        return self.risk.is_known_minimum(self.theta, self.weights)

    @cached_property
    def gradient(self) -> Tensor:
        """``∇R(θ, w)`` (p,), without damping."""
        return self.risk.gradient(self.theta, self.weights)

    @property
    def gradient_norm(self) -> float:
        """``‖∇R(θ, w)‖``, without damping."""
        return float(self.gradient.norm())

    @property
    def _some_gradients(self) -> Tensor:  # not kept: of a large model a few are much
        """``g_i`` of a few examples whose targets differ as much as they can, as rows."""
        return self.risk._gradients(self.theta, *self.risk.spread())

    @cached_property
    def _single(self) -> Tensor:
        return _length(self._some_gradients)

    @cached_property
    def scale(self) -> float:
        """What ``‖∇R‖`` is small or large against, whatever the units of targets or inputs.

        The root mean square of a few single gradients; or, where the model fits nearly exactly and these vanish,
        ``‖Hθ‖``, the gradient that shrinking the parameters to nothing would leave. Where theta is zero as well, what
        is left is next to nothing. Examples without weight count for next to nothing.
        """
        eps, heard = torch.finfo(self.theta.dtype).eps, self.weights.nonzero().flatten()
        single = self._single
        if len(heard) < self.risk.n:
            G = self.risk._gradients(self.theta, *self.risk.part(heard).spread())
            single = eps**0.5 * single + _length(G)
        shrinking = self._without_damping((self.theta + eps**2.5 * direction(self.theta))[None])[0].norm()
        return float(torch.maximum(single * self.weights.abs().sum(), shrinking))

    @cached_property
    def rounding(self) -> float:
        """What of ``‖∇R‖`` may be rounding, also where the examples that have a weight are fitted perfectly."""
        natural = max(self.scale, float(self._single * self.weights.abs().sum()))
        return min(1e3 * torch.finfo(self.theta.dtype).eps, 1e-5) * natural

    @cached_property
    def _without_damping(self) -> Products:
        return self.risk.products(self.theta, self.weights)

    def _products(self, rows: Tensor) -> Tensor:
        """``H`` times each row of ``rows`` (k, p), again as rows."""
        products = self._without_damping(rows)
        return products.add_(rows, alpha=self.damping) if self.damping else products

    def __matmul__(self, V: Tensor) -> Tensor:
        """``HV``, for ``V`` (p,) or (p, m)."""
        if V.shape[:1] != self.shape[:1] or V.ndim > 2:
            raise ValueError(f"V has shape {tuple(V.shape)}: ({self.shape[0]},) or ({self.shape[0]}, m) was expected.")
        return self._products(V[None])[0] if V.ndim == 1 else self._products(V.T).T

    def dense(self) -> Tensor:
        """``H`` as a matrix (p, p), symmetric to the last bit, computed a few rows at a time.

        Raises:
            MemoryError: before anything is computed, if the matrix and its factor do not fit into memory.
        """
        p, there = self.shape[0], _memory(self.theta.device) / 2**30
        need = 3 * p * p * self.theta.element_size() / 2**30
        refusal = MemoryError(
            f"there is not enough memory for the Hessian: p = {p:,} parameters needs about {need:.1f} GiB with its "
            f"factor, of {there:.0f} GiB: use its products, solve=conjugate_gradients."
        )
        if need > there:
            raise refusal
        try:
            return self.risk.dense(self._products, self.theta)
        except RuntimeError as error:
            if "alloc" in str(error).lower() or "memory" in str(error).lower():
                raise refusal from error
            raise

    @cached_property
    def matrix(self) -> Tensor:
        """`dense`, computed once and kept."""
        return self.dense()

    @cached_property
    def factor(self) -> Tensor:
        """``L`` (p, p) with ``H = LLᵀ``; raises as `cholesky_factor`."""
        return cholesky_factor(self.matrix)

    @cached_property
    def eigen(self) -> tuple[Tensor, Tensor]:
        """All eigenvalues (p,), ascending, and eigenvectors (p, p) as columns, of `matrix`."""
        d, Q = torch.linalg.eigh(self.matrix)
        return d, Q

    @cached_property
    def eigenvalues(self) -> Tensor:
        """In ascending order, all (p,) up to some thousand parameters, and else the two `extreme_eigenvalues` (2,)."""
        if self.shape[0] <= 4 * _DENSE_UP_TO:
            return self.eigen[0]
        return extreme_eigenvalues(self)

    @cached_property
    def unit(self) -> Tensor:
        """The step (p,) in each parameter that has a curvature of 1, or of -1; in these units a stiff parameter hides
        no soft one. What may be rounding beside the largest, and has no gradients to match, is left small."""
        stiffness, eps = self.matrix.diagonal().abs(), torch.finfo(self.theta.dtype).eps
        size = self._some_gradients.square().mean(0) * self.weights.abs().sum()
        loss = self.risk.losses(self.theta).abs().mean()
        known = (size > 1e-3 * stiffness * loss) & (size > (1e3 * eps) ** 2 * size.max())
        known |= stiffness > 10 * eps * stiffness.max()
        return torch.where(known, stiffness, stiffness.max()).clamp(min=torch.finfo(self.theta.dtype).tiny).rsqrt()

    @cached_property
    def in_units(self) -> tuple[Tensor, Tensor]:
        """All eigenvalues (p,), ascending, and eigenvectors (p, p) of ``H`` in units of `unit`."""
        d, Q = torch.linalg.eigh(self.unit[:, None] * self.matrix * self.unit)
        return d, Q

    def zero(self, d: Tensor, unit: Tensor | float = 1.0) -> float:
        """What may be zero among the eigenvalues ``d`` of ``H`` in such units: up to rounding; and the zeros of a
        symmetry are only as near to it as ``‖∇R‖ / ‖θ‖`` where the gradient does not quite vanish (at most a
        millionth)."""
        force, size = float((self.gradient * unit).norm()), float((self.theta / unit).norm())
        return float(rounding_of(d)) + min(10 * force / (1e-300 + size), 1e-6 * float(d.abs().max()))

    @cached_property
    def is_flat(self) -> Tensor:
        """Which of the eigenvalues `in_units` are `zero` (p,)."""
        d = self.in_units[0]
        return d.abs() <= self.zero(d, self.unit)

    @property
    def flat(self) -> Tensor:
        """The directions (p, k), orthonormal columns, in which ``H`` `is_flat`."""
        return torch.linalg.qr(self.unit[:, None] * self.in_units[1][:, self.is_flat])[0]

    @property
    def curves_up(self) -> bool:
        """Whether ``H`` is positive in every direction that is not `flat`, and there is one."""
        rest = self.in_units[0][~self.is_flat]
        return len(rest) > 0 and bool(rest[0] > 0)

    @property
    def is_stiff(self) -> bool:
        """Whether ``H`` is singular to rounding in directions that are not `flat`, by its units alone."""
        d = self.eigen[0]
        return bool(d[int(self.is_flat.sum())] <= rounding_of(d))

    @cached_property
    def flat_is_silent(self) -> bool:
        """Whether no loss of an example changes along the directions that are flat, as far as digits tell.

        So little that such a direction, solved for, would add nothing; and, over a way as long as theta, little against
        the loss. Where a fit is perfect, what is rounding beside ``Hθ`` is silent. Nor may the risk fall along them.
        """
        theta, risk, unit = self.theta, self.risk, self.unit
        N = unit * self.in_units[1][:, self.is_flat].T
        if not len(N) or self.is_stiff:
            return not len(N)
        slopes, loss = risk.slopes(theta, N).abs().amax(1), risk.losses(theta).abs().mean()
        steepest = (unit * self._some_gradients).norm(dim=1).max()
        total = self.weights.abs().sum()
        rounding = 1e-12 * ((unit * (self @ theta)).norm() / total + steepest)
        d, size = self.in_units[0], (theta / unit).norm()
        adds = slopes**2 / d[self.is_flat].abs().clamp(min=rounding_of(d))  # to the influences, if they were solved for
        silent = (adds <= 1e-4 * steepest**2) & (slopes * size <= 1e-3 * loss)
        if not bool((silent | (slopes <= rounding)).all()):
            return False
        R = risk(theta, self.weights)
        aside = [risk(theta + t * size * v, self.weights) for v in N for t in (-0.1, -0.03, 0.03, 0.1)]
        return bool(torch.stack(aside).min() >= R - 1e-10 * (total * loss + R.abs()) - total * rounding * size)

    def solve_but_for(self, flat: Tensor, B: Tensor) -> Tensor:
        """``X`` (p, m) with ``HX = B`` but for what ``B`` has along those eigenvectors `in_units` that are ``flat``."""
        (d, Q), unit = self.in_units, self.unit[:, None]
        Q = Q[:, ~flat]
        return unit * (Q @ (Q.T @ (unit * B) / d[~flat, None]))

    def to(self, dtype: torch.dtype) -> HessianOperator:
        """The same Hessian, computed in another format."""
        return HessianOperator(self.risk.to(dtype), self.theta.to(dtype), self.weights.to(dtype), damping=self.damping)

    def sample(self, batch: int, generator: torch.Generator) -> HessianOperator:
        """The Hessian of ``batch`` examples drawn without replacement, whatever their weights, scaled so that its mean
        is this one."""
        n = self.risk.n
        if not 1 <= batch <= n:
            raise ValueError(f"batch = {batch} must lie between 1 and n = {n}.")
        chosen = torch.randperm(n, generator=generator, device="cpu")[:batch].to(self.theta.device)
        weights = self.weights[chosen] * n / batch
        return HessianOperator(self.risk.part(chosen), self.theta, weights, damping=self.damping)


def _length(rows: Tensor) -> Tensor:
    """The root mean square of their lengths."""
    return rows.norm(dim=1).square().mean().sqrt()


def _memory(device: torch.device) -> int:
    """How many bytes a computation may count on: all of the machine's, or what is free on a GPU."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if hasattr(os, "sysconf"):
        return int(os.sysconf("SC_PHYS_PAGES")) * int(os.sysconf("SC_PAGE_SIZE"))
    return 2**36


def extreme_eigenvalues(H: HessianOperator, rtol: float = 1e-2) -> Tensor:
    """The smallest and the largest eigenvalue of ``H``, shape (2,), from products alone: Lanczos, by SciPy's `eigsh`.

    It stops when ``‖Hv - dv‖ ≤ rtol·|d|``; as a rule the eigenvalue is then known far better. Where even many products
    do not tell, ``H`` is formed, up to a few thousand parameters.

    Raises:
        NotPositiveDefinite: beyond, if an end is so near to zero, against the other, that its sign stays unknown.
    """
    from scipy.sparse.linalg import ArpackNoConvergence

    p = H.shape[0]
    # The small end is crowded. The more directions are kept there until a restart, the fewer products; each is stored.
    crowded = min(p, max(20, min(160, 2**24 // p)))
    try:
        if p > 20:
            ends = [end_of_spectrum(H.__matmul__, H.theta, *end) for end in (("SA", rtol, crowded), ("LA", rtol))]
            return torch.tensor(ends, dtype=H.theta.dtype, device=H.theta.device)
    except ArpackNoConvergence as error:
        if p > 8 * _DENSE_UP_TO:
            raise NotPositiveDefinite(
                "Lanczos finds no end of the spectrum of H: some eigenvalues are as good as zero against the largest, "
                "so the sign of the smallest is unknown. Raise the L2 strength, or damp."
            ) from error
    return torch.linalg.eigvalsh(H.matrix)[[0, -1]]


def end_of_spectrum(product: Products, like: Tensor, end: str, rtol: float, kept: int | None = None) -> float:
    """The smallest (``"SA"``) or largest (``"LA"``) eigenvalue of the symmetric matrix with this ``product``.

    Vectors are like ``like`` (p,); ``kept`` of them are stored. Raises ArpackNoConvergence after 60 restarts.
    """

    from scipy.sparse.linalg import LinearOperator, eigsh  # takes a while, and only large models need it

    def multiply(v: Any) -> Any:
        return product(torch.as_tensor(v, dtype=like.dtype, device=like.device).reshape(-1)).cpu().numpy()

    A = LinearOperator((len(like), len(like)), matvec=multiply, dtype=np.float64)
    start = np.random.default_rng(0).standard_normal(len(like))  # the same on every run
    return float(eigsh(A, k=1, which=end, v0=start, ncv=kept, tol=rtol, maxiter=60, return_eigenvectors=False)[0])


def hessian_vector_product(risk: Risk, theta: Tensor, v: Tensor, weights: Tensor | None = None) -> Tensor:
    """``Hv`` (p,) at ``theta``, without ``H``: the derivative of ``∇R`` along ``v`` (p,), forward over reverse
    (or reverse over reverse, where an operation has no forward mode)."""
    theta, weights = risk.check_theta(theta), risk.check_weights(weights, theta)
    if not risk.has_forward_mode:
        return risk.products(theta, weights)(v[None])[0]
    return jvp(lambda t: grad(risk.value)(t, weights), (theta,), (v,))[1]
