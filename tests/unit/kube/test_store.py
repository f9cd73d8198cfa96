"""What is held equals what the server has, in whatever order its states arrive."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from kars.kube.store import Listing, Store, number, older
from kars.kube.types import Key

NAMES = st.sampled_from(["a", "b", "c"])


class Server(RuleBasedStateMachine):
    """A server, its watch, and the answers of our writes, which arrive as late as they like."""

    numbers = True

    def __init__(self):
        super().__init__()
        self.revision = 10
        self.there = {}
        self.log = []  # (event, object) the watch has not delivered yet
        self.late = []  # answers of our own writes that have not arrived
        self.listing = None
        self.changes = []
        self.store = Store(lambda value: value["data"], lambda key, error: pytest.fail(str(error)))
        self.store.position = self.version(self.revision)
        self.mirror = {}

    def version(self, revision):
        return str(revision) if self.numbers else f"v{revision * 7919 % 10007}"

    def write(self, name):
        self.revision += 1
        value = {
            "metadata": {"name": name, "resourceVersion": self.version(self.revision)},
            "data": self.revision,
            "revision": self.revision,
        }
        event = "MODIFIED" if name in self.there else "ADDED"
        self.there[name] = value
        self.log.append((event, value))
        return value

    def take(self, change):
        if change is None:
            return
        assert self.mirror.get(change.key) == change.before
        assert change.before is not None or change.after is not None
        if change.after is None:
            del self.mirror[change.key]
        else:
            self.mirror[change.key] = change.after

    @rule(name=NAMES)
    def somebody_writes(self, name):
        self.write(name)

    @rule(name=NAMES)
    def we_write(self, name):
        self.late.append(self.write(name))

    @rule(name=NAMES)
    def somebody_deletes(self, name):
        if name in self.there:
            self.revision += 1
            gone = self.there.pop(name)
            metadata = {**gone["metadata"], "resourceVersion": self.version(self.revision)}
            self.log.append(("DELETED", {**gone, "metadata": metadata, "revision": self.revision}))

    @precondition(lambda self: self.late)
    @rule(data=st.data())
    def an_answer_arrives(self, data):
        at = data.draw(st.integers(0, len(self.late) - 1))
        self.take(self.store.put(self.late.pop(at)))

    @precondition(lambda self: self.log and self.listing is None)
    @rule(count=st.integers(1, 5))
    def the_watch_delivers(self, count):
        for event, value in self.log[:count]:
            self.take(self.store.told(event, value))
        del self.log[:count]

    @precondition(lambda self: not self.log and self.listing is None)
    @rule()
    def a_bookmark_comes(self):
        self.take(self.store.told("BOOKMARK", {"metadata": {"resourceVersion": self.version(self.revision)}}))

    @precondition(lambda self: self.listing is None)
    @rule()
    def a_list_begins(self):
        objects = [dict(one) for one in self.there.values()]
        self.listing = (Listing(self.store), objects, self.version(self.revision))
        self.log.clear()  # the watch goes on from the list's version

    @precondition(lambda self: self.listing is not None)
    @rule(done=st.booleans())
    def a_list_goes_on(self, done):
        listing, objects, version = self.listing
        for change in listing.page(objects[:1], version):
            self.take(change)
        del objects[:1]
        if done:
            for change in listing.page(objects, version):
                self.take(change)
            for change in listing.finish(version):
                self.take(change)
            self.listing = None

    @invariant()
    def what_was_told_is_what_is_held(self):
        assert self.mirror == {key: kept for key, (_, kept) in self.store.held.items()}

    @invariant()
    def a_write_that_was_taken_in_is_not_undone(self):
        if not self.numbers:
            return
        for version, kept in self.store.held.values():
            assert int(version) == kept

    def teardown(self):
        if self.listing is not None:
            self.a_list_goes_on(True)
        self.the_watch_delivers(len(self.log))
        for value in self.late:
            self.take(self.store.put(value))
        doubtful = [self.store.settle(key, version) for key, version in list(self.store.pending.items())]
        if any(doubtful):
            assert not self.numbers
            self.a_list_begins()
            self.a_list_goes_on(True)
        assert self.mirror == {Key("", name): value["data"] for name, value in self.there.items()}


class Opaque(Server):
    """A server whose versions cannot be ordered."""

    numbers = False


Server.TestCase.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)
Opaque.TestCase.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)
TestNumbers = Server.TestCase
TestOpaque = Opaque.TestCase


def value(version, name="a"):
    return {"metadata": {"name": name, "resourceVersion": version}}


def store():
    return Store(lambda one: one["metadata"]["resourceVersion"], lambda key, error: None)


def test_the_same_version_again_is_no_change():
    held = store()
    assert held.told("ADDED", value("5")) == (Key("", "a"), None, "5")
    assert held.told("MODIFIED", value("5")) is None


def test_a_write_is_not_undone_by_the_events_before_it():
    held = store()
    held.told("ADDED", value("5"))
    assert held.put(value("8")).after == "8"
    assert held.told("MODIFIED", value("6")) is None
    assert held.told("DELETED", value("7")) is None
    assert held.told("ADDED", value("8")) is None
    assert held.told("DELETED", value("9")) == (Key("", "a"), "8", None)


def test_an_answer_that_comes_after_the_deletion_does_not_bring_the_object_back():
    held = store()
    held.told("ADDED", value("5"))
    held.told("DELETED", value("7"))
    assert held.put(value("6")) is None
    assert not held.held


def test_a_list_does_not_drop_what_was_written_after_it():
    held = store()
    listing = Listing(held)
    list(listing.page([value("5", "b")], "6"))
    held.put(value("7"))
    list(listing.finish("6"))
    assert set(held.held) == {Key("", "a"), Key("", "b")}


def test_a_cluster_restored_from_a_backup_replaces_what_is_held():
    held = store()
    held.told("ADDED", value("500"))
    held.told("ADDED", value("501", "b"))
    listing = Listing(held)
    list(listing.page([value("90")], "100"))
    list(listing.finish("100"))
    assert held.held == {Key("", "a"): ("90", "90")}
    assert held.put(value("120")).after == "120"


def test_versions_that_cannot_be_ordered_wait_for_the_write_to_come_by():
    held = store()
    held.told("ADDED", value("x1"))
    assert held.put(value("x3")).after == "x3"
    assert held.told("MODIFIED", value("x2")) is None
    assert held.told("MODIFIED", value("x3")) is None
    assert held.told("MODIFIED", value("x4")).after == "x4"


def test_an_answer_that_comes_after_its_event_is_not_waited_for():
    held = store()
    held.told("ADDED", value("x1"))
    held.told("MODIFIED", value("x2"))
    assert held.put(value("x1")) is None
    assert not held.pending


def test_a_write_that_never_comes_by_asks_for_a_list():
    held = store()
    held.put(value("x3"))
    assert held.told("MODIFIED", value("x9")) is None
    assert not held.settle(Key("", "a"), "other")
    assert held.settle(Key("", "a"), "x3")
    assert held.told("MODIFIED", value("x10")).after == "x10"


def test_an_object_that_cannot_be_kept_leaves_the_state_before():
    faults = []

    def keep(one):
        if one["metadata"]["resourceVersion"] == "6":
            raise KeyError("spec")
        return one["metadata"]["resourceVersion"]

    held = Store(keep, lambda key, error: faults.append((key, type(error))))
    held.told("ADDED", value("5"))
    assert held.told("MODIFIED", value("6")) is None
    assert held.held[Key("", "a")][1] == "5"
    assert faults == [(Key("", "a"), KeyError)]
    assert held.told("MODIFIED", value("7")).after == "7"


@pytest.mark.parametrize("text", ["", "0", "01", "-1", "1.0", "²", "1" * 40, "x"])
def test_only_decimal_numbers_are_ordered(text):
    assert not number(text)
    assert not older(text, "5")
    assert not older("5", text)
