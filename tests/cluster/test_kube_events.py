"""Events as the API server takes them and kubectl shows them."""

import asyncio
import json

from kars.kube import events
from kars.kube.client import Client
from kars.kube.events import Recorder
from kars.kube.types import CONFIG_MAP, NAMESPACE, Key


def listed(plane, namespace, name):
    done = plane.kubectl("get", "events.v1.events.k8s.io", "-n", namespace, "-o", "json")
    return [one for one in json.loads(done.stdout)["items"] if one["regarding"]["name"] == name]


def test_kubectl_shows_what_was_told_and_how_often(plane, namespace, monkeypatch):
    monkeypatch.setattr(events, "EVERY", 0.4)
    note = "ä" * 2000

    async def main():
        async with await Client.connect(kubeconfig=str(plane.admin)) as client:
            recorder = Recorder(client, controller="kars-controller", instance="pod-1")
            running = asyncio.create_task(recorder.run())
            metadata = {"name": "c", "namespace": namespace}
            about = await client.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})
            cluster = await client.get(NAMESPACE, Key("", namespace))
            for _ in range(5):
                for one in (about, cluster):
                    recorder.tell(one, reason="Because", action="Looking", note=note, type="Warning")
                await asyncio.sleep(0.1)
            async with asyncio.timeout(10):
                while recorder.written < 4:
                    await asyncio.sleep(0.05)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            assert recorder.dropped == 0
            assert await client.get(CONFIG_MAP, Key(namespace, "c"))

    asyncio.run(main())
    for where, name in ((namespace, "c"), ("default", namespace)):
        (event,) = listed(plane, where, name)
        assert event["series"]["count"] == 5
        assert (event["reason"], event["action"], event["type"]) == ("Because", "Looking", "Warning")
        assert event["reportingController"].startswith("kars-controller/")
        assert event["note"] == "ä" * 512
    assert "Because" in plane.kubectl("describe", "configmap", "c", "-n", namespace).stdout
