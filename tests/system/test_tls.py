"""Upstreams behind TLS are verified against the authorities that were named."""

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from tests.system import behaviours, client
from tests.system.conftest import ROUTER_KEY
from tests.system.dialects import ALL, CHAT
from tests.system.router import Router
from tests.system.upstream import Upstream

every_dialect = pytest.mark.parametrize("dialect", ALL, ids=lambda dialect: dialect.name)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def serve(authority: trustme.CA, *names: str) -> Upstream:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    context.set_alpn_protocols(["http/1.1"])
    return Upstream(behaviours.service(), tls=context)


@pytest.fixture
def secure(authority: trustme.CA) -> Iterator[Upstream]:
    with serve(authority, "localhost", "127.0.0.1") as running:
        yield running


def started(folder: Path, url: str, authority: trustme.CA) -> Router:
    trusted = folder / "ca.pem"
    authority.cert_pem.write_to_path(str(trusted))
    environment = {
        "OPENAI_BASE_URL": f"{url}/v1",
        "OPENAI_API_KEY": ROUTER_KEY,
        "ANTHROPIC_BASE_URL": url,
        "ANTHROPIC_API_KEY": ROUTER_KEY,
        "UPSTREAM_CA_FILE": str(trusted),
    }
    return Router(folder, environment).start()


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_calls_pass_over_tls(host: str, secure: Upstream, authority: trustme.CA, tmp_path: Path):
    router = started(tmp_path, f"https://{host}:{secure.port}", authority)
    try:
        for dialect in ALL:
            assert client.post(router.port, dialect.path, dialect.request()).body == dialect.whole()
            found = client.post(router.port, dialect.path, dialect.request(stream=True))
            assert found.whole
            assert found.status == 200
        assert secure.last.header("host") == f"{host}:{secure.port}"
        assert secure.accepted <= 2
    finally:
        router.stop()


@pytest.mark.parametrize("fault", ["unknown_authority", "wrong_name"])
def test_an_upstream_that_cannot_be_verified_gets_no_request(fault: str, authority: trustme.CA, tmp_path: Path):
    issuer = trustme.CA() if fault == "unknown_authority" else authority
    name = "localhost" if fault == "unknown_authority" else "other.example"
    with serve(issuer, name) as impostor:
        router = started(tmp_path, f"https://localhost:{impostor.port}", authority)
        try:
            found = client.post(router.port, CHAT.path, CHAT.request())
            assert found.status == 502
            assert CHAT.error(found.json)["code"] == "upstream_tls_error"
            assert impostor.received == []
        finally:
            router.stop()
