"""leakguard's counters as Prometheus metrics and OpenTelemetry instruments."""

import json
import shutil
import socket
import subprocess
import threading
import time
import urllib.parse
import urllib.request

import pytest

import leakguard

SERVICE = """
import asyncio, sys
import leakguard
import leakguard.prometheus
import prometheus_client

async def reader():
    await asyncio.sleep(3600)

async def main():
    leakguard.install()
    leakguard.prometheus.register()
    prometheus_client.start_http_server(int(sys.argv[1]), "127.0.0.1")
    for _ in range(3):
        await asyncio.create_task(asyncio.sleep(0))
    tasks = []
    for _ in range(5):
        tasks.append(asyncio.create_task(reader()))
    print("ready", flush=True)
    await asyncio.gather(*tasks)

asyncio.run(main())
"""


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.fixture
def scraped(start, tmp_path):
    """A query to a Prometheus server that scrapes the demo service."""
    service, own = free_port(), free_port()
    start(SERVICE, arguments=[str(service)])
    config = tmp_path / "prometheus.yml"
    config.write_text(
        "global: {scrape_interval: 1s}\n"
        "scrape_configs: [{job_name: demo, static_configs: "
        f"[{{targets: ['127.0.0.1:{service}']}}]}}]\n"
    )
    with (tmp_path / "prometheus.log").open("w") as log:
        server = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={config}",
                f"--storage.tsdb.path={tmp_path / 'data'}",
                f"--web.listen-address=127.0.0.1:{own}",
            ],
            stdout=log,
            stderr=log,
        )

    def query(text):
        """The values by labels; waits for the first scrape."""
        url = f"http://127.0.0.1:{own}/api/v1/query?" + urllib.parse.urlencode({"query": text})
        deadline = time.monotonic() + 60
        while True:
            assert server.poll() is None, (tmp_path / "prometheus.log").read_text()
            try:
                with urllib.request.urlopen(url, timeout=10) as answer:
                    found = json.load(answer)["data"]["result"]
            except OSError:
                found = []
            if found:
                return [(it["metric"], float(it["value"][1])) for it in found]
            assert time.monotonic() < deadline, (tmp_path / "prometheus.log").read_text()
            time.sleep(0.1)

    yield query
    server.kill()
    server.wait()


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="no Prometheus server here")
def test_a_prometheus_server_gets_the_true_numbers(scraped):
    [(_, live)] = scraped('leakguard_live{kind="task"}')
    [(_, created)] = scraped('leakguard_created_total{kind="task"}')
    [(_, ended)] = scraped('leakguard_ended_total{kind="task"}')
    # The main task was there before tracking began: it lives, and counts as created.
    assert (live, created, ended) == (6, 9, 3)
    sites = scraped('leakguard_site_live{kind="task"}')
    assert [(labels["site"], number) for labels, number in sites] == [("app.py:18 in main", 5)]
    [(_, dropped)] = scraped("leakguard_dropped_total")
    assert dropped == 0


def test_the_collector_agrees_with_stats(release):
    from prometheus_client import CollectorRegistry

    import leakguard.prometheus

    registry = CollectorRegistry(auto_describe=True)  # as the global one
    leakguard.prometheus.register(registry)
    assert registry.get_sample_value("leakguard_live", {"kind": "thread"}) == 0
    leakguard.install()
    for _ in range(3):
        threading.Thread(target=release.wait).start()
    stats = leakguard.stats()
    for name, key in (("live", "live"), ("created_total", "created"), ("ended_total", "ended")):
        sample = registry.get_sample_value(f"leakguard_{name}", {"kind": "thread"})
        assert sample == stats["thread"][key]
    assert registry.get_sample_value("leakguard_stacks") == stats["stacks"]
    sites = [
        sample
        for family in registry.collect()
        for sample in family.samples
        if sample.name == "leakguard_site_live"
    ]
    assert [sample.value for sample in sites] == [3]
    with pytest.raises(ValueError, match="Duplicated"):
        leakguard.prometheus.register(registry)


def test_only_the_ten_largest_sites_are_told(release):
    from leakguard._sites import largest_sites

    leakguard.install()
    namespace = {"threading": threading, "release": release}
    for number in range(12):
        start = f"for _ in range({number + 1}): threading.Thread(target=release.wait).start()"
        exec(compile(start, f"site_{number}.py", "exec"), namespace)
    found = largest_sites()
    assert [alive for _, _, alive in found] == list(range(12, 2, -1))
    assert found[0] == ("thread", "site_11.py:1 in <module>", 12)


def test_opentelemetry_instruments(release):
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    import leakguard.opentelemetry

    leakguard.install()
    threading.Thread(target=release.wait).start()
    reader = InMemoryMetricReader()
    leakguard.opentelemetry.instrument(MeterProvider([reader]))
    [resource] = reader.get_metrics_data().resource_metrics
    [scope] = resource.scope_metrics
    found = {
        (metric.name, *sorted(point.attributes.values())): point.value
        for metric in scope.metrics
        for point in metric.data.data_points
    }
    stats = leakguard.stats()
    for name in ("live", "created", "ended"):
        assert found[f"leakguard.{name}", "thread"] == stats["thread"][name]
    assert found["leakguard.stacks",] == stats["stacks"]
    assert found["leakguard.dropped",] == 0
    [site] = [key for key in found if key[0] == "leakguard.site.live"]
    assert found[site] == 1
    assert "test_opentelemetry_instruments" in site[1]
