"""The environment mode: watches a program of which no line was changed."""

from __future__ import annotations

import os
import sys
import threading

from leakguard import _abandoned, _core, _guard, _imports, _ledger, _settings, _tracking, _verdict
from leakguard._exit_watch import ExitWatch
from leakguard._kinds import KINDS
from leakguard._report import Report, json_lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from leakguard._report import Leak
    from leakguard._settings import Settings

# Tells Python subprocesses that their parent is watched: they only report.
_WATCHED_BY = "LEAKGUARD_WATCHED_BY"

# Beyond, serials of what has gone are forgotten.
_TOLD_LIMIT = 10_000

_watches: list[_Watch] = []


def activate() -> None:
    """Begin to watch this process as the LEAKGUARD variables say. Once; a wrong setting gives one
    line on stderr and its default."""
    if not _core.is_main_interpreter():
        return
    settings = _settings.read(os.environ, _tracking.AVAILABLE)
    for complaint in settings.complaints:
        write(f"leakguard: {complaint}\n")
    if not settings.active or _watches:
        return
    _tracking.install(kinds=settings.kinds, stack_depth=settings.stack_depth)
    watch = _Watch(settings)
    if settings.witness:
        _core.witness_start()
    _imports.replace(threading, "_shutdown", watch.shutdown)
    _abandoned.listen(watch.loop_ended)
    _watches.append(watch)


class _Watch:
    """What the environment mode knows of this process."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._mark = _ledger.Mark(keeps=False)
        self._told: set[int] = set()
        _ledger.tell(self._told)
        self._original_shutdown: Callable[[], None] = vars(threading)["_shutdown"]
        parent = os.environ.get(_WATCHED_BY, "")
        is_child = parent not in ("", str(os.getpid()))
        # Set once: a child that replaces itself by exec stays the child of who is watched.
        os.environ.setdefault(_WATCHED_BY, str(os.getpid()))
        self._sets_status = settings.action == "exit" and not is_child
        if self._sets_status:
            _core.exit_status_arm(settings.exitcode)

    @property
    def _is_on(self) -> bool:
        """False in a forked child, and where the program has ended the tracking."""
        return self._mark.pid == os.getpid() and self._mark.is_current

    def loop_ended(self, leaks: list[Leak]) -> None:
        """Report tasks that a runner or loop is about to cancel or drop."""
        if self._is_on:
            mine = [leak for leak in leaks if not _ledger.is_guarded(leak.serial)]
            self.report(self._untold(mine), reason="loop end")

    def shutdown(self) -> None:
        """In the place of threading._shutdown, which runs concurrent.futures' exit callbacks and
        joins the non-daemon threads."""
        if not self._is_on:
            self._original_shutdown()
            return
        _safely(self._report_stranded_tasks)
        exit_watch = ExitWatch(self._settings.grace, self._report_held_up)
        _safely(exit_watch.begin)
        try:
            self._original_shutdown()
        finally:
            exit_watch.end()
        if self._settings.witness:
            _safely(_report_witness)

    def _report_stranded_tasks(self) -> None:
        if "task" in self._settings.kinds:
            stranded = _verdict.stranded_tasks(self._mark.serial)
            self.report(self._untold(stranded), reason="shutdown")

    def _report_held_up(self, waited: float, joined: threading.Thread | None) -> None:
        """The exit waits for threads since `waited` seconds."""
        if "thread" not in self._settings.kinds:
            return
        held = _verdict.holding_exit(self._mark.serial, joined)
        new = self._untold(held)
        if new:
            self.report(new, reason="shutdown", waited=waited)
        elif held:
            names = ", ".join(f"{leak.kind} {leak.function}" for leak in held[:5])
            more = f" and {len(held) - 5} more" if len(held) > 5 else ""
            write(f"leakguard: the exit is still held up after {waited:.0f} s by {names}{more}\n")

    def _untold(self, leaks: list[Leak]) -> list[Leak]:
        """Without what this process has reported already, here or in a guard."""
        if len(self._told) > _TOLD_LIMIT:
            alive = {record.serial for record in _core.live(0, _tracking.mask_of(KINDS))}
            self._told &= alive
        return [leak for leak in leaks if leak.serial not in self._told]

    def report(self, leaks: list[Leak], *, reason: str, waited: float = 0.0) -> None:
        """Hand leaks to where the settings say."""
        if not leaks:
            return
        # Not in the ledger: the program's own checkpoints find what they would find without us.
        self._told.update(leak.serial for leak in leaks)
        if self._sets_status:
            _core.exit_status_set(True)
        report = Report(leaks, reason=reason, waited=waited)
        if self._settings.action == "log":
            _guard.log(report)
        elif self._settings.report is None or not _append(self._settings.report, report):
            from leakguard._text import use_color

            write(report.text(color=use_color(sys.__stderr__)) + "\n")


def _report_witness() -> None:
    for kind, counts in _core.witness_counts().items():
        if counts is not None and counts[0] != counts[1]:
            write(
                f"leakguard: witness: CPython announced the birth of {counts[0]} {kind}s, the "
                f"hooks saw {counts[1]}\n"
            )


def _safely(action: Callable[[], None]) -> None:
    try:
        action()
    except Exception as error:
        write(f"leakguard: a check failed: {type(error).__name__}: {error}\n")


def _append(path: str, report: Report) -> bool:
    """Append to a JSON-lines file in one write. False, with a line on stderr, where that fails."""
    data = "".join(line + "\n" for line in json_lines(report)).encode()
    try:
        # Without O_NONBLOCK a pipe that nobody reads would hold the program up for ever.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
        descriptor = os.open(path, flags, 0o600)
        try:
            os.set_blocking(descriptor, True)
            while data:
                data = data[os.write(descriptor, data) :]
        finally:
            os.close(descriptor)
    except OSError as error:
        write(f"leakguard: LEAKGUARD_REPORT: {path}: {error.strerror}\n")
        return False
    return True


def write(text: str) -> None:
    """To the process's stderr, if it still has one; what it says now comes first.

    Past the stream's buffer: what could not be written would stay in there, and would change the
    exit status at the interpreter's last flush.
    """
    stream = sys.__stderr__
    if stream is None:
        return
    try:
        stream.flush()
        data = text.encode(stream.encoding or "utf-8", "backslashreplace")
        while data:
            data = data[os.write(stream.fileno(), data) :]
    except (OSError, ValueError):
        # Closed by the program, or replaced by something without a file: nowhere to say it.
        pass
