"""The influence function and the differentiable argmin, against formulas and against the derivative of retraining."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from helpers import (
    CROSS_ENTROPY,
    Data,
    NotPositiveDefinite,
    NotSolved,
    NotStationary,
    Risk,
    Solution,
    agreement,
    argmin,
    certify,
    flatten,
    influence,
    minimise,
    predicted_change,
)
from tests.helpers.closed_forms import Ridge, saddle


@given(seed=st.integers(0, 10**6), n=st.integers(2, 12), p=st.integers(1, 5), l2=st.floats(0.01, 2))
def test_ridge_regression_by_formula(seed, n, p, l2):
    """``ℐ[t, i] = -r_t r_i · x_tᵀ (XᵀX/n + 2λI)⁻¹ x_i``, the residuals r at the minimum."""
    ridge = Ridge(n, p, l2, seed)
    G = (ridge.X @ ridge.theta - ridge.y)[:, None] * ridge.X
    G_test = (ridge.test.X @ ridge.theta - ridge.test.y)[:, None] * ridge.test.X
    expected = -G_test @ torch.linalg.inv(ridge.hessian(ridge.uniform)) @ G.T
    torch.testing.assert_close(influence(ridge.risk, ridge.theta, ridge.test), expected, rtol=1e-8, atol=1e-10)


@given(seed=st.integers(0, 10**6), n=st.integers(2, 12), p=st.integers(1, 5), l2=st.floats(0.01, 2))
def test_the_derivative_of_the_minimum_by_formula(seed, n, p, l2):
    """``dθ̂/dw_i = -H⁻¹ x_i r_i``, at any weights, by backpropagation through training."""
    ridge = Ridge(n, p, l2, seed)
    w = torch.rand(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    theta = ridge.minimum(w)
    expected = -torch.linalg.solve(ridge.hessian(w), (ridge.X * (ridge.X @ theta - ridge.y)[:, None]).T)
    jacobian = torch.autograd.functional.jacobian(lambda w: argmin(ridge.risk, ridge.theta, w), w)
    torch.testing.assert_close(jacobian, expected, rtol=1e-7, atol=1e-9)


def test_against_retraining_by_a_small_step(trained, close):
    """Upweight a point by ±ε, train, look at the test losses: their slope is the influence, of order ε² off."""
    risk, theta, epsilon = trained.risk, trained.theta, 1e-5
    scores = influence(risk, theta, trained.test)
    for i in (0, 17, 44):
        e = torch.zeros_like(risk.uniform).index_fill(0, torch.tensor([i], device=theta.device), epsilon)
        up, down = (risk.losses(minimise(risk, theta, risk.uniform + s * e).theta, trained.test) for s in (1, -1))
        close(scores[:, i], (up - down) / (2 * epsilon), rtol=1e-4, atol=1e-5)


def test_by_backpropagation_through_training(trained, close):
    risk = trained.risk
    w = risk.uniform.requires_grad_(True)
    loss = risk.losses(argmin(risk, trained.theta, w), trained.test)[3]
    (gradient,) = torch.autograd.grad(loss, w)
    close(gradient, influence(risk, trained.theta, trained.test)[3], atol=1e-11)


def test_the_definition_factor_by_factor(trained, close):
    """Each pair alone, nothing shared: ``-g_testᵀ H⁻¹ g_i``, with the gradients by plain autograd."""
    risk, theta = trained.risk, trained.theta
    scores = influence(risk, theta, trained.test)
    assert scores.shape == (20, 60)
    inverse = torch.linalg.inv(risk.hessian(theta))

    def gradient(data):
        t = theta.clone().requires_grad_(True)
        return torch.autograd.grad(risk.losses(t, data)[0], t)[0]

    for t, i in ((0, 0), (0, 59), (19, 7), (5, 44)):
        close(scores[t, i], -gradient(trained.test[t]) @ inverse @ gradient(trained.train[i]), atol=1e-11)


def test_scores_differ_by_point_and_by_test_point(trained):
    """A model called with other parameters than those it is differentiated by gives scores that are all alike."""
    scores = influence(trained.risk, trained.theta, trained.test)
    assert torch.linalg.matrix_rank(scores) > 1
    assert scores.std(1).min() > 0.01


def test_each_test_point_and_each_batch_gives_the_same(trained, close):
    scores = influence(trained.risk, trained.theta, trained.test)
    one_by_one = torch.cat([influence(trained.risk, trained.theta, trained.test[t]) for t in range(20)])
    close(one_by_one, scores)
    close(influence(trained.risk, trained.theta, trained.test[[4, 2]]), scores[[4, 2]])


def test_training_points_as_test_points_give_a_symmetric_negative_matrix(trained, close):
    """``-G H⁻¹ Gᵀ``: upweighting a point lowers its own loss."""
    scores = influence(trained.risk, trained.theta, trained.train)
    close(scores, scores.T, atol=1e-11)
    assert scores.diagonal().max() < 0


def test_the_weights_are_those_of_the_training(trained, close):
    risk = trained.risk
    w = torch.linspace(0.5, 1.5, 60, dtype=torch.float64).to(trained.theta) / 60
    theta = minimise(risk, trained.theta, w).theta
    with pytest.raises(NotStationary):
        influence(risk, theta, trained.test)
    g = risk.gradients(theta, trained.test)
    expected = -g @ torch.linalg.inv(risk.hessian(theta, w)) @ risk.gradients(theta).T
    close(influence(risk, theta, trained.test, weights=w), expected, atol=1e-11)


def test_the_solver_is_an_argument(trained, close):
    def by_lu(H, B):
        return torch.linalg.solve(H.dense(), B)

    scores = influence(trained.risk, trained.theta, trained.test, solve=by_lu)
    close(scores, influence(trained.risk, trained.theta, trained.test), atol=1e-11)


def test_another_module_and_several_classes(close):
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(24, 1, 4, 4, generator=generator, dtype=torch.float64)
    y = torch.randint(3, (24,), generator=generator)
    torch.manual_seed(0)
    model, start = flatten(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Tanh(), nn.Flatten(), nn.Linear(8, 3)))
    risk, test = Risk(model, Data(X[:18], y[:18]), CROSS_ENTROPY, 0.05), Data(X[18:], y[18:])
    theta = minimise(risk, start).theta
    w = risk.uniform.requires_grad_(True)
    scores = influence(risk, theta, test)
    assert scores.shape == (6, 18)
    for t in range(6):
        (gradient,) = torch.autograd.grad(risk.losses(argmin(risk, theta, w), test)[t], w)
        close(scores[t], gradient, atol=1e-10)


def test_a_theta_that_is_not_stationary_is_refused(trained):
    early = trained.theta + 0.01
    norm = float(trained.risk.gradient(early).norm())
    with pytest.raises(
        NotStationary,
        match=rf"not stationary: its gradient norm is {norm:.1e}, of a scale .* gtol = 1e-06 of it.*train on",
    ):
        influence(trained.risk, early, trained.test)


def test_a_saddle_is_refused():
    risk, theta = saddle()
    smallest = float(torch.linalg.eigvalsh(risk.hessian(theta))[0])
    with pytest.raises(NotPositiveDefinite, match=rf"smallest eigenvalue is {smallest:.2e}"):
        influence(risk, theta, risk.data)


def test_test_points_in_another_format_are_refused(trained):
    """They would quietly be multiplied in fewer digits, or fail deep in a layer."""
    with pytest.raises((TypeError, ValueError, RuntimeError)):
        influence(trained.risk, trained.theta, trained.test.to(torch.float32))


def test_the_derivative_of_argmin_has_none(ridge):
    """What it is computed from depends on the weights, and autograd would take it for constant."""
    w = ridge.risk.uniform.requires_grad_()
    with pytest.raises(RuntimeError, match="first derivative only"):
        torch.autograd.grad(argmin(ridge.risk, ridge.theta, w).sum(), w, create_graph=True)


def test_argmin_lands_on_a_certified_minimum(trained):
    w = torch.linspace(0.8, 1.2, 60, dtype=torch.float64).to(trained.theta) / 60
    certify(trained.risk, argmin(trained.risk, trained.theta, w), w)


def test_predicted_change_is_the_derivative_along_the_step_in_the_weights(trained, close):
    """Leaving a point out is a step in ALL the weights; the prediction is ℐ times that step."""
    scores = influence(trained.risk, trained.theta, trained.test)
    eye = torch.eye(60).to(scores)
    zero, mean = -eye / 60, (1 - eye) / 59 - 1 / 60
    close(predicted_change(scores, "zero"), scores @ zero, atol=1e-13)
    close(predicted_change(scores, "mean"), scores @ mean, atol=1e-13)
    close(predicted_change(scores), predicted_change(scores, "mean"))
    close(predicted_change(scores[0]), predicted_change(scores)[0])


def test_the_mean_convention_subtracts_the_regulariser(trained, close):
    """The mean gradient is -2λθ̂ at the minimum, and not zero."""
    mean_gradient = trained.risk.gradients(trained.theta).mean(0)
    close(mean_gradient, -2 * 0.02 * trained.theta, atol=1e-13)


def test_an_unknown_convention_is_refused():
    with pytest.raises(ValueError, match="convention is 'median': it must be 'zero' or 'mean'"):
        predicted_change(torch.zeros(1, 3), "median")


def test_the_reference_correlations(trained):
    """The book's known numbers, for each convention its own retraining."""
    scores = influence(trained.risk, trained.theta, trained.test)
    before = trained.risk.losses(trained.theta, trained.test)
    predicted = predicted_change(scores, "mean")
    thetas = trained.leave_one_out("mean").thetas
    actual = torch.stack([trained.risk.losses(theta, trained.test) for theta in thetas], dim=1) - before[:, None]
    assert round(agreement(predicted[0], actual[0]).r, 3) == 0.998
    everything = agreement(predicted, actual)
    assert round(everything.r, 3) == 0.981
    assert round(everything.slope, 2) == 1.21


