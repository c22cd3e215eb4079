"""The audit: its numbers against closed forms, its verdicts on models whose truth is known, and what it refuses."""

import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.func import grad, jvp

from helpers import (
    CROSS_ENTROPY,
    LOGISTIC,
    SQUARED_ERROR,
    Data,
    HessianOperator,
    Loss,
    NotPositiveDefinite,
    NotStationary,
    Risk,
    actual_change,
    agreement,
    audit,
    damping_sensitivity,
    influence,
    leave_group_out,
    leave_out_weights,
    leverage,
    minimise,
    minimise_many,
    mlp,
    predicted_change,
    rank_correlation,
)
from tests.helpers.closed_forms import Ridge, linear_model, saddle


@given(seed=st.integers(0, 10**6), n=st.integers(3, 12), p=st.integers(1, 5), l2=st.floats(0.01, 2))
def test_leverage_is_the_hat_matrix_for_ridge_regression(seed, n, p, l2):
    ridge = Ridge(n, p, l2, seed)
    expected = (ridge.X * torch.linalg.solve(ridge.hessian(ridge.uniform), ridge.X.T).T).sum(1) / n
    torch.testing.assert_close(leverage(ridge.risk, ridge.theta), expected, rtol=1e-9, atol=1e-12)


def test_leverage_says_how_far_the_true_move_goes_in_ridge_regression(ridge, close):
    h = leverage(ridge.risk, ridge.theta)
    first = torch.linalg.solve(ridge.hessian(ridge.uniform), ridge.risk.gradients(ridge.theta).T).T / ridge.n
    for i in range(ridge.n):
        w = ridge.uniform.clone()
        w[i] = 0
        close(ridge.minimum(w) - ridge.theta, first[i] / (1 - h[i]), rtol=1e-8)


def test_a_point_without_a_gradient_has_no_leverage(close):
    X = torch.tensor([[1.0], [2.0], [3.0]]).double()
    risk = Risk(linear_model(1), Data(X, 0 * X[:, 0]), SQUARED_ERROR, 0.1)
    close(leverage(risk, torch.zeros(1).double()), torch.zeros(3).double())


def test_leverage_is_refused_at_a_saddle_and_where_there_is_no_minimum(trained):
    with pytest.raises(NotStationary, match="its gradient norm is"):
        leverage(trained.risk, trained.start)
    flat = Risk(trained.risk.model, trained.risk.data, l2=0.0)
    saddle = torch.zeros_like(trained.theta)  # all units alike, and silent but for the last bias
    y = trained.risk.data.y.mean()
    saddle[-1] = torch.log(y / (1 - y))
    with pytest.raises(NotPositiveDefinite, match="smallest eigenvalue"):
        leverage(flat, saddle)


def test_leverage_of_one_output_by_formula(trained, close):
    """``σ'(f) ∇fᵀH⁻¹∇f/n``."""
    risk, theta = trained.risk, trained.theta
    J = torch.func.jacrev(lambda t: trained.model(t, trained.train.X))(theta)
    p = torch.sigmoid(trained.model(theta, trained.train.X))
    close(leverage(risk, theta), p * (1 - p) * (J * torch.linalg.solve(risk.hessian(theta), J.T).T).sum(1) / 60)


def test_leverage_of_several_outputs_by_matrices(close):
    generator = torch.Generator().manual_seed(0)
    X, y = torch.randn(20, 3, generator=generator).double(), torch.randint(3, (20,), generator=generator)
    model, start = mlp(inputs=3, hidden=4, outputs=3)
    risk = Risk(model, Data(X, y), CROSS_ENTROPY, 0.02)
    theta = minimise(risk, start).theta
    H = risk.hessian(theta)
    moves = torch.linalg.solve(H, risk.gradients(theta).T).T / 20
    J = torch.func.jacrev(lambda t: model(t, X))(theta)
    p = torch.softmax(model(theta, X), 1)
    curvature = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    gauss_newton = J.mT @ curvature @ J / 20
    expected = torch.stack([m @ A @ m / (m @ H @ m) for m, A in zip(moves, gauss_newton, strict=True)])
    close(leverage(risk, theta), expected)
    assert expected.min() > 0


def test_directions_of_the_wrong_shape_are_refused(trained):
    with pytest.raises(ValueError, match=r"V has shape \(33,\): give one direction a training example, \(60, p\)"):
        trained.risk.gauss_newton_curvatures(trained.theta, trained.theta)


