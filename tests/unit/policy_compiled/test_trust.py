"""What of a trust graph counts."""

import json
from base64 import urlsafe_b64encode
from datetime import UTC, datetime

import pytest
from hypothesis import given as forall
from hypothesis import strategies as st
from nacl.signing import SigningKey

from kars.policy.compiled import trust
from kars.policy.compiled.outcome import Given
from tests.unit.policy_compiled.samples import make

NOW = 1_780_000_000
KEYS = {name: SigningKey(bytes([number]) * 32) for number, name in enumerate(("alpha", "beta", "gamma"), 1)}


def b64u(value):
    return urlsafe_b64encode(value).rstrip(b"=").decode()


VERTICES = [{"id": name, "alg": "EdDSA", "publicKeyB64u": b64u(bytes(key.verify_key))} for name, key in KEYS.items()]


def edge(source="alpha", target="beta", score=750, issued=NOW - 60, until=None, *, signer=None, **changes):
    text = f"trustgraph.v1\n{source}\n{target}\n{score}\n{issued}\n{'' if until is None else until}\n"
    signature = KEYS[signer or source].sign(text.encode()).signature
    made = {"from": source, "to": target, "score": score, "issuedAt": issued, "signature": b64u(signature)}
    return {**made, **({} if until is None else {"notAfter": until}), **changes}


def graph(*edges, vertices=VERTICES, name="house"):
    return make("TrustGraph", {"vertices": vertices, "edges": list(edges)}, name=name, namespace="")


def project(*edges, **more):
    return trust.project(graph(*edges, **more), NOW)


def rejects(*edges):
    return project(*edges).edge_rejects


def test_signed_edges_count():
    found = project(edge(), edge("beta", "gamma", 0, until=NOW + 10), edge("alpha", "alpha", 1000))
    assert len(found.edges) == 3 and found.edge_rejects == {} and found.vertex_rejects == {}


def test_the_signature_is_over_six_lines():
    (one,) = project(edge(until=NOW + 5)).edges
    assert trust.signed_bytes(one) == f"trustgraph.v1\nalpha\nbeta\n750\n{NOW - 60}\n{NOW + 5}\n".encode()
    (one,) = project(edge()).edges
    assert trust.signed_bytes(one).endswith(b"\n\n")


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (edge(target="nobody"), "unknown_to_vertex"),
        ({**edge(), "from": "nobody"}, "unknown_from_vertex"),
        (edge(signer="beta"), "signature_mismatch"),
        (edge(score=750) | {"score": 999}, "signature_mismatch"),
        (edge() | {"notAfter": NOW + 9}, "signature_mismatch"),
        (edge(until=NOW + 9) | {"notAfter": NOW + 10}, "signature_mismatch"),
        (edge() | {"signature": "not base64!"}, "signature_decode_error"),
        (edge() | {"signature": edge()["signature"] + "=="}, "signature_decode_error"),
        (edge() | {"signature": "AAAA"}, "signature_length_error"),
        (edge() | {"signature": ""}, "signature_length_error"),
        (edge() | {"signature": b64u(bytes(64))}, "signature_mismatch"),
        (edge(until=NOW - 1), "expired"),
        (edge(issued=NOW + trust.CLOCK_SKEW + 1), "not_yet_valid"),
    ],
)
def test_edges_that_do_not_hold_are_left_out_and_counted(wrong, why):
    found = project(wrong, edge())
    assert found.edge_rejects == {why: 1} and len(found.edges) == 1


def test_an_edge_holds_to_its_last_second_and_a_clock_may_be_ahead():
    assert rejects(edge(until=NOW), edge(issued=NOW + trust.CLOCK_SKEW)) == {}


def test_a_signature_has_one_spelling():
    good = edge()["signature"]
    # The last character has four bits that no byte has.
    other = good[:-1] + chr(ord(good[-1]) + 1)
    assert rejects(edge() | {"signature": other}) == {"signature_decode_error": 1}


def test_a_key_of_small_order_signs_nothing():
    # The identity point, for which anything verifies where small orders are let pass.
    weak = [*VERTICES, {"id": "weak", "alg": "EdDSA", "publicKeyB64u": b64u(b"\x01" + bytes(31))}]
    forged = edge() | {"from": "weak", "signature": b64u(b"\x01" + bytes(63))}
    assert project(forged, vertices=weak).edge_rejects == {"signature_mismatch": 1}


