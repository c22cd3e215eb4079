"""Ways to get a wrong influence without a word that were tried on the helpers, and worked once: each is right now, or
refused with its cause. The right values share no code with the helpers."""

import threading
import types

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

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
    NotStationary,
    Risk,
    Solution,
    argmin,
    audit,
    block_conjugate_gradients,
    certify,
    conjugate_gradients,
    cross_validated_losses,
    direct,
    fix_gauge,
    flatten,
    influence,
    leave_group_out,
    leave_one_out,
    leverage,
    lissa,
    minimise,
    minimise_many,
    pseudo_inverse,
    refined,
    standard_errors,
)
from tests.helpers.closed_forms import Ridge, linear_model


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def regression(X, y, test=None, l2=0.0):
    """Least squares with an intercept, its exact minimum, and its influences on the first three examples, or `test`."""
    A = torch.cat([X, torch.ones(len(X), 1).double()], 1)
    A_test, y_test = (A[:3], y[:3]) if test is None else (torch.cat([test[0], torch.ones(len(test[0]), 1)], 1), test[1])
    unit = A.norm(dim=0) / len(A) ** 0.5
    H = (A / unit).T @ (A / unit) / len(A) + 2 * l2 * torch.diag(unit**-2)
    theta = torch.linalg.solve(H, (A / unit).T @ y / len(A)) / unit
    g, g_test = (A @ theta - y)[:, None] * A / unit, (A_test @ theta - y_test)[:, None] * A_test / unit
    risk = Risk(flatten(nn.Linear(X.shape[1], 1))[0], Data(X, y), SQUARED_ERROR, l2)
    return risk, theta, Data(A_test[:, :-1], y_test), -g_test @ torch.linalg.solve(H, g.T)


def mixed(n=60):
    """An income, a yes or no, and what they explain."""
    X = torch.stack([1e5 * (1 + randn(n).abs()), (randn(n, seed=1) > 0).double()], 1)
    return X, 1e-5 * X[:, 0] + X[:, 1] + 0.3 * randn(n, seed=2)


# ---------------------------------------------------------------------------------------------- what counts as theta


class Cell(nn.Module):
    def __init__(self, forward):
        super().__init__()
        self.w, self.kept = nn.Parameter(torch.tensor([0.3, -0.2, 0.5]).double()), None
        self._forward = forward

    def forward(self, x):
        return self._forward(self, x)


def test_a_loss_with_parameters_of_its_own_is_refused():
    """They would be taken for constants, and the influence for that at a fixed σ."""
    log_sigma = nn.Parameter(torch.zeros((), dtype=torch.float64))
    X, y = randn(20, 3), randn(20, seed=1)
    loss = Loss(lambda f, y: 0.5 * ((f - y) / log_sigma.exp()).square() + log_sigma)
    with pytest.raises(ValueError, match="not in theta: parameters of the loss"):
        minimise(Risk(linear_model(3), Data(X, y), loss, 0.1), torch.zeros(3).double())
    log_sigma.requires_grad_(False)
    minimise(Risk(linear_model(3), Data(X, y), loss, 0.1), torch.zeros(3).double())


def test_l2_inside_the_loss_and_a_lambda_over_the_module_are_refused():
    X, y = randn(20, 3), randn(20, seed=1)
    module = nn.Linear(3, 1, bias=False).double()
    model, start = flatten(module)
    penal = Loss(lambda f, y: 0.5 * (f - y).square() + 0.1 * module.weight.square().sum())
    with pytest.raises(ValueError, match="leave the L2 term to the risk"):
        minimise(Risk(model, Data(X, y), penal), start)
    tied = nn.Module()
    tied.encode = nn.Linear(3, 1, bias=False).double()
    tied.decode = lambda h: h @ tied.encode.weight
    tied.forward = lambda x: tied.decode(tied.encode(x)).sum(1)
    with pytest.raises(ValueError, match="a lambda that it holds"):
        minimise(Risk(flatten(tied)[0], Data(X, y), SQUARED_ERROR, 0.1), torch.ones(3).double())


def test_a_weight_that_the_module_keeps_is_computed_for_each_theta(close):
    """Kept from the first call, it would be that of another theta."""

    def keeping(self, x):
        if self.kept is None:
            self.kept = F.softplus(self.w)
        return x @ self.kept

    X, y = randn(20, 3), randn(20, seed=1)
    models = [flatten(Cell(f))[0] for f in (keeping, lambda self, x: x @ F.softplus(self.w))]
    kept, plain = (Risk(model, Data(X, y), SQUARED_ERROR, 0.1) for model in models)
    theta = minimise(kept, torch.zeros(3).double()).theta
    close(theta, minimise(plain, torch.zeros(3).double()).theta)
    close(influence(kept, theta, kept.data[:3]), influence(plain, theta, kept.data[:3]))
    with parametrize.cached(), pytest.raises(ValueError, match=r"parametrize\.cached\(\)"):
        kept(theta)


