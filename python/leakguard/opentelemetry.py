"""leakguard's counters as OpenTelemetry instruments: `leakguard-runtime[otel]`.

import leakguard.opentelemetry

leakguard.opentelemetry.instrument()

leakguard.created{kind}   leakguard.live{kind}          leakguard.stacks
leakguard.ended{kind}     leakguard.site.live{kind,site}: the ten largest
leakguard.dropped         leakguard.bytes
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry.metrics import Observation, get_meter

from leakguard._sites import counters, largest_sites
from leakguard._tracking import stats
from leakguard._version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from opentelemetry.metrics import CallbackOptions, MeterProvider

    Callback = Callable[[CallbackOptions], Iterable[Observation]]


def instrument(meter_provider: MeterProvider | None = None) -> None:
    """Make the observable instruments; None is the global meter provider."""
    meter = get_meter("leakguard", __version__, meter_provider)
    meter.create_observable_up_down_counter(
        "leakguard.live", [_by_kind("live")], "{resource}", "Resources that live now"
    )
    for name in ("created", "ended"):
        text = f"Resources that were {name} since tracking began"
        meter.create_observable_counter(f"leakguard.{name}", [_by_kind(name)], "{resource}", text)
    meter.create_observable_gauge(
        "leakguard.site.live",
        [_sites],
        "{resource}",
        "Resources that live now, of the ten creation sites with most",
    )
    meter.create_observable_gauge(
        "leakguard.stacks", [_one("stacks")], "{stack}", "Creation stacks kept"
    )
    meter.create_observable_gauge("leakguard.bytes", [_one("bytes")], "By", "Memory of leakguard")
    meter.create_observable_counter(
        "leakguard.dropped", [_one("dropped")], "{resource}", "Births without a record or a stack"
    )


def _by_kind(name: str) -> Callback:
    def observe(_: CallbackOptions) -> Iterable[Observation]:
        for kind, number in counters(stats(), name):
            yield Observation(number, {"kind": kind})

    return observe


def _one(name: str) -> Callback:
    def observe(_: CallbackOptions) -> Iterable[Observation]:
        found: dict[str, Any] = stats()
        yield Observation(found[name])

    return observe


def _sites(_: CallbackOptions) -> Iterable[Observation]:
    for kind, site, number in largest_sites():
        yield Observation(number, {"kind": kind, "site": site})
