"""request.py [SERVER]: what leakguard takes of one request of a server, counted, not timed.

Between two tasks a server does other work, so that nothing of leakguard is left in the processor's
caches: there a task costs more than where one is made after another. This runs the server of the
case `http` under valgrind's callgrind, which simulates first-level caches of 32 KiB, without and
with leakguard, and prints for a request the instructions and what was not in those caches.

    python tests/bench/request.py              # aiohttp; about two minutes
    python tests/bench/request.py starlette
"""

import argparse
import json
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

from cases_http import CONNECTIONS, SERVERS
from harness import HERE, clean_environment

CACHES = ("--cache-sim=yes", "--I1=32768,8,64", "--D1=32768,8,64", "--LL=2097152,16,64")
EVENTS = {"Ir": "instructions", "I1mr": "code misses", "D1mr": "data misses"}
WARM_UP, REQUESTS = 1600, 3200

Counts = Counter[str]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0], epilog=__doc__.partition("\n\n")[2],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("server", nargs="?", choices=SERVERS, default="aiohttp")
    server = parser.parse_args().server
    if shutil.which("callgrind_control") is None:
        sys.exit("request.py: no callgrind here (Debian: apt-get install valgrind)")
    off, _ = count(server, "off")
    on, own = count(server, "leakguard")
    rows = {"without leakguard": off, "with": on, "in its own code": own}
    print(f"{SERVERS[server]}, Python {sys.version.split()[0]}, one request of {REQUESTS:,}")
    print(f"{'':20}" + "".join(f"{title:>14}" for title in EVENTS.values()))
    for title, counts in rows.items():
        print(f"{title:20}" + "".join(f"{counts[event]:14,.0f}" for event in EVENTS))


def count(server: str, variant: str) -> tuple[Counts, Counts]:
    """Of one request: all, and in leakguard's extension."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "out")
        command = ["valgrind", "--tool=callgrind", *CACHES, f"--callgrind-out-file={out}",
                   sys.executable, str(HERE / "servers.py"), server, variant]  # fmt: skip
        # The order of sets, and with it the instructions, would differ from run to run.
        environment = clean_environment(PYTHONHASHSEED="0")
        process = subprocess.Popen(
            command, env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        try:
            assert process.stdout is not None
            answer = process.stdout.readline()
            if "port" not in answer:
                sys.exit(f"request.py: no {server} to count: {answer or process.communicate()[1]}")
            port = json.loads(answer)["port"]
            ask(port, WARM_UP)
            control("--zero", process.pid)
            ask(port, REQUESTS)
            control("--dump", process.pid)
        finally:
            process.kill()
            process.communicate()
        by_object = costs(Path(f"{out}.1"))
    total = sum(by_object.values(), Counter())
    own = by_object.get("_core", Counter())
    return per_request(total), per_request(own)


def control(command: str, process: int) -> None:
    subprocess.run(["callgrind_control", command, str(process)], check=True, capture_output=True)


def ask(port: int, requests: int) -> None:
    """On each of the connections in turn, as many at once."""
    question = f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
    with ExitStack() as stack:
        connections = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            for _ in range(CONNECTIONS)
        ]
        for _ in range(requests // CONNECTIONS):
            for connection in connections:
                connection.sendall(question)
            for connection in connections:
                answer = b""
                while not answer.endswith(b"hello"):
                    read = connection.recv(65536)
                    if not read:
                        sys.exit(f"request.py: the server ended a connection after {answer!r}")
                    answer += read


def costs(out: Path) -> dict[str, Counts]:
    """What each object file executed itself, by the start of its name. (valgrind's manual,
    "Callgrind Format Specification".)"""
    events: list[str] = []
    names: dict[str, str] = {}
    found: dict[str, Counts] = {}
    here = Counter[str]()
    is_call = False
    for line in out.read_text().splitlines():
        if line.startswith("events: "):
            events = line.split()[1:]
        elif match := re.match(r"(c?ob)=(\(\d+\))(?: (.*))?$", line):
            which, number, name = match.groups()
            if name:
                names[number] = Path(name).name.partition(".")[0]
            if which == "ob":
                here = found.setdefault(names[number], Counter())
        elif line.startswith("calls="):
            is_call = True
        elif re.match(r"[+*\d-]", line):
            if not is_call:
                here.update(dict(zip(events, map(int, line.split()[1:]), strict=False)))
            is_call = False
    return found


def per_request(counts: Counts) -> Counts:
    return Counter({event: round(value / REQUESTS) for event, value in counts.items()})


if __name__ == "__main__":
    main()
