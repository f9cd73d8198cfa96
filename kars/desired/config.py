"""What a sandbox's containers read: ConfigMaps, copies of the policies' documents and keys, and claims."""

from __future__ import annotations

import base64
import json
from typing import Any

from kars.desired import names, router
from kars.desired.facts import Facts, Source, Unplannable
from kars.desired.runtime import Program
from kars.kube.types import Object


def metadata(
    facts: Facts,
    name: str,
    labels: dict[str, str] | None = None,
    annotations: dict[str, str] | None = None,
    *,
    namespace: str | None = None,
) -> Object:
    """Return metadata with the labels that every object of a sandbox bears; in the sandbox's namespace by default."""
    result: Object = {
        "name": name,
        "namespace": names.namespace(facts.name) if namespace is None else namespace,
        "labels": {
            names.MANAGED_BY: names.CONTROLLER,
            names.SANDBOX: facts.name,
            names.PARENT_NAMESPACE: facts.sandbox.metadata.namespace,
            **(labels or {}),
        },
    }
    if annotations:
        result["annotations"] = annotations
    return result


def compact(document: Any) -> str:  # noqa: ANN401 - a document of any shape
    """Write JSON without spaces."""
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))


def config_map(meta: Object, data: dict[str, str]) -> Object:
    """Return a ConfigMap."""
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data}


def secret(meta: Object, data: dict[str, str], kind: str = "Opaque") -> Object:
    """Return a Secret; the data is base64 already."""
    return {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "type": kind, "data": data}


def documents(facts: Facts, program: Program) -> list[Object]:
    """Return the ConfigMaps that are made for the sandbox alone."""
    result = []
    if facts.allowlist:
        notes = {names.ALLOWLIST_DIGEST: facts.allowlist_digest} if facts.allowlist_digest else {}
        meta = metadata(facts, names.allowlist(facts.name), {names.ARTIFACT: "egress-allowlist"}, notes)
        result.append(config_map(meta, {"allowlist.json": facts.allowlist.decode()}))
    if facts.trust is not None:
        graph, versions, edges = facts.trust
        meta = metadata(
            facts,
            names.trust(facts.name),
            {names.ARTIFACT: "trustgraph-per-sandbox"},
            {names.TRUST_VERSION: versions, names.TRUST_EDGES: str(edges)},
        )
        result.append(config_map(meta, {"graph.json": graph}))
    if facts.blocklist is not None:
        meta = metadata(facts, names.blocklist(facts.name), {names.COMPONENT: "blocklist"})
        result.append(config_map(meta, {"domains.txt": facts.blocklist.data.get("domains.txt", "")}))
    if program.config:
        meta = metadata(facts, names.openclaw_config(facts.name), {names.ARTIFACT: "openclaw-config"})
        result.append(config_map(meta, {"config.json": compact(program.config)}))
    return result


def sources(facts: Facts) -> list[Source]:
    """Return what is copied from the resource's namespace under its own name."""
    found = [facts.inference, facts.tools, facts.memory, facts.card]
    for server in facts.mcp:
        found += [server.keys, server.signing]
    return [one for one in found if one is not None]


def copies(facts: Facts) -> list[Object]:
    """Return the copies of the policies' documents, and of the platform's keys under a name of their own.

    A resource that lies in its sandbox's own namespace, as the chart's SRE may, has them there already.
    """
    own = names.namespace(facts.name)
    made = [copy(facts, one, one.name) for one in sources(facts) if one.namespace != own]
    if facts.credentials is not None and (kept := model_keys(facts)):
        one = copy(facts, facts.credentials, names.MODEL_KEYS)
        made.append({**one, "type": "Opaque", "data": kept})
    return made


def copy(facts: Facts, source: Source, name: str) -> Object:
    """Return a copy of a ConfigMap or Secret in the sandbox's namespace, labelled with what it was made for."""
    if source.kind == "Secret" and name in {names.ADMIN_TOKEN, names.GATEWAY_TOKEN, names.credentials(facts.name)}:
        raise Unplannable("SpecInvalid", f"a copy of {source.namespace}/{source.name} would replace the sandbox's own")
    kind, origin = source.owner_kind or source.kind, source.owner_name or source.name
    meta = metadata(
        facts,
        name,
        {names.MIRRORED_FROM: names.fit(f"{kind}.{origin}".lower())},
        {names.MIRRORED_FROM_NAMESPACE: source.namespace, names.MIRRORED_FROM_KIND: kind},
    )
    if source.kind == "Secret":
        return secret(meta, source.data, source.type or "Opaque")
    result = config_map(meta, source.data)
    if source.binary_data:
        result["binaryData"] = source.binary_data
    return result


def model_keys(facts: Facts) -> dict[str, str]:
    """Return the keys of the platform's Secret that a router reads."""
    return {key: value for key, value in facts.platform_keys.items() if key in {*router.KEY_FILES, router.COPILOT}}


def key_items(facts: Facts) -> list[Object]:
    """Return which of them are files, and how those are called."""
    kept = model_keys(facts)
    return [{"key": key, "path": file} for key, file in router.KEY_FILES.items() if key in kept]


def tokens(facts: Facts) -> list[Object]:
    """Return the Secrets of the tokens that are written now; one that stands already keeps its token."""
    return [
        secret(metadata(facts, name), {"token": base64.b64encode(facts.new_tokens[name].encode()).decode()})
        for name in (names.GATEWAY_TOKEN, names.ADMIN_TOKEN)
        if name in facts.new_tokens
    ]


def claims(facts: Facts) -> list[Object]:
    """Return the claims: the agent's where its data is kept, the router's where its records are."""
    result = []
    kept = facts.sandbox.spec.sandbox.persistence
    if kept is not None:
        notes: dict[str, str] = {names.RECLAIM: kept.reclaim}
        result.append(claim(facts, names.data_claim(facts.name), str(kept.size), kept.storage_class_name, notes))
    if facts.platform.router_storage:
        result.append(claim(facts, names.records_claim(facts.name), facts.platform.router_storage, None, {}))
    return result


def claim(facts: Facts, name: str, size: str, storage_class: str | None, notes: dict[str, str]) -> Object:
    """Return a claim for one node at a time."""
    spec: Object = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}
    if storage_class is not None:
        spec["storageClassName"] = storage_class
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": metadata(facts, name, annotations=notes),
        "spec": spec,
    }
