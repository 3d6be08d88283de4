"""leakguard's counters as Prometheus metrics: `leakguard-runtime[prometheus]`.

import leakguard.prometheus

leakguard.prometheus.register()

leakguard_created_total{kind}      leakguard_live{kind}         leakguard_stacks
leakguard_ended_total{kind}        leakguard_site_live{kind,site}: the ten largest
leakguard_dropped_total            leakguard_bytes
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import REGISTRY
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from leakguard._sites import counters, largest_sites
from leakguard._tracking import stats

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from prometheus_client.metrics_core import Metric
    from prometheus_client.registry import CollectorRegistry


class LeakguardCollector(Collector):
    """Reads the counters when it is scraped, in the thread that serves the scrape."""

    def collect(self) -> Iterator[Metric]:
        """The metrics, as they are now. All zero where leakguard is not installed."""
        found: dict[str, Any] = stats()
        live = GaugeMetricFamily("leakguard_live", "Resources that live now", labels=["kind"])
        for kind, number in counters(found, "live"):
            live.add_metric([kind], number)
        yield live
        for name in ("created", "ended"):
            text = f"Resources that were {name} since tracking began"
            counter = CounterMetricFamily(f"leakguard_{name}", text, labels=["kind"])
            for kind, number in counters(found, name):
                counter.add_metric([kind], number)
            yield counter
        sites = GaugeMetricFamily(
            "leakguard_site_live",
            "Resources that live now, of the ten creation sites with most",
            labels=["kind", "site"],
        )
        for kind, site, number in largest_sites():
            sites.add_metric([kind, site], number)
        yield sites
        yield GaugeMetricFamily("leakguard_stacks", "Creation stacks kept", value=found["stacks"])
        yield GaugeMetricFamily("leakguard_bytes", "Memory of leakguard", value=found["bytes"])
        yield CounterMetricFamily(
            "leakguard_dropped", "Births that left no record, or no stack", value=found["dropped"]
        )


def register(registry: CollectorRegistry = REGISTRY) -> LeakguardCollector:
    """Add the metrics to a registry. Raises ValueError where they are there already."""
    collector = LeakguardCollector()
    registry.register(collector)
    return collector
