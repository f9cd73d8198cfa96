"""Decoding says what is wrong, where, and what would be allowed."""

import copy
from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from kars.errors import FailureError, ResourceError
from kars.model import decode, kinds, schema
from kars.model.base import API_VERSION, Metadata
from kars.model.common import SandboxRef
from kars.model.egress import ApprovedHost, EgressApproval, EgressApprovalSpec
from kars.model.kinds import KINDS
from kars.model.memory import KarsMemory
from kars.model.pairing import EPOCH
from kars.model.runtime import VARIANTS, Runtime
from tests.unit.model import oracle, vectors

SCHEMAS = {name: schema.of(kind) for name, kind in KINDS.items()}


def refused(document):
    with pytest.raises(ResourceError) as error:
        decode.decode(document)
    return str(error.value)


def test_what_is_no_resource_of_ours_is_refused_by_what_it_says_it_is():
    assert refused(None) == "a resource is an object with apiVersion, kind, metadata and spec"
    assert refused([]) == "a resource is an object with apiVersion, kind, metadata and spec"
    assert refused({"kind": "Pod"}) == "apiVersion: None is not kars.azure.com/v1alpha1"
    assert refused({"apiVersion": "v1", "kind": "Pod"}) == "apiVersion: 'v1' is not kars.azure.com/v1alpha1"
    assert refused({"apiVersion": API_VERSION, "kind": "Pod"}).startswith("kind: 'Pod' is not one of KarsSandbox, ")
    assert refused({"apiVersion": API_VERSION, "kind": []}).startswith("kind: [] is not one of ")
    assert refused({"apiVersion": API_VERSION, "kind": "McpServer"}) == "metadata: required, and not there"
    assert refused({"apiVersion": API_VERSION, "kind": "McpServer", "metadata": {}}) == "spec: required, and not there"


def test_a_kind_is_only_decoded_as_itself():
    with pytest.raises(ResourceError, match="kind"):
        decode.parse(KarsMemory, vectors.least("KarsSandbox"))


def test_a_resource_error_is_a_failure_with_a_code_of_its_own():
    assert issubclass(ResourceError, FailureError)
    assert ResourceError.code == "resource"


def test_unknown_members_of_metadata_are_the_api_servers_business():
    document = vectors.least("McpServer")
    document["metadata"]["managedFields"] = [{"manager": "kubectl"}]
    document["metadata"]["selfLink"] = None
    assert decode.decode(document).metadata.name == "least"


def test_unknown_members_of_the_root_are_refused():
    assert refused({**vectors.least("McpServer"), "sepc": {}}).startswith(
        "the resource: unknown field 'sepc', did you mean 'spec'?"
    )


def test_a_resource_is_built_in_python_by_the_same_rules():
    spec = EgressApprovalSpec(sandbox="research", hosts=(ApprovedHost(host="example.com"),), reason="r", ttl="PT1H")
    approval = EgressApproval(api_version=API_VERSION, metadata=Metadata(name="a", namespace="b"), spec=spec)
    assert decode.decode(decode.document(approval)) == approval
    with pytest.raises(AttributeError):
        spec.ttl = "PT2H"
    with pytest.raises(ValueError, match="longer than nothing"):
        EgressApprovalSpec(sandbox="research", hosts=(ApprovedHost(host="example.com"),), reason="r", ttl="PT0S")
    assert msgspec.structs.replace(spec, ttl="PT2H").ttl == "PT2H"
    assert SandboxRef(name="a") == SandboxRef(name="a")


@pytest.mark.parametrize("name", ["KarsSandbox", "karssandbox", "karssandboxes", "cs", "karssandboxes.kars.azure.com"])
def test_a_kind_is_found_by_every_name_that_kubectl_takes(name):
    assert kinds.find(name) is KINDS["KarsSandbox"]


def test_no_two_kinds_share_a_name():
    names = [name for kind in KINDS.values() for name in (kind.__name__.lower(), kind.NAMES.plural, kind.NAMES.short)]
    assert len(set(names)) == len(names)
    assert kinds.find("pods") is None


QUIET = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.large_base_example]
# A resource is large: to shrink one takes minutes, and the assertion shows where it differs.
UNSHRUNK = (Phase.explicit, Phase.reuse, Phase.generate)


# What a mutation puts somewhere: the edges of types, lengths, numbers and patterns.
ODD = st.sampled_from(
    [
        None, True, False, 0, 1, -1, 3, 1000, 1001, 65536, 2**31, 2**53, 2**63, 1.5, "", "a", "A", "a\n", "-a", "a-", "a.b",
        "a/b", "a:b", "a b", "..", "/", "/tmp", "/tmp/..", "\x00", "\x7f", "é", "٣", "a" * 59, "a" * 64, "a" * 254,
        "0" * 64, "https://a", "http://a", "https://", "PT1H", "PT0S", "P1DT", "2026-01-01T00:00:00Z", "2026-01-01",
        "1Gi", "+.5e3", "* * * * *", "default", "system", "KARS_X", "BYO", "Hermes", "LangGraph", "S256",
        [], ["a"], ["a", "a"], [None], [{}], {}, {"a": "b"}, {"a": None}, {"name": "a"}, {"KARS_X": "a"}, {"1": "a"},
    ]
)  # fmt: skip


