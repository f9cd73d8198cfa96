"""The SignerPolicy: what it takes, what it refuses, and how patterns match."""

import base64
import json
import time

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from kars.artifacts import patterns, signers
from kars.artifacts.refused import Refused
from kars.artifacts.signers import SignerPolicy
from tests.unit.artifacts import world as sigstore

ISSUER = "https://token.actions.githubusercontent.com"
SHIPPED = "https://github.com/example/kars/.github/workflows/*.yml@*"
PUBLIC = ed25519.Ed25519PrivateKey.generate().public_key()
RAW = PUBLIC.public_bytes(Encoding.Raw, PublicFormat.Raw)
DER = PUBLIC.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
P256 = sigstore.new_key().public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def raw(**members):
    return {"id": "a", "publicKeyBase64": base64.b64encode(RAW).decode(), **members}


def data(**members):
    return {"fulcioIssuers": f"# who\n{ISSUER}\n\n", "sanPatterns": f"{SHIPPED}\n", **members}


def malformed(given, *words):
    with pytest.raises(Refused) as raised:
        signers.read(given)
    assert raised.value.reason == "SignerPolicyMalformed"
    for word in words:
        assert word in str(raised.value), str(raised.value)


def test_reads_lists_with_comments_and_keys_of_both_kinds():
    policy = signers.read(
        data(
            ed25519Keys=json.dumps([raw(allowedSubjects=["registry.example/*"])]),
            publicKeys=json.dumps([{"id": "b", "publicKeyPem": P256}]),
        )
    )
    assert policy.issuers == (ISSUER,)
    assert policy.subjects == (SHIPPED,)
    assert [(key.id, key.allowed_subjects) for key in policy.keys] == [("a", ("registry.example/*",)), ("b", ())]
    assert policy.keys[0].public_key == RAW
    assert policy.keys[1].public_key.startswith(b"-----BEGIN PUBLIC KEY-----")
    assert not policy.empty


def test_a_raw_key_may_be_32_bytes_or_44_of_der():
    for found in (RAW, DER):
        item = raw(publicKeyBase64=base64.b64encode(found).decode())
        assert signers.read(data(ed25519Keys=json.dumps([item]))).keys[0].public_key == RAW


def test_keys_alone_are_a_policy_and_one_list_alone_is_none():
    assert not signers.read({"ed25519Keys": json.dumps([raw()])}).empty
    malformed({}, "fulcioIssuers")
    malformed({"fulcioIssuers": ISSUER}, "sanPatterns")
    malformed({"sanPatterns": SHIPPED}, "fulcioIssuers")
    malformed({"fulcioIssuers": "# none\n", "sanPatterns": SHIPPED}, "fulcioIssuers")
    malformed({"fulcioIssuers": ISSUER, "ed25519Keys": json.dumps([raw()])}, "sanPatterns")


def test_refuses_what_it_does_not_know_and_names_it():
    malformed(data(fulcioIssuer=ISSUER), "'fulcioIssuer'")
    malformed(data(ed25519Keys=json.dumps([raw(algorithm="x")])), "algorithm")
    malformed(data(ed25519Keys=json.dumps({"id": "a"})), "ed25519Keys")
    malformed(data(ed25519Keys="[{"), "ed25519Keys")
    malformed(data(ed25519Keys='[{"id":"a","id":"b","publicKeyBase64":""}]'), "twice")


def test_names_the_line_that_is_wrong():
    malformed(data(fulcioIssuers=f"{ISSUER}\nftp://x\n"), "fulcioIssuers, line 2")
    malformed(data(fulcioIssuers=f"{ISSUER}\nhttps://a b\n"), "line 2")
    malformed(data(sanPatterns="# comment\n\nre:(a\n"), "sanPatterns, line 3")
    malformed(data(sanPatterns="a b"), "line 1")
    malformed(data(sanPatterns="re:(?=a)b"), "line 1")
    malformed(data(sanPatterns="re:a)|(b"), "line 1")
    malformed(data(sanPatterns="x" * 513), "512")
    malformed(data(sanPatterns="\n".join(f"a{number}@example.com" for number in range(257))), "256")


