"""Each weak spot of earlier routers that lies in our scope has a test that shows we do not have it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
CORE = TESTS.parent / "router_core" / "src"

# What goes wrong elsewhere -> (file, test). Rust tests are named by their file below router_core/src.
SPOTS = {
    "W-1 loopback may change settings": (
        "system/test_routes.py",
        "test_the_admin_routes_need_the_token_even_on_loopback",
    ),
    "W-1 loopback may switch strict egress off": (
        "system/test_egress_api.py",
        "test_loopback_alone_changes_nothing",
    ),
    "W-2 two parsers read one URL": ("system/test_egress_hostile.py", "test_nothing_hostile_leaves_in_any_form"),
    "W-3 a fetched name's address is not checked": (
        "system/test_egress_plain.py",
        "test_a_name_that_leads_to_one_of_these_goes_nowhere",
    ),
    "W-3 a fetched name is looked up twice": (
        "system/test_egress_plain.py",
        "test_names_are_looked_up_once_and_what_was_checked_is_dialled",
    ),
    "W-4 a header chooses the identity": ("system/test_identity.py", "test_a_new_sandbox_name_gives_no_new_budget"),
    "W-5 the metrics port serves everything": ("system/test_routes.py", "test_the_metrics_port_serves_no_calls"),
    "W-7 no token means an open door": ("boundary/test_router.py", "test_a_change_without_the_token_changes_nothing"),
    "W-10 the floor misses split chunks": (
        "system/test_policy.py",
        "test_the_content_floor_holds_before_a_stream_begins",
    ),
    "W-12 the allowlist's ports are ignored": ("system/test_egress_plain.py", "test_ports_are_decided_about"),
    "W-12 later requests are not checked": (
        "system/test_egress_plain.py",
        "test_a_later_request_on_a_connection_is_decided_about",
    ),
    "W-12 a tunnel carries requests to anybody": (
        "system/test_egress_names.py",
        "test_no_spelling_of_a_request_carries_another_host",
    ),
    "W-12 domain fronting": ("system/test_egress_names.py", "test_another_name_goes_nowhere"),
    "W-14 a dot at the end lifts the blocklist": (
        "system/test_egress_plain.py",
        "test_a_dot_at_the_end_gets_around_nothing",
    ),
    "W-14 a head may take for ever": ("system/test_egress_plain.py", "test_a_head_that_does_not_come_is_told_so"),
    "W-15 a preferred model changes nothing": (
        "system/test_policy.py",
        "test_a_model_preference_is_what_goes_over_the_wire",
    ),
    "W-16 a retry never happens": (
        "system/test_framing.py",
        "test_a_kept_connection_closed_in_the_meantime_costs_no_call",
    ),
    "W-17 redirected TLS never works": ("interop/egress/test_clients.py", "test_both_versions_of_tls_pass"),
    "W-17 a redirected hello is lost": ("system/test_egress_names.py", "test_a_name_that_is_allowed_is_dialled"),
    "W-18 a rate limit answers 403": (
        "system/test_budget.py",
        "test_the_request_rate_gets_429_with_the_time_to_come_back",
    ),
    "W-19 JSON that is no object panics": ("system/test_limits.py", "test_json_that_is_no_object_gets_400"),
    "W-20 a long stream is cut": ("system/test_timeouts.py", "test_a_long_stream_is_not_cut_by_any_default"),
    "W-20 usage in a split event is lost": (
        "system/test_streams.py",
        "test_the_usage_chunk_is_found_wherever_it_is_cut",
    ),
    "W-20 latency counts every chunk": ("system/test_audit.py", "test_a_stream_counts_once_in_the_latencies"),
    "W-21 the service's fields are dropped": (
        "system/test_passthrough.py",
        "test_every_route_keeps_the_answers_fields",
    ),
    "W-23 each tool costs a request": ("system/test_policy.py", "test_forty_tools_cost_one_request_of_the_rate"),
    "W-24 the chain starts anew": (
        "system/test_audit.py",
        "test_the_log_verifies_while_running_after_a_kill_and_after_a_restart",
    ),
    "W-28 a stale digest is echoed": (
        "system/test_policy.py",
        "test_a_policy_that_goes_away_denies_and_its_digest_with_it",
    ),
    "W-31 a hidden body cap": ("system/test_passthrough.py", "test_a_large_body_passes_both_ways"),
    "W-32 budgets are forgotten": ("system/test_budget.py", "test_a_restarted_router_remembers"),
    "W-34 a call costs more with every call": (
        "system/test_audit.py",
        "test_the_cost_of_a_call_does_not_grow_with_the_log",
    ),
    "W-35 JSON is written again": ("system/test_passthrough.py", "test_a_buffered_request_passes_byte_for_byte"),
    "W-33 bytes behind a head are lost": (
        "system/test_passthrough.py",
        "test_pipelined_requests_are_answered_in_order",
    ),
    "W-33 bytes behind a CONNECT are lost": (
        "system/test_egress_names.py",
        "test_bytes_behind_the_head_of_a_connect_are_delivered",
    ),
    "W-33 a half-close ends both sides": (
        "system/test_egress_names.py",
        "test_the_answer_comes_after_the_client_has_ended_its_side",
    ),
    "W-33 the first address alone is tried": (
        "system/test_egress_plain.py",
        "test_every_address_is_tried_before_giving_up",
    ),
    "W-37 the answer is held in memory": ("system/test_passthrough.py", "test_a_large_body_passes_both_ways"),
    "W-38 every answer closes": ("system/test_passthrough.py", "test_connections_are_kept_on_both_sides"),
    "W-39 the budget is written per call": ("gate/ledger/tests.rs", "the_journal_is_private_and_never_grows"),
    "W-40 a caller grows the metrics": ("system/test_audit.py", "test_made_up_models_do_not_grow_the_metrics"),
    "budget: concurrent calls overshoot": (
        "system/test_budget.py",
        "test_a_thousand_concurrent_calls_never_exceed_the_daily_budget",
    ),
    "budget: some routes are not metered": ("system/test_budget.py", "test_every_route_is_metered"),
}


def functions(path: Path) -> set[str]:
    """The names of the test functions in a file of either language."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".rs":
        return {line.split("fn ", 1)[1].split("(", 1)[0] for line in text.splitlines() if line.startswith("fn ")}
    return {node.name for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("spot", SPOTS)
def test_a_weak_spot_has_its_test(spot: str) -> None:
    file, name = SPOTS[spot]
    root = CORE if file.endswith(".rs") else TESTS
    assert name in functions(root / file)
