"""What the tests of the helpers share: the devices, the ring problem with its minimum."""

import pytest
import torch
from hypothesis import settings

from helpers import LOGISTIC, Risk, leave_one_out, minimise, mlp, ring
from tests.helpers.closed_forms import Ridge

# Every run tries the same inputs, however slow the machine, so that a red test is red again.
settings.register_profile("book", max_examples=10, deadline=None, derandomize=True)
settings.load_profile("book")

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    """Matrices this small are faster on one thread."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", params=DEVICES)
def device(request):
    return request.param


class Ring:
    """The ring problem, trained: what the chapters compute on, found once for all tests of a device."""

    def __init__(self, device):
        self.train, self.test = (data.to(device) for data in ring())
        self.model, start = mlp()
        self.start = start.to(device)
        self.risk = Risk(self.model, self.train, LOGISTIC, 0.02)
        self.certificate = minimise(self.risk, self.start)
        self.theta = self.certificate.theta
        self._retrained = {}

    def leave_one_out(self, convention):
        if convention not in self._retrained:
            self._retrained[convention] = leave_one_out(self.risk, self.theta, convention=convention)
        return self._retrained[convention]


@pytest.fixture(scope="session")
def trained(device):
    return Ring(device)


@pytest.fixture(scope="session")
def ridge(device):
    return Ridge(device=device)


@pytest.fixture
def close():
    """Equal to rounding, with a floor for the numbers near zero."""

    def assert_close(actual, expected, rtol=1e-10, atol=1e-12):
        torch.testing.assert_close(actual, expected, rtol=rtol, atol=atol)

    return assert_close
