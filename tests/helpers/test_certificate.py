"""What is a minimum, and what is said of a point that is none."""

from functools import partial

import pytest
import torch
from torch import nn

from helpers import (
    LOGISTIC,
    SQUARED_ERROR,
    Data,
    HessianOperator,
    Loss,
    NotAMinimum,
    NotConverged,
    NotPositiveDefinite,
    NotStationary,
    Risk,
    block_conjugate_gradients,
    certificate,
    certify,
    cholesky_solve,
    conjugate_gradients,
    cross_validated_losses,
    direct,
    fix_gauge,
    flatten,
    influence,
    leave_one_out,
    leave_out_weights,
    minimise,
    minimise_many,
    pseudo_inverse,
)
from tests.helpers.closed_forms import Ridge, linear_model, of_one_number, saddle

SOLVERS = (direct, conjugate_gradients, block_conjugate_gradients, pseudo_inverse)


def test_a_certificate_is_earned(trained):
    certificate = certify(trained.risk, trained.theta)
    assert certificate.gradient_norm == float(trained.risk.gradient(trained.theta).norm())
    H = trained.risk.hessian(trained.theta)
    assert certificate.smallest_eigenvalue == pytest.approx(float(torch.linalg.eigvalsh(H)[0]))


def test_a_point_that_is_not_stationary_gets_no_certificate(trained):
    theta = trained.theta + 1e-3
    norm = float(trained.risk.gradient(theta).norm())
    with pytest.raises(NotStationary, match=rf"not stationary: its gradient norm is {norm:.1e}, .* gtol = 1e-09"):
        certify(trained.risk, theta)
    with pytest.raises(NotStationary, match="pass the weights that theta was trained with"):
        certify(trained.risk, trained.theta, leave_out_weights(60, device=theta.device)[0])


def test_a_saddle_gets_no_certificate():
    risk, theta = saddle()
    smallest = float(torch.linalg.eigvalsh(risk.hessian(theta))[0])
    assert smallest < -0.01
    with pytest.raises(NotAMinimum, match=rf"no minimum: the smallest eigenvalue .* is {smallest:.2e}") as stopped:
        certify(risk, theta)
    assert torch.equal(stopped.value.theta, theta)
    with pytest.raises(NotAMinimum, match="smallest eigenvalue"):
        minimise(risk, theta)


def test_an_eigenvalue_must_exceed_its_rounding_and_the_minimum_be_near():
    eps, theta = torch.finfo(torch.float64).eps, torch.zeros(100).double()
    d = torch.tensor([[1300 * eps, 1.0], [1500 * eps, 1.0], [-0.1, 1.0], [0.1, 1.0]]).double()
    assert certificate.is_minimum(theta, 0.0, d).tolist() == [False, True, False, True]
    assert certificate.is_minimum(theta, torch.tensor([0, 0, 0, 0.9e-3]).double(), d)[3]
    assert not certificate.is_minimum(theta, torch.tensor([0, 0, 0, 1.1e-3]).double(), d)[3]


def off_by(ridge, part):
    """A point where ``‖∇R‖`` is this part of its scale."""
    direction = torch.linalg.solve(ridge.hessian(ridge.uniform), torch.ones(ridge.p).double())
    unit = float(ridge.risk.gradient(ridge.theta + direction).norm())
    return ridge.theta + part * HessianOperator(ridge.risk, ridge.theta).scale / unit * direction


def test_how_small_a_gradient_must_be():
    """In float64: 1e-9 of its scale for a certificate, 1e-6 where theta is brought along, or what is asked for."""
    ridge = Ridge()
    for part, fits in ((0.9, True), (1.1, False)):
        for use, gtol in (
            (lambda theta: certify(ridge.risk, theta), 1e-9),
            (lambda theta: certify(ridge.risk, theta, gtol=1e-3), 1e-3),
            (lambda theta: influence(ridge.risk, theta, ridge.test), 1e-6),
            (lambda theta: influence(ridge.risk, theta, ridge.test, gtol=1e-4), 1e-4),
            (lambda theta: fix_gauge(ridge.risk, theta), 1e-6),
        ):
            theta = off_by(ridge, part * gtol)
            if fits:
                use(theta)
            else:
                with pytest.raises(NotStationary, match=f"gtol = {gtol:.0e} of it"):
                    use(theta)


