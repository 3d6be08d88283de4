"""The pytest plugin: no test leaves anything behind, and the right test gets the blame.

Off unless asked for: `--leakguard` or ini `leakguard = true` (every test), the marker `leakguard`
(a test, class or module), the fixture `no_leaks` (one test).
"""

from __future__ import annotations

from pathlib import Path

import pytest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from leakguard._pytest_checks import Settings

_MARKER = (
    "leakguard(on=True, *, grace=1.0, kinds=None, ignore=(), action='raise', ...): check that this "
    "test leaves no task or thread behind, with the arguments of leakguard.guard; "
    "leakguard(False) switches that off."
)
_CHECKS = "leakguard-checks"
_SUMMARY = "leakguard-summary"


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
    if config.getoption("leakguard_update_baseline") and not config.getoption("leakguard_baseline"):
        raise pytest.UsageError("--leakguard-update-baseline needs --leakguard-baseline FILE")
    # With pytest-xdist this process only collects what the workers' reports say.
    if config.getoption("dist", "no") != "no" and not hasattr(config, "workerinput"):
        _register_summary(config, _settings(config))


def pytest_collection_finish(session: pytest.Session) -> None:
    config = session.config
    every = config.getoption("leakguard") or config.getini("leakguard")
    if not any(_is_checked(item, every) for item in session.items):
        if every:
            _register_summary(config, _settings(config))
        return
    from leakguard._pytest_checks import Checks

    settings = _settings(config)
    checks = Checks(settings, [item for item in session.items if _is_checked(item, every)], every)
    config.pluginmanager.register(checks, _CHECKS)
    checks.begin()
    _register_summary(config, settings)


def pytest_unconfigure(config: pytest.Config) -> None:
    checks = config.pluginmanager.unregister(name=_CHECKS)
    if checks is not None:
        checks.finish()


@pytest.fixture
def no_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Checks that this test leaves no task and no thread behind."""
    checks = request.config.pluginmanager.get_plugin(_CHECKS)
    yield
    ...


def _is_checked(item: pytest.Item, every: bool) -> bool:
    marker = item.get_closest_marker("leakguard")
    if marker is not None:
        return marker.args[:1] != (False,)
    return every or "no_leaks" in getattr(item, "fixturenames", ())
