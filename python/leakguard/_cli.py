"""The command line."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from leakguard import _tracking
from leakguard._check import parse_grace
from leakguard._kinds import parse_kinds

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

    _Commands = argparse._SubParsersAction[argparse.ArgumentParser]

_USAGE = 2

_EXAMPLES = """\
examples:
  python -m leakguard run app.py
  python -m leakguard show leaks.jsonl
  python -m leakguard dump 4711
  python -m leakguard doctor
  LEAKGUARD=1 python app.py
"""

_RUN_EXAMPLES = """\
examples:
  python -m leakguard run app.py --port 8000
  python -m leakguard run --grace 3 -m mypackage.service
  python -m leakguard run --action warn --report leaks-%p.jsonl app.py

exit status: the program's own; 23 where that is 0 and leaks were found (--action exit);
2 for wrong usage and a missing program.
"""

_DOCTOR_EXAMPLES = """\
example:
  python -m leakguard doctor

exit status: 0, or 1 where a planted leak was not seen.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.command == "run":
        return _run(options)
    if options.command == "doctor":
        from leakguard._doctor import doctor

        return doctor(sys.stdout)
    if options.command == "show":
        return _show(options)
    if options.command == "dump":
        return _dump(options)
    parser.print_help()
    return _USAGE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m leakguard",
        description="Finds the asyncio tasks and threads that a program leaves behind.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    run = _add_command(
        commands,
        "run",
        "run a program and report what it leaves behind",
        "Runs a program, unchanged, and reports what it leaves behind.",
        _RUN_EXAMPLES,
    )
    run.usage = "python -m leakguard run [options] (SCRIPT | -m MODULE) [ARGS ...]"
    run.add_argument(
        "--action",
        choices=("warn", "log", "exit"),
        default="exit",
        help="warn: report; log: through logging; exit: report, and exit with 23 (default)",
    )
    run.add_argument(
        "--grace", metavar="SECONDS", type=_grace, help="how long to wait for an end (default 1.0)"
    )
    run.add_argument(
        "--kinds", metavar="KIND,...", type=_kinds, help="what to track (default task,thread)"
    )
    run.add_argument(
        "--report", metavar="FILE", help="append JSON lines to FILE (%%p: process id); else stderr"
    )
    run.add_argument(
        "-m", dest="module", nargs=argparse.REMAINDER, metavar="MODULE", help="run a module"
    )
    run.add_argument("program", nargs=argparse.REMAINDER, metavar="SCRIPT", help="run a script")
    _add_show(commands)
    _add_dump(commands)
    _add_command(
        commands,
        "doctor",
        "say which hooks are on, and prove that a leak is seen",
        "Says which hooks are on for this interpreter, what is missing, and which built-in rules "
        "hide something; plants a leak of each kind to prove that it is seen.",
        _DOCTOR_EXAMPLES,
    )
    return parser


_SHOW_EXAMPLES = """\
examples:
  python -m leakguard show leaks-*.jsonl
  python -m leakguard show --format collapsed leaks.jsonl | flamegraph.pl > leaks.svg
  python -m leakguard show --format speedscope -o leaks.speedscope.json leaks.jsonl

exit status: 0; 2 where a file cannot be read.
"""


