"""`holds`, `differs` and `agreement`: they pass what agrees, and notice what does not."""

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from helpers import CheckFailed, agreement, central_difference, differs, holds, rank_correlation
from helpers.page import checks

numbers = st.floats(-1e3, 1e3)


def test_an_equation_that_holds_says_so_in_one_stable_line(capsys):
    holds("eq-a", torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.0 + 1e-9]), rtol=1e-8, because="why")
    holds("eq-b", 1.0, 1.0 + 1e-11, atol=1e-10, because="why not")
    assert capsys.readouterr().out == (
        "✓ eq-a: both sides agree to 1e-08 relative (why)\n✓ eq-b: both sides agree to 1e-10 absolute (why not)\n"
    )


@given(left=numbers, right=numbers, tolerance=st.floats(1e-6, 10))
def test_holds_is_the_complement_of_differs(left, right, tolerance):
    assume(abs(abs(left - right) - tolerance) > 1e-9)
    assume(right == 0 or abs(right) > 3 * tolerance)  # else too loose, and refused
    if abs(left - right) < tolerance:
        holds("eq", left, right, atol=tolerance, because="")
        with pytest.raises(CheckFailed, match="should have broken"):
            differs("claim", left, right, by=tolerance, because="")
    else:
        differs("claim", left, right, by=tolerance, because="")
        with pytest.raises(CheckFailed, match="eq does not hold: the sides differ by up to"):
            holds("eq", left, right, atol=tolerance, because="")


@pytest.mark.parametrize("wrong", [-1.0, 60.0, 1.02, 0.0])
def test_a_wrong_sign_or_factor_is_noticed(wrong):
    truth = torch.tensor([0.3, -0.2, 1e-6])
    with pytest.raises(CheckFailed):
        holds("eq", wrong * truth, truth, rtol=1e-8, because="")


def test_one_wrong_entry_is_noticed():
    truth = torch.ones(100)
    wrong = truth.clone()
    wrong[57] += 1e-3
    with pytest.raises(CheckFailed, match=r"1\.00e-03"):
        holds("eq", wrong, truth, rtol=1e-6, because="")


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_what_is_not_finite_never_holds(value):
    with pytest.raises(CheckFailed, match="not finite"):
        holds("eq", torch.tensor([value]), torch.tensor([value]) + 0, atol=1.0, because="")


def test_nan_is_no_difference():
    with pytest.raises(CheckFailed, match="should have broken"):
        differs("claim", torch.tensor([torch.nan]), torch.tensor([1.0]), by=0.1, because="")


def test_checks_that_check_nothing_are_refused():
    x = torch.ones(2)
    with pytest.raises(ValueError, match="the same tensor: a check needs two"):
        holds("eq", x, x, atol=1.0, because="")
    with pytest.raises(ValueError, match="both sides are empty"):
        holds("eq", torch.ones(0), torch.zeros(0), atol=1.0, because="")
    with pytest.raises(ValueError, match=r"left has shape \(2,\) and right \(1,\): compare like with like"):
        holds("eq", x, torch.ones(1), atol=1.0, because="")
    with pytest.raises(ValueError, match="a machine's accident"):
        holds("eq", x, torch.ones(2), because="")
    with pytest.raises(ValueError, match="compare like with like"):
        differs("claim", x, torch.ones(3), by=0.1, because="")


RIGHT = torch.tensor([0.31, -0.22, 1.7, -0.013, 0.54, -0.98, 0.071, -1.21, 0.66, -0.35]).double()
N = 60


def check(left=None, right=None, rtol=1e-3, **options):
    """A check as a chapter has it: −ℐ/n against retraining, and the wrong formulas beside it."""
    influence = -N * RIGHT
    left = -influence / N if left is None else left
    right = RIGHT + 1e-5 * RIGHT.flip(0) if right is None else right
    unlike = {"ℐ/n": influence / N, "−ℐ": -influence, "n − 1 for n": -influence / (N - 1)}
    holds("eq", left, right, **{"rtol": rtol, "because": "first order", "unlike": unlike} | options)


def test_a_check_says_what_it_tells_apart(capsys):
    check()
    assert capsys.readouterr().out == (
        "✓ eq: both sides agree to 1e-03 relative, "
        "and not ℐ/n, off by 200 %, nor −ℐ, off by 6000 %, nor n − 1 for n, off by 2 % (first order)\n"
    )


