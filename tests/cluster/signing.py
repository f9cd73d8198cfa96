"""Who publishes and signs for the tests on a cluster: a registry on loopback, keys, and a Sigstore of our own."""

import base64
import contextlib
import json
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from kars.artifacts.contents import EGRESS, Allowlist, write
from kars.model.sandbox import Endpoint
from tests.cluster.installation import NAMESPACE
from tests.unit.artifacts import world as sigstore
from tests.unit.artifacts.depot import Depot, sha256
from tests.unit.artifacts.world import GITHUB, WORKFLOW

SIGNER_POLICY = f"/api/v1/namespaces/{NAMESPACE}/configmaps/kars-signer-policy"
# Signers by name; `keyless` is a certificate's identity.
RELEASE, STRANGER, KEYLESS = "release", "stranger", "keyless"


# ann and secret: as htpasswd -B writes them, and as a docker config has them.
USERS = "ann:$2b$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW\n"
CREDENTIALS = base64.b64encode(b"ann:secret").decode()


class Press:
    """Publishes and signs; a `guarded` registry wants a user and a password."""

    def __init__(self, folder: Path, *, guarded: bool = False) -> None:
        extra = ""
        if guarded:
            (folder / "users").write_text(USERS)
            extra = f"auth:\n  htpasswd:\n    realm: x\n    path: {folder / 'users'}\n"
        self.depot = Depot(folder, extra=extra)
        if guarded:
            self.depot.headers = {"Authorization": f"Basic {CREDENTIALS}"}
        self.host = self.depot.host
        self.sigstore = sigstore.World()
        self.published = {}  # the manifests of images
        self.keys = {name: sigstore.new_key() for name in (RELEASE, STRANGER)}

    def docker_config(self):
        """The credentials of the registry, as `docker login` writes them."""
        return json.dumps({"auths": {self.host: {"auth": CREDENTIALS}}})

    def policy(self, *signers):
        """The data of a SignerPolicy that names these."""
        keys = [
            {"id": name, "publicKeyPem": self.pem(name), "allowedSubjects": [f"{self.host}/*"]}
            for name in signers
            if name in self.keys
        ]
        data = {"publicKeys": json.dumps(keys)} if keys else {}
        if KEYLESS in signers:
            data |= {"fulcioIssuers": f"{GITHUB}\n", "sanPatterns": f"# the pipeline\n{WORKFLOW}\n"}
        return data

    def pem(self, name):
        public = self.keys[name].public_key()
        return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

    def sign(self, repository, manifest, signer):
        """Sign as cosign does: a certificate's bundle, or a key's payload."""
        if signer == KEYLESS:
            bundle = self.sigstore.bundle(sha256(manifest))
            self.depot.attach(repository, manifest, json.dumps(bundle).encode())
        elif signer:
            payload = sigstore.simple(sha256(manifest), f"{self.host}/{repository}")
            signature = base64.b64encode(sigstore.sign(self.keys[signer], payload)).decode()
            annotations = {"dev.cosignproject.cosign/signature": signature}
            self.depot.sign_simple(repository, manifest, [(payload, annotations)])

    def artifact(self, repository, body, media_type, signer=RELEASE):
        """Publish an artifact, signed by one (or nobody); the reference to it."""
        manifest = self.depot.artifact(repository, body, media_type)
        self.sign(repository, manifest, signer)
        return {
            "registry": self.host,
            "repository": repository,
            "digest": sha256(manifest),
            "artifactType": media_type,
        }

    def allowlist(self, repository, *hosts, generation=1, signer=RELEASE):
        """Publish an allowlist of these hosts; the reference to it."""
        listed = Allowlist(tuple(Endpoint(host=host, port=443) for host in sorted(hosts)), generation)
        return self.artifact(repository, write(listed), EGRESS, signer)

    def image(self, repository, tag="v1", *, signer=RELEASE, content="layer"):
        """Publish an image of its own; how a pod names it, by tag and by digest."""
        body = f"{repository}:{tag}:{content}".encode()
        manifest = self.depot.artifact(repository, body, "application/vnd.oci.image.layer.v1.tar", tag=tag)
        self.sign(repository, manifest, signer)
        reference = f"{self.host}/{repository}@{sha256(manifest)}"
        self.published[reference] = manifest
        return f"{self.host}/{repository}:{tag}", reference

    def install(self, plane, *signers):
        """Say who may sign."""
        document = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kars-signer-policy"}}
        if plane.api.find(SIGNER_POLICY):
            plane.api.delete(SIGNER_POLICY)
        data = self.policy(*signers)
        if data:
            plane.api.create(SIGNER_POLICY.rpartition("/")[0], {**document, "data": data})

    def stop(self):
        self.depot.stop()

    @contextlib.contextmanager
    def outage(self):
        """Nobody answers at the registry."""
        self.depot.stop()
        try:
            yield
        finally:
            self.depot.start()


