"""Where the API server and the credential come from."""

import asyncio
import json
import sys
import time

import pytest
import yaml

from kars.errors import KarsError, NotFoundError, SettingsError
from kars.kube import account
from tests.unit.kube.server import config, config_map, connected, status

SERVER = "https://127.0.0.1:6443"


@pytest.fixture(autouse=True)
def no_environment(monkeypatch, tmp_path):
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT", "HTTPS_PROXY", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()


def write(path, *configs):
    path.write_text(yaml.safe_dump_all(configs))
    return str(path)


def find(**settings):
    return asyncio.run(account.find(**settings))


@pytest.fixture
def pod(monkeypatch, tmp_path):
    """The account of a pod; returns its token's file."""
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    (tmp_path / "token").write_text("pod-token\n")
    (tmp_path / "ca.crt").write_text("a certificate")
    module = account.incluster_config
    monkeypatch.setattr(module, "SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
    monkeypatch.setattr(module, "SERVICE_CERT_FILENAME", str(tmp_path / "ca.crt"))
    return tmp_path / "token"


def test_a_pod_uses_its_own_account(pod):
    found = find()
    assert found.server == "https://[fd00::1]:443"
    assert found.configuration.ssl_ca_cert == str(pod.parent / "ca.crt")
    assert asyncio.run(found.authorization()).lower() == "bearer pod-token"


def test_a_token_that_rotates_on_disk_is_read_again(pod):
    found = find()
    pod.write_text("new-token\n")
    assert asyncio.run(found.authorization()).endswith("pod-token")
    found.looked = time.monotonic() - account.LOOK
    assert asyncio.run(found.authorization()) == "Bearer new-token"
    pod.unlink()
    found.looked = time.monotonic() - account.LOOK
    assert asyncio.run(found.authorization()) == "Bearer new-token"


def test_a_token_that_no_header_can_hold_is_not_taken(pod):
    found = find()
    pod.write_text("half a\nnew token")
    found.looked = time.monotonic() - account.LOOK
    assert asyncio.run(found.authorization()).endswith("pod-token")
    pod.write_text("a\nb")
    with pytest.raises(SettingsError, match="no header can hold"):
        find()


def test_a_named_kubeconfig_goes_before_the_pod(pod, tmp_path, monkeypatch):
    path = write(tmp_path / "one", config(SERVER, {"token": "t"}))
    assert find(kubeconfig=path).server == SERVER
    monkeypatch.setenv("KUBECONFIG", path)
    assert find().server == SERVER
    assert find(context="test").server == SERVER


def test_without_anything_it_says_what_was_tried():
    with pytest.raises(NotFoundError, match=r"KUBECONFIG is not set, this is no pod, and ~/.kube/config is not there"):
        find()


def test_the_home_directory_is_the_last_resort(tmp_path):
    (tmp_path / "home" / ".kube").mkdir()
    write(tmp_path / "home" / ".kube" / "config", config(SERVER, {"token": "t"}))
    assert find().server == SERVER


def test_of_several_files_the_first_counts(tmp_path, monkeypatch):
    first = write(tmp_path / "1", {**config("https://127.0.0.1:1", {"token": "a"}, "one")})
    second = write(tmp_path / "2", {**config("https://127.0.0.1:2", {"token": "b"}, "two")})
    third = write(tmp_path / "3", {**config("https://127.0.0.1:3", {"token": "c"}, "one")})
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path}/missing:{first}:{second}:{third}")
    assert find().server == "https://127.0.0.1:1"
    assert find(context="two").server == "https://127.0.0.1:2"
    assert asyncio.run(find(context="two").authorization()) == "Bearer b"


def test_an_unknown_context_names_the_known_ones(tmp_path):
    path = write(tmp_path / "one", config(SERVER, {"token": "t"}, "known"))
    with pytest.raises(NotFoundError) as caught:
        find(kubeconfig=path, context="other")
    assert "known" in caught.value.hint


def test_verification_cannot_be_switched_off(tmp_path):
    path = write(tmp_path / "one", config(SERVER, {"token": "t"}, **{"insecure-skip-tls-verify": True}))
    with pytest.raises(SettingsError, match="TLS verification"):
        find(kubeconfig=path)


def test_plain_http_goes_to_the_loopback_only(tmp_path):
    with pytest.raises(SettingsError, match="not https"):
        find(kubeconfig=write(tmp_path / "one", config("http://10.0.0.1:8080", {"token": "t"})))
    assert find(kubeconfig=write(tmp_path / "two", config("http://127.0.0.1:8001", {}))).server.endswith(":8001")


