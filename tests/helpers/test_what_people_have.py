"""Models, losses and data as people have them: each gives the right influences, or a refusal with cause and remedy.

The right values come from `plain`, which shares no code with the helpers, or from closed forms.
"""

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

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
    actual_change,
    audit,
    block_conjugate_gradients,
    certify,
    conjugate_gradients,
    cross_validated_losses,
    extreme_eigenvalues,
    fix_gauge,
    flatten,
    hessian_vector_product,
    influence,
    leave_group_out,
    leave_one_out,
    leave_out_weights,
    leverage,
    linear_datamodeling_score,
    lissa,
    minimise,
    minimise_many,
    predicted_change,
    pseudo_inverse,
    refined,
    standard_errors,
)
from tests.helpers import plain

L2 = 0.02


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def seeded(make, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make()


def small(outputs=1, activation=nn.Tanh):
    return seeded(lambda: nn.Sequential(nn.Linear(3, 4), activation(), nn.Linear(4, outputs)))


X3 = randn(30, 3)
Y01 = ((X3[:, 0] + 0.5 * randn(30, seed=4)) > 0).double()


class Wrapped(nn.Module):
    """Parts, and what forward does with them."""

    def __init__(self, forward, **parts):
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)
        self._forward = forward

    def forward(self, x):
        return self._forward(self, x)


def lstm(kind):
    return lambda: Wrapped(
        lambda m, x: m.last(m.recurrent(x)[0][:, -1]),
        recurrent=kind(4, 3, batch_first=True),
        last=nn.Linear(3, 1),
    )


def transformer():
    layer = nn.TransformerEncoderLayer(4, 2, 6, dropout=0.0, batch_first=True, activation="gelu")
    return Wrapped(lambda m, x: m.last(m.layer(x)[:, -1]), layer=layer, last=nn.Linear(4, 1)).eval()


def attention():
    heads = nn.MultiheadAttention(4, 2, batch_first=True)
    return Wrapped(lambda m, x: m.last(m.heads(x, x, x)[0].mean(1)), heads=heads, last=nn.Linear(4, 1))


def tokens():
    return Wrapped(lambda m, x: m.last(torch.tanh(m.table(x)).mean(1)), table=nn.Embedding(7, 3), last=nn.Linear(3, 1))


def branches(m, x):
    padded = torch.zeros(len(x), 5, dtype=x.dtype)
    padded[:, 1:4] = x
    if len(x.shape) > 5:
        raise RuntimeError
    return m.net(padded)


def in_place():
    return Wrapped(branches, net=nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 1)))


def depends_on_values(m, x):
    """Python's `if` on a value of the example: one at a time, as forward is written for."""
    rows = [m.a(one) if one[0] > 0 else m.b(one) for one in x]
    return torch.stack(rows)


def control_flow():
    return Wrapped(depends_on_values, a=nn.Linear(3, 1), b=nn.Linear(3, 1))


def tied():
    one = nn.Linear(3, 3)
    return nn.Sequential(one, nn.Tanh(), one, nn.Tanh(), nn.Linear(3, 1))


def frozen():
    module = small()
    module[0].requires_grad_(False)
    return module


def normalised():
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 1))
    module(torch.randn(50, 3, generator=torch.Generator().manual_seed(3)))
    return module.eval()  # its statistics are float32


def ids():
    return torch.randint(0, 7, (30, 5), generator=torch.Generator().manual_seed(1))


SEQUENCES = randn(30, 5, 4, seed=7)
MODELS = {
    "LSTM": (lstm(nn.LSTM), SEQUENCES),
    "GRU": (lstm(nn.GRU), SEQUENCES),
    "attention": (attention, SEQUENCES),
    "transformer layer": (transformer, SEQUENCES),
    "embedding of token ids": (tokens, ids()),
    "in-place forward": (in_place, X3),
    "if in forward": (control_flow, X3),
    "tied layers": (tied, X3),
    "frozen layer": (frozen, X3),
    "float32 buffers": (normalised, X3),
}


def logistic(outputs, y):
    return F.binary_cross_entropy_with_logits(outputs[:, 0], y, reduction="none")


def penalty(module):
    return L2 * sum((parameter**2).sum() for parameter in plain.trainable(module))


