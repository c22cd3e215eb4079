r"""`typeset`: a display is evaluated as it stands, and what cannot be is said by name."""

import pytest
import torch

from helpers import CheckFailed, NotEvaluated, typeset
from helpers.page.typeset import GRAMMAR, TERMINALS

generator = torch.Generator().manual_seed(0)
A, B = torch.randn(2, 4, 4, generator=generator, dtype=torch.float64)
H = A @ A.T + torch.eye(4)
g, u, v = torch.randn(3, 4, generator=generator, dtype=torch.float64)
G = torch.randn(6, 4, generator=generator, dtype=torch.float64)
w = torch.rand(6, generator=generator, dtype=torch.float64)


def evaluate(tex, pieces, **options):
    typeset("eq-a", tex, pieces, **{"rtol": 1e-12, "because": "rounding"} | options)


TRUE = {
    "a product needs no sign": (r"x = H g", {"x": H @ g, "H": H, "g": g}),
    "inverse": (r"x = -\,H^{-1}\, g .", {"x": -torch.linalg.solve(H, g), "H": H, "g": g}),
    "a boxed display": (r"\boxed{\; x = H^{-1} g \;}", {"x": torch.linalg.solve(H, g), "H": H, "g": g}),
    "power": (r"x = H^{-2} g", {"x": torch.linalg.solve(H, torch.linalg.solve(H, g)), "H": H, "g": g}),
    "transpose": (r"x = g^{\mathsf T} A^\mathsf{T} u", {"x": g @ A.T @ u, "A": A, "g": g, "u": u}),
    "inverse transpose": (r"x = A^{-\mathsf T} u", {"x": torch.linalg.inv(A).T @ u, "A": A, "u": u}),
    "a column times a row": (r"C = u g^{\mathsf T}", {"C": torch.outer(u, g), "u": u, "g": g}),
    "fractions": (r"x = \tfrac12 a + \frac1n a + \frac{a}{n - 1}", {"x": 3 / 2 + 3 / 6 + 3 / 5, "a": 3.0, "n": 6}),
    "division": (r"x = a/b + \frac\delta2", {"x": 1.5 + 2, "a": 3.0, "b": 2.0, r"\delta": 4.0}),
    "norms": (r"x = \lVert u\rVert^2 + \lVert u\rVert_H", {"x": u @ u + (u @ H @ u).sqrt(), "u": u, "H": H}),
    "inner products": (r"x = \langle u, g\rangle + u\cdot v", {"x": u @ g + u @ v, "u": u, "g": g, "v": v}),
    "a root": (r"x = \sqrt{a + 1}", {"x": 2.0, "a": 3.0}),
    "kron": (r"C = A \otimes B", {"C": torch.kron(A, B), "A": A, "B": B}),
    "a mean": (r"\bar g = \frac1n \sum_{i=1}^{n} g_i", {r"\bar g": G.mean(0), "n": 6, "g_i": G}),
    "a sum over all": (r"x = \sum_j w_j g_j", {"x": w @ G, "w_j": w, "g_j": G}),
    "a sum over the others": (r"x = \sum_{j \ne i} g_j", {"x": G.sum(0) - G[2], "g_j": G, "i": 2}),
    "a sum over some": (r"x = \sum_{j\in S} g_j", {"x": G[[1, 4]].sum(0), "g_j": G, "S": [1, 4]}),
    "a double sum": (
        r"x = \sum_j \sum_k w_{jk} g_k",
        {"x": (G @ G.T).sum(0) @ w, "w_{jk}": G @ G.T, "g_k": w},
    ),
    "powers of an index": (r"x = \sum_{k=0}^{m} r^k", {"x": 1 + 0.5 + 0.25, "m": 2, "r": 0.5}),
    "several statements": (
        r"x = c a, \qquad c = \frac{u^{\mathsf T} g}{n}",
        {"x": 2 * (u @ g) / 6, "c": (u @ g) / 6, "a": 2.0, "u": u, "g": g, "n": 6},
    ),
    "a chain": (r"x := a + a = 2 a =: y", {"x": 4.0, "a": 2.0, "y": 4.0}),
    "zero": (r"0 = u - v \qquad\text{for all } u", {"u": u, "v": u + 1e-14}),
    "a remark": (r"x = a + a \quad\text{at } \varepsilon = 0", {"x": 2.0, "a": 1.0}),
    "underbraces": (r"x = \underbrace{a}_{\text{one}} + b", {"x": 3.0, "a": 1.0, "b": 2.0}),
    "a function": (r"y = f(a, b + 1)", {"y": 8.0, "f": lambda a, b: a * b, "a": 2.0, "b": 3.0}),
    "the third derivative": (r"y = T[u, u]", {"y": u * u, "T": lambda a, b: a * b, "u": u}),
    "an inequality": (r"a + b \le c", {"a": 1.0, "b": 2.0, "c": 4.0}),
    "between numbers": (r"x = u\cdot u , \quad 0 \le f \le 1", {"x": u @ u, "u": u, "f": torch.linspace(0, 1, 5)}),
    "longest name first": (r"x = g_i + g", {"x": 3.0, "g_i": 1.0, "g": 2.0}),
    "aligned": (
        r"\begin{aligned} x &= a + b , \\ y &= a - b . \end{aligned}",
        {"x": 3.0, "y": -1.0, "a": 1.0, "b": 2.0},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TRUE)
def test_what_is_true_holds(name, capsys):
    tex, pieces = TRUE[name]
    evaluate(tex, pieces, atol=1e-12)
    assert capsys.readouterr().out.startswith("✓ eq-a: as typeset, both sides agree to 1e-12 relative")


@pytest.mark.parametrize("name", TRUE)
def test_a_number_that_is_not_the_pieces_is_noticed(name):
    tex, pieces = TRUE[name]
    first, value = next(iter(pieces.items()))
    with pytest.raises((CheckFailed, NotEvaluated)):
        evaluate(tex, pieces | {first: 5 + value * 1.01}, atol=1e-12)


def test_a_free_index_takes_all_values():
    table = G @ H
    pieces = {"x_i": table, "H": H, "g_i": G}
    evaluate(r"x_i = H g_i", pieces, each="i")
    table[3, 1] += 1e-3
    with pytest.raises(CheckFailed, match=r"by up to 1\.00e-03"):
        evaluate(r"x_i = H g_i", pieces, each="i")


def test_two_free_indices():
    evaluate(r"K_{ij} = g_i^{\mathsf T} H g_j", {"K_{ij}": G @ H @ G.T, "g_i": G, "g_j": G, "H": H}, each="i j")


def test_a_derivative_is_a_central_difference():
    path = {
        r"\varepsilon": 1e-5,
        r"\theta_\varepsilon": lambda e: g + e * u + e**2 * v,
        "f": lambda theta: theta @ H @ theta,
    }
    slope = r"\frac{d}{d\varepsilon} f(\theta_\varepsilon) = 2 g^{\mathsf T} H u"
    evaluate(slope, path | {"g": g, "H": H, "u": u}, rtol=1e-8)
    with pytest.raises(CheckFailed):
        evaluate(slope.replace("2 g", "g"), path | {"g": g, "H": H, "u": u}, rtol=1e-8)
    along = r"\left.\frac{d}{ds} \nabla R(g + s v)\right|_{s=0} = H v"
    evaluate(along, {"s": 1e-5, r"\nabla R": lambda x: H @ x, "g": g, "v": v, "H": H}, rtol=1e-8)


def test_a_remainder_is_left_to_the_tolerance(capsys):
    evaluate(r"x = a + O(a^2)", {"x": 0.101, "a": 0.1, "O(a^2)": 0.0}, rtol=0, atol=2e-3)
    assert "1e-12" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("tex", "pieces", "says"),
    [
        (r"x = H g", {"x": H @ g, "H": H}, r"`g` has no piece, and no sum runs over it"),
        (r"x = H g_i", {"x": H @ g, "H": H, "g": g}, r"the grammar does not reach past"),
        (r"x = H g", {"x": H @ g, "H": H, "g": g, "u": u}, r"the piece `u` has no place in the display"),
        (r"x = H g", {"x": H @ g, "H": H, "g": G}, r"in `H g` do not fit: \(6, 4\) of `g` after \(4, 4\)"),
        (r"x = H g", {"x": 1.0, "H": H, "g": g}, r"the sides of `x = H g` have shapes a number and \(4,\)"),
        (r"x = u g", {"x": 1.0, "u": u, "g": g}, r"in `u g` do not fit"),
        (r"x = u + a", {"x": u, "u": u, "a": 1.0}, r"in `u \+ a` do not fit"),
        (r"x = \frac{u}{g}", {"x": u, "u": u, "g": g}, r"`g` divides, and is no number"),
        (r"x = u^2", {"x": u, "u": u}, r"no such power of \(4,\)"),
        (r"x = \sum_{i=1}^n g_i", {"x": g, "g_i": G, "n": 9}, r"the piece `g_i` has no row 6 for `i`"),
        (r"x = \sum_i g_i w_i", {"x": g, "g_i": G, "w_i": w[:3]}, r"`i` should run along pieces of one length"),
        (r"x = \sum_i g", {"x": g, "g": g}, r"`i` should run along pieces of one length"),
        (r"x = H", {"x": H, "H": H * 1}, r"every side is one piece"),
        (r"x = \arg\min_\theta u", {"x": u, "u": u}, r"the grammar does not reach past"),
        (r"x = \frac{d}{ds} u + u", {"x": u, "u": u}, r"to differentiate by `s`, give it a step"),
        (r"x = f(u) + u", {"x": u, "u": u, "f": lambda x: x @ G}, r"`f\(u\)` has no value"),
        (r"x = -f", {"x": u, "f": abs}, r"`-f` has no value"),
    ],
)
def test_what_is_in_the_way_is_named(tex, pieces, says):
    with pytest.raises(NotEvaluated, match=says):
        evaluate(tex, pieces)


