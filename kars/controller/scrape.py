"""Metrics that are read off the parts at each scrape: queues, informers, requests."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from kars.controller.queue import Queue
from kars.kube.client import Client
from kars.kube.informer import Informer


class Row(NamedTuple):
    """A metric as the reference lists it; the name of a counter ends in `_total`."""

    name: str
    labels: list[str]
    text: str

    def made(self, samples: Iterable[tuple[Sequence[str], float]]) -> Metric:
        """Return the metric with its samples."""
        family = (
            CounterMetricFamily(self.name.removesuffix("_total"), self.text, labels=self.labels)
            if self.name.endswith("_total")
            else GaugeMetricFamily(self.name, self.text, labels=self.labels)
        )
        for values, number in samples:
            family.add_metric(list(values), number)
        return family


DEPTH = Row("kars_controller_queue_depth", ["crd_kind"], "Keys that are ready and wait for a worker.")
OLDEST = Row(
    "kars_controller_queue_oldest_seconds", ["crd_kind"], "How long the key that waits longest has been ready."
)
REQUESTS = Row(
    "kars_controller_api_requests_total",
    ["verb", "kind", "code"],
    "Requests to the API server; code 0 had no answer.",
)
COUNTS: tuple[tuple[Row, Callable[[Informer[Any]], int]], ...] = (
    (Row("kars_controller_informer_objects", ["kind"], "Objects that are held."), len),
    (Row("kars_controller_informer_relists_total", ["kind"], "Lists that were read."), lambda one: one.relists),
    (
        Row("kars_controller_informer_reconnects_total", ["kind"], "Watches that were begun."),
        lambda one: one.reconnects,
    ),
    (
        Row("kars_controller_informer_failures_total", ["kind"], "Lists and watches that failed."),
        lambda one: one.failures,
    ),
    (
        Row("kars_controller_informer_faults_total", ["kind"], "Objects and changes that could not be taken in."),
        lambda one: one.faults,
    ),
)
ROWS = (DEPTH, OLDEST, REQUESTS, *(row for row, _ in COUNTS))


def queues(queue: Queue, kinds: Sequence[str]) -> Iterator[Metric]:
    """Return what waits, by kind."""
    now = queue.clock()
    yield DEPTH.made(((kind,), queue.schedule.depth(kind)) for kind in kinds)
    yield OLDEST.made(((kind,), queue.schedule.age(kind, now)) for kind in kinds)


def watches(informers: Sequence[Informer[Any]]) -> Iterator[Metric]:
    """Return what there is to know of informers; several of one kind count together."""
    for row, count in COUNTS:
        sums: dict[str, float] = {}
        for one in informers:
            sums[one.kind.kind] = sums.get(one.kind.kind, 0) + count(one)
        yield row.made(((kind,), number) for kind, number in sums.items())


def requests(client: Client) -> Metric:
    """Return how many requests were made, by verb, kind and status."""
    found = client.requests.items()
    return REQUESTS.made(((verb, kind, str(status)), count) for (verb, kind, status), count in found)
