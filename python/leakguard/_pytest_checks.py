"""Runs the checks of a pytest session: begins and ends owners at the right moments."""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
import warnings
from typing import TYPE_CHECKING, Any

import pytest

from _leakguard_pytest import MARKER, markers_of
from leakguard import _abandoned, _imports, _owner, _tracking
from leakguard._errors import LeakError, LeakWarning, error_of
from leakguard._findings import is_clean
from leakguard._pytest_summary import SECTION, finding
from leakguard._report import Report

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    from _pytest.fixtures import SubRequest

    from leakguard._baseline import Key
    from leakguard._guard import Options
    from leakguard._owner import Owner
    from leakguard._pytest_session import Settings
    from leakguard._pytest_summary import Summary

_TELLING = "leakguard-telling"


class _Test:
    """The test that runs now."""

    __slots__ = ("_checks", "_function", "_own_teardown", "failed", "item", "owner", "skipped")

    def __init__(self, item: pytest.Item, owner: Owner, checks: Checks) -> None:
        self.item = item
        self.owner = owner
        self._checks = checks
        self.failed = False  # by itself, before the check
        self.skipped = False  # instead of being set up
        self._own_teardown: Callable[[], None] | None = None
        self._function: tuple[Any, str, Any] | None = None

    def end_in_teardown(self) -> None:
        """Have it end after the node's own teardown, which is what pytest calls last of a test,
        after all its fixtures' and before those of wider fixtures."""
        item = self.item
        self._own_teardown = item.teardown
        item.teardown = self._teardown  # type: ignore[method-assign]

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
        own = self._own_teardown
        if own is not None:
            self._own_teardown = None
            del self.item.teardown  # the class's again
            if self.item.teardown != own:
                self.item.teardown = own  # type: ignore[method-assign]


