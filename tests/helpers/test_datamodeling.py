"""The linear datamodeling score: against scipy's correlation, a linear model of which it must be 1, and bad input."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from helpers import (
    actual_change,
    influence,
    leave_group_out,
    linear_datamodeling_score,
    minimise,
    mlp,
    rank_correlation,
    ring,
)
from helpers.risk import Risk

GROUPS = [[0, 1], [2, 3], [1, 4], [0, 5], [3, 4], [2, 5]]


@given(seed=st.integers(0, 2**20))
def test_each_is_scipys_rank_correlation(seed):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randint(-3, 4, (3, 6), generator=generator).double()  # with ties
    scores[:, 0] += 0.5
    actual = torch.randn(3, len(GROUPS), generator=generator, dtype=torch.float64)
    predicted = torch.stack([-scores[:, group].sum(1) for group in GROUPS], 1)
    if any(len(row.unique()) == 1 for row in predicted):
        return
    found = linear_datamodeling_score(scores, GROUPS, actual)
    expected = [spearmanr(p, a).statistic for p, a in zip(predicted.numpy(), actual.numpy(), strict=True)]
    torch.testing.assert_close(found.each, torch.tensor(expected, dtype=torch.float64))
    assert found.score == pytest.approx(sum(expected) / 3)


def test_additive_changes_have_the_score_one_and_the_wrong_sign_minus_one():
    scores = torch.tensor([[1.0, -2.0, 4.0, 8.0, -16.0, 3.0]])
    actual = torch.stack([-3 * scores[:, group].sum(1) + 7 for group in GROUPS], 1)
    assert linear_datamodeling_score(scores, GROUPS, actual).score == pytest.approx(1)
    assert linear_datamodeling_score(scores, GROUPS, actual).error == pytest.approx(0)
    assert linear_datamodeling_score(-scores, GROUPS, actual).score == pytest.approx(-1)


def test_the_error_is_the_jackknife_over_groups():
    """Each group left out in turn: ``√((m - 1)/m · Σ (s_k - mean s)²)`` of the scores ``s_k`` without it."""
    generator = torch.Generator().manual_seed(0)
    scores, actual = (torch.randn(3, 6, generator=generator, dtype=torch.float64) for _ in range(2))
    found = linear_datamodeling_score(scores, GROUPS, actual)
    rest = [[k for k in range(6) if k != out] for out in range(6)]
    without = [linear_datamodeling_score(scores, [GROUPS[k] for k in some], actual[:, some]).score for some in rest]
    mean = sum(without) / 6
    assert found.error == pytest.approx((5 / 6 * sum((each - mean) ** 2 for each in without)) ** 0.5)
    assert found.without.tolist() == pytest.approx(without)


def test_the_error_is_that_of_many_draws_of_groups():
    generator = torch.Generator().manual_seed(0)
    draws = []
    for _ in range(100):
        scores = torch.randn(4, 20, generator=generator)
        actual = -scores + torch.randn(4, 20, generator=generator)
        draws.append(linear_datamodeling_score(scores, [[i] for i in range(20)], actual))
    spread = torch.tensor([each.score for each in draws]).std()
    assert torch.tensor([each.error for each in draws]).mean() == pytest.approx(float(spread), rel=0.2)


def test_influences_at_a_minimum_order_certified_retrainings():
    train, test = ring()
    model, start = mlp()
    risk = Risk(model, train, l2=0.02)
    theta = minimise(risk, start).theta
    groups = [torch.randperm(60, generator=torch.Generator().manual_seed(k))[:3].tolist() for k in range(12)]
    actual = actual_change(risk, theta, leave_group_out(risk, theta, groups), test)
    assert linear_datamodeling_score(influence(risk, theta, test), groups, actual).score > 0.9


@pytest.mark.parametrize(
    ("scores", "groups", "actual", "says"),
    [
        (torch.ones(2, 6), GROUPS, torch.ones(3, 6), "were expected"),
        (torch.ones(6), GROUPS, torch.ones(1, 6), "were expected"),
        (torch.ones(1, 6), GROUPS[:3], torch.ones(1, 3), "at least four"),
        (torch.ones(1, 6), [[0], [1], [2], [3, 4]], torch.ones(1, 4), "all of one size"),
        (torch.ones(1, 6), [[0], [1], [2], [6]], torch.ones(1, 4), "group 3 .* from 0 to 5"),
        (torch.ones(1, 6), [[0, 0], [1, 2], [2, 3], [3, 4]], torch.ones(1, 4), "group 0 .* each once"),
        (torch.arange(6.0)[None], GROUPS, torch.full((1, 6), torch.nan), "not finite"),
        (torch.arange(6.0)[None], GROUPS, torch.ones(1, 6), r"the same for test points \[0\]"),
    ],
)
def test_bad_input_is_refused(scores, groups, actual, says):
    with pytest.raises(ValueError, match=says):
        linear_datamodeling_score(scores, groups, actual)


def test_sums_that_differ_by_rounding_are_equal():
    """.1 + .2 + .4 and .3 + .4 are one number here, whatever their last bits say."""
    scores = torch.tensor([[0.1, 0.2, 0.4, 0.3, 0.4, 0.0]], dtype=torch.float64)
    groups = [[0, 1, 2], [3, 4, 5], [0, 1, 4], [0, 1, 5], [2, 3, 4]]  # sums .7, .7, .7, .3, 1.1
    actual = torch.tensor([[3.0, 1.0, 2.0, 4.0, 0.0]])
    assert linear_datamodeling_score(scores, groups, actual).score == pytest.approx(
        float(spearmanr([-0.7, -0.7, -0.7, -0.3, -1.1], actual[0]).statistic)
    )
    assert rank_correlation(
        torch.tensor([0.1 + 0.2, 0.3, 1], dtype=torch.float64), torch.tensor([1.0, 2, 3])
    ) == pytest.approx(0.75**0.5)
    with pytest.raises(ValueError, match="without one of the groups"):
        linear_datamodeling_score(scores, groups, torch.tensor([[1.0, 0, 0, 0, 0]]))
