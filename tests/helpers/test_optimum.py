"""A minimum is found, and certified: against formulas, at saddles, and for many weights at once."""

import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from helpers import (
    CROSS_ENTROPY,
    LOGISTIC,
    SQUARED_ERROR,
    Data,
    HessianOperator,
    Loss,
    NotAMinimum,
    NotConverged,
    NotPositiveDefinite,
    NotSolved,
    Risk,
    certify,
    flatten,
    leave_out_weights,
    minimise,
    minimise_many,
    mlp,
    optimum,
    ring,
)
from tests.helpers.closed_forms import Ridge, linear_model, of_one_number, saddle


@given(seed=st.integers(0, 10**6), n=st.integers(2, 12), p=st.integers(1, 5), l2=st.floats(0.01, 2))
def test_ridge_regression_by_formula(seed, n, p, l2):
    ridge = Ridge(n, p, l2, seed)
    W = torch.rand(2, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    expected = torch.stack([ridge.minimum(w) for w in W])
    start = torch.zeros(p, dtype=torch.float64)
    together = minimise_many(ridge.risk, W, start)
    torch.testing.assert_close(together.thetas, expected, rtol=1e-8, atol=1e-8)
    for w, theta, smallest in zip(W, expected, together.smallest_eigenvalues, strict=True):
        certificate = minimise(ridge.risk, start, w)
        torch.testing.assert_close(certificate.theta, theta, rtol=1e-8, atol=1e-8)
        assert certificate.smallest_eigenvalue == pytest.approx(float(torch.linalg.eigvalsh(ridge.hessian(w))[0]))
        assert float(smallest) == pytest.approx(certificate.smallest_eigenvalue)


def test_the_reference_minimum(trained):
    """The book's known numbers."""
    risk, theta = trained.risk, trained.theta
    assert float(risk(theta)) == pytest.approx(0.6425, abs=5e-5)
    right = (trained.model(theta, trained.train.X) > 0) == (trained.train.y == 1)
    assert round(float(right.double().mean()), 2) == 0.83
    assert trained.certificate.gradient_norm < 1e-14
    assert trained.certificate.smallest_eigenvalue == pytest.approx(0.0043, abs=5e-5)


def test_a_saddle_among_many_is_named():
    risk, theta = saddle()
    start = torch.stack([mlp()[1], theta, mlp(seed=1)[1]])
    with pytest.raises(
        NotAMinimum, match=r"no minimum: .* in problem 1 \(-\d\.\d\de-\d\d\): it is near a saddle"
    ) as stopped:
        minimise_many(risk, risk.uniform.expand(3, -1), start)
    found = stopped.value.theta
    for k in (0, 2):  # nothing is lost: the others are minima
        certify(risk, found[k])


@given(seed=st.integers(0, 10**6))
def test_a_flat_valley_gets_no_certificate(seed):
    """Two equal columns, and no L2 to choose between them: an eigenvalue of zero, which rounding may make positive."""
    ridge = Ridge(8, 2, 0.0, seed)
    X = ridge.X[:, :1].repeat(1, 2)
    risk = Risk(ridge.risk.model, Data(X, ridge.y), SQUARED_ERROR, 0.0)
    theta = torch.linalg.lstsq(X, ridge.y[:, None], driver="gelsd").solution[:, 0]
    assert abs(float(torch.linalg.eigvalsh(risk.hessian(theta))[0])) < 1e-12
    with pytest.raises(NotAMinimum, match="the smallest eigenvalue of its Hessian is"):
        certify(risk, theta)
    with pytest.raises(
        NotAMinimum, match=r"no minimum: .* in problem 0 .*: 1 of the 2 eigenvalues are zero to rounding"
    ):
        minimise_many(risk, risk.uniform[None], theta)


@given(seed=st.integers(0, 10**6))
def test_a_flat_valley_gets_no_certificate_even_where_the_gradient_is_exactly_zero(seed):
    ridge = Ridge(8, 2, 0.0, seed)
    one_direction = ridge.X[:, :1] * ridge.X[:1]
    risk = Risk(ridge.risk.model, Data(one_direction, 0 * ridge.y), SQUARED_ERROR, 0.0)
    with pytest.raises(NotAMinimum, match=r"gradient norm 0\.0e\+00"):
        certify(risk, torch.zeros(2).double())


def test_too_few_steps_are_reported_with_the_residual(trained):
    with pytest.raises(
        NotConverged, match=r"stopped at a gradient norm of \d\.\de[-+]\d+, above \d\.\de-10 .*: raise max_steps"
    ) as stopped:
        minimise(trained.risk, trained.start, max_steps=3)
    assert stopped.value.theta.shape == (33,)
    W = leave_out_weights(60, device=trained.theta.device)
    with pytest.raises(
        NotConverged, match=r"in problem 0 \(\d\.\d\de-\d\d\), .* and 55 more: raise max_steps"
    ) as stopped:
        minimise_many(trained.risk, W, trained.start, max_steps=3)
    norms = trained.risk.values_and_gradients(stopped.value.theta, W)[1].norm(dim=1)
    assert f"problem 0 ({float(norms[0]):.2e})" in str(stopped.value)


def test_a_tolerance_below_rounding_is_reported_as_not_reached(trained):
    W = leave_out_weights(60, device=trained.theta.device)[:2]
    with pytest.raises(NotConverged, match=r"above 1\.0e-19 in problem 0 \(\d\.\d\de-1\d\)"):
        minimise_many(trained.risk, W, trained.theta, gtol=1e-19, max_steps=100)


def test_only_what_failed_is_named(trained, close):
    """Problem 1 starts at its minimum; the others have no time to get anywhere."""
    W = trained.risk.uniform.expand(3, -1)
    start = torch.stack([trained.start, trained.theta, trained.start])
    with pytest.raises(NotConverged, match=r"problem 0 \(.*\), problem 2 \([^)]*\): raise max_steps") as stopped:
        minimise_many(trained.risk, W, start, max_steps=2)
    assert "problem 1" not in str(stopped.value)
    close(stopped.value.theta[1], trained.theta)


def test_many_are_found_and_certified_one_by_one(trained):
    W = leave_out_weights(60, device=trained.theta.device)
    found = minimise_many(trained.risk, W, trained.start)
    assert len(found) == 60
    for k in range(0, 60, 11):
        certificate = certify(trained.risk, found.thetas[k], W[k])
        assert certificate.gradient_norm == pytest.approx(float(found.gradient_norms[k]), abs=1e-15)
        assert certificate.smallest_eigenvalue == pytest.approx(float(found.smallest_eigenvalues[k]), rel=1e-3)
    assert found.gradient_norms.max() <= 1e-9
    assert found.smallest_eigenvalues.min() > 0


def few_are_many(monkeypatch):
    """Ten parameters are a large model."""
    for module in ("certificate", "curvature", "optimum"):
        monkeypatch.setattr(f"helpers.{module}._DENSE_UP_TO", 10)


def test_no_model_sees_another(trained, close):
    """Alone, in company, and in another order: the same minimum."""
    W = leave_out_weights(60, device=trained.theta.device)
    H = trained.risk.hessian(trained.theta)
    some = [3, 14, 31]
    together = minimise_many(trained.risk, W, trained.theta, preconditioner=H).thetas
    close(minimise_many(trained.risk, W[some], trained.theta, preconditioner=H).thetas, together[some], atol=1e-9)
    backwards = minimise_many(trained.risk, W.flip(0), trained.theta, preconditioner=H).thetas
    close(backwards.flip(0), together, atol=1e-9)


@pytest.mark.parametrize("together", [1, 4])
def test_no_model_sees_how_many_are_solved_at_once(trained, close, monkeypatch, together):
    W = leave_out_weights(60, device=trained.theta.device)[2::6]  # ten, and point 44 among them
    at_once = minimise_many(trained.risk, W, trained.theta)
    monkeypatch.setattr("helpers.optimum._NUMBERS_AT_ONCE", together * 60 * 33)
    a_few = minimise_many(trained.risk, W, trained.theta)
    close(a_few.thetas, at_once.thetas, atol=1e-9)
    close(a_few.smallest_eigenvalues, at_once.smallest_eigenvalues, rtol=1e-6)
    with pytest.raises(NotConverged, match=r"problem 0 \(.*\), problem 1 \(.* and 5 more"):
        minimise_many(trained.risk, W, trained.start, max_steps=3)


def test_where_a_bound_proves_nothing_the_eigenvalues_are_asked():
    """Trained on one example, far from all: after fifty products the smallest eigenvalue might still be negative."""
    X, y = torch.randn(300, 63, generator=torch.Generator().manual_seed(0)).double(), torch.arange(300) % 8
    risk = Risk(flatten(nn.Linear(63, 8))[0], Data(X * torch.logspace(0, -1.5, 63).double(), y), CROSS_ENTROPY, 1e-6)
    theta = minimise(risk, torch.zeros(512).double()).theta
    one = torch.zeros_like(risk.uniform)
    one[0] = 1.0
    found = minimise_many(risk, one[None], theta, preconditioner=HessianOperator(risk, theta))
    assert float(found.smallest_eigenvalues[0]) == pytest.approx(2e-6, rel=1e-3)  # 2λ


@pytest.mark.parametrize("preconditioned", [True, False])
def test_a_large_model_is_certified_from_products_alone(trained, close, monkeypatch, preconditioned):
    """The same minima, and a bound of the smallest eigenvalue that is one, and near."""
    W = leave_out_weights(60, device=trained.theta.device)[2::6]  # ten, and point 44 among them
    H = trained.risk.hessian(trained.theta)
    arguments = (trained.risk, W, trained.theta)
    whole = minimise_many(*arguments, preconditioner=H)
    few_are_many(monkeypatch)
    products = minimise_many(*arguments, preconditioner=H if preconditioned else None)
    close(products.thetas, whole.thetas, atol=1e-7)
    if preconditioned:  # relative to the preconditioner, and times its smallest
        L = torch.linalg.cholesky(H)
        relative = [torch.linalg.solve(L, torch.linalg.solve(L, A).mT) for A in trained.risk.hessians(whole.thetas, W)]
        expected = torch.linalg.eigvalsh(torch.stack(relative))[:, 0] * trained.certificate.smallest_eigenvalue
        assert (expected <= whole.smallest_eigenvalues * (1 + 1e-9)).all()
    else:
        expected = whole.smallest_eigenvalues
    ratio = products.smallest_eigenvalues / expected
    assert ratio.min() > 0.85
    assert ratio.max() < (
        1.001 if preconditioned else 1.1
    )  # a lower bound, but for what is known of the preconditioner
    # nothing to do: the Hessian is the preconditioner, and every Lanczos vector after the first is rounding
    still = minimise_many(trained.risk, trained.risk.uniform[None], trained.theta, preconditioner=H)
    assert float(still.smallest_eigenvalues) == pytest.approx(trained.certificate.smallest_eigenvalue, rel=0.05)


@pytest.mark.parametrize("preconditioned", [True, False])
def test_a_saddle_of_a_large_model_is_named(trained, monkeypatch, preconditioned):
    few_are_many(monkeypatch)
    risk, theta = saddle()
    start = torch.stack([mlp()[1], theta, mlp(seed=1)[1]])
    P = trained.risk.hessian(trained.theta).cpu() if preconditioned else None  # any positive definite one will do
    with pytest.raises(NotAMinimum, match=r"no minimum: .* in problem 1 \(-\d\.\d\de.\d\d\): it is near a saddle"):
        minimise_many(risk, risk.uniform.expand(3, -1), start, preconditioner=P)


@pytest.mark.parametrize("large", [True, False])
def test_the_eigenvalue_of_a_certificate_is_that_of_where_it_ended(trained, monkeypatch, large):
    """The first try starts far away, where H has another smallest eigenvalue, and no step of Newton's leads on."""
    if large:
        few_are_many(monkeypatch)
    risk, start = trained.risk, trained.start
    before = float(torch.linalg.eigvalsh(risk.hessian(start))[0])
    found = optimum._finish(risk, start[None], risk.uniform[None], 1e-9, None, 500)
    after = float(torch.linalg.eigvalsh(risk.hessian(found.thetas[0]))[0])
    assert before < 0 < after
    assert bool(found.certified[0]) and float(found.gradient_norms[0]) <= 1e-9
    assert float(found.smallest_eigenvalues[0]) == pytest.approx(after, rel=0.1)


@pytest.mark.parametrize("newton", [optimum._by_matrices, optimum._by_products])
def test_newtons_last_steps_never_raise_a_gradient(newton):
    """For log cosh(θ - 1000) a whole step from 1002 leads past 986, where the slope is steeper."""
    data = Data(torch.ones(1, 1).double(), torch.tensor([1000.0]).double())
    risk = Risk(linear_model(1), data, Loss(lambda f, y: torch.log(torch.cosh(f - y))))
    thetas = torch.tensor([[1002.0], [1000.01]]).double()
    after, norms, *_ = newton(risk, thetas, torch.ones(2, 1).double(), 1e-9, None).rows
    assert torch.equal(after[0], thetas[0])
    assert norms[0] == pytest.approx(float(torch.tanh(torch.tensor(2.0).double())))
    assert abs(float(after[1]) - 1000) < 1e-5


def test_it_is_deterministic_and_changes_nothing(trained):
    W = leave_out_weights(60, device=trained.theta.device)[:5]
    arguments = W.clone(), trained.theta.clone()
    runs = [minimise_many(trained.risk, W, trained.theta).thetas for _ in range(2)]
    assert torch.equal(*runs)
    assert torch.equal(W, arguments[0])
    assert torch.equal(trained.theta, arguments[1])


@given(seed=st.integers(0, 10**6), scale=st.floats(0.1, 10))
def test_logistic_regression_whatever_the_scale(seed, scale):
    """Convex, so that there is one minimum to find, from wherever: with columns of very different sizes."""
    generator = torch.Generator().manual_seed(seed)
    X = torch.randn(20, 3, generator=generator, dtype=torch.float64) * torch.tensor([1.0, scale, scale**2]).double()
    y = torch.randint(2, (20,), generator=generator).double()
    risk = Risk(linear_model(3), Data(X, y), LOGISTIC, 0.01)
    W, start = leave_out_weights(20)[:5], torch.randn(5, 3, generator=generator, dtype=torch.float64)
    found = minimise_many(risk, W, start)
    expected = torch.stack([minimise(risk, start[k], W[k]).theta for k in (0, 4)])
    torch.testing.assert_close(found.thetas[[0, 4]], expected, rtol=1e-7, atol=1e-7)


def test_another_module_and_several_classes(close):
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(18, 1, 4, 4, generator=generator, dtype=torch.float64)
    y = torch.randint(3, (18,), generator=generator)
    torch.manual_seed(0)
    model, start = flatten(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Tanh(), nn.Flatten(), nn.Linear(8, 3)))
    risk = Risk(model, Data(X, y), CROSS_ENTROPY, 0.05)
    certificate = minimise(risk, start)
    found = minimise_many(risk, torch.stack([risk.uniform, risk.uniform]), start)
    close(found.thetas[0], certificate.theta, atol=1e-7)
    assert found.smallest_eigenvalues.min() > 0


