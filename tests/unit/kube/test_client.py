"""The client against a server that misbehaves in every way that matters."""

import asyncio
import subprocess
import sys
import time

import pytest

from kars.kube import client as module
from kars.kube import types
from kars.kube.client import Client
from kars.kube.errors import ApiError, Busy, Conflict, Forbidden, Gone, Missing
from kars.kube.types import CONFIG_MAP, POD, Key
from tests.unit.kube.server import broken, config_map, connected, line, script, serve, silent, status, streamed

KEY = Key("n", "c")
POD_PATH = "/api/v1/namespaces/n/pods/p/log"


def run(answer, use, folder, **settings):
    """Run `use(client)` against a script; the script's server."""

    async def main():
        async with connected(answer, folder, **settings) as (client, server):
            await use(client)
            return server

    return asyncio.run(main())


def test_importing_the_room_brings_neither_the_official_client_nor_http():
    code = (
        "import sys, kars.kube.client, kars.kube.informer, kars.kube.lease, kars.kube.events, kars.kube.definitions\n"
        "assert not {'kubernetes', 'aiohttp', 'yaml'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)


def test_says_who_it_is_and_as_whom_it_writes(tmp_path):
    async def use(client):
        await client.apply(config_map(), manager="me")
        await client.merge(CONFIG_MAP, KEY, {"data": {"a": None}})
        await client.create(config_map())
        await client.replace(config_map())

    server = run(script((200, config_map())), use, tmp_path)
    apply, merge, create, replace = server.asked
    assert all(one.headers["User-Agent"].startswith("kars/") for one in server.asked)
    assert all(one.headers["Authorization"] == "Bearer secret-token" for one in server.asked)
    assert apply.headers["Content-Type"] == "application/apply-patch+yaml"
    assert apply.query == {"fieldManager": "me", "force": "true"}
    assert merge.headers["Content-Type"] == "application/merge-patch+json"
    assert merge.body == {"data": {"a": None}}
    assert (create.method, create.path) == ("POST", "/api/v1/namespaces/n/configmaps")
    assert (replace.method, replace.path) == ("PUT", "/api/v1/namespaces/n/configmaps/c")
    assert {one.query["fieldManager"] for one in (merge, create, replace)} == {"kars-controller"}


def test_names_with_a_colon_reach_the_server_as_they_are(tmp_path):
    async def use(client):
        await client.get(types.CLUSTER_ROLE_BINDING, Key("", "system:node é/x"))

    server = run(script((200, config_map())), use, tmp_path)
    assert server.asked[0].path.endswith("/clusterrolebindings/system:node é/x")


@pytest.mark.parametrize("code", [429, 503])
def test_reads_wait_as_the_server_asks_and_ask_again(tmp_path, code):
    async def use(client):
        began = time.monotonic()
        assert (await client.get(CONFIG_MAP, KEY))["metadata"]["name"] == "c"
        assert time.monotonic() - began >= 1.0

    refusal = (code, status(code), {"Retry-After": "1"})
    assert run(script(refusal, (200, config_map())), use, tmp_path).count("GET") == 2


def test_reads_ask_a_bounded_number_of_times(tmp_path):
    async def use(client):
        with pytest.raises(Busy) as caught:
            await client.get(CONFIG_MAP, KEY)
        assert caught.value.after == 0.0

    server = run(script((503, status(503), {"Retry-After": "0"})), use, tmp_path)
    assert server.count("GET") == module.ATTEMPTS


def test_a_long_wait_is_the_callers(tmp_path):
    async def use(client):
        began = time.monotonic()
        with pytest.raises(Busy) as caught:
            await client.get(CONFIG_MAP, KEY)
        assert caught.value.after == 120.0
        assert time.monotonic() - began < 1.0

    assert run(script((429, status(429), {"Retry-After": "120"})), use, tmp_path).count("GET") == 1


@pytest.mark.parametrize("answer", [(429, status(429), {"Retry-After": "0"}), (500, status(500)), broken])
def test_what_may_not_be_done_twice_is_sent_once(tmp_path, answer):
    async def use(client):
        for call in (client.create(config_map()), client.merge(CONFIG_MAP, KEY, {})):
            with pytest.raises(Busy):
                await call

    server = run(script(answer), use, tmp_path)
    assert [one.method for one in server.asked] == ["POST", "PATCH"]


def test_apply_and_delete_are_sent_again_when_the_connection_breaks(tmp_path):
    async def use(client):
        await client.apply(config_map())
        assert await client.delete(CONFIG_MAP, KEY)

    server = run(script(broken, (200, config_map()), broken, (200, status(200))), use, tmp_path)
    assert [one.method for one in server.asked] == ["PATCH", "PATCH", "DELETE", "DELETE"]


def test_a_server_that_never_answers_is_given_up_in_time(tmp_path):
    async def use(client):
        began = time.monotonic()
        with pytest.raises(Busy, match="in time"):
            await client.get(CONFIG_MAP, KEY)
        assert time.monotonic() - began < 2.0

    run(script(silent), use, tmp_path, timeout=0.3)


def test_a_body_that_stops_half_way_is_busy(tmp_path):
    async def use(client):
        with pytest.raises(Busy):
            await client.create(config_map())

    run(script(streamed(b'{"kind":"Conf', cut=True)), use, tmp_path)


@pytest.mark.parametrize("body", [b'{"kind":"Conf', b"<html>proxy</html>", b"[]", b"", b"\xff"])
def test_a_body_that_is_no_object_is_busy(tmp_path, body):
    async def use(client):
        with pytest.raises(Busy) as caught:
            await client.get(CONFIG_MAP, KEY)
        assert caught.value.reason == "BadAnswer"

    run(script((200, body)), use, tmp_path)


@pytest.mark.parametrize("chunked", [True, False])
def test_an_endless_body_is_cut_at_the_bound(tmp_path, monkeypatch, chunked):
    monkeypatch.setattr("kars.kube.transport.CONNECTIONS", 1)

    async def use(client):
        for _ in range(2):  # the one connection must be free again
            with pytest.raises(ApiError) as caught:
                await client.read_log(Key("n", "p"), limit=5000)
            assert caught.value.reason == "ResponseTooLarge"

    body = b"x" * 100_000
    run(script(streamed(*[body] * 20) if chunked else (200, body)), use, tmp_path)


def test_a_log_is_bytes_of_the_container(tmp_path):
    async def use(client):
        assert await client.read_log(Key("n", "p"), container="agent", limit=10) == b"\xff\xfelog"

    server = run(script((200, b"\xff\xfelog")), use, tmp_path)
    assert (server.asked[0].path, server.asked[0].query) == (POD_PATH, {"container": "agent", "limitBytes": "10"})


def test_a_redirect_is_not_followed(tmp_path):
    async def use(client):
        with pytest.raises(ApiError) as caught:
            await client.get(CONFIG_MAP, KEY)
        assert caught.value.status == 307

    async def main():
        async with serve(script((200, config_map())), tmp_path) as other:
            async with connected(script((307, b"", {"Location": other.url})), tmp_path) as (client, _):
                await use(client)
            assert not other.asked

    asyncio.run(main())


def test_delete_says_whether_it_was_there_and_names_the_very_object(tmp_path):
    async def use(client):
        assert await client.delete(CONFIG_MAP, KEY, uid="u")
        assert not await client.delete(CONFIG_MAP, KEY)
        with pytest.raises(Conflict):
            await client.delete(CONFIG_MAP, KEY, uid="v")

    server = run(script((200, status(200)), (404, status(404)), (409, status(409))), use, tmp_path)
    assert server.asked[0].body["preconditions"] == {"uid": "u"}
    assert server.asked[0].body["propagationPolicy"] == "Background"


def test_a_refused_token_is_read_again_once(tmp_path):
    token = tmp_path / "token"
    token.write_text("old\n")

    def answer(asked):
        if asked.headers["Authorization"] == "Bearer new":
            return 200, config_map()
        token.write_text("new\n")
        return 401, status(401)

    async def use(client):
        await client.apply(config_map())
        await client.create(config_map())

    server = run(answer, use, tmp_path, user={"tokenFile": str(token)})
    assert [one.headers["Authorization"] for one in server.asked] == ["Bearer old", "Bearer new", "Bearer new"]


def test_a_token_that_stays_refused_is_forbidden_and_read_no_more_for_a_while(tmp_path):
    async def use(client):
        for _ in range(3):
            with pytest.raises(Forbidden):
                await client.get(CONFIG_MAP, KEY)
        assert client.transport.generation == 1

    assert run(script((401, status(401))), use, tmp_path).count("GET") == 4


def test_an_account_that_cannot_be_read_again_leaves_the_refusal(tmp_path):
    async def use(client):
        (tmp_path / "kubeconfig").unlink()
        with pytest.raises(Forbidden):
            await client.get(CONFIG_MAP, KEY)
        with pytest.raises(Forbidden):
            await collect(client, [])

    run(script((401, status(401))), use, tmp_path)


def test_many_refused_at_once_reload_once(tmp_path):
    token = tmp_path / "token"
    token.write_text("old")

    def answer(asked):
        token.write_text("new")
        return (200, config_map()) if asked.headers["Authorization"] == "Bearer new" else (401, status(401))

    async def use(client):
        await asyncio.gather(*(client.get(CONFIG_MAP, KEY) for _ in range(20)))
        assert client.transport.generation == 1

    run(answer, use, tmp_path, user={"tokenFile": str(token)})


def items(*names):
    return [{"metadata": {"name": name, "namespace": "n", "resourceVersion": "3"}} for name in names]


def test_a_list_reads_every_page_and_its_objects_say_what_they_are(tmp_path):
    first = {"metadata": {"resourceVersion": "9", "continue": "next"}, "items": items("a", "b")}
    second = {"metadata": {"resourceVersion": "9"}, "items": items("c")}

    async def use(client):
        objects, version = await client.list(CONFIG_MAP, labels="a=b", fields="metadata.name!=x", page=2)
        assert ([types.key(one).name for one in objects], version) == (["a", "b", "c"], "9")
        assert {(one["apiVersion"], one["kind"]) for one in objects} == {("v1", "ConfigMap")}

    server = run(script((200, first), (200, second)), use, tmp_path)
    assert [one.query.get("continue") for one in server.asked] == [None, "next"]
    assert server.asked[1].query["labelSelector"] == "a=b"


def test_an_empty_list_may_have_null_items(tmp_path):
    async def use(client):
        assert await client.list(CONFIG_MAP) == ([], "4")

    run(script((200, {"metadata": {"resourceVersion": "4"}, "items": None})), use, tmp_path)


def test_a_list_whose_pages_expire_is_read_at_once(tmp_path):
    first = {"metadata": {"resourceVersion": "9", "continue": "next"}, "items": items("a")}
    whole = {"metadata": {"resourceVersion": "12"}, "items": items("a", "b")}

    async def use(client):
        objects, version = await client.list(CONFIG_MAP, page=1)
        assert (len(objects), version) == (2, "12")

    server = run(script((200, first), (410, status(410, "Expired")), (200, whole)), use, tmp_path)
    assert "limit" not in server.asked[2].query


def test_a_page_that_is_too_large_is_asked_for_with_fewer_objects(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PAGE_LIMIT", 1000)

    def answer(asked):
        size = int(asked.query["limit"])
        filler = "x" * (size * 10)
        return 200, {"metadata": {"resourceVersion": "9", "filler": filler}, "items": items("a")}

    async def use(client):
        assert len((await client.list(CONFIG_MAP, page=500))[0]) == 1

    assert [one.query["limit"] for one in run(answer, use, tmp_path).asked] == ["500", "62"]


async def collect(client, into, **settings):
    async for event in client.watch(CONFIG_MAP, version="1", **settings):
        into.append(event)


def watched(tmp_path, *answers, **settings):
    """What a watch yields, what it raises, and the server."""
    found, raised = [], []

    async def use(client):
        try:
            await collect(client, found, **settings)
        except ApiError as error:
            raised.append(error)

    server = run(script(*answers), use, tmp_path)
    return found, raised[0] if raised else None, server


def test_a_watch_yields_its_events_however_they_are_cut(tmp_path):
    whole = line("ADDED", config_map()) + line("BOOKMARK", {"metadata": {"resourceVersion": "5"}})
    opened = []
    found, raised, server = watched(
        tmp_path, streamed(*(whole[i : i + 7] for i in range(0, len(whole), 7))), opened=lambda: opened.append(1)
    )
    assert [(event, value["metadata"]["resourceVersion"]) for event, value in found] == [
        ("ADDED", "1"),
        ("BOOKMARK", "5"),
    ]
    assert (raised, opened) == (None, [1])
    asked = server.asked[0].query
    assert (asked["allowWatchBookmarks"], asked["timeoutSeconds"], asked["resourceVersion"]) == ("true", "200", "1")


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ((410, status(410, "Expired")), Gone),
        ((404, status(404)), Missing),
        (streamed(line("ERROR", status(410, "Expired"))), Gone),
        (streamed(line("ERROR", status(500, "InternalError"))), Busy),
        (streamed(line("ERROR", {"no": "status"})), Busy),
        (streamed(b'{"type":"ADDED","object":{"meta'), Busy),
        (streamed(line("ADDED", config_map()), cut=True), Busy),
        (streamed(b"no json\n"), Busy),
        (streamed(line("ADDED", {"metadata": {}})), Busy),
        (streamed(line("ADDED", {"metadata": 1})), Busy),
        (broken, Busy),
    ],
)
def test_a_watch_that_goes_wrong_says_how(tmp_path, answer, kind):
    assert type(watched(tmp_path, answer)[1]) is kind


