"""Error bars against closed forms, the bootstrap and statsmodels; cross-validated losses against retraining."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from helpers import (
    CROSS_ENTROPY,
    LOGISTIC,
    SQUARED_ERROR,
    Data,
    NotPositiveDefinite,
    NotStationary,
    Risk,
    cross_validated_losses,
    digits,
    flatten,
    influence,
    leave_one_out,
    leverage,
    minimise,
    minimise_many,
    mlp,
    standard_errors,
)
from tests.helpers.closed_forms import Ridge, linear_model


@pytest.mark.parametrize(("kind", "power"), [("HC0", 0), ("HC2", 1), ("HC3", 2)])
def test_standard_errors_are_the_sandwich_for_least_squares(close, kind, power):
    """``√(gᵀ A⁻¹ Xᵀ diag(ρ²/(1 - h)^k) X A⁻¹ g)`` with ``A = XᵀX``, as statisticians write it."""
    ridge = Ridge(l2=0.0)
    A, rho = ridge.X.T @ ridge.X, ridge.y - ridge.X @ ridge.theta
    h = (ridge.X * torch.linalg.solve(A, ridge.X.T).T).sum(1)
    filling = ridge.X.T @ (ridge.X * (rho**2 / (1 - h) ** power)[:, None])
    solved = torch.linalg.solve(A, ridge.risk.gradients(ridge.theta, ridge.test).T)
    expected = (solved * (filling @ solved)).sum(0).sqrt()
    close(standard_errors(ridge.risk, ridge.theta, ridge.test, kind=kind), expected, rtol=1e-8)


def test_l2_is_not_a_scatter(close):
    """Where all points are alike nothing scatters, although no single gradient vanishes."""
    X, y = torch.ones(5, 1).double(), torch.ones(5).double()
    risk = Risk(linear_model(1), Data(X, y), SQUARED_ERROR, 0.5)
    theta = torch.tensor([0.5]).double()
    assert risk.gradients(theta).abs().min() > 0.1
    close(standard_errors(risk, theta, Data(X, y)), torch.zeros(5).double(), atol=1e-12)


def test_hc0_is_the_scatter_of_small_bootstraps(trained):
    """A tenth of the way from our weights to a bootstrap's, where first order is enough."""
    risk, theta, test = trained.risk, trained.theta, trained.test
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(risk.n, (300, risk.n), generator=generator).to(theta.device)
    W = torch.zeros(300, risk.n).to(theta).scatter_add_(1, drawn, torch.full(drawn.shape, 1 / risk.n).to(theta))
    W = 0.9 / risk.n + 0.1 * W
    thetas = minimise_many(risk, W, theta).thetas
    scatter = 10 * torch.stack([risk.losses(each, test) for each in thetas]).std(0)
    first_order = (W @ influence(risk, theta, test).T).std(0) * 10
    torch.testing.assert_close(first_order, scatter, rtol=0.05, atol=0.01)
    bars = standard_errors(risk, theta, test, kind="HC0")
    assert 0.95 < (bars / scatter).median() < 1.05


def test_standard_errors_refuse(trained):
    with pytest.raises(ValueError, match="'HC0', 'HC2' or 'HC3'"):
        standard_errors(trained.risk, trained.theta, trained.test, kind="HC1")
    with pytest.raises(NotStationary):
        standard_errors(trained.risk, trained.start, trained.test)
    sharp = Risk(trained.model, trained.train, LOGISTIC, 0.01)
    theta = minimise(sharp, trained.start).theta
    assert leverage(sharp, theta).max() > 1
    with pytest.raises(ValueError, match="from 1 on there is no correction"):
        standard_errors(sharp, theta, trained.test)
    assert standard_errors(sharp, theta, trained.test, kind="HC0").isfinite().all()


@given(seed=st.integers(0, 10**6), n=st.integers(3, 12), p=st.integers(1, 5), l2=st.floats(0.01, 2))
def test_cross_validation_is_exact_for_ridge_regression(seed, n, p, l2):
    ridge = Ridge(n, p, l2, seed)
    w = (1 - torch.eye(n, dtype=torch.float64)) / n
    truth = torch.stack([ridge.risk.losses(ridge.minimum(w[i]))[i] for i in range(n)])
    torch.testing.assert_close(cross_validated_losses(ridge.risk, ridge.theta), truth, rtol=1e-8, atol=1e-12)