def test_the_preconditioner_must_be_positive_definite(trained):
    W = leave_out_weights(60, device=trained.theta.device)
    with pytest.raises(NotPositiveDefinite, match=r"smallest eigenvalue is -1\.00e\+00"):
        minimise_many(trained.risk, W, trained.theta, preconditioner=-torch.eye(33).to(trained.theta))


@pytest.mark.parametrize(
    ("W", "start", "error", "says"),
    [
        (torch.ones(60).double(), torch.zeros(33).double(), ValueError, "one row of weights for each problem"),
        (torch.ones(0, 60).double(), torch.zeros(33).double(), ValueError, "one row of weights for each problem"),
        (torch.ones(2, 59).double(), torch.zeros(33).double(), ValueError, "there are n = 60 training examples"),
        (torch.full((2, 60), torch.nan).double(), torch.zeros(33).double(), ValueError, "not finite"),
        (torch.ones(2, 60), torch.zeros(33).double(), TypeError, "weights is torch.float32"),
        (torch.ones(2, 60).double(), torch.zeros(32).double(), ValueError, "the model has p = 33"),
        (torch.ones(2, 60).double(), torch.zeros(3, 33).double(), ValueError, r"give \(33,\) or \(2, 33\)"),
        (torch.ones(2, 60).double(), torch.zeros(33), TypeError, "theta is torch.float32"),
    ],
)
def test_bad_arguments_are_refused(W, start, error, says):
    risk = Risk(mlp()[0], ring()[0])
    with pytest.raises(error, match=says):
        minimise_many(risk, W, start)