def test_how_small_a_gradient_must_be_in_float32():
    ridge = Ridge()
    risk, test = ridge.risk.to(torch.float32), ridge.test.to(torch.float32)
    for use, gtol in ((lambda t: influence(risk, t, test), 1e-4), (lambda t: certify(risk, t), 1e-5)):
        use(off_by(ridge, 0.8 * gtol).float())
        with pytest.raises(NotStationary):
            use(off_by(ridge, 1.2 * gtol).float())


def test_a_certified_minimum_is_remembered_and_only_that(trained):
    """`influence` then does not look for a negative eigenvalue once more."""
    W = leave_out_weights(60, device=trained.theta.device)[:2]
    for certified in (
        lambda risk: certify(risk, trained.theta).theta,
        lambda risk: minimise(risk, trained.theta).theta,
    ):
        risk = Risk(trained.model, trained.train, l2=0.02)
        assert not risk.is_known_minimum(trained.theta, None)
        assert risk.is_known_minimum(certified(risk), None)
    assert not risk.is_known_minimum(minimise_many(risk, W, trained.theta).thetas[0], W[1])
    with pytest.raises(NotAMinimum):
        certify(*saddle())
    risk, theta = saddle()
    assert not risk.is_known_minimum(theta, None)


def test_the_pinned_direction_is_as_stiff_as_the_softest_of_the_others():
    """Two equal columns and a third: ``H`` has the eigenvalues 0, of ``(1, -1, 0)``, and two others, known in full."""
    x, z = (torch.randn(20, generator=torch.Generator().manual_seed(k), dtype=torch.float64) for k in (0, 1))
    X = torch.stack([x, x, z], 1)
    risk = Risk(linear_model(3), Data(X, x + 0.3 * z + 1), SQUARED_ERROR)
    flat = torch.tensor([1.0, -1.0, 0.0]).double() / 2**0.5
    theta = torch.linalg.lstsq(X, risk.data.y[:, None], driver="gelsd").solution[:, 0] + 0.3 * flat  # anywhere in it
    d = torch.linalg.eigvalsh(X.T @ X / 20)
    pinned = fix_gauge(risk, theta)
    expected = X.T @ X / 20 + d[1] * torch.outer(flat, flat)
    torch.testing.assert_close(pinned.hessian(theta), expected, rtol=1e-9, atol=1e-10)
    assert float(pinned(theta)) == pytest.approx(float(risk(theta)))
    moved = theta + 0.5 * flat
    assert float(pinned(moved) - risk(moved)) == pytest.approx(float(d[1]) / 8)


def zeros(p):
    return torch.zeros(p).double()


def test_a_point_that_sits_on_a_kink_is_none():
    """|f - y| where many y are 0: autograd takes 0 for the slope at the kink, and to both sides it is ±1/3."""
    risk, theta = of_one_number(Loss(lambda f, y: (f - y).abs()), torch.tensor([0, 0, 0, 2, -1]), l2=0.01), zeros(1)
    for look in (certify, minimise):
        with pytest.raises(NotAMinimum, match="kink"):
            look(risk, theta)
    for look in (lambda *at: influence(*at, risk.data), leave_one_out):
        with pytest.raises(NotStationary, match="kink"):
            look(risk, theta)
    far = of_one_number(Loss(lambda f, y: (f - y).abs()), torch.tensor([0, 0, 0, 2, -1]) + 100)
    with pytest.raises(NotAMinimum, match="kink"):
        certify(far, zeros(1) + 100)