class Checks:
    """The plugin object: registered where at least one test is to be checked."""

    def __init__(
        self, settings: Settings, plugins: pytest.PytestPluginManager, summary: Summary | None
    ) -> None:
        """summary: of this process, which is told of clean tests at once; None where only reports
        come to one."""
        self._settings = settings
        self._plugins = plugins
        self._summary = summary
        self._default = settings.options()
        self._marked: dict[tuple[int, ...], tuple[Sequence[pytest.Mark], Options]] = {}
        self._test: _Test | None = None
        self._resting: Owner | None = None  # of a test that has ended; with the default options
        self._fixtures: dict[pytest.FixtureDef[Any], Owner] = {}  # the wider ones, set up
        self._setting_up: list[Owner] = []  # one for another, outermost first
        self._ended: list[tuple[Owner, Report]] = []  # since the last report of a teardown
        self._findings: list[str | dict[str, Any]] = []
        self._raised: LeakError | None = None
        self._told: list[Report] = []  # in that error
        self._interrupted = False
        self._was_installed = True

    def begin(self) -> None:
        """Begin tracking."""
        self._was_installed = _tracking.is_installed()
        _tracking.ensure(self._default.kinds)
        _abandoned.before_close(self._loop_closes)
        if self._summary is None:
            self._begin_telling()

    def _begin_telling(self) -> None:
        if not self._plugins.has_plugin(_TELLING):
            self._plugins.register(_Telling(self), _TELLING)

    def finish(self) -> None:
        """End what `begin` began."""
        if self._plugins.has_plugin(_TELLING):
            self._plugins.unregister(name=_TELLING)
        self._forget_resting()
        _abandoned.no_longer_before_close(self._loop_closes)
        if not self._was_installed:
            _tracking.uninstall()

    @contextlib.contextmanager
    def from_here(self, item: pytest.Item) -> Iterator[None]:
        """For a test that asks for its check only now, in the midst of its set-up or call."""
        if self._test is not None:
            yield
            return
        test = self._begin_test(item, self._options_of(markers_of(item)))
        if os.environ.get("PYTEST_CURRENT_TEST", "").endswith("(setup)"):
            test.prepare_call()
        try:
            yield
        finally:
            self.end_test(test)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Generator[None, object, object]:
        # Python shows no ResourceWarning by default. pytest puts the user's own filters before
        # this one for each test; among them, this one would be put there for each test as well.
        with warnings.catch_warnings():
            if session.config.pluginmanager.has_plugin("warnings"):
                warnings.filterwarnings("always", category=LeakWarning)
            return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None, object, object]:
        markers = markers_of(item)
        if not self._settings.wants(item, markers):
            result = yield
        else:
            try:
                options = self._options_of(markers) if markers else self._default
            except (TypeError, ValueError) as error:
                yield  # what other plugins begin here, they end in the teardown
                pytest.fail(f"@pytest.mark.{MARKER}: {error}", pytrace=False)
            self._begin_test(item, options).end_in_teardown()
            result = yield
        if self._test is not None:  # a fixture may have asked for it only now
            self._test.prepare_call()
        return result

    def _begin_test(self, item: pytest.Item, options: Options) -> _Test:
        if item.user_properties:
            item.user_properties[:] = [it for it in item.user_properties if it[0] != MARKER]
        test = self._test = _Test(item, self._owner_for(options, item.nodeid), self)
        return test

    def _owner_for(self, options: Options, name: str) -> Owner:
        resting = self._resting
        if resting is not None:
            _imports.catch_up()
            if options is resting.options and resting.begin_again(name):
                self._resting = None
                return resting
            self._forget_resting()
        owner = _owner.Owner(options, "test", name)
        owner.leave_out(self._scopes_of_fixtures)
        return owner

    def _forget_resting(self) -> None:
        resting, self._resting = self._resting, None
        if resting is not None:
            resting.close()

    def _scopes_of_fixtures(self) -> list[int]:
        return [it.own.number for it in self._fixtures.values()]

    def _options_of(self, markers: Sequence[pytest.Mark]) -> Options:
        """Of all its markers; of two that give an argument, the closer one's counts."""
        if not markers:
            return self._default
        key = tuple(map(id, markers))
        known = self._marked.get(key)
        if known is None:
            # With the markers, whose identity nothing else may have then.
            known = self._marked[key] = markers, self._options_given(markers)
        return known[1]

    def _options_given(self, markers: Sequence[pytest.Mark]) -> Options:
        given: dict[str, Any] = {}
        for marker in reversed(markers):
            if len(marker.args) > 1 or not all(isinstance(it, bool) for it in marker.args):
                raise TypeError(
                    f"allowed are True or False, and keyword arguments, not {marker.args!r}"
                )
            given.update(marker.kwargs)
        return self._settings.options(**given) if given else self._default

    def end_test(self, test: _Test) -> None:
        """After its last piece; without effect where that has been done."""
        if test is not self._test:
            return
        self._test = None
        test.put_back()
        if self._interrupted:
            test.owner.drop()
        elif test.owner.rest():
            self._resting = test.owner
            if not test.skipped:
                self._note_clean(test.owner)
        else:
            report = test.owner.end(failed=test.failed)
            if report is not None and not (is_clean(report) and test.skipped):
                self._note(test.owner, report)
            elif not test.skipped:
                self._note_clean(test.owner)

    def _end_fixture(self, fixturedef: pytest.FixtureDef[Any]) -> None:
        owner = self._fixtures.pop(fixturedef)
        if self._interrupted:
            owner.drop()
        else:
            report = owner.end(failed=False)
            if report is None:
                self._note_clean(owner)
            else:
                self._note(owner, report)

    def _note_clean(self, owner: Owner) -> None:
        summary = self._summary
        found: str | dict[str, Any] = owner.name
        if owner.reason != "test" or self._settings.baseline is not None:
            report = Report([], reason=owner.reason, label=owner.label)
            found = finding(owner, report, self._known(report))
        elif summary is not None:
            summary.add_clean(owner.name)
            return
        if summary is not None:
            summary.add((found,))
        else:
            self._findings.append(found)

    def _note(self, owner: Owner, report: Report) -> None:
        self._begin_telling()
        self._ended.append((owner, report))
        self._findings.append(finding(owner, report, self._known(report)))

    def _known(self, report: Report) -> list[Key]:
        baseline = self._settings.baseline
        if baseline is None:
            return []
        if self._settings.update:
            from leakguard._baseline import key_of

            return [key_of(leak, baseline.root) for leak in report]
        return baseline.take_seen()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_fixture_setup(
        self, fixturedef: pytest.FixtureDef[Any], request: SubRequest
    ) -> Generator[None, object, object]:
        if fixturedef.scope != "function":
            if self._test is None and not self._settings.every:
                return (yield)
            owner = self._begin_fixture(fixturedef, request)
        elif self._test is None or _owner.is_plain(fixturedef.func):
            return (yield)
        else:
            owner = self._test.owner
        function = wrapped = fixturedef.func
        if _owner.is_async(function):
            wrapped = _owner.in_scope_of(self._finder(fixturedef), function)
            fixturedef.func = wrapped  # type: ignore[misc]
        try:
            return (yield)
        finally:
            # aiohttp's plugin puts its own in that place for good.
            if fixturedef.func is wrapped:
                fixturedef.func = function  # type: ignore[misc]
            if owner.reason == "fixture":
                self._end_set_up(owner)
                # Runs before the fixture's own, after those of what depends on it.
                fixturedef.addfinalizer(owner.go_on)

    def _begin_fixture(self, fixturedef: pytest.FixtureDef[Any], request: SubRequest) -> Owner:
        where = f" of {request.node.nodeid}" if request.node.nodeid else ""
        label = f"{fixturedef.argname} ({fixturedef.scope} scope{where})"
        options = self._test.owner.options if self._test is not None else self._default
        owner = _owner.Owner(options, "fixture", label)
        self._fixtures[fixturedef] = owner
        self._setting_up.append(owner)
        # The first one is run last.
        fixturedef.addfinalizer(functools.partial(self._end_fixture, fixturedef))
        return owner

    def owner_of_test(self) -> Owner | None:
        """The owner of the test that runs now."""
        return None if self._test is None else self._test.owner

    def _finder(self, fixturedef: pytest.FixtureDef[Any]) -> Callable[[], Owner | None]:
        if fixturedef.scope == "function":
            return self.owner_of_test
        return lambda: self._fixtures.get(fixturedef)

    def _end_set_up(self, owner: Owner) -> None:
        owner.pause()
        self._setting_up.remove(owner)
        if self._setting_up:
            self._setting_up[-1].own.renew()
        elif self._test is not None:
            self._test.owner.own.renew()

    def _loop_closes(self, loop: Any) -> None:
        """Who ran a test or fixture in a loop is about to close that: the last chance to let its
        tasks end by themselves."""
        owners = [*self._fixtures.values()]
        if self._test is not None:
            owners.append(self._test.owner)
            if _loop_of_unittest(self._test.item) is loop:
                self._test.owner.check_loop(loop)
                return
        for owner in owners:
            if owner.uses(loop):
                owner.check_loop(loop)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None, None, None]:
        test = self._test
        if test is not None:
            test.put_back_function()
        try:
            yield
        finally:
            if test is not None:
                self.end_test(test)  # where the set-up did not come as far as to the item
            for _, report in self._ended:
                if not is_clean(report):
                    item.user_properties.append((MARKER, report.to_json()))
        if not self._ended:
            return
        raising = [
            report
            for owner, report in self._ended
            if _fails(owner, report)
            and not self._settings.update
            and not (test is not None and owner is test.owner and test.failed)
        ]
        if raising:
            self._told = raising
            self._raised = error_of(raising[0], "\n\n".join(it.text() for it in raising))
            raise self._raised

    def note_outcome(self, report: pytest.TestReport) -> None:
        """Of a set-up or call, as its report says: other plugins may have changed that."""
        test = self._test
        if test is not None and report.when != "teardown":
            test.failed |= report.failed or _failed_as_expected(report)
            test.skipped |= report.skipped and report.when == "setup"

    def tell(self, report: pytest.TestReport, call: pytest.CallInfo[None]) -> None:
        """Put what was found since the last one into the report of a teardown."""
        if self._findings:
            report.leakguard, self._findings = self._findings, []  # type: ignore[attr-defined]
        if not self._ended:
            return
        ended, self._ended = self._ended, []
        raised, self._raised = self._raised, None
        told, self._told = self._told, []
        if call.excinfo is not None and raised is not None and call.excinfo.value is raised:
            report.longrepr = _long_text(call.excinfo, raised.report)
        for owner, found in ended:
            if _fails(owner, found) and not any(it is found for it in told):
                report.sections.append((f"{SECTION}left by the {owner.reason}", found.text()))

    def pytest_keyboard_interrupt(self) -> None:
        self._interrupted = True


