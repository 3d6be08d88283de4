"""matrix.py [VERSION...]: the tests on every CPython that leakguard supports.

3.11 to 3.13 are this machine's own (pyenv's, or python3.N on PATH); one that is missing is a
failure. Newer ones come from Debian's next releases, in a folder that later runs find again
(/var/cache/leakguard, or MATRIX_CACHE). Where the archive does not give one that day, the last
lines say so and the run goes on.

All of them get one sdist, build a wheel from it, install that into a fresh environment and run
the tests of the sdist. What each prints is in build/matrix/VERSION.log.
"""

import argparse
import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from extra import TREE, extra
from rootfs import AS_ROOT, CACHE, OWN_MOUNTS, PAUSES, TOOLS, ArchiveError, Rootfs, as_root

ON_MACHINE = ("3.11", "3.12", "3.13")
IN_ARCHIVE = ("3.14", "3.15")
SUITES = ("sid", "forky")
COMPILER = ("gcc", "libc6-dev", "ca-certificates", "pkgconf", "libunwind-dev")
CORE_TOOLS = ("check", "meson", "ninja-build", "pkgconf")

DISTRIBUTION = "leakguard-runtime"
WORK = TREE / "build/matrix"
INSIDE = "/srv/leakguard"  # WORK, for what runs in a Debian of its own
SHORT = 600  # seconds for anything but the tests
LONG = 1200  # seconds for one run of the tests
PROGRESS = 30  # seconds between two signs of life
# Most of a test run is waiting for a grace to pass, so two share a core well.
AT_ONCE = 2
TESTS = os.environ.get("AT_ONCE", "3")  # at once, of one interpreter

CLOSING_LINE = re.compile(r"\b\d+ (passed|failed|errors?|skipped)\b.* in \d")


class StepError(Exception):
    """A step went wrong; its output has been shown. Or it cannot be taken on this machine."""


live: set[subprocess.Popen[bytes]] = set()


@dataclass
class Place:
    """Where a version is tested: on the machine, or in a Debian of its own."""

    folder: str  # of this version, as it is called there
    rootfs: Rootfs | None = None

    def command(self, *words: str) -> list[str]:
        return self.rootfs.enter(words) if self.rootfs else list(words)

    def clear(self) -> None:
        if self.rootfs:
            self.rootfs.remove(self.folder)
        else:
            shutil.rmtree(self.folder, ignore_errors=True)

    def bring(self, file: Path) -> str:
        if self.rootfs:
            self.rootfs.copy_in(file, f"{self.folder}/{file.name}")
        else:
            Path(self.folder).mkdir(parents=True)
            shutil.copy(file, self.folder)
        return f"{self.folder}/{file.name}"


@dataclass
class Log:
    """The output of one version's steps, in a file; what people should see, on stdout."""

    name: str

    @property
    def path(self) -> Path:
        return WORK / f"{self.name}.log"

    def say(self, text: str) -> None:
        print(f"[{self.name}] {text}", flush=True)

    def run(self, command: Sequence[str], what: str) -> bool:
        """Runs `command`; True if it went well. Now and then says that it still goes on."""
        began = time.monotonic()
        with self.path.open("ab") as log:
            log.write(f"\n$ {' '.join(command)}\n".encode())
            log.flush()
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=TREE,
                process_group=0,
            )
            live.add(process)
            while True:
                try:
                    status = process.wait(timeout=PROGRESS)
                    break
                except subprocess.TimeoutExpired:
                    seconds = round(time.monotonic() - began)
                    self.say(f"{what}, {seconds} s so far: {self.last_line()[:90]}")
            live.discard(process)
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)  # what a test left behind
            if status:
                log.write(f"(status {status})\n".encode())
        return status == 0

    def step(
        self, place: Place, what: str, *words: str, limit: int = SHORT, tries: int = 1
    ) -> None:
        """Runs `words` in `place`, or shows what went wrong and raises StepError."""
        # SIGABRT: pytest's fault handler then says where each thread is. In the foreground, or
        # the signal would come twice, and the second one cut that short.
        timeout = ["timeout", "--foreground", "--signal=ABRT", "--kill-after=20", str(limit)]
        command = place.command(*timeout, *words)
        for pause in (*PAUSES[: tries - 1], None):
            if self.run(command, what):
                return
            if pause is not None:
                self.say(f"{what} failed; again in {pause} s")
                time.sleep(pause)
        self.say(f"{what} FAILED:")
        self.show_end(150)
        raise StepError(f"{what} (all of it: {self.path.relative_to(TREE)})")

    def show_end(self, limit: int) -> None:
        """Prints what the last command printed, the last `limit` lines at most."""
        lines = self.lines()
        last = max(number for number, line in enumerate(lines) if line.startswith("$ "))
        print("\n".join(lines[last + 1 :][-limit:]), flush=True)

    def lines(self) -> list[str]:
        return self.path.read_text(errors="replace").splitlines()

    def last_line(self) -> str:
        return next((line for line in reversed(self.lines()) if line.strip()), "")

    def show(self, pattern: re.Pattern[str]) -> None:
        """Prints the lines of the last step that match, as they are: other programs read them."""
        print("\n".join(line for line in self.lines() if pattern.search(line)), flush=True)


