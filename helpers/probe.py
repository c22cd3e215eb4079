"""Is the loss of an example its own, and is its derivative its derivative? A model and a loss, tried on a few examples.

The book's formulas take it for granted: ``ℓ(z_i, θ)`` depends on no other example of a batch, nor on chance, nor on how
often it was called, and `torch.func` differentiates it. Else the influences would be wrong without a word.

>>> import torch
>>> X, y, theta = torch.eye(3).double(), torch.zeros(3).double(), torch.arange(3).double() / 7
>>> probe(lambda theta, X, y: (X @ theta - y).square(), None, theta, X, y)["vmap over examples"]
True
>>> probe(lambda theta, X, y: (X @ theta - (X @ theta).mean()).square(), None, theta, X, y)
Traceback (most recent call last):
    ...
ValueError: the loss of an example depends on the other examples in its batch: ...
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.func import grad, jvp, vjp, vmap

Losses = Callable[[Tensor, Tensor, Tensor], Tensor]
STEPS = (1e-5, 1e-7, 1e-8, 1e-3)  # of 1 + ‖θ‖: the first may be too long for inputs in large units, the short too short

_OWN = "so no example has a loss of its own"
_RANDOM = (
    "the model or the loss is random, or remembers its calls: called twice, it gives two losses for one example, so "
    "the loss has no gradient to differentiate twice. Call module.eval() before flatten; in forward, "
    "dropout(..., training=self.training)."
)
_FEWER = (
    "the model or the loss computes in fewer digits than {}: {}. See that forward and loss convert nothing (float(), "
    "to(torch.float32)), that their constants are in that format, and that no large terms cancel."
)
REPLACED = (
    "something in forward or in the loss stops or replaces derivatives (detach, no_grad, a rounding, a custom "
    "backward, weight_norm, the padding_idx of an Embedding), or the loss jumps there"
)


@torch.inference_mode(False)
@torch.enable_grad()
def probe(losses: Losses, model: Any, theta: Tensor, X: Tensor, y: Tensor) -> dict[str, Any]:
    """What is known of a model and a loss after trying them on the examples ``X``, ``y`` (k, ...).

    Args:
        losses: ``losses(theta, X, y)``, one for each example (k,).
        model: its attributes ``constants`` and ``hooks`` are looked at, if it has them.
        theta: parameters (p,); see `beside`.

    Returns:
        ``"vmap over examples"``, ``"vmap over models"`` and ``"forward mode"``, whether these transforms of
        `torch.func` can be used (where not, a loop or reverse mode takes their place); and ``"bytes an example"``,
        about how much memory a product with the Hessian needs for one.

    Raises:
        ValueError: if an example has no loss of its own, or if what `torch.func` gives is not its derivative.
    """
    try:
        together = _as_called(losses, model, theta, X, y)
        with taking(X[:1], y[:1]):
            refuse_mixing(
                lambda: torch.cat([losses(theta, X[k : k + 1].clone(), y[k : k + 1]) for k in range(len(X))]),
                lambda: losses(theta, X, y),
            )
        found = _derivatives(losses, together, theta, X, y)
        _refuse_unmoved(losses, theta, X, y)
        return found | {"bytes an example": _bytes(losses, theta, X, y)}
    except Exception as error:
        own = isinstance(error, ValueError) and error.__cause__ is None
        if own or not (hooks := getattr(model, "hooks", ())):
            raise
        raise ValueError(
            f"the module has hooks (at {', '.join(map(repr, hooks[:5]))}), and torch.func cannot differentiate "
            f"through them: remove them first ({type(error).__name__}: {error})"
        ) from error


class NoFiniteLoss(ValueError):
    """A loss is infinite or no number. Beside a theta that is no reason to refuse it."""


def beside(theta: Tensor) -> Tensor:
    """Where to probe: where a fit is perfect, or all parameters are alike, much vanishes that else would tell."""
    return theta + 1e-3 * (1 + theta.norm()) * direction(theta)


@contextmanager
def taking(X: Tensor, y: Tensor) -> Iterator[None]:
    """A model and a loss are called with these for the first time: what they cannot take is named."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (IndexError, RuntimeError) as error:
        if "alloc" in str(error).lower():
            raise
        given = " and ".join(f"{name} {tuple(each.shape)} of {each.dtype}" for name, each in (("X", X), ("y", y)))
        raise ValueError(
            f"the model or the loss cannot take {given} ({type(error).__name__}: {error}). X needs the features and "
            "the format for which the model was made, and y one target an example. The loss gets one output an example "
            "as (n,), and targets (n, 1) as well. What forward computes with follows the format of theta if it is "
            "registered: register_buffer for tensors, nn.ModuleList for layers."
        ) from error