def _add_command(
    commands: _Commands, name: str, summary: str, description: str, examples: str
) -> argparse.ArgumentParser:
    return commands.add_parser(
        name,
        help=summary,
        description=description,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _add_show(commands: _Commands) -> None:
    show = _add_command(
        commands,
        "show",
        "read reports back: by site, over many processes and files",
        "Reads reports (JSON lines of LEAKGUARD_REPORT, or Report.to_json) back.",
        _SHOW_EXAMPLES,
    )
    show.add_argument("files", nargs="+", metavar="REPORT", type=Path, help="a file with reports")
    show.add_argument(
        "--format",
        choices=("text", "json", "collapsed", "speedscope", "dot"),
        default="text",
        help="text (default); json; collapsed or speedscope: flame graphs of creation stacks; "
        "dot: who waits for whom, for Graphviz",
    )
    show.add_argument("-o", dest="output", metavar="FILE", type=Path, help="write there")


def _show(options: argparse.Namespace) -> int:
    from leakguard import _show
    from leakguard._text import use_color

    try:
        found = _show.read(options.files)
        color = options.output is None and use_color(sys.stdout)
        text = _show.FORMATS[options.format](found, color=color)
        if options.output is None:
            sys.stdout.write(text)
            sys.stdout.flush()
        else:
            options.output.write_text(text, encoding="utf-8")
    except BrokenPipeError:
        # The reader has seen enough (`| head`); nothing is to be flushed into that pipe at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (_show.ReadError, OSError) as error:
        print(f"python -m leakguard show: {error}", file=sys.stderr)
        return _USAGE
    return 0


_DUMP_EXAMPLES = """\
examples:
  LEAKGUARD=1 LEAKGUARD_SIGNAL=SIGUSR2 python app.py &
  python -m leakguard dump $!
  python -m leakguard dump --native $!

From CPython 3.14 on also for a process that was started without leakguard, by an interpreter of
the same version and with the rights that a debugger needs: then without creation stacks.

exit status: 0; 1 where the process gives no answer.
"""


def _add_dump(commands: _Commands) -> None:
    dump = _add_command(
        commands,
        "dump",
        "say what is alive in a running process",
        "Asks a running process for a snapshot of its tasks and threads.",
        _DUMP_EXAMPLES,
    )
    dump.add_argument(
        "--native",
        action="store_true",
        help="also say where each thread is in C; this interrupts its system calls",
    )
    dump.add_argument("pid", type=int, metavar="PID", help="the process")


def _dump(options: argparse.Namespace) -> int:
    from leakguard._dump import DumpError, dump
    from leakguard._text import use_color

    try:
        report = dump(options.pid, native=options.native)
    except DumpError as error:
        print(f"python -m leakguard dump: {error}", file=sys.stderr)
        return 1
    print(report.text(color=use_color(sys.stdout)))
    return 0


def _grace(text: str) -> float:
    try:
        return parse_grace(float(text))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"a number of seconds, 0 or more, is wanted, not {text!r}"
        ) from None


def _kinds(text: str) -> str:
    try:
        return ",".join(parse_kinds(text.split(","), _tracking.AVAILABLE))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _run(options: argparse.Namespace) -> int:
    if options.program[:1] == ["--"]:
        del options.program[0]
    problem = _problem_with(options)
    if problem is None:
        _become(options)
    print(f"python -m leakguard run: {problem}", file=sys.stderr)
    return _USAGE


def _become(options: argparse.Namespace) -> NoReturn:
    """Replace this process by the program, watched through the environment.

    The program then is __main__ as ever, with no frame of ours in its tracebacks.
    """
    os.environ["LEAKGUARD"] = options.action
    for name, value in (
        ("LEAKGUARD_GRACE", options.grace),
        ("LEAKGUARD_KINDS", options.kinds),
        ("LEAKGUARD_REPORT", options.report),
    ):
        if value is not None:
            os.environ[name] = str(value)
    # -mMODULE leaves the arguments to `program`.
    program = ["-m", *options.module, *options.program] if options.module else options.program
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, *_interpreter_options(), *program])


def _problem_with(options: argparse.Namespace) -> str | None:
    if options.module is not None:
        if not options.module:
            return "-m wants the name of a module"
        if not _has_module(options.module[0]):
            return f"no module named {options.module[0]!r}"
    elif not options.program:
        return "a SCRIPT or -m MODULE is wanted; see --help"
    elif not Path(options.program[0]).exists():
        return f"no such file: {options.program[0]!r}"
    if sys.flags.ignore_environment:
        return "the environment is ignored (python was started with -E or -I): start it without"
    if "_leakguard_autostart" not in sys.modules:
        return (
            "this interpreter has not run leakguard's start-up file: python was started with -S, "
            "or leakguard-runtime is installed in a way that leaves leakguard.pth out (an editable "
            "install does): install the wheel"
        )
    return None


def _has_module(name: str) -> bool:
    """Whether the top-level package is there; looking further would import it."""
    from importlib.util import find_spec

    # python -m looks in the working directory first; the script `leakguard` does not by itself.
    if not sys.flags.safe_path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        return find_spec(name.partition(".")[0]) is not None
    except (ImportError, ValueError):
        return False


def _interpreter_options() -> list[str]:
    """The options that this interpreter was started with (-X, -W, -O ...)."""
    # python [options] -m leakguard ARGS, or python [options] .../bin/leakguard ARGS
    given = sys.orig_argv[1 : len(sys.orig_argv) - len(sys.argv) + 1]
    what = given.pop()
    if what == "leakguard" and given and given[-1].startswith("-") and given[-1].endswith("m"):
        last = given.pop()[:-1]
        given += [last] if last != "-" else []
    return given
