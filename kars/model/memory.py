"""KarsMemory: where a sandbox remembers."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from msgspec import Meta

from kars.model.base import AGE, PHASE, WHY, Column, Model, Names, Resource, Rule, doc
from kars.model.common import (
    LABEL,
    Conditions,
    DisplayName,
    NameRef,
    ObservedGeneration,
    OciArtifactRef,
    SandboxRef,
    Time,
    Words,
)


class MemoryBundleRef(OciArtifactRef):
    """A signed memory binding."""

    artifact_type: Annotated[Literal["application/vnd.kars.memory-binding.v1+json"], doc("Media type of the artifact.")]


class KarsMemorySpec(Model):
    """The store and the scope: here, or in a signed artifact."""

    sandbox_ref: Annotated[SandboxRef, doc("The only sandbox that may be given this memory.")]
    store_name: Annotated[
        Annotated[str, Meta(min_length=1, max_length=63, pattern=LABEL)] | None, doc("Name of the memory store.")
    ] = None
    scope: Annotated[
        Annotated[str, Meta(min_length=1, max_length=256, pattern=r"^[A-Za-z0-9_./%+@-]+\Z")] | None,
        doc("Scope of the memories in the store."),
    ] = None
    retention_days: Annotated[
        Annotated[int, Meta(ge=1, le=36500, extra_json_schema={"format": "int32"})] | None,
        doc("Days that a memory is kept; for ever when absent."),
    ] = None
    delete_on_sandbox_delete: Annotated[
        bool | None, doc("Whether the memories go with the sandbox; true when absent.")
    ] = None
    display_name: Annotated[DisplayName | None, doc("A name for people.")] = None
    bundle_ref: Annotated[MemoryBundleRef | None, doc("The signed artifact that says all this instead.")] = None

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.bundleRef) || !(has(self.storeName) || has(self.scope) || has(self.retentionDays)"
            " || has(self.deleteOnSandboxDelete) || has(self.displayName))",
            "bundleRef excludes storeName, scope, retentionDays, deleteOnSandboxDelete and displayName",
            lambda self: (
                self.bundle_ref is None
                or all(
                    part is None
                    for part in (
                        self.store_name,
                        self.scope,
                        self.retention_days,
                        self.delete_on_sandbox_delete,
                        self.display_name,
                    )
                )
            ),
            field="bundleRef",
        ),
        Rule(
            "has(self.bundleRef) || has(self.storeName)",
            "storeName is required without bundleRef",
            lambda self: self.bundle_ref is not None or self.store_name is not None,
            field="storeName",
            reason="FieldValueRequired",
        ),
        Rule(
            "has(self.bundleRef) || has(self.scope)",
            "scope is required without bundleRef",
            lambda self: self.bundle_ref is not None or self.scope is not None,
            field="scope",
            reason="FieldValueRequired",
        ),
    )


class KarsMemoryStatus(Model):
    """What is known of the binding."""

    phase: Annotated[
        Literal["Pending", "Compiled", "Ready", "Degraded", "Failed"] | None, doc("A summary for people.")
    ] = None
    observed_generation: ObservedGeneration = None
    conditions: Conditions = ()
    binding_config_map_ref: Annotated[NameRef | None, doc("The ConfigMap of the compiled binding.")] = None
    version_hash: Annotated[Words | None, doc("First 32 hex digits of the compiled binding's SHA-256.")] = None
    last_reconciled_at: Annotated[Time | None, doc("When it was compiled.")] = None
    compiled_digest: Annotated[Words | None, doc("Digest of the compiled binding.")] = None
    loaded_digest: Annotated[Words | None, doc("Digest that every router of the binding has in force.")] = None
    bundle_ref_digest: Annotated[Words | None, doc("Digest of the artifact that was used.")] = None


class KarsMemory(Resource):
    """A memory store, and the scope in it that a sandbox sees."""

    NAMES: ClassVar[Names] = Names(
        plural="karsmemories",
        short="cmem",
        columns=(
            Column("Sandbox", ".spec.sandboxRef.name"),
            Column("Store", ".spec.storeName"),
            Column("Scope", ".spec.scope"),
            PHASE,
            AGE,
            *WHY,
        ),
    )

    spec: Annotated[KarsMemorySpec, doc("What is wanted.")]
    status: Annotated[KarsMemoryStatus | None, doc("What is.")] = None
