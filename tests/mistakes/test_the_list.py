"""The list of mistakes is in order, and what plants them takes no harmless change for a mistake."""

import pytest

from tools import chapters as book


def test_every_entry_is_complete():
    mistakes = book.mistakes()
    for mistake in mistakes:
        assert {"name", "what", "plant_file", "old", "new", "caught_by"} <= mistake.keys(), mistake
        assert mistake["caught_by"], f"{mistake['name']} is caught by nothing"
        assert mistake["what"].endswith("."), mistake["name"]
    names = [mistake["name"] for mistake in mistakes]
    assert len(set(names)) == len(names)


def test_every_slip_is_in_a_display_that_is_evaluated():
    evaluated = {label for chapter in book.chapters() for _, label, _ in book.typeset(chapter)}
    slips = book.slips()
    assert {slip["label"] for slip in slips} <= evaluated
    for slip in slips:
        assert {"label", "what", "old", "new"} == slip.keys() and slip["old"] != slip["new"], slip
    assert len(slips) >= 40
    labels = {label for chapter in book.chapters() for label in book.labels(chapter)}
    assert book.beyond().keys() <= labels - evaluated


def test_a_change_that_is_no_slip_is_not_noticed(bench, monkeypatch):
    harmless = {"label": "eq-balance", "what": "A space.", "old": r"H\,", "new": r"H\;"}
    chapter = book.BOOK / "03-argmin.md"
    monkeypatch.setattr(bench, "mistakes", [])
    monkeypatch.setattr(bench, "slips", [harmless])
    monkeypatch.setattr(bench, "_chapters", {})
    with pytest.raises(AssertionError, match="'error': None"):
        bench.assert_slip_is_noticed(harmless, chapter)


def test_a_change_that_is_no_mistake_is_not_caught(bench, tmp_path):
    harmless = {
        "name": "a comment",
        "plant_file": "helpers/influences.py",
        "old": "return -risk.slopes(theta, X.T.contiguous())",
        "new": "return -risk.slopes(theta, X.T.contiguous())  # harmless",
        "caught_by": ["eq-chain-rule"],
    }
    with pytest.raises(AssertionError, match="'error': None"):
        bench.assert_caught(harmless, tmp_path)


def test_a_change_in_a_chapter_that_is_no_mistake_is_not_caught(bench, monkeypatch):
    harmless = {
        "name": "a comment",
        "plant_file": "book/02-chain-rule.md",
        "old": "g_test = risk.gradients(theta_hat, test)[t]",
        "new": "g_test = risk.gradients(theta_hat, test)[t]  # harmless",
        "caught_by": ["eq-chain-rule"],
    }
    monkeypatch.setattr(bench, "mistakes", [harmless])
    monkeypatch.setattr(bench, "_chapters", {})
    with pytest.raises(AssertionError, match="'error': None"):
        bench.assert_caught_in_chapter(harmless)
