"""The planting of mistakes in the helpers: what can be planted, and that the checkout stays as it is."""

from __future__ import annotations

import ast
import re
import subprocess
import sys

import pytest

from tools import mutate

SOURCE = """\
def f(x: int, y: int = 2) -> bool:
    if x < 3 and not x == -y:
        raise ValueError(f"{x + 1}")
    g(x, y, sign=True)
    return x / 0.5
"""


def lines(source):
    tree = ast.parse(source)
    return [mutate.planted(tree, *each)[1].partition("  ->  ")[2] for each in mutate.mistakes(tree)], ast.unparse(tree)


def test_every_kind_of_mistake_is_planted_and_the_tree_stays():
    found, after = lines(SOURCE)
    assert after == ast.unparse(ast.parse(SOURCE))
    for expected in (
        "if x <= 3 and (not x == -y):",
        "if x > 3 and (not x == -y):",
        "if x < 3 or not x == -y:",
        "if x < 3 and (not x != -y):",
        "if x < 3 and (not x == +y):",
        "if x < 4 and (not x == -y):",
        "if not (x < 3 and (not x == -y)):",
        "pass",
        "g(y, x, sign=True)",
        "g(x, y)",
        "g(x, y, sign=False)",
        "return x * 0.5",
        "return x / 5.0",
        "def f(x: int, y: int=3) -> bool:",
    ):
        assert expected in found
    assert not any("x - 1" in line or "x + 2" in line for line in found)  # the text of a message is none
    assert found.count("pass") == 2 and len(found) == 15


def test_every_module_has_its_tests():
    helpers = mutate.ROOT / "helpers"
    modules = {file.relative_to(helpers).with_suffix("").as_posix() for file in helpers.rglob("*.py")}
    assert {each for each in modules if not each.endswith("__init__")} == set(mutate.TESTS)
    for names in mutate.TESTS.values():
        assert all((mutate.ROOT / f"tests/helpers/test_{name}.py").is_file() for name in names.split())


@pytest.mark.skipif(not hasattr(mutate.os, "fork"), reason="no fork")
def test_mistakes_are_planted_in_a_copy_and_the_checkout_is_left_alone():
    before = {file: file.read_bytes() for file in mutate.ROOT.glob("helpers/*.py")}
    command = [sys.executable, "-m", "tools.mutate", "files", "--count", "1"]
    done = subprocess.run(command, cwd=mutate.ROOT, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"(noticed |SURVIVED) files: .+  ->  .+\nfiles: [01] of 1 noticed\n", done.stdout)
    assert before == {file: file.read_bytes() for file in mutate.ROOT.glob("helpers/*.py")}
