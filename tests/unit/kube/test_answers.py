"""What answers mean, and that no bytes make it raise anything else."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kars.kube import answers
from kars.kube.errors import ApiError, Busy, Conflict, Forbidden, Gone, Invalid, Missing
from tests.unit.kube.server import status

DECODERS = [answers.OBJECT, answers.PAGE, answers.EVENT]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "object", "metadata", "items", "code", "details", "retryAfterSeconds"]), inner
        )
    ),
    max_leaves=10,
)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (400, Invalid),
        (401, Forbidden),
        (403, Forbidden),
        (404, Missing),
        (405, ApiError),
        (408, Busy),
        (409, Conflict),
        (410, Gone),
        (413, Invalid),
        (422, Invalid),
        (429, Busy),
        (500, Busy),
        (503, Busy),
        (504, Busy),
    ],
)
def test_every_status_is_one_kind_of_error(code, kind):
    error = answers.error(code, json.dumps(status(code, "Because", "it is so")).encode(), what="pods a/b")
    assert type(error) is kind
    assert (error.status, error.reason, str(error)) == (code, "Because", "pods a/b: it is so")
    assert error.retryable == (kind is Busy)


@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()), st.integers(400, 599), st.text(max_size=12))
def test_any_refusal_is_an_error_of_the_tree(raw, code, after):
    error = answers.error(code, raw, after=after)
    assert isinstance(error, ApiError)
    assert len(str(error)) <= answers.MESSAGE
    if isinstance(error, Busy) and error.after is not None:
        assert 0 <= error.after <= answers.LONGEST_WAIT


@given(st.sampled_from(DECODERS), st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
def test_what_is_no_answer_is_busy(decoder, raw):
    try:
        answers.read(decoder, raw)
    except Busy as error:
        assert error.reason == "BadAnswer"


@given(st.dictionaries(st.sampled_from(["code", "message", "reason", "details"]), JSON))
def test_an_error_event_is_gone_or_busy(value):
    assert isinstance(answers.interrupted(value), Gone | Busy)


@pytest.mark.parametrize("raw", [b"[" * 100_000, b'{"a":' * 100_000])
def test_deep_nesting_is_no_answer(raw):
    with pytest.raises(Busy):
        answers.read(answers.OBJECT, raw)


@pytest.mark.parametrize(
    ("after", "seconds"), [("3", 3.0), ("0", 0.0), ("99999999", 3600.0), ("-1", None), ("²", None), ("soon", None)]
)
def test_only_plain_seconds_count_as_a_wait(after, seconds):
    assert answers.pause(after) == seconds


def test_the_wait_may_stand_in_the_status():
    raw = json.dumps(status(429, details={"retryAfterSeconds": 7})).encode()
    assert answers.error(429, raw).after == 7.0
    assert answers.error(429, raw, after="2").after == 2.0
