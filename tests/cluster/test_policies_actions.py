"""Approved repairs, evaluations' Jobs and issuers' key sets, on a real API server."""

import base64
import http.server
import json
import ssl
import threading

import pytest

from kars.controller.policies import table
from kars.controller.policies.evaluations import Evaluations
from kars.controller.policies.jwks import Issuers
from kars.controller.policies.mcp import McpServers
from kars.controller.policies.publisher import Publisher
from kars.controller.policies.sre import Actions
from tests.cluster.authority import Authority
from tests.cluster.controlling import Running
from tests.cluster.world import GROUP, World


class Issuer:
    """A token issuer on loopback that says what it is told to."""

    def __init__(self, folder):
        authority = Authority()
        certificate, key = authority.server().write(folder, "issuer")
        self.trust = ssl.create_default_context(cadata=authority.pem.decode())
        self.keys = b'{"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "AAAA", "kid": "one"}]}'
        self.status = 200
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        issuer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                found = {
                    "/.well-known/openid-configuration": json.dumps(
                        {"issuer": issuer.url, "jwks_uri": f"{issuer.url}/keys"}
                    ).encode(),
                    "/keys": issuer.keys,
                }.get(self.path, b"")
                self.send_response(issuer.status if found else 404)
                self.send_header("Content-Length", str(len(found)))
                self.end_headers()
                self.wfile.write(found)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.url = f"https://localhost:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture(scope="module")
