"""The environment mode: watches a program of which no line was changed."""

from __future__ import annotations

import atexit
import os
import threading

from leakguard import (
    _abandoned,
    _config,
    _core,
    _destroyed,
    _imports,
    _ledger,
    _live_look,
    _settings,
    _tracking,
    _verdict,
)
from leakguard._exit_watch import ExitWatch
from leakguard._kinds import known_kinds
from leakguard._loop_watch import LoopWatch
from leakguard._output import Output, write
from leakguard._report import Report

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType
    from typing import Any

    from leakguard._blocking import Teller
    from leakguard._findings import Blocked
    from leakguard._limits import Watch
    from leakguard._report import Leak
    from leakguard._rules import IgnoreRule
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
    watch = _Watch(settings, _rules(settings))
    _watches.append(watch)
    if settings.witness:
        _core.witness_start()
    _imports.replace(threading, "_shutdown", watch.shutdown)
    _imports.replace(os, "_exit", _core.Hook(os._exit, before=watch.before_exit))
    _imports.after("gevent.monkey", _hook_gevent)
    _abandoned.listen(watch.loop_ended)
    loop_watch = LoopWatch(settings.grace, watch.loop_held_up)
    _abandoned.around_close(loop_watch.begin, loop_watch.end)
    # Callbacks run in reverse order: of a program's own, all have run by then.
    atexit.register(watch.after_callbacks)
    # Cannot be taken back; after an end of the tracking it does nothing.
    os.register_at_fork(after_in_child=watch.forked)
    _safely(watch.listen)
    _safely(watch.watch_blocking)
    if settings.max_live:
        _safely(watch.watch_fanout)
        _abandoned.before_close(watch.loop_closes)


def _rules(settings: Settings) -> tuple[IgnoreRule, ...]:
    place = _config.find(settings.config)
    if place is None:
        return ()
    try:
        return _config.load(place[0], tables=place[1])
    except _config.ConfigError as error:
        write(f"leakguard: {error}; no rule of this file is used\n")
    except OSError as error:
        write(f"leakguard: LEAKGUARD_CONFIG: {place[0]}: {error.strerror}; no rule is used\n")
    return ()


