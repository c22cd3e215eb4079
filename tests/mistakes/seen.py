"""What has been planted with the very same code is not planted again.

A chapter, the helpers, the libraries and a mistake together decide whether the mistake is noticed, so the answer for
the same ones stays. `seen.json` has a hash of all that each test of this folder rests on, as it was when the test
passed; the test is skipped as long as the hash is the same. `make test ALL=--all` plants everything.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from helpers.files import write_whole
from tests.mistakes.planting import EVALUATED, Catcher, chapters_that_catch, named
from tools import chapters as book
from tools import execute

FILE = Path(__file__).with_name("seen.json")
WHY = "seen with the very same code (make test ALL=--all plants everything)"
#: What plants and looks; not what keeps the list, or this file, which decide on no mistake.
MACHINERY = (
    "tests/mistakes/conftest.py",
    "tests/mistakes/planting.py",
    "tests/mistakes/test_planted_*.py",
    "tests/mistakes/workshop.py",
    "tools/chapters.py",
)
OF_THE_TESTS = ("helpers/**/*.py", "tests/helpers/*.py", "benchmarks/runs/*.json")


def before() -> dict[str, str]:
    """The hash of each test that has passed. Nothing where the file cannot be read: then everything is planted."""
    try:
        return dict(json.loads(book.read_text(FILE)))
    except (OSError, ValueError, TypeError):
        return {}


def _files(patterns: Iterable[str]) -> list[Path]:
    return sorted(path for pattern in patterns for path in book.ROOT.glob(pattern))


@cache
def _content(*patterns: str) -> str:
    digest = hashlib.sha256()
    for path in _files(patterns):
        digest.update(f"{path.relative_to(book.ROOT).as_posix()}\n{book.read_text(path)}\n".encode())
    return digest.hexdigest()


@cache
def _chapter(name: str) -> str:
    return execute.recipe(book.BOOK / f"{name}.md")


def what(given: dict[str, Any]) -> str:
    """What a test with these parameters is about: its name in the file."""
    if "mistake" in given:
        return f"mistake {given['mistake']['name']}"
    if "slip" in given:
        return f"slip {named(given['slip'])}"
    return f"no mistake in {given.get('name', 'the helpers')}"


def known() -> set[str]:
    """All names that the file may have."""
    given: list[dict[str, Any]] = [{}, *({"name": chapter.stem} for chapter in book.chapters())]
    given += [{"mistake": mistake} for mistake in book.mistakes()] + [{"slip": slip} for slip in book.slips()]
    return {what(each) for each in given}


def rests_on(given: dict[str, Any]) -> str:
    """A hash of all that decides whether a test passes.

    Args:
        given: the test's parameters: a ``mistake``, a ``slip`` in a display, or the ``name`` of a chapter.
    """
    chapters, tests = {given["name"]} if "name" in given else set(), not given
    if "mistake" in given:
        chapters |= set(chapters_that_catch(given["mistake"]))
        tests = any(Catcher(name).is_test for name in given["mistake"]["caught_by"])
    if "slip" in given:
        chapters.add(EVALUATED[given["slip"]["label"]].stem)
    parts = [given, [_chapter(name) for name in sorted(chapters)], _content(*MACHINERY)]
    if tests:
        parts += [_content(*OF_THE_TESTS), *execute.digits_pins(book.ROOT)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def record(passed: dict[str, str], since: float) -> None:
    """Write down what passed in a run of the tests that began at this time.

    Nothing is written if a file was edited in the meantime: nobody knows which of its versions was tested.
    """
    stored = before()
    if passed.items() <= stored.items():
        return
    edited = [
        path
        for path in _files((*MACHINERY, *OF_THE_TESTS, "book/*.md", "tests/*.toml"))
        if path.stat().st_mtime > since
    ]
    if edited:
        print(f"\nNot written to {FILE.name}, since {edited[0].name} was edited during the tests.")
        return
    lines = {name: stored.get(name) for name in known()} | passed
    text = json.dumps({name: lines[name] for name in sorted(lines) if lines[name]}, indent=0, ensure_ascii=False)
    write_whole(FILE, f"{text}\n".encode())
