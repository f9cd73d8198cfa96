"""Conditions: how they are merged, and what every state of a policy and of a sandbox looks like."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kars.desired import conditions
from kars.desired.conditions import Answer, Standing, merge, say, words

NOW = datetime(2026, 7, 1, 9, tzinfo=UTC)
BEFORE = NOW - timedelta(hours=1)
WANTED = "sha256:aa"


def table(standing: Standing):
    return {one.type: (one.status, one.reason) for one in standing.conditions}


def message(standing, kind="Ready"):
    return next(one.message for one in standing.conditions if one.type == kind)


def test_a_time_moves_only_with_its_status():
    before = merge((), [say("Ready", "False", "A"), say("Progressing", "True", "A")], generation=1, now=BEFORE)
    after = merge(
        before, [say("Ready", "False", "B", "other"), say("Progressing", "False", "A")], generation=2, now=NOW
    )
    assert [one.last_transition_time for one in after] == [BEFORE, NOW]
    assert [one.reason for one in after] == ["B", "A"]
    assert {one.observed_generation for one in after} == {2}


def test_what_is_not_wanted_any_more_goes_and_a_type_is_there_once():
    before = merge((), [say("Degraded", "True", "X")], generation=1, now=BEFORE)
    after = merge(before, [say("Ready", "True", "A"), say("Ready", "False", "B")], generation=1, now=NOW)
    assert [(one.type, one.reason) for one in after] == [("Ready", "B")]


@given(st.lists(st.tuples(st.sampled_from("ABC"), st.booleans(), st.sampled_from(["R", "S"])), max_size=6))
def test_merging_what_was_merged_changes_nothing(told):
    wanted = [say(kind, status, reason) for kind, status, reason in told]
    once = merge((), wanted, generation=3, now=BEFORE)
    assert merge(once, wanted, generation=3, now=NOW) == once


def test_a_message_is_one_bounded_line():
    assert words("a\nb\x00c\td") == "a b c d"
    assert len(words("x" * 100_000)) == 32_768 and words("x" * 100_000).endswith("…")


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("401 for Authorization: Bearer eyJhbGciOi.JIUzI1NiJ9-_", "eyJhbGciOi"),
        ("Basic dXNlcjpwYXNzd29yZA== refused", "dXNlcjpwYXNzd29yZA"),
        ("GET https://user:hunter2hunter2@registry.example/v2/", "hunter2"),
        ("https://a.example/x?access_token=abcdef&y=1", "abcdef"),
        ("https://blob.example/x?sv=1&sig=Zm9v%3D", "Zm9v"),
    ],
)
def test_a_credential_in_an_error_of_others_is_never_told(text, secret):
    assert secret not in say("Ready", "False", "X", text).message
    assert "(redacted)" in say("Ready", "False", "X", text).message


@pytest.mark.parametrize(
    "text", ["https://a.example:8443/path", "basic auth is off", "sha256:" + "ab" * 32, "bearer token missing", "a?b=c"]
)
def test_ordinary_words_stay(text):
    assert words(text) == text


def test_nothing_to_confirm_is_ready():
    assert conditions.settled().phase == "Ready"
    assert table(conditions.settled()) == {
        "Ready": ("True", "Reconciled"),
        "Progressing": ("False", "Reconciled"),
        "Degraded": ("False", "Reconciled"),
    }


def test_no_referrer_is_compiled_and_no_event():
    told = conditions.enforcement(WANTED, [])
    assert (told.phase, told.state, told.note) == ("Compiled", "NoSandboxesReferencing", "")
    assert table(told) == {
        "Ready": ("False", "NoSandboxesReferencing"),
        "Progressing": ("True", "NoSandboxesReferencing"),
        "Degraded": ("False", "Reconciled"),
    }


def test_suspended_sandboxes_are_told_but_not_waited_for():
    assert "2 suspended" in message(conditions.enforcement(WANTED, [], asleep=2))
    assert conditions.enforcement(WANTED, [Answer("a", WANTED)], asleep=2).confirmed


def test_waiting_tells_how_many_and_names_three():
    answers = [Answer("ok", WANTED), Answer("a", "sha256:bb"), Answer("b"), Answer("c", None, "connection refused")]
    told = conditions.enforcement(WANTED, [*answers, Answer("d"), Answer("e")])
    assert (told.phase, told.state, told.confirmed) == ("Compiled", "Awaiting", False)
    assert table(told) == {
        "Ready": ("False", "AwaitingRouterEnforcement"),
        "Progressing": ("True", "AwaitingRouterEnforcement"),
        "Degraded": ("False", "Reconciled"),
    }
    text = message(told)
    assert text.startswith("1/6 ") and text.endswith(" (+2 more)")
    assert "a: sha256:bb in force" in text and "b: nothing in force" in text and "c: connection refused" in text
    assert "d:" not in text and told.note == text and len(told.note) <= 1024


def test_exactly_three_are_named_without_more():
    assert "more)" not in message(conditions.enforcement(WANTED, [Answer("a"), Answer("b"), Answer("c")]))


def test_a_note_of_an_event_is_bounded():
    told = conditions.enforcement(WANTED, [Answer("a" * 63, None, "e" * 5000)] * 9, note="n" * 3000)
    assert len(told.note) == 1024


def test_all_routers_agreeing_is_ready():
    told = conditions.enforcement(WANTED, [Answer("a", WANTED), Answer("b", WANTED)])
    assert told.phase == "Ready" and told.confirmed
    assert table(told) == {
        "Ready": ("True", "RouterEnforcing"),
        "Progressing": ("False", "Reconciled"),
        "Degraded": ("False", "Reconciled"),
    }


@pytest.mark.parametrize(("phase", "more"), [("Degraded", {}), ("Failed", {"phase": "Failed"})])
def test_something_wrong_is_degraded_and_of_a_memory_failed(phase, more):
    told = conditions.degraded("ProfileWriteFailed", "no", **more)
    assert told.phase == phase
    assert table(told) == {
        "Ready": ("False", "ProfileWriteFailed"),
        "Progressing": ("False", "Failed"),
        "Degraded": ("True", "ProfileWriteFailed"),
    }


def test_a_forbidden_memory_outranks_a_missing_one():
    errors = [None, "", "something else", "MemoryStoreMissing: 404", "AuthMisconfigured: 403 for s"]
    assert conditions.memory_fault(errors) == ("AuthMisconfigured", "403 for s")
    assert conditions.memory_fault(errors[:4]) == ("MemoryStoreMissing", "404")
    assert conditions.memory_fault(errors[:3]) is None


def test_a_running_sandbox_has_no_degraded_condition():
    assert table(conditions.sandbox_running()) == {
        "Ready": ("True", "Reconciled"),
        "Progressing": ("False", "Reconciled"),
        "RuntimeReady": ("True", "Reconciled"),
    }


def test_a_sandbox_whose_pod_is_not_ready_is_not_ready():
    told = conditions.sandbox_coming("AwaitingPod", "0/1 ready")
    assert told.phase == "Creating"
    assert table(told) == {
        "Ready": ("False", "AwaitingPod"),
        "Progressing": ("True", "AwaitingPod"),
        "RuntimeReady": ("False", "AwaitingPod"),
    }
    told = conditions.sandbox_coming("AwaitingRouterEnforcement", "", runtime_ready=True, phase="Running")
    assert table(told)["RuntimeReady"] == ("True", "Reconciled") and table(told)["Ready"][0] == "False"


def test_a_degraded_sandbox_tells_its_reason_and_keeps_what_else_is_known():
    told = conditions.sandbox_degraded("FailedClosed", "m", extra=[say("AllowlistVerified", "False", "NotFound")])
    assert told.phase == "Degraded"
    assert table(told) == {
        "Ready": ("False", "FailedClosed"),
        "Progressing": ("False", "FailedClosed"),
        "Degraded": ("True", "FailedClosed"),
        "AllowlistVerified": ("False", "NotFound"),
    }


def test_a_runtime_without_adapter():
    assert table(conditions.sandbox_without_adapter("m")) == {
        "Ready": ("False", "AdapterMissing"),
        "Progressing": ("False", "AdapterMissing"),
        "RuntimeReady": ("False", "AdapterMissing"),
        "Degraded": ("True", "AdapterMissing"),
    }


def test_suspension_is_told_for_ever_once_it_has_been():
    assert conditions.suspension(False, ()) == ()
    (told,) = conditions.suspension(True, ())
    assert (told.status, told.reason) == ("True", "SuspendedBySpec")
    (told,) = conditions.suspension(False, (told,))
    assert (told.status, told.reason) == ("False", "Active")
    assert conditions.suspension(False, (told,))[0].reason == "Active"