SECRET = "s3cr3t-value"


@pytest.mark.parametrize(
    "content",
    [
        f"token: [{SECRET}",
        f"{SECRET}",
        "- a\n- b",
        "",
        yaml.safe_dump({**config(SERVER, {"token": SECRET}), "clusters": [{"name": "test", "cluster": {}}]}),
        yaml.safe_dump({**config(SERVER, {"token": SECRET}), "clusters": [{"name": "test", "token": SECRET}]}),
        yaml.safe_dump({**config(SERVER, {"token": SECRET}), "users": [{"token": SECRET}]}),
        yaml.safe_dump({**config(SERVER, {"token": SECRET}), "users": {"token": SECRET}}),
        yaml.safe_dump(config(SERVER, {"client-certificate-data": SECRET, "client-key-data": SECRET})),
        yaml.safe_dump(config(SERVER, {"client-certificate": "/no/such/file", "token": SECRET})),
        yaml.safe_dump(config(SERVER, {"exec": {"command": SECRET}})),
        yaml.safe_dump({"contexts": [{"name": "test", "context": SECRET}], "current-context": "test"}),
    ],
)
def test_a_bad_kubeconfig_is_refused_without_showing_what_is_in_it(tmp_path, content):
    path = tmp_path / "bad"
    path.write_text(content)

    async def main():
        from kars.kube.transport import Transport

        opened = await Transport.open(kubeconfig=str(path), context="")
        await opened.close()
        # What is left has an address that cannot be the cluster's; nothing more can be said without asking it.
        assert opened.account.server == "http://localhost"

    try:
        asyncio.run(main())
    except KarsError as error:
        assert SECRET not in str(error) or "exec" in content
        assert SECRET not in error.hint or "exec" in content


PLUGIN = """
import json, pathlib, sys
count = pathlib.Path({count!r})
number = int(count.read_text()) + 1 if count.exists() else 1
count.write_text(str(number))
status = {{"token": f"token-{{number}}"}}
expiry = {expiry!r}
if expiry:
    status["expirationTimestamp"] = expiry
print(json.dumps({{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status}}))
"""


def plugin(tmp_path, expiry):
    script = tmp_path / "plugin.py"
    script.write_text(PLUGIN.format(count=str(tmp_path / "count"), expiry=expiry))
    return {
        "exec": {
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": sys.executable,
            "args": [str(script)],
        }
    }


@pytest.mark.parametrize(("expiry", "after"), [("2001-01-01T00:00:00Z", "token-2"), ("", "token-1")])
def test_a_plugin_runs_again_when_its_token_expired(tmp_path, expiry, after):
    path = write(tmp_path / "one", config(SERVER, plugin(tmp_path, expiry)))

    async def main():
        found = await account.find(kubeconfig=path)
        assert await found.authorization() == "Bearer token-1"
        found.looked = time.monotonic() - account.LOOK
        assert await found.authorization() == f"Bearer {after}"

    asyncio.run(main())


def test_a_plugin_runs_again_when_its_token_is_refused(tmp_path):
    from kars.kube.types import CONFIG_MAP, Key

    def answer(asked):
        return (200, config_map()) if asked.headers["Authorization"] == "Bearer token-2" else (401, status(401))

    async def main():
        async with connected(answer, tmp_path, user=plugin(tmp_path, "")) as (client, _):
            await client.get(CONFIG_MAP, Key("n", "c"))

    asyncio.run(main())


def test_a_plugin_that_fails_is_named(tmp_path):
    user = {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "/no/such/plugin"}}
    with pytest.raises(SettingsError, match="/no/such/plugin"):
        find(kubeconfig=write(tmp_path / "one", config(SERVER, user)))


def test_a_proxy_of_the_environment_is_used_and_exceptions_are_kept(monkeypatch):
    from kars.kube.transport import proxy_of

    monkeypatch.setenv("https_proxy", "http://127.0.0.1:3128")
    monkeypatch.setenv("no_proxy", "10.0.0.1")
    assert proxy_of("https://api.example.com") == "http://127.0.0.1:3128"
    assert proxy_of("https://10.0.0.1:443") is None


def test_names_in_json_are_fine_too(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config(SERVER, {"username": "u", "password": "p"})))
    assert asyncio.run(find(kubeconfig=str(path)).authorization()) == "Basic dTpw"
