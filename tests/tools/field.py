"""field.py [PROJECT...]: other people's test suites, as they are, without and with `--leakguard`.

For each project: the source distribution of the version below, a fresh environment with what its
tests need and leakguard's wheel (build/wheel), two runs. Prints how many tests ended otherwise with
leakguard than without, apart from a reported leak (which makes it fail), and the sites of the
leaks. What each run printed is in build/field/PROJECT.
"""

import argparse
import subprocess
import sys
import tarfile
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

TREE = Path(__file__).resolve().parents[2]
WORK = TREE / "build/field"
SECONDS = 3600  # for one run of one suite

PROJECTS = {
    "anyio": (
        "4.16.0",
        "blockbuster hypothesis psutil pytest-mock trio truststore trustme uvloop",
        "",
    ),
    "httpx": (
        "0.28.1",
        "brotli chardet click cryptography h2 pygments rich socksio trio trustme uvicorn zstandard",
        "",
    ),
    "starlette": (
        "1.10.0",
        "httpx httpx2 itsdangerous jinja2 opentelemetry-sdk python-multipart pyyaml trio",
        "-o addopts=",
    ),
    "uvicorn": (
        "0.54.0",
        "a2wsgi cryptography httptools httpx httpx2 pytest-benchmark pytest-mock python-dotenv "
        "pyyaml trustme typing-extensions uvloop watchfiles websockets wsproto",
        "-o addopts=",
    ),
    "aiohttp": (
        "3.14.5",
        "aiodns blockbuster brotli cryptography freezegun isal proxy.py pytest-codspeed pytest-cov "
        "pytest-mock python-on-whales re-assert setuptools-git time-machine trustme uvloop zlib_ng",
        "-o addopts= --ignore tests/autobahn",
    ),
}


def run(command: list[str], log: Path, cwd: Path = TREE) -> int:
    with log.open("w", encoding="utf-8") as output:
        print(f"  {' '.join(command)[:150]}", flush=True)
        return subprocess.run(
            command, cwd=cwd, stdout=output, stderr=subprocess.STDOUT, timeout=SECONDS
        ).returncode


def outcomes(path: Path) -> dict[str, list[str]]:
    """Of each test how it ended, an error that leakguard reported left out; and those apart."""
    found: dict[str, list[str]] = {}
    for case in ElementTree.parse(path).iter("testcase"):
        name = f"{case.get('classname')}.{case.get('name')}"
        ends = found.setdefault(name, [])
        for part in case:
            if part.tag in ("failure", "error", "skipped"):
                is_leak = "LeakError" in (part.get("message") or "")
                ends.append("leak" if is_leak else part.tag)
    return found


def examine(name: str, wheel: Path) -> bool:
    version, needs, options = PROJECTS[name]
    work = WORK / name
    work.mkdir(parents=True, exist_ok=True)
    python = str(work / "venv/bin/python")
    pip = [python, "-m", "pip", "--disable-pip-version-check", "-q"]
    own = f"{name}=={version}"
    for step in (
        [sys.executable, "-m", "venv", "--clear", str(work / "venv")],
        [*pip, "download", "--no-deps", "--no-binary", name, own, "-d", str(work)],
        [*pip, "install", own, "pytest", "pytest-timeout", "pytest-xdist", *needs.split()],
        [*pip, "install", "--no-deps", str(wheel)],
    ):
        if run(step, work / "setup.log"):
            print((work / "setup.log").read_text())
            return False
    [archive] = work.glob("*.tar.gz")
    with tarfile.open(archive) as sdist:
        sdist.extractall(work, filter="data")
    suite = work / archive.name.removesuffix(".tar.gz")
    ways = {"without": ["-p", "no:leakguard"], "with": ["--leakguard"]}
    for way, asked in ways.items():
        junit = ["--junitxml", str(work / f"{way}.xml")]
        common = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--timeout", "120"]
        command = [python, "-m", "pytest", *common, *asked, *junit, *options.split(), "tests"]
        run(command, work / f"{way}.log", suite)
    before, after = outcomes(work / "without.xml"), outcomes(work / "with.xml")
    leaking = [test for test, ends in after.items() if "leak" in ends]
    changed = [
        test
        for test in sorted({*before, *after})
        if before.get(test) != [end for end in after.get(test, ["absent"]) if end != "leak"]
    ]
    log = (work / "with.log").read_text(encoding="utf-8", errors="replace")
    summary = log.rpartition("= leakguard =")[2] if "= leakguard =" in log else log
    lines = [line for line in summary.splitlines() if "created at" in line or "defined at" in line]
    print(f"{own}: {len(after)} tests, {dict(Counter(end for e in after.values() for end in e))}")
    print(f"  tests with a reported leak: {len(leaking)}; ended otherwise: {len(changed)}")
    for line in [*(lines if leaking else []), *changed]:
        print(f"    {line}")
    return not changed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[2].partition(".")[0])
    parser.add_argument("projects", nargs="*", metavar="PROJECT", help=", ".join(PROJECTS))
    chosen = parser.parse_args().projects or list(PROJECTS)
    unknown = [name for name in chosen if name not in PROJECTS]
    if unknown:
        parser.error(f"unknown project {unknown[0]!r}; known: {', '.join(PROJECTS)}")
    wheels = list((TREE / "build/wheel").glob("*.whl"))
    if len(wheels) != 1:
        parser.error("no wheel in build/wheel: run `make .venv/installed` first")
    unchanged = [examine(name, wheels[0]) for name in chosen]
    return 0 if all(unchanged) else 1


if __name__ == "__main__":
    sys.exit(main())
