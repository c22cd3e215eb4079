"""Leave points out and train again: what an influence is held against; and how well the two agree.

>>> leave_out_weights(3, [[0]], "mean")
tensor([[0.0000, 0.5000, 0.5000]], dtype=torch.float64)
>>> print(agreement(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 4.0, 6.0])))
r = 1.000, slope = 2.00, intercept = 0.0000, largest error = 3.0000
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.linalg import vecdot

from .certificate import check_minimum
from .curvature import HessianOperator
from .data import Data, check_tensor, check_weights
from .influences import Convention, are_rounding
from .optimum import Minima, minimise_many
from .risk import Risk


def leave_out_weights(
    n: int,
    groups: Sequence[Sequence[int]] | None = None,
    convention: Convention = "mean",
    *,
    weights: Tensor | None = None,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str | None = None,
) -> Tensor:
    """The weights of training without each group, (m, n): row ``k`` is 0 on ``groups[k]``.

    ``"zero"``: the others keep theirs (definition ``def-loo-zero`` of the book).
    ``"mean"``: the others grow in proportion, so that the sum stays (definition ``def-loo-mean``).

    Args:
        groups: the indices to leave out together; each point alone by default.
        weights: of training with all points (n,); ``1/n`` each by default.
        dtype, device: those of the result, where ``weights`` do not say.

    Raises:
        TypeError: for weights that are no tensor, and groups that are no lists of whole numbers.
        ValueError: for a group that is empty, repeats a point, has an index outside 0 … n-1 or leaves nothing to
            train on, for weights of another shape or not finite, and for an unknown convention.
    """
    if convention not in ("zero", "mean"):
        raise ValueError(f"convention is {convention!r}: it must be 'zero' or 'mean'.")
    groups = [[i] for i in range(n)] if groups is None else groups
    w = torch.full((n,), 1 / n, dtype=dtype, device=device or "cpu") if weights is None else check_weights(weights, n)
    w = w if w.is_floating_point() else w.to(dtype)
    W, total = w.repeat(len(groups), 1), w.sum()
    for k, members in enumerate(members_of(groups, n)):
        W[k, members] = 0.0
        if not bool(W[k].any()):
            raise ValueError(f"group {k} holds all {n} examples that have a weight: nothing is left to train on.")
        if convention == "mean" and weights is None:
            W[k, W[k] > 0] = 1 / (n - len(members))
        elif convention == "mean":
            if are_rounding(W[k].sum(), W[k]):
                raise ValueError(f"without group {k} the other weights cancel: they cannot grow in proportion.")
            W[k] *= total / W[k].sum()
    return W


def members_of(groups: Sequence[Sequence[int]], n: int) -> list[list[int]]:
    """The indices in each group; raises ValueError for an empty group, one twice, or one outside 0 … n-1, and
    TypeError for what is no group or no whole number."""
    try:
        members = [[operator.index(i) for i in group] for group in groups]
    except TypeError as error:
        raise TypeError(f"groups must be lists of whole numbers, such as [[0], [1, 2]]: {error}.") from error
    for k, group in enumerate(members):
        if not group or len(set(group)) < len(group) or not all(0 <= i < n for i in group):
            raise ValueError(f"group {k} is {group}: it needs at least one index, each once, from 0 to {n - 1}.")
    return members


def leave_one_out(risk: Risk, theta: Tensor, **options: Any) -> Minima:
    """Train ``n`` times, each time without one point: what the first order of `predicted_change` predicts.

    `leave_group_out` with each point alone; row ``i`` of the minima was trained without point ``i``.
    """
    return leave_group_out(risk, theta, None, **options)


@torch.inference_mode(False)
def leave_group_out(
    risk: Risk,
    theta: Tensor,
    groups: Sequence[Sequence[int]] | None,
    *,
    convention: Convention = "mean",
    weights: Tensor | None = None,
    start: Tensor | None = None,
    gtol: float | None = None,
    throw: bool = True,
    hessian: HessianOperator | None = None,
) -> Minima:
    """Train once without each group of points; row ``k`` of the certified minima was trained without ``groups[k]``.

    Every retraining starts from ``theta`` and is preconditioned by the Hessian there. The first step is then
    ``-H⁻¹∇R``: for ``"zero"`` and a single point it is ``H⁻¹g_i/n``, the influence function itself. Units of a network
    that are exactly alike at ``theta`` stay alike in a retraining from there, even where its minimum would have them
    differ. Then it ends at a saddle, and `NotAMinimum` says so: start beside ``theta``, with a little noise.

    Args:
        theta: the minimum of the risk (p,).
        groups: the indices of each group; each point alone for None.
        convention: ``"zero"`` or ``"mean"``; see `leave_out_weights`.
        weights: those of training (n,); ``1/n`` each by default.
        start: (p,) or (m, p). An initialisation here gives retraining from scratch, where neither ``theta`` nor its
            Hessian is used.
        gtol, throw: as in `minimise_many`.
        hessian: that at ``theta``, if it has been formed already.

    Raises:
        NotStationary: if ``theta`` is used and is not a minimum, as in `influence`.
        NotPositiveDefinite: if its Hessian is used and is not positive definite.
        NotConverged, NotAMinimum: naming the problems whose retraining failed.
    """
    theta = risk.check_theta(theta).detach()
    w = None if weights is None else risk.check_weights(weights, theta)
    W = leave_out_weights(risk.n, groups, convention, weights=w, dtype=theta.dtype, device=theta.device)
    if start is not None:
        return minimise_many(risk, W, start, gtol=gtol, throw=throw)
    near = hessian or HessianOperator(risk, theta, weights)
    check_minimum(near)
    return minimise_many(risk, W, theta, preconditioner=near, gtol=gtol, throw=throw)


@torch.inference_mode(False)
def actual_change(risk: Risk, theta: Tensor, retrained: Minima, test: Data) -> Tensor:
    """The change of each test loss, without L2, from the minimum ``theta`` to the ``m`` retrained ones, (n_test, m).

    Positive: the test loss rose without the group, so the group was helpful. Compare with `predicted_change`. NaN where
    no minimum was certified.
    """
    before = risk.losses(theta, test)
    after = torch.stack([risk.losses(each, test) for each in retrained.thetas], dim=1)
    return (after - before[:, None]).where(retrained.certified, torch.nan)


@dataclass(frozen=True)
class Agreement:
    """How well a prediction agrees with what happened. `r` alone sees neither a wrong scale nor an offset.

    Attributes:
        r: Pearson's correlation.
        slope, intercept: of the least-squares line ``actual = slope · predicted + intercept``; ideal 1 and 0.
        largest_error: ``max |predicted - actual|``, in the unit of the two.
    """

    r: float
    slope: float
    intercept: float
    largest_error: float

    def __str__(self) -> str:
        intercept = f"{self.intercept:.4f}".replace("-0.0000", "0.0000")
        line = f"r = {self.r:.3f}, slope = {self.slope:.2f}, intercept = {intercept}"
        return f"{line}, largest error = {self.largest_error:.4f}"


def agreement(predicted: Tensor, actual: Tensor) -> Agreement:
    """Compare two tensors of one shape entry by entry.

    Raises:
        TypeError: if one of them is no tensor.
        ValueError: for different shapes, fewer than three values, values that are not finite, or all the same (often
            of a model that ignores the parameters it is differentiated by).
    """
    x, y = _pairs(predicted, actual)
    r = correlation(x, y)
    slope = r * y.std() / x.std()
    intercept, largest_error = y.mean() - slope * x.mean(), (x - y).abs().max()
    return Agreement(float(r), float(slope), float(intercept), float(largest_error))


def rank_correlation(predicted: Tensor, actual: Tensor) -> float:
    """Spearman's correlation: Pearson's of the ranks, where equal values share one. Raises as `agreement`."""
    return float(spearman(*_pairs(predicted, actual)))


def correlation(x: Tensor, y: Tensor) -> Tensor:
    """Pearson's correlation of ``x`` and ``y`` (..., k), row by row, (...)."""
    x, y = (values - values.mean(-1, keepdim=True) for values in (x, y))
    return vecdot(x, y) / (x.norm(dim=-1) * y.norm(dim=-1))