def test_an_inequality_that_fails_somewhere_is_noticed():
    for f in ([-0.1, 0.5], [0.5, 1.1]):
        with pytest.raises(CheckFailed, match="does not hold"):
            evaluate(r"x = a a, \quad 0 \le f \le 1", {"x": 4.0, "a": 2.0, "f": torch.tensor(f)})


def test_a_loose_tolerance_is_refused():
    with pytest.raises(ValueError, match="too loose"):
        evaluate(r"x = H g", {"x": H @ g, "H": H, "g": g}, rtol=3.0)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("= -", "= "), (r"H^{-1}", "H"), (r"H^{-1}", r"H^{-2}"), (r"\frac1n", ""), ("n - 1", "n"), ("n - 1", "n + 1"),
        ("2\\lambda", "\\lambda"), ("g_i", "g_i^{\\mathsf T}"), (r"\hat\theta", ""), ("_{i=1}^{n}", "_{i=1}^{n-1}"),
        ("^2", ""), ("^2", "^3"), (r"\tfrac12", ""), (r"+ 2", "- 2"),
    ],
)  # fmt: skip
def test_slips_are_noticed(old, new):
    """Each is planted where it has a place: a mean of solutions, and a number made of what is left."""
    tex = r"x = -\frac1n \sum_{i=1}^{n} H^{-1} g_i + 2\lambda \hat\theta , \quad y = \tfrac12 a^2 + \frac{a}{n - 1}"
    pieces = {"x": -torch.linalg.solve(H, G.mean(0)) + 2 * 0.3 * u, "n": 6, "H": H, "g_i": G, r"\lambda": 0.3,
              r"\hat\theta": u, "y": 4.5 + 3 / 5, "a": 3.0}  # fmt: skip
    evaluate(tex, pieces)
    assert tex.count(old) == 1
    with pytest.raises((CheckFailed, NotEvaluated)):
        evaluate(tex.replace(old, new), pieces)


