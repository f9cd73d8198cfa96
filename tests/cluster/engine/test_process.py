"""The process on a real control plane: leadership, the way in and the way out."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from tests.cluster.controlling import Running, Toy, define, policy
from tests.system.router import free_ports

POLICIES = "/apis/kars.azure.com/v1alpha1/namespaces/{}/inferencepolicies"


def ready(plane, namespace, name):
    status = plane.api.get(f"{POLICIES.format(namespace)}/{name}").get("status") or {}
    return any(one["status"] == "True" for one in status.get("conditions", ()) if one["type"] == "Ready")


@pytest.fixture
def policies(kars_plane, namespace):
    path = POLICIES.format(namespace)

    def create(name):
        return kars_plane.api.create(path, policy(name, namespace))

    yield create
    for one in kars_plane.api.items(path):
        name = f"{path}/{one['metadata']['name']}"
        kars_plane.api.merge(name, {"metadata": {"finalizers": []}})
        kars_plane.api.delete(name)


def elected(plane, toy, namespace):
    return Running(plane, [toy], leader_election=True, namespace=namespace)


def holder(plane, namespace):
    lease = plane.api.find(f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/kars-controller-leader")
    return (lease or {}).get("spec", {}).get("holderIdentity", "")


def test_a_standby_is_warm_and_ready_and_writes_nothing_until_the_leader_goes(kars_plane, namespace, policies):
    first, second = Toy(), Toy()
    with elected(kars_plane, second, namespace) as leader:
        kars_plane.wait(lambda: holder(kars_plane, namespace))
        with elected(kars_plane, first, namespace) as standby:
            policies("one")
            kars_plane.wait(lambda: ready(kars_plane, namespace, "one"))
            assert standby.fetch("/readyz") == (200, "ok")
            assert "kars_controller_leader 0.0" in standby.scrape()
            assert standby.requests() == {}
            leader.halt()
            began = time.monotonic()
            policies("two")
            kars_plane.wait(lambda: ready(kars_plane, namespace, "two"), 10)
            assert time.monotonic() - began < 5, "the lease was not released"
            assert first.calls
            assert "kars_controller_leader 1.0" in standby.scrape()
            # What stands was not written again.
            assert standby.requests()["PATCH", "configmaps"] == 1
    assert (leader.status, standby.status) == (0, 0)


def test_whoever_loses_the_lease_stops_its_workers_at_once_and_fails(kars_plane, namespace, policies):
    toy = Toy()
    with elected(kars_plane, toy, namespace) as running:
        policies("one")
        kars_plane.wait(lambda: ready(kars_plane, namespace, "one"))
        toy.hang = True
        policies("two")
        kars_plane.wait(lambda: "two" in toy.calls)
        lease = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/kars-controller-leader"
        kars_plane.api.merge(lease, {"spec": {"holderIdentity": "another"}})
        assert running.task.result(20) == 1
        assert not running.process.engine.leading
        assert all(task.done() for task in running.process.engine.running)
        assert holder(kars_plane, namespace) == "another"
    assert running.status == 1


def test_work_under_way_is_finished_on_the_way_out(kars_plane, namespace, policies):
    toy = Toy()
    finished = []
    reconcile = toy.reconcile

    async def slow(resource, cluster):
        await asyncio.sleep(0.5)
        done = await reconcile(resource, cluster)
        finished.append(resource.metadata.name)
        return done

    toy.reconcile = slow
    with Running(kars_plane, [toy]) as running:
        policies("one")
        kars_plane.wait(lambda: running.process.engine.queue.schedule.active)
    assert running.status == 0
    assert finished == ["one"]


def test_an_api_server_that_restarts_is_waited_for_and_nothing_is_missed(make_plane):
    plane = make_plane()
    define(plane)
    namespace = plane.make_namespace()
    toy = Toy()
    with Running(plane, [toy]) as running:
        for number in range(2):
            plane.kill_api()
            time.sleep(0.3)
            plane.start_api()
            plane.api.create(POLICIES.format(namespace), policy(f"p{number}", namespace))
            plane.wait(lambda number=number: ready(plane, namespace, f"p{number}"), 15)
        made = plane.api.items(f"/api/v1/namespaces/{namespace}/configmaps")
        assert sorted(one["metadata"]["name"] for one in made if one["metadata"]["name"].startswith("toy-")) == [
            "toy-p0",
            "toy-p1",
        ]
        assert running.fetch("/healthz") == (200, "ok")
    assert running.status == 0


# --- the command


def command(*arguments, config="", **env):
    environ = {name: value for name, value in os.environ.items() if name in {"PATH", "HOME", "PYTHONPATH"}}
    environ |= {"CONTROLLER_METRICS_ADDR": "off", "KUBECONFIG": str(config), **env}
    return subprocess.Popen(
        [sys.executable, "-m", "kars", "controller", *arguments],
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process, seconds=30):
    out, err = process.communicate(timeout=seconds)
    return process.returncode, out, err


def test_the_command_runs_until_sigterm_and_ends_with_0(kars_plane, namespace):
    (port,) = free_ports(1)
    address = f"127.0.0.1:{port}"
    env = {"POD_NAMESPACE": namespace, "CONTROLLER_METRICS_ADDR": address, "LOG_LEVEL": "debug"}
    process = command("--kubeconfig", str(kars_plane.admin), "--context", "test", **env)
    try:
        kars_plane.wait(lambda: holder(kars_plane, namespace))
        process.send_signal(signal.SIGTERM)
        status, out, err = ended(process)
    finally:
        process.kill()
    assert (status, err) == (0, "")
    assert '"msg": "process.leading"' in out
    assert out.splitlines()[-1].endswith('"msg": "process.ended", "logger": "kars.controller.process"}')
    assert kars_plane.token not in out
    assert holder(kars_plane, namespace) == ""


HANGS = """
import sys
from kars.controller import process
from tests.cluster.controlling import Toy, settings
toy = Toy()
toy.hang = True
sys.exit(process.main(settings(namespace=sys.argv[2]), lambda _: [toy], kubeconfig=sys.argv[1]))
"""


def test_a_second_signal_ends_at_once_what_does_not_end(kars_plane, namespace, policies):
    policies("one")
    process = subprocess.Popen(
        [sys.executable, "-c", HANGS, str(kars_plane.admin), namespace],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        path = f"{POLICIES.format(namespace)}/one"
        kars_plane.wait(lambda: kars_plane.api.get(path)["metadata"].get("finalizers"))
        process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        status, out, err = ended(process, 5)
    finally:
        process.kill()
    assert (status, err) == (1, "")
    assert '"msg": "process.draining"' in out


def test_without_the_definitions_the_command_says_how_to_install_them(make_plane):
    plane = make_plane()
    status, _, err = ended(command(config=plane.admin))
    assert status == 3
    assert "no custom resource definition of any kind of kars.azure.com" in err
    assert "kars crds apply" in err


def test_without_rights_the_command_says_which_and_where_they_are(kars_plane, namespace):
    account = kars_plane.service_account_kubeconfig(namespace, "default")
    status, _, err = ended(command(config=account))
    assert status == 4
    assert "not allowed to list any kind of kars.azure.com" in err
    assert "ClusterRole" in err


def test_without_a_cluster_the_command_says_that_none_can_be_reached(kars_plane):
    (port,) = free_ports(1)
    config = kars_plane.write_kubeconfig("nobody", {"token": "x"}, server=f"https://127.0.0.1:{port}")
    status, _, err = ended(command(config=config))
    assert status == 1
    assert "cannot be reached: Connection refused" in err
    assert "--kubeconfig" in err


@pytest.mark.parametrize(
    ("env", "said"),
    [({"ROUTER_ENV": "x"}, "ROUTER_ENV"), ({"LEADER_ELECTION_ENABLED": "perhaps"}, "LEADER_ELECTION_ENABLED")],
)
def test_a_setting_that_is_none_is_refused_before_anything_is_asked(env, said):
    status, _, err = ended(command(config="/nonexistent", **env))
    assert status == 2
    assert err.startswith(f"error: {said}")


def test_an_address_that_is_taken_ends_the_command(kars_plane):
    taken = re.search(r":(\d+)$", kars_plane.url)[1]
    process = command(config=kars_plane.admin, CONTROLLER_METRICS_ADDR=f"127.0.0.1:{taken}")
    status, _, err = ended(process)
    assert status == 1
    assert "CONTROLLER_METRICS_ADDR" in err
