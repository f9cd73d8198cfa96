"""ToolPolicy: `profile.json` for people, and the profile itself byte for byte, whose digest routers report."""

from __future__ import annotations

from kars.kube.types import Object
from kars.model.tools import ToolPolicy, ToolPolicySpec
from kars.policy.compiled.canonical import compact, digest, pretty, version_hash
from kars.policy.compiled.outcome import Compiled, Given, Unfit, config_map, namespace_of

FILE = "agt-profile.yaml"


def render(policy: ToolPolicy, given: Given) -> Compiled:
    """Return the ConfigMap `toolpolicy-<name>-profile`; without a profile there is nothing that a router reports.

    A profile whose artifact cannot be used is an error of the whole, so that the one in force stays in its ConfigMap.
    """
    written = document(policy.spec)
    version = version_hash(compact(written))
    files, annotations = {"profile.json": pretty(written)}, {"toolpolicy-version-hash": version}
    body = profile(policy.spec, given)
    stamp = "" if body is None else digest([(FILE, body)])
    status = {}
    if body is not None:
        files[FILE] = body
        annotations["agt-profile-digest"] = status["agtProfileDigest"] = stamp
        if given.bundle_digest:
            status["agtProfileBundleDigest"] = given.bundle_digest
    made = config_map(
        f"toolpolicy-{policy.metadata.name}-profile",
        namespace=namespace_of(policy, given),
        labels={"toolpolicy": policy.metadata.name, "artifact": "compiled-profile"},
        annotations=annotations,
        data=files,
    )
    echo_kind = None if body is None else "AgtProfile"
    return Compiled(objects=(made,), digest=stamp, version_hash=version, echo_kind=echo_kind, status=status)


def profile(spec: ToolPolicySpec, given: Given) -> bytes | None:
    """Return the profile's bytes, from the spec or from the artifact that it names; None when it has none."""
    if spec.agt_profile is None or (spec.agt_profile.inline is None and spec.agt_profile.bundle_ref is None):
        return None
    if spec.agt_profile.inline is not None:
        return spec.agt_profile.inline.encode()
    if not given.body:
        raise Unfit("SpecInvalid", "the content of agtProfile.bundleRef has not been fetched")
    try:
        given.body.decode()
    except UnicodeDecodeError as error:
        raise Unfit("CanonicalFormViolation", f"the profile is not UTF-8 at byte {error.start}") from None
    return given.body


def document(spec: ToolPolicySpec) -> Object:
    """Return the document; the order of its members is part of the version hash."""
    target, commerce, rate, approval = spec.applies_to, spec.commerce, spec.rate_limit, spec.approval
    return {
        "appliesTo": {
            "tool": target.tool,
            "mcpServer": target.mcp_server,
            "sandboxMatchLabels": dict(sorted(target.sandbox_match_labels.items())),
        },
        "commerce": commerce
        and {
            "dailyCap": commerce.daily_cap,
            "monthlyCap": commerce.monthly_cap,
            "perTransferCap": commerce.per_transfer_cap,
            "counterpartyAllowlist": list(commerce.counterparty_allowlist),
        },
        "rateLimit": rate and {"rps": rate.rps, "burst": rate.burst, "window": rate.window},
        "approval": approval and {"mode": approval.mode, "threshold": approval.threshold, "channel": approval.channel},
        "displayName": spec.display_name,
    }
