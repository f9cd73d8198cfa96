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


@pytest.fixture(scope="session")
def demo_router(demo_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Router]:
    """A router whose three providers are the demo model server."""
    environment = {
        "OPENAI_BASE_URL": f"{demo_url}/v1",
        "OPENAI_API_KEY": "sk-router-openai",
        "ANTHROPIC_BASE_URL": demo_url,
        "ANTHROPIC_API_KEY": "sk-router-anthropic",
        "AZURE_OPENAI_ENDPOINT": demo_url,
        "AZURE_OPENAI_API_KEY": "sk-router-azure",
    }
    router = Router(tmp_path_factory.mktemp("router"), environment).start()
    yield router
    router.stop()
