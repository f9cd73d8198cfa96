"""The canonical forms: what is accepted is written back as it was, everything else is refused with its line."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kars.artifacts import contents, strict
from kars.artifacts.contents import EGRESS, EVAL, INFERENCE, MCP, MEMORY, TOOLS, Allowlist
from kars.artifacts.refused import Refused
from kars.model.sandbox import Endpoint

GOOD = b"""apiVersion: kars.dev/v1alpha1
kind: EgressAllowlist
metadata:
  generation: 7
spec:
  endpoints:
  - host: api.example.com
    port: 443
  - host: api.example.com
    port: 8443
  - host: www.example.com
    port: 443
"""


def refused(media_type, body):
    with pytest.raises(Refused) as raised:
        contents.read(media_type, body)
    assert raised.value.reason == "CanonicalFormViolation"
    return str(raised.value)


def test_reads_an_allowlist():
    found = contents.read(EGRESS, GOOD)
    assert found.generation == 7
    assert [(one.host, one.port) for one in found.endpoints] == [
        ("api.example.com", 443),
        ("api.example.com", 8443),
        ("www.example.com", 443),
    ]
    assert contents.read(EGRESS, GOOD.replace(b"\n  -", b"\n    -").replace(b"\n    port", b"\n      port")) == found
    assert contents.read(EGRESS, contents.write(found)) == found


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (b"kind:", b"\xff:", "line 2: not UTF-8"),
        (b"apiVersion", b"\xef\xbb\xbfapiVersion", "byte order mark"),
        (b"metadata:\n", b"metadata:\r\n", "line 3: a carriage return"),
        (b"443\n  - host: www", b"443 \n  # why\n  - host: www", "a comment"),
        (b"apiVersion: kars.dev/v1alpha1\nkind: EgressAllowlist", b"kind: EgressAllowlist\napiVersion: kars.dev/v1alpha1", "order"),
        (b"v1alpha1", b"v1beta1", "not kars.dev/v1alpha1"),
        (b"EgressAllowlist", b"Allowlist", "not kars.dev/v1alpha1 EgressAllowlist"),
        (b"generation: 7", b"generation: 0", "generation"),
        (b"generation: 7", b"generation: -1", "generation"),
        (b"generation: 7", b'generation: "7"', "generation"),
        (b"generation: 7", b"generation: true", "generation"),
        (b"generation: 7", b"generation: 7.0", "generation"),
        (b"generation: 7", b"generation: 99999999999999999999", "generation"),
        (b"generation: 7", b"generation: 7\n  generation: 8", "line 5: 'generation' is there twice"),
        (b"generation: 7", b"generation: 7\n  owner: x", "metadata.owner"),
        (b"www.example.com", b"WWW.example.com", "line 11: host"),
        (b"www.example.com", b"www.example.com.", "line 11: host"),
        (b"www.example.com", b"'*.example.com'", "line 11: host"),
        (b"www.example.com", b"w\xc3\xbcw.example.com", "line 11: host"),
        (b"www.example.com", b"w..example.com", "line 11: host"),
        (b"www.example.com", b"1.5", "line 11: host"),
        (b"www.example.com", b"a" * 254, "line 11: host"),
        (b"www.example.com\n    port: 443", b"www.example.com\n    port: 0", "line 11: port"),
        (b"www.example.com\n    port: 443", b"www.example.com\n    port: 65536", "line 11: port"),
        (b"www.example.com\n    port: 443", b"www.example.com\n    port: 0443", "line 11: port"),
        (b"www.example.com\n    port: 443", b"www.example.com\n    port: 7:23", "line 11: port"),
        (b"www.example.com\n    port: 443", b"www.example.com\n    port: yes", "line 11: port"),
        (b"host: www.example.com\n    port: 443", b"port: 443\n    host: www.example.com", "line 11: an endpoint"),
        (b"www.example.com\n    port: 443", b"www.example.com", "an endpoint has host and port"),
        (b"port: 8443", b"port: 443", "line 9: endpoints are not strictly ascending"),
        (b"port: 8443", b"port: 80", "line 9: endpoints are not strictly ascending"),
        (b"www.", b"aaa.", "line 11: endpoints are not strictly ascending"),
        (b"  endpoints:", b"  mode: Learn\n  endpoints:", "endpoints and nothing else"),
        (b"spec:", b"extra: 1\nspec:", "order"),
        (b"spec:", b"---\nspec:", "second document"),
        (b"host: www", b"host: &a www", "line 11: an anchor"),
        (b"host: www.example.com", b"host: !!str www.example.com", "line 11: a tag"),
        (b"spec:\n", b"spec: [\n", "line"),
        (b"EgressAllowlist\n", b"EgressAllowlist\x00\n", "not YAML"),
    ],
)  # fmt: skip
def test_refuses_an_allowlist_in_another_form(old, new, words):
    assert GOOD.count(old) >= 1
    assert words in refused(EGRESS, GOOD.replace(old, new, 1))


def test_refuses_a_missing_newline_and_nothing_at_all():
    assert "line 12: no newline" in refused(EGRESS, GOOD[:-1])
    for body in (b"", b"\n", b"- 1\n", b"null\n", b"%YAML 1.1\n--- {}\n"):
        refused(EGRESS, body)


def test_a_list_may_be_empty_and_may_not_be_endless():
    empty = Allowlist((), 1)
    assert contents.read(EGRESS, contents.write(empty)) == empty
    many = Allowlist(tuple(Endpoint(host=f"h{number:05}.example", port=1) for number in range(4097)), 1)
    assert "4097 endpoints" in refused(EGRESS, contents.write(many))
    refused(EGRESS, b"a" * (900 * 1024 + 1))


label = st.text("abz019-", min_size=1, max_size=6)
hosts = st.lists(label, min_size=1, max_size=4).map(".".join)
endpoints = st.sets(st.tuples(hosts, st.integers(1, 65535)), max_size=20)
names = st.text(st.characters(codec="utf-8", exclude_characters="\x00\ufeff"), max_size=20).filter(
    lambda text: text.isprintable()
)


@given(endpoints, st.integers(1, 2**53 - 1), names)
def test_an_allowlist_that_is_written_is_read_back(found, generation, name):
    content = Allowlist(tuple(Endpoint(host=host, port=port) for host, port in sorted(found)), generation, name)
    assert contents.read(EGRESS, contents.write(content)) == content


pieces = st.sampled_from(
    [b"- host: ", b"a.b", b"'a'", b"port: ", b"443", b"\n", b"    ", b"  ", b"#", b"*", b"&a ", b"{", b"}", b"[", b",", b": ", b"?", b"|", b">", b"!x ", b"---\n", b"\t", b"\xff", b"\xe2\x80\xa8", b"0x1f", b"~"]
)  # fmt: skip


@given(st.lists(pieces, max_size=30).map(b"".join), st.integers(0, len(GOOD)), st.integers(0, 20))
def test_whatever_is_accepted_as_an_allowlist_means_what_it_is_written_back_as(piece, at, drop):
    try:
        found = contents.read(EGRESS, GOOD[:at] + piece + GOOD[at + drop :])
    except Refused as error:
        assert error.reason == "CanonicalFormViolation"
    else:
        assert contents.read(EGRESS, contents.write(found)) == found


@given(st.binary(max_size=200), st.sampled_from([EGRESS, TOOLS, INFERENCE, MEMORY, MCP, EVAL]))
def test_no_bytes_make_a_reader_do_anything_but_read_or_refuse(body, media_type):
    try:
        contents.read(media_type, body)
    except Refused as error:
        assert error.reason == "CanonicalFormViolation"


scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(max_size=8)
documents = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4)
)


@given(documents)
def test_json_that_is_accepted_is_written_back_as_it_was(document):
    written = json.dumps(document).encode()
    assert strict.json(written) == document


@given(st.dictionaries(st.text(max_size=6), documents, max_size=4))
def test_yaml_reads_json_as_json_does(document):
    # JSON is YAML, but for characters that YAML cannot have and texts that JSON writes as surrogates.
    written = json.dumps(document).encode()
    try:
        found = strict.yaml(written)
    except strict.NotCanonical:
        return
    if "\\ud" not in written.decode() and all(abs(number) < 10**39 for number in numbers(document)):
        assert found == document


def numbers(document):
    if isinstance(document, dict):
        document = list(document.values())
    if isinstance(document, list):
        return [number for item in document for number in numbers(item)]
    return [document] if type(document) is int else []


def test_json_and_yaml_have_bounds():
    for body in (b"[" * 100_000, b'{"a":' * 100_000, b"[" * 33 + b"]" * 33, b"9" * 100_000, b"[NaN]", b"[Infinity]", b'{"a":1,"a":2}'):  # fmt: skip
        with pytest.raises(strict.NotCanonical):
            strict.json(body)
    for body in (b"[" * 100_000, b"- " * 40 + b"a", b"{a: " * 40, b"[" + b"a," * 100_001 + b"]", b"? [a]\n: b\n", b"a: 1\na: 2\n", b"1: a\n"):  # fmt: skip
        with pytest.raises(strict.NotCanonical):
            strict.yaml(body)
    assert strict.json(b"[" * 32 + b"]" * 32)
    assert strict.json(b'["[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[", "\\"["]')
    assert strict.yaml(b"a: .5\nb: 1.5e3\nc: 1_000\nd: 0x10\ne: no\nf: ~\ng: 'true'\nh: True\n") == {
        "a": 0.5, "b": 1500.0, "c": "1_000", "d": "0x10", "e": "no", "f": None, "g": "true", "h": True,
    }  # fmt: skip


def test_a_tool_profile_has_version_agent_and_policies():
    good = b'version: "1.0"\nagent: "*"\npolicies:\n  - name: a\n    type: capability\n'
    assert contents.read(TOOLS, good)["policies"] == [{"name": "a", "type": "capability"}]
    for old, new in ((b'"1.0"', b"1.0"), (b'"1.0"', b'""'), (b'agent: "*"\n', b""), (b"policies:", b"rules:")):
        refused(TOOLS, good.replace(old, new))
    refused(TOOLS, b'version: "1"\nagent: a\npolicies: a\n')
    refused(TOOLS, b"#" * (512 * 1024 + 1))


@pytest.mark.parametrize(
    ("media_type", "good", "bad"),
    [
        (INFERENCE, {"tokenBudget": {"dailyTokens": 5}, "displayName": "x"}, [{"appliesTo": {}}, {"tokenBudget": 5}, {"tokenBudget": {"dailyTokens": "5"}}, {"tokenBudget": None}, {}, []]),
        (INFERENCE, {"contentSafety": {"hate": "Low"}}, [{"contentSafety": {"hate": "Extreme"}}, {"contentSafety": {"x": 1}}]),
        (MEMORY, {"storeName": "s", "retentionDays": 3}, [{"sandboxRef": {"name": "a"}}, {"retentionDays": 0}, {"deleteOnSandboxDelete": "yes"}, {}]),
        (MCP, {"url": "https://mcp.example", "oauth": {"issuer": "https://i.example"}, "allowedTools": ["a"]}, [{"oauth": {"issuer": ""}}, {"oauth": {}}, {"bearerFromEnv": "X"}, {"allowedSandboxes": {}}, {"url": "file:///etc"}, {"allowedTools": ["a", "a"]}, {}]),
    ],
)  # fmt: skip
def test_json_kinds_have_their_own_members_with_their_types(media_type, good, bad):
    assert contents.read(media_type, json.dumps(good).encode()) == good
    for document in bad:
        refused(media_type, json.dumps(document).encode())
    assert "twice" in refused(media_type, json.dumps(good).encode()[:-1] + b',"displayName":"a","displayName":"b"}')


def test_a_corpus_is_held_to_its_form():
    case = {"id": "bt-1", "tags": ["x"], "scenario": {"kind": "ToolCall", "tool": "shell", "args": {"a": 1}, "burst": {"count": 5, "windowMs": 100}}, "expect": {"decision": "Blocked", "byPolicyKind": "ToolPolicy"}}  # fmt: skip
    corpus = {"schemaVersion": "v1", "name": "own", "cases": [case]}
    assert contents.read(EVAL, json.dumps(corpus).encode()) == corpus
    for change in (
        {"schemaVersion": "v2"},
        {"extra": 1},
        {"cases": []},
        {"cases": [case, case]},
        {"cases": [case | {"scenario": {"kind": "Nothing"}}]},
        {"cases": [case | {"scenario": {"kind": "EgressConnect", "host": "a", "port": 0}}]},
        {"cases": [case | {"expect": {"decision": "Maybe"}}]},
        {"cases": [case | {"x": 1}]},
    ):
        refused(EVAL, json.dumps(corpus | change).encode())


def test_another_media_type_is_no_artifact_of_ours():
    with pytest.raises(Refused) as raised:
        contents.read("application/json", b"{}")
    assert raised.value.reason == "InvalidRef"
