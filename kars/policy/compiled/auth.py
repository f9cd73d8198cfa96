"""KarsAuthConfig: the variables of the token sidecar, as its configuration names them (Microsoft.Identity.Web).

It asks for tokens of the blueprint, by the managed identity or by the pod's own federated token, and knows the APIs
that sandboxes may get tokens for. Nothing in here is secret.
"""

from __future__ import annotations

import re

import msgspec

from kars.model.auth import KarsAuthConfig, KarsAuthConfigSpec
from kars.policy.compiled.canonical import compact, version_hash
from kars.policy.compiled.outcome import Compiled, Given, Unfit, config_map

NAME = "kars-auth-sidecar-env"
# How the router names the mesh to the sidecar.
MESH_API = "AgentMesh"
# A section of the sidecar's configuration: `__` would begin another one below it.
API_NAME = re.compile(r"[A-Za-z0-9](?:_?[A-Za-z0-9-])*", re.ASCII)
SOURCES = {
    "ManagedIdentityImds": "SignedAssertionFromManagedIdentity",
    "WorkloadIdentity": "SignedAssertionFilePath",
}


def render(config: KarsAuthConfig, given: Given) -> Compiled:
    """Return the ConfigMap `kars-auth-sidecar-env`, in the controller's namespace."""
    spec = config.spec
    variables = {**credentials(spec), **apis(spec)}
    made = config_map(
        NAME,
        namespace=given.namespace,
        labels={"artifact": "auth-sidecar-env"},
        annotations={
            "auth-config-spec-hash": version_hash(compact(msgspec.to_builtins(spec))),
            "blueprint-client-id": spec.agent_id.blueprint_client_id,
        },
        data={name: value.encode() for name, value in variables.items()},
    )
    return Compiled(objects=(made,))


def credentials(spec: KarsAuthConfigSpec) -> dict[str, str]:
    """Return the tenant, the blueprint, and how the sidecar proves that it may act for it."""
    source = SOURCES.get(spec.controller.credential_mode)
    if source is None:
        raise Unfit("InvalidCredentialMode", f"controller.credentialMode is not one of {', '.join(SOURCES)}")
    variables = {
        "AzureAd__Instance": spec.tenant.authority_host,
        "AzureAd__TenantId": spec.tenant.tenant_id,
        "AzureAd__ClientId": spec.agent_id.blueprint_client_id,
        "AzureAd__ClientCredentials__0__SourceType": source,
    }
    identity = spec.controller.managed_identity_client_id
    if spec.controller.credential_mode == "ManagedIdentityImds":
        if identity is None:
            raise Unfit("InvalidCredentialMode", "ManagedIdentityImds needs managedIdentityClientId")
        variables["AzureAd__ClientCredentials__0__ManagedIdentityClientId"] = identity
    return variables


def apis(spec: KarsAuthConfigSpec) -> dict[str, str]:
    """Return the APIs that sandboxes may get tokens for, by name."""
    variables: dict[str, str] = {}
    for name, api in sorted(spec.downstream_apis.items()):
        if not API_NAME.fullmatch(name):
            raise Unfit("SpecInvalid", f"downstreamApis.{name}: a name has letters, digits, '-' and single '_' only")
        section = f"DownstreamApis__{name}"
        variables[f"{section}__BaseUrl"] = api.base_url
        variables |= {f"{section}__Scopes__{at}": scope for at, scope in enumerate(api.scopes)}
        variables[f"{section}__RequestAppToken"] = str(api.request_app_token).lower()
    if (
        spec.mesh_auth_backend == "EntraAgentIdentity"
        and spec.mesh_auth_audience
        and MESH_API not in spec.downstream_apis
    ):
        audience = spec.mesh_auth_audience
        scope = audience if audience.endswith("/.default") else f"{audience.rstrip('/')}/.default"
        variables[f"DownstreamApis__{MESH_API}__Scopes__0"] = scope
        variables[f"DownstreamApis__{MESH_API}__RequestAppToken"] = "true"
    return variables