@given(d=st.lists(st.floats(0.1, 10), min_size=2, max_size=5), k=st.integers(0, 4))
def test_sensitivity_is_the_share_of_the_softest_direction(d, k):
    """All gradients along one eigenvector: the smallest eigenvalue over that eigenvector's."""
    k %= len(d)
    H = torch.diag(torch.tensor(d, dtype=torch.float64))
    along = torch.eye(len(d), dtype=torch.float64)[[k]]
    assert damping_sensitivity(H, 3 * along, 2 * along) == pytest.approx(min(d) / d[k])


def test_sensitivity_is_the_relative_change_by_damping(trained):
    risk, theta = trained.risk, trained.theta
    H, G, G_test = risk.hessian(theta), risk.gradients(theta), risk.gradients(theta, trained.test)
    part = 1e-4
    damped = H + part * torch.linalg.eigvalsh(H)[0] * torch.eye(33).to(H)
    before, after = (G_test @ torch.linalg.solve(A, G.T) for A in (H, damped))
    change = float((after - before).norm() / before.norm())
    assert change == pytest.approx(part * damping_sensitivity(H, G, G_test), rel=1e-2)
    assert damping_sensitivity(H, 0 * G, G_test) == 0


@pytest.fixture(scope="module")
def models(trained):
    """The ring network at several strengths of regularisation: risk and minimum."""
    risks = {l2: Risk(trained.model, trained.train, l2=l2) for l2 in (0.1, 0.02, 0.01, 0.005, 0.001)}
    return {l2: (risk, minimise(risk, trained.start).theta) for l2, risk in risks.items()}


@pytest.mark.parametrize(
    ("l2", "verdict"),
    [(0.1, "trust"), (0.02, "with care"), (0.01, "do not trust"), (0.005, "with care"), (0.001, "do not trust")],
)
def test_the_verdict_is_that_of_sixty_retrainings(models, trained, l2, verdict):
    risk, theta = models[l2]
    report = audit(risk, theta, trained.test)
    assert report.verdict == verdict
    everything = audit(risk, theta, trained.test, retrain=60)
    assert everything.verdict == verdict
    assert abs(report.agreement.r - everything.agreement.r) < 0.05
    assert len(set(report.points)) == 10
    assert everything.points != report.points
    assert sorted(everything.points) == list(range(60))


def test_what_it_reports_is_what_the_helpers_compute(models, trained, close):
    risk, theta = models[0.005]
    report = audit(risk, theta, trained.test, convention="zero")
    points = list(report.points)
    close(report.predicted, predicted_change(influence(risk, theta, trained.test), "zero")[:, points])
    retrained = leave_group_out(risk, theta, [[i] for i in points], convention="zero")
    close(report.actual, actual_change(risk, theta, retrained, trained.test), atol=1e-9)
    found = agreement(report.predicted, report.actual)
    assert report.rank == pytest.approx(rank_correlation(report.predicted, report.actual))
    assert (report.agreement.r, report.agreement.slope) == (pytest.approx(found.r), pytest.approx(found.slope))
    eigenvalues = torch.linalg.eigvalsh(risk.hessian(theta))
    assert report.smallest_eigenvalue == pytest.approx(float(eigenvalues[0]))
    assert report.condition_number == pytest.approx(float(eigenvalues[-1] / eigenvalues[0]))
    close(report.leverage, leverage(risk, theta))
    w = risk.uniform.clone()
    moves = []
    for i in range(60):
        w_i = w.clone()
        w_i[i] = 0
        moves.append(torch.linalg.solve(risk.hessian(theta), risk.gradient(theta, w_i)).norm() / theta.norm())
    assert report.longest_move == pytest.approx(float(max(moves)), rel=1e-6)


def test_the_points_are_chosen_where_trouble_is(models, trained):
    """Strongest, most bent, lowest, longest move; the rest by chance, and the seed decides which."""
    risk, theta = models[0.005]
    report = audit(risk, theta, trained.test)
    effect = predicted_change(influence(risk, theta, trained.test)).abs().amax(0)
    assert report.points[:4] == tuple(effect.argsort(descending=True)[:4].tolist())
    bent = [i for i in report.announced.argsort(descending=True).tolist() if i not in report.points[:4]]
    assert report.points[4:6] == tuple(bent[:2])
    assert report.points[6] == next(i for i in report.lowest.argsort().tolist() if i not in report.points[:6])
    moves = torch.linalg.solve(risk.hessian(theta), risk.gradients(theta).T)  # all in proportion: with "mean" and 1/n
    longest = (moves - moves.mean(1, keepdim=True)).norm(dim=0).argsort(descending=True).tolist()
    assert report.points[7] == next(i for i in longest if i not in report.points[:7])
    other = audit(risk, theta, trained.test, seed=1)
    assert other.points[:8] == report.points[:8]
    assert other.points[8:] != report.points[8:]


