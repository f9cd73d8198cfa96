"""The policy kinds on a real API server: what is published, what is told, and what goes with a resource."""

import base64
import json

import pytest
from nacl.signing import SigningKey

from kars.controller import policies
from tests.cluster.api import ApiError
from tests.cluster.controlling import Running
from tests.cluster.world import GROUP, World


@pytest.fixture(scope="module")
def home(kars_plane):
    """The controller's own namespace."""
    return kars_plane.make_namespace()


@pytest.fixture(scope="module")
def controller(kars_plane, home):
    """A controller with every reconciler but the sandboxes'."""
    with Running(kars_plane, policies.reconcilers(), namespace=home) as running:
        yield running


@pytest.fixture
def world(kars_plane, controller, namespace):
    return World(kars_plane, namespace)


MODELS = {"primary": {"provider": "azure-openai", "deployment": "gpt-4.1"}}
PROFILE = 'version: "1.0"\nagent: "*"\npolicies: []\n'


def tool_policy(**more):
    return {"appliesTo": {"sandboxMatchLabels": {"app": "demo"}}, **more}


# What §12.1 of the reference's own end-to-end suite proves, kind by kind


def test_a_tool_policy_without_a_profile_is_published_and_ready(world):
    world.create("ToolPolicy", "plain", tool_policy(commerce={"dailyCap": "100.00 USD"}))
    world.reaches("ToolPolicy", "plain", "Ready", "Reconciled")
    made = world.config_map("toolpolicy-plain-profile")
    assert json.loads(made["data"]["profile.json"])["commerce"]["dailyCap"] == "100.00 USD"
    assert set(made["data"]) == {"profile.json"}
    assert made["metadata"]["labels"][f"{GROUP}/toolpolicy"] == "plain"
    assert world.get("ToolPolicy", "plain")["metadata"]["finalizers"] == [f"{GROUP}/toolpolicy-cleanup"]


def test_an_inference_policy_that_nobody_refers_to_says_so(world):
    world.create("InferencePolicy", "alone", {"appliesTo": {"sandboxName": "demo"}, "modelPreference": MODELS})
    said = world.reaches("InferencePolicy", "alone", "Compiled", "NoSandboxesReferencing")
    made = world.config_map("inferencepolicy-alone-profile")
    # A golden vector of the reference.
    assert said["compiledDigest"] == "sha256:32e9516c5e059aac9ec39870fb7e14e79d6712092cd34bf332a4ddba674bc2bf"
    assert said["versionHash"] == made["metadata"]["annotations"][f"{GROUP}/inferencepolicy-version-hash"]
    assert made["metadata"]["annotations"][f"{GROUP}/inference-policy-digest"] == said["compiledDigest"]
    assert said["profileConfigMapRef"] == {"name": "inferencepolicy-alone-profile"}
    assert "loadedDigest" not in said


def test_a_memory_that_nobody_refers_to_says_so(world):
    world.create("KarsMemory", "notes", {"sandboxRef": {"name": "demo"}, "storeName": "s", "scope": "agent_demo"})
    said = world.reaches("KarsMemory", "notes", "Compiled", "NoSandboxesReferencing")
    assert said["compiledDigest"] == "sha256:e25308b3e59fdd2911dd24c7741447e049189ead9427414e33d745286588ea12"
    assert json.loads(world.config_map("karsmemory-notes-binding")["data"]["binding.json"])["scope"] == "agent_demo"


def signing_key(kid="k1"):
    public = base64.urlsafe_b64encode(bytes(SigningKey(b"\1" * 32).verify_key)).rstrip(b"=").decode()
    return {"kid": kid, "alg": "EdDSA", "publicKeyB64u": public}


def test_an_agent_card_is_published_and_ready(world):
    world.create("A2AAgent", "clerk", {"endpointUrl": "http://clerk:8080", "signingKeys": [signing_key()]})
    said = world.reaches("A2AAgent", "clerk", "Ready", "Reconciled")
    made = world.config_map("a2aagent-clerk-card")
    assert json.loads(made["data"]["agent.json"])["name"] == "clerk"
    assert said["agentCardConfigMapRef"] == {"name": "a2aagent-clerk-card"}


def test_an_invalid_agent_card_is_refused_at_admission(world):
    with pytest.raises(ApiError) as error:
        world.create("A2AAgent", "bad", {"endpointUrl": "http://clerk:8080", "productionMode": True, "signingKeys": []})
    assert error.value.status == 422


