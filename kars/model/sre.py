"""KarsSREAction: one change to the cluster that an agent proposes and a person decides about."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from msgspec import Meta

from kars.model.base import AGE, PHASE, Column, Model, Names, Resource, Rule, doc
from kars.model.common import PROSE, Conditions, Image, Name, ObservedGeneration, Time, Words

ActionType = Literal["DeleteResourceQuota", "PatchDeploymentImage", "ScaleDeployment", "RolloutRestart", "DeletePod"]

# Type: what it needs beside namespace and name.
NEEDS: dict[str, tuple[str, ...]] = {
    "DeleteResourceQuota": (),
    "PatchDeploymentImage": ("container", "image"),
    "ScaleDeployment": ("replicas",),
    "RolloutRestart": ("kind",),
    "DeletePod": (),
}
OPTIONAL = ("container", "image", "replicas", "kind")


class ActionParams(Model):
    """What the action is done to."""

    namespace: Annotated[Name, doc("Namespace of the object.")]
    name: Annotated[Name, doc("Name of the object.")]
    container: Annotated[Name | None, doc("Container whose image changes.")] = None
    image: Annotated[Image | None, doc("The image that it gets.")] = None
    replicas: Annotated[Annotated[int, Meta(ge=0, le=50)] | None, doc("How many replicas there shall be.")] = None
    kind: Annotated[
        Literal["Deployment", "StatefulSet", "DaemonSet"] | None, doc("Kind of the object that is restarted.")
    ] = None


def needs_rule(action: str) -> Rule:
    """Ask for exactly the parameters that an action has."""
    needed = NEEDS[action]
    cel = " && ".join(("" if part in needed else "!") + f"has(self.params.{part})" for part in OPTIONAL)
    return Rule(
        f"self.type != '{action}' || ({cel})",
        f"{action} has the parameters {', '.join(('namespace', 'name', *needed))}",
        lambda self: (
            self.type != action
            or all((getattr(self.params, part) is not None) == (part in needed) for part in OPTIONAL)
        ),
        field="params",
    )


class Action(Model):
    """What is proposed."""

    type: Annotated[ActionType, doc("Which action.")]
    params: Annotated[ActionParams, doc("What it is done to.")]

    RULES: ClassVar[tuple[Rule, ...]] = tuple(needs_rule(action) for action in NEEDS)


class Decision(Model):
    """What a person says of it."""

    state: Annotated[Literal["Pending", "Approved", "Rejected"], doc("Pending until somebody decides.")]
    note: Annotated[Annotated[str, Meta(max_length=512, pattern=PROSE)] | None, doc("Why it was decided so.")] = None

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "oldSelf.state == 'Pending' || self.state == oldSelf.state",
            "a decision stands: propose the action again to decide again",
            field="state",
            reason="FieldValueForbidden",
        ),
    )


class KarsSREActionSpec(Model):
    """A proposal and the decision."""

    action: Annotated[Action, doc("What is proposed.")]
    approval: Annotated[Decision, doc("What a person says of it.")]
    diagnosis: Annotated[Annotated[str, Meta(max_length=512, pattern=PROSE)] | None, doc("What is wrong.")] = None
    rationale: Annotated[
        Annotated[str, Meta(max_length=2048, pattern=PROSE)] | None, doc("Why the action is the right answer.")
    ] = None
    ttl_minutes: Annotated[
        Annotated[int, Meta(ge=1, le=60, extra_json_schema={"format": "int32"})],
        doc("Minutes after which an undecided proposal expires."),
    ] = 15

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.action == oldSelf.action",
            "what was proposed cannot change: an approval is for exactly that; propose another one",
            field="action",
            reason="FieldValueForbidden",
        ),
    )


class KarsSREActionStatus(Model):
    """What became of it."""

    phase: Annotated[
        Literal["Proposed", "Approved", "Applied", "Recovered", "Failed", "Rejected", "Expired"] | None,
        doc("A summary for people."),
    ] = None
    observed_generation: ObservedGeneration = None
    applied_at: Annotated[Time | None, doc("When it was done.")] = None
    writer_crb_name: Annotated[Words | None, doc("The ClusterRoleBinding that lasted for it.")] = None
    conditions: Conditions = ()


class KarsSREAction(Resource):
    """One change to the cluster that an agent proposes and a person decides about."""

    NAMES: ClassVar[Names] = Names(
        plural="karssreactions",
        short="sreaction",
        columns=(
            Column("Type", ".spec.action.type"),
            Column("Target-NS", ".spec.action.params.namespace"),
            Column("Target-Name", ".spec.action.params.name"),
            PHASE,
            Column("Approval", ".spec.approval.state"),
            AGE,
        ),
        longest=253,
    )

    spec: Annotated[KarsSREActionSpec, doc("What is wanted.")]
    status: Annotated[KarsSREActionStatus | None, doc("What is.")] = None
