"""One process that runs chapters and tests, and what it has found, for all tests of a worker."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.mistakes import seen
from tests.mistakes.planting import Bench, Workshop

RECORDED = ("test_planted_in_chapters.py", "test_planted_in_helpers.py")


@pytest.fixture(scope="session")
def before() -> dict[str, str]:
    return seen.before()


@pytest.fixture(autouse=True)
def only_what_changed(request: pytest.FixtureRequest, before: dict[str, str]) -> None:
    """Skip what has passed with the same code; of what runs, say what it rests on, to be written down if it passes."""
    if request.path.name not in RECORDED:
        return
    given = request.node.callspec.params if hasattr(request.node, "callspec") else {}
    name, rests_on = seen.what(given), seen.rests_on(given)
    if before.get(name) == rests_on and not request.config.getoption("all_mistakes"):
        pytest.skip(seen.WHY)
    request.node.user_properties.append(("rests on", (name, rests_on)))


@pytest.fixture(scope="session")
def workshop() -> Iterator[Workshop]:
    workshop = Workshop()
    yield workshop
    workshop.close()


@pytest.fixture(scope="session")
def bench(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(workshop, tmp_path_factory.mktemp("planted"))
