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


def test_a_namespace_that_somebody_deletes_is_made_again_with_everything_in_it(trial):
    (name,) = trial.make()
    trial.settled("creation")
    path = f"/api/v1/namespaces/kars-{name}"
    before = trial.plane.api.get(path)["metadata"]["uid"]
    trial.census.forget(name)
    trial.plane.api.delete(path)
    trial.plane.wait(lambda: (trial.plane.api.find(path) or {"metadata": {}})["metadata"].get("uid") != before, 40)
    gone = time.monotonic()
    trial.settled("the end of a namespace that somebody deleted", since=gone)
    assert trial.plane.api.get(path)["metadata"]["uid"] != before


def test_a_sandbox_that_is_made_again_while_its_namespace_goes_gets_one_of_its_own(trial):
    (name,) = trial.make()
    trial.settled("creation")
    path = f"/api/v1/namespaces/kars-{name}"
    before = trial.plane.api.get(path)["metadata"]["uid"]
    # Somebody holds the namespace for longer than the sandbox, which is let go of by force.
    held = f"/api/v1/namespaces/kars-{name}/configmaps"
    trial.plane.api.create(held, {"metadata": {"name": "held", "finalizers": ["example.com/wait"]}})
    trial.plane.api.delete(trial.path(name))
    trial.plane.wait(lambda: "deletionTimestamp" in trial.plane.api.get(path)["metadata"], what="the namespace goes")
    trial.plane.api.merge(trial.path(name), {"metadata": {"finalizers": []}})
    trial.plane.wait(lambda: trial.plane.api.find(trial.path(name)) is None, what="the sandbox is gone")
    trial.create(name)
    time.sleep(1.0)
    assert trial.plane.api.get(path)["metadata"]["uid"] == before
    trial.plane.api.merge(f"{held}/held", {"metadata": {"finalizers": []}})
    trial.plane.wait(lambda: (trial.plane.api.find(path) or {"metadata": {}})["metadata"].get("uid") != before, 40)
    trial.settled("the end of the namespace before", since=time.monotonic())


def contents(trial, space):
    """Everything of a namespace that a controller could touch, as it is stored."""
    kinds = ("serviceaccounts", "secrets", "configmaps", "services")
    found = [one for kind in kinds for one in trial.plane.api.items(f"/api/v1/namespaces/{space}/{kind}")]
    found += trial.plane.api.items(f"/apis/apps/v1/namespaces/{space}/deployments")
    found += trial.plane.api.items(f"/apis/networking.k8s.io/v1/namespaces/{space}/networkpolicies")
    space = trial.plane.api.get(f"/api/v1/namespaces/{space}")
    return [(one["metadata"]["name"], one["metadata"]["uid"], one["metadata"]["resourceVersion"]) for one in found], (
        space["metadata"]["uid"],
        space["metadata"].get("labels"),
        "deletionTimestamp" in space["metadata"],
    )


@pytest.mark.parametrize("stamped", [False, True], ids=["plain", "with our labels of another"])
def test_a_namespace_that_was_there_before_is_neither_taken_nor_deleted(trial, stamped):
    name = trial.name()
    labels = {LABELS[0]: "kars-controller", LABELS[1]: name, LABELS[2]: "elsewhere"} if stamped else {}
    space = trial.plane.make_namespace(f"kars-{name}", labels)
    trial.plane.api.create(f"/api/v1/namespaces/{space}/configmaps", {"metadata": {"name": "theirs"}})
    trial.census.dismiss(name)
    trial.plane.wait(lambda: len(contents(trial, space)[0]) >= 3)
    before = contents(trial, space)
    trial.create(name)
    trial.plane.wait(lambda: trial.ready(name)[:2] == ("False", "NamespaceNotOwned"))
    assert f"{LABELS[2]}={NAMESPACE}" in trial.ready(name)[2]
    trial.plane.api.delete(trial.path(name))
    trial.plane.wait(lambda: trial.plane.api.find(trial.path(name)) is None)
    time.sleep(0.5)
    assert contents(trial, space) == before
    trial.plane.api.delete(f"/api/v1/namespaces/{space}")


def test_the_second_sandbox_of_a_name_never_touches_the_first_and_takes_its_place_when_it_is_gone(trial):
    (name,) = trial.make()
    trial.settled("creation")
    other = trial.plane.make_namespace()
    path = unrest.POLICIES.replace(NAMESPACE, other)
    trial.plane.api.create(path, unrest.policy(unrest.MODELS))
    before = contents(trial, f"kars-{name}")
    trial.create(name, namespace=other)
    trial.plane.wait(lambda: trial.ready(name, other)[:2] == ("False", "NamespaceNotOwned"))
    trial.settled("a second sandbox of a name")
    trial.plane.api.delete(trial.path(name, other))
    trial.plane.wait(lambda: trial.plane.api.find(trial.path(name, other)) is None)
    trial.settled("the end of the second sandbox of a name")
    assert contents(trial, f"kars-{name}") == before
    trial.create(name, namespace=other)
    trial.plane.wait(lambda: trial.ready(name, other)[:2] == ("False", "NamespaceNotOwned"))
    trial.plane.api.delete(trial.path(name))
    trial.plane.wait(lambda: trial.plane.api.find(trial.path(name)) is None, 40)
    trial.settled("the end of the first sandbox of a name")
    space = trial.plane.api.get(f"/api/v1/namespaces/kars-{name}")
    assert space["metadata"]["labels"][LABELS[2]] == other


