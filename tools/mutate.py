"""Do the tests of the helpers notice a mistake? Plants them at random, one at a time, and runs what should see them.

    python -m tools.mutate [MODULE ...] [--count 30] [--seed 0]

A mistake is a sign, an operator, a comparison, a constant, a condition, an argument or a statement, wrong or left out,
in ``helpers/MODULE.py`` (``solvers``, ``page/checks``; without a name each in turn) of a temporary copy: nothing is
written in the checkout. The tests in TESTS run until one fails; where they never end, that is noticed, too. A line with
SURVIVED is for a person to judge: it changes nothing but speed or wording, or a test is missing. Not on Windows.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
NEEDED = ("helpers", "tests", "tools", "benchmarks", "book", "conftest.py", "pyproject.toml")
TESTS = {
    "auditing": "audit attacks", "certificate": "certificate optimum what_people_have attacks",
    "cluster": "cluster attacks", "curvature": "curvature solvers attacks what_people_have",
    "data": "data examples", "datamodeling": "datamodeling", "files": "files",
    "influences": "influence what_people_have attacks", "jackknife": "jackknife attacks",
    "models": "models what_people_have attacks", "optimum": "optimum certificate what_people_have attacks",
    "page/checks": "checks page", "page/figures": "figures", "page/notebook": "page", "page/typeset": "typeset",
    "probe": "probe what_people_have attacks", "retraining": "checks retraining",
    "risk": "risk batches what_people_have attacks", "solvers": "solvers what_people_have",
}  # fmt: skip
OTHER = {
    ast.Lt: (ast.LtE, ast.Gt), ast.LtE: (ast.Lt, ast.Gt), ast.Gt: (ast.GtE, ast.Lt), ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.Is: (ast.IsNot,), ast.IsNot: (ast.Is,), ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,), ast.Add: (ast.Sub,), ast.Sub: (ast.Add,), ast.Mult: (ast.Div,), ast.Div: (ast.Mult,),
    ast.Pow: (ast.Mult,), ast.FloorDiv: (ast.Mult,), ast.BitAnd: (ast.BitOr,), ast.BitOr: (ast.BitAnd,),
    ast.And: (ast.Or,), ast.Or: (ast.And,), ast.USub: (ast.UAdd,), ast.Invert: (ast.UAdd,),
}  # fmt: skip


def mistakes(tree: ast.AST) -> list[tuple[Any, str, Any]]:
    """A node of the tree, and which field of it becomes what; nothing in annotations, decorators and messages."""
    aside: list[Any] = []
    for node in ast.walk(tree):
        aside += [
            getattr(node, "annotation", None),
            getattr(node, "returns", None),
            *getattr(node, "decorator_list", ()),
        ]
        aside += [node] * isinstance(node, ast.JoinedStr)
    left_alone = {id(inner) for each in aside if each is not None for inner in ast.walk(each)}
    return [(node, *wrong) for node in ast.walk(tree) if id(node) not in left_alone for wrong in _wrong(node)]


def _wrong(node: Any) -> Iterator[tuple[str, Any]]:
    match node:
        case ast.Compare(ops=[op]):
            yield from (("ops", [other()]) for other in OTHER.get(type(op), ()))
        case ast.BinOp(op=op) | ast.BoolOp(op=op) | ast.UnaryOp(op=op):
            yield from (("op", other()) for other in OTHER.get(type(op), ()))
        case ast.Constant(value=bool(value)):
            yield "value", not value
        case ast.Constant(value=int(value)):
            yield "value", value + 1
        case ast.Constant(value=float(value)):
            yield "value", 10 * value or 1.0
        case ast.Call(args=args, keywords=named):
            yield from (("keywords", named[:k] + named[k + 1 :]) for k, each in enumerate(named) if each.arg)
            if len(args) > 1:
                yield "args", [args[1], args[0], *args[2:]]
        case ast.If(test=test):
            yield "test", ast.UnaryOp(ast.Not(), test)
    for field in ("body", "orelse"):
        block = getattr(node, field, None)
        for k, each in enumerate(block if isinstance(block, list) else ()):
            call = isinstance(each, ast.Expr) and isinstance(each.value, ast.Call)
            if call or isinstance(each, ast.AugAssign | ast.Raise):
                yield field, [*block[:k], ast.Pass(), *block[k + 1 :]]


def planted(tree: ast.AST, node: Any, field: str, wrong: Any) -> tuple[str, str]:
    """The module with this mistake in it, and how the line reads before and after; the tree stays what it was."""
    right, before = getattr(node, field), ast.unparse(tree)
    setattr(node, field, wrong)
    after = ast.unparse(tree)
    setattr(node, field, right)
    lines = zip(before.splitlines(), after.splitlines(), strict=False)
    return after, next((f"{a.strip()}  ->  {b.strip()}" for a, b in lines if a != b), "nothing")


class Unshrunk:
    """A plugin: one input that fails is enough; Hypothesis need not look for the smallest."""

    def pytest_collection_finish(self) -> None:
        from hypothesis import Phase, settings

        settings.register_profile("unshrunk", settings.get_profile("book"), phases=[Phase.explicit, Phase.generate])
        settings.load_profile("unshrunk")


def passed(files: list[str], limit: float) -> bool:
    """Whether all tests passed in time, in a process of their own that has the large libraries already."""
    if not (child := os.fork()):
        os.setsid()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1), os.dup2(nowhere, 2)
        options = ["-xq", "-n0", "--assert=plain", "--tb=no", "-pno:cacheprovider"]
        os._exit(pytest.main([*options, *files], plugins=[Unshrunk()]))
    end, done, status = time.monotonic() + limit, 0, 1
    while not done and time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        time.sleep(0.05)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # and what it has started
    return bool(done) and os.waitstatus_to_exitcode(status) == 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", default=list(TESTS), help="all without a name")
    parser.add_argument("--count", type=int, default=30, help="of mistakes in a module")
    parser.add_argument("--seed", type=int, default=0, help="of their choice")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as copy, contextlib.chdir(copy):
        for each in NEEDED:
            (shutil.copytree if (ROOT / each).is_dir() else shutil.copy)(ROOT / each, Path(copy, each))
        sys.path.insert(0, copy)
        os.environ |= {"PYTHONPATH": copy, "PYTHONDONTWRITEBYTECODE": "1"}
        sys.dont_write_bytecode = True  # a cached file is as old as its source, to the second
        import distributed, matplotlib.pyplot, scipy.stats, sklearn.datasets, torch  # noqa: E401, F401, I001

        for module in options.modules:
            file, tests = Path(f"helpers/{module}.py"), [f"tests/helpers/test_{x}.py" for x in TESTS[module].split()]
            source, begun, noticed = file.read_text("utf-8"), time.monotonic(), 0
            if not passed(tests, 1800):
                raise SystemExit(f"{module}: its tests fail without a mistake.")
            limit, every = 60 + 5 * (time.monotonic() - begun), mistakes(tree := ast.parse(source))
            chosen = random.Random(f"{options.seed} {module}").sample(every, min(options.count, len(every)))
            for mistake in chosen:
                wrong, line = planted(tree, *mistake)
                file.write_text(wrong, "utf-8")
                noticed += (seen := not passed(tests, limit))
                print(f"{'noticed ' if seen else 'SURVIVED'} {module}: {line}", flush=True)
            file.write_text(source, "utf-8")
            print(f"{module}: {noticed} of {len(chosen)} noticed", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
