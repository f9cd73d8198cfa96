"""Somebody else's hands in what the controller makes, and somebody else's objects in its way."""

import time

import pytest

from tests.cluster import unrest
from tests.cluster.installation import NAMESPACE

RBAC = "/apis/rbac.authorization.k8s.io/v1"
LABELS = ("app.kubernetes.io/managed-by", "kars.azure.com/sandbox", "kars.azure.com/parent-namespace")
# Every kind of child that a plain sandbox has: where it is, and an edit that must not stand.
CHILDREN = {
    "serviceaccount": ("/api/v1/namespaces/{box}/serviceaccounts/sandbox", {"automountServiceAccountToken": True}),
    "role": (RBAC + "/namespaces/{home}/roles/kars-spawner-{name}", {"rules": []}),
    "rolebinding": (RBAC + "/namespaces/{home}/rolebindings/kars-spawner-{name}", {"subjects": []}),
    "networkpolicy": (
        "/apis/networking.k8s.io/v1/namespaces/{box}/networkpolicies/sandbox-policy",
        {"spec": {"egress": [{}]}},
    ),
    "configmap": ("/api/v1/namespaces/{box}/configmaps/karssandbox-{name}-egress-allowlist", {"data": {"x": "y"}}),
    "copy": ("/api/v1/namespaces/{box}/configmaps/inferencepolicy-models-profile", {"data": None}),
    "compiled": ("/api/v1/namespaces/{home}/configmaps/inferencepolicy-models-profile", {"data": None}),
    "service": ("/api/v1/namespaces/{box}/services/{name}", {"spec": {"selector": {"a": "b"}}}),
    "deployment": ("/apis/apps/v1/namespaces/{box}/deployments/{name}", {"spec": {"replicas": 3}}),
}


def paths(name):
    return {kind: path.format(box=f"kars-{name}", home=NAMESPACE, name=name) for kind, (path, _) in CHILDREN.items()}


@pytest.mark.parametrize("heir", [False, True], ids=["who made it", "its heir"])
def test_children_of_every_kind_that_somebody_deletes_are_made_again(trial, heir):
    (name,) = trial.make()
    trial.settled("creation")
    if heir:
        # Whoever comes after finds nothing to write, and must all the same know what belongs to what.
        trial.leader().kill()
        trial.heir().wait_leading()
    for kind, path in paths(name).items():
        before = trial.plane.api.get(path)["metadata"]["uid"]
        began = time.monotonic()
        trial.plane.api.delete(path)
        trial.settled(f"deletion of the {kind}", since=began)
        assert trial.plane.api.get(path)["metadata"]["uid"] != before


def test_children_of_every_kind_that_somebody_edits_are_put_back(trial):
    (name,) = trial.make()
    trial.settled("creation")
    began = time.monotonic()
    for kind, path in paths(name).items():
        trial.plane.api.merge(path, CHILDREN[kind][1])
    trial.settled("edit of every child", since=began)


def test_children_whose_labels_somebody_removes_get_them_back(trial):
    (name,) = trial.make()
    trial.settled("creation")
    tokens = [f"/api/v1/namespaces/kars-{name}/secrets/{one}" for one in ("gateway-token", "router-admin-token")]
    before = [trial.plane.api.get(path)["data"] for path in tokens]
    bare = {"metadata": {"labels": dict.fromkeys(LABELS)}}
    began = time.monotonic()
    for path in (*paths(name).values(), *tokens):
        trial.plane.api.merge(path, bare)
    trial.settled("removal of every child's labels", since=began)
    trial.plane.wait(lambda: all(LABELS[0] in trial.plane.api.get(path)["metadata"]["labels"] for path in tokens))
    assert [trial.plane.api.get(path)["data"] for path in tokens] == before


@pytest.mark.parametrize("lost", [LABELS, LABELS[:1], LABELS[1:2], LABELS[2:]], ids=["all", "managed", "name", "home"])
def test_a_namespace_whose_labels_somebody_removes_gets_them_back(trial, lost):
    (name,) = trial.make()
    trial.settled("creation")
    began = time.monotonic()
    path = f"/api/v1/namespaces/kars-{name}"
    trial.plane.api.merge(path, {"metadata": {"labels": dict.fromkeys(lost)}})
    trial.settled(f"removal of {len(lost)} of the namespace's labels", since=began)
    trial.plane.wait(lambda: set(LABELS) <= set(trial.plane.api.get(path)["metadata"]["labels"]))
