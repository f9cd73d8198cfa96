"""The engine on a real API server: what it asks for, what it writes, and what it does not."""

import pytest

from tests.cluster.controlling import Running, Toy, install_crds, policy

POLICIES = "/apis/kars.azure.com/v1alpha1/namespaces/{}/inferencepolicies"


@pytest.fixture(scope="session")
def kars_plane(plane):
    install_crds(plane)
    return plane


def create(plane, namespace, name, **more):
    return plane.api.create(POLICIES.format(namespace), policy(name, namespace, **more))


def read(plane, namespace, name):
    return plane.api.get(f"{POLICIES.format(namespace)}/{name}")


def is_ready(plane, namespace, name):
    status = read(plane, namespace, name).get("status") or {}
    return any(one["type"] == "Ready" and one["status"] == "True" for one in status.get("conditions", ()))


def test_a_resource_gets_its_finalizer_its_object_and_its_status_by_three_requests(kars_plane, namespace):
    with Running(kars_plane, [Toy()]) as running:
        create(kars_plane, namespace, "one")
        kars_plane.wait(lambda: is_ready(kars_plane, namespace, "one"))
        assert running.requests() == {("PATCH", "inferencepolicies"): 2, ("PATCH", "configmaps"): 1}
        found = read(kars_plane, namespace, "one")
        assert found["metadata"]["finalizers"] == [Toy.finalizer]
        assert found["status"]["observedGeneration"] == 1
    assert running.status == 0
