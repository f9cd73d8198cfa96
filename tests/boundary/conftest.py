"""Real processes on the real core."""

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

import pytest

from kars.local import ports

TOKEN = "boundary-token"


class Router:
    """One `kars router` of its own, with its state in a directory."""

    def __init__(self, state, settings):
        self.state = state
        self.port = ports.free(21000 + os.getpid() % 1000)
        self.policy = state / "policy"
        self.audit = state / "audit"
        self.egress = state / "egress"
        self.egress_port = ports.free(23000 + os.getpid() % 1000)
        self.policy.mkdir()
        self.environment = {
            "PATH": os.environ["PATH"],
            "ROUTER_BIND": "127.0.0.1",
            "ROUTER_PORT": str(self.port),
            "ROUTER_METRICS_PORT": "off",
            "SANDBOX_NAME": "boundary",
            "ADMIN_TOKEN": TOKEN,
            "INFERENCE_POLICY_DIR": str(self.policy),
            "INFERENCE_POLICY_WATCH_INTERVAL": "0.1",
            "FORWARD_PROXY_BIND": "127.0.0.1",
            "FORWARD_PROXY_PORT": str(self.egress_port),
            "EGRESS_ALLOWLIST_DIR": str(self.egress),
            "EGRESS_APPROVAL_DIR": str(self.egress),
            "EGRESS_LEARNED_PATH": str(state / "egress-learned.jsonl"),
            "KARS_AUDIT_DIR": str(self.audit),
            "TOKEN_BUDGET_PERSIST_PATH": str(state / "budgets.json"),
            "OPENAI_BASE_URL": "http://127.0.0.1:1/v1",
            **settings,
        }
        self.log = state / "log"
        self.process = None

    def start(self):
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "kars", "router"], env=self.environment, stdout=log, stderr=log
            )
        self.until(lambda: self.get("/healthz")[0] == 200)

    def until(self, ready, seconds=20):
        """Wait until something holds; fails with the router's own words."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with suppress(OSError, http.client.HTTPException):
                if ready():
                    return
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.02)
        pytest.fail("did not come to hold; the router said:\n" + self.log.read_text())

    def call(self, method, path, body=None, *, token=None):
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=15)
        headers = {"authorization": f"Bearer {token}"} if token else {}
        if body is not None:
            headers["content-type"] = "application/json"
        try:
            client.request(method, path, body, headers)
            answer = client.getresponse()
            return answer.status, answer.read()
        finally:
            client.close()

    def get(self, path, *, token=None):
        return self.call("GET", path, token=token)

    def write_policy(self, policy):
        """Put a policy in place in one step, as a mount does."""
        fresh = self.policy / ".fresh"
        fresh.write_text(policy if isinstance(policy, str) else json.dumps(policy))
        fresh.replace(self.policy / "inference-policy.json")

    def write_egress(self, name, content):
        """Put an egress list in place in one step; None takes it away."""
        self.egress.mkdir(exist_ok=True)
        if content is None:
            (self.egress / name).unlink()
            return
        fresh = self.egress / ".fresh"
        fresh.write_text(content if isinstance(content, str) else json.dumps(content))
        fresh.replace(self.egress / name)

    def policy_status(self, kind="InferencePolicy"):
        status, body = self.get("/internal/policy-status", token=TOKEN)
        assert status == 200
        rows = json.loads(body)["entries"]
        return next((row for row in rows if row["kind"] == kind), None)

    def through(self, url, **headers):
        """Ask for a plain HTTP resource through the egress proxy: status, headers, body."""
        client = http.client.HTTPConnection("127.0.0.1", self.egress_port, timeout=15)
        try:
            client.request("GET", url, headers=headers)
            answer = client.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read().decode()
        finally:
            client.close()

    def cli(self, *arguments):
        """Run `kars` in this router's environment."""
        return subprocess.run(
            [sys.executable, "-m", "kars", *arguments], env=self.environment, capture_output=True, text=True, timeout=30
        )

    def stop(self):
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


@pytest.fixture
def router(tmp_path):
    """Make routers: settings as keywords, a policy first if given."""
    made = []

    def make(*, policy=None, **settings):
        state = tmp_path / f"router-{len(made)}"
        state.mkdir()
        one = Router(state, settings)
        made.append(one)
        if policy is not None:
            one.write_policy(policy)
        one.start()
        return one

    yield make
    for one in made:
        one.stop()


@pytest.fixture
def token():
    return TOKEN
