"""What is minimised: the regularised empirical risk ``R(θ, w) = Σ w_i ℓ(z_i, θ) + λ‖θ‖²``, and its derivatives.

For the mean of ``½(θ - y)²`` and ``y = 1, 3`` the minimum of ``R`` with λ = ½ is at ``2 / (1 + 2·½)``:

>>> import torch
>>> from helpers import SQUARED_ERROR, Data, flatten
>>> constant = torch.nn.Linear(1, 1, bias=False)
>>> data = Data(torch.ones(2, 1).double(), torch.tensor([1.0, 3.0]).double())
>>> risk = Risk(flatten(constant)[0], data, SQUARED_ERROR, l2=0.5)
>>> risk.gradient(torch.tensor([1.0]).double())
tensor([0.], dtype=torch.float64)
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from numbers import Integral
from typing import Any, cast

import torch
from torch import Tensor
from torch.func import grad, jvp, vjp, vmap
from torch.nn import functional as F

from .data import Data, check_tensor, check_weights, differentiable
from .models import FlatModel, one_at_a_time
from .probe import NoFiniteLoss, beside, direction, probe, refuse_mixing, refuse_replaced, taking

Products = Callable[[Tensor], Tensor]  # ``V ↦ HV``
_GRAPH_BYTES = 5 * 2**24  # about what the graph of a product with the Hessian of one model takes at most
_MODELS_AT_ONCE = 64  # so many share work in their Hessians
_PROBED = 8  # examples on which a risk is probed when it is first used


def rows_at_once(n: int, p: int, device: torch.device) -> int:
    """How many directions (p,) go through ``n`` examples together: enough to keep the processor busy, few enough to
    stay in its caches. A GPU has none such and is kept busy only by more."""
    if device.type == "cpu":
        return max(1, min(2**14 // n, 2**18 // p))
    return max(1, min(512, 2**20 // n, 2**24 // p))


@dataclass(frozen=True)
class Loss:
    """A loss of one example at a time, and the targets for which it is meant.

    Args:
        of: ``of(outputs, y)``, from ``outputs (n, ...)`` and ``y (n, ...)`` to ``n`` losses. No sum, no mean.
        accepts: ``accepts(y)``, whether all targets are in the loss's domain. Default: anything.
        domain: that domain in words, for the error message.
    """

    of: Callable[[Tensor, Tensor], Tensor]
    accepts: Callable[[Tensor], bool] | None = None
    domain: str = "any target"


def _like(f: Tensor, y: Tensor) -> Tensor:
    """The targets in the format of the outputs, entry by entry."""
    if f.shape != y.shape:
        raise ValueError(
            f"the outputs have shape {tuple(f.shape)} and the targets {tuple(y.shape)}: this loss compares them entry "
            "by entry, so both must have the same shape."
        )
    return y.to(f.dtype)


def _logistic(f: Tensor, y: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(f, _like(f, y), reduction="none").reshape(len(f), -1).sum(1)


def _squared_error(f: Tensor, y: Tensor) -> Tensor:
    return 0.5 * (f - _like(f, y)).square().reshape(len(f), -1).sum(1)


def _cross_entropy(f: Tensor, y: Tensor) -> Tensor:
    if f.ndim != 2 or y.ndim != 1:
        raise ValueError(
            f"cross-entropy needs k logits and one label an example, outputs (n, k) and y (n,), not {tuple(f.shape)} "
            f"and {tuple(y.shape)} (for one logit use LOGISTIC)."
        )
    try:
        return F.cross_entropy(f, y.long(), reduction="none")
    except IndexError as error:
        raise ValueError(f"a label is outside 0 ... {f.shape[1] - 1}: the model has {f.shape[1]} outputs.") from error


def _zero_or_one(y: Tensor) -> bool:
    return bool(((y == 0) | (y == 1)).all())


def _class_labels(y: Tensor) -> bool:
    return not (y.is_floating_point() or y.is_complex()) and bool((y.long() >= 0).all())


#: Binary cross-entropy of a logit ``f``, ``log(1 + exp(-s f))`` with ``s = 2y - 1``; labels 0 and 1. Summed over the
#: outputs if there are several.
LOGISTIC = Loss(_logistic, _zero_or_one, "labels 0 or 1 (for labels -1 and 1 use (y + 1) / 2)")

#: ``½ (f - y)²``; summed over the outputs if there are several.
SQUARED_ERROR = Loss(_squared_error, torch.is_floating_point, "floating-point targets of the same shape as the outputs")

#: Cross-entropy of ``k`` logits; labels are integers 0 … k-1.
CROSS_ENTROPY = Loss(_cross_entropy, _class_labels, "integer class labels 0 ... k-1, of shape (n,)")


@dataclass(frozen=True)
class Risk:
    """The regularised empirical risk of a model on its training data (equation ``def-risk`` of the book)::

        R(θ, w) = Σ_i w_i ℓ(z_i, θ) + l2 · ‖θ‖²

    over all trainable parameters, without a factor ½, so its Hessian contains ``2·l2·I``. Training is ``w = (1/n)·1``.
    At its first use, model and loss are tried on a few training examples (`helpers.probe`).

    Args:
        model: a function ``model(theta, X)`` of a flat ``theta`` (p,), with the attribute ``p``; see `helpers.flatten`.
        data: the training examples.
        loss: the loss of one example.
        l2: the regularisation strength ``λ ≥ 0``, or one a parameter: (p,), or a function of the parameter's name, for
            instance ``lambda name: 0.01 if name.endswith("weight") else 0.0``.
        batch: how many examples share a graph; by default some ten megabytes of them. More make products faster and
            need more memory; the results differ by rounding alone.
        gauge: ``(N, origin)``, see `helpers.fix_gauge`.

    Raises:
        TypeError: for what is no `FlatModel`, `Data`, `Loss`, or strength.
        ValueError: for labels outside the loss's domain, a negative ``l2``, and, at the first use, a model or a loss
            for which an example has no loss of its own, or a wrong derivative.
    """

    model: FlatModel
    data: Data
    loss: Loss = LOGISTIC
    l2: float | Tensor | Callable[[str], float] = 0.0
    batch: int | None = None
    gauge: tuple[Tensor, Tensor] | None = None
    _known: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)  # by `probe`
    _minima: set[bytes] = field(default_factory=set, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(getattr(self.model, "p", None), int):
            raise TypeError(
                f"the model is a {type(self.model).__name__}: give the first of the two that flatten(module) returns, "
                "model, theta = flatten(module)."
            )
        if not isinstance(self.loss, Loss):
            raise TypeError(
                f"the loss is a {type(self.loss).__name__}: wrap it, Loss(...), for instance "
                "Loss(torch.nn.CrossEntropyLoss(reduction='none')): one number for each example, no mean."
            )
        try:
            l2: Any = self.model.per_parameter(self.l2) if callable(self.l2) else self.l2
            strengths = torch.as_tensor(l2, dtype=torch.float64, device="cpu")
        except (TypeError, ValueError, RuntimeError) as error:
            raise TypeError(
                f"l2 gives no strength ({error}): it must be a number, a tensor with one a parameter, "
                f"({self.model.p},), or a function of the parameter's name that returns a number."
            ) from error
        if isinstance(l2, Tensor) and l2.requires_grad:
            raise ValueError("l2 requires gradients, and nothing here gives it any: l2.detach().")
        if strengths.ndim or isinstance(l2, Tensor):
            object.__setattr__(self, "l2", differentiable(l2 if isinstance(l2, Tensor) else strengths))
        if bad := strengths[~((strengths >= 0) & strengths.isfinite())].tolist():
            raise ValueError(f"l2 = {bad[0]:g} must not be negative (that rewards large parameters), and be finite.")
        if strengths.shape not in ((), (self.model.p,)):
            raise ValueError(
                f"l2 has shape {tuple(strengths.shape)}: give a number, or one a parameter, ({self.model.p},)."
            )
        if self.batch is not None:
            if not (isinstance(self.batch, Integral) and self.batch >= 1):
                raise ValueError(f"batch = {self.batch}: a graph holds at least one example, and only whole ones.")
            object.__setattr__(self, "batch", int(self.batch))
        self._check_labels(self.data)

    def __reduce__(self) -> tuple[Any, ...]:  # what was found out about it is not part of it
        return Risk, (self.model, self.data, self.loss, self.l2, self.batch, self.gauge)

    @property
    def n(self) -> int:
        """The number of training examples."""
        return len(self.data)

    @property
    def uniform(self) -> Tensor:
        """The weights of ordinary training, ``w = (1/n)·1``, shape (n,), in the data's floating-point format."""
        X, y = self.data.X, self.data.y
        dtype = next((part.dtype for part in (X, y) if part.is_floating_point()), torch.float64)
        return torch.full((self.n,), 1 / self.n, dtype=dtype, device=X.device)

    def __call__(self, theta: Tensor, weights: Tensor | None = None) -> Tensor:
        """``R(θ, w)``, a scalar; ``weights`` (n,) default to ``1/n`` each."""
        return self.value(self.check_theta(theta), self.check_weights(weights, theta))

    def value(self, theta: Tensor, weights: Tensor) -> Tensor:
        """``R(θ, w)`` with nothing checked: for use under `torch.func` transforms, where values cannot be inspected."""
        return self._share(theta, weights, slice(None))

    def penalty(self, theta: Tensor) -> Tensor:
        """What does not depend on the data, ``λ‖θ‖²``, for ``theta`` (p,)."""
        strength = self.l2.to(theta) if isinstance(self.l2, Tensor) else cast(float, self.l2)
        value = strength * theta @ theta
        if self.gauge is not None:
            N, origin = self.gauge
            value = value + 0.5 * ((theta - origin.to(theta)) @ N.to(theta)).square().sum()
        return value

    def gradient(self, theta: Tensor, weights: Tensor | None = None) -> Tensor:
        """``∇_θ R(θ, w)``, L2 included, shape (p,)."""
        theta = self.check_theta(theta)
        return self._values_and_gradients(theta, self.check_weights(weights, theta))[1]

    def hessian(self, theta: Tensor, weights: Tensor | None = None) -> Tensor:
        """``H = ∇²_θ R(θ, w)``, L2 included, shape (p, p), symmetric to the last bit."""
        theta = self.check_theta(theta)
        return self.dense(self.products(theta, self.check_weights(weights, theta)), theta)

    def values_and_gradients(self, thetas: Tensor, W: Tensor) -> tuple[Tensor, Tensor]:
        """``R`` (m,) and ``∇R`` (m, p) of ``m`` models at once: ``thetas[k]`` (p,) with weights ``W[k]`` (n,)."""
        self.check_theta(thetas[0])
        return self._values_and_gradients(thetas, W)

    def hessians(self, thetas: Tensor, W: Tensor) -> Tensor:
        """The Hessians (m, p, p) of ``m`` models at once, as `hessian`: ``thetas`` (m, p), ``W`` (m, n)."""
        self.check_theta(thetas[0])
        some = zip(thetas.split(_MODELS_AT_ONCE), W.split(_MODELS_AT_ONCE), strict=True)
        return torch.cat([self.dense(self.products(each, weights), each) for each, weights in some])

    def products(self, theta: Tensor, weights: Tensor) -> Products:
        """``V ↦ HV``, rows of ``V`` (k, p) times the Hessian at ``theta`` (p,) with ``weights`` (n,).

        Or of ``m`` models at once: ``theta`` (m, p), ``weights`` (m, n), ``V`` (k, m, p). Each product is a backward
        pass through the graph of the gradient, which multiplies by the transpose of its Jacobian: ``Hᵀ = H`` (equation
        ``eq-hvp-double-backward``). The graph is kept if one holds all examples, and else built for each product.
        """
        theta = theta.detach()

        @one_at_a_time
        def pull(part: slice) -> Callable[..., tuple[Tensor]]:
            return vjp(lambda t: grad(self._total, has_aux=True)(t, weights, part)[0], theta)[1]

        parts = self._parts()
        kept = pull(parts[0]) if len(parts) == 1 else None
        chunk = self._rows(theta)

        @one_at_a_time
        @torch.no_grad()  # no graph of the products is wanted
        def product(V: Tensor) -> Tensor:
            total = torch.zeros_like(V)
            for part in parts:
                pulled = kept or pull(part)
                total += pulled(V[0])[0] if len(V) == 1 else vmap(pulled, chunk_size=chunk)(V)[0]
            return total

        return product

    def dense(self, products: Products, theta: Tensor) -> Tensor:
        """The matrix (..., p, p) of these `products`, computed a few rows at a time and symmetric to the last bit."""
        p, models = theta.shape[-1], theta.shape[:-1]
        H = theta.new_empty(*models, p, p)
        for rows in torch.arange(p, device=H.device).split(self._rows(theta)):
            V = theta.new_zeros(len(rows), *models, p)
            V[torch.arange(len(rows), device=H.device), ..., rows] = 1
            H[..., rows, :] = products(V).movedim(0, -2)
        return (H + H.mT).div_(2)  # differentiating in one order and in the other rounds differently

    def _rows(self, theta: Tensor) -> int:
        """How many rows of ``H`` are computed together: of several models at once, fewer."""
        examples = min(self.n, self._batch()) * max(1, theta[..., 0].numel() // 2)
        return rows_at_once(examples, theta.shape[-1], theta.device)

    @one_at_a_time
    def losses(self, theta: Tensor, data: Data | None = None) -> Tensor:
        """``ℓ(z_i, θ)``, without L2, shape (n,): of the training examples, or of ``data``."""
        data = self.data if data is None else data
        self._check_labels(data)  # before theta: a test label may be what does not fit the model
        theta = self.check_theta(theta)
        with taking(data.X, data.y):
            return torch.cat([self._losses(theta, data.X[part], data.y[part]) for part in self._parts(len(data))])

    def gradients(self, theta: Tensor, data: Data | None = None) -> Tensor:
        """``g_i = ∇_θ ℓ(z_i, θ)``, without L2, as rows (n, p): of the training examples, or of ``data``."""
        if data is not None:
            self.losses(theta, data)  # its labels and shapes are checked where values can be inspected
        data = self.data if data is None else data
        return self._gradients(self.check_theta(theta), data.X, data.y)

    @one_at_a_time
    def slopes(self, theta: Tensor, V: Tensor) -> Tensor:
        """``∇ℓ(z_i, θ)ᵀ v_k`` for each row ``v_k`` of ``V`` (m, p), shape (m, n): ``V Gᵀ`` without ``G``.

        The derivative of all ``n`` losses along ``v_k`` is one forward pass (equation ``eq-scores-by-jvp``).
        """
        self.check_theta(theta)
        slopes = []
        for part in self._parts():
            X, y = self.data.X[part], self.data.y[part]
            along = partial(self._along, partial(self._losses, X=X, y=y), theta)
            if self._known.get("vmap over models", True):
                slopes.append(vmap(along, chunk_size=rows_at_once(len(X), self.model.p, theta.device))(V))
            else:
                slopes.append(torch.stack([along(v) for v in V]))
        return torch.cat(slopes, dim=1)

    @property
    def has_forward_mode(self) -> bool:
        """Whether all operations of model and loss have a forward-mode derivative, as far as is known."""
        return self._known.get("forward mode", True)

    def _along(self, function: Callable[[Tensor], Tensor], x: Tensor, v: Tensor) -> Tensor:
        """The derivative of ``function`` at ``x`` along ``v``: forward, or as the derivative of ``u ↦ vᵀJᵀu``."""
        if self.has_forward_mode:
            return jvp(function, (x,), (v,))[1]
        outputs, pull = vjp(function, x)[:2]
        return cast(Tensor, vjp(lambda u: pull(u)[0], torch.zeros_like(outputs))[1](v)[0])

    @one_at_a_time
    def gauss_newton_curvatures(self, theta: Tensor, V: Tensor) -> Tensor:
        """``(J_i v_i)ᵀ ∇²_f ℓ_i (J_i v_i)``, shape (n,): how each training loss curves with its model's outputs ``f``.

        ``J_i v_i`` is how the outputs of example ``i`` move along row ``v_i`` of ``V`` (n, p). It is
        ``v_iᵀ ∇²ℓ(z_i, θ) v_i`` for a model taken as linear in ``θ``, and not negative if the loss is convex in ``f``.
        """
        self.check_theta(theta)
        if V.shape != (self.n, self.model.p):
            raise ValueError(f"V has shape {tuple(V.shape)}: give one direction a training example, ({self.n}, p).")

        def along(x: Tensor, y: Tensor, v: Tensor) -> Tensor:
            def loss(f: Tensor) -> Tensor:
                return self.loss.of(*_without_last_one(f, y[None]))[0]

            df = self._along(partial(self.model, X=x[None]), theta, v)
            slope_along = grad(lambda f: (grad(loss)(f) * df).sum())  # not every loss has a forward mode twice
            return (df * slope_along(self.model(theta, x[None]))).sum()

        return self._each(along, self.data.X, self.data.y, V)

    def remember_minimum(self, theta: Tensor, weights: Tensor | None) -> None:
        """That ``theta`` is certified as a minimum with these weights; `is_known_minimum` tells."""
        self._minima.add(_digest(theta, self.check_weights(weights, theta)))

    def is_known_minimum(self, theta: Tensor, weights: Tensor | None) -> bool:
        return _digest(theta, self.check_weights(weights, theta)) in self._minima

    @torch.inference_mode(False)
    def check_weights(self, weights: Tensor | None, theta: Tensor) -> Tensor:
        """``weights`` (n,) if they can be used, ``1/n`` each for None; raises TypeError or ValueError otherwise."""
        if weights is None:
            return self.uniform.to(theta.dtype)
        weights = check_weights(weights, self.n)
        self._check_format("weights", weights)
        return weights

    @torch.inference_mode(False)
    def check_theta(self, theta: Tensor) -> Tensor:
        """``theta`` (p,) if it can be used; raises ValueError or TypeError if not, and for an unfit model or loss."""
        check_tensor("theta", theta)
        if theta.shape != (self.model.p,):
            raise ValueError(f"theta has shape {tuple(theta.shape)}, but the model has p = {self.model.p} parameters.")
        self._check_format("theta", theta)
        theta = differentiable(theta)
        if not self._known and not torch._C._functorch.is_functorch_wrapped_tensor(theta):
            self._try_out(theta.detach())
        return theta

    @one_at_a_time
    def _try_out(self, theta: Tensor) -> None:
        """Probe model and loss, and keep what is found; where they are refused nothing is kept, so they are again."""
        for at in (beside(theta), theta):  # beside theta, a loss may end
            try:
                self._known.update(probe(self._losses, self.model, at, *self.spread()))
                self.refuse_mixing(at)
                refuse_replaced(self._in_parts, self.slopes(at, direction(at)[None])[0], at)
                return
            except Exception as error:
                self._known.clear()
                if at is theta or not isinstance(error, NoFiniteLoss):
                    raise

    @one_at_a_time
    @torch.no_grad()
    def refuse_mixing(self, theta: Tensor) -> None:
        """Raise ValueError if an example has no loss of its own at ``theta``: of all examples, since what the few that
        were probed have elsewhere says nothing of a rare one, or of this place."""
        X, y = self.data.X, self.data.y
        size = self._batch()
        edges = [0, *range(max(1, min(size, self.n) // 3), self.n, size), self.n]

        def apart() -> Tensor:  # one after the other would take long: then in other company
            if not self._known["vmap over examples"]:
                return self._in_parts(theta, [slice(*ends) for ends in pairwise(edges)])
            return self._each(lambda x, t: self._losses(theta, x[None], t[None])[0], X, y)

        with taking(X, y):
            refuse_mixing(apart, lambda: self._in_parts(theta))

    @torch.no_grad()
    def _in_parts(self, theta: Tensor, parts: list[slice] | None = None) -> Tensor:
        X, y = self.data.X, self.data.y
        return torch.cat([self._losses(theta, X[part], y[part]) for part in parts or self._parts()])

    def part(self, chosen: Tensor) -> Risk:
        """The risk of some of the examples, by their indices."""
        return self._alike(data=self.data[chosen])

    def to(self, dtype: torch.dtype) -> Risk:
        """The same risk with its data in another floating-point format, in which model and loss are tried anew."""
        return replace(self, data=self.data.to(dtype))

    def but(self, **changes: Any) -> Risk:
        """With these changes. What was found out of model, loss and data holds while they stay; minima do not."""
        return replace(self, **changes) if changes.keys() & {"model", "loss", "data"} else self._alike(**changes)

    def _alike(self, **changes: Any) -> Risk:
        other = replace(self, **changes)
        other._known.update(self._known)
        return other

    def _losses(self, theta: Tensor, X: Tensor, y: Tensor) -> Tensor:
        f = self.model(theta, X)
        if f.ndim == 0 or len(f) != len(X):
            raise ValueError(
                f"the outputs have shape {tuple(f.shape)} for {len(X)} examples: the model must give one row each (in "
                "forward, squeeze(-1) for squeeze(), which drops the axis of a single example as well)."
            )
        losses = self.loss.of(*_without_last_one(f, y))
        if not isinstance(losses, Tensor) or losses.dtype != theta.dtype:
            given = getattr(losses, "dtype", type(losses).__name__)
            raise TypeError(
                f"the loss gives {given}, and theta is {theta.dtype}: it must give a tensor of that format, with no "
                "comparison, and no conversion to fewer digits (float()), on the way."
            )
        if losses.shape != (len(X),):
            raise ValueError(
                f"the loss gives shape {tuple(losses.shape)} for {len(X)} examples: it must give one number each, "
                "with no sum and no mean (in PyTorch: reduction='none')."
            )
        return losses

    def _share(self, theta: Tensor, weights: Tensor, part: slice) -> Tensor:
        """What a part of the examples adds to ``R``; the first part brings the penalty."""
        value = weights[part] @ self._losses(theta, self.data.X[part], self.data.y[part])
        return value if part.start else value + self.penalty(theta)

    def _total(self, theta: Tensor, weights: Tensor, part: slice) -> tuple[Tensor, Tensor]:
        """The part's share of ``R``, summed over the models (the gradient of that is all gradients), and of each."""
        share = partial(self._share, part=part)
        if theta.ndim == 1:
            values = share(theta, weights)
        elif self._known.get("vmap over models", True):
            values = vmap(share)(theta, weights)
        else:
            values = torch.stack([share(t, w) for t, w in zip(theta, weights, strict=True)])
        return values.sum(), values

    @one_at_a_time
    def _values_and_gradients(self, theta: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        values, gradients = theta.new_zeros(theta.shape[:-1]), torch.zeros_like(theta)
        for part in self._parts():
            if theta.ndim == 1:  # so that it can be differentiated in turn
                some, value = grad(self._total, has_aux=True)(theta, weights, part)
            else:  # the same, in two thirds of the time
                with torch.enable_grad():
                    leaf = theta.detach().requires_grad_(True)
                    total, value = self._total(leaf, weights, part)
                (some,), value = torch.autograd.grad(total, leaf), value.detach()
            values, gradients = values + value, gradients + some
        return values, gradients

    @one_at_a_time
    def _gradients(self, theta: Tensor, X: Tensor, y: Tensor) -> Tensor:
        def loss_of_one(theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
            return self._losses(theta, x[None], y[None])[0]

        return self._each(partial(grad(loss_of_one), theta), X, y)

    @one_at_a_time
    def _each(self, function: Callable[..., Tensor], *of_examples: Tensor) -> Tensor:
        """``function`` of each example, side by side where the module can be, one after the other where not."""
        if self._known.get("vmap over examples", True):
            return vmap(function, chunk_size=self._batch())(*of_examples)
        return torch.stack([function(*one) for one in zip(*of_examples, strict=True)])

    def _batch(self) -> int:
        """How many examples share a graph."""
        return self.batch or max(1, _GRAPH_BYTES // self._known.get("bytes an example", 1))

    def _parts(self, count: int | None = None) -> list[slice]:
        """The training examples, or so many others, in batches: equal ones, so that none needs more than it must."""
        count = count or self.n
        size = -(-count // -(-count // self._batch()))
        return [slice(k, k + size) for k in range(0, count, size)]

    def spread(self) -> tuple[Tensor, Tensor]:
        """``X`` and ``y`` of a few examples whose targets differ as much as they can."""
        y = torch.view_as_real(self.data.y) if self.data.y.is_complex() else self.data.y
        y = y.reshape(self.n, -1)[:, 0] if y.numel() else self.uniform  # targets may be empty
        order = y.argsort(stable=True)
        y = y[order]
        steps = (y[1:] != y[:-1]).nonzero().flatten().add(1)[: _PROBED // 2]
        even = torch.linspace(0, self.n - 1, min(self.n, _PROBED), dtype=torch.float64, device=y.device).long()
        points = order[torch.cat([even, steps]).unique()]
        return self.data.X[points], self.data.y[points]

    def _check_labels(self, data: Data) -> None:
        if not isinstance(data, Data):
            raise TypeError(f"the examples are a {type(data).__name__}: give them as Data(X, y).")
        if self.loss.accepts is not None and not self.loss.accepts(data.y):
            raise ValueError(f"the labels are outside the loss's domain, which is: {self.loss.domain}.")

    def _check_format(self, name: str, tensor: Tensor) -> None:
        if tensor.dtype not in (torch.float32, torch.float64):
            raise TypeError(f"{name} is {tensor.dtype}: second derivatives need float64, or float32 at the least.")
        formats = {part.dtype for part in (self.data.X, self.data.y) if part.is_floating_point()}
        if formats - {tensor.dtype}:
            raise TypeError(
                f"{name} is {tensor.dtype} and the data {', '.join(map(str, formats))}: convert one, so that no step "
                "of the chain falls back to fewer digits (the book uses float64 throughout: data.to(torch.float64), "
                "theta.double())."
            )
        if tensor.device != (there := self.data.X.device):
            raise ValueError(f"{name} is on {tensor.device} and the data on {there}: move both to one device.")


def _digest(*tensors: Tensor) -> bytes:
    return hashlib.sha256(b"".join(each.detach().cpu().contiguous().numpy().tobytes() for each in tensors)).digest()


def _without_last_one(f: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Targets (n, 1) as (n,), as the outputs come from `FlatModel`: else (n,) and (n, 1) would broadcast to (n, n)."""
    return f, y.flatten() if f.ndim == 1 and y.numel() == len(y) else y
