"""Message boundaries: where the router accepts a byte stream, no other parser sees other messages in it.

A proxy and the server behind it that disagree on where a request ends let an attacker smuggle a second
one past policy. So everything that any two parsers read differently has to be refused by ours.
"""

from __future__ import annotations

from itertools import combinations

import pytest

from .boundaries.corpus import Case, corpus
from .boundaries.peers import Message, Seen, available, ours

#: The first run builds the parsers.
pytestmark = pytest.mark.timeout(600)

CASES = corpus()


@pytest.fixture(scope="module")
def views() -> dict[str, dict[str, Seen]]:
    """Each parser's view of each stream: case name to parser name to what it saw."""
    peers = available()
    if len(peers) < 3:
        pytest.skip("fewer than three other HTTP parsers are installed")
    streams = [case.stream for case in CASES]
    seen = {name: read(streams) for name, read in ({"ours": ours} | peers).items()}
    return {case.name: {name: seen[name][i] for name in seen} for i, case in enumerate(CASES)}


def begins(longer: list[Message], shorter: list[Message]) -> bool:
    return longer[: len(shorter)] == shorter


def agree(one: Seen, other: Seen) -> bool:
    """Whether two parsers that accept a stream see the same; one that closed early saw the start of it."""
    if one.closed or other.closed:
        return begins(one.messages, other.messages) or begins(other.messages, one.messages)
    return one.messages == other.messages


def test_the_corpus_is_large_and_its_names_are_unique() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 150


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_no_parser_sees_other_messages_than_ours(case: Case, views: dict[str, dict[str, Seen]]) -> None:
    others = dict(views[case.name])
    own = others.pop("ours")
    if case.verdict is not None:
        assert own.verdict == case.verdict
    for name, seen in others.items():
        if own.verdict == "ok" and not seen.refused:
            assert agree(own, seen), name
        elif own.verdict == "refused":
            # What came before the refusal has been forwarded.
            assert begins(seen.messages, own.messages) or begins(own.messages, seen.messages), name
        else:
            # A message that is whole elsewhere and unfinished here would be waited for, or cut, wrongly.
            assert begins(own.messages, seen.messages), name


def test_everything_that_two_others_read_differently_is_refused(views: dict[str, dict[str, Seen]]) -> None:
    disputed = {}
    for name, seen in views.items():
        accepted = [view for peer, view in seen.items() if peer != "ours" and not view.refused]
        if not all(agree(one, other) for one, other in combinations(accepted, 2)):
            disputed[name] = seen["ours"].verdict
    assert {name for name, verdict in disputed.items() if verdict == "ok"} == set()
    assert len(disputed) >= 5, "the corpus holds too little that parsers dispute"