def test_slips_that_nothing_notices_are_counted(capsys):
    evaluate(r"x = \lVert u\rVert^2", {"x": u @ u, "u": u})
    whole = capsys.readouterr().out
    evaluate(r"x = \lVert u - v\rVert^2 + b a", {"x": (u - v) @ (u - v) + 2, "u": u, "v": v, "a": 2.0, "b": 1.0})
    assert ", and 3 slips in it would not" in whole or " of " in whole
    assert " of " in capsys.readouterr().out  # without b


def test_a_formula_in_which_nothing_would_be_noticed_is_refused():
    with pytest.raises(CheckFailed, match="no slip in the formula would be noticed"):
        evaluate(r"x^2 = 0", {"x": 0.0}, atol=1e-9)


def test_what_makes_no_difference():
    """Spaces, sizes of brackets and needless braces, in the display or in a name; and a name may have words."""
    pieces = {r"\bar{x}_{\text{of all}}": 3.0, r"v^\mathsf{T}  u": u @ v, "n": 2, "y": 4.5 + u @ v}
    evaluate(r"y = \bigl( \tfrac{1}{n} \, \bar x_{\text{of all}}^{2} \bigr) + v^{\mathsf T}\,u", pieces)
    with pytest.raises(NotEvaluated, match="does not reach past"):
        evaluate(r"y = \frac1n \bar x_{\text{all}}^{2} + v^{\mathsf T} u", pieces)


def test_every_sign_of_the_grammar_has_a_terminal():
    for name in set(TERMINALS.values()):
        assert name in GRAMMAR
