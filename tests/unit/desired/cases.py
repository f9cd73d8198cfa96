"""Sandboxes to plan: the least of every runtime, and some that say everything."""

import base64
import copy
from collections.abc import Mapping
from typing import Any

import msgspec

from kars.desired.facts import Facts, IdentityFacts, McpFacts, ModelFacts, Source
from kars.model.decode import parse
from kars.model.runtime import VARIANTS
from kars.model.sandbox import KarsSandbox
from kars.settings.controller import Platform

NAMESPACE = "team-a"
UID = "7d1f3a52-1111-4222-8333-444455556666"


def sandbox(
    name: str = "demo", *, kind: str = "OpenClaw", metadata: Mapping[str, Any] = {}, **spec: Any
) -> KarsSandbox:
    """A valid sandbox; `runtime` members go by their own names, all else is the spec's."""
    runtime = {"kind": kind}
    if kind == "BYO":
        runtime["byo"] = {"image": "ghcr.io/example/agent:1.2", "contractVersion": "v1"}
    runtime |= spec.pop("runtime", {})
    return parse(
        KarsSandbox,
        {
            "apiVersion": "kars.azure.com/v1alpha1",
            "kind": "KarsSandbox",
            "metadata": {"name": name, "namespace": NAMESPACE, "uid": UID, **metadata},
            "spec": {
                "runtime": runtime,
                "sandbox": {},
                "inferenceRef": {"name": f"{name}-inference"},
                **copy.deepcopy(spec),
            },
        },
    )


def source(name: str, *, kind: str = "ConfigMap", owner: tuple[str, str] = ("", ""), **data: str) -> Source:
    """A ConfigMap, or a Secret whose data is written out here."""
    if kind == "Secret":
        data = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
    return Source(kind=kind, name=name, namespace=NAMESPACE, data=data, owner_kind=owner[0], owner_name=owner[1])


def keys(**data: str) -> Source:
    """The platform's development keys."""
    made = source("kars-dev-creds", kind="Secret", **data)
    return msgspec.structs.replace(made, namespace="kars-system")


def mcp(name: str, *, signing: bool = True, bearer: str = "") -> McpFacts:
    """An McpServer."""
    owner = ("McpServer", name)
    return McpFacts(
        name=name,
        keys=source(f"mcp-{name}-jwks", owner=owner, **{"jwks.json": '{"keys":[]}', "meta.json": '{"issuer":""}'}),
        signing=source(f"mcp-{name}-signing", kind="Secret", owner=owner, **{"signing-key.private": "seed"})
        if signing
        else None,
        bearer_from_env=bearer,
    )


def platform(**given: Any) -> Platform:
    """An installation in front of one endpoint."""
    return Platform(**{"azure_openai_endpoint": "https://models.example.com/", **given})


def facts(resource: KarsSandbox | None = None, **given: Any) -> Facts:
    """Facts with what every plan needs."""
    resource = sandbox() if resource is None else resource
    policy = resource.spec.inference_ref.name
    return Facts(
        **{
            "sandbox": resource,
            "platform": platform(),
            "model": ModelFacts(deployment="gpt-4.1"),
            "inference": source(
                f"inferencepolicy-{policy}-profile",
                owner=("InferencePolicy", policy),
                **{"inference-policy.json": '{"appliesTo":{}}'},
            ),
            "tools": source(
                "toolpolicy-kars-default-profile",
                owner=("ToolPolicy", "kars-default"),
                **{"profile.json": "{}", "agt-profile.yaml": 'version: "1.0"\n'},
            ),
            "allowlist": b'{"schemaVersion":1,"endpoints":[]}',
            "allowlist_digest": "sha256:0f2e4905bcdcdf8b99ec031c7c40db8fca289b8e28707e802f8b568860d04fd3",
            "new_tokens": {"gateway-token": "0" * 32, "router-admin-token": "1" * 64},
            **given,
        }
    )


def least(kind: str) -> Facts:
    """A sandbox that says nothing but its runtime."""
    return facts(sandbox(kind.lower(), kind=kind))


