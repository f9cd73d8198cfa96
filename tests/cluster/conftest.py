"""Fixtures of the tests on a real control plane."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cluster.controlling import define
from tests.cluster.kubelet import Kubelet
from tests.cluster.plane import ControlPlane
from tests.cluster.trial import Trial

MakePlane = Callable[[], ControlPlane]
MakeKubelet = Callable[..., Kubelet]


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """The control plane that tests share; each works in namespaces of its own and leaves the API server running."""
    running = ControlPlane(tmp_path_factory.mktemp("plane")).start()
    yield running
    running.stop()


@pytest.fixture
def make_plane(tmp_path: Path) -> Iterator[MakePlane]:
    """Make control planes of the test's own, to be stopped, paused and killed."""
    made: list[ControlPlane] = []

    def make() -> ControlPlane:
        made.append(ControlPlane(tmp_path / f"plane-{len(made)}").start())
        return made[-1]

    yield make
    for one in made:
        one.stop()


@pytest.fixture
def namespace(plane: ControlPlane) -> Iterator[str]:
    """A namespace of the test's own."""
    name = plane.make_namespace()
    yield name
    plane.api.delete(f"/api/v1/namespaces/{name}")


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    """The installation that tests of faults share, on a control plane of their own."""
    plane = ControlPlane(tmp_path_factory.mktemp("trial")).start()
    made = Trial(plane).start()
    yield made
    made.stop()
    plane.stop()


@pytest.fixture
def trial(installed: Trial) -> Iterator[Trial]:
    """The same, with a controller that leads and no sandbox; faults are lifted when the test ends."""
    installed.leader()
    yield installed
    for ruler in installed.rulers:
        ruler.proxy.lift()
        ruler.proxy.drop()
    installed.clear()


@pytest.fixture
def make_kubelet(plane: ControlPlane) -> Iterator[MakeKubelet]:
    """Make nodes that run routers as processes, for namespaces that the test names (see `ControlPlane.kubelet`)."""
    made: list[Kubelet] = []

    def make(*namespaces: str, **settings: object) -> Kubelet:
        made.append(plane.kubelet(*namespaces, **settings))
        return made[-1]

    yield make
    for one in made:
        plane.retire(one)


@pytest.fixture(scope="session")
def definitions(plane: ControlPlane) -> str:
    """The custom resource definitions, installed by the chart and served; what helm said."""
    return define(plane)


@pytest.fixture(scope="session")
def kars_plane(plane: ControlPlane, definitions: str) -> ControlPlane:
    """The shared control plane, with the definitions."""
    return plane
