"""One process that runs chapters and tests, and what it has found, for all tests of a worker."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.mistakes.planting import Bench, Workshop


@pytest.fixture(scope="session")
def workshop() -> Iterator[Workshop]:
    workshop = Workshop()
    yield workshop
    workshop.close()


@pytest.fixture(scope="session")
def bench(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(workshop, tmp_path_factory.mktemp("planted"))
