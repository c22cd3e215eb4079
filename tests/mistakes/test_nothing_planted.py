"""The list of mistakes is in order; and the control: where none is planted, nothing is noticed."""

from pathlib import Path

import pytest

from tools import chapters as book

ALL = book.mistakes()


def test_without_a_mistake_nothing_is_noticed(bench, catcher):
    """Every chapter that is run against a mistake passes without one, up to the last cell that is needed."""
    last: dict[Path, int] = {}
    tests = set()
    for mistake in ALL:
        for each in map(catcher, mistake["caught_by"]):
            if each.is_test:
                tests.add(each.name)
                continue
            chapter = each.chapter(bench.root)
            cells = bench.cells(chapter)
            says = mistake.get("says") if each.refusal else None
            needed = [k for k, cell in enumerate(cells) if each.is_checked_by(cell) or (says and says in cell)]
            # An error that is raised inside the helpers may come from any cell.
            last[chapter] = max(last.get(chapter, 0), *(needed or [len(cells) - 1]))
    assert all(bench.test_passes(test) for test in tests)
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
        "old": "return -risk.slopes(theta, X.T)",
        "new": "return -risk.slopes(theta, X.T)  # harmless",
        "caught_by": ["eq-chain-rule"],
    }
    with pytest.raises(AssertionError, match="'error': None"):
        bench.assert_caught(harmless)
