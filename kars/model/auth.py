"""KarsAuthConfig: how sandboxes of this cluster get Entra agent identities. There is one, named default."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from msgspec import Meta

from kars.model.base import AGE, PHASE, WHY, Column, Model, Names, Resource, Rule, doc, unique
from kars.model.common import Conditions, Count, HttpsUrl, Identifier, ObservedGeneration, Url, empty


class Tenant(Model):
    """The Entra tenant."""

    tenant_id: Annotated[Identifier, doc("Id of the tenant.")]
    authority_host: Annotated[HttpsUrl, doc("Where tokens are issued.")] = "https://login.microsoftonline.com/"
    service_management_reference: Annotated[Identifier | None, doc("Reference for service management.")] = None


class AgentId(Model):
    """The blueprint of the identities."""

    blueprint_client_id: Annotated[Identifier, doc("Client id of the blueprint.")]
    blueprint_object_id: Annotated[Identifier, doc("Object id of the blueprint.")]
    sponsor_user_object_ids: Annotated[
        Annotated[tuple[Identifier, ...], unique(most=32)], doc("Users who answer for the identities.")
    ] = ()


class ControllerIdentity(Model):
    """The controller's own credential."""

    credential_mode: Annotated[
        Literal["ManagedIdentityImds", "WorkloadIdentity"], doc("How the controller gets tokens.")
    ] = "ManagedIdentityImds"
    managed_identity_client_id: Annotated[Identifier | None, doc("Client id of the managed identity.")] = None
    managed_identity_resource_id: Annotated[Identifier | None, doc("Resource id of the managed identity.")] = None
    managed_identity_principal_id: Annotated[Identifier | None, doc("Principal id of the managed identity.")] = None

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.credentialMode != 'ManagedIdentityImds' || has(self.managedIdentityClientId)",
            "managedIdentityClientId is required with credentialMode ManagedIdentityImds",
            lambda self: self.credential_mode != "ManagedIdentityImds" or self.managed_identity_client_id is not None,
            field="managedIdentityClientId",
            reason="FieldValueRequired",
        ),
    )


class DownstreamApi(Model):
    """An API that sandboxes may get tokens for."""

    base_url: Annotated[Url, doc("Where it is.")]
    scopes: Annotated[Annotated[tuple[Identifier, ...], unique(most=32)], doc("Scopes of the tokens.")] = ()
    request_app_token: Annotated[bool, doc("Whether the token is for the application, not for a user.")] = True


class FoundryRole(Model):
    """Roles that each identity is given."""

    scope: Annotated[Identifier, doc("Resource that the roles are for.")]
    role_definition_ids: Annotated[
        Annotated[tuple[Identifier, ...], Meta(min_length=1), unique(most=32)], doc("Ids of the roles.")
    ]


class KarsAuthConfigSpec(Model):
    """Tenant, blueprint and credentials."""

    tenant: Annotated[Tenant, doc("The Entra tenant.")]
    agent_id: Annotated[AgentId, doc("The blueprint of the identities.")]
    controller: Annotated[ControllerIdentity, doc("The controller's own credential.")]
    mesh_auth_backend: Annotated[
        Literal["Anonymous", "EntraAgentIdentity"], doc("How sandboxes prove themselves on the mesh.")
    ] = "Anonymous"
    mesh_auth_audience: Annotated[Identifier | None, doc("Audience of the mesh's tokens.")] = None
    downstream_apis: Annotated[
        Annotated[dict[str, DownstreamApi], Meta(max_length=32)],
        doc("APIs that sandboxes may get tokens for, by name."),
    ] = empty()
    foundry_rbac: Annotated[
        Annotated[tuple[FoundryRole, ...], Meta(max_length=32)], doc("Roles that each identity is given.")
    ] = ()


class KarsAuthConfigStatus(Model):
    """What is known of the configuration."""

    phase: Annotated[Literal["Pending", "Ready", "Degraded", "NotDefault"] | None, doc("A summary for people.")] = None
    observed_generation: ObservedGeneration = None
    blueprint_fic_count: Annotated[Count | None, doc("Federated credentials that the blueprint has.")] = None
    blueprint_fic_quota: Annotated[Count | None, doc("How many it may have.")] = None
    conditions: Conditions = ()


class KarsAuthConfig(Resource):
    """How sandboxes of this cluster get Entra agent identities; the only one is named default."""

    NAMES: ClassVar[Names] = Names(
        plural="karsauthconfigs",
        short="kac",
        columns=(
            Column("Tenant", ".spec.tenant.tenantId"),
            Column("Blueprint", ".spec.agentId.blueprintClientId"),
            PHASE,
            AGE,
            *WHY,
        ),
        namespaced=False,
    )
    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.metadata.name == 'default'",
            "there is one KarsAuthConfig, and its name is default",
            lambda self: self.metadata.name in {"", "default"},
            field="metadata.name",
        ),
    )

    spec: Annotated[KarsAuthConfigSpec, doc("What is wanted.")]
    status: Annotated[KarsAuthConfigStatus | None, doc("What is.")] = None