@pytest.mark.parametrize("name", MODELS)
def test_a_model_gets_its_right_influences(name):
    make, X = MODELS[name]
    module = seeded(make)
    before = copy.deepcopy(module.state_dict())
    model, start = flatten(module)
    data = Data(X, Y01)
    risk = Risk(model, data, l2=L2)
    try:
        theta = minimise(risk, start).theta
    except NotAMinimum as symmetric:  # attention has such directions
        risk = fix_gauge(risk, symmetric.theta)
        theta = minimise(risk, symmetric.theta).theta
    found = influence(risk, theta, data[:4])
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())  # left as it was
    module = module.double()
    plain.put(module, theta)

    def objective():
        value = logistic(module(X), Y01).mean() + penalty(module)
        if risk.gauge is not None:
            N, origin = risk.gauge
            flat = torch.cat([parameter.reshape(-1) for parameter in plain.trainable(module)])
            value = value + 0.5 * ((flat - origin) @ N).square().sum()
        return value

    expected = plain.influence(module, objective, logistic, (X, Y01), (X[:4], Y01[:4]))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", ["LSTM", "transformer layer", "in-place forward"])
def test_and_its_leverages_retrainings_and_products(name):
    """What goes through `vmap` over examples, over models and forward mode, or does not."""
    make, X = MODELS[name]
    model, start = flatten(seeded(make))
    risk = Risk(model, Data(X, Y01), l2=0.1)
    theta = minimise(risk, start).theta
    H, G = risk.hessian(theta), risk.gradients(theta)
    v = randn(model.p, seed=5)
    torch.testing.assert_close(hessian_vector_product(risk, theta, v), H @ v)
    V = randn(3, model.p, seed=6)
    torch.testing.assert_close(risk.slopes(theta, V), V @ G.T)
    h = leverage(risk, theta)
    assert float(h.min()) >= 0 and float(h.max()) < 1
    W = leave_out_weights(30)[:2]
    found = minimise_many(risk, W, theta, preconditioner=H)
    for k in range(2):
        torch.testing.assert_close(found.thetas[k], minimise(risk, theta, W[k]).theta, rtol=1e-6, atol=1e-8)


# ------------------------------------------------------------------------------------------- shapes that broadcast


def ridge(X, y, l2):
    A = torch.cat([X, torch.ones(len(X), 1, dtype=X.dtype)], 1)
    return torch.linalg.solve(A.T @ A / len(X) + 2 * l2 * torch.eye(A.shape[1], dtype=X.dtype), A.T @ y / len(X))


@pytest.mark.parametrize("column", [True, False])
def test_targets_in_a_column_are_the_targets(column):
    y = X3 @ randn(3, seed=5) + 0.1 * randn(30, seed=9)
    model, start = flatten(seeded(lambda: nn.Linear(3, 1)))
    risk = Risk(model, Data(X3, y[:, None] if column else y), SQUARED_ERROR, L2)
    torch.testing.assert_close(minimise(risk, start).theta, ridge(X3, y, L2), rtol=1e-8, atol=1e-10)
    h = leverage(risk, ridge(X3, y, L2))
    A = torch.cat([X3, torch.ones(30, 1).double()], 1)
    torch.testing.assert_close(h, (A @ torch.linalg.inv(risk.hessian(start)) * A).sum(1) / 30)


