"""MCP servers: key sets, what the router is told, and the signing key."""

import json
from base64 import b64decode, urlsafe_b64encode
from contextlib import suppress
from hashlib import sha256

import pytest
from hypothesis import given as forall
from hypothesis import strategies as st
from nacl.signing import SigningKey, VerifyKey

from kars.policy.compiled import mcp
from kars.policy.compiled.outcome import Given, Unfit
from tests.unit.policy_compiled.samples import make

SEED = bytes(range(32))
PRODUCTION = {
    "url": "https://mcp.example.com/",
    "productionMode": True,
    "oauth": {"issuer": "https://login.example.com", "audience": "api://x"},
    "scopes": ["read"],
    "allowedTools": ["search"],
    "bearerFromEnv": "TOKEN",
}


def test_in_development_there_are_no_keys_and_only_an_issuer():
    (made,) = mcp.render(make("McpServer", {}, name="s"), Given()).objects
    assert made["data"] == {"jwks.json": '{"keys":[]}', "meta.json": '{"issuer":""}'}
    assert made["metadata"]["name"] == "mcp-s-jwks"
    assert made["metadata"]["labels"] == {
        "app.kubernetes.io/managed-by": "kars-controller",
        "kars.azure.com/mcp-server": "s",
    }


def test_in_production_the_fetched_keys_are_published_and_everything_is_told_in_order():
    keys = b'{"keys":[{"kty":"RSA","kid":"1","n":"AQAB","e":"AQAB"}],"extra":1}'
    compiled = mcp.render(make("McpServer", PRODUCTION, name="s"), Given(key_set=keys))
    data = compiled.objects[0]["data"]
    assert data["jwks.json"] == '{"keys":[{"kty":"RSA","kid":"1","n":"AQAB","e":"AQAB"}]}'
    assert data["meta.json"] == (
        '{"issuer":"https://login.example.com","audience":"api://x","scopes":["read"],"url":"https://mcp.example.com/",'
        '"allowedTools":["search"],"bearerFromEnv":"TOKEN"}'
    )
    assert compiled.status == {"signingKeyRef": {"name": "mcp-s-signing"}, "jwksConfigMapRef": {"name": "mcp-s-jwks"}}


def test_private_parts_of_a_key_set_are_never_published():
    keys = json.dumps({"keys": [{"kty": "OKP", "x": "pub", "d": "private"}, {"kty": "oct", "k": "shared"}]}).encode()
    text = mcp.render(make("McpServer", PRODUCTION), Given(key_set=keys)).objects[0]["data"]["jwks.json"]
    assert json.loads(text) == {"keys": [{"kty": "OKP", "x": "pub"}]}


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"keys":{}}', b'{"keys":["a"]}', b"\xff", b"[" * 100_000, b" " * (256 * 1024 + 1)]
)
def test_what_is_no_key_set_degrades(body):
    with pytest.raises(Unfit, match="invalid_jwks_format") as refused:
        mcp.render(make("McpServer", PRODUCTION), Given(key_set=body))
    assert refused.value.reason == "JwksFetchFailed"


@forall(
    st.binary(max_size=200)
    | st.recursive(st.none() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)).map(
        lambda value: json.dumps(value).encode()
    )
)
def test_no_bytes_break_the_reader_of_key_sets(body):
    with suppress(Unfit):
        assert b'"keys"' in mcp.key_set(body)


def test_a_signed_server_in_production_mode_needs_an_issuer():
    reference = {
        "registry": "r",
        "repository": "p",
        "digest": "sha256:" + "01" * 32,
        "artifactType": "application/vnd.kars.mcp-server-bundle.v1+json",
    }
    server = make(
        "McpServer", {"bundleRef": reference, "bearerFromEnv": "TOKEN", "allowedSandboxes": {"matchLabels": {"a": "b"}}}
    )
    # The rules of the kind hold for what an artifact says.
    with pytest.raises(Unfit) as refused:
        mcp.render(server, Given(content={"url": "https://a.example", "productionMode": True}, key_set=b'{"keys":[]}'))
    assert refused.value.reason == "CanonicalFormViolation"
    compiled = mcp.render(
        server, Given(content={"url": "http://a.example", "scopes": ["x"]}, bundle_digest="sha256:aa")
    )
    assert json.loads(compiled.objects[0]["data"]["meta.json"])["bearerFromEnv"] == "TOKEN"
    assert compiled.status["bundleRefDigest"] == "sha256:aa"


def test_a_seed_makes_the_signing_secret_and_its_key_id():
    _, secret = mcp.render(make("McpServer", {}, name="s"), Given(seed=SEED)).objects
    public = b64decode(secret["data"]["signing-key.public"])
    assert secret["type"] == "kars.azure.com/mcp-signing-key" and secret["metadata"]["name"] == "mcp-s-signing"
    assert b64decode(secret["data"]["signing-key.private"]) == SEED
    VerifyKey(public).verify(SigningKey(SEED).sign(b"x"))
    kid = urlsafe_b64encode(sha256(public).digest()[:16]).decode().rstrip("=")
    assert secret["metadata"]["annotations"] == {"kars.azure.com/mcp-signing-kid": kid}


def test_a_seed_of_another_length_is_a_mistake_of_the_caller_that_shows_no_bytes():
    with pytest.raises(ValueError, match="32 bytes, not 31") as wrong:
        mcp.render(make("McpServer", {}), Given(seed=SEED[:31]))
    assert "\\x01" not in str(wrong.value)
