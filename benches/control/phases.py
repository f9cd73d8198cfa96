"""What is measured, phase by phase; each returns its figures."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Iterator
from typing import Any

from benches.control.window import Window, beyond, memory_mb, reconciles, writes
from benches.control.world import NAMESPACE, POLICIES, SANDBOXES, World, policy, sandbox
from kars.controller.cluster import CHILDREN, MANAGED
from tests.cluster.installation import Controller

Result = dict[str, Any]

SETTLE_SECONDS = 20.0
SHARED = "shared"
# Milliseconds by which a change may be late before a sample counts as failed.
LONGEST_CHANGE = 30.0


def names(number: int) -> list[str]:
    """Names of the sandboxes."""
    return [f"s{index:04d}" for index in range(number)]


async def create(world: World, controller: Controller, number: int) -> Result:
    """From nothing to every sandbox Ready, each with a policy of its own."""
    all_names = names(number)
    seconds = 120 + number * 1.5
    window = await Window(world, controller).begin()
    await world.create(POLICIES, (policy(name) for name in all_names))
    await world.create(SANDBOXES, (sandbox(name, name) for name in all_names))
    created = time.monotonic() - window.began
    await world.sandboxes.until(lambda: len(world.sandboxes.ready) == number, seconds, "every sandbox Ready")
    wall = time.monotonic() - window.began
    curve = sorted(at - window.began for at in world.sandboxes.ready.values())
    await world.policies.until(lambda: len(world.policies.ready) == number, seconds, "every policy Ready")
    await quiet(world, controller, seconds)
    found = await window.end(seconds=wall)
    objects = await count_objects(world)
    asked = beyond(found["requests"])
    return found | {
        "number": number,
        "created_seconds": round(created, 2),
        "curve": [round(one, 2) for one in curve],
        "objects": objects,
        "made": sum(objects.values()),
        "writes": writes(found["requests"]),
        "asked": sum(asked.values()),
        "memory_settled": memory_mb(controller.process.pid),
    }


async def count_objects(world: World) -> dict[str, int]:
    """How many objects there are that the controller made, by kind."""
    found = {}
    for kind in CHILDREN:
        listed = await asyncio.to_thread(world.plane.api.items, kind.path(), labelSelector=MANAGED)
        if listed:
            found[kind.plural] = len(listed)
    return found


async def quiet(world: World, controller: Controller, seconds: float) -> None:
    """Wait until the controller has asked nothing for five seconds: events are written at leisure."""
    until = time.monotonic() + seconds
    before, since = None, time.monotonic()
    while time.monotonic() < until:
        now = sum(beyond_all((await world.scrape(controller)).requests()))
        if now != before:
            before, since = now, time.monotonic()
        elif time.monotonic() - since >= 5.0:
            return
        await asyncio.sleep(0.5)
    raise TimeoutError("the controller does not settle")


def beyond_all(requests: Any) -> Iterator[int]:
    """Counts of requests but for watches and the lease."""
    return (count for (verb, kind), count in requests.items() if verb != "WATCH" and kind != "leases")


async def steady(world: World, controller: Controller, seconds: float) -> Result:
    """Nothing changes."""
    window = await Window(world, controller).begin()
    await asyncio.sleep(seconds)
    found = await window.end()
    return found | {"beyond": beyond(found["requests"])}


async def change(world: World, controller: Controller, number: int, samples: int) -> Result:
    """From the write of a sandbox's spec to the Deployment that follows from it, one after the other."""
    all_names = names(number)
    times = []
    window = await Window(world, controller).begin()
    for sample in range(samples):
        name = all_names[sample * 7919 % number]
        before = world.deployments.held[name].metadata.generation
        patch = {"spec": {"resources": {"requests": {"cpu": f"{100 + sample}m"}}}}
        began = time.monotonic()
        await world.session.request("PATCH", f"{SANDBOXES}/{name}", patch, content="application/merge-patch+json")
        await world.deployments.until(
            lambda name=name, before=before: world.deployments.held[name].metadata.generation > before,
            LONGEST_CHANGE,
            f"the change of {name}",
        )
        times.append((time.monotonic() - began) * 1000)
    found = await window.end()
    await world.sandboxes.until(lambda: len(world.sandboxes.ready) == number, 120, "every sandbox Ready again")
    await quiet(world, controller, 120)
    return found | {"milliseconds": quantiles(times)}


