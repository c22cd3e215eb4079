"""Plant a mistake in a copy of the book, run there what should notice it, and say what happened."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from tools import chapters as book

WORKSHOP = Path(__file__).with_name("workshop.py")
REFUSAL = re.compile(r"(?P<error>\w+) in (?P<chapter>[\w-]+)")
CHECK = re.compile(r'\b(?:holds|differs)\(\s*"([^"]*)"')
CHAPTERS = book.chapters()
EVALUATED = {label: chapter for chapter in CHAPTERS for _, label, _ in book.typeset(chapter)}
COPIED = ("helpers", "book", "tests/helpers", "benchmarks/runs")


@cache
def checked_in(chapter: Path) -> frozenset[str]:
    """The names of all checks of a chapter."""
    return frozenset(CHECK.findall(book.read_text(chapter)))


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

    @cached_property
    def chapter(self) -> Path:
        """The chapter that has the check."""
        if self.refusal:
            return book.BOOK / f"{self.refusal['chapter']}.md"
        found = [path for path in CHAPTERS if self.name in checked_in(path)]
        assert len(found) == 1, f"{self.name} should be checked in one chapter, but is in {[p.name for p in found]}"
        return found[0]

    def is_checked_by(self, source: str) -> bool:
        return self.name in CHECK.findall(source)

    def assert_is(self, found: dict[str, Any], mistake: dict[str, Any]) -> None:
        """What stopped the chapter first is this, and nothing else."""
        said = f"{mistake['name']}: {found}"
        if self.refusal:
            assert found["error"] == self.refusal["error"], said
            assert mistake.get("says", "") in found["message"] + found["line"], said
        else:
            name = re.match(r"[\w-]*", found.get("message", ""))
            assert found["error"] == "CheckFailed" and name[0] == self.name, said


def chapters_that_catch(mistake: dict[str, Any]) -> list[str]:
    """The chapters that notice a mistake, by name."""
    catchers = map(Catcher, mistake["caught_by"])
    return sorted({catcher.chapter.stem for catcher in catchers if not catcher.is_test})


def cells(chapter: Path) -> list[str]:
    """The code of a chapter, cell by cell."""
    return [cell.source for cell in book.code_cells(book.read_chapter(chapter))]


def in_any_layout(code: str) -> re.Pattern[str]:
    """Finds this code wherever its lines are broken: a new layout leaves the list of mistakes as it is."""
    words = [re.escape(word) for word in re.findall(r"\w+|[^\w\s]", code)]
    between = r"\s*".join(rf",?\s*{word}" if word in (r"\)", r"\]", r"\}") else word for word in words)
    before, after = code[: len(code) - len(code.lstrip())], code[len(code.rstrip()) :]
    return re.compile(re.escape(before) + between + re.escape(after))


def named(slip: dict[str, str]) -> str:
    """A slip by the equation that it is in and what it says."""
    return f"{slip['label']}: {slip['what']}"


def cells_with(slip: dict[str, str], chapter: Path) -> list[str]:
    """The code of a chapter, with a slip in the TeX that `typeset` evaluates."""
    sources = cells(chapter)
    for number, label, tex in book.typeset(chapter):
        if label == slip["label"]:
            count = tex.count(slip["old"])
            assert count == 1, f"{named(slip)} `old` occurs {count} times in the display, not once"
            assert sources[number].count(tex) == 1, f"{label}: write its TeX as a raw string"
            sources[number] = sources[number].replace(tex, tex.replace(slip["old"], slip["new"]))
    return sources


def plant(mistake: dict[str, Any], folder: Path) -> Path:
    """Put a copy of the file with the mistake in it into a folder, and return its path."""
    text = book.read_text(book.ROOT / mistake["plant_file"])
    old, new = mistake["old"], mistake["new"]
    found = list(in_any_layout(old).finditer(text))
    assert len(found) == 1, f"{mistake['name']}: `old` occurs {len(found)} times in {mistake['plant_file']}, not once"
    assert old != new
    start, end = found[0].span()
    path = folder / mistake["plant_file"]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text[:start] + new + text[end:], encoding="utf-8")
    for source in [book.read_text(path)] if path.suffix == ".py" else cells(path):
        compile(source, path.name, "exec")
    return path


class Workshop:
    """The process that runs chapters and tests; see ``workshop.py``."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def do(self, root: Path, **job: Any) -> Any:
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, str(WORKSHOP)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                encoding="utf-8", env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONUTF8": "1"},
            )  # fmt: skip
        print(json.dumps({"root": str(root), **job}), file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        if not hasattr(os, "fork"):
            self.close()
        assert answer, "the process that runs chapters has died; its error is above"
        return json.loads(answer)

    def first_error(self, root: Path, sources: list[str]) -> dict[str, Any]:
        return self.do(root, cells=sources, planted={})[""]

    def assert_run_and(self, fail: bool, root: Path, *tests: str) -> None:
        """These tests can be run, and one fails, or all pass."""
        done = self.do(root, tests=tests)
        assert done.get("status") in (0, 1), f"{tests} could not be run:\n{done}"
        assert done["status"] == int(fail), f"{tests} should {'fail' if fail else 'pass'}:\n{done['written']}"

    def close(self) -> None:
        if self._process is not None:
            self._process.stdin.close()
            self._process.stdout.close()
            self._process.wait()
            self._process = None


class Bench:
    """Where the mistakes are planted, and what has been found."""

    def __init__(self, workshop: Workshop, folder: Path) -> None:
        self._workshop = workshop
        self._folder = folder
        self._chapters: dict[Path, dict[str, dict[str, Any]]] = {}
        self.mistakes = book.mistakes()
        self.slips = book.slips()

    def in_chapter(self, chapter: Path) -> dict[str, dict[str, Any]]:
        """What stops the chapter first with each mistake that is planted in its own code; under "": as it is.

        All run in one go, side by side: what stands before the mistakes is the same for all.
        """
        if chapter not in self._chapters:
            own = cells(chapter)
            theirs = {
                mistake["name"]: cells(plant(mistake, self._folder))
                for mistake in self.mistakes
                if mistake["plant_file"] == f"book/{chapter.name}"
            }
            theirs |= {named(slip): cells_with(slip, chapter) for slip in self.slips_of(chapter)}
            for name, sources in theirs.items():
                assert sources != own, f"{name} changes nothing in the code of {chapter.name}"
            forks = theirs if hasattr(os, "fork") else {}
            found = self._workshop.do(book.ROOT, cells=own[: self.needed(chapter, own)], planted=forks)
            for name, sources in theirs.items():
                if found[""]["error"] is None and found.get(name) is None:
                    found[name] = self._workshop.first_error(book.ROOT, sources)
            self._chapters[chapter] = found
        return self._chapters[chapter]

    def slips_of(self, chapter: Path) -> list[dict[str, str]]:
        """The slips in displays that this chapter evaluates."""
        evaluated = {label for _, label, _ in book.typeset(chapter)}
        return [slip for slip in self.slips if slip["label"] in evaluated]

    def needed(self, chapter: Path, sources: list[str]) -> int:
        """How many cells of a chapter are run against mistakes, at most."""
        planted = {slip["label"] for slip in self.slips_of(chapter)}
        last = max([number for number, label, _ in book.typeset(chapter) if label in planted], default=0)
        for mistake in self.mistakes:
            for catcher in map(Catcher, mistake["caught_by"]):
                if catcher.is_test or catcher.chapter != chapter:
                    continue
                says = mistake.get("says") if catcher.refusal else None
                those = [k for k, cell in enumerate(sources) if catcher.is_checked_by(cell) or (says and says in cell)]
                # An error that is raised inside the helpers may come from any cell.
                last = max(last, *(those or [len(sources) - 1]))
        return last + 1

    def assert_caught_in_chapter(self, mistake: dict[str, Any]) -> None:
        """Everything that the list says catches a mistake in a chapter's code does, and nothing else before it."""
        chapter = book.ROOT / mistake["plant_file"]
        found = self.in_chapter(chapter)
        assert found[""] == {"error": None}, f"{chapter.name} stops without a mistake: {found['']}"
        for catcher in map(Catcher, mistake["caught_by"]):
            assert not catcher.is_test, f"{mistake['name']}: no test runs the code of a chapter"
            assert catcher.chapter == chapter, f"{mistake['name']}: {catcher.name} is not of {chapter.name}"
            catcher.assert_is(found[mistake["name"]], mistake)

    def assert_slip_is_noticed(self, slip: dict[str, str], chapter: Path) -> None:
        """`typeset` raises at the display that has the slip, and nothing before it."""
        found = self.in_chapter(chapter)
        assert found[""] == {"error": None}, f"{chapter.name} stops without a slip: {found['']}"
        error = found[named(slip)]
        noticed = error["error"] in ("CheckFailed", "NotEvaluated")
        assert noticed and error["message"].startswith(slip["label"]), f"{named(slip)} {error}"

    def assert_caught(self, mistake: dict[str, Any], folder: Path) -> None:
        """Everything that the list says catches a mistake in the helpers does, and in a chapter nothing else before it.

        The helpers are copied to ``folder``, with all that runs on them, and changed there.
        """
        for name in COPIED:
            if (book.ROOT / name).is_dir():
                shutil.copytree(book.ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(book.ROOT / "pyproject.toml", folder)
        plant(mistake, folder)
        tests = [name for name in mistake["caught_by"] if Catcher(name).is_test]
        for test in tests:
            self._workshop.assert_run_and(True, folder, test)
        for catcher in map(Catcher, mistake["caught_by"]):
            if not catcher.is_test:
                sources = cells(catcher.chapter)
                catcher.assert_is(self._workshop.first_error(folder, sources), mistake)