def places(value, path=()):
    """Every place in a document that a mutation can be at."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, member in items:
        yield from places(member, (*path, key))


ALL = [document for documents in vectors.VALID.values() for document in documents]
MEMBERS = sorted({place[-1] for document in ALL for place in places(document) if place and isinstance(place[-1], str)})


@st.composite
def mutants(draw):
    """A valid sample after one to three changes: values, additions, removals, transplants from another place."""
    document = copy.deepcopy(draw(st.sampled_from(ALL)))
    for _ in range(draw(st.integers(1, 3))):
        inside = [place for place in places(document) if len(place) > 1 and place[0] in {"spec", "status"}]
        if not inside:
            break
        *parents, last = draw(st.sampled_from(inside))
        parent = document
        for key in parents:
            parent = parent[key]
        match draw(st.sampled_from(["set", "set", "remove", "add", "copy", "double"])):
            case "set":
                parent[last] = copy.deepcopy(draw(ODD))
            case "remove":
                del parent[last]
            case "add" if isinstance(parent, dict):
                parent[draw(st.sampled_from(MEMBERS))] = copy.deepcopy(draw(ODD))
            case "copy":
                donor = draw(st.sampled_from(ALL))
                path = draw(st.sampled_from([place for place in places(donor) if place]))
                for key in path:
                    donor = donor[key]
                parent[last] = copy.deepcopy(donor)
            case "double" if isinstance(parent, list):
                parent.append(copy.deepcopy(parent[last]))
            case _:
                pass
    return document


@settings(max_examples=200, deadline=None, suppress_health_check=QUIET, phases=UNSHRUNK)
@given(mutants())
def test_structs_and_schema_take_and_refuse_the_same(document):
    refusals = oracle.refusals(SCHEMAS[document["kind"]], document)
    try:
        resource = decode.decode(document)
    except ResourceError as error:
        assert refusals, error
        return
    assert refusals == []
    assert decode.decode(decode.document(resource)) == resource


BROKEN = object()


def build(info):
    """A strategy for values of a type, within its bounds."""
    return BUILDERS[type(info)](info)


def struct(info):
    if info.cls is Metadata:
        return st.builds(Metadata, name=st.just("default"), labels=st.dictionaries(st.text(), st.text(), max_size=2))
    if info.cls is Runtime:
        return st.sampled_from(sorted(VARIANTS)).flatmap(lambda kind: runtime(info, kind))
    members = {field.name: member(field) for field in info.fields}
    return st.fixed_dictionaries(members).map(lambda found: made(info.cls, found))


def array(info):
    least = info.min_length or 0
    return st.lists(sound(build(info.item_type)), min_size=least, max_size=max(2, least)).map(tuple)


def mapping(info):
    free = isinstance(info.value_type, msgspec.inspect.AnyType)
    value = st.none() | st.text() if free else sound(build(info.value_type))
    return st.dictionaries(st.from_regex(r"[a-z]{1,3}\Z"), value, max_size=2)


def text(info):
    least, most = info.min_length or 0, info.max_length or 40
    if not info.pattern:
        return st.text(min_size=least, max_size=min(most, 40))
    return st.from_regex(info.pattern).filter(lambda found: least <= len(found) <= most)


BUILDERS = {
    msgspec.inspect.Metadata: lambda info: build(info.type),
    msgspec.inspect.UnionType: lambda info: st.one_of(*map(build, info.types)),
    msgspec.inspect.NoneType: lambda _: st.none(),
    msgspec.inspect.StructType: struct,
    msgspec.inspect.VarTupleType: array,
    msgspec.inspect.DictType: mapping,
    msgspec.inspect.StrType: text,
    msgspec.inspect.IntType: lambda info: st.integers(info.ge, info.le),
    msgspec.inspect.BoolType: lambda _: st.booleans(),
    msgspec.inspect.LiteralType: lambda info: st.sampled_from(info.values),
    msgspec.inspect.DateTimeType: lambda _: st.datetimes(
        EPOCH.replace(tzinfo=None), datetime.fromisoformat("2999-12-31"), timezones=st.just(UTC)
    ),
}


def member(field):
    """A field's value; its default now and then, and where a rule across the fields of its struct does not hold."""
    value = build(field.type)
    if field.required:
        return sound(value)
    default = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    return st.one_of(st.just(default), value.map(lambda found: default if found is BROKEN else found))


def runtime(info, kind):
    """A runtime of a kind, with the struct of that kind only."""
    wanted = next(field for field in info.fields if field.encode_name == VARIANTS[kind])
    found = wanted.type
    while not isinstance(found, msgspec.inspect.StructType):
        found = found.types[0] if isinstance(found, msgspec.inspect.UnionType) else found.type
    return sound(build(found)).map(lambda found: Runtime(**{"kind": kind, wanted.name: found}))


def sound(strategy):
    return strategy.filter(lambda found: found is not BROKEN)


def made(cls, members):
    """The struct, or BROKEN where a rule across its fields does not hold."""
    try:
        return cls(**members)
    except ValueError:
        return BROKEN


@pytest.mark.parametrize("name", KINDS)
def test_a_resource_survives_json(name):
    @settings(max_examples=15, deadline=None, suppress_health_check=QUIET, phases=UNSHRUNK)
    @given(sound(build(msgspec.inspect.type_info(KINDS[name]))))
    def survives(resource):
        written = msgspec.json.encode(resource)
        again = msgspec.json.decode(written, type=KINDS[name])
        assert msgspec.json.encode(again) == written
        document = decode.document(again)
        assert decode.decode(document) == again
        assert oracle.refusals(SCHEMAS[name], document) == []

    survives()
