"""python -m leakguard."""

import sys

import pytest

from leakguard import _tracking

LEAKY = """
import sys, threading, time
print(sys.argv[1:], __name__)
threading.Thread(target=time.sleep, args=(0.5,)).start()
"""


def test_run_gives_the_script_its_arguments_and_ends_with_23(program):
    result = program(
        LEAKY, "--port", "8", "--help", before=["-m", "leakguard", "run", "--grace", "0.05"]
    )
    assert result.stdout == "['--port', '8', '--help'] __main__\n"
    assert "1 leak at shutdown" in result.stderr
    assert result.returncode == 23


def test_run_keeps_the_programs_own_status(program):
    result = program("raise SystemExit(4)\n", before=["-m", "leakguard", "run"])
    assert (result.stdout, result.stderr, result.returncode) == ("", "", 4)


def test_run_shows_no_frame_of_its_own_in_a_traceback(program):
    plain = program("def fail():\n    raise ValueError('x')\nfail()\n")
    watched = program(
        "def fail():\n    raise ValueError('x')\nfail()\n", before=["-m", "leakguard", "run"]
    )
    assert watched.stderr == plain.stderr
    assert watched.returncode == plain.returncode == 1


def test_run_of_a_module(run, tmp_path):
    package = tmp_path / "service"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "__main__.py").write_text("import sys; print(__package__, sys.argv[1:])\n")
    result = run("-m", "leakguard", "run", "-m", "service", "--flag", cwd=tmp_path)
    assert (result.stdout, result.stderr, result.returncode) == ("service ['--flag']\n", "", 0)


def test_run_with_action_warn_reports_and_keeps_the_status(program):
    result = program(
        LEAKY, before=["-m", "leakguard", "run", "--action", "warn", "--grace", "0.05"]
    )
    assert "1 leak at shutdown" in result.stderr
    assert result.returncode == 0


def test_run_passes_the_interpreters_options_on(program):
    result = program(
        "import sys; print(sys.flags.optimize, sys.flags.dev_mode)\n",
        before=["-O", "-X", "dev", "-m", "leakguard", "run"],
    )
    assert result.stdout == "1 True\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run"], ["SCRIPT", "--help"]),
        (["run", "missing.py"], ["no such file", "missing.py"]),
        (["run", "-m"], ["-m", "module"]),
        (["run", "-m", "no_such_module_here"], ["no_such_module_here"]),
        (["run", "--grace", "soon", "x.py"], ["seconds", "soon"]),
        (["run", "--kinds", "timers", "x.py"], ["timers", "task"]),
        (["run", "--action", "explode", "x.py"], ["explode", "exit"]),
        (["fly"], ["fly", "run", "doctor"]),
    ],
)
def test_wrong_usage_is_said_and_ends_with_2(arguments, words, run, tmp_path):
    result = run("-m", "leakguard", *arguments, cwd=tmp_path)
    assert result.returncode == 2
    for word in words:
        assert word in result.stderr


def test_help_has_examples(run):
    for command in ("run", "doctor"):
        result = run("-m", "leakguard", command, "--help")
        assert result.returncode == 0
        assert f"python -m leakguard {command}" in result.stdout
        assert "example" in result.stdout
        assert "exit status" in result.stdout
    assert run("-m", "leakguard").returncode == 2


def test_doctor_sees_what_it_plants(run):
    result = run("-m", "leakguard", "doctor")
    assert (result.returncode, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert any(line.startswith("  task: seen, _wait created at line") for line in lines)
    assert any(line.startswith("  thread: seen, Event.wait created at line") for line in lines)
    assert any("start_new_thread" in line for line in lines)
    assert any("async generator" in line for line in lines)
    assert lines[-1] == "All planted leaks were seen."
    assert "  process: 1 and 1" in lines
    if sys.version_info >= (3, 12):
        assert "  thread: 1 and 1" in lines


def test_doctor_plants_a_leak_of_each_kind_and_sees_its_line(run):
    lines = run("-m", "leakguard", "doctor").stdout.splitlines()
    planted = lines[lines.index("Planted leaks:") + 1 :]
    planted = planted[: planted.index("")]
    assert len(planted) == len(_tracking.AVAILABLE)
    for kind, line in zip(_tracking.AVAILABLE, planted, strict=True):
        assert line.startswith(f"  {kind}: seen, ")


def test_doctor_exceeds_each_limit_and_sees_it(run):
    lines = run("-m", "leakguard", "doctor").stdout.splitlines()
    assert "  max_live: seen, 3 tasks alive at once" in lines
    assert sum(line.startswith("  blocking: seen, a loop blocked for") for line in lines) == 1


def test_doctor_says_so_where_the_line_is_another(program):
    result = program(
        "import sys\n"
        "from leakguard import _doctor\n"
        "source = _doctor._source().replace('loop()  # planted', 'loop()')\n"
        "_doctor._source = lambda: source\n"
        "sys.exit(_doctor.doctor(sys.stdout))\n"
    )
    assert "  loop: seen, but NOT at the line that created it" in result.stdout
    assert result.returncode == 1


def test_doctor_ends_with_1_where_a_leak_is_not_seen(program):
    result = program(
        "import sys\n"
        "from leakguard import _core, _doctor, _tracking\n"
        "_tracking._core = type('Blind', (), {name: getattr(_core, name) for name in dir(_core)})\n"
        "_tracking._core.hook_threads = staticmethod(lambda kind: None)\n"
        "sys.exit(_doctor.doctor(sys.stdout))\n"
    )
    assert "thread: NOT SEEN" in result.stdout
    assert result.returncode == 1
