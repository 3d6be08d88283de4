"""A Debian of its own in a folder, for interpreters newer than the machine's.

Made with debootstrap, kept outside the tree so that later runs find it again, entered with
in_rootfs.sh. Works as root, or through sudo.
"""

import ast
import os
import shlex
import shutil
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

TOOLS = Path(__file__).resolve().parent
CACHE = Path(os.environ.get("MATRIX_CACHE", "/var/cache/leakguard"))
AS_ROOT = [] if os.geteuid() == 0 else ["sudo"]
# Runs a command whose mounts are gone when it is.
OWN_MOUNTS = ["unshare", "--mount", "--propagation", "private"]
PAUSES = (10, 60)  # seconds before the second and the third try of what needs the network

# What a machine says of its network, next to pip's own settings.
CERTIFICATES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
PROXIES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
# What apt says of it; the rest of apt's settings are the machine's own business.
NETWORK_SETTINGS = ("acquire::http::", "acquire::https::", "acquire::ftp::")

# Runs one command and returns whether it went well; the second argument says what it is.
Run = Callable[[Sequence[str], str], bool]


class ArchiveError(Exception):
    """The archive did not give what was asked, after a few tries."""


class Rootfs:
    """The Debian `suite` in a folder of CACHE."""

    def __init__(self, suite: str) -> None:
        self.suite = suite
        self.path = CACHE / suite
        self._pip = pip_settings()
        self._folders = folders_named_in(self._pip)

    def enter(self, command: Sequence[str]) -> list[str]:
        """The command that runs `command` inside, with nothing of this environment but what the
        network and pip need."""
        variables = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/root",
            "LANG": "C.UTF-8",
            "DEBIAN_FRONTEND": "noninteractive",
            **self._pip,
        }
        return [
            *AS_ROOT, str(TOOLS / "in_rootfs.sh"), str(self.path), *map(str, self._folders), "--",
            "env", "-i", *(f"{name}={value}" for name, value in variables.items()), *command,
        ]  # fmt: skip

    def copy_in(self, source: Path, to: str) -> None:
        target = self.path / to.lstrip("/")
        as_root("mkdir", "-p", str(target.parent))
        as_root("cp", "--dereference", str(source), str(target))

    def remove(self, path: str) -> None:
        as_root("rm", "-rf", str(self.path / path.lstrip("/")))

    def has(self, program: str) -> bool:
        return (self.path / "usr/bin" / program).exists()

    def prepare(self, packages: Iterable[str], run: Run) -> None:
        """Makes the folder, or completes what an earlier run began, with those of `packages` that
        the suite has. Raises ArchiveError."""
        wanted = sorted(packages)
        stamp = self.path / ".leakguard-packages"
        if stamp.exists() and stamp.read_text().split() == wanted:
            self._copy_network()
            return
        if not (self.path / "var/lib/dpkg/status").exists():
            self._bootstrap(run)
        self._copy_network()
        self._configure_apt()
        update = self.enter(["apt-get", "-qq", "update"])
        tries(lambda: run(update, f"{self.suite}: apt-get update"), f"{self.suite}: apt-get update")
        # An earlier run may have been stopped half-way through an installation.
        run(self.enter(["dpkg", "--configure", "-a"]), f"{self.suite}: dpkg --configure")
        here = [name for name in wanted if self._offers(name)]
        install = self.enter(["apt-get", "-qq", "-y", "--fix-broken", "install", *here])
        tries(lambda: run(install, f"{self.suite}: installing"), f"{self.suite}: apt-get install")
        self._copy_network()  # again: installing ca-certificates has written its own bundle
        if here == wanted:  # else the next run asks again
            write_as_root(stamp, "\n".join(wanted))

    def _bootstrap(self, run: Run) -> None:
        # Under another name until it is whole: what a stopped run leaves behind is not taken for a
        # system.
        making = self.path.with_name(self.suite + ".making")
        # A user's PATH may lack the folders of the system's own programs.
        debootstrap = shutil.which("debootstrap", path=os.environ["PATH"] + ":/usr/sbin:/sbin")
        command = [*AS_ROOT, *OWN_MOUNTS, debootstrap or "debootstrap", "--variant=minbase",
                   self.suite, str(making), *debian_source()]  # fmt: skip

        def attempt() -> bool:
            as_root("rm", "-rf", str(making), str(self.path))
            return run(command, f"{self.suite}: debootstrap")

        tries(attempt, f"{self.suite}: debootstrap")
        as_root("mv", str(making), str(self.path))

    def _configure_apt(self) -> None:
        # Check-Valid-Until: an archive's mirror may be frozen at a day, so that its lists count as
        # expired; their signature is checked all the same.
        lines = [
            'Acquire::Check-Valid-Until "false";',
            'Acquire::Retries "3";',
            'APT::Install-Recommends "false";',
            'Dpkg::Use-Pty "0";',
        ]
        settings = output("apt-config", "dump").splitlines()
        lines += [line for line in settings if line.lower().startswith(NETWORK_SETTINGS)]
        write_as_root(self.path / "etc/apt/apt.conf.d/99leakguard", "\n".join(lines) + "\n")

    def _copy_network(self) -> None:
        """Names, addresses and certificates as on the machine."""
        bundle = Path("/etc/ssl/certs/ca-certificates.crt")
        files = {Path("/etc/resolv.conf"), Path("/etc/hosts"), bundle}
        for file in sorted(files | files_named_in(self._pip)):
            if file.is_file():
                self.remove(str(file))  # a link there would lead out of the folder
                self.copy_in(file, str(file))

    def _offers(self, package: str) -> bool:
        command = self.enter(["apt-cache", "show", package])
        return subprocess.run(command, capture_output=True).returncode == 0


def tries(attempt: Callable[[], bool], what: str) -> None:
    """Calls `attempt` until it returns true, three times at most; then raises ArchiveError."""
    for pause in (*PAUSES, None):
        if attempt():
            return
        if pause is not None:
            print(f"{what} failed; again in {pause} s", flush=True)
            time.sleep(pause)
    raise ArchiveError(f"{what} failed {len(PAUSES) + 1} times")


def pip_settings() -> dict[str, str]:
    """pip's settings on this machine, wherever they stand, as the environment variables that mean
    the same."""
    listed = output(sys.executable, "-m", "pip", "config", "list").splitlines()
    found = dict(line.split("=", 1) for line in listed if "=" in line)
    variables = {}
    # The environment comes last: in pip it wins over files.
    for key in sorted(found, key=lambda name: name.startswith(":env:")):
        section, _, name = key.rpartition(".")
        if section in ("global", ":env:"):
            value = str(ast.literal_eval(found[key]))
            variables["PIP_" + name.upper().replace("-", "_")] = value
    for name in (*CERTIFICATES, *PROXIES):
        if name in os.environ:
            variables[name] = os.environ[name]
    return variables


def paths_named_in(variables: dict[str, str]) -> list[Path]:
    paths = []
    for word in " ".join(variables.values()).split():
        if word.startswith("file://"):
            # An index page may lead to files beside the index: its parent is meant too.
            paths.append(Path(urllib.parse.unquote(word.removeprefix("file://"))).parent)
        elif word.startswith("/"):
            paths.append(Path(word))
    return paths


def files_named_in(variables: dict[str, str]) -> set[Path]:
    return {path for path in paths_named_in(variables) if path.is_file()}


def folders_named_in(variables: dict[str, str]) -> list[Path]:
    folders = {path for path in paths_named_in(variables) if path.is_dir()}
    return sorted(folders - {Path("/")})


def debian_source() -> list[str]:
    """debootstrap's last arguments: the mirror that this machine takes Debian from, and a script.
    Nothing (debootstrap knows a mirror) where it takes something else."""
    listed = output(
        "apt-get", "indextargets", "--format", "$(REPO_URI)", "ORIGIN: Debian", "LABEL: Debian"
    ).splitlines()
    # An older debootstrap does not know the newest suites by name; all are made as sid is.
    return [listed[0], "/usr/share/debootstrap/scripts/sid"] if listed else []


def output(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True).stdout
    except FileNotFoundError:
        return ""


def as_root(*command: str) -> None:
    subprocess.run([*AS_ROOT, *command], check=True, stdin=subprocess.DEVNULL)


def write_as_root(path: Path, text: str) -> None:
    subprocess.run([*AS_ROOT, "sh", "-c", f"cat >{shlex.quote(str(path))}"], check=True,
                   input=text, text=True)  # fmt: skip
