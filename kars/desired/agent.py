"""The agent's container.

It has no probes: the runtime contract promises neither a shell nor a port, so that any probe would say something else
for every image, and an agent that has ended is started again without one. Readiness of the pod is the router's.

It holds no token of the API server, no key of a model and no right to the router's admin routes, which would let it
lift its own policy; what a person gives it by the Secret `<name>-credentials` is that person's choice.
"""

from __future__ import annotations

import re
from typing import Any

from kars.desired import names, runtime, variables
from kars.desired.facts import Facts, Unplannable
from kars.desired.guard import AGENT_UID, PROXY_PORT
from kars.desired.runtime import Program
from kars.desired.variables import Variables
from kars.kube.types import Object
from kars.model.common import ENV_NAME
from kars.model.runtime import RESERVED

DEFAULT_RESOURCES: Object = {
    "requests": {"cpu": "500m", "memory": "1Gi"},
    "limits": {"cpu": "2", "memory": "4Gi"},
}
CODE_PATH = "/sandbox/agent"
POLICY_PATH = "/etc/agt/policies"
CONFIG_PATH = "/etc/kars/openclaw"
# Where a variable of a BYO sandbox may come from. Not from a file (fileKeyRef): volumes are the router's, too.
SOURCES = ("secretKeyRef", "configMapKeyRef", "fieldRef", "resourceFieldRef")
# RFC 3986 loopback names: what must not go through the proxy, above all the router itself.
NO_PROXY = ("127.0.0.1", "localhost", "::1")


def container(facts: Facts, program: Program, mounts: list[Object]) -> Object:
    """Return the agent's container."""
    spec = facts.sandbox.spec
    image = runtime.pinned(facts, program.image)
    needs = spec.resources
    result: Object = {
        "name": program.container,
        "image": image,
        "imagePullPolicy": runtime.pull_policy(facts, image),
        "securityContext": {
            "runAsUser": AGENT_UID,
            "runAsNonRoot": True,
            "privileged": False,
            "allowPrivilegeEscalation": spec.sandbox.allow_privilege_escalation,
            "readOnlyRootFilesystem": spec.sandbox.read_only_root_filesystem,
            "capabilities": {"drop": ["ALL"]},
        },
        "env": env(facts, program),
        "envFrom": [{"secretRef": {"name": names.credentials(facts.name), "optional": True}}],
        "resources": DEFAULT_RESOURCES
        if needs is None
        else {key: value for key, value in (("requests", needs.requests), ("limits", needs.limits)) if value},
        "volumeMounts": mounts,
    }
    if program.command:
        result["command"] = list(program.command)
    if program.args:
        result["args"] = list(program.args)
    if program.ports:
        result["ports"] = [{"name": name, "containerPort": number, "protocol": "TCP"} for name, number in program.ports]
    return result


def env(facts: Facts, program: Program) -> list[Object]:
    """Return the variables in the order of the table: the controller's, the sandbox's own, the controller's last."""
    first, last = Variables(), Variables()
    about_itself(facts, program, first)
    about_services(facts, program, first)
    first.put(variables.mesh(facts))
    about_installation(facts, program, last)
    own = Variables()
    for name, value in {**program.produced, **program.extra}.items():
        if name in program.produced or allowed(name, value):
            own.put({name: value})
    for one in program.raw:
        if allowed(one["name"], ""):
            check_source(facts, one)
            own.rows[one["name"]] = one
    rows = {**first.rows}
    rows.update({name: row for name, row in own.rows.items() if name not in first and name not in last})
    rows.update(last.rows)
    return list(rows.values())


def about_itself(facts: Facts, program: Program, rows: Variables) -> None:
    """Who the agent is, and what runs it."""
    openclaw = program.kind == "OpenClaw"
    if openclaw:
        rows.put({"OPENCLAW_MODEL": facts.model.deployment})
    rows.put(
        {
            "KARS_MODEL": facts.model.deployment,
            "KARS_RUNTIME_CONTRACT_VERSION": variables.CONTRACT_VERSION,
            "KARS_RUNTIME_KIND": program.kind,
            "SANDBOX_NAME": facts.name,
        }
    )
    rows.put_given({"CLUSTER_NAME": facts.platform.cluster_name})
    rows.put(
        {
            "AZURE_OPENAI_ENDPOINT": facts.platform.azure_openai_endpoint,
            "KARS_AUTH_MODE": variables.auth_mode(facts),
        }
    )
    if program.kind == "Hermes" and names.PARENT in facts.sandbox.metadata.labels:
        rows.put({"KARS_MESH_AUTO_RESPONDER": "1"})
    if openclaw:
        rows.secret("OPENCLAW_GATEWAY_TOKEN", names.GATEWAY_TOKEN, "token")


