"""What the artifacts hold, by media type, each held to its canonical form before anything is made of it.

    egress     vnd.kars.egress-allowlist.v1+yaml    an `Allowlist`
    tools      vnd.kars.agt-profile.v1+yaml         a mapping with version, agent, policies
    inference  vnd.kars.inference-policy.v1+json    a mapping of InferencePolicy's spec
    memory     vnd.kars.memory-binding.v1+json      a mapping of KarsMemory's spec
    mcp        vnd.kars.mcp-server-bundle.v1+json   a mapping of McpServer's spec
    eval       vnd.kars.eval-corpus.v1+json         a mapping: a corpus

What breaks a form is `Refused` with CanonicalFormViolation; the text names the line where there is one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, get_type_hints

import msgspec

from kars.artifacts import corpus, strict
from kars.artifacts.refused import Refused
from kars.artifacts.strict import NotCanonical
from kars.model.base import Frozen, Model
from kars.model.common import EXACT
from kars.model.inference import InferencePolicySpec
from kars.model.mcp import McpServerSpec
from kars.model.memory import KarsMemorySpec
from kars.model.sandbox import Endpoint

EGRESS = "application/vnd.kars.egress-allowlist.v1+yaml"
TOOLS = "application/vnd.kars.agt-profile.v1+yaml"
INFERENCE = "application/vnd.kars.inference-policy.v1+json"
MEMORY = "application/vnd.kars.memory-binding.v1+json"
MCP = "application/vnd.kars.mcp-server-bundle.v1+json"
EVAL = "application/vnd.kars.eval-corpus.v1+json"

# What a ConfigMap (1 MiB with everything around it) can hold of a document.
CONTENT_BYTES = 900 << 10
# The bound of an inline profile.
PROFILE_BYTES = 512 << 10
# Hosts of one sandbox: the router's index takes more, a person who reviews a list does not.
ENDPOINTS = 4096

API_VERSION = "kars.dev/v1alpha1"
KIND = "EgressAllowlist"
HOST = re.compile(r"[a-z0-9-]+(?:\.[a-z0-9-]+)*\Z")
HOST_LENGTH = 253
HEAD = ("apiVersion", "kind", "metadata", "spec")
DESCRIBED = ("name", "namespace", "generation")


class Allowlist(msgspec.Struct, frozen=True):
    """Where an agent may connect to, and which edition of the list this is; a later one has a higher generation."""

    endpoints: tuple[Endpoint, ...]
    generation: int
    name: str = ""
    namespace: str = ""


def read(media_type: str, body: bytes) -> Any:  # noqa: ANN401 - an Allowlist, or a mapping
    """Return the content of an artifact; `Refused`: CanonicalFormViolation, InvalidRef for other media types."""
    reader = READERS.get(media_type)
    if reader is None:
        raise Refused("InvalidRef", f"{media_type[:128]!r} is no media type of kars")
    if len(body) > CONTENT_BYTES:
        raise violation(media_type, f"{len(body)} bytes; at most {CONTENT_BYTES} are read")
    try:
        return reader(body)
    except (NotCanonical, msgspec.ValidationError) as error:
        raise violation(media_type, str(error)) from None


def violation(media_type: str, message: str) -> Refused:
    """Say that a form is broken."""
    return Refused("CanonicalFormViolation", f"{media_type.rpartition('/')[2]}: {message}")


def allowlist(body: bytes) -> Allowlist:
    """Read an egress allowlist in its canonical form."""
    check_text(body)
    document = mapping(strict.yaml(body), "the document")
    if tuple(document) != HEAD:
        raise NotCanonical(f"the members are {', '.join(HEAD)}, in this order and no others")
    if document["apiVersion"] != API_VERSION or document["kind"] != KIND:
        raise NotCanonical(f"not {API_VERSION} {KIND}")
    metadata = mapping(document["metadata"], "metadata")
    spec = mapping(document["spec"], "spec")
    if tuple(spec) != ("endpoints",):
        raise NotCanonical("spec has endpoints and nothing else")
    for name, value in metadata.items():
        if name not in DESCRIBED or (name != "generation" and not isinstance(value, str)):
            raise NotCanonical(f"metadata.{name[:64]} is not one of {', '.join(DESCRIBED)}")
    generation = metadata.get("generation")
    if type(generation) is not int or not 0 < generation <= EXACT:
        raise NotCanonical("metadata.generation is not a whole number above 0")
    return Allowlist(
        endpoints(spec["endpoints"], body), generation, metadata.get("name", ""), metadata.get("namespace", "")
    )


def check_text(body: bytes) -> None:
    """Check what is seen without parsing: line ends, the last newline, no lines that are comments."""
    at = body.find(b"\r")
    if at >= 0:
        raise NotCanonical("a carriage return", body.count(b"\n", 0, at) + 1)
    if not body.endswith(b"\n"):
        raise NotCanonical("no newline at the end", body.count(b"\n") + 1)
    for number, text in enumerate(body.split(b"\n"), start=1):
        if text.lstrip().startswith(b"#"):
            raise NotCanonical("a comment", number)


def endpoints(found: object, body: bytes) -> tuple[Endpoint, ...]:
    """Read the endpoints: host, then port, ascending, none twice."""
    if not isinstance(found, list):
        raise NotCanonical("spec.endpoints is not a list")
    if len(found) > ENDPOINTS:
        raise NotCanonical(f"{len(found)} endpoints; at most {ENDPOINTS} are read")
    lines = [number for number, text in enumerate(body.split(b"\n"), start=1) if text.lstrip().startswith(b"- ")]
    made: list[Endpoint] = []
    for index, item in enumerate(found):
        line = lines[index] if len(lines) == len(found) else 0
        made.append(endpoint(item, line))
        if index and place(made[-2]) >= place(made[-1]):
            raise NotCanonical("endpoints are not strictly ascending by host and port", line)
    return tuple(made)


def endpoint(item: object, line: int) -> Endpoint:
    """Read one endpoint."""
    if not isinstance(item, dict) or tuple(item) != ("host", "port"):
        raise NotCanonical("an endpoint has host and port, in this order", line)
    host, port = item["host"], item["port"]
    if not isinstance(host, str) or len(host) > HOST_LENGTH or not HOST.match(host):
        raise NotCanonical("host is not a name of lower-case letters, digits, - and . (no *, no dot at the end)", line)
    if type(port) is not int or not 1 <= port <= 65535:
        raise NotCanonical("port is not in 1..65535", line)
    return Endpoint(host=host, port=port)


def place(one: Endpoint) -> tuple[str, int]:
    """Return what endpoints are ordered by."""
    return one.host, one.port or 0


def write(content: Allowlist) -> bytes:
    """Write an allowlist in canonical form; `read` gives back what was written."""
    described = "".join(
        f"  {name}: {quoted(value)}\n"
        for name, value in (("name", content.name), ("namespace", content.namespace))
        if value
    )
    listed = "".join(f"  - host: {quoted(one.host)}\n    port: {one.port}\n" for one in content.endpoints)
    head = f"apiVersion: {API_VERSION}\nkind: {KIND}\nmetadata:\n{described}  generation: {content.generation}\nspec:\n"
    return (head + (f"  endpoints:\n{listed}" if listed else "  endpoints: []\n")).encode()


def quoted(text: str) -> str:
    """Write a text plain where every YAML reader takes it for one, in double quotes otherwise."""
    plain = re.fullmatch(r"[a-z][a-z0-9-]*(\.[a-z0-9-]+)*", text) and text not in YAML_WORDS
    return text if plain else msgspec.json.encode(text).decode()


# What YAML 1.1 and 1.2 take for something else than a text, in lower case.
YAML_WORDS = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n"})


def profile(body: bytes) -> dict[str, Any]:
    """Read a tool profile, as far as it is held to a form here; the router compiles the rest."""
    if len(body) > PROFILE_BYTES:
        raise NotCanonical(f"{len(body)} bytes; at most {PROFILE_BYTES} are read")
    document = mapping(strict.yaml(body), "the document")
    for name in ("version", "agent"):
        if not isinstance(document.get(name), str) or not document[name]:
            raise NotCanonical(f"{name} is not a text, or is empty")
    if not isinstance(document.get("policies"), list):
        raise NotCanonical("policies is not a list")
    return document


def part_of(spec: type[Model], name: str, *fields: str) -> type[msgspec.Struct]:
    """Make a struct of some members of a resource's spec, with the types that they have there."""
    hints = get_type_hints(spec, include_extras=True)
    members = {"__module__": __name__, "__annotations__": {field: hints[field] for field in fields}}
    defaults = {field.name: field.default for field in msgspec.structs.fields(spec) if field.name in fields}
    made: type[msgspec.Struct] = Frozen(name, (Model,), members | defaults)
    return made


