r"""What is typeset is what is executed: `typeset` evaluates a displayed formula.

The author names the pieces that have a number. What stands between them is TeX, and
is computed: sums over an index, products, fractions, powers, inverses, transposes,
norms, functions. Then one side of each relation is held against the other.

>>> pieces = {"a": 3.0, "b": 4.0, "c": 5.0}
>>> typeset("eq-pythagoras", "c^2 = a^2 + b^2", pieces, rtol=1e-12, because="rounding")
✓ eq-pythagoras: as typeset, both sides agree to 1e-12 relative, and ... (rounding)
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any, NoReturn

import torch
from lark import Lark, Token, Tree
from lark.exceptions import UnexpectedInput
from lark.lexer import Lexer
from torch import Tensor

from .checks import CheckFailed, bounded, publish, tolerance

# All that can stand between the pieces. A PIECE is what the author named and gave a
# number, a FUNCTION what the author gave a function; a NAME is any other sign, hence an
# index, or an error. A product needs no sign and is taken from left to right, and a sum
# over an index reaches to the next plus or minus, as people write it.
GRAMMAR = r"""
display: _entry (_SEPARATOR _entry)*
_entry: statement | _BOX _OPEN statement _CLOSE
statement: sum (RELATION sum)+

sum: SIGN? term (SIGN term)*
?term: product | over | product over -> times
?over: _SUM range term -> over_index
     | DERIVATIVE term -> derivative
range: _UNDER index (_UP argument)?
?index: NAME -> all
      | _OPEN NAME RELATION sum _CLOSE -> first
      | _OPEN NAME _NOT sum _CLOSE -> but
      | _OPEN NAME _IN PIECE _CLOSE -> among
?product: factor | product OPERATOR? factor -> times
?factor: atom
       | factor _UP argument -> power
       | factor TRANSPOSE -> transpose
?argument: _sign | _OPEN sum _CLOSE
?atom: _sign
     | FUNCTION _OPEN sum (_COMMA sum)* _CLOSE -> call
     | _FRACTION argument argument -> fraction
     | _ROOT argument -> root
     | _NORM sum _NORM_END -> norm
     | _NORM sum _NORM_END _UNDER argument -> norm
     | _ANGLE sum _COMMA sum _ANGLE_END -> inner
     | _OPEN sum _CLOSE
_sign: PIECE | NUMBER | NAME

