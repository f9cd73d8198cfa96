"""The informer against a server that cuts, refuses, forgets and lies."""

import asyncio
import logging
import time

import pytest

from kars.kube import client as client_module
from kars.kube import informer as module
from kars.kube.informer import Informer
from kars.kube.types import CONFIG_MAP, Key
from tests.unit.kube.server import broken, config_map, connected, line, status, streamed

A = Key("n", "a")


def listed(version, *objects):
    return 200, {"metadata": {"resourceVersion": version}, "items": list(objects)}


class Script:
    """Lists and watches, each answered in order; the last answer stays."""

    def __init__(self, lists, watches):
        self.answers = {"list": list(lists), "watch": list(watches)}
        self.versions = []

    def __call__(self, asked):
        kind = "watch" if "watch" in asked.query else "list"
        if kind == "watch":
            self.versions.append(asked.query["resourceVersion"])
        answers = self.answers[kind]
        return answers.pop(0) if len(answers) > 1 else answers[0]


async def until(condition, seconds=5.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        await asyncio.sleep(0.01)


def follow(script, folder, use, *, keep=None, fail=None, **settings):
    """Run an informer against a script, and `use(informer, told, server)` beside it."""

    async def main():
        told = []

        def changed(*change):
            told.append(change)
            if fail is not None:
                raise fail

        async with connected(script, folder) as (client, server):
            keep_ = keep or (lambda value: value["metadata"]["resourceVersion"])
            informer = Informer(client, CONFIG_MAP, keep=keep_, changed=changed, **settings)
            running = asyncio.create_task(informer.run())
            try:
                await use(informer, told, server)
                assert not running.done()
            finally:
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)

    asyncio.run(main())


@pytest.fixture(autouse=True)
def no_spread(monkeypatch):
    monkeypatch.setattr(module, "SPREAD", 0.0)
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.02)


HOLD = streamed(hold=20)


def test_a_watch_goes_on_from_the_last_version_or_bookmark(tmp_path):
    script = Script(
        [listed("5", config_map("a", "3"))],
        [
            streamed(line("MODIFIED", config_map("a", "7"))),
            streamed(line("BOOKMARK", {"metadata": {"resourceVersion": "9"}})),
            HOLD,
        ],
    )

    async def use(informer, told, server):
        await until(lambda: len(script.versions) == 3)
        assert script.versions == ["5", "7", "9"]
        assert told == [(A, None, "3"), (A, "3", "7")]
        assert (informer.get(A), len(informer), informer.relists, informer.reconnects) == ("7", 1, 1, 3)
        assert dict(informer.items()) == {A: "7"}

    follow(script, tmp_path, use)


@pytest.mark.parametrize("gone", [(410, status(410, "Expired")), streamed(line("ERROR", status(410, "Expired")))])
def test_a_version_that_is_too_old_means_a_new_list_and_what_vanished_is_told(tmp_path, gone):
    script = Script(
        [listed("5", config_map("a", "3"), config_map("b", "4")), listed("20", config_map("b", "15"))],
        [gone, HOLD],
    )

    async def use(informer, told, server):
        await until(lambda: informer.relists == 2 and len(script.versions) == 2)
        assert told[2:] == [(Key("n", "b"), "4", "15"), (A, "3", None)]
        assert informer.failures == 0

    follow(script, tmp_path, use)


def test_a_listener_that_raises_does_not_end_the_watch_and_its_words_are_not_logged(tmp_path, caplog):
    script = Script([listed("5", config_map("a", "3"))], [streamed(line("MODIFIED", config_map("a", "7"))), HOLD])

    async def use(informer, told, server):
        await until(lambda: informer.get(A) == "7")
        assert (len(told), informer.faults) == (2, 2)

    follow(script, tmp_path, use, fail=KeyError("s3cr3t"))
    assert "kube.fault" in caplog.text
    assert "s3cr3t" not in caplog.text


def test_what_cannot_be_kept_does_not_end_the_watch(tmp_path):
    def keep(value):
        return {"3": 1}[value["metadata"]["resourceVersion"]]

    script = Script([listed("5", config_map("a", "3"), config_map("b", "4"))], [HOLD])

    async def use(informer, told, server):
        await informer.synced.wait()
        assert (dict(informer.items()), informer.faults) == ({A: 1}, 1)

    follow(script, tmp_path, use, keep=keep)


def test_a_server_that_refuses_is_not_asked_in_a_hot_loop(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.25)

    async def use(informer, told, server):
        await asyncio.sleep(1.5)
        assert 2 <= len(server.asked) <= 6
        assert not informer.synced.is_set()
        assert informer.seen == float("-inf")

    with caplog.at_level(logging.WARNING):
        follow(Script([(403, status(403))], [HOLD]), tmp_path, use)
    assert caplog.text.count("kube.watch") == 1


@pytest.mark.parametrize("answer", [streamed(), broken])
def test_watches_that_end_at_once_are_not_asked_for_in_a_hot_loop(tmp_path, monkeypatch, answer):
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.25)

    async def use(informer, told, server):
        await asyncio.sleep(1.5)
        assert 2 <= informer.reconnects <= 6

    follow(Script([listed("5")], [answer]), tmp_path, use)


def test_a_version_that_is_gone_again_and_again_is_not_asked_for_in_a_hot_loop(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.25)

    async def use(informer, told, server):
        await asyncio.sleep(1.5)
        assert 2 <= informer.relists <= 6

    follow(Script([listed("5")], [(410, status(410))]), tmp_path, use)


def test_a_wait_that_the_server_asks_for_is_kept(tmp_path):
    script = Script([(503, status(503), {"Retry-After": "9"}), listed("5")], [HOLD])

    async def use(informer, told, server):
        await asyncio.sleep(0.6)
        assert len(server.asked) == 1

    follow(script, tmp_path, use)


