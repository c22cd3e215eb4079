"""How well scores of training points predict what leaving out many of them does: the linear datamodeling score.

Scores that are right up to a positive factor put the groups in the right order:

>>> influence = torch.tensor([[-1.0, -2.0, 4.0, 8.0]])
>>> groups = [[0, 1], [0, 2], [1, 3], [2, 3]]  # effects 3, -3, -6 and -12
>>> print(linear_datamodeling_score(influence, groups, torch.tensor([[0.3, -0.3, -0.6, -1.2]])))
1.00 ± 0.00 over 4 groups
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .retraining import members_of, spearman


@dataclass(frozen=True)
class DatamodelingScore:
    """The result of `linear_datamodeling_score`.

    Attributes:
        score: the mean over the test points; 1 is a perfect order.
        error: its standard error for the draw of the groups, by the jackknife over them. It knows nothing of how the
            score changes with the seed of a training.
        each: the rank correlation of each test point, (n_test,).
        without: the score without each group in turn, (m,). Two methods that were judged by the same groups differ by
            ``score - other.score ± jackknife_error(without - other.without)``, often much less than their errors say.
    """

    score: float
    error: float
    each: Tensor
    without: Tensor

    def __str__(self) -> str:
        return f"{self.score:.2f} ± {self.error:.2f} over {len(self.without)} groups"


def jackknife_error(without: Tensor) -> Tensor:
    """The standard error of what was computed without each of ``m`` groups in turn, along the first axis of (m, …)."""
    m = len(without)
    return ((m - 1) / m * (without - without.mean(0)).square().sum(0)).sqrt()


def linear_datamodeling_score(influence: Tensor, groups: Sequence[Sequence[int]], actual: Tensor) -> DatamodelingScore:
    """Spearman's correlation, over the groups, of ``-Σ_{i in group} ℐ_i`` with what leaving the group out did
    (definition ``def-datamodeling``); the mean over the test points.

    A common factor or offset of the scores makes no difference, their sign does: with the book's, ``ℐ > 0`` where more
    weight raises the test loss.

    Args:
        influence: a score ``ℐ`` of each training point on each test point, (n_test, n).
        groups: the indices left out together, as for `leave_group_out`: ``m ≥ 4`` groups, all of one size.
        actual: the change of each test loss without each group, (n_test, m), as `actual_change` gives it. The loss
            itself does as well.

    Raises:
        ValueError: for shapes that do not fit, values that are not finite, fewer than four groups, groups of different
            sizes (then a sum of scores predicts neither convention of leaving out), and a test point for which all
            predictions or all changes are the same.
    """
    m = len(groups)
    if influence.ndim != 2 or actual.shape != (len(influence), m):
        raise ValueError(
            f"influence has shape {tuple(influence.shape)}, there are {m} groups, and actual has shape "
            f"{tuple(actual.shape)}: (n_test, n) and (n_test, m) were expected."
        )
    sizes = sorted({len(group) for group in groups})
    if m < 4 or len(sizes) > 1:
        raise ValueError(f"there are {m} groups, of {sizes} points: at least four are needed, all of one size.")
    members = members_of(groups, influence.shape[1])
    scores, changes = influence.detach().double().cpu(), actual.detach().double().cpu()
    if not bool(torch.isfinite(scores).all() and torch.isfinite(changes).all()):
        raise ValueError("some values are not finite: leave out the groups whose retraining found no minimum.")
    predicted = -torch.stack([scores[:, group].sum(1) for group in members], 1)
    each = spearman(predicted, changes)
    if bad := (~torch.isfinite(each)).nonzero().flatten().tolist():
        raise ValueError(f"all predictions or all changes are the same for test points {bad[:5]}: nothing to order.")
    others = ~torch.eye(m, dtype=torch.bool, device="cpu")
    without = torch.stack([spearman(predicted[:, rest], changes[:, rest]).mean() for rest in others])
    if not torch.isfinite(without).all():
        raise ValueError("without one of the groups nothing is left to order: give more groups.")
    return DatamodelingScore(float(each.mean()), float(jackknife_error(without)), each, without)
