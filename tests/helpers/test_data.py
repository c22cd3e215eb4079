"""Examples, and the ring problem."""

import pytest
import torch

from helpers import Data, digits, ring


def test_the_ring_is_the_reference_problem():
    train, test = ring()
    assert train.X.shape == (60, 2)
    assert test.X.shape == (20, 2)
    assert train.X.dtype == train.y.dtype == torch.float64
    assert int(train.y.sum()) == 26
    assert torch.equal(train.y, (train.X.square().sum(1) > 1.5).double())
    assert torch.equal(train.X, train.X.float().double()), "drawn in float32, so that both formats hold the same points"


def test_the_test_points_are_drawn_after_the_training_points():
    generator = torch.Generator().manual_seed(0)
    train, test = ring()
    assert torch.equal(train.X, torch.randn(60, 2, generator=generator).double())
    assert torch.equal(test.X, torch.randn(20, 2, generator=generator).double())


def test_the_ring_leaves_the_global_random_state_alone():
    before = torch.get_rng_state()
    ring()
    assert torch.equal(torch.get_rng_state(), before)


def test_the_labels_are_those_of_the_ring():
    train, test = ring(n=3000, n_test=3000, seed=1)
    for data in (train, test):
        assert torch.equal(data.y, (data.X.square().sum(1) > 1.5).double())


def test_examples_can_be_taken_out():
    train, _ = ring()
    assert train[3].X.shape == (1, 2)
    assert torch.equal(train[[0, 2]].X, train.X[[0, 2]])
    assert torch.equal(train[:5].y, train.y[:5])
    assert len(train[train.y == 1]) == 26


def test_to_converts_inputs_and_leaves_integer_labels_integer():
    data = Data(torch.zeros(2, 3), torch.tensor([0, 1])).to(torch.float64)
    assert data.X.dtype == torch.float64
    assert data.y.dtype == torch.int64


def test_to_moves_and_converts(device):
    moved = ring()[0].to(device)
    assert moved.X.device.type == moved.y.device.type == device
    assert moved.to(torch.float32).y.dtype == torch.float32


@pytest.mark.parametrize(
    ("X", "y", "says"),
    [
        (torch.zeros(3, 2), torch.zeros(2), r"X has shape \(3, 2\) and y \(2,\)"),
        (torch.zeros(0, 2), torch.zeros(0), "at least one"),
        (torch.tensor(1.0), torch.tensor(1.0), "at least one"),
        (torch.tensor([[0.0], [torch.nan]]), torch.zeros(2), r"X is not finite in examples \[1\]"),
        (torch.zeros(2, 1), torch.tensor([torch.inf, 0.0]), r"y is not finite in examples \[0\]"),
    ],
)
def test_bad_examples_are_refused(X, y, says):
    with pytest.raises(ValueError, match=says):
        Data(X, y)


def test_inputs_and_targets_share_a_device():
    with pytest.raises(ValueError, match="X is on meta and y on cpu"):
        Data(torch.zeros(2, 1, device="meta"), torch.zeros(2))


@pytest.mark.parametrize("X", [[[1.0], [2.0]], torch.zeros(2, 1).numpy()])
def test_what_is_no_tensor_is_refused(X):
    with pytest.raises(TypeError, match=r"X is a \w+: X and y must be tensors .*torch\.as_tensor"):
        Data(X, torch.zeros(2))
    with pytest.raises(TypeError, match=r"y is a \w+"):
        Data(torch.zeros(2, 1), X)


def test_a_sparse_or_nested_tensor_is_refused():
    nested = torch.nested.nested_tensor([torch.ones(1), torch.ones(2)], layout=torch.jagged)
    for X in (torch.eye(2).to_sparse(), nested):
        with pytest.raises(TypeError, match="X is a sparse or nested tensor: make it a dense one"):
            Data(X, torch.zeros(2))


def test_the_digits_are_scikit_learns_in_the_order_of_the_seed():
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    order = torch.randperm(1797, generator=torch.Generator().manual_seed(3))
    train, test = digits(1000, seed=3)
    assert (len(train), len(test)) == (1000, 797)
    assert torch.equal(torch.cat([train.X, test.X]), torch.as_tensor(pixels)[order] / 16)
    assert torch.equal(torch.cat([train.y, test.y]), torch.as_tensor(labels)[order])
    assert train.X.dtype == torch.float64 and train.y.dtype == torch.int64
    assert torch.equal(digits()[0].X[:1000], digits(1000, seed=0)[0].X) and len(digits()[0]) == 1400
    for n in (0, 1797):
        with pytest.raises(ValueError, match=f"n = {n} must lie between 1 and 1796"):
            digits(n)
    assert [len(part) for part in digits(1)] == [1, 1796]


def test_another_default_device_changes_no_problem():
    problems = (ring, digits)
    before = [problem() for problem in problems]
    try:
        torch.set_default_device("meta")
        after = [problem() for problem in problems]
    finally:
        torch.set_default_device(None)
    for (train, test), (train_after, test_after) in zip(before, after, strict=True):
        assert torch.equal(train.X, train_after.X) and torch.equal(test.y, test_after.y)


def test_a_tensor_of_inference_mode_can_be_differentiated_by():
    with torch.inference_mode():
        data = Data(torch.ones(2, 1), torch.zeros(2))
    assert not data.X.is_inference() and not data.y.is_inference()


def test_inputs_may_have_one_axis():
    """The ids of single tokens, say."""
    data = Data(torch.arange(3), torch.tensor([1.0, 2.0, 3.0]))
    assert data[1].X.tolist() == [1] and data[1].y.tolist() == [2.0]
    assert data[torch.tensor([2, 0])].X.tolist() == [2, 0]


def test_the_first_five_examples_that_are_not_finite_are_named():
    with pytest.raises(ValueError, match=r"X is not finite in examples \[1, 2, 3, 4, 5\]: remove"):
        Data(torch.tensor([0.0, *[torch.nan] * 6])[:, None], torch.zeros(7))