class Kars:
    """The controller that runs, with these variables on top of the chart's."""

    def __init__(self, installation, **variables):
        self.installation = installation
        self.variables = variables
        self.plane = installation.plane
        self.controller = None

    def start(self, **changes):
        self.controller = self.installation.start(**self.variables, **changes)
        self.plane.wait(lambda: self.controller.get("/readyz"), 40, what="the controller's readiness")

    def running(self):
        """Have one run: a test that failed may have left none."""
        if self.controller is None or self.controller.process.ended() is not None:
            self.start()
        return self

    def restart(self, **changes):
        """End it as the kubelet does, start another one, and wait until that has looked at every sandbox."""
        self.controller.process.stop()
        self.start(**changes)
        total = len(self.plane.api.items(f"/apis/kars.azure.com/v1alpha1/namespaces/{NAMESPACE}/karssandboxes"))
        name = "kars_controller_reconcile_total"
        self.plane.wait(lambda: self.controller.metric(name, crd_kind="KarsSandbox") >= total, 30)


class Sandbox:
    """One KarsSandbox, seen as a person sees it."""

    def __init__(self, plane, name, namespace=NAMESPACE):
        self.plane = plane
        self.name = name
        self.space = f"kars-{name}"
        self.path = f"/apis/kars.azure.com/v1alpha1/namespaces/{namespace}/karssandboxes/{name}"

    def create(self, **spec):
        body = {
            "runtime": {"kind": "OpenClaw"},
            "sandbox": {"isolation": "standard"},
            "inferenceRef": {"name": "models"},
            "governance": {"enabled": False},
        }
        document = {"apiVersion": "kars.azure.com/v1alpha1", "kind": "KarsSandbox", "metadata": {"name": self.name}}
        self.plane.api.create(self.path.rpartition("/")[0], {**document, "spec": body | spec})
        return self

    def merge(self, **spec):
        return self.plane.api.merge(self.path, {"spec": spec})

    def delete(self):
        self.plane.api.delete(self.path)

    def status(self):
        return self.plane.api.get(self.path).get("status") or {}

    def condition(self, kind):
        return next((one for one in self.status().get("conditions", ()) if one["type"] == kind), {})

    def says(self, kind, status, reason, seconds=20.0):
        """Wait for a condition; it."""

        def there():
            found = self.condition(kind)
            return found if (found.get("status"), found.get("reason")) == (status, reason) else None

        try:
            return self.plane.wait(there, seconds, what=f"{self.name}: {kind}={status}/{reason}")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{json.dumps(self.status(), indent=1)}") from None

    def find(self, kind, name, group="v1"):
        base = "/api/v1" if group == "v1" else f"/apis/{group}"
        return self.plane.api.find(f"{base}/namespaces/{self.space}/{kind}/{name}")

    def deployment(self):
        return self.find("deployments", self.name, "apps/v1")

    def hosts(self):
        """What allowlist.json lists; None while it is not there."""
        found = self.find("configmaps", f"karssandbox-{self.name}-egress-allowlist")
        if found is None:
            return None
        return [one["host"] for one in json.loads(found["data"]["allowlist.json"])["endpoints"]]

    def images(self):
        """The images of its Deployment by container; empty while there is none."""
        spec = (self.deployment() or {"spec": {"template": {"spec": {}}}})["spec"]["template"]["spec"]
        containers = [*spec.get("initContainers", ()), *spec.get("containers", ())]
        return {one["name"]: one["image"] for one in containers}