%declare _SEPARATOR RELATION SIGN _SUM _UNDER _UP _OPEN _CLOSE _COMMA _NOT _IN PIECE
%declare NUMBER NAME DERIVATIVE FUNCTION OPERATOR TRANSPOSE _FRACTION _ROOT _NORM
%declare _NORM_END _ANGLE _ANGLE_END _BOX
"""
TERMINALS = {
    **dict.fromkeys(["=", ":=", "=:", r"\approx"], "RELATION"),
    **dict.fromkeys([r"\le", r"\leq", "<", r"\ge", r"\geq", ">"], "RELATION"),
    **dict.fromkeys("+-", "SIGN"),
    **dict.fromkeys([r"\cdot", r"\times", "/", r"\otimes"], "OPERATOR"),
    **dict.fromkeys([r"\frac", r"\tfrac", r"\dfrac"], "_FRACTION"),
    **dict.fromkeys(["(", "[", "{", r"\{"], "_OPEN"),
    **dict.fromkeys([")", "]", "}", r"\}"], "_CLOSE"),
    **dict.fromkeys([r"\lVert", r"\Vert"], "_NORM"),
    **dict.fromkeys([r"\ne", r"\neq"], "_NOT"),
    r"\boxed": "_BOX", "_": "_UNDER", "^": "_UP", ",": "_COMMA", r"\sum": "_SUM", r"\in": "_IN",
    r"\sqrt": "_ROOT", r"\rVert": "_NORM_END", r"\langle": "_ANGLE",
    r"\rangle": "_ANGLE_END", r"\Longrightarrow": "_SEPARATOR",
}  # fmt: skip

SPACE = r"(?:\s|\\[,;:! ]|\\(?:left|right|[bB]igg?[lr]?)(?![A-Za-z])\.?|&|\\\\"
SPACE += r"|\\(?:begin|end)\{\w+\}|\\q?quad)+"
T = r"\\mathsf\s*(?:T|\{T\})|\\top"
TOKEN = re.compile(
    rf"(?P<space>{SPACE})|(?P<T>{T})|\\(?:text|mathrm|operatorname\*?|mathbb)\{{[^{{}}]*\}}"
    r"|\\[A-Za-z]+|\\.|\d+(?:\.\d+)?|:=|=:|.",
    re.DOTALL,
)


class NotEvaluated(ValueError):
    """A display cannot be evaluated from the pieces; the message says what is in the
    way."""


@dataclass(frozen=True)
class Piece:
    """What the author gave a value: its name in TeX, the signs of the name, its value.

    The signs tell along which indices it is a family: ``g_i`` has a row for each ``i``
    wherever ``i`` is summed over.
    """

    name: str
    signs: tuple[str, ...]
    value: Any
    count: bool

    def indices(self, bound: Mapping[str, Any]) -> list[str]:
        """Those of its signs that are indices here, in their order."""
        return list(dict.fromkeys(sign for sign in self.signs if sign in bound))


def typeset(
    label: str,
    tex: str,
    pieces: Mapping[str, Any],
    *,
    rtol: float = 0.0,
    atol: float = 0.0,
    because: str,
    each: str = "",
) -> None:
    r"""Evaluate the displayed formula ``tex`` from named pieces, and check that both
    sides of each of its relations agree; and that they would not after a slip.

    A test sees to it that ``tex`` is what the page displays as ``label``. A piece is a
    number, a vector (a column), a matrix, or a function of such; its name is TeX as it
    stands in the display, ``g_i`` or ``\nabla_\theta \ell(z_i, \hat\theta)``. Where
    the display sums over an index that occurs in the name, the piece is a family with
    that index along its first axis. The longest name counts. Spaces, sizes of brackets
    and braces around a single sign make no difference.

    Every slip is planted in the formula that it has a place for: a sign changed, a
    term, a factor, a power or a denominator lost, a number one too large, an integer
    piece one too small. The line says how many of them the check notices.

    Args:
        label: the label of the equation in the text, ``eq-…``.
        tex: the display, without its dollars.
        pieces: the values by name. Every one must occur.
        rtol: relative tolerance, see `holds`.
        atol: absolute tolerance, see `holds`.
        because: why this tolerance and no tighter one.
        each: indices that stand free in the display, such as ``"i"``: it is evaluated
            for each of their values.

    Raises:
        CheckFailed: if the sides differ, or if no slip is noticed.
        NotEvaluated: if a sign has no piece, a piece has no place, or shapes do not
            fit; the message names it.
    """
    missed, planted = [], 0
    formula = _Formula(label, tex, pieces, each)
    formula.check(formula.tree, rtol, atol, because)
    for slip, tree in _slips(formula, formula.tree):
        planted += 1
        try:
            formula.check(tree, rtol, atol, because)
        except (CheckFailed, ValueError):
            continue
        missed.append(slip)
    if len(missed) == planted:
        raise CheckFailed(f"{label}: no slip in the formula would be noticed.")
    agree = tolerance(rtol, atol)
    number = f"{planted - len(missed)} of {planted}" if missed else f"{planted}"
    publish(
        f"✓ {label}: as typeset, both sides agree to {agree}, and {number} slips in it "
        f"would not ({because})",
        kind="typeset", name=label, tolerance=agree, because=because,
        pieces=list(pieces), slips=planted, missed=missed,
    )  # fmt: skip


# ---------------------------------------------------------------------------- reading


def _plain(tex: str) -> str:
    """A display in which every argument has its braces."""
    # What stands below a brace is a remark; and without braces \frac takes one digit.
    inner = r"((?:[^{}]|\{[^{}]*\})*)"
    tex = re.sub(rf"\\underbrace\{{{inner}\}}_\{{\\text\{{[^{{}}]*\}}\}}", r"{\1}", tex)
    tex = re.sub(r"(\\[td]?frac)\s*(\d)", r"\1{\2}", tex)
    return re.sub(r"(\\[td]?frac\{\d\})\s*(\d)", r"\1{\2}", tex)


def _signs(tex: str) -> list[tuple[str, int, int]]:
    """The signs of a formula, each with its place; no spaces, no needless braces."""
    signs: list[tuple[str, int, int]] = []
    for match in TOKEN.finditer(tex):
        if match["space"]:
            continue
        if match[0] == "}" and len(signs) > 1 and signs[-2][0] == "{":
            signs[-2:] = signs[-1:]
            continue
        signs.append((r"\mathsf T" if match["T"] else match[0], *match.span()))
    return signs


class _Lexer(Lexer):
    """Cuts a formula into what the grammar is about: longest names of pieces first."""

    def __init__(self, _: Any) -> None: ...

    def lex(self, formula: _Formula) -> Iterator[Any]:  # type: ignore[override]
        signs = _signs(formula.tex)
        names = [sign for sign, _, _ in signs]
        at = depth = 0
        before = None  # a separator counts only between two statements
        while at < len(signs):
            size = 1
            if piece := formula.piece_at(names, at):
                size = len(piece.signs)
                applied = callable(piece.value) and [*names, ""][at + size] in {*"(["}
                kind = "FUNCTION" if applied else "PIECE"
            elif names[at : at + 4] == [r"\frac", "d", "{", "d"]:
                kind, size = "DERIVATIVE", 6
            elif names[at : at + 3] == ["|", "_", "{"]:
                at += names[at:].index("}") + 1  # at s = 0, where derivatives are taken
                continue
            elif names[at] == "^" and names[at + 1 : at + 2] == [r"\mathsf T"]:
                kind, size = "TRANSPOSE", 2
            elif names[at : at + 5] == ["^", "{", "-", r"\mathsf T", "}"]:
                kind, size = "TRANSPOSE", 5
            elif names[at].startswith(r"\text{") and not depth:
                return  # what follows is a remark: at ε = 0, for all w
            elif names[at] in ".;" and at == len(signs) - 1:
                return
            else:
                number = names[at][0].isdigit()
                kind = TERMINALS.get(names[at], "NUMBER" if number else "NAME")
                depth += kind in ("_OPEN", "_NORM", "_ANGLE")
                depth -= kind in ("_CLOSE", "_NORM_END", "_ANGLE_END")
                if kind == "_COMMA" and not depth:
                    kind = "_SEPARATOR"
            start, end = signs[at][1], signs[at + size - 1][2]
            value = piece.name if piece else formula.tex[start:end]
            if kind == "DERIVATIVE":
                value = names[at + 4]
            token = Token(kind, value, start, 1, start + 1, 1, end + 1, end)
            at += size
            if kind == "_SEPARATOR":
                before = token
                continue
            if before is not None:
                yield before
                before = None
            yield token


@cache
def _parser() -> Any:
    options = {"start": "display", "parser": "lalr", "propagate_positions": True}
    return Lark(GRAMMAR, lexer=_Lexer, **options)


# ------------------------------------------------------------------------- evaluating


class _Formula:
    """A display with its pieces: read once, evaluated as it stands or with a slip."""

    def __init__(self, label: str, tex: str, pieces: Mapping[str, Any], each: str) -> None:
        self.label, self.tex, self.each = label, _plain(tex), each.split()
        self.pieces = {
            name: Piece(
                name,
                tuple(sign for sign, _, _ in _signs(_plain(name))),
                _number(value),
                isinstance(value, int) and value > 1,
            )
            for name, value in pieces.items()
        }
        longest = sorted(self.pieces.values(), key=lambda piece: -len(piece.signs))
        self._longest_first = longest
        try:
            self.tree = _parser().parse(self)
        except UnexpectedInput as error:
            place = max(0, (error.pos_in_stream or len(self.tex)) - 12)
            rest = self.tex[place : place + 40]
            self.fail(f"the grammar does not reach past `… {rest} …`; name it as a piece")
        used = {leaf.value for leaf in _leaves(self.tree)}
        for name in self.pieces:
            if name not in used:
                self.fail(f"the piece `{name}` has no place in the display")
        sides = [side for one in self.tree.children for side in one.children[::2]]
        if not any(isinstance(_stripped(side), Tree) for side in sides):
            self.fail("there is nothing to evaluate: every side is one piece")

    def fail(self, why: str) -> NoReturn:
        raise NotEvaluated(f"{self.label}: {why}.")

    def piece_at(self, names: Sequence[str], at: int) -> Piece | None:
        """The longest piece whose name stands there."""
        for piece in self._longest_first:
            if tuple(names[at : at + len(piece.signs)]) == piece.signs:
                return piece
        return None

    def is_count(self, node: Any) -> bool:
        """Whether a piece is a count, like n: one less is a slip that people make."""
        return self.pieces[node.value].count

    def is_remainder(self, node: Any) -> bool:
        """Whether a part is a remainder, such as O(ε²), which the tolerance is for."""
        name = str(node)
        return name.startswith("O(") and name in self.pieces

    def text(self, node: Any) -> str:
        """The TeX that a part of the tree was made of."""
        if isinstance(node, Tree):
            tex = self.tex[node.meta.start_pos : node.meta.end_pos]
            return tex + "}" * (tex.count("{") - tex.count("}"))  # braces left out as needless
        return str(node)

    def check(self, tree: Any, rtol: float, atol: float, because: str) -> None:
        """See that the relations of a display agree, for each value of free indices."""
        ranges = [range(self._length(tree, index, self.each)) for index in self.each]
        cases = [dict(zip(self.each, ((row, row + 1) for row in rows), strict=True)) for rows in product(*ranges)]
        for statement in tree.children:
            first, *rest = statement.children
            left = [self.value(first, bound) for bound in cases]
            for relation, side in zip(rest[::2], rest[1::2], strict=True):
                right = [self.value(side, bound) for bound in cases]
                if relation in ORDERS:
                    pairs = [torch.broadcast_tensors(*pair) for pair in zip(left, right, strict=True)]
                    a, b = (torch.stack(list(side)) for side in zip(*pairs, strict=True))
                    slack = atol + rtol * float(b.abs().max())
                    if not float((ORDERS[relation] * (a - b)).max()) <= slack:
                        raise CheckFailed(f"{self.label}: `{self.text(statement)}` does not hold.")
                else:  # against zero, from whichever side
                    a, b = self._alike(left, right, statement)
                    a, b = (a, b) if a.any() else (b, a)
                    bounded(self.label, a, b, rtol, atol, because)
                left = right

    def _alike(self, left: list[Tensor], right: list[Tensor], statement: Any) -> tuple[Tensor, Tensor]:
        """The sides in all cases; a side that is zero has the other's shape."""
        a, b = torch.stack(left), torch.stack(right)
        if a.shape != b.shape:
            if left[0].ndim == 0 and not a.any():
                return torch.zeros_like(b), b
            if right[0].ndim == 0 and not b.any():
                return a, torch.zeros_like(a)
            shapes = f"{_shape(left[0])} and {_shape(right[0])}"
            self.fail(f"the sides of `{self.text(statement)}` have shapes {shapes}")
        return a, b

    def value(self, node: Any, bound: Bound) -> Any:
        """The value of a part of the tree, with these rows of the families."""
        if isinstance(node, Tree):
            try:
                return getattr(self, f"_{node.data}")(node, bound)
            except (AttributeError, RuntimeError, TypeError) as error:
                raise NotEvaluated(f"{self.label}: `{self.text(node)}` has no value: {error}") from error
        if node.type == "NUMBER":
            return torch.tensor(float(node), dtype=torch.float64)
        if node.type == "NAME":
            if node.value not in bound:
                self.fail(f"`{node}` has no piece, and no sum runs over it")
            return torch.tensor(float(bound[node.value][1]), dtype=torch.float64)
        piece = self.pieces[node.value]
        value = piece.value
        for index in piece.indices(bound):
            row, number = bound[index]
            if row < 0:  # no index: what a derivative is taken by
                value = number if piece.name == index else _number(value(number))
                continue
            if getattr(value, "ndim", 1) == 0 or not 0 <= row < len(value):
                self.fail(f"the piece `{piece.name}` has no row {row} for `{index}`")
            value = value[row]
        if getattr(value, "ndim", 0) > 2:
            self.fail(f"the piece `{piece.name}` has shape {_shape(value)}")
        return value

    def _row(self, node: Any, bound: Bound) -> int:
        """An index as the number of a row: itself, or a piece that is one."""
        node = _stripped(node)
        if isinstance(node, Token) and node.value in bound:
            return bound[node.value][0]
        return int(self.value(node, bound))

    def _length(self, node: Any, index: str, bound: Iterable[str]) -> int:
        """How many rows the families have along an index."""
        sizes = {}
        for leaf in _leaves(node):
            if leaf.type == "PIECE":
                piece = self.pieces[leaf.value]
                among = piece.indices(dict.fromkeys([*bound, index]))
                if index in among:
                    value = piece.value
                    for _ in among[: among.index(index)]:
                        value = value[0]
                    if not hasattr(value, "__len__") or getattr(value, "ndim", 1) == 0:
                        self.fail(f"the piece `{piece.name}` has no rows for `{index}`")
                    sizes[piece.name] = len(value)
        if len(set(sizes.values())) != 1:
            found = ", ".join(f"`{name}` has {size}" for name, size in sizes.items())
            self.fail(f"`{index}` should run along pieces of one length: {found}")
        return int(min(sizes.values()))

    def _sum(self, node: Any, bound: Bound) -> Any:
        parts = node.children
        if getattr(parts[0], "type", "") != "SIGN":
            parts = [None, *parts]
        total = None
        for sign, part in zip(parts[::2], parts[1::2], strict=True):
            value = self.value(part, bound)
            value = -value if sign == "-" else value
            if total is not None and self.is_remainder(part):
                continue
            if total is not None and total.shape != value.shape:
                self._misfit(node, total, value, part)
            total = value if total is None else total + value
        return total

    def _times(self, node: Any, bound: Bound) -> Any:
        first, *between, last = node.children
        a, b = self.value(first, bound), self.value(last, bound)
        sign = str(between[0]) if between else ""
        if sign == "/" and b.ndim == 0:
            return a / b
        if sign == r"\otimes":
            return torch.kron(a, b)
        if a.ndim == 0 or b.ndim == 0:
            return a * b
        if a.ndim == b.ndim == 1 and a.shape == b.shape and sign == r"\cdot":
            return a @ b
        if a.ndim == 1 and b.ndim == 2 and len(b) == 1:
            return a[:, None] @ b
        if a.ndim == 1 or a.shape[1] != b.shape[0] or sign == "/":
            self._misfit(node, a, b, last)
        ends = a.shape[0] == 1 and b.ndim == 1  # a row times a column is a number
        return (a @ b)[0] if ends else a @ b

    def _misfit(self, node: Any, a: Tensor, b: Tensor, last: Any) -> NoReturn:
        self.fail(f"the shapes in `{self.text(node)}` do not fit: {_shape(b)} of `{self.text(last)}` after {_shape(a)}")

    def _fraction(self, node: Any, bound: Bound) -> Any:
        above, below = (self.value(child, bound) for child in node.children)
        if below.ndim:
            self.fail(f"`{self.text(node.children[1])}` divides, and is no number")
        return above / below

    def _power(self, node: Any, bound: Bound) -> Any:
        base, exponent = (self.value(child, bound) for child in node.children)
        if base.ndim == 0:
            return base**exponent
        if base.ndim == 1 or base.shape[0] != base.shape[1] or exponent % 1:
            self.fail(f"`{self.text(node)}`: no such power of {_shape(base)}")
        return torch.linalg.matrix_power(base, int(exponent))

    def _transpose(self, node: Any, bound: Bound) -> Any:
        value = self.value(node.children[0], bound)
        if "-" in node.children[1]:
            value = torch.linalg.inv(value)
        if value.ndim == 1:
            return value[None]
        return value[0] if value.ndim == 2 and len(value) == 1 else value.T

    def _root(self, node: Any, bound: Bound) -> Any:
        return self.value(node.children[0], bound).sqrt()

    def _norm(self, node: Any, bound: Bound) -> Any:
        value, *of = (self.value(child, bound) for child in node.children)
        return (value @ of[0] @ value).sqrt() if of else torch.linalg.norm(value)

    def _inner(self, node: Any, bound: Bound) -> Any:
        a, b = (self.value(child, bound) for child in node.children)
        return a.T @ b if max(a.ndim, b.ndim) > 1 else a @ b

    def _derivative(self, node: Any, bound: Bound) -> Any:
        by, term = node.children
        if by.value not in self.pieces:
            self.fail(f"to differentiate by `{by}`, give it a step: a piece `{by}`")
        h = self.pieces[by.value].value
        ahead, behind = (self.value(term, {**bound, by.value: (-1, step)}) for step in (h, -h))
        return (ahead - behind) / (2 * h)

    def _call(self, node: Any, bound: Bound) -> Any:
        function, *arguments = node.children
        values = [self.value(argument, bound) for argument in arguments]
        return _number(self.pieces[function.value].value(*values))

    def _over_index(self, node: Any, bound: Bound) -> Any:
        (how, *upper), term = node.children[0].children, node.children[1]
        index, *rest = how.children
        index, base = str(index), 1
        if how.data == "first":
            base = int(self.value(rest[-1], bound))
            stop = int(self.value(upper[0], bound)) if upper else base - 1
            values = range(base, stop + 1)
            base = min(base, 1)
        elif how.data == "among":
            values = range(0)
        else:
            values = range(1, self._length(term, index, bound) + 1)
        rows = [value - base for value in values]
        if how.data == "but":
            rows.remove(self._row(rest[-1], bound))
        if how.data == "among":
            rows = [int(row) for row in self.pieces[rest[-1].value].value]
        if not rows:
            self.fail(f"`{self.text(node.children[0])}` has no terms")
        terms = (self.value(term, {**bound, index: (row, row + base)}) for row in rows)
        return sum(terms)


