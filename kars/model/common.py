"""Types that more than one kind has: names, texts, times, quantities, references, artifacts, conditions."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import Meta

from kars.model.base import Model, Rule, attribute_name, doc, keyed, re2

# The largest whole number that every JSON reader keeps exact.
EXACT = 2**53 - 1

# RFC 1123 subdomain: what most objects can be called.
SUBDOMAIN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\Z"
# RFC 1123 label: what namespaces, and so sandboxes, can be called.
LABEL = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?\Z"
# Printable ASCII without a space: identifiers of other systems.
VISIBLE = r"^[!-~]+\Z"
# No control byte but tab, line feed and carriage return, so that a text cannot forge a line of a log.
PROSE = r"^[^\x00-\x08\x0B\x0C\x0E-\x1F\x7F]*\Z"
# Not even those: one line.
LINE = r"^[^\x00-\x1F\x7F]*\Z"
HTTP_URL = r"^https?://[!-~]+\Z"
HTTPS_URL = r"^https://[!-~]+\Z"
# k8s.io/apimachinery/pkg/api/resource: a decimal number that is not negative, binary or decimal suffix or exponent.
QUANTITY = r"^[+]?([0-9]+|[0-9]+\.[0-9]*|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]+)?\Z"

Name = Annotated[str, Meta(min_length=1, max_length=253, pattern=SUBDOMAIN)]
# A sandbox's namespace is `kars-<name>`, and a namespace has at most 63 characters.
SANDBOX_NAME_LENGTH = 58
SandboxName = Annotated[str, Meta(min_length=1, max_length=SANDBOX_NAME_LENGTH, pattern=LABEL)]
Identifier = Annotated[str, Meta(min_length=1, max_length=253, pattern=VISIBLE)]
Line = Annotated[str, Meta(max_length=1024, pattern=LINE)]
DisplayName = Annotated[str, Meta(min_length=1, max_length=256, pattern=LINE)]
Image = Annotated[str, Meta(min_length=1, max_length=512, pattern=VISIBLE)]
ENV_NAME = r"^[A-Za-z_][A-Za-z0-9_]*\Z"
EnvName = Annotated[str, Meta(min_length=1, max_length=128, pattern=ENV_NAME)]
LabelValue = Annotated[str, Meta(max_length=63, pattern=r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?\Z")]
Labels = Annotated[dict[str, LabelValue], Meta(max_length=32)]
Url = Annotated[str, Meta(max_length=2048, pattern=HTTP_URL)]
HttpsUrl = Annotated[str, Meta(max_length=2048, pattern=HTTPS_URL)]
Port = Annotated[int, Meta(ge=1, le=65535)]
Count = Annotated[int, Meta(ge=0, le=EXACT, extra_json_schema={"format": "int64"})]
Small = Annotated[int, Meta(ge=0, le=2**31 - 1, extra_json_schema={"format": "int32"})]
# RFC 3339 with an offset, in the spelling that every reader takes. The schema has no `format: date-time`: with one, the
# API server (kube-openapi) lets an array pass as a text.
INSTANT = (
    r"^[12][0-9]{3}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]"
    r"(\.[0-9]{1,9})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])\Z"
)
Time = Annotated[datetime, Meta(tz=True, extra_json_schema={"maxLength": 40, "pattern": re2(INSTANT)})]
Quantity = Annotated[int, Meta(ge=0, le=EXACT)] | Annotated[str, Meta(max_length=64, pattern=QUANTITY)]
# Text of a status: written by kars itself, so unbounded by schema.
Words = str


LABEL_KEY = r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?\Z"


def keys_rule(field: str, pattern: str, message: str) -> Rule:
    """Hold the keys of a map to a pattern, which a schema can only do by CEL."""
    attribute = attribute_name(field)
    compiled = re.compile(pattern)
    return Rule(
        f"!has(self.{field}) || self.{field}.all(k, k.matches('{re2(pattern)}'))",
        message,
        lambda self: all(compiled.search(key) for key in getattr(self, attribute)),
        field=field,
    )


def label_keys(field: str) -> Rule:
    """Hold the keys of a map of labels to what a label's key can be."""
    return keys_rule(field, LABEL_KEY, f"{field} has a key that no label can have")


class NameRef(Model):
    """An object of the same namespace."""

    name: Annotated[Name, doc("Name of the object, in the namespace of the resource that refers to it.")]


class SandboxRef(Model):
    """A KarsSandbox of the same namespace."""

    name: Annotated[SandboxName, doc("Name of the KarsSandbox.")]


