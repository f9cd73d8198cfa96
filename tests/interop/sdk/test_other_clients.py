"""curl and a Node program get the same through the router as without it."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.system.router import Router

HERE = Path(__file__).parent
PROGRAMS = {
    "curl": ["bash", str(HERE / "calls.sh")],
    "curl_http2": ["bash", str(HERE / "calls.sh"), "--http2-prior-knowledge"],
    "node": ["node", str(HERE / "calls.mjs")],
}
every_program = pytest.mark.parametrize("program", PROGRAMS)


def run(program: str, url: str) -> dict:
    """Runs a program against a server; what it printed, by the name of the call."""
    command = PROGRAMS[program]
    assert shutil.which(command[0]), f"{command[0]} is needed for this test"
    done = subprocess.run([*command[:2], url, *command[2:]], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    return {name: value for name, _, value in (line.partition("\t") for line in done.stdout.splitlines())}


@every_program
def test_a_program_works_without_the_router(program: str, demo_url: str):
    found = run(program, demo_url)
    assert set(found) == {"chat", "streamed", "messages", "models", "missing"}
    assert found["streamed"].count("chat.completion.chunk") > 5
    assert found["streamed"].rstrip().endswith("[DONE]")
    assert json.loads(found["missing"].partition(" ")[2])["error"]["code"] == "model_not_found"


@every_program
def test_a_program_sees_no_difference(program: str, demo_url: str, demo_router: Router):
    assert run(program, demo_router.url) == run(program, demo_url)


@every_program
def test_a_program_sees_no_difference_over_an_http2_upstream(program: str, demo_url: str, demo_router_http2: Router):
    assert run(program, demo_router_http2.url) == run(program, demo_url)