def test_gradients_that_are_replaced_for_a_few_examples_are_seen():
    """Weights min(1, c/ℓ), detached: of 300 examples, only those whose loss exceeds c have another derivative."""
    X = randn(300, 2)
    y = (torch.rand(300, generator=torch.Generator().manual_seed(1)) < torch.sigmoid(3 * X[:, 0]).float()).double()

    def robust(f, y):
        loss = F.binary_cross_entropy_with_logits(f, y, reduction="none")
        return (1.5 / loss).clamp(max=1).detach() * loss

    few = torch.arange(300).repeat(2)[torch.linspace(0, 299, 8).long()]
    theta = torch.tensor([3.0, 0.0]).double()
    assert 3 <= int((LOGISTIC.of(X @ theta, y) > 1.5).sum()) <= 60
    assert len(few) == 8
    with pytest.raises(ValueError, match="gradient is not the derivative of the loss"):
        Risk(linear_model(2), Data(X, y), Loss(robust), 0.01)(theta)
    Risk(linear_model(2), Data(X, y), LOGISTIC, 0.01)(theta)


# ------------------------------------------------------------------------------------- what the data do not determine


@pytest.mark.parametrize("case", ["a category that is never seen", "more parameters than examples"])
def test_a_gauge_answers_no_question_that_has_no_answer(case):
    """Training decides nothing along a flat direction. A test loss that changes along it has no one influence."""
    X, test = (randn(40, 3), randn(3, 3, seed=9)) if case.startswith("a cat") else (randn(6, 9), randn(3, 9, seed=9))
    if case.startswith("a cat"):
        X[:, 2] = 0.0
    y = randn(len(X), seed=1)
    risk = Risk(linear_model(X.shape[1]), Data(X, y), SQUARED_ERROR)
    start = randn(X.shape[1], seed=3)
    with pytest.raises(NotAMinimum, match="the training data do not determine") as stopped:
        minimise(risk, start)
    pinned, theta = fix_gauge(risk, stopped.value.theta), stopped.value.theta
    unseen, seen = Data(test, randn(3, seed=4)), risk.data[:3]
    for ask in (
        lambda data: influence(pinned, theta, data),
        lambda data: influence(risk, theta, data, solve=pseudo_inverse),
        lambda data: standard_errors(pinned, theta, data, kind="HC0"),
    ):
        ask(seen)
        with pytest.raises(NotPositiveDefinite, match="a test loss changes where no training loss does"):
            ask(unseen)
    with pytest.raises(NotPositiveDefinite, match="a test loss changes"):
        audit(pinned, theta, unseen, retrain=3)
    minimise(Risk(risk.model, risk.data, SQUARED_ERROR, l2=0.01), start)  # the other remedy


