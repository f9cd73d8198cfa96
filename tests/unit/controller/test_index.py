"""Who depends on what, kept change by change."""

from hypothesis import given
from hypothesis import strategies as st

from kars.controller.index import Index
from kars.kube.types import Key

NAMES = st.sampled_from("abcde")
TARGETS = st.frozensets(st.tuples(st.sampled_from(["ConfigMap", "Secret"]), NAMES.map(lambda name: Key("n", name))))


@given(st.lists(st.tuples(NAMES, TARGETS)))
def test_an_index_says_what_a_search_would(changes):
    index, known = Index(), {}
    for name, targets in changes:
        index.put(Key("n", name), targets)
        known[Key("n", name)] = targets
    for kind in ("ConfigMap", "Secret"):
        for name in "abcde":
            target = (kind, Key("n", name))
            assert index.find(*target) == {who for who, targets in known.items() if target in targets}


def test_nothing_is_kept_of_who_depends_on_nothing():
    index = Index()
    index.put(Key("n", "a"), [("Secret", Key("n", "b"))])
    index.put(Key("n", "a"), ())
    assert not index.targets
    assert not index.dependants
