"""How the tests are shared out between workers, and in what order they come."""

from __future__ import annotations

import time
from contextlib import suppress
from functools import cache
from pathlib import Path

from nbval import kernel
from nbval.plugin import IPyNbCell
from xdist.scheduler import LoadScopeScheduling

from tools import affected
from tools import chapters as book

SECONDS = "book/seconds-by-group"  # in pytest's cache: what each group took last time
FAILED = "cache/lastfailed"  # pytest's own: what failed last time
ALONE = (
    "tests/mistakes/test_planted_in_helpers.py",
    "tests/pages/test_every_page.py::test_page",
    "tests/pipeline/test_faults.py",
)
ONE_CHAPTER = "tests/mistakes/test_planted_in_chapters.py"
_seconds: dict[str, float] = {}
_planted: dict[str, str] = {}  # what passed in tests/mistakes, and what that rests on
_start = time.time()


def group(test: str) -> str:
    """The tests that one worker runs, one after the other: what they share is made once.

    These are the tests of a file; but the mistakes planted in one chapter; and one test where nothing is shared.
    """
    file = test.partition("::")[0]
    if file == ONE_CHAPTER:
        return f"{file}::{min(affected.about(test))}"
    return test if test.startswith(ALONE) else file


def expected(name: str, before: dict[str, float]) -> float:
    """How long a group takes, in seconds: as long as last time. Else only the order counts: single tests come last."""
    if name in before:
        return before[name]
    if name.startswith(ALONE):
        return 1.0
    chapter = min(affected.about(name), default="")[:2]
    return 100.0 + int(chapter) if chapter.isdigit() else 200.0  # later chapters compute more


@cache
def of_chapters() -> dict[Path, Path]:
    """The notebooks that chapters stand behind, each with its chapter."""
    return {book.notebook_of(chapter): chapter for chapter in book.chapters()}


class Shared(LoadScopeScheduling):
    """xdist's scheduler by scope; a scope is a group, in the order of the tests."""

    def __init__(self, config, log=None):
        config.option.loadscopereorder = False
        super().__init__(config, log)

    def _split_scope(self, nodeid):
        return group(nodeid)


def again(start):
    """``start``, tried three times: another program may take a kernel's port after it was chosen."""

    def patiently(*arguments, **options):
        for _ in range(2):
            with suppress(RuntimeError):
                return start(*arguments, **options)
        return start(*arguments, **options)

    return patiently


def pytest_configure():
    kernel.start_new_kernel = again(kernel.start_new_kernel)


def pytest_xdist_make_scheduler(config, log):
    return Shared(config, log)


def pytest_addoption(parser):
    parser.addoption("--about", action="append", default=[], help="no test that is about other pages than these")
    parser.addoption("--whole", action="append", default=[], help="but all tests that begin with this")
    parser.addoption("--first", action="append", default=[], help="tests about these pages come first")
    parser.addoption("--all-mistakes", action="store_true", help="plant again what was seen with the very same code")


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """A notebook without a chapter is a reader's own, and no test."""
    return True if collection_path.suffix == ".ipynb" and collection_path not in of_chapters() else None


def pytest_itemcollected(item):
    """A cell of a notebook has to print again what readers see."""
    if isinstance(item, IPyNbCell):
        chapter, compare = of_chapters()[item.path], item.compare_outputs
        item.compare_outputs = lambda new, old, *skipped: compare(
            book.as_shown(new, chapter), book.as_shown(old, chapter), *skipped
        )


def pytest_collection_modifyitems(config, items):
    """What failed or changed comes first, then what takes longest: so no worker begins a long group when the others are
    done. Within a group all stays in order (as it would not with --ff): a notebook's cells need those before them."""
    asked, first, whole = (set(config.getoption(name)) for name in ("about", "first", "whole"))
    if asked:
        some = [item for item in items if not item.nodeid.startswith(tuple(whole))]
        others = [item for item in some if (pages := affected.about(item.nodeid)) and not pages & asked]
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if item not in others]
    before, failed = (config.cache.get(key, {}) if hasattr(config, "cache") else {} for key in (SECONDS, FAILED))
    groups: dict[str, list] = {}
    for item in items:
        groups.setdefault(group(item.nodeid), []).append(item)
    urgent = {name for name, those in groups.items() if any(affected.about(one.nodeid) & first for one in those)}
    urgent |= set(map(group, failed))
    order = sorted(groups, key=lambda name: (name not in urgent, -expected(name, before)))
    items[:] = [item for name in order for item in groups[name]]


def pytest_runtest_logreport(report):
    name = group(report.nodeid)
    _seconds[name] = _seconds.get(name, 0) + report.duration
    if report.when == "call" and report.passed:
        _planted.update(value for key, value in report.user_properties if key == "rests on")


def pytest_sessionfinish(session):
    if hasattr(session.config, "workerinput"):
        return  # a worker knows of its own tests only
    if _planted:
        from tests.mistakes import seen  # which reads all chapters: nothing for every start of pytest

        seen.record(_planted, _start)
    # A run of some tests knows nothing of the others.
    if hasattr(session.config, "cache"):
        before = session.config.cache.get(SECONDS, {})
        session.config.cache.set(SECONDS, before | {name: round(took, 2) for name, took in _seconds.items()})