def test_float32_stops_early_and_says_so():
    train, _ = ring()
    model, theta = mlp()
    risk = Risk(model, train.to(torch.float32), LOGISTIC, 0.02)
    with pytest.raises(NotConverged, match=r"gtol = 1e-09 of its scale.*float32 has few digits"):
        minimise(risk, theta.float(), gtol=1e-9)


@pytest.mark.parametrize(("kind", "name"), [(NotAMinimum, "theta"), (NotConverged, "theta"), (NotSolved, "X")])
def test_an_exception_comes_home_from_another_process(kind, name):
    back = pickle.loads(pickle.dumps(kind("stopped early", torch.ones(2))))
    assert type(back) is kind
    assert str(back) == "stopped early"
    torch.testing.assert_close(getattr(back, name), torch.ones(2))


def test_what_minimise_is_told_reaches_the_optimiser(trained):
    with pytest.raises(NotConverged, match=r"gtol = 1e-30 of its scale"):
        minimise(trained.risk, trained.theta, gtol=1e-30, max_steps=50)
    loose = minimise_many(trained.risk, trained.risk.uniform[None], trained.start, gtol=0.5, throw=False)
    assert loose.tolerance == pytest.approx(0.5 * HessianOperator(trained.risk, trained.start).scale)
    assert minimise_many(trained.risk, trained.risk.uniform[None], trained.theta).tolerance == pytest.approx(
        1e-9 * HessianOperator(trained.risk, trained.theta).scale
    )
    found = minimise_many(trained.risk, trained.risk.uniform[None], trained.start, max_steps=2, throw=False)
    assert found.certified.tolist() == [False] and float(found.gradient_norms) > found.tolerance
    start, weights = trained.start.clone().requires_grad_(True), trained.risk.uniform.requires_grad_(True)
    assert not minimise(trained.risk, start, weights).theta.requires_grad
    assert not minimise_many(trained.risk, weights.detach()[None], start).thetas.requires_grad
    assert torch.equal(start, trained.start)


