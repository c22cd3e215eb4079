"""What is minimised: the regularised empirical risk ``R(θ, w) = Σ w_i ℓ(z_i, θ) + λ‖θ‖²``, and its derivatives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import grad, jacrev, jvp, vmap
from torch.nn import functional as F

from helpers.data import Data
from helpers.models import FlatModel

# The Hessians of several models are computed together: so many models at most, and so many rows of all of them.
_MODELS_AT_ONCE, _ROWS_OF_ALL = 64, 1024


def rows_at_once(n: int, p: int) -> int:
    """How many directions (p,) are pushed through ``n`` examples together: enough to keep the processor busy, and so
    few that what it works on stays in its caches. More need more memory, and soon more time, than they save."""
    return max(1, min(2**14 // n, 2**18 // p))


@dataclass(frozen=True)
class Loss:
    """A loss of one example at a time, and the targets for which it is meant.

    Args:
        of: ``of(outputs, y)``, from ``outputs (n, ...)`` and ``y (n, ...)`` to ``n`` losses. No sum, no mean.
        accepts: ``accepts(y)``, whether all targets are in the loss's domain. Default: anything.
        domain: that domain in words, for the error message.
    """

    of: Callable[[Tensor, Tensor], Tensor]
    accepts: Callable[[Tensor], bool] = lambda y: True
    domain: str = "any target"


#: Binary cross-entropy of a logit ``f``, ``log(1 + exp(-s f))`` with ``s = 2y - 1``; labels 0 and 1.
LOGISTIC = Loss(
    lambda f, y: F.binary_cross_entropy_with_logits(f, y.to(f.dtype), reduction="none"),
    lambda y: bool(((y == 0) | (y == 1)).all()),
    "labels 0 or 1 (for labels -1 and 1 use (y + 1) / 2)",
)

#: ``½ (f - y)²``; summed over the outputs if there are several.
SQUARED_ERROR = Loss(
    lambda f, y: 0.5 * (f - y).square().reshape(len(f), -1).sum(1),
    lambda y: y.is_floating_point(),
    "floating-point targets of the same shape as the outputs",
)

#: Cross-entropy of ``k`` logits; labels are integers 0 … k-1.
CROSS_ENTROPY = Loss(
    lambda f, y: F.cross_entropy(f, y, reduction="none"),
    lambda y: not y.is_floating_point() and y.ndim == 1 and bool((y >= 0).all()),
    "integer class labels 0 … k-1, of shape (n,)",
)


@dataclass(frozen=True)
class Risk:
    """The regularised empirical risk of a model on its training data (equation ``def-risk`` of the book)::

        R(θ, w) = Σ_i w_i ℓ(z_i, θ) + l2 · ‖θ‖²

    over ALL parameters, without a factor ½, so that its Hessian contains ``2·l2·I``. Training is ``w = (1/n)·1``.

    Args:
        model: a function ``model(theta, X)`` of a flat ``theta`` (p,); see `helpers.flatten`.
        data: the training examples.
        loss: the loss of one example.
        l2: the regularisation strength ``λ ≥ 0``.

    Raises:
        ValueError: for labels outside the loss's domain, or a negative ``l2``.
    """

    model: FlatModel
    data: Data
    loss: Loss = LOGISTIC
    l2: float = 0.0

    def __post_init__(self) -> None:
        if not self.l2 >= 0:
            raise ValueError(f"l2 = {self.l2} must not be negative: a negative one rewards large parameters.")
        self._check_labels(self.data)

    @property
    def n(self) -> int:
        """The number of training examples."""
        return len(self.data)

    @property
    def uniform(self) -> Tensor:
        """The weights of ordinary training, ``w = (1/n)·1``, shape (n,)."""
        return torch.full((self.n,), 1 / self.n, dtype=self.data.X.dtype, device=self.data.X.device)

    def __call__(self, theta: Tensor, weights: Tensor | None = None) -> Tensor:
        """``R(θ, w)``, a scalar; ``weights`` (n,) default to ``1/n`` each."""
        return self.value(self.check_theta(theta), self.check_weights(weights))

    def gradient(self, theta: Tensor, weights: Tensor | None = None) -> Tensor:
        """``∇_θ R(θ, w)``, L2 included, shape (p,)."""
        return grad(self.value)(self.check_theta(theta), self.check_weights(weights))

    def hessian(self, theta: Tensor, weights: Tensor | None = None) -> Tensor:
        """``H = ∇²_θ R(θ, w)``, L2 included, shape (p, p), symmetric to the last bit."""
        rows = jacrev(grad(self.value), chunk_size=rows_at_once(self.n, self.model.p))
        H = rows(self.check_theta(theta), self.check_weights(weights))
        # Differentiating in one order and in the other rounds differently: H_ij and H_ji differ in the last bits.
        return (H + H.mT) / 2

    def values_and_gradients(self, thetas: Tensor, W: Tensor) -> tuple[Tensor, Tensor]:
        """``R`` (m,) and ``∇R`` (m, p) of ``m`` models at once: ``thetas[k]`` (p,) with weights ``W[k]`` (n,)."""
        thetas = thetas.detach().requires_grad_(True)
        values = vmap(self.value)(thetas, W)
        # Each value depends on its own row only, so the gradient of their sum is all the gradients.
        (gradients,) = torch.autograd.grad(values.sum(), thetas)
        return values.detach(), gradients

    def hessians(self, thetas: Tensor, W: Tensor) -> Tensor:
        """The Hessians (m, p, p) of ``m`` models at once, as `hessian`: ``thetas`` (m, p), ``W`` (m, n)."""
        pieces = []
        for some, weights in zip(thetas.split(_MODELS_AT_ONCE), W.split(_MODELS_AT_ONCE), strict=True):
            rows = jacrev(grad(self.value), chunk_size=max(1, _ROWS_OF_ALL // len(some)))
            pieces.append(vmap(rows)(some, weights))
        H = torch.cat(pieces)
        return (H + H.mT) / 2

    def hessian_products(self, thetas: Tensor, W: Tensor) -> Callable[[Tensor], Tensor]:
        """``V ↦ HV`` of ``m`` models at once, row by row: ``V`` (m, p), each row times its own model's Hessian."""
        thetas = thetas.detach().requires_grad_(True)
        (gradients,) = torch.autograd.grad(vmap(self.value)(thetas, W).sum(), thetas, create_graph=True)
        return lambda V: torch.autograd.grad(gradients, thetas, V, retain_graph=True)[0]

    def losses(self, theta: Tensor, data: Data | None = None) -> Tensor:
        """``ℓ(z_i, θ)``, without L2, shape (n,): of the training examples, or of ``data``."""
        data = self._check_labels(data) if data is not None else self.data
        return self._losses(self.check_theta(theta), data.X, data.y)

    def gradients(self, theta: Tensor, data: Data | None = None) -> Tensor:
        """``g_i = ∇_θ ℓ(z_i, θ)``, without L2, as rows (n, p): of the training examples, or of ``data``."""
        data = self._check_labels(data) if data is not None else self.data

        def loss_of_one(theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
            return self._losses(theta, x[None], y[None])[0]

        return vmap(grad(loss_of_one), in_dims=(None, 0, 0))(self.check_theta(theta), data.X, data.y)

    def slopes(self, theta: Tensor, V: Tensor) -> Tensor:
        """``∇ℓ(z_i, θ)ᵀ v_k`` for each row ``v_k`` of ``V`` (m, p), shape (m, n): ``V Gᵀ`` without ``G``.

        The derivative of all ``n`` losses along ``v_k`` is one forward pass (equation ``eq-scores-by-jvp``).
        """
        self.check_theta(theta)
        X, y = self.data.X, self.data.y

        def along(v: Tensor) -> Tensor:
            return jvp(lambda t: self._losses(t, X, y), (theta,), (v,))[1]

        return vmap(along, chunk_size=rows_at_once(self.n, self.model.p))(V)

    def gauss_newton_curvatures(self, theta: Tensor, V: Tensor) -> Tensor:
        """``(J_i v_i)ᵀ ∇²_f ℓ_i (J_i v_i)``, shape (n,): how each training loss curves with its model's outputs ``f``.

        ``J_i`` is the Jacobian of the outputs at example ``i``, so ``J_i v_i`` is how they move along ``v_i``. It is
        ``v_iᵀ ∇²ℓ(z_i, θ) v_i`` for a model taken as linear in ``θ``, and not negative if the loss is convex in ``f``.

        Args:
            theta: where (p,).
            V: one direction for each training example, as rows (n, p).
        """
        self.check_theta(theta)
        if V.shape != (self.n, self.model.p):
            raise ValueError(f"V has shape {tuple(V.shape)}: give one direction a training example, ({self.n}, p).")

        def along(x: Tensor, y: Tensor, v: Tensor) -> Tensor:
            def loss(f: Tensor) -> Tensor:
                return self.loss.of(f, y[None])[0]

            f, df = jvp(lambda t: self.model(t, x[None]), (theta,), (v,))[:2]
            return (df * jvp(grad(loss), (f,), (df,))[1]).sum()

        return vmap(along)(self.data.X, self.data.y, V)

    def value(self, theta: Tensor, weights: Tensor) -> Tensor:
        """``R(θ, w)`` with nothing checked: for use under `torch.func` transforms, where values cannot be inspected."""
        return weights @ self._losses(theta, self.data.X, self.data.y) + self.l2 * theta @ theta

    def check_weights(self, weights: Tensor | None) -> Tensor:
        """``weights`` (n,) if they can be used, ``1/n`` each for None; raises ValueError otherwise."""
        if weights is None:
            return self.uniform
        if weights.shape != (self.n,):
            raise ValueError(
                f"weights have shape {tuple(weights.shape)}, but there are n = {self.n} training examples: "
                f"give one weight each, shape ({self.n},)."
            )
        self._check_format("weights", weights)
        if not torch.isfinite(weights).all():
            bad = (~torch.isfinite(weights)).nonzero().flatten().tolist()
            raise ValueError(f"weights are not finite at {bad[:5]}.")
        return weights

    def _losses(self, theta: Tensor, X: Tensor, y: Tensor) -> Tensor:
        losses = self.loss.of(self.model(theta, X), y)
        if losses.shape != (len(X),):
            raise ValueError(
                f"the loss gives shape {tuple(losses.shape)} for {len(X)} examples: it must give one number each, "
                "with no sum and no mean (in PyTorch: reduction='none')."
            )
        return losses

    def check_theta(self, theta: Tensor) -> Tensor:
        if theta.shape != (self.model.p,):
            raise ValueError(f"theta has shape {tuple(theta.shape)}, but the model has p = {self.model.p} parameters.")
        self._check_format("theta", theta)
        return theta

    def _check_labels(self, data: Data) -> Data:
        if not self.loss.accepts(data.y):
            raise ValueError(f"the labels are outside the loss's domain, which is: {self.loss.domain}.")
        return data

    def _check_format(self, name: str, tensor: Tensor) -> None:
        X = self.data.X
        if X.is_floating_point() and tensor.dtype != X.dtype:
            raise TypeError(
                f"{name} is {tensor.dtype} and the data {X.dtype}: convert one, so that no step of the chain falls "
                "back to fewer digits (the book uses float64 throughout: data.to(torch.float64), theta.double())."
            )
        if tensor.device != X.device:
            raise ValueError(f"{name} is on {tensor.device} and the data on {X.device}: move both to one device.")