def issuer(tmp_path_factory):
    made = Issuer(tmp_path_factory.mktemp("issuer"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def controller(kars_plane, issuer):
    servers = McpServers(Issuers(networks=("127.0.0.0/8", "::1/128"), tls=issuer.trust))
    others = (McpServers(), Publisher(table.INFERENCE), Evaluations(), Actions())
    with Running(kars_plane, (servers, *others[1:]), namespace=kars_plane.make_namespace()) as running:
        running.servers = servers
        yield running


@pytest.fixture
def world(kars_plane, controller, namespace):
    return World(kars_plane, namespace)


# Key sets


def server(issuer):
    return {"url": "https://tools.example", "productionMode": True, "oauth": {"issuer": issuer.url}}


def test_a_server_in_production_has_its_issuers_keys_and_keeps_them_when_the_issuer_fails(world, issuer, controller):
    world.create("McpServer", "tools", server(issuer))
    said = world.reaches("McpServer", "tools", "Ready", "Reconciled")
    assert said["lastProbedAt"]
    keys = json.loads(world.config_map("mcp-tools-jwks")["data"]["jwks.json"])
    assert [one["kid"] for one in keys["keys"]] == ["one"]
    secret = world.plane.api.get(f"/api/v1/namespaces/{world.namespace}/secrets/mcp-tools-signing")["data"]
    issuer.status = 503
    try:
        controller.servers.fetched.clear()
        world.merge("McpServer", "tools", {"spec": {"scopes": ["a"]}})
        failed = world.reaches("McpServer", "tools", "Degraded", "JwksFetchFailed")
        assert "http_status" in failed["conditions"][0]["message"]
        assert json.loads(world.config_map("mcp-tools-jwks")["data"]["jwks.json"]) == keys
        assert failed["lastProbedAt"] == said["lastProbedAt"]
    finally:
        issuer.status = 200
    controller.servers.fetched.clear()
    world.merge("McpServer", "tools", {"spec": {"scopes": ["b"]}})
    world.reaches("McpServer", "tools", "Ready", "Reconciled")
    again = world.plane.api.get(f"/api/v1/namespaces/{world.namespace}/secrets/mcp-tools-signing")["data"]
    assert again == secret  # made once


def test_a_signing_key_that_was_taken_away_is_made_anew_and_another_server_has_another(world, issuer):
    path = f"/api/v1/namespaces/{world.namespace}/secrets/mcp-{{}}-signing"
    for name in ("one", "two"):
        world.create("McpServer", name, {"url": "http://tools"})
        world.reaches("McpServer", name, "Ready", "Reconciled")
    first, second = (world.plane.api.get(path.format(name))["data"] for name in ("one", "two"))
    assert first != second
    world.plane.api.delete(path.format("one"))
    found = world.plane.wait(lambda: world.plane.api.find(path.format("one")))
    assert len(base64.b64decode(found["data"]["signing-key.private"])) == 32


# Repairs


@pytest.fixture(scope="module")
def writer(kars_plane):
    """The account that repairs, and what it may do once it is bound."""
    if kars_plane.api.find("/api/v1/namespaces/kars-sre") is None:
        kars_plane.make_namespace("kars-sre")
    rules = {
        "quotas": [{"apiGroups": [""], "resources": ["resourcequotas"], "verbs": ["get", "delete"]}],
        "workloads": [
            {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get", "patch"]},
            {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "delete"]},
        ],
    }
    roles = [
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": f"kars-sre-writer-{name}"},
            "rules": rule,
        }
        for name, rule in rules.items()
    ]
    kars_plane.apply(roles)


@pytest.fixture
def desk(kars_plane, controller):
    """Where actions count: beside the controller, and where the agent is that proposes them."""
    return World(kars_plane, controller.settings.namespace)


def action(world, what, name, *, state="Approved", namespace="", **params):
    target = {"namespace": namespace or world.namespace, "name": name, **params}
    return {"action": {"type": what, "params": target}, "approval": {"state": state}}


def phase_reaches(world, name, phase, seconds=20):
    world.plane.wait(lambda: world.status("KarsSREAction", name).get("phase") == phase, seconds, what=phase)
    return world.status("KarsSREAction", name)


def bindings(world):
    return world.plane.api.items(f"/apis/rbac.authorization.k8s.io/v1/namespaces/{world.namespace}/rolebindings")


def quota(world, name, **labels):
    spec = {"hard": {"pods": "10"}}
    value = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": name, "labels": labels}, "spec": spec}
    world.plane.api.create(f"/api/v1/namespaces/{world.namespace}/resourcequotas", value)
    return f"/api/v1/namespaces/{world.namespace}/resourcequotas/{name}"


def test_an_action_waits_for_a_person_is_done_as_the_writer_and_leaves_no_right_behind(world, desk, writer):
    path = quota(world, "tight")
    desk.create("KarsSREAction", "free", action(world, "DeleteResourceQuota", "tight", state="Pending"))
    phase_reaches(desk, "free", "Proposed")
    assert world.plane.api.find(path)
    desk.merge("KarsSREAction", "free", {"spec": {"approval": {"state": "Approved"}}})
    said = phase_reaches(desk, "free", "Recovered")
    assert world.plane.api.find(path) is None
    assert said["appliedAt"]
    assert said["writerCrbName"].startswith("kars-sre-write-")
    assert {one["type"]: one["status"] for one in said["conditions"]} == {
        "Available": "True",
        "Approved": "True",
        "Executed": "True",
        "Degraded": "False",
    }
    assert bindings(world) == []


def test_what_the_writer_may_not_do_the_controller_does_not_do_either(world, desk, writer):
    # The controller of these tests is an administrator; the writer's role has no daemon sets.
    daemons = {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "agents"},
        "spec": {
            "selector": {"matchLabels": {"a": "b"}},
            "template": {
                "metadata": {"labels": {"a": "b"}},
                "spec": {"containers": [{"name": "c", "image": "i"}], "nodeSelector": {"none": "such"}},
            },
        },
    }
    world.plane.api.create(f"/apis/apps/v1/namespaces/{world.namespace}/daemonsets", daemons)
    desk.create("KarsSREAction", "daemon", action(world, "RolloutRestart", "agents", kind="DaemonSet"))
    said = phase_reaches(desk, "daemon", "Failed")
    assert said["conditions"][0]["reason"] == "ExecutionFailed"
    assert bindings(world) == []


