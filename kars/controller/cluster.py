"""Everything that is known of the cluster, and everything that may be done to it."""

from __future__ import annotations

import contextlib
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar, cast

import msgspec

from kars.controller import held, status
from kars.controller.children import Children, Doer, current
from kars.controller.echo import Echo
from kars.controller.held import Held, Packer, Pod
from kars.controller.index import place
from kars.controller.metrics import Metrics
from kars.desired import names
from kars.errors import ResourceError
from kars.kube import types
from kars.kube.client import Client
from kars.kube.depth import TOO_DEEP
from kars.kube.errors import Conflict, Missing
from kars.kube.events import Recorder
from kars.kube.informer import Informer
from kars.kube.types import Key, Object
from kars.model.base import API_VERSION, Metadata, Resource
from kars.model.decode import parse
from kars.model.kinds import KINDS
from kars.model.sandbox import KarsSandbox
from kars.settings.controller import Controller

if TYPE_CHECKING:
    from kars.artifacts.fetch import Artifacts
    from kars.artifacts.signers import SignerPolicy

Kind = TypeVar("Kind", bound=Resource)
# Called with the kind's name, where the object is, and whether nothing but its status changed.
Listener = Callable[[str, Key, bool], None]

log = logging.getLogger(__name__)

MANAGED = f"{names.MANAGED_BY}={names.CONTROLLER}"
PODS = f"{names.COMPONENT}=sandbox"
SIGNER_POLICY = "kars-signer-policy"
# Where the API server's Service ends up.
API_SERVERS = Key("default", "kubernetes")
# Told, with the pod's key, of a router that can be asked now or cannot any more; not a kind of the API.
ROUTER = "Router"
# What is wrong with a resource of which a member of any shape has too many levels.
DEEP = "spec: something in it is nested too deep to be read"
# Kinds of objects that the controller makes, and so watches.
CHILDREN = (
    types.NAMESPACE,
    types.SERVICE_ACCOUNT,
    types.SECRET,
    types.CONFIG_MAP,
    types.SERVICE,
    types.VOLUME_CLAIM,
    types.DEPLOYMENT,
    types.JOB,
    types.CRON_JOB,
    types.NETWORK_POLICY,
    types.ROLE,
    types.ROLE_BINDING,
    types.CLUSTER_ROLE_BINDING,
    types.DISRUPTION_BUDGET,
)


class Known(msgspec.Struct):
    """A resource as last seen: its struct, or what is wrong with it; and its status where that is not valid."""

    metadata: Metadata
    resource: Resource | None
    owners: status.Owners
    error: str = ""
    status: dict[str, Any] = {}

    def borne(self) -> Object:
        """Return the status that it bears."""
        return self.status if self.resource is None or self.status else status.plain(self.resource)