def about_services(facts: Facts, program: Program, rows: Variables) -> None:
    """What stands behind it: the hosted agent, the platform, the mesh."""
    platform, spec, status = facts.platform, facts.sandbox.spec, facts.sandbox.status
    openclaw = program.kind == "OpenClaw"
    rows.put_given({"FOUNDRY_PROJECT_ENDPOINT": platform.foundry_project_endpoint})
    if openclaw:
        rows.put_given(
            {
                "FOUNDRY_DEPLOYMENTS": platform.foundry_deployments,
                "FOUNDRY_AGENT_ID": (status.foundry_agent_id if status else None) or "",
                "FOUNDRY_AGENT_TOOLS": ",".join(spec.agent.tools if spec.agent else ()),
            }
        )
    if spec.agent is not None:
        rows.put_given(
            {
                "KARS_AGENT_INSTRUCTIONS": spec.agent.instructions or "",
                "KARS_AGENT_FILE_IDS": ",".join(spec.agent.file_ids),
            }
        )
    if platform.skip_entra:
        rows.put({"AGT_SKIP_ENTRA": "1"})
    rows.put(variables.mesh_identity(facts))
    if openclaw and platform.strict_tools:
        rows.put({"KARS_STRICT_TOOLS": "1"})
    rows.put({"KARS_MESH_PROVIDER": variables.MESH_PROVIDER})


def about_installation(facts: Facts, program: Program, rows: Variables) -> None:
    """What the tables have after the sandbox's own variables, and the way out."""
    if program.kind == "OpenClaw":
        rows.put_given({"KARS_PROVIDER": facts.platform.provider})
        if facts.platform.dev_profile:
            rows.put({"KARS_DEV_PROFILE": "true"})
        if facts.identity is not None:
            rows.put({"PINNED_AGENT_IDENTITY_APP_ID": facts.identity.app_id})
    if facts.tools is not None:
        rows.put({"AGT_POLICY_DIR": POLICY_PATH})
    rows.put_given({"KARS_MCP_SERVERS": ",".join(one.name for one in facts.mcp)})
    rows.put(proxies(facts))


def proxies(facts: Facts) -> dict[str, str]:
    """Return what makes clients go through the egress proxy, in both cases, since clients differ in which they read.

    A client that knows none of them is redirected by the guard. There is no variable for certificates: nothing is
    intercepted, so the public authorities are right.
    """
    proxy = f"http://127.0.0.1:{PROXY_PORT}"
    direct = ",".join((*NO_PROXY, facts.api_server[0], "kubernetes.default.svc") if facts.sre else NO_PROXY)
    upper = {"HTTP_PROXY": proxy, "HTTPS_PROXY": proxy, "NO_PROXY": direct}
    return {**upper, **{name.lower(): value for name, value in upper.items()}, "NODE_USE_ENV_PROXY": "1"}


def allowed(name: str, value: str) -> bool:
    """Whether a sandbox may set a variable: a name that a variable can have, not the controller's, no NUL."""
    return re.search(ENV_NAME, name) is not None and not name.startswith(RESERVED) and "\0" not in value


def check_source(facts: Facts, one: Object) -> None:
    """Keep a sandbox's author from handing what is the router's to the agent: its Secrets by name, files of volumes."""
    source = one["valueFrom"] or {}
    kind, *more = source or ("nothing",)
    if more or kind not in SOURCES or not is_flat(source[kind]):
        message = f"valueFrom is one of {', '.join(SOURCES)}, not {', '.join(map(str, source)) or kind}"
        raise Unplannable("SpecInvalid", f"runtime.byo.env {one['name']}: {message}")
    secret = source[kind].get("name") if kind == "secretKeyRef" else None
    signing = {server.signing.name for server in facts.mcp if server.signing is not None}
    if secret is not None and secret in {names.ADMIN_TOKEN, names.MODEL_KEYS, *signing}:
        raise Unplannable("SpecInvalid", f"runtime.byo.env {one['name']}: the Secret {secret} is the router's own")


def is_flat(value: Any) -> bool:  # noqa: ANN401 - a member of any shape
    """Whether a value is a map of texts, numbers and switches, as every selector of a source is."""
    return isinstance(value, dict) and not any(isinstance(member, dict | list) for member in value.values())