class Counting:
    """A model that counts its calls."""

    def __init__(self, model):
        self.model, self.p, self.calls = model, model.p, 0

    def __call__(self, theta, X):
        self.calls += 1
        return self.model(theta, X)


def test_the_preconditioner_saves_most_of_the_work(trained):
    """As a matrix and as an operator; each retraining begins with ``-H⁻¹∇R``."""
    W = leave_out_weights(60, device=trained.theta.device)[:5]
    calls = []
    for P in (None, trained.risk.hessian(trained.theta), HessianOperator(trained.risk, trained.theta)):
        model = Counting(trained.model)
        risk = Risk(model, trained.train, l2=0.02)
        risk(trained.theta)
        model.calls = 0
        found = minimise_many(risk, W, trained.theta, preconditioner=P)
        assert found.certified.all()
        calls.append(model.calls)
    assert max(calls[1:]) < 0.6 * calls[0]


@pytest.mark.parametrize("preconditioned", [True, False])
def test_the_smallest_eigenvalue_of_a_large_model_is_a_lower_bound(monkeypatch, preconditioned):
    """Of a known spectrum, with ½ as the preconditioner, whose own eigenvalues leave no doubt."""
    d = torch.cat([torch.linspace(1.0, 2.0, 25), torch.linspace(2.0, 60.0, 15)]).double()
    X = torch.diag((40 * d).sqrt())
    risk = Risk(linear_model(40), Data(X, X[:, 0]), SQUARED_ERROR, 0.05)
    P = 0.5 * torch.eye(40).double() if preconditioned else None
    whole = minimise_many(risk, risk.uniform[None], torch.zeros(40).double())
    assert float(whole.smallest_eigenvalues) == pytest.approx(1.1)
    few_are_many(monkeypatch)
    found = minimise_many(risk, risk.uniform[None], torch.zeros(40).double(), preconditioner=P)
    torch.testing.assert_close(found.thetas, whole.thetas, rtol=1e-7, atol=1e-9)
    if preconditioned:
        assert 0.75 < float(found.smallest_eigenvalues) < 1.1 - 1e-6
    else:
        assert float(found.smallest_eigenvalues) == pytest.approx(1.1, rel=0.1)


