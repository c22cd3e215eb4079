"""Leaving points out and training again: against the closed form of ridge regression, and warm against from scratch."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from helpers import (
    LOGISTIC,
    Data,
    HessianOperator,
    NotAMinimum,
    NotConverged,
    NotStationary,
    Risk,
    actual_change,
    agreement,
    certify,
    influence,
    leave_group_out,
    leave_one_out,
    leave_out_weights,
    minimise,
    predicted_change,
)
from tests.helpers.closed_forms import Ridge, linear_model


@given(n=st.integers(2, 20))
def test_the_weights_of_leaving_one_out(n):
    zero, mean = leave_out_weights(n, convention="zero"), leave_out_weights(n)
    eye = torch.eye(n, dtype=torch.float64)
    torch.testing.assert_close(zero, (1 - eye) / n)
    torch.testing.assert_close(mean, (1 - eye) / (n - 1))
    assert (zero.diagonal() == 0).all()
    assert (mean.diagonal() == 0).all()


@given(data=st.data(), n=st.integers(2, 12))
def test_the_weights_of_leaving_groups_out(data, n):
    group = st.sets(st.integers(0, n - 1), min_size=1, max_size=n - 1)
    groups = [sorted(members) for members in data.draw(st.lists(group, min_size=1, max_size=4))]
    for convention in ("zero", "mean"):
        W = leave_out_weights(n, groups, convention)
        assert W.shape == (len(groups), n)
        for row, members in zip(W.tolist(), groups, strict=True):
            other = 1 / n if convention == "zero" else 1 / (n - len(members))
            assert row == [0.0 if i in members else other for i in range(n)]


@pytest.mark.parametrize(
    ("groups", "says"),
    [
        ([[0], []], "group 1 is .*at least one index"),
        ([[1, 1]], "each once"),
        ([[5]], "from 0 to 4"),
        ([[-1]], "from 0 to 4"),
        ([[0, 1, 2, 3, 4]], "nothing is left to train on"),
    ],
)
def test_bad_groups_are_refused(groups, says):
    with pytest.raises(ValueError, match=says):
        leave_out_weights(5, groups)


@pytest.mark.parametrize("groups", [[[1.7]], [0, 1], torch.tensor([0, 1])], ids=["fraction", "flat", "flat tensor"])
def test_what_is_no_list_of_groups_is_refused(groups):
    with pytest.raises(TypeError, match="groups must be lists of whole numbers"):
        leave_out_weights(5, groups)


def test_weights_that_cancel_or_are_not_finite_are_refused():
    """0.1 + 0.2 - 0.3 is 6e-17: without point 0, the others would be multiplied by 5e15."""
    w = torch.tensor([0.3, 0.1, 0.2, -0.3], dtype=torch.float64)
    with pytest.raises(ValueError, match="without group 0 the other weights cancel"):
        leave_out_weights(4, weights=w)
    assert leave_out_weights(4, convention="zero", weights=w)[0].tolist() == [0.0, *w[1:].tolist()]
    with pytest.raises(ValueError, match=r"weights are not finite at \[2\]"):
        leave_out_weights(4, weights=torch.tensor([1.0, 1.0, torch.inf, 1.0]))
    torch.testing.assert_close(leave_out_weights(2, weights=torch.ones(2).long()), 2 * torch.eye(2).double().flip(0))


def test_an_unknown_convention_is_refused(trained):
    with pytest.raises(ValueError, match="convention is 'none': it must be 'zero' or 'mean'"):
        leave_one_out(trained.risk, trained.theta, convention="none")


@given(seed=st.integers(0, 10**6), n=st.integers(3, 12), p=st.integers(1, 5), l2=st.floats(0.01, 2))
def test_the_leave_one_out_residual_of_ridge_regression(seed, n, p, l2):
    """Without point i its residual is ``r_i / (1 - h_i)`` with the leverage ``h_i = x_iᵀ H⁻¹ x_i / n``: exactly."""
    ridge = Ridge(n, p, l2, seed)
    h = ((ridge.X @ torch.linalg.inv(ridge.hessian(ridge.uniform))) * ridge.X).sum(1) / n
    r = ridge.y - ridge.X @ ridge.theta
    retrained = leave_one_out(ridge.risk, ridge.theta, convention="zero")
    actual = ridge.y - (ridge.X * retrained.thetas).sum(1)
    torch.testing.assert_close(actual, r / (1 - h), rtol=1e-7, atol=1e-9)


@given(seed=st.integers(0, 10**6), n=st.integers(4, 12), p=st.integers(1, 5), l2=st.floats(0.01, 2))
def test_each_retraining_of_ridge_regression_by_formula(seed, n, p, l2):
    ridge = Ridge(n, p, l2, seed)
    groups = [[0], [0, 1], [1, 2, 3]]
    for convention in ("zero", "mean"):
        W = leave_out_weights(n, groups, convention)
        retrained = leave_group_out(ridge.risk, ridge.theta, groups, convention=convention)
        expected = torch.stack([ridge.minimum(w) for w in W])
        torch.testing.assert_close(retrained.thetas, expected, rtol=1e-7, atol=1e-9)
        after = (expected @ ridge.test.X.T - ridge.test.y).square().T / 2
        before = (ridge.test.X @ ridge.theta - ridge.test.y).square() / 2
        change = actual_change(ridge.risk, ridge.theta, retrained, ridge.test)
        torch.testing.assert_close(change, after - before[:, None], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("convention", "narrowest"), [("zero", 1.87e-4), ("mean", 2.33e-4)])
def test_sixty_retrainings_warm_and_from_scratch(trained, convention, narrowest, close):
    """Both are certified, at the same sixty minima, also that of point 44, in the narrowest valley."""
    warm = trained.leave_one_out(convention)
    scratch = leave_one_out(trained.risk, trained.theta, convention=convention, start=trained.start)
    W = leave_out_weights(60, convention=convention, device=trained.theta.device)
    for retrained in (warm, scratch):
        assert retrained.thetas.shape == (60, 33)
        assert retrained.gradient_norms.max() <= 1e-9
        for k in (0, 31, 44):
            certificate = certify(trained.risk, retrained.thetas[k], W[k])
            assert certificate.smallest_eigenvalue == pytest.approx(float(retrained.smallest_eigenvalues[k]), rel=1e-3)
    changes = [actual_change(trained.risk, trained.theta, each, trained.test) for each in (warm, scratch)]
    close(*changes, rtol=0, atol=1e-11)
    assert warm.smallest_eigenvalues.argmin() == 44
    assert float(warm.smallest_eigenvalues.min()) == pytest.approx(narrowest, rel=0.01)


def test_the_point_left_out_has_no_say(trained, close):
    """Its label may be anything: the retrained model does not change."""
    X, y = trained.train.X, trained.train.y.clone()
    retrained = trained.leave_one_out("zero")
    y[7] = 1 - y[7]
    other = Risk(trained.model, Data(X, y), trained.risk.loss, trained.risk.l2)
    W = leave_out_weights(60, convention="zero", device=X.device)
    assert other.gradient(retrained.thetas[7], W[7]).norm() <= 1e-9
    assert other.gradient(retrained.thetas[8], W[8]).norm() > 1e-4


def test_like_is_compared_with_like(trained):
    """Each prediction with its own retraining lies on y = x; the wrong pairing is shifted, which r does not see."""
    scores = influence(trained.risk, trained.theta, trained.test)[:1]
    actual = actual_change(trained.risk, trained.theta, trained.leave_one_out("mean"), trained.test[0])
    own = agreement(predicted_change(scores, "mean"), actual)
    crossed = agreement(predicted_change(scores, "zero"), actual)
    assert own.r > 0.997
    assert crossed.r == pytest.approx(own.r, abs=2e-3)
    assert abs(own.intercept) < 2e-4
    assert crossed.intercept == pytest.approx(-0.0045, abs=5e-4)


def test_the_shape_and_the_sign_of_the_change(trained):
    change = actual_change(trained.risk, trained.theta, trained.leave_one_out("mean"), trained.test)
    assert change.shape == (20, 60)
    after = trained.risk.losses(trained.leave_one_out("mean").thetas[9], trained.test)
    before = trained.risk.losses(trained.theta, trained.test)
    assert torch.equal(change[:, 9], after - before)


def test_a_start_for_each_retraining(trained, close):
    warm = trained.leave_one_out("mean")
    again = leave_one_out(trained.risk, trained.theta, start=warm.thetas)
    close(again.thetas, warm.thetas, atol=1e-9)


def test_training_must_have_ended_before_points_are_left_out(trained):
    with pytest.raises(NotStationary, match="theta is not stationary"):
        leave_one_out(trained.risk, trained.start)


def test_a_retraining_that_ends_at_a_saddle_is_named(trained):
    """From zeros the hidden units never move, and with little L2 what is found is no minimum."""
    risk = Risk(trained.model, trained.train, trained.risk.loss, 1e-4)
    with pytest.raises(NotAMinimum, match=r"in problem 0 \(-\d\.\d\de-\d\d\), .* and 55 more") as stopped:
        leave_one_out(risk, trained.theta, start=torch.zeros_like(trained.theta))
    assert stopped.value.theta.shape == (60, 33)


def test_a_group_whose_loss_leaves_no_minimum_is_named():
    """Without points 4 and 5 a line separates the classes, and without L2 the loss then falls for ever."""
    X = torch.tensor([[-2.0], [-1.0], [1.0], [2.0], [-0.5], [0.5]]).double()
    y = torch.tensor([0.0, 0.0, 1.0, 1.0, 1.0, 0.0]).double()
    risk = Risk(linear_model(1), Data(X, y), LOGISTIC, 0.0)
    theta = minimise(risk, torch.zeros(1).double()).theta
    leave_one_out(risk, theta)
    with pytest.raises(NotAMinimum, match=r"problem 1 \("):
        leave_group_out(risk, theta, [[0], [4, 5]])
    found = leave_group_out(risk, theta, [[0], [4, 5]], throw=False)
    assert found.certified.tolist() == [True, False]
    assert actual_change(risk, theta, found, Data(X, y)).isnan().all(0).tolist() == [False, True]


@pytest.mark.parametrize("scratch", [True, False])
def test_a_tolerance_that_rounding_does_not_reach_arrives(trained, scratch):
    start = trained.start if scratch else None
    with pytest.raises(NotConverged, match="in problem 0"):
        leave_group_out(trained.risk, trained.theta, [[0]], start=start, gtol=1e-30)


def test_the_weights_are_in_the_format_that_is_asked_for():
    assert leave_out_weights(3).dtype == torch.float64
    assert leave_out_weights(3, dtype=torch.float32).dtype == torch.float32
    w = torch.tensor([0.5, 0.25, 0.25])
    found = leave_out_weights(3, [[1], [0, 2]], weights=w)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, torch.tensor([[2 / 3, 0.0, 1 / 3], [0.0, 1.0, 0.0]]))
    torch.testing.assert_close(leave_out_weights(3, [[1]], "zero", weights=w), torch.tensor([[0.5, 0.0, 0.25]]))
    assert w.tolist() == [0.5, 0.25, 0.25]


def test_the_default_convention_shares_the_weight(ridge, close):
    """And so does that of the prediction."""
    found = leave_group_out(ridge.risk, ridge.theta, [[3]])
    others = ridge.uniform.clone() * 12 / 11
    others[3] = 0
    close(found.thetas[0], ridge.minimum(others), rtol=1e-8, atol=1e-10)
    close(leave_one_out(ridge.risk, ridge.theta).thetas[3], found.thetas[0], rtol=1e-8, atol=1e-10)
    scores = influence(ridge.risk, ridge.theta, ridge.test)
    close(predicted_change(scores), predicted_change(scores, "mean"))


def test_a_hessian_that_has_been_formed_is_used(ridge, monkeypatch):
    H = HessianOperator(ridge.risk, ridge.theta)
    expected = leave_group_out(ridge.risk, ridge.theta, [[0], [5]]).thetas
    H.factor  # noqa: B018
    monkeypatch.setattr(HessianOperator, "dense", lambda self: pytest.fail("it is there already"))
    found = leave_group_out(ridge.risk, ridge.theta, [[0], [5]], hessian=H).thetas
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)
    with pytest.raises(NotStationary):
        leave_group_out(ridge.risk, ridge.theta, [[0]], hessian=HessianOperator(ridge.risk, ridge.theta + 1))


def test_three_values_are_enough_and_nearly_the_same_is_not_the_same():
    """What differs by more than 1e-12 of its length can be correlated; tensors may have a graph."""
    x = torch.tensor([1.0, 2.0, 4.0]).double()
    found = agreement(x.clone().requires_grad_(True), (1 - 2 * x).requires_grad_(True))
    assert (found.r, found.slope, found.intercept, found.largest_error) == pytest.approx((-1, -2, 1, 11))
    near = 1 + 1e-11 * x
    assert agreement(near, x).r == pytest.approx(1, abs=1e-3)
    for same in (torch.full((3,), 7.0).double(), 1 + 1e-14 * x):
        with pytest.raises(ValueError, match="are the same"):
            agreement(x, same)


def test_an_agreement_in_words():
    x = torch.tensor([0.0, 1.0, 2.0]).double()
    assert str(agreement(x, 0.5 * x - 0.25)) == "r = 1.000, slope = 0.50, intercept = -0.2500, largest error = 1.2500"