class _Watch:
    """What the environment mode knows of this process."""

    def __init__(self, settings: Settings, rules: tuple[IgnoreRule, ...]) -> None:
        self._settings = settings
        self._output = Output(settings)
        self._mark = _ledger.Mark(keeps=False)
        self._told: set[int] = set()
        _ledger.tell(self._told)
        self._hidden = dict.fromkeys(rules, 0)
        self._original_shutdown: Callable[[], None] = vars(threading)["_shutdown"]
        self._is_forked = False
        self._is_over = False
        self._blocking: Teller | None = None
        self._limits: Watch | None = None
        self._exceeded: set[str] = set()  # the kinds of which it was said
        parent = os.environ.get(_WATCHED_BY, "")
        self._is_child = parent not in ("", str(os.getpid()))
        # Set once: a child that replaces itself by exec stays the child of who is watched.
        os.environ.setdefault(_WATCHED_BY, str(os.getpid()))
        self._sets_status = settings.action == "exit" and not self._is_child
        if self._sets_status:
            _core.exit_status_arm(settings.exitcode)

    def watch_blocking(self) -> None:
        """Report each time that a loop is blocked for longer than the settings allow."""
        if self._settings.blocking is not None:
            from leakguard._blocking import Teller

            self._blocking = Teller(self._settings.blocking, self._report_blocking)

    def _report_blocking(self, blocked: tuple[Blocked, ...], notes: tuple[str, ...]) -> None:
        if self._is_on:
            if self._sets_status:
                _core.exit_status_set(True)
            self._output.report(Report((), reason="blocked", blocking=blocked, notes=notes))

    def watch_fanout(self) -> None:
        """Count from here on how much is alive at once."""
        from leakguard._limits import Limits

        self._exceeded.clear()
        self._limits = Limits(self._settings.max_live or None).begin()

    def loop_closes(self, _: object) -> None:
        """Say which limits were exceeded up to now."""
        if self._is_on and not self._is_over:
            _safely(lambda: self._report_fanout("loop end"))

    def _report_fanout(self, reason: str) -> None:
        if self._limits is None:
            return
        seen = self._limits.look()
        new = [it for it in seen.fanout if it.kind not in self._exceeded]
        if not new:
            return
        self._exceeded.update(it.kind for it in new)
        if self._sets_status:
            _core.exit_status_set(True)
        self._output.report(Report((), reason=reason, fanout=new, notes=seen.notes))

    def _end_blocking(self) -> None:
        if self._blocking is not None:
            self._blocking.end()
            self._blocking = None

    def listen(self) -> None:
        """To the signals that ask for a look at what is alive."""
        if self._settings.signal:
            _live_look.listen(self._settings.signal, self._snapshot, self._output.report)
        if not self._is_child and os.getpid() != 1:
            _live_look.at_termination(self._settings.grace, self._terminated)

    def forked(self) -> None:
        """This is a child now: it begins anew, and only reports."""
        if self._mark.is_current:
            self._mark = _ledger.Mark(keeps=False)
            self._told.clear()
            self._hidden = dict.fromkeys(self._hidden, 0)
            self._is_forked = self._is_child = True
            self._is_over = self._sets_status = False
            _safely(self.watch_blocking)
            _safely(self.watch_fanout)

    @property
    def _is_on(self) -> bool:
        """False where the program has ended the tracking, and in a child made behind our back."""
        return self._mark.pid == os.getpid() and self._mark.is_current

    def loop_ended(self, leaks: list[Leak]) -> None:
        """Report tasks that a runner or loop is about to cancel or drop."""
        if self._is_on:
            asked = [leak for leak in leaks if leak.kind in self._settings.kinds]
            mine = [leak for leak in asked if not _ledger.is_guarded(leak.serial)]
            self._report(self._new(mine), reason="loop end")

    def loop_held_up(self, loop: Any, upto: int, waited: float) -> None:
        """The end of a loop waits since `waited` seconds."""
        if not self._is_on:
            return
        held = _verdict.holding_loop(self._mark.serial, upto, loop)
        held = [leak for leak in held if leak.kind in self._settings.kinds]
        new = self._new(held)
        if new:
            self._report(new, reason="loop end", waited=waited)
        known = [leak for leak in held if leak not in new]
        if known:
            self._say_held_up("the end of the loop", waited, known)

    def shutdown(self) -> None:
        """In the place of threading._shutdown, which runs concurrent.futures' exit callbacks and
        joins the non-daemon threads."""
        if not self._is_on or self._is_over:
            self._original_shutdown()
            return
        self._is_over = True
        if self._is_forked:
            _safely(lambda: self._report_fanout("shutdown"))
            _safely(lambda: self._report_alive("child exit"))
            self._original_shutdown()
            _safely(self._end_blocking)
            return
        _safely(self._report_stranded_tasks)
        _safely(self._report_left)
        _safely(lambda: self._report_fanout("shutdown"))
        exit_watch = ExitWatch(self._settings.grace, self._report_held_up)
        _safely(exit_watch.begin)
        try:
            self._original_shutdown()
        finally:
            exit_watch.end()
        _safely(self._end_blocking)
        _safely(lambda: self._report_alive("exit"))
        _live_look.stop()

    def after_callbacks(self) -> None:
        """The last of the exit callbacks: the program's own have run, and weakref.finalize's."""
        if not self._is_on:
            return
        _safely(self._report_left_late)
        if not self._is_forked:
            _safely(self._report_rules)
            if self._settings.witness:
                _safely(self._report_witness)

    def before_exit(self, *_: object) -> None:
        """os._exit: nothing else runs any more."""
        if self._is_on and not self._is_over:
            self._is_over = True
            self._report_alive("child exit" if self._is_forked else "os._exit", at_once=True)
            self._end_blocking()

    def _report_alive(self, reason: str, *, at_once: bool = False) -> None:
        """What lives on: worth a note, but no leak here."""
        alive = self._new(_verdict.alive_at_exit(self._mark.serial, at_once=at_once))
        alive = [leak for leak in alive if leak.kind in self._settings.kinds]
        if alive:
            self._told.update(leak.serial for leak in alive)
            self._output.report(Report(alive, reason=reason), note=True)

    def _report_stranded_tasks(self) -> None:
        if "task" in self._settings.kinds:
            stranded = [*_destroyed.take(), *_verdict.stranded_tasks(self._mark.serial)]
            self._report(self._new(stranded), reason="shutdown")

    def _report_left(self) -> None:
        left = _verdict.left_at_exit(self._mark.serial, self._settings.kinds)
        self._report(self._new(left), reason="shutdown")

    def _report_left_late(self) -> None:
        late = _verdict.left_at_exit(self._mark.serial, self._settings.kinds, late=True)
        left = self._new(late)
        if self._is_forked and left:
            self._told.update(leak.serial for leak in left)
            self._output.report(Report(left, reason="child exit"), note=True)
        else:
            self._report(left, reason="shutdown")

    def _report_held_up(self, waited: float, joined: threading.Thread | None) -> None:
        """The exit waits for threads since `waited` seconds."""
        if "thread" not in self._settings.kinds:
            return
        held = _verdict.holding_exit(self._mark.serial, joined)
        new = self._new(held)
        if new:
            self._report(new, reason="shutdown", waited=waited)
        elif held:
            self._say_held_up("the exit", waited, held)

    def _say_held_up(self, what: str, waited: float, held: list[Leak]) -> None:
        names = ", ".join(f"{leak.kind} {leak.function}" for leak in held[:5])
        more = f" and {len(held) - 5} more" if len(held) > 5 else ""
        write(f"leakguard: {what} is still held up after {waited:.0f} s by {names}{more}\n")

    def _snapshot(self, native: bool) -> Report:
        """All that lives now; with the place of each thread in C, where that is asked for."""
        kinds = self._settings.kinds if self._is_on else ()
        return Report(_verdict.everything(kinds, native=native), reason="snapshot")

    def _terminated(self) -> None:
        if self._is_on:
            alive = _verdict.alive_at_exit(self._mark.serial, at_once=True)
            alive = [leak for leak in alive if leak.kind in self._settings.kinds]
            self._output.report(Report(alive, reason="terminated"))

    def _new(self, leaks: list[Leak]) -> list[Leak]:
        """Without what this process has reported already, here or in a guard, and what a rule
        hides."""
        if len(self._told) > _TOLD_LIMIT:
            alive = {record.serial for record in _core.live(0, _tracking.mask_of(known_kinds()))}
            self._told &= alive
        new = [leak for leak in leaks if leak.serial not in self._told]
        return [leak for leak in new if not self._hide(leak)] if self._hidden else new

    def _hide(self, leak: Leak) -> bool:
        for rule in self._hidden:
            if rule.matches(leak):
                self._hidden[rule] += 1
                self._told.add(leak.serial)
                return True
        return False

    def _report(self, leaks: list[Leak], *, reason: str, waited: float = 0.0) -> None:
        """Hand leaks to where the settings say."""
        if not leaks:
            return
        # Not in the ledger: the program's own checkpoints find what they would find without us.
        self._told.update(leak.serial for leak in leaks)
        if self._sets_status:
            _core.exit_status_set(True)
        self._output.report(Report(leaks, reason=reason, waited=waited))

    def _report_rules(self) -> None:
        """What each rule hid; that one hid nothing is said once, not by each child."""
        for rule, count in self._hidden.items():
            text = None
            if count:
                text = f'hidden: {count} by rule "{rule}" ({rule.reason})'
            elif rule.overdue:
                text = f'rule "{rule}" is overdue since {rule.until} and hides nothing'
            elif not self._is_child:
                text = f'rule "{rule}" hid nothing'
            if text is not None:
                self._output.text(text, "shutdown")

    def _report_witness(self) -> None:
        for kind, counts in _core.witness_counts().items():
            if counts is not None and counts[0] != counts[1]:
                write(
                    f"leakguard: witness: CPython announced the birth of {counts[0]} {kind}s, the "
                    f"hooks saw {counts[1]}\n"
                )


def _hook_gevent(module: ModuleType) -> None:
    _imports.replace(
        module, "patch_thread", _core.Hook(vars(module)["patch_thread"], after=_say_gevent)
    )


def _say_gevent(*_: object, **__: object) -> None:
    write(
        "leakguard: gevent has patched threading: greenlets that stand for threads are not seen, "
        "native threads and asyncio tasks are\n"
    )


def _safely(action: Callable[[], None]) -> None:
    try:
        action()
    except Exception as error:
        write(f"leakguard: a check failed: {type(error).__name__}: {error}\n")
