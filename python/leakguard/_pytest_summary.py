"""What a pytest run found: gathered from the tests' reports, told at its end.

With pytest-xdist the checks run in the workers and the summary in the process that started them;
all goes through the reports.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from leakguard._baseline import Key
    from leakguard._findings import Fanout
    from leakguard._owner import Owner
    from leakguard._pytest_session import Settings
    from leakguard._report import Leak, Report


# pytest shows a section of a passed teardown with the test's failure if "teardown" is in its name.
SECTION = "leakguard teardown: "


def finding(owner: Owner, report: Report, known: Iterable[Key]) -> dict[str, Any]:
    """What one check found: plain values, which travel between processes.

    known: what is in the baseline, or is to be.
    """
    return {
        "test": owner.reason == "test",
        "name": owner.name,
        "leaks": sorted({_line(leak) for leak in report}),
        "limits": sorted({_limit_line(fanout) for fanout in report.fanout}),
        "blocks": len(report.blocking),
        "known": sorted(set(known)),
        "hidden": sum(count for _, _, count in report.hidden),
    }


def _line(leak: Leak) -> str:
    from leakguard._text import frame_text, printable

    site = leak._site
    if site is None:
        where = "created before tracking began"
    else:
        where = f"{'defined' if leak._site_is_definition else 'created'} at {frame_text(site)}"
    return f"{leak.kind} {printable(leak.function)}, {where}"


def _limit_line(fanout: Fanout) -> str:
    from leakguard._text import frame_text

    where = "" if fanout.site is None else f", created at {frame_text(fanout.site)}"
    return f"fan-out of {fanout.kind}{where}"


class Summary:
    """The plugin object that gathers and tells."""

    def __init__(self, settings: Settings, outcomes: Outcomes | None = None) -> None:
        """outcomes: where tests that were not even set up are among the clean ones."""
        self._settings = settings
        self.clean: set[str] = set()  # node ids of tests that left nothing behind
        self._tests: set[str] = set()  # of the others
        self._fixtures: set[str] = set()
        self._sites: dict[str, dict[str, bool]] = {}  # line -> who left it -> whether a test
        self._limits: set[str] = set()  # the lines among these that are about a limit
        self._blocks = 0
        self._known: dict[Key, set[str]] = {}
        self._hidden = 0
        self._gone: list[str] = []
        self._outcomes = outcomes

    def add(self, found: Iterable[str | dict[str, Any]]) -> None:
        """What the checks of one report found: `finding` of each, or a clean test's name."""
        for one in found:
            if isinstance(one, str):  # a test that left nothing behind
                self.clean.add(one)
                continue
            name = one["name"]
            (self._tests if one["test"] else self._fixtures).add(name)
            self._hidden += one["hidden"]
            self._limits.update(one["limits"])
            self._blocks += one["blocks"]
            for line in (*one["leaks"], *one["limits"]):
                self._sites.setdefault(line, {})[name] = one["test"]
            if one["known"]:
                self._add_known(one["known"], without_parameters(name))

    def _add_known(self, keys: Iterable[Any], name: str) -> None:
        from leakguard._baseline import key_from_json

        for key in keys:
            self._known.setdefault(key_from_json(key), set()).add(name)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        baseline = self._settings.baseline
        if baseline is None:
            return
        ran = {without_parameters(name) for name in self._checked() | self._fixtures}
        self._gone = [str(entry) for entry in baseline.gone(self._known, ran)]
        if self._settings.update:
            from leakguard._baseline import save

            baseline.update(self._known, ran)
            save(baseline)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        asked = self._settings.every and not terminalreporter.config.option.collectonly
        tests = self._checked()
        if not tests and not self._fixtures and not asked:
            return
        checked = _plural(len(tests), "test") + " checked"
        if self._sites:
            terminalreporter.section("leakguard")
            by_count = sorted(self._sites.items(), key=lambda it: (-len(it[1]), it[0]))
            counts = [_who(owners) for _, owners in by_count]
            width = max(map(len, counts))
            for count, (line, _) in zip(counts, by_count, strict=True):
                terminalreporter.write_line(f"{count:<{width}}  {line}")
            sites = len(self._sites) - len(self._limits)
            leaks = f"leaks from {_plural(sites, 'site')}" if sites else "no leaks"
            terminalreporter.write_line(f"leakguard: {checked}, {leaks}{self._more()}")
        else:
            terminalreporter.write_line(f"leakguard: {checked}, no leaks{self._more()}")
        self._tell_baseline(terminalreporter)

    def _checked(self) -> set[str]:
        skipped = self._outcomes.skipped() if self._outcomes is not None else set()
        return self._tests | (self.clean - skipped)

    def _more(self) -> str:
        more = f", a limit exceeded at {_plural(len(self._limits), 'site')}" if self._limits else ""
        if self._blocks:
            more += f", {_plural(self._blocks, 'time')} an event loop was blocked"
        return more + (f", {self._hidden} hidden by rules" if self._hidden else "")

    def _tell_baseline(self, terminalreporter: pytest.TerminalReporter) -> None:
        baseline = self._settings.baseline
        if baseline is None:
            return
        if self._settings.update:
            entries = _plural(len(baseline.entries), "entry", "entries")
            text = f"leakguard: wrote {baseline.path} ({entries})"
            terminalreporter.write_line(
                f"{text}; {len(self._gone)} taken out" if self._gone else text
            )
        elif self._gone:
            entries = _plural(len(self._gone), "entry", "entries")
            terminalreporter.write_line(
                f"leakguard: {entries} of {baseline.path} no longer occur; take them out, or run "
                "with --leakguard-update-baseline:"
            )
            for entry in self._gone:
                terminalreporter.write_line(f"  {entry}")


