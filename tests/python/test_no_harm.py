"""A watched program does what it does unwatched: same output, same exit status."""

import os
import re

import pytest

from .conftest import PROGRAMS

WAYS = sorted((PROGRAMS / "ways").glob("*.py"))


def expected(path, key):
    """What the program's own header says: `# status: 3`."""
    found = re.search(rf"^# {key}: (.*)$", path.read_text(encoding="utf-8"), re.M)
    return found[1] if found else None


def without_ours(text):
    """The program's own stderr: a report begins with "leakguard: " and ends before a line that is
    neither indented, numbered nor empty."""
    own, ours = [], False
    for line in text.splitlines():
        ours = line.startswith("leakguard: ") or (
            ours and re.match(r"$|\s|\d+\. ", line) is not None
        )
        if not ours:
            own.append(line)
    return own


@pytest.mark.parametrize("options", [(), ("-O",)], ids=["plain", "-O"])
@pytest.mark.parametrize("path", WAYS, ids=lambda path: path.stem)
def test_a_way_out(run, path, options):
    plain = run(*options, path)
    watched = run(*options, path, LEAKGUARD="1", LEAKGUARD_GRACE="0.2")
    assert plain.returncode == int(expected(path, "status"))
    assert (watched.returncode, watched.stdout) == (plain.returncode, plain.stdout)
    assert without_ours(watched.stderr) == plain.stderr.splitlines()
    report = expected(path, "report")
    if report is None:
        assert "leakguard" not in watched.stderr
    else:
        assert watched.stderr.count(report) == 1


@pytest.mark.parametrize("path", WAYS, ids=lambda path: path.stem)
def test_with_the_report_in_a_file_and_the_exit_status_asked_for(run, path, tmp_path):
    plain = run(path)
    report = tmp_path / "found.jsonl"
    watched = run(path, LEAKGUARD="exit", LEAKGUARD_REPORT=report, LEAKGUARD_GRACE="0.2")
    leaked = report.exists() and '"reason": "loop end"' in report.read_text()
    assert watched.returncode == (23 if leaked and plain.returncode == 0 else plain.returncode)
    assert watched.stdout == plain.stdout


LEAKY = """
import asyncio, os, sys

async def main():
    asyncio.get_running_loop().create_task(asyncio.sleep(3600))

asyncio.run(main())
print("done")
"""


@pytest.mark.parametrize("target", ["/dev/full", "/proc/no/such/file", "/"])
def test_a_report_that_cannot_be_written(program, target):
    found = program(LEAKY, LEAKGUARD="1", LEAKGUARD_REPORT=target)
    assert (found.returncode, found.stdout) == (0, "done\n")
    assert found.stderr.startswith(f"leakguard: LEAKGUARD_REPORT: {target}: ")
    assert "1 leak at loop end" in found.stderr


def test_in_a_directory_that_is_gone_and_without_a_home(program, tmp_path):
    found = program(
        f"import os\nos.mkdir('gone')\nos.chdir('gone')\nos.rmdir('../gone')\n{LEAKY}",
        LEAKGUARD="1",
        HOME="",
    )
    assert (found.returncode, found.stdout) == (0, "done\n")
    assert "1 leak at loop end" in found.stderr


@pytest.mark.skipif(os.getuid() != 0, reason="only root can mount")
def test_on_a_read_only_file_system(run, tmp_path):
    """The folder and all that is written to by default cannot be written to."""
    (tmp_path / "app.py").write_text(LEAKY)
    script = (
        f"mount --bind {tmp_path} {tmp_path} && mount -o remount,ro,bind {tmp_path} && "
        f'cd {tmp_path} && exec "$0" app.py'
    )
    found = run(
        "-c",
        "import subprocess, sys; sys.exit(subprocess.run("
        f"['unshare', '--mount', 'sh', '-c', {script!r}, sys.executable]).returncode)",
        LEAKGUARD="1",
        LEAKGUARD_REPORT="found.jsonl",
        LEAKGUARD_SIGNAL="SIGUSR2",
        XDG_RUNTIME_DIR=str(tmp_path),
    )
    if "Operation not permitted" in found.stderr and "leakguard" not in found.stderr:
        pytest.skip("this container may not mount")
    assert (found.returncode, found.stdout) == (0, "done\n"), found.stderr
    assert "Read-only file system" in found.stderr
    assert "1 leak at loop end" in found.stderr