def test_a_solver_is_believed_up_to_a_residual_of_one(trained, close):
    exact = torch.linalg.solve(
        trained.risk.hessian(trained.theta), trained.risk.gradients(trained.theta, trained.test).T
    )

    def says(residual):
        return lambda H, B: Solution(exact, torch.zeros(20).index_fill(0, torch.tensor([7]), residual), 0)

    expected = influence(trained.risk, trained.theta, trained.test)
    close(influence(trained.risk, trained.theta, trained.test, solve=says(0.99)), expected, atol=1e-10)
    for residual in (1.0, torch.nan):
        with pytest.raises(NotSolved, match="no better than X = 0"):
            influence(trained.risk, trained.theta, trained.test, solve=says(residual))


def test_the_start_of_argmin_has_no_say(ridge, close):
    """Neither a value nor a gradient: only the weights have one, and what comes out has the graph."""
    start, w = (ridge.theta + 1.0).requires_grad_(True), ridge.uniform.clone().requires_grad_(True)
    theta = argmin(ridge.risk, start, w)
    close(theta.detach(), ridge.theta, rtol=1e-8, atol=1e-10)
    theta.sum().backward()
    assert start.grad is None
    rows = (ridge.X @ ridge.theta - ridge.y)[:, None] * ridge.X
    close(w.grad, -(rows @ torch.linalg.solve(ridge.hessian(ridge.uniform), torch.ones(3).to(w))), rtol=1e-7)