def _as_called(losses: Losses, model: Any, theta: Tensor, X: Tensor, y: Tensor) -> Tensor:
    """The losses, if calling the model leaves no trace and calling it again gives the same."""
    constants = getattr(model, "constants", {})
    before = {name: each.clone() for name, each in constants.items()}
    given, targets, state = X.clone(), y.clone(), _random_state(theta)
    with taking(X, y):
        first = losses(theta, given, targets)
    if not torch.isfinite(first).all():
        raise NoFiniteLoss(
            f"losses are not finite at this theta: {_listed(first)}. Start elsewhere, or scale the inputs."
        )
    if first.dtype == torch.float64 and first.any() and torch.equal(first.float().double(), first):
        raise ValueError(_FEWER.format(first.dtype, "all losses have no more than those of float32"))
    if not torch.equal(given, X):
        raise ValueError("the model writes into its input: let forward work on a copy, x = x.clone().")
    if not torch.equal(targets, y):
        raise ValueError("the loss writes into the targets: let it work on a copy, y = y.clone().")
    drawn = not torch.equal(state, _random_state(theta))
    for _ in range(8 if drawn else 1):
        apart = (losses(theta, given, targets) - first).abs().max()
        if not apart <= 1e3 * torch.finfo(first.dtype).eps * first.abs().max():
            raise ValueError(_RANDOM)
    changed = [name for name, each in constants.items() if not torch.equal(each, before[name])]
    if changed:
        raise ValueError(
            f"calling the model changes its buffers ({', '.join(changed[:3])}), so its loss is another at every call: "
            "call module.eval() before flatten (and leave out max_norm of an Embedding)."
        )
    if losses(theta.detach(), given, targets).requires_grad:
        raise ValueError(
            "the losses depend on tensors that require gradients and are not in theta: parameters of the loss, or of "
            "the module that was copied (in a loss, or in a lambda that it holds). Make them part of the module, in "
            "methods and not in lambdas; leave the L2 term to the risk; detach what is to stay as it is."
        )
    return first.detach()


def refuse_mixing(by_itself: Callable[[], Tensor], in_batches: Callable[[], Tensor]) -> None:
    """Raise if an example has another loss ``by_itself`` than ``in_batches`` with others; both give all losses."""
    alone, together = by_itself().detach(), in_batches().detach()
    if bad := (~torch.isfinite(together)).nonzero().flatten().tolist():
        raise NoFiniteLoss(
            f"examples {bad[:5]} have no finite loss at this theta: start elsewhere, or scale the inputs."
        )
    eps, size = torch.finfo(together.dtype).eps, together.abs()
    apart = (alone - together).abs()
    # Entry by entry: one large loss hides nothing. A loss far below the others' may be all rounding.
    differs = ~(apart <= eps**0.5 * (size + size.median()) + eps**0.75 * size.max() + 1e-300)
    if not differs.any():
        return
    if not (_near(by_itself(), alone) and _near(in_batches(), together)):
        raise ValueError(_RANDOM)
    rounded = (apart > 1e4 * eps * size).double().mean() > 0.25  # of most: a few that differ have another cause
    if together.dtype == torch.float64 and rounded and (apart <= 1e-4 * size).all():
        differ = f"one example alone and together with others differ by {float((apart / size).max()):.0e}"
        raise ValueError(_FEWER.format(together.dtype, differ))
    k = int(torch.where(differs, (apart / (size + size.median())).nan_to_num(torch.inf), -1.0).argmax())
    raise ValueError(
        f"the loss of an example depends on the other examples in its batch: alone it is {float(alone[k]):.8g}, and "
        f"with others {float(together[k]):.8g} (for {int(differs.sum())} of {len(apart)} "
        f"examples it differs), {_OWN}. Standardise or impute by fixed numbers, not by the batch's (for layers: "
        "eval()); weight examples by the weights of the risk, not by a weighted mean in the loss; let outputs and "
        "targets have one shape; where a layer takes the first axis for time, use batch_first=True."
    )


