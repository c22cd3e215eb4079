"""Plant a mistake in a copy of the book, run there what should notice it, and say what happened."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tools import chapters as book

RUNNER = Path(__file__).with_name("run_chapter.py")
REFUSAL = re.compile(r"(?P<error>\w+) in (?P<chapter>[\w-]+)")


@dataclass(frozen=True)
class Catcher:
    """What notices a mistake. One of three kinds.

    - The label of an equation, or the name of a failure that a chapter shows: `holds` or `differs` raises there.
    - ``SomeError in NN-chapter``: the code of that chapter stops with this error.
    - ``tests/….py::test_name``: that test fails.
    """

    name: str

    @property
    def is_test(self) -> bool:
        return "::" in self.name

    @property
    def refusal(self) -> re.Match[str] | None:
        return REFUSAL.fullmatch(self.name)

    def chapter(self, root: Path) -> Path:
        """The chapter that has the check."""
        if self.refusal:
            return root / "book" / f"{self.refusal['chapter']}.md"
        found = [path for path in sorted((root / "book").glob("*.md")) if self.is_checked_by(book.read_text(path))]
        assert len(found) == 1, f"{self.name} should be checked in one chapter, but is in {[p.name for p in found]}"
        return found[0]

    def is_checked_by(self, source: str) -> bool:
        return bool(re.search(rf'\b(holds|differs)\(\s*"{re.escape(self.name)}"', source))


class Runner:
    """The process that runs chapters; see ``run_chapter.py``."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def report(self, root: Path, cells: list[str]) -> dict[str, Any]:
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, str(RUNNER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                encoding="utf-8", env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONUTF8": "1"},
            )  # fmt: skip
        print(json.dumps([str(root), cells]), file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        if not hasattr(os, "fork"):
            self.close()
        assert answer, "the process that runs chapters has died; its error is above"
        return json.loads(answer)

    def close(self) -> None:
        if self._process is not None:
            self._process.stdin.close()
            self._process.stdout.close()
            self._process.wait()
            self._process = None


class Bench:
    """A copy of the book in which a mistake can be planted."""

    def __init__(self, folder: Path, runner: Runner) -> None:
        self._runner = runner
        self.root = folder / "book-with-a-mistake"
        self.root.mkdir()
        for name in ("helpers", "book", "tests/helpers", "benchmarks/runs"):
            if (book.ROOT / name).is_dir():
                shutil.copytree(book.ROOT / name, self.root / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(book.ROOT / "pyproject.toml", self.root)

    def plant(self, mistake: dict[str, Any]) -> None:
        path = self.root / mistake["plant_file"]
        text = book.read_text(path)
        old, new = mistake["old"], mistake["new"]
        assert text.count(old) == 1, f"{mistake['name']}: `old` occurs {text.count(old)} times in {path.name}, not once"
        assert old != new
        text = text.replace(old, new)
        path.write_text(text, encoding="utf-8")
        sources = [text] if path.suffix == ".py" else self.cells(path)
        for source in sources:
            compile(source, path.name, "exec")

    @staticmethod
    def cells(chapter: Path) -> list[str]:
        return [cell.source for cell in book.code_cells(book.read_chapter(chapter))]

    def run(self, chapter: Path, last: int | None = None) -> dict[str, Any]:
        """What stops the chapter's code first, up to its cell number ``last``; ``{"error": None}`` if nothing does."""
        return self._runner.report(self.root, self.cells(chapter)[: None if last is None else last + 1])

    def test_passes(self, test: str) -> bool:
        arguments = ["-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", test]
        environment = os.environ | {"PYTHONPATH": str(self.root), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUTF8": "1"}
        run = subprocess.run(
            [sys.executable, *arguments], cwd=self.root, env=environment,
            capture_output=True, text=True, encoding="utf-8", timeout=300, check=False,
        )  # fmt: skip
        assert run.returncode in (0, 1), f"{test} could not be run:\n{run.stdout[-3000:]}{run.stderr[-3000:]}"
        return run.returncode == 0

    def assert_caught(self, mistake: dict[str, Any]) -> None:
        """Everything that the list says catches the mistake does, and in a chapter nothing else before it."""
        self.plant(mistake)
        for catcher in map(Catcher, mistake["caught_by"]):
            if catcher.is_test:
                assert not self.test_passes(catcher.name), f"{mistake['name']} is not noticed by {catcher.name}"
                continue
            found = self.run(catcher.chapter(self.root))
            if catcher.refusal:
                assert found["error"] == catcher.refusal["error"], f"{mistake['name']}: {found}"
                assert mistake.get("says", "") in found["message"] + found["line"], f"{mistake['name']}: {found}"
            else:
                name = re.match(r"[\w-]*", found.get("message", ""))
                assert found["error"] == "CheckFailed" and name[0] == catcher.name, f"{mistake['name']}: {found}"


@pytest.fixture(scope="session")
def runner() -> Iterator[Runner]:
    runner = Runner()
    yield runner
    runner.close()


@pytest.fixture
def bench(tmp_path: Path, runner: Runner) -> Bench:
    return Bench(tmp_path, runner)


@pytest.fixture
def catcher() -> type[Catcher]:
    return Catcher
