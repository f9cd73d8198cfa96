"""What is planned for sandboxes, given to a real API server: every kind of runtime, every isolation."""

import copy

import pytest

from kars.desired import names
from kars.desired.match import pruned, stands
from kars.desired.plan import plan
from kars.kube import types
from tests.cluster.api import ApiError
from tests.unit.desired.cases import NAMESPACE, cases, facts, sandbox

CASES = cases()
RUNTIME_CLASS = {
    "apiVersion": "node.k8s.io/v1",
    "kind": "RuntimeClass",
    "metadata": {"name": "kata-vm-isolation"},
    "handler": "kata",
}


@pytest.fixture(scope="module")
def site(plane):
    """The namespace of the resources, and what a cluster for confidential sandboxes has."""
    plane.api.apply(
        f"/api/v1/namespaces/{NAMESPACE}", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    )
    plane.api.apply("/apis/node.k8s.io/v1/runtimeclasses/kata-vm-isolation", RUNTIME_CLASS)
    return plane


def path(value):
    key = types.key(value)
    return types.of(value).path(namespace=key.namespace, name=key.name)


def apply(plane, wanted):
    """Applies a plan as the reconciler does; the objects as they stand."""
    for one in wanted:
        # The owner is not in this cluster, and the garbage collector would take what it owns away with it.
        plane.api.apply(path(one), bare(one), manager=names.MANAGER)
    return [plane.api.get(path(one)) for one in wanted]


def bare(one):
    return {**one, "metadata": {key: value for key, value in one["metadata"].items() if key != "ownerReferences"}}


@pytest.mark.parametrize("name", CASES)
def test_a_plan_is_applied_and_stands_as_it_was_wanted(site, name):
    wanted = [bare(one) for one in plan(CASES[name])]
    found = apply(site, wanted)
    for one, other in zip(wanted, found, strict=True):
        assert stands(one, pruned({**other, "apiVersion": one["apiVersion"], "kind": one["kind"]})), one["kind"]
    again = apply(site, wanted)
    for one, other in zip(found, again, strict=True):
        assert version(one) == version(other), "applying the same again changes nothing"


def version(value):
    """What changes with what was applied; a status and the finalizer of a claim come by themselves."""
    if value["kind"] == "PersistentVolumeClaim":
        return value["spec"], value["metadata"]["labels"]
    return value["metadata"].get("generation") or value["metadata"]["resourceVersion"]


@pytest.mark.parametrize("name", CASES)
def test_the_pod_is_admitted_where_it_is_to_run(site, name):
    wanted = [bare(one) for one in plan(CASES[name])]
    apply(site, wanted)
    template = wanted[-1]["spec"]["template"]
    pod = {"apiVersion": "v1", "kind": "Pod", **copy.deepcopy(template)}
    pod["metadata"]["name"] = "tried"
    namespace = wanted[-1]["metadata"]["namespace"]
    site.wait(lambda: site.api.find(f"/api/v1/namespaces/{namespace}/serviceaccounts/sandbox"))
    made = site.api.request("POST", f"/api/v1/namespaces/{namespace}/pods", pod, dryRun="All")
    mounted = [
        mount["mountPath"]
        for one in made["spec"]["containers"]
        if one["name"] != names.ROUTER
        for mount in one["volumeMounts"]
        if "serviceaccount" in mount["mountPath"]
    ]
    assert bool(mounted) == (name == "sre"), "no agent but the SRE's has a token of the API server"


