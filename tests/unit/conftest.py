"""A core without a data plane: what the Python side does to it can be seen, and nothing listens."""

import json
from collections import deque

import pytest


class FakeEngine:
    """Plays scripted events and writes down every call."""

    def __init__(self, *events, directories=None):
        self.events = deque(events)
        self.directories = directories or {}
        self.calls = []
        self.override = None

    def wait(self, timeout):
        assert 0 < timeout <= 1
        if not self.events:
            return "stopped"
        event = self.events.popleft()
        return event() if callable(event) else event

    def policy_dirs(self):
        return self.directories

    def admin_model(self):
        return self.override, "gpt-4.1"

    def set_admin_model(self, model):
        before, self.override = self.override, model
        return before

    def status(self):
        return json.dumps(
            {
                "version": "1.2.3",
                "policy": {"generation": 7},
                "upstreams": [],
                "settings": {"ROUTER_PORT": "8443", "OPENAI_API_KEY": "(set)"},
                "listeners": [{"name": "inference", "port": 8443}, {"name": "metrics", "port": 9090}],
                "budgets": {"daily": None, "draining": False},
            }
        ).encode()

    def __getattr__(self, name):
        if name.startswith("_"):
            raise AttributeError(name)
        return lambda *arguments: self.calls.append((name, *arguments))


@pytest.fixture
def fake_engine():
    """The class: a test says which events it plays."""
    return FakeEngine
