"""Signed artifacts on a real API server: a registry, signatures, the chart's controller, real routers that enforce.

Each test has sandboxes and repositories of its own; what changes for all (who may sign, the registry, the controller)
is put back by `press` and `kars`.
"""

import json
import socket

import pytest

from kars.artifacts.contents import INFERENCE, TOOLS
from tests.cluster.installation import NAMESPACE, Installation
from tests.cluster.plane import ControlPlane
from tests.cluster.signing import KEYLESS, RELEASE, SIGNER_POLICY, STRANGER, Kars, Press, Sandbox
from tests.cluster.world import MODELS
from tests.system.dns import Dns

# Controllers are restarted, and the first test starts a control plane.
pytestmark = pytest.mark.timeout(120)
PROXY_PORT = 8444
# Sandboxes whose routers are real processes.
ROUTED = ("kars-enforced", "kars-renewed", "kars-bundled")


@pytest.fixture(scope="module")
def press(tmp_path_factory):
    made = Press(tmp_path_factory.mktemp("press"), guarded=True)
    yield made
    made.stop()


@pytest.fixture(scope="module")
def names():
    with Dns({}) as dns:
        yield dns


@pytest.fixture(scope="module")
def cluster(tmp_path_factory, press, names):
    """A control plane with the charts, as values say where things are."""
    plane = ControlPlane(tmp_path_factory.mktemp("signed")).start()
    try:
        plane.make_namespace(NAMESPACE)
        root = {"metadata": {"name": "sigstore"}, "data": {"root.json": press.sigstore.trusted_root().decode()}}
        plane.api.create(f"/api/v1/namespaces/{NAMESPACE}/configmaps", root)
        pull = {"type": "kubernetes.io/dockerconfigjson", "stringData": {".dockerconfigjson": press.docker_config()}}
        plane.api.create(f"/api/v1/namespaces/{NAMESPACE}/secrets", {"metadata": {"name": "pull"}, **pull})
        installation = Installation(
            plane,
            f"registry.insecure={{{press.host}}}",
            "registry.credentialsSecret=pull",
            "signerPolicy.enabled=false",
            "signerPolicy.trustedRoot.configMap=sigstore",
            "signerPolicy.trustedRoot.key=root.json",
            f"router.settings.EGRESS_DNS_SERVERS={names.address}",
        ).install()
        press.install(plane, RELEASE, KEYLESS)
        policy = {"appliesTo": {}, "modelPreference": MODELS}
        kind = {"apiVersion": "kars.azure.com/v1alpha1", "kind": "InferencePolicy", "metadata": {"name": "models"}}
        plane.apply([{**kind, "spec": policy}], namespace=NAMESPACE)
        plane.node()
        plane.kubelet(*ROUTED)
        yield installation
        installation.stop()
    finally:
        plane.stop()


@pytest.fixture(scope="module")
def controllers(cluster):
    return Kars(cluster)


@pytest.fixture
def kars(controllers):
    return controllers.running()


@pytest.fixture
def make(kars):
    made = []

    def one(name, reference=None, *, inline=(), mode="Strict", **spec):
        policy = {"egressMode": mode, "allowedEndpoints": [{"host": host, "port": 443} for host in inline]}
        if reference:
            policy["allowlistRef"] = reference
        made.append(Sandbox(kars.plane, name).create(networkPolicy=policy, **spec))
        return made[-1]

    yield one
    for sandbox in made:
        sandbox.delete()


@pytest.fixture
def signers(kars, press):
    """Say who may sign for the length of a test."""
    yield lambda *names: press.install(kars.plane, *names)
    press.install(kars.plane, RELEASE, KEYLESS)


def refer(sandbox, reference):
    sandbox.merge(networkPolicy={"allowlistRef": reference})


@pytest.mark.parametrize("signer", [RELEASE, KEYLESS])
def test_a_signed_allowlist_is_in_force_and_the_inline_one_is_only_compared_with_it(make, press, signer):
    reference = press.allowlist(f"team/{signer}", "signed.example", generation=7, signer=signer)
    sandbox = make(f"plain-{signer}", reference, inline=["inline.example"])
    told = sandbox.says("AllowlistVerified", "True", "Verified")
    assert reference["digest"] in told["message"] and "generation 7" in told["message"]
    sandbox.says("AllowlistAuthoritative", "True", "Verified")
    assert sandbox.hosts() == ["signed.example"]
    sandbox.plane.wait(sandbox.deployment)
    drift = sandbox.says("AllowlistDrift", "True", "InlineDiffersFromArtifact")["message"].rpartition(" | drift=")[2]
    assert json.loads(drift) == {"added": ["inline.example:443"], "removed": ["signed.example:443"]}
    sandbox.merge(networkPolicy={"allowedEndpoints": [{"host": "Signed.example"}]})
    sandbox.plane.wait(lambda: sandbox.condition("AllowlistDrift").get("status") != "True")
    assert sandbox.hosts() == ["signed.example"]


