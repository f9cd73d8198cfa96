"""Key sets of issuers: what is fetched, and what an issuer's URL cannot make the controller do."""

import asyncio
import json
import ssl

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver
from hypothesis import given
from hypothesis import strategies as st

from kars.controller.policies import jwks
from kars.controller.policies.jwks import Failed, Issuers, reachable
from tests.cluster.authority import Authority

LOOPBACK = ("127.0.0.0/8",)
KEYS = {"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "AAAA", "kid": "one"}]}


@pytest.fixture(scope="module")
def authority():
    return Authority()


@pytest.fixture(scope="module")
def contexts(authority, tmp_path_factory):
    """The server's side, and the trust in it."""
    certificate, key = authority.server().write(tmp_path_factory.mktemp("issuer"), "issuer")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)
    return server, ssl.create_default_context(cadata=authority.pem.decode())


class Names(AbstractResolver):
    """Resolves every name to one address, behind the guard."""

    address = "127.0.0.1"

    def __init__(self, networks):
        self.guard = jwks.Guarded(networks)

    async def resolve(self, host, port=0, family=0):
        found = await self.guard.resolve(self.address, port, family)
        return [{**one, "hostname": host} for one in found]

    async def close(self):
        pass


async def serve(contexts, answers):
    """Serve; `answers` has a body, a status and a body, or something to do, by path."""

    async def answer(request):
        found = answers.get(request.path, (404, b""))
        if callable(found):
            return await found(request)
        status, body = found if isinstance(found, tuple) else (200, found)
        return web.Response(status=status, body=body, headers={"Location": "/other"} if status == 302 else {})

    runner = web.AppRunner(web.Application())
    runner.app.router.add_route("*", "/{tail:.*}", answer)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=contexts[0])
    await site.start()
    return runner, f"https://localhost:{site._server.sockets[0].getsockname()[1]}"


async def fetch(contexts, make, *, networks=LOOPBACK, **more):
    """What comes of fetching from an issuer that answers as `make(url)` says."""
    answers = {}
    runner, url = await serve(contexts, answers)
    answers.update(make(url))
    try:
        return await Issuers(networks=networks, tls=contexts[1], resolver=Names, **more).fetch(url)
    finally:
        await runner.cleanup()


def usual(url, **more):
    document = {"issuer": url, "jwks_uri": f"{url}/keys", **more}
    return {jwks.DISCOVERY: json.dumps(document).encode(), "/keys": json.dumps(KEYS).encode()}


async def test_a_key_set_is_fetched_by_way_of_the_discovery_document(contexts):
    assert json.loads(await fetch(contexts, usual)) == KEYS


async def test_nothing_is_dialled_that_is_not_global_unless_its_network_was_named(contexts):
    with pytest.raises(Failed, match=r"^address: .* not global$"):
        await fetch(contexts, usual, networks=())


@pytest.mark.parametrize(
    "address",
    [
        "10.0.0.1",
        "127.0.0.1",
        "169.254.169.254",
        "100.64.0.1",
        "192.168.1.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "fd00:ec2::254",
        "fe80::1",
        "::ffff:10.0.0.1",
        "64:ff9b::10.0.0.1",
        "2002:0a00:0001::1",
        "::10.0.0.1",
        "ff02::1",
        "fe80::1%eth0",
    ],
)
def test_an_address_that_leads_inside_is_refused_in_every_spelling(address):
    assert not reachable(address, ())


@pytest.mark.parametrize("address", ["1.1.1.1", "2606:4700:4700::1111", "::ffff:1.1.1.1", "64:ff9b::1.1.1.1"])
def test_a_global_address_is_dialled(address):
    assert reachable(address, ())


@pytest.mark.parametrize(
    "url",
    [
        # Short for 127.0.0.1, 169.254.169.254 and 10.0.0.1: the client asks no resolver of ours about them.
        "https://127.1",
        "https://2852039166",
        "https://0xa9fea9fe",
        "https://012.1",
        "https://\uff11\uff12\uff17.1",
        "https://127.0.0.1.",
        "http://issuer.example",
        "https://",
        "https://user:secret@issuer.example",
        "https://10.0.0.1",
        "https://[::1]",
        "https://issuer.example:port",
        "ftp://issuer.example",
        "",
    ],
)
async def test_a_url_that_is_not_https_to_a_name_or_a_global_address_is_refused_unseen(url):
    with pytest.raises(Failed, match=r"^(invalid_url|address):"):
        await Issuers().fetch(url)


async def test_a_redirect_is_not_followed(contexts):
    with pytest.raises(Failed, match="HTTP 302"):
        await fetch(contexts, lambda url: {jwks.DISCOVERY: (302, b"")})


@pytest.mark.parametrize("inner", ["http://localhost/keys", "https://10.0.0.1/keys", "file:///etc/passwd", "keys", 7])
async def test_a_discovery_document_cannot_lead_elsewhere(contexts, inner):
    with pytest.raises(Failed, match=r"^(invalid_url|address|invalid_jwks_format):"):
        await fetch(contexts, lambda url: usual(url, jwks_uri=inner))


async def test_a_discovery_document_of_another_issuer_is_refused(contexts):
    with pytest.raises(Failed, match="another issuer"):
        await fetch(contexts, lambda url: usual(url, issuer="https://issuer.example"))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"keys": {}}',
        b'{"keys": [1]}',
        b'{"keys": [{"kty": "oct", "k": "AAAA"}]}',
        b'{"keys": [{"kty": "RSA", "d": "AAAA"}]}',
        json.dumps({"keys": [{}] * (jwks.MAX_KEYS + 1)}).encode(),
        b" " * (jwks.MAX_BYTES + 1),
        b"[" * 100_000,
    ],
    ids=lambda body: body[:24].decode() or "empty",
)
async def test_what_is_no_set_of_public_keys_is_refused(contexts, body):
    with pytest.raises(Failed, match=r"^invalid_jwks_format:"):
        await fetch(contexts, lambda url: usual(url) | {"/keys": body})


async def test_a_certificate_that_nobody_vouches_for_is_refused(contexts):
    with pytest.raises(Failed, match=r"^tls:"):
        await fetch((contexts[0], ssl.create_default_context()), usual)


async def test_an_issuer_that_says_nothing_is_given_up(contexts, monkeypatch):
    monkeypatch.setattr(jwks, "DEADLINE", 0.3)

    async def silent(request):
        await asyncio.sleep(5)

    with pytest.raises(Failed, match=r"^timeout:"):
        await fetch(contexts, lambda url: {jwks.DISCOVERY: silent})


async def test_an_issuer_that_drips_is_given_up(contexts, monkeypatch):
    monkeypatch.setattr(jwks, "DEADLINE", 0.5)

    async def drips(request):
        answer = web.StreamResponse()
        await answer.prepare(request)
        while True:
            await answer.write(b" ")
            await asyncio.sleep(0.05)

    with pytest.raises(Failed, match=r"^timeout:"):
        await fetch(contexts, lambda url: {jwks.DISCOVERY: drips})


async def test_a_name_that_does_not_resolve_is_told_as_that():
    with pytest.raises(Failed, match=r"^dns:"):
        await Issuers().fetch("https://issuer.invalid")


@given(st.binary(max_size=300))
def test_no_bytes_make_the_reader_fail_in_another_way(body):
    try:
        assert json.loads(jwks.key_set(body))["keys"] is not None
    except Failed as error:
        assert error.kind == "invalid_jwks_format"
