"""Events: once each, repeated ones as a series, never in the way."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kars.kube import events as module
from kars.kube.events import Recorder, cut
from tests.unit.kube.server import broken, connected, status

ABOUT = {
    "apiVersion": "kars.azure.com/v1alpha1",
    "kind": "ToolPolicy",
    "metadata": {"name": "tools", "namespace": "n", "uid": "u", "resourceVersion": "7"},
}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(module, "EVERY", 0.16)
    monkeypatch.setattr(module, "AGAIN", 0.01)


def record(folder, use, answer=lambda asked: (201, asked.body)):
    """Run a recorder against a server and `use(recorder, server)`; the server."""

    async def main():
        async with connected(answer, folder) as (client, server):
            recorder = Recorder(client, controller="kars-controller", instance="pod-1")
            running = asyncio.create_task(recorder.run())
            try:
                await use(recorder, server)
                assert not running.done()
            finally:
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)
            return server

    return asyncio.run(main())


def tell(recorder, about=ABOUT, reason="PolicyNotEnforced", note="0/1 routers", **more):
    recorder.tell(about, reason=reason, action="AwaitingRouterConfirmation", note=note, **more)


async def until(condition, seconds=5.0):
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


def test_an_event_says_what_happened_to_what(tmp_path):
    async def use(recorder, server):
        tell(recorder, type="Warning")
        await until(lambda: recorder.written == 1)

    (asked,) = record(tmp_path, use).asked
    assert asked.path == "/apis/events.k8s.io/v1/namespaces/n/events"
    made = asked.body
    assert made["metadata"]["name"].startswith("tools.")
    assert made["reportingController"] == "kars-controller/ToolPolicy"
    assert (made["reportingInstance"], made["type"], made["note"]) == ("pod-1", "Warning", "0/1 routers")
    assert made["regarding"] == {
        "apiVersion": ABOUT["apiVersion"],
        "kind": "ToolPolicy",
        "namespace": "n",
        "name": "tools",
        "uid": "u",
        "resourceVersion": "7",
    }
    assert "series" not in made


def test_the_same_again_is_counted_and_written_seldom(tmp_path):
    async def use(recorder, server):
        for number in range(100):
            tell(recorder, note=f"note {number}")
            await asyncio.sleep(0)
        await until(lambda: recorder.written == 2)
        await asyncio.sleep(0.4)

    create, patch = record(tmp_path, use).asked
    assert (create.method, patch.method) == ("POST", "PATCH")
    assert patch.path.endswith(create.body["metadata"]["name"])
    assert patch.body["series"]["count"] + create.body.get("series", {"count": 1})["count"] >= 100


def test_a_series_whose_event_has_expired_begins_anew(tmp_path):
    def answer(asked):
        return (404, status(404)) if asked.method == "PATCH" else (201, asked.body)

    async def use(recorder, server):
        tell(recorder)
        await until(lambda: recorder.written == 1)
        tell(recorder)
        await until(lambda: recorder.written == 2)

    assert [one.method for one in record(tmp_path, use, answer).asked] == ["POST", "PATCH", "POST"]


def test_different_reasons_and_objects_are_different_events(tmp_path):
    other = {**ABOUT, "metadata": {"name": "x" * 300, "uid": "v"}}

    async def use(recorder, server):
        tell(recorder)
        tell(recorder, reason="Other")
        tell(recorder, about=other)
        await until(lambda: recorder.written == 3)

    asked = record(tmp_path, use).asked
    assert asked[2].path == "/apis/events.k8s.io/v1/namespaces/default/events"
    assert len(asked[2].body["metadata"]["name"]) == 253


def test_more_than_can_wait_is_dropped_and_telling_never_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "WAITING", 10)

    async def use(recorder, server):
        for number in range(25):
            tell(recorder, reason=f"R{number}")
        assert recorder.dropped == 15
        await until(lambda: recorder.written == 10)

    record(tmp_path, use)


def test_what_is_remembered_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SERIES", 5)

    async def use(recorder, server):
        for number in range(30):
            tell(recorder, reason=f"R{number}")
        assert len(recorder.told) == 5
        assert len(recorder.waiting) == 5

    record(tmp_path, use)


def test_writes_keep_to_their_rate(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BURST", 3)
    monkeypatch.setattr(module, "RATE", 10.0)

    async def use(recorder, server):
        recorder.tokens = 3.0
        for number in range(30):
            tell(recorder, reason=f"R{number}")
        await asyncio.sleep(0.5)
        assert 3 <= len(server.asked) <= 9

    record(tmp_path, use)


@pytest.mark.parametrize("answer", [(403, status(403)), (404, status(404)), (500, status(500)), broken])
def test_what_cannot_be_written_is_dropped_after_a_few_attempts(tmp_path, answer):
    async def use(recorder, server):
        tell(recorder)
        await until(lambda: recorder.dropped == 1)
        assert 1 <= len(server.asked) <= module.ATTEMPTS

    record(tmp_path, use, lambda asked: answer)


@given(st.text(), st.integers(0, 40))
def test_notes_are_cut_between_characters(text, size):
    found = cut(text.replace("\ud800", ""), size)
    assert text.startswith(found)
    assert len(found.encode()) <= size
    assert found == text or len((found + text[len(found)]).encode()) > size
