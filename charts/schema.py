"""Make a chart's values.schema.json and the page of its values: `python charts/schema.py charts/kars docs/values.md`.

values.yaml is the source: a value's description is the `# --` comment above it, its type is its default's, and an
`# @schema` comment adds what the default does not show, as JSON. The router's settings come from the core's own table.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from kars.router import tools

Schema = dict[str, Any]

TYPES = {"str": "string", "int": "integer", "bool": "boolean", "float": "number", "seq": "array", "map": "object"}

# The settings travel as one NAME=VALUE a line.
ONE_LINE = r"^[^\r\n]*$"

# Settings of the router that the controller gives each router by itself; one value for all would be wrong.
OWN_SETTINGS = frozenset(
    {
        "SANDBOX_NAME",
        "ADMIN_TOKEN",
        "AZURE_OPENAI_API_KEY",
        "OPENAI_API_KEY",
        "ANTHROPIC_API_KEY",
        "AZURE_OPENAI_DEPLOYMENT",
        "OPENCLAW_MODEL",
        "AZURE_OPENAI_ENDPOINT",
        "FOUNDRY_ENDPOINT",
        "ROUTER_PORT",
        "ROUTER_METRICS_PORT",
        "FORWARD_PROXY_PORT",
        "EGRESS_MODE",
        "BLOCKLIST_ENABLED",
        "BLOCKLIST_SEED_PATH",
        "EGRESS_ALLOWLIST_DIR",
        "EGRESS_APPROVAL_DIR",
        "INFERENCE_POLICY_DIR",
        "INFERENCE_POLICY_MISSING",
        "TERMINATION_GRACE_PERIOD_SECS",
    }
)

NO_MESH_PEER = "the controller has no mesh peer yet"
PER_SANDBOX = "each KarsSandbox says it in its spec"
POLICY = "the InferencePolicy says it"

# Values of earlier charts that are refused, by path, and why. Each is refused at any value, with these words.
REFUSED = {
    "inferenceRouter.image.pullPolicy": "the controller decides by the tag",
    "inferenceRouter.replicas": "the router is a sidecar of each sandbox",
    "inferenceRouter.azure.openai.deploymentName": POLICY,
    "inferenceRouter.azure.contentSafety": POLICY,
    "inferenceRouter.azure.promptShields": POLICY,
    "sandbox.image.pullPolicy": "the controller decides by the tag and controller.devProfile",
    "sandbox.isolation": PER_SANDBOX,
    "sandbox.selinuxContext": PER_SANDBOX,
    "sandbox.readOnlyRootFilesystem": PER_SANDBOX,
    "sandbox.runAsNonRoot": PER_SANDBOX,
    "sandbox.runAsUser": "agents run as 1000, routers as 1001",
    "sandbox.runAsGroup": "agents run as 1000, routers as 1001",
    "sandbox.writablePaths": PER_SANDBOX,
    "sandbox.resources": PER_SANDBOX,
    "networkPolicy": PER_SANDBOX,
    "meshPeer.enabled": NO_MESH_PEER,
    "meshPeer.relayUrl": NO_MESH_PEER,
    "fedcred": "the controller makes no federated credentials; make them where you make the identity",
    "monitoring.inspektorGadget": "nothing came of it; install Inspektor Gadget itself",
    "admission.seccompAutoStamp": "the controller sets the profile of each sandbox, and sandboxPostureLock keeps it",
    "azure.keyVaultCsi": "nothing came of it",
    "azure.policy": "nothing came of it",
    "azure.osconfig": "nothing came of it",
    "cilium": "its policy selected pods that there are none of",
    "a2aGateway": "there is no A2A gateway yet",
}


def definitions() -> Schema:
    """Return what several values share."""
    text = {"type": "string"}
    texts = {"type": "object", "additionalProperties": text}
    quantity = {"type": ["string", "integer", "number"]}
    name = {"type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_]*$"}
    variable = {"name": name, "value": text, "valueFrom": {"type": "object"}}
    return {
        "labels": texts,
        "annotations": texts,
        "object": {"type": "object"},
        "objects": {"type": "array", "items": {"type": "object"}},
        "pullSecrets": {"type": "array", "items": closed({"name": text}, "name")},
        "objectName": {"type": "string", "pattern": "^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?)?$"},
        "digest": {"type": "string", "pattern": "^(sha256:[0-9a-f]{64})?$"},
        "pullPolicy": {"enum": ["", "Always", "IfNotPresent", "Never"]},
        "port": {"type": "integer", "minimum": 1, "maximum": 65535},
        "duration": {"type": "string", "pattern": "^[0-9]+(ms|s|m|h)$"},
        "network": {"type": "string", "pattern": "^[0-9a-fA-F.:]+(/[0-9]{1,3})?$"},
        "size": {"type": "string", "pattern": "^([0-9]+([.][0-9]+)?([kMGTPE]i?)?)?$"},
        "auto": {"enum": [True, False, "auto"]},
        "resources": closed(
            {part: {"type": "object", "additionalProperties": quantity} for part in ("requests", "limits")}
        ),
        "env": {
            "type": "object",
            "propertyNames": name,
            "additionalProperties": {"oneOf": [text, closed({"valueFrom": {"type": "object"}}, "valueFrom")]},
        },
        "envList": {"type": "array", "items": closed(variable, "name")},
        "endpoint": closed({"host": text, "port": {"$ref": "#/definitions/port"}}, "host"),
        "signerKey": closed(
            {
                "id": {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"},
                "publicKeyBase64": {"type": "string", "minLength": 43, "maxLength": 64},
                "allowedSubjects": {"type": "array", "items": text},
            },
            "id",
            "publicKeyBase64",
        ),
        "signerPem": closed(
            {
                "id": {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"},
                "publicKeyPem": {"type": "string", "pattern": "^\\s*-----BEGIN PUBLIC KEY-----", "maxLength": 4096},
                "allowedSubjects": {"type": "array", "items": text},
            },
            "id",
            "publicKeyPem",
        ),
        "routerSettings": router_settings(),
    }


def closed(properties: Schema, *required: str) -> Schema:
    """Make an object that has no other members."""
    return {"type": "object", "properties": properties, "additionalProperties": False} | (
        {"required": list(required)} if required else {}
    )


def router_settings() -> Schema:
    """Make a member of each variable that all routers may share."""
    rows = (row for group in tools.variables().values() for row in group if row.name not in OWN_SETTINGS)
    return closed({row.name: setting(row.default, row.help) for row in rows})


def setting(default: str, text: str) -> Schema:
    """Describe a variable: its default shows whether it is a number, a switch or a text."""
    said = f"{text.rstrip('.')}. Default: {default or 'none'}."
    if re.fullmatch(r"[0-9]+", default):
        # Some take a word as well (`off`), and a number may be written as a text.
        return {"type": ["integer", "string"], "pattern": ONE_LINE, "description": said}
    if default in {"true", "false"}:
        return {"enum": [True, False, "true", "false"], "description": said}
    return {"type": "string", "pattern": ONE_LINE, "description": said}


def schema(text: str) -> Schema:
    """Make the schema of a values file."""
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    if not isinstance(node, yaml.MappingNode):
        raise TypeError("values are a mapping")
    root = describe(node, text.splitlines())
    for path, reason in REFUSED.items():
        *parents, name = path.split(".")
        members = root["properties"]
        for parent in parents:
            members = members[parent]["properties"]
        if name in members:
            raise ValueError(f"{path} is a value, and refused")
        words = f"remove {path}: {reason}"
        members[name] = {"const": words, "description": f"Refused: {reason}."}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Values of the chart kars",
        **root,
        "definitions": definitions(),
    }


def describe(node: yaml.MappingNode, lines: list[str]) -> Schema:
    """Make the schema of a mapping of values."""
    members = {key.value: member(key, value, lines) for key, value in node.value}
    return {"type": "object", "additionalProperties": False, "properties": members}


def member(key: yaml.Node, value: yaml.Node, lines: list[str]) -> Schema:
    """Make the schema of one value, or of a section of values."""
    said, extra = comment(lines, key.start_mark.line)
    made: Schema = {"description": said} if said else {}
    if isinstance(value, yaml.MappingNode) and value.value and "$ref" not in extra:
        made |= describe(value, lines)
    elif "$ref" in extra:
        # A $ref stands alone in draft-07: what is beside it would not count.
        made["allOf"] = [{"$ref": extra.pop("$ref")}]
    elif "enum" not in extra:
        made["type"] = TYPES[value.tag.rsplit(":", 1)[1]]
    return made | extra


def comment(lines: list[str], line: int) -> tuple[str, Schema]:
    """Read the comment above a line: what `# --` says, and what `# @schema` adds."""
    first = line
    while first and lines[first - 1].lstrip().startswith("#"):
        first -= 1
    said: list[str] = []
    extra: Schema = {}
    for text in (row.lstrip().removeprefix("#").strip() for row in lines[first:line]):
        if text.startswith("@schema "):
            extra |= json.loads(text.removeprefix("@schema "))
        elif text.startswith("-- "):
            said = [text.removeprefix("-- ")]
        elif said:
            said.append(text)
    return " ".join(said), extra


def values(made: Schema, defaults: Any, path: str = "") -> Iterator[tuple[str, Any, str]]:  # noqa: ANN401
    """Go through the values that can be set: path, default, description."""
    for name, part in made["properties"].items():
        at = f"{path}{name}"
        if "properties" in part:
            yield from values(part, defaults[name], f"{at}.")
        elif "const" not in part:
            yield at, defaults[name], part["description"]


def table(made: Schema, defaults: Schema) -> str:
    """Write the page of values."""
    rows = "".join(
        f"| `{path}` | `{json.dumps(default)}` | {text} |\n" for path, default, text in values(made, defaults)
    )
    refused = "".join(f"| `{path}` | {reason} |\n" for path, reason in REFUSED.items())
    return (
        "# Values of the chart\n\n<!-- Written by `make chart` from charts/kars/values.yaml. -->\n\n"
        "A name that is not here is refused by name.\n\n| Value | Default | What it does |\n|---|---|---|\n"
        f"{rows}\n## Refused\n\nValues of earlier charts that did nothing, or whose component is not there.\n\n"
        f"| Value | Because |\n|---|---|\n{refused}"
    )


def main(chart: Path, page: Path) -> None:
    """Write both files."""
    text = (chart / "values.yaml").read_text(encoding="utf-8")
    made = schema(text)
    (chart / "values.schema.json").write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")
    page.write_text(table(made, yaml.safe_load(text)), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
