"""The one reader of the environment."""

import io

import pytest

from kars import settings


def test_the_block_is_nul_separated_and_overrides_win():
    block = settings.block({"B": "2", "C": "3"}, environ={b"A": b"1", b"B": b"1"})
    assert block.split(b"\0") == [b"A=1", b"B=2", b"C=3"]


def test_bytes_that_are_no_text_pass_through_unchanged():
    assert settings.block(environ={b"A": b"\xff\xfe"}) == b"A=\xff\xfe"


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("environ", "stream", "expected"),
    [
        ({}, Terminal(), True),
        ({}, io.StringIO(), False),
        ({"NO_COLOR": "1"}, Terminal(), False),
        ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, Terminal(), False),
        ({"NO_COLOR": ""}, Terminal(), True),
        ({"FORCE_COLOR": "1"}, io.StringIO(), True),
        ({"TERM": "dumb"}, Terminal(), False),
    ],
)
def test_colour_is_for_terminals_and_no_color_wins(environ, stream, expected):
    assert settings.colours(stream, environ=environ) is expected