def test_a_restart_and_a_scale_reach_their_deployment(world, desk, writer):
    spec = {
        "replicas": 0,
        "selector": {"matchLabels": {"a": "b"}},
        "template": {
            "metadata": {"labels": {"a": "b"}},
            "spec": {"containers": [{"name": "c", "image": "old"}, {"name": "d", "image": "other"}]},
        },
    }
    value = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec}
    path = f"/apis/apps/v1/namespaces/{world.namespace}/deployments"
    world.plane.api.create(path, value)
    desk.create("KarsSREAction", "restart", action(world, "RolloutRestart", "web", kind="Deployment"))
    phase_reaches(desk, "restart", "Recovered")
    desk.create("KarsSREAction", "image", action(world, "PatchDeploymentImage", "web", container="c", image="new"))
    phase_reaches(desk, "image", "Recovered")
    desk.create("KarsSREAction", "none", action(world, "PatchDeploymentImage", "web", container="x", image="new"))
    assert phase_reaches(desk, "none", "Failed")["conditions"][0]["reason"] == "ContainerNotFound"
    template = world.plane.api.get(f"{path}/web")["spec"]["template"]
    assert f"{GROUP}/restartedAt" in template["metadata"]["annotations"]
    assert {one["name"]: one["image"] for one in template["spec"]["containers"]} == {"c": "new", "d": "other"}


@pytest.mark.parametrize("barred", ["kube-system", "kars-sre"])
def test_an_action_on_the_control_plane_fails_whoever_approved_it(world, desk, writer, barred):
    name = f"bad-{barred}"
    desk.create("KarsSREAction", name, action(world, "DeleteResourceQuota", "x", namespace=barred))
    assert phase_reaches(desk, name, "Failed")["conditions"][0]["reason"] == "NamespaceDenied"


def test_the_controllers_own_quota_stays(world, desk, writer):
    path = quota(world, "own", **{f"{GROUP}/managed-by": "controller"})
    desk.create("KarsSREAction", "own", action(world, "DeleteResourceQuota", "own"))
    assert phase_reaches(desk, "own", "Failed")["conditions"][0]["reason"] == "ResourceGuarded"
    assert world.plane.api.find(path)


def test_a_rejected_action_is_never_done(world, desk, writer):
    path = quota(world, "kept")
    desk.create("KarsSREAction", "no", action(world, "DeleteResourceQuota", "kept", state="Rejected"))
    phase_reaches(desk, "no", "Rejected")
    assert world.plane.api.find(path)


def test_an_action_counts_only_where_no_team_can_approve_its_own(world, desk, writer):
    """What it does is not limited to its own namespace, so who may write one there must not be who may approve it."""
    victim = World(world.plane, world.plane.make_namespace())
    path = quota(victim, "theirs")
    world.create("KarsSREAction", "mine", action(victim, "DeleteResourceQuota", "theirs"))
    said = phase_reaches(world, "mine", "Failed")
    assert said["conditions"][0]["reason"] == "NamespaceDenied"
    # Neither does a status that somebody wrote themselves.
    place = f"{world.path('KarsSREAction', 'mine')}/status"
    for forged in ("Approved", "Applied"):
        patch = {"status": {"phase": forged, "appliedAt": "2026-01-01T00:00:00Z", "conditions": []}}
        world.plane.api.request("PATCH", place, patch, content="application/merge-patch+json")
        world.merge("KarsSREAction", "mine", {"metadata": {"labels": {"look": forged}}})
        phase_reaches(world, "mine", "Failed")
    assert world.plane.api.find(path)
    assert bindings(victim) == []


# Evaluations


def test_a_runners_pod_passes_the_restricted_standard_and_a_log_that_cannot_be_read_is_told(world, kars_plane):
    kars_plane.api.merge(
        f"/api/v1/namespaces/{world.namespace}",
        {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}},
    )
    kars_plane.node()
    spec = {"corpus": {"builtin": "egress-known-bad"}, "targetSandboxRef": {"name": "demo"}}
    world.create("KarsEval", "runs", spec, annotations={f"{GROUP}/run-now": "true"})
    # kwok ends the pod well, and has no log of it.
    said = world.reaches("KarsEval", "runs", "Degraded", "RunReportReadFailed", 40)
    assert "history" not in said