def test_the_second_order_is_that_of_retrainings(trained, close):
    """Central differences of retrainings with a part of each removal, under both conventions."""
    risk, theta, h = trained.risk, trained.theta, 3e-3
    for convention in ("mean", "zero"):
        report = audit(risk, theta, trained.test, convention=convention, retrain=3)
        V = leave_out_weights(60, convention=convention).to(theta) - risk.uniform
        ahead, back = (minimise_many(risk, risk.uniform + s * V, theta, preconditioner=risk.hessian(theta))
                       for s in (h, -h))  # fmt: skip
        losses = [torch.stack([risk.losses(each, trained.test) for each in found.thetas], 1) for found in (ahead, back)]
        bent = (losses[0] + losses[1] - 2 * risk.losses(theta, trained.test)[:, None]) / h**2 / 2
        close(report.second_order, bent, rtol=1e-3, atol=1e-3 * float(bent.abs().max()))
        first = predicted_change(influence(risk, theta, trained.test), convention)
        close(report.announced, bent.norm(dim=0) / first.norm(dim=0), rtol=1e-3)
        fall = (ahead.smallest_eigenvalues - back.smallest_eigenvalues) / (2 * h)
        close(report.lowest, report.smallest_eigenvalue + fall, rtol=1e-2, atol=1e-5)


