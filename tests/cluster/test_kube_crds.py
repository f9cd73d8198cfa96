"""`kars crds apply` on a cluster that never saw kars."""

import json
import os
import subprocess
import sys

import pytest

from kars.model import crds
from kars.model.kinds import KINDS
from tests.cluster.plane import ControlPlane


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    running = ControlPlane(tmp_path_factory.mktemp("crds")).start()
    yield running
    running.stop()


@pytest.fixture
def kars(own, tmp_path):
    def kars(*arguments, config=None):
        env = {**os.environ, "KUBECONFIG": str(config or own.admin), "HOME": str(tmp_path)}
        command = [sys.executable, "-m", "kars", "crds", "apply", *arguments]
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=50)

    return kars


def outcomes(done):
    return {one["outcome"] for one in json.loads(done.stdout)["crds"]}


def test_applies_everything_once_and_says_what_it_did(own, kars):
    own.kubectl("delete", "crds", "--all")
    dry = kars("--dry-run")
    assert (dry.returncode, dry.stdout.count("created (dry run)")) == (0, len(KINDS)), dry.stderr
    assert own.kubectl("get", "crds", "-o", "name").stdout == ""

    first = kars()
    assert (first.returncode, first.stdout.count("created")) == (0, len(KINDS)), first.stderr
    assert first.stdout.split()[0] == "karssandboxes.kars.azure.com"
    assert own.url in first.stderr
    assert f"{len(KINDS)} served after" in first.stderr
    assert own.kubectl("get", "karssandboxes", "-A").returncode == 0
    managers = own.kubectl("get", "crd", "trustgraphs.kars.azure.com", "-o", "json", "--show-managed-fields").stdout
    assert "kars-crds" in managers

    again = kars("-o", "json")
    assert (again.returncode, outcomes(again)) == (0, {"unchanged"})
    assert all(one["established"] for one in json.loads(again.stdout)["crds"])

    # What somebody else changed is a conflict until it is said that ours counts.
    definition = crds.definition(KINDS["TrustGraph"])
    definition["spec"]["names"]["shortNames"] = ["tgx"]
    own.apply([definition])
    refused = kars("tg", "-o", "json")
    assert (refused.returncode, outcomes(refused)) == (1, {"failed"})
    assert "--force-conflicts" in refused.stderr
    assert "kubectl" in refused.stderr
    taken = kars("tg", "--force-conflicts")
    assert (taken.returncode, "changed" in taken.stdout) == (0, True), taken.stderr


def test_an_account_without_the_right_is_told_which_it_takes(own, kars):
    done = kars("tg", config=own.kubeconfig("jane"))
    assert (done.returncode, "failed" in done.stdout) == (1, True)
    assert "jane" in done.stderr
    assert "customresourcedefinitions" in done.stderr


def test_names_that_are_taken_are_not_waited_for(own, kars):
    definition = crds.definition(KINDS["KarsEval"])
    other = {**definition, "metadata": {"name": "evals.example.com"}}
    names = {
        **definition["spec"]["names"],
        "plural": "evals",
        "singular": "eval",
        "kind": "Eval",
        "listKind": "EvalList",
    }
    other["spec"] = {**definition["spec"], "group": "kars.azure.com", "names": {**names, "kind": "KarsEval"}}
    other["metadata"]["name"] = "evals.kars.azure.com"
    kars("tg")
    own.kubectl("delete", "crd", "karsevals.kars.azure.com", "--ignore-not-found")
    own.apply([other])
    own.wait(lambda: own.kubectl("get", "evals", "-A", check=False).returncode == 0)
    done = kars("KarsEval")
    assert done.returncode == 1
    assert "its names are refused" in done.stderr
    own.kubectl("delete", "crd", "evals.kars.azure.com")


def test_a_server_that_is_not_there_is_named_with_what_to_do(own, kars):
    dead = own.kubeconfig("jane", server="https://127.0.0.1:1")
    done = kars(config=dead)
    assert (done.returncode, done.stdout) == (1, "")
    assert "https://127.0.0.1:1" in done.stderr
    assert "hint: is the cluster up?" in done.stderr
    assert kars("--context", "none").returncode == 3
    assert kars("--timeout", "soon").returncode == 2
