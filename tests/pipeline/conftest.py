"""A small book of its own, in a folder with a space and letters beyond ASCII, and the pipeline's commands run in it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tools import chapters as book

HEADER = """---
jupytext:
  text_representation:
    extension: .md
    format_name: myst
kernelspec:
  display_name: Python 3
  name: python3
---

# A title

"""
CONTENTS = """format: jb-book
root: book/intro
parts:
  - caption: Part
    numbered: 1
    chapters:
      - file: book/01-first
      - file: book/02-second
"""
CONFIG = """title: A small book
author: Nobody
only_build_toc_files: true
exclude_patterns: [notebooks, tools, helpers]
execute:
  execute_notebooks: cache
parse:
  myst_enable_extensions: [colon_fence, dollarmath]
html:
  use_multitoc_numbering: true
sphinx:
  extra_extensions: [sphinx_proof, sphinx_exercise]
  local_extensions:
    stored_outputs: book/_ext
"""


def cell(code: str) -> str:
    return f"```{{code-cell}} ipython3\n{code}\n```\n"


def hear_ctrl_c() -> None:
    """As from a terminal: a shell that runs the tests in the background has its programs ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Checkout:
    """A checkout of a small book with the tools of this one."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for folder in ("book/_ext", "helpers", "notebooks", "requirements", "benchmarks/runs"):
            (root / folder).mkdir(parents=True)
        shutil.copytree(book.ROOT / "tools", root / "tools", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(book.BOOK / "_ext" / "stored_outputs.py", root / "book" / "_ext")
        self.write("helpers/a.py", "x = 1\n")
        self.write("requirements/book.in", "torch==1\n")
        self.write("requirements/book.txt", "numpy==1\n")
        self.write("_toc.yml", CONTENTS)
        self.write("_config.yml", CONFIG)
        self.write("book/references.bib", "")
        self.write("book/intro.md", "# An intro\n\nWords.\n")

    def write(self, name: str, text: str) -> Path:
        path = self.root / name
        path.write_text(text, encoding="utf-8", newline="\n")
        return path

    def chapter(self, text: str, name: str = "01-first") -> Path:
        return self.write(f"book/{name}.md", HEADER + text)

    def notebook(self, name: str = "01-first") -> Path:
        return self.root / "notebooks" / f"{name}.ipynb"

    def listed(self) -> list[str]:
        return sorted(path.name for path in (self.root / "notebooks").iterdir())

    def start(self, tool: str, *arguments: str, **options) -> subprocess.Popen[str]:
        """Start ``python -m tools.<tool>`` in the checkout."""
        environment = os.environ | options.pop("env", {})
        if os.name != "nt":
            options["preexec_fn"] = hear_ctrl_c
        return subprocess.Popen(
            [sys.executable, "-m", f"tools.{tool}", *arguments], cwd=self.root, env=environment,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8", errors="replace", **options,
        )  # fmt: skip

    def run(self, tool: str, *arguments: str, **options) -> tuple[int, str]:
        """Its exit status and all it says. A traceback is never a message."""
        process = self.start(tool, *arguments, **options)
        said, _ = process.communicate(timeout=120)
        assert "Traceback (most recent call last):\n  File" not in said or "code cell" in said, said
        return process.returncode, said


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path / "a book ünï")


@pytest.fixture(scope="session")
def executed(tmp_path_factory) -> Checkout:
    """One that has been executed, not to be changed; see `made`."""
    checkout = Checkout(tmp_path_factory.mktemp("executed") / "a book ünï")
    checkout.chapter(
        "Some words.\n\n" + cell("print('one')") + "\n" + cell("l2 = 0.02\nprint(f'{1 / 3:.3f}')") + "\n" + cell("l2")
    )
    checkout.chapter("More words.\n\n" + cell("print(2)"), "02-second")
    status, said = checkout.run("execute")
    assert status == 0, said
    return checkout


@pytest.fixture
def made(executed: Checkout, tmp_path: Path) -> Checkout:
    """A checkout whose notebooks are up to date."""
    shutil.copytree(executed.root, tmp_path / "a copy ünï")
    copy = Checkout.__new__(Checkout)
    copy.root = tmp_path / "a copy ünï"
    return copy