@pytest.mark.parametrize("name", ["system", "sre"])
def test_a_sandbox_whose_namespace_would_be_the_control_planes_is_refused(trial, name):
    before = trial.plane.api.get(f"/api/v1/namespaces/{NAMESPACE}")["metadata"]
    spec = unrest.sandbox(name)
    try:
        trial.plane.api.create(unrest.SANDBOXES, spec)
    except AssertionError as refusal:
        assert "reserved" in str(refusal)
        return
    trial.plane.wait(lambda: trial.ready(name)[:2] == ("False", "NameReserved"))
    trial.plane.api.delete(trial.path(name))
    trial.plane.wait(lambda: trial.plane.api.find(trial.path(name)) is None)
    time.sleep(0.5)
    after = trial.plane.api.get(f"/api/v1/namespaces/{NAMESPACE}")["metadata"]
    assert (after["uid"], after["labels"]) == (before["uid"], before["labels"])
    assert "deletionTimestamp" not in after


QUOTA = {"metadata": {"name": "full"}, "spec": {"hard": {"count/networkpolicies.networking.k8s.io": "0"}}}


def limit(trial, quotas, quota):
    """Make a quota, and wait until it counts; after an API server that was away its controller may pause half a minute."""
    trial.plane.api.create(quotas, quota)
    hard = lambda: (trial.plane.api.get(f"{quotas}/full").get("status") or {}).get("hard")  # noqa: E731
    trial.plane.wait(hard, seconds=60, what="the quota is counted")


def test_a_child_that_a_quota_forbids_is_told_and_made_once_there_is_room(trial):
    (name,) = trial.make()
    trial.settled("creation")
    quotas = f"/api/v1/namespaces/kars-{name}/resourcequotas"
    limit(trial, quotas, QUOTA)
    trial.plane.api.delete(paths(name)["networkpolicy"])
    trial.plane.wait(lambda: trial.condition(name, "Degraded").get("status") == "True", what="Degraded")
    assert "exceeded quota" in trial.condition(name, "Degraded")["message"]
    assert trial.ready(name)[:2] == ("False", "Forbidden")
    trial.plane.api.delete(f"{quotas}/full")
    trial.settled("the end of a quota", since=time.monotonic())


def test_a_pod_that_a_quota_forbids_is_told_and_made_once_there_is_room(trial):
    (name,) = trial.make()
    trial.settled("creation")
    quotas = f"/api/v1/namespaces/kars-{name}/resourcequotas"
    limit(trial, quotas, {"metadata": {"name": "full"}, "spec": {"hard": {"pods": "0"}}})
    trial.plane.api.merge(trial.path(name), {"spec": {"suspended": False}})
    trial.plane.wait(lambda: trial.ready(name)[:2] == ("False", "PodsRefused"), what="PodsRefused")
    assert "exceeded quota" in trial.ready(name)[2]
    trial.plane.api.delete(f"{quotas}/full")
    trial.settled("the end of a quota of pods", since=time.monotonic())


def test_a_child_that_admission_refuses_is_told_and_made_once_it_may_be(trial):
    (name,) = trial.make()
    trial.settled("creation")
    kind = "admissionregistration.k8s.io/v1"
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["services"]}
    spec = {
        "failurePolicy": "Fail",
        "matchConstraints": {"resourceRules": [rule]},
        "validations": [{"expression": "false", "message": "no services today"}],
    }
    policies, bindings = (f"/apis/{kind}/validatingadmissionpolic{end}" for end in ("ies", "ybindings"))
    metadata = {"name": f"no-services-{name}"}
    trial.plane.api.create(policies, {"metadata": metadata, "spec": spec})
    selector = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": f"kars-{name}"}}}
    binding = {"policyName": metadata["name"], "validationActions": ["Deny"], "matchResources": selector}
    trial.plane.api.create(bindings, {"metadata": metadata, "spec": binding})
    probe = {"metadata": {"name": "probe"}, "spec": {"ports": [{"port": 1}]}}

    def refuses():
        try:
            trial.plane.api.request("POST", f"/api/v1/namespaces/kars-{name}/services", probe, dryRun="All")
        except AssertionError as error:
            return "no services today" in str(error)
        return False

    trial.plane.wait(refuses, what="the admission policy")
    trial.plane.api.delete(paths(name)["service"])
    trial.plane.wait(lambda: trial.condition(name, "Degraded").get("status") == "True", what="Degraded")
    assert "no services today" in trial.condition(name, "Degraded")["message"]
    trial.plane.api.delete(f"{bindings}/{metadata['name']}")
    trial.plane.api.delete(f"{policies}/{metadata['name']}")
    trial.plane.wait(lambda: not refuses(), what="the end of the admission policy")
    trial.settled("the end of a refusal by admission", since=time.monotonic())