@pytest.mark.parametrize(
    ("signer", "reason", "words"),
    [
        (STRANGER, "SignatureVerifyFailed", "none of the SignerPolicy's keys"),
        ("", "SignatureVerifyFailed", "no signature"),
    ],
)
def test_what_nobody_who_may_signed_is_refused_and_nothing_may_be_reached(make, press, signer, reason, words):
    name = f"unsigned-{signer or 'nobody'}"
    reference = press.allowlist(f"team/{name}", "signed.example", signer=signer)
    sandbox = make(name, reference, inline=["inline.example"])
    told = sandbox.says("AllowlistVerified", "False", reason)
    assert words in told["message"] and reference["digest"] in told["message"]
    sandbox.says("AllowlistAuthoritative", "False", "FailedClosed")
    degraded = sandbox.says("Degraded", "True", "FailedClosed")
    assert words in degraded["message"]
    assert sandbox.status()["phase"] == "Degraded"
    assert sandbox.hosts() == []
    assert sandbox.deployment() is None


def test_a_certificate_of_somebody_else_is_an_identity_mismatch(make, press, signers):
    signers(RELEASE)
    sandbox = make("mismatch", press.allowlist("team/mismatch", "signed.example", signer=KEYLESS))
    sandbox.says("AllowlistVerified", "False", "IdentityMismatch")
    signers(KEYLESS)
    sandbox.says("AllowlistVerified", "True", "Verified")
    sandbox.plane.wait(sandbox.deployment)


def test_without_a_signer_policy_the_sandbox_says_so(make, press, signers):
    sandbox = make("nobody", press.allowlist("team/nobody", "signed.example"))
    sandbox.says("AllowlistVerified", "True", "Verified")
    signers()
    sandbox.says("AllowlistVerified", "False", "SignerPolicyMissing")
    sandbox.plane.api.create(
        SIGNER_POLICY.rpartition("/")[0],
        {"metadata": {"name": "kars-signer-policy"}, "data": {"sanPatterns": "https://a b\n"}},
    )
    told = sandbox.says("AllowlistVerified", "False", "SignerPolicyMalformed")
    assert "fulcioIssuers" in told["message"]
    assert sandbox.hosts() == []


def tunnel(kars, sandbox, host):
    """Ask the sandbox's real egress proxy for a tunnel; its status."""
    address = kars.plane.api.items(f"/api/v1/namespaces/{sandbox.space}/pods")[0]["status"]["podIP"]
    with socket.create_connection((address, PROXY_PORT), timeout=5) as connection:
        connection.sendall(f"CONNECT {host}:443 HTTP/1.1\r\nHost: {host}:443\r\n\r\n".encode())
        return int(connection.recv(65536).split()[1])


def test_the_real_router_enforces_the_artifact_and_not_the_inline_list(kars, make, press, names):
    reference = press.allowlist("team/enforced", "signed.example")
    sandbox = make("enforced", reference, inline=["inline.example"])
    sandbox.says("Ready", "True", "Reconciled", 40)
    assert "EgressAllowlist" in sandbox.condition("PoliciesEnforced")["message"]
    # A destination that is allowed is looked up (and is not there); one that is not is never even looked up.
    assert tunnel(kars, sandbox, "inline.example") == 403
    assert tunnel(kars, sandbox, "signed.example") in {502, 503, 504}
    asked = {query.name for query in names.queries}
    assert "signed.example" in asked and "inline.example" not in asked


