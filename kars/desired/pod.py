"""The Deployment: the pod's own fields, its volumes, and its containers in their order."""

from __future__ import annotations

import posixpath

from kars.desired import agent, checkout, config, guard, names, router, runtime
from kars.desired.facts import Facts, Unplannable
from kars.desired.runtime import Program
from kars.kube.types import Object

# An older schema filled in these four characters where it meant nothing.
NO_SELINUX = {"", '\\"\\"'}
KATA = "kata-vm-isolation"
TMP_SIZE = "4Gi"
# A router's own temporary files: the socket of its cold routes.
ROUTER_TMP_SIZE = "16Mi"
# What budgets and audit log may take on the node's disk before the pod is evicted.
RECORDS_SIZE = "2Gi"
TOKEN_SECONDS = 3600


def deployment(facts: Facts, program: Program) -> Object:
    """Return the Deployment; its pod goes by the selector that clients know."""
    spec = facts.sandbox.spec
    labels = {names.SANDBOX: facts.name, names.COMPONENT: "sandbox"}
    template: Object = {
        "metadata": {"labels": {**labels, names.WORKLOAD_IDENTITY: "true"}, "annotations": notes(facts, program)},
        "spec": pod(facts, program),
    }
    result: Object = {
        "replicas": 0 if spec.suspended else 1,
        "selector": {"matchLabels": {names.SANDBOX: facts.name}},
        "template": template,
    }
    if spec.sandbox.persistence is not None or facts.platform.router_storage:
        result["strategy"] = {"type": "Recreate"}  # a claim goes with one pod at a time
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": config.metadata(facts, facts.name, {names.COMPONENT: "sandbox"}),
        "spec": result,
    }


def notes(facts: Facts, program: Program) -> dict[str, str]:
    """Return the pod's annotations.

    The webhook of Azure's workload identity gives its token to every container that is not named: only the router has
    a use for it. OpenClaw reads its configuration once, so that another configuration is another pod.
    """
    others = [program.container]
    if facts.platform.guard == "init":
        others.append(names.GUARD)
    if checkout.container(facts, program) is not None:
        others.append(names.CODE)
    result = {names.SKIP_CONTAINERS: ";".join(others)}
    if program.config:
        result[names.CONFIG_DIGEST] = names.short_hash(config.compact(program.config), 32)
    return result


def pod(facts: Facts, program: Program) -> Object:
    """Return the pod's spec."""
    confinement = facts.sandbox.spec.sandbox
    confidential = confinement.isolation == "confidential"
    first, mains = containers(facts, program)
    security: Object = {
        "runAsNonRoot": confinement.run_as_non_root,
        "runAsUser": guard.AGENT_UID,
        "runAsGroup": guard.AGENT_UID,
        "fsGroup": guard.AGENT_UID,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": seccomp(facts),
    }
    if confinement.selinux_context not in NO_SELINUX:
        security["seLinuxOptions"] = {"type": confinement.selinux_context}
    result: Object = {
        "serviceAccountName": names.ACCOUNT,
        "automountServiceAccountToken": False,
        # A Service called `router` would set ROUTER_PORT in every container.
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": facts.platform.termination_grace,
        "securityContext": security,
        "nodeSelector": {names.POOL: "sandbox-kata" if confidential else "sandbox"},
        "tolerations": [{"key": names.SANDBOX, "operator": "Equal", "value": "true", "effect": "NoSchedule"}],
        "containers": mains,
        "volumes": volumes(facts, program),
    }
    if confidential:
        result["runtimeClassName"] = KATA
    if first:
        result["initContainers"] = first
    return result


def seccomp(facts: Facts) -> Object:
    """Return the pod's seccomp profile: one of the node's for isolation enhanced, the runtime's own for all else."""
    confinement = facts.sandbox.spec.sandbox
    if router.isolation(facts) == "enhanced" and confinement.seccomp_profile not in {"", "RuntimeDefault"}:
        return {"type": "Localhost", "localhostProfile": f"profiles/{confinement.seccomp_profile}.json"}
    return {"type": "RuntimeDefault"}


