"""Signed images on a real API server: what the controller verifies is pinned, and the cluster lets nothing else run."""

import contextlib
import json
import subprocess
import time
from pathlib import Path

import pytest

from tests.cluster.installation import NAMESPACE, Installation
from tests.cluster.plane import ControlPlane
from tests.cluster.signing import KEYLESS, RELEASE, STRANGER, Kars, Press, Sandbox
from tests.cluster.world import MODELS

# Controllers are restarted, and the first test starts a control plane.
pytestmark = pytest.mark.timeout(120)
LIST = f"/api/v1/namespaces/{NAMESPACE}/configmaps/kars-verified-images"
# A sandbox whose router is a real process.
ROUTED = "routed"


@pytest.fixture(scope="module")
def press(tmp_path_factory):
    made = Press(tmp_path_factory.mktemp("press"))
    yield made
    made.stop()


@pytest.fixture(scope="module")
def pinned(press):
    """The platform's images, signed: how values name them, and by digest."""
    return {name: press.image(f"kars/{name}")[1] for name in ("sandbox", "router")}


@pytest.fixture(scope="module")
def installation(tmp_path_factory, press, pinned):
    plane = ControlPlane(tmp_path_factory.mktemp("images")).start()
    try:
        made = Installation(
            plane,
            "imageSignatures.enabled=true",
            f"registry.insecure={{{press.host}}}",
            "signerPolicy.enabled=false",
            f"sandbox.image.repository={press.host}/kars/sandbox",
            "sandbox.image.tag=v1",
            f"inferenceRouter.image.repository={press.host}/kars/router",
            "inferenceRouter.image.tag=v1",
        ).install()
        root = Path(tmp_path_factory.mktemp("root")) / "root.json"
        root.write_bytes(press.sigstore.trusted_root())
        made.root = str(root)
        press.install(plane, RELEASE)
        policy = {"appliesTo": {}, "modelPreference": MODELS}
        kind = {"apiVersion": "kars.azure.com/v1alpha1", "kind": "InferencePolicy", "metadata": {"name": "models"}}
        plane.apply([{**kind, "spec": policy}], namespace=NAMESPACE)
        plane.node()
        plane.kubelet(f"kars-{ROUTED}")
        yield made
        made.stop()
    finally:
        plane.stop()


@pytest.fixture(scope="module")
def controllers(installation):
    return Kars(installation, KARS_SIGSTORE_TRUSTED_ROOT=installation.root)


@pytest.fixture
def kars(controllers):
    return controllers.running()


@pytest.fixture
def make(kars):
    made = []

    def one(name, image=None, **spec):
        if image:
            spec["runtime"] = {"kind": "BYO", "byo": {"image": image, "contractVersion": "v1"}}
        made.append(Sandbox(kars.plane, name).create(**spec))
        return made[-1]

    yield one
    for sandbox in made:
        sandbox.delete()


@pytest.fixture
def signers(kars, press):
    """Say who may sign for the length of a test."""
    yield lambda *names: press.install(kars.plane, *names)
    press.install(kars.plane, RELEASE)


@contextlib.contextmanager
def writes(plane):
    """Count how often the list of verified images is written."""
    command = [plane.tools / "kubectl", "get", "configmap", "kars-verified-images", "-n", NAMESPACE]
    watch = subprocess.Popen(
        [*command, "--watch", "-o", "name"],
        env={"KUBECONFIG": str(plane.admin), "HOME": str(plane.folder / "home")},
        stdout=subprocess.PIPE,
    )
    seen = []
    try:
        watch.stdout.readline()  # as it stands
        yield seen
        time.sleep(0.5)
    finally:
        watch.terminate()
        seen.extend(watch.communicate()[0].splitlines())


def listed(kars):
    """The verified images: digest to who signed and which tags led there."""
    return (kars.plane.api.find(LIST) or {}).get("data") or {}


def key(reference):
    return reference.rpartition("@")[2].replace(":", "-")


def touch(sandbox):
    """Have the controller look again now."""
    sandbox.plane.api.merge(sandbox.path, {"metadata": {"annotations": {"touched": sandbox.status()["phase"]}}})


