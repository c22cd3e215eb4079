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
from itertools import pairwise
from textwrap import wrap
from typing import Literal

import torch
from torch import Tensor

from .certificate import BROUGHT, bound, check_minimum, is_minimum
from .curvature import HessianOperator, cholesky_solve
from .data import Data
from .influences import Convention, gradients_of_tests, predicted_change
from .optimum import _NUMBERS_AT_ONCE, minimise_many
from .retraining import Agreement, actual_change, agreement, leave_out_weights, rank_correlation
from .risk import Risk

#: With ``"trust"`` the order holds and, up to the slope, the size. ``"with care"`` asks to retrain for the numbers that
#: you report of the points that it names. With ``"do not trust"`` there is no minimum, or the numbers are wrong where
#: they are large.
Verdict = Literal["trust", "with care", "do not trust"]
_VERDICTS: tuple[Verdict, ...] = ("trust", "with care", "do not trust")

# Rules of thumb, calibrated on the book's problem (chapter 15 shows how): from where on a number is a warning.
SECOND_ORDER = 0.1  # of the first: up to there, no prediction of chapter 15 is off by more than a quarter of itself
SENSITIVITY = 0.5  # half of the influence hangs on the softest direction
MOVE = 0.5  # the parameters would move by half of their length
OFF = 0.5  # what a retraining finds differs from the prediction by half of it
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
        value: ``R(θ)``. No check sees a factor in the risk; whoever trained the model knows what its loss was.
        gradient_norm: ``‖∇R‖`` at theta.
        smallest_eigenvalue, condition_number: of the Hessian there.
        second_order: what the second order adds to `predicted_change` of each test loss, for each point (n_test, n).
        announced: its size over that of the first order, for each point (n,): about the error of the first order in
            parts of itself, up to a tenth; beyond, as a rule, less than it.
        lowest: the smallest eigenvalue that ``H`` has without each point, to first order (n,), ``d + d'``.
        leverage: of each training point (n,), see `leverage`.
        sensitivity: of the influences to damping, see `damping_sensitivity`.
        longest_move: the largest first-order move of the parameters on leaving one point out, as a part of ``‖θ‖``.
        points: the training points that were left out and trained again.
        predicted, actual: the changes of the test losses without each of them (n_test, len(points)); NaN in the
            columns of `failed`.
        agreement: between these two.
        rank: their rank correlation.
        off: for each of the points, ``‖actual - predicted‖ / ‖predicted‖`` over the test losses (len(points),).
        failed: those of the points whose retraining found no minimum.
    """

    findings: tuple[Finding, ...]
    value: float
    gradient_norm: float
    smallest_eigenvalue: float
    condition_number: float
    second_order: Tensor | None = None
    announced: Tensor | None = None
    lowest: Tensor | None = None
    leverage: Tensor | None = None
    sensitivity: float | None = None
    longest_move: float | None = None
    points: tuple[int, ...] = ()
    predicted: Tensor | None = None
    actual: Tensor | None = None
    agreement: Agreement | None = None
    rank: float | None = None
    off: Tensor | None = None
    failed: tuple[int, ...] = ()

    @property
    def verdict(self) -> Verdict:
        return max((finding.verdict for finding in self.findings), key=_VERDICTS.index)

    def __str__(self) -> str:
        marks = dict(zip(_VERDICTS, ("ok", "care", "NO"), strict=True))
        lines = [f"?    the risk            R = {self.value:.4g} here, as in your training? No line sees a factor"]
        lines += [f"{marks[each.verdict]:5}{each.name:20}{each.found}" for each in self.findings]
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

    It looks at what the theorem needs (a stationary point, a positive definite Hessian) and at what a step of finite
    size needs (the second order, the smallest eigenvalue on the way, leverage, damping, the length of the moves). Then
    it leaves ``retrain`` points out and trains again: four in ten have the largest predicted change of a test loss, two
    in ten the largest second order, one the lowest eigenvalue, one the longest move; the rest is drawn at random. A
    theta that fails the first two tests is reported, not refused. The whole Hessian is formed, once, and for each
    training point two gradients of the risk: for up to a few thousand parameters and examples.

    Args:
        retrain: how many points to leave out, each by a retraining from ``theta``; from 3 to n.
        convention: what leaving out means; see `predicted_change`.
        weights: those of training (n,); ``1/n`` each by default.
        gtol: how large ``‖∇R‖`` may be against `HessianOperator.scale`, as in `influence`.

    Raises:
        ValueError: for a number of retrainings outside 3 … n.
        TypeError, ValueError: for a theta, data or labels that do not fit the risk.
    """
    if not 3 <= retrain <= risk.n:
        raise ValueError(f"retrain = {retrain}: choose from 3 points, to see a line, to all n = {risk.n}.")
    H = HessianOperator(risk, theta.detach(), weights)
    theta, w = H.theta, H.weights
    d, Q = H.eigen
    at_theta = float(risk.value(theta, w)), H.gradient_norm, float(d[0]), float(d.abs().max() / d.abs().min())
    findings = _at_the_point(H, d, at_theta[3], bound(gtol, BROUGHT[theta.dtype]))
    if any(finding.verdict != "trust" for finding in findings):
        return Audit(findings, *at_theta)

    G, G_test = risk.gradients(theta), gradients_of_tests(risk, theta, test)
    solved, solved_test = torch.cholesky_solve(G.T, H.factor).T, torch.cholesky_solve(G_test.T, H.factor).T
    predicted = predicted_change(-solved_test @ G.T, convention, w)  # (n_test, n)
    moves = predicted_change(-solved.T, convention, w).T  # (n, p): dθ̂/dw · Δw
    second = _second_order(H, moves, solved_test, test, convention)
    announced, lowest = _over(second.norm(dim=0), predicted.norm(dim=0)), d[0] + _fall(H, moves, Q[:, 0], convention)
    h = _leverage(H, w[:, None] * solved)
    sensitivity = _sensitivity(at_theta[2], solved, solved_test, G_test)
    lengths = (moves.norm(dim=1) / theta.norm()).nan_to_num(0.0, torch.inf)  # of a theta of zeros
    points = _chosen((predicted.abs().amax(0), announced, -lowest, lengths), retrain, seed)
    # Not `leave_group_out`, which has a bound of its own for theta; that of the audit is checked above.
    W = leave_out_weights(risk.n, [[i] for i in points], convention, weights=w)
    retrained = minimise_many(risk, W, theta, preconditioner=H, throw=False)
    predicted, actual = predicted[:, points], actual_change(risk, theta, retrained, test)
    off = _over((actual - predicted).norm(dim=0), predicted.norm(dim=0))
    failed = tuple(point for point, found in zip(points, retrained.certified.tolist(), strict=True) if not found)
    line = rank = None
    with contextlib.suppress(ValueError):  # too few of them, or all the same
        good = predicted[:, retrained.certified], actual[:, retrained.certified]
        line, rank = agreement(*good), rank_correlation(*good)
    findings += (*_of_a_step(announced, lowest, h, sensitivity, lengths),
                 _of_retrainings(line, rank, points, off, failed, saturated=not bool(G_test.any())))  # fmt: skip
    return Audit(
        findings, *at_theta, second, announced, lowest, h, sensitivity, float(lengths.max()), points, predicted, actual,
        line, rank, off, failed,
    )  # fmt: skip


