"""`kars crds` shows what the chart ships."""

import json
import subprocess
import sys

import pytest
import yaml

from kars import cli
from kars.model import crds
from kars.model.kinds import KINDS


@pytest.fixture
def run(capsys):
    def run(*arguments):
        status = cli.main(["crds", *arguments])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def test_list_names_every_kind_as_kubectl_does(run):
    status, out, _ = run("list")
    assert status == 0
    assert [line.split()[0] for line in out.splitlines()] == ["KIND", *KINDS]
    assert "TrustGraph       trustgraphs        tg         Cluster" in out.splitlines()


def test_list_as_json_is_one_versioned_document(run):
    status, out, _ = run("list", "-o", "json")
    assert status == 0
    document = json.loads(out)
    assert (document["kind"], len(document["crds"])) == ("CrdList", len(KINDS))
    assert document["crds"][0] == {
        "kind": "KarsSandbox",
        "plural": "karssandboxes",
        "shortName": "cs",
        "scope": "Namespaced",
        "shortNames": ["cs", "ksb"],
    }


def test_print_is_what_kubectl_applies(run):
    status, out, _ = run("print")
    assert status == 0
    assert list(yaml.safe_load_all(out)) == [crds.definition(kind) for kind in KINDS.values()]


def test_print_takes_kinds_by_any_name(run):
    status, out, _ = run("print", "tg", "KarsSandbox")
    assert status == 0
    assert [document["spec"]["names"]["kind"] for document in yaml.safe_load_all(out)] == ["TrustGraph", "KarsSandbox"]


def test_print_as_json_is_one_document(run):
    assert json.loads(run("print", "tg", "-o", "json")[1])["metadata"]["name"] == "trustgraphs.kars.azure.com"
    assert len(json.loads(run("print", "-o", "json")[1])["items"]) == len(KINDS)


def test_an_unknown_kind_is_not_found_and_the_known_ones_are_named(run):
    status, out, err = run("print", "pods")
    assert (status, out) == (3, "")
    assert "there is no kind pods" in err
    assert "KarsSandbox" in err


def test_the_model_is_no_part_of_the_sidecars_start():
    code = "import sys, kars.cli, kars.router.process; assert not any('model' in m or m == 'yaml' for m in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)


def test_listing_kinds_needs_no_yaml():
    code = "import sys; from kars.cli import main; main(['crds', 'list']); assert 'yaml' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30, stdout=subprocess.DEVNULL)


@pytest.fixture
def nowhere(monkeypatch, tmp_path):
    """No kubeconfig and no pod."""
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_apply_without_a_cluster_says_what_was_tried_and_what_to_do(run, nowhere):
    status, out, err = run("apply")
    assert (status, out) == (3, "")
    assert "KUBECONFIG is not set, this is no pod, and ~/.kube/config is not there" in err
    assert "hint: name a kubeconfig by --kubeconfig FILE or KUBECONFIG" in err
    status, _, err = run("apply", "--kubeconfig", str(nowhere / "none"))
    assert (status, f"{nowhere}/none is not there" in err) == (3, True)


def test_apply_refuses_a_kubeconfig_that_cannot_be_used_without_showing_it(run, nowhere):
    (nowhere / "config").write_text("users: [{name: a, user: {token: s3cr3t}}]\ncontexts: 5")
    status, out, err = run("apply", "--kubeconfig", str(nowhere / "config"))
    assert (status, out) == (2, "")
    assert "is not valid" in err
    assert "s3cr3t" not in err


def test_apply_looks_for_kinds_before_it_looks_for_a_cluster(run, nowhere):
    assert "there is no kind pods" in run("apply", "pods")[2]


def test_apply_shows_examples(run):
    status, out, _ = run("apply", "--help")
    assert status == 0
    assert "kars crds apply --dry-run" in out


def test_showing_definitions_needs_no_client():
    code = "import sys; from kars.cli import main; main(['crds', 'print', 'tg']); assert 'aiohttp' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30, stdout=subprocess.DEVNULL)
