"""The risk and its derivatives, against formulas, finite differences and torch's own double backward."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from helpers import CROSS_ENTROPY, LOGISTIC, SQUARED_ERROR, Data, HessianOperator, Loss, Risk, flatten, mlp, ring
from tests.helpers.closed_forms import Ridge, linear_model


def logistic_regression(n=15, p=3, l2=0.05, seed=0, device="cpu"):
    generator = torch.Generator().manual_seed(seed)
    X = torch.randn(n, p, generator=generator, dtype=torch.float64).to(device)
    y = torch.randint(2, (n,), generator=generator).double().to(device)
    theta = torch.randn(p, generator=generator, dtype=torch.float64).to(device)
    w = torch.rand(n, generator=generator, dtype=torch.float64).to(device)
    return Risk(linear_model(p), Data(X, y), LOGISTIC, l2), theta, w


@given(seed=st.integers(0, 10**6), n=st.integers(1, 12), p=st.integers(1, 5), l2=st.floats(0, 2))
def test_ridge_regression_by_formula(seed, n, p, l2):
    ridge = Ridge(n, p, l2, seed)
    theta = torch.randn(p, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64)
    w = torch.rand(n, generator=torch.Generator().manual_seed(seed + 2), dtype=torch.float64)
    residual = ridge.X @ theta - ridge.y
    close = torch.testing.assert_close
    close(ridge.risk.losses(theta), residual.square() / 2)
    close(ridge.risk(theta, w), w @ residual.square() / 2 + l2 * theta @ theta)
    close(ridge.risk.gradients(theta), residual[:, None] * ridge.X)
    close(ridge.risk.gradient(theta, w), ridge.X.T @ (w * residual) + 2 * l2 * theta)
    close(ridge.risk.hessian(theta, w), ridge.hessian(w))


@given(seed=st.integers(0, 10**6), n=st.integers(1, 12), p=st.integers(2, 5), l2=st.floats(0, 2))
def test_logistic_regression_by_formula(seed, n, p, l2):
    risk, theta, w = logistic_regression(n, p, l2, seed)
    X, y = risk.data.X, risk.data.y
    probability = torch.sigmoid(X @ theta)
    close = torch.testing.assert_close
    close(risk.losses(theta), -torch.log(torch.where(y == 1, probability, 1 - probability)))
    close(risk.gradients(theta), (probability - y)[:, None] * X)
    close(risk.gradient(theta, w), X.T @ (w * (probability - y)) + 2 * l2 * theta)
    H = (X.T * (w * probability * (1 - probability))) @ X + 2 * l2 * torch.eye(p, dtype=torch.float64)
    close(risk.hessian(theta, w), H)


def other_shapes():
    """Risks of other shapes than the ring's: several classes, images, several outputs."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    torch.manual_seed(0)
    classes = torch.randint(3, (7,), generator=generator)
    mlp3 = flatten(nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 3)))
    conv = flatten(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Tanh(), nn.Flatten(), nn.Linear(8, 3)))
    linear2 = flatten(nn.Linear(4, 2))
    return {
        "classes": (Risk(mlp3[0], Data(draw(7, 4), classes), CROSS_ENTROPY, 0.1), mlp3[1]),
        "images": (Risk(conv[0], Data(draw(7, 1, 4, 4), classes), CROSS_ENTROPY, 0.1), conv[1]),
        "two outputs": (Risk(linear2[0], Data(draw(7, 4), draw(7, 2)), SQUARED_ERROR, 0.1), linear2[1]),
        "ring": (Risk(mlp()[0], ring(7)[0], LOGISTIC, 0.02), mlp()[1]),
    }


SHAPES = ["classes", "images", "two outputs", "ring"]


@pytest.fixture(scope="module")
def shapes():
    return other_shapes()