def test_a_loss_of_ones_own_gets_the_column_as_the_outputs_come():
    y = X3 @ randn(3, seed=5)
    own = Loss(lambda f, y: (f - y).square() / 2)
    model, start = flatten(seeded(lambda: nn.Linear(3, 1)))
    found = minimise(Risk(model, Data(X3, y[:, None]), own, L2), start).theta
    torch.testing.assert_close(found, ridge(X3, y, L2), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(
    ("outputs", "y", "loss", "says"),
    [
        (2, randn(30, 1), SQUARED_ERROR, r"outputs have shape \(\d+, 2\) and the targets \(\d+, 1\)"),
        (2, Y01, LOGISTIC, "same shape"),
        (1, Y01.long(), CROSS_ENTROPY, "for one logit use LOGISTIC"),
        (3, Y01.long() + 2, CROSS_ENTROPY, r"a label is outside 0 \.\.\. 2"),
        (3, torch.arange(30)[:, None] % 3, CROSS_ENTROPY, "one label an example"),
        (1, Y01, Loss(lambda f, y: ((f - y[:, None]) ** 2).sum(1)), "depends on the other examples"),
    ],
)
def test_shapes_that_do_not_fit_are_named(outputs, y, loss, says):
    model, start = flatten(small(outputs))
    with pytest.raises(ValueError, match=says):
        minimise(Risk(model, Data(X3, y), loss, L2), start)


def test_a_test_label_beyond_the_outputs_is_named():
    model, start = flatten(small(3))
    risk = Risk(model, Data(X3, torch.arange(30) % 3), CROSS_ENTROPY, L2)
    with pytest.raises(ValueError, match=r"outside 0 \.\.\. 2"):
        risk.gradients(start, Data(X3[:2], torch.tensor([0, 3])))


def test_labels_of_any_integer_type():
    model, start = flatten(small(3))
    y = torch.arange(30) % 3
    values = [
        Risk(model, Data(X3, y.to(kind)), CROSS_ENTROPY)(start) for kind in (torch.int64, torch.int32, torch.uint8)
    ]
    assert len(set(map(float, values))) == 1


def test_several_logits_are_summed():
    model, theta = flatten(small(2))
    y = (randn(30, 2, seed=3) > 0).double()
    expected = F.binary_cross_entropy_with_logits(model(theta, X3), y, reduction="none").sum(1)
    torch.testing.assert_close(Risk(model, Data(X3, y)).losses(theta), expected)


# ------------------------------------------------------------------------- losses that are not an example's own


def random_dropout(m, x):
    return m.net(F.dropout(x, 0.3))


def own_generator(m, x):
    return m.net(x + 0.01 * torch.randn(x.shape, generator=GENERATOR, dtype=x.dtype))


GENERATOR = torch.Generator().manual_seed(0)


def standardised(m, x):
    return m.net((x - x.mean(0)) / x.std(0, correction=0).clamp(min=1e-6))


def writing(m, x):
    x += 0.1
    return m.net(x)


def counting(m, x):
    m.calls.add_(1)
    return m.net(x) + 1e-3 * m.calls


def silently_counting(m, x):
    m.calls.add_(1)
    return m.net(x)


def straight_through(m, x):
    hidden = m.net[0](x)
    return m.net[2]((hidden.round() - hidden).detach() + hidden)


def stopped(m, x):
    return m.net(x) + m.net(x).detach()


def with_calls(forward):
    module = Wrapped(forward, net=small())
    module.register_buffer("calls", torch.zeros(1, dtype=torch.float64))
    return module


def spectral():
    return nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(3, 4)), nn.Tanh(), nn.Linear(4, 1))


NOT_ITS_OWN = {
    "functional dropout": (lambda: Wrapped(random_dropout, net=small()).eval(), X3, "random, or remembers"),
    "a generator of its own": (lambda: Wrapped(own_generator, net=small()), X3, "random, or remembers"),
    "attention dropout": (
        lambda: Wrapped(
            lambda m, x: m.last(m.heads(x, x, x)[0][:, 0]),
            heads=nn.MultiheadAttention(4, 2, dropout=0.3, batch_first=True),
            last=nn.Linear(4, 1),
        ),
        SEQUENCES,
        "random, or remembers",
    ),
    "LSTM dropout": (
        lambda: Wrapped(
            lambda m, x: m.last(m.r(x)[0][:, -1]),
            r=nn.LSTM(4, 3, num_layers=2, dropout=0.5, batch_first=True),
            last=nn.Linear(3, 1),
        ),
        SEQUENCES,
        "random, or remembers",
    ),
    "spectral norm in training": (spectral, X3, r"goes on estimating at every call .* call module.eval\(\) first"),
    "batch statistics": (lambda: Wrapped(standardised, net=small()), X3, "depends on the other examples"),
    "time first": (
        lambda: Wrapped(lambda m, x: m.last(m.r(x)[0][:, -1]), r=nn.LSTM(4, 3), last=nn.Linear(3, 1)),
        SEQUENCES,
        "batch_first=True",
    ),
    "writes into its input": (lambda: Wrapped(writing, net=small()), X3, "writes into its input"),
    "counts its calls": (lambda: with_calls(counting), X3, "random, or remembers"),
    "counts them in silence": (lambda: with_calls(silently_counting), X3, "changes its buffers .*calls"),
    "straight-through": (lambda: Wrapped(straight_through, net=small()), X3, "not the derivative of the loss"),
    "a stopped gradient": (lambda: Wrapped(stopped, net=small()), X3, "not the derivative of the loss"),
}


@pytest.mark.parametrize("name", NOT_ITS_OWN)
def test_what_is_no_function_of_an_example_is_refused(name):
    make, X, says = NOT_ITS_OWN[name]
    given = X.clone()

    def use():
        model, start = flatten(seeded(make))
        minimise(Risk(model, Data(X.clone(), Y01), l2=L2), start)

    with pytest.raises(ValueError, match=says):
        use()
    assert torch.equal(X, given)


def test_random_layers_are_refused_by_name():
    for layer in (nn.Dropout(0.5), nn.RReLU()):
        with pytest.raises(ValueError, match=r"'1' .* is random .* call module.eval\(\)"):
            flatten(nn.Sequential(nn.Linear(3, 1), layer))
    flatten(nn.Sequential(nn.Linear(3, 1), nn.RReLU()).eval())
    flatten(nn.Sequential(nn.Linear(3, 1), nn.Dropout(0.0)))