def quantiles(values: list[float]) -> dict[str, float]:
    """Least, median, p99 and greatest."""
    ranked = sorted(values)
    at = {"least": 0, "p50": len(ranked) // 2, "p99": min(len(ranked) - 1, int(len(ranked) * 0.99)), "most": -1}
    return {name: round(ranked[place], 1) for name, place in at.items()} | {"samples": len(ranked)}


async def share(world: World, controller: Controller, number: int) -> Result:
    """Every sandbox is told to refer to one policy: every pod is replaced."""
    window = await Window(world, controller).begin()
    await world.create(POLICIES, [policy(SHARED)])
    await world.merge(SANDBOXES, names(number), {"spec": {"inferenceRef": {"name": SHARED}}})
    seconds = 120 + number * 1.5

    def settled() -> bool:
        return len(world.sandboxes.ready) == number and SHARED in world.policies.ready

    await world.sandboxes.until(lambda: len(world.sandboxes.ready) == number, seconds, "every sandbox Ready again")
    await world.policies.until(settled, seconds, "the shared policy Ready")
    wall = time.monotonic() - window.began
    await quiet(world, controller, seconds)
    return await window.end(seconds=wall)


async def spread(world: World, controller: Controller, number: int, rounds: int) -> Result:
    """From a change of the one policy to its Ready with the new digest, and to that of every sandbox."""
    policies, sandboxes = [], []
    window = await Window(world, controller).begin()
    for turn in range(rounds):
        before = world.policies.held[SHARED].status.loaded_digest
        patch = {"spec": {"tokenBudget": {"dailyTokens": 200_000 + turn}}}
        began = time.monotonic()
        await world.session.request("PATCH", f"{POLICIES}/{SHARED}", patch, content="application/merge-patch+json")

        def loaded(before: str = before) -> bool:
            held = world.policies.held[SHARED]
            return held.ready() and held.status.loaded_digest not in {"", before}

        await world.policies.until(loaded, 300, "the policy's Ready with its new digest")
        policies.append(time.monotonic() - began)
        await world.sandboxes.until(lambda: len(world.sandboxes.ready) == number, 300, "every sandbox Ready again")
        sandboxes.append(time.monotonic() - began)
        await quiet(world, controller, 300)
    found = await window.end()
    return found | {
        "policy_seconds": [round(one, 2) for one in policies],
        "sandboxes_seconds": [round(one, 2) for one in sandboxes],
    }


async def restart(world: World, controller: Controller, number: int) -> tuple[Controller, Result]:
    """The controller ends and another begins where all stands."""
    world.leader = None
    await asyncio.to_thread(controller.process.stop)
    began = time.monotonic()
    made = world.leader = await world.start_controller()
    ready = time.monotonic() - began
    await world.wait(lambda: made.metric("kars_controller_leader") == 1, 60, "the lease")
    await looked_at(world, made, number)
    looked = time.monotonic() - began
    await quiet(world, made, 120)
    metrics = await world.scrape(made)
    requests = {" ".join(key): count for key, count in metrics.requests().most_common() if count}
    return made, {
        "ready_seconds": round(ready, 2),
        "synced_seconds": told_by_log(made, "process.synced"),
        "looked_seconds": round(looked, 2),
        "cpu_seconds": round(cpu(made), 2),
        "requests": requests,
        "writes": writes(requests),
        "reconciles": {" ".join(key): count for key, count in reconciles(metrics).items() if count},
        "memory": memory_mb(made.process.pid),
    }


async def looked_at(world: World, controller: Controller, number: int) -> None:
    """Wait until a controller has looked at every sandbox."""
    await world.wait(
        lambda: controller.metric("kars_controller_reconcile_total", crd_kind="KarsSandbox") >= number,
        300,
        "a look at every sandbox",
        0.1,
    )


def cpu(controller: Controller) -> float:
    """CPU seconds of a controller so far."""
    from suite import procs

    return procs.cpu_ns(controller.process.pid) / 1e9


def told_by_log(controller: Controller, event: str) -> float | None:
    """The `seconds` of a line of the log."""
    for line in controller.process.log.read_text().splitlines():
        if f'"msg": "{event}"' in line:
            return json.loads(line)["seconds"]
    return None


async def fail_over(world: World, controller: Controller, number: int) -> tuple[Controller, Result]:
    """The leader is killed; a standby that is warm takes over when the lease has run out."""
    standby = await world.start_controller()
    await asyncio.sleep(2.0)
    assert standby.metric("kars_controller_leader") == 0
    warm = memory_mb(standby.process.pid)
    world.leader = standby
    controller.process.send(signal.SIGKILL)
    began = time.monotonic()
    await world.wait(lambda: standby.metric("kars_controller_leader") == 1, 60, "the lease", 0.02)
    leads = time.monotonic() - began
    await world.wait(lambda: standby.metric("kars_controller_reconcile_total") > 0, 60, "a reconcile", 0.02)
    first = time.monotonic() - began
    await looked_at(world, standby, number)
    looked = time.monotonic() - began
    await quiet(world, standby, 120)
    requests = {" ".join(key): n for key, n in (await world.scrape(standby)).requests().most_common() if n}
    return standby, {
        "leads_seconds": round(leads, 2),
        "first_seconds": round(first, 2),
        "looked_seconds": round(looked, 2),
        "memory_standby": warm,
        "memory": memory_mb(standby.process.pid),
        "requests": requests,
        "writes": writes(requests),
    }


async def delete(world: World, controller: Controller, number: int) -> Result:
    """Every sandbox goes; the control plane's own namespace controller does most of that."""
    seconds = 120 + number * 2.0
    window = await Window(world, controller).begin()
    await world.many(lambda name=name: world.session.request("DELETE", f"{SANDBOXES}/{name}") for name in names(number))
    await world.sandboxes.until(lambda: not world.sandboxes.held, seconds, "every sandbox gone")
    wall = time.monotonic() - window.began
    await quiet(world, controller, seconds)
    found = await window.end(seconds=wall)
    return found | {"writes": writes(found["requests"]), "left": await count_objects(world)}


__all__ = ["NAMESPACE", "change", "create", "delete", "fail_over", "restart", "share", "spread", "steady"]
