"""The list of mistakes is in order; and the control: where none is planted, nothing is noticed."""

import pytest

from tools import chapters as book

ALL = book.mistakes()


def test_without_a_mistake_nothing_is_noticed(bench, catcher):
    """Every chapter that is run against a mistake passes without one, up to the last check that is needed."""
    catchers = [catcher(name) for name in sorted({name for mistake in ALL for name in mistake["caught_by"]})]
    assert all(bench.test_passes(each.name) for each in catchers if each.is_test)
    last = {}
    for each in catchers:
        if not each.is_test:
            chapter = each.chapter(bench.root)
            cells = bench.cells(chapter)
            needed = [number for number, source in enumerate(cells) if each.refusal or each.is_checked_by(source)]
            last[chapter] = max(last.get(chapter, 0), *needed)
    for chapter, number in last.items():
        assert bench.run(chapter, number) == {"error": None}, chapter.name


def test_every_entry_is_complete():
    for mistake in ALL:
        assert {"name", "what", "plant_file", "old", "new", "caught_by"} <= mistake.keys(), mistake
        assert mistake["caught_by"], f"{mistake['name']} is caught by nothing"
        assert mistake["what"].endswith("."), mistake["name"]
    names = [mistake["name"] for mistake in ALL]
    assert len(set(names)) == len(names)


def test_a_change_that_is_no_mistake_is_not_caught(bench):
    harmless = {
        "name": "a comment",
        "plant_file": "helpers/influence.py",
        "old": "return -solve(H, G_test.T).T @ G.T",
        "new": "return -solve(H, G_test.T).T @ G.T  # harmless",
        "caught_by": ["eq-chain-rule"],
    }
    with pytest.raises(AssertionError, match="'error': None"):
        bench.assert_caught(harmless)
