"""What holds of every plan, whatever the sandbox says."""

import copy
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kars.desired import names
from kars.desired.plan import plan, stamp
from kars.kube import types
from tests.unit.desired.cases import cases, facts, platform, sandbox

CASES = cases()
LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?\Z")
LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?\Z")

every = pytest.mark.parametrize("name", CASES)


@every
def test_the_namespace_comes_first_and_the_deployment_last(name):
    objects = plan(CASES[name])
    assert objects[0]["kind"] == "Namespace"
    assert objects[-1]["kind"] == "Deployment"
    kinds = [one["kind"] for one in objects]
    assert kinds.count("NetworkPolicy") == kinds.count("Service") == kinds.count("Deployment") == 1


@every
def test_every_object_bears_the_label_that_watches_select_by_and_says_whose_it_is(name):
    for one in plan(CASES[name]):
        labels = one["metadata"]["labels"]
        assert labels[names.MANAGED_BY] == "kars-controller"
        assert labels[names.SANDBOX] == CASES[name].name
        assert labels[names.PARENT_NAMESPACE] == "team-a"
        assert all(LABEL_VALUE.match(value) and len(value) <= 63 for value in labels.values())


@every
def test_everything_lies_in_the_sandboxes_namespace_but_what_lets_it_spawn(name):
    for one in plan(CASES[name])[1:]:
        beside = one["kind"] in {"Role", "RoleBinding"}
        assert one["metadata"]["namespace"] == ("team-a" if beside else f"kars-{CASES[name].name}")


@every
def test_no_object_is_there_twice_and_each_is_of_a_kind_that_is_served(name):
    keys = [(types.of(one), types.key(one)) for one in plan(CASES[name])]
    assert len(set(keys)) == len(keys)


@every
def test_what_the_pod_mounts_is_planned_or_someone_elses_by_contract(name):
    objects = plan(CASES[name])
    made = {(one["kind"], one["metadata"]["name"]) for one in objects}
    elsewhere = {("ConfigMap", names.approvals(CASES[name].name)), ("ConfigMap", "kube-root-ca.crt")}
    spec = objects[-1]["spec"]["template"]["spec"]
    for volume in spec["volumes"]:
        if "configMap" in volume:
            assert ("ConfigMap", volume["configMap"]["name"]) in made | elsewhere
        if "secret" in volume:
            assert ("Secret", volume["secret"]["secretName"]) in made
        if "persistentVolumeClaim" in volume:
            assert ("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]) in made


@every
def test_every_mount_has_its_volume_and_every_volume_is_mounted(name):
    spec = plan(CASES[name])[-1]["spec"]["template"]["spec"]
    mounted = set()
    for one in [*spec.get("initContainers", []), *spec["containers"]]:
        paths = [mount["mountPath"] for mount in one["volumeMounts"]]
        assert len(set(paths)) == len(paths)
        mounted |= {mount["name"] for mount in one["volumeMounts"]}
    volumes = [volume["name"] for volume in spec["volumes"]]
    assert len(set(volumes)) == len(volumes)
    assert mounted == set(volumes)
    assert all(LABEL.match(volume) and len(volume) <= 63 for volume in volumes)


@every
def test_no_variable_is_there_twice(name):
    spec = plan(CASES[name])[-1]["spec"]["template"]["spec"]
    for one in [*spec.get("initContainers", []), *spec["containers"]]:
        found = [row["name"] for row in one.get("env", [])]
        assert len(set(found)) == len(found)


@every
def test_every_image_is_pulled_by_its_own_policy_and_none_runs_privileged(name):
    spec = plan(CASES[name])[-1]["spec"]["template"]["spec"]
    for one in [*spec.get("initContainers", []), *spec["containers"]]:
        assert one["imagePullPolicy"] in {"Always", "IfNotPresent"}
        assert one["securityContext"]["privileged"] is False
        assert one["securityContext"]["capabilities"]["drop"] == ["ALL"]
        assert ("add" in one["securityContext"]["capabilities"]) == (one["name"] == names.GUARD)


def test_a_plan_is_the_same_every_time():
    assert plan(CASES["everything"]) == plan(cases()["everything"])


def test_a_plan_is_json_and_shares_nothing_that_a_caller_could_spoil():
    first = plan(CASES["everything"])
    before = json.dumps(first)
    for one in plan(CASES["everything"]):
        one["metadata"]["labels"].clear()
    assert json.dumps(plan(CASES["everything"])) == before


def test_the_longest_name_still_makes_valid_objects():
    longest = "a" * 58
    for one in plan(facts(sandbox(longest, governance={"mcpServerRefs": []}))):
        assert len(one["metadata"]["name"]) <= (63 if one["kind"] in {"Namespace", "Service"} else 253)
        assert all(len(value) <= 63 for value in one["metadata"]["labels"].values())


def role(**given):
    """What the router may do with sandboxes, by verb; None where there is neither Role nor token for it."""
    objects = plan(facts(sandbox("mother"), **given))
    found = next((one for one in objects if one["kind"] == "Role"), None)
    assert (found is not None) == ("api-token" in json.dumps(objects))
    return found and {verb for rule in found["rules"] for verb in rule["verbs"]}


def test_a_router_may_make_sandboxes_as_long_as_any_could_be_made_of_them():
    touch, make = {"get", "delete"}, {"create"}
    crowd = tuple(f"c{number}" for number in range(6))
    few = platform(max_children=3, max_generations=2)
    assert role(platform=few) == make
    assert role(platform=few, children=crowd[:5]) == make | touch
    # As many wait as may have a place.
    assert role(platform=few, children=crowd) == touch
    assert role(platform=few, generation=1) == make
    assert role(platform=few, generation=2) is None
    assert role(platform=platform(max_children=0)) is None
    assert role(platform=platform(max_generations=0)) is None


def test_a_stamp_tells_plans_apart_and_is_no_part_of_itself():
    (one, *_) = plan(facts())
    assert stamp(one) == one
    other = copy.deepcopy(one)
    other["metadata"]["labels"]["x"] = "y"
    assert stamp(other)["metadata"]["annotations"][names.DESIRED] != one["metadata"]["annotations"][names.DESIRED]


documents = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=10,
)


@given(documents, documents)
def test_stamps_agree_exactly_when_objects_do(one, other):
    def stamped(value):
        return stamp({"metadata": {"name": "x"}, "spec": value})["metadata"]["annotations"][names.DESIRED]

    alike = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (stamped(one) == stamped(other)) == alike


@given(st.dictionaries(st.text(max_size=4), st.integers(), min_size=2, max_size=5))
def test_a_stamp_does_not_know_the_order_of_members(members):
    turned = dict(reversed(members.items()))
    assert stamp({"metadata": {}, "data": members}) == stamp({"metadata": {}, "data": turned})
