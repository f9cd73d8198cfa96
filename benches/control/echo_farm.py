#!/usr/bin/env python3
"""A stand-in for many routers: one process that answers `GET /internal/policy-status` at every pod's address.

A thousand real routers do not fit two cores. This answers as theirs do, on one wildcard socket at port 8443 of every
address in 127.0.0.0/8: the address that was asked at says which pod is meant. What it answers is computed from the
ConfigMaps that the pod mounts, as they stand in the API server (by watches), `--delay` seconds after they changed. As at
a router that is asked from another pod, both sides prove by a code that they know the token of the pod's Secret
`router-admin-token` (`kars/controller/echo.py`). What it is not: a kubelet's mounts, a router's checks of what it loads,
a pod's network.

  echo_farm.py --server https://127.0.0.1:6443 --authority authority.crt --token-file token [--delay 0.2]

Needs a network namespace of its own, or a machine on which nobody else listens on that port of the loopback.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hmac
import json
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvloop

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY)]

from benches.control.watch import Watch  # noqa: E402
from kars.controller import echo  # noqa: E402
from kars.controller.echo import PATH, ROUTER_PORT  # noqa: E402
from kars.policy.compiled.canonical import digest  # noqa: E402
from tests.cluster.watching import Session  # noqa: E402

Object = dict[str, Any]

# What a router of this version reports, by the file that a mounted ConfigMap holds it in.
REPORTED = {"inference-policy.json": "InferencePolicy", "allowlist.json": "EgressAllowlist"}
# Seconds until a question at an address of no known pod is given up: a router knows itself before its pod is ready,
# a watch tells of it a moment later.
PATIENCE = 2.0
LOOK_AGAIN = 0.02
LONGEST_HEAD = 8192


class Farm:
    """What every pod would say."""

    def __init__(self, delay: float) -> None:
        self.delay = delay
        self.pods: dict[str, tuple[str, tuple[str, ...]]] = {}  # by address: namespace, ConfigMaps that are mounted
        self.entries: defaultdict[str, dict[str, list[Object]]] = defaultdict(dict)  # by namespace and ConfigMap
        self.tokens: dict[str, str] = {}

    def pod_changed(self, pod: Object, gone: bool) -> None:
        """A sandbox's pod came, changed or went."""
        address = (pod.get("status") or {}).get("podIP", "")
        if not address:
            return
        if gone:
            self.pods.pop(address, None)
            return
        volumes = pod["spec"].get("volumes") or ()
        maps = tuple(volume["configMap"]["name"] for volume in volumes if "configMap" in volume)
        self.pods[address] = (pod["metadata"]["namespace"], maps)

    def map_changed(self, value: Object, gone: bool) -> None:
        """A ConfigMap came, changed or went; what is mounted of it follows after the delay."""
        metadata = value["metadata"]
        data = {} if gone else value.get("data") or {}
        found = [
            {
                "kind": kind,
                "digest": digest([(file, data[file].encode())]),
                "source_path": file,
                "loaded_at": "2026-01-01T00:00:00.000Z",
                "last_error": None,
            }
            for file, kind in REPORTED.items()
            if file in data
        ]
        loop = asyncio.get_running_loop()
        self.later(loop, lambda: self.entries[metadata["namespace"]].update({metadata["name"]: found}))

    def later(self, loop: asyncio.AbstractEventLoop, change: Callable[[], None]) -> None:
        """Do it now, or after the delay."""
        if self.delay:
            loop.call_later(self.delay, change)
        else:
            change()

    def secret_changed(self, value: Object, gone: bool) -> None:
        """A token came, changed or went."""
        namespace = value["metadata"]["namespace"]
        self.tokens.pop(namespace, None)
        if not gone:
            self.tokens[namespace] = base64.b64decode((value.get("data") or {}).get("token", "")).decode().strip()

    def answer(self, address: str, head: str) -> tuple[int, Object, str] | None:
        """Return status, body and proof of the token; None when no pod of that address is known (yet)."""
        found = self.pods.get(address)
        if found is None or found[0] not in self.tokens:
            return None
        namespace, maps = found
        line, *fields = head.split("\r\n")
        given = next((one.partition(":")[2] for one in fields if one.lower().startswith("authorization:")), "").strip()
        nonce = given.split(" ")[1] if given.count(" ") == 2 else ""
        if not hmac.compare_digest(given.encode(), echo.question(self.tokens[namespace], nonce).encode()):
            return 401, {"error": "unauthorized"}, ""
        if line.split(" ")[:2] != ["GET", PATH]:
            return 404, {"error": "not found"}, ""
        entries = [entry for name in maps for entry in self.entries[namespace].get(name, ())]
        document = {"schema_version": 1, "count": len(entries), "entries": entries, "deployment_health": []}
        proof = echo.code(self.tokens[namespace], b"answer", nonce.encode(), json.dumps(document).encode())
        return 200, document, proof


class Door(asyncio.Protocol):
    """One connection."""

    def __init__(self, farm: Farm) -> None:
        self.farm = farm
        self.buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport
        self.address = transport.get_extra_info("sockname")[0]

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        if len(self.buffer) > LONGEST_HEAD:
            self.transport.close()
        while b"\r\n\r\n" in self.buffer:
            head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
            self.reply(head.decode("latin-1"), asyncio.get_running_loop().time() + PATIENCE)

    def reply(self, head: str, until: float) -> None:
        """Answer now, or as soon as it is known who was asked."""
        loop = asyncio.get_running_loop()
        found = self.farm.answer(self.address, head)
        if found is None:
            if loop.time() < until:
                loop.call_later(LOOK_AGAIN, self.reply, head, until)
                return
            found = 503, {"error": "no pod has this address"}, ""
        status, document, proof = found
        body = json.dumps(document).encode()
        shown = f"{echo.PROOF}: {proof}\r\n" if proof else ""
        words = f"HTTP/1.1 {status} -\r\nContent-Type: application/json\r\n{shown}Content-Length: {len(body)}\r\n\r\n"
        self.transport.write(words.encode() + body)


async def run(chosen: argparse.Namespace) -> None:
    """Watch and answer until ended."""
    session = Session(
        chosen.server, authority=chosen.authority.read_text(), token=chosen.token_file.read_text().strip()
    )
    farm = Farm(chosen.delay)
    managed = "app.kubernetes.io/managed-by=kars-controller"
    watches = (
        Watch(session, "/api/v1/configmaps", farm.map_changed, labelSelector=managed),
        Watch(session, "/api/v1/secrets", farm.secret_changed, fieldSelector="metadata.name=router-admin-token"),
        Watch(session, "/api/v1/pods", farm.pod_changed, labelSelector="kars.azure.com/component=sandbox"),
    )
    loop = asyncio.get_running_loop()
    await loop.create_server(lambda: Door(farm), "0.0.0.0", ROUTER_PORT, backlog=4096)
    print("listening", flush=True)
    async with asyncio.TaskGroup() as tasks:
        for watch in watches:
            tasks.create_task(watch.run())


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", required=True, help="the API server's URL")
    parser.add_argument("--authority", required=True, type=Path, help="its certificate authority, PEM")
    parser.add_argument("--token-file", required=True, type=Path, help="file with a bearer token")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds until a changed ConfigMap is in force")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