def test_a_weighted_mean_in_the_loss_is_refused():
    w = torch.tensor([1.0, 5.0, 1.0]).double()
    y = torch.cat([torch.zeros(14), torch.ones(2), torch.full((14,), 2.0)]).long()  # the heavy class is rare
    weighted = Loss(lambda f, t: F.cross_entropy(f, t, weight=w, reduction="none") / w[t].mean())
    model, start = flatten(small(3))
    with pytest.raises(ValueError, match="not by a weighted mean in the loss"):
        Risk(model, Data(X3, y), weighted)(start)


def test_what_becomes_of_the_module_later_changes_nothing():
    module = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Dropout(0.3), nn.Linear(4, 1)).eval()
    model, theta = flatten(module)
    risk = Risk(model, Data(X3, Y01))
    before = risk(theta)
    module.train()
    nn.init.zeros_(module[0].weight)
    assert risk(theta) == before


def test_a_perfect_fit_is_no_reason_to_refuse():
    model, theta = flatten(seeded(lambda: nn.Linear(3, 1)))
    y = model(theta, X3)
    risk = Risk(model, Data(X3, y), SQUARED_ERROR)
    assert float(risk.gradient(theta).norm()) < 1e-15
    assert certify(risk, theta).smallest_eigenvalue > 0


def test_hooks_that_torch_func_cannot_pass_are_named():
    module, kept = small(), []
    module[0].register_forward_hook(lambda layer, given, output: kept.append(output.detach().numpy()))
    model, start = flatten(module)
    with pytest.raises(ValueError, match=r"hooks \(at '0'\).*remove them first"):
        Risk(model, Data(X3, Y01))(start)


@pytest.mark.parametrize(
    ("forward", "kind"), [(lambda m, x: (m.net(x), x), "tuple"), (lambda m, x: {"logits": m.net(x)}, "dict")]
)
def test_outputs_that_are_no_tensor_are_named(forward, kind):
    model, start = flatten(Wrapped(forward, net=small()))
    with pytest.raises(TypeError, match=f"returns a {kind}, not a tensor: wrap it"):
        minimise(Risk(model, Data(X3, Y01)), start)


def test_parameters_that_are_no_real_numbers_are_named():
    module = nn.Linear(3, 1)
    module.phase = nn.Parameter(torch.zeros(2, dtype=torch.complex64))
    with pytest.raises(ValueError, match=r"parameter 'phase' is torch\.complex64"):
        flatten(module)
    with pytest.raises(ValueError, match=r"parameter 'weight' has no shape yet: call the module once"):
        flatten(nn.LazyLinear(1))


def test_a_module_that_cannot_be_copied_is_named():
    module = nn.Linear(3, 1)
    module.scaled = module.weight * 2
    with pytest.raises(ValueError, match=r"cannot be copied .*; weight_norm: write g \* v / v\.norm"):
        flatten(module)


class Once(torch.autograd.Function):
    @staticmethod
    def forward(x):
        return x.tanh()

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(output)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_output):
        return grad_output * (1 - ctx.saved_tensors[0] ** 2)


@pytest.mark.parametrize(
    "forward",
    [
        lambda m, x: m.net[2](Once.apply(m.net[0](x))),
        lambda m, x: m.net(x) * float(m.net(x).abs().max()),
        lambda m, x: torch.from_numpy(m.net(x).detach().numpy()) + m.net(x),
    ],
)
def test_what_torch_func_cannot_differentiate_twice_is_said(forward):
    model, start = flatten(Wrapped(forward, net=small()))
    with pytest.raises(
        ValueError, match=r"cannot differentiate it twice|depends on the other examples|takes for the second derivative"
    ):
        Risk(model, Data(X3, Y01))(start)


def test_a_criterion_is_no_loss():
    with pytest.raises(TypeError, match=r"Loss\(torch.nn.CrossEntropyLoss\(reduction='none'\)\)"):
        Risk(flatten(small(3))[0], Data(X3, torch.arange(30) % 3), nn.CrossEntropyLoss())


def test_operations_without_forward_mode_take_reverse_mode():
    """The second derivative of Huber's loss has no forward mode in PyTorch."""
    huber = Loss(lambda f, y: F.huber_loss(f, y, reduction="none"))
    y = X3 @ randn(3, seed=5) + randn(30, seed=9)
    model, start = flatten(small())
    risk = Risk(model, Data(X3, y), huber, 0.05)
    theta = minimise(risk, start).theta
    H, v = risk.hessian(theta), randn(model.p)
    torch.testing.assert_close(hessian_vector_product(risk, theta, v), H @ v)
    torch.testing.assert_close(risk.slopes(theta, v[None]), v[None] @ risk.gradients(theta).T)
    assert not risk.has_forward_mode
    smooth = Risk(model, Data(X3, y), SQUARED_ERROR, 0.05)
    smooth(start)
    assert smooth.has_forward_mode and all(smooth._known.values())
    assert float(leverage(risk, theta).max()) < 1


