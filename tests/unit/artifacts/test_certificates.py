"""Keyless signatures against the real sigstore verifier, with every part of the evidence broken in turn."""

import base64
import json
import re
from datetime import timedelta

import pytest
from cryptography import x509

from kars.artifacts import signatures
from kars.artifacts.certificates import Roots, public_good
from kars.artifacts.refused import Refused
from kars.artifacts.signatures import Signature, Target
from kars.artifacts.signers import Key, SignerPolicy
from tests.unit.artifacts import world as sigstore
from tests.unit.artifacts.depot import sha256
from tests.unit.artifacts.world import GITHUB, MOMENT, WORKFLOW

MANIFEST = b'{"schemaVersion":2}'
DIGEST = sha256(MANIFEST)
OTHER = sha256(b"another manifest")
REPOSITORY = "registry.example/team/allowlist"
TARGET = Target(MANIFEST, DIGEST, REPOSITORY)
SIGNERS = SignerPolicy((GITHUB,), ("https://github.com/example/policies/.github/workflows/*.yml@refs/heads/main",))


def told(document, roots, signers=SIGNERS):
    """The identity, or the reason and its text."""
    signature = document if isinstance(document, Signature) else Signature("bundle", json.dumps(document).encode())
    try:
        return signatures.verify(TARGET, [signature], signers=signers, roots=roots).identity
    except Refused as refused:
        return refused.reason, str(refused)


def failed(document, roots, *words, reason="SignatureVerifyFailed", signers=SIGNERS):
    found = told(document, roots, signers)
    assert found[0] == reason, found
    for word in words:
        assert re.search(word, found[1]), found
    return True


def simple(world, *, digest=DIGEST, reference=REPOSITORY, **options):
    payload = sigstore.simple(digest, reference)
    return Signature("simple", payload, world.annotations(payload, **options))


def entry(document):
    return document["verificationMaterial"]["tlogEntries"][0]


def test_accepts_each_form_and_names_subject_and_issuer(world, roots):
    expected = f"{WORKFLOW} ({GITHUB})"
    assert told(world.bundle(DIGEST), roots) == expected
    assert told(world.bundle(DIGEST, manifest=MANIFEST), roots) == expected
    assert told(simple(world), roots) == expected


def test_accepts_the_subject_by_exact_glob_and_expression(world, roots):
    bundle = world.bundle(DIGEST)
    for pattern in (
        WORKFLOW,
        "https://github.com/example/*",
        "https://github.com/*/policies/.github/workflows/publish.yml@refs/heads/*",
        "re:https://github\\.com/example/.*@refs/heads/(main|release)",
    ):
        assert told(bundle, roots, SignerPolicy((GITHUB,), (pattern,))) == f"{WORKFLOW} ({GITHUB})"


@pytest.mark.parametrize("form", ["bundle", "simple"])
def test_refuses_another_issuer_or_subject_as_an_identity(world, roots, form):
    def make(**options):
        return world.bundle(DIGEST, **options) if form == "bundle" else simple(world, **options)

    failed(make(issuer="https://issuer.example"), roots, "issuer.example", reason="IdentityMismatch")
    elsewhere = WORKFLOW.replace("refs/heads/main", "refs/heads/evil")
    failed(make(subject=elsewhere), roots, "refs/heads/evil", reason="IdentityMismatch")
    disguised = WORKFLOW.replace("publish.yml@refs/heads/main", "evil.yml@refs/heads/x.yml@refs/heads/main")
    failed(make(subject=disguised), roots, reason="IdentityMismatch")
    failed(make(), roots, reason="IdentityMismatch", signers=SignerPolicy((GITHUB,), ("*",)))


def test_an_address_pattern_is_for_addresses_only(world, roots):
    signers = SignerPolicy((GITHUB,), ("*@example.com",))
    assert told(world.bundle(DIGEST, subject="ann@example.com"), roots, signers).startswith("ann@example.com")
    url = "https://github.com/evil/x/.github/workflows/a.yml@example.com"
    failed(world.bundle(DIGEST, subject=url), roots, reason="IdentityMismatch", signers=signers)
    for pattern in ("re:.*@example\\.com", "re:.+"):
        failed(
            world.bundle(DIGEST, subject=url),
            roots,
            reason="IdentityMismatch",
            signers=SignerPolicy((GITHUB,), (pattern,)),
        )


