"""The static conformance list (spec C1 to C13): definitions first, then what the chart installs.

C7 to C10 and C13 are held in test_render.py for every combination of values; here for the default installation.
"""

import pytest
import yaml

from tests.chart.rendered import CHART, helm, one, pods, render

DEFINITIONS = [
    each for each in yaml.safe_load_all(helm("template", "crds", str(CHART.parent / "kars-crds")).stdout) if each
]


def versions(definition):
    return definition["spec"]["versions"]


def schema(definition):
    return versions(definition)[0]["schema"]["openAPIV3Schema"]


def rules(part):
    """Every CEL rule of a schema."""
    if isinstance(part, dict):
        yield from part.get("x-kubernetes-validations", [])
        for member in part.values():
            yield from rules(member)


def test_there_are_twelve_definitions():
    assert len(DEFINITIONS) == 12


@pytest.mark.parametrize("definition", DEFINITIONS, ids=lambda each: each["spec"]["names"]["singular"])
class TestDefinition:
    def test_c1_one_version_is_served_and_stored(self, definition):
        assert [each["name"] for each in versions(definition) if each["served"] and each["storage"]] == ["v1alpha1"]

    def test_c2_it_has_printer_columns(self, definition):
        assert versions(definition)[0]["additionalPrinterColumns"]

    def test_c3_its_conditions_are_a_list_by_type(self, definition):
        conditions = schema(definition)["properties"]["status"]["properties"]["conditions"]
        assert conditions["type"] == "array"
        assert conditions["x-kubernetes-list-type"] == "map" and conditions["x-kubernetes-list-map-keys"] == ["type"]

    def test_c4_its_schema_is_structural(self, definition):
        assert schema(definition)["type"] == "object"
        assert schema(definition)["properties"]["spec"]["type"] == "object"

    def test_c5_it_has_rules(self, definition):
        assert all(
            rule["rule"] and rule.get("message", rule.get("messageExpression")) for rule in rules(schema(definition))
        )
        assert list(rules(schema(definition)))

    def test_c6_its_status_is_a_subresource(self, definition):
        assert versions(definition)[0]["subresources"]["status"] == {}

    def test_c10_it_is_labelled(self, definition):
        assert definition["metadata"]["labels"]["app.kubernetes.io/name"] == "kars"

    def test_c11_it_says_whether_it_has_namespaces(self, definition):
        cluster = definition["spec"]["names"]["kind"] in {"TrustGraph", "KarsAuthConfig"}
        assert definition["spec"]["scope"] == ("Cluster" if cluster else "Namespaced")

    def test_c12_a_column_shows_how_it_is(self, definition):
        paths = [each["jsonPath"] for each in versions(definition)[0]["additionalPrinterColumns"]]
        assert any(path.startswith((".status.phase", ".status.conditions")) for path in paths)


def test_c7_deployments_have_both_probes():
    for name, pod in pods(render()):
        if name.startswith("Deployment/"):
            assert all({"livenessProbe", "readinessProbe"} <= set(container) for container in pod["containers"])


def test_c8_the_operators_namespace_denies_by_default():
    assert one(render(), "NetworkPolicy", "kars-system-default-deny")["spec"]["podSelector"] == {}


def test_c9_every_image_has_a_tag_or_digest():
    for _, pod in pods(render()):
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            assert ":" in container["image"].rpartition("/")[2] or "@sha256:" in container["image"]


def test_c13_deployments_do_not_run_as_root_and_have_a_seccomp_profile():
    for name, pod in pods(render()):
        assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["seccompProfile"], name
