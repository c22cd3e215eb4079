"""Solvers: they solve, say how well, refuse what they cannot, and give the same for any batch."""

import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from helpers import (
    CROSS_ENTROPY,
    SQUARED_ERROR,
    Data,
    HessianOperator,
    Loss,
    NotPositiveDefinite,
    NotSolved,
    Risk,
    block_conjugate_gradients,
    cholesky_solve,
    conjugate_gradients,
    direct,
    extreme_eigenvalues,
    flatten,
    influence,
    lissa,
    minimise,
    mlp,
    pseudo_inverse,
    refined,
)
from tests.helpers.closed_forms import Ridge, linear_model


class Matrix:
    """A symmetric matrix as an operator that counts its products."""

    def __init__(self, A):
        self.A, self.shape, self.products = A, tuple(A.shape), 0

    def __matmul__(self, V):
        self.products += 1
        return self.A @ V


def spd(seed, p, condition=50.0, smallest=1.0):
    generator = torch.Generator().manual_seed(seed)
    Q, _ = torch.linalg.qr(torch.randn(p, p, generator=generator, dtype=torch.float64))
    d = torch.linspace(smallest, condition, p, dtype=torch.float64)
    A = (Q * d) @ Q.T
    return (A + A.T) / 2


@pytest.fixture(scope="module")
def classes():
    """A network with three classes at its minimum."""
    generator = torch.Generator().manual_seed(0)
    X, y = torch.randn(30, 3, generator=generator).double(), torch.randint(3, (30,), generator=generator)
    model, start = mlp(inputs=3, hidden=4, outputs=3)
    risk = Risk(model, Data(X[:24], y[:24]), CROSS_ENTROPY, 0.02)
    return risk, minimise(risk, start).theta, Data(X[24:], y[24:])


def test_the_operator_is_the_hessian(trained, classes, close):
    for risk, theta in ((trained.risk, trained.theta), classes[:2]):
        H = HessianOperator(risk, theta)
        dense = risk.hessian(theta)
        close(H.dense(), dense)
        assert torch.equal(H.dense(), H.dense().T)
        V = torch.randn(H.shape[0], 70, generator=torch.Generator().manual_seed(1)).to(theta)
        close(H @ V, dense @ V)  # 70 columns come in three blocks
        close(H @ V[:, 3], dense @ V[:, 3])


def test_the_operators_weights_and_damping(trained, close):
    risk, theta = trained.risk, trained.theta
    w = torch.linspace(0, 0.1, 60, dtype=torch.float64).to(theta)
    H = HessianOperator(risk, theta, w, damping=0.3)
    close(H.dense(), risk.hessian(theta, w) + 0.3 * torch.eye(33).to(theta))


def test_samples_of_the_hessian_have_it_as_their_mean(ridge, close):
    """Of one example ``n w_i x_i x_iᵀ``, whatever its weight, and what belongs to no example; of two their mean."""
    w = torch.linspace(0.01, 0.2, ridge.n, dtype=torch.float64).to(ridge.theta)
    H = HessianOperator(ridge.risk, ridge.theta, w, damping=0.1)
    always = (2 * ridge.l2 + 0.1) * torch.eye(ridge.p).to(w)
    ones = ridge.n * w[:, None, None] * ridge.X[:, :, None] * ridge.X[:, None, :] + always
    close(ones.mean(0), H.dense())
    twos = torch.stack([(ones[i] + ones[j]) / 2 for i in range(ridge.n) for j in range(i)])
    generator = torch.Generator().manual_seed(0)
    close(H.sample(ridge.n, generator).dense(), H.dense())
    for batch, possible in ((1, ones), (2, twos)):
        drawn = set()
        for _ in range(20):
            found = H.sample(batch, generator).dense()
            nearest = int((possible - found).flatten(1).norm(dim=1).argmin())
            close(found, possible[nearest])
            drawn.add(nearest)
        assert len(drawn) > 8
    for batch in (0, 13):
        with pytest.raises(ValueError, match=f"batch = {batch} must lie between 1 and n = 12"):
            H.sample(batch, generator)