def json_reader(kind: type[msgspec.Struct]) -> Callable[[bytes], dict[str, Any]]:
    """Make a reader of a JSON object with at least one of a struct's members."""

    def reader(body: bytes) -> dict[str, Any]:
        document = mapping(strict.json(body), "the document")
        if not document:
            raise NotCanonical("an object without a member")
        for name, value in document.items():
            if value is None:
                raise NotCanonical(f"{name[:64]} is null")
        msgspec.convert(document, kind)
        return document

    return reader


def mcp(body: bytes) -> dict[str, Any]:
    """Read an MCP server's description."""
    document = READ_MCP(body)
    oauth = document.get("oauth")
    if isinstance(oauth, dict) and not oauth.get("issuer"):
        raise NotCanonical("oauth.issuer is empty")
    return document


def cases(body: bytes) -> dict[str, Any]:
    """Read a corpus."""
    document = mapping(strict.json(body), "the document")
    corpus.parse(document)
    return document


def mapping(value: object, what: str) -> dict[str, Any]:
    """Hold a value to being a mapping."""
    if not isinstance(value, dict):
        raise NotCanonical(f"{what} is not a mapping")
    return value


READ_MCP = json_reader(
    part_of(McpServerSpec, "McpContent", "url", "oauth", "production_mode", "scopes", "allowed_tools", "display_name")
)
READERS: dict[str, Callable[[bytes], Any]] = {
    EGRESS: allowlist,
    TOOLS: profile,
    INFERENCE: json_reader(
        part_of(
            InferencePolicySpec,
            "InferenceContent",
            "token_budget",
            "content_safety",
            "model_preference",
            "display_name",
        )
    ),
    MEMORY: json_reader(
        part_of(
            KarsMemorySpec,
            "MemoryContent",
            "store_name",
            "scope",
            "retention_days",
            "delete_on_sandbox_delete",
            "display_name",
        )
    ),
    MCP: mcp,
    EVAL: cases,
}
