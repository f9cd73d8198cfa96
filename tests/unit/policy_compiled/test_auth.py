"""The token sidecar's variables."""

import pytest

from kars.policy.compiled import auth
from kars.policy.compiled.outcome import Given, Unfit
from tests.unit.policy_compiled.samples import make

SPEC = {
    "tenant": {"tenantId": "t"},
    "agentId": {"blueprintClientId": "b", "blueprintObjectId": "o"},
    "controller": {"managedIdentityClientId": "mi"},
}


def render(**more):
    (made,) = auth.render(make("KarsAuthConfig", {**SPEC, **more}, name="default", namespace=""), Given()).objects
    return made


def test_the_sidecar_is_told_tenant_blueprint_and_credential():
    made = render()
    assert made["metadata"]["name"] == "kars-auth-sidecar-env" and made["metadata"]["namespace"] == "kars-system"
    assert made["data"] == {
        "AzureAd__Instance": "https://login.microsoftonline.com/",
        "AzureAd__TenantId": "t",
        "AzureAd__ClientId": "b",
        "AzureAd__ClientCredentials__0__SourceType": "SignedAssertionFromManagedIdentity",
        "AzureAd__ClientCredentials__0__ManagedIdentityClientId": "mi",
    }
    assert made["metadata"]["annotations"]["kars.azure.com/blueprint-client-id"] == "b"


def test_a_federated_token_needs_no_managed_identity():
    data = render(controller={"credentialMode": "WorkloadIdentity"})["data"]
    assert data["AzureAd__ClientCredentials__0__SourceType"] == "SignedAssertionFilePath"
    assert not any("ManagedIdentity" in name for name in data)


def test_apis_are_sections_and_scopes_are_numbered():
    api = {
        "baseUrl": "https://graph.microsoft.com/v1.0",
        "scopes": ["User.Read", "Mail.Read"],
        "requestAppToken": False,
    }
    data = render(downstreamApis={"Graph": api}, meshAuthBackend="EntraAgentIdentity", meshAuthAudience="api://mesh")[
        "data"
    ]
    assert data["DownstreamApis__Graph__BaseUrl"] == "https://graph.microsoft.com/v1.0"
    assert [data[f"DownstreamApis__Graph__Scopes__{n}"] for n in (0, 1)] == ["User.Read", "Mail.Read"]
    assert data["DownstreamApis__Graph__RequestAppToken"] == "false"
    assert data["DownstreamApis__AgentMesh__Scopes__0"] == "api://mesh/.default"


@pytest.mark.parametrize("name", ["a__b", "a b", "", "a=b", "-a", "x/y"])
def test_a_name_that_would_reach_into_other_sections_is_refused(name):
    with pytest.raises(Unfit, match="downstreamApis") as refused:
        render(downstreamApis={name: {"baseUrl": "https://a.example"}})
    assert refused.value.reason == "SpecInvalid"


def test_the_hash_moves_with_the_spec():
    hashes = {
        one["metadata"]["annotations"]["kars.azure.com/auth-config-spec-hash"]
        for one in (render(), render(), render(tenant={"tenantId": "u"}))
    }
    assert len(hashes) == 2
