"""At the end of a watched process: children and temporary directories that are left, once the
program's exit callbacks have run."""

import json

import pytest

LEFT = """
import os, subprocess, sys, tempfile
tempfile.tempdir = os.getcwd()
left = subprocess.Popen(["true"])
folder = tempfile.mkdtemp()
subprocess.run(["true"])
with tempfile.TemporaryDirectory():
    pass
"""


def report_of(program, text, **variables):
    return program(
        text,
        LEAKGUARD="exit",
        LEAKGUARD_KINDS="task,thread,process,tempdir",
        LEAKGUARD_REPORT="report.jsonl",
        **variables,
    )


@pytest.fixture
def watched(program, tmp_path):
    def run(text, **variables):
        result = report_of(program, text, **variables)
        report = tmp_path / "report.jsonl"
        lines = report.read_text().splitlines() if report.exists() else []
        return result, [json.loads(line) for line in lines]

    return run


def test_what_is_left_is_reported_with_its_line(watched):
    result, found = watched(LEFT)
    told = [(leak["kind"], leak["site"]["line"], leak.get("note", False)) for leak in found]
    assert told == [("process", 4, False), ("tempdir", 5, False)]
    assert {leak["reason"] for leak in found} == {"shutdown"}
    assert result.returncode == 23


def test_what_exit_callbacks_end_is_none(watched):
    result, found = watched(
        LEFT
        + """
import atexit, shutil
atexit.register(left.wait)
atexit.register(shutil.rmtree, folder)
directory = tempfile.TemporaryDirectory()  # removed by its finalizer, also at exit
"""
    )
    assert (result.returncode, found) == (0, [])
    assert "Implicitly cleaning up" in result.stderr or "ResourceWarning" not in result.stderr


def test_multiprocessings_own_end_of_its_daemons_is_none(watched):
    result, found = watched(
        """
import multiprocessing, time
context = multiprocessing.get_context("fork")
context.Process(target=time.sleep, args=(1000,), daemon=True).start()
context.Process(target=int).start()
pool = context.Pool(1)
pool.apply(int)
"""
    )
    assert result.returncode == 0, result.stderr
    assert [leak for leak in found if not leak.get("note")] == []


def test_a_child_only_notes_what_it_leaves(watched):
    result, found = watched(
        """
import os, subprocess, warnings
warnings.simplefilter("ignore")
before = subprocess.Popen(["true"])
child = os.fork()
if child == 0:
    mine = subprocess.Popen(["true"])
else:
    print(os.waitpid(child, 0)[1])
    before.wait()
"""
    )
    assert (result.returncode, result.stdout) == (0, "0\n"), result.stderr
    assert [(leak["kind"], leak["site"]["line"], leak["note"]) for leak in found] == [
        ("process", 7, True)
    ]


def test_os_exit_notes_what_it_leaves(watched):
    result, found = watched(LEFT + "os._exit(7)\n")
    assert result.returncode == 7
    assert [(leak["kind"], leak["note"]) for leak in found] == [
        ("process", True),
        ("tempdir", True),
    ]


def test_rules_are_counted_at_the_very_end(program, tmp_path):
    (tmp_path / "pyproject.toml").write_text(
        "[tool.leakguard]\n"
        'ignore = [{kind = "process", name = "true", reason = "fire and forget"}]\n'
    )
    result = program(
        "import subprocess\nleft = subprocess.Popen(['true'])\n",
        LEAKGUARD="exit",
        LEAKGUARD_KINDS="process",
    )
    assert result.returncode == 0, result.stderr
    assert "hidden: 1 by rule" in result.stderr
    assert "hid nothing" not in result.stderr


def test_other_kinds_only_are_not_held_back(program):
    result = program(LEFT, LEAKGUARD="exit")
    assert (result.returncode, result.stderr.count("leakguard")) == (0, 0), result.stderr


def test_the_status_and_output_of_a_clean_program_are_its_own(watched):
    result, found = watched(
        "import subprocess, sys\nsys.exit(subprocess.run(['sh', '-c', 'exit 9']).returncode)\n"
    )
    assert (result.returncode, result.stdout, result.stderr, found) == (9, "", "", [])