class Gathering:
    """The plugin object that hands on what the reports say, of this process or of others."""

    def __init__(self, summary: Summary) -> None:
        self._summary = summary
        self._failed_setup: pytest.TestReport | None = None

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "setup":
            self._failed_setup = report if report.failed else None
        found = report.__dict__.get("leakguard")
        if found is not None:
            self._summary.add(found)
            failed = self._failed_setup
            if failed is not None and failed.nodeid == report.nodeid:
                show_below(failed, report)


class Outcomes:
    """How tests ended, as pytest's own reporter keeps it: a hook of ours that is called for each
    report would take a sixth of what checking a clean test takes."""

    def __init__(self, stats: dict[str, list[Any]]) -> None:
        """stats: what a TerminalReporter fills, whatever names its categories are given."""
        self._stats = stats

    def of(self, item: pytest.Item) -> list[pytest.TestReport]:
        """What was reported of the test that runs now."""
        nodeid = item.nodeid
        found = []
        for reports in self._stats.values():
            for report in reversed(reports):
                if getattr(report, "nodeid", None) != nodeid:
                    break
                if isinstance(report, pytest.TestReport):
                    found.append(report)
        return found

    def skipped(self) -> set[str]:
        """The node ids of tests that were skipped instead of being set up."""
        return {
            report.nodeid
            for category, reports in self._stats.items()
            if category not in ("", "passed")  # pytest's own names, and nearly all there is
            for report in reports
            if isinstance(report, pytest.TestReport) and report.when == "setup" and report.skipped
        }


def show_below(failed: pytest.TestReport, teardown: pytest.TestReport) -> None:
    """pytest shows a teardown's sections below a failed call, not below a failed set-up."""
    failed.sections += [it for it in teardown.sections if it[0].startswith(SECTION)]


def without_parameters(name: str) -> str:
    """The node id of a parametrised test without what stands in brackets."""
    return name.partition("[")[0]


def _who(owners: dict[str, bool]) -> str:
    tests = sum(owners.values())
    parts = []
    if tests:
        parts.append(_plural(tests, "test"))
    if len(owners) > tests:
        parts.append(_plural(len(owners) - tests, "fixture"))
    return ", ".join(parts)


def _plural(count: int, noun: str, nouns: str = "") -> str:
    return f"{count} {noun if count == 1 else nouns or noun + 's'}"
