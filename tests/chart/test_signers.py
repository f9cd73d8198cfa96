"""Who may sign, as values say it, is what the controller reads; and what it verifies with is where it looks."""

import base64
import json
import re
import shlex

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from kars.artifacts import signers
from tests.chart.rendered import ROOT, environment, one, refused, render

PEM = ec.generate_private_key(ec.SECP256R1()).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
RAW = ed25519.Ed25519PrivateKey.generate().public_key().public_bytes_raw()
BLOCK = re.compile(r"^```yaml\n((?:.*\n)*?)```$", re.MULTILINE)
SUBJECT = "https://github.com/example/*/.github/workflows/*.yml@refs/tags/*"


def policy(**values):
    """The SignerPolicy that the controller makes of the chart's ConfigMap; None without one."""
    objects = render({f"signerPolicy.{name}": value for name, value in values.items()})
    if not any(each["metadata"]["name"] == "kars-signer-policy" for each in objects):
        return None
    return signers.read(one(objects, "ConfigMap", "kars-signer-policy")["data"])


def test_certificates_count_by_issuer_and_subject():
    found = policy(sanPatterns=[SUBJECT, "release@example.com"])
    assert found.issuers == ("https://token.actions.githubusercontent.com",)
    assert found.subjects == (SUBJECT, "release@example.com") and not found.keys


@pytest.mark.parametrize("subjects", [[], [SUBJECT]])
def test_keys_of_both_kinds_count_with_and_without_certificates(subjects):
    found = policy(
        sanPatterns=subjects,
        publicKeys=[{"id": "release", "publicKeyPem": PEM.decode(), "allowedSubjects": ["r.example/team/*"]}],
        ed25519Keys=[{"id": "airgap", "publicKeyBase64": base64.b64encode(RAW).decode()}],
    )
    assert {key.id: key.allowed_subjects for key in found.keys} == {"release": ("r.example/team/*",), "airgap": ()}
    assert found.subjects == tuple(subjects) and bool(found.issuers) == bool(subjects)


def test_nobody_and_a_policy_of_ones_own_are_no_config_map():
    assert policy() is None
    assert policy(sanPatterns=[SUBJECT], enabled=False) is None


def pod(values):
    return one(render(values), "Deployment", "kars-controller")["spec"]["template"]["spec"]


def test_root_and_credentials_are_mounted_where_the_variables_say():
    spec = pod(
        {
            "signerPolicy.trustedRoot.configMap": "sigstore",
            "signerPolicy.trustedRoot.key": "root.json",
            "registry.credentialsSecret": "pull",
        }
    )
    volumes = {each["name"]: each for each in spec["volumes"]}
    mounts = {each["name"]: each for each in spec["containers"][0]["volumeMounts"]}
    env = {each["name"]: each.get("value") for each in spec["containers"][0]["env"]}
    assert volumes["sigstore"]["configMap"] == {
        "name": "sigstore",
        "items": [{"key": "root.json", "path": "trusted_root.json"}],
    }
    assert volumes["registry"]["secret"]["items"] == [{"key": ".dockerconfigjson", "path": "config.json"}]
    for variable, name, file in (
        ("KARS_SIGSTORE_TRUSTED_ROOT", "sigstore", "trusted_root.json"),
        ("KARS_REGISTRY_CONFIG", "registry", "config.json"),
    ):
        assert env[variable] == f"{mounts[name]['mountPath']}/{file}" and mounts[name]["readOnly"]


def test_a_root_has_one_source():
    both = {"signerPolicy.trustedRoot.configMap": "a", "signerPolicy.trustedRoot.secret": "b"}
    assert "one holds the root" in refused(both)
    spec = pod({"signerPolicy.trustedRoot.secret": "b"})
    (volume,) = (each for each in spec["volumes"] if each["name"] == "sigstore")
    assert volume["secret"]["secretName"] == "b"
    assert {each["name"] for each in pod({})["volumes"]} == {"tmp"}
    assert json.dumps(pod({})).count("KARS_REGISTRY_CONFIG") == 0


GUIDE = (ROOT / "docs" / "signing.md").read_text()


def test_the_values_that_the_guide_names_are_values_and_do_what_it_says():
    commands = [line for line in GUIDE.splitlines() if line.startswith("helm upgrade")]
    assert len(commands) >= 2
    for line in commands:
        words = shlex.split(line)
        chosen = [part for at, word in enumerate(words) if word == "--set" for part in ("--set", words[at + 1])]
        assert one(render({}, *chosen), "Deployment", "kars-controller")
    (snippet,) = (text for text in BLOCK.findall(GUIDE) if text.startswith("signerPolicy:"))
    values = yaml.safe_load(snippet)["signerPolicy"]
    values["publicKeys"][0]["publicKeyPem"] = PEM.decode()
    found = policy(**values)
    assert found.subjects and [key.id for key in found.keys] == ["release"]


def test_the_guides_table_of_variables_is_what_the_chart_sets():
    rows = re.findall(r"^\| `([a-zA-Z.]+)`.*\| `([A-Z_]+)`", GUIDE, re.MULTILINE)
    assert len(rows) == 5
    set_to = {"registry.insecure": ["r.test:5000"], "egress.requireSigned": True, "imageSignatures.enabled": True}
    for path, variable in rows:
        before, after = (environment(render(values)) for values in ({}, {path: set_to.get(path, "named")}))
        assert variable in after and variable not in before, path