@pytest.mark.parametrize("isolation", ["standard", "enhanced", "confidential"])
def test_without_the_guards_container_the_pod_meets_the_restricted_standard(site, isolation):
    given = facts(sandbox(f"own-{isolation}", sandbox={"isolation": isolation}), platform=CASES["node-guard"].platform)
    wanted = [bare(one) for one in plan(given)]
    (namespace, *_) = apply(site, wanted)
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    pod = {"apiVersion": "v1", "kind": "Pod", **copy.deepcopy(wanted[-1]["spec"]["template"])}
    pod["metadata"]["name"] = "tried"
    where = f"/api/v1/namespaces/kars-own-{isolation}/pods"
    site.api.request("POST", where, pod, dryRun="All")
    pod["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
    with pytest.raises(ApiError, match="restricted"):
        site.api.request("POST", where, pod, dryRun="All")


def changed(found, change):
    made = copy.deepcopy(found)
    change(made)
    return made


def test_what_others_change_is_noticed_and_put_back(site):
    wanted = [bare(one) for one in plan(facts(sandbox("meddled")))]
    apply(site, wanted)
    deployment = wanted[-1]

    def now():
        return pruned(site.api.get(path(deployment)))

    def meddle(change):
        meant = changed(site.api.get(path(deployment)), change)
        del meant["metadata"]["resourceVersion"]  # the Deployment's controller writes, too
        site.api.request("PUT", path(deployment), meant)
        assert not stands(deployment, now())
        site.api.apply(path(deployment), deployment, manager=names.MANAGER)
        assert stands(deployment, now())

    def pod(value):
        return value["spec"]["template"]["spec"]

    meddle(lambda value: value["spec"].update(replicas=3))
    meddle(lambda value: pod(value)["initContainers"].reverse())
    meddle(lambda value: pod(value)["containers"][0]["env"].pop(0))
    meddle(
        lambda value: pod(value)["containers"][0]["securityContext"].update(
            privileged=True, allowPrivilegeEscalation=True
        )
    )
    meddle(lambda value: pod(value)["containers"][0]["resources"]["limits"].update(cpu="3"))
    meddle(lambda value: pod(value).update(automountServiceAccountToken=True))
    meddle(lambda value: value["metadata"]["labels"].pop(names.PARENT_NAMESPACE))


def test_a_network_policy_that_was_widened_is_put_back(site):
    wanted = [bare(one) for one in plan(facts(sandbox("widened")))]
    apply(site, wanted)
    policy = next(one for one in wanted if one["kind"] == "NetworkPolicy")
    found = site.api.get(path(policy))
    found["spec"]["egress"].append({})
    site.api.request("PUT", path(policy), found)
    assert not stands(policy, pruned(site.api.get(path(policy))))
    site.api.apply(path(policy), policy, manager=names.MANAGER)
    assert stands(policy, pruned(site.api.get(path(policy))))


def may(site, sandbox, verb, name="", *, namespace=NAMESPACE, group="kars.azure.com", resource="karssandboxes"):
    asked = {"verb": verb, "group": group, "resource": resource, "name": name, "namespace": namespace}
    user = f"system:serviceaccount:kars-{sandbox}:sandbox"
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {"user": user, "resourceAttributes": asked},
    }
    return site.api.create("/apis/authorization.k8s.io/v1/subjectaccessreviews", review)["status"]["allowed"]


def test_a_router_may_make_sandboxes_beside_its_own_and_touch_those_it_made_only(site):
    apply(site, plan(facts(sandbox("mother"), children=("child",))))
    site.wait(lambda: may(site, "mother", "create"))
    assert may(site, "mother", "get", "child") and may(site, "mother", "delete", "child")
    for verb, name in (
        ("get", "other"),
        ("delete", "other"),
        ("list", ""),
        ("update", "child"),
        ("deletecollection", ""),
    ):
        assert not may(site, "mother", verb, name), verb
    assert not may(site, "mother", "create", namespace="default")
    assert not may(site, "mother", "get", "router-admin-token", namespace="kars-mother", group="", resource="secrets")


def test_without_children_no_sandbox_may_be_read(site):
    apply(site, plan(facts(sandbox("childless"))))
    site.wait(lambda: may(site, "childless", "create"))
    assert not may(site, "childless", "delete", "any") and not may(site, "childless", "get", "any")
