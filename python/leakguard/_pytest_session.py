"""What a pytest run is asked for, and the plugin objects that do it."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from _leakguard_pytest import FIXTURE, markers_of
from leakguard._check import parse_grace
from leakguard._guard import Options
from leakguard._pytest_checks import Checks
from leakguard._pytest_summary import Gathering, Outcomes, Summary

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Any

    from leakguard._baseline import Baseline
    from leakguard._rules import IgnoreRule

_CHECKS = "leakguard-checks"
_SUMMARY = "leakguard-summary"
_GATHERING = "leakguard-gathering"


_ARGUMENTS = (
    "action",
    "blocking",
    "grace",
    "ignore",
    "kinds",
    "label",
    "max_live",
    "scope",
)


class Settings:
    """What the command line and the configuration ask for."""

    def __init__(
        self,
        *,
        every: bool = False,
        grace: float = 1.0,
        rules: Iterable[IgnoreRule] = (),
        baseline: Baseline | None = None,
        update: bool = False,
    ) -> None:
        self.every = every  # test is checked, unless switched off
        self.grace = grace
        self.rules = tuple(rules)
        self.baseline = baseline
        self.update = update  # the baseline is written anew, and no leak fails a test

    def options(self, **arguments: Any) -> Options:
        """Of a test whose markers give these arguments. Raises TypeError or ValueError."""
        for name in arguments:
            if name not in _ARGUMENTS:
                raise TypeError(f"unknown argument {name!r}; allowed: {', '.join(_ARGUMENTS)}")
        options = Options(**{"scope": "descendants", "grace": self.grace, **arguments})
        options.rules += self.rules
        if self.baseline is not None and not self.update:
            options.rules += (self.baseline,)  # type: ignore[operator]  # it acts as a rule
        return options

    def wants(self, item: pytest.Item, markers: Sequence[pytest.Mark] | None = None) -> bool:
        """Whether this test is to be checked. markers: its own, where they are known."""
        for marker in markers_of(item) if markers is None else markers:
            return not marker.args or bool(marker.args[0])
        return self.every or FIXTURE in getattr(item, "fixturenames", ())


_SETTINGS: pytest.StashKey[Settings] = pytest.StashKey()


def settings_of(config: pytest.Config) -> Settings:
    """Read once. Raises pytest.UsageError."""
    found = config.stash.get(_SETTINGS, None)
    if found is None:
        found = config.stash[_SETTINGS] = _settings(config)
    return found


def gather(config: pytest.Config) -> None:
    """Register the summary by itself, of what the reports of other processes say."""
    summary = Summary(settings_of(config))
    config.pluginmanager.register(summary, _SUMMARY)
    config.pluginmanager.register(Gathering(summary), _GATHERING)


def begin(config: pytest.Config, items: Iterable[pytest.Item]) -> None:
    """Register the checks where one of these tests is to be checked."""
    settings = settings_of(config)
    if settings.every or any(settings.wants(item) for item in items):
        checks_of(config)


def finish(config: pytest.Config) -> None:
    """End what `begin` or `checks_of` began."""
    checks = config.pluginmanager.unregister(name=_CHECKS)
    if checks is not None:
        checks.finish()


@contextlib.contextmanager
def checks_from_here(item: pytest.Item) -> Iterator[None]:
    """Check a test that asks for it in the midst of its set-up or call."""
    config = item.config
    if not config.pluginmanager.has_plugin(_CHECKS):
        # The loop over the tests has begun without the filter that the checks put around it.
        config.getini("filterwarnings").insert(0, "always::leakguard.LeakWarning")
    with checks_of(config).from_here(item):
        yield


def checks_of(config: pytest.Config) -> Checks:
    """The plugin object that checks; registered by the first that needs it, so that a run without
    checks pays for none."""
    found: Checks | None = config.pluginmanager.get_plugin(_CHECKS)
    if found is None:
        settings = settings_of(config)
        manager = config.pluginmanager
        outcomes = _outcomes(config)
        if outcomes is not None:
            summary = Summary(settings, outcomes)
            manager.register(summary, _SUMMARY)
            found = Checks(settings, manager, summary, outcomes)
        else:
            found = Checks(settings, manager)
            if not _is_worker(config):
                gather(config)
        found.begin()
        manager.register(found, _CHECKS)
    return found


def _outcomes(config: pytest.Config) -> Outcomes | None:
    """Where pytest's reporter knows how each phase of a test ended before the next one begins."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if not isinstance(reporter, pytest.TerminalReporter):
        return None
    if _is_worker(config) or not _logs_at_once(config):
        return None
    return Outcomes(reporter.stats)


def _logs_at_once(config: pytest.Config) -> bool:
    """Whether each phase of a test is logged before the next one begins: by pytest itself, but not
    by a plugin that runs tests its own way (again and again, or in a child process)."""
    runners = config.hook.pytest_runtest_protocol.get_hookimpls()
    return all(it.wrapper or it.hookwrapper or it.plugin_name == "runner" for it in runners)


def _is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


def _settings(config: pytest.Config) -> Settings:
    update = config.getoption("leakguard_update_baseline")
    return Settings(
        every=config.getoption("leakguard") or config.getini("leakguard"),
        grace=_grace(config.getini("leakguard_grace")),
        rules=_rules(config.getini("leakguard_ignore")),
        baseline=_baseline_of(config.getoption("leakguard_baseline"), config.rootpath, update),
        update=update,
    )


def _rules(lines: list[str]) -> list[IgnoreRule]:
    if not lines:
        return []
    from leakguard._config import rule_from_line

    rules = []
    for line in lines:
        try:
            rules.append(rule_from_line(line))
        except (TypeError, ValueError) as error:
            raise pytest.UsageError(f"leakguard_ignore: {line!r}: {error}") from None
    return rules


def _grace(given: str) -> float:
    try:
        return parse_grace(float(given))
    except ValueError:
        raise pytest.UsageError(
            f"leakguard_grace is {given!r}; allowed: a number of seconds, 0 or more"
        ) from None


def _baseline_of(given: str | None, root: Path, update: bool) -> Baseline | None:
    if given is None:
        if update:
            raise pytest.UsageError("--leakguard-update-baseline needs --leakguard-baseline FILE")
        return None
    from leakguard._baseline import Baseline, load

    path = Path(given).absolute()
    try:
        return load(path, root)
    except FileNotFoundError:
        if update:
            return Baseline(path, root, ())
        raise pytest.UsageError(
            f"--leakguard-baseline {given}: no such file; to write it, add "
            "--leakguard-update-baseline"
        ) from None
    except (OSError, ValueError) as error:
        raise pytest.UsageError(f"--leakguard-baseline {given}: {error}") from None
