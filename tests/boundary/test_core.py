"""The native module, called as the Python side calls it."""

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kars import _core, settings
from kars.errors import PolicyError
from kars.policy import kinds, publish
from kars.router import reference, tools

ROOT = Path(__file__).parents[2]


def digest(name, data):
    """The controller's rule: lengths and bytes of name and content."""
    sizes = [len(name).to_bytes(8, "big"), name, len(data).to_bytes(8, "big"), data]
    return "sha256:" + hashlib.sha256(b"".join(sizes)).hexdigest()


def test_the_digest_is_the_controllers_whatever_the_file_is_called():
    data = b'{"displayName": "x"}'
    assert publish.compile_bundle(kinds.INFERENCE, [("inference-policy.json", data)]).digest == digest(
        b"inference-policy.json", data
    )


def test_a_policy_error_names_the_field():
    with pytest.raises(PolicyError, match=r"tokenBudget\.dailyTokens"):
        publish.compile_bundle(kinds.INFERENCE, [("p.json", b'{"tokenBudget": {"dailyTokens": "many"}}')])


@given(st.binary(max_size=200))
def test_no_bytes_break_the_compiler(data):
    try:
        assert publish.compile_bundle(kinds.INFERENCE, [("inference-policy.json", data)]).digest.startswith("sha256:")
    except PolicyError as error:
        assert str(error)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
        max_leaves=10,
    )
)
def test_json_that_is_no_policy_is_refused_and_never_breaks_the_compiler(value):
    try:
        publish.compile_bundle(kinds.INFERENCE, [("p.json", json.dumps(value).encode())])
    except PolicyError as error:
        assert str(error)
    else:
        assert isinstance(value, dict)


def test_an_unknown_kind_is_an_error_and_not_a_panic():
    with pytest.raises(_core.CoreError):
        _core.Snapshot.compile("Tomorrow", [("x.json", b"{}")])


@pytest.mark.parametrize(
    ("name", "value"), [("ROUTER_PORT", "http"), ("SANDBOX_NAME", "Not A Name"), ("ROUTER_WORKERS", "0")]
)
def test_a_wrong_setting_is_refused_by_name(name, value):
    with pytest.raises(_core.CoreError) as caught:
        _core.Engine(settings.block({name: value}, environ={}))
    assert caught.value.kind == "config"
    assert name in str(caught.value)


def test_every_variable_stands_once_and_has_a_help():
    rows = [row for rows in tools.variables().values() for row in rows]
    assert len({row.name for row in rows}) == len(rows) >= 20
    assert all(row.help and row.group for row in rows)


def test_the_reference_of_variables_is_up_to_date():
    assert (ROOT / "docs" / "configuration.md").read_text() == reference.page(), "run `make docs`"


def test_the_core_has_the_packages_version():
    assert _core.version() == tools.version() == "0.1.0"
