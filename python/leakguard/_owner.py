"""To whom a resource belongs in a test run: to a test, or to a fixture that outlives tests.

An owner is a block whose code comes in pieces: set-up, call and teardown, each perhaps in a task of
its own. Every piece runs in the owner's scope, so what it creates, directly or not, is the owner's.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import threading
import types

from leakguard import _check, _ledger, _tracking
from leakguard._guard import Guard
from leakguard._report import Report
from leakguard._scope import Scope
from leakguard._verdict import Question, loop_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable
    from typing import Any

    from leakguard._guard import Options
    from leakguard._limits import Watch
    from leakguard._report import Leak
    from leakguard._verdict import Found

_ASYNC = inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR
# What pytest and functools write; inspect.markcoroutinefunction and hypothesis leave their own.
_HARMLESS = frozenset({"pytestmark", "__wrapped__"})


class Owner(Guard):
    """A test (with its function-scoped fixtures), or a wider fixture.

    Made and ended in the thread that runs the tests. It is entered when made.
    """

    def __init__(self, options: Options, reason: str, label: str) -> None:
        """reason: "test" or "fixture"; label: its name in reports."""
        _tracking.ensure(options.kinds)
        # A fixture that is set up for a test is not inside of that test.
        scope = Scope(apart=reason == "fixture")
        self.reason = reason
        super().__init__(options, scope)
        self.own = scope
        self.options = options
        self.label = label
        if reason == "test" and options.label is not None:
            self.label = options.label
        self.name = label
        self._thread = threading.get_ident()
        self._loops: list[Any] = []
        self._left: list[Leak] = []  # found in a loop before that was closed
        self._waited = 0.0
        self._outside: Callable[[], Iterable[int]] = tuple

    def leave_out(self, others: Callable[[], Iterable[int]]) -> None:
        """With scope="process": the scopes of wider fixtures, which answer for themselves."""
        self._outside = others

    def _begin_watch(self, options: Options) -> Watch | None:
        # A wider fixture lives on through tests that have limits of their own, or none.
        return super()._begin_watch(options) if self.reason == "test" else None

    def _is_quiet(self) -> bool:
        return not self._left and super()._is_quiet()

    def _question(self) -> Question:
        whole = self.reason == "test" and not self._options.scoped
        return Question(
            since=self._mark.serial,
            kinds=self._options.kinds,
            rules=self._options.rules,
            scope=0 if whole else self.own.number,
            outside=self._outside() if whole else (),
            asker=self,
        )

    def pause(self) -> None:
        """Other code runs now, in this context."""
        self.own.leave()

    def go_on(self) -> None:
        """The owner's own code again."""
        self.own.enter()

    def drop(self) -> None:
        """End without a look."""
        self.own.leave()
        self._close()

    def rest(self) -> bool:
        """End without a look where nothing was born at all; the next test may `begin_again` with
        this owner, since making and closing one takes longer than a trivial test. Until then it
        stays entered."""
        if self._watch is not None or self._loops or self._left or not self._mark.is_untouched():
            return False
        self._mark.is_guard = False
        return True

    def begin_again(self, name: str) -> bool:
        """Be the owner of this test, of the same options. False where something was born since
        `rest`, or the thread or context is another: then this one is to be dropped, and a new one
        made."""
        if (
            not self._mark.is_untouched()
            or not self.own.is_entered()
            or self._thread != threading.get_ident()
        ):
            return False
        self.name = self.label = name
        if self.options.label is not None:
            self.label = self.options.label
        self._mark.is_guard = True
        self.own.begin_again()
        return True

    def note_loop(self) -> None:
        """The loop that runs here is not this code's own: whoever runs it closes it."""
        loop = _check.running_loop()
        if loop is not None and not self.uses(loop):
            self._loops.append(loop)

    def uses(self, loop: Any) -> bool:
        """Whether this is a loop that `note_loop` noted."""
        return any(known is loop for known in self._loops)

    def check_loop(self, loop: Any) -> None:
        """Look for tasks left on a loop that does not run now, running it while that can help."""
        if (
            threading.get_ident() != self._thread
            or loop.is_closed()
            or loop.is_running()
            or _check.running_loop() is not None
            or self._is_foreign_process()
            or not self._mark.is_current
            or self._mark.is_quiet()
        ):
            return
        polling = _LoopPolling(self._question(), self._options.grace, loop)
        if not polling.found.resources:
            return
        loop.run_until_complete(polling.run_async())
        leaks = polling.found.leaks()
        self._left += leaks
        self._waited += polling.waited if leaks else 0.0
        # By the loop's check: the last look must not find them once more.
        _ledger.report(leaks, polling)

    def end(self, *, failed: bool) -> Report | None:
        """The last look, after the last piece of the owner's code; then its action, except "raise",
        which is the caller's. None where nothing is left.

        failed: it had a failure of its own, which is not to be hidden by a warning.
        """
        if self._is_quiet():
            self.drop()
            return None
        try:
            if self._begin_exit(None):
                for loop in self._loops:
                    self.check_loop(loop)
                self.report = self._whole_report()
                self._act_on(self.report, failed)
            else:
                self.report = Report([], reason=self.reason, label=self.label)
        finally:
            self._close()
        return self.report

    def _whole_report(self) -> Report:
        seen = self._seen()
        polling = _check.Polling(self._question(), self._options.grace)
        polling.run()
        last = polling.report(self._mark, reason=self.reason, label=self.label, seen=seen)
        if not self._left:
            return last
        return Report(
            sorted([*self._left, *last], key=lambda leak: leak.serial),
            waited=self._waited + last.waited,
            label=self.label,
            reason=self.reason,
            hidden=last.hidden,
            notes=last.notes,
            fanout=last.fanout,
            blocking=last.blocking,
        )

    def _act_on(self, report: Report, failed: bool) -> None:
        if self._options.action == "raise":
            _ledger.report(list(report), self)
        elif not (failed and self._options.action == "warn"):
            self._act(report, None)
            self._cancel_sync(report, self._options.grace, None)

    @property
    def raises(self) -> bool:
        """Whether a leak is to fail what it belongs to."""
        action: object = self._options.action
        return action == "raise"