class Cluster:
    """What reconcilers are given: reads come from watches and cost no request; writes are only what differs."""

    def __init__(  # noqa: PLR0913 - everything it hands on
        self,
        client: Client,
        settings: Controller,
        *,
        recorder: Recorder,
        metrics: Metrics,
        artifacts: Artifacts | None = None,
        now: Callable[[], datetime] | None = None,
    ) -> None:
        self.client = client
        self.settings = settings
        self.recorder = recorder
        self.metrics = metrics
        self.given_artifacts = artifacts
        self.now: Callable[[], datetime] = now or utc_now
        # Of the API server; the process asks before anything is reconciled.
        self.version: tuple[int, int] = (0, 0)
        self.listeners: list[Listener] = []
        self.known_owners: dict[status.Owners, status.Owners] = {}
        self.sandbox_names: dict[str, set[Key]] = {}
        self.sandboxes_spawned: dict[Key, set[Key]] = {}
        self.pods_by_namespace: dict[str, dict[Key, Pod]] = {}
        self.secrets = Secrets(self)
        # Who may sign, as it was read, and of which ConfigMap.
        self.judged: tuple[Object | None, SignerPolicy] | None = None
        # Resources whose finalizers are being written, and by whom.
        self.writing: dict[tuple[str, Key], Doer] = {}
        self.kinds: dict[str, Informer[Known]] = {name: self.watch_kind(kind) for name, kind in KINDS.items()}
        packers = {kind.kind: Packer(kind) for kind in CHILDREN}
        self.made: dict[str, Informer[Held]] = {
            kind.kind: self.watch_made(kind, packers[kind.kind]) for kind in CHILDREN
        }
        self.watched_pods: Informer[Pod] = Informer(
            client,
            types.POD,
            keep=held.keep_pod,
            changed=self.pod_changed,
            labels=PODS,
            seconds=settings.watch_timeout,
        )
        self.own: dict[tuple[str, str], Informer[Object]] = self.watch_own()
        self.api_servers: Informer[tuple[tuple[str, int], ...]] = Informer(
            client,
            types.ENDPOINT_SLICE,
            keep=held.keep_addresses,
            changed=lambda key, before, after: self.tell("EndpointSlice", key) if before != after else None,
            namespace=API_SERVERS.namespace,
            fields=f"metadata.name={API_SERVERS.name}",
            seconds=settings.watch_timeout,
        )
        self.children = Children(client, self.made, packers)
        self.echo = Echo(pods=self.pods, secret=self.read_secret, counted=metrics.heard)

    async def close(self) -> None:
        """Close connections to routers and registries."""
        await self.echo.close()
        if self.given_artifacts is not None:
            await self.given_artifacts.close()

    @property
    def artifacts(self) -> Artifacts:
        """What fetches signed artifacts; made, and its libraries loaded, when one is named for the first time."""
        if self.given_artifacts is None:
            from kars.artifacts import configured

            self.given_artifacts = configured.artifacts(self.settings)
        return self.given_artifacts

    # --- what is watched

    def watch_kind(self, kind: type[Resource]) -> Informer[Known]:
        """Watch one of our kinds."""

        def keep(value: Object) -> Known:
            return self.keep(kind, value)

        def changed(key: Key, before: Known | None, after: Known | None) -> None:
            self.resource_changed(kind.__name__, key, before, after)

        return Informer(
            self.client, types.custom(kind), keep=keep, changed=changed, seconds=self.settings.watch_timeout
        )

    def watch_made(self, kind: types.Type, packer: Packer) -> Informer[Held]:
        """Watch the objects of a kind that bear our label."""

        def changed(key: Key, before: Held | None, after: Held | None) -> None:
            if before is None or after is None:
                self.children.place(kind.kind, key, there=after is not None)
            held.inherit(before, after)
            stamp, doer = self.children.writing.get((kind.kind, key), ("", None))
            if before != after:
                self.tell(kind.kind, key, doer=doer if after is not None and after.stamp == stamp else None)

        keep = packer.pack if kind is not types.SECRET else lambda value: self.secrets.seen(value, packer.pack(value))
        return Informer(
            self.client, kind, keep=keep, changed=changed, labels=MANAGED, seconds=self.settings.watch_timeout
        )

    def watch_own(self) -> dict[tuple[str, str], Informer[Object]]:
        """Watch the few objects of the controller's own namespace that people make, each by its name."""
        platform = self.settings.platform
        names = [
            (types.CONFIG_MAP, SIGNER_POLICY),
            (types.CONFIG_MAP, platform.blocklist_config_map),
            (types.SECRET, platform.credentials_secret),
        ]

        def watch(kind: types.Type, name: str) -> Informer[Object]:
            return Informer(
                self.client,
                kind,
                keep=held.prune,
                changed=lambda key, before, after: self.tell(kind.kind, key) if before != after else None,
                namespace=self.settings.namespace,
                fields=f"metadata.name={name}",
                seconds=self.settings.watch_timeout,
            )

        return {(kind.kind, name): watch(kind, name) for kind, name in names if name}

    def informers(self) -> list[Informer[Any]]:
        """Return every informer."""
        return [*self.kinds.values(), *self.made.values(), self.watched_pods, *self.own.values(), self.api_servers]

    def keep(self, kind: type[Resource], value: Object) -> Known:
        """Turn a document into what is kept of it; an invalid one is kept by its metadata."""
        owners = status.owners(value["metadata"], self.known_owners)
        metadata = {name: member for name, member in value["metadata"].items() if name != "managedFields"}
        if held.LAST_APPLIED in (metadata.get("annotations") or {}):
            annotations = metadata["annotations"].items()
            metadata["annotations"] = {name: text for name, text in annotations if name != held.LAST_APPLIED}
        document = {name: member for name, member in value.items() if member != TOO_DEEP} | {"metadata": metadata}
        borne = document.get("status") or {}
        if value.get("spec") == TOO_DEEP:
            return Known(metadata_of(metadata), None, owners, error=DEEP, status=borne)
        try:
            return Known(metadata_of(metadata), parse(kind, document), owners)
        except RecursionError:  # a little less deep: its decoder went that far, the reading of it does not
            return Known(metadata_of(metadata), None, owners, error=DEEP, status=borne)
        except ResourceError as error:
            wrong = str(error)
        try:
            # A status that an older controller wrote must not keep a resource from being reconciled, and so rewritten.
            resource = parse(kind, {name: member for name, member in document.items() if name != "status"})
        except ResourceError as error:
            return Known(metadata_of(metadata), None, owners, error=str(error), status=borne)
        log.info("cluster.status", extra={"object": f"{kind.__name__} {types.key(value)}", "error": wrong})
        return Known(metadata_of(metadata), resource, owners, status=borne)

    # --- what changes

    def resource_changed(self, kind: str, key: Key, before: Known | None, after: Known | None) -> None:
        """Tell of a change of one of our resources."""
        if kind == "KarsSandbox":
            self.index(key, before, after)
        if before is None or after is None or meant(before) != meant(after):
            doer = self.writing.get((kind, key)) if before and after and same_spec(before, after) else None
            self.tell(kind, key, doer=doer)
        elif before.borne() != after.borne():
            self.tell(kind, key, status_only=True)

    def index(self, key: Key, before: Known | None, after: Known | None) -> None:
        """Note which sandboxes there are of a name, and which another one spawned."""
        if before is None or after is None:
            place(self.sandbox_names, key.name, key, there=after is not None)
        old, new = (known.metadata.labels.get(names.PARENT, "") if known else "" for known in (before, after))
        if old != new:
            for parent, there in ((old, False), (new, True)):
                if parent:
                    place(self.sandboxes_spawned, Key(key.namespace, parent), key, there=there)

    def pod_changed(self, key: Key, before: Pod | None, after: Pod | None) -> None:
        """Note which pods a namespace has, and tell; of routers that can be asked, or cannot any more, by that name."""
        pods = self.pods_by_namespace.setdefault(key.namespace, {})
        if after is None:
            pods.pop(key, None)
            if not pods:
                del self.pods_by_namespace[key.namespace]
        else:
            pods[key] = after
        if before != after:
            self.tell("Pod", key)
        if held.router_of(before) != held.router_of(after):
            self.tell(ROUTER, key)

    def tell(self, kind: str, key: Key, *, status_only: bool = False, doer: Doer = None) -> None:
        """Tell everyone who listens; `doer` is who made the change, where that is known to be one of us."""
        token = current.set(doer or current.get())
        try:
            for listener in self.listeners:
                listener(kind, key, status_only)
        finally:
            current.reset(token)

    # --- what is known

    def known(self, kind: type[Resource], key: Key) -> Known | None:
        """Return what is known of a resource, valid or not."""
        return self.kinds[kind.__name__].get(key)

    def resource(self, kind: type[Kind], key: Key) -> Kind | None:
        """Return a resource as last seen; None when it is not there or not valid (the engine says so in its status)."""
        found = self.known(kind, key)
        return None if found is None else cast("Kind | None", found.resource)

    def resources(self, kind: type[Kind], *, namespace: str = "") -> Iterator[Kind]:
        """Go through the valid resources of a kind, of one namespace or of all."""
        for key, found in self.kinds[kind.__name__].items():
            if found.resource is not None and namespace in {"", key.namespace}:
                yield cast("Kind", found.resource)

    def keys(self, kind: type[Resource]) -> Iterator[Key]:
        """Go through the keys of every resource of a kind, valid or not."""
        return (key for key, _ in self.kinds[kind.__name__].items())

    def document(self, kind: type[Resource], key: Key) -> Object | None:
        """Return apiVersion, kind and metadata of a resource, for events and owner references."""
        found = self.known(kind, key)
        if found is None:
            return None
        metadata: Object = msgspec.to_builtins(found.metadata)
        return {"apiVersion": API_VERSION, "kind": kind.__name__, "metadata": metadata}

    def sandboxes_of(self, namespace: str) -> tuple[Key, ...]:
        """Return the KarsSandboxes that a namespace `kars-<name>` may belong to; who owns it, its labels say."""
        name = namespace.removeprefix("kars-")
        return () if name == namespace else tuple(self.sandbox_names.get(name, ()))

    def spawned_by(self, sandbox: Key) -> list[KarsSandbox]:
        """Return the valid sandboxes that one is labelled as the parent of, by name."""
        found = (self.resource(KarsSandbox, key) for key in sorted(self.sandboxes_spawned.get(sandbox, ())))
        return [one for one in found if one is not None]

    def owns(self, sandbox: Key) -> bool:
        """Whether the namespace of a sandbox's objects stands and is labelled as this sandbox's own."""
        namespace = self.made["Namespace"].get(Key("", names.namespace(sandbox.name)))
        return namespace is not None and namespace.owner == f"{sandbox.namespace}/{sandbox.name}"

    def pods(self, sandbox: Key) -> tuple[Pod, ...]:
        """Return the pods of a sandbox; none while its namespace is not its own."""
        if not self.owns(sandbox):
            return ()
        pods = self.pods_by_namespace.get(names.namespace(sandbox.name), {}).values()
        return tuple(pod for pod in pods if pod.sandbox == sandbox.name)

    def api_endpoints(self) -> tuple[tuple[str, int], ...]:
        """Return where the API server's Service ends up: addresses and ports, sorted."""
        return self.api_servers.get(API_SERVERS) or ()

    def config_map(self, name: str) -> Object | None:
        """Return one of the ConfigMaps of the controller's namespace that people make: signer policy, blocklist."""
        informer = self.own.get(("ConfigMap", name))
        return None if informer is None else informer.get(Key(self.settings.namespace, name))

    def signers(self) -> SignerPolicy:
        """Return whose signatures count: the ConfigMap's, or the variables' where there is none.

        `Refused` with SignerPolicyMalformed when the ConfigMap is none; the variables do not stand in for it then.
        """
        from kars.artifacts import signers

        found = self.config_map(SIGNER_POLICY)
        if self.judged is None or self.judged[0] is not found:
            if found is not None:
                self.judged = found, signers.read(found.get("data") or {})
            else:
                self.judged = found, signers.fallback(self.settings.signer_issuers, self.settings.signer_subjects)
        return self.judged[1]

    async def read_secret(self, key: Key) -> Object | None:
        """Return a Secret of ours, or the credentials' one, with its data (base64); None when there is none.

        It is read from the API server once, and again only after it changed.
        """
        return await self.secrets.read(key)

    # --- what may be done

    async def write_status(self, resource: Resource, wanted: Mapping[str, Any], *, manager: str = "") -> bool:
        """Write the status when it differs from what is there, in anything but the times of unchanged conditions.

        `wanted` is the whole status as the API has it; a member that is not in it is removed, where this manager (by
        default the kind's own) put it. `lastCompiledAt`, `lastReconciledAt` and `lastProbedAt` alone are no reason to
        write. A resource that is gone or was replaced meanwhile is no error. Returns whether anything was written.
        """
        kind = KINDS[type(resource).__name__]
        key = Key(resource.metadata.namespace, resource.metadata.name)
        found = self.known(kind, key)
        if found is None or found.metadata.uid != resource.metadata.uid:
            return False
        return await self.write(kind, key, found, status.normal(kind, wanted), manager=manager)

    def is_news(self, resource: Resource, wanted: Mapping[str, Any]) -> bool:
        """Whether a status differs from what is there, so that `write_status` would write it."""
        kind = KINDS[type(resource).__name__]
        found = self.known(kind, Key(resource.metadata.namespace, resource.metadata.name))
        return found is not None and difference(kind, found, status.normal(kind, wanted)) is not None

    async def write(self, kind: type[Resource], key: Key, found: Known, wanted: Object, *, manager: str = "") -> bool:
        """Write a status in its normal form over what is held."""
        changed = difference(kind, found, wanted, manager=manager)
        if changed is None:
            self.metrics.skipped.labels(kind.__name__).inc()
            return False
        wanted, stale = changed
        where = types.custom(kind)
        with contextlib.suppress(Missing, Conflict):
            if stale:
                precondition = {"resourceVersion": found.metadata.resource_version}
                patch = {"metadata": precondition, "status": stale}
                self.kinds[kind.__name__].put(await self.client.merge(where, key, patch, subresource="status"))
            identity: Object = {"name": key.name, "uid": found.metadata.uid}
            if key.namespace:
                identity["namespace"] = key.namespace
            document = {"apiVersion": API_VERSION, "kind": kind.__name__, "metadata": identity, "status": wanted}
            name = manager or status.manager(kind.__name__)
            before = found.borne()
            self.kinds[kind.__name__].put(await self.client.apply(document, manager=name, status=True))
            for condition, value in status.transitions(wanted, before):
                self.metrics.transitions.labels(condition, value).inc()
            return True
        return False


