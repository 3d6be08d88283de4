"""guard: leaves no leak behind a block or a call."""

from __future__ import annotations

import functools
import os
import sys
import threading
import warnings

from leakguard import _check, _core, _ledger, _tracking
from leakguard._errors import LeakWarning, error_of
from leakguard._findings import is_clean
from leakguard._kinds import parse_kinds
from leakguard._limits import Limits
from leakguard._report import Report
from leakguard._rules import rules_from
from leakguard._scope import Scope
from leakguard._verdict import Question

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from types import TracebackType
    from typing import Any, ParamSpec, TypeVar

    from leakguard._limits import Seen, Watch
    from leakguard._rules import IgnoreRule

    Action = str | Callable[[Report], object]
    P = ParamSpec("P")
    T = TypeVar("T")

ACTIONS = ("raise", "warn", "log", "cancel")


class Options:
    """What a guard was asked for, checked."""

    __slots__ = ("action", "grace", "kinds", "label", "limits", "rules", "scoped")

    def __init__(
        self,
        *,
        action: Any = "raise",
        grace: Any = 1.0,
        kinds: Any = None,
        scope: Any = "process",
        ignore: Any = (),
        label: Any = None,
        max_live: Any = None,
        blocking: Any = None,
    ) -> None:
        if not callable(action) and action not in ACTIONS:
            allowed = ", ".join(f'"{name}"' for name in ACTIONS)
            raise ValueError(f"action must be one of {allowed} or a callable, not {action!r}")
        if label is not None and not isinstance(label, str):
            raise TypeError(f"label must be a str, not {type(label).__name__}")
        self.action = action
        self.grace = _check.parse_grace(grace)
        self.kinds = parse_kinds(kinds, _tracking.AVAILABLE)
        self.scoped = _check.parse_scope(scope)
        self.rules = rules_from(ignore)
        self.label = label
        self.limits = Limits(max_live, blocking)


class Guard:
    """One entered block: what `with guard() as g` gives.

    `report` is None inside the block, a Report afterwards.
    """

    def __init__(self, options: Options, scope: Scope | None = None) -> None:
        """scope: the block's, not entered yet, made while these kinds are tracked; None for one of
        its own where it needs one."""
        self._options = options
        if scope is None:
            _tracking.ensure(options.kinds)
        self._scope = Scope() if scope is None and options.scoped else scope
        if self._scope is not None:
            self._scope.enter()
        self._watch = self._begin_watch(options)
        self._mark = _ledger.Mark(is_guard=True)
        self._where = _here()
        self.label: str | None = options.label
        self.report: Report | None = None

    def _begin_watch(self, options: Options) -> Watch | None:
        if not options.limits:
            return None
        scope = self._scope.number if self._scope is not None and options.scoped else 0
        try:
            return options.limits.begin(scope)
        except BaseException:
            if self._scope is not None:
                self._scope.leave()
                self._scope.close()
            raise

    def _question(self) -> Question:
        return Question(
            since=self._mark.serial,
            kinds=self._options.kinds,
            rules=self._options.rules,
            scope=self._scope.number if self._scope is not None else 0,
            asker=self,
        )

    def _seen(self) -> Seen | None:
        return None if self._watch is None else self._watch.look()

    def _is_quiet(self) -> bool:
        """Whether a check would find nothing: known at once for nearly every block."""
        return self._watch is None and self._mark.is_quiet()

    def _is_foreign_process(self) -> bool:
        """A guard entered before a fork checks nothing in the child."""
        return self._mark.pid != os.getpid()

    def _begin_exit(self, error: BaseException | None) -> bool:
        """False where there is nothing to check."""
        if self._scope is not None:
            self._scope.leave()
        if self._is_quiet():
            self.report = Report([], reason="block", label=self.label)
            return False
        if self._is_foreign_process():
            self.report = Report([], reason="block", label=self.label)
            return False
        if self._mark.is_current:
            return True
        message = "leakguard was uninstalled inside this guard: it cannot say whether it is clean"
        if error is None:
            raise RuntimeError(message)
        _add_note(error, message)
        return False

    def _end_sync(self, error: BaseException | None) -> None:
        try:
            if self._begin_exit(error):
                grace = 0.0 if _is_abrupt(error) else self._options.grace
                self.report = self._check(grace)
                self._act(self.report, error)
                self._cancel_sync(self.report, grace, error)
        finally:
            self._close()

    def _close(self) -> None:
        self._mark.close()
        if self._watch is not None:
            self._watch.close()
        if self._scope is not None:
            self._scope.close()

    def _check(self, grace: float) -> Report:
        return _check.check(
            self._question(),
            grace,
            self._mark,
            reason="block",
            label=self.label,
            seen=self._seen(),
        )

    async def _end_async(self, error: BaseException | None) -> None:
        try:
            if not self._begin_exit(error):
                return
            if _is_abrupt(error):
                self.report = self._check(0.0)
                self._act(self.report, error)
                self._cancel(self.report)
                return
            try:
                self.report = await _check.check_async(
                    self._question(),
                    self._options.grace,
                    self._mark,
                    reason="block",
                    label=self.label,
                    seen=self._seen(),
                )
            except BaseException as interrupted:
                # Cancelled while waiting: the last look is without waiting, and that goes on.
                self.report = self._check(0.0)
                self._act(self.report, interrupted)
                self._cancel(self.report)
                raise
            self._act(self.report, error)
            await self._cancel_async(self.report, error)
        finally:
            self._close()

    def _act(self, report: Report, error: BaseException | None) -> None:
        if is_clean(report):
            return
        _ledger.report(list(report), self)
        action = self._options.action
        if error is not None:
            _add_note(error, report.text())
            if action in ("raise", "warn"):
                return
        if action == "raise":
            raise error_of(report)
        if action == "warn":
            _warn(report)
        elif action == "log":
            log(report)
        elif callable(action):
            try:
                action(report)
            except Exception as failure:
                # The block's own exception, or its cancellation, is not to be hidden.
                if error is None:
                    raise
                _add_note(error, f"leakguard: the action failed: {failure!r}")

    def _cancel(self, report: Report) -> list[Any]:
        """Cancel the leaked tasks, each in its loop's own thread."""
        wanted = {leak.serial for leak in report if leak.kind == "task"}
        tasks = []
        if wanted and self._options.action == "cancel":
            for record in _core.live(self._mark.serial, _tracking.mask_of(("task",))):
                if record.serial in wanted:
                    tasks.append(record.object)
                    _cancel_task(record.object)
        return tasks

    def _cancel_sync(self, report: Report, grace: float, error: BaseException | None) -> None:
        tasks = self._cancel(report)
        if not tasks and self._options.action != "cancel":
            return
        if not is_clean(report):
            # Only what waiting can still end is waited for.
            _wait_until_done(tasks, grace)
            if error is None:
                _warn(report)

    async def _cancel_async(self, report: Report, error: BaseException | None) -> None:
        tasks = self._cancel(report)
        if self._options.action != "cancel" or is_clean(report):
            return
        if tasks and _check.running_loop() is not None:
            import asyncio

            here = [task for task in tasks if task.get_loop() is asyncio.get_running_loop()]
            if here:
                await asyncio.wait(here, timeout=self._options.grace)
        if error is None:
            _warn(report)


