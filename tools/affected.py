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
    ("book/<chapter>.md",     ("tests/book/test_notebooks.py::test_is_its_chapters",
                               "tests/book/test_equations.py", "tests/book/test_figures.py", "tests/book/test_prose.py",
                               "tests/book/test_site.py", "tests/book/test_shape.py", "tests/docs/test_references.py",
                               "tests/pages/test_every_page.py::test_page")),
    # … and, where not only its text changed:
    ("code of <chapter>",     (NOTEBOOKS, "tests/book/test_layout.py",
                               "tests/book/test_notebooks.py::test_counts_run_from_one",
                               "tests/book/test_notebooks.py::test_prints_no_warning_and_no_error",
                               "tests/book/test_notebooks.py::test_has_nothing_private",
                               "tests/mistakes/test_planted_in_chapters.py",
                               "tests/mistakes/test_planted_in_helpers.py::test_is_caught")),
    ("book/<page>.md",        ("tests/book/test_site.py", "tests/docs", "tests/pages/test_every_page.py::test_page")),
    ("book/_static/lab/*",    ("tests/laboratory", "tests/book/test_site.py")),
    ("book/_static/*.js*",    ("tests/book/test_site.py", "tests/pages", "tests/laboratory/test_scripts.py")),
    ("book/_static/*",        ("tests/book/test_site.py", "tests/pages")),
    ("book/_templates/*",     ("tests/book/test_site.py", "tests/pages")),
    ("book/references.bib",   ("tests/docs/test_references.py", "tests/book/test_site.py")),
    ("book/*",                ("tests/book", "tests/pages")),
    ("_config.yml",           ("tests/book/test_site.py", "tests/pages")),
    ("_toc.yml",              ("tests/book", "tests/pages")),
    ("helpers/*",             ("tests/helpers", "tests/laboratory/test_mathematics.py", "tests/docs",
                               "tests/mistakes/test_the_list.py", "tests/mistakes/test_planted_in_helpers.py")),
    ("notebooks/*",           ("tests/book/test_notebooks.py",)),
    ("benchmarks/*",          ("tests/book/test_notebooks.py", "tests/book/test_project.py")),
    ("tests/typeset.toml",    ("tests/mistakes", "tests/book/test_equations.py", "tests/book/test_site.py")),
    ("tests/mistakes.toml",   ("tests/mistakes", "tests/laboratory/test_planted.py", "tests/book/test_site.py")),
    ("tests/*/test_*.py",     (ITSELF,)),
    ("tests/mistakes/seen.json", ("tests/mistakes/test_the_list.py",)),
    ("tests/mistakes/*",      ("tests/mistakes",)),
    ("tests/laboratory/*",    ("tests/laboratory",)),
    ("tests/pages/*",         ("tests/pages",)),
    ("tests/helpers/*",       ("tests/helpers",)),
    ("tests/*",               ("tests/book", "tests/pipeline")),
    ("tools/laboratory.py",   ("tests/laboratory", "tests/book/test_site.py")),
    ("tools/jupyter_*",       ("tests/pipeline", "tests/book", "tests/pages/test_lab.py")),
    ("tools/*",               ("tests/pipeline", "tests/book")),
    ("requirements/*",        ("tests/book/test_project.py", "tests/book/test_env.py", "tests/pipeline/test_execute.py",
                               "tests/docs")),
    ("conftest.py",           ("tests/pipeline", "tests/book/test_notebooks.py")),
    # The project's own files, and whatever is new: the tests of the project as a whole.
    ("*",                     ("tests/book/test_project.py", "tests/docs")),
)  # fmt: skip
OF_THE_SITE = ("tests/pages", "tests/book/test_site.py")
# Every chapter is executed again when one of these changes: too much for `make check`.
UNDER_EVERY_CHAPTER = ("helpers/*.py", "requirements/book.*")


class Unknown(Exception):
    """What changed cannot be told; the message says why and what to do."""