def everything() -> Facts:
    """A sandbox of OpenClaw in which every field says something, on an installation that does, too."""
    resource = sandbox(
        "everything",
        metadata={"labels": {"kars.azure.com/parent": "boss", "team": "a"}},
        runtime={
            "openclaw": {
                "version": "2026.5.27",
                "image": "registry.example.com/openclaw:2026.5",
                "config": {"gateway": {"port": 18789}, "agents": ["a", "ä"]},
                "extraEnv": {"LOG_LEVEL": "debug"},
            }
        },
        sandbox={
            "selinuxContext": "container_t",
            "writablePaths": ["/sandbox", "/tmp", "/var/cache/agent"],
            "persistence": {"size": "10Gi", "storageClassName": "fast-ssd", "reclaim": "Retain"},
        },
        memoryRef={"name": "everything-memory"},
        agent={
            "instructions": "Be brief.\nName sources.",
            "tools": ["code_interpreter", "file_search"],
            "fileIds": ["f-1"],
        },
        governance={
            "toolPolicyRef": {"name": "kars-default"},
            "trustThreshold": 700,
            "trustedPeers": "planner:5Hue,writer:4fz",
            "registryMode": "global",
            "mcpServerRefs": [{"name": "search"}, {"name": "play.wright"}],
        },
        azureServices=[{"service": "ai-foundry", "account": "team-a", "permissions": ["inference", "evaluate"]}],
        networkPolicy={
            "egressMode": "Strict",
            "allowedEndpoints": [
                {"host": "github.com"},
                {"host": "*.example.org", "port": 8080},
                {"host": "10.1.2.3", "port": 5432},
            ],
        },
        resources={"requests": {"cpu": "250m", "memory": "512Mi"}, "limits": {"cpu": 2, "nvidia.com/gpu": "1"}},
        a2a={"enabled": True, "agentRef": {"name": "card"}},
    )
    return facts(
        resource,
        platform=platform(
            foundry_endpoint="https://foundry.example.com/",
            foundry_project_endpoint="https://foundry.example.com/api/projects/p",
            foundry_deployments="gpt-4.1,o4",
            imds_client_id="imds",
            content_safety_endpoint="https://safety.example.com/",
            workload_identity_client_id="wi",
            credentials_secret="kars-dev-creds",
            provider="github-models",
            dev_profile=True,
            strict_tools=True,
            cluster_name="west",
            monitoring_namespace="monitoring",
            dns_addresses=("10.0.0.10", "169.254.20.10"),
            private_networks=("10.200.0.0/16",),
            blocklist_config_map="kars-blocklist",
            router_storage="1Gi",
            router_env={"ROUTER_WORKERS": "2", "SANDBOX_NAME": "another", "RUST_LOG": "info"},
        ),
        model=ModelFacts(deployment="gpt-4.1"),
        memory=source(
            "karsmemory-everything-memory-binding", owner=("KarsMemory", "everything-memory"), **{"binding.json": "{}"}
        ),
        mcp=(mcp("search", bearer="SEARCH_TOKEN"), mcp("play.wright")),
        card=source("a2aagent-card-card", owner=("A2AAgent", "card"), **{"agent.json": "{}"}),
        trust=('{"edges": []}', "0123456789abcdef", 2),
        endpoints=resource.spec.network_policy.allowed_endpoints,
        identity=IdentityFacts(app_id="app", tenant_id="tenant", mesh=True),
        children=("worker-b", "worker-a"),
        credentials=keys(AZURE_OPENAI_API_KEY="k", COPILOT_GITHUB_TOKEN="c", UNRELATED="u"),
        blocklist=source("kars-blocklist", **{"domains.txt": "bad.example\n"}),
        pinned={"registry.example.com/openclaw:2026.5": "registry.example.com/openclaw@sha256:" + "a" * 64},
        image_volumes=True,
    )


CODE = {"git": {"url": "https://git.example.com/a.git", "ref": "v1", "path": "src/agent"}}


def cases() -> dict[str, Facts]:
    """Every plan that a snapshot is kept of, by its file's name."""
    sre = sandbox("sre", kind="Hermes", metadata={"labels": {"kars.azure.com/role": "sre"}})
    return {
        **{f"runtime-{kind}": least(kind) for kind in VARIANTS if kind != "SemanticKernel"},
        "runtime-LangGraph-typescript": facts(
            sandbox(
                "graph",
                kind="LangGraph",
                runtime={
                    "langGraph": {
                        "language": "typescript",
                        "agentCode": CODE,
                        "entrypoint": ["node", "/sandbox/agent/x.js"],
                    }
                },
            )
        ),
        "everything": everything(),
        "confidential-suspended": facts(sandbox(sandbox={"isolation": "confidential"}, suspended=True)),
        "standard-ungoverned": facts(
            sandbox(sandbox={"isolation": "standard"}, governance={"enabled": False}), tools=None
        ),
        "sre": facts(sre, sre=True, platform=platform(namespace="kars-system")),
        "node-guard": facts(platform=platform(guard="node", spawn=False)),
        "old-cluster": facts(
            sandbox(
                kind="PydanticAi",
                runtime={
                    "pydanticAi": {
                        "agentCode": {"oci": {"image": "registry.example.com/code:3"}},
                        "pythonVersion": "3.13",
                    }
                },
            ),
            native_sidecars=False,
            sleep_actions=False,
        ),
        "code-volume": facts(
            sandbox(
                kind="OpenAIAgents",
                runtime={
                    "openaiAgents": {"agentCode": {"oci": {"image": "registry.example.com/code@sha256:" + "b" * 64}}}
                },
            ),
            image_volumes=True,
        ),
        "own-endpoint": facts(
            model=ModelFacts(deployment="qwen3", provider="vllm", endpoint="http://vllm.models.svc:8000/v1"),
            credentials=keys(AZURE_OPENAI_API_KEY="k", OPENAI_API_KEY="o"),
        ),
    }
