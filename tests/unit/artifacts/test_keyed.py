"""Signatures by keys: both layouts, both kinds of key, and what a signature has to be about."""

import base64
import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from nacl import bindings

from kars.artifacts import keys, signatures
from kars.artifacts.certificates import Roots
from kars.artifacts.refused import Refused
from kars.artifacts.signatures import Signature, Target
from kars.artifacts.signers import Key, SignerPolicy
from tests.unit.artifacts import world as sigstore
from tests.unit.artifacts.depot import sha256

MANIFEST = b'{"schemaVersion":2}'
DIGEST = sha256(MANIFEST)
REPOSITORY = "registry.example/team/allowlist"
TARGET = Target(MANIFEST, DIGEST, REPOSITORY)
P256 = sigstore.new_key()
EDWARDS = ed25519.Ed25519PrivateKey.generate()


def pem(key):
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def prehashed(data):
    """Ed25519ph, as cosign signs."""
    seed = EDWARDS.private_bytes_raw()
    state = bindings.crypto_sign_ed25519ph_state()
    bindings.crypto_sign_ed25519ph_update(state, data)
    return bindings.crypto_sign_ed25519ph_final_create(state, bindings.crypto_sign_seed_keypair(seed)[1])


SIGN = {"p256": lambda data: sigstore.sign(P256, data), "ed25519": EDWARDS.sign, "ed25519ph": prehashed}
RAW = EDWARDS.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
PUBLIC = {"p256": pem(P256), "ed25519": RAW, "ed25519ph": RAW}


def policy(kind, *allowed):
    return SignerPolicy(keys=(Key("stranger", pem(sigstore.new_key())), Key("release", PUBLIC[kind], allowed)))


def simple(kind, *, payload=None, signed=None):
    payload = sigstore.simple(DIGEST, REPOSITORY) if payload is None else payload
    value = base64.b64encode(SIGN[kind](payload if signed is None else signed)).decode()
    return Signature("simple", payload, {"dev.cosignproject.cosign/signature": value})


def envelope(kind, *, payload=None, payload_type="application/vnd.in-toto+json"):
    payload = sigstore.statement(DIGEST) if payload is None else payload
    signed = b"DSSEv1 %d %b %d %b" % (len(payload_type), payload_type.encode(), len(payload), payload)
    return bundle(
        dsseEnvelope={
            "payload": base64.b64encode(payload).decode(),
            "payloadType": payload_type,
            "signatures": [{"sig": base64.b64encode(SIGN[kind](signed)).decode()}],
        }
    )


def bundle(**content):
    document = {
        "mediaType": sigstore.BUNDLE,
        "verificationMaterial": {"publicKey": {"hint": "x"}, "tlogEntries": []},
        **content,
    }
    return Signature("bundle", json.dumps(document).encode())


def check(signature, signers):
    return signatures.verify(TARGET, [signature], signers=signers, roots=Roots(b"unused")).identity


def refused(signature, signers):
    with pytest.raises(Refused) as raised:
        check(signature, signers)
    return raised.value.reason


@pytest.mark.parametrize("kind", SIGN)
def test_accepts_a_key_of_the_policy_in_each_layout(kind):
    message = base64.b64encode(SIGN[kind](MANIFEST)).decode()
    for signature in (simple(kind), envelope(kind), bundle(messageSignature={"signature": message})):
        assert check(signature, policy(kind)) == "key release"


@pytest.mark.parametrize("kind", SIGN)
def test_refuses_what_the_key_did_not_sign(kind):
    other = policy("p256" if kind != "p256" else "ed25519")
    assert refused(simple(kind), other) == refused(envelope(kind), other) == "SignatureVerifyFailed"
    assert refused(simple(kind, signed=b"something else"), policy(kind)) == "SignatureVerifyFailed"
    message = base64.b64encode(SIGN[kind](MANIFEST + b" ")).decode()
    assert refused(bundle(messageSignature={"signature": message}), policy(kind)) == "SignatureVerifyFailed"


