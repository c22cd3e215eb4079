"""A mistake is planted again as soon as anything that decides on it is another."""

import os

import pytest

from tests.mistakes import seen
from tools import chapters as book
from tools import execute

IN_A_CHAPTER = next(one for one in book.mistakes() if one["plant_file"] == "book/02-chain-rule.md")
FOR_A_TEST = next(one for one in book.mistakes() if one["caught_by"][0].startswith("tests/helpers/"))
SLIP = book.slips()[0]
GIVEN = {"chapter": {"mistake": IN_A_CHAPTER}, "test": {"mistake": FOR_A_TEST}, "slip": {"slip": SLIP}, "none": {}}


@pytest.fixture(autouse=True)
def afresh(monkeypatch, tmp_path):
    for cached in (seen._content, seen._chapter):
        cached.cache_clear()
    monkeypatch.setattr(seen, "FILE", tmp_path / "seen.json")
    yield
    for cached in (seen._content, seen._chapter):
        cached.cache_clear()


@pytest.mark.parametrize("kind", GIVEN)
def test_rests_on_the_mistake_and_on_what_plants_it(kind, monkeypatch):
    given = GIVEN[kind]
    first = seen.rests_on(given)
    assert seen.rests_on(given) == first
    if given:
        (name,) = given
        assert seen.rests_on({name: given[name] | {"new": "another"}}) != first
    monkeypatch.setattr(seen, "MACHINERY", seen.MACHINERY[1:])
    assert seen.rests_on(given) != first


@pytest.mark.parametrize("kind", ["chapter", "slip"])
def test_rests_on_the_recipe_of_its_chapter(kind, monkeypatch):
    first = seen.rests_on(GIVEN[kind])
    seen._chapter.cache_clear()
    monkeypatch.setattr(execute, "recipe", lambda chapter: "another")
    assert seen.rests_on(GIVEN[kind]) != first


@pytest.mark.parametrize("kind", ["test", "none"])
def test_rests_on_the_helpers_their_tests_and_the_libraries(kind, monkeypatch):
    first = seen.rests_on(GIVEN[kind])
    for number in range(len(seen.OF_THE_TESTS)):
        fewer = (*seen.OF_THE_TESTS[:number], *seen.OF_THE_TESTS[number + 1 :])
        with monkeypatch.context() as patch:
            patch.setattr(seen, "OF_THE_TESTS", fewer)
            assert seen.rests_on(GIVEN[kind]) != first
    monkeypatch.setattr(execute, "digits_pins", lambda root: ["another"])
    seen._chapter.cache_clear()
    assert seen.rests_on(GIVEN[kind]) != first


def test_what_passed_is_written_beside_what_had():
    one, two = sorted(seen.known())[:2]
    later = max(path.stat().st_mtime for path in book.ROOT.glob("book/*.md")) + 1e6
    seen.record({one: "a"}, later)
    seen.record({two: "b"}, later)
    assert seen.before() == {one: "a", two: "b"}
    seen.FILE.write_text('{"mistake that-is-gone": "c"}', encoding="utf-8")
    seen.record({one: "a"}, later)
    assert seen.before() == {one: "a"}


def test_nothing_is_written_of_a_run_during_which_a_file_was_edited(capsys):
    edited = book.BOOK / "02-chain-rule.md"
    seen.record({sorted(seen.known())[0]: "a"}, os.stat(edited).st_mtime - 1)
    assert seen.before() == {}
    assert "Not written to seen.json" in capsys.readouterr().out


@pytest.mark.parametrize("content", ["", "{", "[1, 2]", "\udcff"])
def test_a_file_that_cannot_be_read_is_no_evidence(content):
    seen.FILE.write_bytes(content.encode("utf-8", "surrogateescape"))
    assert seen.before() == {}