@pytest.mark.parametrize("shape", SHAPES)
def test_every_derivative_against_finite_differences(shape, shapes, close):
    risk, theta = shapes[shape]
    w = torch.linspace(0, 0.3, risk.n, dtype=torch.float64)
    h, axes = 1e-5, torch.eye(risk.model.p, dtype=torch.float64)

    def central(f):
        return torch.stack([(f(theta + h * e) - f(theta - h * e)) / (2 * h) for e in axes], dim=-1)

    close(risk.gradients(theta), central(risk.losses), rtol=1e-7, atol=1e-9)
    close(risk.gradient(theta, w), central(lambda t: risk(t, w)), rtol=1e-7, atol=1e-9)
    close(risk.hessian(theta, w), central(lambda t: risk.gradient(t, w)), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_parts_make_up_the_whole(shape, shapes, close):
    risk, theta = shapes[shape]
    w = torch.linspace(0, 0.3, risk.n, dtype=torch.float64)
    close(risk(theta, w), w @ risk.losses(theta) + risk.l2 * theta @ theta)
    close(risk.gradient(theta, w), w @ risk.gradients(theta) + 2 * risk.l2 * theta)
    H = risk.hessian(theta, w)
    assert torch.equal(H, H.T)
    by_backward = torch.autograd.functional.hessian(lambda t: risk.value(t, w), theta)
    close(H, by_backward)


@pytest.mark.parametrize("shape", SHAPES)
def test_many_models_at_once_are_each_model_alone(shape, shapes, close):
    risk, theta = shapes[shape]
    generator = torch.Generator().manual_seed(1)
    thetas = theta + torch.randn(70, len(theta), generator=generator, dtype=torch.float64) / 10
    W = torch.rand(70, risk.n, generator=generator, dtype=torch.float64)
    values, gradients = risk.values_and_gradients(thetas, W)
    hessians = risk.hessians(thetas, W)
    for k in (0, 1, 63, 64, 69):  # the Hessians come in pieces of 64
        close(values[k], risk(thetas[k], W[k]))
        close(gradients[k], risk.gradient(thetas[k], W[k]))
        close(hessians[k], risk.hessian(thetas[k], W[k]))
    assert not gradients.requires_grad


def test_the_hessian_does_not_depend_on_how_many_rows_are_computed_at_once(shapes, close, monkeypatch):
    risk, theta = shapes["classes"]
    whole = risk.hessian(theta)
    monkeypatch.setattr("helpers.risk.rows_at_once", lambda *sizes: 1)
    close(risk.hessian(theta), whole)


def test_example_by_example_is_all_at_once(shapes, close):
    risk, theta = shapes["classes"]
    for i in range(risk.n):
        close(risk.losses(theta, risk.data[i])[0], risk.losses(theta)[i])
        close(risk.gradients(theta, risk.data[i])[0], risk.gradients(theta)[i])


def test_training_is_uniform_weights(trained, close):
    close(trained.risk(trained.theta), trained.risk(trained.theta, torch.full_like(trained.train.y, 1 / 60)))
    close(trained.risk.losses(trained.theta), trained.risk.losses(trained.theta, trained.train))


def test_it_works_where_the_data_are(trained, device):
    assert trained.risk.hessian(trained.theta).device.type == device
    assert trained.risk.uniform.device.type == device


@pytest.mark.parametrize(
    ("weights", "error", "says"),
    [
        (torch.ones(59).double(), ValueError, r"weights have shape \(59,\), but there are n = 60"),
        (torch.ones(60, 1).double(), ValueError, r"weights have shape \(60, 1\)"),
        (torch.ones(60).double().index_fill(0, torch.tensor([7]), torch.nan), ValueError, r"not finite at \[7\]"),
        (torch.ones(60).double().index_fill(0, torch.tensor([0, 1]), torch.inf), ValueError, r"finite at \[0, 1\]"),
        (torch.ones(60), TypeError, "weights is torch.float32 and the data torch.float64"),
    ],
)
@pytest.mark.parametrize("method", ["__call__", "gradient", "hessian"])
def test_bad_weights_are_refused(weights, error, says, method):
    model, theta = mlp()
    risk = Risk(model, ring()[0])
    with pytest.raises(error, match=says):
        getattr(risk, method)(theta, weights)


@pytest.mark.parametrize("method", ["__call__", "gradient", "hessian", "losses", "gradients"])
def test_a_bad_theta_is_refused(method):
    model, theta = mlp()
    risk = Risk(model, ring()[0])
    with pytest.raises(ValueError, match=r"theta has shape \(34,\), but the model has p = 33"):
        getattr(risk, method)(torch.zeros(34).double())
    with pytest.raises(TypeError, match=r"theta is torch.float32 and the data torch.float64: convert one"):
        getattr(risk, method)(theta.float())


@pytest.mark.parametrize(
    ("loss", "y", "says"),
    [
        (LOGISTIC, torch.tensor([-1.0, 1.0]), r"labels 0 or 1 \(for labels -1 and 1 use"),
        (LOGISTIC, torch.tensor([0.5, 1.0]), "outside the loss's domain"),
        (CROSS_ENTROPY, torch.tensor([0.0, 1.0]), "integer class labels"),
        (CROSS_ENTROPY, torch.tensor([-1, 1]), "integer class labels"),
        (SQUARED_ERROR, torch.tensor([0, 1]), "floating-point targets"),
    ],
)
def test_labels_outside_the_domain_are_refused(loss, y, says):
    X = torch.ones(2, 2).double()
    with pytest.raises(ValueError, match=says):
        Risk(linear_model(2), Data(X, y), loss)
    good = Data(X, torch.tensor([0, 1]) if loss is CROSS_ENTROPY else torch.tensor([0.0, 1.0]).double())
    risk = Risk(linear_model(2), good, loss)
    for method in (risk.losses, risk.gradients):
        with pytest.raises(ValueError, match=says):
            method(torch.zeros(2).double(), Data(X, y))


def test_a_strength_may_be_a_tensor(close):
    theta = mlp()[1]
    for l2 in (torch.tensor(0.02, dtype=torch.float64), torch.full((33,), 0.02, dtype=torch.float64)):
        close(Risk(mlp()[0], ring()[0], l2=l2)(theta), Risk(mlp()[0], ring()[0], l2=0.02)(theta))


@pytest.mark.parametrize("l2", [[0.1, 0.2, 0.3], torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64).numpy()])
def test_strengths_may_be_a_list_or_an_array(l2, close):
    ridge = Ridge()
    theta, strengths = ridge.theta + 1, torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)
    close(ridge.risk.but(l2=l2)(theta), ridge.risk.but(l2=0.0)(theta) + strengths @ theta.square())