# ------------------------------------------------------------------------------------------- scales and formats


@pytest.mark.parametrize("unit", [1e-8, 1e9])
def test_the_units_of_the_targets_change_no_verdict(unit):
    y = unit * (X3 @ torch.tensor([1.0, 2.0, 3.0]).double() + 0.1 * randn(30, seed=7))
    model, start = flatten(seeded(lambda: nn.Linear(3, 1)))
    risk = Risk(model, Data(X3, y), SQUARED_ERROR, 0.01)
    exact = ridge(X3, y, 0.01)
    A = torch.cat([X3, torch.ones(30, 1).double()], 1)
    G = (A @ exact - y)[:, None] * A
    expected = -G[:3] @ torch.linalg.solve(A.T @ A / 30 + 0.02 * torch.eye(4).double(), G.T)
    torch.testing.assert_close(influence(risk, exact, risk.data[:3]), expected, rtol=1e-8, atol=0)
    torch.testing.assert_close(minimise(risk, start).theta, exact, rtol=1e-8, atol=1e-8 * unit)
    with pytest.raises(NotStationary, match=r"its L2 term is 0\.01 times the squares of all parameters"):
        influence(risk, torch.zeros(4).double(), risk.data[:3])
    with pytest.raises(NotStationary):
        influence(risk, exact * (1 + 1e-5), risk.data[:3])


def test_float32_throughout_and_the_way_to_float64():
    train = Data(X3.float(), Y01.float())
    module = small()
    adam = torch.optim.Adam(module.parameters(), lr=0.01)
    for _ in range(1500):  # as it is trained elsewhere
        adam.zero_grad()
        loss = F.binary_cross_entropy_with_logits(module(train.X)[:, 0], train.y)
        (loss + sum(L2 * (parameter**2).sum() for parameter in module.parameters())).backward()
        adam.step()
    model32, theta32 = flatten(module, torch.float32)
    risk32 = Risk(model32, train, l2=L2)
    found32 = minimise(risk32, theta32).theta
    model, theta = flatten(module)
    risk = Risk(model, Data(X3.float().double(), Y01), l2=L2)
    found = minimise(risk, theta).theta
    assert float((found - theta).norm()) < 0.1 * float(theta.norm())  # the minimum beside where Adam stopped
    torch.testing.assert_close(found32.double(), found, rtol=0, atol=1e-3)
    exact, rough = influence(risk, found, risk.data[:5]), influence(risk32, found32, train[:5])
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough.double(), exact, rtol=0, atol=1e-2 * float(exact.abs().max()))


def test_half_precision_is_refused():
    model, theta = flatten(small(), torch.float16)
    with pytest.raises(TypeError, match="second derivatives need float64, or float32"):
        Risk(model, Data(X3.half(), Y01.half()))(theta)


def test_one_strength_for_each_parameter():
    module = small()
    model, start = flatten(module)
    by_name = Risk(model, Data(X3, Y01), l2=lambda name: 0.01 if name.endswith("weight") else 0.0)
    vector = Risk(model, Data(X3, Y01), l2=model.per_parameter(lambda name: 0.01 * name.endswith("weight")))
    theta = minimise(by_name, start).theta
    assert torch.equal(theta, minimise(vector, start).theta)
    module = module.double()
    plain.put(module, theta)

    def objective():
        weights = [parameter for name, parameter in module.named_parameters() if name.endswith("weight")]
        return logistic(module(X3), Y01).mean() + 0.01 * sum((each**2).sum() for each in weights)

    expected = plain.influence(module, objective, logistic, (X3, Y01), (X3[:4], Y01[:4]))
    torch.testing.assert_close(influence(by_name, theta, Data(X3[:4], Y01[:4])), expected, rtol=1e-6, atol=1e-9)
    with pytest.raises(ValueError, match=rf"l2 has shape \(3,\): give a number, or one a parameter, \({model.p},\)"):
        Risk(model, Data(X3, Y01), l2=torch.ones(3))
    with pytest.raises(ValueError, match=r"l2 = -1 must not be negative"):
        Risk(model, Data(X3, Y01), l2=lambda name: -1.0)
    with pytest.raises(NotStationary, match="a strength for each parameter"):
        influence(by_name, start, Data(X3[:4], Y01[:4]))


