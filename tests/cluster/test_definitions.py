"""The custom resource definitions on a real API server: what it takes, what it refuses and with which words."""

import copy
import re

import pytest

from kars.model.kinds import KINDS
from tests.cluster.api import ApiError
from tests.cluster.controlling import DEFINITIONS
from tests.unit.model import vectors

SAMPLES = [
    pytest.param(document, id=f"{file}-{number}")
    for file, documents in vectors.VALID.items()
    for number, document in enumerate(documents)
]
CASES = [
    pytest.param(case, id=f"{case['kind']}-{number}-{'-'.join(case['set'])}")
    for number, case in enumerate(vectors.INVALID["cases"])
]
# How the API server says what the structs say in their own words. Everything else is a rule's message, the same here
# and there.
PHRASES = [
    (r"required, and not there", r"Required value"),
    (
        r"expected (str|array|object) of length >= \d+",
        r"should be at least \d+ chars long|should have at least \d+ items",
    ),
    (r"expected str of length <= (\d+)", r"Too long"),
    (r"expected (array|object) of length <= (\d+)", r"Too many: \d+: must have at most \d+ (items|properties)"),
    (r"expected (int|float) >= (-?\d+)", r"should be greater than or equal to"),
    (r"expected (int|float) <= (-?\d+)", r"should be less than or equal to"),
    (r"expected .*, got \w+", r"must be of type|must be an integer or a string"),
    (r"does not match ", r"should match '"),
    (r"'.*' is not one of ", r"Unsupported value"),
    (r"'.*' is there twice", r"Duplicate value"),
    (r"unknown field '(\w+)'", r'unknown field "[\w.\[\]]+"'),
    (r"expected a time", r"must be of type string|should match '|must be a time that there is"),
    (r"a name has at most (\d+) characters", r"Too long: may not be more than \d+ bytes"),
    (r"a name has lower-case letters, digits", r"a lowercase RFC 1123 subdomain must consist of"),
]
# By short name where that is free: to kubectl `cs` is a ComponentStatus, and `ip` an IPAddress since Kubernetes 1.33.
COLUMNS = {
    "karssandboxes": "NAME PHASE RUNTIME INFERENCEPOLICY ISOLATION ALLOWLIST AGE",
    "cp": "NAME PHASE AMID BUDGET READY AGE",
    "inferencepolicies": "NAME SANDBOX DAILYTOKENS PHASE AGE",
    "tp": "NAME TOOL DAILYCAP PHASE AGE",
    "cmem": "NAME SANDBOX STORE SCOPE PHASE AGE",
    "mcp": "NAME URL PRODUCTION PHASE AGE",
    "eappr": "NAME SANDBOX PHASE EXPIRES HOSTS AGE",
    "a2a": "NAME ENDPOINT PRODUCTION PHASE AGE",
    "tg": "NAME PHASE VERTICES VALIDEDGES INVALIDEDGES AGE",
    "ceval": "NAME SANDBOX SCHEDULE PHASE LASTRUN PASSED FAILED AGE",
    "sreaction": "NAME TYPE TARGET-NS TARGET-NAME PHASE APPROVAL AGE",
    "kac": "NAME TENANT BLUEPRINT PHASE AGE",
}


@pytest.fixture(scope="module")
def room(plane, definitions):
    """A namespace for all tests of this file."""
    name = plane.make_namespace()
    yield name
    plane.api.delete(f"/api/v1/namespaces/{name}")


@pytest.fixture
def store(plane, room):
    """Store a document; it is gone after the test."""
    stored = []

    def put(document):
        collection, document = placed(document, room)
        made = plane.api.request("POST", collection, document, fieldValidation="Strict")
        stored.append(f"{collection}/{made['metadata']['name']}")
        return stored[-1], made

    yield put
    for path in stored:
        plane.api.delete(path)


def placed(document, namespace):
    """The collection that a document is of, and the document in that namespace if it is of one."""
    document = copy.deepcopy(document)
    # The rest of the metadata is the server's to write, and finalizers would keep the sample.
    kept = ("name", "labels", "annotations")
    document["metadata"] = {name: value for name, value in document["metadata"].items() if name in kept}
    names = KINDS[document["kind"]].NAMES
    path = f"/apis/{document['apiVersion']}"
    if names.namespaced:
        document["metadata"]["namespace"] = namespace
        path += f"/namespaces/{namespace}"
    return f"{path}/{names.plural}", document


def refused(error):
    """How the API server says what the structs say as `error`: a part of its message."""
    text = error.partition(": ")[2]
    for ours, theirs in PHRASES:
        if re.match(ours, text):
            return theirs
    return re.escape(text)


def holds(found, wanted):
    """Whether what is stored has everything that was written; nulls are not stored."""
    if isinstance(wanted, dict):
        return all(value is None or holds(found.get(name), value) for name, value in wanted.items())
    if isinstance(wanted, list):
        return len(found) == len(wanted) and all(map(holds, found, wanted))
    return found == wanted


def test_the_chart_installs_without_a_warning(definitions):
    assert "STATUS: deployed" in definitions
    assert "arning" not in definitions


def test_an_upgrade_to_the_same_chart_changes_nothing(plane, definitions):
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    before = {one["metadata"]["name"]: one["metadata"]["resourceVersion"] for one in plane.api.items(path)}
    assert len(before) == len(KINDS)
    said = plane.helm("upgrade", "kars-crds", str(DEFINITIONS), "--namespace", "default")
    assert "arning" not in said.stdout + said.stderr
    assert {one["metadata"]["name"]: one["metadata"]["resourceVersion"] for one in plane.api.items(path)} == before


