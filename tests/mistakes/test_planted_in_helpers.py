"""Mistakes planted in the helpers: each is noticed, by what the list says."""

import pytest

from tools import chapters as book

PLANTED = [mistake for mistake in book.mistakes() if mistake["plant_file"].startswith("helpers/")]


@pytest.mark.parametrize("mistake", PLANTED, ids=[mistake["name"] for mistake in PLANTED])
def test_is_caught(mistake, bench):
    bench.assert_caught(mistake)