def test_the_line_search_stays_in_the_first_valley():
    """``R = θ⁴/4 - θ³/3 - θ²`` falls from 1e-3 towards 2 and, the other way, to -1: from each side its own minimum."""
    quartic = Loss(lambda f, y: f**4 / 4 - f**3 / 3 - f**2)
    risk = Risk(linear_model(1), Data(torch.ones(2, 1).double(), torch.zeros(2).double()), quartic)
    starts = torch.tensor([[1e-3], [-1e-3], [30.0], [-30.0], [1.9]]).double()
    found = minimise_many(risk, risk.uniform.expand(5, -1), starts)
    torch.testing.assert_close(found.thetas[:, 0], torch.tensor([2.0, -1.0, 2.0, -1.0, 2.0]).double())
    torch.testing.assert_close(
        found.smallest_eigenvalues, torch.tensor([6.0, 3.0, 6.0, 3.0, 6.0]).double(), rtol=1e-4, atol=0
    )


@pytest.mark.parametrize("unit", [1e-17, 1.6e-19, 1e-25])
def test_targets_in_any_unit_from_any_start(unit):
    X = torch.randn(30, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = unit * X[:, 0]
    found = minimise(of_one_number(SQUARED_ERROR, y, 0.01, X), torch.tensor([0.3, -0.2, 0.5]).double())
    right = torch.linalg.solve(X.T @ X / 30 + 0.02 * torch.eye(3).double(), X.T @ y / 30)
    assert (found.theta - right).norm() < 1e-9 * right.norm()