def containers(facts: Facts, program: Program) -> tuple[list[Object], list[Object]]:
    """Return the containers that start before the agent, in their order, and those that run beside it."""
    first = [guard.container(facts)] if facts.platform.guard == "init" else []
    main = agent.container(facts, program, agent_mounts(facts, program))
    sidecar = router.container(facts, program, router_mounts(facts))
    code = checkout.container(facts, program)
    if facts.native_sidecars:
        return [*first, sidecar, *([code] if code else [])], [main]
    return [*first, *([code] if code else [])], [main, sidecar]


def agent_mounts(facts: Facts, program: Program) -> list[Object]:
    """Return what the agent sees: what it may write, its code, its policy; nothing of the router's."""
    mounts: list[Object] = [
        {"name": "sandbox-data", "mountPath": "/sandbox"},
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - a path in the agent's container
    ]
    if facts.tools is not None:
        mounts.append({"name": "agt-policy", "mountPath": agent.POLICY_PATH, "readOnly": True})
    if program.config:
        mounts.append({"name": "openclaw-config", "mountPath": agent.CONFIG_PATH, "readOnly": True})
    if program.code is not None:
        mounts.append(checkout.mount(facts, program.code))
    if facts.sre:
        mounts.append({"name": "api-token", "mountPath": router.TOKEN_PATH, "readOnly": True})
    mounts += [{"name": name, "mountPath": path} for path, name in writable(facts, program).items()]
    return mounts


def writable(facts: Facts, program: Program) -> dict[str, str]:
    """Return the further paths that the agent may write to, each with its volume's name."""
    result = {}
    for given in facts.sandbox.spec.sandbox.writable_paths:
        path = posixpath.normpath("/" + given.lstrip("/"))
        if path in {"/sandbox", "/tmp"}:  # noqa: S108 - a path in the agent's container
            continue
        if path == "/" or path.startswith(("/var/run/secrets", "/run/secrets")):
            raise Unplannable("SpecInvalid", f"sandbox.writablePaths: {path} is not the agent's to write to")
        if program.code is not None and (path + "/").startswith(agent.CODE_PATH + "/"):
            raise Unplannable("SpecInvalid", f"sandbox.writablePaths: {path} is where the agent's code is mounted")
        result[path] = f"writable-{names.short_hash(path)}"
    return result


def router_mounts(facts: Facts) -> list[Object]:
    """Return what the router sees: its token, policies and keys, and where it keeps records."""
    mounts = [read("admin-token", router.SECRETS_PATH), *policy_mounts(facts)]
    if config.key_items(facts):
        mounts.append(read("model-keys", router.KEYS_PATH))
    if facts.spawns:
        mounts.append(read("api-token", router.TOKEN_PATH))
    return [
        *mounts,
        {"name": "router-records", "mountPath": router.STATE_PATH, "subPath": "state"},
        {"name": "router-records", "mountPath": router.AUDIT_PATH, "subPath": "audit"},
        {"name": "router-tmp", "mountPath": "/tmp"},  # noqa: S108 - a path in the router's container
    ]


def policy_mounts(facts: Facts) -> list[Object]:
    """Return the policies, each a directory: a file of its own would not follow changes."""
    mounts = [read("blocklist-seed", router.BLOCKLIST_PATH)] if facts.blocklist is not None else []
    mounts += [read("egress-allowlist", router.EGRESS_PATH), read("egress-approvals", router.APPROVALS_PATH)]
    if facts.tools is not None:
        mounts.append(read("agt-policy", agent.POLICY_PATH))
    mounts.append(read("inference-policy", router.INFERENCE_PATH))
    if facts.memory is not None:
        mounts.append(read("claw-memory-binding", router.MEMORY_PATH))
    for server in facts.mcp:
        mounts.append(read(names.volume("mcp-jwks", server.name), f"{router.MCP_PATH}/{server.name}"))
        if server.signing is not None:
            mounts.append(read(names.volume("mcp-signing", server.name), f"{router.SIGNING_PATH}/{server.name}"))
    if facts.card is not None:
        mounts.append(read("a2a-card", router.CARD_PATH))
    if facts.trust is not None:
        mounts.append(read("trustgraph-projection", router.TRUST_PATH))
    return mounts


def read(name: str, path: str) -> Object:
    """Return a mount that nobody writes to."""
    return {"name": name, "mountPath": path, "readOnly": True}


