"""What counts as standing: everything that was wanted, whatever the API server and others add."""

import contextlib
import copy

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kars.desired import names, quantity
from kars.desired.match import KEYS, digests, pruned, stands
from kars.desired.plan import plan, stamp
from tests.unit.desired.cases import cases, everything, facts
from tests.unit.desired.looking import of_kind

OBJECTS = [one for facts_ in (everything(), cases()["old-cluster"]) for one in plan(facts_)]
# Lists whose items have keys, as the objects of a plan have them.
KEYED = {*KEYS, "ports"}
# Spellings of one number each.
SPELLINGS = [
    ("500m", "0.5"),
    ("1", "1000m"),
    ("2", 2),
    ("1Gi", "1073741824"),
    ("4Gi", "4096Mi"),
    ("10Gi", "10737418240"),
    ("100m", "0.1"),
]


def places(value, path=()):
    """Every place in a document that has a value: members of maps and items of lists, from the outside in."""
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in members:
        yield (*path, key)
        yield from places(inner, (*path, key))


def at(value, path):
    for step in path:
        value = value[step]
    return value


def is_keyed(value, path):
    """Whether a place is an item of a list by key."""
    if not (path and isinstance(path[-1], int)):
        return False
    name = path[-2]
    items = at(value, path[:-1])
    return (
        name in KEYED
        and isinstance(items[0], dict)
        and (name != "ports" or bool({"containerPort", "targetPort"} & set(items[0])))
    )


def wanted_places(value):
    """Places whose change matters: not the names by which an object itself is found, and the stamp has tests of its own."""
    return [
        path
        for path in places(value)
        if path not in {("apiVersion",), ("kind",), ("metadata", "name"), ("metadata", "namespace"), ("metadata",)}
        and names.DESIRED not in path
    ]


@st.composite
def with_defaults(draw, value, name=""):
    """What the API server makes of an object: more members, more items of keyed lists, other spellings of quantities."""
    if isinstance(value, dict):
        made = {key: draw(with_defaults(inner, key)) for key, inner in value.items()}
        if name in {"requests", "limits"}:
            made = {key: draw(spelled(inner)) for key, inner in value.items()}
        if name in {"data", "labels", "annotations", "matchLabels", "nodeSelector"} or draw(st.booleans()):
            return made
        return {**made, "fromDefaults": draw(st.sampled_from([1, "x", {"a": 1}, []]))}
    if isinstance(value, list):
        made = [draw(with_defaults(inner)) for inner in value]
        if name in KEYED - {"ports"} and draw(st.booleans()):
            more = dict.fromkeys(KEYS[name], f"injected-{name}")
            made.insert(draw(st.integers(0, len(made))), more)
        return made
    return value


def spelled(value):
    same = [pair for pair in SPELLINGS if value in pair]
    return st.sampled_from(same[0]) if same else st.just(value)


objects = st.sampled_from(OBJECTS)


@given(st.data(), objects)
@settings(max_examples=40, deadline=None)
def test_what_the_api_server_adds_is_no_difference(data, wanted):
    assert stands(wanted, data.draw(with_defaults(wanted)))


@given(st.data(), objects)
@settings(max_examples=300, deadline=None)
def test_what_is_gone_is_noticed(data, wanted):
    path = data.draw(st.sampled_from(wanted_places(wanted)))
    if at(wanted, path) in ("", []):
        return  # the API server leaves those out
    found = copy.deepcopy(wanted)
    del at(found, path[:-1])[path[-1]]
    assert not stands(wanted, found), path


@given(st.data(), objects)
@settings(max_examples=300, deadline=None)
def test_what_is_changed_is_noticed(data, wanted):
    path = data.draw(st.sampled_from(wanted_places(wanted)))
    before = at(wanted, path)
    other = {
        "str": ["", f"{before}x", None],
        "bool": [not before, None],
        "int": [0, -1],
        "dict": [None, [], "x"],
        "list": [{}, "x", ["other"]],
    }
    after = data.draw(st.sampled_from(other[type(before).__name__]))
    if after == before or (before == "" and after is None):
        return
    found = copy.deepcopy(wanted)
    at(found, path[:-1])[path[-1]] = after
    assert not stands(wanted, found), (path, after)


@given(st.data(), objects)
@settings(max_examples=100, deadline=None)
def test_a_list_that_is_one_value_may_not_grow(data, wanted):
    lists = [path for path in places(wanted) if isinstance(at(wanted, path), list) and at(wanted, path)]
    lists = [path for path in lists if not is_keyed(wanted, (*path, 0))]
    if not lists:
        return
    path = data.draw(st.sampled_from(lists))
    found = copy.deepcopy(wanted)
    at(found, path).append(copy.deepcopy(at(found, path)[0]))
    assert not stands(wanted, found), path


@pytest.mark.parametrize("wanted", OBJECTS, ids=lambda one: f"{one['kind']}-{one['metadata']['name'][:20]}")
def test_what_was_made_from_another_plan_does_not_stand(wanted):
    other = copy.deepcopy(wanted)
    other["metadata"]["annotations"][names.DESIRED] = "0" * 32
    assert not stands(wanted, other)
    del other["metadata"]["annotations"][names.DESIRED]
    assert not stands(wanted, other)


