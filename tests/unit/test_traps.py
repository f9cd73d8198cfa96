"""Each trap of earlier controllers has a test that shows we are not in it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]

# What goes wrong elsewhere -> (file, test).
TRAPS = {
    "1 fields that the schema prunes": ("unit/model/test_vectors.py", "test_a_round_trip_loses_nothing_but_defaults_and_nulls"),
    "2 governance is on or off by accident": ("unit/desired/test_traps.py", "test_governance_is_on_without_its_block_and_off_only_by_name"),
    "3 a default that is junk": ("unit/desired/test_traps.py", "test_the_junk_of_an_older_schema_is_no_selinux_type"),
    "4 fields that nobody reads": ("unit/desired/test_traps.py", "test_fields_that_nothing_read_have_their_consumers"),
    "4 who may use an McpServer is not asked": ("unit/controller_policies/test_runs.py", "test_a_server_is_given_to_the_sandboxes_of_its_namespace_that_have_its_labels"),
    "5 a signed policy backs no sandbox": ("unit/controller_policies/test_publisher.py", "test_a_bundle_is_used_in_place_of_the_spec"),
    "6 writers of conditions overwrite each other": ("cluster/engine/test_engine.py", "test_status_that_others_write_beside_ours_wakes_nobody_and_stays"),
    "7 Ready without looking at pods": ("cluster/test_acceptance.py", "test_a_pod_whose_router_nobody_can_ask_is_not_ready"),
    "8 no Service without governance": ("unit/desired/test_traps.py", "test_there_is_a_service_without_governance_too"),
    "9 the default policy counts nobody": ("cluster/test_policies_enforced.py", "test_the_default_tool_policy_of_the_controller_counts_sandboxes_without_one_of_their_own"),
    "10 expired approvals turn in a hot loop": ("unit/controller_policies/test_approvals.py", "test_an_approval_goes_from_blocked_to_active_to_expired_and_stays"),
    "11 two standbys win the lease": ("unit/kube/test_lease.py", "test_of_many_that_ask_at_once_one_leads"),
    "12 a name is used again while its namespace goes": ("cluster/engine/test_children.py", "test_deleting_waits_for_the_namespace_and_the_name_can_be_used_again_at_once"),
    "12 two sandboxes of a name fight over a namespace": ("cluster/engine/test_children.py", "test_the_second_sandbox_of_a_name_gets_nothing_of_the_first"),
    "12 a sandbox takes the controller's namespace": ("unit/desired/test_traps.py", "test_a_sandbox_cannot_take_the_controllers_namespace_however_that_is_called"),
    "12 a sandbox takes the SRE's namespace": ("unit/desired/test_traps.py", "test_a_sandbox_cannot_take_the_namespace_of_the_charts_sre"),
    "13 a refresh that cannot run": ("unit/desired/test_traps.py", "test_there_is_no_blocklist_for_each_sandbox_and_nothing_that_refreshes_it"),
    "14 annotations on an account that no pod has": ("unit/desired/test_traps.py", "test_azure_services_are_annotated_on_the_account_that_the_pod_has"),
    "16 a threshold by a policy's name": ("unit/desired/test_traps.py", "test_the_burst_threshold_is_for_offloads_of_the_controller_and_nobody_who_says_so"),
    "18 agents outside the exec ban": ("cluster/test_chart_admission.py", "test_nobody_gets_into_a_sandboxes_pod"),
    "19 globs that never match": ("unit/artifacts/test_signers.py", "test_a_glob_matches_what_the_expression_for_it_matches"),
    "20 a revoked signer counts for an hour": ("unit/artifacts/test_fetch.py", "test_a_signer_who_is_taken_out_of_the_policy_counts_no_more_at_once"),
    "21 copies follow only the sandbox": ("cluster/test_acceptance.py", "test_a_policy_that_changes_reaches_a_running_router_without_a_new_pod"),
    "21 a copy stays when its reference goes": ("cluster/test_acceptance.py", "test_a_copy_goes_with_its_reference"),
    "22 a port opened to every address": ("unit/desired/test_network.py", "test_an_endpoint_by_name_opens_its_port_to_public_addresses_only"),
    "23 IPv6 is not filtered": ("unit/desired/test_traps.py", "test_ipv6_is_guarded_like_ipv4"),
    "24 every namespace is privileged": ("unit/desired/test_traps.py", "test_the_privileged_standard_is_for_the_guards_container_alone"),
    "25 a sandbox's account reaches every sandbox": ("unit/desired/test_traps.py", "test_no_right_reaches_over_the_cluster_and_without_children_none_over_a_sandbox"),
    "26 a label opens the API server": ("unit/desired/test_traps.py", "test_the_label_that_anybody_can_set_opens_nothing"),
    "27 keys in plain text in the Deployment": ("unit/desired/test_traps.py", "test_development_keys_are_files_of_the_router_and_nowhere_in_the_deployment"),
    "28 an action goes without a word": ("unit/controller_policies/test_runs.py", "test_an_action_that_ended_goes_after_an_hour_and_says_so"),
    "29 issuers' URLs lead anywhere": ("unit/controller_policies/test_jwks.py", "test_nothing_is_dialled_that_is_not_global_unless_its_network_was_named"),
    "30 a variable is there twice": ("unit/desired/test_traps.py", "test_a_sandbox_cannot_preset_a_variable_that_the_controller_adds_later"),
    "status writes that wake themselves": ("cluster/engine/test_engine.py", "test_a_resource_gets_finalizer_object_and_status_by_three_requests_and_is_looked_at_once"),
    "lists for every look": ("cluster/engine/test_engine.py", "test_a_look_at_what_stands_costs_no_request"),
    "routers asked one after another": ("unit/controller_policies/test_publisher.py", "test_a_thousand_sandboxes_are_each_asked_until_they_confirmed_and_not_again"),
    "a bad successor takes the profile away": ("unit/controller_policies/test_publisher.py", "test_a_bundle_that_cannot_be_used_leaves_what_stands"),
    "suspended sandboxes hold policies up": ("cluster/test_policies_enforced.py", "test_a_suspended_sandbox_holds_no_policy_up"),
    "editors widen egress": ("cluster/test_chart.py", "test_editors_of_a_namespace_cannot_widen_egress_and_approvers_cannot_change_sandboxes"),
    "children outlive their parent": ("cluster/test_acceptance.py", "test_children_go_with_their_parent"),
}  # fmt: skip


@pytest.mark.parametrize("trap", TRAPS)
def test_a_trap_has_its_test(trap: str) -> None:
    file, name = TRAPS[trap]
    tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
    assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