def spearman(x: Tensor, y: Tensor) -> Tensor:
    """Pearson's correlation of the ranks, row by row; values that are equal up to rounding share a rank."""
    from scipy.stats import rankdata  # takes a while, and only who ranks needs it

    def ranks(values: Tensor) -> Tensor:
        unit = 1e-12 * values.abs().amax(-1, keepdim=True)
        return torch.from_numpy(rankdata(torch.where(unit > 0, (values / unit).round(), values).numpy(), axis=-1))

    return correlation(ranks(x), ranks(y))


def _pairs(predicted: Tensor, actual: Tensor) -> tuple[Tensor, Tensor]:
    check_tensor("predicted", predicted)
    check_tensor("actual", actual)
    if predicted.shape != actual.shape or predicted.numel() < 3:
        raise ValueError(
            f"predicted has shape {tuple(predicted.shape)} and actual {tuple(actual.shape)}: "
            "they need the same shape and at least three values."
        )
    x, y = (values.detach().flatten().double().cpu() for values in (predicted, actual))
    if not bool(torch.isfinite(torch.stack([x, y])).all()):
        raise ValueError("some values are not finite: leave out the points whose retraining found no minimum.")
    if not all((values - values.mean()).norm() > 1e-12 * values.norm() for values in (x, y)):
        raise ValueError(
            "all predicted (or all actual) values are the same: there is nothing to correlate "
            "(or their squares are no longer numbers: choose another unit)."
        )
    return x, y
