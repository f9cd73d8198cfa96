"""Whether a watch would deliver an object."""

import pytest

from kars.kube.selector import accepts

VALUE = {"metadata": {"name": "a", "namespace": "n", "labels": {"app": "x", "tier": "1"}}}


@pytest.mark.parametrize(
    ("labels", "wanted"),
    [
        ("", True),
        ("app=x", True),
        ("app==x,tier=1", True),
        ("app=y", False),
        ("app!=y", True),
        ("none!=y", True),
        ("app!=x", False),
        ("app", True),
        ("!app", False),
        ("!none", True),
        ("none", False),
        ("app=x, tier=2", False),
        ("app in (x,y)", False),
    ],
)
def test_labels(labels, wanted):
    assert accepts(VALUE, labels=labels) is wanted


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ("metadata.name=a", True),
        ("metadata.name=b", False),
        ("metadata.name!=b", True),
        ("metadata.namespace=n,metadata.name=a", True),
        ("spec.nodeName=x", False),
    ],
)
def test_fields(fields, wanted):
    assert accepts(VALUE, fields=fields) is wanted


def test_namespaces():
    assert accepts(VALUE, namespace="n")
    assert not accepts(VALUE, namespace="m")
    assert not accepts({"metadata": {"name": "a"}}, namespace="m")
