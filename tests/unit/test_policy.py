"""Finding, reading and publishing mounted bundles."""

import os

import pytest

from kars.errors import NotFoundError, PolicyError
from kars.policy import kinds, load, publish

KIND = kinds.INFERENCE


def mount(directory, generation, content):
    """Lay a mount out as the kubelet does: a dated directory, `..data` swapped to it, and links through it."""
    dated = directory / f"..{generation}"
    dated.mkdir()
    (dated / "inference-policy.json").write_bytes(content)
    fresh = directory / "..data_tmp"
    fresh.symlink_to(dated.name)
    os.replace(fresh, directory / "..data")
    link = directory / "inference-policy.json"
    if not link.is_symlink():
        link.symlink_to("..data/inference-policy.json")


def held(directory, kind=KIND):
    """What a mount holds, comparable."""
    bundle = load.mounted(str(directory), kind)
    return bundle and (bundle.source, bundle.files, bundle.problems)


def test_a_swapped_mount_is_read_through_its_links(tmp_path):
    mount(tmp_path, 1, b"one")
    path = str(tmp_path / "inference-policy.json")
    assert held(tmp_path) == (path, [("inference-policy.json", b"one")], [])
    mount(tmp_path, 2, b"two")
    assert held(tmp_path) == (path, [("inference-policy.json", b"two")], [])


def test_the_first_file_in_sort_order_with_the_suffix_is_the_bundle(tmp_path):
    for name in ("b.json", "a.json", ".hidden.json", "0.yaml"):
        (tmp_path / name).write_text(name)
    (tmp_path / "0.json").mkdir()
    assert held(tmp_path) == (str(tmp_path / "a.json"), [("inference-policy.json", b"a.json")], [])


def test_approvals_are_all_files_of_their_name_in_sort_order_under_their_own_names(tmp_path):
    for name in ("approval-b.json", "approval-a.json", "approval-.txt", ".approval-c.json", "allowlist.json"):
        (tmp_path / name).write_text(name)
    files = [(name, name.encode()) for name in ("approval-a.json", "approval-b.json")]
    assert held(tmp_path, kinds.APPROVAL) == (str(tmp_path), files, [])


def test_more_approvals_than_any_mount_holds_are_told_and_passed_over(tmp_path, monkeypatch):
    monkeypatch.setattr(load, "MAX_FILES", 2)
    for number in range(3):
        (tmp_path / f"approval-{number}.json").write_text("{}")
    _, files, problems = held(tmp_path, kinds.APPROVAL)
    assert len(files) == 2
    assert "3 files" in problems[0]


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir(), lambda path: path.touch()])
def test_an_absent_or_empty_mount_holds_nothing(tmp_path, make):
    make(tmp_path / "mount")
    assert load.mounted(str(tmp_path / "mount"), KIND) is None


def test_a_file_above_the_bound_is_refused(tmp_path):
    (tmp_path / "p.json").write_bytes(b" " * (load.MAX_BYTES + 1))
    with pytest.raises(PolicyError, match=str(load.MAX_BYTES)):
        load.mounted(str(tmp_path), KIND)


def test_a_file_at_the_bound_is_read_whole(tmp_path):
    (tmp_path / "p.json").write_bytes(b" " * load.MAX_BYTES)
    assert len(load.read(str(tmp_path / "p.json"))) == load.MAX_BYTES


def test_a_file_that_vanishes_between_listing_and_reading_is_looked_for_again(tmp_path, monkeypatch):
    (tmp_path / "p.json").write_text("{}")
    reads = []

    def read(path):
        reads.append(path)
        if len(reads) == 1:
            raise NotFoundError("gone")
        return b"{}"

    monkeypatch.setattr(load, "read", read)
    assert held(tmp_path) == (str(tmp_path / "p.json"), [("inference-policy.json", b"{}")], [])


def test_a_file_that_always_vanishes_counts_as_absent(tmp_path, monkeypatch):
    (tmp_path / "p.json").write_text("{}")

    def read(path):
        raise NotFoundError("gone")

    monkeypatch.setattr(load, "read", read)
    assert load.mounted(str(tmp_path), KIND) is None


def test_reading_a_file_that_is_not_there_is_not_found(tmp_path):
    with pytest.raises(NotFoundError):
        load.read(str(tmp_path / "none.json"))


class Compiled(tuple):  # noqa: SLOT001 - it carries problems beside its parts
    """What stands for a snapshot: kind and files, comparable."""

    def __new__(cls, *parts, problems=()):
        made = super().__new__(cls, parts)
        made.problems = list(problems)
        return made