# ------------------------------------------------------------------------------------------- weights of examples


def test_example_weights_go_all_the_way():
    w = torch.tensor([1.0, 5.0, 1.0]).double()[torch.arange(30) % 3]
    w = w / w.sum()
    model, start = flatten(seeded(lambda: nn.Linear(3, 3)))
    risk = Risk(model, Data(X3, torch.arange(30) * 7 % 3), CROSS_ENTROPY, 0.05)
    theta, test = minimise(risk, start, w).theta, risk.data[:4]
    scores = influence(risk, theta, test, weights=w)
    for convention in ("zero", "mean"):
        retrained = leave_one_out(risk, theta, convention=convention, weights=w)
        actual = actual_change(risk, theta, retrained, test)
        for i in (0, 1, 17):  # by hand
            without = w.clone()
            without[i] = 0
            if convention == "mean":
                without = without / without.sum()
            by_hand = risk.losses(minimise(risk, theta, without).theta, test) - risk.losses(theta, test)
            torch.testing.assert_close(actual[:, i], by_hand, rtol=1e-6, atol=1e-10)
        predicted = predicted_change(scores, convention, w)
        assert float((predicted - actual).norm() / actual.norm()) < 0.2
        step = 1e-4  # a part of the removal: exactly linear
        W = w + step * (leave_out_weights(30, None, convention, weights=w) - w)
        moved = minimise_many(risk, W, theta, preconditioner=HessianOperator(risk, theta, w), gtol=1e-13)
        rate = actual_change(risk, theta, moved, test) / step
        torch.testing.assert_close(rate, predicted, rtol=0, atol=2e-3 * float(predicted.abs().max()))
    report = audit(risk, theta, test, weights=w, retrain=5)
    assert report.verdict != "do not trust" and report.agreement.r > 0.95
    torch.testing.assert_close(report.leverage, leverage(risk, theta, w))
    with pytest.raises(NotStationary, match="pass the weights"):
        leave_one_out(risk, theta)


def test_a_point_with_all_the_weight_cannot_be_left_out():
    with pytest.raises(ValueError, match="nothing is left to train on"):
        predicted_change(torch.ones(2, 1))
    one = torch.tensor([1.0, 0.0])
    with pytest.raises(ValueError, match="nothing is left to train on"):
        predicted_change(torch.ones(2, 2), weights=one)
    with pytest.raises(ValueError, match="nothing is left to train on"):
        leave_out_weights(2, [[0]], weights=one)
    with pytest.raises(ValueError, match=r"weights have shape \(3,\)"):
        predicted_change(torch.ones(2, 2), weights=torch.ones(3))


# ------------------------------------------------------------------------------------------- what is no minimum


def test_a_kink_is_called_a_kink():
    y = ((X3[:, 0] * X3[:, 1]) > 0).double()
    found = set()
    for seed in range(4):
        model, start = flatten(seeded(lambda: nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 1)), seed))
        try:
            minimise(Risk(model, Data(X3, y), l2=0.005), start)
        except (NotConverged, NotAMinimum) as error:
            found.add(str(error))
    assert found and all("the risk has a kink there" in each and "smooth activation" in each for each in found)


def test_a_smooth_valley_is_no_kink(trained):
    with pytest.raises(NotConverged, match="raise max_steps") as stopped:
        minimise(trained.risk, trained.start, max_steps=3)
    assert "kink" not in str(stopped.value)


def test_targets_far_from_one_are_named():
    y = 2e5 + 1e5 * (X3 @ torch.tensor([1.0, 0.5, 0.3]).double())
    model, start = flatten(small())
    with pytest.raises(NotConverged, match=r"the targets are up to .*standardise them"):
        minimise(Risk(model, Data(X3, y), SQUARED_ERROR, L2), start, max_steps=200)


def test_overflow_is_named():
    model, start = flatten(small())
    exploding = Loss(lambda f, y: torch.exp(500 * f))
    with pytest.raises(ValueError, match="not finite at this theta"):
        minimise(Risk(model, Data(1e3 * X3, Y01), exploding), start * 100)


class Factors(nn.Module):
    """Users × items: the loss does not change when all factors are rotated."""

    def __init__(self, rank):
        super().__init__()
        self.u, self.v = nn.Embedding(8, rank), nn.Embedding(6, rank)

    def forward(self, x):
        return (self.u(x[:, 0]) * self.v(x[:, 1])).sum(1)