class _LoopPolling(_check.Polling):
    """Looks for tasks of one loop only."""

    __slots__ = ("_loop",)

    def __init__(self, question: Question, grace: float, loop: Any) -> None:
        self._loop = loop
        super().__init__(question, grace)

    def _narrow(self, found: Found) -> None:
        found.abandoned = []
        found.resources = [
            resource
            for resource in found.resources
            if resource.kind == "task" and loop_of(resource.object) is self._loop
        ]


def is_plain(function: object) -> bool:
    """Whether this is, at a glance, a function that is not async and wraps none. inspect takes
    microseconds, which a test that has nothing to do with asyncio should not pay."""
    if type(function) is types.MethodType:
        function = function.__func__
    if type(function) is not types.FunctionType or function.__code__.co_flags & _ASYNC:
        return False
    return _HARMLESS.issuperset(function.__dict__)


def is_async(function: object) -> bool:
    """Whether this is a coroutine function or an async generator function."""
    if is_plain(function):
        return False
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)


def in_scope_of(
    find: Callable[[], Owner | None], function: Callable[..., Any]
) -> Callable[..., Any]:
    """The coroutine or async generator function, or bound method of one, with its code run in its
    owner's scope: whoever runs it may do so in any task and context.

    find: the owner, asked at each call (a plugin may keep what it was given for later calls).
    """
    plain = getattr(function, "__func__", function)
    wrap = _wrap_generator if inspect.isasyncgenfunction(plain) else _wrap_coroutine
    wrapped = wrap(find, plain)
    if isinstance(function, types.MethodType):
        return types.MethodType(wrapped, function.__self__)
    return wrapped


def _wrap_coroutine(
    find: Callable[[], Owner | None], function: Callable[..., Any]
) -> Callable[..., Any]:
    @functools.wraps(function)
    async def run_in_scope(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        with _running(find()):
            return await function(*args, **kwargs)

    return run_in_scope


def _wrap_generator(
    find: Callable[[], Owner | None], function: Callable[..., Any]
) -> Callable[..., Any]:
    @functools.wraps(function)
    async def run_in_scope(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, None]:
        __tracebackhide__ = True
        owner = find()
        generator = function(*args, **kwargs)
        try:
            while True:
                with _running(owner):
                    try:
                        value = await generator.__anext__()
                    except StopAsyncIteration:
                        return
                yield value
        finally:
            await generator.aclose()

    return run_in_scope


def _running(owner: Owner | None) -> contextlib.AbstractContextManager[None]:
    if owner is None:
        return contextlib.nullcontext()
    owner.note_loop()
    return owner.own.run()