class OciArtifactRef(Model):
    """A signed artifact in an OCI registry, pinned by digest."""

    registry: Annotated[
        Annotated[str, Meta(min_length=1, max_length=253, pattern=r"^[!-.0-~]+\Z")],
        doc("Host of the registry, with :port where it is not 443; no path."),
    ]
    repository: Annotated[
        Annotated[str, Meta(min_length=1, max_length=255, pattern=VISIBLE)], doc("Repository in the registry.")
    ]
    digest: Annotated[
        Annotated[str, Meta(max_length=71, pattern=r"^sha256:[a-f0-9]{64}\Z")], doc("Digest of the manifest.")
    ]


class Condition(Model):
    """One aspect of a resource's state, as metav1.Condition."""

    type: Annotated[
        Annotated[str, Meta(min_length=1, max_length=316, pattern=r"^[A-Za-z0-9][-A-Za-z0-9_./]*\Z")],
        doc("Which aspect, in CamelCase."),
    ]
    status: Annotated[Literal["True", "False", "Unknown"], doc("Whether it holds.")]
    reason: Annotated[
        Annotated[str, Meta(min_length=1, max_length=1024, pattern=r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?\Z")],
        doc("Why the status is what it is, in CamelCase, for machines."),
    ]
    message: Annotated[Annotated[str, Meta(max_length=32768)], doc("The same for people; may be empty.")]
    last_transition_time: Annotated[Time, doc("When the status last changed.")]
    observed_generation: Annotated[Count | None, doc("The metadata.generation that was looked at.")] = None


Conditions = Annotated[tuple[Condition, ...], keyed("type", most=32), doc("What is known of the resource, by type.")]
ObservedGeneration = Annotated[Count | None, doc("The metadata.generation that the status is about.")]


class OciSource(Model):
    """Agent code as an image."""

    image: Annotated[Image, doc("Image whose files are the agent's code; pin it by digest.")]


class GitSource(Model):
    """Agent code in a Git repository."""

    url: Annotated[
        Annotated[str, Meta(max_length=2048, pattern=r"^(https|ssh|git)://[!-~]+\Z|^[A-Za-z0-9._-]+@[!-~]+:[!-~]+\Z")],
        doc("URL to clone from."),
    ]
    ref: Annotated[
        Annotated[str, Meta(min_length=1, max_length=255, pattern=r"^[!-,.-~][!-~]*\Z")] | None,
        doc("Branch, tag or commit; the default branch when absent."),
    ] = None
    path: Annotated[
        Annotated[str, Meta(min_length=1, max_length=1024, pattern=r"^[^/\x00-\x1F\x7F][^\x00-\x1F\x7F]*\Z")] | None,
        doc("Directory in the repository, relative to its root."),
    ] = None

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.path) || !self.path.matches('(^|/)[.][.](/|$)')",
            "path must not lead out of the repository",
            lambda self: ".." not in (self.path or "").split("/"),
            field="path",
        ),
    )


class AgentCode(Model):
    """The agent's code, mounted at /sandbox/agent: from an image or from Git."""

    oci: Annotated[OciSource | None, doc("Code as an image.")] = None
    git: Annotated[GitSource | None, doc("Code in a Git repository.")] = None

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.oci) != has(self.git)",
            "agentCode needs exactly one of oci and git",
            lambda self: (self.oci is None) != (self.git is None),
        ),
    )


class EnvVar(Model):
    """A variable of a container."""

    name: Annotated[EnvName, doc("Name of the variable.")]
    value: Annotated[Annotated[str, Meta(max_length=32768)] | None, doc("Its value.")] = None
    value_from: Annotated[
        dict[str, Any] | None, doc("Where its value comes from, as in a Pod (secretKeyRef, configMapKeyRef, fieldRef).")
    ] = None

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!(has(self.value) && has(self.valueFrom))",
            "a variable has value or valueFrom, not both",
            lambda self: self.value is None or self.value_from is None,
        ),
    )


Env = Annotated[tuple[EnvVar, ...], keyed("name", most=64)]
EnvMap = Annotated[dict[str, Annotated[str, Meta(max_length=32768)]], Meta(max_length=64)]

HOST = r"^[*A-Za-z0-9_.:\[\]-]+\Z"
HostName = Annotated[str, Meta(min_length=1, max_length=253, pattern=HOST)]


def empty() -> dict[str, Any]:
    """Make the default of a map."""
    result: dict[str, Any] = msgspec.field(default_factory=dict)
    return result
