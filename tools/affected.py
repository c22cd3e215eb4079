"""Which files can break which tests: the table behind `make check`. `make test` runs everything, whatever stands here.

A test about one page has the page's name in its own (`test_is_its_chapters[03-argmin]`). So what a changed chapter can
have broken are the tests that its row names, as far as they are about this chapter or about no page in particular (like
those of the ledger, which lists all chapters).
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

from tools import chapters as book

NOTEBOOKS = "notebooks/{page}.ipynb"
ITSELF = "{itself}"
HELPERS = "helpers"  # stands like a page in the name of a test that only a change of the helpers can break
# The first row that a file matches counts. {page} stands for the page's name, {itself} for the file.
TABLE: tuple[tuple[str, tuple[str, ...]], ...] = (
    # what changed            what it can have broken
    ("book/<chapter>.md",     (NOTEBOOKS, "tests/book/test_notebooks.py::test_is_its_chapters",
                               "tests/book/test_notebooks.py::test_counts_run_from_one",
                               "tests/book/test_notebooks.py::test_prints_no_warning_and_no_error",
                               "tests/book/test_notebooks.py::test_has_nothing_private",
                               "tests/book/test_equations.py", "tests/book/test_figures.py", "tests/book/test_prose.py",
                               "tests/book/test_site.py", "tests/docs/test_references.py",
                               "tests/mistakes/test_planted_in_chapters.py",
                               "tests/mistakes/test_planted_in_helpers.py::test_is_caught",
                               "tests/pages/test_every_page.py::test_page")),
    ("book/<page>.md",        ("tests/book/test_site.py", "tests/docs", "tests/pages/test_every_page.py::test_page")),
    ("book/_static/*",        ("tests/book/test_site.py", "tests/pages")),
    ("book/references.bib",   ("tests/docs/test_references.py", "tests/book/test_site.py")),
    ("book/*",                ("tests/book", "tests/pages")),
    ("_config.yml",           ("tests/book/test_site.py", "tests/pages")),
    ("_toc.yml",              ("tests/book", "tests/pages")),
    ("helpers/*",             ("tests/helpers", "tests/docs", "tests/mistakes/test_the_list.py",
                               "tests/mistakes/test_planted_in_helpers.py")),
    ("notebooks/*",           ("tests/book/test_notebooks.py",)),
    ("benchmarks/*",          ("tests/book/test_notebooks.py", "tests/book/test_project.py")),
    ("tests/mistakes.toml",   ("tests/mistakes", "tests/book/test_site.py")),
    ("tests/*/test_*.py",     (ITSELF,)),
    ("tests/mistakes/*",      ("tests/mistakes",)),
    ("tests/pages/*",         ("tests/pages",)),
    ("tests/helpers/*",       ("tests/helpers",)),
    ("tests/*",               ("tests/book", "tests/pipeline")),
    ("tools/*",               ("tests/pipeline", "tests/book/test_tools.py", "tests/book/test_notebooks.py")),
    ("conftest.py",           ("tests/pipeline", "tests/book/test_notebooks.py")),
    # The project's own files, and whatever is new: the tests of the project as a whole.
    ("*",                     ("tests/book/test_project.py", "tests/docs")),
)  # fmt: skip
OF_THE_SITE = ("tests/pages", "tests/book/test_site.py")
# Every chapter is executed again when one of these changes: too much for `make check`.
UNDER_EVERY_CHAPTER = ("helpers/*.py", "requirements.txt", "requirements/book.*")


class Unknown(Exception):
    """What changed cannot be told; the message says why and what to do."""


@dataclass(frozen=True)
class Selection:
    """What a change can have broken."""

    files: tuple[str, ...]  # what changed
    tests: tuple[str, ...]  # arguments of pytest
    pages: frozenset[str]  # the pages that tests may be about
    chapters: tuple[str, ...]  # the chapters to execute first, by name
    under_every_chapter: bool

    @property
    def looks_at_the_site(self) -> bool:
        return any(test == "tests/book" or test.startswith(OF_THE_SITE) for test in self.tests)

    @property
    def python(self) -> list[str]:
        return [name for name in self.files if name.endswith(".py")]


def row(name: str, root: Path = book.ROOT) -> tuple[str, ...]:
    """The tests in the row of a changed file."""
    path = Path(name)
    for pattern, tests in TABLE:
        fits = fnmatch(name, pattern.replace("<chapter>", "*").replace("<page>", "*"))
        if fits and ("<chapter>" not in pattern or path.stem in _chapters(root)):
            return tuple(test.format(page=path.stem, itself=name) for test in tests)
    raise AssertionError("the last row takes everything")


def readers(run: str, root: Path = book.ROOT) -> list[str]:
    """The chapters that read a stored run."""
    named = re.compile(rf"""stored_run\(\s*["']{re.escape(run)}["']|runs/{re.escape(run)}\.json""")
    return [path.stem for path in book.chapters(root) if named.search(book.read_text(path))]


def select(files: Iterable[str], root: Path = book.ROOT) -> Selection:
    """What a change of these files can have broken. What is not there (any more) is no argument of pytest."""
    files = sorted(set(files))
    chapters = _chapters(root)
    # A notebook and a stored run are a chapter's: what they break is what the chapter breaks.
    stand_for = {name: [name] for name in files}
    for name in files:
        stem = Path(name).stem
        if fnmatch(name, "notebooks/*.ipynb") and stem in chapters:
            stand_for[name] = [f"book/{stem}.md"]
        elif fnmatch(name, "benchmarks/runs/*.json"):
            stand_for[name] = [f"book/{reader}.md" for reader in readers(stem, root)] or [name]
    sources = sorted({source for those in stand_for.values() for source in those})
    own = tuple(sorted(Path(source).stem for source in sources if fnmatch(source, "book/*.md")))
    tests = {test for source in sources for test in row(source, root)}
    tests = {test for test in tests if (root / test.partition("::")[0]).exists()}
    # Whatever a whole folder or file takes in need not be named again; and then no page is left out.
    tests = {test for test in tests if not any(test.startswith((f"{other}/", f"{other}::")) for other in tests)}
    whole = any(not fnmatch(source, "book/*.md") for source in sources)
    return Selection(
        files=tuple(files),
        tests=tuple(sorted(tests)),
        pages=frozenset() if whole else frozenset(own),
        chapters=tuple(stem for stem in own if stem in chapters),
        under_every_chapter=any(fnmatch(name, pattern) for name in files for pattern in UNDER_EVERY_CHAPTER),
    )


def about(test: str) -> set[str]:
    """The pages that a test is about, read from its name (for a cell, from the notebook's)."""
    file, _, name = test.partition("::")
    words = re.findall(r"[\w-]+", Path(file).stem if file.endswith(".ipynb") else name)
    return {word for word in words if word in _pages() or word == HELPERS}


@cache
def _chapters(root: Path) -> frozenset[str]:
    return frozenset(path.stem for path in book.chapters(root))


@cache
def _pages() -> frozenset[str]:
    return frozenset(path.stem for path in book.BOOK.glob("*.md"))


def changed(root: Path = book.ROOT) -> list[str]:
    """The files that differ from where this branch left main (on main: from the last commit), new ones among them.

    Raises:
        Unknown: where git cannot tell.
    """
    bases = [_git(root, "merge-base", "HEAD", name) for name in ("origin/main", "main")]
    base = next((found[0] for found in bases if found), "HEAD")
    differing = _git(root, "diff", "--name-only", "--no-renames", base)
    if differing is None:
        raise Unknown("git cannot say what changed here. Name it: `make check ONLY=03`, or run `make test`.")
    return sorted({*differing, *(_git(root, "ls-files", "--others", "--exclude-standard") or [])})


def _git(root: Path, *arguments: str) -> list[str] | None:
    # Every name ends with a zero byte, or names that are not ASCII come in quotes.
    zero = [] if arguments[0] == "merge-base" else ["-z"]
    try:
        run = subprocess.run(["git", arguments[0], *zero, *arguments[1:]], cwd=root, capture_output=True, check=False)
    except OSError:
        return None
    return [name for name in re.split(r"[\0\n]", run.stdout.decode("utf-8")) if name] if run.returncode == 0 else None


def named(names: Iterable[str], root: Path = book.ROOT) -> list[str]:
    """The files of the pages that somebody names, by the start of their name.

    Raises:
        Unknown: if there is no such page.
    """
    found = []
    for name in names:
        pages = sorted(path for path in (root / "book").glob("*.md") if path.stem.startswith(name))
        if not pages:
            there = ", ".join(sorted(path.stem for path in (root / "book").glob("*.md")))
            raise Unknown(f"No page of the book begins with {name}. There are: {there}.")
        found += [f"book/{path.name}" for path in pages]
    return found
