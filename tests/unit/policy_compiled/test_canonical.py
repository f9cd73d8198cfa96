"""Canonical bytes and digests, against the golden vectors and the router's own."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kars import _core
from kars.policy.compiled.canonical import compact, digest, pretty, version_hash

INFERENCE = (
    b'{"appliesTo":{"sandboxName":"demo","sandboxMatchLabels":{},"action":null},"tokenBudget":null,"contentSafety":null,'
    b'"modelPreference":{"primary":{"provider":"azure-openai","deployment":"gpt-4.1"},"fallback":[]},"displayName":null}'
)
MEMORY = (
    b'{"storeName":"s","sandboxRef":{"name":"demo"},"scope":"agent_demo","retentionDays":null,'
    b'"deleteOnSandboxDelete":true,"displayName":null}'
)
GOLDEN = [
    (
        "merged-allowlist.json",
        b'{"schemaVersion":1,"endpoints":[{"host":"example.com","port":443}]}',
        "fe6cf9580a22eaacff45a3c8d3bb06f5f635b34c5981558b4587524c45e9c8a5",
    ),
    (
        "allowlist.json",
        b'{"schemaVersion":1,"endpoints":[]}',
        "0f2e4905bcdcdf8b99ec031c7c40db8fca289b8e28707e802f8b568860d04fd3",
    ),
    ("inference-policy.json", INFERENCE, "32e9516c5e059aac9ec39870fb7e14e79d6712092cd34bf332a4ddba674bc2bf"),
    (
        "binding.json",
        MEMORY,
        "e25308b3e59fdd2911dd24c7741447e049189ead9427414e33d745286588ea12",
    ),
    ("agt-profile.yaml", b'version: "1.0"\n', "d04e04f04b05dcfdbbbd4103c68ec39baf4a0d795cd78c60599c37d5f3623bf9"),
]


@pytest.mark.parametrize(("name", "body", "expected"), GOLDEN)
def test_digests_are_the_golden_ones(name, body, expected):
    assert digest([(name, body)]) == f"sha256:{expected}"


def test_the_version_hash_is_the_beginning_of_the_documents_hash():
    assert version_hash(INFERENCE) == "380ec3ff10f64c81c468545b7d2f7935"
    assert version_hash(INFERENCE, 16) == "380ec3ff10f64c81"


def test_digests_agree_with_the_cores():
    assert (
        digest([("inference-policy.json", INFERENCE)])
        == _core.Snapshot.compile("InferencePolicy", [("inference-policy.json", INFERENCE)]).digest
    )


def test_the_order_of_files_does_not_count_but_their_ends_do():
    assert digest([("a", b"1"), ("b", b"2")]) == digest([("b", b"2"), ("a", b"1")])
    assert digest([("a", b"1b"), ("", b"2")]) != digest([("a", b"1"), ("b", b"2")])


def test_compact_keeps_order_and_writes_utf8():
    assert compact({"b": 1, "a": ["é", None, True]}) == '{"b":1,"a":["é",null,true]}'.encode()


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(exclude_categories=("Cs",))),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=12,
)


@given(values)
def test_compact_writes_what_another_writer_writes(value):
    assert compact(value) == msgspec.json.encode(value)
    assert json.loads(pretty(value)) == value


def test_what_json_has_no_word_for_is_refused():
    with pytest.raises(ValueError, match="JSON"):
        compact({"score": float("nan")})
