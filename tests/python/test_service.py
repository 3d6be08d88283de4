"""A real service: Starlette under uvicorn, driven by 2,000 requests and ended by SIGTERM."""

import http.client
import json
import signal
import socket
import subprocess
import sys
import time
from collections import Counter

import pytest

from .conftest import PROGRAMS, clean_environment

REQUESTS = ["/"] * 1799 + ["/reconnect"] * 100 + ["/tick"] * 100 + ["/call"]


@pytest.fixture
def serve(tmp_path):
    """Runs the service until all requests are answered and it has died; what it reported."""
    report = tmp_path / "found.jsonl"

    def run_service(name):
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            port = found.getsockname()[1]
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "uvicorn", "--app-dir", str(PROGRAMS)),
                *("--port", str(port), "--log-level", "warning", f"service_app:{name}"),
            ],
            env=clean_environment(LEAKGUARD="1", LEAKGUARD_REPORT=str(report)),
            cwd=tmp_path,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            drive(process, port)
            process.send_signal(signal.SIGTERM)
            _, stderr = process.communicate(timeout=60)
        finally:
            process.kill()
        lines = report.read_text().splitlines() if report.exists() else []
        return process.returncode, stderr, [json.loads(line) for line in lines]

    return run_service


def drive(process, port):
    deadline = time.monotonic() + 60
    while True:
        assert process.poll() is None, process.stderr.read()
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            connection.connect()
            break
        except ConnectionRefusedError:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    for path in REQUESTS:
        connection.request("GET", path)
        answer = connection.getresponse()
        assert (answer.status, bool(answer.read())) == (200, True)
    connection.close()


def test_the_leaky_service(serve):
    status, stderr, lines = serve("leaky")
    assert (status, stderr) == (-signal.SIGTERM, "")
    source = (PROGRAMS / "service_app.py").read_text().splitlines()
    wanted = {
        mark: next(number for number, line in enumerate(source, 1) if line.endswith(f"# {mark}"))
        for mark in ("leaked reader", "stuck call", "leaked ticker")
    }
    counts = Counter(
        (line["kind"], line["function"], line["site"]["line"])
        for line in lines
        if line["site"] and line["site"]["file"].endswith("service_app.py")
    )
    assert counts == {
        ("task", "Service._read", wanted["leaked reader"]): 100,
        ("thread", "Service._call", wanted["stuck call"]): 1,
        ("thread", "Service._tick", wanted["leaked ticker"]): 100,
    }
    assert {line["reason"] for line in lines} == {"terminated"}


def test_the_corrected_service(serve):
    status, stderr, lines = serve("corrected")
    assert (status, stderr) == (-signal.SIGTERM, "")
    sites = [line["site"]["file"] for line in lines if line["site"]]
    assert not [file for file in sites if file.endswith("service_app.py")]
