"""doctor: what is on for this interpreter, and the proof that leaks are seen."""

from __future__ import annotations

import asyncio  # first: its hooks are put in when it is imported
import platform
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from leakguard import _blocking, _builtin, _checkpoint, _core, _tracking
from leakguard._guard import guard
from leakguard._kinds import KINDS
from leakguard._version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable
    from traceback import FrameSummary
    from typing import Any, TextIO

    from leakguard._report import Report


def doctor(stream: TextIO) -> int:
    """Print the state of every part; returns 1 where a planted leak is not seen."""

    def say(text: str = "") -> None:
        print(text, file=stream)

    say(f"leakguard {__version__} on {platform.python_implementation()} {_python()}")
    try:
        _tracking.install(kinds=_tracking.AVAILABLE)
    except RuntimeError as error:
        say(f"  not supported: {error}")
        return 1
    _core.witness_start()
    ok = _say_hooks(say)
    say()
    say("Planted leaks:")
    for kind, plant in _plants().items():
        if kind in _tracking.AVAILABLE:
            ok &= _say_planted(say, kind, plant)
    say()
    say("Exceeded limits:")
    ok &= _say_limits(say)
    say()
    _say_unseen(say)
    say()
    ok &= _say_witness(say)
    _core.witness_stop()
    failures = _core.failures()
    ok &= failures == 0
    say(f"Failures inside hooks: {failures}")
    say()
    say("Built-in rules, each hides what it names and nothing else:")
    for rule in _builtin.RULES:
        say(f"  {rule.kind}: {rule.what}")
        say(f"    because it {rule.reason}")
    say()
    say("All planted leaks were seen." if ok else "NOT everything works here: see above.")
    return 0 if ok else 1


def _python() -> str:
    return f"{platform.python_version()} ({sys.platform}, {platform.machine()})"


def _say_hooks(say: Callable[..., None]) -> bool:
    hooks = _core.hooks()
    say()
    say("Hooks:")
    say(f"  tasks: {'slots of _asyncio.Task' if hooks['tasks'] else 'OFF'}")
    say(f"  loops: {'entry of _asyncio._set_running_loop' if hooks['loops'] else 'OFF'}")
    threads = ", ".join(hooks["threads"])
    say(f"  threads: {'entries of _thread: ' + threads if threads else 'OFF'}")
    started = "_leakguard_autostart" in sys.modules
    say(f"  start-up file (LEAKGUARD=1, run): {'active' if started else 'NOT active: see README'}")
    say(f"  exit status (LEAKGUARD=exit, run): {'on_exit' if _has_on_exit() else 'not here'}")
    say(f"  native threads: {_natives(hooks)}")
    has_processes = _core.witness_counts()["process"] is not None
    processes = "entries of posix and _posixsubprocess, which start them"
    say(f"  processes: {processes if has_processes else 'OFF'}")
    say("  temporary directories: audit event tempfile.mkdtemp")
    say(f"  blocked event loops: {_selectors()}")
    unwinder = _core.LIBUNWIND
    stacks = f"libunwind {unwinder}" if unwinder else "ABSENT: built without libunwind"
    say(f"  native stacks: {stacks}")
    say(f"Kinds: {', '.join(_tracking.AVAILABLE)}")
    say("Sub-interpreters: passed through; only the main interpreter is tracked.")
    return bool(hooks["tasks"] and hooks["loops"] and threads)


def _natives(hooks: dict[str, Any]) -> str:
    if hooks["natives"] is None:
        return "not here: they need glibc on x86_64 or aarch64"
    changed, left_alone = hooks["natives"]
    others = f", {left_alone} left alone" if left_alone else ""
    return f"pthread_create, in {changed} GOT entries{others} and for objects loaded later"


def _selectors() -> str:
    try:
        return ", ".join(_blocking.hooks())
    except RuntimeError as error:
        return f"not here: {error}"


def _say_limits(say: Callable[..., None]) -> bool:
    """Exceed each limit."""

    async def exceed() -> None:
        asyncio.get_running_loop().call_soon(time.sleep, 0.06)
        await asyncio.gather(asyncio.sleep(0), asyncio.sleep(0))

    try:
        with guard(max_live={"task": 1}, blocking=0.03, action=lambda _: None) as limits:
            asyncio.run(exceed())
    except (RuntimeError, ValueError) as error:
        say(f"  limits: NOT watched: {error}")
        return False
    found = limits.report
    fanout, blocking = (found.fanout, found.blocking) if found is not None else ((), ())
    peaks = [f"{one.peak} {one.kind}s alive at once" for one in fanout]
    blocks = [f"a loop blocked for {one.duration:.2f} s" for one in blocking]
    say(f"  max_live: {'seen, ' + peaks[0] if peaks else 'NOT SEEN'}")
    say(f"  blocking: {'seen, ' + blocks[0] if blocks else 'NOT SEEN'}")
    return bool(peaks and blocks)


def _has_on_exit() -> bool:
    return platform.libc_ver()[0] == "glibc"


_PLANTS = "_plants.py"


def _source() -> str:
    return Path(__file__).with_name(_PLANTS).read_text(encoding="utf-8")


def _plants() -> dict[str, Callable[[Callable[[str], Report]], Report]]:
    """What plants a leak of each kind, under a file name that is not leakguard's."""
    space: dict[str, Any] = {"__name__": "leakguard_doctor"}
    exec(compile(_source(), _PLANTS, "exec"), space)
    plants: dict[str, Callable[[Callable[[str], Report]], Report]] = space["PLANTS"]
    return plants


def _say_planted(
    say: Callable[..., None], kind: str, plant: Callable[[Callable[[str], Report]], Report]
) -> bool:
    point = _checkpoint.checkpoint("doctor")
    try:
        report = plant(lambda asked: point.leaks(kinds=asked))
    except Exception as error:
        say(f"  {kind}: NOT SEEN, planting it failed: {type(error).__name__}: {error}")
        return False
    if len(report) != 1 or report[0].kind != kind:
        say(f"  {kind}: NOT SEEN (the report has {len(report)} entries)")
        return False
    leak, site = report[0], report[0].site
    if site is None or not _is_planted(site):
        say(f"  {kind}: seen, but NOT at the line that created it ({site})")
        return False
    say(f"  {kind}: seen, {leak.function} created at line {site.lineno} in {site.name}")
    return True


def _is_planted(site: FrameSummary) -> bool:
    """Whether this is the line that planted it."""
    lines = _source().splitlines()
    return site.filename == _PLANTS and lines[(site.lineno or 1) - 1].endswith("# planted")


_UNSEEN = (
    "transports and servers of uvloop's loops: they are written in C, without a hook for them",
    "processes that a C library forks by itself, and temporary directories that it makes",
    "threads in sub-interpreters, tasks of loops there",
)


def _say_unseen(say: Callable[..., None]) -> None:
    say("Not seen:")
    for kind in KINDS:
        if kind not in _tracking.AVAILABLE:
            say(f"  {kind}: not on this system")
    for what in _UNSEEN:
        say(f"  {what}")


def _say_witness(say: Callable[..., None]) -> bool:
    say("Witness, births by CPython's own channels against births seen by the hooks:")
    ok = True
    channels = {
        "process": "audit events",
        "thread": "audit events, 3.12+",
        "task": "reference tracer, 3.13+",
    }
    for kind, counts in _core.witness_counts().items():
        if counts is None:
            say(f"  {kind}: this version has no such channel ({channels[kind]})")
            continue
        same = counts[0] == counts[1]
        ok &= same
        say(f"  {kind}: {counts[0]} and {counts[1]}{'' if same else '  DIFFERENT'}")
    return ok
