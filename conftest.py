"""How nbval compares a number that a cell glued: by the six digits that are stored, not by a machine's last ones."""

from __future__ import annotations

import pytest
from nbval.plugin import IPyNbCell

from tools.chapters import rounded

_patch = pytest.MonkeyPatch()


# A hook, not a fixture: nbval's cells are items of their own kind and set no fixture up.
def pytest_configure():
    exactly = IPyNbCell.compare_outputs

    def compare_outputs(cell, fresh, stored, skip_compare=None):
        return exactly(cell, [rounded(output) for output in fresh], stored, skip_compare)

    _patch.setattr(IPyNbCell, "compare_outputs", compare_outputs)


def pytest_unconfigure():
    _patch.undo()