def test_refuses_keys_that_are_none_and_two_of_one_name():
    malformed(data(ed25519Keys=json.dumps([raw(), raw()])), "two keys", "'a'")
    malformed(
        data(ed25519Keys=json.dumps([raw()]), publicKeys=json.dumps([{"id": "a", "publicKeyPem": P256}])), "two keys"
    )
    malformed(data(ed25519Keys=json.dumps([raw(id="A")])), "DNS label")
    malformed(data(ed25519Keys=json.dumps([raw(id="a" * 64)])), "DNS label")
    malformed(data(ed25519Keys=json.dumps([raw(publicKeyBase64="!")])), "base64")
    malformed(data(ed25519Keys=json.dumps([raw(publicKeyBase64=base64.b64encode(bytes(33)).decode())])), "33 bytes")
    malformed(data(ed25519Keys=json.dumps([raw(publicKeyBase64=base64.b64encode(bytes(44)).decode())])), "44 bytes")
    malformed(data(ed25519Keys=json.dumps([raw(allowedSubjects=["a b"])])), "allowedSubjects")
    malformed(data(publicKeys=json.dumps([{"id": "a", "publicKeyPem": "x"}])), "PEM")


def test_the_fallback_needs_both_lists_and_holds_them_to_the_same_rules():
    assert signers.fallback([ISSUER, " "], [SHIPPED]) == SignerPolicy((ISSUER,), (SHIPPED,))
    assert signers.fallback([], []).empty
    assert signers.fallback([ISSUER], []).empty
    with pytest.raises(Refused, match="fulcioIssuers"):
        signers.fallback(["nonsense"], [SHIPPED])


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        (SHIPPED, "https://github.com/example/kars/.github/workflows/release.yml@refs/heads/main", True),
        (SHIPPED, "https://github.com/example/kars/.github/workflows/release.yaml@refs/heads/main", False),
        (SHIPPED, "https://github.com/example/kars/.github/workflows/deep/release.yml@refs/heads/main", False),
        (SHIPPED, "xhttps://github.com/example/kars/.github/workflows/release.yml@x", False),
        ("a.c", "abc", False),
        ("a?c", "abc", True),
        ("a?c", "a/c", False),
        ("a?c", "a@c", False),
        ("*", "", True),
        ("*", "a/b@c\nd", True),
        ("*b", "a/b", False),
        ("a**", "a/b", True),
        ("*@example.com", "ann@example.com", True),
        ("*@example.com", "ann@evil.example@example.com", False),
        ("*@example.com", "ann@example.com.evil.example", False),
        ("ann@example.com", "ann@example.com", True),
        ("ann@example.com", "ann@example.com\n", False),
        ("re:a|b", "ab", False),
        ("re:a|b", "b", True),
        ("re:a", "a\n", False),
        ("re:^a$", "a", True),
        ("re:.", "\n", False),
        ("re:(?i)A", "a", True),
    ],
)
def test_a_pattern_is_about_the_whole_text(pattern, text, expected):
    assert patterns.matches(pattern, text) is expected


@given(st.text("ab/@*?", max_size=12), st.text("ab/@", max_size=12))
def test_a_glob_matches_what_the_expression_for_it_matches(pattern, text):
    if not pattern:
        return
    shrunk = "".join(char for index, char in enumerate(pattern) if char != "*" or pattern[index + 1 : index + 2] != "*")
    parts = ["[^/@]*" if char == "*" else "[^/@]" if char == "?" else char for char in shrunk]
    if shrunk.endswith("*"):
        parts[-1] = "(?s:.*)"
    assert patterns.matches(pattern, text) is patterns.matches("re:" + "".join(parts), text)


@pytest.mark.parametrize(
    "pattern", ["a*" * 250 + "b", "re:(a*)*b", "re:(a|a)*b", "re:" + "a*" * 200 + "b", "re:(.*)*(.*)*x"]
)
def test_no_pattern_makes_a_long_subject_expensive(pattern):
    # Backtracking would take longer than the universe has; the bound is only far from that.
    started = time.process_time()
    assert not patterns.matches(pattern, "a" * 2048)
    assert time.process_time() - started < 20


def test_a_subject_that_is_longer_than_any_matches_nothing():
    assert not patterns.matches("*", "a" * 2049)


def test_patterns_are_about_urls_or_about_addresses():
    for pattern in ("https://a/*", "re:https?://.*", "re:https:\\/\\/a", "re:^spiffe://x"):
        assert patterns.about_urls(pattern)
    for pattern in ("*@example.com", "re:.*", "*"):
        assert not patterns.about_urls(pattern)
