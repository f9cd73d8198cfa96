"""Asking routers, over real sockets: in parallel, bounded in time and size, shared for a moment."""

import asyncio
import base64
import json

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from kars.controller import echo
from kars.controller.echo import Echo, Entry, Heard, Unheard
from kars.controller.held import Pod
from kars.kube.types import Key

A, B = Key("agents", "a"), Key("agents", "b")
ENTRY = {"kind": "InferencePolicy", "digest": "sha256:1", "source_path": "/etc", "loaded_at": "t", "new": 1}


def document(*entries, version=1):
    return {"schema_version": version, "count": len(entries), "entries": list(entries)}


def pod(sandbox, address, **more):
    given = {"ready": True, "ip": address} | more
    return Pod(key=Key(f"kars-{sandbox.name}", f"{sandbox.name}-0"), sandbox=sandbox.name, **given)


class World:
    """Routers on loopback addresses, and what the controller knows of their pods."""

    def __init__(self):
        self.pods = {}
        self.asked = []
        self.answer = lambda request: web.json_response(document(ENTRY))
        self.token = self.key = "t0ken"
        self.counted = []

    async def handle(self, request):
        scheme, nonce, code = request.headers["Authorization"].split(" ")
        assert (scheme, code) == ("Kars", echo.code("t0ken", b"ask", nonce.encode()))
        self.asked.append((request.url.host, nonce))
        self.headers = str(request.headers)
        answer = self.answer(request)
        answer = await answer if asyncio.iscoroutine(answer) else answer
        if isinstance(answer.body, bytes):
            answer.headers["x-kars-proof"] = echo.code(self.key, b"answer", nonce.encode(), answer.body)
        return answer

    async def secret(self, key):
        if not self.token:
            return None
        return {"data": {"token": base64.b64encode(self.token.encode()).decode()}}


def running(test, *, deadline=2.0):
    async def main():
        world = World()
        app = web.Application()
        app.router.add_get("/internal/policy-status", world.handle)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        port = 0
        for last in range(2, 44):  # a pod's address each, with one port as all routers have
            await web.TCPSite(runner, f"127.0.0.{last}", port).start()
            port = runner.addresses[0][1]
        asker = Echo(
            pods=lambda key: world.pods.get(key, ()),
            secret=world.secret,
            counted=world.counted.append,
            deadline=deadline,
            port=port,
        )
        try:
            await test(world, asker)
        finally:
            await asker.close()
            await runner.cleanup()

    asyncio.run(asyncio.wait_for(main(), 30))


def test_the_digest_of_a_sandbox_is_what_all_its_ready_pods_say():
    async def test(world, asker):
        world.pods[A] = (pod(A, "127.0.0.2"), pod(A, "127.0.0.3"))
        heard = (await asker.ask([A]))[A]
        assert heard.digest("InferencePolicy") == "sha256:1"
        assert heard.agrees("InferencePolicy", "sha256:1")
        assert heard.digest("Memory") is None
        assert sorted(host for host, _ in world.asked) == ["127.0.0.2", "127.0.0.3"]
        assert len({nonce for _, nonce in world.asked}) == 2
        assert world.counted == ["answered"] * 2

    running(test)


def test_pods_that_differ_agree_on_nothing():
    async def test(world, asker):
        world.pods[A] = (pod(A, "127.0.0.2"), pod(A, "127.0.0.3"))
        world.answer = lambda request: web.json_response(document({**ENTRY, "digest": f"sha256:{request.url.host}"}))
        heard = (await asker.ask([A]))[A]
        assert heard.digest("InferencePolicy") is None
        assert len(heard.entries) == 2

    running(test)


def test_only_pods_that_are_ready_and_stay_are_asked():
    async def test(world, asker):
        leaving = pod(A, "127.0.0.4", deleting=True)
        world.pods[A] = (pod(A, "127.0.0.2", ready=False), pod(A, ""), leaving, pod(A, "127.0.0.3"))
        assert (await asker.ask([A]))[A].digest("InferencePolicy") == "sha256:1"
        assert [host for host, _ in world.asked] == ["127.0.0.3"]

    running(test)


def test_a_sandbox_without_pods_or_without_a_token_says_so_and_nobody_is_asked():
    async def test(world, asker):
        world.token = ""
        world.pods[B] = (pod(B, "127.0.0.2"),)
        heard = await asker.ask([A, B])
        assert "no pod is ready" in heard[A].error
        assert "router-admin-token" in heard[B].error
        assert not world.asked

    running(test)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda _: web.Response(status=401), "status 401"),
        (lambda _: web.Response(status=302, headers={"Location": "http://127.0.0.1:1/"}), "status 302"),
        (lambda _: web.Response(body=b"{"), "no policy status"),
        (lambda _: web.Response(body=b"\xff"), "no policy status"),
        (lambda _: web.json_response(document(ENTRY, version=2)), "schema version 2"),
        (lambda _: web.json_response({"entries": []}), "no policy status"),
        (lambda _: web.json_response(document(*[ENTRY] * 65)), "more than 64 entries"),
        (lambda _: web.Response(body=b" " * ((1 << 20) + 1)), "more than 1048576 bytes"),
    ],
)
def test_an_answer_that_is_none_is_an_error_that_says_what_it_was(answer, said):
    async def test(world, asker):
        world.pods[A] = (pod(A, "127.0.0.2"),)
        world.answer = answer
        heard = (await asker.ask([A]))[A]
        assert said in heard.error
        assert "a-0" in heard.error
        assert "t0ken" not in heard.error
        assert heard.digest("InferencePolicy") is None
        assert world.counted == ["failed"]

    running(test)