def test_an_mcp_server_in_development_is_ready_with_a_signing_key_and_no_keys_of_an_issuer(world):
    world.create("McpServer", "tools", {"url": "http://tools:9000/mcp", "allowedTools": ["*"]})
    said = world.reaches("McpServer", "tools", "Ready", "Reconciled")
    made = world.config_map("mcp-tools-jwks")
    assert json.loads(made["data"]["jwks.json"]) == {"keys": []}
    secret = world.plane.api.get(f"/api/v1/namespaces/{world.namespace}/secrets/mcp-tools-signing")
    seed, public = (base64.b64decode(secret["data"][f"signing-key.{half}"]) for half in ("private", "public"))
    assert secret["type"] == f"{GROUP}/mcp-signing-key"
    assert bytes(SigningKey(seed).verify_key) == public
    assert said["signingKeyRef"] == {"name": "mcp-tools-signing"}
    assert "lastProbedAt" not in said
    world.delete("McpServer", "tools")
    world.wait_gone("McpServer", "tools")
    assert world.plane.api.find(f"/api/v1/namespaces/{world.namespace}/secrets/mcp-tools-signing") is None


def edge(key, score, *, signed=None):
    body = f"trustgraph.v1\na\nb\n{signed or score}\n1700000000\n\n".encode()
    signature = base64.urlsafe_b64encode(key.sign(body).signature).rstrip(b"=").decode()
    return {"from": "a", "to": "b", "score": score, "issuedAt": 1700000000, "signature": signature}


def vertex(name, key):
    public = base64.urlsafe_b64encode(bytes(key.verify_key)).rstrip(b"=").decode()
    return {"id": name, "alg": "EdDSA", "publicKeyB64u": public}


def test_a_trust_graph_is_projected_without_the_edge_that_was_tampered_with(world, home):
    keys = [SigningKey(bytes([number]) * 32) for number in (1, 2)]
    name = f"graph-{world.namespace}"
    edges = [edge(keys[0], 750), edge(keys[0], 999, signed=1)]
    world.create("TrustGraph", name, {"vertices": [vertex("a", keys[0]), vertex("b", keys[1])], "edges": edges})
    said = world.reaches("TrustGraph", name, "Ready", "Reconciled")
    assert (said["validVertices"], said["validEdges"], said["invalidEdges"]) == (2, 1, 1)
    made = world.config_map(f"trustgraph-{name}-projection", home)
    assert len(made["metadata"]["annotations"][f"{GROUP}/trustgraph-version-hash"]) == 16
    assert [one["score"] for one in json.loads(made["data"]["graph.json"])["edges"]] == [750]
    world.delete("TrustGraph", name)
    world.wait_gone("TrustGraph", name)
    assert world.config_map(f"trustgraph-{name}-projection", home) is None


def test_a_trust_graph_without_vertices_is_refused_at_admission(world):
    with pytest.raises(ApiError, match="vertices"):
        world.create("TrustGraph", f"empty-{world.namespace}", {"vertices": []})


def test_a_pairing_waits_and_then_is_over(world):
    spec = {"tokenHash": "0" * 64, "expiresAt": "2099-01-01T00:00:00Z"}
    world.create("KarsPairing", "peer", spec)
    world.reaches("KarsPairing", "peer", "PendingPairing", "AwaitingPeer")
    world.create("KarsPairing", "late", {**spec, "expiresAt": "2001-01-01T00:00:00Z"})
    world.reaches("KarsPairing", "late", "Expired", "Expired")


def test_a_changed_tool_policy_reaches_its_config_map_and_goes_with_it(world):
    world.create("ToolPolicy", "changing", tool_policy(agtProfile={"inline": PROFILE}))
    before = world.reaches("ToolPolicy", "changing", "Compiled", "NoSandboxesReferencing")
    assert world.config_map("toolpolicy-changing-profile")["data"]["agt-profile.yaml"] == PROFILE
    world.merge("ToolPolicy", "changing", {"spec": {"agtProfile": {"inline": PROFILE + "# more\n"}}})
    world.plane.wait(
        lambda: world.config_map("toolpolicy-changing-profile")["data"]["agt-profile.yaml"].endswith("# more\n")
    )
    world.plane.wait(lambda: world.status("ToolPolicy", "changing")["agtProfileDigest"] != before["agtProfileDigest"])
    world.delete("ToolPolicy", "changing")
    world.wait_gone("ToolPolicy", "changing")
    assert world.config_map("toolpolicy-changing-profile") is None