def test_a_line_beyond_the_bound_ends_the_watch(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LINE_LIMIT", 1000)
    found, raised, _ = watched(tmp_path, streamed(line("ADDED", config_map()), b"x" * 2000, hold=20))
    assert len(found) == 1
    assert raised.reason == "ResponseTooLarge"


def test_a_silent_watch_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SILENCE", 0.2)
    began = time.monotonic()
    found, raised, _ = watched(tmp_path, streamed(line("ADDED", config_map()), hold=20))
    assert (len(found), raised) == (1, None)
    assert time.monotonic() - began < 3


def test_a_watch_that_outlives_its_time_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SLACK", -0.5)
    began = time.monotonic()
    _, raised, _ = watched(tmp_path, streamed(line("ADDED", config_map()), hold=20), seconds=1)
    assert raised is None
    assert time.monotonic() - began < 3


def test_a_watch_with_a_refused_token_reads_it_again(tmp_path):
    found, raised, server = watched(tmp_path, (401, status(401)), streamed(line("ADDED", config_map())))
    assert (len(found), raised, len(server.asked)) == (1, None, 2)


def test_leaving_a_watch_early_closes_its_connection(tmp_path):
    async def use(client):
        stream = client.watch(CONFIG_MAP, version="1")
        async for _ in stream:
            break
        await stream.aclose()
        assert not client.transport.rest.pool_manager.connector._acquired

    run(script(streamed(line("ADDED", config_map()), hold=20)), use, tmp_path)


def test_a_closed_client_has_no_socket_open(tmp_path):
    async def main():
        async with serve(script(streamed(line("ADDED", config_map()), hold=20)), tmp_path) as server:
            client = await Client.connect(kubeconfig=server.kubeconfig)
            watches = [asyncio.create_task(collect(client, [])) for _ in range(5)]
            await asyncio.sleep(0.2)
            sockets = list(client.transport.rest.sockets)
            assert len(sockets) == 5
            for watch in watches:
                watch.cancel()
            await asyncio.gather(*watches, return_exceptions=True)
            await client.close()
            assert all(one.fileno() < 0 for one in sockets)

    asyncio.run(main())


def test_the_version_is_two_numbers(tmp_path):
    async def use(client):
        assert await client.version() == (1, 36)

    run(script((200, {"major": "1", "minor": "36+"})), use, tmp_path)


def test_counts_every_answer(tmp_path):
    async def use(client):
        await client.get(POD, Key("n", "p"))
        with pytest.raises(Missing):
            await client.get(POD, Key("n", "p"))
        assert client.requests == {("GET", "pods", 200): 1, ("GET", "pods", 404): 1}

    run(script((200, config_map()), (404, status(404))), use, tmp_path)


def test_a_server_that_is_not_there_is_busy_and_says_where_it_was_looked_for(tmp_path):
    async def main():
        async with serve(script((200, {})), tmp_path) as server:
            path = server.kubeconfig
        async with await Client.connect(kubeconfig=path) as client:
            with pytest.raises(Busy, match=r"context test of .* cannot be reached") as caught:
                await client.version()
            assert "--context" in caught.value.hint
            assert "secret-token" not in str(caught.value)

    asyncio.run(main())