def pod(sandbox, **containers):
    """A pod as somebody else would make it in a sandbox's namespace."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "stranger", "namespace": sandbox.space},
        **containers,
    }


def refusal(kars, document):
    """What the API server says of a pod; empty when it would take it. On trial, with the other policies out of the way."""
    done = kars.plane.kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(document), check=False)
    return done.stderr if "kars-signed-images" in done.stderr else ""


def test_every_image_of_a_sandbox_is_pinned_listed_and_runs(kars, make, press, pinned):
    sandbox = make(ROUTED)
    sandbox.says("Ready", "True", "Reconciled", 40)
    told = sandbox.says("ImagesVerified", "True", "Verified")
    assert "signed by key release" in told["message"]
    assert set(sandbox.images().values()) == set(pinned.values())
    for name, reference in pinned.items():
        assert listed(kars)[key(reference)].splitlines() == ["key release", f"{press.host}/kars/{name}:v1"]


def test_an_image_that_nobody_signed_makes_no_pod_until_it_is_signed(kars, make, press):
    tag, reference = press.image("team/unsigned", signer="")
    sandbox = make("unsigned", tag)
    told = sandbox.says("Degraded", "True", "ImageNotVerified")
    assert f"image {tag}: " in told["message"] and "has no signature" in told["message"]
    sandbox.says("ImagesVerified", "False", "SignatureVerifyFailed")
    assert sandbox.status()["phase"] == "Degraded"
    assert sandbox.find("networkpolicies", "sandbox-policy", "networking.k8s.io/v1")
    assert sandbox.deployment() is None and key(reference) not in listed(kars)
    press.sign("team/unsigned", press.published[reference], RELEASE)
    touch(sandbox)
    sandbox.plane.wait(sandbox.deployment)
    assert sandbox.images()["agent"] == reference


def test_an_image_by_a_stranger_and_one_that_is_not_there_are_told_apart(make, press):
    stranger, _ = press.image("team/stranger", signer=STRANGER)
    told = make("stranger", stranger).says("ImagesVerified", "False", "SignatureVerifyFailed")
    assert "none of the SignerPolicy's keys" in told["message"]
    gone = f"{press.host}/team/gone:v1"
    assert gone in make("gone", gone).says("ImagesVerified", "False", "NotFound")["message"]


def test_the_cluster_refuses_other_images_in_sandboxes_whoever_asks(kars, make, press, pinned):
    sandbox = make("guarded")
    sandbox.plane.wait(sandbox.deployment)
    good, other = pinned["sandbox"], f"{press.host}/team/other@sha256:{'f' * 64}"
    runs = lambda image, **more: pod(sandbox, spec={"containers": [{"name": "a", "image": image}], **more})  # noqa: E731
    assert not refusal(kars, runs(good))
    assert "not pinned by digest" in refusal(kars, runs(f"{press.host}/kars/sandbox:v1"))
    assert "without a signature" in refusal(kars, runs(other))
    assert "without a signature" in refusal(kars, runs(good, initContainers=[{"name": "b", "image": other}]))
    volume = {"name": "v", "image": {"reference": other}}
    assert "without a signature" in refusal(kars, runs(good, volumes=[volume]))
    running = sandbox.plane.wait(lambda: kars.plane.api.items(f"/api/v1/namespaces/{sandbox.space}/pods"))[0]
    added = {"spec": {"ephemeralContainers": [{"name": "debug", "image": other}]}}
    done = kars.plane.kubectl(
        *("patch", "pod", running["metadata"]["name"], "-n", sandbox.space, "--subresource=ephemeralcontainers"),
        *("--type=strategic", "-p", json.dumps(added)),
        check=False,
    )
    assert done.returncode != 0


def test_a_revoked_signer_starts_no_pod_any_more_and_what_runs_says_so(kars, make, press, signers):
    tag, reference = press.image("team/revoked", signer=KEYLESS)
    signers(RELEASE, KEYLESS)
    sandbox, other = make("revoked", tag), make("standing")
    for one in (sandbox, other):
        one.says("ImagesVerified", "True", "Verified")
        one.says("RuntimeReady", "True", "Reconciled")
    signers(RELEASE)
    told = sandbox.says("Degraded", "True", "ImageNotVerified")
    assert tag in told["message"]
    sandbox.says("ImagesVerified", "False", "IdentityMismatch")
    other.says("ImagesVerified", "True", "Verified")
    sandbox.plane.wait(lambda: key(reference) not in listed(kars), what="the list without it")
    # The pod that runs is left, and what others want of it is not refused; one that goes does not come back.
    (running,) = kars.plane.api.items(f"/api/v1/namespaces/{sandbox.space}/pods")
    name = running["metadata"]["name"]
    kars.plane.wait(
        lambda: kars.plane.kubectl("label", "--overwrite", "pod", name, "-n", sandbox.space, "a=b"), what="a new label"
    )
    kars.plane.kubectl("delete", "pod", name, "-n", sandbox.space, "--wait=false")

    def refused():
        conditions = sandbox.deployment()["status"]["conditions"]
        return any(one["type"] == "ReplicaFailure" and "team/revoked" in one["message"] for one in conditions)

    kars.plane.wait(refused, 30, what="the refused pod")
    other_pod = kars.plane.api.items(f"/api/v1/namespaces/{other.space}/pods")[0]["metadata"]
    kars.plane.kubectl("delete", "pod", other_pod["name"], "-n", other.space, "--wait=false")

    def renewed():
        pods = kars.plane.api.items(f"/api/v1/namespaces/{other.space}/pods")
        return [one for one in pods if one["metadata"]["uid"] != other_pod["uid"]]

    kars.plane.wait(renewed, what="another pod of a signer who counts")


def test_neither_a_restart_nor_an_outage_nor_a_moved_tag_takes_anything_away(kars, make, press):
    tag, reference = press.image("team/kept")
    sandbox = make("kept", tag)
    sandbox.plane.wait(lambda: sandbox.images().get("agent") == reference)
    before, deployment = kars.plane.api.get(LIST), sandbox.deployment()
    with press.outage():
        kars.restart()
        told = sandbox.says("ImagesVerified", "False", "Transient")
        assert f"{reference} stays" in told["message"] and "did not answer" in told["message"]
        assert sandbox.condition("Degraded").get("status") != "True"
        assert kars.plane.api.get(LIST)["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]
        assert sandbox.deployment()["metadata"]["generation"] == deployment["metadata"]["generation"]
    # The tag leads to something that nobody signed: the sandbox stays at what it had.
    press.image("team/kept", signer="", content="newer")
    kars.restart()
    told = sandbox.says("ImagesVerified", "False", "SignatureVerifyFailed")
    assert f"{reference} stays" in told["message"]
    assert sandbox.images()["agent"] == reference
    # And to something that is signed: it follows.
    _, newer = press.image("team/kept", content="newest")
    kars.restart()
    sandbox.plane.wait(lambda: sandbox.images()["agent"] == newer, 30)
    sandbox.says("ImagesVerified", "True", "Verified")
    assert listed(kars)[key(newer)].splitlines()[1:] == [tag]
    assert listed(kars)[key(reference)].splitlines()[1:] == []


def test_a_list_that_somebody_takes_away_is_there_again(kars, make, pinned):
    make("listing").says("ImagesVerified", "True", "Verified")
    before = listed(kars)
    kars.plane.kubectl("delete", "configmap", "kars-verified-images", "-n", NAMESPACE)
    kars.plane.wait(lambda: listed(kars) == before, what="the list")


def test_many_sandboxes_write_the_list_once_for_each_change(kars, make, press):
    make("first").says("ImagesVerified", "True", "Verified")
    with writes(kars.plane) as seen:
        many = [make(f"many-{number}") for number in range(12)]
        for sandbox in many:
            sandbox.plane.wait(sandbox.deployment)
    assert not seen
    own = [press.image(f"team/own-{number}")[0] for number in range(12)]
    with writes(kars.plane) as seen:
        many = [make(f"own-{number}", image) for number, image in enumerate(own)]
        for sandbox in many:
            sandbox.plane.wait(sandbox.deployment)
    assert 1 <= len(seen) <= 12