@pytest.mark.parametrize("shape", [(32,), (33, 2, 2), (3, 33)])
def test_products_with_the_wrong_shape_are_refused(trained, shape):
    with pytest.raises(ValueError, match=r"\(33,\) or \(33, m\) was expected"):
        HessianOperator(trained.risk, trained.theta) @ torch.zeros(shape).to(trained.theta)
    with pytest.raises(ValueError, match="damping = -1 must not be negative"):
        HessianOperator(trained.risk, trained.theta, damping=-1)


def test_the_extreme_eigenvalues(trained, classes):
    for risk, theta in ((trained.risk, trained.theta), classes[:2]):
        expected = torch.linalg.eigvalsh(risk.hessian(theta))[[0, -1]].tolist()
        assert extreme_eigenvalues(HessianOperator(risk, theta)).tolist() == pytest.approx(expected, rel=1e-3)


@given(seed=st.integers(0, 10**6), p=st.integers(1, 12), m=st.integers(1, 4))
def test_conjugate_gradients_solve(seed, p, m):
    A = spd(seed, p)
    B = torch.randn(p, m, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    found = conjugate_gradients(Matrix(A), B, rtol=1e-10)
    torch.testing.assert_close(found.X, torch.linalg.solve(A, B), rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(found.residuals, (A @ found.X - B).norm(dim=0) / B.norm(dim=0), rtol=1e-3, atol=1e-14)
    assert found.iterations <= p + 2


def test_conjugate_gradients_need_as_many_steps_as_there_are_eigenvalues(trained):
    """Gradients are silent in 20 of the 33 directions, and 13 eigenvalues are left."""
    H = HessianOperator(trained.risk, trained.theta)
    B = trained.risk.gradients(trained.theta, trained.test).T
    assert conjugate_gradients(H, B, rtol=1e-8).iterations <= 14


def test_a_preconditioner_changes_the_steps_and_not_the_answer():
    A = spd(0, 40, condition=1e4)
    B = torch.ones(40, 2).double()
    plain = conjugate_gradients(Matrix(A), B)
    inverse = torch.linalg.inv(A + 0.01 * torch.diag(A.diagonal()))
    helped = conjugate_gradients(Matrix(A), B, preconditioner=lambda R: inverse @ R)
    torch.testing.assert_close(helped.X, plain.X, rtol=1e-5, atol=1e-8)
    assert helped.iterations < plain.iterations / 4


def test_a_column_of_zeros_is_solved_by_zeros():
    B = torch.zeros(5, 2).double()
    B[:, 1] = 1
    found = conjugate_gradients(Matrix(spd(0, 5)), B)
    assert found.X[:, 0].abs().max() == 0
    assert found.residuals[0] == 0


@pytest.mark.parametrize("batch", [1, 3, 7])
def test_the_columns_do_not_depend_on_each_other(batch):
    A, B = spd(1, 20), torch.randn(20, 7, generator=torch.Generator().manual_seed(0)).double()
    together = conjugate_gradients(Matrix(A), B).X
    apart = torch.cat([conjugate_gradients(Matrix(A), part).X for part in B.split(batch, dim=1)], dim=1)
    torch.testing.assert_close(apart, together, rtol=1e-9, atol=1e-11)


@given(seed=st.integers(0, 10**6), p=st.integers(1, 30), m=st.integers(1, 40))
def test_block_conjugate_gradients_solve(seed, p, m):
    A = spd(seed, p)
    B = torch.randn(p, m, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    B[:, m // 2] = B[:, 0]  # columns may be alike, or more than there are directions
    found = block_conjugate_gradients(Matrix(A), B, rtol=1e-11)
    torch.testing.assert_close(found.X, torch.linalg.solve(A, B), rtol=1e-8, atol=1e-9)
    assert found.residuals.max() <= 1e-10


def test_columns_that_search_together_need_fewer_steps():
    A = spd(0, 40, condition=1e3)
    B = torch.randn(40, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    alone = conjugate_gradients(Matrix(A), B, rtol=1e-9)
    together = block_conjugate_gradients(Matrix(A), B, rtol=1e-9)
    assert together.iterations <= 6  # ten directions a step, forty in all
    assert alone.iterations > 25


def test_block_conjugate_gradients_refuse_and_report(trained):
    B = torch.randn(12, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with pytest.raises(NotPositiveDefinite, match=r"its curvature is -\d"):
        block_conjugate_gradients(Matrix(spd(0, 12, smallest=-0.5)), B, rtol=1e-12)
    with pytest.raises(NotSolved, match=r"after 2 iterations at a true residual of .*, above rtol = 1e-12"):
        block_conjugate_gradients(Matrix(spd(0, 12)), B, rtol=1e-12, max_iterations=2)
    zeros = block_conjugate_gradients(Matrix(spd(0, 12)), torch.zeros(12, 2).double())
    assert zeros.iterations == 0


def test_conjugate_gradients_report_what_they_do_not_reach():
    A, B = spd(0, 30, condition=1e4), torch.ones(30, 1).double()
    with pytest.raises(
        NotSolved, match=r"after 5 iterations at a true residual of \d\.\de[-+]\d+, above rtol = 1e-08"
    ) as e:
        conjugate_gradients(Matrix(A), B, max_iterations=5)
    residual = float((A @ e.value.X - B).norm() / B.norm())
    assert f"{residual:.1e}" in str(e.value)


@pytest.mark.parametrize("smallest", [-0.5, -1e-3])
def test_negative_curvature_is_refused(smallest):
    A = spd(0, 12, smallest=smallest)
    with pytest.raises(NotPositiveDefinite, match=r"its curvature is -\d"):
        conjugate_gradients(Matrix(A), torch.ones(12, 1).double(), rtol=1e-12)


def test_a_saddle_is_refused_by_every_solver(trained):
    """Without L2 the reference Hessian is indefinite."""
    H = HessianOperator(Risk(trained.model, trained.train), trained.theta)
    B = trained.risk.gradients(trained.theta, trained.test).T
    for solve in (
        direct,
        refined,
        conjugate_gradients,
        block_conjugate_gradients,
        lambda H, B: lissa(H, B, scale=1.0, depth=300),
    ):
        with pytest.raises(NotPositiveDefinite):
            solve(H, B)


def test_every_solver_gives_the_influences(trained, classes, ridge, close):
    for risk, theta, test in ((trained.risk, trained.theta, trained.test), classes):
        expected = -risk.gradients(theta, test) @ cholesky_solve(risk.hessian(theta), risk.gradients(theta).T)
        close(influence(risk, theta, test), expected)
        close(influence(risk, theta, test, solve=refined), expected)
        close(influence(risk, theta, test, solve=block_conjugate_gradients), expected, rtol=1e-6, atol=1e-7)
        close(influence(risk, theta, test, solve=conjugate_gradients), expected, rtol=1e-6, atol=1e-7)
    # The eigenvalues of the ridge problem lie between 0.4 and 2.7: a hundred steps are enough for Neumann's series.
    expected = -ridge.risk.gradients(ridge.theta, ridge.test) @ torch.linalg.solve(
        ridge.hessian(ridge.uniform), ridge.risk.gradients(ridge.theta).T
    )

    def neumann(H, B):
        return lissa(H, B, scale=1.5, depth=100, rtol=1e-8)

    close(influence(ridge.risk, ridge.theta, ridge.test, solve=neumann), expected, rtol=1e-7, atol=1e-8)


def test_the_direct_solution_reports_its_residual(trained):
    H = HessianOperator(trained.risk, trained.theta)
    found = direct(H, trained.risk.gradients(trained.theta, trained.test).T)
    assert found.residuals.shape == (20,)
    assert found.residuals.max() < 1e-12
    assert found.iterations == 0


def test_the_refined_solution_has_the_digits_of_float64(trained):
    H, B = HessianOperator(trained.risk, trained.theta), trained.risk.gradients(trained.theta, trained.test).T
    found = refined(H, B)
    assert found.residuals.max() < 2e-12
    assert 1 <= found.iterations <= 5
    crude = torch.linalg.solve(H.to(torch.float32).dense(), B.float()).double()  # what it would be without
    assert float((H @ crude - B).norm() / B.norm()) > 1e-7
    almost_flat = HessianOperator(Risk(trained.model, trained.train, l2=1e-12), torch.zeros_like(trained.theta))
    with pytest.raises(NotPositiveDefinite, match=r"in float32.*`direct`, which works in float64, will tell"):
        refined(almost_flat, B)


def test_lissa_is_the_neumann_series(trained, close):
    H, B = HessianOperator(trained.risk, trained.theta), trained.risk.gradients(trained.theta, trained.test).T
    dense, scale, depth = H.dense(), 0.7, 40
    step = torch.eye(33).to(dense) - dense / scale
    expected = sum(torch.linalg.matrix_power(step, k) for k in range(depth + 1)) @ B / scale
    found = lissa(H, B, scale=scale, depth=depth, rtol=1.0)
    close(found.X, expected)
    close(found.residuals, (dense @ expected - B).norm(dim=0) / B.norm(dim=0))


def test_sampled_lissa_is_right_in_the_mean(ridge):
    """Sixteen runs have less than half of the error of one."""
    H, B = HessianOperator(ridge.risk, ridge.theta, damping=1.0), ridge.risk.gradients(ridge.theta, ridge.test).T
    exact = torch.linalg.solve(ridge.hessian(ridge.uniform) + torch.eye(ridge.p).to(B), B)

    def run(repeats=1, seed=0):
        return lissa(H, B, scale=4.0, depth=12, batch=4, repeats=repeats, rtol=1.0, seed=seed)

    once, often, other = run(), run(repeats=16), run(seed=1)
    off = [float((found.X - exact).norm() / exact.norm()) for found in (once, often)]
    assert off[1] < 0.5 * off[0]
    assert (once.iterations, often.iterations) == (12, 16 * 12)
    assert torch.equal(once.X, run().X)
    assert not torch.equal(once.X, other.X)


def test_lissa_that_diverges_is_refused(trained):
    H, B = HessianOperator(trained.risk, trained.theta), trained.risk.gradients(trained.theta, trained.test).T
    with pytest.raises(NotSolved, match="If it diverged, raise scale"):
        lissa(H, B, scale=0.2, depth=200)  # the largest eigenvalue is 0.61
    with pytest.raises(NotSolved, match="second half of 5 steps"):
        lissa(H, B, scale=1.0, depth=5)
    for wrong in ({"scale": 0}, {"depth": 0}, {"repeats": 0}):
        options = {"scale": 1.0, "depth": 5, "repeats": 1} | wrong
        said = ", ".join(f"{name} = {value}" for name, value in options.items())
        with pytest.raises(ValueError, match=f"{said} must be positive"):
            lissa(H, B, **options)


def test_lissa_refuses_what_curves_downwards_and_what_is_above_its_tolerance():
    """One step from b, at H = h: ``x = (2 - h) b``, with the curvature h and the residual ``(1 - h)²``."""
    b = torch.ones(1, 1).double()
    with pytest.raises(NotPositiveDefinite, match=r"its curvature is -5\.00e-01"):
        lissa(-0.5 * b, b, scale=1.0, depth=1, rtol=10.0)
    for h, rtol in ((0.7, 0.24), (0.5, 0.34)):
        found = lissa(h * b, b, scale=1.0, depth=1, rtol=rtol)
        assert float(found.residuals) == pytest.approx((1 - h) ** 2)
        assert found.iterations == 1
    says = r"residual of 2\.5e-01, .* half of 1 steps .* by 3\.3e-01 .* rtol = 0\.1, with 1 repeats"
    with pytest.raises(NotSolved, match=says):
        lissa(0.5 * b, b, scale=1.0, depth=1)


def test_lissa_that_is_still_on_its_way_is_refused():
    """In soft directions a small residual says little: at h = 0.001 of ``b``'s ten per cent, 18 % of ``x`` is there."""
    H, b = torch.diag(torch.tensor([1.0, 0.001])).double(), torch.tensor([[1.0], [0.1]]).double()
    with pytest.raises(NotSolved, match=r"residual of 8\.\de-02, .* changed the result by [4-6]\.\de-01"):
        lissa(H, b, scale=1.0, depth=200)
    assert lissa(H, b, scale=1.0, depth=5000).X[1] == pytest.approx(100, rel=0.01)


def test_scores_need_no_stored_gradients(trained, classes, close):
    for risk, theta in ((trained.risk, trained.theta), classes[:2]):
        V = torch.randn(40, risk.model.p, generator=torch.Generator().manual_seed(0)).to(theta)
        close(risk.slopes(theta, V), V @ risk.gradients(theta).T, rtol=1e-9)


# ------------------------------------------------------------------------------------- what a right-hand side can be


@pytest.mark.parametrize("solve", [conjugate_gradients, block_conjugate_gradients])
def test_right_hand_sides_of_every_size(solve):
    """Squares of the first overflow, of the last vanish; a column of zeros has the solution zero."""
    H = torch.diag(torch.tensor([1.0, 2.0, 5.0]).double())
    for size in (1e200, 1.0, 1e-160):
        B = size * torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]]).double()
        found = solve(H, B)
        torch.testing.assert_close(found.X, B / H.diagonal()[:, None], rtol=1e-8, atol=0)
        assert float(found.residuals.max()) <= 1e-8
    assert not solve(H, torch.zeros(3, 2).double()).X.any()


def test_right_hand_sides_that_are_none(trained):
    H = HessianOperator(trained.risk, trained.theta)
    solvers = (
        direct,
        refined,
        conjugate_gradients,
        block_conjugate_gradients,
        lambda H, B: lissa(H, B, scale=1.0, depth=3),
    )
    good = torch.ones(33, 2).to(trained.theta)
    for solve in solvers:
        for value in (torch.nan, torch.inf):
            bad = good.clone()
            bad[3, 1] = value
            with pytest.raises(ValueError, match="a right-hand side is not finite"):
                solve(H, bad)
        for shape in ((33,), (32, 1), (33, 0)):
            with pytest.raises(ValueError, match=r"give right-hand sides as columns, \(33, m\)"):
                solve(H, torch.ones(shape).to(good))
        with pytest.raises(TypeError, match=r"B is torch.float32 and H torch.float64: convert one"):
            solve(H, good.float())


def test_the_true_residual_decides():
    """In float32, at a condition of 1e4, the recursion's residual reaches 1e-8 and the true one never can."""
    generator = torch.Generator().manual_seed(0)
    Q = torch.linalg.qr(torch.randn(60, 60, generator=generator, dtype=torch.float64)).Q
    H = ((Q * torch.logspace(0, 4, 60, dtype=torch.float64)) @ Q.T).float()
    B = torch.randn(60, 3, generator=generator, dtype=torch.float32)
    for solve in (conjugate_gradients, block_conjugate_gradients):
        with pytest.raises(NotSolved, match=r"a true residual of .*float32 has no more digits for this H") as stopped:
            solve(H, B, rtol=1e-8)
        assert float((H @ stopped.value.X - B).norm() / B.norm()) < 1e-2  # yet not lost
        found = solve(H, B, rtol=1e-2)
        true = (H.double() @ found.X.double() - B.double()).norm(dim=0) / B.double().norm(dim=0)
        torch.testing.assert_close(found.residuals.double(), true, rtol=0.2, atol=1e-4)
        assert float(true.max()) <= 1.2e-2


def test_columns_that_depend_on_each_other_cost_nothing():
    generator = torch.Generator().manual_seed(0)
    A = torch.randn(200, 200, generator=generator, dtype=torch.float64)
    H = A @ A.T / 200 + 0.1 * torch.eye(200).double()
    B = torch.randn(200, 20, generator=generator, dtype=torch.float64)
    alone = block_conjugate_gradients(H, B).iterations
    for more in (B[:, :1], B[:, :10], B.mean(1, keepdim=True), 0 * B[:, :1], 1e-12 * B[:, 3:4]):
        found = block_conjugate_gradients(H, torch.cat([B, more], 1))
        assert found.iterations <= alone + 1
        torch.testing.assert_close(H @ found.X[:, 20:], more, rtol=0, atol=2e-8 * float(more.norm()) + 1e-30)


def test_what_does_not_fit_into_memory_is_refused_before(trained, monkeypatch):
    H = HessianOperator(trained.risk, trained.theta)
    monkeypatch.setattr("helpers.curvature._memory", lambda device: 2 * 33 * 33 * 8)
    with pytest.raises(MemoryError, match=r"p = 33 parameters needs .*: use its products, solve=conjugate_gradients"):
        direct(H, torch.ones(33, 1).to(trained.theta))


def test_an_allocation_that_fails_is_explained(trained, monkeypatch):
    H = HessianOperator(trained.risk, trained.theta)
    for message in ("DefaultCPUAllocator: can't allocate memory", "CUDA out of memory", "Failed to allocate 8 GiB"):

        def full(*arguments, message=message):
            raise RuntimeError(message)

        monkeypatch.setattr(type(trained.risk), "dense", full)
        with pytest.raises(MemoryError, match=r"not enough memory .* use its products"):
            H.dense()
    monkeypatch.setattr(type(trained.risk), "dense", lambda *arguments: (_ for _ in ()).throw(RuntimeError("other")))
    with pytest.raises(RuntimeError, match="other"):
        H.dense()


# ------------------------------------------------------------------------------------------- what a solution says


@pytest.mark.parametrize("solve", [conjugate_gradients, block_conjugate_gradients])
def test_the_iterations_are_the_products_and_as_many_as_there_are_eigenvalues(solve):
    """Three eigenvalues, one column: three steps, one product each, and one more for the true residual."""
    d = torch.tensor([1.0, 1.0, 3.0, 3.0, 10.0]).double()
    H, B = Matrix(torch.diag(d)), torch.arange(1.0, 6.0).double()[:, None]
    found = solve(H, B)
    torch.testing.assert_close(found.X, B / d[:, None])
    assert (found.iterations, H.products) == (3, 4)
    assert solve(H, B, max_iterations=3).iterations == 3
    with pytest.raises(NotSolved, match=r"after 2 iterations .* above rtol = 1e-08: raise max_iterations") as stopped:
        solve(H, B, max_iterations=2)
    assert "no more digits" not in str(stopped.value)


@pytest.mark.parametrize("solve", [conjugate_gradients, block_conjugate_gradients])
def test_what_rounding_takes_is_solved_for_again_and_counted(solve):
    """In float32 the first descent ends above the tolerance; the next begins with what is left."""
    generator = torch.Generator().manual_seed(0)
    Q = torch.linalg.qr(torch.randn(60, 60, generator=generator, dtype=torch.float64)).Q
    A = ((Q * torch.logspace(0, 3, 60, dtype=torch.float64)) @ Q.T).float()
    H, B = Matrix((A + A.T) / 2), torch.randn(60, 1, generator=generator)
    found = solve(H, B, rtol=2e-5)
    descents = H.products - found.iterations  # each ends with a product for the true residual
    assert descents >= 1
    true = float((H.A.double() @ found.X.double() - B.double()).norm() / B.double().norm())
    assert true <= 3e-5
    assert float(found.residuals) == pytest.approx(true, abs=1e-5)


def test_the_curvature_that_is_named_is_the_lowest_met():
    H = torch.diag(torch.tensor([1.0, -2.0, -3.0]).double())
    for columns, says in (([1], "-2.00e+00"), ([1, 2], "-3.00e+00"), ([2, 0], "-3.00e+00")):
        B = 7 * torch.eye(3).double()[:, columns]
        for solve in (conjugate_gradients, block_conjugate_gradients):
            with pytest.raises(NotPositiveDefinite, match=re.escape(f"its curvature is {says}")):
                solve(H, torch.cat([B, 0 * B], 1))
    with pytest.raises(NotPositiveDefinite, match=r"its curvature is 0\.00e\+00"):
        conjugate_gradients(torch.diag(torch.tensor([1.0, 0.0]).double()), torch.tensor([[0.0], [1.0]]).double())


def test_the_refined_solution_takes_the_tolerance_that_it_is_given(trained):
    H, B = HessianOperator(trained.risk, trained.theta), trained.risk.gradients(trained.theta, trained.test).T
    assert refined(H, B, rtol=1e-3).iterations == 1
    with pytest.raises(NotSolved, match="above rtol = 1e-20"):
        refined(H, B, rtol=1e-20)


def test_the_pseudo_inverse_by_formula():
    """Two equal columns: ``H = a vvᵀ`` has ``H⁺ = vvᵀ / (a ‖v‖⁴)``; what lies along the flat direction is refused."""
    x = torch.tensor([1.0, 2.0, -1.0]).double()
    data = Data(x[:, None].repeat(1, 2), x)
    risk = Risk(flatten(torch.nn.Linear(2, 1, bias=False))[0], data, SQUARED_ERROR)
    H = HessianOperator(risk, torch.tensor([0.25, 0.75]).double())
    v, a = torch.ones(2, 1).double(), float(x.square().mean())
    B = torch.tensor([[3.0, 1e-3], [3.0, 1e-3]]).double()
    found = pseudo_inverse(H, B)
    torch.testing.assert_close(found.X, v @ (v.T @ B) / (4 * a))
    assert found.residuals.shape == (2,) and float(found.residuals.max()) < 1e-12
    flat = torch.tensor([[1.0], [-1.0]]).double() * B.norm(dim=0) / 2**0.5
    pseudo_inverse(H, B + 1e-7 * flat)
    with pytest.raises(NotPositiveDefinite, match=r"has 1\.0e-05 of its length along directions"):
        pseudo_inverse(H, B + torch.tensor([0.0, 1e-5]).double() * flat)


def test_the_pseudo_inverse_at_a_maximum_is_refused():
    X = torch.tensor([[1.0], [2.0], [-1.0]]).double()
    risk = Risk(flatten(torch.nn.Linear(1, 1, bias=False))[0], Data(X, X[:, 0]), Loss(lambda f, y: torch.cos(f)))
    with pytest.raises(NotPositiveDefinite, match=r"its smallest eigenvalue is -2\.00e\+00"):
        pseudo_inverse(HessianOperator(risk, torch.zeros(1).double()), torch.ones(1, 1).double())


def test_the_refined_solution_aims_at_twelve_digits_and_says_where_it_cannot():
    """Along the softest direction, at a condition of 1e6, the residual is left with rounding times the condition."""
    generator = torch.Generator().manual_seed(0)
    Q = torch.linalg.qr(torch.randn(30, 30, generator=generator, dtype=torch.float64)).Q
    X = (30 * torch.logspace(-6, 0, 30, dtype=torch.float64)).sqrt()[:, None] * Q.T
    risk = Risk(flatten(torch.nn.Linear(30, 1, bias=False))[0], Data(X, X[:, 0]), SQUARED_ERROR)
    H = HessianOperator(risk, torch.zeros(30).double())
    with pytest.raises(NotSolved, match=r"above rtol = 1e-12: .*no more digits for this H") as stopped:
        refined(H, Q[:, :1].contiguous())
    torch.testing.assert_close(stopped.value.X, 1e6 * Q[:, :1], rtol=1e-6, atol=1e-2)


@pytest.mark.parametrize("unit", [1e4, 1e6, 2e7, 1e9])
def test_influences_do_not_depend_on_the_unit_of_a_feature(unit, close):
    """With one of three features in other units the Hessian's condition number is ``unit²``, and a residual of 1e-8
    says nothing of the two others. Without L2 the influences are those of the features in their own units."""
    ridge, units = Ridge(n=40, l2=0.0, seed=1), torch.tensor([1.0, 1.0, unit], dtype=torch.float64)
    g, g_test = ((X @ ridge.theta - y)[:, None] * X for X, y in ((ridge.X, ridge.y), (ridge.test.X, ridge.test.y)))
    expected = -g_test @ torch.linalg.solve(ridge.hessian(ridge.uniform), g.T)
    risk = Risk(linear_model(3), Data(ridge.X * units, ridge.y), SQUARED_ERROR)
    theta, test = ridge.theta / units, Data(ridge.test.X * units, ridge.test.y)
    for solve in (direct, refined, pseudo_inverse, conjugate_gradients, block_conjugate_gradients):
        by_steps = solve in (conjugate_gradients, block_conjugate_gradients)
        if unit < 1e7 or not by_steps:
            loose = 1e-6 if by_steps else 1e-9
            close(influence(risk, theta, test, solve=solve), expected, rtol=loose, atol=loose)
        else:
            with pytest.raises(NotPositiveDefinite, match="bring the inputs to one scale"):
                influence(risk, theta, test, solve=solve)
