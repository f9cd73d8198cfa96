"""The tree of errors."""

import pytest

from kars import errors


def tree(root):
    for child in root.__subclasses__():
        yield child
        yield from tree(child)


def test_the_docstring_draws_every_class():
    for kind in tree(errors.KarsError):
        assert kind.__name__ in (errors.__doc__ or "")


def test_codes_are_unique_where_they_are_given():
    own = [kind.code for kind in tree(errors.KarsError) if "code" in vars(kind)]
    assert len(own) == len(set(own))


@pytest.mark.parametrize(
    ("kind", "expected", "status"),
    [
        ("config", errors.SettingsError, 2),
        ("policy", errors.PolicyError, 1),
        ("io", errors.UnavailableError, 1),
        ("bug", errors.FailureError, 1),
    ],
)
def test_a_core_error_enters_the_tree_by_its_kind(kind, expected, status):
    core = Exception("what was wrong")
    core.kind = kind  # type: ignore[attr-defined]
    error = errors.from_core(core)
    assert type(error) is expected
    assert (str(error), error.exit_status) == ("what was wrong", status)
