"""More data than one graph holds: batches change no score, and one graph is kept where it fits."""

import pytest
import torch

from helpers import (
    LOGISTIC,
    HessianOperator,
    Risk,
    conjugate_gradients,
    influence,
    leave_one_out,
    leverage,
    minimise,
    mlp,
    ring,
)
from helpers.risk import rows_at_once


@pytest.fixture(scope="module")
def whole():
    risk = Risk(mlp()[0], ring()[0], LOGISTIC, 0.02)
    return risk, minimise(risk, mlp()[1]).theta


@pytest.mark.parametrize("batch", [1, 7, 59, 60, 1000])
def test_batches_change_no_score(whole, close, batch):
    risk, theta = whole
    some = Risk(risk.model, risk.data, LOGISTIC, 0.02, batch=batch)
    generator = torch.Generator().manual_seed(0)
    w = torch.rand(60, generator=generator, dtype=torch.float64)
    V = torch.randn(4, 33, generator=generator, dtype=torch.float64)
    far = theta + 0.1
    close(some(far, w), risk(far, w))
    close(some.gradient(far, w), risk.gradient(far, w))
    close(some.hessian(far, w), risk.hessian(far, w))
    close(some.losses(far), risk.losses(far))
    close(some.losses(far, ring()[1]), risk.losses(far, ring()[1]))
    close(some.gradients(far), risk.gradients(far))
    close(some.slopes(far, V), risk.slopes(far, V))
    close(HessianOperator(some, far, w, damping=0.3) @ V.T, HessianOperator(risk, far, w, damping=0.3) @ V.T)
    thetas, W = far + V[:3] / 10, torch.rand(3, 60, generator=generator, dtype=torch.float64)
    for mine, right in zip(some.values_and_gradients(thetas, W), risk.values_and_gradients(thetas, W), strict=True):
        close(mine, right)
    close(some.hessians(thetas, W), risk.hessians(thetas, W))
    close(HessianOperator(some, far, w).scale, HessianOperator(risk, far, w).scale)
    close(leverage(some, theta), leverage(risk, theta), rtol=1e-8)


def test_the_whole_chain_in_batches(whole, close):
    risk, theta = whole
    some = Risk(risk.model, risk.data, LOGISTIC, 0.02, batch=16)
    close(minimise(some, mlp()[1]).theta, theta, rtol=1e-7, atol=1e-9)
    test = ring()[1]
    close(influence(some, theta, test), influence(risk, theta, test), rtol=1e-8)
    by_products = influence(some, theta, test, solve=conjugate_gradients)
    close(by_products, influence(risk, theta, test), rtol=1e-5, atol=1e-6)
    close(leave_one_out(some, theta).thetas, leave_one_out(risk, theta).thetas, rtol=1e-7, atol=1e-9)


def test_batches_are_chosen_by_what_an_example_needs(whole, monkeypatch):
    risk, theta = whole
    fresh = Risk(risk.model, risk.data, LOGISTIC, 0.02)
    fresh(theta)
    needed = fresh._known["bytes an example"]
    # Of one example a forward pass keeps its eight outputs of tanh and its logit, at the least.
    assert 5 * 9 * 8 <= needed <= 5 * 60 * 8
    assert len(fresh._parts()) == 1
    monkeypatch.setattr("helpers.risk._GRAPH_BYTES", 20 * needed)
    assert [part.stop - part.start for part in fresh._parts()] == [20, 20, 20]
    monkeypatch.setattr("helpers.risk._GRAPH_BYTES", 59 * needed)
    assert [part.stop - part.start for part in fresh._parts()] == [30, 30]  # not 59 and 1: none needs more than it must
    assert [part.start for part in fresh._parts(61)] == [0, 31]


def test_one_graph_is_kept_and_several_are_built_again(whole):
    risk, theta = whole
    calls = []
    model = risk.model

    class Counting:
        p = model.p

        def __call__(self, theta, X):
            calls.append(len(X))
            return model(theta, X)

    for batch, first, second in ((None, [60], []), (30, [30, 30], [30, 30])):
        counted = Risk(Counting(), risk.data, LOGISTIC, 0.02, batch=batch)
        counted(theta)
        H = HessianOperator(counted, theta)
        calls.clear()
        H @ theta
        assert calls == first
        calls.clear()
        H @ theta
        assert calls == second


def test_a_batch_holds_at_least_one():
    with pytest.raises(ValueError, match="batch = 0: a graph holds at least one example"):
        Risk(mlp()[0], ring()[0], LOGISTIC, 0.02, batch=0)


def test_what_is_sized_for_caches_is_sized_for_the_device():
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert rows_at_once(1400, 2410, cpu) == 11
    assert rows_at_once(1400, 2410, cuda) == 512
    assert rows_at_once(10**9, 10**9, cpu) == rows_at_once(10**9, 10**9, cuda) == 1


def test_a_step_of_conjugate_gradients_waits_twice_for_the_device(whole, monkeypatch):
    """Once for how many columns are left, and once for the sign of the curvature."""
    risk, theta = whole
    H, B = HessianOperator(risk, theta), risk.gradients(theta, ring()[1]).T
    H @ B
    waits = []
    for name in ("__bool__", "__int__", "__float__", "item", "tolist"):
        original = getattr(torch.Tensor, name)
        monkeypatch.setattr(
            torch.Tensor, name, lambda self, original=original: (waits.append(1), original(self))[1], raising=True
        )
    found = conjugate_gradients(H, B)
    assert found.iterations >= 10
    assert len(waits) <= 2 * found.iterations + 8


def test_what_is_remembered_of_one_data_set_is_not_of_another(whole):
    """Parts of one size, at one theta, with the same weights: each has a scale and minima of its own."""
    risk, theta = whole
    first, second = risk.part(torch.arange(30)), risk.part(torch.arange(30, 60))
    found = minimise(first, theta).theta
    alone = Risk(risk.model, second.data, LOGISTIC, 0.02)
    assert HessianOperator(first, found).scale != HessianOperator(alone, found).scale
    assert HessianOperator(second, found).scale == HessianOperator(alone, found).scale
    assert first.is_known_minimum(found, None)
    assert not second.is_known_minimum(found, None)
