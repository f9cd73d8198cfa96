"""What is kept across restarts: verified again when it is loaded, and never older than what was seen."""

import base64
import json
import zlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kars.artifacts import held
from kars.artifacts.certificates import Roots
from kars.artifacts.contents import EGRESS, INFERENCE, Allowlist, write
from kars.artifacts.evidence import Evidence, examine
from kars.artifacts.held import Owner
from kars.artifacts.references import Repository
from kars.artifacts.refused import Refused
from kars.artifacts.signatures import Signature
from kars.artifacts.signers import Key, SignerPolicy
from kars.model.sandbox import Endpoint
from tests.unit.artifacts import world as sigstore
from tests.unit.artifacts.depot import artifact, sha256
from tests.unit.artifacts.test_keyed import P256, pem
from tests.unit.artifacts.world import GITHUB, WORKFLOW

OWNER = Owner("KarsSandbox", "team", "demo")
PLACE = Repository("registry.example", "team/list")
KEYED = SignerPolicy(keys=(Key("release", pem(P256)),))
NONE = Roots(b"unused")


def evidence(generation=3, *, body=None, media_type=EGRESS, signatures=None):
    if body is None:
        body = write(Allowlist((Endpoint(host="api.example.com", port=443),), generation))
    manifest = artifact([body], media_type)
    if signatures is None:
        payload = sigstore.simple(sha256(manifest), str(PLACE))
        value = base64.b64encode(sigstore.sign(P256, payload)).decode()
        signatures = (Signature("simple", payload, {"dev.cosignproject.cosign/signature": value}),)
    return Evidence(PLACE, sha256(manifest), manifest, (body,), signatures)


def verified(generation=3, **options):
    return examine(evidence(generation, **options), options.get("media_type", EGRESS), KEYED, NONE)


def restore(data, *, signers=KEYED, roots=NONE, media_type=EGRESS, owner=OWNER):
    return held.restore(owner, data, media_type, signers=signers, roots=roots)


def reason(data, **options):
    with pytest.raises(Refused) as raised:
        restore(data, **options)
    return raised.value.reason


def test_what_is_packed_is_restored_by_verifying_it_again():
    good = verified()
    data = held.pack(OWNER, good)
    assert set(data) == {"record", "generation"}
    assert data["generation"] == "3"
    assert restore(data) == good


def test_a_keyless_record_is_verified_without_a_network(world, roots):
    signers = SignerPolicy((GITHUB,), (WORKFLOW,))
    found = evidence(signatures=())
    bundle = Signature("bundle", json.dumps(world.bundle(found.digest)).encode())
    good = examine(
        msgspec.structs.replace(found, signatures=(Signature("bundle", b"{}"), bundle)), EGRESS, signers, roots
    )
    assert good.evidence.signatures == (bundle,)
    data = held.pack(OWNER, good)
    assert restore(data, signers=signers, roots=roots) == good
    assert reason(data, signers=signers, roots=Roots(sigstore.World().trusted_root())) == "SignatureVerifyFailed"


def test_a_signer_who_was_revoked_is_revoked_in_the_record():
    data = held.pack(OWNER, verified())
    assert reason(data, signers=SignerPolicy(keys=(Key("other", pem(sigstore.new_key())),))) == "SignatureVerifyFailed"
    assert reason(data, signers=SignerPolicy()) == "SignerPolicyMissing"


def repack(data, change):
    record = msgspec.msgpack.decode(zlib.decompress(base64.b64decode(data["record"])))
    change(record)
    return data | {"record": base64.b64encode(zlib.compress(msgspec.msgpack.encode(record))).decode()}


def test_a_record_that_was_altered_is_refused():
    data = held.pack(OWNER, verified())
    evil = evidence().layers[0].replace(b"api.", b"evl.")
    assert reason(repack(data, lambda record: record["evidence"].update(layers=[evil]))) == "DigestMismatch"
    assert (
        reason(repack(data, lambda record: record["evidence"].update(manifest=artifact([evil], EGRESS))))
        == "DigestMismatch"
    )

    def respace(record):
        record["evidence"]["manifest"] += b" "

    assert reason(repack(data, respace)) == "DigestMismatch"

    def swap(record):
        manifest = artifact([evil], EGRESS)
        record["evidence"].update(layers=[evil], manifest=manifest, digest=sha256(manifest))

    assert reason(repack(data, swap)) == "SignatureVerifyFailed"
    assert (
        reason(repack(data, lambda record: record["evidence"]["repository"].update(name="team/other")))
        == "IdentityMismatch"
    )
    assert reason(repack(data, lambda record: record.update(more=1))) == "NotFound"


def test_a_record_is_of_one_resource_and_one_kind():
    data = held.pack(OWNER, verified())
    for owner in (
        Owner("KarsSandbox", "team", "other"),
        Owner("KarsSandbox", "other", "demo"),
        Owner("KarsMemory", "team", "demo"),
    ):
        assert reason(data, owner=owner) == "NotFound"
        assert held.name(owner) != held.name(OWNER)
    assert reason(data, media_type=INFERENCE) == "InvalidRef"
    assert held.name(Owner("KarsSandbox", "n" * 63, "x" * 253)).startswith("last-good-karssandbox-")
    assert len(held.name(Owner("KarsSandbox", "n" * 63, "x" * 253))) <= 63


def test_generations_only_go_up():
    assert held.advance(0, verified(3)) == 3
    assert held.advance(3, verified(3)) == 3
    assert held.advance(3, verified(4)) == 4
    with pytest.raises(Refused, match="generation 3 is older than 4") as raised:
        held.advance(4, verified(3))
    assert raised.value.reason == "CanonicalFormViolation"
    assert held.highest(held.pack(OWNER, verified(3), 9)) == 9
    assert reason(held.pack(OWNER, verified(3), 9)) == "CanonicalFormViolation"
    assert [held.highest({"generation": text}) for text in ("", "x", "-1", "5", "9" * 17)] == [0, 0, 0, 5, 0]


def test_kinds_without_a_generation_have_none():
    good = verified(body=b'{"displayName":"x"}', media_type=INFERENCE)
    assert held.advance(7, good) == 7
    assert held.pack(OWNER, good)["generation"] == "0"


def test_a_record_fits_a_configmap_or_only_the_number_is_kept():
    import random

    noise = base64.b64encode(random.Random(1).randbytes(600_000)).decode()
    good = verified(body=json.dumps({"displayName": "x"}).encode(), media_type=INFERENCE)
    large = msgspec.structs.replace(good, evidence=msgspec.structs.replace(good.evidence, layers=(noise.encode(),)))
    assert set(held.pack(OWNER, msgspec.structs.replace(large, evidence=None))) == {"generation"}
    assert len(held.pack(OWNER, large).get("record", "")) <= held.RECORD_BYTES
    larger = msgspec.structs.replace(
        good, evidence=msgspec.structs.replace(good.evidence, layers=(noise.encode(),) * 3)
    )
    assert set(held.pack(OWNER, larger)) == {"generation"}


def test_a_record_that_unpacks_to_far_too_much_is_refused():
    bomb = base64.b64encode(zlib.compress(bytes(100 << 20), 9)).decode()
    assert reason({"record": bomb}) == "NotFound"
    assert reason({}) == "NotFound"


@given(st.binary(max_size=100))
def test_no_bytes_make_a_record(body):
    for text in (
        base64.b64encode(zlib.compress(body)).decode(),
        base64.b64encode(body).decode(),
        body.decode("latin-1"),
    ):
        with pytest.raises(Refused):
            restore({"record": text})
