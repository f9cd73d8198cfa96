"""What is nested deeper than a decoder goes is cut, and nothing else of the answer is lost."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kars.kube import answers, depth
from kars.kube.errors import Busy

JSON = st.recursive(
    st.none() | st.integers() | st.text(alphabet='ab"\\[]{}\n\u2028', max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(alphabet='ab"\\[{', max_size=3), inner),
    max_leaves=20,
)


def pruned(value, left):
    """The slow twin: the value with a mark for everything deeper."""
    if not isinstance(value, dict | list):
        return value
    if not left:
        return depth.TOO_DEEP
    if isinstance(value, dict):
        return {name: pruned(member, left - 1) for name, member in value.items()}
    return [pruned(member, left - 1) for member in value]


@given(JSON, st.integers(0, 6), st.sampled_from([None, 1]))
def test_what_lies_deeper_becomes_a_mark_and_the_rest_stays(value, deepest, indent):
    raw = json.dumps(value, indent=indent).encode()
    assert json.loads(depth.cut(raw, deepest)) == pruned(value, deepest)


@given(st.binary(max_size=200) | st.text(alphabet='"\\[]{}:,a', max_size=60).map(str.encode), st.integers(0, 4))
def test_any_bytes_can_be_cut(raw, deepest):
    assert isinstance(depth.cut(raw, deepest), bytes)


def nested(name, levels):
    deep = b'{"a":' * levels + b"1" + b"}" * levels
    return b'{"metadata":{"name":"%s","managedFields":[%s],"uid":"u"},"spec":{"config":%s}}' % (name, deep, deep)


def test_a_page_is_read_whatever_one_of_its_objects_holds():
    """One resource could end the list of its kind: the decoder has an end that the API server does not have."""
    raw = b'{"metadata":{"resourceVersion":"7"},"items":[%s,%s]}' % (nested(b"deep", 9000), nested(b"flat", 3))
    page = answers.read(answers.PAGE, raw)
    deep, flat = page.items
    assert deep == {"metadata": {"name": "deep", "uid": "u"}, "spec": depth.TOO_DEEP}
    assert flat["spec"] == {"config": {"a": {"a": {"a": 1}}}}
    assert page.metadata.resource_version == "7"


def test_an_event_and_an_object_are_read_whatever_they_hold():
    event = answers.read(answers.EVENT, b'{"type":"ADDED","object":%s}' % nested(b"deep", 9000))
    assert (event.type, event.object["spec"]) == ("ADDED", depth.TOO_DEEP)
    assert answers.read(answers.OBJECT, nested(b"deep", 9000)) == event.object


@pytest.mark.parametrize("raw", [b"[" * 50_000, b'{"a":' * 50_000, b'"' + b"\\" * 50_001, b'{"a":"' * 20_000])
def test_what_does_not_end_is_no_answer_and_takes_no_time(raw):
    with pytest.raises(Busy):
        answers.read(answers.OBJECT, raw)