def ratings(rank):
    generator = torch.Generator().manual_seed(3)
    X = torch.stack([torch.randint(0, k, (80,), generator=generator) for k in (8, 6)], 1)
    y = (randn(8, 3, seed=4)[X[:, 0]] * randn(6, 3, seed=5)[X[:, 1]]).sum(1) + 0.3 * randn(80, seed=8)
    model, start = flatten(seeded(lambda: Factors(rank)))
    return Risk(model, Data(X, y), SQUARED_ERROR, 0.01), start


@pytest.mark.parametrize("rank", [2, 3])
def test_a_symmetry_is_recognised_and_pinned(rank):
    risk, start = ratings(rank)
    flat = rank * (rank - 1) // 2
    with pytest.raises(
        NotAMinimum, match=rf"{flat} of the \d+ eigenvalues are zero .*a symmetry .*fix_gauge"
    ) as stopped:
        minimise(risk, start)
    theta = stopped.value.theta
    assert int((torch.linalg.eigvalsh(risk.hessian(theta)).abs() < 1e-10).sum()) == flat
    test = risk.data[:3]
    by_pseudo_inverse = influence(risk, theta, test, solve=pseudo_inverse)
    pinned = fix_gauge(risk, theta)
    certificate = certify(pinned, theta)
    torch.testing.assert_close(influence(pinned, theta, test), by_pseudo_inverse, rtol=1e-7, atol=1e-9)
    by_cg = influence(risk, theta, test, solve=conjugate_gradients)
    torch.testing.assert_close(by_cg, by_pseudo_inverse, rtol=1e-5, atol=1e-7)
    # The softest of the others keeps its stiffness, and the pinned directions have no other.
    softest = torch.linalg.eigvalsh(risk.hessian(theta))[flat]
    assert certificate.smallest_eigenvalue == pytest.approx(float(softest), rel=1e-6)
    # A small part of a removal, retrained: exactly linear.
    step = 1e-4
    W = risk.uniform + step * (leave_out_weights(80, [[0], [11], [42]]) - risk.uniform)
    moved = minimise_many(pinned, W, theta, preconditioner=pinned.hessian(theta), gtol=1e-13)
    rate = actual_change(pinned, theta, moved, test) / step
    predicted = predicted_change(by_pseudo_inverse)[:, [0, 11, 42]]
    torch.testing.assert_close(rate, predicted, rtol=0, atol=3e-3 * float(predicted.abs().max()))
    # And pinning changes no minimum: without the pin it has the same losses.
    with pytest.raises(NotAMinimum):
        minimise(risk, moved.thetas[0] + 1e-4, W[0])


def test_no_symmetry_where_losses_change():
    """Two equal columns and nothing to choose between them is one; a maximum or a saddle is none."""
    X = X3[:, :1].repeat(1, 2)
    model, _ = flatten(nn.Linear(2, 1, bias=False))
    risk = Risk(model, Data(X, X3[:, 1]), SQUARED_ERROR)
    theta = torch.linalg.lstsq(X, X3[:, 1:2], driver="gelsd").solution[:, 0]
    assert fix_gauge(risk, theta).gauge[0].shape == (2, 1)
    elsewhere = theta + torch.tensor([1.0, -1.0]).double()  # along the flat direction: pinned there, it is the minimum
    assert certify(fix_gauge(risk, elsewhere), elsewhere).smallest_eigenvalue > 0
    ball = Risk(model, Data(X3[:, :2], Y01), Loss(lambda f, y: torch.cos(f)))
    with pytest.raises(NotAMinimum, match="losses change along it"):
        fix_gauge(ball, torch.zeros(2).double())
    regular = Risk(model, Data(X3[:, :2], X3[:, 2]), SQUARED_ERROR, 0.1)
    minimum = minimise(regular, torch.zeros(2).double()).theta
    assert fix_gauge(regular, minimum) is regular


def test_a_part_along_a_flat_direction_has_no_solution():
    X = X3[:, :1].repeat(1, 2)
    model, _ = flatten(nn.Linear(2, 1, bias=False))
    risk = Risk(model, Data(X, X3[:, 1]), SQUARED_ERROR)
    theta = torch.linalg.lstsq(X, X3[:, 1:2], driver="gelsd").solution[:, 0]
    H = HessianOperator(risk, theta)
    assert pseudo_inverse(H, torch.ones(2, 1).double()).residuals < 1e-12
    with pytest.raises(NotPositiveDefinite, match="has no solution"):
        pseudo_inverse(H, torch.tensor([[1.0], [-1.0]]).double())