def test_a_watch_that_fails_again_and_again_lists_again(tmp_path):
    lists = [*[listed("5")] * module.SUSPECT, listed("20", config_map("a", "19"))]
    script = Script(lists, [*[(500, status(500))] * module.SUSPECT, HOLD])

    async def use(informer, told, server):
        await until(lambda: informer.get(A) == "19")
        assert informer.failures == module.SUSPECT

    follow(script, tmp_path, use)


def test_a_server_that_went_back_in_time_is_listed_again(tmp_path):
    script = Script(
        [
            listed("500", config_map("a", "400"), config_map("b", "450")),
            listed("90"),
            listed("90", config_map("a", "80")),
        ],
        [streamed(cut=True), HOLD],
    )

    async def use(informer, told, server):
        await until(lambda: script.versions == ["500", "90"])
        assert dict(informer.items()) == {A: "80"}
        assert server.asked[2].query["limit"] == "1"

    follow(script, tmp_path, use)


def test_a_watch_that_breaks_goes_on_where_it_was(tmp_path):
    script = Script([listed("5"), listed("9")], [streamed(cut=True), HOLD])

    async def use(informer, told, server):
        await until(lambda: script.versions == ["5", "5"])
        assert informer.relists == 1

    follow(script, tmp_path, use)


def test_a_version_that_the_server_takes_for_invalid_is_not_asked_for_again(tmp_path):
    script = Script([listed("5"), listed("20")], [(400, status(400)), HOLD])

    async def use(informer, told, server):
        await until(lambda: script.versions == ["5", "20"])

    follow(script, tmp_path, use)


def test_a_deaf_watch_lists_again(tmp_path, monkeypatch):
    monkeypatch.setattr(client_module, "SILENCE", 0.15)
    monkeypatch.setattr(module, "DEAF", 0.4)
    monkeypatch.setattr(module, "NO_WATCH", 0.1)
    script = Script([listed("5"), listed("20", config_map("a", "19"))], [HOLD])

    async def use(informer, told, server):
        await until(lambda: informer.get(A) == "19")
        assert informer.failures == 0

    follow(script, tmp_path, use)


def test_signs_of_life_are_seen_and_a_dead_server_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr(client_module, "SILENCE", 0.1)
    script = Script([listed("5")], [HOLD, (500, status(500))])

    async def use(informer, told, server):
        await informer.synced.wait()
        await until(lambda: informer.failures > 0)
        seen = informer.seen
        await until(lambda: informer.failures > 3)
        assert (informer.seen, informer.relists) == (seen, 1)
        assert time.monotonic() - seen > 0

    follow(script, tmp_path, use)


def test_an_answer_of_a_write_is_there_at_once_and_older_events_do_not_undo_it(tmp_path):
    late = asyncio.Event()

    async def old_events(request):
        await late.wait()
        return await streamed(line("MODIFIED", config_map("a", "6")), line("ADDED", config_map("z", "8")), hold=20)(
            request
        )

    script = Script([listed("5", config_map("a", "3"))], [old_events])

    async def use(informer, told, server):
        await informer.synced.wait()
        informer.put(config_map("a", "9"))
        assert informer.get(A) == "9"
        informer.put(config_map("a", "9"))
        assert told == [(A, None, "3"), (A, "3", "9")]
        late.set()
        await until(lambda: informer.get(Key("n", "z")))
        assert informer.get(A) == "9"

    follow(script, tmp_path, use)


def test_an_answer_that_the_watch_would_not_deliver_is_left_alone(tmp_path):
    async def use(informer, told, server):
        await informer.synced.wait()
        informer.put(config_map("a", "9"))
        informer.put(config_map("a", "9", namespace="other", labels={"a": "b"}))
        informer.put({**config_map("a", "9", labels={"a": "b"}), "kind": "Secret"})
        assert len(informer) == 0
        informer.put(config_map("a", "9", labels={"a": "b"}))
        assert len(informer) == 1

    follow(Script([listed("5")], [HOLD]), tmp_path, use, labels="a=b", namespace="n")


def test_a_write_with_a_version_without_order_that_never_comes_by_lists_again(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SETTLE", 0.1)

    async def slowly(request):
        await asyncio.sleep(0.4)
        return await streamed(line("BOOKMARK", {"metadata": {"resourceVersion": "x6"}}), hold=20)(request)

    script = Script([listed("x5"), listed("x9")], [slowly, HOLD])

    async def use(informer, told, server):
        await informer.synced.wait()
        informer.put(config_map("a", "x7"))
        await until(lambda: informer.relists == 2)
        await until(lambda: told == [(A, None, "x7"), (A, "x7", None)])

    follow(script, tmp_path, use)


def test_pages_are_taken_in_one_by_one(tmp_path):
    first = (200, {"metadata": {"resourceVersion": "5", "continue": "x"}, "items": [config_map("a", "3")]})
    script = Script([first, (500, status(500)), first, listed("6", config_map("b", "4"))], [HOLD])

    async def use(informer, told, server):
        await informer.synced.wait()
        assert told == [(A, None, "3"), (Key("n", "b"), None, "4")]

    follow(script, tmp_path, use)


def test_pauses_grow_to_a_bound_and_differ():
    pauses = [[module.pause(bad) for _ in range(50)] for bad in (1, 2, 20, 10_000)]
    assert all(max(some) <= module.LONGEST_PAUSE for some in pauses)
    assert min(pauses[3]) >= module.LONGEST_PAUSE / 2
    assert all(len(set(some)) > 1 for some in pauses)
