"""instructions.py FOLDER [--record]: what the core's hot operations cost, in instructions.

FOLDER is where Meson built the core (build/core). valgrind's callgrind counts the instructions of
each operation in tests/bench/instructions.c; the same build gives the same count on any machine of
that architecture, however busy. Each count is compared with its budget in instructions.toml, and
one that exceeds it by more than the margin there fails (status 1).

    python tests/bench/instructions.py build/core             # check; `make instructions` does it
    python tests/bench/instructions.py build/core --record    # these counts are the budget now
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

BUDGET = Path(__file__).with_suffix(".toml")
HEAD = """\
# Instructions that one call of each of the core's hot operations takes, set-up not counted: what
# tests/bench/instructions.py compares with. Written by `instructions.py FOLDER --record`.
#
# The counts depend on the architecture and on the compiler, hence a table for each pair that was
# recorded. `same` is how much more is allowed where there is a table, as a fraction; `other` where
# there is one for the architecture, but of another compiler.

"""
# Valgrind shows a program the features of the machine's processor, and glibc's memcmp would differ
# by them; without these it is the same everywhere. Names that a glibc does not know do nothing.
SAME_LIBC = "glibc.cpu.hwcaps=-AVX2,-AVX2_Usable,-BMI2,-ERMS,-FSRM,-SSE4_1,-SSE4_2"

Counts = dict[str, float]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0], epilog=__doc__.partition("\n\n")[2],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("folder", type=Path, help="where Meson built the core, as build/core")
    parser.add_argument("--record", action="store_true", help="write the counts as the new budget")
    arguments = parser.parse_args()
    program = arguments.folder / "instructions"
    if not program.exists():
        parser.error(f"no {program}: meson setup {arguments.folder} && meson compile -C ...")
    target, counts = count_all(program)
    if arguments.record:
        record(target, counts)
        return 0
    return check(target, counts, arguments.folder)


def count_all(program: Path) -> tuple[str, Counts]:
    """What the program was compiled for and by, and the instructions of one call of each."""
    listed = subprocess.run([program], capture_output=True, text=True, check=True).stdout
    target, *lines = listed.splitlines()
    operations = dict(line.split() for line in lines)
    return target, {name: count(program, name) / int(n) for name, n in operations.items()}


def count(program: Path, operation: str) -> int:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "callgrind.out")
        command = ["valgrind", "--tool=callgrind", "--toggle-collect=measured",
                   f"--callgrind-out-file={out}", str(program), operation]  # fmt: skip
        environment = {**os.environ, "GLIBC_TUNABLES": SAME_LIBC}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        found = done.returncode == 0 and re.search(r"^totals: (\d+)$", out.read_text(), re.M)
        if not found or found[1] == "0":
            sys.exit(f"instructions: {' '.join(command)} gave no count:\n{done.stderr}")
        return int(found[1])


def check(target: str, counts: Counts, folder: Path) -> int:
    budget = tomllib.loads(BUDGET.read_text(encoding="utf-8"))
    used, margin = choose(budget, target)
    if used is None:
        recorded = ", ".join(name for name in budget if name != "margin")
        print(f"instructions: NOT CHECKED: nothing is recorded for {target} (but for {recorded})")
        return 0
    wrong, gains = compare(counts, budget[used], margin)
    for line in (*gains, *wrong):
        print(f"instructions: {line}")
    if wrong:
        print(
            f"instructions: FAILED against the budget of {used}, {margin:.0%} allowed. Make it "
            "cheaper; or, where it is worth the price, say so in the commit and record it: "
            f"python tests/bench/instructions.py {folder} --record"
        )
        return 1
    listed = ", ".join(f"{name} {found:.0f}" for name, found in counts.items())
    print(f"instructions: within {margin:.0%} of the budget of {used}: {listed}")
    return 0


def compare(counts: Counts, budget: Counts, margin: float) -> tuple[list[str], list[str]]:
    """What is wrong, and what has become so much cheaper that it should be recorded."""
    wrong = [f"{name} has a budget and is not counted" for name in budget.keys() - counts.keys()]
    gains = []
    for name, found in counts.items():
        allowed = budget.get(name)
        if allowed is None:
            wrong.append(f"{name} takes {found:.1f} instructions and has no budget")
            continue
        line = f"{name} takes {found:.1f} instructions, {found / allowed - 1:+.1%} of {allowed:.1f}"
        if found > allowed * (1 + margin):
            wrong.append(line)
        elif found < allowed * (1 - margin):
            gains.append(f"{line}: record it, so that the gain is kept")
    return wrong, gains


def choose(budget: dict[str, Counts], target: str) -> tuple[str | None, float]:
    """The table that counts for `target`, and the margin; None where there is none."""
    if target in budget:
        return target, budget["margin"]["same"]
    machine = target.split()[0]
    for name in budget:
        if name.split()[0] == machine:
            return name, budget["margin"]["other"]
    return None, 0.0


def record(target: str, counts: Counts) -> None:
    budget: dict[str, Counts] = {"margin": {"same": 0.02, "other": 0.25}}
    if BUDGET.exists():
        budget.update(tomllib.loads(BUDGET.read_text(encoding="utf-8")))
    budget[target] = {name: round(found, 1) for name, found in counts.items()}
    tables = (
        "\n".join(
            (
                f"[{name}]" if name.isalpha() else f'["{name}"]',
                *(f"{key} = {value}" for key, value in table.items()),
            )
        )
        for name, table in budget.items()
    )
    BUDGET.write_text(HEAD + "\n\n".join(tables) + "\n", encoding="utf-8")
    print(f"instructions: recorded for {target} in {BUDGET.name}")


if __name__ == "__main__":
    sys.exit(main())
