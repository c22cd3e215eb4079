"""Mistakes planted in the chapters' own code, and slips in their displays: each is noticed, by what the list says; and
without one, nothing is.

The chapter stands in the name of each test: a chapter runs once for all of its tests, so they belong to one worker.
"""

from pathlib import PurePath

import pytest

from tests.mistakes.planting import EVALUATED, chapters_that_catch, named
from tools import chapters as book

MISTAKES = book.mistakes()
PLANTED = [mistake for mistake in MISTAKES if mistake["plant_file"].endswith(".md")]
SLIPS = [slip for slip in book.slips() if slip["label"] in EVALUATED]  # the list's own test names the others
CATCHING = {chapter for mistake in MISTAKES for chapter in chapters_that_catch(mistake)}


@pytest.mark.parametrize(
    "mistake", PLANTED, ids=[f"{PurePath(mistake['plant_file']).stem}: {mistake['name']}" for mistake in PLANTED]
)
def test_is_caught(mistake, bench):
    bench.assert_caught_in_chapter(mistake)


@pytest.mark.parametrize("name", sorted(CATCHING))
def test_without_a_mistake_nothing_is_noticed(name, bench):
    """Every chapter that is run against a mistake passes without one, up to the last cell that is needed."""
    assert bench.in_chapter(book.BOOK / f"{name}.md")[""] == {"error": None}


@pytest.mark.parametrize("slip", SLIPS, ids=[f"{EVALUATED[slip['label']].stem}: {named(slip)}" for slip in SLIPS])
def test_a_slip_in_a_display_is_noticed(slip, bench):
    bench.assert_slip_is_noticed(slip, EVALUATED[slip["label"]])