class _Telling:
    """The plugin object that puts what the checks found into the reports. Its hook, which is called
    three times a test, would take a third of what checking a clean test takes: so it is registered
    where there is something to tell."""

    def __init__(self, checks: Checks) -> None:
        self._checks = checks

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        if call.when == "teardown":
            self._checks.tell(report, call)
        else:
            self._checks.note_outcome(report)
        return report


def _failed_as_expected(report: pytest.TestReport) -> bool:
    return report.skipped and hasattr(report, "wasxfail")


def _fails(owner: Owner, report: Report) -> bool:
    return owner.raises and (not is_clean(report) or bool(report.notes))


def _long_text(error: pytest.ExceptionInfo[BaseException], report: Report) -> Any:
    """The report and nothing else; tools that mark a line are led to the first site."""
    text = error.getrepr(style="value")
    crash = text.reprcrash
    found = report[0]._site if report else report.fanout[0].site if report.fanout else None
    if crash is not None and found is not None and found[1] is not None:
        crash.path, crash.lineno = found[0], found[1]
    return text


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


def _loop_of_unittest(item: pytest.Item) -> Any:
    """The loop that IsolatedAsyncioTestCase made for this test, or None."""
    runner = getattr(getattr(item, "instance", None), "_asyncioRunner", None)
    return getattr(runner, "_loop", None)