class _Manager:
    """What guard() gives: enters blocks and decorates functions. Holds no state of a run beyond
    the blocks that are open, so it may be entered again, and by several tasks at once."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._open: list[Guard] = []

    def __enter__(self) -> Guard:
        _check.refuse_sync(self._options.grace, self._options.kinds, "`async with guard()`")
        return self._enter()

    async def __aenter__(self) -> Guard:
        return self._enter()

    def _enter(self) -> Guard:
        guard_ = Guard(self._options)
        self._open.append(guard_)
        return guard_

    def _leave(self) -> Guard:
        """The block that is being left: this task's or thread's innermost one; where it is left
        somewhere else than it was entered, the innermost of all."""
        here = _here()
        for guard_ in self._open[::-1]:
            if guard_._where == here:
                self._open.remove(guard_)
                return guard_
        return self._open.pop()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._leave()._end_sync(error)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._leave()._end_async(error)

    def __call__(self, function: Callable[P, T]) -> Callable[P, T]:
        _refuse_decoration(function)
        options = self._options
        if _is_async(function):

            @functools.wraps(function)
            async def call_async(*args: P.args, **kwargs: P.kwargs) -> Any:
                async with _Manager(options):
                    return await function(*args, **kwargs)  # type: ignore[misc]

            return call_async  # type: ignore[return-value]

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            with _Manager(options):
                return function(*args, **kwargs)

        return call


def guard(
    *unexpected: object,
    action: Action = "raise",
    grace: float = 1.0,
    kinds: str | Iterable[str] | None = None,
    scope: str = "process",
    ignore: IgnoreRule | Iterable[IgnoreRule] = (),
    label: str | None = None,
    max_live: Mapping[str, int] | None = None,
    blocking: float | None = None,
) -> _Manager:
    """Find what a block or a call leaves behind: `with`, `async with`, decorator.

    action: "raise" (LeakError), "warn" (LeakWarning), "log" (logger "leakguard", one record a
        leak), "cancel" (cancels leaked tasks, waits, then warns), or a callable that takes the
        Report.
    grace: seconds to wait for what was born inside to end by itself; a clean block waits nothing.
    kinds: a kind or an iterable of kinds; None is tasks and threads.
    scope: "process", or "descendants": only what the block's own code created, directly or not.
    ignore: rules made by `ignore()`.
    label: names the block in the report.
    max_live: kind to number, how many of those born inside may be alive at once. More is a
        FanoutError, which names the creation site and the exact number.
    blocking: seconds for which a loop may be away from its selector. Longer is a BlockingError.

    If the block raises, that exception goes on and the leaks are added to it as a note.

    Raises TypeError or ValueError for wrong arguments; on entry RuntimeError where a sync block
    would wait in a thread whose event loop is running.
    """
    if unexpected:
        raise TypeError("guard takes keyword arguments only: use @guard() with brackets")
    options = Options(
        action=action,
        grace=grace,
        kinds=kinds,
        scope=scope,
        ignore=ignore,
        label=label,
        max_live=max_live,
        blocking=blocking,
    )
    return _Manager(options)


def log(report: Report) -> None:
    """One record a leak, and one a limit that was exceeded, to the logger "leakguard"."""
    import logging

    logger = logging.getLogger("leakguard")
    for leak in report:
        fields = leak.to_dict()
        site = leak.site
        where = "" if site is None else f" created at {site.filename}:{site.lineno} in {site.name}"
        logger.warning(
            "leaked %s %s%s",
            leak.kind,
            leak.function,
            where,
            extra={"leak": fields, "leak_kind": leak.kind, "leak_serial": leak.serial},
        )
    if report.fanout or report.blocking:
        from leakguard._text import findings_text

        for fanout in report.fanout:
            text = findings_text((fanout,), ())[1]
            logger.warning("%s", text, extra={"fanout": fanout.to_dict()})
        for blocked in report.blocking:
            text = findings_text((), (blocked,))[1]
            logger.warning("%s", text, extra={"blocking": blocked.to_dict()})


def _is_async(function: object) -> bool:
    import inspect

    # Of an object the __call__ of its class tells.
    call = inspect.getattr_static(type(function), "__call__", None)
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)


def _refuse_decoration(function: object) -> None:
    import inspect

    what = None
    if inspect.isclass(function):
        what = "a class"
    elif isinstance(function, (staticmethod, classmethod)):
        what = f"a {type(function).__name__}: put @{type(function).__name__} above it"
    elif inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        what = "a generator function"
    elif not callable(function):
        what = f"a {type(function).__name__}"
    if what is not None:
        raise TypeError(f"guard() decorates functions and coroutine functions, not {what}")


def _here() -> tuple[int, int]:
    """What runs now: the thread, and the task in it."""
    loop = _check.running_loop()
    task = None
    if loop is not None:
        task = sys.modules["asyncio.tasks"].current_task(loop)
    return threading.get_ident(), id(task)


def _is_abrupt(error: BaseException | None) -> bool:
    """Whether the block must be left without waiting."""
    if isinstance(error, (GeneratorExit, KeyboardInterrupt, SystemExit)):
        return True
    exceptions = sys.modules.get("asyncio.exceptions")
    return exceptions is not None and isinstance(error, exceptions.CancelledError)


def _add_note(error: BaseException, text: str) -> None:
    try:
        error.add_note(text)
    except Exception:
        # __notes__ was replaced by something else; the exception itself matters more.
        pass


def _warn(report: Report) -> None:
    warnings.warn(LeakWarning(report.text()), stacklevel=_frames_to_caller())


def _frames_to_caller() -> int:
    """The stacklevel of the innermost frame outside this package and contextlib."""
    level = 1
    frame = sys._getframe(1)
    while frame.f_back is not None and _is_ours(frame.f_globals.get("__name__", "")):
        frame = frame.f_back
        level += 1
    return level


def _is_ours(module: str) -> bool:
    return module.startswith("leakguard.") or module == "contextlib"


def _cancel_task(task: Any) -> None:
    try:
        loop = task.get_loop()
        if loop is _check.running_loop() or not loop.is_running():
            task.cancel()
        else:
            loop.call_soon_threadsafe(task.cancel)
    except Exception:
        # The loop is closed; two tasks await each other (RecursionError: no cancel reaches them);
        # or the task's class has its own idea.
        pass


def _wait_until_done(tasks: list[Any], grace: float) -> None:
    import time

    deadline = _check.monotonic() + grace
    pause = 0.0001
    while _check.monotonic() < deadline:
        if not any(not task.done() and task.get_loop().is_running() for task in tasks):
            return
        time.sleep(pause)
        pause = min(pause * 2, 0.05)