def _derivatives(losses: Losses, together: Tensor, theta: Tensor, X: Tensor, y: Tensor) -> dict[str, Any]:
    """Which transforms of `torch.func` can be used; raises where they do not give the derivatives."""

    def loss_of_one(t: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return losses(t, x[None], y[None])[0]

    def total(t: Tensor) -> Tensor:
        return losses(t, X, y).sum()

    try:
        g = grad(total)(theta)
        vjp(grad(total), theta)[1](g)
    except Exception as error:
        raise ValueError(
            f"the model can be called, but torch.func cannot differentiate it twice ({type(error).__name__}: {error}). "
            "Usual causes: conversions to NumPy or to Python numbers in forward, hooks, checkpointing, custom backward "
            "passes that cannot be differentiated."
        ) from error
    singles = torch.stack([grad(loss_of_one)(theta, x, target) for x, target in zip(X, y, strict=True)])
    if not _near(singles.sum(0), g, of=singles):
        apart = float((singles.sum(0) - g).abs().max() / singles.abs().max())
        if theta.dtype == torch.float64 and apart < 1e-5:
            raise ValueError(_FEWER.format(theta.dtype, f"gradients of single examples add up to {apart:.0e} only"))
        raise ValueError(
            "the gradients of the single examples do not add up to the gradient of all: something in the model or the "
            f"loss depends on the batch, {_OWN}. See that forward treats every example alike, whatever the others are."
        )
    size = float(together.abs().sum())
    _refuse_wrong_derivative(total, lambda d: g @ d, theta, size, "the gradient is not the derivative of the loss")
    size = float(singles.norm(dim=1).sum())
    wrong = "what torch.func takes for the second derivative is not the derivative of the gradient"
    _refuse_wrong_derivative(grad(total), lambda d: vjp(grad(total), theta)[1](d)[0], theta, size, wrong)
    with warnings.catch_warnings():  # from torch 2.14 on, its own forward mode warns at the first use in a process
        warnings.filterwarnings("ignore", r".torch\.jit\.script. is", FutureWarning)
        second = _tried(lambda: jvp(grad(total), (theta,), (g,))[1])
    return {
        "vmap over examples": _near(_tried(lambda: vmap(partial(grad(loss_of_one), theta))(X, y)), singles),
        "vmap over models": _near(
            _tried(lambda: vmap(lambda t: losses(t, X, y))(torch.stack([theta, 1.01 * theta]))[0]), together
        ),
        "forward mode": second is not None and _near(_tried(lambda: jvp(total, (theta,), (g,))[1]), g @ g),
    }


def _refuse_unmoved(losses: Losses, theta: Tensor, X: Tensor, y: Tensor) -> None:
    """Raise if no loss depends on ``theta``: both derivatives are then rightly zero."""
    if not losses(theta.detach().requires_grad_(True), X, y).requires_grad:
        raise ValueError(
            "no loss depends on the parameters: the module computes with a weight that it has cached or merged (as "
            "LoRA in eval() does: unmerge first), or cuts them off (detach, no_grad)."
        )


def _refuse_wrong_derivative(
    function: Callable[[Tensor], Tensor], along: Callable[[Tensor], Tensor], theta: Tensor, size: float, what: str
) -> None:
    """Compare the derivative ``along`` a direction with central differences, where rounding lets one see a per cent.

    ``size`` is that of the terms that the function adds up: their rounding is what a difference cannot see.
    """
    stated, seen = along(direction(theta)), []
    for h, difference in differences(function, theta):
        seen.append(float(difference.norm()))
        largest = max(float(stated.norm()), seen[-1])
        if (stated - difference).norm() <= 0.01 * largest + 100 * torch.finfo(theta.dtype).eps * size / h:
            if len(seen) < len(STEPS):
                return
            raise ValueError(_FEWER.format(theta.dtype, f"{what}, as rounding hides it in all but long steps"))
    if not torch.isfinite(stated).all():
        raise ValueError(f"{what}: it is not finite (a root, a power or a norm at zero?).")
    raise ValueError(
        f"{what}: along one direction it says {float(stated.norm()):.3g}, a central difference {seen[1]:.3g}; "
        f"{REPLACED}."
    )


def refuse_replaced(losses: Callable[[Tensor], Tensor], slopes: Tensor, theta: Tensor) -> None:
    """Raise if the ``slopes`` (n,) along `direction` are not the derivatives of the ``losses``: of all examples, since
    a loss may replace its gradient for a few of them only."""
    wrong = torch.ones_like(slopes, dtype=torch.bool)
    rounding = 200 * torch.finfo(theta.dtype).eps * losses(theta).abs()
    for h, difference in differences(losses, theta):
        seen = 0.01 * torch.maximum(slopes.abs(), difference.abs()) + 1e-3 * slopes.abs().mean()
        wrong &= (slopes - difference).abs() > seen + rounding / h  # where a loss ends there is no difference
        if not wrong.any():
            return
    bad = wrong.nonzero().flatten()[:5].tolist()
    raise ValueError(f"the gradient is not the derivative of the loss of examples {bad}: {REPLACED}.")


def _bytes(losses: Losses, theta: Tensor, X: Tensor, y: Tensor) -> int:
    """What one more example adds to the graph of the gradient and its derivative: five times the graph of the loss."""

    def kept(count: int) -> int:
        sizes: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            losses(theta.detach().requires_grad_(True), X[:count], y[:count])
        return sum(sizes.values())

    try:
        return max(1, 5 * (kept(len(X)) - kept(1)) // max(1, len(X) - 1))
    except RuntimeError:  # a forward that differentiates allows no look into its graph
        return 2**20


def _tried(function: Callable[[], Tensor]) -> Tensor | None:
    """What it returns, or None if `torch.func` cannot do this with the module, for whatever reason."""
    try:
        return function()
    except Exception:
        return None


def direction(theta: Tensor) -> Tensor:
    """Of length 1, the same on every machine."""
    generator = torch.Generator().manual_seed(0)
    d = torch.randn(len(theta), generator=generator, dtype=torch.float64, device="cpu").to(theta)
    return d / d.norm()


def differences(function: Callable[[Tensor], Tensor], theta: Tensor) -> Iterator[tuple[float, Tensor]]:
    """Central differences of a function along `direction`, one for each of the `STEPS`, and how long the step was."""
    for step in STEPS:
        h = step * (1 + float(theta.norm()))
        ahead, behind = (function(theta + side * direction(theta)) for side in (h, -h))
        yield h, (ahead - behind) / (2 * h)


def _random_state(theta: Tensor) -> Tensor:
    return torch.cuda.get_rng_state(theta.device) if theta.is_cuda else torch.random.get_rng_state()


def _near(a: Tensor | None, b: Tensor, of: Tensor | None = None) -> bool:
    """Whether they agree to half of the digits of ``b``, or ``of``: rounding differs with the examples in a call."""
    tolerance = torch.finfo(b.dtype).eps ** 0.5 * (b if of is None else of).abs().max() + 1e-300
    return a is not None and bool(((a - b).abs() <= tolerance).all())


def _listed(values: Tensor) -> str:
    return "(" + ", ".join(f"{float(value):.4g}" for value in values[:3]) + ", ...)"