@pytest.mark.parametrize("l2", [1e-7, 1e-9, 1e-11])
def test_next_to_no_l2_is_some(l2, close):
    """Along directions that only L2 holds there is a force, along those of a symmetry none."""
    X, y = randn(20, 40), randn(20, seed=1)
    exact = X.T @ torch.linalg.solve(X @ X.T / 20 + 2 * l2 * torch.eye(20), y / 20)
    risk = Risk(linear_model(40), Data(X, y), SQUARED_ERROR, l2)
    close(minimise(risk, randn(40, seed=2)).theta, exact, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("value", [1.0, 3.7, 0.013])
def test_an_example_alone_with_its_feature_has_leverage_one(value):
    """Whatever rounding makes of it: without the example nothing determines the coefficient."""
    X = torch.cat([randn(12, 1), torch.zeros(12, 1).double()], 1)
    X[4, 1] = value
    risk, theta, _, _ = regression(X, randn(12, seed=1))
    with pytest.raises(ValueError, match=r"examples \[4\] hold their outputs alone"):
        cross_validated_losses(risk, theta)


# --------------------------------------------------------------------------------------------------- units and scales


def test_a_gradient_small_beside_another_unit_is_one(close):
    """The coefficient of a yes or no is off by 0.02, and the gradient is a billionth of what an income gives."""
    risk, theta, test, expected = regression(*mixed())
    close(influence(risk, theta, test), expected, rtol=1e-9)
    A = torch.cat([risk.data.X, torch.ones(60, 1).double()], 1)
    off = theta + torch.tensor([0.0, 0.02, 0.0]).double()
    rest = torch.linalg.lstsq(A[:, [0, 2]], risk.data.y - A[:, 1] * off[1]).solution  # the two others at their best
    off[0], off[2] = rest
    assert risk.gradient(off).norm() < 1e-6 * HessianOperator(risk, off).scale
    with pytest.raises(NotStationary, match="no minimum is near"):
        influence(risk, off, test)


@pytest.mark.parametrize("offset", [1e6, 1.7e9])
def test_residuals_are_what_influences_are_made_of(offset, close):
    """The minimum to seven digits is near beside targets of a million, and far beside residuals of one."""
    X, y = randn(30, 3), offset + randn(30, seed=1)
    risk, theta, test, expected = regression(X, y)
    close(influence(risk, theta, test), expected, rtol=1e-5, atol=1e-5)
    rounded = theta.float().double()
    assert risk.gradient(rounded).norm() < 1e-6 * HessianOperator(risk, rounded).scale
    with pytest.raises(NotStationary):
        influence(risk, rounded, test)


@pytest.mark.parametrize("spread", [1e7, 1e4])
def test_a_time_stamp_and_an_intercept(spread, close):
    """Nearly dependent columns, in units of a billion: right by the matrix in units of its own, never pinned."""
    stamps = 1.6e9 + spread * randn(60, 1)
    risk, theta, test, expected = regression(stamps, (stamps[:, 0] - 1.6e9) / spread + randn(60, seed=1))
    close(influence(risk, theta, test, solve=pseudo_inverse), expected, rtol=1e-3, atol=1e-3)
    with pytest.raises((NotAMinimum, NotConverged)) as stopped:
        minimise(risk, torch.zeros(2).double())
    assert "symmetry" not in str(stopped.value)
    with pytest.raises((NotAMinimum, NotStationary)):
        leave_one_out(fix_gauge(risk, stopped.value.theta), stopped.value.theta)


def test_a_feature_so_small_that_training_falls_asleep_is_no_symmetry():
    risk = Risk(linear_model(3), Data(randn(40, 3) * torch.tensor([1.0, 1.0, 1e-9]), randn(40, seed=1)), SQUARED_ERROR)
    with pytest.raises((NotAMinimum, NotConverged), match="bring the inputs to one scale") as stopped:
        minimise(risk, torch.zeros(3).double())
    with pytest.raises((NotAMinimum, NotStationary)):
        fix_gauge(risk, stopped.value.theta)


@pytest.mark.parametrize("degree", [10, 12])
def test_powers_of_a_number_leave_no_digits(degree):
    """The Hessian of a polynomial is singular to rounding in any units: no solver answers."""
    x = torch.linspace(0.0, 1.0, 60, dtype=torch.float64)
    X = torch.stack([x**k for k in range(1, degree + 1)], 1)
    risk, theta, test, _ = regression(X, torch.sin(6 * x) + 0.1 * randn(60))
    theta = torch.linalg.lstsq(torch.cat([X, torch.ones(60, 1).double()], 1), risk.data.y).solution
    for solve in (pseudo_inverse, conjugate_gradients):
        with pytest.raises((NotPositiveDefinite, NotStationary, NotSolved)):
            influence(risk, theta, test, solve=solve)
    with pytest.raises((NotPositiveDefinite, NotStationary)):
        influence(risk, theta, test)


def test_a_solver_that_leaves_a_parameter_out_is_told(close):
    """LiSSA's steps hardly move a parameter that is 10¹⁰ times softer, and neither residual nor change shows it."""
    ridge, units = Ridge(n=40, l2=0.0, seed=1), torch.tensor([1.0, 1.0, 1e-5], dtype=torch.float64)
    risk = Risk(linear_model(3), Data(ridge.X * units, ridge.y), SQUARED_ERROR)
    theta, test = ridge.theta / units, Data(ridge.test.X * units, ridge.test.y)
    H = HessianOperator(risk, theta)
    B = risk.gradients(theta, test).T
    said = lissa(H, B, scale=2.0, depth=500)
    assert said.residuals.max() < 0.1
    with pytest.raises(NotSolved, match="if all parameters count alike"):
        influence(risk, theta, test, solve=lambda H, B: lissa(H, B, scale=2.0, depth=500))
    factor = torch.linalg.cholesky(risk.hessian(theta))
    half_heard = B * torch.tensor([[1.0], [1.0], [0.5]])
    exact, lie = (torch.cholesky_solve(heard, factor) for heard in (B, half_heard))
    for X, right in ((exact, True), (lie, False)):
        says = Solution(X, torch.full((4,), 1e-4), 0)  # which is true of both
        if right:
            close(influence(risk, theta, test, solve=lambda H, B, says=says: says), influence(risk, theta, test))
        else:
            with pytest.raises(NotSolved, match="some are hardly solved for"):
                influence(risk, theta, test, solve=lambda H, B, says=says: says)


def test_an_example_without_weight_sets_no_scale():
    """A sentinel in the place of a missing target, with weight 0."""
    X, y = randn(40, 3), randn(40, seed=1)
    y[0] = -9999.0
    w = torch.full((40,), 1 / 39).double()
    w[0] = 0.0
    ridge, rest = (Risk(linear_model(3), data, SQUARED_ERROR, 0.1) for data in (Data(X, y), Data(X[1:], y[1:])))
    theta = minimise(ridge, torch.zeros(3).double(), w).theta
    assert HessianOperator(ridge, theta, w).scale < 2 * HessianOperator(rest, theta).scale
    with pytest.raises(NotStationary):
        influence(ridge, theta + 1e-4, rest.data[:2], weights=w)


def test_no_residual_at_all_is_a_minimum():
    """All targets 0, and theta nearly so: what is left of the gradient is 1e-60 of anything."""
    for model, y in ((linear_model(3), torch.zeros(20)), (linear_model(3), torch.zeros(20))):
        risk = Risk(model, Data(randn(20, 3), y.double()), SQUARED_ERROR, 0.1)
        theta = minimise(risk, torch.ones(3).double()).theta
        assert influence(risk, theta, risk.data[:2]).abs().max() < 1e-30
        with pytest.raises(NotStationary):
            influence(risk, theta + 1e-3, risk.data[:2])


def test_more_digits_than_there_are():
    ridge = Ridge()
    with pytest.raises(NotConverged, match="what is left is rounding, so use a larger gtol"):
        minimise(ridge.risk, torch.zeros(3).double(), gtol=1e-19)
    for gtol in (0.0, -1.0, float("nan")):
        for ask in (
            lambda gtol: minimise(ridge.risk, ridge.theta, gtol=gtol),
            lambda gtol: certify(ridge.risk, ridge.theta, gtol=gtol),
            lambda gtol: influence(ridge.risk, ridge.theta, ridge.test, gtol=gtol),
            lambda gtol: leave_one_out(ridge.risk, ridge.theta, gtol=gtol),
        ):
            with pytest.raises(ValueError, match=r"gtol = .* must be positive"):
                ask(gtol)


# ------------------------------------------------------------------------------------------ what torch leaves unsaid


class Cube(torch.autograd.Function):
    """A function as people write it, without a rule for vmap."""

    @staticmethod
    def forward(x):
        return x**3

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, g):
        return 3 * ctx.saved_tensors[0] ** 2 * g


