"""Fixtures of tests that count requests: nobody else may leave anything to do on their control planes."""

from collections.abc import Iterator

import pytest

from tests.cluster.controlling import define
from tests.cluster.plane import ControlPlane


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane of the module's own, with the definitions."""
    running = ControlPlane(tmp_path_factory.mktemp("engine")).start()
    define(running)
    yield running
    running.stop()


@pytest.fixture(scope="module")
def kars_plane(plane: ControlPlane) -> ControlPlane:
    """The same, by its name in the tests beside."""
    return plane