@dataclass(frozen=True)
class Selection:
    """What a change can have broken."""

    files: tuple[str, ...]  # what changed
    tests: tuple[str, ...]  # arguments of pytest
    pages: frozenset[str]  # the pages that they may be about,
    whole: tuple[str, ...]  # except for these, of which none is left out
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
    stem = Path(name.removeprefix("code of ")).stem
    for pattern, tests in TABLE:
        fits = fnmatch(name, pattern.replace("<chapter>", "*").replace("<page>", "*"))
        if fits and ("<chapter>" not in pattern or stem in _chapters(root)):
            return tuple(test.format(page=stem, itself=name) for test in tests)
    raise AssertionError("the last row takes everything")


def readers(run: str, root: Path = book.ROOT) -> list[str]:
    """The chapters that read a stored run."""
    named = re.compile(rf"""stored_run\(\s*["']{re.escape(run)}["']|runs/{re.escape(run)}\.json""")
    return [path.stem for path in book.chapters(root) if named.search(book.read_text(path))]


def select(files: Iterable[str], same_code: Iterable[str] = (), root: Path = book.ROOT) -> Selection:
    """What a change of these files can have broken. What is not there (any more) is no argument of pytest.

    Args:
        same_code: the chapters among them, by name, of which only the text changed.
    """
    files, sources = sorted(set(files)), set()
    for name in files:
        # A notebook and a stored run are a chapter's: what they break is what the chapter breaks.
        stem = Path(name).stem
        if fnmatch(name, "notebooks/*.ipynb") and stem in _chapters(root):
            sources.add(f"book/{stem}.md")
        elif fnmatch(name, "benchmarks/runs/*.json"):
            sources |= {f"book/{reader}.md" for reader in readers(stem, root)} or {name}
        else:
            sources.add(name)
    pages = {Path(source).stem for source in sources if fnmatch(source, "book/*.md")}
    chapters = pages & _chapters(root)
    code = [f"code of {stem}" for stem in chapters - set(same_code)]

    def there(names: Iterable[str]) -> set[str]:
        tests = {test for name in names for test in row(name, root)}
        return {test for test in tests if (root / test.partition("::")[0]).exists()}

    whole = there(source for source in sources if not fnmatch(source, "book/*.md"))
    tests = whole | there([*sources, *code])
    return Selection(
        files=tuple(files),
        # What a whole folder or file takes in need not be named again.
        tests=tuple(sorted(t for t in tests if not any(t.startswith((f"{other}/", f"{other}::")) for other in tests))),
        pages=frozenset(pages),
        whole=tuple(sorted(whole)),
        chapters=tuple(sorted(chapters)),
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
    differing = _git(root, "diff", "-z", "--name-only", "--no-renames", _base(root))
    if differing is None:
        raise Unknown("git cannot say what changed here. Name it: `make check ONLY=03`, or run `make test`.")
    new = _git(root, "ls-files", "-z", "--others", "--exclude-standard") or ""
    return sorted(name for name in set(f"{differing}\0{new}".split("\0")) if name)


def only_text(files: Iterable[str], root: Path = book.ROOT) -> list[str]:
    """The chapters among changed files, by name, whose code is still what it was."""
    found = []
    for name in files:
        before = _git(root, "show", f"{_base(root)}:{name}") if fnmatch(name, "book/*.md") else None
        path = root / name
        if before and path.exists() and _code(before) == _code(book.read_text(path)):
            found.append(path.stem)
    return found


def _code(text: str) -> list[str]:
    # With the options: a tag can keep a cell from being run.
    return re.findall(r"^```\{code-cell\}.*?\n(.*?)^```\s*$", text.replace("\r\n", "\n"), re.MULTILINE | re.DOTALL)


def _base(root: Path) -> str:
    bases = [_git(root, "merge-base", "HEAD", name) for name in ("origin/main", "main")]
    return next((found.strip() for found in bases if found), "HEAD")


def _git(root: Path, *arguments: str) -> str | None:
    try:
        run = subprocess.run(["git", *arguments], cwd=root, capture_output=True, check=False)
    except OSError:
        return None
    return run.stdout.decode("utf-8") if run.returncode == 0 else None


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
