"""Case `http`: requests per second of a small server, under wrk.

Two servers, one with leakguard and one without, wait while the other one is loaded. They share one
processor, wrk has another. Everything stays on the loopback.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import figures
import variants
from cases import Case, Options
from figures import Absent, Figure
from harness import (
    HERE,
    OTHER_CPU,
    WORK_CPU,
    AbsentError,
    Pairs,
    clean_environment,
    on_cpu,
    quartiles,
    take_turns,
)

NAME = "http"
SERVERS = {"aiohttp": "aiohttp", "starlette": "Starlette on uvicorn"}
CONNECTIONS = 32


def http(options: Options) -> Iterator[Figure | Absent]:
    if shutil.which("wrk") is None:
        yield Absent(NAME, "requests per second", "no wrk here (Debian: apt-get install wrk)")
        return
    # One second is the least that wrk can do.
    for server, title in SERVERS.items():
        if options.quick and server == "aiohttp":
            continue
        name = f"{title}, requests per second"
        processes, turns = (1, 7) if options.quick else (10, 3)
        yield from one(server, "leakguard", name, processes, turns, budget=0.99)
    if options.quick or not options.peers:
        return
    for peer in variants.PEERS:
        yield from one("starlette", peer, f"peer: {peer}", processes=1, turns=7)


def one(
    server: str, variant: str, name: str, processes: int, turns: int, budget: float | None = None
) -> Iterator[Figure | Absent]:
    """Requests per second, and the processor time of one, which what else runs does not touch."""
    requests, seconds = Pairs(), Pairs()
    try:
        for _ in range(processes):
            with serving(server, "off") as off, serving(server, variant) as on:
                a, b = Loaded(off), Loaded(on)
                take_turns(a, b, turns, requests)
                take_turns(iter(a.seconds).__next__, iter(b.seconds).__next__, turns, seconds)
    except AbsentError as error:
        yield Absent(NAME, name, str(error))
        return
    note = f"{quartiles(requests.off)[1]:,.0f} a second without"
    yield figures.of(requests.ratios, NAME, name, "ratio", budget=budget, at_least=True, note=note)
    note = f"{quartiles(seconds.off)[1] * 1e6:.0f} µs without"
    yield figures.of(seconds.ratios, NAME, f"{name}, processor time", "ratio", note=note)


@dataclass
class Server:
    process: int
    port: int

    def seconds(self) -> float:
        """Of processor time, all of its threads."""
        statuses = Path(f"/proc/{self.process}/task").glob("*/schedstat")
        return sum(int(status.read_text().split()[0]) for status in statuses) / 1e9


class Loaded:
    """A server under wrk: calling it is one turn of a second, which returns requests per second.
    `seconds` collects the processor time for one request, turn by turn."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.seconds: list[float] = []
        self()  # warms it up
        self.seconds.clear()

    def __call__(self) -> float:
        before = self._server.seconds()
        url = f"http://127.0.0.1:{self._server.port}/"
        command = ["wrk", "-t1", f"-c{CONNECTIONS}", "-d1s", url]
        with on_cpu(OTHER_CPU):
            done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        rate = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
        total = re.search(r"(\d+) requests in", done.stdout)
        failed = "Socket errors" in done.stdout or "Non-2xx" in done.stdout
        if done.returncode or not rate or not total or failed:
            sys.exit(
                f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
            )
        self.seconds.append((self._server.seconds() - before) / int(total[1]))
        return float(rate[1])


@contextmanager
def serving(server: str, variant: str) -> Iterator[Server]:
    """A server that runs in the block."""
    command = [sys.executable, str(HERE / "servers.py"), server, variant]
    with on_cpu(WORK_CPU):
        process = subprocess.Popen(
            command, env=clean_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True,
        )  # fmt: skip
    try:
        assert process.stdout is not None
        answer = json.loads(process.stdout.readline() or '{"absent": "the server did not start"}')
        if "absent" in answer:
            raise AbsentError(answer["absent"])
        yield Server(process.pid, answer["port"])
    finally:
        process.kill()
        process.communicate()


CASES = [
    Case(
        NAME,
        "requests per second of aiohttp and of Starlette on uvicorn, under wrk",
        http,
        "aiohttp, and the peers",
        quick_seconds=18,
    )
]
