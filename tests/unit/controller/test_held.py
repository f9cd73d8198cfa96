"""What is kept of objects: nothing that is asked for is lost, nothing large is kept twice, no secret is kept at all."""

import base64
import hashlib
import json

from hypothesis import given
from hypothesis import strategies as st

from kars.controller import held
from kars.controller.held import Packer
from kars.kube.types import CONFIG_MAP, DEPLOYMENT, NAMESPACE, SECRET

texts = st.text(max_size=40)
anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | texts,
    lambda below: st.lists(below, max_size=3) | st.dictionaries(texts, below, max_size=3),
    max_leaves=10,
)


def deployment(number, **spec):
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": f"s{number}",
            "namespace": f"kars-s{number}",
            "uid": f"0000-{number}",
            "resourceVersion": str(number),
            "generation": 3,
            "labels": {"kars.azure.com/sandbox": f"s{number}", "kars.azure.com/parent-namespace": "agents"},
            "annotations": {
                "kars.azure.com/desired": "stamp",
                "kubectl.kubernetes.io/last-applied-configuration": "x" * 1000,
            },
            "managedFields": [{"manager": "m"}],
        },
        "spec": {"replicas": 1, "template": {"spec": {"containers": [{"name": "agent", "env": []}] * 5}}} | spec,
        "status": {
            "replicas": 1,
            "readyReplicas": 1,
            "collisionCount": 7,
            "conditions": [{"type": "Available", "status": "True", "reason": "R", "lastUpdateTime": "t"}],
        },
    }


@given(spec=st.dictionaries(texts, anything, max_size=5), first=st.dictionaries(texts, anything, max_size=5))
def test_a_packed_object_comes_back_whatever_the_first_of_its_kind_was(spec, first):
    packer = Packer(DEPLOYMENT)
    packer.pack(deployment(1, **first))
    found = packer.unpack(packer.pack(deployment(2, **spec)))
    assert found["spec"] == deployment(2, **spec)["spec"]


def test_only_what_a_plan_can_say_and_the_numbers_of_the_status_are_kept():
    packer = Packer(DEPLOYMENT)
    found = packer.unpack(packer.pack(deployment(1)))
    assert (found["apiVersion"], found["kind"]) == ("apps/v1", "Deployment")
    assert set(found["metadata"]) == {"name", "namespace", "uid", "labels", "annotations", "generation"}
    assert found["metadata"]["annotations"] == {"kars.azure.com/desired": "stamp"}
    assert found["status"] == {
        "replicas": 1,
        "readyReplicas": 1,
        "conditions": [{"type": "Available", "status": "True", "reason": "R"}],
    }


def test_stamp_owner_and_end_are_known_without_unpacking():
    value = deployment(1)
    value["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    kept = Packer(DEPLOYMENT).pack(value)
    assert (kept.stamp, kept.owner, kept.uid, kept.deleting) == ("stamp", "agents/s1", "0000-1", True)


def secret(**data):
    data = {name: base64.b64encode(value).decode() for name, value in data.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "t", "namespace": "n"}, "data": data}


def test_of_a_secret_only_digests_are_kept():
    packer = Packer(SECRET)
    kept = packer.pack(secret(token=b"s3cret"))
    found = packer.unpack(kept)
    assert "data" not in found
    assert found["digests"] == {"token": hashlib.sha256(b"s3cret").hexdigest()}
    assert b"s3cret" not in packer.dictionary
    assert base64.b64encode(b"s3cret") not in packer.dictionary
    assert packer.pack(secret(token=b"s3cret")) == kept
    assert packer.pack(secret(token=b"other")) != kept


def config_map(name, **data):
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "n"}, "data": data}


def test_a_long_text_that_many_objects_have_is_kept_once_and_goes_with_the_last():
    packer = Packer(CONFIG_MAP)
    text = "blocked.example\n" * 60_000
    kept = [packer.pack(config_map(f"c{number}", **{"domains.txt": text, "short": "s"})) for number in range(50)]
    assert len({id(one.texts[0][1]) for one in kept}) == 1
    assert sum(len(one.body) for one in kept) < 50 * 300
    assert packer.unpack(kept[7])["data"] == {"domains.txt": text, "short": "s"}
    assert len(packer.shared) == 1
    del kept
    assert len(packer.shared) == 0


