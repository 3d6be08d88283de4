"""doctor: what is on for this interpreter, and the proof that leaks are seen."""

from __future__ import annotations

import asyncio
import platform
import sys
import threading
from typing import TYPE_CHECKING

from leakguard import _builtin, _checkpoint, _core, _tracking
from leakguard._version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable
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
    for kind, plant in (("task", _plant_task), ("thread", _plant_thread)):
        ok &= _say_planted(say, kind, plant())
    if "native_thread" in _tracking.AVAILABLE:
        ok &= _say_planted(say, "native_thread", _plant_native())
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


def _has_on_exit() -> bool:
    return platform.libc_ver()[0] == "glibc"


def _say_planted(say: Callable[..., None], kind: str, report: Report) -> bool:
    own = [leak for leak in report if leak.kind == kind]
    lines = [frame for leak in own for frame in leak.creation_stack if frame.filename == __file__]
    if len(report) != 1 or not lines:
        say(f"  {kind}: NOT SEEN (the report has {len(report)} entries)")
        return False
    say(f"  {kind}: seen, {own[0].function} created at line {lines[-1].lineno} in {lines[-1].name}")
    return True


def _plant_task() -> Report:
    async def main() -> Report:
        point = _checkpoint.checkpoint("doctor")
        event = asyncio.Event()
        task = asyncio.create_task(_wait(event))
        await asyncio.sleep(0)
        report = point.leaks(kinds="task")
        event.set()
        await task
        return report

    return asyncio.run(main())


async def _wait(event: asyncio.Event) -> None:
    await event.wait()


def _plant_thread() -> Report:
    point = _checkpoint.checkpoint("doctor")
    event = threading.Event()
    thread = threading.Thread(target=event.wait)
    thread.start()
    report = point.leaks(kinds="thread")
    event.set()
    thread.join()
    return report


def _plant_native() -> Report:
    """A thread that Python does not know: libc's sem_wait as its start routine."""
    import ctypes

    libc = ctypes.CDLL(None)
    gate = ctypes.create_string_buffer(64)
    handle = ctypes.c_ulong()
    libc.sem_init(gate, 0, 0)
    point = _checkpoint.checkpoint("doctor")
    libc.pthread_create(ctypes.byref(handle), None, libc.sem_wait, gate)
    report = point.leaks(kinds="native_thread")
    libc.sem_post(gate)
    libc.pthread_join(handle, None)
    return report


def _say_witness(say: Callable[..., None]) -> bool:
    say("Witness, births by CPython's own channels against births seen by the hooks:")
    ok = True
    channels = {"thread": "audit events, 3.12+", "task": "reference tracer, 3.13+"}
    for kind, counts in _core.witness_counts().items():
        if counts is None:
            say(f"  {kind}: this version has no such channel ({channels[kind]})")
            continue
        same = counts[0] == counts[1]
        ok &= same
        say(f"  {kind}: {counts[0]} and {counts[1]}{'' if same else '  DIFFERENT'}")
    return ok
