"""How nbval compares a number that a cell glued: by the six digits that are stored, not by a machine's last ones."""

from __future__ import annotations

import pytest
from nbval.plugin import IPyNbCell

from tools.chapters import rounded


@pytest.fixture(scope="session", autouse=True)
def _compare_glued_numbers_as_stored():
    exactly = IPyNbCell.compare_outputs

    def compare_outputs(cell, fresh, stored, skip_compare=None):
        return exactly(cell, [rounded(output) for output in fresh], stored, skip_compare)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(IPyNbCell, "compare_outputs", compare_outputs)
        yield
