"""Egress lists and approvals as documents."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from kars.model.egress import ApprovedHost, EgressApproval
from kars.policy.compiled import egress
from kars.policy.compiled.outcome import Unfit
from tests.unit.policy_compiled.samples import make, of

NOW = datetime(2026, 7, 1, 9, tzinfo=UTC)
END = NOW + timedelta(hours=2)


def hosts(*pairs):
    return [ApprovedHost(host=host, port=port) for host, port in pairs]


def test_a_list_is_trimmed_lowered_sorted_and_each_entry_once():
    listed = [
        ApprovedHost(host=" B.Example "),
        *hosts(("a.example", 8443), ("A.example", 80), ("b.example", 443), ("  ", None)),
    ]
    assert egress.allowlist(listed) == (
        b'{"schemaVersion":1,"endpoints":[{"host":"a.example","port":80},{"host":"a.example","port":8443},'
        b'{"host":"b.example","port":443}]}'
    )


def test_no_entries_are_the_golden_empty_list():
    body = egress.allowlist([])
    assert egress.allowlist_digest(body) == "sha256:0f2e4905bcdcdf8b99ec031c7c40db8fca289b8e28707e802f8b568860d04fd3"
    listed = egress.allowlist(hosts(("example.com", None)))
    assert egress.merged_digest(listed) == "sha256:fe6cf9580a22eaacff45a3c8d3bb06f5f635b34c5981558b4587524c45e9c8a5"


def test_what_is_left_out_is_told():
    notes = []
    assert egress.destinations(hosts(("*", None), ("169.254.169.254", 80), ("ok.example", None)), notes) == (
        ("ok.example", 443),
    )
    assert [note.split(" ")[0] for note in notes] == ["*", "169.254.169.254"]


def approve(name="one", ticket=None, **spec):
    spec = {
        "sandbox": "demo",
        "hosts": [{"host": "B.example", "port": 80}, {"host": "a.example"}],
        "reason": "why",
        "ttl": "PT2H",
        **spec,
    }
    return make("EgressApproval", {**spec, **({"ticket": ticket} if ticket else {})}, name=name)


def test_an_approval_has_its_members_in_order_and_no_ticket_where_there_is_none():
    body = egress.approval(approve(), effective_at=NOW, expires_at=END)
    assert body == (
        b'{"schemaVersion":1,"approvalName":"one","sandbox":"demo","hosts":[{"host":"a.example","port":443},'
        b'{"host":"b.example","port":80}],"reason":"why","effectiveAt":"2026-07-01T09:00:00Z",'
        b'"expiresAt":"2026-07-01T11:00:00Z"}'
    )
    with_ticket = json.loads(egress.approval(approve(ticket="T-7"), effective_at=NOW, expires_at=END))
    assert list(with_ticket)[4:6] == ["reason", "ticket"]


def test_an_approval_of_which_nothing_can_be_used_is_refused():
    with pytest.raises(Unfit, match="no host can be approved; \\* is left out"):
        egress.approval(approve(hosts=[{"host": "*"}]), effective_at=NOW, expires_at=END)


def test_the_merged_digest_counts_what_is_mounted_and_nothing_else():
    baseline = egress.allowlist(hosts(("base.example", None), ("a.example", 443)))
    sibling = egress.approval(approve(name="two", hosts=[{"host": "two.example"}]), effective_at=NOW, expires_at=END)
    compiled = egress.render(approve(), effective_at=NOW, expires_at=END, baseline=baseline, siblings={"two": sibling})
    union = hosts(("base.example", 443), ("a.example", 443), ("b.example", 80), ("two.example", 443))
    assert compiled.digest == egress.merged_digest(egress.allowlist(union))
    alone = egress.render(approve(), effective_at=NOW, expires_at=END, baseline=baseline, siblings={})
    assert alone.digest == egress.merged_digest(egress.allowlist(union[:3]))
    # An older document of its own is replaced, not added to.
    older = egress.approval(approve(hosts=[{"host": "old.example"}]), effective_at=NOW, expires_at=END)
    again = egress.render(approve(), effective_at=NOW, expires_at=END, baseline=baseline, siblings={"one": older})
    assert again.digest == alone.digest


@pytest.mark.parametrize("broken", [b"", b"[]", b'{"hosts":[{"port":1}]}', b'{"hosts":{}}', b"\xff", b"[" * 100_000])
def test_a_document_that_somebody_broke_is_passed_over_as_routers_do(broken):
    listed = egress.allowlist(hosts(("a.example", 443)))
    assert egress.merged_digest(listed, [broken]) == egress.merged_digest(listed)


def test_an_approval_writes_its_own_key_of_its_sandboxs_config_map():
    compiled = egress.render(approve(), effective_at=NOW, expires_at=END, baseline=egress.allowlist([]), siblings={})
    (made,) = compiled.objects
    assert made["metadata"] == {
        "name": "karssandbox-demo-egress-approvals",
        "namespace": "kars-demo",
        "labels": {
            "app.kubernetes.io/managed-by": "kars-controller",
            "kars.azure.com/sandbox": "demo",
            "kars.azure.com/artifact": "egress-approvals",
        },
    }
    assert list(made["data"]) == ["approval-one.json"]
    assert compiled.status == {
        "effectiveAt": "2026-07-01T09:00:00Z",
        "expiresAt": "2026-07-01T11:00:00Z",
        "mergedDigest": compiled.digest,
        "hostCount": 2,
    }


@pytest.mark.parametrize("approval", of(EgressApproval), ids=lambda one: one.metadata.name)
def test_every_valid_approval_is_one_that_the_router_holds_for_valid(approval):
    from kars import _core

    body = egress.approval(approval, effective_at=NOW, expires_at=END)
    assert _core.Snapshot.compile("EgressApproval", [("approval-x.json", body)]).problems == []
