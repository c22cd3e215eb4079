"""The probe of a model and a loss: what it finds out, and what it refuses, each from both sides of its limit."""

import pytest
import torch

from helpers import SQUARED_ERROR, Data, Loss, Risk, flatten
from helpers.probe import probe, refuse_mixing

X = torch.randn(8, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = torch.randn(8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
THETA = torch.tensor([0.5, -1.0, 2.0]).double()


def squared(theta, X, y):
    return (X @ theta - y).square()


def squares(f, y):
    return (f - y).square()


class Squeezed(torch.nn.Module):
    def forward(self, x):
        return x.squeeze()


def tried(losses, model=None, theta=THETA):
    return probe(losses, model, theta, X, Y)


def test_what_is_found_out_of_an_ordinary_loss():
    """Of an example the graph of the loss keeps one number, the residual; the gradient's and its derivative's five."""
    found = tried(squared)
    assert found == {"vmap over examples": True, "vmap over models": True, "forward mode": True, "bytes an example": 40}


def test_an_if_on_a_value_takes_a_loop_over_examples_and_models():
    def branching(theta, X, y):
        rows = [(x @ theta - t) ** 2 if x @ theta > 0 else 2 * (x @ theta - t) ** 2 for x, t in zip(X, y, strict=True)]
        return torch.stack(rows)

    found = tried(branching)
    assert not found["vmap over examples"] and not found["vmap over models"] and found["forward mode"]


def test_the_global_random_state_and_the_arguments_stay():
    before, given, theta = torch.get_rng_state(), X.clone(), THETA.clone()
    tried(squared, theta=theta)
    assert torch.equal(torch.get_rng_state(), before) and torch.equal(X, given) and torch.equal(theta, THETA)


@pytest.mark.parametrize(
    ("company", "says"),
    [(1e-10, None), (1e-7, "computes in fewer digits"), (1e-5, "computes in fewer digits"),
     (1e-3, "depends on the other examples"), (1.0, "depends on the other examples")],
)  # fmt: skip
def test_how_much_company_may_change_a_loss(company, says):
    def losses(theta, X, y):
        return squared(theta, X, y) * (1 + company * (len(X) > 1))

    if says is None:
        tried(losses)
    else:
        with pytest.raises(ValueError, match=says):
            tried(losses)


def factor(value):
    """The derivative times ``value``, the function as it is."""
    return lambda f: f.detach() + value * (f - f.detach())


@pytest.mark.parametrize(("value", "fits"), [(1.003, True), (0.997, True), (1.03, False), (0.97, False), (-1.0, False)])
def test_a_derivative_may_be_wrong_by_less_than_a_per_cent(value, fits):
    def losses(theta, X, y):
        return (factor(value)(X @ theta) - y).square()

    if fits:
        tried(losses)
    else:
        with pytest.raises(ValueError, match="the gradient is not the derivative of the loss: along one direction"):
            tried(losses)


class Sine(torch.autograd.Function):
    """Its derivative is right; what autograd takes for the derivative of that is nothing."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return torch.sin(x)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(inputs[0])

    @staticmethod
    def backward(ctx, grad_output):
        return grad_output * torch.cos(ctx.saved_tensors[0].detach())


def test_a_second_derivative_that_is_none_is_refused():
    with pytest.raises(ValueError, match=r"what torch\.func takes for the second derivative is not the derivative of"):
        tried(lambda theta, X, y: 3 * Sine.apply(X @ theta))
    tried(lambda theta, X, y: 3 * torch.sin(X @ theta))


def test_single_gradients_must_add_up_to_that_of_all():
    """Each loss has its value alone, and the derivative of the largest of its batch."""

    def losses(theta, X, y):
        f = X @ theta
        return (f - y).square() + f.max() - f.max().detach()

    with pytest.raises(ValueError, match="the gradients of the single examples do not add up"):
        tried(losses)


@pytest.mark.parametrize("late", [1, 3, 8])
def test_what_is_seldom_random_is_called_often_enough(late):
    """Who draws at all is called eight times more; who draws nothing, once."""
    calls = []

    def losses(theta, X, y):
        torch.rand(1)
        calls.append(1)
        return squared(theta, X, y) * (1 + 1e-6 * (len(calls) == 1 + late))

    with pytest.raises(ValueError, match="random, or remembers its calls"):
        tried(losses)


def test_what_is_not_finite_is_shown():
    with pytest.raises(ValueError, match=r"losses are not finite at this theta: \(nan, nan, nan, \.\.\.\)"):
        tried(lambda theta, X, y: squared(theta, X, y) * torch.nan)


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
def test_units_make_no_derivative_wrong(unit):
    """Of the inputs, and of the targets with the parameters."""
    probe(squared, None, THETA / unit, unit * X, Y)
    probe(squared, None, unit * THETA, X, unit * Y)
    with pytest.raises(ValueError, match="not the derivative of the loss"):
        probe(lambda t, X, y: (factor(1.05)(X @ t) - y).square(), None, THETA / unit, unit * X, Y)


@pytest.mark.parametrize("looped", [False, True])
def test_a_rare_example_that_minds_its_company_is_found(looped):
    """Missing values that the batch's mean replaces, in one example of 200: of those that are probed none has any."""
    X, y = (
        torch.randn(200, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2)),
        torch.zeros(200).double(),
    )

    class Imputing(torch.nn.Linear):
        def forward(self, x):
            if looped:
                x = torch.stack([row if row[0] > 0 else row.clone() for row in x])  # no vmap
            missing = x == -999
            return super().forward(torch.where(missing, (x * ~missing).sum(0) / (~missing).sum(0).clamp(min=1), x))

    model, theta = flatten(Imputing(3, 1))
    Risk(model, Data(X, y), SQUARED_ERROR)(theta)
    X[77, 0] = -999
    assert not (Risk(model, Data(X, y), SQUARED_ERROR).spread()[0] == -999).any()
    for batch in (None, 10):
        risk = Risk(model, Data(X, y), SQUARED_ERROR, batch=batch)
        for _ in range(2):  # and again when asked again
            with pytest.raises(ValueError, match=r"depends on the other examples .* of 200 examples"):
                risk(theta)
    whole = Risk(model, Data(X[:77], y[:77]), SQUARED_ERROR)
    whole(theta)
    assert whole.part(torch.arange(5))._known == whole.but(l2=0.1)._known == whole._known
    assert not whole.but(data=risk.data)._known  # others are tried


def test_a_few_that_differ_slightly_have_company_and_most_have_few_digits():
    def shifted(count):
        return lambda: torch.cat([torch.full((count,), 1 + 1e-6), torch.ones(100 - count)]).double()

    for count, says in ((3, "3 of 100 examples"), (90, "fewer digits than torch.float64: one example")):
        for unit in (1e-6, 1.0, 1e6):
            with pytest.raises(ValueError, match=says):
                refuse_mixing(
                    lambda count=count, unit=unit: unit * shifted(count)(), lambda unit=unit: unit * shifted(0)()
                )
    outlier = torch.cat([torch.ones(99), torch.tensor([1e9])]).double()
    with pytest.raises(ValueError, match="depends on the other examples"):
        refuse_mixing(lambda: outlier + (outlier == 1) * 0.1, lambda: outlier)
    sizes = torch.tensor([1.0, 1.0, 10.0]).double()
    with pytest.raises(ValueError, match="alone it is 15, and with others 10"):  # the one that differs most
        refuse_mixing(lambda: sizes + torch.tensor([1e-3, 0.0, 5.0]), lambda: sizes)
    lost = torch.tensor([1.0, torch.inf, 2.0])
    with pytest.raises(ValueError, match=r"examples \[1\] have no finite loss"):
        refuse_mixing(lambda: lost.nan_to_num(), lambda: lost)


class InSingle(torch.autograd.Function):
    """The identity, whose gradient is rounded to float32."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x.clone()

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, g):
        return Rounded.apply(g)


class Rounded(InSingle):
    @staticmethod
    def forward(g):
        return g.float().double()

    @staticmethod
    def backward(ctx, g):
        return g


def test_gradients_of_single_examples_tell_fewer_digits():
    X, y, theta = torch.eye(3).double(), torch.zeros(3).double(), torch.arange(1, 4).double() / 7
    with pytest.raises(ValueError, match=r"gradients of single examples add up to .e-0[89] only") as refusal:
        probe(lambda theta, X, y: (X @ InSingle.apply(theta) + X @ theta.exp() - y).square(), None, theta, X + 1, y)
    assert "hooks" not in str(refusal.value)


def test_memory_that_is_short_is_no_unfit_input():
    for error in (torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("can't allocate memory")):

        def losses(theta, X, y, error=error):
            raise error

        with pytest.raises(type(error), match=str(error)):
            probe(losses, None, torch.ones(1), torch.ones(3, 1), torch.ones(3))


def test_what_is_random_without_torch_is_not_said_to_mind_its_company():
    draws = iter([1.0] * 5 + [2.0] + [1.0] * 99)  # not in the first calls
    with pytest.raises(ValueError, match="random, or remembers its calls"):
        tried(lambda theta, X, y: squared(theta, X, y) * next(draws))


def test_losses_that_no_parameter_moves_are_refused():
    """As with a weight that eval() merged; a loss whose gradient happens to vanish where it is probed is none."""
    with pytest.raises(ValueError, match=r"no loss depends on the parameters: .* cached or merged"):
        tried(lambda theta, X, y: (X @ THETA - y).square())
    tried(lambda theta, X, y: torch.relu(X @ theta - 1e3).square())


@pytest.mark.parametrize(
    "losses",
    [
        lambda theta, X, y: (X @ theta - y).square().float().double(),
        lambda theta, X, y: (X @ theta + 100).float().double() - y,
    ],
)
def test_float32_inside_is_named(losses):
    with pytest.raises(ValueError, match=r"computes in fewer digits than torch\.float64"):
        tried(losses)


def test_a_loss_that_writes_into_the_targets_is_refused():
    with pytest.raises(ValueError, match="the loss writes into the targets"):
        tried(lambda theta, X, y: squared(theta, X, y.mul_(2)))


@pytest.mark.parametrize(
    ("module", "X", "loss", "says"),
    [
        (torch.nn.Linear(4, 1), X, squares, r"cannot take X \(8, 3\) of torch.float64 .*the features"),
        (torch.nn.Linear(3, 1), X > 0, squares, r"cannot take X \(8, 3\) of torch.bool"),
        (torch.nn.Linear(3, 1), X, lambda f, y: (f - y).square().sum(1), r"one output an example as \(n,\)"),
        (torch.nn.Linear(3, 1), X, lambda f, y: (f - y).float(), r"the loss gives torch\.float32, and theta is"),
        (torch.nn.Linear(3, 1), X, lambda f, y: None, "the loss gives NoneType"),
        (torch.nn.Sequential(torch.nn.Linear(3, 1), Squeezed()), X, squares, r"for 1 examples: .*squeeze\(-1\)"),
    ],
)  # fmt: skip
def test_what_a_model_or_a_loss_cannot_take_is_named(module, X, loss, says):
    model, theta = flatten(module)
    with pytest.raises((ValueError, TypeError), match=says):
        Risk(model, Data(X, Y[:, None]), Loss(loss))(theta)
