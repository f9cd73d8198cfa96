"""Lines of a watch, however the network cuts them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kars.kube.lines import Lines, TooLong


def feed(chunks, limit=1 << 20):
    lines = Lines(limit)
    found = [line for chunk in chunks for line in lines.feed(chunk)]
    return found, lines


@given(st.lists(st.binary(max_size=40)), st.data())
def test_any_cut_gives_the_same_lines(chunks, data):
    whole = b"".join(chunks)
    found, lines = feed(chunks)
    *ended, rest = whole.split(b"\n")
    assert found == [one for one in (part.removesuffix(b"\r") for part in ended) if one]
    assert lines.incomplete() == bool(rest)


@given(st.lists(st.binary(max_size=30)), st.integers(1, 20))
def test_never_holds_more_than_the_bound_and_a_chunk(chunks, limit):
    lines = Lines(limit)
    for chunk in chunks:
        try:
            found = list(lines.feed(chunk))
        except TooLong:
            assert any(len(part) > limit for part in b"".join(chunks).split(b"\n"))
            return
        assert all(len(line) <= limit for line in found)
        assert sum(map(len, lines.parts)) <= limit


def test_a_line_of_the_bound_passes_and_one_byte_more_does_not():
    assert feed([b"abc\n"], 3)[0] == [b"abc"]
    with pytest.raises(TooLong):
        feed([b"abcd"], 3)
