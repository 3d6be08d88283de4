"""Child processes: live until somebody has waited for them, or nobody can any more.

A Child (ext/module/hook_process.c) stands for the process; it holds no object of the program.
"""

from __future__ import annotations

import os
import sys

from leakguard import _core, _executors, _imports, _resources

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType, ModuleType
    from typing import Any

_WORDS, _WORD_LENGTH = 3, 80
"""How much is kept of a command: a secret on a command line is seldom among its first words."""

_HELPERS = {
    "multiprocessing.resource_tracker": "ResourceTracker",
    "multiprocessing.forkserver": "ForkServer",
}


class Start:
    """What was known when a process was started."""

    __slots__ = ("args", "function", "name", "starter")

    def __init__(
        self, name: str | None, function: str, args: tuple[str, ...], starter: str
    ) -> None:
        self.name = name
        self.function = function
        self.args = args
        self.starter = starter  # the module whose function called the system's


class _Process(_resources.Kind):
    name = "process"
    left_after_exit = True

    def hook(self) -> None:
        _core.hook_processes(_describe)
        _imports.after("_posixsubprocess", _core.hook_fork_exec)
        _imports.after("multiprocessing.popen_forkserver", _hook_forkserver)

    def sweep(self) -> None:
        _core.sweep_processes()

    def is_live(self, subject: Any) -> bool:
        return _core.process_info(subject)[2] is not None

    def why_left(self, subject: Any, since: int) -> str | None:
        charge = _executors.charge_of_process(subject)
        if charge is not None:
            return _executors.why_left(charge, since)
        return self.why(subject)

    def name_of(self, subject: Any) -> str:
        pid, _, _, _, start = _core.process_info(subject)
        return start.name if start is not None and start.name else f"fork-{pid}"

    def function_of(self, subject: Any) -> str:
        start = _core.process_info(subject)[4]
        return "unknown" if start is None else start.function

    def state(self, subject: Any) -> str | None:
        return _core.process_info(subject)[2]

    def cause(self, subject: Any) -> str | None:
        if _executors.charge_of_process(subject) is not None:
            return "executor-not-shut-down"
        return "zombie" if self.state(subject) == "zombie" else "still-running"

    def why(self, subject: Any) -> str:
        status = _core.process_info(subject)[3]
        if status is None:
            return "it still runs, and nobody has waited for it"
        ended = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        return f"it {ended}, and nobody has waited for it"

    def facts(self, subject: Any) -> dict[str, Any]:
        pid, _, _, status, start = _core.process_info(subject)
        facts: dict[str, Any] = {"pid": pid}
        if start is not None and start.args:
            facts["args"] = list(start.args)
        if status is not None:
            facts["status"] = status
        return facts


def is_helper(child: Any) -> bool:
    """Whether multiprocessing's own machinery started it, for itself."""
    start = _core.process_info(child)[4]
    return start is not None and start.starter in _HELPERS


def _hook_forkserver(module: ModuleType) -> None:
    cls = module.Popen
    _imports.replace(cls, "_launch", _core.Hook(cls._launch, after=_core.forkserver_started))


def _describe(way: str, given: Any) -> tuple[object, Start]:
    """Called in the call that starts a process, just before it does (by the forkserver: after).

    way: the function; given: the command, a list, or None; for "forkserver" the Process.
    Returns the executor to which it is charged, or None, and what is to be remembered.
    """
    frame = sys._getframe(1)
    starter = str(frame.f_globals.get("__name__"))
    args = () if way == "forkserver" else _words(given)
    name = os.path.basename(args[0]) if args else None  # noqa: PTH119 (pathlib is heavy)
    function = name if way == "fork_exec" and name else way
    process = given if way == "forkserver" else None
    owner = None
    for module, outer in _starters(frame):
        if module in _HELPERS:
            return None, Start(name, _HELPERS[module], args, module)
        if module == "subprocess" and "self" in outer.f_locals:
            function = type(outer.f_locals["self"]).__qualname__
        elif module.startswith("multiprocessing.popen_") and process is None:
            process = outer.f_locals.get("process_obj")
        elif module in ("concurrent.futures.process", "multiprocessing.pool") and owner is None:
            owner = _executors.pool_of_frame(outer.f_locals.get("self"))
    if process is not None:
        name, function = str(process._name), _function_of(process)
    return owner, Start(name, function, args, starter)


_STARTERS = ("subprocess", "multiprocessing", "concurrent")


def _starters(frame: FrameType | None) -> Iterator[tuple[str, FrameType]]:
    """The standard library's frames that lead to a start, from within, with their modules."""
    while frame is not None:
        module = frame.f_globals.get("__name__")
        if not isinstance(module, str) or module.partition(".")[0] not in _STARTERS:
            return
        yield module, frame
        frame = frame.f_back


def _words(command: Any) -> tuple[str, ...]:
    """The first words of a command, shortened."""
    if not isinstance(command, (list, tuple)):
        return ()
    words = []
    for word in command[:_WORDS]:
        try:
            text = os.fsdecode(word)
        except Exception:
            # No path and no text: the start itself refuses it.
            return ()
        words.append(text if len(text) <= _WORD_LENGTH else text[: _WORD_LENGTH - 1] + "…")
    if len(command) > _WORDS:
        words.append("…")
    return tuple(words)


def _function_of(process: Any) -> str:
    """What a multiprocessing Process runs: its overridden run, else its target, else its class.
    Taken at the start, which deletes the target."""
    cls = type(process)
    base = sys.modules["multiprocessing.process"].BaseProcess
    if cls.run is not base.run:
        return _core.function_name(cls.run)
    target = getattr(process, "_target", None)
    return cls.__qualname__ if target is None else _core.function_name(target)


KIND = _Process()
