"""The bibliography: every entry is cited, every citation has an entry, every entry says who, what and when."""

import re
from pathlib import Path

import pytest
from pybtex.database import BibliographyData, parse_file

BOOK = Path(__file__).parents[2] / "book"
CITATION = re.compile(r"\{cite(?::[a-z]+)?\}`([^`]+)`")


def cited() -> dict[str, set[str]]:
    """Every cited key, and the pages that cite it."""
    pages: dict[str, set[str]] = {}
    for page in sorted(BOOK.glob("*.md")):
        for group in CITATION.findall(page.read_text(encoding="utf-8")):
            for key in group.split(","):
                pages.setdefault(key.strip(), set()).add(page.name)
    return pages


@pytest.fixture(scope="module")
def bibliography() -> BibliographyData:
    return parse_file(str(BOOK / "references.bib"))


def test_every_citation_has_an_entry(bibliography: BibliographyData) -> None:
    assert {key: pages for key, pages in cited().items() if key not in bibliography.entries} == {}


def test_every_entry_is_cited(bibliography: BibliographyData) -> None:
    assert sorted(set(bibliography.entries) - set(cited())) == []


def test_no_key_twice() -> None:
    keys = re.findall(r"^@\w+\{([^,\s]+),", (BOOK / "references.bib").read_text(encoding="utf-8"), re.MULTILINE)
    assert keys == sorted(set(keys))


def test_no_work_twice(bibliography: BibliographyData) -> None:
    titles = [re.sub(r"\W", "", entry.fields["title"]).lower() for entry in bibliography.entries.values()]
    assert len(titles) == len(set(titles))


def test_every_entry_has_author_title_and_year(bibliography: BibliographyData) -> None:
    for key, entry in bibliography.entries.items():
        assert entry.persons.get("author"), key
        assert entry.fields.get("title"), key
        assert re.fullmatch(r"\d{4}", entry.fields.get("year", "")), key


def test_dois_are_bare(bibliography: BibliographyData) -> None:
    for key, entry in bibliography.entries.items():
        assert re.match(r"10\.\d{4,}/", entry.fields.get("doi", "10.0000/")), key
