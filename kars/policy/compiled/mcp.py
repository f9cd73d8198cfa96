"""McpServer: the issuer's key set, what the router is told of the server, and the key that the router signs with."""

from __future__ import annotations

from base64 import b64encode, urlsafe_b64encode
from hashlib import sha256
from typing import Any

import msgspec
from nacl.signing import SigningKey

from kars.kube.types import SECRET, Object
from kars.model.mcp import McpServer, McpServerSpec
from kars.policy.compiled.canonical import compact
from kars.policy.compiled.outcome import Compiled, Given, Unfit, config_map, grouped, merged, namespace_of, own_labels

SUPPLIED = ("url", "oauth", "productionMode", "scopes", "allowedTools", "displayName")
SECRET_TYPE = "kars.azure.com/mcp-signing-key"  # noqa: S105 - the type of a Secret
# Bytes of an Ed25519 seed (RFC 8032 §5.1.5).
SEED_BYTES = 32
# Largest key set: some 100 RSA keys, far more than an issuer rotates through.
KEY_SET_BYTES = 256 * 1024
NO_KEYS = b'{"keys":[]}'


def render(server: McpServer, given: Given) -> Compiled:
    """Return the ConfigMap `mcp-<name>-jwks` and, when a seed is given, the Secret `mcp-<name>-signing`.

    A Secret that stands is never made again: without a seed there is none among the objects, and it stays as it is.
    """
    name, namespace = server.metadata.name, namespace_of(server, given)
    spec = effective(server, given)
    keys = key_set(given.key_set) if spec.production_mode else NO_KEYS
    labels = {"mcp-server": name}
    public = config_map(
        f"mcp-{name}-jwks",
        namespace=namespace,
        labels=labels,
        data={"jwks.json": keys, "meta.json": compact(meta(spec))},
    )
    objects = (public,) if not given.seed else (public, signing_secret(server, namespace, given.seed))
    status: dict[str, Any] = {
        "signingKeyRef": {"name": f"mcp-{name}-signing"},
        "jwksConfigMapRef": {"name": f"mcp-{name}-jwks"},
    }
    if server.spec.bundle_ref is not None:
        status["bundleRefDigest"] = given.bundle_digest
    return Compiled(objects=objects, status=status)


def effective(server: McpServer, given: Given) -> McpServerSpec:
    """Return the spec with an artifact's content in it; `Unfit` in production mode without an issuer."""
    spec = server.spec if server.spec.bundle_ref is None else merged(server.spec, given, supplied=SUPPLIED)
    if spec.production_mode and not issuer(spec):
        raise Unfit("SpecInvalid", "oauth.issuer is required in production mode")
    return spec


def issuer(spec: McpServerSpec) -> str:
    """Return whose key set is to be fetched; empty where none is."""
    return spec.oauth.issuer if spec.oauth is not None else ""


def key_set(body: bytes) -> bytes:
    """Hold a fetched key set to its form (RFC 7517 §5) and return it with public members only."""
    if len(body) > KEY_SET_BYTES:
        raise Unfit("JwksFetchFailed", f"invalid_jwks_format: {len(body)} bytes, more than {KEY_SET_BYTES}")
    try:
        read = msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError) as error:
        raise Unfit("JwksFetchFailed", f"invalid_jwks_format: {error}") from None
    keys = read.get("keys")
    if not isinstance(keys, list) or not all(isinstance(key, dict) for key in keys):
        raise Unfit("JwksFetchFailed", "invalid_jwks_format: no list of keys")
    return compact({"keys": [public_members(key) for key in keys if key.get("kty") != "oct"]})


def public_members(key: dict[str, Any]) -> dict[str, Any]:
    """Return a key without what an issuer should never have published (RFC 7518 §6.2.2, §6.3.2, RFC 8037 §2)."""
    return {name: value for name, value in key.items() if name not in {"d", "p", "q", "dp", "dq", "qi", "oth", "k"}}


def meta(spec: McpServerSpec) -> Object:
    """Return what the router is told of the server; all but the issuer only where there is something to say."""
    told = {
        "audience": spec.oauth.audience if spec.oauth is not None else None,
        "scopes": list(spec.scopes),
        "url": spec.url,
        "allowedTools": list(spec.allowed_tools),
        "bearerFromEnv": spec.bearer_from_env,
    }
    return {"issuer": issuer(spec), **{name: value for name, value in told.items() if value}}


def key_id(public: bytes) -> str:
    """Return a key's id: base64url, without padding, of the first 16 bytes of its SHA-256."""
    return urlsafe_b64encode(sha256(public).digest()[:16]).rstrip(b"=").decode()


def signing_secret(server: McpServer, namespace: str, seed: bytes) -> Object:
    """Return the Secret of the key that a seed of 32 bytes makes."""
    if len(seed) != SEED_BYTES:
        raise ValueError(f"a seed has {SEED_BYTES} bytes, not {len(seed)}")
    public = bytes(SigningKey(seed).verify_key)
    return {
        "apiVersion": SECRET.api_version,
        "kind": SECRET.kind,
        "metadata": {
            "name": f"mcp-{server.metadata.name}-signing",
            "namespace": namespace,
            "labels": own_labels({"mcp-server": server.metadata.name}),
            "annotations": grouped({"mcp-signing-kid": key_id(public)}),
        },
        "type": SECRET_TYPE,
        "data": {
            "signing-key.private": b64encode(seed).decode(),
            "signing-key.public": b64encode(public).decode(),
        },
    }
