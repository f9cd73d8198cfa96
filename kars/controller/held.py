"""What the informers keep of objects: as little as answers every question about them.

A sandbox has some 14 objects, and those of one sandbox differ from another's in a few names. So each is kept as JSON,
deflated against the first one of its kind, and long texts of ConfigMaps (policies, lists) once for all that share them.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping
from typing import Any
from weakref import WeakValueDictionary

import msgspec

from kars.desired import match, names
from kars.kube.types import Key, Object, Type

# The window of deflate: no more of a dictionary is ever looked at.
WINDOW = 1 << 15
# ConfigMap values from here on are kept apart, once for every object that has the same.
LONG = 512
# Numbers of a status that someone asks for.
NUMBERS = frozenset(
    {
        "replicas",
        "readyReplicas",
        "availableReplicas",
        "updatedReplicas",
        "observedGeneration",
        "active",
        "succeeded",
        "failed",
        "startTime",
        "completionTime",
        "lastScheduleTime",
        "lastSuccessfulTime",
        "phase",
    }
)
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"

encode = msgspec.json.Encoder(order="sorted").encode
decode = msgspec.json.Decoder().decode


class Text:
    """A long text that several objects have."""

    __slots__ = ("__weakref__", "text")

    def __init__(self, text: str) -> None:
        self.text = text


class Held(msgspec.Struct, gc=False):
    """One object that the controller made. All but the first three fields is small."""

    body: bytes  # deflated JSON of all but the status and the texts kept apart
    texts: tuple[tuple[str, Text], ...]
    status: bytes  # JSON, empty when there is none
    stamp: str
    uid: str
    owner: str  # labels kars.azure.com/parent-namespace and sandbox, joined by a slash
    deleting: bool
    # The stamp of the plan that this very content was found to agree with; spares looking again.
    checked: str = ""


class Packer:
    """Makes `Held` of the objects of one kind, and objects of `Held`."""

    def __init__(self, kind: Type, shared: WeakValueDictionary[bytes, Text] | None = None) -> None:
        self.kind = kind
        self.shared: WeakValueDictionary[bytes, Text] = WeakValueDictionary() if shared is None else shared
        self.dictionary = b""

    def pack(self, value: Object) -> Held:
        """Keep an object."""
        metadata = value["metadata"]
        body = prune(value)
        del body["apiVersion"], body["kind"]
        texts = self.take_texts(body)
        raw = encode(body)
        if not self.dictionary:
            self.dictionary = raw[-WINDOW:]
        packer = zlib.compressobj(6, wbits=-15, zdict=self.dictionary)
        labels = metadata.get("labels") or {}
        return Held(
            body=packer.compress(raw) + packer.flush(),
            texts=texts,
            status=numbers(value.get("status")),
            stamp=match.stamp_of(value),
            uid=metadata.get("uid", ""),
            owner=owner_of(labels),
            deleting="deletionTimestamp" in metadata,
        )

    def take_texts(self, body: Object) -> tuple[tuple[str, Text], ...]:
        """Take the long texts out of a ConfigMap's data, and share them."""
        data = body.get("data")
        if self.kind.kind != "ConfigMap" or not data:
            return ()
        long = {name: text for name, text in data.items() if len(text) >= LONG}
        body["data"] = {name: text for name, text in data.items() if name not in long}
        return tuple((name, self.share(text)) for name, text in long.items())

    def share(self, text: str) -> Text:
        """Return the one object that holds this text."""
        digest = hashlib.sha256(text.encode()).digest()
        found = self.shared.get(digest)
        if found is None:
            found = self.shared[digest] = Text(text)
        return found

    def unpack(self, held: Held) -> Object:
        """Return the object as it was pruned."""
        value: Object = decode(zlib.decompressobj(wbits=-15, zdict=self.dictionary).decompress(held.body))
        value["apiVersion"], value["kind"] = self.kind.api_version, self.kind.kind
        if held.texts:
            value["data"] = {**value.get("data", {}), **{name: text.text for name, text in held.texts}}
        if held.status:
            value["status"] = decode(held.status)
        return value


def owner_of(labels: Mapping[str, str]) -> str:
    """Return namespace and name of the sandbox that an object is labelled as one of."""
    return f"{labels.get(names.PARENT_NAMESPACE, '')}/{labels.get(names.SANDBOX, '')}"


def inherit(before: Held | None, after: Held | None) -> None:
    """Carry over that an object was found as planned, when only its status changed."""
    if before is None or after is None or before.uid != after.uid or after.checked:
        return
    if before.body == after.body and [text for _, text in before.texts] == [text for _, text in after.texts]:
        after.checked = before.checked