def _second_order(H: HessianOperator, moves: Tensor, solved_test: Tensor, test: Data, convention: Convention) -> Tensor:
    """``½ℓ''`` of each test loss as each point is left out (n_test, n).

    A little to both sides on the tangent, at ``θ ± sθ'`` with weights ``w ± sv``: the even part of ``∇R`` is the force
    that the first order overlooks (equation ``eq-overlooked-force``).
    """
    risk, theta, w = H.risk, H.theta, H.weights
    s = torch.finfo(theta.dtype).eps ** (1 / 6)  # a difference of second order keeps two thirds of the digits
    at_theta, bends = risk.losses(theta, test)[:, None], []
    at_rest = 2 * H.gradient  # not quite zero
    together = max(1, _NUMBERS_AT_ONCE // (risk.n * max(len(theta), 64)))  # the weights alone are n numbers a point
    for points in torch.arange(risk.n, device="cpu").split(together):
        v = leave_out_weights(risk.n, points[:, None].tolist(), convention, weights=w) - w
        force, curved = -at_rest.expand_as(moves[points]), -2 * at_theta
        for t in (s, -s):
            thetas, W = theta + t * moves[points], w + t * v
            force = force + risk.values_and_gradients(thetas, W)[1]
            curved = curved + torch.stack([risk.losses(each, test) for each in thetas], dim=1)
        bends.append((curved - solved_test @ force.T) / (2 * s**2))
    return torch.cat(bends, dim=1)


def _fall(H: HessianOperator, moves: Tensor, q: Tensor, convention: Convention) -> Tensor:
    """``d'`` of the eigenvector ``q`` (p,) as each point is left out (n,), equation ``eq-fall``.

    ``∇³R[q, q]``, by gradients that serve all points, along each move; and each loss's ``qᵀ∇²ℓq`` with the weights that
    change.
    """
    risk, theta, w = H.risk, H.theta, H.weights

    def by_step(h: float) -> Tensor:
        ahead, behind = theta + h * q, theta - h * q
        bend = (risk.gradient(ahead, w) - 2 * H.gradient + risk.gradient(behind, w)) / h**2
        curvatures = (risk.slopes(ahead, q[None]) - risk.slopes(behind, q[None])) / (2 * h)
        return moves @ bend + predicted_change(curvatures, convention, w)[0]

    # Too long a step bends on, too short a one is rounding: taken is that with which the result changes least.
    longest = float(torch.finfo(theta.dtype).eps ** (1 / 6) * (1 + (q * theta).norm()))
    falls = [by_step(longest / 4**k) for k in range(6)]
    changes = [float((shorter - longer).norm()) for longer, shorter in pairwise(falls)]
    return falls[changes.index(min(changes)) + 1]


def _over(a: Tensor, b: Tensor) -> Tensor:
    """``a / b``, and 0 where ``b`` is 0."""
    return torch.where(b > 0, a / b, torch.zeros_like(a))


@torch.inference_mode(False)
def leverage(risk: Risk, theta: Tensor, weights: Tensor | None = None) -> Tensor:
    """The Gauss–Newton part of each training point in the stiffness against its own removal, as a share, (n,).

    With ``m = w_i H⁻¹g_i``, the first-order move of the parameters without the point, ``J`` the Jacobian of the model's
    outputs there and ``∇²_f ℓ`` the curvature of the loss in these outputs (equation ``def-leverage``)::

        h_i = w_i (Jm)ᵀ ∇²_f ℓ (Jm) / (mᵀHm)

    For ridge regression it is the leverage ``φᵀH⁻¹φ/n``, and the true move is ``m/(1 - h)``; for one output it is
    ``ℓ'' ∇fᵀH⁻¹∇f/n`` (``def-logistic-leverage``). Not negative where the loss is convex in the outputs; 0 for a point
    without a gradient. Above 1 where ``H`` without this part is negative along ``m``: then it is no share.

    Raises:
        NotStationary: if ``theta`` is no minimum with these weights, as in `influence`.
        NotPositiveDefinite: with the smallest eigenvalue, if ``H`` is not positive definite.
    """
    H = HessianOperator(risk, theta, weights)
    check_minimum(H)
    return _leverage(H, H.weights[:, None] * torch.cholesky_solve(risk.gradients(theta).T, H.factor).T)


def _leverage(H: HessianOperator, moves: Tensor) -> Tensor:
    own = H.weights * H.risk.gauss_newton_curvatures(H.theta, moves)
    return _over(own, (moves @ H.factor).square().sum(1))  # mᵀLLᵀm


def damping_sensitivity(H: Tensor, G: Tensor, G_test: Tensor) -> float:
    """By how many per cent the influences change if ``H`` is damped by one per cent of its smallest eigenvalue.

    ``d_min ‖G_test H⁻² Gᵀ‖ / ‖G_test H⁻¹ Gᵀ‖`` (equation ``def-sensitivity``): 1 where all of the influence passes
    through the softest direction, near 0 where what it passes through is much stiffer.

    Raises:
        NotPositiveDefinite: with the smallest eigenvalue, if ``H`` is not positive definite.
    """
    solved, solved_test = cholesky_solve(H, G.T).T, cholesky_solve(H, G_test.T).T
    return _sensitivity(float(torch.linalg.eigvalsh(H)[0]), solved, solved_test, G_test)


def _sensitivity(smallest: float, solved: Tensor, solved_test: Tensor, G_test: Tensor) -> float:
    influence = (G_test @ solved.T).norm()
    return float(smallest * (solved_test @ solved.T).norm() / influence) if influence > 0 else 0.0


def _chosen(scores: tuple[Tensor, ...], count: int, seed: int) -> tuple[int, ...]:
    """The points to leave out: the strongest, the most bent, the lowest, the longest move, and some by chance."""
    orders = []
    for each in scores:
        # Scores that differ by rounding only are equal, so that the same points are chosen on every machine.
        rounded = (1e9 * each / each.abs().max().clamp(min=torch.finfo(each.dtype).tiny)).round()
        orders.append(rounded.argsort(descending=True, stable=True).tolist())
    n = len(scores[0])
    orders.append(torch.randperm(n, generator=torch.Generator().manual_seed(seed), device="cpu").tolist())
    chosen: dict[int, None] = {}
    for order, tenths in zip(orders, (4, 6, 7, 8, 10), strict=True):
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
    norm, scale = H.gradient_norm, H.scale
    stationary, minimum = norm <= gtol * scale, bool(is_minimum(H.theta, 0.0, d))
    gradient = f"at most {gtol:.0e} of its scale" if stationary else f"{norm:.1e}, more than {gtol:.0e} of its scale"
    curvature = f"condition number {condition:.0f}" if minimum else f"{int((d < 0).sum())} of {len(d)} negative"
    remedy = "no minimum: train on, start elsewhere, raise the L2, or see fix_gauge"
    if not minimum and H.curves_up and H.is_stiff:
        remedy = "its units hide the rest: bring the inputs to one scale"
    return (
        _finding(stationary, "stationary", f"gradient norm {gradient}" + ("" if stationary else f" {scale:.1e}"),
                 "train on to a minimum, minimise(risk, theta), and see that the risk is what was trained",
                 "do not trust"),
        _finding(minimum, "positive definite", f"smallest eigenvalue {float(d[0]):.2g}, {curvature}",
                 remedy, "do not trust"),
    )  # fmt: skip


def _of_a_step(
    announced: Tensor, lowest: Tensor, h: Tensor, sensitivity: float, lengths: Tensor
) -> tuple[Finding, ...]:
    """What a step of finite size needs, as far as ``theta`` can tell."""
    bent, low = int((announced > SECOND_ORDER).sum()), (lowest < 0).nonzero().flatten().tolist()
    first, share, longest = (f"up to {float(x.max()):.2f}, point {int(x.argmax())}" for x in (announced, h, lengths))
    no_share = ": above 1, no share (without it, H curves down there)" if h.max() > 1 else ""
    return (
        _finding(not bent, "second order", f"{first}; above {SECOND_ORDER} for {bent} of {len(h)} points",
                 "announced is about how much of itself each is off, and some far more: retrain, or add second_order"),
        _finding(not low, "on the way", f"smallest eigenvalue down to {float(lowest.min()):.2g}, "
                 f"point {int(lowest.argmin())}",
                 f"no series sees past a singular Hessian: retrain without {', '.join(map(str, low[:8]))}"),
        _finding(not no_share, "leverage", share + no_share, "no tangent tells how far such a removal goes"),
        _finding(sensitivity <= SENSITIVITY, "damping", f"sensitivity {sensitivity:.2f}",
                 "the influences hang on the softest direction: raise the L2 strength and train again"),
        _finding(bool(lengths.max() <= MOVE), "longest move", f"{longest}, of the parameters' length",
                 "no tangent reaches so far: retrain without this point"),
    )  # fmt: skip


def _of_retrainings(
    line: Agreement | None,
    rank: float | None,
    points: tuple[int, ...],
    off: Tensor,
    failed: tuple[int, ...],
    saturated: bool,
) -> Finding:
    lost = f"; no minimum found without {', '.join(map(str, failed))}" if failed else ""
    verdict: Verdict = "do not trust"
    if saturated:
        found = "the test losses have no gradient (saturated): nothing is predicted"
        remedy = "choose test points whose losses can change"
    elif line is None or rank is None:
        found, remedy = f"too few of them found a minimum{lost}", "raise the L2 strength"
        if not failed:
            found, remedy = "all predictions, or all changes, are alike: nothing to compare", "choose other test points"
    else:
        worst = int(off.nan_to_num().argmax())
        found = f"r = {line.r:.2f}, slope {line.slope:.2f}, rank {rank:.2f}, "
        found += f"worst {float(off[worst]):.2f}, point {points[worst]}{lost}"
        remedy = "the numbers are wrong where they are large; at most, let them choose what to retrain, or raise the L2"
        if line.r >= R_CARE and line.slope > 0:
            verdict, remedy = "with care", "retrain for the numbers that you report"
            if line.r >= R_TRUST and 1 / SLOPE <= line.slope <= SLOPE and off[worst] <= OFF and not failed:
                verdict, remedy = "trust", ""
    return Finding(f"{len(points)} retrainings", found, verdict, remedy)