# For an index, the row and the number that it stands for.
Bound = Mapping[str, tuple[int, Any]]
ORDERS = dict.fromkeys([r"\le", r"\leq", "<"], 1) | dict.fromkeys([r"\ge", r"\geq", ">"], -1)


def _number(value: Any) -> Any:
    """A number or tensor in double precision; functions and other things as they are."""
    if isinstance(value, int | float | Tensor):
        return torch.as_tensor(value, dtype=torch.float64).detach().cpu()
    return value


def _shape(value: Tensor) -> str:
    return "a number" if value.ndim == 0 else str(tuple(value.shape))


def _stripped(node: Any) -> Any:
    """What a sum of one term without a sign is."""
    while getattr(node, "data", "") == "sum" and len(node.children) == 1:
        node = node.children[0]
    return node


def _leaves(node: Any) -> Iterator[Any]:
    if isinstance(node, Tree):
        for child in node.children:
            yield from _leaves(child)
    else:
        yield node


# ------------------------------------------------------------------------------ slips


def _slips(formula: _Formula, node: Any) -> Iterator[tuple[str, Any]]:
    """What can go wrong when this is typed: each slip in words, and the tree with it."""
    text = formula.text
    if not isinstance(node, Tree):
        if node.type == "NUMBER" and float(node):
            more = f"{float(node) + 1:g}"
            yield f"{more} for {node}", Token("NUMBER", more)
        elif node.type == "PIECE" and formula.is_count(node):
            less = [node, Token("SIGN", "-"), Token("NUMBER", "1")]
            yield f"{node} − 1 for {node}", Tree("sum", less)
        return
    parts = node.children

    def made(children: list[Any]) -> Any:
        return Tree(node.data, children, node.meta)

    if node.data == "sum":
        for k, part in enumerate(parts):
            if formula.is_remainder(parts[k + (part in ("+", "-"))]):
                continue  # what is left to the tolerance: O(ε²)
            if getattr(part, "type", "") == "SIGN":
                other = Token("SIGN", "+" if part == "-" else "-")
                yield f"{other}{text(parts[k + 1])}", made([*parts[:k], other, *parts[k + 1 :]])
                if len(parts) > 2:
                    yield f"no {text(parts[k + 1])}", made(parts[:k] + parts[k + 2 :])
            elif k == 0 and text(part) != "0":
                minus = Token("SIGN", "-")
                yield f"-{text(part)}", made([minus, *parts])
                if len(parts) > 1:
                    yield f"no {text(part)}", made(parts[1:])
    elif node.data == "times":
        yield f"no {text(parts[-1])}", parts[0]
        yield f"no {text(parts[0])}", parts[-1]
    elif node.data == "power":
        yield f"{text(parts[0])} for {text(node)}", parts[0]
    elif node.data == "fraction":
        yield f"no division by {text(parts[1])}", parts[0]
    zero = node.data == "statement" and any(text(part) == "0" for part in parts)
    for k, part in enumerate(parts):
        for slip, other in _slips(formula, part):
            if zero and slip == f"-{text(part)}":
                continue  # minus zero is zero
            if node.data == "first":
                slip += f" in {text(node).strip('{}')}"
            yield slip, made([*parts[:k], other, *parts[k + 1 :]])
