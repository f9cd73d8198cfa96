"""Routers as pods: real processes under the process kubelet, pretended ones under kwok."""

import hashlib
import json
import os
import signal
import time
import urllib.request

import pytest

GOLDEN = (
    '{"appliesTo":{"sandboxName":"demo","sandboxMatchLabels":{},"action":null},"tokenBudget":null,"contentSafety":null,'
    '"modelPreference":{"primary":{"provider":"azure-openai","deployment":"gpt-4.1"},"fallback":[]},"displayName":null}'
)
GOLDEN_DIGEST = "sha256:32e9516c5e059aac9ec39870fb7e14e79d6712092cd34bf332a4ddba674bc2bf"
OTHER = GOLDEN.replace("gpt-4.1", "gpt-5")


def policy_map(text):
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "inference-policy"},
        "data": {"inference-policy.json": text},
    }


def deployment(*, sidecar=False):
    router = {
        "name": "inference-router",
        "image": "router:test",
        "env": [
            {"name": "SANDBOX_NAME", "value": "demo"},
            {"name": "INFERENCE_POLICY_DIR", "value": "/etc/kars/inference"},
            {"name": "KARS_AUDIT_DIR", "value": "disabled"},
            {"name": "ADMIN_TOKEN", "valueFrom": {"secretKeyRef": {"name": "router-admin-token", "key": "token"}}},
        ],
        "ports": [{"name": "inference", "containerPort": 8443}],
        "startupProbe": {"httpGet": {"path": "/healthz", "port": "inference"}, "periodSeconds": 1},
        "readinessProbe": {"httpGet": {"path": "/healthz", "port": 8443}, "initialDelaySeconds": 3, "periodSeconds": 5},
        "volumeMounts": [
            {"name": "inference-policy", "mountPath": "/etc/kars/inference", "readOnly": True},
            {"name": "state", "mountPath": "/var/lib/kars"},
        ],
    }
    agent = {"name": "agent", "image": "agent:test"}
    labels = {"app": "demo"}
    spec = {
        "nodeSelector": {"kars.azure.com/pool": "sandbox"},
        "terminationGracePeriodSeconds": 5,
        "initContainers": [{"name": "egress-guard", "image": "guard:test"}],
        "containers": [agent],
        "volumes": [
            {"name": "inference-policy", "configMap": {"name": "inference-policy"}},
            {"name": "extra", "configMap": {"name": "absent", "optional": True}},
            {"name": "state", "emptyDir": {}},
        ],
    }
    if sidecar:
        spec["initContainers"].append({**router, "restartPolicy": "Always"})
    else:
        spec["containers"].append(router)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "demo"},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }


ADMIN = {
    "apiVersion": "v1",
    "kind": "Secret",
    "metadata": {"name": "router-admin-token"},
    "stringData": {"token": "a" * 64},
}


def ready_pod(plane, namespace):
    """The namespace's only pod, once it is ready."""

    def find():
        for pod in plane.api.items(f"/api/v1/namespaces/{namespace}/pods"):
            state = {one["type"]: one["status"] for one in pod.get("status", {}).get("conditions", [])}
            if state.get("Ready") == "True" and "deletionTimestamp" not in pod["metadata"]:
                return pod
        return None

    return plane.wait(find, what="a ready pod")


def echoed(pod):
    """The digest of the inference policy that a pod's router has in force."""
    request = urllib.request.Request(f"http://{pod['status']['podIP']}:8443/internal/policy-status")
    with urllib.request.urlopen(request, timeout=5) as answer:
        rows = json.load(answer)["entries"]
    return next((row["digest"] for row in rows if row["kind"] == "InferencePolicy"), None)


def digest(name, body):
    """The digest of a mounted file, by the words of the contract."""
    parts = [part for text in (name.encode(), body) for part in (len(text).to_bytes(8, "big"), text)]
    return f"sha256:{hashlib.sha256(b''.join(parts)).hexdigest()}"


