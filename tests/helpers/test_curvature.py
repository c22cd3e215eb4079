"""The Hessian as a matrix: spectrum, products, solving; and what is refused."""

import contextlib

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse.linalg import ArpackNoConvergence

from helpers import (
    SQUARED_ERROR,
    Data,
    HessianOperator,
    NotPositiveDefinite,
    Risk,
    cholesky_solve,
    condition_number,
    extreme_eigenvalues,
    hessian_vector_product,
    spectrum,
)
from helpers.curvature import cholesky_factor
from tests.helpers.closed_forms import Ridge, linear_model


def symmetric(seed, p, smallest=0.1):
    """A symmetric matrix with known eigenvalues, from ``smallest`` upwards."""
    generator = torch.Generator().manual_seed(seed)
    Q, _ = torch.linalg.qr(torch.randn(p, p, generator=generator, dtype=torch.float64))
    d = smallest + torch.arange(p, dtype=torch.float64)
    H = (Q * d) @ Q.T
    return (H + H.T) / 2, d


@given(seed=st.integers(0, 10**6), p=st.integers(1, 8))
def test_spectrum_and_condition_number(seed, p):
    H, expected = symmetric(seed, p)
    d, Q = spectrum(H)
    torch.testing.assert_close(d, expected)
    torch.testing.assert_close((Q * d) @ Q.T, H)
    assert condition_number(H) == pytest.approx(float(expected[-1] / expected[0]))


def test_the_condition_number_takes_absolute_values():
    assert condition_number(torch.diag(torch.tensor([-4.0, 2.0]).double())) == 2
    assert condition_number(torch.diag(torch.tensor([0.0, 2.0]).double())) == torch.inf


def test_the_reference_hessian(trained):
    H = trained.risk.hessian(trained.theta)
    assert H.shape == (33, 33)
    assert round(condition_number(H), 1) == 141.7
    without_l2 = spectrum(H - 0.04 * torch.eye(33).to(H))[0]
    assert float(without_l2[0]) == pytest.approx(-0.0357, abs=5e-5)


