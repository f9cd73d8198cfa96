"""The definitions are what the structs say, what the API server can take, and what the chart ships."""

import re
import tomllib
from pathlib import Path

import msgspec
import pytest
import yaml

from kars.model import crds, schema
from kars.model.base import Model
from kars.model.kinds import KINDS

ROOT = Path(__file__).parents[3]
CHART = ROOT / "charts" / "kars-crds"
DEFINITIONS = {name: crds.definition(kind) for name, kind in KINDS.items()}
EACH = pytest.mark.parametrize("name", KINDS)


def parts(root, path=""):
    yield path, root
    for member, part in root.get("properties", {}).items():
        yield from parts(part, f"{path}.{member}")
    if "items" in root:
        yield from parts(root["items"], f"{path}[]")
    if isinstance(root.get("additionalProperties"), dict):
        yield from parts(root["additionalProperties"], f"{path}{{}}")


def version(name):
    return DEFINITIONS[name]["spec"]["versions"][0]


def root(name):
    return version(name)["schema"]["openAPIV3Schema"]


def test_the_chart_ships_exactly_what_the_structs_say():
    shipped = {file.name: file.read_text() for file in (CHART / "templates").iterdir()}
    assert shipped == crds.files(), "run `make crds`"


def test_the_same_structs_make_the_same_bytes():
    assert crds.files() == crds.files()


def test_the_charts_templates_are_plain_yaml():
    for name, text in crds.files().items():
        assert "{{" not in text, name
        assert yaml.safe_load(text)["kind"] == "CustomResourceDefinition"


def test_the_chart_has_the_projects_version():
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert chart["version"] == chart["appVersion"] == project["version"]


def test_writing_takes_away_what_is_no_kind_any_more(tmp_path):
    (tmp_path / "gone.yaml").write_text("x")
    assert crds.main([str(tmp_path)]) == 0
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(crds.files())


@EACH
def test_a_definition_is_served_stored_and_has_a_status(name):
    spec, only = DEFINITIONS[name]["spec"], version(name)
    assert DEFINITIONS[name]["metadata"]["name"] == f"{spec['names']['plural']}.kars.azure.com"
    assert DEFINITIONS[name]["metadata"]["labels"]["app.kubernetes.io/name"] == "kars"
    assert (only["served"], only["storage"], only["subresources"]) == (True, True, {"status": {}})
    assert spec["names"]["categories"] == ["kars"]
    assert spec["scope"] == ("Cluster" if name in {"TrustGraph", "KarsAuthConfig"} else "Namespaced")
    assert root(name)["required"] == ["spec"]


WHY = ["Reason", "Message"]
# Kind: plural, short name, printer columns; as clients of the reference know them.
KNOWN = {
    "KarsSandbox": ("karssandboxes", "cs", "Phase Runtime InferencePolicy Isolation Allowlist Age"),
    "KarsPairing": ("karspairings", "cp", "Phase AMID Budget Ready Age"),
    "InferencePolicy": ("inferencepolicies", "ip", "Sandbox DailyTokens Phase Age"),
    "ToolPolicy": ("toolpolicies", "tp", "Tool DailyCap Phase Age"),
    "KarsMemory": ("karsmemories", "cmem", "Sandbox Store Scope Phase Age"),
    "McpServer": ("mcpservers", "mcp", "URL Production Phase Age"),
    "EgressApproval": ("egressapprovals", "eappr", "Sandbox Phase Expires Hosts Age"),
    "A2AAgent": ("a2aagents", "a2a", "Endpoint Production Phase Age"),
    "TrustGraph": ("trustgraphs", "tg", "Phase Vertices ValidEdges InvalidEdges Age"),
    "KarsEval": ("karsevals", "ceval", "Sandbox Schedule Phase LastRun Passed Failed Age"),
    "KarsSREAction": ("karssreactions", "sreaction", "Type Target-NS Target-Name Phase Approval Age"),
    "KarsAuthConfig": ("karsauthconfigs", "kac", "Tenant Blueprint Phase Age"),
}


