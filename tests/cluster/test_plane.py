"""The control plane that the other tests stand on."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster import plane as module
from tests.cluster.api import ApiError
from tests.cluster.waiting import wait


def test_lets_an_account_do_only_what_its_roles_say(plane, namespace):
    jane = plane.kubeconfig("jane", ["readers"])
    refused = plane.kubectl("get", "configmaps", "-n", namespace, config=jane, check=False)
    assert "Forbidden" in refused.stderr
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "readers"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        "subjects": [{"kind": "Group", "name": "readers", "apiGroup": "rbac.authorization.k8s.io"}],
    }
    plane.apply([binding], namespace=namespace)
    plane.wait(lambda: plane.kubectl("get", "configmaps", "-n", namespace, config=jane))


def test_a_service_account_is_itself(plane, namespace):
    said = plane.kubectl("auth", "whoami", config=plane.service_account_kubeconfig(namespace, "default")).stdout
    assert f"system:serviceaccount:{namespace}:default" in said


def test_counts_requests_between_two_moments(plane, namespace):
    path = f"/api/v1/namespaces/{namespace}/secrets"
    before = plane.counters()
    plane.api.create(path, {"metadata": {"name": "one"}})
    plane.api.create(path, {"metadata": {"name": "two"}})
    assert (plane.counters() - before)["POST", "secrets"] == 2


def test_a_failed_start_shows_the_log(tmp_path):
    broken = module.ControlPlane(tmp_path / "plane")
    broken.server.command.append("--no-such-flag")
    with pytest.raises(AssertionError, match="no-such-flag"):
        broken.start()
    assert broken.etcd.ended() is not None


def test_names_the_make_target_when_nothing_is_built(monkeypatch, tmp_path):
    monkeypatch.setenv("KARS_TEST_TOOLS", str(tmp_path))
    with pytest.raises(AssertionError, match="make tools"):
        module.find_tools()


def test_a_condition_that_never_holds_says_what_was_there_instead():
    with pytest.raises(AssertionError, match=r"the moon: not after 0.1 s; the last answer was \[\]"):
        wait(list, 0.1, what="the moon")


def test_keeps_what_was_stored_when_the_api_server_is_killed_or_restarted(make_plane):
    plane = make_plane()
    path = "/api/v1/namespaces/default/configmaps"
    plane.api.create(path, {"metadata": {"name": "kept"}, "data": {"a": "b"}})
    plane.kill_api()
    with pytest.raises(OSError):
        plane.api.get(path)
    plane.start_api()
    plane.restart_api()
    assert plane.api.get(f"{path}/kept")["data"] == {"a": "b"}


def test_a_paused_api_server_answers_when_it_goes_on(make_plane):
    plane = make_plane()
    plane.pause_api()
    with pytest.raises(OSError):
        plane.api.request("GET", "/readyz", seconds=0.3)
    plane.resume_api()
    plane.wait_api()


def test_no_process_outlives_a_killed_run(tmp_path):
    program = (
        "import sys, time; from pathlib import Path; from tests.cluster.process import Process\n"
        "one = Process(['sleep', '600'], log=Path(sys.argv[1])).start(); print(one.pid, flush=True); time.sleep(600)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "log")], stdout=subprocess.PIPE, text=True
    ) as run:
        child = int(run.stdout.readline())
        wait(lambda: stat(child)[1] == "(sleep)", 5)
        run.send_signal(signal.SIGKILL)
    wait(lambda: stat(child)[2] == "Z", 5, what="the child's end")


def stat(pid):
    """The fields of /proc/<pid>/stat, where the third is the state; Z, too, once it is gone altogether."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()
    except FileNotFoundError:
        return [str(pid), "", "Z"]


def test_refusals_are_errors_with_the_servers_words(plane):
    with pytest.raises(ApiError, match='namespaces "absent" not found') as caught:
        plane.api.create("/api/v1/namespaces/absent/configmaps", {"metadata": {"name": "a"}})
    assert caught.value.status == 404