@given(seed=st.integers(0, 10**6), p=st.integers(1, 8), columns=st.integers(1, 3))
def test_solving(seed, p, columns):
    H, _ = symmetric(seed, p)
    B = torch.randn(p, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    torch.testing.assert_close(H @ cholesky_solve(H, B), B)
    assert torch.equal(cholesky_solve(H, B[:, 0]), cholesky_solve(H, B[:, :1])[:, 0])
    L = cholesky_factor(H)
    assert torch.equal(L, L.tril())
    torch.testing.assert_close(L @ L.T, H)


@given(seed=st.integers(0, 10**6), p=st.integers(2, 8), smallest=st.sampled_from([-1.0, -1e-6, 0.0]))
def test_what_is_not_positive_definite_is_refused_with_its_eigenvalue(seed, p, smallest):
    H, _ = symmetric(seed, p, smallest)
    with pytest.raises(NotPositiveDefinite, match=r"not positive definite: its smallest eigenvalue is -?\d") as refusal:
        cholesky_solve(H, torch.ones(p).double())
    if smallest:
        assert f"{smallest:.2e}" in str(refusal.value)


@pytest.mark.parametrize("f", [spectrum, condition_number, lambda H: cholesky_solve(H, H)])
@pytest.mark.parametrize(
    ("H", "says"),
    [
        (torch.ones(2, 3), r"shape \(2, 3\): a Hessian is square"),
        (torch.ones(2), "a Hessian is square"),
        (torch.tensor([[1.0, torch.nan], [torch.nan, 1.0]]), "not finite"),
        (torch.tensor([[2.0, 1e-3], [0.0, 2.0]]), r"not symmetric: \|H - H\^T\| reaches 1\.0e-03"),
        (torch.tensor([[2.0, 1e-9], [0.0, 2.0]]).double(), "missing transpose"),
    ],
)
def test_what_is_no_hessian_is_refused(f, H, says):
    with pytest.raises(ValueError, match=says):
        f(H)


def test_a_product_needs_no_matrix(trained, close):
    v = torch.linspace(-1, 1, 33, dtype=torch.float64).to(trained.theta)
    w = torch.linspace(0, 0.1, 60, dtype=torch.float64).to(trained.theta)
    for weights in (None, w):
        expected = trained.risk.hessian(trained.theta, weights) @ v
        close(hessian_vector_product(trained.risk, trained.theta, v, weights), expected)


def test_a_spectrum_whose_end_products_do_not_find(trained, monkeypatch):
    """Then the matrix is formed; and beyond a few thousand parameters the sign stays unknown, and that is said."""

    def never(*arguments, **options):
        raise ArpackNoConvergence("no", [], [])

    whole = torch.linalg.eigvalsh(trained.risk.hessian(trained.theta))
    monkeypatch.setattr("helpers.curvature.end_of_spectrum", never)
    H = HessianOperator(trained.risk, trained.theta)
    torch.testing.assert_close(extreme_eigenvalues(H), whole[[0, -1]])
    monkeypatch.setattr("helpers.curvature._DENSE_UP_TO", 4)
    with pytest.raises(NotPositiveDefinite, match="the sign of the smallest is unknown"):
        extreme_eigenvalues(HessianOperator(trained.risk, trained.theta))


@pytest.mark.parametrize("p", [1, 2, 3])
def test_the_extremes_of_the_smallest_matrices(p):
    model = linear_model(p)
    X = torch.randn(20, p, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    risk = Risk(model, Data(X, X[:, 0]), SQUARED_ERROR, 0.1)
    theta = torch.zeros(p).double()
    expected = torch.linalg.eigvalsh(X.T @ X / 20 + 0.2 * torch.eye(p).double())
    torch.testing.assert_close(extreme_eigenvalues(HessianOperator(risk, theta)), expected[[0, -1]])


def test_symmetric_is_what_rounding_leaves_so():
    """A thousand times the rounding of the largest entry: 4e-13 for a 2 in float64."""
    for size in (1.0, 1e6):
        for asymmetry, fits in ((3e-13, True), (6e-13, False)):
            H = size * torch.tensor([[2.0, asymmetry], [0.0, 2.0]]).double()
            if fits:
                spectrum(H)
            else:
                with pytest.raises(ValueError, match="not symmetric"):
                    spectrum(H)


def test_singular_to_rounding_is_not_positive_definite():
    """An eigenvalue counts from a hundred times the rounding of p entries on, with a diagonal of ones: 4e-14 for two,
    whatever the units."""
    for units in ([1.0, 1.0], [1e6, 1e6], [1.0, 1e-9], [1e9, 1.0]):
        unit = torch.tensor(units).double()[:, None]
        for pivot, fits in ((1e-13, True), (7e-14, False)):
            H = unit * torch.tensor([[1.0, 1.0], [1.0, 1.0 + pivot]], dtype=torch.float64) * unit.T
            with contextlib.nullcontext() if fits else pytest.raises(NotPositiveDefinite):
                cholesky_factor(H)


def test_another_format_is_the_same_hessian(close):
    """Its weights, its damping and its L2 go along."""
    ridge = Ridge()
    w = torch.linspace(0.01, 0.2, ridge.n, dtype=torch.float64)
    expected = ridge.hessian(w) + 0.3 * torch.eye(3).double()
    H = HessianOperator(ridge.risk, ridge.theta, w, damping=0.3)
    single = H.to(torch.float32)
    assert single.dense().dtype == single.theta.dtype == torch.float32
    torch.testing.assert_close(single.dense().double(), expected, rtol=1e-5, atol=1e-6)
    close(single.to(torch.float64).damping, 0.3)
    close(H.matrix, expected)
    close(H.factor @ H.factor.T, expected)
    close(H.eigenvalues, torch.linalg.eigvalsh(expected))


def test_the_extremes_of_a_known_spectrum(monkeypatch):
    """``XᵀX/n + 2λI`` of thirty scaled axes: by products alone, with its damping, to the digits that are asked for."""
    d = torch.linspace(1.1, 100.1, 30, dtype=torch.float64)
    X = torch.diag((30 * d).sqrt())
    risk = Risk(linear_model(30), Data(X, X[:, 0]), SQUARED_ERROR, 0.25)
    H = HessianOperator(risk, torch.zeros(30).double(), damping=2.0)
    expected = [1.1 + 0.5 + 2, 100.1 + 0.5 + 2]
    monkeypatch.setattr(type(risk), "dense", lambda *arguments: pytest.fail("no matrix is needed"))
    assert extreme_eigenvalues(H).tolist() == pytest.approx(expected, rel=1e-2)
    assert extreme_eigenvalues(H, rtol=1e-10).tolist() == pytest.approx(expected, rel=1e-9)
    monkeypatch.setattr("helpers.curvature._DENSE_UP_TO", 7)
    assert H.eigenvalues.tolist() == pytest.approx(expected, rel=0.1)


def test_the_matrix_must_fit_into_memory_with_its_factor(trained, monkeypatch):
    """Three times p² numbers."""
    H, need = HessianOperator(trained.risk, trained.theta), 3 * 33 * 33 * 8
    monkeypatch.setattr("helpers.curvature._memory", lambda device: need)
    assert H.dense().shape == (33, 33)
    monkeypatch.setattr("helpers.curvature._memory", lambda device: need - 1)
    with pytest.raises(MemoryError, match="not enough memory for the Hessian: p = 33"):
        H.dense()


def test_the_gradient_norm_is_that_of_the_risk_with_its_weights(ridge):
    w = torch.linspace(0.01, 0.2, ridge.n, dtype=torch.float64).to(ridge.theta)
    gradient = ridge.X.T @ (w * (ridge.X @ ridge.theta - ridge.y)) + 2 * ridge.l2 * ridge.theta
    H = HessianOperator(ridge.risk, ridge.theta, w, damping=5.0)
    assert H.gradient_norm == pytest.approx(float(gradient.norm()))
    assert HessianOperator(ridge.risk, ridge.theta).gradient_norm < 1e-14
