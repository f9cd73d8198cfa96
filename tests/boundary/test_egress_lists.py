"""Egress lists, as the Python side asks the core about them."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kars import _core
from kars.errors import FailureError
from kars.policy.propose import proposal, propose

NOON = 1_769_860_800  # 2026-01-31T12:00:00Z


def replay(allowlist, rows, *approvals):
    files = [("allowlist.json", json.dumps(allowlist).encode())]
    files += [(f"approval-{n}.json", json.dumps(body).encode()) for n, body in enumerate(approvals)]
    return json.loads(_core.replay_egress(files, json.dumps(rows).encode(), NOON))


def test_replaying_tells_what_is_decided_about_each_row():
    allowlist = {"schemaVersion": 2, "endpoints": [{"host": "a.example"}], "deny": [{"host": "x.a.example"}]}
    approval = {
        "schemaVersion": 1,
        "approvalName": "b",
        "sandbox": "demo",
        "hosts": [{"host": "b.example", "port": 443}],
        "reason": "a test",
        "effectiveAt": "2026-01-31T11:00:00Z",
        "expiresAt": "2026-01-31T13:00:00Z",
    }
    over = {**approval, "hosts": [{"host": "c.example"}], "expiresAt": "2026-01-31T11:30:00Z"}
    hosts = ["a.example", "x.a.example", "b.example", "c.example"]
    rows = [{"host": host, "port": 443, "count": 2, "first_seen": 1} for host in hosts]
    judged = replay(allowlist, rows, approval, over)
    assert [(row["host"], row["allowed"], row["reason"], row["rule"]) for row in judged] == [
        ("a.example", True, "allowlist", "allowlist.endpoints[0]"),
        ("x.a.example", False, "deny_rule", "allowlist.deny[0]"),
        ("b.example", True, "approval", "approval-0.hosts[0]"),
        ("c.example", False, "unlisted", "allowlist"),
    ]
    assert "until 2026-01-31T11:30:00Z" in judged[3]["hint"]


def test_a_candidate_that_does_not_compile_is_a_policy_error_with_its_path():
    with pytest.raises(_core.CoreError, match=r"allowlist\.json: endpoints\[0\]\.port: ") as caught:
        replay({"schemaVersion": 1, "endpoints": [{"host": "a", "port": 0}]}, [])
    assert caught.value.kind == "policy"


def test_a_proposal_tells_what_it_leaves_out():
    answer = proposal([{"host": "a.example", "port": 443}, {"host": "10.0.0.1", "port": 80}])
    assert json.loads(answer.text)["endpoints"] == [{"host": "a.example", "port": 443}]
    assert answer.left_out == ["10.0.0.1:80: a private address is granted by hand only"]


def test_rows_that_are_none_are_an_error():
    with pytest.raises(FailureError, match="not a list of recorded rows"):
        propose([{"port": 1}])


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "host": st.from_regex(r"[ab](\.[ab]){0,3}", fullmatch=True),
                "port": st.sampled_from([80, 443, 8080]),
                "method": st.sampled_from(["", "GET", "POST"]),
                "path": st.from_regex(r"(/([a-c%.]|\*|%2e|%7e)){0,3}", fullmatch=True),
            }
        ),
        max_size=6,
    ),
    st.booleans(),
)
def test_a_proposal_allows_the_rows_that_it_came_from(rows, collapse):
    text = propose(rows, collapse=collapse)
    assert all(row["allowed"] for row in replay(json.loads(text), rows))
