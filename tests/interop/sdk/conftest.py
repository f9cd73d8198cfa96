"""The demo model server and a router in front of it, both as real processes."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.system.router import Router


@pytest.fixture(scope="session")
def demo_url() -> Iterator[str]:
    """The demo model server's address."""
    command = [sys.executable, "-m", "kars.local.demo", "--pace-ms", "1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | {"PYTHONUNBUFFERED": "1"})
    assert process.stdout is not None
    line = process.stdout.readline().decode()
    found = re.fullmatch(r"demo model server on (http://127\.0\.0\.1:\d+)\n", line)
    assert found, f"unexpected first line: {line!r}"
    yield found[1]
    process.terminate()
    assert process.wait(10) == 0
    process.stdout.close()


def environment(demo_url: str) -> dict[str, str]:
    """The variables that point a router's three providers at the demo model server."""
    return {
        "OPENAI_BASE_URL": f"{demo_url}/v1",
        "OPENAI_API_KEY": "sk-router-openai",
        "ANTHROPIC_BASE_URL": demo_url,
        "ANTHROPIC_API_KEY": "sk-router-anthropic",
        "AZURE_OPENAI_ENDPOINT": demo_url,
        "AZURE_OPENAI_API_KEY": "sk-router-azure",
    }


@pytest.fixture(scope="session")
def demo_router(demo_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Router]:
    """A router whose three providers are the demo model server."""
    router = Router(tmp_path_factory.mktemp("router"), environment(demo_url)).start()
    yield router
    router.stop()


@pytest.fixture(scope="session")
def demo_router_http2(demo_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Router]:
    """The same, speaking HTTP/2 to the server."""
    router = Router(tmp_path_factory.mktemp("router"), environment(demo_url) | {"UPSTREAM_HTTP": "2"}).start()
    yield router
    router.stop()
