"""A namespace of a real API server as a person sees it, and a stand-in for what a sandbox's own reconciler makes."""

import json

from kars.model.kinds import KINDS

GROUP = "kars.azure.com"


def where(kind, namespace="", name=""):
    """The path of a collection or an object of ours."""
    place = f"namespaces/{namespace}/" if namespace else ""
    return f"/apis/{GROUP}/v1alpha1/{place}{KINDS[kind].NAMES.plural}" + (f"/{name}" if name else "")


class World:
    """One namespace, seen as a person sees it."""

    def __init__(self, plane, namespace):
        self.plane = plane
        self.namespace = namespace

    def create(self, kind, name, spec, *, annotations=None):
        space = self.namespace if KINDS[kind].NAMES.namespaced else ""
        metadata = {"name": name, "annotations": annotations or {}}
        return self.plane.api.create(
            where(kind, space), {"apiVersion": f"{GROUP}/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec}
        )

    def path(self, kind, name):
        return where(kind, self.namespace if KINDS[kind].NAMES.namespaced else "", name)

    def get(self, kind, name):
        return self.plane.api.find(self.path(kind, name))

    def merge(self, kind, name, patch):
        return self.plane.api.merge(self.path(kind, name), patch)

    def delete(self, kind, name):
        return self.plane.api.delete(self.path(kind, name))

    def status(self, kind, name):
        return (self.get(kind, name) or {}).get("status") or {}

    def condition(self, kind, name, aspect="Ready"):
        found = self.status(kind, name).get("conditions", ())
        return next((one for one in found if one["type"] == aspect), None)

    def reaches(self, kind, name, phase, reason, seconds=20.0):
        """Wait for a phase and a reason of Ready; the status."""

        def there():
            ready = self.condition(kind, name)
            return ready and (self.status(kind, name).get("phase"), ready["reason"]) == (phase, reason)

        try:
            self.plane.wait(there, seconds, what=f"{kind} {name} {phase}/{reason}")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{json.dumps(self.status(kind, name), indent=1)}") from None
        return self.status(kind, name)

    def config_map(self, name, namespace=""):
        return self.plane.api.find(f"/api/v1/namespaces/{namespace or self.namespace}/configmaps/{name}")

    def wait_config_map(self, name, namespace=""):
        return self.plane.wait(lambda: self.config_map(name, namespace), what=f"the ConfigMap {name}")

    def wait_gone(self, kind, name, seconds=20.0):
        self.plane.wait(lambda: self.get(kind, name) is None, seconds, what=f"the end of {kind} {name}")


MODELS = {"primary": {"provider": "azure-openai", "deployment": "gpt-4.1"}}
EMPTY = '{"schemaVersion":1,"endpoints":[]}'
ROUTER = {
    "name": "inference-router",
    "image": "router:test",
    "ports": [{"name": "inference", "containerPort": 8443}],
    "startupProbe": {"httpGet": {"path": "/healthz", "port": "inference"}, "periodSeconds": 1},
    "readinessProbe": {"httpGet": {"path": "/healthz", "port": 8443}, "periodSeconds": 1},
}
MOUNTS = {
    "inference": ("INFERENCE_POLICY_DIR", "/etc/kars/inference"),
    "allowlist": ("EGRESS_ALLOWLIST_DIR", "/etc/kars/egress"),
    "approvals": ("EGRESS_APPROVAL_DIR", "/etc/kars/egress-approvals"),
}


class House:
    """A sandbox with a real router and what a policy needs of it: a namespace of its own, a token, lists, copies."""

    def __init__(self, world, name):
        self.world = world
        self.plane = world.plane
        self.name = name
        self.namespace = f"kars-{name}"
        self.labels = {"app.kubernetes.io/managed-by": "kars-controller", f"{GROUP}/sandbox": name}

    def make(self, *, phase="Running", **spec):
        """Make the KarsSandbox and everything of it but pods."""
        names = {"runtime": {"kind": "OpenClaw", "openclaw": {}}, "sandbox": {}, "inferenceRef": {"name": "models"}}
        self.world.create("KarsSandbox", self.name, names | spec)
        self.plane.make_namespace(self.namespace, {**self.labels, f"{GROUP}/parent-namespace": self.world.namespace})
        self.put("Secret", "router-admin-token", stringData={"token": "a" * 64})
        self.put("ConfigMap", f"karssandbox-{self.name}-egress-allowlist", data={"allowlist.json": EMPTY})
        self.say(phase)
        return self

    def put(self, kind, name, **members):
        """Apply an object of the sandbox's own namespace."""
        path = f"/api/v1/namespaces/{self.namespace}/{kind.lower()}s/{name}"
        value = {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "labels": self.labels}, **members}
        return self.plane.api.apply(path, value, manager="kars-controller/karssandbox")

    def copy(self, name):
        """Copy a ConfigMap as the sandbox's reconciler does."""
        found = self.world.wait_config_map(name)
        self.put("ConfigMap", name, data=found["data"])

    def say(self, phase):
        """Write the sandbox's phase."""
        path = f"{self.world.path('KarsSandbox', self.name)}/status"
        self.plane.api.request("PATCH", path, {"status": {"phase": phase}}, content="application/merge-patch+json")

    def run(self, policy="models"):
        """Start its pod, with a real router."""
        volumes = {
            "inference": f"inferencepolicy-{policy}-profile",
            "allowlist": f"karssandbox-{self.name}-egress-allowlist",
            "approvals": f"karssandbox-{self.name}-egress-approvals",
        }
        labels = {f"{GROUP}/sandbox": self.name, f"{GROUP}/component": "sandbox"}
        token = {"secretKeyRef": {"name": "router-admin-token", "key": "token"}}
        router = {
            **ROUTER,
            "env": [
                {"name": "SANDBOX_NAME", "value": self.name},
                {"name": "KARS_AUDIT_DIR", "value": "disabled"},
                {"name": "ADMIN_TOKEN", "valueFrom": token},
                *({"name": variable, "value": path} for variable, path in MOUNTS.values()),
            ],
            "volumeMounts": [
                {"name": "state", "mountPath": "/var/lib/kars"},
                *({"name": name, "mountPath": path} for name, (_, path) in MOUNTS.items()),
            ],
        }
        pod = {
            "nodeSelector": {f"{GROUP}/pool": "sandbox"},
            "terminationGracePeriodSeconds": 1,
            "containers": [router],
            "volumes": [
                {"name": "state", "emptyDir": {}},
                *({"name": volume, "configMap": {"name": name, "optional": True}} for volume, name in volumes.items()),
            ],
        }
        spec = {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod}}
        self.plane.api.apply(
            f"/apis/apps/v1/namespaces/{self.namespace}/deployments/{self.name}",
            {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": self.name}, "spec": spec},
        )
        try:
            self.plane.wait(self.ready, 30, what=f"a ready pod of {self.name}")
        except AssertionError as error:
            pods = self.plane.api.items(f"/api/v1/namespaces/{self.namespace}/pods")
            raise AssertionError(f"{error}: {[one.get('status') for one in pods]}") from None
        return self

    def ready(self):
        """Whether a pod is ready."""
        for pod in self.plane.api.items(f"/api/v1/namespaces/{self.namespace}/pods"):
            state = {one["type"]: one["status"] for one in pod.get("status", {}).get("conditions", [])}
            if state.get("Ready") == "True":
                return True
        return False
