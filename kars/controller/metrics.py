"""What the controller counts, for Prometheus. Names of the reference are kept; labels are of bounded vocabularies."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable

import msgspec
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from kars.settings.controller import Controller

# Seconds; the reference's, because dashboards sum over them.
BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
WAITS = (0.001, 0.01, 0.1, 0.5, 1, 5, 15, 60, 300)


class Metrics:
    """Counters of one process, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        made = self.registry
        self.reconciles = Counter(
            "kars_controller_reconcile_total", "Reconciles by outcome.", ["crd_kind", "outcome"], registry=made
        )
        self.errors = Counter(
            "kars_controller_reconcile_errors_total",
            "Reconciles that failed, by class of error.",
            ["crd_kind", "error_class"],
            registry=made,
        )
        self.retries = Counter(
            "kars_controller_reconcile_retries_total",
            "Reconciles that were put off after a failure.",
            ["crd_kind"],
            registry=made,
        )
        self.duration = Histogram(
            "kars_controller_reconcile_duration_seconds",
            "How long a reconcile took.",
            ["crd_kind", "outcome"],
            buckets=BUCKETS,
            registry=made,
        )
        self.skipped = Counter(
            "kars_controller_skip_cache_hits_total",
            "Statuses that were not written because nothing differed.",
            ["crd_kind"],
            registry=made,
        )
        self.transitions = Counter(
            "kars_controller_conditions_transitions_total",
            "Conditions whose status changed.",
            ["condition_type", "new_status"],
            registry=made,
        )
        self.waits = Histogram(
            "kars_controller_queue_wait_seconds",
            "How long a key was ready before a worker took it.",
            ["crd_kind"],
            buckets=WAITS,
            registry=made,
        )
        self.echoes = Counter(
            "kars_controller_echo_requests_total", "Questions to routers, by result.", ["result"], registry=made
        )
        self.leader = Gauge(
            "kars_controller_leader", "1 while this process leads, 0 while it stands by.", registry=made
        )
        self.config = Gauge(
            "kars_controller_config_info", "1; the label tells settings apart.", ["config_hash"], registry=made
        )
        self.build = Gauge("kars_build_info", "1; the label is the version.", ["version"], registry=made)

    def describe(self, settings: Controller, version: str) -> None:
        """Note which settings and version run."""
        self.config.labels(hashlib.sha256(msgspec.json.encode(settings, order="sorted")).hexdigest()[:16]).set(1)
        self.build.labels(version).set(1)

    def heard(self, result: str) -> None:
        """Count a question to a router: `answered` or `failed`."""
        self.echoes.labels(result).inc()

    def watch(self, samples: Callable[[], Iterable[Metric]]) -> None:
        """Have more metrics made at each scrape."""
        self.registry.register(Scraped(samples))

    def render(self) -> bytes:
        """Return the text exposition."""
        return generate_latest(self.registry)


class Scraped(Collector):
    """Metrics that are read when they are asked for."""

    def __init__(self, samples: Callable[[], Iterable[Metric]]) -> None:
        self.samples = samples

    def collect(self) -> Iterable[Metric]:
        """Return them now."""
        return self.samples()

    def describe(self) -> Iterable[Metric]:
        """Return none: names need not be known beforehand."""
        return ()