@EACH
def test_kubectl_calls_a_kind_what_it_always_called_it(name):
    names = DEFINITIONS[name]["spec"]["names"]
    plural, short, columns = KNOWN[name]
    assert (names["plural"], names["singular"], names["shortNames"][0]) == (plural, name.lower(), short)
    shown = version(name)["additionalPrinterColumns"]
    assert [column["name"] for column in shown if column["name"] not in WHY] == columns.split()


@EACH
def test_a_wide_list_says_why_something_is_not_ready(name):
    wide = [column["name"] for column in version(name)["additionalPrinterColumns"] if column.get("priority")]
    assert [column for column in wide if column in WHY] == ([] if name == "KarsSREAction" else WHY)


@EACH
def test_a_printer_column_shows_a_field_that_there_is(name):
    known = {re.sub(r"\[\]$", "", path) for path, _ in parts(root(name))} | {".metadata.creationTimestamp"}
    for column in version(name)["additionalPrinterColumns"]:
        path = re.sub(r"\[\?\(@\.type==\"\w+\"\)\]\.(status|reason|message)$", "", column["jsonPath"])
        assert path in known, column
        shown = dict(parts(root(name))).get(column["jsonPath"], {}).get("type", column["type"])
        assert column["type"] in {shown, "date", "string"}, column


@EACH
def test_every_part_of_a_schema_is_structural_and_bounded(name):
    for path, part in parts(root(name)):
        assert "type" in part or part.get("x-kubernetes-int-or-string"), path
        assert part.get("format") in {None, "int32", "int64"}, path
        assert not (part.keys() & {"$ref", "oneOf", "not", "definitions", "nullable"}), path
        if part.get("type") == "array":
            assert part["maxItems"] <= 4096, path
        if isinstance(part.get("additionalProperties"), dict):
            assert part["maxProperties"] <= 64, path
        if part.get("type") == "string" and path.startswith(".spec"):
            assert part.keys() & {"maxLength", "enum"}, path
        if "default" in part:
            assert path.startswith(".spec"), path


@EACH
def test_conditions_are_a_map_by_type(name):
    conditions = root(name)["properties"]["status"]["properties"]["conditions"]
    assert conditions["x-kubernetes-list-type"] == "map"
    assert conditions["x-kubernetes-list-map-keys"] == ["type"]
    assert conditions["items"]["required"] == ["type", "status", "reason", "message", "lastTransitionTime"]


@EACH
def test_the_keys_of_a_map_list_are_required(name):
    for path, part in parts(root(name)):
        for key in part.get("x-kubernetes-list-map-keys", ()):
            assert key in part["items"]["required"], path


@EACH
def test_every_field_has_words(name):
    for path, part in parts(root(name)):
        if path.count(".") > 1 and not path.startswith(".metadata") and path[-1] not in "]}":
            assert part.get("description", "").endswith((".", "...", ")")), path


@EACH
def test_rules_that_both_sides_run_have_a_python_side(name):
    for kind in structs(KINDS[name]):
        for rule in kind.RULES:
            assert ("oldSelf" in rule.cel) == (rule.holds is None), rule
            assert rule.message, rule


def structs(kind):
    found, queue = set(), [kind]
    while queue:
        current = queue.pop()
        if current in found or not issubclass(current, Model):
            continue
        found.add(current)
        queue += [info.cls for info in nested(msgspec.inspect.type_info(current))]
    return found


def nested(info):
    for field in info.fields:
        queue = [field.type]
        while queue:
            part = queue.pop()
            if isinstance(part, msgspec.inspect.StructType):
                yield part
            queue += [getattr(part, name) for name in ("type", "item_type", "value_type") if hasattr(part, name)]
            queue += getattr(part, "types", ())


