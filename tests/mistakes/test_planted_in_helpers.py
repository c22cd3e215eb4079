"""Mistakes planted in the helpers: each is noticed, by what the list says; and without one, nothing is."""

import pytest

from tests.mistakes.planting import Catcher, chapters_that_catch
from tools import affected
from tools import chapters as book

MISTAKES = book.mistakes()
PLANTED = [mistake for mistake in MISTAKES if mistake["plant_file"].startswith("helpers/")]


def named(mistake):
    return ": ".join([*(chapters_that_catch(mistake) or [affected.HELPERS]), mistake["name"]])


@pytest.mark.parametrize("mistake", PLANTED, ids=map(named, PLANTED))
def test_is_caught(mistake, bench, tmp_path):
    bench.assert_caught(mistake, tmp_path)


def test_without_a_mistake_nothing_is_noticed(workshop):
    """The tests that notice a mistake pass without one (what the chapters do without one: see the other file)."""
    tests = {name for mistake in PLANTED for name in mistake["caught_by"] if Catcher(name).is_test}
    workshop.assert_run_and(False, book.ROOT, *sorted(tests))
