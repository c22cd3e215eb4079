"""Hold a statement against numbers: `holds` for an equation, `differs` for a failure.

>>> holds("eq-square", 3.0**2, 9.0, rtol=1e-12, because="rounding",
...       unlike={"2x": 2 * 3.0})
✓ eq-square: both sides agree to 1e-12 relative, and not 2x, off by 30 % (rounding)
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

# What a check says beside its line: the ledger is made of these records.
RECORD = "application/vnd.influence-book.check+json"
# So many numbers that are no integers do not agree to the last bit by chance.
BY_CHANCE = 8
# A tolerance that needs near misses beside it, as a part of the largest entry.
LOOSE = 0.05


class CheckFailed(AssertionError):
    """The two sides of an equation of the book do not agree, or a failure that the book
    claims did not show, or a check passes what it should tell apart."""


def holds(
    label: str,
    left: Tensor | float,
    right: Tensor | float,
    *,
    rtol: float = 0.0,
    atol: float = 0.0,
    because: str,
    unlike: Mapping[str, Tensor | float] | None = None,
    same: str = "",
    positive: str = "",
) -> None:
    """Check that both sides of the equation ``label`` agree, and that what a reader
    could mix up with them does not. Say so in one line, the same on every machine.

    The sides must have the same shape and satisfy ``|left - right| <= bound``, entry by
    entry, with ``bound = atol + rtol·max|right|``. The bound is on the scale of the
    largest entry: a small entry beside a large one may lose its relative digits.

    Args:
        label: the label of the equation in the text, ``eq-…``.
        left: one evaluation, a tensor of any shape or a number.
        right: another, independent one of the same shape.
        rtol: the relative tolerance.
        atol: the absolute one; at least one of the two must be positive.
        because: why this tolerance and no tighter one.
        unlike: wrong formulas that are easily taken for ``left``: what each of them is
            called, and its value. None of them may pass.
        same: why the sides can agree to the last bit although they are two evaluations
            (counts, a permutation). Not needed for integers and for single numbers.
        positive: why no entry of the sides is negative (eigenvalues, norms), where a
            wrong formula has negative ones, or none is named.

    A check that by itself says little (against zero, of positive numbers, with a loose
    tolerance) needs ``unlike``, or a `typeset` of the same label: the tests see to it.

    Raises:
        CheckFailed: if the sides differ by more, if one is not finite, or if a wrong
            formula passes.
        ValueError: for different shapes, a tolerance of zero or one so loose that
            minus, twice or half the left side would pass, two sides that are one
            computation or lost their signs, or a wrong formula that is the right one.
    """
    a, b = _sides(left, right)
    bound = bounded(label, a, b, rtol, atol, because)
    if not same and _one_computation(a, b):
        raise ValueError(
            f"{label}: the sides agree to the last bit. A check needs two evaluations; "
            "if these are two, say in `same` why they can agree so well."
        )
    scale = float(b.abs().max())
    one_sign = len(a[a != a.round()]) >= BY_CHANCE and bool((a >= 0).all() and (b >= 0).all()) and not positive
    told = []
    for name, value in (unlike or {}).items():
        wrong, _ = _sides(value, right)
        error, rounding = float((wrong - b).abs().max()), 1e-12 * scale
        if min(error, float((wrong - a).abs().max())) <= rounding:
            raise ValueError(f"{label}: {name} is the right formula again.")
        if not error > bound:
            raise CheckFailed(
                f"{label} cannot tell {name} from the right formula: it is off by {error:.2e}, "
                f"and {bound:.2e} is allowed."
            )
        if one_sign and (wrong < -bound).any():
            raise ValueError(
                f"{label}: {name} has negative entries and the sides have none. Were signs dropped? "
                "If the sides must be positive, say in `positive` why."
            )
        told.append({"formula": name, "off": _size(error, scale)})
    doubts = {
        "nothing is named that is not zero": scale == 0,
        f"a tolerance above {LOOSE:.0%}": bound > LOOSE * scale > 0,
        "no entry is negative: a lost sign would not show": one_sign,
    }
    apart = ", nor ".join(f"{one['formula']}, off by {one['off']}" for one in told)
    agree = tolerance(rtol, atol)
    publish(
        f"✓ {label}: both sides agree to {agree}{apart and f', and not {apart}'} "
        f"({because})",
        kind="holds", name=label, tolerance=agree, because=because, entries=a.numel(),
        unlike=told, doubts=[why for why, so in doubts.items() if so and not told],
    )  # fmt: skip


def differs(
    claim: str,
    left: Tensor | float,
    right: Tensor | float,
    *,
    by: float,
    because: str,
) -> None:
    """Check that two sides do NOT agree: somewhere they differ by more than ``by``.

    The counterpart of `holds` for every "it fails when …" of the text: the failure is
    shown, and it must be there.

    Args:
        by: an absolute difference.

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
    publish(
        f"✗ {claim}: breaks as it should, by more than {by:.0e} ({because})",
        kind="differs", name=claim, tolerance=f"{by:.0e}", because=because,
        entries=a.numel(),
    )  # fmt: skip


