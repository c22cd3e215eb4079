"""Can these influences be trusted? Diagnostics at the minimum, a few retrainings, and a verdict in words.

In ridge regression a point's leverage is ``φᵀH⁻¹φ/n``; for a mean of three without L2 it is 1/3:

>>> import torch
>>> from helpers import SQUARED_ERROR, Data, Risk, flatten
>>> one = torch.ones(3, 1).double()
>>> risk = Risk(flatten(torch.nn.Linear(1, 1, bias=False))[0], Data(one, one[:, 0] * torch.arange(3)), SQUARED_ERROR)
>>> leverage(risk, torch.tensor([1.0]).double())  # the point in the middle has no gradient
tensor([0.3333, 0.0000, 0.3333], dtype=torch.float64)
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from textwrap import wrap
from typing import Literal

import torch
from torch import Tensor

from .curvature import HessianOperator, cholesky_solve
from .data import Data
from .influences import Convention, predicted_change
from .optimum import BROUGHT, is_minimum
from .retraining import Agreement, actual_change, agreement, leave_group_out, rank_correlation
from .risk import Risk

#: With ``"trust"`` the order holds and, up to the slope, the size. ``"with care"`` asks to retrain for the numbers that
#: you report. With ``"do not trust"`` there is no minimum, or the numbers are wrong where they are large.
Verdict = Literal["trust", "with care", "do not trust"]
_VERDICTS: tuple[Verdict, ...] = ("trust", "with care", "do not trust")

# Rules of thumb, calibrated on the book's problem (chapter 15 shows how): from where on a number is a warning.
LEVERAGE = 0.5  # the first order halves what 1/(1-h) says
SENSITIVITY = 0.5  # half of the influence hangs on the softest direction
MOVE = 0.5  # the parameters would move by half of their length
R_TRUST, R_CARE = 0.95, 0.8
SLOPE = 1.5  # 1/1.5 to 1.5


@dataclass(frozen=True)
class Finding:
    """One line of an audit: what was looked at, the numbers in words, the best verdict that they allow, and what to do
    about it (empty where nothing is to be done)."""

    name: str
    found: str
    verdict: Verdict
    remedy: str = ""


@dataclass(frozen=True)
class Audit:
    """What `audit` found; ``print`` it for the report. What could not be computed at such a point is None.

    Attributes:
        findings: one for each check, in the order of the report.
        verdict: the worst of them.
        gradient_norm: ``‖∇R‖`` at theta.
        smallest_eigenvalue, condition_number: of the Hessian there.
        leverage: of each training point (n,), see `leverage`.
        sensitivity: of the influences to damping, see `damping_sensitivity`.
        longest_move: the largest first-order move of the parameters on leaving one point out, as a part of ``‖θ‖``.
        points: the training points that were left out and trained again.
        predicted, actual: the changes of the test losses without each of them (n_test, len(points)); NaN in the
            columns of `failed`.
        agreement: between these two.
        rank: their rank correlation.
        failed: those of the points whose retraining found no minimum.
    """

    findings: tuple[Finding, ...]
    gradient_norm: float
    smallest_eigenvalue: float
    condition_number: float
    leverage: Tensor | None = None
    sensitivity: float | None = None
    longest_move: float | None = None
    points: tuple[int, ...] = ()
    predicted: Tensor | None = None
    actual: Tensor | None = None
    agreement: Agreement | None = None
    rank: float | None = None
    failed: tuple[int, ...] = ()

    @property
    def verdict(self) -> Verdict:
        return max((finding.verdict for finding in self.findings), key=_VERDICTS.index)

    def __str__(self) -> str:
        marks = dict(zip(_VERDICTS, ("ok", "care", "NO"), strict=True))
        lines = [f"{marks[each.verdict]:5}{each.name:20}{each.found}" for each in self.findings]
        lines.append(f"verdict: {self.verdict.upper()}")
        for each in self.findings:
            if each.remedy:
                lines += wrap(f"{each.name}: {each.remedy}", 76, initial_indent="  ", subsequent_indent="    ")
        return "\n".join(lines)


@torch.inference_mode(False)
def audit(
    risk: Risk,
    theta: Tensor,
    test: Data,
    *,
    retrain: int = 10,
    convention: Convention = "mean",
    weights: Tensor | None = None,
    gtol: float | None = None,
    seed: int = 0,
) -> Audit:
    """Whether the influences on the losses of ``test`` can be trusted at ``theta`` (p,), where training ended, and why.

    It looks at what the theorem needs (a stationary point, a positive definite Hessian), at what a step of finite size
    needs (leverage, damping sensitivity, the length of the moves), and then leaves ``retrain`` points out and trains
    again: four in ten have the largest predicted change of a test loss, two in ten the highest leverage, and two in ten
    move the parameters furthest; the rest is drawn at random. A theta that fails the first two tests is reported, not
    refused. The whole Hessian is formed, once: for up to a few thousand parameters.

    Args:
        retrain: how many points to leave out, each by a retraining from ``theta``; from 3 to n.
        convention: what leaving out means; see `predicted_change`.
        weights: those of training (n,); ``1/n`` each by default.
        gtol: how large ``‖∇R‖`` may be against `Risk.scale`, as in `influence`.

    Raises:
        ValueError: for a number of retrainings outside 3 … n.
        TypeError, ValueError: for a theta, data or labels that do not fit the risk.
    """
    if not 3 <= retrain <= risk.n:
        raise ValueError(f"retrain = {retrain}: choose from 3 points, to see a line, to all n = {risk.n}.")
    H = HessianOperator(risk, theta.detach(), weights)
    theta, w = H.theta, H.weights
    d = torch.linalg.eigvalsh(H.matrix)
    smallest, condition = float(d[0]), float(d.abs().max() / d.abs().min())
    findings = _at_the_point(H, d, condition, BROUGHT[theta.dtype] if gtol is None else gtol)
    if any(finding.verdict != "trust" for finding in findings):
        return Audit(findings, H.gradient_norm, smallest, condition)

    G, G_test = risk.gradients(theta), risk.gradients(theta, test)
    solved, solved_test = torch.cholesky_solve(G.T, H.factor).T, torch.cholesky_solve(G_test.T, H.factor).T
    predicted = predicted_change(-solved_test @ G.T, convention, w)  # (n_test, n)
    moves = predicted_change(-solved.T, convention, w)  # (p, n): dθ̂/dw · Δw
    h = _leverage(H, w[:, None] * solved)
    sensitivity = _sensitivity(smallest, solved, solved_test, G_test)
    lengths = moves.norm(dim=0) / theta.norm().clamp(min=torch.finfo(theta.dtype).tiny)
    points = _chosen(predicted, h, lengths, retrain, seed)
    retrained = leave_group_out(
        risk, theta, [[i] for i in points], convention=convention, weights=weights, throw=False, hessian=H
    )
    predicted, actual = predicted[:, points], actual_change(risk, theta, retrained, test)
    good = retrained.certified
    failed = tuple(point for point, found in zip(points, good.tolist(), strict=True) if not found)
    line = rank = None
    with contextlib.suppress(ValueError):  # too few of them, or all the same
        line = agreement(predicted[:, good], actual[:, good])
        rank = rank_correlation(predicted[:, good], actual[:, good])
    highest, longest = float(h.max()), float(lengths.max())
    findings += (
        _finding(highest <= LEVERAGE, "leverage", f"up to {highest:.2f}, point {int(h.argmax())}",
                 f"a point with h above {LEVERAGE} holds itself in place: no tangent tells how far its removal goes"),
        _finding(sensitivity <= SENSITIVITY, "damping", f"sensitivity {sensitivity:.2f}",
                 "the influences hang on the softest direction: raise the L2 strength and train again"),
        _finding(longest <= MOVE, "longest move",
                 f"{longest:.2f} of the parameters' length, point {int(lengths.argmax())}",
                 "no tangent reaches so far: retrain without this point"),
        _of_retrainings(line, rank, len(points), failed, saturated=not bool(G_test.any())),
    )  # fmt: skip
    return Audit(
        findings, H.gradient_norm, smallest, condition, h, sensitivity, longest, points, predicted, actual, line, rank,
        failed,
    )  # fmt: skip


@torch.inference_mode(False)
def leverage(risk: Risk, theta: Tensor, weights: Tensor | None = None) -> Tensor:
    """How much of the stiffness against its own removal each training point contributes itself, (n,).

    With ``m = w_i H⁻¹g_i``, the first-order move of the parameters without the point, ``J`` the Jacobian of the model's
    outputs there and ``∇²_f ℓ`` the curvature of the loss in these outputs (equation ``def-leverage``)::

        h_i = w_i (Jm)ᵀ ∇²_f ℓ (Jm) / (mᵀHm)

    For ridge regression it is the leverage ``φᵀH⁻¹φ/n``, and the true move is ``m/(1 - h)``; for one output it is
    ``ℓ'' ∇fᵀH⁻¹∇f/n`` (``def-logistic-leverage``). Not negative where the loss is convex in the outputs; 0 for a point
    without a gradient.

    Raises:
        NotPositiveDefinite: with the smallest eigenvalue, if ``H`` is not positive definite.
    """
    H = HessianOperator(risk, theta, weights)
    return _leverage(H, H.weights[:, None] * torch.cholesky_solve(risk.gradients(theta).T, H.factor).T)


def _leverage(H: HessianOperator, moves: Tensor) -> Tensor:
    own = H.weights * H.risk.gauss_newton_curvatures(H.theta, moves)
    all_points = (moves @ H.factor).square().sum(1)  # mᵀLLᵀm
    return torch.where(all_points > 0, own / all_points, torch.zeros_like(own))


def damping_sensitivity(H: Tensor, G: Tensor, G_test: Tensor) -> float:
    """By how many per cent the influences change if ``H`` is damped by one per cent of its smallest eigenvalue.

    ``d_min ‖G_test H⁻² Gᵀ‖ / ‖G_test H⁻¹ Gᵀ‖`` (equation ``def-sensitivity``): 1 where all of the influence passes
    through the softest direction, near 0 where none does.

    Raises:
        NotPositiveDefinite: with the smallest eigenvalue, if ``H`` is not positive definite.
    """
    solved, solved_test = cholesky_solve(H, G.T).T, cholesky_solve(H, G_test.T).T
    return _sensitivity(float(torch.linalg.eigvalsh(H)[0]), solved, solved_test, G_test)


def _sensitivity(smallest: float, solved: Tensor, solved_test: Tensor, G_test: Tensor) -> float:
    influence = (G_test @ solved.T).norm()
    return float(smallest * (solved_test @ solved.T).norm() / influence) if influence > 0 else 0.0


def _chosen(predicted: Tensor, h: Tensor, lengths: Tensor, count: int, seed: int) -> tuple[int, ...]:
    """The points to leave out: the strongest, the best levers, the longest moves, and some by chance."""
    orders = []
    for scores in (predicted.abs().amax(0), h, lengths):
        # Scores that differ by rounding only are equal, so that the same points are chosen on every machine.
        rounded = (1e9 * scores / scores.max().clamp(min=torch.finfo(scores.dtype).tiny)).round()
        orders.append(rounded.argsort(descending=True, stable=True).tolist())
    orders.append(torch.randperm(len(h), generator=torch.Generator().manual_seed(seed), device="cpu").tolist())
    chosen: dict[int, None] = {}
    for order, tenths in zip(orders, (4, 6, 8, 10), strict=True):
        for point in order:
            if 10 * len(chosen) >= tenths * count:
                break
            chosen.setdefault(point)
    return tuple(chosen)


def _finding(good: bool, name: str, found: str, remedy: str, verdict: Verdict = "with care") -> Finding:
    """What is found: trust where it is good, and else this verdict, with the remedy."""
    return Finding(name, found, "trust") if good else Finding(name, found, verdict, remedy)


def _at_the_point(H: HessianOperator, d: Tensor, condition: float, gtol: float) -> tuple[Finding, ...]:
    """What the theorem needs: no gradient, and only positive eigenvalues ``d``."""
    norm, scale = H.gradient_norm, H.risk.scale(H.theta, H.weights)
    stationary, minimum = norm <= gtol * scale, bool(is_minimum(H.theta, 0.0, d))
    gradient = f"at most {gtol:.0e} of its scale" if stationary else f"{norm:.1e}, more than {gtol:.0e} of its scale"
    curvature = f"condition number {condition:.0f}" if minimum else f"{int((d < 0).sum())} of {len(d)} negative"
    return (
        _finding(stationary, "stationary", f"gradient norm {gradient}" + ("" if stationary else f" {scale:.1e}"),
                 "train on to a minimum, minimise(risk, theta), and see that the risk is what was trained",
                 "do not trust"),
        _finding(minimum, "positive definite", f"smallest eigenvalue {float(d[0]):.2g}, {curvature}",
                 "no minimum: train on, start elsewhere, raise the L2, or see fix_gauge", "do not trust"),
    )  # fmt: skip


def _of_retrainings(
    line: Agreement | None, rank: float | None, count: int, failed: tuple[int, ...], saturated: bool
) -> Finding:
    lost = f"; no minimum without {', '.join(map(str, failed))}" if failed else ""
    verdict: Verdict = "do not trust"
    if saturated:
        found = "the test losses have no gradient (saturated): nothing is predicted"
        remedy = "choose test points whose losses can change"
    elif line is None or rank is None:
        found, remedy = f"too few of them found a minimum{lost}", "raise the L2 strength"
    else:
        found = f"r = {line.r:.2f}, slope = {line.slope:.2f}, rank {rank:.2f}{lost}"
        remedy = "the numbers are wrong where they are large; at most, let them choose what to retrain, or raise the L2"
        if line.r >= R_CARE and line.slope > 0:
            verdict, remedy = "with care", "retrain for the numbers that you report"
            if line.r >= R_TRUST and 1 / SLOPE <= line.slope <= SLOPE and not failed:
                verdict, remedy = "trust", ""
    return Finding(f"{count} retrainings", found, verdict, remedy)