def test_the_weights_are_looked_at_for_both_conventions(close):
    scores = torch.tensor([[1.0, 2.0, 4.0]]).double()
    w = torch.tensor([0.5, 0.25, 1.25]).double()
    close(predicted_change(scores, "zero", w), torch.tensor([[-0.5, -0.5, -5.0]]).double())
    total, mean = 2.0, 0.5 + 0.5 + 5.0
    expected = [-a * (total * i - mean) / (total - a) for a, i in zip(w.tolist(), (1.0, 2.0, 4.0), strict=True)]
    close(predicted_change(scores, "mean", w), torch.tensor([expected], dtype=torch.float64))
    close(predicted_change(scores, weights=w), torch.tensor([expected], dtype=torch.float64))
    for convention in ("zero", "mean"):
        with pytest.raises(ValueError, match=r"weights have shape \(2,\), but there are n = 3"):
            predicted_change(scores, convention, w[:2])
        with pytest.raises(ValueError, match=r"weights are not finite at \[1\]"):
            predicted_change(scores, convention, torch.tensor([0.5, torch.nan, 1.0]))
        with pytest.raises(TypeError, match="weights is a list, not a tensor"):
            predicted_change(scores, convention, w.tolist())
        close(predicted_change(scores, convention, w.float()), predicted_change(scores, convention, w))
    cancels = torch.tensor([0.3, 0.1, 0.2, -0.3], dtype=torch.float64)  # up to rounding, without the first
    with pytest.raises(ValueError, match="without point 0 all weights are 0, or they cancel"):
        predicted_change(torch.ones(1, 4).to(cancels), weights=cancels)


def test_rounding_is_judged_by_the_weights_there_are():
    """Without the first point next to nothing is left, which is rounding in whatever unit the weights are."""
    for unit in (1.0, 1e6):
        with pytest.raises(ValueError, match="without point 0 all weights are 0"):
            predicted_change(torch.ones(2).double(), weights=unit * torch.tensor([1.0, 1e-18]).double())
