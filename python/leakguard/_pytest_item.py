"""One test as pytest's item: what is replaced on it while it is checked, and put back."""

from __future__ import annotations

import functools
import inspect

import pytest

from leakguard import _owner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from leakguard._owner import Owner
    from leakguard._pytest_checks import Checks

    _Replaced = tuple[object, Callable[[], None] | None]  # ours, and what the item had of its own

_Function = pytest.Function


class Test:
    """The test that runs now; when it has left nothing behind, the next one after it."""

    __slots__ = (
        "_checks",
        "_function",
        "_plain",
        "_setup_here",
        "_teardown_here",
        "failed",
        "item",
        "owner",
        "skipped",
    )

    def __init__(self, item: pytest.Item, owner: Owner, checks: Checks) -> None:
        self.owner = owner
        self._checks = checks
        self._function: tuple[Any, str, Any] | None = None
        self._setup_here: _Replaced | None = None
        self._teardown_here: _Replaced | None = None
        self._plain: object = None  # the function of the last test that had one that is not async
        self.begin(item)

    def begin(self, item: pytest.Item) -> None:
        self.item = item
        self.failed = False  # by itself, before the check
        self.skipped = False  # instead of being set up

    def note_outcome(self, report: pytest.TestReport) -> None:
        """Of its set-up or call, as the report says: other plugins may have changed that."""
        if report.when != "teardown":
            self.failed |= report.failed or _failed_as_expected(report)
            self.skipped |= report.skipped and report.when == "setup"

    def take_place(self) -> None:
        """Have it end after the node's own teardown, which is what pytest calls last of a test,
        after all its fixtures' and before those of wider fixtures; and an async test prepared after
        the node's own set-up."""
        item = self.item
        own = item.__dict__.get("teardown")
        ours = functools.partial(self._teardown, item, own)
        item.teardown = ours  # type: ignore[method-assign]
        self._teardown_here = ours, own
        if type(item) is _Function:
            function = item.obj
            if function is self._plain:
                return
            if _owner.is_plain(function):
                self._plain = function
                return
        own = item.__dict__.get("setup")
        ours = functools.partial(self._setup, item, own)
        item.setup = ours  # type: ignore[method-assign]
        self._setup_here = ours, own

    # A later plugin may have kept these two, and call them when the item is run once more.
    def _setup(self, item: pytest.Item, own: Callable[[], None] | None) -> None:
        __tracebackhide__ = True
        if item is self.item:
            self._put_back_setup()
        _call(item, "setup", own)
        if item is self.item:
            self.prepare_call()

    def _put_back_setup(self) -> None:
        if self._setup_here is not None:
            here, self._setup_here = self._setup_here, None
            _put_back(self.item, "setup", *here)

    def _teardown(self, item: pytest.Item, own: Callable[[], None] | None) -> None:
        __tracebackhide__ = True
        if item is self.item:
            self.put_back()
        try:
            _call(item, "teardown", own)
        finally:
            if item is self.item:
                self._checks.end_test(self)

    def prepare_call(self) -> None:
        """Have an async test run in the owner's scope, whoever runs it."""
        instance = getattr(self.item, "instance", None)
        if instance is not None:
            context = getattr(instance, "_asyncioTestContext", None)
            if context is not None:
                self.owner.own.enter_in(context)
        if self._function is not None:
            return
        place, name = _async_function_of(self.item)
        if place is not None:
            function = getattr(place, name)
            self._function = place, name, function
            self._checks.will_put_back()
            setattr(place, name, _owner.in_scope_of(self._checks.owner_of_test, function))

    def put_back_function(self) -> None:
        """The call is over."""
        if self._function is not None:
            place, name, function = self._function
            self._function = None
            setattr(place, name, function)

    def put_back(self) -> None:
        """Put back what this has replaced."""
        if self._function is not None:
            self.put_back_function()
        if self._teardown_here is not None:
            self._put_back_setup()
            here, self._teardown_here = self._teardown_here, None
            _put_back(self.item, "teardown", *here)


def _call(item: pytest.Item, name: str, own: Callable[[], None] | None) -> None:
    """What stood in the place of ours: what the item had of its own there, or its class's method.
    What stands there now may be a later plugin's, which has called ours."""
    __tracebackhide__ = True
    if own is not None:
        own()
    else:
        getattr(type(item), name)(item)


def _put_back(item: pytest.Item, name: str, ours: object, own: object) -> None:
    """The attribute of this item, where it is still ours."""
    if item.__dict__.get(name) is ours:
        if own is None:
            delattr(item, name)
        else:
            setattr(item, name, own)


def fail_after_setup(item: pytest.Item, message: str) -> None:
    """What other plugins begin in the set-up, they end in the teardown."""
    own = item.__dict__.get("setup")

    def setup() -> None:
        _put_back(item, "setup", setup, own)
        _call(item, "setup", own)
        pytest.fail(message, pytrace=False)

    item.setup = setup  # type: ignore[method-assign]


def _failed_as_expected(report: pytest.TestReport) -> bool:
    return report.skipped and hasattr(report, "wasxfail")


def _async_function_of(item: pytest.Item) -> tuple[Any, str]:
    """Where the coroutine function of an async test stands, for the plugin that will run it."""
    function = getattr(item, "obj", None)
    if _owner.is_plain(function):
        return None, ""
    hypothesis = getattr(function, "hypothesis", None)
    inner = getattr(hypothesis, "inner_test", None)
    if inspect.iscoroutinefunction(inner):
        return hypothesis, "inner_test"
    return (item, "obj") if inspect.iscoroutinefunction(function) else (None, "")