def test_refuses_a_certificate_with_two_subjects_or_an_unusual_one(world, roots):
    names = [x509.UniformResourceIdentifier(WORKFLOW), x509.RFC822Name("ann@example.com")]
    failed(world.bundle(DIGEST, names=names), roots, "one URL or e-mail", reason="IdentityMismatch")
    failed(world.bundle(DIGEST, names=[x509.DNSName("example.com")]), roots, "one URL", reason="IdentityMismatch")


@pytest.mark.parametrize("form", ["bundle", "message", "simple"])
def test_refuses_a_certificate_that_was_not_valid_when_it_signed(world, roots, form):
    for moment in (MOMENT + timedelta(minutes=30), MOMENT - timedelta(minutes=30)):
        if form == "simple":
            document = simple(world, moment=moment)
        else:
            document = world.bundle(DIGEST, moment=moment, manifest=MANIFEST if form == "message" else None)
        failed(document, roots, "certificate|expired|valid")


@pytest.mark.parametrize("form", ["bundle", "simple"])
def test_refuses_a_certificate_without_a_good_sct_or_of_another_authority(world, roots, form):
    def make(**options):
        return world.bundle(DIGEST, **options) if form == "bundle" else simple(world, **options)

    failed(make(sct=False), roots, "timestamp")
    failed(make(ct_key=sigstore.new_key()), roots, "SCT|signature")
    failed(make(authority_key=sigstore.new_key()), roots, "chain")
    failed(make(), Roots(sigstore.World().trusted_root()), "chain")


def test_refuses_a_statement_about_something_else(world, roots):
    failed(world.bundle(OTHER), roots, "another manifest")
    failed(world.bundle(DIGEST, manifest=b"another manifest"), roots, "digest|Signature")
    attestation = sigstore.statement(DIGEST, predicate="https://slsa.dev/provenance/v1")
    failed(world.bundle(DIGEST, signed=attestation), roots, "no signature")
    failed(
        world.bundle(DIGEST, signed=sigstore.statement(DIGEST, kind="https://in-toto.io/Statement/v9")), roots, "_type"
    )
    twice = sigstore.statement(OTHER)[:-1] + b"," + sigstore.statement(DIGEST)[1:]
    failed(world.bundle(DIGEST, signed=twice), roots, "twice")


def test_refuses_a_payload_about_something_else(world, roots):
    failed(simple(world, digest=OTHER), roots, "docker-manifest-digest")
    failed(simple(world, reference="registry.example/team/other"), roots, "docker-reference", reason="IdentityMismatch")
    signed = simple(world)
    failed(Signature("simple", sigstore.simple(OTHER, REPOSITORY), signed.annotations), roots)


def test_refuses_a_broken_inclusion_proof(world, roots):
    for change in (
        lambda proof: proof["hashes"].reverse(),
        lambda proof: proof["hashes"].pop(),
        lambda proof: proof.update(rootHash=base64.b64encode(bytes(32)).decode()),
        lambda proof: proof.update(logIndex=str(int(proof["logIndex"]) - 1)),
        lambda proof: proof.pop("checkpoint"),
        lambda proof: proof["checkpoint"].update(envelope=proof["checkpoint"]["envelope"].replace("log.", "lag.", 1)),
    ):
        document = world.bundle(DIGEST)
        change(entry(document)["inclusionProof"])
        assert failed(document, roots)
    document = world.bundle(DIGEST)
    entry(document).pop("inclusionProof")
    failed(document, roots)
    document = world.bundle(DIGEST)
    document["verificationMaterial"]["tlogEntries"] = []
    failed(document, roots)


def test_refuses_another_logs_key(world, roots):
    stranger = sigstore.Log()
    right, world.log = world.log, stranger
    try:
        bundle, older = world.bundle(DIGEST), simple(world)
    finally:
        world.log = right
    failed(bundle, roots, "signature|checkpoint|log")
    failed(older, roots, "signature")
    # The same with the right log's name on it.
    entry(bundle)["logId"]["keyId"] = base64.b64encode(sigstore.key_id(right.key)).decode()
    failed(bundle, roots)