def test_of_two_vertices_with_one_id_the_first_counts():
    others = [
        {**VERTICES[0], "publicKeyB64u": VERTICES[1]["publicKeyB64u"]},
        {**VERTICES[0], "id": "short", "publicKeyB64u": "AAAA"},
        {**VERTICES[0], "id": "none", "publicKeyB64u": "no key"},
    ]
    found = project(edge(), vertices=[*VERTICES, *others])
    assert found.vertex_rejects == {"DuplicateId": 1, "KeyLength": 1, "KeyDecode": 1}
    assert len(found.vertices) == 3 and len(found.edges) == 1


def test_a_duplicate_of_a_vertex_that_does_not_count_may_count():
    broken = {**VERTICES[0], "publicKeyB64u": "no key"}
    assert len(project(edge(), vertices=[broken, *VERTICES]).edges) == 1


def test_it_says_when_it_will_come_out_otherwise():
    assert project(edge()).until is None
    assert project(edge(until=NOW + 50), edge(until=NOW + 20)).until == NOW + 21
    assert project(edge(until=NOW - 5)).until is None
    later = NOW + trust.CLOCK_SKEW + 7
    assert project(edge(issued=later)).until == NOW + 7
    turned = trust.project(graph(edge(until=NOW + 20)), NOW + 21)
    assert turned.edge_rejects == {"expired": 1}


def render(*edges, **more):
    return trust.render(graph(*edges, **more), Given(now=datetime.fromtimestamp(NOW, UTC)))


def test_the_projection_has_counts_and_a_hash_of_sixteen_digits():
    compiled = render(edge(), edge(score=750) | {"score": 999})
    (made,) = compiled.objects
    text = made["data"]["graph.json"]
    document = json.loads(text)
    assert compiled.status == {
        "validVertices": 3,
        "validEdges": 1,
        "invalidEdges": 1,
        "projectionConfigMapRef": {"name": "trustgraph-house-projection"},
    }
    assert made["metadata"]["namespace"] == "kars-system"
    assert made["metadata"]["annotations"] == {"kars.azure.com/trustgraph-version-hash": document["versionHash"]}
    assert len(document["versionHash"]) == 16 and document["inputEdgeCount"] == 2
    assert list(document) == ["vertices", "edges", "versionHash", "inputEdgeCount"]
    assert list(document["edges"][0]) == ["from", "to", "score", "issuedAt", "signature"]
    assert '"score": 750' in text and '"score": 999' not in text and '\n  "edges"' in text
    assert compiled.notes == ("1 edges left out: signature_mismatch",)


def test_the_hash_moves_with_what_counts_only():
    assert render(edge()).version_hash == render(edge(), edge(until=NOW - 9)).version_hash
    assert render(edge()).version_hash != render(edge(score=1)).version_hash


def documents(*graphs):
    return [
        json.loads(trust.render(one, Given(now=datetime.fromtimestamp(NOW, UTC))).objects[0]["data"]["graph.json"])
        for one in graphs
    ]


def test_a_sandbox_is_given_what_begins_at_it():
    one = graph(edge("alpha", "beta"), edge("beta", "alpha", 5), edge("alpha", "alpha"))
    two = graph(edge("alpha", "gamma", 3), name="other")
    text, joined, count = trust.slice_of("alpha", documents(one, two))
    slice_ = json.loads(text)
    assert [(edge["from"], edge["to"]) for edge in slice_["edges"]] == [("alpha", "beta"), ("alpha", "gamma")]
    assert [vertex["id"] for vertex in slice_["vertices"]] == ["alpha", "beta", "gamma"]
    hashes = [document["versionHash"] for document in documents(one, two)]
    assert joined == ",".join(hashes) == slice_["versionHash"] and count == slice_["inputEdgeCount"] == 2


def test_a_sandbox_of_no_edge_is_given_an_empty_slice_and_of_no_graph_none():
    text, _, count = trust.slice_of("delta", documents(graph(edge())))
    assert json.loads(text)["edges"] == [] and json.loads(text)["vertices"] == [] and count == 0
    assert trust.slice_of("alpha", []) is None
    assert len(trust.slice_of("alpha", documents(*[graph(name=f"g{n}") for n in range(9)]))[1]) == 64


@forall(st.text(max_size=100), st.text(max_size=60))
def test_no_text_breaks_a_key_or_a_signature(signature, key):
    vertices = [{**VERTICES[0], "publicKeyB64u": key}, *VERTICES[1:]]
    found = trust.project(graph(edge() | {"signature": signature}, vertices=vertices), NOW)
    assert found.edges == ()
