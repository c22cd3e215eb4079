"""What `make check` runs: the table is whole, selects what it should, and no test is out of its reach."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

import conftest as sharing
from tools import affected
from tools import chapters as book

ROOT = book.ROOT
CHAPTERS = [path.stem for path in book.chapters()]
TEST_FILES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "tests").rglob("test_*.py"))
SOURCES = ("book", "helpers", "tests", "tools", "notebooks", "requirements", "benchmarks", ".github", "binder")


def every_file():
    """The files of the project, whether git is here or not."""
    inside = [path for folder in SOURCES for path in (ROOT / folder).rglob("*") if path.is_file()]
    top = [path for path in ROOT.iterdir() if path.is_file()]
    generated = ("__pycache__", ".ipynb_checkpoints")
    return sorted(path.relative_to(ROOT).as_posix() for path in [*inside, *top] if not set(generated) & set(path.parts))


def covers(argument, file):
    return file == argument.partition("::")[0] or file.startswith(f"{argument}/")


def missing(argument):
    """Why pytest would not find this argument; None if it will."""
    file, _, test = argument.partition("::")
    if not (ROOT / file).exists():
        return "no such file"
    if (ROOT / file).is_dir():
        return None if any((ROOT / file).rglob("test_*.py")) else "no tests in it"
    return None if not test or f"def {test}(" in book.read_text(ROOT / file) else "no such test"


def test_no_change_runs_nothing():
    assert [name for name in every_file() if not affected.select([name]).tests] == []


def test_what_is_selected_is_there():
    arguments = {test for name in every_file() for test in affected.select([name]).tests}
    assert {argument: missing(argument) for argument in arguments if missing(argument)} == {}


def test_the_table_names_no_test_that_is_gone():
    named = {test for _, tests in affected.TABLE for test in tests if "{" not in test}
    assert {test: missing(test) for test in named if missing(test)} == {}


def test_a_test_that_is_gone_would_be_noticed():
    assert missing("tests/book/test_prose.py::test_of_old") == "no such test"
    assert missing("tests/gone") == "no such file"


def reached(files, other_than_itself):
    return {
        file
        for name in files
        for argument in affected.select([name]).tests
        for file in TEST_FILES
        if covers(argument, file) and not (other_than_itself and file == name)
    }


def test_every_test_file_is_reached_by_a_change_of_something_else():
    others = [name for name in every_file() if name not in TEST_FILES]
    assert sorted(set(TEST_FILES) - reached(others, other_than_itself=True)) == []


def test_a_test_file_out_of_reach_would_be_noticed():
    assert "tests/pages/test_reading.py" not in reached(["helpers/risk.py"], other_than_itself=True)


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_chapter_breaks_only_what_is_about_it(chapter):
    for name in (f"book/{chapter}.md", f"notebooks/{chapter}.ipynb"):
        chosen = affected.select([name])
        assert chosen.chapters == (chapter,)
        assert chosen.pages == {chapter}
        assert f"notebooks/{chapter}.ipynb" in chosen.tests
        assert [test for test in chosen.tests if test.startswith("notebooks/")] == [f"notebooks/{chapter}.ipynb"]
        assert chosen.looks_at_the_site
        assert not chosen.under_every_chapter


def test_two_chapters_break_what_both_break():
    first, second = CHAPTERS[:2]
    chosen = affected.select([f"book/{first}.md", f"book/{second}.md"])
    assert chosen.pages == {first, second}
    assert {f"notebooks/{first}.ipynb", f"notebooks/{second}.ipynb"} <= set(chosen.tests)


def test_a_helper_stands_under_every_chapter():
    chosen = affected.select(["helpers/risk.py"])
    assert chosen.under_every_chapter
    assert {"tests/helpers", "tests/mistakes/test_planted_in_helpers.py"} <= set(chosen.tests)
    assert not chosen.looks_at_the_site


def test_what_changes_beside_a_chapter_is_tested_whole():
    chosen = affected.select([f"book/{CHAPTERS[0]}.md", "book/_static/book.css", "CHANGELOG.md"])
    assert chosen.pages == {CHAPTERS[0]}
    assert {"tests/pages", "tests/docs"} <= set(chosen.whole)
    assert not [test for test in chosen.whole if test.startswith("tests/mistakes")]
    assert not any(test.startswith(("tests/pages/", "tests/docs/")) for test in chosen.tests)


def test_a_changed_word_runs_no_code_of_the_chapter():
    name = f"book/{CHAPTERS[0]}.md"
    chosen = affected.select([name], same_code=[CHAPTERS[0]])
    assert not [test for test in chosen.tests if test.startswith(("notebooks", "tests/mistakes"))]
    assert set(chosen.tests) < set(affected.select([name]).tests)


def test_a_stored_run_is_the_chapters_that_read_it():
    runs = [path.stem for path in (ROOT / "benchmarks" / "runs").glob("*.json")]
    read = {run: affected.readers(run) for run in runs}
    assert any(read.values())
    for run, readers in read.items():
        assert affected.select([f"benchmarks/runs/{run}.json"]).chapters == tuple(readers)


def test_a_page_that_is_gone_and_a_new_file_still_select_tests():
    assert affected.select(["book/99-gone.md", "something/new.txt"]).tests


@pytest.mark.parametrize(
    ("test", "pages"),
    [
        ("tests/book/test_prose.py::test_no_typed_number_is_a_computed_one[03-argmin]", {"03-argmin"}),
        ("notebooks/03-argmin.ipynb::Cell 3", {"03-argmin"}),
        ("tests/pages/test_every_page.py::test_page[chromium-book/ledger]", {"ledger"}),
        ("tests/mistakes/test_planted_in_helpers.py::test_is_caught[03-argmin: ledger: x]", {"03-argmin", "ledger"}),
        ("tests/mistakes/test_planted_in_helpers.py::test_is_caught[helpers: x]", {"helpers"}),
        ("tests/helpers/test_risk.py::test_x[cpu]", set()),
        ("tests/book/test_prose.py::test_what_the_cells_printed_is_read", set()),
    ],
)  # fmt: skip
def test_what_a_test_is_about(test, pages):
    assert affected.about(test) == pages


def test_pages_are_named_by_their_beginning():
    assert affected.named(["03", "ledger"]) == ["book/03-argmin.md", "book/ledger.md"]
    with pytest.raises(affected.Unknown, match="begins with 77"):
        affected.named(["77"])


@pytest.fixture
def repository(tmp_path):
    def git(*arguments):
        identity = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True)

    git("init", "-b", "main")
    for name in ("kept.md", "edited.md", "gone.md"):
        (tmp_path / name).write_text("1\n", encoding="utf-8")
    git("add", ".")
    git("commit", "-m", "1")
    return tmp_path, git


def test_what_changed_is_told_by_git(repository):
    folder, git = repository
    assert affected.changed(folder) == []
    (folder / "edited.md").write_text("2\n", encoding="utf-8")
    (folder / "gone.md").unlink()
    (folder / "neu ü.md").write_text("1\n", encoding="utf-8")
    expected = ["edited.md", "gone.md", "neu ü.md"]
    assert affected.changed(folder) == expected
    # The same on a branch, after a commit: it still differs from main.
    git("checkout", "-b", "topic")
    git("add", ".")
    git("commit", "-m", "2")
    assert affected.changed(folder) == expected


def test_whether_only_text_changed_is_told_by_git(repository):
    folder, git = repository
    (folder / "book").mkdir()
    page = folder / "book" / "a.md"
    cell = "```{code-cell} ipython3\n:tags: [x]\nprint(1)\n```\n"
    page.write_text(f"Words.\n\n{cell}", encoding="utf-8")
    git("add", ".")
    git("commit", "-m", "2")
    for text, same in (
        (f"Other words.\n\n{cell}", ["a"]),
        (f"Words.\n\n{cell}".replace("print(1)", "print(2)"), []),
        (f"Words.\n\n{cell}".replace("[x]", "[y]"), []),
        (f"Words.\n\n{cell}\n{cell}", []),
    ):
        page.write_text(text, encoding="utf-8")
        assert affected.only_text(["book/a.md", "edited.md"], folder) == same
    assert affected.only_text(["book/new.md"], folder) == []


def test_without_git_it_says_what_to_do(tmp_path):
    with pytest.raises(affected.Unknown, match="ONLY="):
        affected.changed(tmp_path)


# --- How tests are shared out between workers ------------------------------------------------------------------------


def test_what_shares_something_stays_together():
    chapter, planted = "notebooks/03-argmin.ipynb", "tests/mistakes/test_planted_in_chapters.py"
    assert sharing.group(f"{chapter}::Cell 0") == sharing.group(f"{chapter}::Cell 9")
    assert sharing.group(f"{planted}::test_is_caught[21-real-data: a]") == sharing.group(
        f"{planted}::test_x[21-real-data]"
    )
    assert sharing.group(f"{planted}::test_is_caught[21-real-data: a]") != sharing.group(
        f"{planted}::test_x[12-how-local]"
    )
    pages = "tests/pages/test_every_page.py::test_page"
    assert sharing.group(f"{pages}[a]") != sharing.group(f"{pages}[b]")


def test_the_longest_comes_first_as_far_as_it_is_known():
    assert sharing.expected("a", {"a": 7.5}) == 7.5
    unknown = ["tests/helpers/test_risk.py", "notebooks/21-real-data.ipynb", "notebooks/03-argmin.ipynb"]
    unknown.append("tests/pages/test_every_page.py::test_page[chromium-book/21-real-data]")
    assert sorted(unknown, key=lambda name: -sharing.expected(name, {})) == unknown


@pytest.mark.parametrize(("failures", "starts"), [(0, 1), (2, 3), (3, 3)])
def test_a_kernel_that_does_not_start_has_three_tries(failures, starts):
    tried = []

    def start(name, **options):
        tried.append((name, options))
        if len(tried) <= failures:
            raise RuntimeError("Kernel died before replying to kernel_info")
        return "a kernel"

    if failures < starts:
        assert sharing.again(start)("python", cwd=".") == "a kernel"
    else:
        with pytest.raises(RuntimeError):
            sharing.again(start)("python", cwd=".")
    assert tried == [("python", {"cwd": "."})] * starts


def test_nbval_starts_its_kernels_so():
    assert sharing.kernel.start_new_kernel.__name__ == "patiently"


@pytest.mark.parametrize("name", ["Untitled.ipynb", "01-upweighting-Copy1.ipynb"])
def test_a_readers_own_notebook_is_no_test(name):
    assert sharing.pytest_ignore_collect(Path(book.NOTEBOOKS / name))
    assert not sharing.pytest_ignore_collect(book.notebook_of(book.chapters()[0]))