@pytest.mark.parametrize("sidecar", [False, True], ids=["container", "sidecar"])
def test_a_changed_config_map_reaches_the_real_router(plane, namespace, make_kubelet, sidecar):
    make_kubelet(namespace)
    plane.apply([policy_map(GOLDEN), ADMIN, deployment(sidecar=sidecar)], namespace=namespace)
    pod = ready_pod(plane, namespace)
    assert echoed(pod) == GOLDEN_DIGEST
    path = f"/api/v1/namespaces/{namespace}/configmaps/inference-policy"
    plane.api.merge(path, {"data": {"inference-policy.json": OTHER}})
    plane.wait(lambda: echoed(pod) == digest("inference-policy.json", OTHER.encode()), 5)
    plane.wait(
        lambda: plane.api.get(f"/apis/apps/v1/namespaces/{namespace}/deployments/demo")["status"]["readyReplicas"] == 1
    )


def test_a_pod_waits_for_the_config_map_that_it_mounts(plane, namespace, make_kubelet):
    make_kubelet(namespace)
    plane.apply([ADMIN, deployment()], namespace=namespace)

    def waiting():
        (pod,) = plane.api.items(f"/api/v1/namespaces/{namespace}/pods")
        (state,) = {one["state"]["waiting"]["message"] for one in pod["status"]["containerStatuses"]}
        return state

    assert "inference-policy" in plane.wait(waiting)
    plane.apply([policy_map(GOLDEN)], namespace=namespace)
    assert echoed(ready_pod(plane, namespace)) == GOLDEN_DIGEST


def test_a_router_that_crashes_is_started_again_and_counted(plane, namespace, make_kubelet):
    kubelet = make_kubelet(namespace, pace=0.01)
    plane.apply([policy_map(GOLDEN), ADMIN, deployment()], namespace=namespace)
    ready_pod(plane, namespace)
    os.kill(kubelet.pod(namespace).router.process.pid, signal.SIGKILL)

    def restarted():
        pod = ready_pod(plane, namespace)
        status = next(one for one in pod["status"]["containerStatuses"] if one["name"] == "inference-router")
        return status if status["restartCount"] == 1 else None

    assert plane.wait(restarted)["lastState"]["terminated"]["exitCode"] == 137
    assert echoed(ready_pod(plane, namespace)) == GOLDEN_DIGEST


def test_a_deleted_pod_ends_its_router_and_goes(plane, namespace, make_kubelet):
    kubelet = make_kubelet(namespace)
    plane.apply([policy_map(GOLDEN), ADMIN, deployment()], namespace=namespace)
    old = ready_pod(plane, namespace)
    process = kubelet.pod(namespace).router.process
    plane.api.merge(f"/apis/apps/v1/namespaces/{namespace}/deployments/demo", {"spec": {"replicas": 0}})
    plane.wait(lambda: not plane.api.items(f"/api/v1/namespaces/{namespace}/pods"), what="no pods")
    assert process.ended() == 0, process.tail()
    with pytest.raises(OSError):
        echoed(old)


def test_kwok_turns_a_deployments_pods_ready(plane, namespace):
    plane.node()
    plane.apply([policy_map(GOLDEN), ADMIN, deployment()], namespace=namespace)
    assert ready_pod(plane, namespace)["spec"]["nodeName"] == "kwok-sandbox"


def test_pods_of_a_namespace_claimed_for_no_node_stay_pending(plane, namespace):
    plane.schedule().claims[namespace] = ""
    plane.node()
    plane.apply([deployment()], namespace=namespace)
    plane.wait(lambda: plane.api.items(f"/api/v1/namespaces/{namespace}/pods"))
    time.sleep(0.5)
    (pod,) = plane.api.items(f"/api/v1/namespaces/{namespace}/pods")
    assert "nodeName" not in pod["spec"]
