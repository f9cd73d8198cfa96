"""Runtime kind to image, command, variables: what runs in the agent's container."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from kars.desired import names
from kars.desired.facts import Facts, Unplannable
from kars.kube.types import Object
from kars.model import runtime as model
from kars.model.base import attribute_name
from kars.model.common import AgentCode

GATEWAY_PORT = 18789
DASHBOARD_PORT = 9119
PEER_PORT = 18791

# The struct that stands for `runtime.<kind>` left out: every member has its default.
VARIANTS: dict[str, type[Any]] = {
    "OpenClaw": model.OpenClaw,
    "OpenAIAgents": model.OpenAIAgents,
    "MicrosoftAgentFramework": model.MicrosoftAgentFramework,
    "SemanticKernel": model.SemanticKernel,
    "LangGraph": model.LangGraph,
    "Anthropic": model.Anthropic,
    "PydanticAi": model.PydanticAi,
    "Hermes": model.Hermes,
}

# The kinds whose agent listens: named ports of its container, and those of them that the Service has, too.
PORTS = {
    "OpenClaw": (("gateway", GATEWAY_PORT),),
    "Hermes": (("gateway", GATEWAY_PORT), ("dashboard", DASHBOARD_PORT)),
}
SERVICE_PORTS = {"Hermes": PORTS["Hermes"]}

# Levels of an agent's own configuration: OpenClaw's has fewer than ten.
DEEPEST_CONFIG = 64

TAG = re.compile(r":[A-Za-z0-9_][A-Za-z0-9_.-]*\Z")


class Program(msgspec.Struct, frozen=True, kw_only=True):
    """What runs in the agent's container."""

    kind: str
    container: str
    image: str
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    # The runtime's own variables, which those of the sandbox win over.
    produced: dict[str, str] = msgspec.field(default_factory=dict)
    extra: dict[str, str] = msgspec.field(default_factory=dict)
    # Variables as a Pod has them, with valueFrom.
    raw: tuple[Object, ...] = ()
    code: AgentCode | None = None
    config: dict[str, Any] = msgspec.field(default_factory=dict)

    @property
    def ports(self) -> tuple[tuple[str, int], ...]:
        """Name and number of the container's ports."""
        return PORTS.get(self.kind, ())


def program(facts: Facts) -> Program:
    """Return what the sandbox's runtime says; Unplannable (AdapterMissing) for a kind that has no adapter."""
    runtime = facts.sandbox.spec.runtime
    kind = runtime.kind
    if kind == "SemanticKernel":
        raise Unplannable("AdapterMissing", "there is no adapter for runtime.kind SemanticKernel yet")
    if kind == "BYO":
        return own_image(facts)
    variant = getattr(runtime, attribute_name(model.VARIANTS[kind])) or VARIANTS[kind]()
    if kind == "OpenClaw":
        refuse_deep(variant.config)
        return Program(
            kind=kind,
            container=names.OPENCLAW,
            image=variant.image or facts.platform.sandbox_image,
            produced=given(OPENCLAW_VERSION=variant.version),
            extra=variant.extra_env,
            config=variant.config,
        )
    key = "LangGraph/typescript" if getattr(variant, "language", None) == "typescript" else kind
    return Program(
        kind=kind,
        container=names.AGENT,
        image=facts.platform.runtime_images[key],
        command=variant.entrypoint,
        produced=produced(kind, variant),
        extra=variant.extra_env,
        code=variant.agent_code,
    )


def refuse_deep(config: dict[str, Any]) -> None:
    """Raise for a configuration that could not be written again: a writer of JSON goes down some 900 levels."""
    level: list[Any] = [config]
    for _ in range(DEEPEST_CONFIG):
        level = [inner for one in level for inner in (one.values() if isinstance(one, dict) else one)]
        level = [one for one in level if isinstance(one, dict | list)]
        if not level:
            return
    raise Unplannable("SpecInvalid", f"runtime.openclaw.config is nested deeper than {DEEPEST_CONFIG} levels")


def own_image(facts: Facts) -> Program:
    """Return what a BYO sandbox says: variables with a value are extra, those with a source are taken as they are."""
    byo = facts.sandbox.spec.runtime.byo
    if byo is None:  # the schema does not let it pass
        raise Unplannable("SpecInvalid", "runtime.byo is required when runtime.kind is BYO")
    return Program(
        kind="BYO",
        container=names.AGENT,
        image=byo.image,
        command=byo.command,
        args=byo.args,
        # What the examples of the BYO contract read.
        produced={"KARS_ROUTER_URL": "http://127.0.0.1:8443", "KARS_AGENT_NAME": facts.name},
        extra={one.name: one.value or "" for one in byo.env if one.value_from is None},
        raw=tuple({"name": one.name, "valueFrom": one.value_from} for one in byo.env if one.value_from is not None),
    )


def produced(kind: str, variant: Any) -> dict[str, str]:  # noqa: ANN401 - any of the runtimes' structs
    """Return the variables that a runtime's own fields become."""
    match kind:
        case "MicrosoftAgentFramework":
            return {"RUNTIME_MAF_LANGUAGE": variant.language or "python"}
        case "LangGraph":
            return {"RUNTIME_LANGGRAPH_LANGUAGE": variant.language or "python"}
        case "Hermes":
            return given(HERMES_VERSION=variant.version)
        case _:
            return given(RUNTIME_PYTHON_VERSION=variant.python_version)


def given(**values: str | None) -> dict[str, str]:
    """Return those that have a value."""
    return {name: value for name, value in values.items() if value}


def pinned(facts: Facts, image: str) -> str:
    """Return the image by its digest where signatures are required, else as it is."""
    return facts.pinned.get(image, image)


def pull_policy(facts: Facts, image: str) -> str:
    """Return when the node asks the registry: always for a tag that moves, never twice for anything else."""
    if facts.platform.dev_profile or "@" in image:
        return "IfNotPresent"
    tag = TAG.search(image)
    return "Always" if tag is None or tag.group() == ":latest" else "IfNotPresent"
