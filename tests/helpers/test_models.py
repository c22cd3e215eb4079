"""A module as a function of one flat vector."""

import pytest
import torch
from torch import nn

from helpers import flatten, mlp


def conv_net(outputs=3):
    return nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.Tanh(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(2 * 2 * 2, outputs), nn.Softplus()
    )


def test_the_reference_network():
    model, theta = mlp()
    assert model.p == len(theta) == 33
    assert theta.dtype == torch.float64
    assert not theta.requires_grad
    torch.manual_seed(42)
    expected = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1))
    assert torch.equal(theta, torch.cat([p.detach().flatten() for p in expected.parameters()]).double())


def test_the_initialisation_does_not_depend_on_the_session():
    before = torch.get_rng_state()
    torch.set_default_dtype(torch.float64)
    try:
        _, in_float64 = mlp()
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(in_float64, mlp()[1])
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("module", "X"),
    [
        (nn.Linear(4, 3), torch.ones(5, 4)),
        (conv_net(), torch.arange(128.0).reshape(2, 1, 8, 8)[:, :, :6, :6]),
        (nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.0), nn.LayerNorm(2)), torch.eye(3)),
        (nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.5)).eval(), torch.eye(3)),
        (nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).eval(), torch.eye(3)),
    ],
)
def test_any_module_is_the_same_function_of_theta(module, X):
    model, theta = flatten(module, torch.float32)
    torch.testing.assert_close(model(theta, X), module(X).detach())
    doubled = flatten(module.double(), torch.float64)[0](2 * theta.double(), X.double())
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(2)
    torch.testing.assert_close(doubled, module(X.double()).detach())


def test_one_output_comes_back_without_its_axis():
    model, theta = mlp()
    assert model(theta, torch.zeros(5, 2, dtype=torch.float64)).shape == (5,)


def test_the_parameters_stand_in_order():
    model, theta = mlp()
    pieces = model.unflatten(theta)
    assert model.shapes == {"0.weight": (8, 2), "0.bias": (8,), "2.weight": (1, 8), "2.bias": (1,)}
    assert torch.equal(torch.cat([piece.flatten() for piece in pieces.values()]), theta)


def test_a_wrong_length_is_refused():
    model, theta = mlp()
    with pytest.raises(ValueError, match=r"theta has shape \(32,\), but the model has p = 33"):
        model(theta[1:], torch.zeros(1, 2, dtype=torch.float64))


@pytest.mark.parametrize(
    ("module", "says"),
    [
        (nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5)), r"'1' \(Dropout\) is random .* call module.eval\(\)"),
        (nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)), r"'1' \(BatchNorm1d\) mixes .* call module.eval\(\)"),
        (nn.BatchNorm1d(2, track_running_stats=False).eval(), "mixes the examples of a batch"),
        (nn.Tanh(), "no trainable parameters"),
    ],
)
def test_modules_without_a_loss_of_one_example_are_refused(module, says):
    with pytest.raises(ValueError, match=says):
        flatten(module)