def test_what_has_no_rule_for_vmap_is_taken_one_by_one(close):
    risks = [
        Risk(flatten(Cell(f))[0], Data(randn(20, 3), randn(20, seed=1)), SQUARED_ERROR, 0.1)
        for f in (lambda self, x: Cube.apply(x @ self.w), lambda self, x: (x @ self.w) ** 3)
    ]
    theta = minimise(risks[1], torch.full((3,), 0.5).double()).theta
    one, other = (influence(risk, theta, risk.data[:3], solve=conjugate_gradients) for risk in risks)
    close(one, other, rtol=1e-6)


def test_a_forward_that_differentiates(close):
    """As physics-informed networks do: f'(x) of the model is its output."""
    net = nn.Sequential(nn.Linear(1, 4), nn.Tanh(), nn.Linear(4, 1)).double()

    class Slope(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x):
            return torch.func.vmap(torch.func.grad(lambda t: self.net(t)[0]))(x)[:, 0]

    X, y = randn(20, 1), randn(20, seed=1)
    model, start = flatten(Slope())
    risk = Risk(model, Data(X, y), SQUARED_ERROR, 0.1)
    found = influence(risk, minimise(risk, start).theta, risk.data[:2])
    assert torch.isfinite(found).all()
    assert found.abs().max() > 0


def test_targets_of_any_kind(close):
    X, y = randn(20, 3), randn(20, seed=1)
    plain = Risk(linear_model(3), Data(X, y), SQUARED_ERROR, 0.1)
    theta = minimise(plain, torch.zeros(3).double()).theta
    expected = influence(plain, theta, plain.data[:3])
    for targets, loss in (
        (torch.complex(y, 0 * y), lambda f, y: 0.5 * (f - y.real).square()),
        (torch.zeros(20, 0).double(), lambda f, y: 0.5 * f.square()),
    ):
        risk = Risk(linear_model(3), Data(X, targets), Loss(loss), 0.1)
        at = minimise(risk, torch.ones(3).double()).theta
        found = influence(risk, theta if targets.is_complex() else at, risk.data[:3])
        if targets.is_complex():
            close(found, expected)
    labels = torch.arange(20) % 3
    model, start = flatten(nn.Linear(3, 3))
    theta = minimise(Risk(model, Data(X, labels), CROSS_ENTROPY, 0.1), start).theta
    for kind in (torch.uint8, torch.uint16, torch.int32):
        assert minimise(Risk(model, Data(X, labels.to(kind)), CROSS_ENTROPY, 0.1), start).theta.equal(theta)
    counted = Loss(
        lambda f, y: -(F.one_hot(y) * f.log_softmax(1)).sum(1)
    )  # as many classes as the batch happens to have
    with pytest.raises(ValueError, match=r"cannot take X \(1, 3\)"):
        minimise(Risk(model, Data(X, labels), counted, 0.1), start)


def test_a_loss_that_ends_beside_theta_can_be_used_at_it(close):
    """Rates of an exponential near zero: a little aside, one is negative."""
    times = 5000 * (1 + randn(30).abs())
    loss = Loss(lambda rate, t: rate * t - rate.log())
    model, _ = flatten(nn.Linear(1, 1, bias=False))
    risk = Risk(model, Data(torch.ones(30, 1).double(), times), loss)
    theta = 1 / times.mean()[None]
    expected = -(times[:2, None] - times.mean()) * (times - times.mean()) / times.mean() ** 2
    close(influence(risk, theta, risk.data[:2]), expected)


def test_what_a_solver_returns_is_named():
    ridge = Ridge()
    for wrong, error, says in (
        (lambda H, B: torch.linalg.solve(H.matrix, B).numpy(), TypeError, "what the solver returned is a ndarray"),
        (lambda H, B: None, TypeError, "what the solver returned is a NoneType"),
        (lambda H, B: torch.linalg.solve(H.matrix, B).float(), TypeError, "the solver returned torch.float32"),
    ):
        with pytest.raises(error, match=says):
            influence(ridge.risk, ridge.theta, ridge.test, solve=wrong)
    influence(
        ridge.risk, ridge.theta, ridge.test, solve=lambda H, B: Solution(torch.linalg.solve(H.matrix, B), 1e-9, 0)
    )


def test_argmin_is_not_for_transforms():
    ridge = Ridge()
    with pytest.raises(RuntimeError, match=r"argmin is for backward\(\)"):
        torch.func.jacrev(lambda w: argmin(ridge.risk, ridge.theta, w))(ridge.uniform)
    with pytest.raises(RuntimeError, match="one vector at a time"):
        torch.autograd.functional.jacobian(lambda w: argmin(ridge.risk, ridge.theta, w), ridge.uniform, vectorize=True)


