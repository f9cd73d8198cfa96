"""The valid sample resources as structs, and ways to make more."""

from kars.model.decode import decode
from kars.policy.compiled.outcome import Given
from tests.unit.model.vectors import VALID

RESOURCES = [decode(document) for documents in VALID.values() for document in documents]


def of(kind):
    return [one for one in RESOURCES if type(one) is kind]


def make(kind, spec, name="demo", namespace="team-a", **metadata):
    return decode(
        {
            "apiVersion": "kars.azure.com/v1alpha1",
            "kind": kind,
            "metadata": {"name": name, "namespace": namespace, "uid": "6f1c2b3a-0000", **metadata},
            "spec": spec,
        }
    )


# What an artifact of each kind could say.
CONTENT = {
    "InferencePolicy": {"tokenBudget": {"dailyTokens": 5}, "displayName": "signed"},
    "KarsMemory": {"storeName": "signed", "scope": "agent_signed", "retentionDays": 7},
    "McpServer": {"url": "https://mcp.example.com/", "allowedTools": ["*"]},
}


def given(resource, **more):
    """What a sample needs: content for a bundle, a body for a profile or a corpus."""
    body = b'{"schemaVersion":"v1","name":"x","cases":[{"id":"a","scenario":{"kind":"MemoryRead","scope":"s","key":"k"},"expect":{"decision":"Blocked"}}]}'
    return Given(
        content=CONTENT.get(type(resource).__name__),
        body=body,
        bundle_digest="sha256:" + "ab" * 32,
        key_set=b'{"keys":[]}',
        **more,
    )
