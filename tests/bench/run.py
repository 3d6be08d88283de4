"""What watching costs: each case with leakguard and without, in turns; ratios and their spread.

    python tests/bench/run.py                        # everything (half an hour)
    python tests/bench/run.py --quick                # every family of cases, within 50 seconds
    python tests/bench/run.py task gather            # these cases only
    python tests/bench/run.py --json build/3.13.json
    python tests/bench/run.py --markdown build/3.*.json                  # tables of several runs
    python tests/bench/run.py --markdown build/3.*.json --into docs/performance.md

A ratio is leakguard / without; beside it, in brackets, what one took without leakguard and what
came on top. `budget` is what the project allows itself. The extra `bench` installs the peers that
are measured besides; one that is missing is said so.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import cases_check
import cases_http
import cases_limits
import cases_memory
import cases_plain
import cases_pytest
import cases_startup
import cases_tasks
import tables
from cases import Case, Options
from figures import Absent, Figure
from harness import OTHER_CPU, WORK_CPU

CASES: list[Case] = [
    *cases_tasks.CASES,
    *cases_plain.CASES,
    *cases_check.CASES,
    *cases_limits.CASES,
    *cases_memory.CASES,
    *cases_startup.CASES,
    *cases_pytest.CASES,
    *cases_http.CASES,
]

QUICK_SECONDS = 49


def main() -> int:
    arguments = parse(sys.argv[1:])
    if arguments.markdown:
        text = tables.tables(arguments.markdown)
        if arguments.into is None:
            print(text)
        else:
            tables.fill_in(arguments.into, text)
        return 0
    if arguments.list:
        for case in CASES:
            print(f"{case.name:16} {case.what}")
        return 0
    options = Options(quick=arguments.quick, peers=not arguments.no_peers)
    wanted = [case for case in CASES if not arguments.cases or case.name in arguments.cases]
    print(headline(), flush=True)
    began = time.monotonic()
    found, too_long = run(wanted, options, arguments.json)
    over = [it for it in found if isinstance(it, Figure) and it.verdict == "over"]
    print(f"\n{len(found)} lines, {len(over)} over budget; {time.monotonic() - began:.0f} s")
    if options.quick:
        tell_left_out(wanted, too_long)
    return 0


def parse(words: Sequence[str]) -> argparse.Namespace:
    summary, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", nargs="*", metavar="CASE", help="which; --list names them")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, within 50 s")
    parser.add_argument("--json", type=Path, metavar="F", help="write the figures to F as well")
    parser.add_argument("--list", action="store_true", help="the cases, with a line each")
    parser.add_argument(
        "--markdown",
        nargs="+",
        metavar="F",
        type=Path,
        help="measure nothing: print the figures of these files as tables, a column each",
    )
    parser.add_argument(
        "--into", type=Path, metavar="DOCUMENT", help="put the tables of --markdown into this file"
    )
    parser.add_argument("--no-peers", action="store_true", help="leakguard only")
    arguments = parser.parse_args(words)
    if arguments.into is not None and not arguments.markdown:
        parser.error("--into needs --markdown")
    known = [case.name for case in CASES]
    for name in arguments.cases:
        if name not in known:
            parser.error(f"no case is called {name!r}; there are {', '.join(known)}")
    return arguments


def headline() -> str:
    return (
        f"CPython {platform.python_version()} ({platform.machine()}), leakguard "
        f"{importlib.metadata.version('leakguard-runtime')}; ratios are with / without: median, "
        f"quartiles of the pairs.\nBoth of a pair on processor {WORK_CPU} (what drives them on "
        f"{OTHER_CPU}), in turns of some 25 ms; garbage collector as Python sets it."
    )


def run(
    wanted: Sequence[Case], options: Options, file: Path | None
) -> tuple[list[Figure | Absent], list[str]]:
    """What was found, and what --quick had no time for. Writes `file` after each case: what a long
    run had found is not lost where it is cut short."""
    found: list[Figure | Absent] = []
    too_long: list[str] = []
    began = time.monotonic()
    for case in wanted:
        if options.quick and not case.quick:
            continue
        if options.quick and time.monotonic() - began + case.quick_seconds > QUICK_SECONDS:
            too_long.append(case.name)
            continue
        print(f"\n{case.name}: {case.what}", flush=True)
        for line in case.run(options):
            found.append(line)
            print(line.text(), flush=True)
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(describe(options, found), indent=1) + "\n")
    return found, too_long


def tell_left_out(wanted: Sequence[Case], too_long: Sequence[str]) -> None:
    for case in wanted:
        if case.name in too_long:
            print(f"--quick had no time for {case.name}: the machine is slow or busy")
        elif not case.quick:
            print(f"--quick leaves out {case.name}")
        elif case.left_out:
            print(f"--quick leaves out of {case.name}: {case.left_out}")


def describe(options: Options, found: Sequence[Figure | Absent]) -> dict[str, object]:
    return {
        "python": platform.python_version(),
        "leakguard": importlib.metadata.version("leakguard-runtime"),
        "machine": platform.machine(),
        "processors": os.cpu_count(),
        "system": platform.platform(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "quick": options.quick,
        "figures": [line.to_json() for line in found],
    }


if __name__ == "__main__":
    sys.exit(main())
