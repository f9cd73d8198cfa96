"""Workload identity against a registry and a token service that answer as Azure's do, by TLS."""

import asyncio
import socket
import ssl

import pytest
import trustme
from aiohttp import ClientSession, TCPConnector, web
from aiohttp.abc import AbstractResolver

from kars.artifacts import references
from kars.artifacts.azure import NOBODY, Azure
from kars.artifacts.refused import Refused
from kars.artifacts.registry import Registry
from kars.artifacts.tokens import AZURE, Basic
from tests.unit.artifacts.depot import sha256
from tests.unit.artifacts.front import Front

HOST = "example.azurecr.io"
LOGIN = "login.example.test"
DATA = b'{"schemaVersion":2}'


class Here(AbstractResolver):
    """Every name is the front."""

    def __init__(self, port):
        self.port = port

    async def resolve(self, host, port=0, family=socket.AF_INET):
        return [{"hostname": host, "host": "127.0.0.1", "port": self.port, "family": family, "proto": 0, "flags": 0}]

    async def close(self):
        pass


def drive(tmp_path, body, *, answers=None, token="a.pod.token"):
    """Ask the registry with the pod's identity; `answers` replaces a path's answer."""
    authority = trustme.CA()
    server, client = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    authority.issue_cert(HOST, LOGIN).configure_cert(server)
    authority.configure_trust(client)
    (tmp_path / "token").write_text(token)
    basic = Basic(NOBODY, "refresh").header()
    forms = []

    async def hook(request):
        if request.method == "POST":
            forms.append((request.host, request.path, dict(await request.post())))
        if request.path in (answers or {}):
            return answers[request.path]()
        if request.path == "/tenant/oauth2/v2.0/token":
            return web.json_response({"access_token": "entra"})
        if request.path == "/oauth2/exchange":
            return web.json_response({"refresh_token": "refresh"})
        if request.path == "/oauth2/token":
            given = request.headers.get("Authorization")
            return web.json_response({"access_token": "pull" if given == basic else "anonymous"})
        if request.headers.get("Authorization", "") not in {"Bearer pull", "Bearer anonymous"}:
            realm = f'Bearer realm="https://{HOST}/oauth2/token",service="{HOST}"'
            return web.Response(status=401, headers={"WWW-Authenticate": realm})
        return None

    async def start():
        async with Front(server) as front:
            front.hook = hook
            front.manifest("team/list", DATA)
            identity = Azure(
                tenant_id="tenant",
                client_id="client",
                token_file=str(tmp_path / "token"),
                authority=f"https://{LOGIN}/",
            )
            registry = Registry(azure=identity)
            connector = TCPConnector(resolver=Here(int(front.host.split(":")[1])), ssl=client)
            registry.session = ClientSession(connector=connector, auto_decompress=False)
            try:
                place = references.repository(HOST, "team/list")
                return await body(front, registry, place, forms)
            finally:
                await registry.close()

    return asyncio.run(start())


def test_the_pods_token_becomes_a_token_for_pulling(tmp_path):
    async def body(front, registry, place, forms):
        assert (await registry.manifest(place, sha256(DATA))).data == DATA
        (login, path, asked), (host, exchange, traded) = forms
        assert (login, path) == (LOGIN, "/tenant/oauth2/v2.0/token")
        assert asked["client_assertion"] == "a.pod.token"
        assert asked["scope"] == "https://management.azure.com/.default"
        assert (host, exchange) == (HOST, "/oauth2/exchange")
        assert traded == {"grant_type": "access_token", "service": HOST, "tenant": "tenant", "access_token": "entra"}
        assert front.seen[-1].headers["Authorization"] == "Bearer pull"

    drive(tmp_path, body)


def test_a_registry_that_does_not_know_the_identity_is_asked_anonymously(tmp_path):
    async def body(front, registry, place, forms):
        assert (await registry.manifest(place, sha256(DATA))).data == DATA
        assert front.seen[-1].headers["Authorization"] == "Bearer anonymous"

    drive(tmp_path, body, answers={"/oauth2/exchange": lambda: web.Response(status=401)})


@pytest.mark.parametrize("path", ["/tenant/oauth2/v2.0/token", "/oauth2/exchange"])
def test_failures_of_the_token_service_have_their_reasons_and_show_no_token(tmp_path, path):
    for status, text, expected in ((400, "{}", "Unauthorized"), (200, "{", "Unauthorized"), (503, "", "Transient")):

        async def body(front, registry, place, forms):
            with pytest.raises(Refused) as raised:
                await registry.manifest(place, "v1")
            assert raised.value.reason == expected  # noqa: B023
            assert "a.pod.token" not in str(raised.value)
            assert "entra" not in str(raised.value)

        drive(tmp_path, body, answers={path: lambda: web.Response(status=status, text=text)})  # noqa: B023


def test_only_azures_registries_are_shown_the_identity(tmp_path):
    async def body(front, registry, place, forms):
        for host in ("example.azurecr.io.evil.example", "azurecr.io", "evil.example", "example.azurecr.io:444", "x@y"):
            assert not AZURE.match(host)
            assert await registry.azure.credentials(registry, references.Repository(host, "a")) is None
        assert front.seen == []

    drive(tmp_path, body)
    for host in ("example.azurecr.io", "example.azurecr.cn", "example.azurecr.us", "example-abc1.azurecr.io"):
        assert AZURE.match(host)


def test_a_token_is_never_sent_without_tls(tmp_path):
    async def body(front, registry, place, forms):
        plain = Azure(tenant_id="t", client_id="c", token_file=str(tmp_path / "token"), authority="http://127.0.0.1/")
        with pytest.raises(Refused, match="without TLS"):
            await plain.credentials(registry, place)
        missing = Azure(tenant_id="t", client_id="c", token_file=str(tmp_path / "none"))
        with pytest.raises(Refused, match="cannot be read"):
            await missing.credentials(registry, place)

    drive(tmp_path, body)