def test_strengths_of_inference_mode_can_be_differentiated_by(close):
    ridge = Ridge()
    with torch.inference_mode():
        for l2 in (lambda name: ridge.l2, torch.full((3,), ridge.l2, dtype=torch.float64)):
            close(ridge.risk.but(l2=l2).hessian(ridge.theta), ridge.hessian(ridge.uniform))


@pytest.mark.parametrize("l2", [-1, float("inf")])
def test_a_negative_l2_is_refused(l2):
    with pytest.raises(ValueError, match=f"l2 = {l2} must not be negative"):
        Risk(mlp()[0], ring()[0], LOGISTIC, l2)


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"model": nn.Linear(2, 1)}, TypeError, r"the model is a Linear: .*flatten\(module\)"),
        ({"model": flatten(nn.Linear(2, 1))}, TypeError, "the model is a tuple: give the first of the two"),
        ({"data": (torch.ones(1, 2), torch.ones(1))}, TypeError, r"the examples are a tuple: .*Data\(X, y\)"),
        ({"l2": None}, TypeError, "l2 gives no strength .*NoneType"),
        ({"l2": {"weight": 0.1}}, TypeError, "l2 gives no strength .*dict"),
        ({"l2": lambda name: None}, TypeError, "l2 gives no strength .*NoneType"),
        ({"batch": 2.5}, ValueError, r"batch = 2\.5: .*whole ones"),
    ],
)
def test_what_is_no_part_of_a_risk_is_refused(changes, error, says):
    with pytest.raises(error, match=says):
        Ridge().risk.but(**changes)


@pytest.mark.parametrize("convert", [Tensor.tolist, Tensor.numpy])
def test_weights_that_are_no_tensor_are_refused(convert):
    ridge = Ridge()
    with pytest.raises(TypeError, match=r"weights is a \w+, not a tensor"):
        ridge.risk(ridge.theta, convert(ridge.uniform))


def test_the_probed_examples_do_not_hang_on_the_default_format():
    """In bfloat16, 1029 is 1032."""
    ridge = Ridge(1030)
    torch.set_default_dtype(torch.bfloat16)
    try:
        assert len(ridge.risk.spread()[0]) >= 8
    finally:
        torch.set_default_dtype(torch.float32)


def test_a_loss_that_is_already_a_mean_is_refused():
    model, theta = mlp()
    mean = Loss(lambda f, y: F.binary_cross_entropy_with_logits(f, y))
    with pytest.raises(ValueError, match=r"reduction='none'"):
        Risk(model, ring()[0], mean)(theta)


def test_the_scale_of_a_gradient_by_formula():
    """The root mean square of the single gradients times the weights, or ``‖Hθ‖`` where these vanish."""
    ridge = Ridge(n=6)
    w = torch.linspace(0.1, 0.6, 6, dtype=torch.float64)
    single = ((ridge.X @ ridge.theta - ridge.y)[:, None] * ridge.X).square().sum(1).mean().sqrt()
    bent = float((ridge.hessian(w) @ ridge.theta).norm())
    assert bent < float(single) * 2.1  # 2.1 is the sum of the weights
    assert HessianOperator(ridge.risk, ridge.theta, w).scale == pytest.approx(float(single) * 2.1)
    assert HessianOperator(ridge.risk, ridge.theta).scale == pytest.approx(float(single))
    assert HessianOperator(ridge.risk, ridge.theta, -w).scale == pytest.approx(float(single) * 2.1)
    exact = Risk(ridge.risk.model, Data(ridge.X, ridge.X @ ridge.theta), SQUARED_ERROR, 0.1)  # a perfect fit
    assert HessianOperator(exact, ridge.theta, w).scale == pytest.approx(bent)


