"""The pytest plugin: no test leaves anything behind, and the right test gets the blame.

Off unless asked for: `--leakguard` or ini `leakguard = true` (every test), the marker `leakguard`
(a test, class or module), the fixture `no_leaks` (one test).
"""

from __future__ import annotations

from pathlib import Path

import pytest

from leakguard._check import parse_grace
from leakguard._pytest_checks import FIXTURE, Checks, Settings
from leakguard._pytest_summary import Summary

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from leakguard._baseline import Baseline
    from leakguard._rules import IgnoreRule

_MARKER = (
    "leakguard(on=True, *, grace=1.0, kinds=None, ignore=(), action='raise', ...): check that this "
    "test leaves no task or thread behind, with the arguments of leakguard.guard; "
    "leakguard(False) switches that off."
)
_CHECKS = "leakguard-checks"
_SUMMARY = "leakguard-summary"
_SETTINGS: pytest.StashKey[Settings] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("leakguard", "leaked tasks and threads")
    group.addoption(
        "--leakguard",
        action="store_true",
        default=False,
        help="check every test: an error for each that leaves a task or a thread behind",
    )
    group.addoption(
        "--leakguard-baseline",
        metavar="FILE",
        help="leaks that are known, and do not fail a test (for a gradual start)",
    )
    group.addoption(
        "--leakguard-update-baseline",
        action="store_true",
        default=False,
        help="write the leaks of this run to the baseline FILE instead of failing",
    )
    parser.addini("leakguard", "check every test", type="bool", default=False)
    parser.addini(
        "leakguard_grace",
        "seconds that a test's tasks and threads get to end by themselves",
        default="1.0",
    )
    parser.addini(
        "leakguard_ignore",
        "ignore rules, one a line, as in [tool.leakguard]: "
        '{ function = "Client._read", reason = "why it may stay" }',
        type="linelist",
        default=[],
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", _MARKER)
    settings = config.stash[_SETTINGS] = _settings(config)
    # With pytest-xdist this process only gathers what its workers' reports say.
    if config.getoption("dist", "no") != "no" and not _is_worker(config):
        config.pluginmanager.register(Summary(settings), _SUMMARY)


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    settings = session.config.stash[_SETTINGS]
    if settings.every or any(settings.wants(item) for item in session.items):
        _checks(session.config)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    checks = config.pluginmanager.unregister(name=_CHECKS)
    if checks is not None:
        checks.finish()


@pytest.fixture(name=FIXTURE)
def _no_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Check that this test leaves no task and no thread behind."""
    config = request.config
    if not config.pluginmanager.has_plugin(_CHECKS):
        # The loop over the tests has begun without the filter that the checks put around it.
        config.getini("filterwarnings").insert(0, "always::leakguard.LeakWarning")
    with _checks(config).from_here(request.node):
        yield


def _checks(config: pytest.Config) -> Checks:
    """The plugin object that checks; registered by the first that needs it, so that a run without
    checks pays for none."""
    found: Checks | None = config.pluginmanager.get_plugin(_CHECKS)
    if found is None:
        settings = config.stash[_SETTINGS]
        manager = config.pluginmanager
        summary = None if _is_worker(config) else Summary(settings)
        found = Checks(settings, manager, summary if _logs_at_once(config) else None)
        found.begin()
        manager.register(found, _CHECKS)
        if summary is not None:
            summary.checks = found
            manager.register(summary, _SUMMARY)
    return found


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
