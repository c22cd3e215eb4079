"""Leave points out and train again: what an influence is held against."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from helpers.curvature import HessianOperator
from helpers.data import Data
from helpers.influence import Convention
from helpers.optimum import Certificates, check_stationary, minimise_many
from helpers.risk import Risk


def leave_out_weights(
    n: int,
    groups: Sequence[Sequence[int]] | None = None,
    convention: Convention = "mean",
    *,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str | None = None,
) -> Tensor:
    """The weights of training without each group: row ``k`` is 0 on ``groups[k]`` and equal on the other points.

    ``"zero"``: the others keep ``1/n`` (definition ``def-loo-zero`` of the book).
    ``"mean"``: the others get ``1/(n - |group|)``, so that they sum to 1 (definition ``def-loo-mean``).

    Args:
        n: the number of training examples.
        groups: the indices to leave out together; each point alone by default.
        convention: see above.
        dtype, device: those of the risk's data.

    Returns:
        shape (m, n), with ``m = len(groups)``.

    Raises:
        ValueError: for a group that is empty, repeats a point, has an index outside 0 … n-1 or leaves nothing to
            train on, and for an unknown convention.
    """
    if convention not in ("zero", "mean"):
        raise ValueError(f"convention is {convention!r}: it must be 'zero' or 'mean'.")
    groups = [[i] for i in range(n)] if groups is None else groups
    W = torch.full((len(groups), n), 1 / n, dtype=dtype, device=device)
    for k, group in enumerate(groups):
        members = [int(i) for i in group]
        if not members or len(set(members)) < len(members) or not all(0 <= i < n for i in members):
            raise ValueError(f"group {k} is {members}: it needs at least one index, each once, from 0 to {n - 1}.")
        if len(members) == n:
            raise ValueError(f"group {k} holds all {n} training examples: nothing is left to train on.")
        if convention == "mean":
            W[k] = 1 / (n - len(members))
        W[k, members] = 0.0
    return W


def leave_one_out(
    risk: Risk,
    theta: Tensor,
    *,
    convention: Convention = "mean",
    start: Tensor | None = None,
    gtol: float = 1e-9,
) -> Certificates:
    """Train ``n`` times, each time without one point. What the first order of `predicted_change` predicts.

    Every retraining starts from ``theta`` and is preconditioned by the Hessian there. The first step is then
    ``-H⁻¹∇R``: for ``"zero"`` it is ``H⁻¹g_i/n``, the influence function itself. The remaining steps do the rest.

    Args:
        risk: what was minimised, with weights ``1/n``.
        theta: its minimum (p,).
        convention: ``"zero"`` or ``"mean"``; see `leave_out_weights`.
        start: (p,) or (n, p). An initialisation here gives retraining from scratch, where neither ``theta`` nor its
            Hessian is used.
        gtol: how small every gradient must become.

    Returns:
        the ``n`` minima, certified; row ``i`` was trained without point ``i``.

    Raises:
        NotStationary: if ``theta`` is used and is not a stationary point.
        NotPositiveDefinite: if its Hessian is used and is not positive definite.
        NotConverged, NotAMinimum: naming the points whose retraining failed.
    """
    return leave_group_out(risk, theta, None, convention=convention, start=start, gtol=gtol)


def leave_group_out(
    risk: Risk,
    theta: Tensor,
    groups: Sequence[Sequence[int]] | None,
    *,
    convention: Convention = "mean",
    start: Tensor | None = None,
    gtol: float = 1e-9,
) -> Certificates:
    """Train once without each group of points, as `leave_one_out`; row ``k`` was trained without ``groups[k]``.

    Units of a network that are exactly alike at ``theta`` have equal gradients, so they stay alike in a retraining from
    there, even where its minimum would have them differ. Then it ends at a saddle, and `NotAMinimum` says so: start
    beside ``theta``, with a little noise.
    """
    X = risk.data.X
    W = leave_out_weights(risk.n, groups, convention, dtype=theta.dtype, device=X.device)
    if start is not None:
        return minimise_many(risk, W, start, gtol=gtol)
    check_stationary(risk, theta, gtol=1e-6)
    return minimise_many(risk, W, theta, preconditioner=HessianOperator(risk, theta).dense(), gtol=gtol)


def actual_change(risk: Risk, theta: Tensor, retrained: Certificates, test: Data) -> Tensor:
    """The change of each test loss on retraining, loss after minus loss before, shape (n_test, m).

    Positive: the test loss rose without the group, so the group was helpful. Compare with `predicted_change`.

    Args:
        risk: its model and loss are used, its L2 is not.
        theta: the minimum before (p,).
        retrained: the ``m`` minima after.
        test: the test examples.
    """
    before = risk.losses(theta, test)
    after = torch.stack([risk.losses(each, test) for each in retrained.thetas], dim=1)
    return after - before[:, None]