def test_a_loss_without_curvature_is_called_so():
    """Every number between the two in the middle is a median."""
    risk = of_one_number(Loss(lambda f, y: (f - y).abs()), torch.tensor([0, 1, 2, 3]))
    with pytest.raises(NotAMinimum, match=r"its Hessian is zero: a loss without curvature"):
        certify(risk, zeros(1) + 1.5)


def test_a_steep_smooth_minimum_has_no_kink():
    """Poisson regression on a feature of some 5e4, in float32: far beside the minimum the exponential runs away."""
    x = torch.rand(200, 1, generator=torch.Generator().manual_seed(0)) * 5e4
    y = (2e-5 * x[:, 0]).exp().round()
    model, _ = flatten(torch.nn.Linear(1, 1, bias=False))
    poisson = Loss(lambda f, y: f.exp() - y * f)
    found = minimise(Risk(model, Data(x.double() / 5e4, y.double()), poisson), zeros(1))
    risk, theta = Risk(model, Data(x, y), poisson), (found.theta / 5e4).float()
    certify(risk, theta, gtol=1e-4)
    assert torch.isfinite(influence(risk, theta, risk.data[:2])).all()


def test_a_loss_that_ends_beside_theta_is_no_reason_to_refuse():
    """``f - y log f`` where one of 4,000 outputs is 2e-4."""
    x = torch.ones(4000, 1).double()
    x[2000] = 2e-4
    noise = torch.Generator().manual_seed(0)
    X = torch.cat([x, 1e-2 * torch.randn(4000, 1, generator=noise, dtype=torch.float64)], 1)
    X[2000, 1] = 0.5
    risk = of_one_number(Loss(lambda f, y: f - y * f.log()), x[:, 0], X=X)
    assert torch.isfinite(risk.losses(torch.tensor([1.0, 0]).double())).all()


@pytest.mark.parametrize("steps", [18, 22])
@pytest.mark.parametrize("unit", [1, 100])
def test_where_the_risk_only_falls_no_minimum_is_near(steps, unit):
    """One feature that only class 1 has: Newton's step keeps its length for ever, and the gradient vanishes."""
    generator = torch.Generator().manual_seed(0)
    x, noise = torch.randn(2, 60, generator=generator, dtype=torch.float64)
    y = (x + noise > 0).double()
    dummy = torch.zeros(60).double()
    dummy[y.nonzero().flatten()[:4]] = unit
    risk, theta = of_one_number(LOGISTIC, y, X=torch.stack([x, dummy], 1)), zeros(2)
    for _ in range(steps):
        theta = theta - torch.linalg.solve(risk.hessian(theta), risk.gradient(theta))
    assert risk.gradient(theta).norm() < 1e-6 * HessianOperator(risk, theta).scale
    for look in (lambda *at: influence(*at, risk.data), cross_validated_losses, leave_one_out, fix_gauge):
        with pytest.raises(NotStationary, match="no minimum is near"):
            look(risk, theta)
    with pytest.raises(NotAMinimum, match="only falls"):
        certify(risk, theta, gtol=1e-6)


@pytest.mark.parametrize("y", [torch.ones(20), (torch.arange(20) > 9)])
def test_without_l2_separable_classes_have_no_minimum_and_the_message_says_so(y):
    risk = of_one_number(LOGISTIC, y, X=torch.arange(20)[:, None] - 9.5 if len(y.unique()) > 1 else None)
    with pytest.raises(NotConverged, match=r"only falls .* raise the L2"):
        minimise(risk, zeros(1))


