"""The page on conventions: its algebra on a small regression, and the scores of libraries that are installed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits as bce
from torch.utils.data import DataLoader, TensorDataset

from helpers import Data, Risk, flatten, influence, minimise, predicted_change

N, N_TEST, P, L2 = 24, 5, 4, 0.05


class Setting:
    """A logistic regression at its minimum, and the two scores of the page, each test × train."""

    def __init__(self) -> None:
        draw = torch.Generator().manual_seed(0)
        X, X_test = (torch.randn(m, P - 1, generator=draw, dtype=torch.float64) for m in (N, N_TEST))
        noise = 0.5 * torch.randn(N, generator=draw, dtype=torch.float64)
        self.train, self.test = Data(X, (X[:, 0] + noise > 0).double()), Data(X_test, (X_test[:, 0] > 0).double())
        self.module = nn.Linear(P - 1, 1, dtype=torch.float64)
        model, _ = flatten(self.module)
        self.risk = Risk(model, self.train, l2=L2)
        self.theta = minimise(self.risk, torch.zeros(P, dtype=torch.float64)).theta
        nn.utils.vector_to_parameters(self.theta, self.module.parameters())
        self.H = self.risk.hessian(self.theta)
        self.G, self.G_test = self.risk.gradients(self.theta), self.risk.gradients(self.theta, self.test)
        self.s = self.score(self.G)
        self.s_tilde = self.score(self.G + 2 * L2 * self.theta)

    def score(self, G: Tensor) -> Tensor:
        return self.G_test @ torch.linalg.solve(self.H, G.T)

    def sets(self) -> tuple[TensorDataset, TensorDataset]:
        return tuple(TensorDataset(data.X, data.y[:, None]) for data in (self.train, self.test))


@pytest.fixture(scope="module")
def at() -> Setting:
    return Setting()


def same(left: Tensor, right: Tensor) -> None:
    torch.testing.assert_close(left, right, rtol=1e-9, atol=1e-12)


def test_this_book(at: Setting) -> None:
    scores = influence(at.risk, at.theta, at.test)
    same(scores, -at.s)
    same(predicted_change(scores, "zero"), at.s / N)
    same(predicted_change(scores, "mean"), at.score(at.G - at.G.mean(0)) / (N - 1))


def test_the_mean_gradient_is_minus_the_l2_term(at: Setting) -> None:
    same(at.G.mean(0), -2 * L2 * at.theta)


def test_l2_in_the_single_gradient_predicts_the_mean_over_the_others(at: Setting) -> None:
    prediction = predicted_change(influence(at.risk, at.theta, at.test), "mean")
    same(at.s_tilde / N, prediction * (N - 1) / N)
    assert (at.s_tilde - at.s).abs().max() > 0.01  # the two scores are not the same
    # For one test point, all training points differ by the same offset.
    same((at.s_tilde - at.s).std(1), torch.zeros(N_TEST, dtype=torch.float64))


def test_contamination_is_the_mean_over_the_others(at: Setting) -> None:
    # Hampel: mass ε moves onto z_i from all points in proportion, w = (1 - ε)/n + ε·[j = i].
    def weights(i: int, eps: float) -> Tensor:
        w = torch.full((N,), (1 - eps) / N, dtype=torch.float64)
        w[i] += eps
        return w

    i, h = 3, 1e-4
    others = torch.full((N,), 1 / (N - 1), dtype=torch.float64)
    others[i] = 0
    same(weights(i, -1 / (N - 1)), others)
    up, down = (at.risk.losses(minimise(at.risk, at.theta, weights(i, e)).theta, at.test) for e in (h, -h))
    torch.testing.assert_close((up - down) / (2 * h), -at.s_tilde[:, i], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("damping", [0.0, 0.004])
def test_lissas_damping_is_multiplied_by_its_scaling(at: Setting, damping: float) -> None:
    # The recursion of dattri and of Koh & Liang's code, with the whole data set as its batch.
    scaling, v = 5.0, at.G_test[0]
    x = v.clone()
    for _ in range(3000):
        x = v + (1 - damping) * x - at.H @ x / scaling
    damped = at.H + damping * scaling * torch.eye(P, dtype=torch.float64)
    same(x / scaling, torch.linalg.solve(damped, v))


def per_example(output: Tensor, y: Tensor) -> Tensor:
    return bce(output.reshape(-1), y.reshape(-1), reduction="none")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("batch", [N, 6])
def test_pydvl(at: Setting, batch: int) -> None:
    pytest.importorskip("pydvl.influence.torch", exc_type=ImportError)
    from pydvl.influence.torch import DirectInfluence

    train, test = at.sets()
    direct = DirectInfluence(at.module, lambda o, y: per_example(o, y).mean(), regularization=2 * L2)
    scores = direct.fit(DataLoader(train, batch_size=batch)).influences(*test.tensors, *train.tensors)
    same(scores, at.s)


@pytest.mark.filterwarnings("ignore")
def test_dattri(at: Setting) -> None:
    pytest.importorskip("dattri.task", exc_type=ImportError)
    from dattri.algorithm.influence_function import IFAttributorExplicit
    from dattri.task import AttributionTask

    def loss(parameters: dict[str, Tensor], batch: tuple[Tensor, Tensor]) -> Tensor:
        return per_example(torch.func.functional_call(at.module, parameters, (batch[0],)), batch[1]).mean()

    train, test = (DataLoader(data, batch_size=len(data)) for data in at.sets())
    task = AttributionTask(loss_func=loss, model=at.module, checkpoints=at.module.state_dict())
    attributor = IFAttributorExplicit(task=task, regularization=2 * L2)
    attributor.cache(train)
    torch.testing.assert_close(attributor.attribute(train, test).double(), at.s.T, rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore")
def test_captum(at: Setting, tmp_path) -> None:
    pytest.importorskip("captum.influence", exc_type=ImportError)
    from captum.influence._core.influence_function import NaiveInfluenceFunction

    class Loss(nn.Module):
        reduction = "none"

        def forward(self, output: Tensor, y: Tensor) -> Tensor:
            return per_example(output, y)

    train, test = at.sets()
    torch.save(nn.Sequential(at.module).state_dict(), tmp_path / "model.pt")
    scores = NaiveInfluenceFunction(
        nn.Sequential(at.module), train, str(tmp_path / "model.pt"), loss_fn=Loss(), batch_size=N,
        projection_dim=P, hessian_reg=2 * L2 * N, hessian_inverse_tol=0.0,
    ).influence(test.tensors)  # fmt: skip
    # Captum adds hessian_reg times an identity in torch's default format, float32.
    torch.testing.assert_close(scores, at.s / N, rtol=1e-5, atol=1e-7)


@pytest.mark.filterwarnings("ignore")
def test_statsmodels() -> None:
    """Its change of parameters is the Newton step of Pregibon: the first order over 1 − h, with the sign turned."""
    sm = pytest.importorskip("statsmodels.api", exc_type=ImportError)
    torch.manual_seed(0)
    X = torch.cat([torch.ones(N, 1), torch.randn(N, 2)], 1).double()
    y = (X @ torch.tensor([0.3, 1.0, -0.5]).double() + torch.randn(N) > 0).double()
    fit = sm.Logit(y.numpy(), X.numpy()).fit(disp=0, tol=1e-12)
    theta = torch.tensor(fit.params)
    p = torch.sigmoid(X @ theta)
    H, G = X.T @ (X * (p * (1 - p))[:, None]) / N, X * (p - y)[:, None]
    h = p * (1 - p) * (X * torch.linalg.solve(H, X.T).T).sum(1) / N
    step = -torch.linalg.solve(H, G.T).T / N / (1 - h)[:, None]
    torch.testing.assert_close(torch.tensor(fit.get_influence().d_params), step, rtol=1e-6, atol=1e-8)


@pytest.mark.filterwarnings("ignore")
def test_pyinfluence() -> None:
    """On a logistic regression of scikit-learn, whose L2 term leaves the intercept out and stands beside a sum."""
    theirs = pytest.importorskip("pyinfluence", exc_type=ImportError)
    from sklearn.linear_model import LogisticRegression

    torch.manual_seed(0)
    X, X_test = torch.randn(N, 2).double(), torch.randn(5, 2).double()
    y, y_test = (X.sum(1) + torch.randn(N) > 0).double(), (X_test.sum(1) > 0).double()
    model = LogisticRegression(tol=1e-12, max_iter=10_000).fit(X.numpy(), y.numpy())
    theta = torch.tensor([*model.intercept_, *model.coef_[0]])

    def gradients(X: Tensor, y: Tensor) -> Tensor:
        design = torch.cat([torch.ones(len(X), 1).double(), X], 1)
        return design * (torch.sigmoid(design @ theta) - y)[:, None]

    design = torch.cat([torch.ones(N, 1).double(), X], 1)
    p = torch.sigmoid(design @ theta)
    H = design.T @ (design * (p * (1 - p))[:, None]) / N + torch.diag(torch.tensor([0.0, 1.0, 1.0]).double()) / N
    s = gradients(X_test, y_test) @ torch.linalg.solve(H, gradients(X, y).T)
    scores = theirs.InfluenceFunctions().fit(model, X.numpy(), y.numpy()).explain(X_test.numpy(), y_test.numpy())
    torch.testing.assert_close(torch.tensor(scores), s / N, rtol=1e-3, atol=1e-3 * float(s.abs().max()) / N)


@pytest.mark.filterwarnings("ignore")
def test_bergson(at: Setting) -> None:
    """Its inverse of the gradients' second moment, and the sign of its scores, which are train × test."""
    inversion = pytest.importorskip("bergson.hessians.inversion", exc_type=ImportError)
    scorer = pytest.importorskip("bergson.score.scorer", exc_type=ImportError)
    S, eye = at.G.T @ at.G / N, torch.eye(P, dtype=torch.float64)
    damped = inversion.invert_psd_matrix(S, "absolute_damped_inverse", damping_factor=2 * L2)
    same(damped, torch.linalg.inv(S + 2 * L2 * eye))
    same(inversion.invert_psd_matrix(S), torch.linalg.inv(S + S.trace() / P / 10 * eye))
    written: list[Tensor] = []
    score = scorer.Scorer(
        {"layer": at.G_test @ damped}, ["layer"], lambda _, scores, query_offset: written.append(scores),
        torch.device("cpu"), torch.float64,
    )  # fmt: skip
    score(list(range(N)), {"layer": at.G})
    torch.testing.assert_close(written[0].double(), at.G @ damped @ at.G_test.T, rtol=1e-5, atol=1e-5)  # float32 sums