def test_what_is_no_longer_wanted_is_noticed_by_the_stamp():
    wanted = of_kind(facts(), "Deployment")
    found = copy.deepcopy(wanted)
    found["spec"]["template"]["spec"]["containers"][0]["env"].append({"name": "OLD", "value": "1"})
    before = stamp(found)
    assert not stands(wanted, before)


def test_a_value_that_comes_from_elsewhere_is_another_value():
    wanted = of_kind(facts(), "Deployment")
    found = copy.deepcopy(wanted)
    (empty,) = [
        row
        for row in found["spec"]["template"]["spec"]["initContainers"][1]["env"]
        if row["name"] == "FOUNDRY_ENDPOINT"
    ]
    del empty["value"]
    assert stands(wanted, found)
    empty["valueFrom"] = {"secretKeyRef": {"name": "theirs", "key": "k"}}
    assert not stands(wanted, found)


def test_the_order_of_what_starts_in_order_matters_and_that_of_the_rest_does_not():
    wanted = of_kind(facts(), "Deployment")
    found = copy.deepcopy(wanted)
    found["spec"]["template"]["spec"]["volumes"].reverse()
    assert stands(wanted, found)
    found["spec"]["template"]["spec"]["initContainers"].reverse()
    assert not stands(wanted, found)


@pytest.mark.parametrize("name", ["requests", "limits", "sizeLimit", "storage", "resources"])
def test_data_is_no_quantity_whatever_it_is_called(name):
    wanted = stamp({"kind": "ConfigMap", "metadata": {"name": "x"}, "data": {name: "1"}})
    found = copy.deepcopy(wanted)
    found["data"][name] = "1000m"
    assert not stands(wanted, found)


def test_a_secret_is_told_by_its_digests():
    wanted = of_kind(facts(), "Secret", "gateway-token")
    found = pruned({**copy.deepcopy(wanted), "metadata": {**wanted["metadata"], "managedFields": [], "uid": "u"}})
    assert "data" not in found and "managedFields" not in found["metadata"]
    assert stands(wanted, found)
    found["digests"]["token"] = "0" * 64
    assert not stands(wanted, found)
    del found["digests"]["token"]
    assert not stands(wanted, found)


def test_a_digest_is_of_the_value_and_not_of_its_spelling():
    assert digests({"a": "YWJj"}) == {"a": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"}
    assert set(digests({"a": "not base64!"})) == {"a"}


def test_what_is_kept_of_an_object_is_what_a_plan_can_say():
    found = pruned({**copy.deepcopy(OBJECTS[0]), "status": {"phase": "Active"}})
    assert "status" not in found
    assert stands(OBJECTS[0], found)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["metadata", "spec", "env", "ports", "resources", "name", "x"]), inner, max_size=3
        )
    ),
    max_leaves=12,
)


@given(objects, anything)
@settings(max_examples=100, deadline=None)
def test_whatever_stands_there_is_judged_and_nothing_is_raised(wanted, found):
    assert not stands(
        wanted,
        {
            **wanted,
            "spec": found,
            "data": found,
            "rules": found,
            "subjects": found,
            "metadata": {**wanted["metadata"], "labels": found},
        },
    )


# Quantities

SUFFIXES = {
    "": 1,
    "k": 10**3,
    "M": 10**6,
    "G": 10**9,
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
    "e3": 10**3,
    "E2": 10**2,
}


@given(st.integers(0, 10**9), st.sampled_from(sorted(SUFFIXES)))
def test_a_quantity_is_its_number_times_its_suffix(number, suffix):
    assert quantity.parse(f"{number}{suffix}") == number * SUFFIXES[suffix]
    assert quantity.same(f"{number}{suffix}", str(number * SUFFIXES[suffix]))


@given(st.integers(-(10**12), 10**12), st.integers(-(10**12), 10**12))
def test_quantities_are_the_same_when_their_milli_numbers_are(one, other):
    assert quantity.same(f"{one}m", f"{other}m") == (one == other)


@given(st.decimals(0, 10**6, places=9))
def test_fractions_are_exact(number):
    assert quantity.same(f"{number:f}", f"{int(number * 10**9)}n")


@pytest.mark.parametrize(
    "text", ["", "m", "1.2.3", "1 Gi", "1gi", "0x10", "1e", "one", "1e999999999", "--1", "٣", True, None, [], "1Gi\n"]
)
def test_what_is_no_quantity_is_the_same_as_itself_only(text):
    assert quantity.same(text, text)
    assert not quantity.same(text, "1")
    if isinstance(text, str):
        with pytest.raises(ValueError, match="not a quantity"):
            quantity.parse(text)


@given(st.text(max_size=12))
def test_any_text_is_a_number_or_refused(text):
    with contextlib.suppress(ValueError):
        assert quantity.parse(text) == quantity.parse(text)


def test_what_is_finer_than_the_api_server_keeps_is_rounded_up():
    assert quantity.same("0.1n", "1n") and not quantity.same("1n", "2n")


def test_a_large_installation_is_compared_quickly():
    # Not a timing: so many comparisons that anything quadratic would run into the suite's own limit.
    wanted = [plan(msgspec.structs.replace(facts(), children=(f"c{n}",))) for n in range(50)]
    for one in wanted:
        found = [pruned(copy.deepcopy(other)) for other in one]
        assert all(stands(a, b) for a, b in zip(one, found, strict=True))
