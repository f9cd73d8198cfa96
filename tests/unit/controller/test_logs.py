"""Log lines are JSON, bear what is being reconciled, and never break over one odd value."""

import asyncio
import io
import json
import logging

import pytest

from kars.controller import logs


@pytest.fixture
def stream():
    root = logging.getLogger()
    before, level, own = root.handlers[:], root.level, logging.getLogger("kars").level
    made = io.StringIO()
    logs.begin("info", made)
    yield made
    root.handlers[:], root.level = before, level
    logging.getLogger("kars").setLevel(own)


def lines(stream):
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_has_time_level_message_and_what_was_given(stream):
    logging.getLogger("kars.controller.engine").info("engine.refused", extra={"error": "no\nway", "seconds": 1.5})
    (line,) = lines(stream)
    assert line["level"] == "info"
    assert (line["msg"], line["error"], line["seconds"]) == ("engine.refused", "no\nway", 1.5)
    assert line["logger"] == "kars.controller.engine"
    assert line["time"].endswith("Z")


def test_a_task_bears_its_own_context_and_no_other_does(stream):
    log = logging.getLogger("kars.x")

    async def reconcile(key):
        with logs.about(controller="KarsSandbox", key=key, reconcile=key):
            await asyncio.sleep(0)
            log.info("looked")

    async def both():
        await asyncio.gather(reconcile("a"), reconcile("b"))
        log.info("after")

    asyncio.run(both())
    assert [line.get("key") for line in lines(stream)] == ["a", "b", None]


def test_an_exception_comes_with_its_trace_on_the_same_line(stream):
    try:
        raise ValueError("boom")
    except ValueError:
        logging.getLogger("kars.x").exception("engine.failed")
    (line,) = lines(stream)
    assert "ValueError: boom" in line["trace"]
    assert "test_logs.py" in line["trace"]


def test_long_and_odd_values_are_cut_and_written(stream):
    logging.getLogger("kars.x").info("odd", extra={"long": "x" * 100_000, "odd": object(), "none": None})
    (line,) = lines(stream)
    assert len(line["long"]) == logs.LONGEST
    assert line["none"] is None


def test_others_are_heard_from_warnings_on(stream):
    logging.getLogger("aiohttp.access").info("hello")
    logging.getLogger("asyncio").warning("slow")
    logging.getLogger("kars.x").debug("quiet")
    assert [line["msg"] for line in lines(stream)] == ["slow"]


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ("info", logging.INFO),
        ("DEBUG", logging.DEBUG),
        ("info,kars_controller=debug", logging.DEBUG),
        ("kars_controller=warn,hyper=debug", logging.WARNING),
        ("hyper=debug", logging.INFO),
        ("", logging.INFO),
    ],
)
def test_a_level_is_a_word_or_our_part_of_a_filter(text, level):
    assert logs.level_of(text) == level


def test_a_word_that_is_no_level_is_refused():
    with pytest.raises(ValueError, match="loud"):
        logs.level_of("loud")