def test_python(place: Place, python: str, sdist: Path, log: Log) -> None:
    place.clear()
    archive = place.bring(sdist)
    tree = f"{place.folder}/{sdist.name.removesuffix('.tar.gz')}"
    venv = f"{place.folder}/venv"
    wheels = f"{place.folder}/wheels"
    pip = [f"{venv}/bin/python", "-m", "pip", "--disable-pip-version-check", "--quiet"]
    log.step(place, "unpacking", "tar", "-xf", archive, "-C", place.folder)
    log.step(place, "making an environment", python, "-m", "venv", venv)
    log.step(place, "installing the test tools", *pip, "install", *extra("test"), tries=3)
    log.step(
        place, "building the wheel", *pip, "wheel", "--no-deps", "-w", wheels, archive, tries=3
    )
    log.step(
        place, "installing the wheel",
        *pip, "install", "--no-deps", "--no-index", "--find-links", wheels, DISTRIBUTION,
    )  # fmt: skip
    began = time.monotonic()
    tests = [f"{venv}/bin/python", "-m", "pytest", "--color=no", "-n", TESTS, "tests/python"]
    log.step(place, "pytest", "env", "-C", tree, *tests, limit=LONG)
    log.say(f"pytest, {round(time.monotonic() - began)} s")
    log.show(CLOSING_LINE)
    place.clear()


def test_core(place: Place, sdist: Path, log: Log) -> None:
    """The core's own tests with that Debian's compiler, whose new warnings are no failure."""
    place.clear()
    archive = place.bring(sdist)
    tree = f"{place.folder}/{sdist.name.removesuffix('.tar.gz')}"
    log.step(place, "unpacking", "tar", "-xf", archive, "-C", place.folder)
    tests = ["tests/tools/core_tests.sh", "build/core", "-Dwerror=false"]
    log.step(place, "the core's tests", "env", "-C", tree, *tests)
    log.say("the core's tests")
    log.show(re.compile(r"^\d+%: Checks:"))
    place.clear()


def describe(command: Sequence[str]) -> str | None:
    """The version of a CPython that can build and run leakguard; None for anything else."""
    program = """
import os, platform, sys, sysconfig, venv, ensurepip
headers = os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h"))
gil = not sysconfig.get_config_var("Py_GIL_DISABLED")
print(headers and gil and sys.implementation.name == "cpython" and platform.python_version())
"""
    try:
        answer = subprocess.run([*command, "-c", program], capture_output=True, text=True)
    except OSError:
        return None
    text = answer.stdout.strip()
    return text if answer.returncode == 0 and text != "False" else None


