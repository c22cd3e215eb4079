"""The types that the scripts' comments give, and what ESLint finds; where Node is, and what package.json asks for."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tools.command import ROOT

HERE = Path(__file__).parent
PROGRAMS = HERE / "node_modules"
NODE = shutil.which("node")
TYPES = ("typescript/bin/tsc", "-p", "book/_static/jsconfig.json")
LINT = ("eslint/bin/eslint.js", "--config", str(HERE / "eslint.config.js"), "book/_static")

pytestmark = pytest.mark.skipif(
    NODE is None or not PROGRAMS.is_dir(),
    reason="types and lint of the scripts were not checked: `npm ci --prefix tests/laboratory` brings what does",
)


def findings(program, *arguments, folder=ROOT):
    """What a program says of the scripts below ``folder``; nothing, if there is nothing wrong."""
    command = [NODE, PROGRAMS / program, *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, encoding="utf-8", check=False)
    assert done.returncode in (0, 1, 2), done.stderr
    return done.stdout + done.stderr if done.returncode else ""


@pytest.mark.parametrize("check", [TYPES, LINT], ids=["types", "lint"])
def test_nothing_is_wrong_with_the_scripts(check):
    assert not findings(*check)


@pytest.mark.parametrize(
    ("check", "script", "old", "new", "found"),
    [
        (TYPES, "lab/linalg.js", "dot(a, a)", 'dot(a, "a")', "TS2345"),
        (TYPES, "search.js", "stemmer.stemWord(word.toLowerCase())", "stemmer.stemWord(word.length)", "TS2345"),
        (LINT, "lab/linalg.js", "const EPS", "const left = 0;\nconst EPS", "no-unused-vars"),
        (LINT, "book.js", "const root", "const toor", "no-undef"),
    ],
)
def test_a_slip_is_noticed(tmp_path, check, script, old, new, found):
    scripts = tmp_path / "book" / "_static"
    shutil.copytree(ROOT / "book" / "_static", scripts, ignore=shutil.ignore_patterns("*.svg"))
    (tmp_path / "tests" / "laboratory").mkdir(parents=True)
    shutil.copy(HERE / "sphinx.d.ts", tmp_path / "tests" / "laboratory")
    text = (scripts / script).read_text(encoding="utf-8")
    assert old in text
    (scripts / script).write_text(text.replace(old, new, 1), encoding="utf-8")
    assert found in findings(*check, folder=tmp_path)
