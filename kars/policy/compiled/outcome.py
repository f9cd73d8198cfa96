"""What every compiler takes and gives: facts in, objects and digests out; and the names that objects bear.

A compiler is `render(resource, given) -> Compiled`. It raises `Unfit` for a resource of which nothing can be made; what
stands in the cluster then stays as it is. Objects are not stamped yet: who brings them into the cluster does that.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, TypeVar

import msgspec

from kars.errors import ResourceError
from kars.kube.types import CONFIG_MAP, Object
from kars.model.base import API_VERSION, GROUP, Model, Resource
from kars.model.inference import Severity

MANAGED_BY = "app.kubernetes.io/managed-by"
CONTROLLER = "kars-controller"
# What the API server lets a ConfigMap hold (core/v1 MaxSecretSize), less some for what it says beside its data.
CONFIG_MAP_BYTES = 1024 * 1024 - 4096

Spec = TypeVar("Spec", bound=Model)


class Unfit(ResourceError):
    """A resource of which nothing can be made; `reason` is what conditions show.

    SpecInvalid, CanonicalFormViolation (an artifact's content is no spec), JwksFetchFailed, InvalidCredentialMode,
    CorpusBuiltinMissing, CorpusFetchFailed, CorpusParseFailed.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Given(msgspec.Struct, frozen=True, kw_only=True):
    """What a compiler is told beside the resource; each takes what it needs."""

    # Of the artifact that the resource's bundleRef names, once verified: its content as `artifacts.contents` read it
    # (a mapping, of the JSON kinds), its bytes (which tool profiles and corpora are published as), and the digest of
    # its manifest.
    content: Any = None
    body: bytes = b""
    bundle_digest: str = ""
    # The most severe content that an artifact may let pass.
    safety_floor: Severity = "Medium"
    # The controller's own namespace, where cluster-scoped resources have their objects.
    namespace: str = "kars-system"
    # Now, aware; only what has an end looks at it.
    now: datetime | None = None
    # Of an McpServer: the 32 bytes of the Ed25519 seed to sign with, and the issuer's key set as it was fetched.
    seed: bytes = b""
    key_set: bytes = b""


class Compiled(msgspec.Struct, frozen=True, kw_only=True):
    """What a resource comes to."""

    # Complete objects in the order of their applying: apiVersion, kind, metadata with labels and annotations, data.
    objects: tuple[Object, ...] = ()
    # `sha256:<hex>` as the router reports it; empty where no router reports anything.
    digest: str = ""
    # The first hex digits of the document's SHA-256.
    version_hash: str = ""
    # Under which kind routers report the digest; None where there is nothing to wait for.
    echo_kind: str | None = None
    # Members of the kind's status that follow from this: references, hashes, digests, counts. No phase, conditions or
    # times, and no `loadedDigest`: those follow from what routers say.
    status: dict[str, Any] = msgspec.field(default_factory=dict)
    # What was left out of the document, and why, in words for people; told in a condition's message.
    notes: tuple[str, ...] = ()
    # When it would come out otherwise by itself, because something in it begins or ends; look again then.
    until: datetime | None = None


def config_map(
    name: str,
    *,
    namespace: str,
    labels: Mapping[str, str],
    data: Mapping[str, bytes],
    annotations: Mapping[str, str] | None = None,
) -> Object:
    """Make a ConfigMap; labels and annotations are given without the group, which is put before each."""
    size = sum(len(key) + len(body) for key, body in data.items())
    if size > CONFIG_MAP_BYTES:
        raise Unfit("SpecInvalid", f"it comes to {size} bytes, more than the {CONFIG_MAP_BYTES} that a ConfigMap holds")
    metadata: Object = {"name": name, "namespace": namespace, "labels": own_labels(labels)}
    if annotations:
        metadata["annotations"] = grouped(annotations)
    return {
        "apiVersion": CONFIG_MAP.api_version,
        "kind": CONFIG_MAP.kind,
        "metadata": metadata,
        "data": {key: body.decode() for key, body in data.items()},
    }


def grouped(members: Mapping[str, str]) -> dict[str, str]:
    """Put the API group before the name of each label or annotation."""
    return {f"{GROUP}/{name}": value for name, value in members.items()}


def own_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """Return the labels of an object that the controller makes."""
    return {MANAGED_BY: CONTROLLER, **grouped(labels)}


def namespace_of(resource: Resource, given: Given) -> str:
    """Return where the objects of a resource are: beside it, or with the controller when it has no namespace."""
    return resource.metadata.namespace or given.namespace


def merged(spec: Spec, given: Given, *, supplied: tuple[str, ...]) -> Spec:
    """Put an artifact's content in place of `bundleRef`; `Unfit` when there is none, or it makes no valid spec.

    `supplied` names the members that an artifact may have; the resource keeps the others, which say whom it is for. The
    rules of the kind hold for the result as they do for a spec that is written out.
    """
    if given.content is None:
        raise Unfit("SpecInvalid", "the content of bundleRef has not been fetched")
    if not isinstance(given.content, Mapping):
        raise Unfit("CanonicalFormViolation", "the artifact's content is not an object")
    if foreign := sorted(str(key) for key in given.content if key not in supplied):
        raise Unfit("CanonicalFormViolation", f"the artifact has members that it may not have: {', '.join(foreign)}")
    own = msgspec.to_builtins(spec, str_keys=True)
    own.pop("bundleRef", None)
    try:
        return msgspec.convert({**own, **given.content}, type(spec))
    except msgspec.ValidationError as error:
        raise Unfit("CanonicalFormViolation", f"the artifact's content is not valid: {error}") from None


def owner(resource: Resource) -> Object:
    """Return the owner reference of a resource, for objects that the API server takes away with it."""
    return {
        "apiVersion": API_VERSION,
        "kind": type(resource).__name__,
        "name": resource.metadata.name,
        "uid": resource.metadata.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }
