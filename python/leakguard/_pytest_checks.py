"""Runs the checks of a pytest session: begins and ends owners at the right moments."""

from __future__ import annotations

import contextlib
import functools
import os
import warnings
from typing import TYPE_CHECKING, Any

import pytest

from _leakguard_pytest import MARKER, markers_of
from leakguard import _abandoned, _imports, _owner, _tracking
from leakguard._errors import LeakError, LeakWarning, error_of
from leakguard._findings import is_clean
from leakguard._pytest_item import Test, fail_after_setup
from leakguard._pytest_summary import SECTION, finding, show_below
from leakguard._report import Report

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    from _pytest.fixtures import SubRequest

    from leakguard._baseline import Key
    from leakguard._guard import Options
    from leakguard._owner import Owner
    from leakguard._pytest_session import Settings
    from leakguard._pytest_summary import Outcomes, Summary

_TELLING = "leakguard-telling"
_PUTTING_BACK = "leakguard-putting-back"


class Checks:
    """The plugin object: registered where at least one test is to be checked."""

    def __init__(
        self,
        settings: Settings,
        plugins: pytest.PytestPluginManager,
        summary: Summary | None = None,
        outcomes: Outcomes | None = None,
    ) -> None:
        """summary, outcomes: of this process, where each phase of a test is reported before the
        next one begins; else all is told in the reports."""
        self._settings = settings
        self._every = settings.every
        self._plugins = plugins
        self._summary = summary
        self._outcomes = outcomes
        # Of a test's name, where that is all to be noted of a clean one.
        self._count_clean: Callable[[str], None] | None = None
        if summary is not None and settings.baseline is None:
            self._count_clean = summary.clean.add
        self._default = settings.options()
        self._marked: dict[tuple[int, ...], tuple[Sequence[pytest.Mark], Options]] = {}
        self._item: pytest.Item | None = None  # the last one
        self._parent: Any = None  # of the last one
        self._markers_around: list[list[pytest.Mark]] = []  # of that parent and those around it
        self._test: Test | None = None
        self._resting: Test | None = None  # has ended, nothing was born in it
        self._fixtures: dict[pytest.FixtureDef[Any], Owner] = {}  # the wider ones, set up
        self._plain_fixture: object = None  # the last one that is not async
        self._setting_up: list[Owner] = []  # one for another, outermost first
        self._ended: list[tuple[Owner, Report]] = []  # since the last report of a teardown
        self._findings: list[str | dict[str, Any]] = []
        self._failed: Owner | None = None  # of a test that did by itself
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

    def will_put_back(self) -> None:
        """A test's function was replaced, for its call."""
        if not self._plugins.has_plugin(_PUTTING_BACK):
            self._plugins.register(_PuttingBack(self), _PUTTING_BACK)

    def finish(self) -> None:
        """End what `begin` began."""
        for name in (_TELLING, _PUTTING_BACK):
            if self._plugins.has_plugin(name):
                self._plugins.unregister(name=name)
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
            try:
                return (yield)
            except (KeyboardInterrupt, pytest.exit.Exception):
                self._interrupted = True
                raise
            finally:
                if self._test is not None:  # neither its set-up nor its teardown came to the item
                    self.end_test(self._test)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        # No wrapper, which would cost five times as much: what other plugins' wrappers begin before
        # this, they end after the test's teardown.
        if self._test is not None:  # its set-up came to no item, and its teardown failed
            self.end_test(self._test)
        self._item = item
        markers = self._markers_of(item)
        if (markers or not self._every) and not self._settings.wants(item, markers):
            self._forget_resting()
            return
        options = self._default
        if markers:
            try:
                options = self._options_of(markers)
            except (TypeError, ValueError) as error:
                fail_after_setup(item, f"@pytest.mark.{MARKER}: {error}")
                return
        self._begin_test(item, options).take_place()

    def _markers_of(self, item: pytest.Item) -> Sequence[pytest.Mark]:
        """As markers_of; the nodes around are gone through once for all tests in them."""
        if item.parent is not self._parent:
            node = self._parent = item.parent
            self._markers_around = around = []
            while node is not None:
                around.append(node.own_markers)
                node = node.parent
        if any(self._markers_around):
            return markers_of(item)
        for marker in item.own_markers:
            if marker.name == MARKER:
                return markers_of(item)
        return ()

    def _begin_test(self, item: pytest.Item, options: Options) -> Test:
        if item.user_properties:
            item.user_properties[:] = [it for it in item.user_properties if it[0] != MARKER]
        test = self._resting
        if test is not None:
            self._resting = None
            _imports.catch_up()
            if options is test.owner.options and test.owner.begin_again(item.nodeid):
                test.begin(item)
                self._test = test
                return test
            test.owner.drop()
        self._item = item
        owner = _owner.Owner(options, "test", item.nodeid)
        owner.leave_out(self._scopes_of_fixtures)
        self._test = test = Test(item, owner, self)
        return test

    def _forget_resting(self) -> None:
        if self._resting is not None:
            self._resting.owner.drop()
            self._resting = None

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

    def end_test(self, test: Test) -> None:
        """After its last piece; without effect where that has been done."""
        if test is not self._test:
            return
        self._test = None
        test.put_back()
        owner = test.owner
        if self._interrupted:
            owner.drop()
            return
        if owner.rest():
            self._resting = test
            if self._count_clean is not None:
                self._count_clean(owner.name)
                return
            report = None
        if self._outcomes is not None:
            for reported in self._outcomes.of(test.item):
                test.note_outcome(reported)
        if self._resting is not test:
            if test.failed:
                self._failed = owner
            report = owner.end(failed=test.failed)
        if report is not None and not (is_clean(report) and test.skipped):
            self._note(owner, report)
        elif not test.skipped:
            self._note_clean(owner)

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
        found: str | dict[str, Any] = owner.name
        if owner.reason != "test" or self._settings.baseline is not None:
            report = Report([], reason=owner.reason, label=owner.label)
            found = finding(owner, report, self._known(report))
        self._add(found)

    def _add(self, found: str | dict[str, Any]) -> None:
        if self._summary is not None:
            self._summary.add((found,))
        else:
            self._findings.append(found)

    def _note(self, owner: Owner, report: Report) -> None:
        self._begin_telling()
        self._ended.append((owner, report))
        self._add(finding(owner, report, self._known(report)))
        if self._item is not None and not is_clean(report):
            self._item.user_properties.append((MARKER, report.to_json()))

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
        elif self._test is None or fixturedef.func is self._plain_fixture:
            return (yield)
        elif _owner.is_plain(fixturedef.func):
            self._plain_fixture = fixturedef.func
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

    def put_back_function(self) -> None:
        """The call is over."""
        if self._test is not None:
            self._test.put_back_function()

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_teardown(self) -> None:
        # After pytest's own; no wrapper here either. Where that has failed, its report tells.
        if self._test is not None:
            self.end_test(self._test)  # where the set-up did not come as far as to the item
        if not self._ended or self._settings.update:
            return
        failed = self._failed
        raising = [it for owner, it in self._ended if _fails(owner, it) and owner is not failed]
        if raising:
            self._told = raising
            self._raised = error_of(raising[0], "\n\n".join(it.text() for it in raising))
            raise self._raised

    def note_outcome(self, report: pytest.TestReport) -> None:
        """Of a set-up or call."""
        if self._test is not None:
            self._test.note_outcome(report)

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
        else:
            told = []
        for owner, found in ended:
            if _fails(owner, found) and not any(it is found for it in told):
                report.sections.append((f"{SECTION}left by the {owner.reason}", found.text()))
        if self._outcomes is not None and self._item is not None:
            for it in self._outcomes.of(self._item):
                if it.when == "setup" and it.failed:
                    show_below(it, report)

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


class _PuttingBack:
    """The plugin object that puts a test's function back when its call is over."""

    def __init__(self, checks: Checks) -> None:
        self._checks = checks

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_teardown(self) -> None:
        self._checks.put_back_function()


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


def _loop_of_unittest(item: pytest.Item) -> Any:
    """The loop that IsolatedAsyncioTestCase made for this test, or None."""
    runner = getattr(getattr(item, "instance", None), "_asyncioRunner", None)
    return getattr(runner, "_loop", None)
