"""The demo's parts: following the audit log, choosing ports, and processes that do not come up."""

import json
import socket
import sys

import pytest

from kars.errors import UnavailableError
from kars.local import follow, ports, tour

RECORD = {
    "ts": "2026-11-21T17:40:01Z",
    "decision": "allow",
    "action": "inference:chat_completions:demo",
    "call": {"status": 200, "input_tokens": 12, "output_tokens": 34, "latency_us": 5600, "end": "complete"},
}


def lines(tail):
    return [record["n"] for record in tail.records()]


def test_the_tail_yields_whole_lines_only_and_goes_on_where_it_was(tmp_path):
    log = tmp_path / "2026-11-21.jsonl"
    log.write_bytes(b'{"n":1}\n{"n":')
    tail = follow.Tail(tmp_path)
    assert lines(tail) == [1]
    with log.open("ab") as file:
        file.write(b'2}\n{"n":3}\n')
    assert lines(tail) == [2, 3]
    assert lines(tail) == []
    tail.close()


def test_the_tail_finishes_the_old_file_before_the_new_day(tmp_path):
    old = tmp_path / "2026-11-21.jsonl"
    old.write_bytes(b'{"n":1}\n')
    tail = follow.Tail(tmp_path)
    assert lines(tail) == [1]
    with old.open("ab") as file:
        file.write(b'{"n":2}\n')
    (tmp_path / "2026-11-22.jsonl").write_bytes(b'{"n":3}\n')
    assert lines(tail) == [2, 3]
    tail.close()


def test_a_line_that_is_no_record_is_left_out(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'nonsense\n[1]\n\n{"n":1}\n')
    tail = follow.Tail(tmp_path)
    assert lines(tail) == [1]
    tail.close()


def test_a_call_is_one_line():
    shown = follow.line(RECORD, colour=False)
    assert "\n" not in shown
    for part in ("17:40:01", "allow", "200", "inference:chat_completions:demo", "12+34 tokens", "5.6 ms", "complete"):
        assert part in shown


def test_a_denial_names_its_rule_and_is_red():
    shown = follow.line(
        {**RECORD, "decision": "deny", "call": {"status": 429, "rule": "tokenBudget.dailyTokens"}}, colour=True
    )
    assert shown.startswith(follow.RED)
    assert shown.endswith(follow.OFF)
    assert "tokenBudget.dailyTokens" in shown


def test_a_record_with_unknown_fields_and_types_still_has_a_line():
    assert follow.line({"call": {"status": "x"}, "ts": 5}, colour=False)
    assert follow.line({"call": 3}, colour=False)


def test_a_free_preferred_port_is_taken_and_a_busy_one_is_passed():
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]
        assert ports.free(port) != port
    assert ports.free(port) == port
    assert ports.free(port, taken=frozenset({port})) != port


def test_the_chosen_ports_differ():
    assert len(set(tour.choose(None))) == 4


@pytest.fixture
def running(tmp_path):
    with tour.Tour(port=1, egress_port=4, model_port=2, metrics_port=3, state=tmp_path) as made:
        yield made


def test_a_process_that_ends_early_is_reported_with_its_last_words(running):
    process = running.spawn([sys.executable, "-c", "print('no room'); raise SystemExit(7)"], {})
    with pytest.raises(UnavailableError, match="status 7") as caught:
        running.await_true(lambda: False, process, "it")
    assert "no room" in caught.value.hint


def test_leaving_ends_every_process(tmp_path):
    with tour.Tour(port=1, egress_port=4, model_port=2, metrics_port=3, state=tmp_path) as running:
        process = running.spawn([sys.executable, "-c", "import time; time.sleep(60)"], {})
    assert process.poll() is not None
    assert tmp_path.exists()


def test_a_temporary_state_goes_with_the_demo():
    with tour.Tour(port=1, egress_port=4, model_port=2, metrics_port=3, state=None) as running:
        assert running.state.is_dir()
    assert not running.state.exists()


def test_a_process_that_ends_while_watching_is_an_error(running):
    running.audit.mkdir()
    (running.audit / "a.jsonl").write_text(json.dumps(RECORD) + "\n")
    shown = []
    process = running.spawn([sys.executable, "-c", "raise SystemExit(9)"], {})
    process.wait()
    with pytest.raises(UnavailableError, match="status 9"):
        running.watch(shown.append, colour=False)
    assert len(shown) == 1