@pytest.mark.parametrize("kind", SIGN)
def test_a_signature_for_another_manifest_kind_or_repository_does_not_count(kind):
    other = sha256(b"another manifest")
    assert refused(simple(kind, payload=sigstore.simple(other, REPOSITORY)), policy(kind)) == "SignatureVerifyFailed"
    assert refused(envelope(kind, payload=sigstore.statement(other)), policy(kind)) == "SignatureVerifyFailed"
    scan = sigstore.statement(DIGEST, predicate="https://cosign.sigstore.dev/attestation/vuln/v1")
    assert refused(envelope(kind, payload=scan), policy(kind)) == "SignatureVerifyFailed"
    assert refused(envelope(kind, payload_type="text/plain"), policy(kind)) == "SignatureVerifyFailed"
    elsewhere = sigstore.simple(DIGEST, "registry.example/team/other")
    assert refused(simple(kind, payload=elsewhere), policy(kind)) == "IdentityMismatch"
    strange = sigstore.simple(DIGEST, REPOSITORY).replace(b"cosign container image signature", b"a receipt")
    assert refused(simple(kind, payload=strange), policy(kind)) == "SignatureVerifyFailed"
    twice = sigstore.simple(other, REPOSITORY)[:-1] + b"," + sigstore.simple(DIGEST, REPOSITORY)[1:]
    assert refused(simple(kind, payload=twice), policy(kind)) == "SignatureVerifyFailed"


@pytest.mark.parametrize(
    "reference", ["", REPOSITORY, f"{REPOSITORY}:v1", f"{REPOSITORY}@{DIGEST}"], ids=["none", "plain", "tag", "digest"]
)
def test_the_payloads_reference_may_have_a_tag_or_be_left_out(reference):
    assert check(simple("p256", payload=sigstore.simple(DIGEST, reference)), policy("p256"))


def test_docker_hub_has_one_name_whatever_cosign_calls_it():
    target = Target(MANIFEST, DIGEST, "docker.io/library/busybox")
    signature = simple("p256", payload=sigstore.simple(DIGEST, "index.docker.io/library/busybox"))
    assert signatures.verify(target, [signature], signers=policy("p256"), roots=Roots()).identity == "key release"


def test_a_key_counts_for_the_repositories_that_it_is_allowed():
    for allowed in (
        REPOSITORY,
        "registry.example/team/*",
        "registry.example/*",
        "*/team/allowlist",
        "re:.*/team/[a-z]+",
    ):
        assert check(envelope("p256"), policy("p256", allowed)) == "key release"
    for allowed in ("registry.example/other/*", "registry.example/*/x", "team/allowlist", "registry.example/team"):
        assert refused(envelope("p256"), policy("p256", allowed)) == "IdentityMismatch"
        assert refused(simple("p256"), policy("p256", allowed)) == "IdentityMismatch"


def test_an_envelope_has_one_signature():
    document = json.loads(envelope("p256").body)
    document["dsseEnvelope"]["signatures"] *= 2
    assert refused(Signature("bundle", json.dumps(document).encode()), policy("p256")) == "SignatureVerifyFailed"
    assert refused(bundle(), policy("p256")) == "SignatureVerifyFailed"


def test_signatures_that_are_no_signatures_are_refused():
    for value in ("", "*", "AAAA", base64.b64encode(bytes(64)).decode()):
        for kind in SIGN:
            signature = Signature("simple", b"{}", {"dev.cosignproject.cosign/signature": value})
            assert refused(signature, policy(kind)) == "SignatureVerifyFailed"


def test_a_signature_does_not_take_its_end_from_the_message():
    whole = EDWARDS.sign(b"the rest")
    assert keys.holds(RAW, whole, b"the rest")
    assert not keys.holds(RAW, whole[:-1], whole[-1:] + b"the rest")
    assert not keys.holds(RAW, whole + b"the", b" rest")


def test_keys_in_pem_are_p256_or_ed25519():
    assert keys.canonical(pem(P256).decode()) == pem(P256)
    assert keys.canonical(pem(EDWARDS).decode()) == RAW
    for text in ("", "-----BEGIN PUBLIC KEY-----", pem(ec.generate_private_key(ec.SECP384R1())).decode(), "x" * 5000):
        with pytest.raises(ValueError):
            keys.canonical(text)