@pytest.mark.parametrize("document", SAMPLES)
def test_a_valid_sample_is_stored_whole(plane, store, document):
    path, made = store(document)
    assert holds(made["spec"], document["spec"])
    if "status" in document:
        made = plane.api.request(
            "PUT", f"{path}/status", {**made, "status": document["status"]}, fieldValidation="Strict"
        )
        assert holds(made["status"], document["status"])


@pytest.mark.parametrize("case", CASES)
def test_an_invalid_sample_is_refused_with_its_reason(plane, room, store, case):
    document = vectors.changed(vectors.least(case["kind"]), case["set"])
    if "status" in document:
        # The status of a new object is dropped; it is written by itself.
        path, made = store(vectors.least(case["kind"]))
        method, path, document = "PUT", f"{path}/status", {**made, "status": document["status"]}
    else:
        path, document = placed(document, room)
        method = "POST"
    with pytest.raises(ApiError) as caught:
        plane.api.request(method, path, document, dryRun="All", fieldValidation="Strict")
    assert caught.value.status in {400, 422}
    assert re.search(refused(case["error"]), caught.value.message), caught.value.message


@pytest.mark.parametrize("case", vectors.INVALID["changes"], ids=lambda case: case["error"])
def test_a_forbidden_change_is_refused_with_its_reason(plane, store, case):
    path, made = store(vectors.changed(vectors.least(case["kind"]), case["from"]))
    with pytest.raises(ApiError, match=re.escape(case["error"])):
        plane.api.request("PUT", path, vectors.changed(made, case["set"]))


@pytest.mark.parametrize(("short", "columns"), COLUMNS.items())
def test_kubectl_shows_the_columns_of_a_kind(plane, store, room, short, columns):
    kind = next(kind for kind in KINDS.values() if short in {kind.NAMES.short, kind.NAMES.plural})
    store(vectors.least(kind.__name__))
    head, row = plane.kubectl("get", short, "-o", "wide", "-n", room).stdout.splitlines()
    # Actions have no Ready whose reason there would be.
    wide = [] if short == "sreaction" else ["REASON", "MESSAGE"]
    assert head.split() == [*columns.split(), *wide]
    assert row.split()[0] == vectors.least(kind.__name__)["metadata"]["name"]


@pytest.mark.parametrize("name", KINDS)
def test_kubectl_explains_every_field_of_a_spec(plane, definitions, name):
    kind = KINDS[name]
    said = plane.kubectl("explain", f"{kind.NAMES.plural}.spec", "--api-version", "kars.azure.com/v1alpha1").stdout
    seen = {member for document in vectors.VALID[kind.NAMES.plural] for member in document["spec"]}
    explained = dict(re.findall(r"^  (\w+)\t<\S+>.*\n((?:    .*\n)*)", said, re.MULTILINE))
    assert explained.keys() == seen


SANDBOX = """
apiVersion: kars.azure.com/v1alpha1
kind: KarsSandbox
metadata: {name: refused}
spec:
  runtime: %s
  sandbox: {isolation: standard}
  inferenceRef: {name: some}
"""
APPROVAL = """
apiVersion: kars.azure.com/v1alpha1
kind: EgressApproval
metadata: {name: refused}
spec: {sandbox: some, hosts: %s, reason: %s, ttl: %s}
"""
OPENCLAW = "{kind: OpenClaw, openclaw: {}}"
REFUSED_MANIFESTS = {
    "agent-on-byo": SANDBOX % "{kind: BYO, byo: {image: a, contractVersion: v1}}" + "  agent: {instructions: x}",
    "trust-threshold": SANDBOX % OPENCLAW + "  governance: {trustThreshold: 9999}",
    "policy-of-another-namespace": SANDBOX % OPENCLAW + "  governance: {toolPolicyRef: {name: other/policy}}",
    "approval-without-hosts": APPROVAL % ("[]", "why", "PT1H"),
    "approval-for-no-time": APPROVAL % ("[{host: example.com}]", "why", "PT0S"),
    "approval-with-a-control-byte": APPROVAL % ("[{host: example.com}]", r'"a\x07b"', "PT1H"),
    "approval-with-a-malformed-ttl": APPROVAL % ("[{host: example.com}]", "why", "1 hour"),
    "agent-in-production-without-keys": """
apiVersion: kars.azure.com/v1alpha1
kind: A2AAgent
metadata: {name: refused}
spec: {productionMode: true, endpointUrl: "http://example.com", signingKeys: []}
""",
    "graph-without-vertices": """
apiVersion: kars.azure.com/v1alpha1
kind: TrustGraph
metadata: {name: refused}
spec: {vertices: [], edges: []}
""",
    "server-in-production-without-https": """
apiVersion: kars.azure.com/v1alpha1
kind: McpServer
metadata: {name: refused}
spec: {productionMode: true, url: "http://example.com", oauth: {issuer: "https://example.com", audience: a}}
""",
    "server-in-production-without-oauth": """
apiVersion: kars.azure.com/v1alpha1
kind: McpServer
metadata: {name: refused}
spec: {productionMode: true, url: "https://example.com"}
""",
}


@pytest.mark.parametrize("manifest", REFUSED_MANIFESTS.values(), ids=REFUSED_MANIFESTS)
def test_kubectl_apply_of_what_cannot_work_is_refused(plane, room, manifest):
    done = plane.kubectl("apply", "-n", room, "-f", "-", stdin=manifest, check=False)
    assert done.returncode == 1
    assert "is invalid" in done.stderr, done.stderr