# Fields of the reference by kind: name, type, and `!` where it is required. What is not here is ours; nothing of it may go.
FIELDS = """
KarsSandbox
  runtime! runtime.kind! runtime.openclaw.version runtime.openclaw.image runtime.openclaw.config:object
  runtime.openclaw.extraEnv:object runtime.openaiAgents.pythonVersion runtime.openaiAgents.agentCode.oci.image!
  runtime.openaiAgents.agentCode.git.url! runtime.openaiAgents.agentCode.git.ref runtime.openaiAgents.agentCode.git.path
  runtime.openaiAgents.entrypoint:array runtime.openaiAgents.extraEnv:object runtime.microsoftAgentFramework.language
  runtime.semanticKernel.language runtime.langGraph.language runtime.anthropic.pythonVersion
  runtime.pydanticAi.pythonVersion runtime.hermes.version runtime.byo.image! runtime.byo.contractVersion!
  runtime.byo.command:array runtime.byo.args:array runtime.byo.env:array sandbox! sandbox.isolation
  sandbox.seccompProfile sandbox.selinuxContext sandbox.readOnlyRootFilesystem:boolean sandbox.runAsNonRoot:boolean
  sandbox.allowPrivilegeEscalation:boolean sandbox.writablePaths:array inferenceRef! inferenceRef.name! memoryRef.name!
  agent.instructions agent.tools:array agent.fileIds:array governance.enabled:boolean governance.toolPolicyRef.name!
  governance.trustThreshold:integer governance.trustedPeers governance.registryMode governance.mcpServerRef.name!
  governance.mcpServerRefs[].name! azureServices[].service! azureServices[].account azureServices[].permissions:array
  networkPolicy.defaultDeny:boolean networkPolicy.egressMode networkPolicy.allowedEndpoints[].host!
  networkPolicy.allowedEndpoints[].port:integer networkPolicy.allowlistRef.registry!
  networkPolicy.allowlistRef.repository! networkPolicy.allowlistRef.digest! networkPolicy.allowlistRef.artifactType!
  resources.requests:object resources.limits:object suspended:boolean
KarsPairing
  tokenHash! expiresAt! slotsMax:integer tokenBudget:integer capabilities:array displayName model isolation
InferencePolicy
  appliesTo! appliesTo.sandboxName appliesTo.sandboxMatchLabels:object appliesTo.action
  tokenBudget.perRequestTokens:integer tokenBudget.dailyTokens:integer tokenBudget.monthlyTokens:integer
  contentSafety.hate contentSafety.selfHarm contentSafety.sexual contentSafety.violence
  contentSafety.requirePromptShields:boolean modelPreference.primary! modelPreference.primary.provider!
  modelPreference.primary.deployment! modelPreference.fallback[].provider! modelPreference.fallback[].deployment!
  displayName bundleRef.digest!
ToolPolicy
  appliesTo! appliesTo.tool appliesTo.mcpServer appliesTo.sandboxMatchLabels:object! agtProfile.inline
  agtProfile.bundleRef.digest! approval.mode approval.threshold approval.channel commerce.dailyCap commerce.monthlyCap
  commerce.perTransferCap commerce.counterpartyAllowlist:array rateLimit.rps:integer rateLimit.burst:integer
  rateLimit.window displayName
KarsMemory
  sandboxRef! sandboxRef.name! storeName scope retentionDays:integer deleteOnSandboxDelete:boolean displayName
  bundleRef.digest!
McpServer
  url oauth.issuer! oauth.audience oauth.resource oauth.pkce productionMode:boolean scopes:array allowedTools:array
  allowedSandboxes.matchLabels:object bearerFromEnv displayName bundleRef.digest!
EgressApproval
  sandbox! hosts:array! hosts[].host! hosts[].port:integer reason! ticket ttl!
A2AAgent
  displayName description endpointUrl! productionMode:boolean capabilities:array signingKeys:array! signingKeys[].kid!
  signingKeys[].alg! signingKeys[].publicKeyB64u! signingKeys[].notAfter:integer trust.requireSignedRequests:boolean
  trust.minSignaturesRequired:integer trust.maxClockSkewSeconds:integer federation[].kind! federation[].label!
  federation[].agentRef federation[].endpointUrl federation[].pinnedKid policyRefs.toolPolicy
TrustGraph
  vertices:array! vertices[].id! vertices[].alg! vertices[].publicKeyB64u! vertices[].label edges[].from! edges[].to!
  edges[].score:integer! edges[].issuedAt:integer! edges[].signature! edges[].notAfter:integer edges[].reason
KarsEval
  corpus! corpus.builtin corpus.bundleRef.digest! targetSandboxRef! targetSandboxRef.name! schedule
  failSandboxOnDrift:boolean runnerImage displayName
KarsSREAction
  action! action.type! action.params! approval! approval.state! approval.note diagnosis rationale ttlMinutes:integer
KarsAuthConfig
  tenant! tenant.tenantId! tenant.authorityHost tenant.serviceManagementReference agentId! agentId.blueprintClientId!
  agentId.blueprintObjectId! agentId.sponsorUserObjectIds:array controller! controller.managedIdentityClientId
  controller.managedIdentityResourceId controller.managedIdentityPrincipalId meshAuthBackend meshAuthAudience
  downstreamApis{}.baseUrl! downstreamApis{}.scopes:array downstreamApis{}.requestAppToken:boolean foundryRbac[].scope!
  foundryRbac[].roleDefinitionIds:array!
"""


