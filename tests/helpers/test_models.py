"""A module as a function of one flat vector."""

import threading
import warnings

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


def test_the_switches_of_torch_are_as_before():
    """Attention's fast path and cuDNN are off inside a call and afterwards what they were, also after an error."""
    model, theta = mlp()
    inside = []

    class Looking(nn.Module):
        def __init__(self):
            super().__init__()
            self.line, self.recurrent = nn.Linear(2, 1), nn.RNN(2, 1)

        def forward(self, x):
            inside.append((torch.backends.mha.get_fastpath_enabled(), torch.backends.cudnn.enabled))
            return self.line(x)

    looking, start = flatten(Looking())
    for fast in (True, False):
        torch.backends.mha.set_fastpath_enabled(fast)
        try:
            looking(start, torch.ones(1, 2).double())
            with pytest.raises(RuntimeError):
                model(theta, torch.ones(1, 3).double())
            assert torch.backends.mha.get_fastpath_enabled() is fast and torch.backends.cudnn.enabled
        finally:
            torch.backends.mha.set_fastpath_enabled(True)
    assert inside == [(False, False)] * 2


def test_what_is_frozen_is_a_constant_and_integers_stay_integers():
    module = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    module[0].requires_grad_(False)
    module.register_buffer("steps", torch.tensor(3))
    model, theta = flatten(module)
    assert model.shapes == {"1.weight": (1, 2), "1.bias": (1,)} and model.p == len(theta) == 3
    assert set(model.constants) == {"0.weight", "0.bias", "steps"}
    assert not any(each.requires_grad for each in model.constants.values()) and model.hooks == []
    module[0].register_forward_pre_hook(lambda layer, given: None)
    module[1].register_forward_hook(lambda layer, given, output: None)
    assert flatten(module)[0].hooks == ["0", "1"]


def test_one_value_for_each_parameter():
    model, _ = mlp()
    values = model.per_parameter(lambda name: 2.0 if name.endswith("bias") else 0.5)
    assert values.dtype == torch.float64
    assert values.tolist() == [0.5] * 16 + [2.0] * 8 + [0.5] * 8 + [2.0]


def test_only_a_column_loses_its_axis():
    model, theta = mlp(outputs=3)
    assert model(theta, torch.zeros(5, 2).double()).shape == (5, 3)
    square, start = flatten(nn.Sequential(nn.Linear(2, 1), nn.Unflatten(1, (1, 1))))
    assert square(start, torch.zeros(5, 2).double()).shape == (5, 1, 1)
    line, start = flatten(nn.Sequential(nn.Linear(2, 1), nn.Flatten(0)))
    assert line(start, torch.zeros(5, 2).double()).shape == (5,)
    assert line(start, torch.zeros(1, 2).double()).shape == (1,)


def test_the_size_and_the_seed_of_the_network():
    model, theta = mlp(inputs=3, hidden=5, outputs=2, seed=7)
    assert model.shapes == {"0.weight": (5, 3), "0.bias": (5,), "2.weight": (2, 5), "2.bias": (2,)}
    assert not torch.equal(theta, mlp(3, 5, 2)[1]) and torch.equal(theta, mlp(3, 5, 2, 7)[1])


def test_two_parameters_with_the_same_numbers_are_refused():
    """A decoder tied to its encoder by storage; parts of one buffer that do not overlap are two parameters."""
    tied = nn.Sequential(nn.Linear(3, 2, bias=False), nn.Linear(2, 3, bias=False))
    tied[1].weight.data = tied[0].weight.data.T
    with pytest.raises(ValueError, match=r"'1\.weight' shares its numbers .* one Parameter in both places"):
        flatten(tied)
    buffer = torch.arange(12.0).reshape(3, 4)
    tied[0].weight.data, tied[1].weight.data = buffer[:2, :3], buffer[:, 3:].T.expand(1, 3)
    assert flatten(tied)[1].tolist() == [0, 1, 2, 4, 5, 6, 3, 7, 11]


class Locked(nn.Linear):
    def __init__(self):
        super().__init__(2, 1)
        self.lock = threading.Lock()


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (Locked, r"cannot be copied .*\(a lock, a file\)"),
        (lambda: torch.jit.trace(nn.Linear(2, 1), torch.ones(1, 2)), "give the module that it was made from"),
        (lambda: nn.DataParallel(nn.Linear(2, 1)), "give the module that it was made from"),
    ],
)
def test_what_is_no_plain_module_is_named(made, says):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch.jit is deprecated from torch 2.14 on
        module = made()
    with pytest.raises(ValueError, match=says):
        flatten(module)