@pytest.mark.parametrize("key", ["", "another", "t0ken "])
def test_who_answers_without_the_token_is_not_believed_and_is_not_given_it(key):
    """An agent that holds the router's port, or another pod that was given its address."""

    async def test(world, asker):
        world.pods[A] = (pod(A, "127.0.0.2"),)
        world.key = key
        heard = (await asker.ask([A]))[A]
        assert "does not show that it is the router" in heard.error
        assert heard.digest("InferencePolicy") is None
        assert "t0ken" not in world.headers

    running(test)


@pytest.mark.parametrize("code", ["", "\udcff", "00" * 32, echo.code("t0ken", b"answer", b"0" * 64, b"{}")])
def test_a_code_of_another_answer_proves_nothing(code):
    assert not echo.proven(code, "t0ken", "1" * 64, b"{}")
    good = echo.code("t0ken", b"answer", b"1" * 64, b"{}")
    assert echo.proven(good, "t0ken", "1" * 64, b"{}")
    assert not echo.proven(good, "t0ken", "1" * 64, b"{ }")


def test_a_router_that_is_not_there_is_an_error_and_the_others_are_heard():
    async def test(world, asker):
        world.pods[A] = (pod(A, "127.0.0.2"), pod(A, "127.0.0.3"))
        world.pods[B] = (pod(B, "127.0.0.2"),)

        async def answer(request):
            if request.url.host == "127.0.0.3":
                request.transport.abort()
            return web.json_response(document(ENTRY))

        world.answer = answer
        heard = await asker.ask([A, B])
        assert "cannot be reached" in heard[A].error
        assert heard[B].digest("InferencePolicy") == "sha256:1"

    running(test)


def test_slow_routers_cost_one_deadline_together_not_one_each():
    async def test(world, asker):
        sandboxes = [Key("agents", f"s{number}") for number in range(40)]
        world.pods = {key: (pod(key, f"127.0.0.{2 + number}"),) for number, key in enumerate(sandboxes)}

        async def answer(request):
            await asyncio.sleep(30)

        world.answer = answer
        began = asyncio.get_running_loop().time()
        heard = await asker.ask(sandboxes)
        assert asyncio.get_running_loop().time() - began < 2
        assert all("no answer within 0.3 s" in one.error for one in heard.values())

    running(test, deadline=0.3)


def test_many_who_ask_at_once_share_one_question_and_who_wants_it_fresh_asks_again():
    async def test(world, asker):
        world.pods[A] = (pod(A, "127.0.0.2"),)
        answers = await asyncio.gather(*(asker.ask([A]) for _ in range(20)))
        assert len(world.asked) == 1
        assert all(one[A] is answers[0][A] for one in answers)
        await asker.ask([A])
        assert len(world.asked) == 1
        await asker.ask([A], fresh=True)
        assert len(world.asked) == 2

    running(test)


def test_answers_are_forgotten_after_a_moment(monkeypatch):
    monkeypatch.setattr(echo, "SHARED", 0.05)

    async def test(world, asker):
        world.pods[A] = (pod(A, "127.0.0.2"),)
        await asker.ask([A, B])
        await asyncio.sleep(0.1)
        await asker.ask([A])
        assert len(world.asked) == 2
        assert set(asker.shared) == {A}

    running(test)


def test_whoever_stops_waiting_takes_the_answer_from_nobody():
    async def test(world, asker):
        world.pods[A] = (pod(A, "127.0.0.2"),)
        first = asyncio.create_task(asker.ask([A]))
        await asyncio.sleep(0)
        second = asyncio.create_task(asker.ask([A]))
        await asyncio.sleep(0)
        first.cancel()
        assert (await second)[A].digest("InferencePolicy") == "sha256:1"

    running(test)


def test_no_more_questions_are_under_way_than_there_are_places(monkeypatch):
    monkeypatch.setattr(echo, "AT_ONCE", 5)

    async def test(world, asker):
        sandboxes = [Key("agents", f"s{number}") for number in range(30)]
        world.pods = {key: (pod(key, f"127.0.0.{2 + number}"),) for number, key in enumerate(sandboxes)}
        now = most = 0

        async def answer(request):
            nonlocal now, most
            now += 1
            most = max(most, now)
            await asyncio.sleep(0.01)
            now -= 1
            return web.json_response(document(ENTRY))

        world.answer = answer
        heard = await asker.ask(sandboxes)
        assert all(not one.error for one in heard.values())
        assert most <= 5

    running(test)


def test_an_error_that_a_router_reports_is_passed_on_cut():
    heard = Heard(A, entries=(echo.read(json.dumps(document({**ENTRY, "last_error": "e" * 9999})).encode()),))
    assert heard.last_error("InferencePolicy") == "e" * echo.LONGEST_ERROR
    assert heard.last_error("Memory") is None


def test_one_pod_that_reports_two_digests_of_a_kind_agrees_on_none():
    two = (Entry("K", "sha256:1"), Entry("K", "sha256:2"))
    assert Heard(A, entries=(two,)).digest("K") is None


@given(st.binary(max_size=300))
def test_any_bytes_are_an_answer_or_refused(body):
    try:
        entries = echo.read(body)
    except Unheard:
        return
    assert all(isinstance(one, Entry) for one in entries)


@given(st.recursive(st.none() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)))
def test_any_json_is_an_answer_or_refused(value):
    test_any_bytes_are_an_answer_or_refused.hypothesis.inner_test(
        json.dumps({"schema_version": 1, "entries": value}).encode()
    )