def difference(
    kind: type[Resource], found: Known, wanted: Object, *, manager: str = ""
) -> tuple[Object, Object] | None:
    """Return the status to apply and the patch that takes away what is nobody's; None when all stands as wanted."""
    owners, borne = dict(found.owners), found.borne()
    wanted = status.settled(wanted, borne)
    stale = {} if manager else status.left_behind(wanted, borne, owners.get("", frozenset()))
    owned = owners.get(manager or status.manager(kind.__name__), frozenset())
    return (wanted, stale) if stale or status.differs(wanted, borne, owned) else None


def meant(known: Known) -> tuple[object, ...]:
    """Return what of a resource is somebody's intent: all but its status."""
    metadata = known.metadata
    return (
        metadata.uid,
        metadata.generation,
        metadata.deletion_timestamp,
        metadata.labels,
        metadata.annotations,
        metadata.finalizers,
        known.error,
    )


def metadata_of(value: Object) -> Metadata:
    """Read the part of an object's metadata that is kept."""
    return msgspec.convert(value, Metadata)


def same_spec(one: Known, other: Known) -> bool:
    """Whether nothing of two states differs but the finalizers."""
    return (*meant(one)[:-2], one.error) == (*meant(other)[:-2], other.error)


def utc_now() -> datetime:
    """Return the time, in UTC and whole seconds, as the API has times."""
    return datetime.now(UTC).replace(microsecond=0)


