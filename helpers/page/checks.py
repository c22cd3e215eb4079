"""Hold a statement against numbers: `holds` for an equation, `differs` for a failure.

>>> holds("eq-square", 3.0**2, 9.0, rtol=1e-12, because="rounding")
✓ eq-square: both sides agree to 1e-12 relative (rounding)
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch
from torch import Tensor


class CheckFailed(AssertionError):
    """The two sides of an equation of the book do not agree (or a failure that the book claims did not show)."""


def holds(
    label: str,
    left: Tensor | float,
    right: Tensor | float,
    *,
    rtol: float = 0.0,
    atol: float = 0.0,
    because: str,
) -> None:
    """Check that both sides of the equation ``label`` agree, and say so in one line that is the same on every machine.

    The sides must have the same shape and satisfy ``|left - right| <= atol + rtol·max|right|``, entry by entry. The
    bound is on the scale of the largest entry, so a small entry beside a large one may lose its relative digits.

    Args:
        label: the label of the equation in the text, ``eq-…``; the ledger is made of these lines.
        left: one evaluation, a tensor of any shape or a number.
        right: another, independent one of the same shape.
        rtol: the relative tolerance.
        atol: the absolute one; at least one of the two must be positive.
        because: why this tolerance and no tighter one.

    Raises:
        CheckFailed: if they differ by more, or if a side is not finite.
        ValueError: for different shapes, a tolerance of zero, or two sides that are the very same tensor.
    """
    a, b = _sides(left, right)
    if not (rtol > 0 or atol > 0):
        raise ValueError(f"{label}: give rtol or atol; numbers that agree to the last bit are a machine's accident.")
    if not (torch.isfinite(a).all() and torch.isfinite(b).all()):
        raise CheckFailed(f"{label}: a side is not finite.")
    error, bound = float((a - b).abs().max()), atol + rtol * float(b.abs().max())
    if error > bound:
        raise CheckFailed(
            f"{label} does not hold: the sides differ by up to {error:.2e}, more than the {bound:.2e} allowed "
            f"(rtol={rtol:g}, atol={atol:g}; {because})."
        )
    tolerance = " + ".join(
        f"{value:.0e} {kind}" for value, kind in ((rtol, "relative"), (atol, "absolute")) if value > 0
    )
    _say(f"✓ {label}: both sides agree to {tolerance} ({because})")


def differs(claim: str, left: Tensor | float, right: Tensor | float, *, by: float, because: str) -> None:
    """Check that two sides do NOT agree: somewhere they differ by more than ``by`` (absolute).

    The counterpart of `holds` for every "it fails when …" of the text: the failure is shown, and it must be there.

    Raises:
        CheckFailed: if they agree to ``by``.
        ValueError: for different shapes.
    """
    a, b = _sides(left, right)
    error = float((a - b).abs().max())
    if not error > by:
        raise CheckFailed(
            f"{claim}: should have broken, but the sides agree to {error:.2e} (expected more than {by:g})."
        )
    _say(f"✗ {claim}: breaks as it should, by more than {by:.0e} ({because})")


def _say(line: str) -> None:
    """Print, also where the output's encoding lacks a character."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    print(line.encode(encoding, "backslashreplace").decode(encoding))


def _sides(left: Tensor | float, right: Tensor | float) -> tuple[Tensor, Tensor]:
    if left is right and isinstance(left, Tensor):
        raise ValueError("left and right are the same tensor: a check needs two independent evaluations.")
    a, b = (torch.as_tensor(side).detach().cpu().to(torch.float64) for side in (left, right))
    if a.shape != b.shape:
        raise ValueError(f"left has shape {tuple(a.shape)} and right {tuple(b.shape)}: compare like with like.")
    if a.numel() == 0:
        raise ValueError("nothing to compare: both sides are empty.")
    return a, b


def central_difference(f: Callable[[Tensor], Tensor], x: Tensor, direction: Tensor, h: float) -> Tensor:
    """``(f(x + h·v) - f(x - h·v)) / 2h``: the derivative of ``f`` at ``x`` along ``v``, with an error of order ``h²``.

    Its second enemy is rounding: an error of ``e`` in ``f`` becomes ``e/h``. A good ``h`` balances the two.
    """
    if not h > 0:
        raise ValueError(f"h = {h} must be positive.")
    return (f(x + h * direction) - f(x - h * direction)) / (2 * h)
