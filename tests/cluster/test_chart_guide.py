"""docs/install.md and the chart's notes say commands that work."""

import re
import shlex
import subprocess
import sys

import yaml

from tests.chart.rendered import ROOT
from tests.cluster.installation import Installation

GUIDE = (ROOT / "docs" / "install.md").read_text()
BLOCK = re.compile(r"^```(?P<kind>.*)\n(?P<text>(?:.*\n)*?)```$", re.MULTILINE)
NAMESPACE = "kars-system"


def commands(text):
    """Commands of a text, a backslash at a line's end joining it with the next."""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line)
        if words and words[0] in {"helm", "kubectl"}:
            yield words


def run(plane, words, **files):
    """Run a command of the guide, its paths seen from the repository or from where its files are."""
    found = [str(ROOT / word) if word.startswith("charts/") else files.get(word, word) for word in words[1:]]
    return (plane.helm if words[0] == "helm" else plane.kubectl)(*found)


def test_the_commands_of_the_guide_work_in_their_order(make_plane, tmp_path):
    plane = make_plane()
    blocks = [(found["kind"], found["text"]) for found in BLOCK.finditer(GUIDE)]
    assert {kind for kind, _ in blocks} == {"sh", "sh by-hand", "yaml"}
    first = tmp_path / "first.yaml"
    (document,) = (text for kind, text in blocks if kind == "yaml")
    first.write_text(document)
    files = {"first.yaml": str(first)}
    done = [run(plane, words, **files) for kind, text in blocks if kind == "sh" for words in commands(text)]
    assert len(done) >= 10
    # The last one uninstalls, and leaves what it says.
    assert "kars-default" in plane.kubectl("get", "toolpolicies", "-n", NAMESPACE).stdout
    assert not plane.kubectl("get", "deployments", "-A", "-o", "name").stdout


def test_the_commands_of_the_notes_work(make_plane):
    plane = make_plane()
    plane.helm("install", "kars-crds", str(ROOT / "charts/kars-crds"), "-n", NAMESPACE, "--create-namespace")
    notes = plane.helm("install", "kars", str(ROOT / "charts/kars"), "-n", NAMESPACE).stdout
    found = list(commands(notes))
    assert [words[1] for words in found] == ["-n", "get", "explain", "label"]
    for words in found:
        if "rollout" in words:
            # Nothing runs pods here.
            assert words[-1].startswith("--timeout=")
            done = plane.kubectl(*words[1:-1], "--timeout=1s", check=False)
            assert "timed out waiting" in done.stderr
        else:
            run(plane, words)
    # Once labelled, the notes do not ask for it again; with an endpoint, nothing is missing.
    again = plane.helm(
        "upgrade", "kars", str(ROOT / "charts/kars"), "-n", NAMESPACE, "--set", "foundry.endpoint=https://a.example.com"
    ).stdout
    assert "kubectl label" not in again and "No model endpoint" not in again


def test_helm_test_asks_a_controller_that_serves_and_fails_without_one(make_plane):
    installation = Installation(make_plane()).install()
    hooks = installation.plane.helm("get", "hooks", "kars", "-n", NAMESPACE).stdout
    (pod,) = (each for each in yaml.safe_load_all(hooks) if each)
    script = pod["spec"]["containers"][0]["command"][-1]
    service = installation.plane.api.get(f"/api/v1/namespaces/{NAMESPACE}/services/kars-controller")
    assert f"{service['metadata']['name']}.{NAMESPACE}.svc:{service['spec']['ports'][0]['port']}" in script

    def asked(port):
        here = script.replace(f"kars-controller.{NAMESPACE}.svc:9091", f"127.0.0.1:{port}")
        return subprocess.run([sys.executable, "-c", here], capture_output=True, text=True)

    try:
        controller = installation.start()
        installation.plane.wait(lambda: controller.get("/readyz"), what="the controller")
        assert asked(controller.port).stdout == "/healthz 200\n/readyz 200\n"
    finally:
        installation.stop()
    assert asked(controller.port).returncode != 0