def test_a_solver_that_cannot_see_a_saddle_does_not_answer_at_one():
    """All units alike: no gradient has a part along the direction of negative curvature."""
    module = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    for parameter in module.parameters():
        nn.init.constant_(parameter, 0.5)
    X = randn(60, 2, seed=1)
    model, start = flatten(module)
    risk = Risk(model, Data(X, (X.square().sum(1) > 1.5).double()), l2=0.005)
    with pytest.raises(NotAMinimum, match="near a saddle") as stopped:
        minimise(risk, start)
    theta = stopped.value.theta
    with pytest.raises(NotPositiveDefinite, match="smallest eigenvalue is -"):
        influence(risk, theta, risk.data[:3], solve=conjugate_gradients)
    influence(risk, theta, risk.data[:3], solve=conjugate_gradients, gtol=torch.inf)  # asked for, whatever it means


def test_what_a_solver_says_of_itself_is_heard(trained):
    arguments = (trained.risk, trained.theta, trained.test)

    def nothing(H, B):
        return Solution(0 * B, torch.ones(B.shape[1]), 0)

    def not_a_number(H, B):
        return B * torch.nan

    def of_another_shape(H, B):
        return B[:, :1]

    with pytest.raises(NotSolved, match="no better than X = 0"):
        influence(*arguments, solve=nothing)
    for solve in (not_a_number, of_another_shape):
        with pytest.raises(NotSolved, match="no finite numbers"):
            influence(*arguments, solve=solve)


# ------------------------------------------------------------------------------------------- sessions


def test_under_no_grad_and_inference_mode():
    model, start = flatten(small())
    risk = Risk(model, Data(X3, Y01), l2=L2)
    theta = minimise(risk, start).theta
    right = (
        influence(risk, theta, risk.data[:3]),
        leave_one_out(risk, theta).thetas,
        audit(risk, theta, risk.data[:3]).rank,
    )
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            inside = Risk(model, Data(X3 + 0, Y01 + 0), l2=L2)
            start_inside = start + 0
            found = minimise(inside, start_inside).theta
            scores = influence(inside, found, inside.data[:3], weights=inside.uniform + 0)
            thetas = leave_one_out(inside, found).thetas
            rank = audit(inside, found, inside.data[:3]).rank
        torch.testing.assert_close((scores, thetas, rank), right, rtol=1e-8, atol=1e-10)


def test_inputs_of_a_graph_are_left_alone():
    Z = X3.clone().requires_grad_(True)
    model, start = flatten(small())
    risk = Risk(model, Data(Z, Y01), l2=L2)
    found = influence(risk, minimise(risk, start).theta, risk.data[:3])
    assert not found.requires_grad and Z.grad is None


@pytest.mark.parametrize("default", [torch.float32, torch.float64])
def test_another_default_dtype_or_device_changes_nothing(default):
    module, before = small(), torch.get_default_dtype()

    def computed():
        model, start = flatten(module)
        risk = Risk(model, Data(X3, Y01), l2=lambda name: L2)
        theta, test = minimise(risk, start).theta, risk.data[:3]
        H = HessianOperator(risk, theta)
        B = risk.gradients(theta, test).T
        solved = [each(H, B).X for each in (conjugate_gradients, block_conjugate_gradients, refined, pseudo_inverse)]
        some = lissa(H, B, scale=2 * float(H.eigenvalues[-1]), depth=50, batch=len(X3) // 2, rtol=1.0).X
        thetas, report = leave_one_out(risk, theta).thetas, audit(risk, theta, test)
        groups = [[k, k + 1] for k in range(0, 12, 2)]
        after = actual_change(risk, theta, leave_group_out(risk, theta, groups), test)
        score = linear_datamodeling_score(influence(risk, theta, test), groups, after)
        errors, without = standard_errors(risk, theta, test), cross_validated_losses(risk, theta)
        ends = extreme_eigenvalues(H)
        return [*solved, some, thetas, report.second_order, report.off, score.without, errors, without, ends]

    right = computed()
    try:
        torch.set_default_dtype(default)
        torch.set_default_device("meta")  # what is made without a device shows
        found = computed()
    finally:
        torch.set_default_dtype(before)
        torch.set_default_device(None)
    torch.testing.assert_close(found, right, rtol=1e-9, atol=1e-12)


def test_importing_the_helpers_is_quick():
    import subprocess
    import sys

    code = "import sys, helpers; assert {'matplotlib.pyplot', 'scipy', 'sklearn', 'lark'}.isdisjoint(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_saturated_test_points_are_a_finding():
    model, start = flatten(seeded(lambda: nn.Linear(3, 1)))
    risk = Risk(model, Data(X3, Y01), l2=L2)
    theta = minimise(risk, start).theta
    far = 1e4 * X3[:3]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = audit(risk, theta, Data(far, (model(theta, far) > 0).double()))
    assert report.verdict == "do not trust" and "saturated" in str(report)
    assert str(report).isascii()