def test_refuses_a_promise_that_the_log_did_not_sign(world, roots):
    document = world.bundle(DIGEST)
    entry(document)["integratedTime"] = str(int(entry(document)["integratedTime"]) + 1)
    failed(document, roots, "promise|signature")
    document = world.bundle(DIGEST)
    entry(document).pop("inclusionPromise")
    failed(document, roots, "promise|time")
    for member, value in (("integratedTime", int(MOMENT.timestamp()) + 1), ("logIndex", 1), ("logID", "00" * 32)):
        older = simple(world)
        promise = json.loads(older.annotations["dev.sigstore.cosign/bundle"])
        promise["Payload"][member] = value
        annotations = older.annotations | {"dev.sigstore.cosign/bundle": json.dumps(promise)}
        failed(Signature("simple", older.body, annotations), roots)


def test_refuses_a_log_entry_about_another_signature(world, roots):
    one, two = world.bundle(DIGEST), world.bundle(DIGEST)
    one["verificationMaterial"]["tlogEntries"] = two["verificationMaterial"]["tlogEntries"]
    failed(one, roots)
    one, two = simple(world), simple(world)
    swapped = {"dev.sigstore.cosign/bundle": two.annotations["dev.sigstore.cosign/bundle"]}
    failed(Signature("simple", one.body, one.annotations | swapped), roots, "something else")
    failed(Signature("simple", one.body, {**one.annotations, "dev.sigstore.cosign/bundle": ""}), roots, "no log entry")


def test_refuses_a_signature_by_another_key_though_the_log_has_it(world, roots):
    stranger = sigstore.new_key()
    failed(world.bundle(DIGEST, signing_key=stranger), roots, "signature")
    failed(world.bundle(DIGEST, manifest=MANIFEST, signing_key=stranger), roots, "[sS]ignature")
    failed(simple(world, signing_key=stranger), roots)


def test_refuses_a_signature_that_was_touched(world, roots):
    document = world.bundle(DIGEST)
    document["dsseEnvelope"]["payload"] = base64.b64encode(sigstore.statement(DIGEST) + b" ").decode()
    failed(document, roots)
    document = world.bundle(DIGEST)
    document["dsseEnvelope"]["payloadType"] = "text/plain"
    failed(document, roots)
    document = world.bundle(DIGEST)
    document["messageSignature"] = world.bundle(DIGEST, manifest=MANIFEST)["messageSignature"]
    failed(document, roots, "two contents")


def test_refuses_a_certificate_where_only_keys_may_sign(world, roots):
    keys = SignerPolicy(keys=(Key("a", bytes(32)),))
    failed(world.bundle(DIGEST), roots, "only keys", reason="IdentityMismatch", signers=keys)
    failed(simple(world), roots, "only keys", reason="IdentityMismatch", signers=keys)


def test_one_good_signature_among_bad_ones_is_enough(world, roots):
    bad = [Signature("bundle", b"{"), Signature("simple", b"", {}), simple(world, digest=OTHER)]
    assert signatures.verify(TARGET, [*bad, simple(world)], signers=SIGNERS, roots=roots).signature.form == "simple"
    with pytest.raises(Refused, match="has no signature"):
        signatures.verify(TARGET, [], signers=SIGNERS, roots=roots)
    with pytest.raises(Refused) as refused:
        signatures.verify(TARGET, [simple(world)], signers=SignerPolicy(), roots=roots)
    assert refused.value.reason == "SignerPolicyMissing"


def test_a_trusted_root_that_is_none_refuses_and_says_whose_fault_it_is(world):
    for document in (b"", b"{}", b'{"mediaType":"x"}', b"[" * 100_000):
        failed(world.bundle(DIGEST), Roots(document), "controller's trusted root")


def test_without_a_root_of_its_own_the_public_good_one_counts(world):
    assert b"rekor.sigstore.dev" in public_good()
    failed(world.bundle(DIGEST), Roots(), "chain")


def test_bytes_that_are_no_signature_are_refused_and_nothing_else(world, roots):
    whole = json.dumps(world.bundle(DIGEST)).encode()
    for cut in range(0, len(whole), 97):
        for document in (whole[:cut], whole[:cut] + b"\xff" + whole[cut + 1 :], whole[:cut] + b"9" + whole[cut + 1 :]):
            found = told(Signature("bundle", document), roots)
            assert isinstance(found, str) or found[0] in {"SignatureVerifyFailed", "IdentityMismatch"}