def publish(line: str, **record: Any) -> None:
    """Show the line of a check; a notebook keeps the record beside it."""
    if "IPython" in sys.modules:  # it would take a while to import
        from IPython import display, get_ipython

        if get_ipython() is not None:
            display.publish_display_data({"text/plain": line, RECORD: record})
            return
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    print(line.encode(encoding, "backslashreplace").decode(encoding))


def tolerance(rtol: float, atol: float) -> str:
    """A tolerance in words."""
    kinds = ((rtol, "relative"), (atol, "absolute"))
    return " + ".join(f"{value:.0e} {kind}" for value, kind in kinds if value > 0)


def bounded(label: str, a: Tensor, b: Tensor, rtol: float, atol: float, because: str) -> float:
    """How far the sides may be apart, after it was seen that they are no further, and
    that such a bound can tell a sign and a factor of two."""
    if not (rtol > 0 or atol > 0):
        raise ValueError(f"{label}: give rtol or atol; numbers that agree to the last bit are a machine's accident.")
    if not (torch.isfinite(a).all() and torch.isfinite(b).all()):
        raise CheckFailed(f"{label}: a side is not finite.")
    scale = float(b.abs().max())
    error, bound = float((a - b).abs().max()), atol + rtol * scale
    if error > bound:
        raise CheckFailed(
            f"{label} does not hold: the sides differ by up to {error:.2e}, more than "
            f"the {bound:.2e} allowed (rtol={rtol:g}, atol={atol:g}; {because})."
        )
    for factor, name in ((-1, "minus"), (2, "twice"), (0.5, "half")):
        # Against zero there is no scale: name in `unlike` what is not zero.
        if scale > 0 and not float((factor * a - b).abs().max()) > bound:
            raise ValueError(
                f"{label}: the tolerance is too loose, {name} the left side passes "
                f"(rtol={rtol:g}, atol={atol:g}; the largest entry is {scale:.1e})."
            )
    return bound


def _one_computation(a: Tensor, b: Tensor) -> bool:
    """Whether two sides agree so well that they are one computation, made twice."""
    told = b[b != b.round()].unique()
    return torch.equal(a, b) and len(told) >= BY_CHANCE


def _size(error: float, scale: float) -> str:
    """How far off a wrong formula is, to the one digit that is stable."""
    if scale == 0:
        return f"{error:.0e}"
    percent = 100 * error / scale
    if not 0.01 <= percent < 1e4:
        return f"{percent:.0e} %"
    digits = f"{percent:.0e}"
    return f"{float(digits):g} %"


def _sides(left: Tensor | float, right: Tensor | float) -> tuple[Tensor, Tensor]:
    if left is right and isinstance(left, Tensor):
        raise ValueError("left and right are the same tensor: a check needs two independent evaluations.")
    a, b = (torch.as_tensor(side, dtype=torch.float64).detach().cpu() for side in (left, right))
    if a.shape != b.shape:
        raise ValueError(f"left has shape {tuple(a.shape)} and right {tuple(b.shape)}: compare like with like.")
    if a.numel() == 0:
        raise ValueError("nothing to compare: both sides are empty.")
    return a, b


def central_difference(f: Callable[[Tensor], Tensor], x: Tensor, direction: Tensor, h: float) -> Tensor:
    """``(f(x + h·v) - f(x - h·v)) / 2h``: the derivative of ``f`` at ``x`` along ``v``,
    with an error of order ``h²``.

    Its second enemy is rounding: an error of ``e`` in ``f`` becomes ``e/h``. A good
    ``h`` balances the two.
    """
    if not h > 0:
        raise ValueError(f"h = {h} must be positive.")
    return (f(x + h * direction) - f(x - h * direction)) / (2 * h)
