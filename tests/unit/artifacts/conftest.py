"""The registry and the Sigstore that the tests of artifacts share."""

import pytest

from kars.artifacts.certificates import Roots
from tests.unit.artifacts.depot import Depot
from tests.unit.artifacts.world import World


@pytest.fixture(scope="session")
def depot(tmp_path_factory):
    made = Depot(tmp_path_factory.mktemp("registry"))
    yield made
    made.stop()


@pytest.fixture(scope="session")
def world():
    return World()


@pytest.fixture(scope="session")
def roots(world):
    return Roots(world.trusted_root())
