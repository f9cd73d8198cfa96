"""Looks into plans."""

from kars.desired import names
from kars.desired.plan import plan


def of_kind(facts, kind, name=""):
    """The only object of a kind, or the one of that name."""
    (found,) = [one for one in plan(facts) if one["kind"] == kind and name in {"", one["metadata"]["name"]}]
    return found


def kinds(facts):
    return [one["kind"] for one in plan(facts)]


def pod(facts):
    """The spec of the Deployment's pod."""
    return of_kind(facts, "Deployment")["spec"]["template"]["spec"]


def container(facts, name):
    """A container of the pod, whichever list it is in."""
    spec = pod(facts)
    (found,) = [one for one in [*spec.get("initContainers", []), *spec["containers"]] if one["name"] == name]
    return found


def agent(facts):
    spec = pod(facts)
    (found,) = [one for one in spec["containers"] if one["name"] in {names.AGENT, names.OPENCLAW}]
    return found


def router(facts):
    return container(facts, names.ROUTER)


def env(one):
    """A container's variables by name: the value, or where it comes from."""
    rows = [(row["name"], row.get("value", row.get("valueFrom"))) for row in one["env"]]
    assert len(dict(rows)) == len(rows), "a variable is there twice"
    return dict(rows)


def mounts(one):
    """Mount paths by volume."""
    return {mount["mountPath"]: mount["name"] for mount in one["volumeMounts"]}


def volume(facts, name):
    (found,) = [one for one in pod(facts)["volumes"] if one["name"] == name]
    return found