def test_the_fall_is_the_derivative_of_the_lowest_eigenvalue(trained, close):
    """``∇³R[θ', q, q]`` and the curvatures of the losses, differentiated exactly."""
    risk, theta = trained.risk, trained.theta
    report = audit(risk, theta, trained.test, convention="zero", retrain=3)
    H = risk.hessian(theta)
    q = torch.linalg.eigh(H)[1][:, 0]
    moves = torch.linalg.solve(H, risk.gradients(theta).T).T / 60

    def along(function, v):
        return lambda t: jvp(function, (t,), (v,))[1]

    from_theta = moves @ grad(along(along(lambda t: risk.value(t, risk.uniform), q), q))(theta)
    from_weights = along(along(risk.losses, q), q)(theta) / 60
    close(report.lowest, report.smallest_eigenvalue + from_theta - from_weights, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("seed", [32, 38])
def test_the_fall_does_not_depend_on_an_offset_of_the_targets(seed):
    """Targets near 2,000, and a bias without L2 takes it: the largest parameter sets no step for the others."""
    draw = torch.Generator().manual_seed(seed)
    X = torch.randn(40, 2, generator=draw).double()
    y = torch.sin(2 * X[:, 0]) + X[:, 1] / 2 + 0.2 * torch.randn(40, generator=draw)
    model, start = mlp(2, 3, seed=seed)
    lowest = []
    for offset in (0.0, 2000.0):
        data = Data(X, y + offset)
        risk = Risk(model, data, SQUARED_ERROR, lambda name: 0.0 if name == "2.bias" else 0.01)
        theta = minimise(risk, torch.cat([start[:-1], start[-1:] + offset])).theta
        lowest.append(audit(risk, theta, data[:3], retrain=3).lowest)
    torch.testing.assert_close(lowest[1], lowest[0], rtol=1e-2, atol=1e-5)


def test_the_second_order_does_not_depend_on_how_many_points_are_looked_at_together(trained, monkeypatch):
    whole = audit(trained.risk, trained.theta, trained.test, retrain=3)
    monkeypatch.setattr("helpers.auditing._NUMBERS_AT_ONCE", 60 * 64 * 25)  # 25, 25 and 10 points
    parts = audit(trained.risk, trained.theta, trained.test, retrain=3)
    assert parts.second_order.shape == (20, 60)
    torch.testing.assert_close(parts.second_order, whole.second_order, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(parts.lowest, whole.lowest, rtol=1e-6, atol=1e-9)


def test_a_gradient_that_is_not_quite_zero_is_no_second_order(trained):
    """The audit takes it up to a millionth of its scale, and divides by the square of a small step."""
    beside = trained.theta + 1e-7 * torch.ones_like(trained.theta) / len(trained.theta) ** 0.5
    assert trained.risk.gradient(beside).norm() > 1e-9
    there, here = (audit(trained.risk, theta, trained.test, retrain=3) for theta in (trained.theta, beside))
    torch.testing.assert_close(here.announced, there.announced, rtol=1e-3, atol=1e-5)


def test_the_second_order_in_ridge_regression(close):
    """``½θ'' = hθ'``, and the Hessian without the point is the one that is predicted."""
    ridge = Ridge(n=9, p=3, l2=0.3, seed=1)
    report = audit(ridge.risk, ridge.theta, ridge.risk.data, convention="zero", retrain=3)
    H, h = ridge.hessian(ridge.uniform), leverage(ridge.risk, ridge.theta)
    moves = torch.linalg.solve(H, ridge.risk.gradients(ridge.theta).T) / 9
    G = ridge.risk.gradients(ridge.theta)
    close(report.second_order, G @ (moves * h) + (ridge.X @ moves).square() / 2, rtol=1e-6, atol=1e-9)
    d, Q = torch.linalg.eigh(H)
    close(report.lowest, d[0] - (ridge.X @ Q[:, 0]).square() / 9, rtol=1e-6)


def test_in_float32_the_second_order_is_the_same(trained):
    single = Risk(trained.model, trained.train, l2=0.02).to(torch.float32)
    report = audit(single, trained.theta.float(), trained.test.to(torch.float32), retrain=3)
    whole = audit(trained.risk, trained.theta, trained.test, retrain=3)
    torch.testing.assert_close(report.announced.double(), whole.announced, rtol=0.1, atol=0.02)
    torch.testing.assert_close(report.lowest.double(), whole.lowest, rtol=0.1, atol=2e-4)


def test_the_worst_retraining_spoils_trust(models, trained):
    """Point 14 at λ = 0.02: right in order, and larger than predicted by 0.72 of the prediction."""
    risk, theta = models[0.02]
    report = audit(risk, theta, trained.test)
    worst = report.points[int(report.off.argmax())]
    assert worst == 14
    assert report.off.max() == pytest.approx(0.72, abs=0.005)
    assert "worst 0.72, point 14" in report.findings[-1].found
    assert report.findings[-1].verdict == "with care"


def test_a_retraining_that_ends_at_a_saddle_is_looked_for(models, trained):
    """λ = 0.05: without four points the constant is a saddle; the smallest eigenvalue on the way tells of three."""
    risk = Risk(trained.model, trained.train, l2=0.05)
    report = audit(risk, minimise(risk, trained.start).theta, trained.test)
    assert (report.lowest < 0).nonzero().flatten().tolist() == [14, 29, 31]
    assert report.failed == (29,)
    assert report.verdict == "with care"


def test_the_value_of_the_risk_is_what_tells_a_factor(trained):
    """Ten times the risk has the same minimum, and no line but the first can see it."""
    ten = Loss(lambda f, y: 10 * LOGISTIC.of(f, y), LOGISTIC.accepts, LOGISTIC.domain)
    risk = Risk(trained.model, trained.train, ten, l2=0.2)
    one, other = (audit(each, trained.theta, trained.test) for each in (trained.risk, risk))
    assert other.value == pytest.approx(10 * one.value)
    changed = [pair for pair in zip(str(one).splitlines(), str(other).splitlines(), strict=True) if pair[0] != pair[1]]
    assert [line[0].split()[0:2] for line in changed] == [["?", "the"], ["ok", "positive"], ["care", "on"]]
    assert "No line sees a factor" in str(one)


def test_an_unfinished_training_is_a_finding(trained):
    theta = trained.theta + 1e-3
    report = audit(trained.risk, theta, trained.test)
    assert report.verdict == "do not trust"
    assert report.agreement is None
    assert report.points == ()
    norm = float(trained.risk.gradient(theta).norm())
    assert f"gradient norm {norm:.1e}, more than 1e-06 of its scale" in str(report)
    assert "train on to a minimum" in str(report)


def test_another_risk_than_the_one_trained_is_a_finding(trained):
    misread = Risk(trained.model, trained.train, l2=0.01)
    report = audit(misread, trained.theta, trained.test)
    assert report.findings[0].verdict == "do not trust"


def test_a_saddle_is_a_finding(trained):
    risk, theta = saddle(trained.theta.device)
    report = audit(risk, theta, risk.data, retrain=3)
    assert [finding.verdict for finding in report.findings] == ["trust", "do not trust"]
    assert "negative" in str(report)


def test_retrainings_without_a_minimum_are_named_and_left_out(trained):
    """Collapsed to a constant, and without one of four points the constant is a saddle."""
    risk = Risk(trained.model, trained.train, l2=0.05)
    theta = minimise(risk, trained.start).theta
    report = audit(risk, theta, trained.test, retrain=60)
    assert report.failed == (14, 29, 31, 56)
    assert report.verdict == "with care"
    assert "no minimum found without 14, 29, 31, 56" in str(report)
    assert report.actual.isnan().any(0).sum() == 4
    assert report.agreement.r > 0.99


def test_the_report_names_every_line_and_gives_the_remedy(models, trained):
    risk, theta = models[0.01]
    text = str(audit(risk, theta, trained.test))
    for name in ("the risk", "stationary", "positive definite", "second order", "on the way", "leverage", "damping",
                 "longest move", "10 retrainings"):  # fmt: skip
        assert name in text
    assert "verdict: DO NOT TRUST" in text
    assert text.count("care ") == 5
    assert re.search(r"care leverage +up to 1\.12, point 31: above 1, no share", text)
    assert text.count("NO ") == 1
    assert "raise the L2 strength and train again" in re.sub(r"\s+", " ", text)


@pytest.mark.parametrize("retrain", [0, 2, 61])
def test_too_few_or_too_many_retrainings_are_refused(trained, retrain):
    with pytest.raises(ValueError, match=rf"retrain = {retrain}: choose from 3 points, .* to all n = 60"):
        audit(trained.risk, trained.theta, trained.test, retrain=retrain)


def test_what_does_not_fit_the_risk_is_refused(trained):
    with pytest.raises(TypeError, match="convert one"):
        audit(trained.risk, trained.theta.float(), trained.test)
    with pytest.raises(ValueError, match="the model has p = 33 parameters"):
        audit(trained.risk, trained.theta[:-1], trained.test)
    with pytest.raises(ValueError, match="labels 0 or 1"):
        audit(trained.risk, trained.theta, Data(trained.test.X, 2 * trained.test.y - 1))
    with pytest.raises(ValueError, match="convention is 'median'"):
        audit(trained.risk, trained.theta, trained.test, convention="median")


# ------------------------------------------------------------------------------------------- where a verdict turns


@pytest.fixture
def told(monkeypatch):
    """An audit of the ridge problem, whose retrainings find what they are told: a function of what is predicted."""

    def call(actual, failed=(), retrain=10, **options):
        ridge = Ridge(l2=1.0)
        points = audit(ridge.risk, ridge.theta, ridge.test, retrain=retrain).points
        predicted = predicted_change(influence(ridge.risk, ridge.theta, ridge.test))[:, points]
        found = actual(predicted)
        found[:, list(failed)] = torch.nan
        monkeypatch.setattr("helpers.auditing.actual_change", lambda *arguments: found)
        retrained = leave_group_out(ridge.risk, ridge.theta, [[i] for i in points])
        retrained.certified[list(failed)] = False
        monkeypatch.setattr("helpers.auditing.minimise_many", lambda *arguments, **options: retrained)
        return audit(ridge.risk, ridge.theta, ridge.test, retrain=retrain, **options)

    return call


@pytest.mark.parametrize(
    ("factor", "verdict"), [(1.0, "trust"), (1.45, "trust"), (0.7, "trust"), (1.55, "with care"), (0.6, "with care"),
                            (3.0, "with care"), (0.01, "with care"), (-1.0, "do not trust")]
)  # fmt: skip
def test_the_slope_that_is_trusted(told, factor, verdict):
    """From two thirds to three halves; beyond, the order holds and the size does not; downwards nothing does."""
    report = told(lambda predicted: factor * predicted)
    assert report.agreement.slope == pytest.approx(factor)
    assert report.findings[-1].verdict == verdict
    torch.testing.assert_close(report.off, torch.full_like(report.off, abs(factor - 1)))


@pytest.mark.parametrize(
    ("r", "verdict"), [(0.96, "trust"), (0.94, "with care"), (0.81, "with care"), (0.79, "do not trust")]
)
def test_the_correlation_that_is_trusted(told, r, verdict, monkeypatch):
    """Noise at right angles to the predictions, of just this size; how far single points are off is another line."""
    monkeypatch.setattr("helpers.auditing.OFF", 1e9)

    def actual(predicted):
        x = (predicted - predicted.mean()).flatten()
        noise = torch.randn(len(x), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        noise = noise - noise.mean()
        noise = noise - (noise @ x) / (x @ x) * x
        return (predicted.flatten() + noise / noise.norm() * x.norm() * (1 / r**2 - 1) ** 0.5).reshape(predicted.shape)

    report = told(actual)
    assert report.agreement.r == pytest.approx(r) and report.agreement.slope == pytest.approx(1)
    assert report.findings[-1].verdict == verdict


@pytest.mark.parametrize(("off", "verdict"), [(0.49, "trust"), (0.51, "with care")])
def test_how_far_one_retraining_may_be_off(told, off, verdict):
    """By half of what was predicted, over all test losses; the point is named."""

    def actual(predicted):
        weakest = int(predicted.norm(dim=0).argmin())
        return predicted * torch.ones(10).double().index_fill(0, torch.tensor([weakest]), 1 + off)

    report = told(actual)
    worst = int(report.off.argmax())
    assert float(report.off[worst]) == pytest.approx(off)
    assert report.findings[-1].verdict == verdict
    assert f"worst {off:.2f}, point {report.points[worst]}" in report.findings[-1].found


def test_retrainings_that_fail_cost_trust_and_the_others_count(told):
    report = told(lambda predicted: 1.0 * predicted, failed=[2])
    assert report.findings[-1].verdict == "with care" and report.failed == (report.points[2],)
    assert report.agreement.r == pytest.approx(1) and f"no minimum found without {report.points[2]}" in str(report)
    report = told(lambda predicted: 1.0 * predicted, failed=range(10))
    assert report.findings[-1].verdict == "do not trust" and report.agreement is None and report.rank is None
    assert "too few of them found a minimum" in report.findings[-1].found


@pytest.mark.parametrize(("retrain", "counts"), [(10, (4, 6, 7, 8)), (5, (2, 3, 4, 4)), (20, (8, 12, 14, 16))])
def test_the_shares_of_the_points(models, trained, retrain, counts):
    """Four, two, one and one in ten, whatever their number."""
    risk, theta = models[0.02]
    report = audit(risk, theta, trained.test, retrain=retrain)
    effect = predicted_change(influence(risk, theta, trained.test)).abs().amax(0).argsort(descending=True).tolist()
    assert list(report.points[: counts[0]]) == effect[: counts[0]]
    chosen = list(report.points[: counts[0]])
    for order, upto in ((report.announced.argsort(descending=True), counts[1]), (report.lowest.argsort(), counts[2])):
        chosen += [i for i in order.tolist() if i not in chosen][: upto - len(chosen)]
        assert list(report.points[:upto]) == chosen
    assert len(set(report.points)) == retrain


def test_each_line_turns_where_its_number_does(models, trained, monkeypatch):
    """Each limit a little above and a little below what is found."""
    risk, theta = models[0.02]
    report = audit(risk, theta, trained.test, retrain=3)
    limits = {
        "SECOND_ORDER": ("second order", float(report.announced.max())),
        "SENSITIVITY": ("damping", report.sensitivity),
        "MOVE": ("longest move", report.longest_move),
    }
    for limit, (name, value) in limits.items():
        for factor, verdict in ((1.001, "trust"), (0.999, "with care")):
            with monkeypatch.context() as patch:
                patch.setattr(f"helpers.auditing.{limit}", factor * value)
                lines = {each.name: each for each in audit(risk, theta, trained.test, retrain=3).findings}
            assert lines[name].verdict == verdict and bool(lines[name].remedy) == (verdict == "with care")


def test_its_own_tolerance_is_that_of_influence_or_the_one_that_is_given():
    ridge = Ridge()
    direction = torch.linalg.solve(ridge.hessian(ridge.uniform), torch.ones(3).double())
    unit = float(ridge.risk.gradient(ridge.theta + direction).norm()) / HessianOperator(ridge.risk, ridge.theta).scale
    for gtol in (1e-4, 1e-6, 1e-8):
        for part, verdict in ((0.9, "trust"), (1.1, "do not trust")):
            theta = ridge.theta + part * gtol / unit * direction
            options = {} if gtol == 1e-6 else {"gtol": gtol}
            found = audit(ridge.risk, theta, ridge.test, retrain=3, **options).findings[0]
            assert found.verdict == verdict