def test_against_zero_the_distance_is_absolute(capsys):
    holds("eq", torch.full((3,), 1e-12), torch.zeros(3), atol=1e-9, because="", unlike={"g": torch.full((3,), -0.0312)})
    assert ", and not g, off by 3e-02 ()" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("weakened", "noticed"),
    [
        ({"rtol": 2.0, "unlike": None}, "too loose"),
        ({"rtol": 0.0, "atol": 5.0, "unlike": None}, "too loose"),
        ({"rtol": 0.4}, "cannot tell n − 1 for n"),
        ({"left": RIGHT, "right": RIGHT}, "the same tensor"),
        ({"left": RIGHT, "right": RIGHT.clone()}, "agree to the last bit"),
        ({"left": N * RIGHT, "right": N * RIGHT * (1 + 1e-9)}, "−ℐ is the right formula again"),
        ({"left": RIGHT.abs(), "right": RIGHT.abs() * (1 + 1e-9)}, "Were signs dropped"),
        ({"left": RIGHT[:0], "right": RIGHT[:0]}, "nothing to compare"),
    ],
)
def test_a_weakened_check_goes_red(weakened, noticed):
    """A loose tolerance, the same code on both sides, 1/n dropped on both sides, absolute values, nothing."""
    with pytest.raises((CheckFailed, ValueError), match=noticed):
        check(**weakened)
    check()


def doubts(monkeypatch, *sides, **options):
    stored = []
    monkeypatch.setattr(checks, "publish", lambda line, **record: stored.append(record))
    holds("eq", *sides, **{"because": ""} | options)
    return stored[0]["doubts"]


def test_what_says_little_by_itself_is_in_doubt(monkeypatch):
    """A test of the book asks for near misses there, or for the display to be evaluated."""
    close = RIGHT + 1e-9 * RIGHT.flip(0)

    def found(*sides, **options):
        return doubts(monkeypatch, *sides, **options)

    assert found(RIGHT, close, rtol=1e-6) == []
    assert "negative" in found(RIGHT.abs(), close.abs(), rtol=1e-6)[0]
    assert "above 5%" in found(RIGHT, close, rtol=0.2)[0]
    assert "zero" in found(torch.full((3,), 1e-12), torch.zeros(3), atol=1e-9)[0]
    assert found(RIGHT.abs(), close.abs(), rtol=0.2, unlike={"a quarter": RIGHT.abs() / 4}) == []
    assert found(RIGHT.abs(), close.abs(), rtol=1e-6, positive="eigenvalues") == []
    assert found(RIGHT.abs(), close.abs(), rtol=1e-6, positive="eigenvalues", unlike={"minus": -RIGHT.abs()}) == []
    assert found(torch.arange(1.0, 20), torch.arange(1.0, 20) * 1, rtol=1e-9) == []  # counts


def test_two_evaluations_may_agree_to_the_last_bit_where_a_reason_is_given():
    holds("eq", RIGHT, RIGHT.clone(), rtol=1e-9, because="", same="a permutation")
    holds("eq", torch.arange(20.0), torch.arange(20.0), rtol=1e-9, because="")
    holds("eq", 0.1, 0.1, rtol=1e-9, because="")


def test_a_near_miss_must_be_one():
    with pytest.raises(ValueError, match="again is the right formula again"):
        check(unlike={"again": RIGHT * 1})
    with pytest.raises(ValueError, match="compare like with like"):
        check(unlike={"a number": 1.0})
    with pytest.raises(CheckFailed, match=r"eq cannot tell close from the right formula: it is off by 1.54e-03"):
        check(unlike={"close": RIGHT * 1.0009})


def test_a_failure_shown_says_so_in_one_stable_line(capsys):
    differs("claim", 1.0, 2.0, by=0.5, because="why")
    assert capsys.readouterr().out == "✗ claim: breaks as it should, by more than 5e-01 (why)\n"


@given(x=st.floats(-2, 2))
def test_central_differences(x):
    x, one = torch.tensor(x).double(), torch.tensor(1.0).double()
    assert float(central_difference(torch.sin, x, one, 1e-5)) == pytest.approx(float(torch.cos(x)), abs=1e-9)
    with pytest.raises(ValueError, match="h = 0 must be positive"):
        central_difference(torch.sin, x, one, 0)


@given(slope=st.floats(0.1, 10), intercept=st.floats(-5, 5))
def test_agreement_of_a_line(slope, intercept):
    x = torch.linspace(-1, 1, 9, dtype=torch.float64).reshape(3, 3)
    found = agreement(x, slope * x + intercept)
    assert found.r == pytest.approx(1)
    assert found.slope == pytest.approx(slope)
    assert found.intercept == pytest.approx(intercept, abs=1e-12)
    assert found.largest_error == pytest.approx(float((x - slope * x - intercept).abs().max()))


def test_agreement_against_numpy():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 50, generator=generator, dtype=torch.float64)
    found = agreement(x, y)
    assert found.r == pytest.approx(float(torch.corrcoef(torch.stack([x, y]))[0, 1]))
    A = torch.stack([x, torch.ones_like(x)], dim=1)
    slope, intercept = torch.linalg.lstsq(A, y).solution.tolist()
    assert (found.slope, found.intercept) == (pytest.approx(slope), pytest.approx(intercept))


