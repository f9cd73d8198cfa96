"""Fixtures of the system tests: an upstream under control and routers in front of it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.system import behaviours
from tests.system.router import Mount, Router
from tests.system.upstream import Upstream

ROUTER_KEY = "sk-router-secret-0123456789abcdef"


def upstream_environment(url: str) -> dict[str, str]:
    """The variables that point a router's three providers at one upstream."""
    return {
        "OPENAI_BASE_URL": f"{url}/v1",
        "OPENAI_API_KEY": ROUTER_KEY,
        "ANTHROPIC_BASE_URL": url,
        "ANTHROPIC_API_KEY": ROUTER_KEY,
    }


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    """An upstream that answers like a small service unless scripted otherwise."""
    with Upstream(behaviours.service()) as running:
        yield running


StartRouter = Callable[..., Router]


@pytest.fixture
def start_router(tmp_path: Path, upstream: Upstream) -> Iterator[StartRouter]:
    """Starts routers in front of `upstream`; keyword arguments are variables that are added or replaced."""
    started: list[Router] = []

    def start(*, wait: bool = True, **environment: str) -> Router:
        folder = tmp_path / f"router{len(started)}"
        folder.mkdir()
        router = Router(folder, {**upstream_environment(upstream.url), **environment})
        started.append(router)
        return router.start(wait=wait)

    yield start
    for router in started:
        router.stop()


@pytest.fixture
def router(start_router: StartRouter) -> Router:
    """A router with no policy mounted and its defaults."""
    return start_router()


@pytest.fixture
def mount(tmp_path: Path) -> Mount:
    """A policy directory to start a router with (`INFERENCE_POLICY_DIR=str(mount.folder)`)."""
    return Mount(tmp_path / "inference")


@pytest.fixture(scope="module")
def shared_upstream() -> Iterator[Upstream]:
    """One upstream for all tests of a module."""
    with Upstream(behaviours.service()) as running:
        yield running


@pytest.fixture(scope="module")
def shared_router(shared_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Router]:
    """One router for all tests of a module that only send requests."""
    folder = tmp_path_factory.mktemp("router")
    router = Router(folder, upstream_environment(shared_upstream.url))
    router.start()
    yield router
    router.stop()