def test_cross_validation_is_exact_for_several_outputs_and_unequal_weights(close):
    generator = torch.Generator().manual_seed(0)
    X, y = (torch.randn(9, k, generator=generator).double() for k in (3, 2))
    w = torch.rand(9, generator=generator).double() / 9
    risk = Risk(linear_model(3, 2), Data(X, y), SQUARED_ERROR, 0.05)
    theta = minimise(risk, torch.zeros(6).double(), w).theta
    W = w * (1 - torch.eye(9).double())
    truth = torch.stack([risk.losses(each)[i] for i, each in enumerate(minimise_many(risk, W, theta).thetas)])
    close(cross_validated_losses(risk, theta, w), truth, rtol=1e-7)
    assert (risk.losses(theta) - truth).abs().max() > 0.01


def test_targets_may_be_a_column(close):
    """(n, 1) and (n,) are the same targets."""
    ridge = Ridge()
    column = Risk(ridge.risk.model, Data(ridge.X, ridge.y[:, None]), SQUARED_ERROR, ridge.l2)
    close(cross_validated_losses(column, ridge.theta), cross_validated_losses(ridge.risk, ridge.theta))


def test_cross_validation_of_the_network(trained):
    truth = torch.stack([trained.risk.losses(a)[i] for i, a in enumerate(trained.leave_one_out("zero").thetas)])
    alo = cross_validated_losses(trained.risk, trained.theta)
    assert abs(alo.mean() - truth.mean()) < 0.002
    assert truth.mean() - trained.risk.losses(trained.theta).mean() > 0.05


def test_cross_validation_of_ten_classes():
    model, start = mlp(64, 4, 10)
    risk = Risk(model, digits(60)[0], CROSS_ENTROPY, 0.05)
    theta = minimise(risk, start).theta
    truth = torch.stack([risk.losses(a)[i] for i, a in enumerate(leave_one_out(risk, theta, convention="zero").thetas)])
    alo, own = cross_validated_losses(risk, theta), risk.losses(theta)
    assert abs(alo.mean() - truth.mean()) < 0.2 * (truth.mean() - own.mean())


def test_cross_validation_refuses(trained):
    with pytest.raises(NotStationary):
        cross_validated_losses(trained.risk, trained.start)
    sharp = Risk(trained.model, trained.train, LOGISTIC, 0.01)
    with pytest.raises(ValueError, match="hold their outputs alone"):
        cross_validated_losses(sharp, minimise(sharp, trained.start).theta)
    flat = torch.nn.Sequential(torch.nn.Linear(2, 2, bias=False), torch.nn.Linear(2, 1, bias=False))
    risk = Risk(flatten(flat)[0], trained.train, SQUARED_ERROR, 0.001)
    with pytest.raises(NotPositiveDefinite):
        cross_validated_losses(risk, torch.zeros(6).to(trained.theta))


@pytest.mark.filterwarnings("ignore")
def test_statsmodels():
    """Leverage, studentised residuals, Cook's distance, DFFITS and three sandwiches of another library."""
    sm = pytest.importorskip("statsmodels.api", exc_type=ImportError)
    ridge = Ridge(n=20, l2=0.0)
    n, p = ridge.X.shape
    fit = sm.OLS(ridge.y.numpy(), ridge.X.numpy()).fit()
    theirs = fit.get_influence()
    h, rho = leverage(ridge.risk, ridge.theta), ridge.y - ridge.X @ ridge.theta
    s2 = rho.square().sum() / (n - p)
    t = rho / ((((n - p) * s2 - rho**2 / (1 - h)) / (n - p - 1)) * (1 - h)).sqrt()
    ours = {
        "hat_matrix_diag": h,
        "resid_studentized_external": t,
        "cooks_distance": rho**2 / (p * s2) * h / (1 - h) ** 2,
        "dffits": t * (h / (1 - h)).sqrt(),
    }
    for name, values in ours.items():
        found = getattr(theirs, name)
        found = torch.tensor(found[0] if isinstance(found, tuple) else found)
        torch.testing.assert_close(values, found, rtol=1e-8, atol=1e-10)
    g = ridge.risk.gradients(ridge.theta, ridge.test)
    for kind in ("HC0", "HC2", "HC3"):
        covariance = torch.tensor(getattr(fit, f"cov_{kind}"))
        expected = ((g @ covariance) * g).sum(1).sqrt()
        torch.testing.assert_close(standard_errors(ridge.risk, ridge.theta, ridge.test, kind=kind), expected)


def test_one_example_does_not_scatter(trained):
    with pytest.raises(ValueError, match="at least two"):
        standard_errors(Risk(trained.model, trained.train[:1], l2=0.02), trained.theta, trained.test)
