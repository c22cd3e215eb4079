"""The examples in the docstrings give what they say, and every module of the mathematics begins with one."""

import doctest
import importlib
import pkgutil

import pytest

import helpers

MODULES = [each.name for each in pkgutil.walk_packages(helpers.__path__, "helpers.") if not each.ispkg]
WITHOUT = {"helpers.cluster", "helpers.files"}  # they need a cluster, or a disk


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_hold(name):
    module = importlib.import_module(name)
    found = doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert found.failed == 0
    if not name.startswith(("helpers.page.", "helpers.runs")) and name not in WITHOUT:
        assert ">>>" in module.__doc__ and found.attempted > 0