def prune(value: Object) -> Object:
    """Return what a plan can say of an object; of a Secret, digests instead of its data.

    The version is not part of it: it changes with every status, and nothing that is held says what was written.
    """
    kept = match.pruned(value)
    metadata = kept["metadata"] = {name: one for name, one in kept["metadata"].items() if name != "resourceVersion"}
    if "generation" in value["metadata"]:
        # Which spec a status is about.
        metadata["generation"] = value["metadata"]["generation"]
    if LAST_APPLIED in (metadata.get("annotations") or {}):
        metadata["annotations"] = {k: v for k, v in metadata["annotations"].items() if k != LAST_APPLIED}
    return kept


def numbers(status: Any) -> bytes:  # noqa: ANN401 - of any kind
    """Keep the few numbers of a status, and its conditions without their times and texts."""
    if not isinstance(status, Mapping):
        return b""
    kept: dict[str, Any] = {name: status[name] for name in NUMBERS if name in status}
    conditions = status.get("conditions")
    if conditions:
        kept["conditions"] = [
            {name: one[name] for name in ("type", "status", "reason", "message") if name in one} for one in conditions
        ]
    return encode(kept) if kept else b""


class Pod(msgspec.Struct, frozen=True, gc=False):
    """A sandbox's pod, as far as anyone asks."""

    key: Key
    sandbox: str  # label kars.azure.com/sandbox
    ip: str = ""
    ready: bool = False
    phase: str = ""
    deleting: bool = False
    router_ready: bool = False
    router_restarts: int = 0
    restarts: int = 0  # of all containers
    # Why a container waits or ended, the first that does: CrashLoopBackOff, ImagePullBackOff, ...
    reason: str = ""
    message: str = ""


def router_of(pod: Pod | None) -> tuple[str, int] | None:
    """Return what tells the router of a pod from the one before it; None while there is none that can be asked."""
    if pod is None or not (pod.ready and pod.ip) or pod.deleting:
        return None
    return pod.ip, pod.router_restarts


# Longest text of a kubelet's message that is kept; the rest is repetition.
LONGEST_MESSAGE = 512
# Of a container's last words, one line.
LONGEST_WORDS = 256
# Containers whose last words may be shown: they hold no secret and no prompt. An agent's, and git's, may.
SPOKEN = frozenset({names.ROUTER, names.GUARD})


def keep_addresses(value: Object) -> tuple[tuple[str, int], ...]:
    """Keep of an EndpointSlice its addresses with their ports, sorted."""
    ports = [port["port"] for port in value.get("ports") or () if port.get("port")]
    found = {address for endpoint in value.get("endpoints") or () for address in endpoint.get("addresses") or ()}
    return tuple((address, port) for address in sorted(found) for port in sorted(ports))


def keep_pod(value: Object) -> Pod:
    """Keep a pod."""
    metadata, status = value["metadata"], value.get("status") or {}
    containers = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    router: Mapping[str, Any] = next((one for one in containers if one.get("name") == names.ROUTER), {})
    reason, message = trouble(status, containers)
    return Pod(
        key=Key(metadata.get("namespace", ""), metadata["name"]),
        sandbox=(metadata.get("labels") or {}).get(names.SANDBOX, ""),
        ip=status.get("podIP", ""),
        ready=any(one.get("type") == "Ready" and one.get("status") == "True" for one in status.get("conditions") or ()),
        phase=status.get("phase", ""),
        deleting="deletionTimestamp" in metadata,
        router_ready=bool(router.get("ready")),
        router_restarts=int(router.get("restartCount") or 0),
        restarts=sum(int(one.get("restartCount") or 0) for one in containers),
        reason=reason,
        message=message[:LONGEST_MESSAGE],
    )


def ending(one: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Say how a container ended that ends again and again: its exit status, and the last words of our own."""
    last = now if "exitCode" in now else ((one.get("lastState") or {}).get("terminated") or {})
    if "exitCode" not in last:
        return ""
    words = (last.get("message") or "") if one.get("name") in SPOKEN else ""
    # Not a line of the log, whose time would make it another text each time.
    said = [line.strip() for line in words.splitlines() if line.strip() and not line.startswith("{")]
    told = next((line for line in said if line.startswith("error:")), said[-1] if said else "")
    return f" (it ended with exit status {last['exitCode']}{f': {told[:LONGEST_WORDS]}' if told else ''})"


def trouble(status: Mapping[str, Any], containers: list[Mapping[str, Any]]) -> tuple[str, str]:
    """Return reason and message of what keeps a pod from being ready."""
    usual = {"PodInitializing", "ContainerCreating", "Completed"}
    for one in containers:
        state = one.get("state") or {}
        for phase in ("waiting", "terminated"):
            found = state.get(phase) or {}
            if found.get("reason") and found["reason"] not in usual:
                words = found.get("message") or found["reason"]
                return found["reason"], f"{one.get('name')}: {words}{ending(one, found)}"
    for one in status.get("conditions") or ():
        if one.get("type") == "PodScheduled" and one.get("status") == "False":
            return one.get("reason") or "Unschedulable", one.get("message") or ""
    return status.get("reason") or "", status.get("message") or ""