@pytest.fixture
def compiler(monkeypatch):
    """A compiler that takes what starts with a brace, and passes over approvals that do not."""

    def compile_bundle(kind, files):
        bad = [name for name, data in files if not data.startswith(b"{")]
        if bad and kind.file:
            raise PolicyError("line 1: not an object")
        return Compiled(kind.name, *(file for file in files if file[0] not in bad), problems=bad)

    monkeypatch.setattr(publish, "compile_bundle", compile_bundle)


@pytest.mark.usefixtures("compiler")
class TestPublishing:
    def test_a_valid_bundle_is_applied(self, fake_engine, tmp_path):
        (tmp_path / "inference-policy.json").write_text("{}")
        engine = fake_engine(directories={"InferencePolicy": str(tmp_path)})
        publish.publish_all(engine)
        assert engine.calls == [("apply", ("InferencePolicy", ("inference-policy.json", b"{}")))]

    def test_a_bad_bundle_is_refused_with_its_path_and_reason(self, fake_engine, tmp_path):
        path = tmp_path / "inference-policy.json"
        path.write_text("nonsense")
        engine = fake_engine(directories={"InferencePolicy": str(tmp_path)})
        publish.publish_all(engine)
        assert engine.calls == [("refuse", "InferencePolicy", str(path), "line 1: not an object")]

    def test_an_absent_mount_is_cleared(self, fake_engine, tmp_path):
        engine = fake_engine(directories={"InferencePolicy": str(tmp_path / "none")})
        publish.publish_all(engine)
        assert engine.calls == [("clear", "InferencePolicy")]

    def test_a_file_that_is_too_large_is_refused_and_nothing_else_changes(self, fake_engine, tmp_path):
        (tmp_path / "p.json").write_bytes(b"{" * (load.MAX_BYTES + 1))
        engine = fake_engine(directories={"InferencePolicy": str(tmp_path)})
        publish.publish_all(engine)
        assert [call[0] for call in engine.calls] == ["refuse"]

    def test_the_allowlist_is_published_before_the_approvals_that_add_to_it(self, fake_engine, tmp_path):
        (tmp_path / "allowlist.json").write_text("{}")
        (tmp_path / "approval-b.json").write_text("{2}")
        (tmp_path / "approval-a.json").write_text("{1}")
        directory = str(tmp_path)
        engine = fake_engine(directories={"EgressApproval": directory, "EgressAllowlist": directory})
        publish.publish_all(engine)
        assert engine.calls == [
            ("apply", ("EgressAllowlist", ("allowlist.json", b"{}"))),
            ("apply", ("EgressApproval", ("approval-a.json", b"{1}"), ("approval-b.json", b"{2}"))),
        ]

    def test_a_bad_allowlist_is_refused_and_a_missing_one_cleared(self, fake_engine, tmp_path):
        path = tmp_path / "allowlist.json"
        path.write_text("nonsense")
        engine = fake_engine(directories={"EgressAllowlist": str(tmp_path)})
        publish.publish_all(engine)
        path.unlink()
        publish.publish_all(engine)
        assert engine.calls == [
            ("refuse", "EgressAllowlist", str(path), "line 1: not an object"),
            ("clear", "EgressAllowlist"),
        ]

    def test_without_approvals_they_are_cleared(self, fake_engine, tmp_path):
        (tmp_path / "other.json").write_text("{}")
        engine = fake_engine(directories={"EgressApproval": str(tmp_path)})
        publish.publish_all(engine)
        engine.directories["EgressApproval"] = str(tmp_path / "none")
        publish.publish_all(engine)
        assert engine.calls == [("clear", "EgressApproval")] * 2

    def test_an_approval_that_cannot_be_read_takes_none_of_the_others_with_it(self, fake_engine, tmp_path):
        (tmp_path / "approval-a.json").write_text("{}")
        (tmp_path / "approval-b.json").write_bytes(b"{" * (load.MAX_BYTES + 1))
        (tmp_path / "approval-c.json").write_text("nonsense")
        engine = fake_engine(directories={"EgressApproval": str(tmp_path)})
        publish.publish_all(engine)
        applied, refused = engine.calls
        assert applied == ("apply", ("EgressApproval", ("approval-a.json", b"{}")))
        assert refused[:3] == ("refuse", "EgressApproval", str(tmp_path))
        assert "approval-b.json: more than" in refused[3]
        assert "approval-c.json" in refused[3]

    def test_a_kind_of_a_newer_core_is_left_alone(self, fake_engine, tmp_path):
        engine = fake_engine(directories={"Tomorrow": str(tmp_path)})
        publish.publish_all(engine)
        assert engine.calls == []