def test_the_deployments_of_a_thousand_sandboxes_take_few_bytes_each():
    packer = Packer(DEPLOYMENT)
    env = [{"name": f"VARIABLE_{number}", "value": f"some longer value {number}"} for number in range(80)]
    sizes = [len(packer.pack(deployment(number, env=env)).body) for number in range(1, 100)]
    assert len(json.dumps(deployment(1, env=env))) > 5000
    assert max(sizes[1:]) < 300


def test_what_was_checked_stays_so_when_only_the_status_changes():
    packer = Packer(DEPLOYMENT)
    before, moved, edited = (packer.pack(deployment(1)) for _ in range(3))
    before.checked = "stamp"
    value = deployment(1)
    value["status"]["readyReplicas"] = 0
    value["metadata"]["resourceVersion"] = "999"
    moved = packer.pack(value)
    held.inherit(before, moved)
    assert moved.checked == "stamp"
    edited = packer.pack(deployment(1, replicas=5))
    held.inherit(before, edited)
    assert edited.checked == ""


def test_an_object_that_was_made_anew_is_looked_at_anew():
    packer = Packer(NAMESPACE)
    value = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a", "uid": "1"}}
    before = packer.pack(value)
    before.checked = "stamp"
    after = packer.pack({**value, "metadata": {"name": "a", "uid": "2"}})
    held.inherit(before, after)
    assert after.checked == ""


def pod(**status):
    return {
        "metadata": {"name": "p", "namespace": "kars-a", "labels": {"kars.azure.com/sandbox": "a"}},
        "status": status,
    }


def test_a_ready_pod_is_kept_with_its_address_and_its_routers_state():
    router = {"name": "inference-router", "ready": True, "restartCount": 2}
    found = held.keep_pod(
        pod(
            podIP="10.0.0.7",
            phase="Running",
            conditions=[{"type": "Ready", "status": "True"}],
            initContainerStatuses=[router],
            containerStatuses=[{"name": "agent", "ready": True, "restartCount": 1}],
        )
    )
    assert (found.sandbox, found.ip, found.ready, found.router_ready) == ("a", "10.0.0.7", True, True)
    assert (found.router_restarts, found.restarts, found.reason) == (2, 3, "")


def test_a_pod_that_waits_says_why_and_whose_fault_it_is():
    waiting = {"name": "agent", "state": {"waiting": {"reason": "ImagePullBackOff", "message": "m" * 9000}}}
    starting = {"name": "inference-router", "state": {"waiting": {"reason": "PodInitializing"}}}
    found = held.keep_pod(pod(phase="Pending", containerStatuses=[starting, waiting]))
    assert found.reason == "ImagePullBackOff"
    assert found.message.startswith("agent: mmm")
    assert len(found.message) == held.LONGEST_MESSAGE


def crashing(name, **last):
    state = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}}
    return {"name": name, "state": state, "lastState": {"terminated": {"reason": "Error", **last}}}


def test_a_router_that_ends_again_and_again_says_why():
    words = '{"time": "1"}\nerror: ROUTER_WORKERS="two": no number\nhint: see --help\n'
    found = held.keep_pod(pod(initContainerStatuses=[crashing("inference-router", exitCode=2, message=words)]))
    assert found.reason == "CrashLoopBackOff"
    assert found.message.endswith('(it ended with exit status 2: error: ROUTER_WORKERS="two": no number)')


def test_an_agents_last_words_are_not_passed_on():
    found = held.keep_pod(pod(containerStatuses=[crashing("agent", exitCode=1, message="my secret")]))
    assert found.message == "agent: back-off (it ended with exit status 1)"


def test_a_log_as_last_words_changes_no_message():
    found = held.keep_pod(
        pod(initContainerStatuses=[crashing("inference-router", exitCode=1, message='{"time": "1"}')])
    )
    assert found.message == "inference-router: back-off (it ended with exit status 1)"


def test_a_pod_that_no_node_takes_says_so():
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}
    found = held.keep_pod(pod(phase="Pending", conditions=[condition]))
    assert (found.reason, found.message) == ("Unschedulable", "0/3 nodes")


def test_a_pod_without_a_status_is_kept():
    assert held.keep_pod({"metadata": {"name": "p", "namespace": "n"}}).ready is False