def volumes(facts: Facts, program: Program) -> list[Object]:
    """Return the pod's volumes.

    `optional` stands only where the router takes absence for a no: no allowlist lets nothing out, no approval approves
    nothing, no inference policy answers nothing. Everything else must be there before the pod starts.
    """
    persistent = facts.sandbox.spec.sandbox.persistence is not None
    result: list[Object] = [
        claim("sandbox-data", names.data_claim(facts.name)) if persistent else {"name": "sandbox-data", "emptyDir": {}},
        {"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": TMP_SIZE}},
        secret("admin-token", names.ADMIN_TOKEN, [{"key": "token", "path": "admin-token"}]),
    ]
    if facts.blocklist is not None:
        result.append(config_map("blocklist-seed", names.blocklist(facts.name)))
    result += [
        config_map("egress-allowlist", names.allowlist(facts.name), optional=True),
        config_map("egress-approvals", names.approvals(facts.name), optional=True),
    ]
    if facts.tools is not None:
        result.append(config_map("agt-policy", facts.tools.name))
    result.append(config_map("inference-policy", facts.inference.name, optional=True))
    if facts.memory is not None:
        result.append(config_map("claw-memory-binding", facts.memory.name))
    for server in facts.mcp:
        result.append(config_map(names.volume("mcp-jwks", server.name), server.keys.name))
        if server.signing is not None:
            result.append(secret(names.volume("mcp-signing", server.name), server.signing.name))
    if facts.card is not None:
        result.append(config_map("a2a-card", facts.card.name))
    if facts.trust is not None:
        result.append(config_map("trustgraph-projection", names.trust(facts.name)))
    return [*result, *own_volumes(facts, program)]


def own_volumes(facts: Facts, program: Program) -> list[Object]:
    """Return the volumes that no table of clients names."""
    result: list[Object] = []
    if keys := config.key_items(facts):
        result.append(secret("model-keys", names.MODEL_KEYS, keys))
    if program.config:
        result.append(config_map("openclaw-config", names.openclaw_config(facts.name)))
    if program.code is not None:
        result.append(checkout.volume(facts, program.code))
    result += [{"name": name, "emptyDir": {}} for name in writable(facts, program).values()]
    if facts.platform.router_storage:
        result.append(claim("router-records", names.records_claim(facts.name)))
    else:
        result.append({"name": "router-records", "emptyDir": {"sizeLimit": RECORDS_SIZE}})
    result.append({"name": "router-tmp", "emptyDir": {"medium": "Memory", "sizeLimit": ROUTER_TMP_SIZE}})
    if facts.platform.guard == "init":
        result.append({"name": "guard-run", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}})
    if facts.spawns or facts.sre:
        result.append(api_token())
    return result


def config_map(name: str, source: str, *, optional: bool = False) -> Object:
    """Return a volume of a ConfigMap."""
    return {"name": name, "configMap": {"name": source, **({"optional": True} if optional else {})}}


def secret(name: str, source: str, items: list[Object] | None = None) -> Object:
    """Return a volume of a Secret, for the pod's group and nobody else."""
    return {"name": name, "secret": {"secretName": source, "defaultMode": 0o440, **({"items": items} if items else {})}}


def claim(name: str, source: str) -> Object:
    """Return a volume of a claim."""
    return {"name": name, "persistentVolumeClaim": {"claimName": source}}


def api_token() -> Object:
    """Return the account's token, as every client looks for it; only the container that needs it mounts it."""
    return {
        "name": "api-token",
        "projected": {
            "defaultMode": 0o440,
            "sources": [
                {"serviceAccountToken": {"path": "token", "expirationSeconds": TOKEN_SECONDS}},
                {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                {
                    "downwardAPI": {
                        "items": [
                            {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}
                        ]
                    }
                },
            ],
        },
    }


def service(facts: Facts, program: Program) -> Object:
    """Return the Service, with or without governance: policies' echoes and peers come by it."""
    ports = [("inference", router.PORT), *runtime.SERVICE_PORTS.get(program.kind, ())]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": config.metadata(facts, names.service(facts.name), {names.COMPONENT: "sandbox"}),
        "spec": {
            "type": "ClusterIP",
            "selector": {names.SANDBOX: facts.name},
            "ports": [
                {"name": name, "port": number, "targetPort": number, "protocol": "TCP"} for name, number in ports
            ],
        },
    }