def known_fields():
    kind = ""
    for line in FIELDS.split("\n"):
        if line and not line.startswith(" "):
            kind = line
        for field in line.split() if line.startswith(" ") else ():
            path, _, wanted = field.rstrip("!").partition(":")
            yield pytest.param(kind, path, wanted, field.endswith("!"), id=f"{kind}.{path}")


@pytest.mark.parametrize(("kind", "path", "wanted", "required"), list(known_fields()))
def test_a_known_field_keeps_its_name_and_type(kind, path, wanted, required):
    by_path = dict(parts(root(kind)["properties"]["spec"], ""))
    part = by_path[f".{path}"]
    assert part["type"] == (wanted or ("object" if "properties" in part else "string"))
    parent, _, name = f".{path}".rpartition(".")
    assert (name in by_path[parent].get("required", ())) == required


# Defaults of the reference, and those that are better (see `kars/model/sandbox.py`).
DEFAULTS = {
    "KarsSandbox.sandbox.isolation": "enhanced",
    "KarsSandbox.sandbox.seccompProfile": "kars-strict",
    "KarsSandbox.sandbox.selinuxContext": "",
    "KarsSandbox.sandbox.readOnlyRootFilesystem": True,
    "KarsSandbox.sandbox.runAsNonRoot": True,
    "KarsSandbox.sandbox.allowPrivilegeEscalation": False,
    "KarsSandbox.sandbox.writablePaths": ["/sandbox", "/tmp"],
    "KarsSandbox.sandbox.persistence.reclaim": "Delete",
    "KarsSandbox.governance.enabled": True,
    "KarsSandbox.governance.trustThreshold": 500,
    "KarsSandbox.governance.registryMode": "local",
    "KarsSandbox.networkPolicy.defaultDeny": True,
    "KarsSandbox.networkPolicy.egressMode": "Learn",
    "KarsSandbox.suspended": False,
    "KarsSandbox.a2a.enabled": False,
    "KarsSandbox.meshAuth.mode": "auto",
    "KarsPairing.slotsMax": 1,
    "KarsPairing.tokenBudget": 500000,
    "KarsPairing.capabilities": ["offload", "handoff"],
    "McpServer.oauth.pkce": "S256",
    "A2AAgent.productionMode": False,
    "A2AAgent.trust.requireSignedRequests": False,
    "KarsEval.failSandboxOnDrift": False,
    "KarsSREAction.ttlMinutes": 15,
    "KarsAuthConfig.tenant.authorityHost": "https://login.microsoftonline.com/",
    "KarsAuthConfig.controller.credentialMode": "ManagedIdentityImds",
    "KarsAuthConfig.meshAuthBackend": "Anonymous",
    "KarsAuthConfig.downstreamApis{}.requestAppToken": True,
}


def test_the_defaults_are_these_and_no_others():
    found = {
        f"{name}{path.removeprefix('.spec')}": part["default"]
        for name in KINDS
        for path, part in parts(root(name))
        if "default" in part
    }
    assert found == DEFAULTS


def test_a_type_that_no_schema_can_say_is_an_error_not_a_guess():
    class Odd(Model):
        """Has a union that is not structural."""

        value: int | bool

    with pytest.raises(TypeError, match="union"):
        schema.derive(msgspec.inspect.type_info(Odd))

    class Raw(Model):
        """Has bytes."""

        value: bytes

    with pytest.raises(TypeError, match="type"):
        schema.derive(msgspec.inspect.type_info(Raw))
