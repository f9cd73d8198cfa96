"""Tests of this folder may be coroutines; each runs in a loop of its own."""

import pytest

from tests.cluster.signing import Press
from tests.unit.controller_policies.conftest import pytest_pyfunc_call

__all__ = ["pytest_pyfunc_call"]


@pytest.fixture(scope="session")
def press(tmp_path_factory):
    """A registry, and who signs."""
    made = Press(tmp_path_factory.mktemp("press"))
    yield made
    made.stop()
