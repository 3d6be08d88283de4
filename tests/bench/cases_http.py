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
from functools import partial

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
        processes, turns = (1, 7) if options.quick else (5, 7)
        yield one(server, "leakguard", name, processes, turns, budget=0.99)
    if options.quick or not options.peers:
        return
    for peer in variants.PEERS:
        yield one("starlette", peer, f"peer: {peer}", processes=1, turns=7)


def one(
    server: str, variant: str, name: str, processes: int, turns: int, budget: float | None = None
) -> Figure | Absent:
    try:
        pairs = compare(server, variant, processes, turns)
    except AbsentError as error:
        return Absent(NAME, name, str(error))
    note = f"{quartiles(pairs.off)[1]:,.0f} a second without"
    return figures.of(pairs.ratios, NAME, name, "ratio", budget=budget, at_least=True, note=note)


def compare(server: str, variant: str, processes: int, turns: int) -> Pairs:
    pairs = Pairs()
    for _ in range(processes):
        with serving(server, "off") as off, serving(server, variant) as on:
            load(off)
            load(on)
            take_turns(partial(load, off), partial(load, on), turns, pairs)
    return pairs


@contextmanager
def serving(server: str, variant: str) -> Iterator[int]:
    """The port of a server that runs in the block."""
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
        yield answer["port"]
    finally:
        process.kill()
        process.communicate()


def load(port: int) -> float:
    """Requests per second, over a second."""
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", "-d1s", f"http://127.0.0.1:{port}/"]
    with on_cpu(OTHER_CPU):
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    found = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    if done.returncode or not found or "Socket errors" in done.stdout or "Non-2xx" in done.stdout:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return float(found[1])


CASES = [
    Case(
        NAME,
        "requests per second of aiohttp and of Starlette on uvicorn, under wrk",
        http,
        "aiohttp, and the peers",
    )
]