def test_a_new_generation_reaches_the_running_router_and_an_older_one_is_refused(kars, make, press):
    first = press.allowlist("team/renewed", "old.example", generation=1)
    second = press.allowlist("team/renewed", "new.example", generation=2)
    sandbox = make("renewed", first)
    sandbox.says("Ready", "True", "Reconciled", 40)
    pod = kars.plane.api.items(f"/api/v1/namespaces/{sandbox.space}/pods")[0]["metadata"]["uid"]
    refer(sandbox, second)
    kars.plane.wait(lambda: tunnel(kars, sandbox, "old.example") == 403, 20, what="the router's new list")
    sandbox.says("Ready", "True", "Reconciled", 20)
    assert kars.plane.api.items(f"/api/v1/namespaces/{sandbox.space}/pods")[0]["metadata"]["uid"] == pod
    refer(sandbox, first)
    told = sandbox.says("AllowlistVerified", "False", "CanonicalFormViolation")
    assert "generation 1 is older than 2" in told["message"]
    sandbox.says("AllowlistAuthoritative", "False", "StaleLKG")
    assert sandbox.hosts() == ["new.example"]
    path = f"/apis/events.k8s.io/v1/namespaces/{NAMESPACE}/events"
    warned = {"reason": "CanonicalFormViolation", "type": "Warning"}
    kars.plane.wait(lambda: [one for one in kars.plane.api.items(path) if warned.items() <= one.items()])
    # Nor after a restart: the number is kept beside the list.
    kars.restart()
    sandbox.says("AllowlistAuthoritative", "False", "StaleLKG")
    assert sandbox.hosts() == ["new.example"]


def test_an_outage_of_the_registry_takes_nothing_away_across_a_restart(kars, make, press):
    sandbox = make("outage", press.allowlist("team/outage", "signed.example"), inline=["inline.example"])
    sandbox.says("AllowlistAuthoritative", "True", "Verified")
    with press.outage():
        kars.restart()
        told = sandbox.plane.wait(lambda: "did not answer" in sandbox.condition("AllowlistVerified")["message"])
        told = sandbox.condition("AllowlistVerified")
        assert (told["status"], told["reason"]) == ("True", "Verified")
        assert sandbox.condition("AllowlistAuthoritative")["status"] == "True"
        assert sandbox.condition("Degraded").get("status") != "True"
        assert sandbox.hosts() == ["signed.example"]
        # What was never good is not in force, and says that it is waited for.
        other = make("outage-first", press_reference(press, "team/never"), inline=["inline.example"])
        told = other.says("Ready", "False", "FailedClosed")
        assert "did not answer" in told["message"]
        assert other.hosts() == [] and other.deployment() is None
    other.says("AllowlistVerified", "False", "NotFound", 40)


def press_reference(press, repository):
    """A reference to what is not there."""
    kind = "application/vnd.kars.egress-allowlist.v1+yaml"
    return {"registry": press.host, "repository": repository, "digest": f"sha256:{'0' * 64}", "artifactType": kind}


def test_a_revoked_signer_takes_the_last_good_list_away_too_with_the_registry_up_or_down(kars, make, press, signers):
    signers(RELEASE, KEYLESS)
    up = make("revoked-up", press.allowlist("team/revoked-up", "signed.example"))
    kept = make("revoked-kept", press.allowlist("team/revoked-kept", "kept.example", signer=KEYLESS))
    for one in (up, kept):
        one.says("AllowlistAuthoritative", "True", "Verified")
    with press.outage():
        kars.restart()
        signers(KEYLESS)
        told = up.says("AllowlistVerified", "False", "SignatureVerifyFailed")
        assert "did not answer" in told["message"] and "last good artifact is not used" in told["message"]
        up.says("AllowlistAuthoritative", "False", "FailedClosed")
        up.plane.wait(lambda: up.hosts() == [])
        assert kept.hosts() == ["kept.example"]
    # The Deployment that stood stands: its router lets nothing out.
    assert up.deployment() is not None
    signers(RELEASE, KEYLESS)
    up.says("AllowlistAuthoritative", "True", "Verified")
    assert up.hosts() == ["signed.example"]


def test_a_sandbox_that_is_refused_can_still_be_put_to_sleep(make, press, signers):
    sandbox = make("asleep", press.allowlist("team/asleep", "signed.example"))
    sandbox.plane.wait(sandbox.deployment)
    signers(KEYLESS)
    sandbox.says("Degraded", "True", "FailedClosed")
    sandbox.merge(suspended=True)
    sandbox.plane.wait(lambda: sandbox.deployment()["spec"]["replicas"] == 0)
    sandbox.merge(suspended=False)
    sandbox.says("Suspended", "False", "Active")
    assert sandbox.deployment()["spec"]["replicas"] == 0


