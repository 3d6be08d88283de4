"""What a thread's start and join cost, with native stacks and without, interleaved in one process.

Prints ratios to no leakguard: the median of rounds and their quartiles, and what that is in
microseconds here.

    python tests/bench/native_cost.py            # 15 rounds
    python tests/bench/native_cost.py --quick    # 5 rounds of a quarter of the size
"""

import argparse
import ctypes
import statistics
import sys
import threading
import time

import leakguard
from leakguard import _core

MODES = {
    "native stacks off (kinds: thread)": ("thread",),
    "native stacks on (native_thread too)": ("thread", "native_thread"),
}

libc = ctypes.CDLL(None)


def python_threads(count):
    for _ in range(count):
        thread = threading.Thread(target=int)
        thread.start()
        thread.join()


def c_threads(count):
    """Of libc's, with abs() as their start routine."""
    handle = ctypes.c_ulong()
    create, join, place = libc.pthread_create, libc.pthread_join, ctypes.byref(handle)
    for _ in range(count):
        create(place, None, libc.abs, None)
        join(handle, None)


def seconds(run, count, kinds):
    if kinds:
        leakguard.install(kinds=kinds)
    try:
        began = time.perf_counter()
        run(count)
        return (time.perf_counter() - began) / count
    finally:
        leakguard.uninstall()


def compare(name, run, count, rounds):
    measured = {mode: [] for mode in MODES}
    added = {mode: [] for mode in MODES}
    seconds(run, count // 4, ())
    for _ in range(rounds):
        plain = seconds(run, count, ())
        for mode, kinds in MODES.items():
            took = seconds(run, count, kinds)
            measured[mode].append(took / plain)
            added[mode].append((took - plain) * 1e6)
    for mode, found in measured.items():
        low, middle, high = statistics.quantiles(found, n=4)
        print(
            f"{name}, {mode:36} {middle:5.3f}   (quartiles {low:.3f} to {high:.3f}; "
            f"{statistics.median(added[mode]):+.1f} µs a thread)"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer and smaller rounds")
    quick = parser.parse_args().quick
    count, rounds = (1_000, 5) if quick else (4_000, 15)
    print(
        f"CPython {sys.version.split()[0]}, libunwind {_core.LIBUNWIND}; start and join with "
        f"leakguard / without, median of {rounds} rounds"
    )
    compare("Python thread", python_threads, count, rounds)
    compare("C thread     ", c_threads, count, rounds)


if __name__ == "__main__":
    main()