# Secrets that are kept with their data: one token a sandbox, and then some.
MOST_SECRETS = 8192


class Secrets:
    """Secrets with their data, read once and again after they changed. Nothing here is ever shown.

    The tokens that routers are asked with are kept as the watch brings them, so that a thousand sandboxes are not a
    thousand requests; of all others the watch keeps digests.
    """

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.read_once: OrderedDict[Key, tuple[object, Object]] = OrderedDict()

    def version(self, key: Key) -> object | None:
        """Return something that is equal as long as the Secret's data is the same; None when there is no Secret."""
        found = self.cluster.made["Secret"].get(key)
        if found is not None:
            return found.body
        informer = self.cluster.own.get(("Secret", key.name))
        one = None if informer is None else informer.get(key)
        return None if one is None else held.encode(one)

    def seen(self, value: Object, packed: Held) -> Held:
        """Keep a token that the watch, a list or the answer of a write brought; returns what the watch holds of it."""
        if value["metadata"]["name"] == names.ADMIN_TOKEN:
            self.keep(types.key(value), packed.body, value)
        return packed

    def keep(self, key: Key, version: object, value: Object) -> Object:
        """Keep the data of a Secret, and its name."""
        metadata = {"name": key.name, "namespace": key.namespace}
        kept: Object = {
            "kind": types.SECRET.kind,
            "metadata": metadata,
            "type": value.get("type", ""),
            "data": value.get("data") or {},
        }
        self.read_once[key] = (version, kept)
        self.read_once.move_to_end(key)
        while len(self.read_once) > MOST_SECRETS:
            self.read_once.popitem(last=False)
        return kept

    async def read(self, key: Key) -> Object | None:
        """Return a Secret with its data."""
        version = self.version(key)
        if version is None:
            self.read_once.pop(key, None)
            return None
        found = self.read_once.get(key)
        if found is not None and found[0] == version:
            self.read_once.move_to_end(key)
            return found[1]
        try:
            return self.keep(key, version, await self.cluster.client.get(types.SECRET, key))
        except Missing:
            return None
