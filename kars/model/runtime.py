"""Which agent runs in a sandbox: a kind, and the struct of that kind.

What the reconciler does with each field stands in its words; a field without a consumer does not exist.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from msgspec import Meta

from kars.model.base import Model, Rule, attribute_name, doc
from kars.model.common import ENV_NAME, AgentCode, Env, EnvMap, Identifier, Image, empty, keys_rule

RuntimeKind = Literal[
    "OpenClaw",
    "OpenAIAgents",
    "MicrosoftAgentFramework",
    "SemanticKernel",
    "LangGraph",
    "Anthropic",
    "PydanticAi",
    "Hermes",
    "BYO",
]

# Kind: the member of `runtime` that goes with it.
VARIANTS = {
    "OpenClaw": "openclaw",
    "OpenAIAgents": "openaiAgents",
    "MicrosoftAgentFramework": "microsoftAgentFramework",
    "SemanticKernel": "semanticKernel",
    "LangGraph": "langGraph",
    "Anthropic": "anthropic",
    "PydanticAi": "pydanticAi",
    "Hermes": "hermes",
    "BYO": "byo",
}

# Beginnings of the variables that only the controller sets.
RESERVED = ("AGT_", "FOUNDRY_AGENT_", "AZURE_", "IMDS_", "KARS_")

Argument = Annotated[str, Meta(max_length=4096, pattern=r"^[^\x00]*\Z")]
Arguments = Annotated[tuple[Argument, ...], Meta(max_length=64)]
ExtraEnv = Annotated[EnvMap, doc("Variables of the agent's container, over the runtime's own defaults.")]
Entrypoint = Annotated[Arguments, doc("Command of the agent's container; the image's own when empty.")]
Code = Annotated[AgentCode | None, doc("The agent's code, mounted at /sandbox/agent.")]
PythonVersion = Annotated[Identifier | None, doc("Python for the agent, as RUNTIME_PYTHON_VERSION.")]

ENV_NAMES = keys_rule("extraEnv", ENV_NAME, "extraEnv has a name that no variable can have")
RESERVED_ENV = Rule(
    "!has(self.extraEnv) || self.extraEnv.all(k, "
    + " && ".join(f"!k.startsWith('{prefix}')" for prefix in RESERVED)
    + ")",
    f"names that begin with {', '.join(RESERVED)} are set by the controller only",
    lambda self: not any(name.startswith(RESERVED) for name in self.extra_env),
    field="extraEnv",
)


class OpenClaw(Model):
    """The OpenClaw gateway and its agent."""

    RULES: ClassVar[tuple[Rule, ...]] = (ENV_NAMES, RESERVED_ENV)

    version: Annotated[Identifier | None, doc("OpenClaw that the image should run, as OPENCLAW_VERSION.")] = None
    image: Annotated[Image | None, doc("Image of the agent's container; the controller's default when absent.")] = None
    config: Annotated[
        dict[str, Any], doc("Merged into the gateway's configuration; mounted as /etc/kars/openclaw/config.json.")
    ] = empty()
    extra_env: ExtraEnv = empty()


class Coded(Model):
    """What every runtime with code of its own has."""

    RULES: ClassVar[tuple[Rule, ...]] = (ENV_NAMES, RESERVED_ENV)

    agent_code: Code = None
    entrypoint: Entrypoint = ()
    extra_env: ExtraEnv = empty()


class OpenAIAgents(Coded):
    """The OpenAI Agents SDK."""

    python_version: PythonVersion = None


class MicrosoftAgentFramework(Coded):
    """Microsoft Agent Framework."""

    language: Annotated[Literal["python"] | None, doc("Language of the agent; python when absent.")] = None


class SemanticKernel(Coded):
    """Semantic Kernel; there is no adapter yet, and the sandbox says so."""

    language: Annotated[Literal["python", "dotnet", "java"] | None, doc("Language of the agent.")] = None


class LangGraph(Coded):
    """LangGraph."""

    language: Annotated[
        Literal["python", "typescript"] | None, doc("Language of the agent; python when absent. Picks the image.")
    ] = None


class Anthropic(Coded):
    """The Claude Agent SDK."""

    python_version: PythonVersion = None


class PydanticAi(Coded):
    """Pydantic AI."""

    python_version: PythonVersion = None


class Hermes(Coded):
    """The Hermes agent."""

    version: Annotated[Identifier | None, doc("Hermes that the image should run, as HERMES_VERSION.")] = None


class Byo(Model):
    """An image of your own that follows the runtime contract."""

    image: Annotated[Image, doc("Image of the agent's container.")]
    contract_version: Annotated[Literal["v1"], doc("Version of the runtime contract that the image follows.")]
    command: Annotated[Arguments, doc("Command of the agent's container; the image's own when empty.")] = ()
    args: Annotated[Arguments, doc("Arguments of the command.")] = ()
    env: Annotated[Env, doc("Variables of the agent's container.")] = ()

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.env) || self.env.all(e, "
            + " && ".join(f"!e.name.startsWith('{prefix}')" for prefix in RESERVED)
            + ")",
            f"names that begin with {', '.join(RESERVED)} are set by the controller only",
            lambda self: not any(variable.name.startswith(RESERVED) for variable in self.env),
            field="env",
        ),
    )


def variant_rule(kind: str, member: str) -> Rule:
    """Let a kind's struct be there only when it is the kind; absent, every member of it has its default."""
    attribute = attribute_name(member)
    return Rule(
        f"!has(self.{member}) || self.kind == '{kind}'",
        f"runtime.{member} may only be set when runtime.kind is {kind}",
        lambda self: getattr(self, attribute) is None or self.kind == kind,
        field=member,
    )


class Runtime(Model):
    """Which agent runs, and how."""

    kind: Annotated[RuntimeKind, doc("Which runtime; only the member that goes with it may be set.")]
    openclaw: Annotated[OpenClaw | None, doc("For kind OpenClaw.")] = None
    openai_agents: Annotated[OpenAIAgents | None, doc("For kind OpenAIAgents.")] = None
    microsoft_agent_framework: Annotated[MicrosoftAgentFramework | None, doc("For kind MicrosoftAgentFramework.")] = (
        None
    )
    semantic_kernel: Annotated[SemanticKernel | None, doc("For kind SemanticKernel.")] = None
    lang_graph: Annotated[LangGraph | None, doc("For kind LangGraph.")] = None
    anthropic: Annotated[Anthropic | None, doc("For kind Anthropic.")] = None
    pydantic_ai: Annotated[PydanticAi | None, doc("For kind PydanticAi.")] = None
    hermes: Annotated[Hermes | None, doc("For kind Hermes.")] = None
    byo: Annotated[Byo | None, doc("For kind BYO.")] = None

    RULES: ClassVar[tuple[Rule, ...]] = (
        *(variant_rule(kind, member) for kind, member in VARIANTS.items()),
        Rule(
            "self.kind != 'BYO' || has(self.byo)",
            "runtime.byo is required when runtime.kind is BYO",
            lambda self: self.kind != "BYO" or self.byo is not None,
            field="byo",
            reason="FieldValueRequired",
        ),
    )