def test_a_flipped_sign_shows_in_every_number_but_the_size_of_r():
    x = torch.linspace(-1, 1, 5)
    found = agreement(-x, x)
    assert (found.r, found.slope) == (pytest.approx(-1), pytest.approx(-1))
    assert found.largest_error == 2


def test_agreement_prints_no_negative_zero():
    x = torch.linspace(-1, 1, 5, dtype=torch.float64)
    assert str(agreement(x, x - 1e-9)) == "r = 1.000, slope = 1.00, intercept = 0.0000, largest error = 0.0000"


@pytest.mark.parametrize("pair", [(torch.ones(4), torch.arange(4.0)), (torch.arange(4.0), torch.full((4,), 0.1))])
def test_constant_predictions_are_refused(pair):
    """What a model that ignores its parameters gives."""
    with pytest.raises(ValueError, match="values are the same: there is nothing to correlate"):
        agreement(*pair)


@pytest.mark.parametrize(("x", "y"), [(torch.ones(3), torch.ones(4)), (torch.ones(2), torch.ones(2))])
def test_too_little_to_compare_is_refused(x, y):
    with pytest.raises(ValueError, match="at least three values"):
        agreement(x, y)


def test_the_rank_correlation_sees_the_order_alone():
    x = torch.tensor([[0.1, -2.0, 3.0], [0.5, 7.0, -1.0]])
    assert rank_correlation(x, torch.exp(x)) == pytest.approx(1)
    assert rank_correlation(x, -(x**3)) == pytest.approx(-1)
    y = torch.tensor([[0.1, 3.0, -2.0], [0.5, 7.0, -1.0]])  # the largest but one and the smallest exchanged
    assert rank_correlation(x, y) == pytest.approx(1 - 6 * (4**2 + 4**2) / (6 * 35))
    with pytest.raises(ValueError, match="the same shape and at least three values"):
        rank_correlation(x, x[0])


def test_equal_values_share_a_rank():
    """59 equal predictions and one other, against 0 ... 59: as SciPy has it, in whatever order they stand."""
    predicted, actual = torch.zeros(60), torch.arange(60.0)
    predicted[10] = 1.0
    expected = spearmanr(predicted.numpy(), actual.numpy()).statistic
    assert rank_correlation(predicted, actual) == pytest.approx(expected)
    assert rank_correlation(predicted.flip(0), actual.flip(0)) == pytest.approx(expected)
    assert abs(expected) < 0.25


@pytest.mark.parametrize("compare", [agreement, rank_correlation])
def test_what_cannot_be_compared_is_said(compare):
    x = torch.arange(4.0)
    for bad in (torch.tensor([0.0, 1.0, torch.nan, 2.0]), torch.tensor([0.0, 1.0, torch.inf, 2.0])):
        with pytest.raises(ValueError, match="not finite"):
            compare(x, bad)
    with pytest.raises(ValueError, match=r"are the same"):
        compare(torch.zeros(4), x)
    with pytest.raises(ValueError, match="same shape"):
        compare(x, x[:3])
    with pytest.raises(TypeError, match="actual is a list, not a tensor"):
        compare(x, x.tolist())
    assert compare(x.requires_grad_(True), x.detach() + torch.tensor([0.0, 0.1, 0.0, 0.0])) is not None


# ------------------------------------------------------------------------------------------- at the edges of a check


def test_a_bound_adds_both_tolerances_and_may_be_reached():
    """``atol + rtol·max|right|``, on the scale of the right side's largest entry; powers of two are exact."""
    left, right = torch.tensor([3.0, 1.5]), torch.tensor([4.0, 1.5])
    holds("eq", left, right, atol=0.5, rtol=0.125, because="")
    for atol, rtol in ((0.5, 0.124), (0.499, 0.125)):
        with pytest.raises(CheckFailed, match=r"differ by up to 1\.00e\+00, more than the 9\.9\de-01 allowed"):
            holds("eq", left, right, atol=atol, rtol=rtol, because="")
    with pytest.raises(CheckFailed):
        holds("eq", torch.tensor([4.0, 1.5]), torch.tensor([3.0, 1.5]), rtol=0.3, because="")  # 0.3 of 3, not of 4
    with pytest.raises(CheckFailed, match=r"agree to 5\.00e-01"):
        differs("claim", 1.0, 1.5, by=0.5, because="")


@pytest.mark.parametrize(("side", "name"), [(1.0, "minus"), (0.25, "minus"), (1.0, "twice"), (1.0, "half")])
def test_a_tolerance_is_too_loose_from_where_a_wrong_side_would_pass(side, name):
    """2 from minus, 1 from twice, ½ from half of the side: the bound must stay below the least of them."""
    off = {"minus": 2.0, "twice": 1.0, "half": 0.5}[name] * side
    holds("eq", side, side, atol=0.499 * side, because="")
    with pytest.raises(ValueError, match=f"the tolerance is too loose, {name} the left side"):
        holds("eq", side, side, atol=off, because="")


