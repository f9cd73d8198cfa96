"""What the settings name: a root, credentials that are renewed, an identity; and what is said of files that are none."""

import base64
import json
import os

import pytest

from kars.artifacts import configured
from kars.artifacts.azure import Azure
from kars.artifacts.tokens import Basic
from kars.errors import SettingsError
from kars.settings.controller import from_environment

IDENTITY = {"AZURE_TENANT_ID": "t", "AZURE_CLIENT_ID": "c", "AZURE_FEDERATED_TOKEN_FILE": "/var/run/token"}


def settings(**env):
    return from_environment({name: str(value) for name, value in env.items()})


def auths(**users):
    def entry(user):
        return {"auth": base64.b64encode(f"{user}:hunter2".encode()).decode()}

    return json.dumps({"auths": {f"{host}.example": entry(user) for host, user in users.items()}})


def refusal(**env):
    with pytest.raises(SettingsError) as caught:
        configured.check(settings(**env))
    return str(caught.value)


def test_without_settings_nothing_is_read_and_the_public_root_counts():
    configured.check(settings())
    made = configured.artifacts(settings())
    assert made.roots.source is None and not made.insecure_hosts
    assert made.registry.azure is None and made.registry.credentials.get("r.example") is None


def test_everything_that_is_set_reaches_what_fetches(tmp_path, world):
    root, config = tmp_path / "root.json", tmp_path / "config.json"
    root.write_bytes(world.trusted_root())
    config.write_text(auths(r="me"))
    env = {"KARS_SIGSTORE_TRUSTED_ROOT": root, "KARS_REGISTRY_CONFIG": config}
    given = settings(**env, KARS_INSECURE_REGISTRIES="127.0.0.1:5000, registry.test", **IDENTITY)
    configured.check(given)
    made = configured.artifacts(given)
    assert made.roots.source == world.trusted_root()
    assert made.insecure_hosts == {"127.0.0.1:5000", "registry.test"}
    assert made.registry.credentials.get("r.example") == Basic("me", "hunter2")
    assert made.registry.azure == Azure(tenant_id="t", client_id="c", token_file="/var/run/token")


@pytest.mark.parametrize("missing", sorted(IDENTITY))
def test_half_an_identity_is_none(missing):
    half = {name: value for name, value in IDENTITY.items() if name != missing}
    assert configured.azure(settings(**half)) is None


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"[]", b"\xff", b'{"tlogs": []}', b'{"tlogs": [{}], "certificateAuthorities": []}', b"[" * 9999],
)
def test_a_root_that_is_none_stops_the_start(tmp_path, content):
    path = tmp_path / "root.json"
    path.write_bytes(content)
    assert "is no Sigstore TrustedRoot" in refusal(KARS_SIGSTORE_TRUSTED_ROOT=path)


def test_files_that_cannot_be_read_stop_the_start_by_name(tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    for variable in (configured.TRUSTED_ROOT, configured.REGISTRY_CONFIG):
        assert refusal(**{variable: gone}).startswith(f"{variable}: {gone} cannot be read: No such file")
        assert "cannot be read: Is a directory" in refusal(**{variable: tmp_path})
    monkeypatch.setattr(configured, "ROOT_BYTES", 10)
    gone.write_bytes(b" " * 11)
    assert "more than 10 bytes" in refusal(KARS_SIGSTORE_TRUSTED_ROOT=gone)


def test_what_a_file_of_credentials_holds_is_never_shown(tmp_path):
    path = tmp_path / "config.json"
    for content in ('{"auths": {"r.example": {"auth": "aHVudGVyMg=="}}}', "hunter2", '{"auths": "hunter2"}'):
        path.write_text(content)
        said = refusal(KARS_REGISTRY_CONFIG=path)
        assert "hunter2" not in said and "aHVudGVyMg" not in said


def test_credentials_are_those_of_the_file_as_it_stands(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(auths(r="old"))
    found = configured.DockerConfig(str(path))
    assert found.get("r.example").user == "old" and found.get("other.example") is None
    # As the kubelet does: another file in its place.
    (tmp_path / "next").write_text(auths(r="new"))
    os.replace(tmp_path / "next", path)
    assert found.get("r.example").user == "new"


def test_credentials_stay_while_the_file_is_gone_or_no_config(tmp_path, caplog):
    path = tmp_path / "config.json"
    path.write_text(auths(r="me"))
    found = configured.DockerConfig(str(path))
    assert found.get("r.example").user == "me"
    path.write_text("half of hunter2")
    assert found.get("r.example").user == "me"
    path.unlink()
    assert found.get("r.example").user == "me"
    assert "hunter2" not in caplog.text and caplog.records


@pytest.mark.parametrize(
    ("variable", "wrong"),
    [
        ("KARS_SIGSTORE_TRUSTED_ROOT", "root.json"),
        ("KARS_REGISTRY_CONFIG", "~/.docker/config.json"),
        ("KARS_INSECURE_REGISTRIES", "*.example.com"),
        ("KARS_INSECURE_REGISTRIES", "http://127.0.0.1:5000"),
        ("KARS_INSECURE_REGISTRIES", "127.0.0.1:5000/team"),
        ("KARS_INSECURE_REGISTRIES", "a:1,a:1"),
        ("AZURE_AUTHORITY_HOST", "login.example.com"),
    ],
)
def test_a_variable_that_cannot_be_right_is_refused_by_name(variable, wrong):
    with pytest.raises(SettingsError, match=variable):
        settings(**{variable: wrong})
