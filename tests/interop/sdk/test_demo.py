"""The demo model server itself: deterministic, forgetful, and exact about what it was asked."""

import json
import os
import signal
import subprocess
import sys
from urllib.parse import urlsplit

import pytest

from tests.system import client


@pytest.fixture
def port(demo_url: str) -> int:
    found = urlsplit(demo_url).port
    assert found is not None
    return found


def chat(content: str, **more) -> dict:
    return {"model": "gpt-4.1", "messages": [{"role": "user", "content": content}], **more}


def test_the_same_request_gets_the_same_bytes(port: int):
    for body in (chat("hello"), chat("hello", stream=True)):
        first, second = (client.post(port, "/v1/chat/completions", body) for _ in range(2))
        assert first.body == second.body
        assert first.header("x-request-id") == second.header("x-request-id")


def test_asking_for_usage_changes_only_that(port: int):
    plain = client.post(port, "/v1/chat/completions", chat("hello", stream=True))
    asked = client.post(
        port, "/v1/chat/completions", chat("hello", stream=True, stream_options={"include_usage": True})
    )
    extra = [chunk for chunk in asked.data if chunk != "[DONE]" and chunk["choices"] == []]
    assert len(extra) == 1
    assert asked.body.replace(b',"usage":null', b"").count(b"data: ") == plain.body.count(b"data: ") + 1
    assert b'"usage"' not in plain.body


def test_the_question_is_echoed(port: int):
    found = client.post(port, "/v1/chat/completions", chat("Why do birds sing?"))
    assert "“Why do birds sing?”" in found.json["choices"][0]["message"]["content"]


def test_a_text_can_be_dictated(port: int):
    found = client.post(port, "/v1/chat/completions", chat("Repeat after me: exactly this ✓"))
    assert found.json["choices"][0]["message"]["content"] == "exactly this ✓"


def test_a_deployment_in_the_path_wins(port: int):
    found = client.post(port, "/openai/deployments/mine/chat/completions?api-version=1", chat("hi", model="other"))
    assert found.json["model"] == "mine"


def test_the_lists_have_their_services_shape(port: int):
    assert client.get(port, "/openai/deployments").json["data"][0]["object"] == "deployment"
    assert client.get(port, "/openai/models").json["data"][0]["object"] == "model"
    assert client.get(port, "/v1/models", ("anthropic-version", "1")).json["data"][0]["type"] == "model"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"", None),
        (b"[]", None),
        (b"{", None),
        (b'{"messages":[]}', "model"),
        (b'{"model":"m","messages":[]}', "messages"),
        (b'{"model":"m","messages":"hi"}', "messages"),
        (b'{"model":7,"messages":[]}', "model"),
    ],
)
def test_a_bad_body_gets_400(body: bytes, param: str | None, port: int):
    found = client.post(port, "/v1/chat/completions", body)
    assert found.status == 400
    assert found.json["error"]["param"] == param


def test_unknown_paths_and_methods_are_refused(port: int):
    assert client.post(port, "/v1/nothing", b"{}").status == 404
    assert client.get(port, "/v1/chat/completions").status == 405


@pytest.mark.parametrize("severity", ["safe", "low", "medium", "high"])
def test_annotations_come_on_request(severity: str, port: int):
    found = client.post(port, "/v1/chat/completions", chat("hi", model=f"annotated-{severity}-violence"))
    results = found.json["prompt_filter_results"][0]["content_filter_results"]
    assert results["violence"]["severity"] == severity
    assert results["hate"]["severity"] == "safe"
    assert results["violence"]["filtered"] is (severity in {"medium", "high"})


def test_it_writes_nothing_but_its_address():
    process = subprocess.Popen(
        [sys.executable, "-m", "kars.local.demo", "--pace-ms", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        text=True,
    )
    assert process.stdout is not None
    address = process.stdout.readline()
    found = urlsplit(address.split()[-1]).port
    assert found is not None
    for stream in (False, True):
        client.post(found, "/v1/chat/completions", chat("canary", stream=stream), ("Authorization", "Bearer canary"))
    client.post(found, "/v1/chat/completions", json.dumps(chat("canary", model="server-error")).encode())
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=10)
    assert (process.returncode, out, err) == (0, "", "")