def test_an_evaluation_publishes_its_corpus_and_waits(world):
    world.create("KarsEval", "idle", {"corpus": {"builtin": "banned-tools"}, "targetSandboxRef": {"name": "demo"}})
    said = world.reaches("KarsEval", "idle", "Pending", "Reconciled")
    made = world.config_map("karseval-idle-corpus")
    assert json.loads(made["data"]["corpus.json"])["name"] == "banned-tools"
    assert said["corpusDigest"] == made["metadata"]["annotations"][f"{GROUP}/karseval-corpus-digest"]
    assert world.condition("KarsEval", "idle")["status"] == "False"


def jobs(world, kind="jobs"):
    return world.plane.api.items(f"/apis/batch/v1/namespaces/{world.namespace}/{kind}")


def test_an_evaluation_runs_when_asked_and_by_schedule(world):
    spec = {"corpus": {"builtin": "egress-known-bad"}, "targetSandboxRef": {"name": "demo"}}
    made = world.create("KarsEval", "runs", spec, annotations={f"{GROUP}/run-now": "true"})
    (job,) = world.plane.wait(lambda: jobs(world), 30, what="a Job")
    world.plane.wait(
        lambda: f"{GROUP}/run-now" not in (world.get("KarsEval", "runs")["metadata"].get("annotations") or {})
    )
    owner = {"kind": "KarsEval", "name": "runs", "uid": made["metadata"]["uid"], "controller": True}
    assert owner.items() <= job["metadata"]["ownerReferences"][0].items()
    assert job["metadata"]["labels"][f"{GROUP}/karseval-trigger"] == "run-now"
    assert (job["spec"]["backoffLimit"], job["spec"]["ttlSecondsAfterFinished"]) == (0, 3600)
    world.reaches("KarsEval", "runs", "Running", "RunTriggered")
    assert owner.items() <= world.config_map("karseval-runs-corpus")["metadata"]["ownerReferences"][0].items()
    world.merge("KarsEval", "runs", {"spec": {"schedule": "*/5 * * * *"}})
    (cron,) = world.plane.wait(lambda: jobs(world, "cronjobs"), what="a CronJob")
    assert (cron["metadata"]["name"], cron["spec"]["schedule"]) == ("karseval-runs", "*/5 * * * *")
    assert cron["spec"]["concurrencyPolicy"] == "Forbid"
    assert owner.items() <= cron["metadata"]["ownerReferences"][0].items()
    world.plane.wait(lambda: world.status("KarsEval", "runs").get("cronJobName") == "karseval-runs")
    world.merge("KarsEval", "runs", {"spec": {"schedule": None}})
    world.plane.wait(lambda: not jobs(world, "cronjobs"), what="the end of the CronJob")
    assert len(jobs(world)) == 1


def approval(sandbox="demo", **more):
    hosts = [{"host": "files.example.org"}, {"host": "*.example.net", "port": 8443}]
    return {"sandbox": sandbox, "hosts": hosts, "reason": "a download", "ttl": "PT1H", **more}


def test_an_approval_for_a_sandbox_that_is_not_there_is_blocked_and_goes(world):
    world.create("EgressApproval", "early", approval())
    said = world.reaches("EgressApproval", "early", "Pending", "BlockedOnSandbox")
    assert said["hostCount"] == 2
    assert world.get("EgressApproval", "early")["metadata"]["finalizers"] == [f"{GROUP}/egress-approval-cleanup"]
    world.delete("EgressApproval", "early")
    world.wait_gone("EgressApproval", "early", 10)


@pytest.mark.parametrize(
    "broken", [{"hosts": []}, {"ttl": "PT0S"}, {"reason": "a\x07b"}, {"ttl": "1 hour"}], ids=lambda one: next(iter(one))
)
def test_an_approval_that_cannot_be_is_refused_at_admission(world, broken):
    with pytest.raises(ApiError) as error:
        world.create("EgressApproval", "never", approval(**broken))
    assert error.value.status == 422


def test_the_token_sidecar_is_told_its_variables_which_go_with_the_configuration(world, home):
    spec = {
        "tenant": {"tenantId": "t"},
        "agentId": {"blueprintClientId": "c", "blueprintObjectId": "o"},
        "controller": {"credentialMode": "WorkloadIdentity"},
    }
    world.create("KarsAuthConfig", "default", spec)
    try:
        world.reaches("KarsAuthConfig", "default", "Ready", "Reconciled")
        made = world.config_map("kars-auth-sidecar-env", home)
        assert made["data"]["AzureAd__TenantId"] == "t"
        assert made["metadata"]["annotations"][f"{GROUP}/blueprint-client-id"] == "c"
        # It has no finalizer: the garbage collector takes what it made.
        (owner,) = made["metadata"]["ownerReferences"]
        assert owner["uid"] == world.get("KarsAuthConfig", "default")["metadata"]["uid"]
    finally:
        world.delete("KarsAuthConfig", "default")
