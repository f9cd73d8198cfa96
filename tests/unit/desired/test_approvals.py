"""What becomes of an approval."""

import copy
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kars.desired import approvals
from kars.desired.approvals import Window, blocked, confirmed, decide, lifetime
from kars.model.decode import decode

NOW = datetime(2026, 7, 1, 9, tzinfo=UTC)
HOUR = timedelta(hours=1)


def approval(ttl="PT1H", *, status=None, reason="why"):
    document = {
        "apiVersion": "kars.azure.com/v1alpha1",
        "kind": "EgressApproval",
        "metadata": {"name": "a", "namespace": "n"},
        "spec": {"sandbox": "demo", "hosts": [{"host": "a.example"}], "reason": reason, "ttl": ttl},
    }
    return decode(document if status is None else {**document, "status": status})


def held(phase="Active", since=NOW, hours=1):
    return {"phase": phase, "effectiveAt": since.isoformat(), "expiresAt": (since + hours * HOUR).isoformat()}


def look(one, *, running=True, ceiling=86_400, now=NOW):
    return decide(one, running=running, ceiling=ceiling, now=now)


def table(wanted):
    return {one.type: (one.status, one.reason) for one in wanted.standing.conditions}


def row(reason, *, ready="False", progressing="False", degraded="False"):
    return {"Ready": (ready, reason), "Progressing": (progressing, reason), "Degraded": (degraded, reason)}


@pytest.mark.parametrize(("ttl", "reason"), [("P2D", "TtlExceedsCeiling"), ("P", "TtlInvalid"), ("P1DT", "TtlInvalid")])
def test_a_time_that_cannot_be_is_pending_and_degraded(ttl, reason):
    wanted = look(forced(ttl=ttl))
    assert wanted.standing.phase == "Pending" and table(wanted) == row(reason, progressing="True", degraded="True")
    assert wanted.after == 30 and wanted.published is None and wanted.withdrawn


def forced(**changes):
    """An approval whose spec breaks its own rules, as an older schema could have let through."""
    made = copy.copy(approval().spec)
    for name, value in changes.items():
        msgspec.structs.force_setattr(made, name, value)
    return msgspec.structs.replace(approval(), spec=made)


def test_a_reason_that_could_forge_a_line_is_pending_and_degraded():
    assert table(look(forced(reason="a\x1b[2Jb"))) == row("ReasonInvalid", progressing="True", degraded="True")


def test_without_its_sandbox_running_it_waits_and_nothing_begins():
    wanted = look(approval(), running=False)
    assert wanted.standing.phase == "Pending" and table(wanted) == row("BlockedOnSandbox", progressing="True")
    assert (wanted.after, wanted.published, wanted.withdrawn) == (5, None, False)


def test_it_begins_when_its_sandbox_is_first_found_running():
    wanted = look(approval())
    assert wanted.published == Window(NOW, NOW + HOUR)
    assert wanted.standing.phase == "Pending" and table(wanted) == row("AwaitingRouterEcho", progressing="True")
    assert wanted.after == 5


def test_its_beginning_never_moves():
    later = NOW + timedelta(minutes=10)
    one = approval(status=held("Pending"))
    assert look(one, now=later).published == Window(NOW, NOW + HOUR)
    # An interruption takes from its time, too, and what stands among the files stays.
    interrupted = look(one, running=False, now=later)
    assert interrupted.published is None and not interrupted.withdrawn
    assert table(interrupted) == row("BlockedOnSandbox", progressing="True")


def test_a_longer_time_counts_from_the_same_beginning():
    assert look(approval("PT3H", status=held()), now=NOW + HOUR / 2).published == Window(NOW, NOW + 3 * HOUR)
    assert look(approval("PT10M", status=held()), now=NOW + HOUR / 2).standing.phase == "Expired"


def test_the_routers_word_makes_it_active_and_it_is_looked_at_before_its_end():
    window = Window(NOW, NOW + HOUR)
    wanted = confirmed(window, NOW)
    assert wanted.standing.phase == "Active" and table(wanted) == row("RouterConfirmed", ready="True")
    assert wanted.after == 30
    assert confirmed(window, NOW + HOUR - timedelta(seconds=7)).after == 7
    assert confirmed(window, NOW + HOUR).after == 1


def test_why_it_is_not_confirmed_is_told():
    wanted = blocked(look(approval()), "the router reports sha256:bb")
    assert wanted.published and "sha256:bb" in wanted.standing.conditions[0].message
    assert table(wanted) == row("AwaitingRouterEcho", progressing="True")


@pytest.mark.parametrize("running", [True, False])
def test_at_its_end_it_is_over_and_waits_for_nothing(running):
    wanted = look(approval(status=held()), now=NOW + HOUR, running=running)
    assert wanted.standing.phase == "Expired" and table(wanted) == row("Expired")
    assert wanted.withdrawn and wanted.published is None and wanted.after is None


def test_what_is_over_stays_over_whatever_its_spec_becomes():
    again = look(approval("PT23H", status=held("Expired")), now=NOW + HOUR / 2)
    assert again.standing.phase == "Expired" and again.after is None
    assert look(approval("PT23H", status={"phase": "Expired"})).standing.phase == "Expired"


def test_the_ceiling_has_a_ceiling():
    assert table(look(approval("P8D"), ceiling=10**9))["Ready"] == ("False", "TtlExceedsCeiling")
    assert look(approval("P7D"), ceiling=10**9).published is not None
    assert table(look(approval("PT61S"), ceiling=60))["Ready"] == ("False", "TtlExceedsCeiling")
    assert look(approval("PT60S"), ceiling=60).published is not None


@pytest.mark.parametrize(
    ("ttl", "seconds"),
    [
        ("PT30S", 30),
        ("P1D", 86_400),
        ("P1DT1H1M1S", 90_061),
        ("PT90M", 5400),
        ("PT0S", None),
        ("P", None),
        ("PT", None),
        ("P1DT", None),
        ("P1W", None),
        ("P1Y", None),
        ("PT1.5H", None),
        ("PT１H", None),
        ("", None),
        ("-PT1H", None),
    ],
)
def test_durations(ttl, seconds):
    assert lifetime(ttl) == seconds


@given(
    st.text(max_size=20)
    | st.from_regex(r"P([0-9]{1,6}D)?(T([0-9]{1,8}H)?([0-9]{1,8}M)?([0-9]{1,8}S)?)?", fullmatch=True)
)
def test_no_duration_breaks_the_reader_and_none_is_negative(ttl):
    seconds = lifetime(ttl)
    assert seconds is None or seconds > 0
    assert approvals.invalid("why", seconds, 86_400) is not None or seconds <= 86_400


@given(st.integers(0, 200_000), st.booleans(), st.booleans())
def test_it_never_spins(seconds, running, begun):
    one = approval(status=held("Pending")) if begun else approval()
    wanted = look(one, running=running, now=NOW + timedelta(seconds=seconds))
    assert wanted.after is None or wanted.after >= 1
