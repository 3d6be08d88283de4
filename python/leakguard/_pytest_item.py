"""One test as pytest's item: what is replaced on it while it is checked, and put back."""

from __future__ import annotations

import inspect

import pytest

from leakguard import _owner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from leakguard._owner import Owner
    from leakguard._pytest_checks import Checks

_Function = pytest.Function


class Test:
    """The test that runs now; when it has left nothing behind, the next one after it."""

    __slots__ = (
        "_checks",
        "_function",
        "_is_in_place",
        "_is_setup_in_place",
        "_own_setup",
        "_own_teardown",
        "_plain",
        "failed",
        "item",
        "owner",
        "skipped",
    )

    def __init__(self, item: pytest.Item, owner: Owner, checks: Checks) -> None:
        self.owner = owner
        self._checks = checks
        self._function: tuple[Any, str, Any] | None = None
        self._own_setup: Callable[[], None] | None = None
        self._own_teardown: Callable[[], None] | None = None
        self._is_in_place = self._is_setup_in_place = False
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
        self._is_in_place = True
        self._own_teardown = item.__dict__.get("teardown")
        item.teardown = self._teardown  # type: ignore[method-assign]
        if type(item) is _Function:
            function = item.obj
            if function is self._plain:
                return
            if _owner.is_plain(function):
                self._plain = function
                return
        self._is_setup_in_place = True
        self._own_setup = item.__dict__.get("setup")
        item.setup = self._setup  # type: ignore[method-assign]

    def _setup(self) -> None:
        __tracebackhide__ = True
        self._put_back_setup()
        self.item.setup()
        self.prepare_call()

    def _put_back_setup(self) -> None:
        self._is_setup_in_place = False
        _put_back(self.item, "setup", self._setup, self._own_setup)

    def _teardown(self) -> None:
        __tracebackhide__ = True
        self.put_back()
        try:
            self.item.teardown()
        finally:
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
        if self._is_in_place:
            self._is_in_place = False
            item = self.item
            if self._is_setup_in_place:
                self._put_back_setup()
            if self._own_teardown is None:
                del item.teardown  # the class's again
            else:
                item.teardown = self._own_teardown  # type: ignore[method-assign]


def _put_back(item: pytest.Item, name: str, ours: object, own: object) -> None:
    """The attribute of this item, where it is still ours."""
    if item.__dict__.get(name) == ours:
        if own is None:
            delattr(item, name)
        else:
            setattr(item, name, own)


def fail_after_setup(item: pytest.Item, message: str) -> None:
    """What other plugins begin in the set-up, they end in the teardown."""
    own = item.__dict__.get("setup")

    def setup() -> None:
        _put_back(item, "setup", setup, own)
        item.setup()
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