def test_where_lists_must_be_signed_an_inline_one_makes_no_pod(kars, make, press):
    kars.restart(REQUIRE_SIGNED_ALLOWLIST="true")
    try:
        inline = make("required", inline=["inline.example"])
        told = inline.says("Degraded", "True", "Unsigned")
        assert "networkPolicy.allowlistRef" in told["message"]
        inline.says("AllowlistVerified", "False", "Unsigned")
        inline.says("AllowlistAuthoritative", "False", "FailedClosed")
        assert inline.deployment() is None and inline.hosts() == []
        signed = make("required-signed", press.allowlist("team/required", "signed.example"))
        signed.plane.wait(signed.deployment)
        refer(inline, press.allowlist("team/required-now", "signed.example"))
        inline.plane.wait(inline.deployment)
    finally:
        kars.restart()


def policy(kind, name, spec):
    return {"apiVersion": "kars.azure.com/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def condition_of(kars, plural, name):
    path = f"/apis/kars.azure.com/v1alpha1/namespaces/{NAMESPACE}/{plural}/{name}"
    found = (kars.plane.api.get(path).get("status") or {}).get("conditions", ())
    return next((one for one in found if one["type"] == "Ready"), {})


def test_a_signed_policy_is_held_to_the_charts_floor_of_content_safety(kars, press, signers):
    """The admission policy judges what is written out; what an artifact says only the controller sees."""
    path = f"/api/v1/namespaces/{NAMESPACE}/configmaps/inferencepolicy-floored-profile"

    def published():
        return (kars.plane.api.find(path) or {}).get("data")

    def refer(level, labels=None):
        body = json.dumps({"modelPreference": MODELS, "contentSafety": {"hate": level}}).encode()
        made = policy(
            "InferencePolicy",
            "floored",
            {"appliesTo": {}, "bundleRef": press.artifact("team/floored", body, INFERENCE, KEYLESS)},
        )
        made["metadata"]["labels"] = labels or {}
        kars.plane.apply([made], namespace=NAMESPACE)

    refer("Medium")
    before = kars.plane.wait(published, 30)
    refer("High")
    kars.plane.wait(lambda: condition_of(kars, "inferencepolicies", "floored").get("reason") == "SpecInvalid")
    assert "may be Medium at most" in condition_of(kars, "inferencepolicies", "floored")["message"]
    assert published() == before
    refer("High", {"kars.azure.com/dev-only": "true"})
    kars.plane.wait(lambda: published() != before)


def test_policies_that_are_artifacts_back_a_sandbox(kars, make, press, signers):
    body = json.dumps({"modelPreference": MODELS, "tokenBudget": {"dailyTokens": 4321}}).encode()
    models = press.artifact("team/models", body, INFERENCE, KEYLESS)
    profile = b'version: "1.0"\nagent: "*"\npolicies: []\n'
    tools = press.artifact("team/tools", profile, TOOLS)
    kars.plane.apply(
        [
            policy("InferencePolicy", "bundled", {"appliesTo": {}, "bundleRef": models}),
            policy(
                "ToolPolicy",
                "bundled",
                {"appliesTo": {"sandboxMatchLabels": {"a": "b"}}, "agtProfile": {"bundleRef": tools}},
            ),
        ],
        namespace=NAMESPACE,
    )
    governance = {"enabled": True, "toolPolicyRef": {"name": "bundled"}}
    sandbox = make("bundled", inferenceRef={"name": "bundled"}, governance=governance)
    sandbox.says("Ready", "True", "Reconciled", 40)
    copied = sandbox.find("configmaps", "inferencepolicy-bundled-profile")["data"]["inference-policy.json"]
    assert json.loads(copied)["tokenBudget"]["dailyTokens"] == 4321
    assert sandbox.find("configmaps", "toolpolicy-bundled-profile")["data"]["agt-profile.yaml"].encode() == profile
    # Without its registry a policy says so, and what it published backs its sandboxes on.
    with press.outage():
        kars.restart()
        kars.plane.wait(lambda: condition_of(kars, "inferencepolicies", "bundled").get("reason") == "Transient")
        sandbox.says("Ready", "True", "Reconciled")
        assert sandbox.find("configmaps", "inferencepolicy-bundled-profile")["data"]["inference-policy.json"] == copied
    # A revocation is told at once; the policy that is in force stays, since none at all would be less.
    signers(RELEASE)
    kars.plane.wait(lambda: condition_of(kars, "inferencepolicies", "bundled").get("reason") == "IdentityMismatch")
    assert sandbox.find("configmaps", "inferencepolicy-bundled-profile")["data"]["inference-policy.json"] == copied
    signers(RELEASE, KEYLESS)
    kars.plane.wait(lambda: condition_of(kars, "inferencepolicies", "bundled").get("status") == "True", 30)