def on_machine(version: str) -> tuple[str, str]:
    """The path and the full version of this machine's CPython `version`."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    newest_first = sorted(
        pyenv.glob(f"{version}.*/bin/python{version}"),
        key=lambda path: [int(number) for number in re.findall(r"\d+", path.parts[-3])],
        reverse=True,
    )
    for python in (*map(str, newest_first), f"python{version}"):
        full = describe([python])
        if full and full.startswith(version + "."):
            return python, full
    raise StepError(
        f"no CPython {version} with headers and venv here: install it (pyenv install {version}, "
        f"or the packages python{version}-dev and python{version}-venv)"
    )


class Matrix:
    def __init__(self, versions: Sequence[str], sdist: Path, pool: ThreadPoolExecutor) -> None:
        self.sdist = sdist
        self.pool = pool
        self.jobs: set[Future[None]] = set()
        self.passed: dict[str, str] = {}  # version -> full version
        self.failed: dict[str, str] = {}  # version -> why
        self.not_tested: dict[str, str] = {}  # version -> why
        in_archive = [version for version in versions if version in IN_ARCHIVE]
        if in_archive:  # first: making a Debian takes the longest
            self.start("archive", partial(self.prepare_archive, in_archive))
        for version in versions:
            if version in ON_MACHINE:
                self.start(version, self.test_on_machine)

    def start(self, name: str, job: Callable[[Log], None]) -> None:
        def guarded() -> None:
            log = Log(name)
            try:
                job(log)
            except (StepError, OSError, subprocess.CalledProcessError) as error:
                self.failed[name] = str(error)
                log.say(f"FAILED: {error}")

        self.jobs.add(self.pool.submit(guarded))

    def finish(self) -> None:
        while self.jobs:
            done, _ = wait(self.jobs, return_when=FIRST_COMPLETED)
            self.jobs -= done
            for job in done:
                job.result()

    def test_on_machine(self, log: Log) -> None:
        python, full = on_machine(log.name)
        log.say(f"{python} ({full})")
        test_python(Place(str(WORK / log.name)), python, self.sdist, log)
        self.passed[log.name] = full

    def prepare_archive(self, versions: Sequence[str], log: Log) -> None:
        """Finds each version in the first suite that has it, and starts its tests."""
        if not log.run([*AS_ROOT, *OWN_MOUNTS, "true"], "trying a mount namespace"):
            log.show_end(20)
            raise StepError("no mounts of our own here: root or sudo is needed, and if this is a "
                            "container, its CAP_SYS_ADMIN")  # fmt: skip
        missing = list(versions)
        why = "no suite of the archive has it"
        for suite in SUITES:
            rootfs = Rootfs(suite)
            packages = [f"python{v}{part}" for v in IN_ARCHIVE for part in ("", "-dev", "-venv")]
            log.say(f"preparing Debian {suite} in {rootfs.path}")
            try:
                rootfs.prepare([*packages, *COMPILER, *CORE_TOOLS], log.run)
            except ArchiveError as error:
                why = f"the archive is broken today: {error}"
                log.say(f"{error}:")
                log.show_end(20)
                continue
            here = [v for v in missing if describe(rootfs.enter([f"python{v}"]))]
            for version in here:
                missing.remove(version)
                self.start(version, partial(self.test_in, rootfs))
            if here:
                self.start("core", partial(test_core, Place(f"{INSIDE}/core", rootfs), self.sdist))
            if not missing:
                return
        for version in missing:
            self.not_tested[version] = why

    def test_in(self, rootfs: Rootfs, log: Log) -> None:
        python = f"python{log.name}"
        full = describe(rootfs.enter([python])) or log.name
        log.say(f"Debian {rootfs.suite}'s {python} ({full})")
        test_python(Place(f"{INSIDE}/{log.name}", rootfs), python, self.sdist, log)
        self.passed[log.name] = full


def make_sdist() -> Path:
    """An sdist of the tree as it is now."""
    folder = WORK / "sdist"
    for left_over in TREE.glob("python/*.egg-info"):  # its list of files would go into the sdist
        shutil.rmtree(left_over)
    options = ["--sdist", "--no-isolation", "--outdir", str(folder)]
    result = subprocess.run(
        [sys.executable, "-m", "build", *options, "."],
        cwd=TREE,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if result.returncode:
        sys.exit(f"{result.stdout}\nmatrix: the sdist could not be built")
    (sdist,) = folder.glob("*.tar.gz")
    return sdist


def lock_cache() -> object:
    """Waits until no other run uses the cache; the file returned holds the lock."""
    if not os.access(CACHE, os.W_OK):
        as_root("install", "-d", "-o", str(os.geteuid()), str(CACHE))
    lock = (CACHE / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(f"matrix: another run uses {CACHE}; waiting for it", flush=True)
        fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


def summary(matrix: Matrix) -> int:
    """Prints what came out of it and returns the exit status."""
    for version, why in sorted(matrix.not_tested.items()):
        print(f"matrix: WARNING: {version} WAS NOT TESTED: {why}")
    for name, why in sorted(matrix.failed.items()):
        print(f"matrix: {name} FAILED: {why}")
    parts = []
    if matrix.failed:
        parts.append("FAILED on " + ", ".join(sorted(matrix.failed)))
    if matrix.passed:
        parts.append("passed on " + ", ".join(full for _, full in sorted(matrix.passed.items())))
    if matrix.not_tested:
        parts.append("NOT TESTED on " + ", ".join(sorted(matrix.not_tested)))
    line = "matrix: " + "; ".join(parts)
    (WORK / "summary").write_text(line + "\n")
    print(line)
    return 1 if matrix.failed or not matrix.passed else 0


def main() -> int:
    known = ON_MACHINE + IN_ARCHIVE
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("versions", nargs="*", metavar="VERSION", help=f"of {', '.join(known)}")
    versions = parser.parse_args().versions or known
    for version in versions:
        if version not in known:
            parser.error(f"{version} is not one of {', '.join(known)}")
    for stop in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop, signal.default_int_handler)
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    lock = None
    if set(versions) & set(IN_ARCHIVE):
        subprocess.run([TOOLS / "system_packages.sh", "matrix"], check=True)
        lock = lock_cache()
    pool = ThreadPoolExecutor(max_workers=AT_ONCE)
    try:
        matrix = Matrix(versions, make_sdist(), pool)
        matrix.finish()
    except KeyboardInterrupt:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in list(live):
            as_root("kill", "-KILL", "--", f"-{process.pid}")
        print("matrix: interrupted", flush=True)
        os._exit(130)  # the pool's threads would go on waiting
    del lock
    return summary(matrix)


if __name__ == "__main__":
    sys.exit(main())
