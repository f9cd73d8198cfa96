"""The proxy that chaos tests put in front of the API server does what it says."""

import json
import threading
import time

import pytest
import requests

from tests.cluster import chaos
from tests.cluster.api import Api, ApiError

MAPS = "/api/v1/namespaces/{}/configmaps"


@pytest.fixture
def proxy(plane):
    made = chaos.Proxy(plane).start()
    yield made
    made.stop()


@pytest.fixture
def api(plane, proxy):
    made = Api(proxy.url, authority=str(plane.authority_file), token=plane.token)
    yield made
    made.close()


class Watch:
    """A watch through the proxy: its events, and how it ended."""

    def __init__(self, api, path):
        self.events = []
        self.ended = None
        self.response = api.session.get(f"{api.url}{path}?watch=true", stream=True, timeout=(5, 20))
        self.thread = threading.Thread(target=self.read)
        self.thread.start()

    def read(self):
        try:
            for line in self.response.iter_lines():
                self.events.append(json.loads(line))
            self.ended = "closed"
        except (requests.RequestException, ValueError) as error:
            self.ended = type(error).__name__
        finally:
            self.response.close()


def test_passes_everything_on_and_counts_by_verb(plane, proxy, api, namespace):
    maps = MAPS.format(namespace)
    api.create(maps, {"metadata": {"name": "one"}, "data": {"a": "x" * 300_000}})
    api.apply(f"{maps}/one", {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "one"}, "data": {"b": "c"}})
    assert api.get(f"{maps}/one")["data"].keys() == {"a", "b"}
    api.merge(f"{maps}/one", {"data": {"b": None}})
    assert [one["metadata"]["name"] for one in api.items(maps)][-1] == "one"
    api.delete(f"{maps}/one")
    counts = proxy.counts()
    assert counts["POST", maps] == counts["LIST", maps] == 1
    verbs = ("APPLY", "GET", "PATCH", "DELETE")
    assert [counts[verb, f"{maps}/one"] for verb in verbs] == [1, 1, 1, 1]


def test_kubectl_works_through_it(plane, proxy, namespace):
    config = plane.service_account_kubeconfig(namespace, "default", server=proxy.url)
    assert f"{namespace}:default" in plane.kubectl("auth", "whoami", config=config).stdout


@pytest.mark.parametrize(
    ("fault", "code"),
    [(chaos.busy(7), 429), (chaos.failing(500), 500), (chaos.failing(503), 503), (chaos.conflict(), 409)],
    ids=["busy", "failing", "unavailable", "conflict"],
)
def test_refuses_as_often_as_it_is_told(proxy, api, namespace, fault, code):
    maps = MAPS.format(namespace)
    hit = proxy.inject("POST .*/configmaps", fault, times=2)
    for _ in range(2):
        with pytest.raises(ApiError) as caught:
            api.create(maps, {"metadata": {"name": "one"}})
        assert caught.value.status == caught.value.body["code"] == code
    api.create(maps, {"metadata": {"name": "one"}})
    assert hit.hits == 2


def test_says_when_to_come_back(proxy, api):
    proxy.inject("GET /version", chaos.busy(7))
    assert api.session.get(f"{api.url}/version").headers["Retry-After"] == "7"


def test_refuses_a_watch_and_breaks_one_off_with_410(plane, proxy, api, namespace):
    maps = MAPS.format(namespace)
    refused = proxy.inject("WATCH", chaos.gone(), times=1)
    with pytest.raises(ApiError, match="too old") as caught:
        api.get(maps, watch="true")
    assert caught.value.status == 410
    proxy.lift(refused)
    proxy.inject("WATCH", stream=chaos.gone_in_stream(events=1), times=1)
    watch = Watch(api, maps)
    plane.api.create(maps, {"metadata": {"name": "one"}})
    watch.thread.join(10)
    assert [one["type"] for one in watch.events] == ["ADDED", "ERROR"]
    assert watch.events[-1]["object"]["code"] == 410


def test_a_half_open_watch_says_nothing_and_stays_open(plane, proxy, api, namespace):
    maps = MAPS.format(namespace)
    proxy.inject("WATCH", stream=chaos.half_open())
    watch = Watch(api, maps)
    plane.api.create(maps, {"metadata": {"name": "one"}})
    time.sleep(0.5)
    assert watch.events == [] and watch.ended is None
    proxy.drop()
    watch.thread.join(10)
    assert watch.ended not in {None, "closed"}


def test_a_reset_cuts_an_answer_in_the_middle(plane, proxy, api, namespace):
    maps = MAPS.format(namespace)
    plane.api.create(maps, {"metadata": {"name": "one"}, "data": {"a": "x" * 100_000}})
    proxy.inject(f"GET {maps}/one", stream=chaos.reset(after=5000), times=1)
    with pytest.raises(OSError):
        api.get(f"{maps}/one")
    assert len(api.get(f"{maps}/one")["data"]["a"]) == 100_000


def test_a_trickle_arrives_whole_but_late(proxy, api):
    proxy.inject("GET /version", stream=chaos.trickle(chunk=20, seconds=0.02))
    began = time.monotonic()
    assert api.get("/version")["major"] == "1"
    assert time.monotonic() - began > 0.1


def test_silence_lasts_until_the_client_gives_up(proxy, api):
    proxy.inject("GET /version", chaos.silent(), times=1)
    with pytest.raises(OSError):
        api.request("GET", "/version", seconds=0.3)
    assert api.get("/version")["major"] == "1"


def test_a_stopped_proxy_ends_every_connection_and_comes_back_on_its_port(plane, proxy, api, namespace):
    watch = Watch(api, MAPS.format(namespace))
    proxy.stop()
    watch.thread.join(10)
    assert watch.ended is not None
    with pytest.raises(OSError):
        api.get("/version")
    proxy.start()
    assert api.get("/version")["major"] == "1"


def test_an_api_server_that_is_gone_is_a_cut_connection(proxy, api, monkeypatch, plane):
    monkeypatch.setattr(proxy.plane, "url", "https://127.0.0.1:9")
    with pytest.raises(OSError):
        api.get("/version")