def test_a_few_examples_have_targets_as_different_as_can_be():
    """The smallest and the largest, and one of a class that is rare."""
    y = torch.randperm(50, generator=torch.Generator().manual_seed(0))
    X = torch.stack([y, -y], 1).double()
    points, targets = Risk(linear_model(2), Data(X, y.double()), SQUARED_ERROR).spread()
    assert torch.equal(points, torch.stack([targets, -targets], 1))
    assert {0.0, 49.0} <= set(targets.tolist()) and 8 <= len(targets) <= 12
    rare = torch.zeros(1000).long().index_fill(0, torch.tensor([600, 601]), 1).index_fill(0, torch.tensor([7]), 2)
    X = torch.ones(1000, 2).double()
    _, labels = Risk(linear_model(2, 3), Data(X, rare), CROSS_ENTROPY).spread()
    assert set(labels.tolist()) == {0, 1, 2}
    few = Risk(linear_model(2), Data(X[:5], torch.arange(5.0).double()), SQUARED_ERROR).spread()[1]
    assert sorted(few.tolist()) == [0, 1, 2, 3, 4]


def test_a_minimum_is_remembered_with_its_weights():
    ridge = Ridge()
    w = torch.linspace(0.1, 0.6, ridge.n, dtype=torch.float64)
    assert not ridge.risk.is_known_minimum(ridge.theta, None)
    ridge.risk.remember_minimum(ridge.theta, None)
    assert ridge.risk.is_known_minimum(ridge.theta, None) and ridge.risk.is_known_minimum(ridge.theta, ridge.uniform)
    assert not ridge.risk.is_known_minimum(ridge.theta, w)
    assert not ridge.risk.is_known_minimum(ridge.theta + 1e-9, None)
    assert not ridge.risk.but(l2=0.2).is_known_minimum(ridge.theta, None)


def test_uniform_weights_are_in_the_format_of_the_data():
    labels, ids = torch.tensor([0, 1, 1]), torch.tensor([[0, 1], [1, 0], [1, 1]])
    for X, y, loss, dtype in (
        (torch.ones(3, 2), labels, CROSS_ENTROPY, torch.float32),
        (torch.ones(3, 2).double(), labels, CROSS_ENTROPY, torch.float64),
        (ids, torch.zeros(3), SQUARED_ERROR, torch.float32),
        (ids, labels, CROSS_ENTROPY, torch.float64),
    ):
        uniform = Risk(linear_model(2, 2), Data(X, y), loss).uniform
        assert uniform.dtype == dtype and uniform.tolist() == pytest.approx([1 / 3] * 3)


def test_a_risk_with_something_else_keeps_the_rest():
    ridge = Ridge()
    assert ridge.risk.but(l2=3.0).l2 == 3.0
    with pytest.raises(ValueError, match="must not be negative"):
        Risk(ridge.risk.model, ridge.risk.data, SQUARED_ERROR, float("nan"))
    single = ridge.risk.to(torch.float32)
    assert single.data.X.dtype == single.data.y.dtype == torch.float32 and single.l2 == ridge.l2
    part = ridge.risk.part(torch.tensor([3, 1]))
    assert torch.equal(part.data.y, ridge.y[[3, 1]]) and part.n == 2


def test_one_direction_an_example_is_its_own(close):
    """``(x_iᵀ v_i)²`` for the squared error, and σ'(f) times it for the logistic loss."""
    risk, theta, _ = logistic_regression()
    V = torch.randn(15, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    along = (risk.data.X * V).sum(1).square()
    p = torch.sigmoid(risk.data.X @ theta)
    close(risk.gauss_newton_curvatures(theta, V), p * (1 - p) * along)
    squared = Risk(risk.model, risk.data, SQUARED_ERROR)
    close(squared.gauss_newton_curvatures(theta, V), along)
    for wrong in (V[:, :2], V[:14], V[:1]):
        with pytest.raises(ValueError, match="give one direction a training example"):
            risk.gauss_newton_curvatures(theta, wrong)


def test_the_device_and_every_format_must_be_one():
    risk = Risk(linear_model(2), Data(torch.ones(3, 2).double(), torch.zeros(3)), SQUARED_ERROR)
    for theta in (torch.zeros(2), torch.zeros(2).double()):
        with pytest.raises(TypeError, match="convert one"):
            risk(theta)
    good = Ridge()
    with pytest.raises(ValueError, match="theta is on meta and the data on cpu"):
        good.risk(torch.zeros(3, dtype=torch.float64, device="meta"))
    with pytest.raises(TypeError, match=r"theta is torch\.int64: second derivatives need float64"):
        good.risk(torch.zeros(3, dtype=torch.int64))