@pytest.mark.parametrize("solve", [conjugate_gradients, block_conjugate_gradients])
def test_an_iterative_solver_sees_the_saddle_at_zero(solve):
    """Where theta is 0, no share of it says which eigenvalues are zero by rounding."""
    X = torch.randn(40, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = X[:, 0] * X[:, 1] + X[:, 0]
    model, _ = flatten(torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Tanh(), torch.nn.Linear(3, 1)))
    risk = Risk(model, Data(X, y - y.mean()), SQUARED_ERROR, l2=1e-3)
    with pytest.raises(NotPositiveDefinite, match="not positive definite"):
        influence(risk, zeros(13), risk.data[:2], solve=solve)


def bent(bend):
    """A risk of 60 examples, ``f = bend(θx)``; at example 31 the input is 0."""

    class Bent(nn.Linear):
        def forward(self, x):
            return bend(super().forward(x))

    X = torch.rand(60, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.5
    y = X[:, 0].clone()
    X[31] = 0
    return Risk(flatten(Bent(1, 1, bias=False))[0], Data(X, y), SQUARED_ERROR, l2=0.05)


@pytest.mark.parametrize(
    ("bend", "what"),
    [
        (lambda h: h.square().sqrt(), r"\[31\] have no finite derivative"),
        (lambda h: h.square().log(), r"examples \[31\] have no finite loss"),
        (lambda h: h.abs() ** 1.5, "no finite second derivative"),
    ],
)
def test_the_example_that_is_not_finite_is_named(bend, what):
    with pytest.raises((NotConverged, ValueError), match=what):
        minimise(bent(bend), zeros(1) + 0.7)


@pytest.mark.parametrize("seed", range(6))
def test_weights_that_l2_shrinks_to_nothing_have_no_minimum(seed):
    """With weight normalisation only the direction of ``v`` has an effect, and all that L2 does is to shorten it."""

    class Normalised(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(seed)
            self.v, self.last = nn.Parameter(torch.tensor([[0.5, 0.4], [-0.3, 0.8]])), nn.Linear(2, 1)

        def forward(self, x):
            return self.last(torch.tanh(x @ (self.v / self.v.norm(dim=1, keepdim=True)).T))

    X = torch.randn(30, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    model, start = flatten(Normalised())
    data = Data(X, torch.tanh(X[:, 0] + 0.5 * X[:, 1]))
    risk = Risk(model, data, SQUARED_ERROR, l2=0.01)
    with pytest.raises((NotConverged, NotAMinimum), match="as those before a normalisation") as stopped:
        minimise(risk, start)
    refusals = (NotStationary, NotAMinimum, NotPositiveDefinite)
    for look in (fix_gauge, certify, leave_one_out, *(partial(influence, test=data, solve=f) for f in SOLVERS)):
        with pytest.raises(refusals):
            look(risk, stopped.value.theta)

    without = Risk(model, data, SQUARED_ERROR, l2=lambda name: 0.0 if name == "v" else 0.01)
    with pytest.raises(NotAMinimum, match="fix_gauge" if seed != 5 else "bring the inputs to one scale") as stopped:
        minimise(without, start)
    if seed != 5:  # there the lengths of the two weights end nine orders of magnitude apart
        minimise(fix_gauge(without, stopped.value.theta), stopped.value.theta)


def test_a_hessian_that_is_not_finite_is_no_minimum_and_no_error_of_its_own():
    """``|f|^1.5`` has no second derivative at 0, where the output of example 31 is."""
    risk = bent(lambda h: h.abs() ** 1.5)
    W, start = leave_out_weights(60), zeros(1) + 0.7
    found = minimise_many(risk, W, start, throw=False)
    assert not found.certified.any()
    assert torch.isfinite(found.thetas).all()
    with pytest.raises((NotConverged, NotAMinimum), match=r"problem 0 .* no finite second derivative"):
        minimise_many(risk, W, start)


def test_an_eigenvalue_below_rounding_is_called_so():
    with pytest.raises(NotPositiveDefinite, match=r"1.5.e-14, nothing but rounding"):
        cholesky_solve(torch.tensor([[1.0, 1.0], [1.0, 1.0 + 3e-14]], dtype=torch.float64), zeros(2))