def test_so_many_digits_do_not_agree_by_chance():
    """Eight numbers that are no integers and differ from each other."""
    eight = torch.arange(8.0) + 0.5
    for sides in (eight, torch.cat([eight, torch.arange(5.0)])):
        with pytest.raises(ValueError, match="agree to the last bit"):
            holds("eq", sides, sides.clone(), rtol=1e-9, because="")
    for few in (eight[:7], torch.cat([eight[:7], eight[:7], torch.arange(9.0)])):
        holds("eq", few, few.clone(), rtol=1e-9, because="")


def test_which_signs_are_in_doubt(monkeypatch):
    """From eight numbers on that are no integers, all of them on one side of zero, on both sides."""
    eight = torch.arange(8.0) + 0.5
    near = eight * (1 + 1e-6)

    def found(left, right, **options):
        return doubts(monkeypatch, left, right, rtol=1e-4, **options)

    assert len(found(eight, near)) == 1
    assert found(eight[:7], near[:7]) == []
    assert found(-eight, -near) == []
    assert found(torch.cat([eight, -eight[:1]]), torch.cat([near, -near[:1]])) == []
    assert len(found(torch.cat([eight, eight[:1] * 0]), torch.cat([near, eight[:1] * 0]))) == 1
    below = torch.tensor([-1e-9])  # on one side only: no sign was lost
    assert found(torch.cat([eight, -below]), torch.cat([near, below])) == []
    assert found(torch.cat([eight, below]), torch.cat([near, -below])) == []
    with pytest.raises(ValueError, match="has negative entries and the sides have none"):
        found(eight, near, unlike={"minus": -eight})


@pytest.mark.parametrize(
    ("off", "scale", "text"),
    [(3.0, 1.0, "300 %"), (0.0234, 1.0, "2 %"), (2e-4, 1.0, "0.02 %"), (0.9e-4, 1.0, "9e-03 %"),
     (150.0, 1.0, "2e+04 %"), (90.0, 1.0, "9000 %"), (3.0, 2.0, "200 %"), (0.5, 2.0, "20 %"), (0.031, 0.0, "3e-02")],
)  # fmt: skip
def test_how_far_off_a_wrong_formula_is(off, scale, text, capsys):
    holds("eq", torch.tensor([scale, 0.0]), torch.tensor([scale, 0.0]), atol=1e-6, because="",
          unlike={"wrong": torch.tensor([scale, off])})  # fmt: skip
    assert f"and not wrong, off by {text} ()" in capsys.readouterr().out


def test_a_near_miss_is_one_from_rounding_on():
    """1e-12 of the scale, from either side."""
    for off, says in ((0.9e-12, ValueError), (3e-12, CheckFailed)):
        for left, right, wrong in ((1.0, 1.0 + 1e-7, 1.0 + off), (1.0 + 1e-7, 1.0, 1.0 + off)):
            with pytest.raises(says):
                holds("eq", 1e3 * left, 1e3 * right, rtol=1e-6, because="", unlike={"wrong": 1e3 * wrong})


def test_what_a_record_keeps(monkeypatch):
    """The tolerance in words, the number of entries, and the near misses with their distance."""
    stored = []
    monkeypatch.setattr(checks, "publish", lambda line, **record: stored.append(record))
    holds("eq", RIGHT, RIGHT * (1 + 1e-7), rtol=1e-5, atol=2e-9, because="why", unlike={"twice": 2 * RIGHT})
    differs("claim", torch.zeros(3), torch.ones(3), by=0.5, because="so")
    told = {"unlike": [{"formula": "twice", "off": "100 %"}], "doubts": []}
    words = {"tolerance": "1e-05 relative + 2e-09 absolute", "because": "why"}
    assert stored[0] == {"kind": "holds", "name": "eq", "entries": 10, **words, **told}
    assert stored[1] == {"kind": "differs", "name": "claim", "tolerance": "5e-01", "because": "so", "entries": 3}


def test_a_central_difference_is_of_second_order_and_along_its_direction():
    """Of a cube it is off by ``h² v³``; of a square by nothing."""
    x, v = torch.tensor([2.0, 3.0]).double(), torch.tensor([1.0, -2.0]).double()
    cube = central_difference(lambda t: t**3, x, v, 0.5)
    torch.testing.assert_close(cube, 3 * x**2 * v + 0.25 * v**3)
    torch.testing.assert_close(central_difference(lambda t: t**2, x, v, 0.5), 2 * x * v)
    with pytest.raises(ValueError, match="h = -1 must be positive"):
        central_difference(torch.sin, x, v, -1)