def test_a_batch_may_be_any_whole_number(close):
    numpy = pytest.importorskip("numpy")
    ridge = Ridge()
    risk = Risk(ridge.risk.model, ridge.risk.data, SQUARED_ERROR, ridge.l2, batch=numpy.int64(5))
    close(influence(risk, ridge.theta, ridge.test), influence(ridge.risk, ridge.theta, ridge.test))


def test_threads_take_turns(close):
    """A module that is called holds other parameters than its own, and forward mode belongs to the process."""
    ridges = [Ridge(seed=seed) for seed in (0, 1)]
    expected = [influence(ridge.risk, ridge.theta, ridge.test) for ridge in ridges]
    wrong = []

    def work(k):
        for _ in range(60):
            try:
                found = influence(ridges[k].risk, ridges[k].theta, ridges[k].test)
                if (found - expected[k]).abs().max() > 1e-9:
                    wrong.append(k)
            except Exception as error:
                wrong.append(error)

    threads = [threading.Thread(target=work, args=(k,)) for k in (0, 1, 0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_cluster_in_this_process_leaves_the_classes_as_they_are():
    """To unpack a class by value where it lives puts other functions in the place of its own."""
    distributed = pytest.importorskip("distributed")
    from helpers import influence_on

    home = types.ModuleType("nowhere")
    source = """
import torch
FACTOR = 1.0
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.zeros(3).double())
    def forward(self, x):
        return FACTOR * (x @ self.w)
"""
    exec(source, vars(home))  # a class that nobody can import travels by value
    risk = Risk(flatten(home.Net())[0], Data(randn(20, 3), randn(20, seed=1)), SQUARED_ERROR, 0.1)
    theta = minimise(risk, torch.zeros(3).double()).theta
    with (
        distributed.LocalCluster(n_workers=1, processes=False, dashboard_address=":0") as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        influence_on(client, risk, theta, risk.data[:2], chunk=1)
    assert home.Net.forward.__globals__ is vars(home)
    assert leverage(risk, theta).max() < 1


# --------------------------------------------------------------------------------------------------- the second round


def twins(apart, n=60):
    """Two columns that are nearly one, and a third."""
    a, noise, c = randn(n, 1), randn(n, 1, seed=1), randn(n, 1, seed=2)
    X = torch.cat([a, a + apart * noise, c], 1)
    return Data(X, a[:, 0] + c[:, 0] + 0.5 * randn(n, seed=3))


def test_nearly_dependent_columns_are_no_symmetry():
    """Along the difference of two twins slopes are small, and the curvature is the square of that."""
    risk = Risk(linear_model(3), twins(1e-6), SQUARED_ERROR)
    with pytest.raises(NotAMinimum, match="bring the inputs to one scale") as stopped:
        minimise(risk, torch.tensor([0.5, 0.5, 1.0]).double())
    theta = stopped.value.theta + 1e-8 * randn(3, seed=5)
    for ask in (
        lambda: influence(risk, theta, risk.data[:3], solve=pseudo_inverse),
        lambda: influence(fix_gauge(risk, theta), theta, risk.data[:3]),
    ):
        with pytest.raises((NotPositiveDefinite, NotAMinimum)):
            ask()


def test_a_loss_that_mixes_examples_only_where_training_ends():
    def loss(f, y):
        return 0.5 * (f - y).square() + 0.5 * F.relu(f.mean() - 2).square()

    X = 1 + 0.3 * randn(30, 1)
    data = Data(X, 4 * X[:, 0] + 0.5 * randn(30, seed=1))
    Risk(linear_model(1), data, Loss(loss))(torch.zeros(1).double())  # nothing to see there
    with pytest.raises(ValueError, match="depends on the other examples"):
        minimise(Risk(linear_model(1), data, Loss(loss)), torch.zeros(1).double())


def test_a_second_derivative_that_is_wrong_for_a_few_examples():
    """The slope is right, and a factor in it is taken for a constant."""

    def forward(self, x):
        f = x @ self.w
        few = x[:, 0] > 1.5
        cube = (f**2).detach() * f * 3 - 2 * (f**3).detach()  # as large as f³, and of the same slope
        return torch.where(few, f + 0.3 * cube, f)

    X = randn(300, 3)
    risk = Risk(flatten(Cell(forward))[0], Data(X, X @ torch.tensor([1.0, -0.5, 0.3]).double()), SQUARED_ERROR, 0.05)
    with pytest.raises((ValueError, NotStationary, NotAMinimum, NotConverged)) as refused:
        influence(risk, minimise(risk, torch.zeros(3).double()).theta, risk.data[:3])
    assert "not the derivative" in str(refused.value)


def test_flat_to_the_second_order_and_falling_beyond():
    """An adapter that begins at zero beside a trained line: no curvature, a cubic fall."""

    X = randn(60, 2)
    y = X @ torch.tensor([1.0, -0.5]).double() + 0.13 * X[:, 0] ** 3 + 0.5 * randn(60, seed=1)
    model, theta = flatten(Bent(torch.linalg.lstsq(X, y[:, None]).solution[:, 0]))
    risk = Risk(model, Data(X, y), SQUARED_ERROR)
    for solve in (pseudo_inverse, conjugate_gradients):
        with pytest.raises(NotPositiveDefinite):
            influence(risk, theta, risk.data[:3], solve=solve)
    with pytest.raises(NotAMinimum):
        fix_gauge(risk, theta)


class Bent(nn.Module):
    """``a·x + v tanh(u·x)`` with ``u = 0``."""

    def __init__(self, a):
        super().__init__()
        self.a, self.u = nn.Parameter(a.clone()), nn.Parameter(torch.zeros(2).double())
        self.v = nn.Parameter(torch.tensor(0.7).double())

    def forward(self, x):
        return x @ self.a + self.v * torch.tanh(x @ self.u)


@pytest.mark.parametrize("inputs", [20, 600])
def test_a_weak_saddle_is_no_symmetry(inputs):
    """Its negative eigenvalue is a ten-millionth of the largest, and theta is known to seven digits."""

    class Product(nn.Module):
        def __init__(self):
            super().__init__()
            self.w, self.uv = nn.Parameter(torch.zeros(inputs)), nn.Parameter(torch.zeros(2))

        def forward(self, x):
            return x @ self.w + 1e-6 * self.uv[0] * self.uv[1] * x[:, 0] ** 2

    X = randn(4 * inputs, inputs)
    y = X @ randn(inputs, seed=2) / inputs**0.5 + randn(len(X), seed=1) + 0.1 * X[:, 0] ** 2
    theta = torch.cat([torch.linalg.lstsq(X, y).solution, torch.zeros(2).double()]).float().double()
    risk = Risk(flatten(Product())[0], Data(X, y), SQUARED_ERROR)
    for solve in (pseudo_inverse, conjugate_gradients):
        with pytest.raises(NotPositiveDefinite):
            influence(risk, theta, risk.data[:2], solve=solve)


@pytest.mark.parametrize("solve", [direct, conjugate_gradients, block_conjugate_gradients])
def test_an_excess_that_few_products_do_not_see(solve):
    """Of 600 parameters two are twins, and training stopped between them: the gradient there is drowned by another."""
    n, p, apart = 900, 600, 1e-3
    Z = n**0.5 * torch.linalg.qr(randn(n, p))[0]
    X = Z.clone()
    X[:, 1] = Z[:, 0] + apart * Z[:, 1]
    y = X @ torch.ones(p, dtype=torch.float64) + 0.05 * randn(n, seed=1)
    best = torch.linalg.lstsq(Z, y).solution  # in the basis of Z
    theta = best.clone()
    theta[0], theta[1] = best[0] - best[1] / apart, best[1] / apart
    risk = Risk(linear_model(p), Data(X, y), SQUARED_ERROR)
    influence(risk, theta, risk.data[:2], solve=solve)
    off = theta.clone()
    off[0], off[1] = off[0] - 0.1, off[1] + 0.1
    off[2:] += 5e-8 * randn(p - 2, seed=4)
    assert risk.gradient(off).norm() < 1e-6 * HessianOperator(risk, off).scale
    with pytest.raises(NotStationary, match="falls more and more slowly"):
        influence(risk, off, risk.data[:2], solve=solve)


@pytest.mark.parametrize("constant", [1e9, 1e12])
def test_a_large_constant_in_the_loss_changes_nothing(constant, close):
    ridge = Ridge()
    loss = Loss(lambda f, y: constant + 0.5 * (f - y).square())
    test = ridge.risk.data[:3]
    close(influence(ridge.risk.but(loss=loss), ridge.theta, test), influence(ridge.risk, ridge.theta, test), 1e-9)


def test_float32_knows_what_it_does_not_see(close):
    """Beside targets of 10⁴ a wrong slope is a gradient of a ten-thousandth."""
    X, y = randn(60, 1), 1e4 + randn(60, seed=1)
    risk, theta, test, _ = regression(X, y)
    risk, theta, test = risk.to(torch.float32), theta.float(), test.to(torch.float32)
    theta[0] += 0.3
    with pytest.raises(NotStationary):
        influence(risk, theta, test, gtol=1e-4)


@pytest.mark.parametrize("apart", [1e-4, 1e-5])
def test_twins_that_float32_cannot_tell_apart_are_no_symmetry(apart):
    """Their difference is heard, and float32 takes it for flat: without it the influences are off by a half."""
    Z = randn(60, 3)
    X = Z.clone()
    X[:, 1] = Z[:, 0] + apart * Z[:, 1]
    y = Z @ torch.tensor([1.0, 0.5, -1.0]).double() + 0.3 * randn(60, seed=1)
    theta = torch.linalg.lstsq(Z, y).solution
    theta[1] = theta[1] / apart
    theta[0] = theta[0] - theta[1]
    risk = Risk(linear_model(3), Data(X, y), SQUARED_ERROR).to(torch.float32)
    with pytest.raises(NotPositiveDefinite, match="losses change along its flat directions"):
        influence(risk, theta.float(), risk.data[:2], solve=pseudo_inverse, gtol=1e-2)


@pytest.mark.parametrize("l2", [0.02, 0.005])
def test_float32_has_a_pseudo_inverse(l2, close):
    model, start = flatten(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)), torch.float32)
    X, y = randn(60, 3), torch.arange(60) % 3
    X[:, 0] += y
    risk = Risk(model, Data(X.float(), y), CROSS_ENTROPY, l2)
    theta = minimise(risk, start).theta
    close(
        influence(risk, theta, risk.data[:3], solve=pseudo_inverse), influence(risk, theta, risk.data[:3]), 1e-2, 1e-3
    )


def test_a_damped_solver_is_the_readers_own(close):
    ridge = Ridge()

    def damped(H, B):
        return conjugate_gradients(HessianOperator(H.risk, H.theta, H.weights, damping=0.1), B)

    g, g_test = ridge.risk.gradients(ridge.theta), ridge.risk.gradients(ridge.theta, ridge.test)
    H = ridge.hessian(ridge.uniform) + 0.1 * torch.eye(3, dtype=torch.float64)
    expected = -g_test @ torch.linalg.solve(H, g.T)
    close(influence(ridge.risk, ridge.theta, ridge.test, solve=damped), expected, rtol=1e-6, atol=1e-7)
    small = ridge.risk.but(loss=Loss(lambda f, y: 5e-10 * (f - y).square()), l2=1e-10)  # a billionth of the risk

    def alike(H, B):
        return conjugate_gradients(HessianOperator(H.risk, H.theta, H.weights, damping=1e-10), B)

    close(1e9 * influence(small, ridge.theta, ridge.test, solve=alike), expected, rtol=1e-6, atol=1e-7)


def test_steep_and_smooth_is_no_kink():
    """A curvature of 10⁵ explains what the slope does over a billionth."""
    X = torch.cat([randn(200, 3), 1e3 * (1 + randn(200, 2, seed=1).abs())], 1)
    y = (torch.rand(200, generator=torch.Generator().manual_seed(2)) < 0.5).double()
    risk = Risk(flatten(nn.Linear(5, 1))[0], Data(X, y), l2=1e-6)
    try:
        minimise(risk, 0.1 * randn(6, seed=3), max_steps=40)
    except (NotConverged, NotAMinimum) as stopped:
        assert "kink" not in str(stopped)


def test_parameters_without_effect_have_no_units(close):
    """The biases of attention's keys shift all scores alike: their gradients and curvatures are rounding."""

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.attend, self.out = nn.MultiheadAttention(4, 2, batch_first=True), nn.Linear(4, 1)

        def forward(self, x):
            return self.out(self.attend(x, x, x, need_weights=False)[0].mean(1))[:, 0]

    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = Attention()
    X, y = randn(40, 3, 4), randn(40, seed=1)
    model, start = flatten(module)
    risk = Risk(model, Data(X, y), SQUARED_ERROR, l2=0.02)
    H = HessianOperator(risk, start)
    keys = torch.zeros(model.p, dtype=torch.bool)
    first = 48  # after in_proj_weight come the biases of queries, keys and values
    assert list(model.shapes)[:2] == ["attend.in_proj_weight", "attend.in_proj_bias"]
    keys[first + 4 : first + 8] = True
    without = HessianOperator(Risk(model, Data(X, y), SQUARED_ERROR), start)
    assert without.unit[keys].max() <= 1.001 * without.unit[~keys].min()
    assert H.unit[keys].max() < 10


def test_what_has_gradients_of_its_own_is_not_the_penaltys():
    with pytest.raises(ValueError, match="l2 requires gradients"):
        Risk(linear_model(3), Ridge().risk.data, SQUARED_ERROR, torch.tensor(0.1, requires_grad=True))


def test_leverage_wants_the_weights_of_training():
    ridge = Ridge()
    w = torch.linspace(0.5, 1.5, ridge.n, dtype=torch.float64) / ridge.n
    with pytest.raises(NotStationary):
        leverage(ridge.risk, ridge.minimum(w))
    leverage(ridge.risk, ridge.minimum(w), w)


def test_the_audit_says_that_units_are_in_the_way():
    risk, theta, test, _ = regression(
        torch.cat([1e8 * (1 + randn(60, 1).abs()), randn(60, 1, seed=1)], 1), randn(60, seed=2)
    )
    assert "bring the inputs to one scale" in str(audit(risk, theta, test))


def test_a_shallow_saddle_in_a_crowd_is_seen(monkeypatch):
    """A product of two numbers, zero and zero, beside a ridge of 520 parameters with hundreds of eigenvalues of 2λ: a
    few products may see only these."""

    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.u, self.v = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
            self.line = nn.Linear(520, 1, bias=False)

        def forward(self, x):
            return self.line(x[:, :-1]).squeeze(1) + self.u * self.v * x[:, -1]

    X, soft = randn(50, 520), 1e-3
    y = X[:, 0] + randn(50, seed=1)
    ridge = torch.linalg.solve(X.T @ X / 50 + 2 * soft * torch.eye(520).double(), X.T @ y / 50)
    misfit = X @ ridge - y
    pulled = 2.02 * soft * misfit.sign() / misfit.abs().mean()
    risk = Risk(flatten(Both())[0], Data(torch.cat([X, pulled[:, None]], 1), y), SQUARED_ERROR, soft)
    theta = torch.cat([torch.zeros(2).double(), ridge])
    seen = torch.tensor([2 * soft, 1.0]).double()
    monkeypatch.setattr("helpers.curvature.extreme_eigenvalues", lambda *arguments, **options: seen)
    for look in (certify, minimise, lambda risk, theta: minimise_many(risk, risk.uniform[None], theta)):
        with pytest.raises(NotAMinimum, match=r"near a saddle \(smallest eigenvalue of the Hessian -2\.0e-05\)"):
            look(risk, theta)
    for solve in (direct, conjugate_gradients, block_conjugate_gradients):
        with pytest.raises(NotPositiveDefinite, match=r"-2\.0\de-05"):
            influence(risk, theta, risk.data[:2], solve=solve)


def test_without_its_only_example_a_label_has_no_minimum():
    """Its bias falls for ever, by one a step of Newton's: short beside weights of a hundred, and long beside itself."""
    draw = torch.Generator().manual_seed(0)
    X = 0.1 * torch.rand(60, 3, generator=draw).double()
    first = (X[:, 0] + 0.02 * torch.randn(60, generator=draw) > 0.05).double()
    risk = Risk(
        flatten(nn.Linear(3, 2))[0],
        Data(X, torch.stack([first, (torch.arange(60) == 0).double()], 1)),
        l2=lambda name: 1e-6 if name == "weight" else 0.0,
    )
    theta = minimise(risk, torch.zeros(8).double()).theta
    assert theta.norm() > 99
    found = leave_group_out(risk, theta, [[0], [1]], throw=False)
    assert found.certified.tolist() == [False, True]
    report = audit(risk, theta, risk.data[:2], retrain=60)
    assert 0 in report.failed


@pytest.mark.parametrize("total", [1, 60, 1e6])
def test_what_is_silent_does_not_depend_on_the_sum_of_the_weights(total):
    """Twins that differ by 10⁻⁸: no symmetry, whether the risk is a mean or a sum."""
    a, z, b, noise = randn(4, 60, seed=1)
    X, y = torch.stack([a, a + 1e-8 * z, b], 1), 10 * a + 3 * b + 0.1 * noise
    theta = torch.linalg.lstsq(X, y, driver="gelsd").solution
    risk, w = Risk(linear_model(3), Data(X, y), SQUARED_ERROR), torch.full((60,), total / 60, dtype=torch.float64)
    for refused in (
        lambda: influence(risk, theta, risk.data[:5], weights=w, solve=pseudo_inverse),
        lambda: fix_gauge(risk, theta, w),
    ):
        with pytest.raises((NotPositiveDefinite, NotAMinimum), match="losses change along"):
            refused()


@pytest.mark.parametrize("apart", [1e-6, 5e-7])
def test_what_a_factor_solves_for_is_asked_for_an_excess(apart):
    """A seventh of the loss is left along twins; Newton's step has to see what Cholesky's factor accepts."""
    a, z, b, noise = randn(4, 60, seed=1)
    X, y = torch.stack([a, a + apart * z, b], 1), 10 * a + 3 * b + 0.1 * noise
    theta = torch.zeros(3).double()
    theta[[0, 2]] = torch.linalg.lstsq(X[:, [0, 2]], y).solution
    theta[:2] = theta[0] / 2  # as an optimiser leaves twins
    risk = Risk(linear_model(3), Data(X, y), SQUARED_ERROR)
    for use in (influence, lambda *at: leverage(*at[:2]), lambda *at: cross_validated_losses(*at[:2])):
        with pytest.raises(NotStationary, match="no minimum is near"):
            use(risk, theta, risk.data[:2])


@pytest.mark.parametrize("total", [1e-12, 1e-6, 1e9])
def test_many_are_found_whatever_their_weights_add_up_to(total, close):
    W = torch.rand(3, 30, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    X = randn(30, 3)
    risk = Risk(linear_model(3), Data(X, (X[:, 0] + randn(30, seed=1) > 0).double()), l2=0.1)
    right = minimise_many(risk, W, zeros := torch.zeros(3).double()).thetas
    for preconditioner in (None, torch.eye(3).double()):
        scaled = risk.but(l2=0.1 * total)
        close(minimise_many(scaled, total * W, zeros, preconditioner=preconditioner).thetas, right, 1e-8, 1e-10)


def test_another_format_is_tried_anew():
    weight = torch.tensor([1.0, 2.0]).double()
    loss = Loss(lambda f, y: F.cross_entropy(f, y, weight=weight, reduction="none"))
    model, start = flatten(nn.Linear(3, 2))
    risk = Risk(model, Data(randn(40, 3), torch.arange(40) % 2), loss, 0.1)
    theta = minimise(risk, start).theta
    for use in (
        lambda: influence(risk, theta, risk.data[:2], solve=refined),
        lambda: minimise(risk.to(torch.float32), theta.float()),
    ):
        with pytest.raises(ValueError, match=r"cannot take X .* of torch.float32"):
            use()


def test_an_audit_where_nothing_changes_says_so():
    X = randn(40, 3)
    risk = Risk(flatten(nn.Linear(3, 1))[0], Data(X, torch.full((40,), 2.5).double()), SQUARED_ERROR)
    theta = torch.tensor([0, 0, 0, 2.5]).double()
    report = audit(risk, theta, Data(X[:1], torch.tensor([3.0]).double()))
    assert not report.failed and "nothing to compare" in str(report) and "found a minimum" not in str(report)


def test_moves_from_a_theta_of_zeros_are_endless():
    X = randn(40, 1)
    y = randn(40, seed=1)
    y -= X[:, 0] * (X[:, 0] @ y) / (X[:, 0] @ X[:, 0])
    risk = Risk(linear_model(1), Data(X, y), SQUARED_ERROR)
    report = audit(risk, torch.zeros(1).double(), risk.data[:2])
    assert "longest move        up to inf" in str(report)
